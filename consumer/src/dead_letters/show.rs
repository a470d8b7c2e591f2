//! Formats dead letters: one line each, or one as a document with its bytes and the record that they hold, if they
//! can be decoded by now.

use std::fmt::Write;

use schemas::Micros;
use serde_json::{Value, json};

use super::DeadLetter;
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::Plans;

/// Bytes shown of a payload.
const SHOWN_BYTES_MAX: usize = 4_096;
const LINE_BYTES: usize = 16;

/// One line for each.
pub fn list(letters: &[DeadLetter]) -> String {
    let mut page = format!("{:<32} {:>15} {:<16} {:>8} {}\n", "origin", "sent", "code", "replays", "reason");
    for letter in letters {
        let origin = format!("{}/{}/{}", letter.origin.topic, letter.origin.partition, letter.origin.offset);
        let reason: String = letter.reason.chars().take(120).collect();
        writeln!(
            page,
            "{origin:<32} {:>15} {:<16} {:>8} {reason}",
            time(letter.sent_at_ms),
            letter.code,
            letter.replays
        )
        .expect("a String takes all");
    }
    writeln!(page, "{} dead letters", letters.len()).expect("a String takes all");
    page
}

/// Everything that is known of a dead letter. `table` is the table that its topic fills.
pub fn show(letter: &DeadLetter, table: Option<Table>, plans: &mut Plans) -> Value {
    let holds = table.map(|table| match decode(table, &letter.payload, plans) {
        Ok(Decoded::Exposure(exposure)) => json!({ "exposure": exposure }),
        Ok(Decoded::Conversion(conversion)) => json!({ "conversion": conversion }),
        Ok(Decoded::Alias(alias)) => json!({ "alias": alias }),
        Ok(Decoded::Change(change)) => json!({ "change_of": change.key }),
        Ok(Decoded::Look(record)) => json!({ "look_at": record.experiment }),
        Err(error) => json!({ "error": error.to_string(), "code": error.code() }),
    });
    let mut shown = serde_json::to_value(letter).expect("a letter is text and numbers");
    shown["whole"] = json!(letter.payload.len() as u64 == letter.payload_bytes);
    shown["hex"] = json!(dump(&letter.payload[..letter.payload.len().min(SHOWN_BYTES_MAX)]));
    shown["decodes_now"] = holds.unwrap_or(Value::Null);
    shown
}

fn time(ms: i64) -> String {
    Micros::new(ms.saturating_mul(1_000)).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

/// Lines of sixteen bytes: the position, the bytes in hexadecimal, and the bytes as text.
fn dump(bytes: &[u8]) -> Vec<String> {
    let line = |(at, bytes): (usize, &[u8])| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        format!("{:08x}  {:<47}  {text}", at * LINE_BYTES, hex.join(" "))
    };
    bytes.chunks(LINE_BYTES).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::schema_cache::SchemaCache;

    #[test]
    fn bytes_in_lines_of_sixteen() {
        assert_eq!(
            dump(b"\xc3\x01abcdefghijklmnop"),
            [
                "00000000  c3 01 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 6e  ..abcdefghijklmn",
                "00000010  6f 70                                            op"
            ]
        );
    }

    #[test]
    fn a_letter_says_what_it_is_and_whether_it_is_whole() {
        let letter = DeadLetter {
            origin: Origin { topic: "aliases".to_owned(), partition: 0, offset: 9, epoch: Some(1) },
            code: "not_framed".to_owned(),
            reason: "no header".to_owned(),
            sent_at_ms: 1_000,
            payload_bytes: 5,
            replays: 0,
            payload: b"oops!".to_vec(),
        };
        let shown = show(&letter, Some(Table::Aliases), &mut Plans::new(Arc::new(SchemaCache::new(None))));
        assert_eq!(shown["whole"], json!(true));
        assert_eq!(shown["decodes_now"]["code"], json!("not_framed"));
        assert_eq!(shown["offset"], json!(9));
        assert!(list(&[letter]).contains("aliases/0/9"));
    }
}
