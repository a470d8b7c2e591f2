//! Tests every method of the calculator of the command line with random numbers of any size: from 5e-324 to
//! 1.8e308, counts up to 2^64, levels close to 0 and close to 1, no units, one, two, and all of one value.
//! Each seed is one case of one method. `COMPUTE_SEED` replays a case, and `COMPUTE_CASES` sets the number of
//! cases.

mod changed;
mod draw;
mod exact;
mod facts;

use changed::{EXCHANGED, MEASURED, MIRRORED, differences};
use draw::Draw;
use lab::compute::{METHODS, Method};
use serde_json::{Map, Value, json};

/// Returns the seeds of the cases to run: `few` by default, or those of the environment variables.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let cases = setting("COMPUTE_CASES");
    match setting("COMPUTE_SEED") {
        Some(seed) => seed..seed + cases.unwrap_or(1),
        None => 0..cases.unwrap_or(few),
    }
}

fn case(seed: u64) -> (Method, Map<String, Value>) {
    let method = METHODS[(seed % METHODS.len() as u64) as usize];
    (method, draw::inputs(method.name, &mut Draw::new(seed)))
}

fn answer(method: Method, inputs: &Map<String, Value>) -> Value {
    let line = Value::Object(inputs.clone()).to_string();
    serde_json::from_str(&method.answer(&line)).expect("an answer is JSON")
}

fn is_refused(answer: &Value) -> bool {
    answer["field"].is_string()
}

/// Describes what is wrong with one case, with everything needed to reproduce it.
fn failure(
    seed: u64,
    method: Method,
    inputs: &Map<String, Value>,
    what: &[String],
    answer: &Value,
) -> Option<String> {
    let line = Value::Object(inputs.clone());
    (!what.is_empty())
        .then(|| format!("COMPUTE_SEED={seed} {}\n{line}\n{}\n{answer}", method.name, what.join("\n")))
}

fn report(failures: &[String], cases: usize) {
    let shown: Vec<&str> = failures.iter().take(5).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {cases} cases, among them:\n{}", failures.len(), shown.join("\n\n"));
}

/// Every answer is a result or an error that names its field, never a panic and never NaN. P-values are from
/// 0 to 1, intervals contain their estimates, and both agree.
#[test]
fn every_answer_is_sound() {
    let (mut failures, mut answered, mut refused) = (Vec::new(), 0, 0);
    for seed in seeds(2_300) {
        let (method, inputs) = case(seed);
        let answer = answer(method, &inputs);
        if is_refused(&answer) {
            refused += 1
        } else {
            answered += 1
        }
        failures.extend(failure(
            seed,
            method,
            &inputs,
            &facts::wrong(method.name, &inputs, &answer),
            &answer,
        ));
    }
    println!("{answered} answered, {refused} refused by their field");
    report(&failures, answered + refused);
    if std::env::var_os("COMPUTE_SEED").is_none() {
        assert!(
            answered > 500 && refused > 500,
            "{answered} answered, {refused} refused: the cases are unbalanced"
        );
    }
}

/// The unit of measure does not matter: a power of two changes no digit of t, of its degrees or of p.
#[test]
fn answers_are_the_same_in_every_unit() {
    let (mut failures, mut compared) = (Vec::new(), 0);
    for seed in seeds(2_300) {
        let (method, inputs) = case(seed);
        if !MEASURED.contains(&method.name) || !changed::has_a_unit(&inputs) {
            continue;
        }
        // Not as text, because parsing may change the last digit.
        let one = method.compute(&inputs);
        for exponent in [-40, 3, 60] {
            let other = method.compute(&changed::rescaled(&inputs, 2_f64.powi(exponent)));
            // In another unit a value may be out of range.
            if is_refused(&one) || is_refused(&other) {
                continue;
            }
            compared += 1;
            failures.extend(failure(seed, method, &inputs, &differences(&one, &other, 1.0, 0.0), &other));
        }
    }
    println!("{compared} compared");
    report(&failures, compared);
}

/// With all signs changed, or with the arms exchanged, and with the other alternative, the answers are mirror
/// images.
#[test]
fn answers_are_mirror_images() {
    let (mut failures, mut compared) = (Vec::new(), 0);
    for seed in seeds(2_300) {
        let (method, inputs) = case(seed);
        let mut others = Vec::new();
        // A relative effect has no mirror image, because there is none for a control below 0.
        let relative = inputs.get("difference_type") == Some(&json!("relative"));
        if MIRRORED.contains(&method.name) && changed::has_a_unit(&inputs) && !relative {
            others.push(changed::negated(&inputs));
        }
        // A one-sided boundary looks for an increase only.
        if EXCHANGED.contains(&method.name) && inputs.get("sides") != Some(&json!(1)) {
            others.push(changed::exchanged(&inputs));
        }
        let one = answer(method, &inputs);
        for other in &others {
            let mirrored = answer(method, other);
            if is_refused(&one) || is_refused(&mirrored) {
                continue;
            }
            compared += 1;
            failures.extend(failure(
                seed,
                method,
                &inputs,
                &differences(&one, &mirrored, -1.0, 1e-6),
                &mirrored,
            ));
        }
    }
    println!("{compared} compared");
    report(&failures, compared);
}

/// A stricter level gives a wider interval, for every method that has one.
#[test]
fn intervals_widen_with_the_confidence() {
    let (mut failures, mut compared) = (Vec::new(), 0);
    for seed in seeds(2_300) {
        let (method, inputs) = case(seed);
        let Some(alpha) = inputs.get("alpha").and_then(Value::as_f64) else { continue };
        let mut stricter = inputs.clone();
        stricter.insert("alpha".to_owned(), json!(alpha / 10.0));
        let (one, other) = (answer(method, &inputs), answer(method, &stricter));
        for of in facts::duals(method.name) {
            let (Some(inner), Some(outer)) =
                (facts::ends(&one[of.interval]), facts::ends(&other[of.interval]))
            else {
                continue;
            };
            compared += 1;
            let slack = |end: f64| if end.is_finite() { 1e-9 * end.abs() } else { 0.0 };
            let wider = outer.0 <= inner.0 + slack(inner.0) && inner.1 - slack(inner.1) <= outer.1;
            if !wider && !of.interval.starts_with("ci95") {
                let what = format!("{}: {inner:?} at {alpha:e}, {outer:?} at a tenth of it", of.interval);
                failures.extend(failure(seed, method, &inputs, &[what], &one));
            }
        }
    }
    println!("{compared} compared");
    report(&failures, compared);
}

fn number(method: &str, inputs: Value, field: &str) -> f64 {
    let method: Method = method.parse().expect("a method");
    let answer: Value = serde_json::from_str(&method.answer(&inputs.to_string())).expect("JSON");
    answer[field].as_f64().unwrap_or_else(|| panic!("{field} of {answer}"))
}

/// Power rises with the units and with the effect over the whole range from 0 to 1; sample sizes fall with
/// the effect.
#[test]
fn power_and_sizes_are_monotone() {
    for sides in [1, 2] {
        let (mut power_before, mut size_before) = (0.0, f64::INFINITY);
        for exponent in 0..=53 {
            let of = |rate: f64| {
                json!({
                    "kind": "proportion_power", "baseline": 0.05, "treatment_rate": rate, "n_c": 1_u64 << exponent,
                    "alpha": 0.05, "ratio_t_over_c": 1, "sides": sides,
                })
            };
            let power = number("power", of(0.051), "power_unpooled");
            assert!((power_before..=1.0).contains(&power), "{sides} 2^{exponent}: {power}");
            // A decrease: a two-sided test finds it, and a one-sided test rejects less often than without any
            // effect.
            let fall = number("power", of(0.049), "power_unpooled");
            assert_eq!(sides == 1, fall < 0.05, "{sides} 2^{exponent}: {fall}");
            power_before = power;
            let difference = 0.5_f64.powi(20 - exponent.min(39));
            let size = json!({
                "kind": "mean_sample_size", "sd": 1, "mde_abs": difference, "alpha": 0.05, "power": 0.8, "ratio_t_over_c": 1,
                "sides": sides,
            });
            let size = number("power", size, "n_c_normal_raw");
            assert!(size <= size_before, "{sides} {difference}: {size}");
            size_before = size;
        }
        assert!(power_before > 1.0 - 1e-12);
    }
}

/// The larger the difference, the smaller is p of "greater", down to the smallest double; t rises with the
/// difference.
#[test]
fn p_falls_as_the_difference_grows() {
    let (mut p_before, mut t_before) = (1.0, f64::NEG_INFINITY);
    for shift in -60..=60 {
        let treatment: Vec<f64> = [0.0, 1.0, 2.0, 1.5].iter().map(|value| value + f64::from(shift)).collect();
        let inputs = json!({ "control": [0.5, 1.0, 1.5, 1.0], "treatment": treatment, "alpha": 0.05, "alternative": "greater" });
        let (p, t) = (number("welch_t", inputs.clone(), "p_value"), number("welch_t", inputs, "t"));
        assert!(p < p_before && t > t_before, "{shift}: {p} {t}");
        (p_before, t_before) = (p, t);
    }
}
