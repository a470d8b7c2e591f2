//! The log of looks on the real parts: two aggregators at the same time, and a log that was lost, truncated,
//! or that cannot be read. The alpha of each look is spent once.

use std::fmt::Write as _;
use std::time::Duration;

use local::{Service, ServiceOptions};
use schemas::look::LookRecord;
use schemas::{Uuid, avro};
use serde_json::Value;
use tests::platform::wait_until;
use tests::{Platform, metrics, topic};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const LOOKS: &str = "looks";
const DEFINITIONS: &str = "\
kind: metric
key: purchase
event: purchase
type: conversion
---
kind: experiment
key: checkout
state: running
assignment: external
variants:
  - { key: a, weight: 5000 }
  - { key: b, weight: 5000 }
control: a
metrics:
  primary: purchase
plan:
  horizon_units: 2000
";

fn platform() -> Platform {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    platform
}

/// Sends the units with the numbers `first` to `first + count - 1`, every second one to `b`; a tenth of each
/// arm converts.
fn send(platform: &Platform, first: u64, count: u64) {
    let mut events = String::new();
    let id = |kind: u64, number: u64| Uuid::from_u128(u128::from(kind) << 64 | u128::from(number));
    for number in first..first + count {
        let variant = if number % 2 == 0 { "a" } else { "b" };
        writeln!(
            events,
            r#"{{"type": "exposure", "event_id": "{}", "experiment": "checkout", "variant": "{variant}", "unit_type": "user", "unit_id": "u{number}", "created_at": "2026-01-01T00:00:00Z"}}"#,
            id(1, number)
        )
        .unwrap();
        if number % 20 < 2 {
            writeln!(
                events,
                r#"{{"type": "conversion", "event_id": "{}", "name": "purchase", "unit_type": "user", "unit_id": "u{number}", "created_at": "2026-01-01T01:00:00Z"}}"#,
                id(2, number)
            )
            .unwrap();
        }
    }
    let file = platform.path("events.jsonl");
    std::fs::write(&file, events).unwrap();
    let output = platform.program(&["replay", &file.display().to_string()]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns when the tables have this many units.
fn wait_for_units(platform: &Platform, units: u64) {
    let clickhouse = platform.clickhouse();
    wait_until("the units", TIMEOUT, POLL, || {
        let converted = clickhouse.number("SELECT count() FROM conversions", &[])?;
        Ok(clickhouse.number("SELECT count() FROM exposures", &[])? == units && converted == units / 10)
    })
    .unwrap();
}

/// Runs an analysis and returns its exit code, standard error and document.
fn analyze(platform: &Platform) -> (i32, String, Value) {
    let output = platform.program(&["analyze", "--json"]).unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap(), document)
}

/// The looks at the boundary in a document: the units of both arms, and the alpha spent.
fn looks(document: &Value) -> Vec<(u64, f64)> {
    let boundary = &document["experiments"][0]["metrics"][0]["boundaries"][0];
    let looks = boundary["looks"].as_array().unwrap_or_else(|| panic!("{document}"));
    let of = |look: &Value| {
        let units = look["units_control"].as_u64().unwrap() + look["units_treatment"].as_u64().unwrap();
        (units, look["alpha_spent"].as_f64().unwrap())
    };
    looks.iter().map(of).collect()
}

/// The records of the log, in order.
fn records(platform: &Platform) -> Vec<LookRecord> {
    let mut records = Vec::new();
    topic::read(platform.brokers(), LOOKS, |_, message| {
        use rdkafka::message::Message as _;
        records.extend(avro::decode_look(message.payload().unwrap_or_default()));
    })
    .unwrap();
    records
}

fn start(platform: &Platform) -> Service {
    let settings = [
        ("SPLITSTREAM_AGGREGATOR__INTERVAL_MS", "100"),
        ("SPLITSTREAM_AGGREGATOR__DOCUMENT_INTERVAL_MS", "0"),
    ];
    let options = ServiceOptions { settings: &settings, port: None };
    platform.stack().service_with("aggregator", options).unwrap()
}

fn gauge(service: &Service, name: &str) -> f64 {
    metrics::series(&service.url(), name).unwrap().iter().map(|(_, value)| value).sum()
}

/// An aggregator that loses a race looks again after the winner, so that both report the same looks.
#[test]
fn two_aggregators_at_once_spend_alpha_once() {
    let platform = platform();
    let _consumer = platform.consumer(&[]).unwrap();
    let (one, other) = (start(&platform), start(&platform));
    for batch in 0..10 {
        send(&platform, batch * 100, 100);
        // A third one at the same time.
        let (code, stderr, _) = analyze(&platform);
        assert_eq!(code, 0, "{stderr}");
    }
    wait_for_units(&platform, 1_000);
    wait_until("both documents", TIMEOUT, POLL, || {
        let units = |service: &Service| -> anyhow::Result<Value> {
            let url = format!("{}/api/v1/experiments/checkout", service.url());
            Ok(ureq::get(&url).call()?.body_mut().read_json::<Value>()?["experiments"][0]["srm"]["phases"][0]
                ["units"]
                .clone())
        };
        Ok(units(&one)? == 1_000 && units(&other)? == 1_000)
    })
    .unwrap();
    let (code, stderr, last) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");

    // Each look was taken once: the records that count form one chain, and each look has at least one step
    // more units than the one before.
    let records = records(&platform);
    let mut chain: Vec<&LookRecord> = Vec::new();
    for record in &records {
        if record.number == chain.len() as u32 + 1 {
            chain.push(record);
        }
    }
    let planned: Vec<(u64, f64)> = chain
        .iter()
        .filter_map(|record| {
            let look: Value = serde_json::from_str(&record.look).unwrap();
            let planned = look["comparisons"][0]["planned"].clone();
            let units = planned["units_control"].as_u64()? + planned["units_treatment"].as_u64()?;
            Some((units, planned["alpha_spent"].as_f64()?))
        })
        .collect();
    assert_eq!(looks(&last), planned);
    assert!(planned.len() > 3, "{planned:?}");
    assert!(
        planned.windows(2).all(|pair| pair[0].0 + 20 <= pair[1].0 && pair[0].1 <= pair[1].1),
        "{planned:?}"
    );
    let recorded = |service: &Service| {
        let all = metrics::series(&service.url(), "splitstream_aggregator_looks_total").unwrap();
        all.iter().filter(|(labels, _)| labels.contains("recorded")).map(|(_, value)| value).sum::<f64>()
    };
    assert!(recorded(&one) + recorded(&other) <= chain.len() as f64);
    // The mirror has the same chain, by the rule in SQL.
    let clickhouse = platform.clickhouse();
    wait_until("the mirror", TIMEOUT, POLL, || {
        Ok(clickhouse.number("SELECT count() FROM look_log", &[])? == records.len() as u64)
    })
    .unwrap();
    let numbers =
        clickhouse.text("SELECT groupArray(number) FROM (SELECT number FROM looks ORDER BY version)", &[]);
    let expected: Vec<String> = (1..=chain.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers.unwrap().trim(), format!("[{}]", expected.join(",")));
}

/// If the log is lost, nothing is decided, and the reason is reported, until the log is restored from the
/// mirror.
#[test]
fn a_lost_log_stops_decisions_until_it_is_restored() {
    let platform = platform();
    let consumer = platform.consumer(&[]).unwrap();
    send(&platform, 0, 400);
    wait_for_units(&platform, 400);
    let (code, stderr, before) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(looks(&before).len(), 1);
    let clickhouse = platform.clickhouse();
    wait_until("the mirror", TIMEOUT, POLL, || Ok(clickhouse.number("SELECT count() FROM looks", &[])? == 1))
        .unwrap();
    let aggregator = start(&platform);
    assert_eq!(gauge(&aggregator, "splitstream_aggregator_look_log_ok"), 1.0);

    topic::delete(platform.brokers(), LOOKS).unwrap();
    wait_until("the recreated topic", TIMEOUT, POLL, || {
        platform.stack().run(&["topics"])?;
        topic::wait_for_leaders(platform.brokers(), LOOKS)?;
        Ok(topic::length(platform.brokers(), LOOKS)? == 0)
    })
    .unwrap();
    let check = || anyhow::Ok(metrics::readiness(&aggregator.url())?["checks"]["looks"].clone());
    let recreated =
        |check: &Value| check.as_str().is_some_and(|reason| reason.contains("topic looks was recreated"));
    wait_until("a stopped aggregator", TIMEOUT, POLL, || Ok(recreated(&check()?))).unwrap();
    assert_eq!(metrics::readiness(&aggregator.url()).unwrap()["ok"], false);
    assert_eq!(gauge(&aggregator, "splitstream_aggregator_look_log_ok"), 0.0);
    send(&platform, 400, 400);
    wait_for_units(&platform, 800);
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("topic looks was recreated"), "{stderr}");
    let analyses = "SELECT max(JSONExtractUInt(document, 'looks_recorded')) FROM analyses";
    assert_eq!(clickhouse.number(analyses, &[]).unwrap(), 1);

    let restored = platform.program(&["restore-looks"]).unwrap();
    assert_eq!(
        String::from_utf8(restored.stdout).unwrap(),
        "1 looks were written to the log again\nif the topic is a new one: raise consumer.epoch and restart the consumers, so \
         that the mirror follows it; until then nothing is decided\n"
    );
    let again = platform.program(&["restore-looks"]).unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "0 looks were written to the log again\n");
    // As for any topic that was created again, the mirror's epoch is raised; then decisions continue where
    // they stopped.
    consumer.stop().unwrap();
    let _consumer = platform.consumer(&[("SPLITSTREAM_CONSUMER__EPOCH", "2")]).unwrap();
    wait_until("decisions", TIMEOUT, POLL, || {
        Ok(gauge(&aggregator, "splitstream_aggregator_look_log_ok") == 1.0)
    })
    .unwrap();
    wait_until("the second look", TIMEOUT, POLL, || Ok(records(&platform).len() == 2)).unwrap();
    let (code, stderr, after) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");
    let (old, new) = (looks(&before), looks(&after));
    assert_eq!(new[0], old[0]);
    assert_eq!((new.len(), new[1].0), (2, 800));
}

/// A log whose end is missing, as after a restore of an older copy, is shorter than its mirror.
#[test]
fn a_log_that_is_shorter_than_its_mirror_decides_nothing() {
    let platform = platform();
    let _consumer = platform.consumer(&[]).unwrap();
    send(&platform, 0, 400);
    wait_for_units(&platform, 400);
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");
    // The mirror has two more looks than the log.
    let clickhouse = platform.clickhouse();
    wait_until("the mirror", TIMEOUT, POLL, || {
        Ok(clickhouse.number("SELECT count() FROM look_log", &[])? == 1)
    })
    .unwrap();
    let lost = "INSERT INTO look_log SELECT version + n, generateUUIDv4(), rule_version, experiment, number + n, version + n - \
                1, look, looked_at, ingest_ts, kafka_partition, kafka_offset + n, epoch, batch_first + n, batch_last + n FROM \
                look_log ARRAY JOIN [1, 2] AS n";
    clickhouse.text(lost, &[]).unwrap();
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 1, "{stderr}");
    let reason = "topic looks holds 1 looks at `checkout`, and ClickHouse has mirrored 3: the log was cut or damaged. \
                Nothing is decided: the looks that are missing have spent alpha.";
    assert!(stderr.contains(reason), "{stderr}");
}

/// A record that the log refused is mirrored all the same. Such a record once kept every aggregator that was
/// started later from deciding anything, and the log from being restored.
#[test]
fn a_refused_record_stops_no_aggregator() {
    let platform = platform();
    let _consumer = platform.consumer(&[]).unwrap();
    send(&platform, 0, 400);
    wait_for_units(&platform, 400);
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");
    let last = records(&platform).pop().unwrap();
    let refused_record = |id: u128, experiment: &str| LookRecord {
        look_id: Uuid::from_u128(id),
        experiment: experiment.into(),
        number: 99,
        based_on: 0,
        ..last.clone()
    };
    let refused =
        [refused_record(7, "checkout"), refused_record(8, "none")].map(|record| avro::encode_look(&record));
    topic::write(platform.brokers(), LOOKS, 0, &refused).unwrap();
    let clickhouse = platform.clickhouse();
    wait_until("the mirror", TIMEOUT, POLL, || {
        Ok(clickhouse.number("SELECT count() FROM look_log", &[])? == 3)
    })
    .unwrap();
    let (code, stderr, document) = analyze(&platform);
    assert_eq!((code, looks(&document).len()), (0, 1), "{stderr}");
    let restored = platform.program(&["restore-looks"]).unwrap();
    assert_eq!(String::from_utf8(restored.stdout).unwrap(), "0 looks were written to the log again\n");
}

/// A look that cannot be read stops its own experiment and no other; bytes that are no record are ignored.
#[test]
fn a_look_that_cannot_be_read_stops_its_experiment() {
    let platform = platform();
    let _consumer = platform.consumer(&[]).unwrap();
    send(&platform, 0, 400);
    wait_for_units(&platform, 400);
    topic::write(platform.brokers(), LOOKS, 0, &[b"no record".to_vec()]).unwrap();
    let (code, stderr, document) = analyze(&platform);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(looks(&document).len(), 1);
    let last = records(&platform).pop().unwrap();
    // A record that is not based on the last look does not count.
    let stale = LookRecord { look_id: Uuid::from_u128(7), based_on: 0, number: 1, ..last.clone() };
    let of_a_later_build = LookRecord {
        look_id: Uuid::from_u128(8),
        number: 2,
        based_on: 2,
        look: r#"{"form": "of a later build"}"#.into(),
        ..last
    };
    let bytes: Vec<Vec<u8>> = [&stale, &of_a_later_build].into_iter().map(avro::encode_look).collect();
    topic::write(platform.brokers(), LOOKS, 0, &bytes).unwrap();
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 1, "{stderr}");
    let reason = "look 2 at `checkout` (version 4 of the log of looks) cannot be read; install a newer build";
    assert!(stderr.contains(reason), "{stderr}");

    // Once there is newer data, every answer states that the verdict is an earlier one, and why.
    send(&platform, 400, 200);
    wait_for_units(&platform, 600);
    let aggregator = start(&platform);
    let reason = "look 2 at `checkout` (version 4 of the log of looks) cannot be read; install a newer build";
    let ready = || metrics::readiness(&aggregator.url());
    wait_until("the reason", TIMEOUT, POLL, || {
        Ok(ready()?["checks"]["experiments"] == format!("ok, but `checkout` cannot be analyzed: {reason}"))
    })
    .unwrap();
    assert_eq!(ready().unwrap()["ok"], true);
    let warning = format!(
        "The experiment cannot be analyzed now: {reason}. The numbers and the verdict are those of 2"
    );
    let clickhouse = platform.clickhouse();
    let of_another_form = "INSERT INTO analyses SELECT * REPLACE ('other' AS experiment, replaceOne(document, \
                           '\"document_version\":2', '\"document_version\":3') AS document) FROM analyses LIMIT 1";
    clickhouse.text(of_another_form, &[]).unwrap();
    let output = platform.program(&["results"]).unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains(&format!("warning: {warning}")), "{stdout}");
    let page = ureq::get(&format!("{}/experiments/checkout", aggregator.url())).call().unwrap();
    let page = page.into_body().read_to_string().unwrap();
    assert!(
        page.contains("The experiment cannot be analyzed now: look 2 at <code>checkout</code>"),
        "{page}"
    );
    // Documents that this build cannot read are named.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("warning: the document of `other` is of form 3"), "{stderr}");
    aggregator.stop().unwrap();

    let later_rule = LookRecord { look_id: Uuid::from_u128(9), rule_version: 2, ..of_a_later_build };
    topic::write(platform.brokers(), LOOKS, 0, &[avro::encode_look(&later_rule)]).unwrap();
    let (code, stderr, _) = analyze(&platform);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("follows rule 2, this build knows rules up to 1: install a newer build"),
        "{stderr}"
    );
}

/// A document of the first form is the only record of the alpha that was spent before the log existed. A
/// document of the present form that replaced it, written without a look, once caused that alpha to be
/// forgotten.
#[test]
fn alpha_spent_before_the_log_existed_is_entered_in_it_once() {
    let platform = platform();
    let _consumer = platform.consumer(&[]).unwrap();
    send(&platform, 0, 400);
    wait_for_units(&platform, 400);
    let clickhouse = platform.clickhouse();
    let first_form = r#"INSERT INTO analyses (experiment, computed_at, document_version, document) SELECT 'checkout',
        now64(3) - INTERVAL 2 DAY, 1, '{"key": "checkout", "alpha_spent_before": 0.001, "metrics": [{"boundaries": [{
        "looks": [{"alpha_spent": 0.004}, {"alpha_spent": 0.014}]}]}]}'"#;
    clickhouse.text(first_form, &[]).unwrap();
    let of_this_form = r#"INSERT INTO analyses (experiment, computed_at, document_version, document) SELECT 'checkout',
        now64(3) - INTERVAL 1 DAY, 2, '{"document_version": 2}'"#;
    clickhouse.text(of_this_form, &[]).unwrap();
    for _ in 0..2 {
        let (code, stderr, document) = analyze(&platform);
        assert_eq!(code, 0, "{stderr}");
        let boundary = &document["experiments"][0]["metrics"][0]["boundaries"][0];
        assert_eq!(boundary["alpha_spent_before"], 0.015);
        let seen: Vec<(f64, usize)> = records(&platform)
            .iter()
            .map(|record| {
                let look: Value = serde_json::from_str(&record.look).unwrap();
                (look["alpha_spent_before"].as_f64().unwrap(), look["comparisons"].as_array().unwrap().len())
            })
            .collect();
        assert_eq!(seen, [(0.015, 0), (0.015, 1)]);
    }

    // The service returns the stored document unchanged, and the history of its metric.
    let service = start(&platform);
    let get = |path: &str| {
        let url = format!("{}{path}", service.url());
        let mut answer = ureq::get(&url).config().http_status_as_error(false).build().call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let stored = clickhouse.text("SELECT document FROM latest_analyses FINAL FORMAT TSVRaw", &[]).unwrap();
    let document = [r#"{"experiments":["#, &stored, "]}"].concat();
    assert_eq!(get("/api/v1/experiments/checkout"), (200, document.clone()));
    assert_eq!(get("/api/v1/experiments"), (200, document));
    let (code, history) = get("/api/v1/experiments/checkout/history");
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!((code, &history["metric"]), (200, &Value::from("purchase")));
    let points = history["points"].as_array().unwrap();
    let units: Vec<(&str, u64)> = points
        .iter()
        .map(|point| (point["variant"].as_str().unwrap(), point["units"].as_u64().unwrap()))
        .collect();
    assert_eq!(units, [("a", 200), ("b", 200), ("a", 200), ("b", 200)]);
    assert_eq!(points[0].get("metric"), None);
    let refused = (404, r#"{"error":"experiment `checkout` has no metric `sales`"}"#.to_owned());
    assert_eq!(get("/api/v1/experiments/checkout/history?metric=sales"), refused);
    let (code, page) = get("/experiments/checkout");
    assert_eq!((code, page.matches("<h2>Lift over a").count()), (200, 1), "{page}");
}
