//! Planned looks of an experiment that is stopped by hand, whose units mature, and whose late events take information back.

mod story;

use aggregator::document::{BoundaryStage, FinalLookDue, Verdict, WarningKind};
use schemas::Micros;
use schemas::definition::State;
use serde_json::json;
use stats::group_sequential::{Boundary, Design, Spending};
use stats::{Alpha, Alternative};
use story::{Story, metric};

fn planned() -> Story {
    Story::of(json!({"horizon_units": 20_000}))
}

/// The plan's boundary with a first look at a fifth, and a final one right after it.
fn final_bound_after_a_fifth() -> f64 {
    let design = Design {
        alpha: Alpha::FIVE_PERCENT,
        alternative: Alternative::TwoSided,
        spending: Spending::OBrienFleming,
    };
    let mut boundary = Boundary::new(design);
    boundary.look(0.2).unwrap();
    boundary.final_look(0.2 + 2e-4).unwrap().critical
}

#[test]
fn a_stop_takes_one_last_look_that_spends_what_is_left() {
    let mut story = planned();
    story.analyze(&[(2_000, 200), (2_000, 215)]);
    assert_eq!(story.last().metrics[0].boundaries[0].stage, BoundaryStage::Interim);
    story.experiment.definition.state = State::Stopped;
    story.analyze(&[(2_000, 200), (2_000, 215)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    let last = boundary.looks[1];
    assert_eq!((boundary.stage, last.is_final, last.is_early), (BoundaryStage::Final, true, true));
    assert!((last.alpha_spent - 0.05).abs() < 1e-12, "{}", last.alpha_spent);
    assert_eq!(last.critical_value, Some(final_bound_after_a_fifth()));
    let warning = &story.last().warnings[0];
    assert_eq!(warning.kind, WarningKind::EarlyFinalLook);
    assert_eq!(
        warning.text,
        "The experiment was stopped at 20.02 % of the planned information, so look 2 at `b` is an early final look, which \
         spent all of alpha that was left. That keeps alpha only if the stop did not depend on the effect seen."
    );
    let reason = &story.last().decision.reason;
    let begins =
        "Stop: the experiment was stopped before its planned end, 10.75 % against 10.00 % (+7.5 %) under `b`";
    assert!(reason.starts_with(begins), "{reason}");
    // It is the last one.
    story.analyze(&[(2_001, 200), (2_001, 225)]);
    assert_eq!(story.last().metrics[0].boundaries[0].looks.len(), 2);
    assert_eq!(story.last().metrics[0].boundaries[0].stage, BoundaryStage::PastEnd);
}

/// An effect that the interim boundary does not show is shown by all of alpha.
#[test]
fn an_early_final_look_decides() {
    let mut story = planned();
    story.analyze(&[(2_000, 200), (2_000, 260)]);
    assert_eq!(story.last().decision.verdict, Verdict::KeepRunning);
    story.experiment.definition.state = State::Stopped;
    story.analyze(&[(2_000, 200), (2_000, 260)]);
    assert_eq!(story.last().decision.verdict, Verdict::Ship, "{}", story.last().decision.reason);
}

/// A stop waits until the window of the last unit has closed.
#[test]
fn a_stop_waits_for_open_units() {
    let mut story = planned();
    story.metric = metric("m", &json!({"type": "conversion", "window_hours": 72}));
    story.experiment.definition.state = State::Stopped;
    story.open = 100;
    story.analyze(&[(2_000, 200), (2_000, 215)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert!(!boundary.looks[0].is_final);
    let at_latest = Micros::new(1_700_000_000_000_000 + 73 * 3_600_000_000).unwrap();
    assert_eq!(boundary.final_look_due, Some(FinalLookDue { units: 4_200, at_latest: Some(at_latest) }));
    story.open = 0;
    story.analyze(&[(2_100, 210), (2_100, 225)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert!(boundary.looks[1].is_early);
    assert_eq!(boundary.final_look_due, None);
}

/// With the planned number exposed, the final look waits for windows alone; before that nobody knows.
#[test]
fn the_final_look_is_due_when_the_exposed_units_have_matured() {
    let mut story = planned();
    story.metric = metric("m", &json!({"type": "conversion", "window_hours": 72}));
    story.open = 1_000;
    story.analyze(&[(8_000, 800), (8_000, 815)]);
    assert_eq!(story.last().metrics[0].boundaries[0].final_look_due, None);
    story.open = 1_500;
    story.analyze(&[(9_000, 900), (9_000, 915)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert!(boundary.looks.iter().all(|look| !look.is_final));
    let shown = aggregator::decision::progress(boundary);
    let ends = "; the final look is due when the 21,000 units exposed so far have matured, at the latest at \
                2023-11-17T23:13:20.000000Z";
    assert!(shown.ends_with(ends), "{shown}");
}

/// A look at less information than the one before has no bound.
#[test]
fn no_look_is_taken_when_late_events_take_information_back() {
    let mut story = planned();
    story.analyze(&[(2_000, 200), (2_000, 215)]);
    story.analyze(&[(1_990, 199), (2_000, 215)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert_eq!((boundary.looks.len(), boundary.information_fell), (1, true));
    let warning = &story.last().warnings[0];
    assert_eq!((warning.kind, warning.metric.as_deref()), (WarningKind::InformationFell, Some("m")));
    assert_eq!(
        warning.text,
        "There is less information on `b` now than at look 1, because late events took units or conversions back: no look \
         is taken until there is more, and what the looks so far have decided stands."
    );
    story.analyze(&[(3_000, 300), (3_000, 315)]);
    let boundary = &story.last().metrics[0].boundaries[0];
    assert_eq!((boundary.looks.len(), boundary.information_fell), (2, false));
    assert_eq!(story.last().warnings, []);
}
