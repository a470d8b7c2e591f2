//! Writes evaluations as the protocol's JSON. Every value has all five fields, since some clients fail without one of them,
//! and a value is never null.

use assignment::Evaluation;
use schemas::Exposure;
use serde::Serialize;
use serde_json::Value as Json;

use super::error::Problem;
use crate::configuration::{Entry, NumberForm};
use crate::metadata;

/// After this many seconds without anything to look at, a client closes its event stream; the protocol's default.
const INACTIVITY_S: u32 = 120;

/// Writes one flag. `logged` is given where the server logs exposures itself.
///
/// # Errors
/// If the value is null, which no client can read.
pub fn write_flag(
    out: &mut Vec<u8>,
    entry: &Entry,
    evaluation: &Evaluation<'_>,
    exposures: &[Exposure<'_>],
    logged: Option<bool>,
) -> Result<(), Problem> {
    if evaluation.value.is_null() {
        return Err(Problem::general(format!(
            "the value of variant `{}` is null, which no client can read; give it another value",
            evaluation.variant
        )));
    }
    // Keys need no escapes.
    out.extend(b"{\"key\":\"");
    out.extend(evaluation.key.as_str().as_bytes());
    out.extend(b"\",\"value\":");
    write_value(out, evaluation.value, entry.numbers);
    out.extend(b",\"reason\":\"");
    out.extend(evaluation.reason.as_str().as_bytes());
    out.extend(b"\",\"variant\":\"");
    out.extend(evaluation.variant.as_str().as_bytes());
    out.extend(b"\",\"metadata\":");
    metadata::write(out, exposures.iter(), logged);
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: &Json, form: NumberForm) {
    serde_json::to_writer(&mut *out, value).expect("a value can be written into memory");
    // An integer keeps all its digits: above 2^53 not every one is a double.
    if form == NumberForm::Double && (value.is_i64() || value.is_u64()) {
        out.extend(b".0");
    }
}

/// The answer to a bulk request, flag by flag.
pub struct BulkWriter {
    out: Vec<u8>,
    any: bool,
}

/// What a bulk answer says besides its flags.
pub struct BulkEnd<'a> {
    /// The revision.
    pub version: &'a str,
    /// Where events are reported.
    pub track_path: &'a str,
    /// Where changes are announced; `None` if the client has no way there.
    pub stream_uri: Option<&'a str>,
}

impl BulkWriter {
    pub fn new(flags: usize) -> BulkWriter {
        let mut out = Vec::with_capacity(256 + 128 * flags);
        out.extend(b"{\"flags\":[");
        BulkWriter { out, any: false }
    }

    /// Writes the next flag by `write`, or the problem that it returns in place of what it has written.
    pub fn flag(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Problem>) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        let before = self.out.len();
        if let Err(problem) = write(&mut self.out) {
            self.out.truncate(before);
            problem.write(Some(key), &mut self.out);
        }
    }

    pub fn end(self, end: &BulkEnd<'_>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Metadata<'a> {
            version: &'a str,
            #[serde(rename = "trackPath")]
            track_path: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Stream<'a> {
            r#type: &'static str,
            endpoint: Endpoint<'a>,
            inactivity_delay_sec: u32,
        }
        // Without an origin, an address behind a proxy is still the one that the client used.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Endpoint<'a> {
            request_uri: &'a str,
        }
        let mut out = self.out;
        let metadata = Metadata { version: end.version, track_path: end.track_path };
        out.extend(b"],\"metadata\":");
        serde_json::to_writer(&mut out, &metadata).expect("texts can be written into memory");
        if let Some(request_uri) = end.stream_uri {
            let endpoint = Endpoint { request_uri };
            let streams = [Stream { r#type: "sse", endpoint, inactivity_delay_sec: INACTIVITY_S }];
            out.extend(b",\"eventStreams\":");
            serde_json::to_writer(&mut out, &streams).expect("texts can be written into memory");
        }
        out.push(b'}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(value: Json, form: NumberForm) -> String {
        let mut out = Vec::new();
        write_value(&mut out, &value, form);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_double_has_a_point_and_an_integer_has_none() {
        assert_eq!(value(json!(1), NumberForm::Double), "1.0");
        assert_eq!(value(json!(0.5), NumberForm::Double), "0.5");
        assert_eq!(value(json!(-3), NumberForm::Double), "-3.0");
        assert_eq!(value(json!(1e300), NumberForm::Double), "1e+300");
        // Above 2^53 not every integer is a double.
        assert_eq!(value(json!(9_007_199_254_740_993_u64), NumberForm::Double), "9007199254740993.0");
        assert_eq!(value(json!(u64::MAX), NumberForm::Double), "18446744073709551615.0");
        assert_eq!(value(json!(i64::MIN), NumberForm::Double), "-9223372036854775808.0");
        assert_eq!(value(json!(1), NumberForm::AsDefined), "1");
        assert_eq!(value(json!(i64::MAX), NumberForm::AsDefined), "9223372036854775807");
        assert_eq!(value(json!({"a": [1, 1.0, "x\"y"]}), NumberForm::AsDefined), r#"{"a":[1,1.0,"x\"y"]}"#);
        assert_eq!(value(json!("1"), NumberForm::Double), "\"1\"");
    }

    #[test]
    fn a_flag_that_fails_leaves_the_others_as_they_are() {
        let mut bulk = BulkWriter::new(3);
        bulk.flag("a", |out| {
            out.extend(b"{\"key\":\"a\"}");
            Ok(())
        });
        bulk.flag("b", |out| {
            out.extend(b"{\"key\":\"b\",\"val");
            Err(Problem::general("no"))
        });
        bulk.flag("c", |out| {
            out.extend(b"{\"key\":\"c\"}");
            Ok(())
        });
        let end = BulkEnd { version: "l.1.0", track_path: "/t", stream_uri: Some("/s?token=x") };
        assert_eq!(
            String::from_utf8(bulk.end(&end)).unwrap(),
            concat!(
                r#"{"flags":[{"key":"a"},{"key":"b","errorCode":"GENERAL","errorDetails":"no","metadata":{}},{"key":"c"}],"#,
                r#""metadata":{"version":"l.1.0","trackPath":"/t"},"#,
                r#""eventStreams":[{"type":"sse","endpoint":{"requestUri":"/s?token=x"},"inactivityDelaySec":120}]}"#
            )
        );
        let empty = BulkWriter::new(0).end(&BulkEnd { stream_uri: None, ..end });
        assert_eq!(
            String::from_utf8(empty).unwrap(),
            r#"{"flags":[],"metadata":{"version":"l.1.0","trackPath":"/t"}}"#
        );
    }
}
