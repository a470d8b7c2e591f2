//! Whether the numbers may be read: a split that is not the planned one, and units that saw more than one variant. What
//! is said of it stands in the verdict's sentence, in the document, on the terminal and on the page.

mod story;

use aggregator::command::show;
use aggregator::cut::Cut;
use aggregator::definitions::{Defined, Definitions};
use aggregator::document::{BoundaryStage, ExperimentResult, Verdict, WarningKind};
use aggregator::experiment_analysis::{Moment, is_current};
use aggregator::look::EarlierLooks;
use aggregator::page::{self, Histories};
use aggregator::{before_the_log, expiry, stale};
use schemas::Micros;
use serde_json::{Value, json};
use story::Story;

/// Everything that people see of it.
fn surfaces(result: &ExperimentResult) -> [String; 3] {
    let results = std::slice::from_ref(result);
    [show::experiments(results), page::experiment(result, &Histories::new()), page::overview(results)]
}

#[test]
fn units_beside_the_only_planned_arm_are_invalid() {
    let mut story = Story::with_weights(json!({}), &[("a", 10_000), ("b", 0)]);
    story.analyze(&[(300, 30), (50, 5)]);
    story.check(
        Verdict::Invalid,
        "The split is not the planned one: `a` has 300 units instead of 350, `b` has 50 units and a planned share of \
         none (always-valid p < 0.001); find out why before reading any number here.",
    );
    let srm = &story.last().srm;
    assert_eq!((srm.alarm, srm.p_value), (Some(true), None));
    assert_eq!(srm.missing.as_deref(), Some("`b` has 50 units, and a planned share of none"));
    let expected: Vec<_> = srm.variants.iter().map(|variant| variant.expected).collect();
    assert_eq!(expected, [Some(350.0), Some(0.0)]);
    assert!(surfaces(story.last())[0].contains("sample ratio of phase 1: p < 0.001, alarm at 0.005, alarm"));
}

#[test]
fn units_where_none_were_planned_are_named_once() {
    let mut story = Story::with_weights(json!({}), &[("a", 5_000), ("b", 5_000), ("c", 0)]);
    story.analyze(&[(334, 30), (333, 30), (333, 30)]);
    story.check(
        Verdict::Invalid,
        "The split is not the planned one: `a` has 334 units instead of 500, `b` has 333 units instead of 500, `c` has \
         333 units and a planned share of none (always-valid p < 0.001); find out why before reading any number here.",
    );
}

#[test]
fn an_arm_that_nobody_saw_is_invalid() {
    let mut story = Story::of(json!({}));
    story.analyze(&[(40, 4), (0, 0)]);
    story.check(
        Verdict::Invalid,
        "No unit has seen `b`, where 20 were expected: find out why before reading any number here.",
    );
}

/// "`a` has 5,700 units instead of 5,700" said nothing.
#[test]
fn numbers_that_round_to_the_same_keep_a_digit() {
    let mut story = Story::with_weights(json!({}), &[("a", 3_333), ("b", 3_333), ("c", 3_334)]);
    story.analyze(&[(1_001, 100), (800, 80), (1_200, 120)]);
    story.check(
        Verdict::Invalid,
        "The split is not the planned one: `a` has 1,001 units instead of 1,000, `b` has 800 units instead of 1,000, `c` has \
         1,200 units instead of 1,001 (always-valid p < 0.001); find out why before reading any number here.",
    );
    story.analyze(&[(1_000, 100), (800, 80), (1_200, 120)]);
    assert!(
        story.last().decision.reason.contains("`a` has 1,000 units instead of 999.9, "),
        "{}",
        story.last().decision.reason
    );
}

/// Without units elsewhere there is nothing wrong, and nothing to say.
#[test]
fn one_arm_alone_is_no_alarm() {
    let mut story = Story::with_weights(json!({}), &[("a", 10_000), ("b", 0)]);
    story.analyze(&[(300, 30), (0, 0)]);
    story.check(Verdict::NotEnoughData, "Not enough data: no treatment gets any units now.");
    assert_eq!(story.last().srm.alarm, None);
}

/// 3,000 units an arm; with this rate of the treatment it ships.
fn with_crossed(crossed: u64) -> Story {
    let mut story = Story::of(json!({}));
    story.crossed = crossed;
    story.analyze(&[(3_000, 296), (3_000, 571)]);
    story
}

const SHIP: &str = "Ship `b`: 19.03 % against 9.87 % (+92.9 %), and the always-valid interval lies wholly on the better \
                    side of zero (+6.44 to +11.92 percentage points).";

#[test]
fn where_every_unit_saw_both_variants_no_number_is_to_be_read() {
    let story = with_crossed(6_000);
    story.check(
        Verdict::Invalid,
        "6,000 of 6,000 units (100.00 %) have seen more than one variant, and above 10 % the first one does not say what \
         a unit saw; find out why before reading any number here.",
    );
    for surface in surfaces(story.last()) {
        assert!(
            surface.contains("6,000 of 6,000 units (100.00 %) have seen more than one variant"),
            "{surface}"
        );
    }
}

/// A change of the split makes units that return see another variant, and the verdict did not name it.
#[test]
fn a_change_of_the_split_is_named_as_a_possible_cause() {
    let mut story = Story::of(json!({}));
    story.analyze(&[(3_000, 296), (3_000, 571)]);
    story.open_phase(&[("a", 9_000), ("b", 1_000)]);
    story.crossed = 6_000;
    story.analyze(&[(9_000, 900), (1_000, 100)]);
    let reason = &story.last().decision.reason;
    assert!(
        reason.ends_with(
            "what a unit saw; the experiment is in phase 2, and where the split changed between phases, units that return \
             may get another variant; find out why before reading any number here."
        ),
        "{reason}"
    );
}

/// Up to 1 % nothing is said but how many there are, up to 10 % every verdict begins with it.
#[test]
fn units_that_saw_several_variants_are_said_before_any_number() {
    with_crossed(0).check(Verdict::Ship, SHIP);
    with_crossed(60).check(Verdict::Ship, SHIP);
    assert!(with_crossed(60).last().warnings.is_empty());
    let warned = with_crossed(61);
    let warning = "61 of 6,000 units (1.02 %) have seen more than one variant, and count in the first.";
    warned.check(Verdict::Ship, &format!("Warning: {warning} {SHIP}"));
    for surface in surfaces(warned.last()) {
        assert!(surface.contains(warning), "{surface}");
    }
    let document = serde_json::to_value(warned.last()).unwrap();
    assert_eq!(
        document["warnings"],
        json!([{
            "kind": "units_in_several_variants", "text": warning, "share_of_units": 61.0 / 6_000.0,
        }])
    );
    assert_eq!(with_crossed(600).last().decision.verdict, Verdict::Ship);
    let invalid = with_crossed(601);
    assert_eq!(invalid.last().decision.verdict, Verdict::Invalid);
    assert_eq!(invalid.last().warnings[0].kind, WarningKind::UnitsInSeveralVariants);
}

/// Also before another reason not to read any number.
#[test]
fn a_broken_split_does_not_hide_them() {
    let mut story = Story::of(json!({}));
    story.crossed = 100;
    story.analyze(&[(3_000, 300), (2_000, 200)]);
    story.check(
        Verdict::Invalid,
        "Warning: 100 of 5,000 units (2.00 %) have seen more than one variant, and count in the first. The split is not \
         the planned one: `a` has 3,000 units instead of 2,500, `b` has 2,000 units instead of 2,500 (always-valid \
         p < 0.001); find out why before reading any number here.",
    );
}

/// Somebody who looked at both by hand does not end an experiment that has just begun.
#[test]
fn a_few_strays_are_warned_of_and_no_more() {
    let mut story = Story::of(json!({}));
    story.crossed = 7;
    story.analyze(&[(20, 2), (20, 2)]);
    let reason = &story.last().decision.reason;
    assert_eq!(story.last().decision.verdict, Verdict::NotEnoughData);
    assert!(
        reason.starts_with("Warning: 7 of 40 units (17.50 %) have seen more than one variant"),
        "{reason}"
    );
    story.crossed = 8;
    story.analyze(&[(20, 2), (20, 2)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
}

/// 3,000 units an arm; so many of the units have a mismatched exposure. Without them it ships.
fn with_mismatched(mismatched: u64) -> Story {
    let mut story = Story::of(json!({}));
    story.mismatched = mismatched;
    story.analyze(&[(3_000, 296), (3_000, 571)]);
    story
}

/// An assignment that nobody can compute again was counted, and nothing said so.
#[test]
fn mismatched_exposures_are_said_before_any_number() {
    with_mismatched(0).check(Verdict::Ship, SHIP);
    assert!(with_mismatched(0).last().warnings.is_empty());
    assert!(
        surfaces(with_mismatched(0).last())[0].contains("  exposures of phase 1: 0 of 6,000 mismatched\n")
    );
    let warned = with_mismatched(60);
    let sentence = "60 of 6,000 exposures (of 60 of 6,000 units, 1.00 %) are mismatched: computed again from the \
                    configuration that they name, the unit does not get what they report";
    let warning = format!(
        "{sentence}; `sender_service` and `sender_version` in the table `exposures` tell who sent them."
    );
    warned.check(Verdict::Ship, &format!("Warning: {sentence}. {SHIP}"));
    let [terminal, page, _] = surfaces(warned.last());
    assert!(
        terminal.contains("  exposures of phase 1: 60 of 6,000 mismatched, of 60 of 6,000 units\n"),
        "{terminal}"
    );
    assert!(terminal.contains(&format!("  warning: {warning}\n")), "{terminal}");
    assert!(page.contains("60 of 6,000 exposures of phase 1 are mismatched"), "{page}");
    let document = serde_json::to_value(warned.last()).unwrap();
    assert_eq!(
        document["verification"],
        json!([{
            "phase": 1, "exposures": 6_000, "exposures_mismatched": 60, "units": 6_000, "units_mismatched": 60,
            "left_out": false,
        }])
    );
    assert_eq!(
        document["warnings"],
        json!([{"kind": "exposures_mismatched", "text": warning, "share_of_units": 0.01}])
    );
}

/// Above 1 % nothing ships, as they may all be in one arm and convert.
#[test]
fn more_than_a_few_mismatched_exposures_are_invalid() {
    let invalid = with_mismatched(61);
    invalid.check(
        Verdict::Invalid,
        "61 of 6,000 exposures (of 61 of 6,000 units, 1.02 %) are mismatched: computed again from the configuration that \
         they name, the unit does not get what they report; above 1 % of the units they may create or hide an effect. Find \
         their sender (`sender_service` and `sender_version` in the table `exposures`) and mend its hash, its definitions or \
         its clock, then leave out the phase in which these units came (`excluded_phases`), or clone the experiment under \
         another key.",
    );
    for surface in surfaces(invalid.last()) {
        assert!(surface.contains("61 of 6,000 exposures"), "{surface}");
    }
    // A few that somebody made by hand do not end an experiment that has just begun.
    let mut story = Story::of(json!({}));
    story.mismatched = 7;
    story.analyze(&[(20, 2), (20, 2)]);
    assert_eq!(story.last().decision.verdict, Verdict::NotEnoughData);
    story.mismatched = 8;
    story.analyze(&[(20, 2), (20, 2)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
    // Beside another reason they are still told.
    story.crossed = 40;
    story.analyze(&[(20, 2), (20, 2)]);
    let reason = &story.last().decision.reason;
    assert!(
        reason.starts_with("Warning: 8 of 40 exposures (of 8 of 40 units, 20.00 %) are mismatched: "),
        "{reason}"
    );
    assert!(reason.contains("40 of 40 units (100.00 %) have seen more than one variant"), "{reason}");
}

/// They count with their phase: what is left out, by the owner, says nothing about the rest. Nor do later units hide them
/// before they are as few as is harmless.
#[test]
fn mismatched_exposures_count_with_their_phase() {
    let mut story = Story::of(json!({}));
    story.mismatched = 200;
    story.analyze(&[(3_000, 296), (3_000, 300)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
    story.open_phase(&[("a", 5_000), ("b", 5_000)]);
    story.mismatched = 0;
    story.analyze(&[(3_000, 296), (3_000, 571)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
    story.exclude(1);
    story.analyze(&[(3_000, 296), (3_000, 571)]);
    story.check(Verdict::Ship, &format!("{SHIP} The units of phase 1 (the split was off) are left out."));
    let by_phase: Vec<_> = story
        .last()
        .verification
        .iter()
        .map(|of| (of.phase, of.exposures_mismatched, of.exposures, of.left_out))
        .collect();
    assert_eq!(by_phase, [(1, 200, 6_000, true), (2, 0, 6_000, false)]);
    let kinds: Vec<_> = story.last().warnings.iter().map(|warning| warning.kind).collect();
    assert_eq!(kinds, [WarningKind::VerdictRestedOnPhasesLeftOut]);
}

/// A document of a build that knew no warnings.
#[test]
fn documents_without_warnings_are_readable() {
    let mut old: Value = serde_json::to_value(with_crossed(61).last()).unwrap();
    old.as_object_mut().unwrap().remove("warnings");
    let read: ExperimentResult = serde_json::from_value(old).unwrap();
    assert_eq!((read.warnings.len(), read.units_in_several_variants), (0, 61));
    assert!(surfaces(&read)[0].contains("units that saw several variants: 61 of 6,000"));
}

/// An alarm stays for its phase, and ends with it: then its units are left out, and the test of the next phase is a
/// stricter one.
#[test]
fn an_alarm_latches_for_its_phase() {
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    story.analyze(&[(1_000, 100), (1_000, 100)]);
    story.analyze(&[(1_600, 160), (1_200, 120)]);
    assert_eq!(story.last().decision.verdict, Verdict::Invalid);
    assert_eq!(story.looks.last().unwrap().sample_ratio_alarms, [1].into());
    // Units that even it out mend nothing.
    story.analyze(&[(2_000, 200), (2_000, 200)]);
    story.check(
        Verdict::Invalid,
        "The split of phase 1 was not the planned one at an earlier look, which later units do not correct: `a` has 2,000 \
         units as planned, `b` has 2,000 units as planned; find out why before reading any number here.",
    );
    let spent = story.last().metrics[0].boundaries[0].looks.last().unwrap().alpha_spent;
    story.open_phase(&[("a", 5_000), ("b", 5_000)]);
    let boundary = story.boundary(&[[(300, 30), (300, 35)]]);
    let last = story.last();
    assert_eq!((last.decision.verdict, last.units_left_out), (Verdict::KeepRunning, 4_000));
    assert_eq!((last.variants[0].units, last.variants[1].units), (300, 300));
    let phases: Vec<_> =
        last.srm.phases.iter().map(|of| (of.phase, of.level, of.alarm, of.left_out)).collect();
    assert_eq!(phases, [(1, 0.005, true, true), (2, 0.0025, false, false)]);
    // What the looks at the units left out have spent is spent, and the next look waits until there is more to see.
    assert_eq!(boundary.looks.last().unwrap().alpha_spent, spent);
    let looks = boundary.looks.len();
    assert_eq!(story.boundary(&[[(1_900, 190), (1_900, 200)]]).looks.len(), looks);
    assert_eq!(story.boundary(&[[(2_300, 230), (2_300, 250)]]).looks.len(), looks + 1);
}

/// Four weeks before the first exposures are dropped the document says so, and from then on it stays.
#[test]
fn exposures_that_expire_are_warned_of_and_then_the_experiment_is_frozen() {
    let mut story = Story::of(json!({}));
    story.exposures_kept_days = 60;
    story.days = 31;
    story.analyze(&[(1_000, 100), (1_000, 100)]);
    // The day of the first one, 2023-11-14, and 60 days.
    let until = schemas::Micros::parse("2024-01-13T00:00:00Z").unwrap();
    assert_eq!((story.last().complete_until, story.last().warnings.len()), (Some(until), 0));
    story.days = 32;
    story.analyze(&[(1_000, 100), (1_000, 100)]);
    assert_eq!(
        serde_json::to_value(&story.last().warnings).unwrap(),
        json!([{
            "kind": "exposures_expire",
            "text": "The first exposures are dropped from the table at 2024-01-13T00:00:00.000000Z; from then on nothing is \
                     counted and this document stays. Stop the experiment before, or keep exposures for longer (`kind: \
                     settings`).",
        }])
    );
    let last = story.last();
    let at = |micros: i64| schemas::Micros::new(micros).unwrap();
    // The log of looks tells it, also where the document is lost.
    let looks = EarlierLooks(&story.looks);
    assert_eq!(looks.complete_until(), Some(until));
    for document in [Some(last), None] {
        assert_eq!(expiry::expired(looks, document, at(until.get() - 1)), None);
        assert_eq!(expiry::expired(looks, document, until), Some(until));
    }
    // Looks of an earlier build do not; its document does.
    assert_eq!(expiry::expired(EarlierLooks(&[]), Some(last), at(until.get() - 1)), None);
    assert_eq!(expiry::expired(EarlierLooks(&[]), Some(last), until), Some(until));
    let frozen = expiry::frozen(last, until).unwrap();
    assert_eq!(frozen.warnings.iter().map(|warning| warning.kind).collect::<Vec<_>>(), [WarningKind::Frozen]);
    assert_eq!(
        (frozen.decision.clone(), frozen.metrics.clone()),
        (last.decision.clone(), last.metrics.clone())
    );
    assert_eq!(expiry::frozen(&frozen, until), None);
    // It was in the way of an error for a while.
    let marked = stale::stale(&frozen, "look 2 at `e` cannot be read").unwrap();
    assert_eq!(expiry::frozen(&marked, until), Some(frozen));
    // Nor is it forgotten where no exposure is there any more.
    assert_eq!(story.analyze(&[]).complete_until, Some(until));
}

/// A document of the first form is not read as nothing before: it is refused, and what its looks have spent stays spent.
#[test]
fn an_old_document_is_refused_and_its_looks_count() {
    let old = r#"{"key": "e", "state": "running", "phase": 1, "counted_since_phase": 1, "alpha_spent_before": 0.001,
        "metrics": [{"key": "m", "boundaries": [{"treatment": "b", "looks": [{"look": 1, "alpha_spent": 0.002},
        {"look": 2, "alpha_spent": 0.004}]}, {"treatment": "c", "looks": [{"look": 1, "alpha_spent": 0.01}]}]}]}"#;
    let refused = ExperimentResult::read("e", old).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the document of `e` is of form 1, and this build reads form 2: analyze again, or install the build that wrote it"
    );
    assert!((before_the_log::alpha_spent("e", old).unwrap() - 0.015).abs() < 1e-12);
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    let now = serde_json::to_string(story.analyze(&[(1_000, 100), (1_000, 100)])).unwrap();
    assert_eq!(before_the_log::alpha_spent("e", &now), Ok(0.0));
    let later = now.replace(r#""document_version":2"#, r#""document_version":3"#);
    assert_eq!(
        ExperimentResult::read("e", &later).unwrap_err().to_string(),
        "the document of `e` is of form 3, and this build reads form 2: analyze again, or install the build that wrote it"
    );
    let damaged = before_the_log::alpha_spent("e", "{").unwrap_err();
    assert!(damaged.to_string().starts_with("the document of `e` cannot be read: "), "{damaged}");
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    story.carry_over(0.015);
    let boundary = story.boundary(&[[(5_000, 500), (5_000, 500)]]);
    assert_eq!((boundary.alpha_spent_before, boundary.alpha), (0.015, 0.05 - 0.015));
    assert_eq!(story.boundary(&[[(7_000, 700), (7_000, 700)]]).alpha, 0.05 - 0.015);
}

/// A document of this form, written without a look, made the old document's looks forgotten: the one test of a plan was
/// taken a second time.
#[test]
fn what_was_spent_before_the_log_is_never_spent_again() {
    let mut story = Story::of(json!({"horizon_units": 2_000, "method": "fixed_horizon"}));
    story.carry_over(0.05);
    for arms in [[(1_000, 100), (1_000, 180)], [(2_000, 200), (2_000, 360)]] {
        let boundary = story.boundary(&[arms]);
        assert_eq!((boundary.stage, boundary.looks.len()), (BoundaryStage::AlphaSpent, 0));
        assert_eq!(story.last().decision.verdict, Verdict::Stop);
    }
}

/// An event of the year 2099 had its experiment analyzed every round until then.
#[test]
fn an_analysis_is_current_until_the_time_of_the_next_event() {
    let mut story = Story::of(json!({}));
    let mut previous = story.analyze(&[(300, 30), (300, 30)]).clone();
    let mut definitions = Definitions::default();
    definitions.experiments.insert("e".to_owned(), story.experiment.clone());
    definitions.metrics.insert(
        "m".to_owned(),
        Defined {
            version: story.metric_version,
            definition: story.metric.clone(),
            changed_at_ms: 0,
            phases: Vec::new(),
        },
    );
    let cut = Cut::default();
    let mut is_current_at = |events: u64, first: Option<i64>, now: i64| {
        previous.events_after_as_of = events;
        previous.first_event_after_as_of = first.map(|micros| Micros::new(micros).unwrap());
        let moment = Moment { definitions: &definitions, cut: &cut, as_of: Micros::new(now).unwrap() };
        is_current(&previous, &moment)
    };
    assert_eq!(
        [
            is_current_at(0, None, 1_000),
            is_current_at(1, Some(2_000), 1_999),
            is_current_at(1, Some(2_000), 2_000),
            // An earlier build has not said when.
            is_current_at(1, None, 1_000),
        ],
        [true, true, false, false]
    );
}

/// Units that were forced are shown, and those that had counted are warned of: who may force could take them out.
#[test]
fn units_that_were_forced_are_shown_and_those_that_had_counted_warned_of() {
    let mut story = Story::of(json!({}));
    story.forced = 12;
    story.analyze(&[(300, 30), (300, 30)]);
    assert!(story.last().warnings.is_empty());
    let [text, page, _] = surfaces(story.last());
    assert!(text.contains("  units forced into a variant, which are not counted: 12\n"), "{text}");
    assert!(page.contains("12 units were forced into a variant and are not counted."), "{page}");
    for (forced_later, warning) in [
        (
            1,
            "1 unit that had counted was forced into a variant later, and is no longer counted; earlier looks saw it.",
        ),
        (
            7,
            "7 units that had counted were forced into a variant later, and are no longer counted; earlier looks saw them.",
        ),
    ] {
        story.forced_later = forced_later;
        story.analyze(&[(300, 30), (300, 30)]);
        let last = story.last();
        assert_eq!((last.units_forced, last.units_forced_later), (12, forced_later));
        assert_eq!(
            (last.warnings[0].kind, last.warnings[0].text.as_str()),
            (WarningKind::UnitsForcedLater, warning)
        );
        let [text, page, _] = surfaces(last);
        assert!(text.contains(&format!("  warning: {warning}\n")), "{text}");
        assert!(page.contains(warning), "{page}");
    }
}

/// The last document of an experiment that cannot be analyzed says so, and the next analysis is not spared by it.
#[test]
fn a_document_that_stays_says_why_and_is_not_current() {
    let mut story = Story::of(json!({}));
    let last = story.analyze(&[(300, 30), (300, 30)]).clone();
    let marked = stale::stale(&last, "look 2 at `e` cannot be read; install a newer build").unwrap();
    let warning = "The experiment cannot be analyzed now: look 2 at `e` cannot be read; install a newer build. The numbers and \
                   the verdict are those of 2023-11-14T22:13:20.000000Z.";
    assert_eq!((marked.warnings[0].kind, marked.warnings[0].text.as_str()), (WarningKind::Stale, warning));
    assert_eq!((&marked.decision, &marked.metrics), (&last.decision, &last.metrics));
    assert!(surfaces(&marked)[0].contains(&format!("  warning: {warning}\n")));
    assert_eq!(stale::stale(&marked, "another reason"), None);
    let mut definitions = Definitions::default();
    definitions.experiments.insert("e".to_owned(), story.experiment.clone());
    let metric = story.metric.clone();
    let defined = Defined { version: 1, definition: metric, changed_at_ms: 0, phases: Vec::new() };
    definitions.metrics.insert("m".to_owned(), defined);
    let cut = Cut::default();
    let moment = Moment { definitions: &definitions, cut: &cut, as_of: Micros::new(1_000).unwrap() };
    assert_eq!((is_current(&last, &moment), is_current(&marked, &moment)), (true, false));
}

/// A verdict that rested on a phase that is left out is marked.
#[test]
fn a_verdict_that_rested_on_a_phase_left_out_is_marked() {
    let mut story = Story::of(json!({"horizon_units": 20_000}));
    story.boundary(&[[(6_000, 600), (6_000, 780)]]);
    assert_eq!(story.last().decision.verdict, Verdict::Ship);
    story.open_phase(&[("a", 9_000), ("b", 1_000)]);
    story.analyze(&[(900, 90), (100, 11)]);
    assert_eq!((story.last().decision.verdict, story.last().warnings.len()), (Verdict::Ship, 0));
    story.exclude(1);
    story.analyze(&[(900, 90), (100, 11)]);
    assert_eq!(story.last().decision.verdict, Verdict::KeepRunning);
    let warning = &story.last().warnings[0];
    assert_eq!(
        (warning.kind, warning.text.as_str()),
        (
            WarningKind::VerdictRestedOnPhasesLeftOut,
            "At look 1, with phase 1, which is left out now, `b` was better: the boundary was crossed on the better side (+3.00 \
             percentage points); the phases that remain do not show it."
        )
    );
}
