//! A guardrail without a number, for whatever reason there is none: it shows neither harm nor safety, so nothing ships
//! beside it, and the verdict says which guardrail and why.

mod story;

use aggregator::document::{Role, Verdict, WarningKind};
use schemas::definition::{Direction, EventFilter, Limit, MetricKind, PerUnit, RatioTerm};
use schemas::{Decimal6, Key};
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

/// Errors per request.
fn ratio() -> MetricKind {
    MetricKind::Ratio {
        numerator: RatioTerm::Events,
        denominator: RatioTerm::Events,
        denominator_event: Key::new("request").unwrap(),
        denominator_filter: EventFilter::default(),
    }
}

/// A guardrail of a kind that is not computed was ignored, and the verdict was to ship.
#[test]
fn nothing_ships_beside_a_guardrail_that_is_not_computed() {
    let event = || Key::new("request").unwrap();
    let cap = Limit::Value(Decimal6::parse("10").unwrap());
    for (kind, what) in [
        (ratio(), "ratio metrics"),
        (MetricKind::Mean { limit: Some(Limit::Quantile(0.99)) }, "winsorized metrics"),
        (MetricKind::Count { limit: Some(Limit::Quantile(0.99)) }, "winsorized metrics"),
        (MetricKind::Retention { days: (1, 7) }, "retention metrics"),
        (MetricKind::Mean { limit: Some(cap) }, "metrics with a cap"),
        (MetricKind::Count { limit: Some(cap) }, "metrics with a cap"),
        (MetricKind::Quantile { quantile: 0.9, per_unit: PerUnit::First }, "quantile metrics"),
        (MetricKind::Funnel { then_events: vec![event()] }, "funnel metrics"),
    ] {
        for plan in [
            json!({}),
            json!({"horizon_units": 20_000}),
            json!({"horizon_units": 10_000, "method": "fixed_horizon"}),
        ] {
            let mut story = Story::of(plan.clone());
            story.analyze_beside(&GOOD, &[errors().of_kind(kind.clone())]);
            let decision = &story.last().decision;
            let begins = format!(
                "Whether to ship `b` cannot be decided. The guardrail `errors` has no number (this version does not compute \
                 {what}), so it shows neither harm nor safety. The primary metric alone would say: Ship `b`: 16.00 % \
                 against 10.00 % (+60.0 %), and "
            );
            assert_eq!(decision.verdict, Verdict::NotComputed, "{plan}");
            assert!(decision.reason.starts_with(&begins), "{}", decision.reason);
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
    story.analyze_beside(&[(5_000, 500), (5_000, 500)], &[errors().of_kind(ratio())]);
    assert_eq!(story.last().decision.verdict, Verdict::KeepRunning);
    let ends = " The guardrail `errors` has no number (this version does not compute ratio metrics), so it shows neither harm \
                nor safety.";
    assert!(story.last().decision.reason.ends_with(ends), "{}", story.last().decision.reason);
    let mut story = Story::of(json!({}));
    story.analyze_beside(&GOOD, &[Other { role: Role::Secondary, ..errors().of_kind(ratio()) }]);
    story.check(Verdict::Ship, SHIP);
    let document: Value = serde_json::to_value(story.last()).unwrap();
    assert_eq!(document.get("warnings"), None);
}
