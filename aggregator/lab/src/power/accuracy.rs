//! Warnings where the formulas of planning stop being accurate: they are normal approximations, and other
//! tests decide about small samples. Pure.

use super::Row;

/// The units of an arm below which the normal distribution is too far from Student's.
const UNITS_MIN: u64 = 30;
/// The conversions of an arm below which the service uses exact tests.
const CONVERSIONS_MIN: f64 = 10.0;

/// Returns the warnings for a plan with one look.
pub(super) fn warnings(row: &Row, baseline: f64, is_rate: bool) -> Vec<String> {
    let fewest = row.units_per_arm.iter().copied().min().unwrap_or(0);
    if !is_rate {
        let few =
            format!("an arm has {fewest} units: below {UNITS_MIN} a t-test needs more than the formulas say");
        return if fewest < UNITS_MIN { vec![few] } else { Vec::new() };
    }
    let rates = [Some(baseline), row.effect_absolute.map(|effect| baseline + effect)];
    let rarer = rates.into_iter().flatten().map(|rate| rate.min(1.0 - rate)).fold(f64::INFINITY, f64::min);
    let expected = fewest as f64 * rarer;
    if expected >= CONVERSIONS_MIN {
        return Vec::new();
    }
    vec![format!(
        "an arm has {expected:.1} conversions, or units without one, to expect: below {CONVERSIONS_MIN:.0} exact tests \
         decide, which need more units than the formulas say"
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(units: u64, effect: f64) -> Row {
        Row {
            effect_absolute: Some(effect),
            effect_relative: None,
            power: 0.8,
            units_per_arm: vec![units, units],
            units_total: 2 * units,
            inflation: 1.0,
            expected_units_if_effect: None,
            expected_units_if_none: None,
            days: None,
            whole_week_days: None,
        }
    }

    /// A plan of five units an arm for 69 % against 5 % promised a power of 80 %; Fisher's test has 43 %.
    #[test]
    fn few_conversions_give_a_warning() {
        assert_eq!(
            warnings(&row(5, 0.64), 0.05, true),
            [
                "an arm has 0.2 conversions, or units without one, to expect: below 10 exact tests decide, which need more \
              units than the formulas say"
            ]
        );
        assert_eq!(warnings(&row(199, 0.02), 0.05, true).len(), 1);
        assert_eq!(warnings(&row(200, 0.02), 0.05, true), Vec::<String>::new());
        assert_eq!(warnings(&row(199, 0.01), 0.95, true).len(), 1);
    }

    /// Two units an arm at three standard deviations: Student's test has a power of 39 %.
    #[test]
    fn few_units_of_a_mean_give_a_warning() {
        assert_eq!(
            warnings(&row(2, 60.0), 100.0, false),
            ["an arm has 2 units: below 30 a t-test needs more than the formulas say"]
        );
        assert_eq!(warnings(&row(30, 60.0), 100.0, false), Vec::<String>::new());
    }
}
