//! Definitions on a real log: they are accepted or refused with a reason, written once, and never by two
//! writers.

use std::thread;

use definitions::DefinitionLog;
use definitions::apply::{Signature, Verdict, apply};
use producer::import::{Format, import};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use schemas::Uuid;
use schemas::definition::{Change, Definition, Refusal, Version, parse_file};

use crate::kafka_fixture::{self, KafkaFixture};

const CHECKOUT: &str = "\
kind: metric
key: purchase
event: purchase
type: conversion
---
kind: experiment
key: checkout
state: running
variants: [{ key: control, weight: 5000 }, { key: treatment, weight: 5000 }]
control: control
metrics: { primary: purchase }
plan: { alpha: 0.05 }
";

#[test]
fn a_file_is_accepted_once_and_unchanged_from_then_on() {
    let fixture = KafkaFixture::new("once");
    let rehearsed = fixture.apply("checkout.yaml", CHECKOUT, &["--dry-run"]);
    assert_eq!(rehearsed.out, "metric purchase: would be accepted\nexperiment checkout: would be accepted\n");
    assert_eq!(fixture.stored("definitions").len(), 0);

    let applied = fixture.apply("checkout.yaml", CHECKOUT, &[]);
    assert_eq!(
        (applied.code, applied.out.as_str()),
        (0, "metric purchase: accepted, version 1\nexperiment checkout: accepted, version 2\n")
    );
    let again = fixture.apply("checkout.yaml", CHECKOUT, &[]);
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "metric purchase: unchanged, version 1\nexperiment checkout: unchanged, version 2\n")
    );
    let stored = fixture.stored("definitions");
    let keys: Vec<(i32, i64, &str)> =
        stored.iter().map(|change| (change.partition, change.offset, change.key.as_str())).collect();
    assert_eq!(keys, [(0, 0, "purchase"), (0, 1, "checkout")]);
    let listed = fixture.producer(&["definitions"]);
    assert_eq!(listed.out, "experiment checkout: version 2, running, phase 1\nmetric purchase: version 1\n");
}

/// What `splitstream import` writes needs no change before it is applied.
#[test]
fn an_imported_file_is_accepted() {
    let fixture = KafkaFixture::new("imported");
    let source = r#"{"features": {
        "plans": {"defaultValue": "free", "rules": [
            {"condition": {"country": {"$in": ["DE", "FR"]}, "age": {"$gte": 18}}, "force": "pro", "coverage": 0.25}
        ]},
        "price": {"defaultValue": 10, "rules": [
            {"key": "prices", "variations": [10, 12], "weights": [0.5, 0.5], "namespace": ["shop", 0, 0.5]}
        ]},
        "banner": {"defaultValue": false, "rules": [
            {"parentConditions": [{"id": "price", "condition": {"value": 12}, "gate": true}]},
            {"force": true}
        ]}
    }}"#;
    let imported = import(Format::Growthbook, source, "web").unwrap();
    assert!(!imported.is_lossy(), "{}", imported.report());
    let applied = fixture.apply("imported.json", &imported.file(), &[]);
    assert_eq!(
        (applied.code, applied.err.as_str(), applied.out.as_str()),
        (
            0,
            "",
            "metric to-be-named: accepted, version 1\n\
             layer shop: accepted, version 2\n\
             flag plans: accepted, version 3\n\
             experiment price: accepted, version 4\n\
             flag banner: accepted, version 5\n"
        )
    );
}

/// A broker that was just restarted answers like this; the commands once gave up at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_leader_is_asked_again() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    };
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("definitions", 1, 1).unwrap();
    let kafka = kafka_fixture::kafka(&cluster.bootstrap_servers(), "");
    // Each attempt takes two of them, for the beginning and for the end.
    let answers = [
        [RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 4].as_slice(),
        &[RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE; 2],
    ]
    .concat();
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &answers);
    let log = DefinitionLog::open(&kafka).await.unwrap();
    assert_eq!(log.definitions().next_offset(), 0);

    // A lasting error is reported at once.
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2]);
    let refused = DefinitionLog::open(&kafka).await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("TopicAuthorizationFailed"), "{refused}");
}

#[test]
fn a_running_experiment_changes_only_as_allowed_and_the_log_records_what_and_why() {
    let fixture = KafkaFixture::new("change");
    fixture.accept("checkout.yaml", CHECKOUT);

    let other_alpha = CHECKOUT.replace("0.05", "0.1");
    let refused = fixture.apply("checkout.yaml", &other_alpha, &[]);
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (
            3,
            "metric purchase: unchanged, version 1\nexperiment checkout: refused: plan: cannot change any more, for \
             the looks so far were taken and spent alpha by the former one; clone it under another key\n"
        )
    );
    let grown = CHECKOUT
        .replace("control, weight: 5000", "control, weight: 4000")
        .replace("treatment, weight: 5000", "treatment, weight: 6000");
    let refused = fixture.apply("checkout.yaml", &grown, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(refused.code, 3);
    assert_eq!(
        document["definitions"][1]["reason"],
        "variants: `treatment` needs 100000 more buckets and 0 are free; shrink others in one change, grow it in \
         the next"
    );
    // A change that would certainly be refused is not written, because the log is kept for ever.
    assert_eq!(fixture.stored("definitions").len(), 2);

    let stopped = CHECKOUT.replace("running", "stopped");
    let accepted = fixture.apply("checkout.yaml", &stopped, &[]);
    assert_eq!(
        (accepted.code, accepted.out.as_str()),
        (
            0,
            "metric purchase: unchanged, version 1\nexperiment checkout: accepted, version 3\n    state: \
             \"running\" -> \"stopped\"\n"
        )
    );
    let log = fixture.producer(&["definitions", "log", "--json"]);
    let log: serde_json::Value = serde_json::from_str(&log.out).unwrap();
    assert_eq!(log.as_array().unwrap().len(), 3);
    let last = &log[2];
    assert_eq!((&last["version"], &last["based_on"]), (&3.into(), &2.into()));
    assert_eq!((&last["author"], &last["reason"]), (&"ann".into(), &"because".into()));
    assert_eq!(last["changed"][0]["field"], "state");
}

#[test]
fn the_history_of_a_key_tells_who_changed_what_and_who_was_refused() {
    let fixture = KafkaFixture::new("history");
    fixture.accept("checkout.yaml", CHECKOUT);
    fixture.accept("checkout.yaml", &CHECKOUT.replace("running", "stopped"));
    // Based on the version before, as if another writer had been first.
    let late = experiment(&CHECKOUT.replace("state: running", "state: stopped\nowner: web"));
    let refused = propose(&fixture, late, 2, "bob");
    assert_eq!(
        refused.unwrap_err().to_string(),
        "`checkout` has moved on: the change is based on version 2, the current one is 3"
    );

    let document = |args: &[&str]| -> serde_json::Value {
        let printed = fixture.producer(&[&["history"], args, &["--json"]].concat());
        assert_eq!(printed.code, 0, "{printed:?}");
        serde_json::from_str(&printed.out).unwrap()
    };
    let all = document(&["checkout", "--refused"]);
    let times: Vec<&str> =
        all["changes"].as_array().unwrap().iter().map(|change| change["time"].as_str().unwrap()).collect();
    let [first, second, third] = times[..] else { panic!("{all}") };
    assert!(first <= second && second <= third, "{times:?}");
    let accepted = format!(
        "experiment checkout\n\
         version 2, {first}, running, phase 1, by ann: because\n\
         version 3, {second}, stopped, phase 1, by ann: because\n    state: \"running\" -> \"stopped\"\n"
    );
    assert_eq!(fixture.producer(&["history", "checkout"]).out, accepted);
    assert_eq!(
        fixture.producer(&["history", "checkout", "--refused"]).out,
        format!(
            "{accepted}refused, {third}, by bob: late\n    \
             because `checkout` has moved on: the change is based on version 2, the current one is 3\n    \
             owner: \"\" -> \"web\"\n    state: \"running\" -> \"stopped\"\n"
        )
    );
    let accepted = document(&["checkout"]);
    assert_eq!(accepted["changes"].as_array().unwrap().len(), 2);
    assert_eq!(
        accepted["changes"][1]["changed"],
        serde_json::json!([{"field": "state", "before": "running", "after": "stopped"}])
    );
}

#[test]
fn a_key_of_several_definitions_is_told_apart_by_its_kind() {
    let fixture = KafkaFixture::new("kinds");
    fixture.accept(
        "shop.yaml",
        "{kind: layer, key: shop}\n---\n{kind: metric, key: shop, event: e, type: count}\n",
    );
    let refused = propose(&fixture, experiment(&CHECKOUT.replace("purchase", "nothing")), 0, "bob");
    assert!(refused.is_err());
    let history = |args: &[&str]| {
        let printed = fixture.producer(&[&["history"], args].concat());
        (printed.code, printed.out.lines().next().unwrap_or_default().to_owned(), printed.err)
    };
    let refusal = |text: &str| (3, String::new(), format!("error: refused: {text}\n"));
    assert_eq!(
        history(&["shop"]),
        refusal("`shop` is the key of several definitions: layer, metric; choose one by its kind")
    );
    assert_eq!(history(&["shop", "--kind", "layer"]), (0, "layer shop".to_owned(), String::new()));
    assert_eq!(history(&["shop", "--kind", "metric"]), (0, "metric shop".to_owned(), String::new()));
    assert_eq!(
        history(&["shop", "--kind", "flag"]),
        refusal("there is no flag `shop`; the key has another kind: layer, metric")
    );
    assert_eq!(
        history(&["nothing"]),
        refusal("there is no definition `nothing`; `splitstream definitions` lists all")
    );
    assert_eq!(
        history(&["checkout"]),
        refusal(
            "there is no definition `checkout`: every change of it was refused; ask for the refused ones as well"
        )
    );
    assert_eq!(history(&["checkout", "--refused"]), (0, "experiment checkout".to_owned(), String::new()));
    assert_eq!(history(&["shop", "--kind", "widget"]).0, 2);
}

/// Writes a change to the log without judging it first.
fn propose(
    fixture: &KafkaFixture,
    written: Definition,
    based_on: Version,
    author: &str,
) -> Result<Version, Refusal> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let verdict = runtime.block_on(async {
        let mut log = DefinitionLog::open(&fixture.kafka()).await.unwrap();
        let definition = assignment::resolve(log.definitions(), schemas::Micros::EPOCH, written).unwrap();
        let change = log.definitions().change_to(&definition, Uuid::now_v7(), author, "late");
        let change = Change { based_on, ..change };
        log.propose(&change).await.unwrap()
    });
    verdict.map(|accepted| accepted.version)
}

#[test]
fn a_file_that_is_no_definition_is_refused_by_line_and_field_before_anything_is_written() {
    let fixture = KafkaFixture::new("invalid");
    let file = CHECKOUT.replace("control: control", "control: contrl").replace("alpha: 0.05", "alpha: 5");
    let refused = fixture.apply("checkout.yaml", &file, &[]);
    assert_eq!(refused.code, 4);
    let path = fixture.file("checkout.yaml", &file);
    let expected = format!(
        "error: invalid input: {0}, line 10: control: `contrl` is not one of the variants\n\
         {0}, line 12: plan.alpha: 5 is not in (0, 0.5]\n",
        path.display()
    );
    assert_eq!(refused.err, expected);
    assert_eq!(fixture.stored("definitions").len(), 0);
}

#[test]
fn of_two_writers_racing_on_one_definition_exactly_one_wins() {
    let fixture = KafkaFixture::new("race");
    fixture.accept("checkout.yaml", CHECKOUT);
    let kafka = fixture.kafka();
    // Both writers have read the same version before either writes.
    let changes = ["state: stopped", "state: running\nowner: web"].map(|change| {
        let definition = experiment(&CHECKOUT.replace("state: running", change));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let log = runtime.block_on(DefinitionLog::open(&kafka)).unwrap();
        (runtime, log, definition)
    });
    let signature = Signature { author: "ann".to_owned(), reason: "race".to_owned() };
    let verdicts: Vec<Verdict> = thread::scope(|scope| {
        let writers: Vec<_> = changes
            .into_iter()
            .map(|(runtime, mut log, definition)| {
                let signature = &signature;
                scope.spawn(move || {
                    runtime
                        .block_on(apply(&mut log, schemas::Micros::EPOCH, definition, signature))
                        .unwrap()
                        .verdict
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let won = verdicts.iter().filter(|verdict| **verdict == Verdict::Accepted { version: 3 }).count();
    let lost = verdicts.iter().find_map(|verdict| match verdict {
        Verdict::Refused { reason } => Some(reason.to_string()),
        _ => None,
    });
    assert_eq!(
        (won, lost.as_deref()),
        (1, Some("`checkout` has moved on: the change is based on version 2, the current one is 3")),
        "{verdicts:?}"
    );
    // Both changes are in the log, and every reader comes to the same verdicts.
    assert_eq!(fixture.stored("definitions").len(), 4);
}

fn experiment(file: &str) -> Definition {
    parse_file(file).unwrap().remove(1)
}

#[test]
fn without_topics_or_without_kafka_the_error_names_the_remedy() {
    let fixture = KafkaFixture::without_topics("none");
    let refused = fixture.producer(&["definitions"]);
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (5, "error: unreachable: kafka has no topic none.definitions; create it with `splitstream topics`\n")
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = fixture.command(&["definitions"]);
    let refused = command.env("SPLITSTREAM_KAFKA__BROKERS", closed.to_string()).output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(
        errors.contains(&format!("kafka at {closed} does not answer: {closed}: Connection refused")),
        "{errors}"
    );
}

#[test]
fn an_assignment_is_explained_by_numbers_that_anyone_can_compute_again() {
    let fixture = KafkaFixture::new("assign");
    fixture.accept("checkout.yaml", CHECKOUT);
    let assigned = fixture.producer(&["assign", "checkout", "u1"]);
    assert_eq!((assigned.code, assigned.out.as_str()), (0, "treatment\n"));
    let explained = fixture.producer(&["assign", "checkout", "u1", "--explain", "--json"]);
    let explained: serde_json::Value = serde_json::from_str(&explained.out).unwrap();
    assert_eq!((&explained["version"], &explained["configuration_version"]), (&2.into(), &2.into()));
    assert_eq!(explained["bucket"]["salt"], "checkout/variant");
    // xxh3_64("checkout/variant"), then xxh3_64("u1") with that seed, computed with python-xxhash.
    assert_eq!(explained["bucket"]["seed"], "d451498ee4f32d18");
    assert_eq!(explained["bucket"]["hash"], "fa048ce9def92831");
    assert_eq!(explained["bucket"]["bucket"], 976_631);
    // An environment without settings of its own is answered for; a misspelled one is told.
    let misspelled = fixture.producer(&["assign", "checkout", "u1", "--environment", "stagin"]);
    assert_eq!((misspelled.code, &misspelled.out), (0, &assigned.out));
    assert_eq!(
        misspelled.err,
        "warning: no definition mentions the environment `stagin`: the settings that apply everywhere are evaluated\n"
    );
    let unknown = fixture.producer(&["assign", "nothing", "u1"]);
    assert_eq!(unknown.code, 3);
    let too_long = fixture.producer(&["assign", "checkout", &"u".repeat(257)]);
    assert_eq!(too_long.code, 2);
}

#[test]
fn a_flag_serves_a_value_by_steps_that_anyone_can_compute_again() {
    const BANNER: &str = r#"
kind: flag
key: banner
value_type: string
variants: [{key: red, value: crimson}, {key: blue, value: navy}]
default_variant: blue
rules:
- {key: staff, when: {attribute: plan, equals: staff}, split: [{variant: red, weight: 100%}]}
- {key: half, rollout: 50%, split: [{variant: red, weight: 50%}, {variant: blue, weight: 50%}]}
"#;
    let fixture = KafkaFixture::new("flags");
    fixture.accept("banner.yaml", BANNER);
    let assigned = |unit: &str, more: &[&str]| {
        let args = [&["assign", "banner", unit, "--json"], more].concat();
        let text = fixture.producer(&args).out;
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    assert_eq!(fixture.producer(&["assign", "banner", "u3"]).out, "\"navy\"\n");
    let of = |answer: &serde_json::Value| {
        ["variant", "value", "reason", "rule"].map(|field| answer[field].to_string())
    };
    assert_eq!(of(&assigned("u3", &[])), ["\"blue\"", "\"navy\"", "\"SPLIT\"", "\"half\""]);
    let staff = assigned("u3", &["--attribute", "plan=staff"]);
    assert_eq!(of(&staff), ["\"red\"", "\"crimson\"", "\"TARGETING_MATCH\"", "\"staff\""]);
    assert_eq!(of(&assigned("u2", &[])), ["\"blue\"", "\"navy\"", "\"DEFAULT\"", "null"]);
    // xxh3_64("banner/half/rollout"), then xxh3_64("u3") with that seed, and so on, computed with python-xxhash.
    assert_eq!(
        fixture.producer(&["assign", "banner", "u3", "--explain"]).out,
        "flag banner, version 1, in production; user u3\n   \
         hash = xxh3_64(unit id, seed = xxh3_64(salt)); bucket = floor(hash * 1000000 / 2^64)\n\
         1. rule staff: it does not match\n\
         2. rule half: it matches\n\
         3. salt banner/half/rollout, hash 497e1391cd99e436, bucket 287080: inside the rollout\n\
         4. salt banner/half/variant, hash adc515191a75a449, bucket 678788: a variant owns it\n\
         -> blue = \"navy\" (SPLIT)\n"
    );
    let steps = &assigned("u2", &["--explain"])["steps"];
    assert_eq!(
        steps[2],
        serde_json::json!({
            "step": "rollout", "salt": "banner/half/rollout", "hash": "ba257051983a9884", "bucket": 727_133,
            "inside": false,
        })
    );
}

/// The rule version of a change is the one that its readers must know, so a change names the lowest version it
/// needs.
#[test]
fn an_environment_is_tried_and_promoted_and_each_change_names_the_lowest_rule() {
    let fixture = KafkaFixture::new("environments");
    assert_eq!(fixture.apply("checkout.yaml", CHECKOUT, &[]).code, 0);
    let staged = format!("{CHECKOUT}rollout: 0%\nenvironments: {{ staging: {{ rollout: 100% }} }}\n");
    let applied = fixture.apply("staged.yaml", &staged, &[]);
    assert_eq!(
        (applied.code, applied.out.as_str()),
        (
            0,
            "metric purchase: unchanged, version 1\n\
             experiment checkout: accepted, version 3\n    \
             environments.staging.rollout: 10000 (new)\n    phase: 1 -> 2\n    rollout: 10000 -> 0\n"
        )
    );
    let assigned = |environment: &str| {
        fixture.producer(&["assign", "checkout", "user-1", "--environment", environment]).out
    };
    assert_eq!(
        fixture.producer(&["assign", "checkout", "user-1"]).out,
        "no variant: the unit is outside the rollout\n"
    );
    let in_staging = assigned("staging");
    assert!(["control\n", "treatment\n"].contains(&in_staging.as_str()), "{in_staging}");
    assert_eq!(assigned("a/b"), "");

    let between = ["--from", "staging", "--to", "production"];
    let differs = fixture.producer(&[&["diff"], &between[..]].concat());
    assert_eq!(
        (differs.code, differs.out.as_str()),
        (0, "experiment checkout, version 3\n    rollout: 0 -> 10000\n")
    );
    // With a typing error, the settings that apply everywhere were once compared.
    let unknown = fixture.producer(&["diff", "--from", "stagging", "--to", "production"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (3, ""));
    let promote = |key: &str, more: &[&str]| {
        fixture.producer(
            &[&["promote", key, "--author", "ann", "--reason", "it works"], &between[..], more].concat(),
        )
    };
    assert_eq!(promote("purchase", &[]).code, 3);
    let rehearsed = promote("checkout", &["--dry-run"]);
    assert_eq!(
        rehearsed.out,
        "experiment checkout: would be accepted\n    \
         environments.production.rollout: 10000 (new)\n    phase: 2 -> 3\n"
    );
    let promoted = promote("checkout", &[]);
    assert!(promoted.out.starts_with("experiment checkout: accepted, version 4\n"), "{promoted:?}");
    assert_eq!(assigned("production"), in_staging);
    let same = fixture.producer(&[&["diff"], &between[..]].concat());
    assert_eq!(same.out, "nothing differs between staging and production\n");
    assert_eq!(promote("checkout", &[]).out, "experiment checkout: unchanged, version 4\n");

    let rules: Vec<(String, u32)> = fixture
        .stored("definitions")
        .iter()
        .map(|record| schemas::avro::decode_change(&record.value).unwrap())
        .map(|change| (change.key, change.rule_version))
        .collect();
    let expected = [("purchase", 1), ("checkout", 1), ("checkout", 2), ("checkout", 2)];
    assert_eq!(rules, expected.map(|(key, rule)| (key.to_owned(), rule)));
}
