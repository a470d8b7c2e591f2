//! Numbers compared by their value. Integers of 64 bits are not doubles: beyond 2^53 two of them share one, and ids of
//! accounts are often that large.

use std::cmp::Ordering;

use schemas::definition::Bound;

/// 2^64; every integer of JSON is below it.
const TWO_TO_THE_64: f64 = 18_446_744_073_709_551_616.0;
/// -2^63; no integer of JSON is below it.
const MINUS_TWO_TO_THE_63: f64 = -9_223_372_036_854_775_808.0;

/// Up to 2^53 every integer is a double.
const DOUBLES_TO: u64 = 1 << 53;

/// A number as it was written: an integer of up to 64 bits, signed or not, or a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    /// An integer above the largest of 64 bits with a sign.
    Large(u64),
    Double(f64),
}

impl Number {
    pub(crate) fn of(json: &serde_json::Number) -> Number {
        if let Some(integer) = json.as_i64() {
            Number::Integer(integer)
        } else if let Some(integer) = json.as_u64() {
            Number::Large(integer)
        } else {
            Number::Double(json.as_f64().expect("a number of JSON is an integer or a double"))
        }
    }

    /// The same value as an integer, if it is one and was written as a double: integers are compared with fewer steps.
    pub(crate) fn whole(self) -> Number {
        match self {
            Number::Double(double) if double.trunc() == double && double.abs() <= DOUBLES_TO as f64 => {
                Number::Integer(double as i64)
            }
            other => other,
        }
    }

    /// Compares two values without rounding either. `None` for a NaN, which no JSON has.
    #[inline]
    pub(crate) fn compare(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => Some(left.cmp(&right)),
            (Number::Double(left), Number::Double(right)) => left.partial_cmp(&right),
            // Small integers are doubles, which one instruction makes of them.
            (Number::Integer(left), Number::Double(right)) if left.unsigned_abs() <= DOUBLES_TO => {
                (left as f64).partial_cmp(&right)
            }
            (Number::Double(left), Number::Integer(right)) if right.unsigned_abs() <= DOUBLES_TO => {
                left.partial_cmp(&(right as f64))
            }
            (left, right) => left.compare_large(right),
        }
    }

    /// The same for numbers that need not be doubles.
    #[cold]
    fn compare_large(self, other: Number) -> Option<Ordering> {
        match (self.integer(), other.integer()) {
            (Ok(left), Ok(right)) => Some(left.cmp(&right)),
            (Ok(left), Err(right)) => integer_with_double(left, right),
            (Err(left), Ok(right)) => integer_with_double(right, left).map(Ordering::reverse),
            (Err(left), Err(right)) => left.partial_cmp(&right),
        }
    }

    fn integer(self) -> Result<i128, f64> {
        match self {
            Number::Integer(integer) => Ok(integer.into()),
            Number::Large(integer) => Ok(integer.into()),
            Number::Double(double) => Err(double),
        }
    }
}

impl From<&Bound> for Number {
    fn from(bound: &Bound) -> Number {
        Number::of(bound.number())
    }
}

fn integer_with_double(integer: i128, double: f64) -> Option<Ordering> {
    if double >= TWO_TO_THE_64 {
        return Some(Ordering::Less);
    }
    if double < MINUS_TWO_TO_THE_63 {
        return Some(Ordering::Greater);
    }
    // Exact, as the whole part of a double in between has at most 64 bits.
    let whole = double.trunc();
    Some(integer.cmp(&(whole as i128)).then(0.0_f64.partial_cmp(&(double - whole))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::of(&serde_json::from_str(text).unwrap())
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
            assert_eq!(number(left).compare(number(right)), Some(order), "{left} {right}");
            assert_eq!(number(right).compare(number(left)), Some(order.reverse()), "{right} {left}");
            assert_eq!(number(left).compare(number(right).whole()), Some(order), "{left} {right}");
        }
    }

    #[test]
    fn a_nan_of_a_caller_compares_with_nothing() {
        let nan = Number::Double(f64::NAN);
        for other in [nan, Number::Double(1.0), Number::Integer(1)] {
            assert_eq!(nan.compare(other), None);
            assert_eq!(other.compare(nan), None);
        }
        assert_eq!(Number::Double(f64::INFINITY).compare(Number::Integer(1)), Some(Ordering::Greater));
    }
}
