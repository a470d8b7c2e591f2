//! The rules of the definitions log: which change is accepted after which, and the exact reason of each
//! refusal.

mod change_log;

use change_log::*;
use schemas::definition::{Change, Definition, RULE_VERSION, UnknownRule, Version};
use serde_json::json;

#[test]
fn a_record_that_cannot_be_understood() {
    let log = Log::furnished();
    let layer = log.change("layer", json!({"key": "x"}));
    for (change, refusal) in [
        (Change { kind: "layers".to_owned(), ..layer.clone() }, "`layers` is not a kind of definition"),
        (Change { kind: "Layer".to_owned(), ..layer.clone() }, "`Layer` is not a kind of definition"),
        (
            Change { definition: "{".to_owned(), ..layer.clone() },
            "the definition is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            Change { definition: "[".repeat(100_000), ..layer.clone() },
            "the definition is not JSON: recursion limit exceeded at line 1 column 128",
        ),
        (Change { definition: "[]".to_owned(), ..layer.clone() }, "must be a map of fields, not a list"),
        (Change { definition: "{}".to_owned(), ..layer.clone() }, "`key` is missing"),
        (
            Change { definition: r#"{"kind":"layer","key":"x"}"#.to_owned(), ..layer.clone() },
            "kind: no such field; there can be key, owner, description, salt, cooldown_hours",
        ),
        (
            Change { definition: r#"{"key":"y"}"#.to_owned(), ..layer.clone() },
            "the record is for `x`, the definition inside for `y`",
        ),
        (
            Change { key: "X".to_owned(), ..layer.clone() },
            "the record is for `X`, the definition inside for `x`",
        ),
    ] {
        assert_eq!(
            log.clone().take(&change),
            Err(format!("the record cannot be understood: {refusal}")),
            "{change:?}"
        );
    }
}

#[test]
fn an_author_and_a_reason() {
    let log = Log::furnished();
    let layer = log.change("layer", json!({"key": "x"}));
    let (longest, longer) = ("é".repeat(512), "é".repeat(512) + ".");
    for (author, reason, verdict) in [
        ("ann", "because", Ok(5)),
        (longest.as_str(), longest.as_str(), Ok(5)),
        ("", "because", Err("author: needs 1 to 1024 bytes")),
        ("ann", " \n", Err("reason: needs 1 to 1024 bytes")),
        (longer.as_str(), "", Err("author: needs 1 to 1024 bytes; reason: needs 1 to 1024 bytes")),
    ] {
        let change = Change { author: author.to_owned(), reason: reason.to_owned(), ..layer.clone() };
        assert_eq!(log.clone().take(&change), verdict.map_err(str::to_owned), "{author:?} {reason:?}");
    }
}

#[test]
fn a_change_is_based_on_what_holds() {
    let log = Log::furnished();
    let moved_on = |key: &str, based_on: u64, current: u64| {
        Err(format!(
            "`{key}` has moved on: the change is based on version {based_on}, the current one is {current}"
        ))
    };
    let on = |kind: &str, key: &str, based_on: Version| {
        let change = log.change(kind, json!({"key": key}));
        log.clone().take(&Change { based_on, ..change })
    };
    assert_eq!(on("layer", "x", 0), Ok(5));
    assert_eq!(on("layer", "x", 4), moved_on("x", 4, 0));
    assert_eq!(on("layer", "l", 3), Ok(5));
    assert_eq!(on("layer", "l", 0), moved_on("l", 0, 3));
    assert_eq!(on("layer", "l", 2), moved_on("l", 2, 3));
    // A future version.
    assert_eq!(on("layer", "l", 5), moved_on("l", 5, 3));
    // A metric may have the same key as a layer.
    assert_eq!(on("layer", "m", 1), moved_on("m", 1, 0));
    // A stale version is reported before any other problem.
    let change = Change { based_on: 0, author: String::new(), ..log.change("layer", json!({"key": "l"})) };
    assert_eq!(log.clone().take(&change), moved_on("l", 0, 3));
}

#[test]
fn of_two_writers_on_one_version_the_first_wins_for_every_reader() {
    let log = Log::with_experiment("running");
    let first = log.change("experiment", experiment(json!({"state": "stopped"})));
    let second = log.change("experiment", experiment(json!({"hypothesis": "it helps"})));
    for (winner, loser) in [(&first, &second), (&second, &first)] {
        let mut readers = [log.clone(), log.clone()];
        for reader in &mut readers {
            assert_eq!(reader.take(winner), Ok(6));
            assert_eq!(
                reader.take(loser),
                Err("`e` has moved on: the change is based on version 5, the current one is 6".to_owned())
            );
            assert_eq!(reader.read.version(), 6);
            assert_eq!(reader.read.at_version(7), None);
        }
        // A reader that starts later at the beginning derives the same definitions.
        assert!(readers[0].read.iter().eq(readers[1].read.iter()));
    }
}

#[test]
fn a_new_experiment() {
    let weights = |a: u32, b: u32| json!([{"key": "a", "weight": a, "ranges": [[0, a * 100]]}, {"key": "b", "weight": b, "ranges": [[a * 100, (a + b) * 100]]}]);
    for (fields, verdict) in [
        (json!({}), Ok(())),
        (json!({"state": "draft"}), Ok(())),
        (json!({"state": null, "phase": null}), Ok(())),
        (
            json!({"state": "stopped"}),
            Err("state: a new experiment is draft or running, not stopped; begin with one of them"),
        ),
        (
            json!({"state": "archived"}),
            Err("state: a new experiment is draft or running, not archived; begin with one of them"),
        ),
        (json!({"phase": 2}), Err("phase: the first phase is 1; leave `phase` out, and it is counted")),
        (
            json!({"variants": weights(5_000, 4_999)}),
            Err(
                "variants: the weights add up to 99.99%, 1 basis point too few; to expose fewer units use `rollout`",
            ),
        ),
        (
            json!({"variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_001}]}),
            Err("variants: the weights add up to 100.01%, 1 basis point too many; \
                 variants: their ranges are not resolved"),
        ),
        (
            json!({"variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}]}),
            Err("variants: their ranges are not resolved"),
        ),
        (
            json!({"variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}], "assignment": "external"}),
            Ok(()),
        ),
        (
            json!({"metrics": {"primary": "x"}}),
            Err("metrics.primary: there is no metric `x`; define it first"),
        ),
        (
            json!({"metrics": {"primary": "m", "secondary": ["n", "y"], "guardrails": ["l"]}}),
            Err("metrics.secondary[1]: there is no metric `y`; define it first; \
                 metrics.guardrails[0]: there is no metric `l`; define it first"),
        ),
    ] {
        Log::furnished().check("experiment", experiment(fields), verdict);
    }
}

#[test]
fn every_step_from_state_to_state() {
    const STATES: [&str; 4] = ["draft", "running", "stopped", "archived"];
    for (from, to_allowed) in [
        ("draft", ["draft", "running", "archived"].as_slice()),
        ("running", &["running", "stopped"]),
        ("stopped", &["running", "stopped", "archived"]),
        ("archived", &[]),
    ] {
        for to in STATES {
            // Running again opens a new phase.
            let phase = if (from, to) == ("stopped", "running") { 2 } else { 1 };
            let verdict = Log::with_experiment(from)
                .propose("experiment", experiment(json!({"state": to, "phase": phase})))
                .map(|_| ());
            let instead = match (from, to) {
                ("running", "archived") => "stop it first, and archive it in the next change",
                ("draft", "stopped") => "archive a draft that is not wanted any more",
                _ => "clone it under another key",
            };
            let expected = if to_allowed.contains(&to) {
                Ok(())
            } else {
                Err(format!("state: {from} cannot become {to}; {instead}"))
            };
            assert_eq!(verdict, expected, "{from} to {to}");
        }
    }
}

#[test]
fn what_stays_once_it_has_run() {
    let salt = json!({"salt": "other"});
    let metrics = "the looks so far judged by the former ones";
    let plan = "the looks so far were taken and spent alpha by the former one";
    for (field, why, fields) in [
        ("salt", "units would be hashed anew and see other variants", salt.clone()),
        ("unit_type", "what was counted so far are units of the former type", json!({"unit_type": "device"})),
        (
            "layer",
            "the units so far were drawn from the former one",
            json!({"layer": "l", "slot_ranges": [[0, 1_000_000]]}),
        ),
        ("control", "the looks so far compared with the former one", json!({"control": "b"})),
        ("metrics", metrics, json!({"metrics": {"primary": "n"}})),
        ("metrics", metrics, json!({"metrics": {"primary": "m", "guardrails": ["n"]}})),
        ("plan", plan, json!({"plan": {"alpha": 0.1}})),
        ("plan", plan, json!({"plan": {"horizon_units": 1_000}})),
    ] {
        let refusal = format!("{field}: cannot change any more, for {why}; clone it under another key");
        for state in ["running", "stopped"] {
            let phase = if fields.get("slot_ranges").is_some() { 2 } else { 1 };
            let changed = with(experiment(json!({"state": state, "phase": phase})), fields.clone());
            Log::with_experiment(state).check("experiment", changed, Err(&refusal));
        }
        let open = if fields == salt { Err(refusal.as_str()) } else { Ok(()) };
        let changed = with(experiment(json!({"state": "draft"})), fields);
        Log::with_experiment("draft").check("experiment", changed, open);
    }
    // The default salt is the key; writing it out changes nothing.
    Log::with_experiment("running").check("experiment", experiment(json!({"salt": "e"})), Ok(()));
    let words = json!({"owner": "bob", "hypothesis": "it helps", "description": "on the web"});
    Log::with_experiment("running").check("experiment", experiment(words), Ok(()));
}

#[test]
fn who_decides_stays_once_it_has_run() {
    let plain = json!([{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}]);
    Log::with_experiment("running").check(
        "experiment",
        experiment(json!({"assignment": "external", "variants": plain, "phase": 2})),
        Err("assignment: cannot change any more, for the exposures so far were assigned and verified the former way; \
             clone it under another key"),
    );
}

#[test]
fn a_draft_is_open_but_whole() {
    for (fields, verdict) in [
        (json!({"variants": halves(100_000, 100_000)}), Ok(())),
        (
            json!({"rollout": 1, "targeting": [{"key": "t", "when": {"attribute": "a", "exists": true}}]}),
            Ok(()),
        ),
        (json!({"phase": 2}), Err("phase: the first phase is 1; leave `phase` out, and it is counted")),
        (
            json!({"variants": halves(100_000, 500_000)}),
            Err(
                "variants: the weights add up to 60%, 4000 basis points too few; to expose fewer units use `rollout`",
            ),
        ),
    ] {
        for state in ["draft", "running"] {
            let changed = with(experiment(json!({"state": state})), fields.clone());
            Log::with_experiment("draft").check("experiment", changed, verdict);
        }
    }
}

#[test]
fn a_change_of_who_sees_what_opens_the_next_phase() {
    let mut valued = halves(500_000, 500_000);
    valued[0]["value"] = json!("blue");
    let mut described = halves(500_000, 500_000);
    described[0]["description"] = json!("Blue.");
    for (fields, opens) in [
        (json!({"rollout": 5_000}), true),
        (json!({"variants": halves(400_000, 500_000)}), true),
        (json!({"variants": valued}), true),
        (json!({"targeting": [{"key": "t", "when": {"attribute": "a", "exists": true}}]}), true),
        (json!({"variants": described}), false),
        (json!({"owner": "bob"}), false),
        (json!({"state": "stopped"}), false),
    ] {
        let (expected, why) = if opens {
            (2, "a change of who sees what opens the next phase")
        } else {
            (1, "nothing opens a new phase")
        };
        for phase in 1..=3 {
            let verdict = Log::with_experiment("running")
                .propose("experiment", with(experiment(json!({"phase": phase})), fields.clone()))
                .map(|_| ());
            let refused = Err(format!(
                "phase: {phase} instead of {expected}: {why}; leave `phase` out, and it is counted"
            ));
            assert_eq!(verdict, if phase == expected { Ok(()) } else { refused }, "{fields}");
        }
    }
    Log::with_experiment("stopped").check(
        "experiment",
        experiment(json!({})),
        Err("phase: 1 instead of 2: a change of who sees what opens the next phase; leave `phase` out, and it is \
             counted"),
    );
}

#[test]
fn no_bucket_changes_its_owner_in_one_step() {
    let taken = |index: usize, range: &str, owner: &str| {
        Err(format!(
            "variants[{index}].ranges: {range} holds buckets of `{owner}`; free them in one change and take them \
             in another"
        ))
    };
    let steps = [
        // `a` cannot take buckets of `b`, not even a hundred of them,
        (
            json!([variant("a", &[[0, 500_100]]), variant("b", &[[500_100, 1_000_000]])]),
            taken(0, "[0, 500100)", "b"),
        ),
        // nor can a third variant take buckets of either,
        (
            json!([
                variant("a", &[[0, 400_000]]),
                variant("b", &[[500_000, 1_000_000]]),
                variant("c", &[[400_000, 500_000]])
            ]),
            taken(2, "[400000, 500000)", "a"),
        ),
        // nor can two variants exchange their ranges.
        (
            json!([variant("a", &[[500_000, 1_000_000]]), variant("b", &[[0, 500_000]])]),
            taken(0, "[500000, 1000000)", "b")
                .map_err(|first| first + "; " + &taken(1, "[0, 500000)", "a").unwrap_err()),
        ),
        // `b` frees some buckets,
        (json!([variant("a", &[[0, 500_000]]), variant("b", &[[500_000, 600_000]])]), Ok(())),
        // `a` and a third variant take them,
        (
            json!([
                variant("a", &[[0, 500_000], [900_000, 1_000_000]]),
                variant("b", &[[500_000, 600_000]]),
                variant("c", &[[600_000, 900_000]])
            ]),
            Ok(()),
        ),
        // `b` is dropped, but its buckets are not given to another variant
        (
            json!([variant("a", &[[0, 600_000]]), variant("c", &[[600_000, 900_000]])]),
            taken(0, "[0, 600000)", "b"),
        ),
        (json!([variant("a", &[[0, 500_000]]), variant("c", &[[600_000, 900_000]])]), Ok(())),
        // until the next step.
        (json!([variant("a", &[[0, 600_000]]), variant("c", &[[600_000, 1_000_000]])]), Ok(())),
    ];
    let mut log = Log::with_experiment("running");
    let mut phase = 1;
    for (variants, verdict) in steps {
        let change = experiment(json!({"variants": variants, "phase": phase + 1}));
        assert_eq!(log.propose("experiment", change).map(|_| ()), verdict, "{variants}");
        phase += u32::from(verdict.is_ok());
    }
    assert_eq!(log.read.experiment("e").unwrap().1.phase(), 5);
}

#[test]
fn a_later_rule_stops_the_reader() {
    let mut log = Log::furnished();
    for rule_version in [0, RULE_VERSION + 1, u32::MAX] {
        let change = Change { rule_version, ..log.change("layer", json!({"key": "x"})) };
        let stop = log.read.apply(4, schemas::Micros::EPOCH, &change).unwrap_err();
        assert_eq!(stop, UnknownRule { offset: 4, rule_version });
        assert_eq!(
            stop.to_string(),
            format!(
                "the change at offset 4 of the definitions log follows rule {rule_version}, this build knows rules up \
                 to {RULE_VERSION}: install a newer build"
            )
        );
        // The reader has not passed the record.
        assert_eq!((log.read.next_offset(), log.read.version()), (4, 4));
    }
    assert_eq!(log.propose("layer", json!({"key": "x"})), Ok(5));
}

#[test]
fn every_version_is_remembered() {
    let mut log = Log::with_experiment("running");
    assert_eq!(
        log.propose("experiment", experiment(json!({"state": "draft"}))),
        Err("state: running cannot become draft; clone it under another key".to_owned())
    );
    assert_eq!(log.propose("experiment", experiment(json!({"owner": "bob"}))), Ok(7));
    let owner = |version: Version| match &log.read.at_version(version)?.definition {
        Definition::Experiment(experiment) => Some(experiment.owner.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(owner(5).as_deref(), Some(""));
    assert_eq!(owner(6), None);
    assert_eq!(owner(7).as_deref(), Some("bob"));
    assert_eq!(log.read.at_version(0), None);
    let (version, experiment) = log.read.experiment("e").unwrap();
    assert_eq!((version, experiment.owner.as_str()), (7, "bob"));
    assert_eq!(log.read.experiment("m"), None);
    assert_eq!(log.read.experiment("not a key"), None);
}

#[test]
fn a_record_that_is_no_change_takes_its_offset() {
    let mut log = Log::furnished();
    log.read.skip(4);
    // Offsets have gaps where the broker stores its own records.
    log.read.skip(7);
    assert_eq!((log.read.next_offset(), log.read.version()), (8, 4));
    log.offset = 8;
    assert_eq!(log.propose("layer", json!({"key": "x"})), Ok(9));
}

#[test]
#[should_panic(expected = "offset 3 of the log after 4")]
fn no_record_is_taken_twice() {
    let mut log = Log::furnished();
    let change = log.change("layer", json!({"key": "x"}));
    let _ = log.read.apply(3, schemas::Micros::EPOCH, &change);
}
