//! Formats numbers for people: rates in per cent, lifts with a sign, p-values to two digits.

/// Formats 10000 as "10,000".
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

/// Formats 0.0046 as "0.46 %"; a share above 0 is never printed as 0.
pub fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.00005 {
        return "less than 0.01 %".to_owned();
    }
    format!("{:.2} %", share * 100.0)
}

/// Formats a rate with at least two significant digits: 0.00005 as "0.0050 %", 0.0046 as "0.46 %".
pub fn rate(share: f64) -> String {
    const DIGITS_MAX: f64 = 9.0;
    let of_hundred = share * 100.0;
    let digits =
        if of_hundred > 0.0 { (1.0 - of_hundred.log10().floor()).clamp(2.0, DIGITS_MAX) } else { 2.0 };
    format!("{of_hundred:.digits$} %", digits = digits as usize)
}

/// Formats a count with its noun: "1 conversion", "2,010 conversions".
pub fn counted(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

/// Formats 0.5 as "+50.0 %".
pub fn signed_percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// Formats 0.0315 as "p = 0.03". A p-value that would round to 0 is "p < 0.001", and one near 0.05, where
/// rounding would suggest another verdict, has three digits.
pub fn p_value(p: f64) -> String {
    if p < 0.001 {
        "p < 0.001".to_owned()
    } else if p < 0.01 || (0.045..0.055).contains(&p) {
        format!("p = {p:.3}")
    } else {
        format!("p = {p:.2}")
    }
}

/// Formats a p-value for a table: four digits, or "< 0.0001" where they would all be 0.
pub fn p_value_short(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// Formats a significance level with at most four digits: 0.05 / 3 as "0.0167"; a small one with an exponent,
/// "1.7e-6".
pub fn level(alpha: f64) -> String {
    if alpha < 0.001 {
        return format!("{alpha:.1e}").replace(".0e", "e");
    }
    format!("{alpha:.4}").trim_end_matches('0').to_owned()
}

/// Formats a ratio with two or three digits: 0.0213 as "0.021", 12.34 as "12.3", 1234.5 as "1,234". Near 1,
/// where the verdict depends on the side, it has four decimals and is rounded away from 1.
pub fn times(ratio: f64) -> String {
    const NEAR_1: f64 = 1e4;
    if ratio != 1.0 && (0.995..1.005).contains(&ratio) {
        let kept = if ratio < 1.0 { (ratio * NEAR_1).floor() } else { (ratio * NEAR_1).ceil() };
        format!("{:.4}", kept / NEAR_1)
    } else if ratio >= 100.0 {
        count(ratio as u64)
    } else if ratio >= 10.0 {
        format!("{ratio:.1}")
    } else if ratio >= 0.1 {
        format!("{ratio:.2}")
    } else {
        let digits = if ratio > 0.0 { (1.0 - ratio.log10().floor()).clamp(0.0, 9.0) as usize } else { 0 };
        format!("{ratio:.digits$}")
    }
}

/// Formats a mean that is not a share, with four significant digits.
pub fn mean(value: f64) -> String {
    let before = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let digits = usize::try_from((3 - before).clamp(0, 9)).expect("clamped to 0 to 9");
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_people_write_them() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [percent(0.00001), percent(0.0), level(0.05 / 3.0), level(0.05), level(1e-6), level(1.67e-4)],
            ["less than 0.01 %", "0.00 %", "0.0167", "0.05", "1e-6", "1.7e-4"]
        );
        assert_eq!(
            [percent(0.0046), signed_percent(0.5), signed_percent(-0.021)],
            ["0.46 %", "+50.0 %", "-2.1 %"]
        );
        assert_eq!(
            [rate(0.5), rate(0.0046), rate(0.0002), rate(0.00005), rate(1e-9), rate(0.0)],
            ["50.00 %", "0.46 %", "0.020 %", "0.0050 %", "0.00000010 %", "0.00 %"]
        );
        assert_eq!(
            [0, 1, 2_010].map(|number| counted(number, "conversion", "conversions")),
            ["0 conversions", "1 conversion", "2,010 conversions"]
        );
        assert_eq!(
            [mean(12.3456), mean(0.012345), mean(0.0), mean(123_456.7)],
            ["12.35", "0.01235", "0.000", "123457"]
        );
        assert_eq!(
            [
                times(0.0),
                times(0.000_213_4),
                times(0.0213),
                times(0.5),
                times(7.456),
                times(12.34),
                times(1_234.5)
            ],
            ["0", "0.00021", "0.021", "0.50", "7.46", "12.3", "1,234"]
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
