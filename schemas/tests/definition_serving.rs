//! The rule for who is served what, and when: lists, ramps, what a finished experiment serves, holdouts. All of it is rule 3.

mod change_log;

use change_log::{Log, experiment, flag, halves, variant, with};
use schemas::definition::{Definition, Kind, Rule};
use serde_json::{Value, json};

fn list(key: &str, unit_type: &str) -> Value {
    json!({"key": key, "unit_type": unit_type, "members_sha256": "0".repeat(64), "members": 1})
}

/// Proposes under rule 3.
#[track_caller]
fn check(log: &mut Log, kind: &str, definition: Value, expected: Result<(), &str>) {
    let verdict = log.propose_by(3, kind, definition.clone()).map(|_| ());
    assert_eq!(verdict, expected.map_err(str::to_owned), "{definition}");
}

fn rule_for(log: &Log, kind: &str, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::parse(kind).unwrap(), definition).unwrap())
}

fn rules(rule: Value) -> Value {
    let base =
        json!({"key": "r", "split": [{"variant": "on", "weight": 10_000, "ranges": [[0, 1_000_000]]}]});
    json!({"rules": [with(base, rule)]})
}

fn targeting(when: Value) -> Value {
    json!({"targeting": [{"key": "t", "when": when}]})
}

#[test]
fn what_rule_2_cannot_say_is_proposed_by_rule_3_and_refused_under_rule_2() {
    let mut log = Log::with_experiment("draft");
    log.propose("list", list("u", "user")).unwrap();
    let at = "2026-01-01T00:00:00Z";
    for (kind, definition, named) in [
        ("flag", flag(json!({"client_safe": true})), "client_safe"),
        ("flag", flag(json!({"allow": [{"list": "u", "variant": "on"}]})), "allow"),
        ("flag", flag(json!({"deny": ["u"]})), "deny"),
        ("flag", flag(rules(json!({"ramp": [{"from": at, "rollout": 5_000}]}))), "ramp"),
        ("flag", flag(rules(json!({"schedule": {"start": at}}))), "schedule"),
        (
            "flag",
            flag(json!({"environments": {"staging": rules(json!({"schedule": {"start": at}}))}})),
            "schedule",
        ),
        ("flag", flag(rules(json!({"when": {"attribute": "a", "has_any": []}}))), "has_any"),
        ("experiment", experiment(json!({"client_safe": true})), "client_safe"),
        ("experiment", experiment(json!({"deny": ["u"]})), "deny"),
        ("experiment", experiment(targeting(json!({"not": {"attribute": "a", "in_list": "u"}}))), "in_list"),
        (
            "experiment",
            experiment(targeting(json!({"all": [{"any": [{"attribute": "a", "version_above": "1"}]}]}))),
            "version_above",
        ),
        ("layer", json!({"key": "l", "cooldown_hours": 1}), "cooldown_hours"),
        ("list", with(list("u", "user"), json!({"salt": "u"})), "salt"),
    ] {
        assert_eq!(rule_for(&log, kind, definition.clone()), Rule::Three, "{definition}");
        for rule in [1, 2] {
            let refused = log.clone().propose_by(rule, kind, definition.clone()).unwrap_err();
            let reason = format!(
                "the record cannot be understood: {named}: not in rule {rule}, which this change names"
            );
            let by_rule_1 = "the record cannot be understood: environments: no such field";
            assert!(
                refused == reason || (rule == 1 && refused.starts_with(by_rule_1)),
                "{definition}: {refused}"
            );
        }
        log.clone().propose_by(3, kind, definition).unwrap();
    }
}

/// Settings ask for rule 2 at least; they once asked for rule 2 at most.
#[test]
fn settings_do_not_keep_an_experiment_from_rule_3() {
    let mut log = Log::with_experiment("running");
    log.propose_by(2, "settings", json!({"key": "platform", "retention_days": {"exposures": 400}})).unwrap();
    assert_eq!(rule_for(&log, "experiment", experiment(json!({"owner": "bob"}))), Rule::Two);
    let shipped = experiment(json!({"state": "stopped", "serve": {"variant": "b"}}));
    assert_eq!(rule_for(&log, "experiment", shipped.clone()), Rule::Three);
    check(&mut log, "experiment", shipped, Ok(()));
    // What was accepted under rule 3 is changed under it as well.
    assert_eq!(rule_for(&log, "experiment", experiment(json!({"state": "stopped"}))), Rule::Three);
}

#[test]
fn what_a_test_compares_with_is_not_looked_into() {
    // The names of operators in a value are data.
    let value = json!({"has_any": 1, "in_list": "u"});
    let by_value =
        targeting(json!({"any": [{"attribute": "a", "equals": value}, {"attribute": "a", "in": [value]}]}));
    let mut log = Log::furnished();
    assert_eq!(rule_for(&log, "experiment", experiment(by_value.clone())), Rule::One);
    log.propose("experiment", experiment(by_value)).unwrap();
}

#[test]
fn a_null_or_empty_field_of_rule_3_is_unknown_to_rule_2_as_well() {
    for fields in [json!({"serve": null}), json!({"allow": []}), json!({"holdout": false})] {
        let mut log = Log::furnished();
        let mut definition = experiment(json!({}));
        definition.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert!(log.clone().propose_by(2, "experiment", definition.clone()).is_err(), "{fields}");
        assert!(log.propose_by(3, "experiment", definition).is_ok(), "{fields}");
    }
}

#[test]
fn lists_exist_and_are_of_the_right_units() {
    let mut log = Log::furnished();
    log.propose("list", list("accounts", "account")).unwrap();
    let no_list = "allow[0].list: there is no list `u`; define it first";
    check(&mut log, "flag", flag(json!({"allow": [{"list": "u", "variant": "on"}]})), Err(no_list));
    check(
        &mut log,
        "flag",
        flag(json!({"allow": [{"list": "accounts", "variant": "up"}]})),
        Err("allow[0].variant: `up` is not one of the variants; \
             allow[0].list: `accounts` is a list of accounts, and this is about users"),
    );
    check(
        &mut log,
        "experiment",
        experiment(json!({"deny": ["accounts", "u"]})),
        Err("deny[0]: `accounts` is a list of accounts, and this is about users; \
             deny[1]: there is no list `u`; define it first"),
    );
    // A condition may ask a list of any attribute.
    check(
        &mut log,
        "experiment",
        experiment(targeting(json!({"attribute": "a", "in_list": "accounts"}))),
        Ok(()),
    );
    check(
        &mut log,
        "flag",
        flag(rules(json!({"when": {"attribute": "a", "in_list": "u"}}))),
        Err("rules[0].when: there is no list `u`; define it first"),
    );
}

#[test]
fn a_ramp_ascends_and_has_the_shares_itself() {
    let mut log = Log::furnished();
    let step =
        |day: u32, rollout: u32| json!({"from": format!("2026-01-{day:02}T00:00:00Z"), "rollout": rollout});
    for (fields, expected) in [
        (json!({"ramp": [step(1, 100), step(2, 50)]}), Ok(())),
        (
            json!({"ramp": [step(2, 100), step(2, 200)]}),
            Err("rules[0].ramp[1].from: 2026-01-02T00:00:00.000000Z is not after the step before, \
                 2026-01-02T00:00:00.000000Z"),
        ),
        (
            json!({"ramp": [step(1, 100)], "rollout": 5_000}),
            Err("rules[0].ramp: has the shares itself; leave `rollout` out"),
        ),
        (
            json!({"schedule": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T00:00:00Z"}}),
            Err("rules[0].schedule.end: 2026-01-02T00:00:00.000000Z is not after the start, \
                 2026-01-02T00:00:00.000000Z"),
        ),
    ] {
        check(&mut log, "flag", flag(rules(fields)), expected);
    }
    let many: Vec<Value> = (0..101).map(|hour| {
        json!({"from": format!("2026-01-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24), "rollout": 1})
    }).collect();
    check(
        &mut log,
        "flag",
        flag(rules(json!({"ramp": many}))),
        Err("rules[0].ramp: 101 steps is more than 100"),
    );
}

#[test]
fn only_a_finished_experiment_serves_a_variant() {
    let serve = |fields: Value| json!({"serve": with(json!({"variant": "b"}), fields)});
    let stopped = |fields: Value| experiment(with(serve(fields), json!({"state": "stopped"})));
    let mut log = Log::with_experiment("running");
    let running =
        "serve: is for a stopped or archived experiment, and this one is running; stop it in the same change";
    check(&mut log, "experiment", experiment(serve(json!({}))), Err(running));
    check(
        &mut log,
        "experiment",
        stopped(json!({"variant": "c"})),
        Err("serve.variant: `c` is not one of the variants: a, b"),
    );
    check(
        &mut log,
        "experiment",
        stopped(json!({"to": "targeted"})),
        Err("serve.to: the experiment has no targeting; use `all`"),
    );
    // Shipped, taken back, shipped again, archived, and taken back for good: no phase opens.
    check(&mut log, "experiment", stopped(json!({})), Ok(()));
    check(&mut log, "experiment", experiment(json!({"state": "stopped"})), Ok(()));
    check(&mut log, "experiment", stopped(json!({"rollout": 100})), Ok(()));
    check(&mut log, "experiment", experiment(with(serve(json!({})), json!({"state": "archived"}))), Ok(()));
    check(&mut log, "experiment", experiment(json!({"state": "archived"})), Ok(()));
    check(
        &mut log,
        "experiment",
        experiment(json!({"state": "archived", "owner": "bob"})),
        Err(".: of an archived experiment only `serve` can change; clone it under another key")
            .map_err(|text: &str| text.trim_start_matches(".: ")),
    );
    // Under the rules before, an archived experiment never changes.
    let archived = experiment(json!({"state": "archived"}));
    assert_eq!(
        log.propose_by(2, "experiment", archived),
        Err("state: archived cannot become archived; clone it under another key".to_owned())
    );
}

#[test]
fn a_resumed_experiment_serves_its_arms_again() {
    let mut log = Log::with_experiment("stopped");
    let running = experiment(json!({"phase": 2, "serve": {"variant": "b"}}));
    let refused =
        "serve: is for a stopped or archived experiment, and this one is running; stop it in the same change";
    check(&mut log, "experiment", running, Err(refused));
    check(&mut log, "experiment", experiment(json!({"phase": 2})), Ok(()));
}

#[test]
fn a_change_of_who_is_allowed_opens_the_next_phase() {
    let mut log = Log::with_experiment("running");
    log.propose("list", list("u", "user")).unwrap();
    for fields in [json!({"deny": ["u"]}), json!({"allow": [{"list": "u", "variant": "a"}]})] {
        let same = experiment(fields.clone());
        let refused = "phase: 1 instead of 2: a change of who sees what opens the next phase; leave `phase` out, and it is counted";
        check(&mut log.clone(), "experiment", same, Err(refused));
        check(&mut log.clone(), "experiment", with(experiment(fields), json!({"phase": 2})), Ok(()));
    }
}

fn holdout(key: &str, end: u32, fields: Value) -> Value {
    with(experiment(json!({"key": key, "holdout": true, "variants": halves(end, end)})), fields)
}

#[test]
fn nothing_but_the_slot_decides_about_a_holdout() {
    let mut log = Log::furnished();
    log.propose("list", list("u", "user")).unwrap();
    let leave_out = "the slot alone decides who is held out: the weight of the control; leave this out";
    for (field, fields) in [
        ("targeting", targeting(json!({"attribute": "a", "exists": true}))),
        ("deny", json!({"deny": ["u"]})),
        ("rollout", json!({"rollout": 5_000})),
        ("plan.schedule", json!({"plan": {"schedule": {"start": "2026-01-01T00:00:00Z"}}})),
    ] {
        check(&mut log, "experiment", holdout("h", 100_000, fields), Err(&format!("{field}: {leave_out}")));
    }
    let three =
        json!([variant("a", &[[0, 100]]), variant("b", &[[100, 200]]), variant("c", &[[200, 1_000_000]])]);
    check(
        &mut log,
        "experiment",
        holdout("h", 0, json!({"variants": three})),
        Err("variants: a holdout has two: the control, whose units are held out, and one for all others"),
    );
    check(
        &mut log,
        "experiment",
        holdout("h", 100_000, json!({"environments": {"staging": {"rollout": 1}}})),
        Err("environments: a holdout can only be disabled in an environment"),
    );
    check(
        &mut log,
        "experiment",
        holdout("h", 100_000, json!({"environments": {"staging": {"enabled": false}}})),
        Ok(()),
    );
}

#[test]
fn nobody_changes_sides_while_a_holdout_runs() {
    let mut log = Log::furnished();
    check(&mut log, "experiment", holdout("h", 100_000, json!({})), Ok(()));
    let wider = holdout("h", 200_000, json!({"phase": 2}));
    let stay = "variants: the units of a holdout stay; stop it and define another";
    assert!(log.propose_by(3, "experiment", wider).unwrap_err().starts_with(stay));
    // The whole has one at a time, and each of them has its own units.
    check(
        &mut log,
        "experiment",
        holdout("g", 50_000, json!({})),
        Err(
            "variants: [0, 50000) holds slots of `h`; apply it again without the ranges to take free ones, or archive that one first; state: `h` already holds units out here; stop it before another runs",
        ),
    );
    check(&mut log, "experiment", holdout("h", 100_000, json!({"state": "stopped"})), Ok(()));
    check(
        &mut log,
        "experiment",
        holdout("h", 100_000, json!({"phase": 2})),
        Err("state: a holdout runs once; define another"),
    );
    let others =
        json!([variant("a", &[[100_000, 150_000]]), variant("b", &[[0, 100_000], [150_000, 1_000_000]])]);
    check(&mut log, "experiment", holdout("g", 0, json!({"variants": others})), Ok(()));
    let spans: Vec<_> = log
        .read
        .holdouts_over(log.read.experiment("h").unwrap().1)
        .map(|span| span.holdout().key.as_str())
        .collect();
    // A holdout is not held out.
    assert!(spans.is_empty());
}
