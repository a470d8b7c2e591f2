//! Numbers of JSON compared by their value. Integers of 64 bits are not doubles: beyond 2^53 two of them share
//! one, and ids of accounts are often that large.

use std::cmp::Ordering;

use serde_json::Number;

/// 2^64; every integer of JSON is below it.
const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;
/// -2^63; no integer of JSON is below it.
const MINUS_TWO_TO_THE_63: f64 = -9_223_372_036_854_775_808.0;

/// The order of the two values, without rounding either. JSON has no numbers that are not finite.
pub fn compare(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(left), Err(right)) => integer_with_double(left, right),
        (Err(left), Ok(right)) => integer_with_double(right, left).reverse(),
        (Err(left), Err(right)) => left.partial_cmp(&right).expect("a number of JSON is not NaN"),
    }
}

/// The integer, or the double if it is written as one.
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
    // Exact, as the whole part of a double in between has at most 64 bits.
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
    fn where_doubles_are_too_coarse() {
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
