//! The id that a condition tests, and the instants at which an answer may change.

use super::*;

/// It tested the user's id whatever the unit was, and none where a user's id was an attribute.
#[test]
fn a_condition_on_the_targeting_key_tests_the_id_of_the_unit_that_is_evaluated() {
    let flag = |key: &str, unit_type: &str, ids: Value| {
        let flag = json!({
            "key": key, "value_type": "boolean", "default_variant": "off", "unit_type": unit_type,
            "variants": [{"key": "on", "value": true}, {"key": "off", "value": false}],
            "rules": [{"key": "these", "when": {"attribute": "targetingKey", "in": ids},
                       "split": [{"variant": "on", "weight": 10_000}]}],
        });
        (Kind::Flag, flag)
    };
    let experiment = json!({
        "key": "of-accounts", "state": "running", "control": "a", "metrics": {"primary": "signup"},
        "unit_type": "account", "variants": [{"key": "a", "weight": 1}, {"key": "b", "weight": 9_999}],
        "targeting": [{"key": "partners", "when": {"attribute": "targetingKey", "in_list": "partners"}}],
    });
    let definitions = log(&[
        flag("users", "user", json!(["u1"])),
        flag("accounts", "account", json!(["a1"])),
        (Kind::Experiment, experiment),
    ]);
    let snapshot = Snapshot::compile(&definitions, &lists(), Environment::PRODUCTION);
    let name = assignment::Name::of;
    let text = assignment::Value::Text;
    let served = |targeting_key, attributes| {
        let context = Context { targeting_key, attributes };
        ["users", "accounts", "of-accounts"].map(|key| {
            let evaluation = evaluate(&snapshot, key, &context, Micros::EPOCH).unwrap();
            (evaluation.variant.to_string(), evaluation.reason.as_str())
        })
    };
    let answer = |variant: &str, reason| (variant.to_owned(), reason);
    let (on, off) = (answer("on", "TARGETING_MATCH"), answer("off", "DEFAULT"));
    let (in_it, outside) = (answer("b", "SPLIT"), answer("a", "DEFAULT"));
    let both = [(name("user"), text("u1")), (name("account"), text("a1"))];
    let an_attribute = [(name("targetingKey"), text("u1"))];
    for (targeting_key, attributes, expected) in [
        (Some("u1"), &both[1..], [&on, &on, &in_it]),
        (Some("u2"), &both[..], [&off, &on, &in_it]),
        (Some("a1"), &both[..1], [&off, &off, &outside]),
        (None, &both[..], [&on, &on, &in_it]),
        (None, &an_attribute[..], [&off, &off, &outside]),
    ] {
        assert_eq!(
            served(targeting_key, attributes),
            expected.map(Clone::clone),
            "{targeting_key:?} {attributes:?}"
        );
    }
}

#[test]
fn instants_and_epochs_follow_the_schedules() {
    let experiment = |key: &str, schedule: Value| {
        let experiment = json!({
            "key": key, "state": "running", "control": "a", "metrics": {"primary": "signup"},
            "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}], "plan": {"schedule": schedule},
        });
        (Kind::Experiment, experiment)
    };
    let definitions = log(&[
        experiment("one", json!({"start": INSTANTS[1], "end": INSTANTS[3]})),
        experiment("two", json!({"start": INSTANTS[1]})),
    ]);
    let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
    let at = |instant: &str| Micros::parse(instant).unwrap();
    let last = INSTANTS.map(|instant| snapshot.last_instant(at(instant)));
    assert_eq!(last, [None, Some(at(INSTANTS[1])), Some(at(INSTANTS[1])), Some(at(INSTANTS[3]))]);
    let next = INSTANTS.map(|instant| snapshot.next_instant(at(instant)));
    assert_eq!(next, [Some(at(INSTANTS[1])), Some(at(INSTANTS[3])), Some(at(INSTANTS[3])), None]);
}
