//! Compares posteriors of up to 2^53 units with values of another method: densities of 50 digits, summed up
//! piece by piece. `references/bayes.py` printed the table, with mpmath 1.4.1 and numpy 2.4.

use stats::{
    Alpha, Arm, Counts, Pair,
    bayes::{BetaPosterior, BetaPrior, Rates, best_of},
    distributions::normal_quantile,
};

fn posterior(prior: f64, [conversions, units]: [u64; 2]) -> BetaPosterior {
    BetaPrior::new(prior, prior).unwrap().after(Arm::new(Counts { units, conversions }).unwrap())
}

fn assert_close(what: &str, got: f64, expected: f64, relative: f64) {
    let off = (got / expected - 1.0).abs();
    assert!(off <= relative, "{what}: got {got:e}, expected {expected:e}, off by {off:e}");
}

/// From 10^14 units on the difference of two logarithms of size n ln n was noise: 0.8171 instead of 0.8350.
#[test]
fn probabilities_and_losses_up_to_2_to_53_units() {
    for (control, treatment, prior, [better, loss_of_treatment, loss_of_control]) in VALUES {
        let what = format!("{control:?} against {treatment:?}");
        let rates = Rates(Pair { control, treatment }.map(|counts| posterior(prior, counts)));
        assert_close(&what, rates.probability_treatment_better(), better, 2e-8);
        assert_close(&what, rates.expected_loss_of_treatment(), loss_of_treatment, 1e-7);
        assert_close(&what, rates.expected_loss_of_control(), loss_of_control, 1e-7);
        let exchanged = Rates(Pair { control: rates.0.treatment, treatment: rates.0.control });
        let both = rates.probability_treatment_better() + exchanged.probability_treatment_better();
        assert_close(&what, both, 1.0, 2e-8);
        let gained = rates.expected_loss_of_control() - rates.expected_loss_of_treatment();
        let largest = loss_of_control.max(loss_of_treatment);
        assert!((gained - rates.expected_difference()).abs() <= 1e-7 * largest, "{what}: {gained:e}");
        let best = best_of(&[rates.0.control, rates.0.treatment]).unwrap();
        assert_eq!(best[1], rates.probability_treatment_better());
    }
}

/// The same z has the same probability at any number of units, to a part in 10^7.
#[test]
fn the_same_z_is_the_same_probability_at_every_size() {
    let z: f64 = 0.974;
    for exponent in 30..=53 {
        let units = 1_u64 << exponent;
        let conversions = units / 8;
        let sd = (2.0 * units as f64 * 0.125 * 0.875).sqrt();
        let more = (z * sd).round();
        let rates = Rates(Pair {
            control: posterior(1.0, [conversions, units]),
            treatment: posterior(1.0, [conversions + more as u64, units]),
        });
        let found = normal_quantile(rates.probability_treatment_better());
        // The effects of skewness and of whole numbers of conversions are of the order of 1 / sd.
        assert!((found - more / sd).abs() < 2.0 / sd + 1e-7, "2^{exponent}: {found}");
        let interval = rates.interval_of_difference(Alpha::FIVE_PERCENT);
        let half_width = 0.5 * (interval.upper - interval.lower) * units as f64 / sd;
        assert!((half_width - 1.959_964).abs() < 2.0 / sd + 1e-6, "2^{exponent}: {half_width}");
    }
}

/// Far tails of one rate and of a difference: Beta(1, 10) has P(rate <= p) = 1 - (1 - p)^10.
#[test]
fn intervals_at_tiny_levels_are_accurate() {
    for tail in [0.025_f64, 1e-10, 1e-100, 1e-300] {
        let alpha = Alpha::new(2.0 * tail).unwrap();
        let interval = posterior(1.0, [0, 9]).interval(alpha);
        assert_close("lower", interval.lower, -(0.1 * (-tail).ln_1p()).exp_m1(), 1e-12);
        assert!((interval.upper - (1.0 - (0.1 * tail.ln()).exp())).abs() < 1e-12, "{tail}: {interval:?}");
        // Two uniform rates: P(p_t - p_c <= d) = (1 + d)^2 / 2 for d below 0.
        let uniform = posterior(1.0, [0, 0]);
        let difference = Rates(Pair { control: uniform, treatment: uniform }).interval_of_difference(alpha);
        assert_close("difference", difference.lower, (2.0 * tail).sqrt() - 1.0, 1e-9);
        assert_close("difference", difference.upper, 1.0 - (2.0 * tail).sqrt(), 1e-9);
    }
}

type Values = ([u64; 2], [u64; 2], f64, [f64; 3]);

/// Control and treatment (conversions, units), prior, then P(treatment better), E[max(p_c - p_t, 0)],
/// E[max(p_t - p_c, 0)].
#[rustfmt::skip]
const VALUES: [Values; 10] = [
    ([1_000_000_000_000, 10_000_000_000_000], [1_000_001_307_000, 10_000_000_000_000], 1.0, [0.835016413181699, 1.17384615416498e-08, 1.42438461541624e-07]),
    ([100_000_000_000_000, 1_000_000_000_000_000], [100_000_013_070_000, 1_000_000_000_000_000], 1.0, [0.835016476390353, 1.17384528365533e-09, 1.42438452836553e-08]),
    ([300_000_000_000_000, 3_000_000_000_000_000], [300_000_022_640_000, 3_000_000_000_000_000], 1.0, [0.835038866330516, 6.77604609260846e-10, 8.22427127592751e-09]),
    ([4_503_599_627_370_496, 9_007_199_254_740_992], [4_503_599_667_370_496, 9_007_199_254_740_992], 1.0, [0.724427901026885, 1.26480767558961e-09, 5.70569977409023e-09]),
    ([3, 9_007_199_254_740_992], [8, 9_007_199_254_740_992], 1.0, [0.927001953125, 1.31459513413867e-17, 5.68257463653965e-16]),
    ([9_007_199_254_740_984, 9_007_199_254_740_992], [9_007_199_254_740_989, 9_007_199_254_740_992], 1.0, [0.927001953125, 1.31459513413867e-17, 5.68257463653965e-16]),
    ([500_000_000_000_000, 1_000_000_000_000_000], [490, 1000], 1.0, [0.263658197137086, 0.0125076547194842, 0.0025276147993245]),
    ([1_000_000_000, 1_000_000_000_000], [1_000_400_000, 1_000_000_000_000], 1.0, [1.0, 8.84106128911809e-28, 3.999999999992e-07]),
    ([0, 0], [4_503_599_627_370_496, 9_007_199_254_740_992], 1.0, [0.5, 0.125, 0.125]),
    ([7, 100], [12, 90], 0.5, [0.927113372612662, 0.00142302865053967, 0.0645282402706027]),
];
