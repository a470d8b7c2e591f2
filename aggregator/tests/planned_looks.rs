//! Plans with a horizon, look by look: the counts of a day and the looks of the days before in, the document out.
//! The numbers are those of the golden file `group_sequential_analysis`, whose cases name their sources.

mod story;

use aggregator::decision::progress;
use aggregator::document::{BoundaryLook, BoundaryMethod, BoundaryStage, Verdict};
use serde_json::{Value, json};
use story::{Arm, Story};

fn planned() -> Value {
    json!({"horizon_units": 25_000})
}

const EFFECT: [[Arm; 2]; 5] = [
    [(2_500, 114), (2_500, 156)],
    [(5_000, 232), (5_000, 302)],
    [(7_500, 350), (7_500, 457)],
    [(10_000, 486), (10_000, 583)],
    [(12_500, 605), (12_500, 741)],
];

const NOTHING: [[Arm; 2]; 5] = [
    [(2_500, 120), (2_500, 107)],
    [(5_000, 252), (5_000, 240)],
    [(7_500, 373), (7_500, 350)],
    [(10_000, 509), (10_000, 471)],
    [(12_500, 626), (12_500, 608)],
];

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 2e-5, "{found} is not {expected}");
}

#[track_caller]
fn criticals(looks: &[BoundaryLook], expected: &[f64]) {
    assert_eq!(looks.len(), expected.len());
    for (look, expected) in looks.iter().zip(expected) {
        near(look.critical_value.unwrap(), *expected);
    }
}

#[test]
fn an_effect_ships_at_the_look_that_crosses() {
    let mut story = Story::of(planned());
    story.boundary(&EFFECT[..2]);
    story.check(
        Verdict::KeepRunning,
        "Keep running: 6.04 % against 4.64 % (+30.2 %) under `b`, and the boundary was not crossed at look 2 \
         (40.00 % of the planned information; z = 3.11, 3.36 is needed), so an effect is neither shown nor ruled \
         out.",
    );
    let boundary = story.boundary(&EFFECT[2..3]);
    criticals(&boundary.looks, &[4.876884948790762, 3.3570119207197817, 2.6802800636119324]);
    let look = boundary.looks[2];
    assert_eq!((boundary.crossed_at_look, boundary.stage, look.look), (Some(3), BoundaryStage::Interim, 3));
    near(look.z, 3.8721800088376894);
    near(look.fraction, 0.6);
    near(look.interval_absolute.lower.unwrap(), 0.004391438202703378);
    let after = boundary.after_stopping.unwrap();
    near(after.p_value, 0.0008429880264140998);
    near(after.lift_absolute, 0.013651227828207739);
    near(after.interval_absolute.lower.unwrap(), 0.0058689693819037525);
    near(after.interval_absolute.upper.unwrap(), 0.021103140247885982);
    story.check(
        Verdict::Ship,
        "Ship `b`: 6.09 % against 4.67 % (+30.6 %), and the boundary was crossed on the better side at look 3 \
         (60.00 % of the planned information; z = 3.87, 2.68 is needed); allowing for the stopping, the lift is \
         +1.37 (+0.59 to +2.11 percentage points).",
    );
    assert_eq!(
        story.last().decision.method_used,
        "group sequential test (Lan-DeMets spending, O'Brien-Fleming) up to the planned horizon"
    );
}

#[test]
fn a_crossing_stands_and_its_estimate_with_it() {
    let mut story = Story::of(planned());
    let crossed = story.boundary(&EFFECT[..3]);
    let ended = story.boundary(&EFFECT[3..]);
    assert_eq!(ended.looks.len(), 5);
    assert_eq!((ended.crossed_at_look, ended.stage), (Some(3), BoundaryStage::Final));
    assert_eq!(ended.after_stopping.unwrap().look, 3);
    near(ended.after_stopping.unwrap().p_value, crossed.after_stopping.unwrap().p_value);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
}

#[test]
fn at_the_end_nothing_shown_is_not_called_no_effect() {
    let mut story = Story::of(planned());
    let boundary = story.boundary(&NOTHING);
    let last = boundary.looks[4];
    near(last.critical_value.unwrap(), 2.0310320435920852);
    near(last.alpha_spent, 0.05);
    assert!(last.is_final);
    near(boundary.after_stopping.unwrap().p_value, 0.5992417478492771);
    story.check(
        Verdict::Stop,
        "Stop: the planned units are there, 4.86 % against 5.01 % (-2.9 %) under `b`, and the boundary was not \
         crossed at look 5 (100.00 % of the planned information; z = -0.53, 2.03 is needed): an effect is not \
         shown, which does not mean that there is none (-0.70 to +0.41 percentage points).",
    );
}

#[test]
fn past_the_planned_end_estimates_go_on_and_nothing_new_is_decided() {
    let mut story = Story::of(planned());
    let ended = story.boundary(&NOTHING);
    let past = story.boundary(&[[(20_000, 1_000), (20_000, 1_400)]]);
    assert_eq!(past.looks, ended.looks);
    assert_eq!((past.stage, past.crossed_at_look), (BoundaryStage::PastEnd, None));
    let test = story.last().test.as_ref().unwrap();
    near(test.lift_absolute.unwrap(), 0.02);
    story.check(
        Verdict::Stop,
        "Stop: the planned units are there, 7.00 % against 5.00 % (+40.0 %) under `b`, and the boundary was not \
         crossed at look 5 (100.00 % of the planned information; z = -0.53, 2.03 is needed): an effect is not \
         shown, which does not mean that there is none (-0.70 to +0.41 percentage points). The units since the \
         planned end are estimates only: all of alpha is spent, and they decide nothing.",
    );
}

/// Nor does a new description of the metric spend alpha anew.
#[test]
fn an_analysis_without_new_information_is_not_another_look() {
    let mut story = Story::of(planned());
    let first = story.boundary(&EFFECT[..2]);
    assert_eq!(story.boundary(&EFFECT[1..2]), first);
    // Late conversions of the same units, and less than 1 % more units.
    assert_eq!(story.boundary(&[[(5_000, 240), (5_000, 400)]]), first);
    assert_eq!(story.boundary(&[[(5_124, 240), (5_124, 400)]]).looks, first.looks);
    assert_eq!(story.last().decision.verdict, Verdict::KeepRunning);
    story.metric_version = 2;
    assert_eq!(story.boundary(&[[(5_126, 240), (5_126, 400)]]).looks.len(), 3);
    // It counts other units. The looks before have crossed, so that there is nothing left to be tested.
    story.metric.window_hours = Some(24);
    let other = story.boundary(&[[(5_200, 240), (5_200, 400)]]);
    assert_eq!((other.looks.len(), other.stage), (0, BoundaryStage::AlphaSpent));
}

/// A new split goes on with the looks and with alpha: differences are taken inside the phases and added up.
#[test]
fn a_new_split_goes_on_with_the_looks() {
    let mut story = Story::of(planned());
    let before = story.boundary(&NOTHING[..2]).looks;
    story.open_phase(&[("a", 9_000), ("b", 1_000)]);
    let boundary = story.boundary(&[[(9_000, 450), (1_000, 70)]]);
    assert_eq!(boundary.looks[..2], before[..]);
    assert_eq!((boundary.looks.len(), boundary.alpha_spent_before), (3, 0.0));
    let look = boundary.looks[2];
    // Weights of 2,500 and 900 of the planned 6,250; d = -0.0024 and 0.02, pooled rates of 0.0492 and 0.052.
    near(look.fraction, 3_400.0 / 6_250.0);
    let score = 2_500.0 * -0.0024 + 900.0 * 0.02;
    let variance = 2_500.0 * 0.0492 * 0.9508 + 900.0 * 0.052 * 0.948;
    near(look.z, score / f64::sqrt(variance));
    near(look.lift_absolute, score / 3_400.0);
    assert_eq!((look.units_control, look.units_treatment), (14_000, 6_000));
    let across = story.last().test.as_ref().unwrap().across_phases.clone().unwrap();
    assert_eq!(across.splits, 2);
    near(across.lift_by_units, (-0.0024 + 0.02) / 2.0);
    // Q = 0.0224^2 / (0.0504 0.9496 / 5000 + 0.048 0.952 / 5000 + 0.05 0.95 / 9000 + 0.07 0.93 / 1000) = 5.632.
    near(across.heterogeneity_p_value.unwrap(), 0.017_634);
}

/// A ramp that leaves the split alone is no new one.
#[test]
fn a_phase_of_the_same_split_is_the_same_units() {
    let mut story = Story::of(planned());
    story.analyze(&NOTHING[0]);
    story.open_phase(&[("a", 5_000), ("b", 5_000)]);
    let ramped = story.boundary(&[[(2_500, 132), (2_500, 133)]]);
    let steady = Story::of(planned()).boundary(&NOTHING[..2]);
    assert_eq!(ramped, steady);
    assert_eq!(story.last().test.as_ref().unwrap().across_phases, None);
}

/// What is counted anew starts the looks anew, on the conditional error of the test before: 2.016 % after its second look
/// (z = -0.5548 at 0.4 of the information, the last bound at 1.96227; by numeric integration), where 4.9 % were unspent.
#[test]
fn another_count_goes_on_with_the_conditional_error() {
    const LEFT: f64 = 0.020_162_44;
    let mut story = Story::of(planned());
    near(story.boundary(&NOTHING[..2]).looks[1].alpha_spent, 0.000_788_06);
    story.metric.window_hours = Some(24);
    let anew = story.boundary(&[[(12_500, 626), (12_500, 608)]]);
    assert_eq!((anew.looks.len(), anew.stage), (1, BoundaryStage::Final));
    near(anew.alpha_spent_before, 0.05 - LEFT);
    near(anew.looks[0].alpha_spent, LEFT);
    assert!(anew.looks[0].critical_value.unwrap() > 1.96, "{anew:?}");
    assert!(
        progress(&anew)
            .ends_with("this is the planned end (2.98 % of alpha spent before the units were counted anew)"),
        "{}",
        progress(&anew)
    );
    // And none is left for a third.
    story.metric.window_hours = Some(48);
    let third = story.boundary(&[[(20_000, 1_000), (20_000, 1_400)]]);
    assert_eq!((third.looks.len(), third.stage, third.alpha), (0, BoundaryStage::AlphaSpent, 0.0));
    near(third.alpha_spent_before, 0.05);
    story.check(
        Verdict::Stop,
        "Stop: the looks before the units were counted anew spent all of alpha, so nothing new can be decided, and \
         what was decided by them stands; 7.00 % against 5.00 % (+40.0 %) under `b` are estimates only.",
    );
    // Also after an analysis without any boundary.
    story.experiment.definition.plan.method = schemas::definition::Method::AlwaysValid;
    story.analyze(&[(20_001, 1_000), (20_000, 1_400)]);
    story.experiment.definition.plan.method = schemas::definition::Method::Auto;
    assert_eq!(story.boundary(&[[(20_002, 1_000), (20_000, 1_400)]]).stage, BoundaryStage::AlphaSpent);
}

/// What a treatment that is dropped has spent stays spent; the rest is for the one that stays.
#[test]
fn a_dropped_treatment_does_not_give_its_alpha_back() {
    let plan = json!({"horizon_units": 37_500});
    let mut story = Story::with_weights(plan, &[("a", 3_333), ("b", 3_333), ("c", 3_333)]);
    story.analyze(&[(10_000, 500), (10_000, 510), (10_000, 520)]);
    let spent = |story: &Story, of: usize| story.last().metrics[0].boundaries[of].looks[0].alpha_spent;
    let (kept, dropped) = (spent(&story, 0), spent(&story, 1));
    assert!(kept + dropped > 0.01 && kept + dropped < 0.05, "{kept} {dropped}");
    story.experiment.definition.variants[2].weight = schemas::bucket::BasisPoints::new(0).unwrap();
    story.open_phase(&[("a", 5_000), ("b", 5_000)]);
    story.analyze(&[(8_750, 400), (8_750, 400)]);
    let boundaries = &story.last().metrics[0].boundaries;
    assert_eq!((boundaries.len(), boundaries[0].looks.len()), (1, 2));
    near(boundaries[0].alpha, 0.05 - dropped);
    near(boundaries[0].looks[0].alpha_spent, kept);
    near(boundaries[0].looks[1].alpha_spent, 0.05 - dropped);
}

/// All of alpha over all phases, by simulation: experiments without an effect whose split changes twice on the way, to
/// 90/10 wherever nothing shows yet, and which run to the planned end.
#[test]
fn phases_together_keep_alpha() {
    const SEED: u64 = 17;
    const RUNS: u64 = 3_000;
    println!("seed {SEED}");
    let rate = stats::random::Binomial::new(0.1).unwrap();
    let mut alarms = 0;
    for run in 0..RUNS {
        let mut random = stats::random::Random::stream(SEED, run);
        let mut story = Story::of(json!({"horizon_units": 10_000}));
        let mut crossed = false;
        let mut units = [500, 500];
        for looks in [4, 3, 3] {
            let mut arms = [(0, 0); 2];
            let mut z = 0.0;
            for _ in 0..looks {
                for (arm, units) in arms.iter_mut().zip(units) {
                    *arm = (arm.0 + units, arm.1 + rate.draw(units, &mut random));
                }
                let boundary = story.boundary(&[arms]);
                crossed |= boundary.crossed_at_look.is_some();
                z = boundary.looks.last().map_or(0.0, |look| look.z);
            }
            units = if z.abs() < 1.0 { [900, 100] } else { [600, 400] };
            story.open_phase(&[("a", units[0] as u32 * 10), ("b", units[1] as u32 * 10)]);
        }
        alarms += u64::from(crossed);
    }
    let share = alarms as f64 / RUNS as f64;
    // Three and a half standard errors.
    let slack = 3.5 * (0.05_f64 * 0.95 / RUNS as f64).sqrt();
    assert!(share > 0.05 - slack && share < 0.05 + slack, "{share}");
}

#[test]
fn bounds_follow_the_looks_as_they_come() {
    let overrun = Story::of(planned()).boundary(&[
        [(6_000, 298), (6_000, 328)],
        [(12_000, 604), (12_000, 618)],
        [(13_400, 669), (13_400, 699)],
    ]);
    criticals(&overrun.looks, &[3.031766894156259, 2.018717319010397, 2.1776202013721373]);
    near(overrun.looks[2].fraction, 1.072);
    assert_eq!(overrun.stage, BoundaryStage::Final);
}

#[test]
fn a_final_look_right_after_another_keeps_its_bound() {
    let boundary =
        Story::of(planned()).boundary(&[[(12_499, 625), (12_499, 610)], [(12_500, 626), (12_500, 610)]]);
    assert_eq!(boundary.looks.len(), 2);
    let critical = boundary.looks[1].critical_value.unwrap();
    assert!(critical > 1.96 && critical < 4.0, "{critical}");
    near(boundary.looks[1].alpha_spent, 0.05);
}

/// Too few for z, so the counts are looked at; they cross nothing, and that is no word on the effect.
#[test]
fn too_few_conversions_are_a_look_at_their_counts() {
    let mut story = Story::of(planned());
    let boundary = story.boundary(&[[(2_500, 40), (2_500, 9)]]);
    assert_eq!((boundary.looks.len(), boundary.stage), (1, BoundaryStage::Interim));
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: `b` has 9 conversions, 10 are needed, and the boundary was not crossed at look 1 \
         (20.00 % of the planned information; exact test of conversion counts: `b` has 9 of 49, at most 7 or at \
         least 42 cross); whether `b` has an effect is open.",
    );
    let mut story = Story::of(planned());
    story.boundary(&[[(124, 20), (124, 20)]]);
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: 0.99 % of the planned information is too little for a first look; whether `b` \
         has an effect is open.",
    );
}

#[test]
fn harm_stops_and_where_less_is_better_it_ships() {
    let days = [[(3_000, 187), (3_000, 114)], [(6_000, 360), (6_000, 259)]];
    let mut story = Story::of(json!({"horizon_units": 24_000}));
    let boundary = story.boundary(&days);
    criticals(&boundary.looks, &[4.332633646051611, 2.963131596770292]);
    near(boundary.after_stopping.unwrap().lift_absolute, -0.01679836579954661);
    story.check(
        Verdict::Stop,
        "Stop: `b` does harm: 4.32 % against 6.00 % (-28.1 %), and the boundary was crossed on the worse side at \
         look 2 (50.00 % of the planned information; z = -4.17, 2.96 is needed); allowing for the stopping, the \
         lift is -1.68 (-2.47 to -0.88 percentage points).",
    );
    let mut story = Story::of(json!({"horizon_units": 24_000}));
    story.metric.direction = schemas::definition::Direction::Decrease;
    story.boundary(&days);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
}

#[test]
fn an_effect_below_the_practical_one_runs_on_and_at_the_end_stops() {
    let mut story = Story::of(json!({"horizon_units": 25_000, "practical_lift_relative": 0.31}));
    story.boundary(&EFFECT[..3]);
    story.check(
        Verdict::KeepRunning,
        "Keep running: the effect of `b` is real (6.09 % against 4.67 % (+30.6 %); the boundary was crossed at \
         look 3 (60.00 % of the planned information; z = 3.87, 2.68 is needed)), but at the last look not as \
         large as the smallest one worth shipping, +31.0 %.",
    );
    story.boundary(&EFFECT[3..]);
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
    // A lift that grows after the end is no new decision.
    story.boundary(&[[(20_000, 1_000), (20_000, 1_400)]]);
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
}

#[test]
fn a_plan_of_one_test_looks_once() {
    let mut story = Story::of(json!({"horizon_units": 25_000, "method": "fixed_horizon"}));
    let before = story.boundary(&EFFECT[..4]);
    assert_eq!((before.looks.len(), before.method), (0, BoundaryMethod::FixedHorizon));
    story.check(
        Verdict::KeepRunning,
        "Keep running: the plan is one test at 25,000 units, which are not there yet; until then whether `b` has \
         an effect is open.",
    );
    let at = story.boundary(&[[(12_500, 645), (12_500, 736)]]);
    criticals(&at.looks, &[1.9599639845400545]);
    near(at.looks[0].z, 2.5193227258334105);
    near(at.looks[0].interval_absolute.upper.unwrap(), 0.012943640335214088);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
    assert_eq!(story.boundary(&[[(13_000, 700), (13_000, 700)]]).looks, at.looks);
    assert_eq!(story.last().decision.method_used, "one test at the planned horizon");
}

#[test]
fn treatments_share_alpha() {
    let mut story =
        Story::with_weights(json!({"horizon_units": 37_500}), &[("a", 3_333), ("b", 3_333), ("c", 3_333)]);
    story.analyze(&[(12_500, 626), (12_500, 608), (12_500, 750)]);
    let boundaries = &story.last().metrics[0].boundaries;
    assert_eq!(boundaries.len(), 2);
    // The normal quantile of 1 - 0.025 / 2.
    criticals(&boundaries[1].looks, &[2.2414027276]);
    let decision = &story.last().decision;
    assert_eq!((decision.verdict, decision.treatment.as_deref()), (Verdict::Ship, Some("c")));
}

#[test]
fn means_are_looked_at_by_the_normal_deviate_of_welchs_t() {
    let mut story = Story::of(planned());
    story.metric.kind = schemas::definition::MetricKind::Count { limit: None };
    let boundary = story.boundary(&EFFECT[..3]);
    // One event a conversion: Welch's t of the same zeros and ones, and its deviate at 14,766.6 degrees of freedom.
    near(story.last().test.as_ref().unwrap().t.unwrap(), 3.873858464767819);
    near(boundary.looks[2].z, 3.872809229292448);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
}

#[test]
fn without_a_horizon_or_by_the_plans_wish_the_always_valid_interval_decides() {
    for plan in [json!({}), json!({"horizon_units": 25_000, "method": "always_valid"})] {
        let mut story = Story::of(plan);
        story.analyze(&EFFECT[2]);
        assert!(story.last().metrics[0].boundaries.is_empty());
        assert_eq!(
            story.last().decision.method_used,
            "always-valid interval (asymptotic confidence sequence)"
        );
        let document = serde_json::to_value(story.last()).unwrap();
        assert_eq!(document["metrics"][0].get("boundaries"), None);
    }
}

#[test]
fn a_method_that_needs_a_horizon_and_has_none_is_refused() {
    let mut story = Story::of(json!({}));
    story.experiment.definition.plan.method = schemas::definition::Method::GroupSequential;
    story.analyze(&EFFECT[2]);
    story.check(
        Verdict::NotComputed,
        "There is no verdict on the primary metric `m`: the plan asks for a group sequential test and names no \
         horizon.",
    );
}

/// They have no boundary; their always-valid p-values are adjusted: of two tests the smaller is doubled.
#[test]
fn secondary_metrics_are_always_valid_and_adjusted_for_their_number() {
    let mut story = Story::of(planned());
    story.experiment.definition.metrics.secondary =
        ["s", "t"].map(|key| schemas::Key::new(key).unwrap()).to_vec();
    let weaker = [(7_500, 350), (7_500, 400)];
    story.analyze_with(&EFFECT[2], &[("s", EFFECT[2]), ("t", weaker)]);
    let metrics = &story.last().metrics;
    let look = |index: usize| metrics[index].always_valid[0].clone();
    assert_eq!(look(0).p_value_adjusted, None);
    assert!(metrics[1].boundaries.is_empty() && metrics[2].boundaries.is_empty());
    let (s, t) = (look(1).p_value.unwrap(), look(2).p_value.unwrap());
    assert!(s < 0.05 && t > 0.05, "{s} {t}");
    near(look(1).p_value_adjusted.unwrap(), 2.0 * s);
    near(look(2).p_value_adjusted.unwrap(), t);
    assert_eq!(
        story.last().decision.method_used,
        "group sequential test (Lan-DeMets spending, O'Brien-Fleming) up to the planned horizon; secondary metrics, \
         which decide nothing, by always-valid p-values adjusted for their number"
    );
}

#[test]
fn guardrails_keep_their_always_valid_p_and_the_document_says_so() {
    let mut story = Story::of(planned());
    story.experiment.definition.metrics.guardrails = vec![schemas::Key::new("g").unwrap()];
    story.analyze(&EFFECT[2]);
    assert_eq!(
        story.last().decision.method_used,
        "group sequential test (Lan-DeMets spending, O'Brien-Fleming) up to the planned horizon; guardrails by \
         always-valid p-values"
    );
}
