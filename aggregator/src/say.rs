//! Numbers as people read them: rates in per cent, lifts with a sign, p-values to two digits.

/// 10000 as "10,000".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 0.0046 as "0.46 %".
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// 0.5 as "+50.0 %".
pub fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// 0.0315 as "p = 0.03"; what rounds away is "p < 0.001", and what would read as another verdict near
/// 0.05 keeps its digits.
pub fn p_value(p: f64) -> String {
    if p < 0.001 {
        "p < 0.001".to_owned()
    } else if p < 0.01 || (0.045..0.055).contains(&p) {
        format!("p = {p:.3}")
    } else {
        format!("p = {p:.2}")
    }
}

/// A mean that is no share, with four significant digits.
pub fn mean(value: f64) -> String {
    let before = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let digits = usize::try_from((3 - before).clamp(0, 9)).expect("clamped to 0 to 9");
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [percent(0.0046), signed_percent(0.5), signed_percent(-0.021)],
            ["0.46 %", "+50.0 %", "-2.1 %"]
        );
        assert_eq!(
            [mean(12.3456), mean(0.012345), mean(0.0), mean(123_456.7)],
            ["12.35", "0.01235", "0.000", "123457"]
        );
    }

    #[test]
    fn a_p_value_never_rounds_across_its_threshold() {
        assert_eq!([p_value(0.0315), p_value(0.654_1), p_value(1.0)], ["p = 0.03", "p = 0.65", "p = 1.00"]);
        assert_eq!(
            [p_value(0.0499), p_value(0.0504), p_value(0.004)],
            ["p = 0.050", "p = 0.050", "p = 0.004"]
        );
        assert_eq!(p_value(0.000_999), "p < 0.001");
    }
}
