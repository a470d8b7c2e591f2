//! The rules of the definitions log compared: a record of rule 1 keeps its verdict, and a writer's change
//! names the lowest rule that it needs.

mod change_log;

use change_log::*;
use schemas::definition::{Change, Definition, Definitions, Kind, Rule};
use serde_json::{Value, json};

/// Records that builds that knew only rule 1 wrote, with the verdicts of those builds.
const RULE_1: &str = include_str!("definitions/rule_1.jsonl");

/// The parts of the texts that have changed since, each with what it was.
const REWORDED: [(&str, &str); 3] = [
    (", for results of two types cannot be compared; clone it under another key", "; make a new key for it"),
    (
        ", for the looks so far judged by the former ones; clone it under another key",
        "; make a new key for it",
    ),
    ("; leave `phase` out, and it is counted", ""),
];

#[test]
fn records_of_rule_1_are_read_and_judged_as_when_they_were_written() {
    let mut definitions = Definitions::default();
    for (offset, line) in (0..).zip(RULE_1.lines()) {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let verdict = record.as_object_mut().unwrap().remove("verdict").unwrap();
        let change: Change = serde_json::from_value(record).unwrap();
        assert_eq!(change.rule_version, 1);
        let judged = match definitions.apply(offset, schemas::Micros::EPOCH, &change).unwrap() {
            Ok(accepted) => {
                // A definition that a writer's types wrote is written again with the same bytes.
                if change.key != "by-hand" {
                    assert_eq!(accepted.definition.to_json(), change.definition);
                }
                json!({"accepted": accepted.version})
            }
            Err(refusal) => {
                let as_then =
                    REWORDED.iter().fold(refusal.to_string(), |text, (now, then)| text.replace(now, then));
                json!({"refused": as_then})
            }
        };
        assert_eq!(judged, verdict, "{line}");
    }
    assert_eq!(definitions.next_offset(), 37);
    assert_eq!(definitions.version(), 36);
}

/// Returns the rule that a writer names in a change to this definition.
fn rule_for(log: &Log, kind: &str, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::parse(kind).unwrap(), definition).unwrap())
}

#[test]
fn what_rule_1_can_say_is_proposed_by_it() {
    let log = Log::with_experiment("running");
    for (kind, definition) in [
        ("experiment", experiment(json!({"state": "stopped"}))),
        ("experiment", experiment(json!({"rollout": 5_000, "phase": 2}))),
        ("experiment", experiment(json!({"key": "new"}))),
        ("flag", flag(json!({}))),
        ("layer", json!({"key": "l", "owner": "ann"})),
        ("metric", json!({"key": "new", "event": "buy", "type": "count"})),
    ] {
        assert_eq!(rule_for(&log, kind, definition.clone()), Rule::One, "{definition}");
    }
}

#[test]
fn what_a_metric_measures_stays_under_an_experiment_that_has_looks() {
    let metric = |fields: Value| {
        with(json!({"key": "m", "event": "buy", "type": "conversion", "direction": "increase"}), fields)
    };
    let refused = |field: &str, state: &str| {
        Err(format!(
            "{field}: cannot change under experiment `e`, which is {state}; define a metric with another key and name \
             it in a clone of the experiment"
        ))
    };
    for (field, fields) in [
        ("event", json!({"event": "visit"})),
        ("window_hours", json!({"window_hours": 24})),
        ("direction", json!({"direction": "decrease"})),
    ] {
        for state in ["running", "stopped"] {
            let mut log = Log::with_experiment(state);
            assert_eq!(rule_for(&log, "metric", metric(fields.clone())), Rule::Two, "{field}");
            assert_eq!(log.propose_by(2, "metric", metric(fields.clone())), refused(field, state));
        }
        for state in ["draft", "archived"] {
            let mut log = Log::with_experiment(state);
            assert_eq!(rule_for(&log, "metric", metric(fields.clone())), Rule::Two, "{field}");
            assert!(log.propose_by(2, "metric", metric(fields.clone())).is_ok(), "{field} {state}");
        }
    }
    // Under rule 1, which earlier builds follow, it is accepted as before.
    assert_eq!(
        Log::with_experiment("running").propose_by(1, "metric", metric(json!({"event": "visit"}))),
        Ok(6)
    );
    // The owner and the description may change, and need no later rule.
    let words = metric(json!({"description": "Of all.", "owner": "bob"}));
    let mut log = Log::with_experiment("running");
    assert_eq!(rule_for(&log, "metric", words.clone()), Rule::One);
    assert_eq!(log.propose_by(1, "metric", words.clone()), Ok(6));
    assert_eq!(log.propose_by(2, "metric", with(words, json!({"owner": "eve"}))), Ok(7));
    // No experiment uses the other metric.
    let other = json!({"key": "n", "event": "visit", "type": "conversion"});
    assert_eq!(log.propose_by(2, "metric", other), Ok(8));
}

#[test]
fn an_experiment_that_starts_meanwhile_keeps_its_metrics() {
    let mut log = Log::with_experiment("draft");
    let flipped = json!({"key": "m", "event": "buy", "type": "conversion", "direction": "decrease"});
    // Both changes are based on the draft; the start comes first in the log.
    let flip = Change { rule_version: 2, ..log.change("metric", flipped) };
    assert_eq!(log.propose("experiment", experiment(json!({}))), Ok(6));
    assert_eq!(
        log.take(&flip),
        Err("direction: cannot change under experiment `e`, which is running; define a metric with another key and \
             name it in a clone of the experiment"
            .to_owned())
    );
}

#[test]
fn every_option_of_every_kind_of_metric_stays() {
    for (field, before, after) in [
        ("winsorize", json!({"type": "mean", "winsorize": 0.99}), json!({"type": "mean", "winsorize": 0.9})),
        ("winsorize", json!({"type": "count"}), json!({"type": "count", "winsorize": 0.9})),
        (
            "denominator_event",
            json!({"type": "ratio", "denominator_event": "click"}),
            json!({"type": "ratio", "denominator_event": "view"}),
        ),
        (
            "retention_days",
            json!({"type": "retention", "retention_days": [1, 7]}),
            json!({"type": "retention", "retention_days": [1, 8]}),
        ),
        (
            "quantile",
            json!({"type": "quantile", "quantile": 0.5}),
            json!({"type": "quantile", "quantile": 0.9}),
        ),
        (
            "then_events",
            json!({"type": "funnel", "then_events": ["a", "b"]}),
            json!({"type": "funnel", "then_events": ["b", "a"]}),
        ),
    ] {
        let metric = |fields: &Value| with(json!({"key": "x", "event": "buy"}), fields.clone());
        let mut log = Log::furnished();
        log.propose("metric", metric(&before)).unwrap();
        let guarded = json!({"metrics": {"primary": "m", "guardrails": ["x"]}});
        log.propose("experiment", experiment(guarded)).unwrap();
        let refusal = log.propose_by(2, "metric", metric(&after)).unwrap_err();
        assert!(refusal.starts_with(&format!("{field}: cannot change under experiment `e`")), "{refusal}");
    }
}

#[test]
fn a_running_experiment_may_get_metrics_and_lose_none() {
    let of = |secondary: &[&str], guardrails: &[&str]| {
        experiment(json!({"metrics": {"primary": "m", "secondary": secondary, "guardrails": guardrails}}))
    };
    let mut log = Log::furnished();
    for key in ["x", "y"] {
        log.propose("metric", json!({"key": key, "event": "buy", "type": "count"})).unwrap();
    }
    log.propose("experiment", of(&["n"], &[])).unwrap();
    assert_eq!(rule_for(&log, "experiment", of(&["n"], &["x"])), Rule::Two);
    assert_eq!(
        log.propose_by(1, "experiment", of(&["n"], &["x"])),
        Err("metrics: cannot change any more, for the looks so far judged by the former ones; clone it under another key"
            .to_owned())
    );
    assert_eq!(log.propose_by(2, "experiment", of(&["n"], &["x"])), Ok(9));
    assert_eq!(log.propose_by(2, "experiment", of(&["y", "n"], &["x"])), Ok(10));
    for (definition, refusal) in [
        (
            of(&["y"], &["x"]),
            "metrics.secondary: `n` cannot be taken out any more, for its results may have been seen; clone the \
             experiment without it",
        ),
        (
            of(&["y", "n"], &[]),
            "metrics.guardrails: `x` cannot be taken out any more, for its results may have been seen; clone the \
             experiment without it",
        ),
        (
            experiment(json!({"metrics": {"primary": "y", "secondary": ["n"], "guardrails": ["x"]}})),
            "metrics.primary: cannot change any more, for the looks so far judged by the former ones; clone it under \
             another key; metrics.secondary: `y` cannot be taken out any more, for its results may have been seen; clone \
             the experiment without it",
        ),
        (of(&["y", "n"], &["x", "z"]), "metrics.guardrails[1]: there is no metric `z`; define it first"),
    ] {
        assert_eq!(log.propose_by(2, "experiment", definition), Err(refusal.to_owned()));
    }
}

/// Proposes `variants` under `rule` for the experiment `e`, which is in `state`, where `a` has the value 1
/// and `b` the value 2.
fn with_values(rule: u32, state: &str, variants: Value) -> (Rule, Result<u64, String>) {
    let at = |state: &str, phase: u32, variants: Value| {
        experiment(json!({"state": state, "phase": phase, "variants": variants}))
    };
    let mut log = Log::furnished();
    log.propose("experiment", at("running", 1, values(json!(1), json!(2)))).unwrap();
    if state == "stopped" {
        log.propose("experiment", at("stopped", 1, values(json!(1), json!(2)))).unwrap();
    }
    let change = at(state, 2, variants);
    (rule_for(&log, "experiment", change.clone()), log.propose_by(rule, "experiment", change))
}

/// Returns both variants, half of the units each, with these values.
fn values(a: Value, b: Value) -> Value {
    json!([
        {"key": "a", "weight": 5_000, "ranges": [[0, 500_000]], "value": a},
        {"key": "b", "weight": 5_000, "ranges": [[500_000, 1_000_000]], "value": b},
    ])
}

fn refused_value(index: usize, key: &str) -> String {
    format!(
        "variants[{index}].value: `{key}` cannot get another value, for units have seen the former one; add a variant with a \
         key of its own for it, or clone the experiment under another key"
    )
}

/// A fixed bug: control and treatment were exchanged as "phase 2", and effects of opposite sign added up to a
/// reason to ship.
#[test]
fn what_a_variant_shows_stays_once_units_have_seen_it() {
    for state in ["running", "stopped"] {
        let exchanged = values(json!(2), json!(1));
        let both = refused_value(0, "a") + "; " + &refused_value(1, "b");
        assert_eq!(with_values(2, state, exchanged.clone()), (Rule::Two, Err(both)), "{state}");
        // Under rule 1, which earlier builds follow, it is accepted as before.
        assert!(with_values(1, state, exchanged).1.is_ok(), "{state}");
        let of_one = values(json!(1), json!({"colour": "red"}));
        assert_eq!(with_values(2, state, of_one), (Rule::Two, Err(refused_value(1, "b"))), "{state}");
        let none = json!([
            {"key": "a", "weight": 5_000, "ranges": [[0, 500_000]], "value": 1},
            {"key": "b", "weight": 5_000, "ranges": [[500_000, 1_000_000]]},
        ]);
        assert_eq!(with_values(2, state, none), (Rule::Two, Err(refused_value(1, "b"))), "{state}");
    }
    // No unit has seen the values of a draft.
    let draft = |values: Value| experiment(json!({"state": "draft", "variants": values}));
    let mut log = Log::furnished();
    log.propose("experiment", draft(values(json!(1), json!(2)))).unwrap();
    let exchanged = draft(values(json!(2), json!(1)));
    assert_eq!(rule_for(&log, "experiment", exchanged.clone()), Rule::One);
    assert_eq!(log.propose_by(2, "experiment", exchanged), Ok(6));
}

#[test]
fn an_arm_may_be_added_and_comes_back_only_as_it_was() {
    let arms = |phase: u32, arms: Value| experiment(json!({"phase": phase, "variants": arms}));
    let a = json!({"key": "a", "weight": 5_000, "ranges": [[0, 500_000]], "value": 1});
    let b = |value: u32| json!({"key": "b", "weight": 2_500, "ranges": [[500_000, 750_000]], "value": value});
    let c =
        |value: u32| json!({"key": "c", "weight": 2_500, "ranges": [[750_000, 1_000_000]], "value": value});
    let mut log = Log::furnished();
    log.propose("experiment", experiment(json!({"variants": values(json!(1), json!(2))}))).unwrap();
    assert_eq!(log.propose("experiment", arms(2, json!([a, b(2)]))), Ok(6));
    let added = arms(3, json!([a, b(2), c(3)]));
    assert_eq!(rule_for(&log, "experiment", added.clone()), Rule::One);
    assert_eq!(log.clone().propose_by(2, "experiment", added.clone()), Ok(7));
    assert_eq!(log.propose("experiment", added), Ok(7));
    // The variant was dropped for a while, but its units still count.
    assert_eq!(log.propose("experiment", arms(4, json!([a, b(2)]))), Ok(8));
    let other = arms(5, json!([a, b(2), c(4)]));
    assert_eq!(rule_for(&log, "experiment", other.clone()), Rule::Two);
    assert_eq!(log.clone().propose_by(2, "experiment", other), Err(refused_value(2, "c")));
    let same = arms(5, json!([a, b(2), c(3)]));
    assert_eq!(rule_for(&log, "experiment", same.clone()), Rule::One);
    assert_eq!(log.propose("experiment", same), Ok(9));
}

#[test]
fn a_metric_of_several_experiments_is_refused_in_one_sentence() {
    let mut log = Log::with_experiment("stopped");
    log.propose("experiment", experiment(json!({"key": "f"}))).unwrap();
    let flipped = json!({"key": "m", "event": "buy", "type": "conversion", "direction": "decrease"});
    assert_eq!(
        log.propose_by(2, "metric", flipped),
        Err("direction: cannot change under the experiments `e`, which is stopped, and `f`, which is running; define a \
             metric with another key and name it in clones of the experiments"
            .to_owned())
    );
}

#[test]
fn an_override_of_a_counted_environment_opens_the_next_phase() {
    let start = json!({"environments": {"staging": {"rollout": 10_000}}});
    for (fields, opens) in [
        (json!({"environments": {"staging": {"rollout": 5_000}}}), false),
        (json!({"environments": {"staging": {"enabled": false}}}), false),
        (json!({"environments": null}), false),
        (json!({"environments": {"staging": {"rollout": 10_000}, "production": {"rollout": 10_000}}}), false),
        (json!({"environments": {"staging": {"rollout": 10_000}, "production": {"rollout": 5_000}}}), true),
        (json!({"environments": {"staging": {"rollout": 10_000}, "production": {"enabled": false}}}), true),
        (json!({"environments": {"production": {"targeting": [{"key": "t", "when": {"all": []}}]}}}), true),
        (json!({"rollout": 5_000}), true),
        // Production has its own rollout, so the change has no effect there, and no other environment counts.
        (json!({"rollout": 5_000, "environments": {"production": {"rollout": 10_000}}}), false),
    ] {
        let base = experiment(start.clone());
        let mut log = Log::furnished();
        assert_eq!(rule_for(&log, "experiment", base.clone()), Rule::Two);
        log.propose_by(2, "experiment", base.clone()).unwrap();
        let changed = |phase: u32| with(with(base.clone(), fields.clone()), json!({"phase": phase}));
        assert_eq!(rule_for(&log, "experiment", changed(1)), Rule::Two);
        let (right, wrong, why) = match opens {
            true => (2, 1, "1 instead of 2: a change of who sees what opens the next phase"),
            false => (1, 2, "2 instead of 1: nothing opens a new phase"),
        };
        let refused = Err(format!("phase: {why}; leave `phase` out, and it is counted"));
        assert_eq!(log.propose_by(2, "experiment", changed(wrong)), refused, "{fields}");
        assert!(log.propose_by(2, "experiment", changed(right)).is_ok(), "{fields}");
    }
    // If staging counts, its overrides count, too.
    let counted =
        json!({"counted_environments": ["staging"], "environments": {"staging": {"rollout": 10_000}}});
    let mut log = Log::furnished();
    log.propose_by(2, "experiment", experiment(counted.clone())).unwrap();
    let lower = with(experiment(counted), json!({"environments": {"staging": {"rollout": 1}}}));
    assert_eq!(
        log.propose_by(2, "experiment", lower.clone()),
        Err("phase: 1 instead of 2: a change of who sees what opens the next phase; leave `phase` out, and it is \
             counted"
            .to_owned())
    );
    assert_eq!(log.propose_by(2, "experiment", with(lower, json!({"phase": 2}))), Ok(7));
}

#[test]
fn the_environments_that_count() {
    for (counted, verdict) in [
        (json!(["production"]), Ok(5)),
        (json!(["staging", "production"]), Ok(5)),
        (json!([]), Err("counted_environments: 0 environments is not in 1 to 100")),
        (json!(["a", "b", "a"]), Err("counted_environments[2]: `a` is named twice")),
    ] {
        let mut log = Log::furnished();
        let change = experiment(json!({"counted_environments": counted}));
        assert_eq!(log.propose_by(2, "experiment", change), verdict.map_err(str::to_owned), "{counted}");
    }
    // The default is not written, so that rule 1 is enough.
    let by_default = experiment(json!({"counted_environments": ["production"]}));
    assert_eq!(rule_for(&Log::furnished(), "experiment", by_default.clone()), Rule::One);
    let read = Definition::from_json(Kind::Experiment, by_default).unwrap();
    assert!(!read.to_json().contains("environments"), "{}", read.to_json());
    // Like the plan, they cannot change after the start.
    for state in ["draft", "running", "stopped"] {
        let change = experiment(json!({"state": state, "counted_environments": ["staging"]}));
        let verdict = Log::with_experiment(state).propose_by(2, "experiment", change).map(|_| ());
        let refusal = Err(
            "counted_environments: cannot change any more, for the looks so far counted the former ones; \
                           clone it under another key"
                .to_owned(),
        );
        assert_eq!(verdict, if state == "draft" { Ok(()) } else { refusal }, "{state}");
    }
}

#[test]
fn what_an_override_says_is_checked_as_what_it_overrides() {
    let twice = json!([{"key": "t", "when": {"all": []}}, {"key": "t", "when": {"all": []}}]);
    let change = experiment(json!({"environments": {"staging": {"targeting": twice}}}));
    assert_eq!(
        Log::furnished().propose_by(2, "experiment", change),
        Err("environments.staging.targeting[1].key: `t` is used twice".to_owned())
    );
    let rule =
        json!({"key": "r", "split": [{"variant": "on", "weight": 10_000}, {"variant": "x", "weight": 0}]});
    let change = flag(json!({"environments": {"staging": {"rules": [rule]}}}));
    assert_eq!(
        Log::furnished().propose_by(2, "flag", change),
        Err("environments.staging.rules[0].split[1].variant: `x` is not one of the variants; \
             environments.staging.rules[0].split: its ranges are not resolved"
            .to_owned())
    );
}

#[test]
fn phases_are_excluded_while_there_are_looks_and_stay_so() {
    let out = |phases: &[u32]| -> Value {
        phases.iter().map(|phase| json!({"phase": phase, "reason": "the split was off"})).collect()
    };
    let at = |state: &str, phase: u32, excluded: Value| {
        let fields = json!({"state": state, "phase": phase, "excluded_phases": excluded});
        // The experiment is stopped and started again, so that there are two phases.
        with(experiment(json!({})), fields)
    };
    let mut log = Log::with_experiment("stopped");
    log.propose("experiment", experiment(json!({"phase": 2}))).unwrap();
    assert_eq!(rule_for(&log, "experiment", at("running", 2, out(&[1]))), Rule::Two);
    for (excluded, refusal) in [
        (out(&[0]), "excluded_phases[0].phase: phases count from 1"),
        (
            out(&[3]),
            "excluded_phases[0].phase: there is no phase 3 yet; the last is 2: exclude a phase once it has begun",
        ),
        (out(&[1, 1]), "excluded_phases[1].phase: phase 1 is excluded twice"),
        (json!([{"phase": 1, "reason": " "}]), "excluded_phases[0].reason: needs 1 to 1024 bytes"),
        (
            json!([{"phase": 1, "reason": "é".repeat(513)}]),
            "excluded_phases[0].reason: needs 1 to 1024 bytes",
        ),
    ] {
        let verdict = log.clone().propose_by(2, "experiment", at("running", 2, excluded.clone()));
        assert_eq!(verdict, Err(refusal.to_owned()), "{excluded}");
    }
    // The phase that a change opens cannot be excluded by the same change.
    let opening = with(at("running", 3, out(&[3])), json!({"rollout": 1}));
    assert_eq!(
        log.clone().propose_by(2, "experiment", opening),
        Err("excluded_phases[0].phase: there is no phase 3 yet; the last is 2: exclude a phase once it has begun"
            .to_owned())
    );
    // An exclusion does not open a phase.
    assert_eq!(log.propose_by(2, "experiment", at("running", 2, out(&[1]))), Ok(8));
    let stays = |phase: u32| {
        Err(format!(
            "excluded_phases: phase {phase} was excluded for a reason, and stays so in these words; leave \
             `excluded_phases` as it was, or clone the experiment"
        ))
    };
    assert_eq!(log.propose_by(2, "experiment", at("running", 2, out(&[]))), stays(1));
    // A record of rule 1 cannot remove it either.
    assert_eq!(log.propose_by(1, "experiment", experiment(json!({"phase": 2}))), stays(1));
    let other = json!([{"phase": 1, "reason": "other words"}]);
    assert_eq!(
        log.propose_by(2, "experiment", at("running", 2, other)).unwrap_err().lines().next().unwrap(),
        stays(1).map(|_: u64| "").unwrap_err()
    );
    assert_eq!(log.propose_by(2, "experiment", at("stopped", 2, out(&[2, 1]))), Ok(12));
    assert_eq!(
        log.propose_by(2, "experiment", at("archived", 2, out(&[]))),
        stays(2).map_err(|first| first + "; " + &stays(1).unwrap_err())
    );
    assert_eq!(log.propose_by(2, "experiment", at("archived", 2, out(&[2, 1]))), Ok(14));
}

#[test]
fn nothing_is_excluded_before_it_has_run_or_as_it_ends() {
    let excluded = json!([{"phase": 1, "reason": "the split was off"}]);
    let early = Err("excluded_phases: nothing has run that could be excluded; leave it empty".to_owned());
    for state in ["draft", "running"] {
        let change = experiment(json!({"state": state, "excluded_phases": excluded}));
        assert_eq!(Log::furnished().propose_by(2, "experiment", change.clone()), early, "{state}");
        assert_eq!(Log::with_experiment("draft").propose_by(2, "experiment", change), early, "{state}");
    }
    let change = experiment(json!({"state": "archived", "excluded_phases": excluded}));
    assert_eq!(
        Log::with_experiment("stopped").propose_by(2, "experiment", change),
        Err("excluded_phases[0]: phases are excluded while the experiment runs or is stopped; do it in a change of its \
             own before"
            .to_owned())
    );
}

/// Returns an experiment from 1 February to 1 March 2026, 28 days, with the metric `m` and its window.
fn scheduled(fields: Value) -> Value {
    let schedule = json!({"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T00:00:00Z"});
    with(experiment(json!({"plan": {"schedule": schedule}})), fields)
}

fn keeping(exposures: u32, conversions: u32) -> Value {
    json!({"key": "platform", "retention_days": {"exposures": exposures, "conversions": conversions}})
}

/// Returns a log in which `m` has a window of a week.
fn with_window() -> Log {
    let mut log = Log::furnished();
    let metric = json!({"key": "m", "event": "buy", "type": "conversion", "window_hours": 168});
    log.propose_by(2, "metric", metric).unwrap();
    log
}

#[test]
fn an_experiment_is_kept_to_the_end_of_its_last_window() {
    let refused = |table: &str, needed: u32, days: u32| {
        Err(format!(
            "plan.schedule.end: from its start to its end and through the longest window of its metrics are {needed} \
             days, and the settings keep {table} for {days}; end it earlier, or raise `retention_days.{table}` first"
        ))
    };
    for (settings, fields, verdict) in [
        (keeping(35, 35), json!({}), Ok(7)),
        (keeping(0, 0), json!({}), Ok(7)),
        (keeping(34, 35), json!({}), refused("exposures", 35, 34)),
        (keeping(0, 34), json!({}), refused("conversions", 35, 34)),
        (keeping(34, 0), json!({"state": "draft"}), refused("exposures", 35, 34)),
        // Without a window events count up to the end.
        (keeping(28, 28), json!({"metrics": {"primary": "n"}}), Ok(7)),
        (keeping(27, 28), json!({"metrics": {"primary": "n"}}), refused("exposures", 28, 27)),
        // The longest window counts, and a partial day counts as a whole one.
        (
            keeping(35, 35),
            json!({"plan": {"schedule": {"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T00:00:01Z"}}}),
            refused("exposures", 36, 35)
                .map_err(|first| first + "; " + &refused("conversions", 36, 35).unwrap_err()),
        ),
        (
            keeping(27, 35),
            json!({"metrics": {"primary": "n", "guardrails": ["m"]}}),
            refused("exposures", 35, 27),
        ),
        // All events of the day of the start are deleted at once.
        (
            keeping(34, 35),
            json!({"plan": {"schedule": {"start": "2026-02-01T23:59:59Z", "end": "2026-02-28T23:59:59Z"}}}),
            refused("exposures", 35, 34),
        ),
        // Without a start or an end the number of days is unknown.
        (keeping(1, 1), json!({"plan": {"schedule": {"end": "2026-03-01T00:00:00Z"}}}), Ok(7)),
        (keeping(1, 1), json!({"plan": {}}), Ok(7)),
    ] {
        let mut log = with_window();
        assert_eq!(rule_for(&log, "settings", settings.clone()), Rule::Two);
        assert_eq!(rule_for(&log, "experiment", scheduled(fields.clone())), Rule::One);
        assert_eq!(log.propose_by(2, "settings", settings.clone()), Ok(6));
        assert_eq!(rule_for(&log, "experiment", scheduled(fields.clone())), Rule::Two);
        let verdict: Result<u64, String> = verdict;
        assert_eq!(
            log.propose_by(2, "experiment", scheduled(fields.clone())),
            verdict,
            "{settings} {fields}"
        );
    }
}

#[test]
fn a_retention_metric_needs_the_days_in_which_units_may_come_back() {
    let mut log = Log::furnished();
    let metric = json!({"key": "back", "event": "visit", "type": "retention", "retention_days": [1, 7]});
    log.propose("metric", metric).unwrap();
    log.propose_by(2, "settings", keeping(35, 36)).unwrap();
    let named = json!({"metrics": {"primary": "back"}});
    let refusal = log.propose_by(2, "experiment", scheduled(named.clone())).unwrap_err();
    assert!(refusal.contains("are 36 days, and the settings keep exposures for 35"), "{refusal}");
    log.propose_by(2, "settings", keeping(36, 36)).unwrap();
    assert!(log.propose_by(2, "experiment", scheduled(named)).is_ok());
}

#[test]
fn the_settings_shorten_no_experiment_that_has_looks() {
    let refused = |table: &str, state: &str| {
        format!(
            "retention_days.{table}: experiment `e`, which is {state}, needs its events for 35 days, from its start to \
             its end and through the longest window of its metrics; keep them as long, or archive it first"
        )
    };
    let mut log = with_window();
    log.propose("experiment", scheduled(json!({"state": "draft"}))).unwrap();
    // A draft does not restrict the settings; it cannot start afterwards.
    assert_eq!(log.clone().propose_by(2, "settings", keeping(1, 1)), Ok(7));
    log.propose("experiment", scheduled(json!({}))).unwrap();
    assert_eq!(log.propose_by(2, "settings", keeping(34, 0)), Err(refused("exposures", "running")));
    assert_eq!(
        log.propose_by(2, "settings", keeping(34, 34)),
        Err(refused("exposures", "running") + "; " + &refused("conversions", "running"))
    );
    assert_eq!(log.propose_by(2, "settings", keeping(35, 0)), Ok(10));
    log.propose_by(2, "experiment", scheduled(json!({"state": "stopped"}))).unwrap();
    assert_eq!(log.propose_by(2, "settings", keeping(34, 0)), Err(refused("exposures", "stopped")));
    log.propose_by(2, "experiment", scheduled(json!({"state": "archived"}))).unwrap();
    assert_eq!(log.propose_by(2, "settings", keeping(1, 1)), Ok(14));
    assert_eq!(log.read.settings().unwrap().retention_days.exposures, 1);
}

/// An experiment that started before the settings were defined, or under rule 1, can still be changed and
/// ended.
#[test]
fn an_experiment_that_is_not_kept_can_be_ended() {
    let mut log = with_window();
    log.propose_by(2, "settings", keeping(1, 0)).unwrap();
    log.propose_by(1, "experiment", scheduled(json!({}))).unwrap();
    // A retention that is too short already may stay, but the one of another table must not become too short.
    assert_eq!(log.propose_by(2, "settings", with(keeping(1, 0), json!({"owner": "ann"}))), Ok(8));
    assert!(log.propose_by(2, "settings", keeping(1, 1)).is_err());
    assert_eq!(log.propose_by(2, "experiment", scheduled(json!({"rollout": 1, "phase": 2}))), Ok(10));
    let more = json!({"rollout": 1, "phase": 2, "metrics": {"primary": "m", "secondary": ["n"]}});
    assert!(log.propose_by(2, "experiment", scheduled(more)).unwrap_err().starts_with("plan.schedule.end: "));
    let stopped = json!({"rollout": 1, "phase": 2, "state": "stopped"});
    assert_eq!(log.propose_by(2, "experiment", scheduled(stopped)), Ok(12));
}
