//! The harm that a guardrail tolerates: the test is whether it is worse than the margin, at every look.

mod story;

use aggregator::document::{AlwaysValidResult, ExperimentResult, Role, Verdict};
use counting::kind::Value as UnitValue;
use counting::sums::{Shape, Sums};
use schemas::Key;
use schemas::definition::{Direction, MetricKind};
use serde_json::{Value, json};
use stats::confidence_sequence::{DEFAULT_TUNING_UNITS, Design, Look, Mixing};
use stats::conversion_counts::{CONCENTRATION, OneSided};
use stats::{Alpha, Alternative, Effect, Moments, Pair, PairMoments, Side};
use story::{Arm, Counted, Other, Story, metric};

const NOTHING: [Arm; 2] = [(50_000, 5_000), (50_000, 5_000)];

fn analyzed(margin: Option<f64>, guardrail: Other<'_>) -> ExperimentResult {
    let mut story = Story::of(json!({}));
    if let Some(margin) = margin {
        story.experiment.definition.metrics.margins.insert(Key::new(guardrail.key).unwrap(), margin);
    }
    story.analyze_beside(&NOTHING, &[guardrail]).clone()
}

fn pay(treatment: u64) -> Other<'static> {
    Other::guardrail("pay", Direction::Increase, [(50_000, 10_000), (50_000, treatment)])
}

fn look(document: &ExperimentResult) -> &AlwaysValidResult {
    &document.metrics[1].always_valid[0]
}

/// 18.0 %, 19.1 % and 19.9 % against 20 %, of which 95 % are tolerated.
#[test]
fn rates_are_compared_with_the_tolerated_part_of_the_control() {
    for (treatment, verdict, is_no_worse) in [
        (9_000, Verdict::GuardrailHarmed, false),
        (9_550, Verdict::KeepRunning, false),
        (9_950, Verdict::KeepRunning, true),
    ] {
        let found = analyzed(Some(0.05), pay(treatment));
        assert_eq!(found.decision.verdict, verdict, "{}", found.decision.reason);
        let (p, n) = (treatment as f64 / 50_000.0, 50_000.0);
        // Each arm's variance has the denominator n - 1.
        let variance = (p * (1.0 - p) + 0.95 * 0.95 * 0.2 * 0.8) / (n - 1.0);
        let effect = Effect { estimate: p - 0.95 * 0.2, standard_error: variance.sqrt() };
        let design = |alternative| {
            let mixing = Mixing::TunedForUnits(DEFAULT_TUNING_UNITS);
            Design::new(Alpha::FIVE_PERCENT, alternative, mixing).unwrap().look(effect, 100_000)
        };
        let margin = look(&found).margin.as_ref().unwrap();
        let interval = margin.interval.unwrap();
        let expected = design(Alternative::TwoSided).interval;
        assert_close(interval.lower.unwrap(), expected.lower);
        assert_close(interval.upper.unwrap(), expected.upper);
        assert_close(look(&found).harm_p_value.unwrap(), design(Alternative::Less).p_value);
        assert_eq!((margin.relative, margin.is_no_worse), (0.05, is_no_worse));
    }
}

/// What is harm without a margin is none within it.
#[test]
fn a_margin_tolerates_what_is_harm_without_one() {
    let strict = analyzed(None, pay(9_550));
    assert_eq!(strict.decision.verdict, Verdict::GuardrailHarmed);
    assert_eq!(look(&strict).margin, None);
    assert_eq!(analyzed(Some(0.05), pay(9_550)).decision.verdict, Verdict::KeepRunning);
}

#[test]
fn the_verdict_names_the_margin() {
    let reason = analyzed(Some(0.05), pay(9_000)).decision.reason;
    let begins = "The guardrail `pay` got worse under `b` by more than the margin of 5.00 %: 18.00 % against 20.00 % (-10.0 %)";
    assert!(reason.starts_with(begins), "{reason}");
}

/// 5 and 25 errors of 5,000 units: five times as many, where 1.5 times are tolerated. The treatment has 3 of 5 at that
/// ratio.
#[test]
fn few_conversions_are_tested_against_the_tolerated_ratio() {
    let errors = |arms| Other::guardrail("errors", Direction::Decrease, arms);
    let found = analyzed(Some(0.5), errors([(5_000, 5), (5_000, 25)]));
    let exact = OneSided::new(0.6, CONCENTRATION, Side::Treatment).unwrap();
    let expected = exact.look(Pair { control: 5, treatment: 25 }).p_value;
    assert_close(look(&found).harm_p_value.unwrap(), expected);
    assert!(expected > 0.05 && !look(&found).margin.as_ref().unwrap().is_no_worse);
    // 5 against 60 is harm, and 200 against 2 is proven to be none.
    assert_eq!(
        analyzed(Some(0.5), errors([(5_000, 5), (5_000, 60)])).decision.verdict,
        Verdict::GuardrailHarmed
    );
    let found = analyzed(Some(0.5), errors([(5_000, 200), (5_000, 2)]));
    assert!(look(&found).margin.as_ref().unwrap().is_no_worse);
}

/// Where fewer than ten units did not convert there is no ratio of them that the margin is. Harm shows all the same.
#[test]
fn rates_near_one_show_harm_by_the_lower_arm() {
    let arms = |treatment| [(5_000, 4_999), (5_000, treatment)];
    let of = |treatment| analyzed(Some(0.05), Other::guardrail("pay", Direction::Increase, arms(treatment)));
    assert_eq!(look(&of(4_998)).harm_p_value, Some(1.0));
    assert_eq!(of(4_500).decision.verdict, Verdict::GuardrailHarmed);
}

/// The number of units with events says nothing of how much less a mean is.
#[test]
fn a_mean_of_few_events_has_no_number() {
    let kind = MetricKind::Mean { limit: None };
    let found = analyzed(
        Some(0.1),
        Other::guardrail("value", Direction::Increase, [(5_000, 5), (5_000, 60)]).of_kind(kind),
    );
    assert_eq!(look(&found).harm_p_value, None);
    assert_eq!(
        look(&found).margin.as_ref().unwrap().missing.as_deref(),
        Some("`a` has 5 conversions, 10 are needed")
    );
}

/// The sums of units with these pairs (y, x).
fn sums(units: impl Iterator<Item = (i128, i128)>) -> Sums {
    let mut sums = Sums::default();
    for (y, x) in units {
        let value = UnitValue { takes_part: true, has_event: y != 0, y, x, steps: 0 };
        sums.add(&value, Shape::default());
    }
    sums
}

/// The guardrail `g` beside a primary metric, in two arms of 1,000 units.
fn guarded(story: &mut Story, fields: &Value, units: [Vec<(i128, i128)>; 2]) -> AlwaysValidResult {
    story.experiment.definition.metrics.margins.insert(Key::new("g").unwrap(), 0.1);
    let of = |role, metric, arms: [Sums; 2]| Counted {
        metric,
        role,
        cap: None,
        arms: arms.map(|arm| (arm, Sums::default())).to_vec(),
    };
    let primary =
        [sums((0..1_000).map(|unit| (i128::from(unit < 100), 0))), sums((0..1_000).map(|_| (0, 0)))];
    let counted = [
        of(Role::Primary, metric("m", &json!({"type": "conversion"})), primary),
        of(Role::Guardrail, metric("g", fields), units.map(|units| sums(units.into_iter()))),
    ];
    look(story.analyze_counted(&counted)).clone()
}

/// Units (y, x), whole numbers, that vary together.
fn units(more: i128) -> Vec<(i128, i128)> {
    (0..1_000).map(|unit| (unit * 7 % 5 + unit % 3 + more, unit % 3 + 1)).collect()
}

/// The look at the contrast of two means with their variances.
fn contrast(control: Moments, treatment: Moments) -> Look {
    let variance = |arm: Moments| arm.variance().unwrap() / arm.count() as f64;
    let effect = Effect {
        estimate: treatment.mean() - 0.9 * control.mean(),
        standard_error: (variance(treatment) + 0.81 * variance(control)).sqrt(),
    };
    let mixing = Mixing::TunedForUnits(DEFAULT_TUNING_UNITS);
    Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, mixing).unwrap().look(effect, 2_000)
}

#[test]
fn a_ratio_is_compared_with_the_tolerated_part_of_the_ratio() {
    let fields = json!({"type": "ratio", "denominator_event": "view"});
    let found = guarded(&mut Story::of(json!({})), &fields, [units(0), units(1)]);
    let pairs = |units: Vec<(i128, i128)>| {
        PairMoments::of(units.into_iter().map(|(y, x)| (y as f64, x as f64))).unwrap()
    };
    let arms = Pair { control: pairs(units(0)), treatment: pairs(units(1)) };
    let Pair { control, treatment } = stats::ratio::linearized(arms).unwrap();
    let interval = found.margin.unwrap().interval.unwrap();
    let expected = contrast(control, treatment).interval;
    assert_close(interval.lower.unwrap(), expected.lower);
    assert_close(interval.upper.unwrap(), expected.upper);
}

/// What the covariate takes out of both means does not cancel in the contrast.
#[test]
fn a_margin_is_judged_without_the_covariate() {
    let mut story = Story::of(json!({}));
    story.experiment.definition.plan.covariate_days = Some(14);
    let found = guarded(&mut story, &json!({"type": "count"}), [units(0), units(1)]);
    let moments = |units: Vec<(i128, i128)>| Moments::of(units.into_iter().map(|(y, _)| y as f64)).unwrap();
    let interval = found.margin.unwrap().interval.unwrap();
    let expected = contrast(moments(units(0)), moments(units(1))).interval;
    assert_close(interval.lower.unwrap(), expected.lower);
    assert_close(interval.upper.unwrap(), expected.upper);
}

/// A part of a mean that is not above 0 is no loss.
#[test]
fn a_margin_of_a_mean_below_0_is_none() {
    let fields = json!({"type": "ratio", "denominator_event": "view"});
    let found = guarded(&mut Story::of(json!({})), &fields, [units(-10), units(-10)]);
    assert_eq!(found.harm_p_value, None);
    assert_eq!(
        found.margin.unwrap().missing.as_deref(),
        Some("a relative margin needs a mean of `a` above 0")
    );
}

/// Recorded p-values of one margin are none of another.
#[test]
fn the_margin_is_part_of_the_looks() {
    let mut story = Story::of(json!({}));
    story.experiment.definition.metrics.margins.insert(Key::new("pay").unwrap(), 0.05);
    story.analyze_beside(&NOTHING, &[pay(9_000)]);
    let look = serde_json::to_value(&story.looks[0]).unwrap();
    assert_eq!(look["comparisons"][1]["of"]["options"], json!({"margin": 0.05}));
    assert_eq!(look["comparisons"][0]["of"].get("options"), None);
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
}
