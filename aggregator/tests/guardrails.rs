//! A guardrail without a number, for whatever reason there is none: it shows neither harm nor safety, so nothing ships
//! beside it, and the verdict says which guardrail and why.

mod story;

use aggregator::document::{Role, Verdict, WarningKind};
use schemas::definition::{Direction, Limit, MetricKind};
use serde_json::{Value, json};
use story::{Arm, Other, Story};

/// With these the primary metric ships `b`.
const GOOD: [Arm; 2] = [(5_000, 500), (5_000, 800)];
/// Errors that went from 10 to 4,000 of 5,000 units.
const HARM: [Arm; 2] = [(5_000, 10), (5_000, 4_000)];
const SHIP: &str = "Ship `b`: 16.00 % against 10.00 % (+60.0 %), and the always-valid interval lies wholly on the better \
                    side of zero (+3.95 to +8.06 percentage points).";

fn errors() -> Other<'static> {
    Other::guardrail("errors", Direction::Decrease, HARM)
}

#[test]
fn the_story_ships_and_stops_with_a_guardrail_that_has_numbers() {
    let mut story = Story::of(json!({}));
    story.analyze(&GOOD);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
    story.analyze_beside(&GOOD, &[errors()]);
    assert_eq!(story.last().decision.verdict, Verdict::GuardrailHarmed);
    let fine = [(5_000, 10), (5_000, 11)];
    story.analyze_beside(&GOOD, &[Other::guardrail("other", Direction::Decrease, fine)]);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
}

fn winsorized() -> MetricKind {
    MetricKind::Mean { limit: Some(Limit::Quantile(0.99)) }
}

/// Values that are not kept are none: the cap has nothing to be known by.
#[test]
fn nothing_ships_beside_a_guardrail_that_waits_for_its_cap() {
    for kind in [winsorized(), MetricKind::Count { limit: Some(Limit::Quantile(0.99)) }] {
        for plan in [
            json!({}),
            json!({"horizon_units": 20_000}),
            json!({"horizon_units": 10_000, "method": "fixed_horizon"}),
        ] {
            let mut story = Story::of(plan.clone());
            story.analyze_beside(&GOOD, &[errors().of_kind(kind.clone())]);
            let decision = &story.last().decision;
            let begins = "Not enough data to ship `b`. The guardrail `errors` has no number (its cap needs 200 values that are \
                          not 0, and 0 are there), so it shows neither harm nor safety. The primary metric alone would say: \
                          Ship `b`: 16.00 % against 10.00 % (+60.0 %), and ";
            assert_eq!(decision.verdict, Verdict::NotEnoughData, "{plan}");
            assert!(decision.reason.starts_with(begins), "{}", decision.reason);
            assert_eq!(decision.treatment.as_deref(), Some("b"));
            let warning = &story.last().warnings[0];
            assert_eq!(
                (warning.kind, warning.metric.as_deref()),
                (WarningKind::GuardrailWithoutData, Some("errors"))
            );
        }
    }
}

/// One unit's huge values make the sums of a mean exceed 128 bits.
#[test]
fn nothing_ships_beside_sums_beyond_the_arithmetic() {
    let mut story = Story::of(json!({}));
    let huge = errors().of_kind(MetricKind::Mean { limit: None }).with_huge_value();
    story.analyze_beside(&GOOD, &[huge]);
    let nines = "9".repeat(40);
    story.check(
        Verdict::NotComputed,
        &format!(
            "Whether to ship `b` cannot be decided. The guardrail `errors` has no number (the sums (10000000, {nines}) are \
             beyond 128 bits), so it shows neither harm nor safety. The primary metric alone would say: {SHIP}"
        ),
    );
}

/// More units may bring a number.
#[test]
fn nothing_ships_beside_a_guardrail_without_data() {
    let mut story = Story::of(json!({}));
    story.analyze_beside(&GOOD, &[Other::guardrail("pay", Direction::Increase, [(5_000, 0), (5_000, 0)])]);
    story.check(
        Verdict::NotEnoughData,
        &format!(
            "Not enough data to ship `b`. The guardrail `pay` has no conversions in any arm, so it shows neither harm nor \
             safety. The primary metric alone would say: {SHIP}"
        ),
    );
    // Of what should not happen nothing has happened: said, and not in the way.
    let crashes = Other::guardrail("pay", Direction::Decrease, [(5_000, 0), (5_000, 0)]);
    story.analyze_beside(&GOOD, &[crashes]);
    story.check(
        Verdict::Ship,
        &format!(
            "{SHIP} The guardrail `pay` has no conversions in any arm, so it shows neither harm nor safety."
        ),
    );
    // All units have the same value: there is no error that a difference could be held against.
    let same = Other::guardrail("pay", Direction::Increase, [(5_000, 5_000), (5_000, 5_000)]);
    story.analyze_beside(&GOOD, &[same]);
    story.check(
        Verdict::NotEnoughData,
        &format!(
            "Not enough data to ship `b`. The guardrail `pay` has no number (all units of `a` and `b` converted), so it shows \
             neither harm nor safety. The primary metric alone would say: {SHIP}"
        ),
    );
}

/// What does not ship goes on as it did, with what is open behind it; a secondary metric holds nothing back.
#[test]
fn other_verdicts_say_it_behind() {
    let mut story = Story::of(json!({}));
    story.analyze_beside(&[(5_000, 500), (5_000, 500)], &[errors().of_kind(winsorized())]);
    assert_eq!(story.last().decision.verdict, Verdict::KeepRunning);
    let ends = " The guardrail `errors` has no number (its cap needs 200 values that are not 0, and 0 are there), so it shows \
                neither harm nor safety.";
    assert!(story.last().decision.reason.ends_with(ends), "{}", story.last().decision.reason);
    let mut story = Story::of(json!({}));
    story.analyze_beside(&GOOD, &[Other { role: Role::Secondary, ..errors().of_kind(winsorized()) }]);
    story.check(Verdict::Ship, SHIP);
    let document: Value = serde_json::to_value(story.last()).unwrap();
    assert_eq!(document.get("warnings"), None);
}
