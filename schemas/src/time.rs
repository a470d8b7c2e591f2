//! The time format of all contracts: microseconds since 1970-01-01 UTC. Nothing here reads a clock.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC. From 0 (1970) to [`Micros::MAX`] (the end of the year 2261, which
/// every store on the path can represent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Micros(i64);

/// Why a number or a text is not a [`Micros`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    #[error("{micros} microseconds since 1970 is outside 1970 to 2261")]
    OutOfRange { micros: i64 },
    #[error("`{text}` is outside 1970 to 2261")]
    TextOutOfRange { text: String },
    #[error("`{text}` is not a time such as 2026-01-31T12:00:00.000000Z")]
    NotRfc3339 { text: String },
}

impl Micros {
    /// The beginning of 1970.
    pub const EPOCH: Micros = Micros(0);
    pub const MAX: Micros = Micros(9_214_646_399_999_999);

    pub fn new(micros: i64) -> Result<Micros, NotATime> {
        if (0..=Self::MAX.0).contains(&micros) {
            Ok(Micros(micros))
        } else {
            Err(NotATime::OutOfRange { micros })
        }
    }

    /// Parses RFC 3339 with any offset. Digits beyond the microsecond are cut off.
    pub fn parse(text: &str) -> Result<Micros, NotATime> {
        let outside = |_| NotATime::TextOutOfRange { text: text.to_owned() };
        match text.parse::<Timestamp>() {
            Ok(stamp) => Micros::new(stamp.as_microsecond()).map_err(outside),
            // The last days of 9999.
            Err(_) if micros_of_any_year(text).is_some() => {
                Err(NotATime::TextOutOfRange { text: text.to_owned() })
            }
            Err(_) => Err(NotATime::NotRfc3339 { text: text.to_owned() }),
        }
    }

    pub fn get(self) -> i64 {
        self.0
    }

    pub fn millis(self) -> i64 {
        self.0 / 1_000
    }
}

/// Returns the microseconds since 1970 of an RFC 3339 time of any year, for a comparison: a person is born before 1970, and
/// what never ends often ends in 9999. Digits beyond the microsecond are cut off, towards the past. `None` if the text is no
/// time.
pub fn micros_of_any_year(text: &str) -> Option<i64> {
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return i64::try_from(stamp.as_nanosecond().div_euclid(1_000)).ok();
    }
    // A `Timestamp` ends two days before the year 9999 does; a date, a time and an offset by themselves do not.
    let pieces = Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let since_1970 = local.duration_since(DateTime::new(1970, 1, 1, 0, 0, 0, 0).ok()?);
    let offset_s = i128::from(pieces.to_numeric_offset()?.seconds());
    i64::try_from((since_1970.as_nanos() - offset_s * 1_000_000_000).div_euclid(1_000)).ok()
}

impl TryFrom<String> for Micros {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Micros, NotATime> {
        Micros::parse(&text)
    }
}

impl From<Micros> for String {
    fn from(time: Micros) -> String {
        time.to_string()
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = Timestamp::from_microsecond(self.0).expect("1970 to 2261 is inside the library's range");
        write!(formatter, "{stamp:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_one_time() {
        let time = Micros::parse("2019-11-24T00:00:17.004101Z").unwrap();
        assert_eq!(time.get(), 1_574_553_617_004_101);
        assert_eq!(time.to_string(), "2019-11-24T00:00:17.004101Z");
        assert_eq!(Micros::parse("2019-11-24T02:00:17.004101+02:00"), Ok(time));
        assert_eq!(Micros::MAX.to_string(), "2261-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_time_of_any_year_is_compared() {
        for (text, micros) in [
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("1970-01-01T00:00:00.0000001Z", 0),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000_000),
            ("9999-12-30T22:00:00Z", 253_402_207_200_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("9999-12-31T23:59:59.5-01:00", 253_402_304_399_500_000),
        ] {
            assert_eq!(micros_of_any_year(text), Some(micros), "{text}");
        }
        for text in ["", "yesterday", "9999-12-31", "9999-12-31T00:00:00", "9999-12-32T00:00:00Z"] {
            assert_eq!(micros_of_any_year(text), None, "{text}");
        }
    }

    #[test]
    fn both_ends_of_the_range() {
        assert_eq!(Micros::new(0).unwrap().to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Micros::new(-1), Err(NotATime::OutOfRange { micros: -1 }));
        assert_eq!(
            Micros::new(9_214_646_400_000_000),
            Err(NotATime::OutOfRange { micros: 9_214_646_400_000_000 })
        );
        for text in ["1969-12-31T23:59:59Z", "2262-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            let error = Micros::parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` is outside 1970 to 2261"));
        }
        assert_eq!(Micros::parse("yesterday"), Err(NotATime::NotRfc3339 { text: "yesterday".to_owned() }));
    }
}
