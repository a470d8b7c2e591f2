//! Each kind of metric from the sums of its units to the document, and units whose window is open.

mod story;

use aggregator::counts::Later;
use aggregator::cut::Cut;
use aggregator::definitions::Definitions;
use aggregator::document::{ExperimentResult, Role, Verdict};
use aggregator::experiment_analysis::{CountedExperiment, CountedMetric, Moment};
use aggregator::look::EarlierLooks;
use counting::kind::Value as UnitValue;
use counting::read::{MetricCounts, UnitCounts};
use counting::sums::{Shape, Sums};
use schemas::definition::{Definition, Kind, Metric};
use schemas::{Micros, Uuid};
use serde_json::{Value, json};
use stats::{Alpha, Pair, PairMoments};
use story::Story;

fn metric(fields: Value) -> Metric {
    let mut all = json!({"key": "m", "event": "buy"});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    match Definition::from_json(Kind::Metric, all) {
        Ok(Definition::Metric(metric)) => metric,
        other => panic!("{other:?}"),
    }
}

/// Sums of units with these values (y, x), and with steps where there are any.
fn sums(values: &[(i128, i128)], steps: usize) -> Sums {
    let mut sums = Sums::default();
    for &(y, x) in values {
        let steps_taken = if steps > 0 { u8::try_from(y).unwrap() } else { 0 };
        let done = steps == 0 || usize::from(steps_taken) == steps;
        let y = if steps > 0 { i128::from(done) } else { y };
        let value = UnitValue { takes_part: true, has_event: y != 0, y, x, steps: steps_taken };
        sums.add(&value, Shape { steps, keeps_values: false });
    }
    sums
}

/// The document of two variants, `a` and `b`, with these matured and open units.
fn document(story: &Story, matured: [Sums; 2], open: [Sums; 2]) -> ExperimentResult {
    let counts = |index: usize| MetricCounts {
        variant: ["a", "b"][index].to_owned(),
        phase: 1,
        matured: matured[index].clone(),
        open: open[index].clone(),
    };
    let units = |index: usize| UnitCounts {
        variant: ["a", "b"][index].to_owned(),
        phase: 1,
        units: matured[index].units + open[index].units,
        exposures_of_units: matured[index].units + open[index].units,
        ..UnitCounts::default()
    };
    let definitions = Definitions::default();
    let cut = Cut::default();
    let at = Micros::new(1_700_000_000_000_000).unwrap();
    let counted = CountedExperiment {
        defined: &story.experiment,
        moment: Moment { definitions: &definitions, cut: &cut, as_of: at },
        units: vec![units(0), units(1)],
        ingested_since_ms: None,
        units_of_unknown_phases: 0,
        metrics: vec![CountedMetric {
            key: "m",
            role: Role::Primary,
            definition: Some((1, &story.metric)),
            counts: vec![counts(0), counts(1)],
            cap: None,
            sql: String::new(),
        }],
        analysis_id: Uuid::now_v7(),
        at,
        later: Later::default(),
    };
    let numbers = counted.analyze(EarlierLooks(&story.looks));
    let conclusion = counted.decide(&numbers);
    let document = counted.document(numbers, conclusion);
    // As it is published and read.
    ExperimentResult::read("e", &serde_json::to_string(&document).unwrap()).unwrap()
}

fn story(fields: Value) -> Story {
    let mut story = Story::of(json!({}));
    story.metric = metric(fields);
    story
}

/// Units (numerator, denominator) of both arms.
const CONTROL: [(i128, i128); 6] = [(1, 2), (0, 1), (3, 3), (2, 4), (0, 0), (1, 1)];
const TREATMENT: [(i128, i128); 6] = [(2, 2), (1, 1), (3, 4), (0, 1), (5, 4), (0, 0)];

#[test]
fn a_ratio_is_compared_by_the_delta_method() {
    let story = story(json!({"type": "ratio", "denominator_event": "view"}));
    let found = document(&story, [sums(&CONTROL, 0), sums(&TREATMENT, 0)], Default::default());
    let raw = |values: [(i128, i128); 6]| PairMoments::of(values.map(|(y, x)| (y as f64, x as f64))).unwrap();
    let arms = Pair { control: raw(CONTROL), treatment: raw(TREATMENT) };
    let moments = stats::ratio::linearized(arms).unwrap();
    let expected = stats::fixed_horizon::compare_means(moments, Alpha::FIVE_PERCENT).unwrap();
    let metric = &found.metrics[0];
    // 7 of 11, and 11 of 12.
    let means: Vec<f64> = metric.variants.iter().map(|of| of.mean.unwrap()).collect();
    assert_close(&means, &[7.0 / 11.0, 11.0 / 12.0]);
    let test = &metric.tests[0];
    assert_close(
        &[test.t.unwrap(), test.p_value.unwrap(), test.lift_absolute.unwrap()],
        &[expected.test.t, expected.test.p_value, 11.0 / 12.0 - 7.0 / 11.0],
    );
    assert_eq!(metric.options, *json!({"denominator_event": "view"}).as_object().unwrap());
}

#[test]
fn totals_of_a_ratio_are_in_their_own_unit() {
    let total = json!({"type": "ratio", "numerator": "total", "denominator_event": "view"});
    let millionths = |values: [(i128, i128); 6]| values.map(|(y, x)| (y * 1_000_000, x));
    let arms = [sums(&millionths(CONTROL), 0), sums(&millionths(TREATMENT), 0)];
    let found = document(&story(total), arms, Default::default());
    let means: Vec<f64> = found.metrics[0].variants.iter().map(|of| of.mean.unwrap()).collect();
    assert_close(&means, &[7.0 / 11.0, 11.0 / 12.0]);
}

/// Before the first denominator there is no ratio, and no number is made up.
#[test]
fn a_ratio_without_denominators_has_no_number() {
    let story = story(json!({"type": "ratio", "denominator_event": "view"}));
    let none = [(0, 0); 50];
    let found = document(&story, [sums(&none, 0), sums(&none, 0)], Default::default());
    let metric = &found.metrics[0];
    assert_eq!((metric.tests[0].t, metric.tests[0].p_value), (None, None));
    assert_eq!(metric.always_valid[0].p_value_now, None);
    assert_eq!(found.decision.verdict, Verdict::NotEnoughData);
}

#[test]
fn a_retention_is_a_rate() {
    let story = story(json!({"type": "retention", "retention_days": [1, 7]}));
    let arm = |came_back: usize| {
        let values: Vec<(i128, i128)> = (0..1_000).map(|unit| (i128::from(unit < came_back), 0)).collect();
        sums(&values, 0)
    };
    let found = document(&story, [arm(200), arm(260)], Default::default());
    let expected = stats::fixed_horizon::compare_rates(
        Pair { control: (1_000, 200), treatment: (1_000, 260) }
            .map(|(units, conversions)| stats::Arm::new(stats::Counts { units, conversions }).unwrap()),
        Alpha::FIVE_PERCENT,
    )
    .unwrap();
    let test = &found.metrics[0].tests[0];
    assert_close(&[test.z.unwrap(), test.p_value.unwrap()], &[expected.pooled.z, expected.p_value]);
}

#[test]
fn a_funnel_shows_each_step_and_compares_the_whole() {
    let story = story(json!({"type": "funnel", "then_events": ["pay"], "event": "cart"}));
    let arm = |none: usize, one: usize, both: usize| {
        let of = |units: usize, steps: i128| vec![(steps, 0); units];
        sums(&[of(none, 0), of(one, 1), of(both, 2)].concat(), 2)
    };
    let found = document(&story, [arm(500, 300, 200), arm(450, 290, 260)], Default::default());
    let variants = &found.metrics[0].variants;
    assert_eq!(variants[0].units_by_step, [500, 200]);
    assert_eq!(variants[1].units_by_step, [550, 260]);
    assert_eq!(
        variants.iter().map(|of| (of.units, of.conversions)).collect::<Vec<_>>(),
        [(1_000, 200), (1_000, 260)]
    );
}

/// A final look was once taken at units of which most had been exposed a minute before.
#[test]
fn units_whose_window_is_open_are_not_compared() {
    let mut story = Story::of(json!({"horizon_units": 2_000}));
    story.metric = metric(json!({"type": "conversion", "window_hours": 72}));
    let arm = |units: usize, conversions: usize| {
        let values: Vec<(i128, i128)> = (0..units).map(|unit| (i128::from(unit < conversions), 0)).collect();
        sums(&values, 0)
    };
    let found = document(&story, [arm(500, 50), arm(500, 60)], [arm(700, 10), arm(700, 10)]);
    let metric = &found.metrics[0];
    let shown: Vec<(u64, u64, u64)> =
        metric.variants.iter().map(|of| (of.units, of.units_open, of.conversions)).collect();
    assert_eq!(shown, [(500, 700, 50), (500, 700, 60)]);
    let open: Vec<(u64, Option<f64>)> =
        metric.variants.iter().map(|of| (of.conversions_open, of.mean_open)).collect();
    assert_eq!(open, [(10, Some(10.0 / 700.0)), (10, Some(10.0 / 700.0))]);
    assert_eq!(metric.facts(), ["1,400 further units are not compared yet, since the window is open"]);
    // All 2,400 units take part in the sample ratio; the horizon of 2,000 is half reached.
    assert_eq!(found.srm.phases[0].units, 2_400);
    assert_close(&[metric.boundaries[0].fraction], &[0.5]);
    let look = metric.boundaries[0].looks[0];
    assert_eq!((look.is_final, look.units_control, look.units_treatment), (false, 500, 500));
    // Once the windows have closed, the horizon is reached.
    let found = document(&story, [arm(1_200, 120), arm(1_200, 130)], Default::default());
    assert!(found.metrics[0].boundaries[0].looks[0].is_final);
}

/// A sequence of looks is that of one metric: with another delay, filter or cap it is another one.
#[test]
fn what_a_metric_measures_is_part_of_its_looks() {
    let looks = |fields: Value| {
        let mut story = Story::of(json!({"horizon_units": 10_000}));
        story.metric = metric(fields);
        story.analyze(&[(1_000, 100), (1_000, 110)]);
        serde_json::to_value(&story.looks[0].comparisons[0].of).unwrap()
    };
    let plain = looks(json!({"type": "conversion"}));
    assert_eq!(plain.get("options"), None);
    let filtered = json!([{"metadata": "country", "in": ["US"]}]);
    let found = looks(json!({"type": "conversion", "delay_hours": 1, "where": filtered}));
    assert_eq!(found["options"], json!({"delay_hours": 1, "where": filtered}));
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}

/// Sums of units that keep their single values.
fn single_values(values: &[i128]) -> Sums {
    let mut sums = Sums::default();
    for &y in values {
        let value = UnitValue { takes_part: true, has_event: true, y, x: 0, steps: 0 };
        sums.add(&value, Shape { steps: 0, keeps_values: true });
    }
    sums
}

#[test]
fn a_quantile_is_compared_with_its_woodruff_error() {
    let mut story = story(json!({"type": "quantile", "quantile": 0.9}));
    story.experiment.definition.plan.horizon_units = Some(2_000);
    // Seconds from 0.001 to 1, and the same a tenth slower; each in an order of its own.
    let slow: Vec<i128> = (1..=1_000).map(|unit| i128::from(unit * 3 % 1_001) * 1_000).collect();
    let slower: Vec<i128> = slow.iter().rev().map(|value| value * 11 / 10).collect();
    let found = document(&story, [single_values(&slow), single_values(&slower)], Default::default());
    let arm = |values: &[i128]| {
        let mut values: Vec<f64> = values.iter().map(|value| *value as f64 / 1e6).collect();
        values.sort_by(f64::total_cmp);
        let level = stats::quantile::Level::new(0.9).unwrap();
        let error = stats::quantile::share_error(stats::Side::Control, level, 1_000).unwrap();
        let levels = stats::quantile::levels(level, error).unwrap();
        stats::quantile::ArmQuantile::of_sorted(&values, levels).unwrap()
    };
    let arms = Pair { control: arm(&slow), treatment: arm(&slower) };
    let expected = stats::quantile::compare(arms, stats::Alternative::TwoSided).unwrap();
    let metric = &found.metrics[0];
    let means: Vec<f64> = metric.variants.iter().map(|of| of.mean.unwrap()).collect();
    assert_close(&means, &[0.9, 0.99]);
    assert_close(&[metric.tests[0].lift_absolute.unwrap()], &[expected.effect.estimate]);
    // The t is that z, since both have the same effect and the same error.
    assert_close(&[metric.tests[0].t.unwrap()], &[expected.z]);
    let look = metric.boundaries[0].looks[0];
    assert!((look.z - expected.z).abs() < 0.05, "{} is not about {}", look.z, expected.z);
}

#[test]
fn a_quantile_of_too_few_units_has_no_number() {
    let story = story(json!({"type": "quantile", "quantile": 0.9}));
    // Ten have to be beyond it: a hundred units.
    let values: Vec<i128> = (0..99).collect();
    let found = document(&story, [single_values(&values), single_values(&values)], Default::default());
    let metric = &found.metrics[0];
    assert_eq!((metric.variants[0].units, metric.variants[0].mean), (99, None));
    assert_eq!((metric.tests[0].t, metric.tests[0].lift_absolute), (None, None));
    assert_eq!(found.decision.verdict, Verdict::NotEnoughData);
}

/// Values that repeat those from before the exposure, with a little of their own.
#[test]
fn a_covariate_takes_out_what_was_there_before() {
    let mut story = story(json!({"type": "mean"}));
    story.experiment.definition.plan.covariate_days = Some(14);
    let arm = |effect: i128, seed: i128| -> Vec<(i128, i128)> {
        let of = |unit: i128| {
            let before = (unit * seed) % 997;
            let noise = (unit * 31 * seed) % 61;
            ((before + noise + effect) * 1_000_000, before * 1_000_000)
        };
        (0..2_000).map(of).collect()
    };
    let (control, treatment) = (arm(0, 7), arm(5, 11));
    let found = document(&story, [sums(&control, 0), sums(&treatment, 0)], Default::default());
    let raw = |values: &[(i128, i128)]| {
        PairMoments::of(values.iter().map(|(y, x)| (*x as f64 / 1e6, *y as f64 / 1e6))).unwrap()
    };
    let arms = Pair { control: raw(&control), treatment: raw(&treatment) };
    let adjusted = stats::cuped::adjust(arms).unwrap();
    let expected = stats::fixed_horizon::compare_means(adjusted.arms, Alpha::FIVE_PERCENT).unwrap();
    let test = &found.metrics[0].tests[0];
    assert_near(
        &[test.t.unwrap(), test.lift_absolute.unwrap()],
        &[expected.test.t, expected.test.effect.estimate],
    );
    let told = test.adjusted.unwrap();
    assert_near(
        &[told.variance_reduction.unwrap(), told.lift_absolute_unadjusted],
        &[
            stats::cuped::variance_reduction(arms, &adjusted).unwrap(),
            arms.treatment.y().mean() - arms.control.y().mean(),
        ],
    );
    assert!(told.variance_reduction.unwrap() > 0.99);
    let facts = found.metrics[0].facts();
    assert!(facts[0].starts_with("The covariate removes 99."), "{}", facts[0]);
    // What is shown of a variant is its own mean.
    assert_near(&[found.metrics[0].variants[0].mean.unwrap()], &[arms.control.y().mean()]);
}

/// A plan with a covariate adjusts conversions, counts and means, and nothing else.
#[test]
fn a_covariate_that_says_nothing_changes_nothing() {
    let mut story = story(json!({"type": "conversion"}));
    let arm = |conversions: usize| {
        let values: Vec<(i128, i128)> = (0..1_000).map(|unit| (i128::from(unit < conversions), 0)).collect();
        sums(&values, 0)
    };
    story.experiment.definition.plan.covariate_days = Some(14);
    let found = document(&story, [arm(200), arm(260)], Default::default());
    let test = &found.metrics[0].tests[0];
    assert_near(
        &[test.lift_absolute.unwrap(), test.adjusted.unwrap().variance_reduction.unwrap()],
        &[0.06, 0.0],
    );
    assert_eq!(
        found.metrics[0].facts(),
        ["The covariate does not vary with the values, so the effect of `b` is not adjusted"]
    );
}

/// Sums of integers and sums of doubles.
#[track_caller]
fn assert_near(found: &[f64], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
    }
}
