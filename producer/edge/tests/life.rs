//! The whole life of keys as a client sees it: a tester is let in, an experiment runs, its winner is shipped and taken back,
//! and a holdout covers what comes after it.

use schemas::avro;
use serde_json::{Value, json};

use crate::edge_fixture::{CLIENT_TOKEN, Fixture, send, within};

const EXPERIMENT: &str = "
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
kind: experiment
key: checkout
state: running
client_safe: true
rollout: 0
allow: [{ list: testers, variant: treatment }]
deny: [staff]
variants: [{ key: control, weight: 50%, value: blue }, { key: treatment, weight: 50%, value: green }]
control: control
metrics: { primary: purchase }
---
kind: flag
key: internal
value_type: boolean
variants: [{ key: \"on\", value: true }]
default_variant: \"on\"
";

fn put(fixture: &Fixture, list: &str, ids: &str) -> String {
    let file = fixture.file(list, ids);
    fixture.run(&["lists", "put", list, file.to_str().unwrap(), "--author", "ann", "--reason", "because"])
}

fn exposures(fixture: &Fixture) -> Vec<(String, String, String, String, bool)> {
    let stored = fixture.stored("exposures");
    let read = stored.iter().map(|message| {
        let exposure = avro::decode_exposure(message).unwrap();
        (
            exposure.experiment.to_string(),
            exposure.unit_id.to_string(),
            exposure.variant.to_string(),
            exposure.reason.as_str().to_owned(),
            exposure.buckets.is_some(),
        )
    });
    read.collect()
}

#[test]
fn a_key_answers_from_the_first_tester_to_the_rollback() {
    let fixture = Fixture::new("life");
    put(&fixture, "testers", "tess\ntom\n");
    put(&fixture, "staff", "sam\n");
    fixture.apply(EXPERIMENT);
    let edge = fixture.edge(&[]);
    let read = |unit: &str| {
        let answer = edge.single("checkout", &json!({"targetingKey": unit}).to_string()).json();
        (answer["value"].as_str().unwrap().to_owned(), answer["reason"].as_str().unwrap().to_owned())
    };
    let served = |value: &str, reason: &str| (value.to_owned(), reason.to_owned());
    // Nobody is in the rollout; a tester sees the treatment all the same.
    assert_eq!(read("tess"), served("green", "TARGETING_MATCH"));
    assert_eq!(read("una"), served("blue", "DEFAULT"));
    assert_eq!(read("sam"), served("blue", "DEFAULT"));
    within(20, "the forced exposure", || exposures(&fixture).len() == 1);
    let forced = ("checkout", "tess", "treatment", "forced", false);
    assert_eq!(
        exposures(&fixture),
        [(forced.0.to_owned(), forced.1.to_owned(), forced.2.to_owned(), forced.3.to_owned(), forced.4)]
    );
    // A list changes while the edge runs, and the experiment that names it is in its next phase.
    let told = put(&fixture, "testers", "tom\n");
    let opened = "  opens a phase, for other units take part: experiment checkout: accepted, version 7\n    phase: 1 -> 2\n";
    assert!(told.starts_with("list testers: accepted, version 6\n") && told.ends_with(opened), "{told}");
    within(20, "the new members", || read("tess") == served("blue", "DEFAULT"));
    assert_eq!(read("tom"), served("green", "TARGETING_MATCH"));
    // The members of before are dropped, and read again once the list has them again.
    let held = || edge.metric("splitstream_edge_list_bytes{");
    within(20, "the old members are dropped", || held() == 16.0);
    put(&fixture, "testers", "tess\ntom\n");
    within(20, "the members of before", || read("tess") == served("green", "TARGETING_MATCH"));
    within(20, "the others are dropped", || held() == 24.0);
    put(&fixture, "testers", "tom\n");
    within(20, "the new members again", || read("tess") == served("blue", "DEFAULT"));

    // The winner is shipped, and taken back, each as one change.
    fixture.run(&["ship", "checkout", "treatment", "--author", "ann", "--reason", "it won"]);
    within(20, "what is shipped", || read("una") == served("green", "STATIC"));
    assert_eq!(read("sam"), served("blue", "DEFAULT"));
    fixture.run(&["rollback", "checkout", "--author", "ann", "--reason", "it broke"]);
    within(20, "the rollback", || read("una") == served("blue", "DEFAULT"));
    assert_eq!(exposures(&fixture).len(), 3, "the two testers, and the first once more in a later phase");

    // A client key sees what is marked for it, and nothing else.
    let bearer = format!("Bearer {CLIENT_TOKEN}");
    let bulk = send(
        "POST",
        &format!("{}/ofrep/v1/evaluate/flags", edge.url()),
        &[("authorization", bearer.as_str())],
        r#"{"context": {"targetingKey": "una"}}"#,
    );
    let keys: Vec<Value> =
        bulk.json()["flags"].as_array().unwrap().iter().map(|flag| flag["key"].clone()).collect();
    assert_eq!(keys, [json!("checkout")]);
}

#[test]
fn a_holdout_is_exposed_with_what_it_covers() {
    let fixture = Fixture::new("holdout");
    fixture.apply(
        "
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
kind: experiment
key: quarter
state: running
holdout: true
variants: [{ key: held, weight: 50% }, { key: others, weight: 50% }]
control: held
metrics: { primary: purchase }
",
    );
    fixture.apply(
        "
kind: experiment
key: checkout
state: running
variants: [{ key: control, weight: 50% }, { key: treatment, weight: 50% }]
control: control
metrics: { primary: purchase }
",
    );
    let edge = fixture.edge(&[]);
    for unit in 0..20 {
        edge.single("checkout", &json!({"targetingKey": format!("u{unit}")}).to_string());
    }
    within(20, "every side", || {
        exposures(&fixture).iter().filter(|(experiment, ..)| experiment == "quarter").count() == 20
    });
    let all = exposures(&fixture);
    for unit in 0..20 {
        let unit = format!("u{unit}");
        let of: Vec<_> = all.iter().filter(|(_, of, ..)| *of == unit).collect();
        let held = of
            .iter()
            .any(|(_, _, variant, reason, buckets)| variant == "held" && reason == "split" && *buckets);
        // Whoever is held out is exposed to the holdout alone.
        assert_eq!(of.len(), if held { 1 } else { 2 }, "{of:?}");
    }
}
