//! Arms with too few conversions for an interval: their counts decide, at any time and at planned looks, in both
//! directions, for rates near 0 and near 1 and for means; and what they leave open is called open.

mod story;

use aggregator::decision::progress;
use aggregator::document::{
    Bounds, CountedUnits, ExactMethod, ExactTest, ExperimentResult, Verdict, WarningKind,
};
use schemas::definition::{Direction, MetricKind};
use serde_json::{Value, json};
use story::{Arm, Other, Story};

/// The treatment breaks the event.
const BROKEN: [Arm; 2] = [(20_000, 2_010), (20_000, 0)];
/// Only the treatment has it.
const ADDED: [Arm; 2] = [(20_000, 0), (20_000, 2_010)];
const EQUAL: [Arm; 2] = [(20_000, 2_000), (20_000, 2_000)];

const BY_COUNTS: &str = "; where an arm has too few conversions, by exact tests of their counts";

fn at_40_000() -> Value {
    json!({"horizon_units": 40_000})
}

fn once() -> Value {
    json!({"horizon_units": 40_000, "method": "fixed_horizon"})
}

#[track_caller]
fn check(plan: Value, arms: [Arm; 2], verdict: Verdict, reason: &str) -> Story {
    let mut story = Story::of(plan);
    story.analyze(&arms);
    story.check(verdict, reason);
    story
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
}

#[test]
fn an_arm_without_conversions_stops_at_any_time() {
    let story = check(
        json!({}),
        BROKEN,
        Verdict::Stop,
        "Stop: `b` does harm: 0.00 % against 10.05 %, by the exact test of conversion counts (0 against 2,010, \
         always-valid p < 0.001): conversions are at most 0.089 times as frequent under `b` as under `a`.",
    );
    let look = &story.last().metrics[0].always_valid[0];
    let exact = look.exact.unwrap();
    assert_eq!((exact.method, exact.counted), (ExactMethod::ConversionCounts, CountedUnits::Converted));
    assert_eq!((exact.control, exact.treatment, exact.needed, exact.rejects), (2_010, 0, 10, true));
    // ln B(50, 2060) - ln B(50, 50) + 2010 ln 2, by the gamma function of another library.
    near(look.log_e_value.unwrap(), LOG_BF_BROKEN);
    assert_eq!(look.p_value, look.p_value_now);
    assert_eq!((look.interval_absolute, look.includes_zero), (None, Some(false)));
    assert_eq!(look.missing.as_deref(), Some("`b` has 0 conversions, 10 are needed"));
    let method = format!("always-valid interval (asymptotic confidence sequence){BY_COUNTS}");
    assert_eq!(story.last().decision.method_used, method);
}

const LOG_BF_BROKEN: f64 = 1_225.681_277_712_002_2;

#[test]
fn a_control_without_conversions_ships_whatever_lift_is_asked_for() {
    let reason = "Ship `b`: 10.05 % against 0.00 %, by the exact test of conversion counts (2,010 against 0, \
                  always-valid p < 0.001): conversions are at least 11.3 times as frequent under `b` as under `a`.";
    check(json!({}), ADDED, Verdict::Ship, reason);
    check(json!({"practical_lift_relative": 0.5}), ADDED, Verdict::Ship, reason);
    let reason = "Ship `b`: 10.05 % against 0.00 %, and the boundary was crossed on the better side at look 1 \
                  (100.00 % of the planned information; exact test of conversion counts: `b` has 2,010 of 2,010, at \
                  most 960 or at least 1,050 cross).";
    check(at_40_000(), ADDED, Verdict::Ship, reason);
    check(json!({"horizon_units": 40_000, "practical_lift_relative": 0.5}), ADDED, Verdict::Ship, reason);
    // Where less is better it is the other way round, and no conversions at all are the whole of the lift.
    let mut story = Story::of(json!({"practical_lift_relative": 0.5}));
    story.metric.direction = Direction::Decrease;
    assert_eq!(story.analyze(&ADDED).decision.verdict, Verdict::Stop);
    let mut story = Story::of(json!({"practical_lift_relative": 0.5}));
    story.metric.direction = Direction::Decrease;
    assert_eq!(story.analyze(&BROKEN).decision.verdict, Verdict::Ship);
}

#[test]
fn where_all_convert_those_who_do_not_are_counted() {
    check(
        json!({}),
        [(20_000, 17_933), (20_000, 20_000)],
        Verdict::Ship,
        "Ship `b`: 100.00 % against 89.66 % (+11.5 %), by the exact test of the counts of units that did not \
         convert (0 against 2,067, always-valid p < 0.001): units that did not convert are at most 0.087 times as \
         frequent under `b` as under `a`.",
    );
    check(
        at_40_000(),
        [(20_000, 20_000), (20_000, 17_933)],
        Verdict::Stop,
        "Stop: `b` does harm: 89.66 % against 100.00 % (-10.3 %), and the boundary was crossed on the worse side \
         at look 1 (100.00 % of the planned information; exact test of the counts of units that did not convert: `b` \
         has 2,067 of 2,067, at most 988 or at least 1,079 cross).",
    );
    check(
        json!({}),
        [(20_000, 20_000), (20_000, 20_000)],
        Verdict::NotEnoughData,
        "Not enough data on `m`: all units of `a` and `b` converted; whether `b` has an effect is open.",
    );
}

/// Half a share of the conversions says the same of a rate as of a mean; its value says which side is better.
#[test]
fn means_of_units_without_events_are_decided_by_their_counts_too() {
    for kind in [MetricKind::Mean { limit: None }, MetricKind::Count { limit: None }] {
        let mut story = Story::of(json!({}));
        story.metric.kind = kind.clone();
        story.analyze(&BROKEN);
        story.check(
            Verdict::Stop,
            "Stop: `b` does harm: 0.000 against 0.1005 (-100.0 %), by the exact test of conversion counts (0 against \
             2,010, always-valid p < 0.001): conversions are at most 0.089 times as frequent under `b` as under `a`.",
        );
        story.analyze(&ADDED);
        assert_eq!(story.last().decision.verdict, Verdict::Ship);
        let mut story = Story::of(at_40_000());
        story.metric.kind = kind;
        story.analyze(&BROKEN);
        assert_eq!(story.last().decision.verdict, Verdict::Stop);
    }
    // Every unit has events, so there is nothing few: the values decide.
    let mut story = Story::of(json!({}));
    story.metric.kind = MetricKind::Mean { limit: None };
    let look = &story.analyze(&[(20_000, 17_933), (20_000, 20_000)]).metrics[0].always_valid[0];
    assert_eq!(look.exact, None);
    assert!(look.interval_absolute.unwrap().lower.unwrap() > 0.0);
}

/// Events without a value are counted, but they make no mean differ.
#[test]
fn events_without_values_say_nothing_of_a_mean() {
    let mut story = Story::of(json!({}));
    story.metric.kind = MetricKind::Mean { limit: None };
    story.value = 0;
    story.analyze(&BROKEN);
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: no variation in either arm; whether `b` has an effect is open.",
    );
    // Values below zero: fewer of them are more.
    story.value = -5;
    story.analyze(&BROKEN);
    assert_eq!(story.last().decision.verdict, Verdict::Ship, "{}", story.last().decision.reason);
}

/// A sparse arm of a small share looks empty at first: its mean of zeros has no variance to speak of.
#[test]
fn a_small_arm_without_events_yet_is_no_effect() {
    let mut story = Story::with_weights(json!({}), &[("a", 9_500), ("b", 500)]);
    story.metric.kind = MetricKind::Mean { limit: None };
    story.analyze(&[(19_000, 38), (1_000, 0)]);
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: `b` has 0 conversions, 25 are needed, and the exact test of conversion counts (0 \
         against 38, always-valid p = 0.74) shows no effect yet; whether `b` has an effect is open.",
    );
}

#[test]
fn a_broken_guardrail_is_harm_in_both_directions() {
    let harmed = |direction, arms| {
        let mut story = Story::of(json!({}));
        story.analyze_beside(&EQUAL, &[Other::guardrail("pay", direction, arms)]);
        story
    };
    harmed(Direction::Increase, BROKEN).check(
        Verdict::GuardrailHarmed,
        "The guardrail `pay` got worse under `b`: 0.00 % against 10.05 % (exact test of conversion counts, 0 against \
         2,010, always-valid p < 0.001), so the treatment should not go on whatever the primary metric says.",
    );
    harmed(Direction::Decrease, ADDED).check(
        Verdict::GuardrailHarmed,
        "The guardrail `pay` got worse under `b`: 10.05 % against 0.00 % (exact test of conversion counts, 2,010 \
         against 0, always-valid p < 0.001), so the treatment should not go on whatever the primary metric says.",
    );
    let all_but_some = [(20_000, 20_000), (20_000, 17_933)];
    for (direction, arms) in [(Direction::Increase, all_but_some), (Direction::Decrease, BROKEN)] {
        let harm = arms == all_but_some;
        let story = harmed(direction, arms);
        let verdict = story.last().decision.verdict;
        assert_eq!(verdict == Verdict::GuardrailHarmed, harm, "{:?}", story.last().decision);
        let p = story.last().metrics[1].always_valid[0].harm_p_value.unwrap();
        assert_eq!(p < 1e-9, harm, "{p}");
    }
    // The two-sided e-value of all of 28 is 19.8 and of 29 is 24.2; the one-sided one is nearly twice as large, so that
    // 25 are enough.
    let few = |count| {
        let story = harmed(Direction::Decrease, [(20_000, 0), (20_000, count)]);
        let look = story.last().metrics[1].always_valid[0].clone();
        (look.harm_p_value.unwrap() <= 0.05, look.p_value_now.unwrap() <= 0.05)
    };
    assert_eq!([24, 25, 28, 29].map(few), [(false, false), (true, false), (true, false), (true, true)]);
}

/// A guardrail of a mean is asked which way the mean went.
#[test]
fn a_guardrail_of_a_mean_goes_by_the_mean() {
    for (direction, arms, verdict) in [
        (Direction::Increase, BROKEN, Verdict::GuardrailHarmed),
        (Direction::Decrease, BROKEN, Verdict::KeepRunning),
        (Direction::Decrease, ADDED, Verdict::GuardrailHarmed),
    ] {
        let mut story = Story::of(json!({}));
        story.metric.kind = MetricKind::Mean { limit: None };
        story.analyze_beside(&EQUAL, &[Other::guardrail("pay", direction, arms)]);
        assert_eq!(story.last().decision.verdict, verdict, "{direction:?}");
    }
}

#[test]
fn a_guardrail_without_any_conversion_is_said_to_be_open() {
    let mut story = Story::of(at_40_000());
    story.analyze_beside(&EQUAL, &[Other::guardrail("pay", Direction::Increase, [(20_000, 0), (20_000, 0)])]);
    story.check(
        Verdict::Stop,
        "Stop: the planned units are there, 10.00 % against 10.00 % (+0.0 %) under `b`, and the boundary was not \
         crossed at look 1 (100.00 % of the planned information; z = 0.00, 1.96 is needed): an effect is not shown, \
         which does not mean that there is none (-0.59 to +0.59 percentage points). The guardrail `pay` has no \
         conversions in any arm, so it shows neither harm nor safety.",
    );
    let guardrail = &story.last().metrics[1].always_valid[0];
    assert_eq!((guardrail.harm_p_value, guardrail.exact), (None, None));
    assert_eq!(guardrail.missing.as_deref(), Some("neither `a` nor `b` has any conversions"));
    let warning = &story.last().warnings[0];
    assert_eq!((warning.kind, warning.metric.as_deref()), (WarningKind::GuardrailWithoutData, Some("pay")));
}

#[test]
fn at_the_planned_end_a_broken_arm_is_a_decision() {
    check(
        at_40_000(),
        BROKEN,
        Verdict::Stop,
        "Stop: `b` does harm: 0.00 % against 10.05 %, and the boundary was crossed on the worse side at look 1 \
         (100.00 % of the planned information; exact test of conversion counts: `b` has 0 of 2,010, at most 960 or \
         at least 1,050 cross).",
    );
    check(
        once(),
        BROKEN,
        Verdict::Stop,
        "Stop: `b` does harm: 0.00 % against 10.05 %, and the boundary was crossed on the worse side at look 1 \
         (100.00 % of the planned information; Fisher's exact test of 0 against 2,010 conversions, p < 0.001, at most \
         0.05 is needed).",
    );
}

/// And on the way there it stops at the first look that has alpha to spend.
#[test]
fn before_the_planned_end_a_broken_arm_crosses_as_soon_as_alpha_allows() {
    let mut story = Story::of(json!({"horizon_units": 400_000}));
    let boundary = story.boundary(&[
        [(8_000, 800), (8_000, 0)],
        [(20_000, 2_010), (20_000, 0)],
        [(40_000, 4_020), (40_000, 5)],
    ]);
    assert_eq!((boundary.looks.len(), boundary.crossed_at_look), (3, Some(2)));
    let bounds: Vec<_> =
        boundary.looks.iter().map(|look| look.exact.map(|of| (of.at_most, of.at_least))).collect();
    assert_eq!(bounds, [Some((None, None)), Some((Some(848), Some(1_162))), Some((None, None))]);
    assert_eq!(boundary.after_stopping, None);
    story.check(
        Verdict::Stop,
        "Stop: `b` does harm: 0.013 % against 10.05 % (-99.9 %), and the boundary was crossed on the worse side at \
         look 2 (10.00 % of the planned information; exact test of conversion counts: `b` has 0 of 2,010, at most 848 \
         or at least 1,162 cross).",
    );
    assert_eq!(
        progress(&boundary),
        "group sequential test of b, 20.00 % of the planned information now: look 3 (20.00 % of the planned \
         information; exact test of conversion counts: `b` has 5 of 4,025)"
    );
}

/// Few conversions in both arms: before the end nothing is known, and at the end nothing is shown.
#[test]
fn few_conversions_in_both_arms_are_decided_at_the_end_and_not_before() {
    let arms = [(20_000, 3), (20_000, 5)];
    check(
        json!({}),
        arms,
        Verdict::NotEnoughData,
        "Not enough data on `m`: `a` has 3 conversions, 10 are needed, and the exact test of conversion counts (5 \
         against 3, always-valid p = 1.00) shows no effect yet; whether `b` has an effect is open.",
    );
    check(
        json!({"horizon_units": 100_000}),
        arms,
        Verdict::NotEnoughData,
        "Not enough data on `m`: `a` has 3 conversions, 10 are needed, and the boundary was not crossed at look 1 \
         (40.00 % of the planned information; exact test of conversion counts: `b` has 5 of 8, no count crosses this \
         early); whether `b` has an effect is open.",
    );
    check(
        at_40_000(),
        arms,
        Verdict::Stop,
        "Stop: the planned units are there, 0.025 % against 0.015 % (+66.7 %) under `b`, and the boundary was not \
         crossed at look 1 (100.00 % of the planned information; exact test of conversion counts: `b` has 5 of 8, at \
         most 0 or at least 8 cross): an effect is not shown, which does not mean that there is none (conversions are \
         0.19 to 22.0 times as frequent under `b` as under `a`).",
    );
    check(
        once(),
        arms,
        Verdict::Stop,
        "Stop: the planned units are there, 0.025 % against 0.015 % (+66.7 %) under `b`, and the boundary was not \
         crossed at look 1 (100.00 % of the planned information; Fisher's exact test of 5 against 3 conversions, p = \
         0.73, at most 0.05 is needed): an effect is not shown, which does not mean that there is none (the odds of a \
         conversion are 0.32 to 10.7 times under `b` the odds under `a`).",
    );
    check(
        once(),
        [(19_900, 3), (20_000, 5)],
        Verdict::KeepRunning,
        "Keep running: the plan is one test at 40,000 units, which are not there yet; until then whether `b` has an \
         effect is open.",
    );
    check(
        at_40_000(),
        [(20_000, 0), (20_000, 0)],
        Verdict::Stop,
        "Stop: the planned units are there, 0.00 % against 0.00 % under `b`, and the boundary was not crossed at \
         look 1 (100.00 % of the planned information; exact test of conversion counts: `b` has 0 of 0, no count of so \
         few crosses): an effect is not shown, which does not mean that there is none (conversions are any number of \
         times as frequent under `b` as under `a`).",
    );
    check(
        json!({"horizon_units": 100_000}),
        [(20_000, 0), (20_000, 0)],
        Verdict::NotEnoughData,
        "Not enough data on `m`: neither `a` nor `b` has any conversions; whether `b` has an effect is open.",
    );
}

/// All units alike in a mean decide nothing before the end, and at the end that nothing is shown.
#[test]
fn means_without_any_variation_are_decided_at_the_end_too() {
    let mut story = Story::of(at_40_000());
    story.metric.kind = MetricKind::Count { limit: None };
    story.analyze(&[(10_000, 10_000), (10_000, 10_000)]);
    assert_eq!(story.last().decision.verdict, Verdict::NotEnoughData);
    story.analyze(&[(20_000, 20_000), (20_000, 20_000)]);
    story.check(
        Verdict::Stop,
        "Stop: the planned units are there, 1.000 against 1.000 under `b`, and the boundary was not crossed \
         at look 1 (100.00 % of the planned information; z = 0.00, 1.96 is needed): an effect is not shown, which does \
         not mean that there is none (the interval has no ends).",
    );
}

/// The looks at counts are one walk, whose bounds are those of its exact recursion; from 40 conversions expected in each
/// arm on the look is at z.
#[test]
fn looks_at_counts_go_on_from_one_another() {
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    let boundary = story.boundary(&[
        [(2_500, 9), (2_500, 6)],
        [(5_000, 20), (5_000, 12)],
        [(7_500, 33), (7_500, 13)],
        [(10_000, 54), (10_000, 26)],
    ]);
    let bounds: Vec<_> = boundary
        .looks
        .iter()
        .map(|look| look.exact.map(|of| (of.control + of.treatment, of.at_most, of.at_least)))
        .collect();
    assert_eq!(
        bounds,
        [Some((15, None, None)), Some((32, Some(7), Some(25))), Some((46, Some(14), Some(32))), None]
    );
    assert_eq!((boundary.crossed_at_look, boundary.looks[3].critical_value.is_some()), (Some(3), true));
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
}

/// Looks at z have spent what they may, so that a walk after them has only what is left.
#[test]
fn a_walk_after_looks_at_z_has_what_they_left() {
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    story.analyze(&[(5_000, 20), (5_000, 12)]);
    // As a look at z would have been kept.
    story.looks[0].comparisons[0].planned.as_mut().unwrap().exact = None;
    let look = story.boundary(&[[(7_500, 32), (7_500, 15)]]).looks[1];
    let exact = look.exact.unwrap();
    assert_eq!((exact.at_most, exact.at_least, look.crossed), (Some(14), Some(33), false));
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    let look = story.boundary(&[[(5_000, 20), (5_000, 12)], [(7_500, 32), (7_500, 15)]]).looks[1];
    let exact = look.exact.unwrap();
    assert_eq!((exact.at_most, exact.at_least, look.crossed), (Some(15), Some(32), true));
}

/// The whole of it, through the documents: 600 experiments at 95/5 without an effect, each looked at ten times up to 20
/// conversions of the small arm; a verdict on the primary metric and one on a guardrail, at any look.
#[test]
fn false_alarms_of_few_conversions_are_at_most_alpha() {
    const SEED: u64 = 23;
    const RUNS: u64 = 600;
    println!("seed {SEED}");
    let rate = stats::random::Binomial::new(0.01).unwrap();
    let (mut at_looks, mut at_any_time, mut harm) = (0, 0, 0);
    for run in 0..RUNS {
        let mut random = stats::random::Random::stream(SEED, run);
        let mut story = Story::with_weights(at_40_000(), &[("a", 9_500), ("b", 500)]);
        let mut arms = [(0, 0); 2];
        let mut harmed = false;
        for _ in 0..10 {
            for (arm, units) in arms.iter_mut().zip([3_800, 200]) {
                *arm = (arm.0 + units, arm.1 + rate.draw(units, &mut random));
            }
            story.analyze_beside(&arms, &[Other::guardrail("g", Direction::Increase, arms)]);
            let look = &story.last().metrics[1].always_valid[0];
            harmed |= look.harm_p_value.is_some_and(|p| p <= look.alpha);
        }
        let primary = &story.last().metrics[0];
        at_looks += u64::from(primary.boundaries[0].crossed_at_look.is_some());
        at_any_time += u64::from(primary.always_valid[0].p_value.is_some_and(|p| p <= 0.05));
        harm += u64::from(harmed);
    }
    // Three and a half standard errors.
    let most = RUNS as f64 * 0.05 + 3.5 * (RUNS as f64 * 0.05 * 0.95).sqrt();
    for (what, alarms) in [("looks", at_looks), ("any time", at_any_time), ("harm", harm)] {
        assert!((alarms as f64) < most, "{what}: {alarms}");
    }
    assert!(at_looks > 12, "{at_looks}");
}

/// What the gate turns over to the interval it does not take back, and one p-value remembers both.
#[test]
fn above_the_gate_the_interval_decides_and_the_smallest_p_stays() {
    let mut story = Story::of(json!({}));
    let below = story.analyze(&[(20_000, 60), (20_000, 9)]).metrics[0].always_valid[0].clone();
    assert!(below.exact.is_some() && below.p_value.unwrap() < 0.01, "{below:?}");
    let above = story.analyze(&[(20_100, 60), (20_100, 10)]).metrics[0].always_valid[0].clone();
    assert_eq!((above.exact, above.missing), (None, None));
    assert!(above.interval_absolute.unwrap().upper.unwrap() < 0.0);
    assert!(above.p_value.unwrap() <= below.p_value.unwrap());
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
}

/// Documents of builds that had no exact tests are read, and theirs are taken as they are.
#[test]
fn documents_from_before_are_readable() {
    let mut story = Story::of(at_40_000());
    let mut old = serde_json::to_value(story.analyze(&EQUAL)).unwrap();
    let had = |value: &Value| value.to_string().contains("exact") || value.to_string().contains("warnings");
    assert!(!had(&old), "{old}");
    old["metrics"][0]["boundaries"][0]["looks"][0].as_object_mut().unwrap().remove("exact");
    let read: ExperimentResult = serde_json::from_value(old).unwrap();
    assert_eq!((read.warnings.len(), read.metrics[0].boundaries[0].looks[0].exact), (0, None));
    let new = serde_json::to_value(story.analyze(&[(20_001, 2_010), (20_001, 0)])).unwrap();
    let exact: ExactTest =
        serde_json::from_value(new["metrics"][0]["always_valid"][0]["exact"].clone()).unwrap();
    assert_eq!(new["metrics"][0]["always_valid"][0]["exact"]["method"], "conversion_counts");
    assert_eq!(new["metrics"][0]["always_valid"][0]["exact"]["counted"], "converted");
    assert_eq!(exact.ratio, Bounds { lower: Some(0.0), upper: exact.ratio.upper });
}
