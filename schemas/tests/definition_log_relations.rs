//! How definitions of the log depend on each other: layers and their slots, prerequisites, keys.

mod change_log;

use change_log::*;
use serde_json::{Value, json};

#[test]
fn experiments_in_a_layer_share_no_slot() {
    let in_layer = |key: &str, state: &str, slots: [u32; 2]| {
        experiment(json!({
            "key": key, "state": state, "layer": "l", "slots": (slots[1] - slots[0]) / 100, "slot_ranges": [slots]
        }))
    };
    let mut log = Log::furnished();
    log.check(
        "experiment",
        experiment(json!({"layer": "x", "slot_ranges": [[0, 1_000_000]]})),
        Err("layer: there is no layer `x`; define it first"),
    );
    log.check(
        "experiment",
        experiment(json!({"layer": "l", "slots": 5_000})),
        Err("slot_ranges: an experiment that runs in a layer owns slots of it; they are allocated when it is applied"),
    );
    log.check(
        "experiment",
        experiment(json!({"layer": "l", "slots": 5_000, "slot_ranges": [[0, 400_000]]})),
        Err("slot_ranges[0]: its ranges hold 400000 buckets, its weight is 500000; leave the ranges out, and they are \
             allocated"),
    );
    log.check("experiment", in_layer("e", "running", [0, 500_000]), Ok(()));
    let instead = "apply it again without `slot_ranges` to take free ones, or archive that one first";
    let overlap = format!("slot_ranges: [499900, 700000) holds slots of `e`; {instead}");
    let overlap = Err(overlap.as_str());
    log.check("experiment", in_layer("g", "running", [499_900, 700_000]), overlap);
    // A draft may claim slots that another experiment owns.
    log.check("experiment", in_layer("g", "draft", [499_900, 700_000]), Ok(()));
    log.check("experiment", in_layer("g", "running", [499_900, 700_000]), overlap);
    log.check("experiment", in_layer("g", "running", [500_000, 700_000]), Ok(()));
    // The slots of another layer are independent.
    log.check(
        "experiment",
        experiment(json!({"key": "h", "layer": "k", "slot_ranges": [[0, 1_000_000]]})),
        Ok(()),
    );
    // A stopped experiment may run again, so it keeps its slots; an archived one frees them.
    log.check("experiment", in_layer("e", "stopped", [0, 500_000]), Ok(()));
    log.check(
        "experiment",
        in_layer("i", "running", [0, 100]),
        Err(&format!("slot_ranges: [0, 100) holds slots of `e`; {instead}")),
    );
    log.check("experiment", in_layer("e", "archived", [0, 500_000]), Ok(()));
    log.check("experiment", in_layer("i", "running", [0, 100]), Ok(()));
    // Taking free slots is a change of the allocation; taking the slots of another experiment is refused.
    let grown = |hi: u32| with(in_layer("i", "running", [0, hi]), json!({"phase": 2}));
    let taken = format!("slot_ranges: [0, 500100) holds slots of `g`; {instead}");
    log.check("experiment", grown(500_100), Err(&taken));
    log.check("experiment", grown(500_000), Ok(()));
}

#[test]
fn prerequisites_are_there_and_wait_for_nobody_in_a_circle() {
    let waits = |key: &str, flags: &[(&str, &str)]| {
        let prerequisites: Vec<Value> =
            flags.iter().map(|(flag, variant)| json!({"flag": flag, "variants": [variant]})).collect();
        flag(json!({"key": key, "prerequisites": prerequisites}))
    };
    let mut log = Log::with_experiment("running");
    log.check(
        "flag",
        waits("f", &[("g", "on")]),
        Err("prerequisites[0]: there is no other flag `g`; define it first"),
    );
    log.check(
        "flag",
        waits("f", &[("f", "on")]),
        Err("prerequisites[0]: there is no other flag `f`; define it first"),
    );
    log.check(
        "flag",
        waits("f", &[("m", "on")]),
        Err("prerequisites[0]: there is no other flag `m`; define it first"),
    );
    log.check("flag", flag(json!({})), Ok(()));
    log.check(
        "flag",
        waits("g", &[("f", "up")]),
        Err("prerequisites[0]: `f` has no variant `up`; name one of on, off, or add it there first"),
    );
    // An experiment can be a prerequisite, too.
    log.check("flag", waits("g", &[("e", "b"), ("f", "on")]), Ok(()));
    log.check("flag", waits("h", &[("g", "on")]), Ok(()));
    log.check(
        "flag",
        waits("f", &[("e", "a"), ("h", "on")]),
        Err("prerequisites[1]: `h` itself waits for `f`; take one of the two prerequisites out"),
    );
    log.check(
        "flag",
        waits("f", &[("g", "on")]),
        Err("prerequisites[0]: `g` itself waits for `f`; take one of the two prerequisites out"),
    );
    log.check(
        "flag",
        waits("g", &[("g", "on")]),
        Err("prerequisites[0]: there is no other flag `g`; define it first"),
    );
}

#[test]
fn a_flag_that_is_served_has_its_ranges() {
    let rule = |split: Value| flag(json!({"rules": [{"key": "r", "split": split}]}));
    let mut log = Log::default();
    let resolved =
        json!([{"variant": "on", "weight": 100, "ranges": [[0, 10_000]]}, {"variant": "off", "weight": 0}]);
    log.check(
        "flag",
        rule(json!([{"variant": "on", "weight": 100}])),
        Err("rules[0].split: its ranges are not resolved"),
    );
    log.check("flag", rule(resolved), Ok(()));
}

#[test]
fn what_never_changes() {
    let metric = json!({"key": "m", "event": "buy", "type": "conversion"});
    let list = json!({"key": "u", "members_sha256": "0".repeat(64), "members": 1});
    let salt = "units would be hashed anew and see other variants";
    let unit_type = "what was counted so far are units of the former type";
    let value_type = "services read values of the former type";
    let of_type = "results of two types cannot be compared";
    for (kind, first, field, why, change) in [
        ("flag", flag(json!({})), "salt", salt, json!({"salt": "s"})),
        ("flag", flag(json!({})), "unit_type", unit_type, json!({"unit_type": "device"})),
        ("flag", flag(json!({})), "value_type", value_type, json!({"value_type": "json"})),
        ("layer", json!({"key": "l"}), "salt", salt, json!({"salt": "s"})),
        ("metric", metric, "type", of_type, json!({"type": "count"})),
        ("list", list, "unit_type", unit_type, json!({"unit_type": "device"})),
    ] {
        let mut log = Log::default();
        log.propose(kind, first.clone()).unwrap();
        let refusal = format!("{field}: cannot change any more, for {why}; clone it under another key");
        log.check(kind, with(first.clone(), change), Err(&refusal));
        log.check(kind, with(first, json!({"owner": "bob"})), Ok(()));
    }
}

#[test]
fn flags_and_experiments_share_their_keys_and_the_others_do_not() {
    let mut log = Log::with_experiment("draft");
    let taken = "kind: `e` is taken: its kind is experiment and cannot become flag; use another key";
    log.check("flag", flag(json!({"key": "e"})), Err(taken));
    log.check("layer", json!({"key": "e"}), Ok(()));
    log.check("metric", json!({"key": "e", "event": "e", "type": "count"}), Ok(()));
    log.check("list", json!({"key": "e", "members_sha256": "0".repeat(64), "members": 0}), Ok(()));
    assert_eq!(log.read.iter().filter(|accepted| accepted.definition.key().as_str() == "e").count(), 4);
}
