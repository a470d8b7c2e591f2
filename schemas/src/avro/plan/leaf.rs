//! Which values of another writer's type are taken as one of our leaves, and by which step. A type is taken where
//! each of its values means one value of ours. It is refused where the number, taken as it stands, would mean
//! something else, whatever the specification's promotions allow.
//!
//! | ours | taken | refused as incompatible, and why |
//! |---|---|---|
//! | `created_at`: `long`, `timestamp-micros` | the same; a `long` without a logical type, as microseconds (1) | `int`: of microseconds it ends at 00:35:47 on 1 January 1970, so seconds are meant; `timestamp-millis`, `timestamp-nanos`, `local-timestamp-...`, `time-...`, `date`: another unit or another zone (2); `float`, `double`, `string` |
//! | `event_id`: `string`, `uuid` | the same; a `string`, which must read as a UUID | `bytes`, `fixed`: sixteen bytes are no text |
//! | texts, and the values of maps: `string` | the same, a `uuid` too; `bytes`, which must be UTF-8 | `bytes` that are a decimal, `fixed`, `enum`, numbers |
//! | `phase` and the buckets: `int` | the same | `long`, `float`, `double`; `date`, `time-millis`: times are no counts |
//! | `definition_version`, `configuration_version`: `long` | the same; an `int` | `float`, `double`; every logical type of a time |
//! | `value`: `bytes`, `decimal` of scale 6 | the same at any precision, where a value has at most 18 digits; `bytes` without a logical type, as millionths | `decimal` of another scale, which the specification does not resolve; `big-decimal`, whose bytes hold a scale of their own; `fixed`; `int`, `long`, `float`, `double`, `string` |
//!
//! (1) Writers' libraries may leave a logical type out, and some name the unit elsewhere. Seconds and milliseconds of
//! every year up to 2261, read as microseconds, lie in the first 107 days of 1970. A value there is refused by
//! itself ([`untyped_time`]): nobody can tell it from a time of that spring.
//!
//! (2) Milliseconds times 1,000 would be exact. But Avro resolves `long` to `long` whatever the logical types
//! are, so that one reader would multiply where another takes the number as it stands. A schema that says two
//! times to two readers is refused, and its writer is mended by one word.

use super::Step;
use crate::avro::schema::{Clock, Node, Scale};
use crate::avro::source::Cell;
use crate::time::Micros;

/// Digits behind the point of a value.
const SCALE: Scale = Scale::Digits(6);

/// What makes the step of a leaf's place.
type StepAt = fn(usize) -> Step;

/// How a `writer` value becomes a `reader` leaf; `None` where it does not.
pub fn step(writer: &Node, reader: &Node) -> Option<StepAt> {
    Some(match (writer, reader) {
        (Node::Null, Node::Null) => |slot| Step::Constant(slot, Cell::Null),
        (Node::String { .. } | Node::Bytes(None), Node::String { uuid: false }) => Step::Text,
        (Node::String { .. }, Node::String { uuid: true }) => Step::Uuid,
        (Node::Int(None), Node::Int(None) | Node::Long(None)) => Step::Int,
        (Node::Long(None), Node::Long(None)) => Step::Long,
        (Node::Long(Some(Clock::TimestampMicros)), Node::Long(Some(Clock::TimestampMicros))) => Step::Long,
        (Node::Long(None), Node::Long(Some(Clock::TimestampMicros))) => Step::UntypedTime,
        (Node::Bytes(None | Some(SCALE)), Node::Bytes(Some(SCALE))) => Step::Decimal,
        _ => return None,
    })
}

/// Why the number of a `long` without a logical type is no time.
pub fn untyped_time(number: i64) -> Result<(), &'static str> {
    match (0..=Micros::MAX.millis()).contains(&number) {
        true => Err("seconds or milliseconds, where a long without logicalType counts microseconds"),
        false => Ok(()),
    }
}

/// What is said of two that do not go together.
pub fn mismatch(writer: &Node, reader: &Node) -> String {
    let both = format!("{} where {} is read", named(writer), named(reader));
    match (writer, reader) {
        (Node::Int(None), Node::Long(Some(Clock::TimestampMicros))) => format!(
            "{both}; an int of microseconds ends in the first hour of 1970: write a long with the logicalType \
             timestamp-micros"
        ),
        _ => both,
    }
}

fn named(node: &Node) -> String {
    match node {
        Node::Null => "null".to_owned(),
        Node::Boolean => "a boolean".to_owned(),
        Node::Int(None) => "an int".to_owned(),
        Node::Int(Some(_)) | Node::Long(Some(Clock::Other)) => "a time of another unit".to_owned(),
        Node::Long(None) => "a long".to_owned(),
        Node::Long(Some(Clock::TimestampMicros)) => "a time in microseconds".to_owned(),
        Node::Float => "a float".to_owned(),
        Node::Double => "a double".to_owned(),
        Node::Bytes(None) => "bytes".to_owned(),
        Node::Bytes(Some(Scale::Digits(scale))) => format!("a decimal of scale {scale}"),
        Node::Bytes(Some(Scale::InTheValue)) => "a decimal with a scale in each value".to_owned(),
        Node::String { uuid: false } => "a string".to_owned(),
        Node::String { uuid: true } => "a UUID".to_owned(),
        Node::Fixed { size } => format!("{size} fixed bytes"),
        Node::Enum { .. } => "an enum".to_owned(),
        Node::Array(_) => "an array".to_owned(),
        Node::Map(_) => "a map".to_owned(),
        Node::Union(_) => "a union".to_owned(),
        Node::Record(record) => format!("a record {:?}", record.name.unqualified()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9,214,646,399,999 is the last millisecond of 2261, and as microseconds 17 April 1970.
    #[test]
    fn a_number_of_seconds_or_milliseconds_is_no_number_of_microseconds() {
        let refused = Err("seconds or milliseconds, where a long without logicalType counts microseconds");
        for (number, said) in [
            (0, refused),
            (1_700_000_000, refused),
            (1_700_000_000_000, refused),
            (9_214_646_399_999, refused),
            (9_214_646_400_000, Ok(())),
            (1_700_000_000_000_000, Ok(())),
            // Outside of all times, which is told where times are read.
            (-1, Ok(())),
            (1_700_000_000_000_000_000, Ok(())),
        ] {
            assert_eq!(untyped_time(number), said, "{number}");
        }
    }
}
