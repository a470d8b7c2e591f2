//! Compares JSON numbers by their exact value. Integers are not converted to doubles: beyond 2^53 several
//! integers share one double, and account ids are often that large.

use std::cmp::Ordering;

use serde_json::Number;

/// 2^64; every JSON integer is below it.
const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;
/// -2^63; no JSON integer is below it.
const MINUS_TWO_TO_THE_63: f64 = -9_223_372_036_854_775_808.0;

/// Compares the two values without rounding either. JSON numbers are always finite.
pub fn compare(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(left), Err(right)) => integer_with_double(left, right),
        (Err(left), Ok(right)) => integer_with_double(right, left).reverse(),
        (Err(left), Err(right)) => left.partial_cmp(&right).expect("a number of JSON is not NaN"),
    }
}

/// Returns the integer, or the double if the number is written as one.
fn integer(number: &Number) -> Result<i128, f64> {
    number.as_i128().ok_or_else(|| number.as_f64().expect("a number of JSON is an integer or a double"))
}

fn integer_with_double(integer: i128, double: f64) -> Ordering {
    if double >= TWO_TO_THE_64 {
        return Ordering::Less;
    }
    if double < MINUS_TWO_TO_THE_63 {
        return Ordering::Greater;
    }
    // The conversion is exact: the whole part of a double in this range has at most 64 bits.
    let whole = double.trunc();
    integer.cmp(&(whole as i128)).then(0.0_f64.partial_cmp(&(double - whole)).expect("it is not NaN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_are_compared_exactly_where_doubles_are_too_coarse() {
        use Ordering::{Equal, Greater, Less};
        for (left, right, order) in [
            ("1", "1.0", Equal),
            ("9007199254740993", "9007199254740992", Greater),
            ("9007199254740993", "9007199254740992.0", Greater),
            ("9007199254740993", "9007199254740994.0", Less),
            ("9007199254740992", "9007199254740992.0", Equal),
            ("-9007199254740993", "-9007199254740992.0", Less),
            ("18446744073709551615", "18446744073709551616.0", Less),
            ("18446744073709551615", "18446744073709551615", Equal),
            ("18446744073709551615", "-1", Greater),
            ("9223372036854775807", "9223372036854775808.0", Less),
            ("-9223372036854775808", "-9223372036854775808.0", Equal),
            ("-9223372036854775808", "-9223372036854777856.0", Greater),
            ("1", "1.5", Less),
            ("2", "1.5", Greater),
            ("-1", "-1.5", Greater),
            ("-2", "-1.5", Less),
            ("0", "-0.0", Equal),
            ("0", "5e-324", Less),
            ("0", "-5e-324", Greater),
            ("0", "1e308", Less),
            ("0", "-1e308", Greater),
            ("0.1", "0.1", Equal),
            ("0.1", "0.2", Less),
        ] {
            assert_eq!(compare(&number(left), &number(right)), order, "{left} {right}");
            assert_eq!(compare(&number(right), &number(left)), order.reverse(), "{right} {left}");
        }
    }
}
