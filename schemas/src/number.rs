//! Numbers written as text: the JSON number that represents a text, and the decimal digits of a text, parsed
//! without rounding.

use serde_json::Number;

/// 2^53. Above it, not every whole number is a double.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
/// The first whole number that is too large for 64 bits.
pub(crate) const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;

/// Why a text cannot be represented as a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// An integer of more than 64 bits, or beyond every double.
    #[error("{0} is too large for a number; if it is a name, put it in quotes")]
    TooLarge(String),
    /// Not zero, but closer to zero than any double.
    #[error("{0} is too small for a number; write 0")]
    TooSmall(String),
    /// In the range of 64-bit integers, with digits that its double does not have.
    #[error("{0} has more digits than a double; write a whole number without point and exponent")]
    TooPrecise(String),
    #[error("`{0}` is not a number")]
    NotANumber(String),
}

/// Parses `text`: an integer of up to 64 bits is kept exactly; a number with a point or an exponent becomes the
/// nearest double. From 2^53 to 2^64 the nearest double may differ from the text: there the text must equal the
/// double, written with as many digits as the text has.
pub fn read(text: &str) -> Result<Number, NumberError> {
    let digits = Digits::of(text).ok_or_else(|| NumberError::NotANumber(text.to_owned()))?;
    if !text.contains(['.', 'e', 'E']) {
        let signed = text.parse::<i64>().map(Number::from);
        let integer = signed.or_else(|_| text.parse::<u64>().map(Number::from));
        return integer.map_err(|_| NumberError::TooLarge(text.to_owned()));
    }
    let double: f64 = text.parse().map_err(|_| NumberError::NotANumber(text.to_owned()))?;
    let magnitude = double.abs();
    if magnitude == 0.0 && !digits.digits.is_empty() {
        return Err(NumberError::TooSmall(text.to_owned()));
    }
    if (EXACT_BELOW..=TWO_TO_THE_64).contains(&magnitude) {
        let as_many = format!("{double:.*e}", digits.digits.len().saturating_sub(1));
        if Digits::of(&as_many) != Some(digits) {
            return Err(NumberError::TooPrecise(text.to_owned()));
        }
    }
    Number::from_f64(double).ok_or_else(|| NumberError::TooLarge(text.to_owned()))
}

/// The digits of a number and the power of ten that they are multiplied by: `12.50` is 125 * 10^-1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digits {
    pub negative: bool,
    /// From the first digit that is not zero to the last one that is not; empty for zero.
    pub digits: String,
    /// 0 for zero. `i64::MIN` or `i64::MAX` if the text's exponent is outside the range of `i64`.
    pub power: i64,
}

impl Digits {
    /// Parses `12`, `-0.5`, `+1.`, `.5`, `1e-6` or `1E+3`; `None` if the text has no such form.
    pub fn of(text: &str) -> Option<Digits> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let without_end = all.trim_end_matches('0');
        let digits = without_end.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Digits { negative, digits, power: 0 });
        }
        // A text is far shorter than 2^63 bytes.
        let behind_point = fraction.len() as i64 - (all.len() - without_end.len()) as i64;
        Some(Digits { negative, digits, power: exponent.saturating_sub(behind_point) })
    }

    /// Returns the magnitude times 10^`places`; `None` if that is not whole or has more than 38 digits.
    pub fn scaled(&self, places: i64) -> Option<u128> {
        const DIGITS_MAX: u64 = 38;
        if self.digits.is_empty() {
            return Some(0);
        }
        let zeros = u32::try_from(self.power.checked_add(places)?).ok()?;
        if self.digits.len() as u64 + u64::from(zeros) > DIGITS_MAX {
            return None;
        }
        Some(self.digits.parse::<u128>().ok()? * 10_u128.pow(zeros))
    }
}

/// Parses an exponent. It saturates: no use has a power of ten of more than 64 bits.
fn read_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let beyond = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_or_refused() {
        for (text, kept) in [
            ("0", "0"),
            ("+7", "7"),
            ("007", "7"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9163.453718085519", "9163.453718085519"),
            ("3.0135910076946248e-09", "3.0135910076946248e-9"),
            ("0.00040815105497451397", "0.00040815105497451397"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
            ("9007199254740992.0", "9007199254740992.0"),
            ("1.8446744073709551616e19", "1.8446744073709552e+19"),
            ("1.8446744073709552e19", "1.8446744073709552e+19"),
            ("8.5525106214443039e18", "8.552510621444304e+18"),
            ("1e23", "1e+23"),
            ("-0.0", "-0.0"),
            ("0.0e-400", "0.0"),
        ] {
            assert_eq!(read(text).map(|number| number.to_string()), Ok(kept.to_owned()), "{text}");
        }
        let refused = |text: &str| read(text).unwrap_err();
        for text in
            ["18446744073709551616", "1180591620717411303424", "-9223372036854775809", "1e400", "-1e400"]
        {
            assert_eq!(refused(text), NumberError::TooLarge(text.to_owned()));
        }
        for text in
            ["9007199254740993.0", "9.007199254740993e15", "-9007199254740992.5", "18446744073709551615e0"]
        {
            assert_eq!(refused(text), NumberError::TooPrecise(text.to_owned()));
        }
        assert_eq!(refused("1e-400"), NumberError::TooSmall("1e-400".to_owned()));
        assert_eq!(refused("1_000"), NumberError::NotANumber("1_000".to_owned()));
    }

    #[test]
    fn a_number_is_split_into_digits_and_a_power_of_ten() {
        let of = |text: &str| Digits::of(text).map(|it| (it.negative, it.digits, it.power));
        for (text, negative, digits, power) in [
            ("12", false, "12", 0),
            ("-12.50", true, "125", -1),
            ("+1200", false, "12", 2),
            ("0012.0", false, "12", 0),
            ("1e-6", false, "1", -6),
            ("1E+3", false, "1", 3),
            ("12.5e1", false, "125", 0),
            ("5.", false, "5", 0),
            (".05", false, "5", -2),
            ("-0", true, "", 0),
            ("0.00e999", false, "", 0),
            ("1e99999999999999999999", false, "1", i64::MAX),
            ("1.5e-99999999999999999999", false, "15", i64::MIN),
        ] {
            assert_eq!(of(text), Some((negative, digits.to_owned(), power)), "{text}");
        }
        for text in ["", "-", ".", "e5", "1e", "1e+", "1e5.0", "1.2.3", "1,5", "0x1", "--1", "1 ", "inf", "é"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn scaling_is_exact_or_refused() {
        let scaled = |text: &str, places| Digits::of(text).unwrap().scaled(places);
        assert_eq!(scaled("12.5", 1), Some(125));
        assert_eq!(scaled("12.5", 6), Some(12_500_000));
        assert_eq!(scaled("12.5", 0), None);
        assert_eq!(scaled("1e37", 0), Some(10_u128.pow(37)));
        assert_eq!(scaled("1e38", 0), None);
        assert_eq!(scaled("0e38", 0), Some(0));
        assert_eq!(scaled("1e99999999999999999999", 6), None);
        assert_eq!(scaled("1e-99999999999999999999", 6), None);
        assert_eq!(scaled("1e99999999999999999999", -1), None);
    }
}
