//! A decimal with six digits after the point, as money and durations are carried: exact, no floating point.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A decimal(18, 6), held as millionths. JSON writes it as text (`"12.500000"`); reading also takes a
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "TextOrNumber", into = "String")]
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

    /// From `12`, `-12.5`, `0.000001`; never rounds: a seventh digit after the point is an error.
    pub fn parse(text: &str) -> Result<Decimal6, NotADecimal> {
        let refused = || NotADecimal { text: text.chars().take(80).collect() };
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
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(serde_json::Number),
}

impl TryFrom<TextOrNumber> for Decimal6 {
    type Error = NotADecimal;

    fn try_from(value: TextOrNumber) -> Result<Decimal6, NotADecimal> {
        match value {
            TextOrNumber::Text(text) => Decimal6::parse(&text),
            TextOrNumber::Number(number) => Decimal6::parse(&number.to_string()),
        }
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
    fn what_would_have_to_be_rounded_is_refused() {
        for text in ["0.0000001", "1000000000000", "", "-", ".5", "5.", "1e3", "+1", "1,5"] {
            assert!(Decimal6::parse(text).is_err(), "{text}");
        }
    }
}
