//! Inputs that once had a wrong answer or none, with the right answers.

use serde_json::{Value, json};

use super::{answer, is_refused};

fn answered(method: &str, inputs: Value) -> Value {
    let Value::Object(inputs) = inputs else { panic!("{inputs} is no object") };
    answer(method.parse().expect("a method"), &inputs)
}

/// Returns the field that an error names.
fn refused(method: &str, inputs: Value) -> String {
    let answer = answered(method, inputs);
    answer["field"].as_str().unwrap_or_else(|| panic!("not refused: {answer}")).to_owned()
}

fn assert_close(got: &Value, expected: f64, relative: f64) {
    let number = got.as_f64().unwrap_or_else(|| panic!("{got} is no number, expected {expected}"));
    assert!((number - expected).abs() <= relative * expected.abs(), "got {number:e}, expected {expected:e}");
}

fn with(mut inputs: Value, name: &str, value: impl Into<Value>) -> Value {
    inputs[name] = value.into();
    inputs
}

/// The squares of 10^154 exceed the largest double; the method panicked on an invalid variance.
#[test]
fn values_of_any_size_have_their_t_or_are_refused_by_their_field() {
    let of = |unit: f64| {
        let [one, two, three, four] = [1.0, 2.0, 3.0, 4.0].map(|value| value * unit);
        json!({ "control": [one, two], "treatment": [two, three, four], "alpha": 0.05 })
    };
    for unit in [1e-99, 1e-30, 1.0, 1e30, 1e99] {
        let answer = answered("welch_t", of(unit));
        assert_close(&answer["t"], 1.963_961_012_123_931_7, 1e-14);
        assert_close(&answer["p_value"], 0.148_027_881_803_898, 1e-13);
    }
    for unit in [1e-154, 1e154, -1e154] {
        assert_eq!(refused("welch_t", of(unit)), "control[0]", "{unit}");
    }
    // The same values as sums.
    let sums = |unit: f64| {
        json!({
            "n_c": 2, "sum_c": 3.0 * unit, "sum_sq_c": 5.0 * unit * unit,
            "n_t": 3, "sum_t": 9.0 * unit, "sum_sq_t": 29.0 * unit * unit, "alpha": 0.05,
        })
    };
    assert_close(&answered("welch_t", sums(1e99))["t"], 1.963_961_012_123_931_7, 1e-13);
    assert_eq!(refused("welch_t", sums(1e120)), "sum_sq_c");
}

/// Below a half the lower cap is above the upper one, 5 and 3 here, and a clamp between them panicked.
#[test]
fn caps_on_both_sides_need_a_percentile_of_at_least_a_half() {
    let of = |percentile: f64| {
        json!({
            "control": [1, 2, 3, 4, 5, 6], "treatment": [2, 3, 4, 5, 6, 70], "percentile": percentile, "side": "both",
            "quantile_method": "linear", "scope": "pooled", "alpha": 0.05,
        })
    };
    assert_eq!(refused("winsorize", of(0.3)), "percentile");
    assert_eq!(refused("winsorize", with(of(0.3), "scope", "per_arm")), "percentile");
    assert_eq!(refused("winsorize", with(of(0.3), "quantile_method", "inverted_cdf")), "percentile");
    let half = answered("winsorize", of(0.5));
    assert_eq!((&half["floor_c"], &half["cap_c"], &half["mean_t"]), (&json!(4.0), &json!(4.0), &json!(4.0)));
    // With one side there is no lower cap to cross.
    assert_eq!(answered("winsorize", with(of(0.3), "side", "upper"))["cap_c"], json!(3.0));
}

/// The width is half the quantile of one degree of freedom: it was 77 million times too large at 1e-8, too
/// small by more than half at 1e-9, and a panic at 1e-300.
#[test]
fn intervals_at_tiny_levels_have_the_width_of_t() {
    for (alpha, half_width) in
        [(1e-8, 31_830_988.618_379_064), (1e-9, 318_309_886.183_790_6), (1e-300, 3.183_098_861_837_906_7e299)]
    {
        let inputs = json!({ "control": [0, 0], "treatment": [1, 2], "alpha": alpha });
        let ci = &answered("welch_t", inputs)["ci"];
        let [lower, upper] = [&ci[0], &ci[1]].map(|end| end.as_f64().unwrap());
        assert_close(&json!((upper - lower) / 2.0), half_width, 1e-13);
    }
}

/// In doubles 0.55, 0.14 and 0.28 times 100 are slightly above the whole number, and 0.57 times 100 is
/// slightly below.
#[test]
fn the_quantile_at_0_55_of_100_is_the_55th() {
    let values: Vec<u32> = (1..=100).collect();
    for (level, expected) in [(0.55, 55.0), (0.14, 14.0), (0.28, 28.0), (0.57, 57.0), (0.551, 56.0)] {
        let inputs = json!({ "values_c": values, "values_t": values, "level": level, "alpha": 0.05 });
        let answer = answered("quantile", inputs);
        assert_eq!(
            (&answer["quantile_c"], &answer["quantile_t"]),
            (&json!(expected), &json!(expected)),
            "{level}"
        );
    }
    // The cap of a winsorized mean uses the same ranks.
    let inputs = json!({
        "control": values, "treatment": values, "percentile": 0.55, "side": "upper", "quantile_method": "inverted_cdf",
        "scope": "per_arm", "alpha": 0.05,
    });
    assert_eq!(answered("winsorize", inputs)["cap_c"], json!(55.0));
}

/// -5 is better than -10 by 5 on both scales; divided by the control mean it would be a decrease of 50 %.
#[test]
fn a_control_mean_below_0_has_one_direction() {
    let prior = json!({ "mean": 0, "variance": 1, "proper": false });
    let bayes = json!({
        "control": { "kind": "mean", "n": 1000, "sum": -10000, "ss": 101000 },
        "treatment": { "kind": "mean", "n": 1000, "sum": -5000, "ss": 26000 },
        "prior": prior, "prior_type": "relative", "difference_type": "relative", "alpha": 0.05, "inverse": false,
    });
    for scale in ["relative", "absolute"] {
        let of = with(bayes.clone(), "difference_type", scale);
        assert_eq!(answered("bayes_gaussian_effect", of.clone())["chance_to_win"], json!(1.0), "{scale}");
        // If lower is better, the treatment, which is higher, does not win.
        let inverse = answered("bayes_gaussian_effect", with(of, "inverse", true));
        assert!(inverse["chance_to_win"].as_f64().unwrap() < 1e-100, "{scale}: {inverse}");
    }
    let relative = answered("bayes_gaussian_effect", bayes.clone());
    assert_eq!(relative["expected"], Value::Null);
    assert_eq!(relative["missing"]["expected"], "the control mean is -10, a lift needs one above 0");
    let sequence = with(with(bayes, "tuning_n_star", 5000), "difference_type", "relative");
    let sequence = answered("sequential_asymptotic_cs", sequence);
    assert_eq!((&sequence["estimate"], &sequence["p_value"]), (&Value::Null, &Value::Null));

    let welch = json!({ "control": [-10, -11, -9, -10], "treatment": [-5, -6, -4, -5], "alpha": 0.05 });
    let two_sided = answered("welch_t", welch.clone());
    assert_eq!(two_sided["diff"], json!(5.0));
    // GrowthBook's quotient has the opposite sign, with a warning; the platform shows no lift.
    let warning = "the control mean is below 0, where this is not the sign of diff; over |control| it is 0.5";
    assert_eq!(two_sided["rel_lift"], json!(-0.5));
    assert_eq!(two_sided["warnings"], json!({ "rel_lift": warning, "rel_ci_delta": warning }));
    assert_eq!(two_sided["rel_ci_fieller"], Value::Null);
    for side in ["greater", "less"] {
        let one_sided = answered("welch_t", with(welch.clone(), "alternative", side));
        for field in ["rel_lift", "rel_ci_delta", "rel_p_value_delta"] {
            assert_eq!(one_sided[field], Value::Null, "{side} {field}");
            let why = "the control mean is -10, a lift needs one above 0";
            assert_eq!(one_sided["missing"][field], why, "{side}");
        }
    }
}

/// The answer had a two-sided p-value with a one-sided interval.
#[test]
fn the_p_value_of_a_lift_is_on_the_side_of_the_alternative() {
    let inputs = json!({
        "control": [10, 12, 11, 13, 9, 10.5], "treatment": [12, 13, 14, 12.5, 13.5, 11], "alpha": 0.05,
    });
    for (alternative, p, lower) in [
        ("greater", 0.028_741_948_987_403_4, json!(0.025_167_007_082_868)),
        ("less", 0.971_258_051_012_596_5, json!("-inf")),
        ("two-sided", 0.057_483_897_974_806_8, json!(-0.006_250_507_414)),
    ] {
        let answer = answered("welch_t", with(inputs.clone(), "alternative", alternative));
        assert_close(&answer["rel_p_value_delta"], p, 1e-12);
        let got = &answer["rel_ci_delta"][0];
        match lower.as_f64() {
            Some(lower) => assert!((got.as_f64().unwrap() - lower).abs() < 1e-9, "{alternative}: {got}"),
            None => assert_eq!(*got, lower),
        }
    }
}

/// A one-sided test looks for an increase, not for a decrease; the sign of the effect was ignored.
#[test]
fn a_one_sided_test_has_no_power_and_no_sample_size_for_a_decrease() {
    let rates = json!({
        "baseline": 0.05, "treatment_rate": 0.04, "n_c": 10000, "alpha": 0.05, "power": 0.8, "ratio_t_over_c": 1,
        "sides": 1,
    });
    let power = answered("power", with(rates.clone(), "kind", "proportion_power"));
    assert_close(&power["power_unpooled"], 2.131_642_535_664_17e-7, 1e-10);
    assert_close(&power["power_pooled"], 2.126_301_159_204_98e-7, 1e-10);
    let size = with(rates.clone(), "kind", "proportion_sample_size");
    assert_eq!(refused("power", size.clone()), "treatment_rate");
    assert_eq!(answered("power", with(size.clone(), "treatment_rate", 0.06))["n_c_unpooled"], json!(6424));
    assert!(!is_refused(&answered("power", with(size, "sides", 2))));
    let detectable = answered("power", with(rates, "kind", "proportion_mde"));
    assert_eq!(detectable["p2_down"], Value::Null);
    assert_eq!(detectable["missing"]["p2_down"], "a one-sided test that looks upwards finds no decrease");

    let means = json!({
        "kind": "mean_sample_size", "sd": 1, "mde_abs": -0.5, "alpha": 0.05, "power": 0.8, "ratio_t_over_c": 1, "sides": 1,
    });
    assert_eq!(refused("power", means.clone()), "mde_abs");
    assert_eq!(answered("power", with(means.clone(), "mde_abs", 0.5))["n_c_normal"], json!(50));
    assert_eq!(answered("power", with(means, "sides", 2))["n_c_normal"], json!(63));
}

/// z = 0.974 in 10^15 units an arm: it was 0.8171, the noise of a difference of two logarithms of size n ln n.
#[test]
fn ten_to_15_units_have_the_probability_of_their_z() {
    let inputs = json!({
        "prior_alpha": 1, "prior_beta": 1, "x_c": 100_000_000_000_000_u64, "n_c": 1_000_000_000_000_000_u64,
        "x_t": 100_000_013_070_000_u64, "n_t": 1_000_000_000_000_000_u64, "alpha": 0.05,
    });
    let answer = answered("bayes_beta_binomial", inputs);
    assert_close(&answer["prob_treatment_better"], 0.835_016_476_390_353, 2e-8);
}

/// Numerators and denominators have their own units. A ratio within range has an answer, and the t and p of
/// ordinary data do not depend on the two units; otherwise the error names the denominator.
#[test]
fn a_ratio_does_not_depend_on_two_units_or_is_refused_by_its_field() {
    let arm = |n: u64, [x, y, xx, yy, xy]: [f64; 5], a: f64, b: f64| {
        json!({
            "n": n, "sum_num": x * a, "sum_den": y * b, "sum_num_sq": xx * a * a, "sum_den_sq": yy * b * b,
            "sum_num_den": xy * a * b,
        })
    };
    let of = |a: f64, b: f64| {
        json!({
            "control": arm(400, [179.0, 2_043.0, 283.0, 11_907.0, 1_046.0], a, b),
            "treatment": arm(380, [196.0, 1_896.0, 350.0, 10_860.0, 1_097.0], a, b), "alpha": 0.05,
        })
    };
    let ordinary = answered("ratio_delta", of(1.0, 1.0));
    for (a, b) in [(1e60, 1e30), (1e-60, 1e30), (1e40, 1e-50), (1e-90, 1e-3), (1e90, 1e90), (1e-95, 1e-95)] {
        let answer = answered("ratio_delta", of(a, b));
        for field in ["t", "df", "p_value"] {
            assert_close(&answer[field], ordinary[field].as_f64().unwrap(), 1e-9);
        }
    }
    for (a, b) in [(1e98, 1e-99), (1e-99, 1e98)] {
        assert_eq!(refused("ratio_delta", of(a, b)), "control.sum_den");
    }
    let vanishing =
        with(of(1.0, 1.0), "control", arm(400, [179.0, 1e-100, 283.0, 11_907.0, 1e-100], 1.0, 1.0));
    assert_eq!(refused("ratio_delta", vanishing), "control.sum_den");
}

/// The bound of a single look is the quantile of alpha; that of 1e-9 was null, as if nothing reached it.
#[test]
fn a_small_alpha_has_its_bound_or_is_refused() {
    let inputs = |alpha: f64| json!({"information_fractions": [1.0], "alpha": alpha, "sides": 2, "spending": "obf", "power": 0.8});
    // scipy.stats.norm.isf(alpha / 2)
    for (alpha, z) in [(1e-9, 6.109410204869), (1e-12, 7.130506848171)] {
        assert_close(&answered("group_sequential_bounds", inputs(alpha))["z"][0], z, 1e-9);
    }
    assert_eq!(refused("group_sequential_bounds", inputs(9e-13)), "alpha");
}

/// One converted unit of one in each arm: the answer claimed that the lift was known exactly.
#[test]
fn rates_without_variation_have_no_interval_of_a_lift() {
    for (n, x) in [(1, 1), (1_000, 1_000)] {
        let inputs = json!({"n_c": n, "x_c": x, "n_t": n, "x_t": x, "alpha": 0.05});
        let answer = answered("two_proportion", inputs);
        for name in ["rel_ci_delta", "rel_ci_fieller", "rel_ci_log"] {
            assert_eq!(answer[name], Value::Null, "{answer}");
            assert_eq!(answer["missing"][name], "no variation in either arm");
        }
    }
}

/// At an alpha close to 1 both ends are the median, and the lower one was above the upper.
#[test]
fn a_credible_interval_next_to_a_point_is_not_crossed() {
    let arms = json!({"n_c": 1000, "x_c": 100, "n_t": 1000, "x_t": 120, "prior_alpha": 1e15, "prior_beta": 1e15,
        "alpha": 0.999_999_999_999});
    let answer = answered("bayes_beta_binomial", arms);
    for name in ["ci_c", "ci_t", "diff_ci"] {
        let (lower, upper) = (answer[name][0].as_f64().unwrap(), answer[name][1].as_f64().unwrap());
        assert!(lower <= upper, "{name}: {lower} to {upper}");
    }
}
