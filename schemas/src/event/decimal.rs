//! A decimal with six digits after the point, for money and durations. It is exact: no floating point.

use std::fmt;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::number::Digits;

/// A decimal(18, 6), stored as millionths. In JSON it is written as text (`"12.500000"`), and read from text
/// or from a number, by the digits that are written. Only the deserializer of `serde_json` can read it: any
/// other passes a number on as a double, which has too few digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Decimal6(i64);

/// Why something is not a [`Decimal6`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a decimal with at most 12 digits before and 6 after the point")]
pub struct NotADecimal {
    text: String,
}

impl Decimal6 {
    /// The largest magnitude, in millionths: eighteen nines.
    pub const MILLIONTHS_MAX: i64 = 999_999_999_999_999_999;

    pub fn from_millionths(millionths: i64) -> Result<Decimal6, NotADecimal> {
        if (-Self::MILLIONTHS_MAX..=Self::MILLIONTHS_MAX).contains(&millionths) {
            Ok(Decimal6(millionths))
        } else {
            Err(NotADecimal { text: format!("{millionths} millionths") })
        }
    }

    pub fn millionths(self) -> i64 {
        self.0
    }

    /// Parses `12`, `-12.5`, `0.000001`. Never rounds: a seventh digit after the point is an error.
    pub fn parse(text: &str) -> Result<Decimal6, NotADecimal> {
        let refused = || NotADecimal::of(text);
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || whole.len() > 12 || fraction.len() > 6 {
            return Err(refused());
        }
        let whole: i64 = whole.parse().map_err(|_| refused())?;
        let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| refused())?;
        let millionths = whole * 1_000_000 + fraction;
        Decimal6::from_millionths(if negative { -millionths } else { millionths })
    }

    /// Parses a JSON number by its value, also `1e-6` and `12.5000000`. Never rounds.
    fn of_number(text: &str) -> Result<Decimal6, NotADecimal> {
        let refused = || NotADecimal::of(text);
        let digits = Digits::of(text).ok_or_else(refused)?;
        let magnitude = digits.scaled(6).ok_or_else(refused)?;
        let magnitude = i64::try_from(magnitude).map_err(|_| refused())?;
        let millionths = if digits.negative { -magnitude } else { magnitude };
        Decimal6::from_millionths(millionths).map_err(|_| refused())
    }
}

impl NotADecimal {
    /// Quotes at most 80 characters of the text.
    fn of(text: &str) -> NotADecimal {
        NotADecimal { text: text.chars().take(80).collect() }
    }
}

impl<'de> Deserialize<'de> for Decimal6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Decimal6, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        let written = written.get();
        let decimal = match serde_json::from_str::<String>(written) {
            Ok(text) => Decimal6::parse(&text),
            Err(_) => Decimal6::of_number(written),
        };
        decimal.map_err(D::Error::custom)
    }
}

impl From<Decimal6> for String {
    fn from(value: Decimal6) -> String {
        value.to_string()
    }
}

impl fmt::Display for Decimal6 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        write!(formatter, "{sign}{}.{:06}", magnitude / 1_000_000, magnitude % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_exact_both_ways() {
        for (text, millionths) in [
            ("0", 0),
            ("12.5", 12_500_000),
            ("-0.000001", -1),
            ("999999999999.999999", 999_999_999_999_999_999),
            ("-999999999999.999999", -999_999_999_999_999_999),
        ] {
            assert_eq!(Decimal6::parse(text).unwrap().millionths(), millionths, "{text}");
        }
        assert_eq!(Decimal6::parse("-0.5").unwrap().to_string(), "-0.500000");
    }

    #[test]
    fn a_value_that_would_have_to_be_rounded_is_refused() {
        for text in ["0.0000001", "1000000000000", "", "-", ".5", "5.", "1e3", "+1", "1,5"] {
            assert!(Decimal6::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_of_json_counts_by_its_digits() {
        let read = |json: &str| serde_json::from_str::<Decimal6>(json).map(Decimal6::millionths);
        for (json, millionths) in [
            ("0.000001", 1),
            ("1e-6", 1),
            ("-1E-6", -1),
            ("1E+3", 1_000_000_000),
            ("12.5000000", 12_500_000),
            ("0", 0),
            ("-0.0", 0),
            ("0e400", 0),
            ("9999999999.123456", 9_999_999_999_123_456),
            ("123456789012.123456", 123_456_789_012_123_456),
            ("8589934592.000001", 8_589_934_592_000_001),
            ("999999999999.999999", 999_999_999_999_999_999),
            ("-999999999999.999999", -999_999_999_999_999_999),
            ("999999999999999999e-6", 999_999_999_999_999_999),
            ("\"12.5\"", 12_500_000),
            ("\"\\u0031\"", 1_000_000),
        ] {
            assert_eq!(read(json).ok(), Some(millionths), "{json}");
            // Through a `Value`, as when an event is made in memory.
            if json.starts_with('"') {
                let value = serde_json::from_str(json).unwrap();
                assert_eq!(serde_json::from_value::<Decimal6>(value).unwrap().millionths(), millionths);
            }
        }
        for json in [
            "123456789012.1234567",
            "0.0000001",
            "1e-7",
            "1.0000001e0",
            "1e12",
            "1000000000000",
            "1e400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert_eq!(
                read(json).unwrap_err().to_string(),
                format!("`{json}` is not a decimal with at most 12 digits before and 6 after the point"),
            );
        }
        for json in ["true", "[1]", "{}", "null"] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
