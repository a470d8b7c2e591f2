//! Dead letters: messages that cannot become rows. The pipeline sends them on with their origin and the reason. An
//! operator lists them, shows them, and sends them again once the reason is gone. An audit reads from them why an
//! offset has no row. Which message is a dead letter is not decided here: decoding decides it.

mod offsets;
mod producer;
mod read;
mod replay;
mod show;

pub use offsets::DeadLetterOffsets;
pub use producer::{DeadLetterProducer, Delivery};
pub use read::{DeadLetter, Filter, Origin, read};
pub use replay::{Replayed, replay};
pub use show::{list, show};

/// The key of a dead letter's record: topic, partition and offset of the message, separated by slashes, which no
/// topic's name contains. A dead letter that is sent twice, as after a restart, has the same key.
fn encode_key(topic: &str, partition: u16, offset: u64) -> String {
    format!("{topic}/{partition}/{offset}")
}

/// `None` for a key that [`encode_key`] does not make.
fn decode_key(key: &[u8]) -> Option<(&str, u16, u64)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let origin = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (!origin.0.is_empty() && parts.next().is_none()).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_origin() {
        assert_eq!(encode_key("exposures", 3, 17), "exposures/3/17");
        assert_eq!(decode_key(b"exposures/3/17"), Some(("exposures", 3, 17)));
        assert_eq!(decode_key(b"exposures/3"), None);
        assert_eq!(decode_key(b"exposures/3/17/1"), None);
        assert_eq!(decode_key(b"exposures/70000/17"), None);
        assert_eq!(decode_key(b"/3/17"), None);
    }
}
