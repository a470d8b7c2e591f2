//! Compares numbers in conditions with an oracle that never rounds: a double is its 53 bits times a power of
//! two.

use std::cmp::Ordering;

use assignment::{CompiledCondition, Context, ListSource, Lists};
use proptest::prelude::*;
use schemas::definition::{Condition, Definitions};
use serde_json::{Number, Value, json};

/// The order of an integer and the exact value of `double`.
fn exact(integer: i128, double: f64) -> Ordering {
    let bits = double.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let magnitude = if exponent == 0 { fraction } else { fraction | 1 << 52 };
    let mantissa = if double.is_sign_negative() { -magnitude } else { magnitude };
    match exponent.max(1) - 1_075 {
        // Integers have at most 65 bits with their sign, so both sides fit an i128.
        power @ 0..=70 => integer.cmp(&(mantissa << power)),
        power @ -60..0 => (integer << -power).cmp(&mantissa),
        power if power > 0 => 0.cmp(&mantissa),
        // The double is less than one in magnitude.
        _ => integer.cmp(&0).then(0.cmp(&mantissa)),
    }
}

fn exact_order(left: &Number, right: &Number) -> Ordering {
    match (left.as_i128(), right.as_i128()) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => exact(left, right.as_f64().unwrap()),
        (None, Some(right)) => exact(right, left.as_f64().unwrap()).reverse(),
        (None, None) => left.as_f64().unwrap().partial_cmp(&right.as_f64().unwrap()).unwrap(),
    }
}

fn integer(value: i128) -> Number {
    let value = value.clamp(i64::MIN.into(), u64::MAX.into());
    i64::try_from(value).map_or_else(|_| Number::from(value as u64), Number::from)
}

/// Integers near powers of two, where integers and doubles are close to each other, and any others.
fn integers() -> impl Strategy<Value = i128> {
    let near_a_power = (0_u32..=64, -3_i128..=3, any::<bool>()).prop_map(|(power, beside, negative)| {
        let value = (1_i128 << power) + beside;
        if negative { -value } else { value }
    });
    prop_oneof![near_a_power, any::<i64>().prop_map(i128::from), any::<u64>().prop_map(i128::from)]
}

fn numbers() -> impl Strategy<Value = Number> {
    let steps = (integers(), -2_i64..=2, any::<bool>()).prop_map(|(value, steps, half)| {
        let near = f64::from_bits((value as f64).to_bits().wrapping_add_signed(steps));
        Number::from_f64(if half { near + 0.5 } else { near }).unwrap_or_else(|| Number::from(0))
    });
    prop_oneof![integers().prop_map(integer), steps, any::<f64>().prop_filter_map("finite", Number::from_f64)]
}

fn passes(operator: &str, value: &Number, bound: Value) -> bool {
    let condition: Condition = serde_json::from_value(json!({"attribute": "a", operator: bound})).unwrap();
    let value = Value::Number(value.clone());
    let attributes = [(assignment::Name::of("a"), assignment::Value::Json(&value))];
    let source = ListSource { definitions: &Definitions::default(), lists: &Lists::default() };
    CompiledCondition::compile(&source, "user", &condition)
        .holds(&Context { targeting_key: None, attributes: &attributes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_comparison_is_exact(value in numbers(), bound in numbers(), other in numbers()) {
        let order = exact_order(&value, &bound);
        let json = Value::Number(bound);
        prop_assert_eq!(passes("equals", &value, json.clone()), order.is_eq());
        let among = json!([other, json]);
        prop_assert_eq!(passes("in", &value, among), order.is_eq() || exact_order(&value, &other).is_eq());
        prop_assert_eq!(passes("above", &value, json.clone()), order.is_gt());
        prop_assert_eq!(passes("at_least", &value, json.clone()), order.is_ge());
        prop_assert_eq!(passes("below", &value, json.clone()), order.is_lt());
        prop_assert_eq!(passes("at_most", &value, json), order.is_le());
    }
}

#[test]
fn the_oracle_is_right_on_known_cases() {
    assert_eq!(exact((1 << 53) + 1, 9_007_199_254_740_992.0), Ordering::Greater);
    assert_eq!(exact(1 << 53, 9_007_199_254_740_992.0), Ordering::Equal);
    assert_eq!(exact(1, 1.5), Ordering::Less);
    assert_eq!(exact(0, -f64::MIN_POSITIVE / 2.0), Ordering::Greater);
    assert_eq!(exact(i128::from(u64::MAX), f64::MAX), Ordering::Less);
}
