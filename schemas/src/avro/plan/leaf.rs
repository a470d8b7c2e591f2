//! Which types of other writers are accepted for one of our leaves, and by which step they are read. A type
//! is accepted if each of its values means one value of ours. It is refused if its number, read unchanged,
//! would mean something else, whatever promotions the specification allows.
//!
//! | ours | accepted | refused as incompatible, and why |
//! |---|---|---|
//! | `created_at`: `long`, `timestamp-micros` | the same; a `long` without a logical type, as microseconds (1) | `int`: of microseconds it ends at 00:35:47 on 1 January 1970, so seconds are meant; `timestamp-millis`, `timestamp-nanos`, `local-timestamp-...`, `time-...`, `date`: another unit or another zone (2); `float`, `double`, `string` |
//! | `event_id`: `string`, `uuid` | the same; a `string`, which must read as a UUID | `bytes`, `fixed`: sixteen bytes are no text |
//! | texts, and the values of maps: `string` | the same, a `uuid` too; `bytes`, which must be UTF-8 | `bytes` that are a decimal, `fixed`, `enum`, numbers |
//! | `phase` and the buckets: `int` | the same | `long`, `float`, `double`; `date`, `time-millis`: times are no counts |
//! | `definition_version`, `configuration_version`: `long` | the same; an `int` | `float`, `double`; every logical type of a time |
//! | `value`: `bytes`, `decimal` of scale 6 | the same at any precision, where a value has at most 18 digits; `bytes` without a logical type, as millionths | `decimal` of another scale, which the specification does not resolve; `big-decimal`, whose bytes hold a scale of their own; `fixed`; `int`, `long`, `float`, `double`, `string` |
//!
//! (1) Writers' libraries may leave a logical type out, and some name the unit elsewhere. Seconds and
//! milliseconds of all years up to 2261, read as microseconds, are in the first 107 days of 1970. A value in
//! that range is refused ([`untyped_time`]), because it cannot be distinguished from a time of that spring.
//!
//! (2) Milliseconds times 1,000 would be exact. But Avro resolves `long` to `long` whatever the logical types
//! are, so one reader would multiply while another would read the number unchanged. A schema that means two
//! times to two readers is refused; its writer has to change one word.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, UuidSchema};

use super::Step;
use crate::avro::schema::fixed_size;
use crate::avro::source::Cell;
use crate::time::Micros;

/// The number of digits after the point of a value.
const SCALE: usize = 6;

/// Makes a step from the slot of a leaf.
type StepAt = fn(usize) -> Step;

/// Returns the step that reads a `writer` value into a `reader` leaf; `None` if the types are incompatible.
pub fn step(writer: &Schema, reader: &Schema) -> Option<StepAt> {
    use Schema::{Bytes, Decimal, Int, Long, Null, String, TimestampMicros, Uuid};
    // The library also has a UUID of bytes, which the specification does not have: it is plain bytes.
    Some(match (writer, reader) {
        (Null, Null) => |slot| Step::Constant(slot, Cell::Null),
        (String | Uuid(UuidSchema::String) | Bytes | Uuid(UuidSchema::Bytes), String) => Step::Text,
        (String | Uuid(UuidSchema::String), Uuid(UuidSchema::String)) => Step::Uuid,
        (Int, Int | Long) => Step::Int,
        (Long, Long) => Step::Long,
        (TimestampMicros, TimestampMicros) => Step::Long,
        (Long, TimestampMicros) => Step::UntypedTime,
        (
            Bytes
            | Uuid(UuidSchema::Bytes)
            | Decimal(DecimalSchema { scale: SCALE, inner: InnerDecimalSchema::Bytes, .. }),
            Decimal(DecimalSchema { scale: SCALE, inner: InnerDecimalSchema::Bytes, .. }),
        ) => Step::Decimal,
        _ => return None,
    })
}

/// Returns whether the same bytes mean the same value of both types. The library's equality decides, except for
/// decimals, whose precision may differ.
pub fn same(writer: &Schema, reader: &Schema) -> bool {
    match (writer, reader) {
        (Schema::Decimal(_), Schema::Decimal(_)) => step(writer, reader).is_some(),
        _ => writer == reader,
    }
}

/// Checks that the number of a `long` without a logical type can be a time in microseconds.
pub fn untyped_time(number: i64) -> Result<(), &'static str> {
    match (0..=Micros::MAX.millis()).contains(&number) {
        true => Err("seconds or milliseconds, where a long without logicalType counts microseconds"),
        false => Ok(()),
    }
}

/// Writes the error for two incompatible types.
pub fn mismatch(writer: &Schema, reader: &Schema) -> String {
    let both = format!("{} where {} is read", named(writer), named(reader));
    match (writer, reader) {
        (Schema::Int, Schema::TimestampMicros) => format!(
            "{both}; an int of microseconds ends in the first hour of 1970: write a long with the logicalType \
             timestamp-micros"
        ),
        _ => both,
    }
}

fn named(schema: &Schema) -> String {
    match schema {
        Schema::Null => "null".to_owned(),
        Schema::Boolean => "a boolean".to_owned(),
        Schema::Int => "an int".to_owned(),
        Schema::Long => "a long".to_owned(),
        Schema::TimestampMicros => "a time in microseconds".to_owned(),
        Schema::Date
        | Schema::TimeMillis
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => "a time of another unit".to_owned(),
        Schema::Float => "a float".to_owned(),
        Schema::Double => "a double".to_owned(),
        Schema::Bytes | Schema::Uuid(UuidSchema::Bytes) => "bytes".to_owned(),
        Schema::Decimal(DecimalSchema { scale, inner: InnerDecimalSchema::Bytes, .. }) => {
            format!("a decimal of scale {scale}")
        }
        Schema::BigDecimal => "a decimal with a scale in each value".to_owned(),
        Schema::String => "a string".to_owned(),
        Schema::Uuid(UuidSchema::String) => "a UUID".to_owned(),
        Schema::Fixed(_)
        | Schema::Duration(_)
        | Schema::Uuid(UuidSchema::Fixed(_))
        | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(_), .. }) => {
            format!("{} fixed bytes", fixed_size(schema).unwrap_or(0))
        }
        Schema::Enum(_) => "an enum".to_owned(),
        Schema::Array(_) => "an array".to_owned(),
        Schema::Map(_) => "a map".to_owned(),
        Schema::Union(_) => "a union".to_owned(),
        Schema::Record(record) => format!("a record {:?}", record.name.name()),
        Schema::Ref { name } => format!("the type {:?}", name.fullname(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9,214,646,399,999 is the last millisecond of 2261, and as microseconds 17 April 1970.
    #[test]
    fn a_number_of_seconds_or_milliseconds_is_no_number_of_microseconds() {
        let refused = Err("seconds or milliseconds, where a long without logicalType counts microseconds");
        for (number, expected) in [
            (0, refused),
            (1_700_000_000, refused),
            (1_700_000_000_000, refused),
            (9_214_646_399_999, refused),
            (9_214_646_400_000, Ok(())),
            (1_700_000_000_000_000, Ok(())),
            // Outside of all times: the reader of times reports it.
            (-1, Ok(())),
            (1_700_000_000_000_000_000, Ok(())),
        ] {
            assert_eq!(untyped_time(number), expected, "{number}");
        }
    }
}
