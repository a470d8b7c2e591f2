//! Phases that their owner leaves out: every verdict says so with the reason, and harm that a look has shown by them stays
//! told and does not become a reason to ship.

mod story;

use aggregator::command::show;
use aggregator::document::{ShownBy, Side, Verdict, WarningKind};
use aggregator::page::{self, Histories};
use schemas::definition::Direction;
use serde_json::json;
use story::{Arm, Other, Story};

const HALVES: [(&str, u32); 2] = [("a", 5_000), ("b", 5_000)];
const WORSE: [Arm; 2] = [(6_000, 780), (6_000, 600)];
const BETTER: [Arm; 2] = [(6_000, 600), (6_000, 780)];
const EQUAL: [Arm; 2] = [(6_000, 600), (6_000, 600)];

/// The first phase so, and the second one so, then without the first.
fn excluded(plan: serde_json::Value, first: &[Arm], second: &[Arm]) -> Story {
    let mut story = Story::of(plan);
    story.analyze(first);
    story.open_phase(&HALVES);
    story.analyze(second);
    story.exclude(1);
    story.analyze(second);
    story
}

fn planned() -> serde_json::Value {
    json!({"horizon_units": 40_000})
}

/// At look 1 `b` did harm, the phase was left out, and the verdict was to ship.
#[test]
fn harm_that_a_planned_look_showed_does_not_become_a_reason_to_ship() {
    let mut story = Story::of(planned());
    story.analyze(&WORSE);
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
    story.open_phase(&HALVES);
    story.analyze(&[(12_000, 1_200), (12_000, 1_700)]);
    story.exclude(1);
    story.analyze(&[(12_000, 1_200), (12_000, 1_700)]);
    let decision = &story.last().decision;
    assert_eq!((decision.verdict, decision.treatment.as_deref()), (Verdict::Invalid, Some("b")));
    let begins = "`b` does not ship by phases chosen after their result. At look 1, with phase 1, which is left out now, `b` \
                  did harm: the boundary was crossed on the worse side (-3.00 percentage points). Since then phase 1 (the \
                  split was off) was left out without an alarm of its sample ratio; for another answer clone the experiment \
                  under another key. What remains alone would say: Ship `b`: 14.17 % against 10.00 % (+41.7 %), and ";
    assert!(decision.reason.starts_with(begins), "{}", decision.reason);
    let warning = &story.last().warnings[0];
    assert_eq!(
        (warning.kind, warning.text.as_str()),
        (
            WarningKind::HarmShownWithPhasesLeftOut,
            "At look 1, with phase 1, which is left out now, `b` did harm: the boundary was crossed on the worse side (-3.00 \
             percentage points); the phases that remain show the opposite, the better side."
        )
    );
    let shown = &story.last().metrics[0].shown_before[0];
    assert_eq!((shown.by, shown.look, shown.side), (ShownBy::Boundary, 1, Side::Worse));
    assert_eq!((&shown.phases, shown.lift_absolute), (&[1].into(), Some(-0.03)));
}

#[test]
fn nor_what_the_always_valid_test_showed() {
    let story = excluded(json!({}), &WORSE, &BETTER);
    let decision = &story.last().decision;
    assert_eq!(decision.verdict, Verdict::Invalid);
    let begins = "`b` does not ship by phases chosen after their result. At look 1, with phase 1, which is left out now, `b` \
                  did harm: the always-valid test showed the worse side (-3.00 percentage points). Since then phase 1 (the \
                  split was off) was left out without an alarm of its sample ratio;";
    assert!(decision.reason.starts_with(begins), "{}", decision.reason);
}

#[test]
fn nor_a_guardrail_that_got_worse() {
    let errors = |count| [Other::guardrail("errors", Direction::Decrease, [(6_000, 10), (6_000, count)])];
    let mut story = Story::of(json!({}));
    story.analyze_beside(&BETTER, &errors(600));
    assert_eq!(story.last().decision.verdict, Verdict::GuardrailHarmed);
    story.open_phase(&HALVES);
    story.analyze_beside(&BETTER, &errors(10));
    assert_eq!(story.last().decision.verdict, Verdict::GuardrailHarmed);
    story.exclude(1);
    story.analyze_beside(&BETTER, &errors(10));
    let decision = &story.last().decision;
    assert_eq!(decision.verdict, Verdict::Invalid);
    let begins = "`b` does not ship by phases chosen after their result. At look 1, with phase 1, which is left out now, the \
                  guardrail `errors` got worse under `b` (+9.83 percentage points). Since then";
    assert!(decision.reason.starts_with(begins), "{}", decision.reason);
    let told = "the guardrail `errors` got worse under `b` (+9.83 percentage points); the phases that remain do not show it.";
    let harm =
        story.last().warnings.iter().find(|of| of.kind == WarningKind::HarmShownWithPhasesLeftOut).unwrap();
    assert!(harm.text.ends_with(told), "{}", harm.text);
}

/// Where the sample ratio had alarmed, its numbers were never to be believed.
#[test]
fn a_phase_with_an_alarm_may_be_left_out_and_is_told_of() {
    let mut story = Story::of(json!({}));
    story.analyze(&WORSE);
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
    story.analyze(&[(6_000, 780), (7_000, 700)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
    story.open_phase(&HALVES);
    story.analyze(&BETTER);
    let reason = &story.last().decision.reason;
    assert_eq!(story.last().decision.verdict, Verdict::Ship, "{reason}");
    let ends = " The units of phase 1 (it ended in an alarm of its sample ratio) are left out. At look 1, with phase 1, which \
                is left out now, `b` did harm: the always-valid test showed the worse side (-3.00 percentage points).";
    assert!(reason.ends_with(ends), "{reason}");
    story.exclude(1);
    story.analyze(&BETTER);
    let reason = &story.last().decision.reason;
    assert_eq!(story.last().decision.verdict, Verdict::Ship, "{reason}");
    assert!(reason.contains(" The units of phase 1 (the split was off) are left out. At look 1"), "{reason}");
}

/// The harm of the first phase, which its alarm explains, hid that of the second, which was left out by choice.
#[test]
fn harm_of_a_second_phase_holds_back_though_the_first_had_an_alarm() {
    let mut story = Story::of(json!({}));
    story.analyze(&WORSE);
    story.analyze(&[(6_000, 780), (7_000, 700)]);
    story.open_phase(&HALVES);
    story.analyze(&WORSE);
    assert_eq!(story.last().decision.verdict, Verdict::Stop, "{}", story.last().decision.reason);
    story.open_phase(&HALVES);
    story.exclude(2);
    story.analyze(&BETTER);
    let decision = &story.last().decision;
    assert_eq!(decision.verdict, Verdict::Invalid, "{}", decision.reason);
    assert!(
        decision.reason.contains("with phase 2, which is left out now, `b` did harm"),
        "{}",
        decision.reason
    );
}

/// Every verdict says what it leaves out, on every surface, in the owner's words.
#[test]
fn every_verdict_says_what_is_left_out_and_why() {
    for plan in [json!({}), planned()] {
        for (first, second, verdict) in [
            (&EQUAL, &BETTER, Verdict::Ship),
            (&EQUAL, &WORSE, Verdict::Stop),
            (&EQUAL, &EQUAL, Verdict::KeepRunning),
            (&WORSE, &EQUAL, Verdict::KeepRunning),
        ] {
            let story = excluded(plan.clone(), first, second);
            let last = story.last();
            assert_eq!(last.decision.verdict, verdict, "{plan} {}", last.decision.reason);
            let out = " The units of phase 1 (the split was off) are left out.";
            assert!(last.decision.reason.contains(out), "{}", last.decision.reason);
            // A look at both phases rested on the first one too.
            let was_told = first == &WORSE || second == &WORSE;
            let harm = ", with phase 1, which is left out now, `b` did harm: ";
            assert_eq!(last.decision.reason.contains(harm), was_told, "{}", last.decision.reason);
            let results = std::slice::from_ref(last);
            for surface in [show::experiments(results), page::experiment(last, &Histories::new())] {
                assert!(surface.contains("left out (the split was off)"), "{surface}");
            }
            let document = serde_json::to_value(last).unwrap();
            assert_eq!(document["srm"]["phases"][0]["left_out_reason"], "the split was off");
            assert_eq!(document["srm"]["phases"][1].get("left_out_reason"), None);
        }
    }
}

/// What was better then is told with its side, and confirms nothing.
#[test]
fn what_was_better_then_is_told_with_its_side() {
    let story = excluded(planned(), &BETTER, &WORSE);
    assert_eq!(story.last().decision.verdict, Verdict::Stop);
    assert_eq!(
        story.last().warnings[0].text,
        "At look 1, with phase 1, which is left out now, `b` was better: the boundary was crossed on the better side (+3.00 \
         percentage points); the phases that remain show the opposite, the worse side."
    );
    let story = excluded(planned(), &BETTER, &BETTER);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
    assert!(story.last().warnings[0].text.ends_with("; the phases that remain show it too."));
}

/// A look that saw nothing of the phase stands as it was, also where counts decided it.
#[test]
fn a_look_without_units_of_the_phase_stands_as_it_was() {
    let mut story = Story::of(planned());
    let first = story.boundary(&[[(10_000, 1_000), (10_000, 3)]]);
    assert_eq!((story.last().decision.verdict, first.crossed_at_look), (Verdict::Stop, Some(1)));
    assert!(first.looks[0].exact.is_some());
    story.open_phase(&HALVES);
    story.analyze(&[(100, 10), (100, 10)]);
    story.exclude(2);
    let boundary = story.boundary(&[[(100, 10), (100, 10)]]);
    assert_eq!(boundary.looks, first.looks);
    assert_eq!((boundary.crossed_at_look, boundary.crossed_with_phases_left_out), (Some(1), None));
    assert_eq!((story.last().decision.verdict, story.last().warnings.len()), (Verdict::Stop, 0));
}

/// Where nothing of a look remains, its share of the information is 0 and not -0.
#[test]
fn a_look_of_which_nothing_remains_has_no_information() {
    let story = excluded(planned(), &WORSE, &[(0, 0), (0, 0)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert_eq!(boundary.looks[0].fraction.to_string(), "0");
    assert_eq!(boundary.fraction.to_string(), "0");
    let document = serde_json::to_string(story.last()).unwrap();
    assert!(!document.contains(":-0.0,"), "{document}");
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: there is no unit yet that counts; whether `b` has an effect is open. The units of phase 1 (the \
         split was off) are left out. At look 1, with phase 1, which is left out now, `b` did harm: the boundary was crossed \
         on the worse side (-3.00 percentage points).",
    );
    // What it has spent stays spent.
    assert!(boundary.looks[0].alpha_spent > 0.0);
}
