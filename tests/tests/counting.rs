//! The units and conversions that an experiment counts, on the real parts: by phase and environment, without
//! units that were forced or held out.

use std::fmt::Write as _;
use std::time::Duration;

use schemas::Uuid;
use serde_json::Value;
use tests::Platform;
use tests::platform::wait_until;

const TIMEOUT: Duration = Duration::from_secs(60);
const FAR_AHEAD: &str = "2099-01-01T00:00:00.000000Z";
const POLL: Duration = Duration::from_millis(100);

fn definitions(state: &str, weights: (u32, u32), more: &str) -> String {
    format!(
        "kind: experiment\nkey: checkout\nassignment: external\nstate: {state}\nvariants:\n  - {{ key: a, weight: {} }}\n  - {{ key: b, weight: {} }}\n\
         control: a\nmetrics:\n  primary: purchase\ncounted_environments: [production, canary]\n{more}",
        weights.0, weights.1
    )
}

/// Events of the experiment in the input format of `splitstream replay`.
#[derive(Default)]
struct Lines {
    text: String,
    number: u128,
}

impl Lines {
    fn push(&mut self, event: &Value) {
        self.number += 1;
        let mut event = event.clone();
        event["event_id"] =
            Uuid::from_u128(0x0191_e3a0_0000_7000_8000_0000_0000_0000 | self.number).to_string().into();
        event["unit_type"] = "user".into();
        writeln!(self.text, "{event}").unwrap();
    }

    fn expose(&mut self, unit: &str, variant: &str, phase: u32, environment: &str, reason: &str) {
        self.push(&serde_json::json!({
            "type": "exposure", "experiment": "checkout", "unit_id": unit, "variant": variant, "phase": phase,
            "environment": environment, "reason": reason, "created_at": "2026-01-01T00:00:00Z",
        }));
    }

    fn buy(&mut self, unit: &str, environment: &str) {
        self.push(&serde_json::json!({
            "type": "conversion", "name": "purchase", "unit_id": unit, "environment": environment,
            "created_at": "2026-01-01T01:00:00Z",
        }));
    }
}

fn analyze(platform: &Platform) -> Value {
    let output = platform.program(&["analyze", "--json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["experiments"][0].clone()
}

/// The units and conversions of `a` and of `b`.
fn counted(document: &Value) -> [(u64, u64); 2] {
    let of = |index: usize| {
        let variant = &document["variants"][index];
        (variant["units"].as_u64().unwrap(), variant["conversions"].as_u64().unwrap())
    };
    [of(0), of(1)]
}

#[test]
fn phases_environments_and_reasons_are_counted_as_the_definition_states() {
    let platform = Platform::up().unwrap();
    platform.apply("kind: metric\nkey: purchase\nevent: purchase\ntype: conversion\n").unwrap();
    platform.apply(&definitions("running", (5_000, 5_000), "")).unwrap();
    platform.apply(&definitions("running", (5_000, 2_500), "")).unwrap();
    let _consumer = platform.consumer(&[]).unwrap();

    let mut lines = Lines::default();
    for unit in 0..20 {
        let variant = if unit % 2 == 0 { "a" } else { "b" };
        lines.expose(&format!("one-{unit}"), variant, 1, "production", "split");
    }
    for unit in 0..12 {
        let variant = if unit % 3 == 2 { "b" } else { "a" };
        lines.expose(&format!("two-{unit}"), variant, 2, "canary", "split");
    }
    lines.buy("one-0", "production");
    lines.buy("two-2", "canary");
    // Another environment, forced, and held out: none of these units is counted, nor are their conversions.
    lines.expose("elsewhere", "b", 2, "staging", "split");
    lines.buy("elsewhere", "production");
    lines.buy("one-2", "staging");
    lines.expose("forced", "b", 2, "production", "split");
    lines.expose("forced", "a", 2, "production", "forced");
    lines.buy("forced", "production");
    lines.expose("held-out", "a", 2, "production", "held_out");
    // A later exposure with buckets, though the experiment is assigned elsewhere: mismatched, and it moves no number.
    lines.push(&serde_json::json!({
        "type": "exposure", "experiment": "checkout", "unit_id": "two-0", "variant": "a", "phase": 2,
        "buckets": {"slot": 1, "rollout": 2, "variant": 3}, "environment": "canary",
        "created_at": "2026-01-01T00:00:01Z",
    }));
    // A phase that does not exist yet.
    lines.expose("early", "b", 3, "production", "split");
    lines.buy("held-out", "production");
    // A time in the future: the event is stored, and counted when its time has come.
    lines.push(&serde_json::json!({
        "type": "conversion", "name": "purchase", "unit_id": "one-0", "environment": "canary",
        "created_at": FAR_AHEAD,
    }));
    let file = platform.path("events.jsonl");
    std::fs::write(&file, &lines.text).unwrap();
    platform.stack().run(&["replay", &file.display().to_string()]).unwrap();
    let clickhouse = platform.clickhouse();
    wait_until("the rows", TIMEOUT, POLL, || {
        let exposures = clickhouse.number("SELECT count() FROM exposures", &[])?;
        let conversions = clickhouse.number("SELECT count() FROM conversions", &[])?;
        Ok((exposures, conversions) == (38, 7))
    })
    .unwrap();

    let document = analyze(&platform);
    assert_eq!(counted(&document), [(18, 1), (14, 1)]);
    let apart = ["units_forced", "units_forced_later", "units_left_out", "units_of_unknown_phases"]
        .map(|name| document[name].as_u64());
    assert_eq!(apart, [Some(1), Some(1), Some(0), Some(1)]);
    let later = (&document["events_after_as_of"], &document["first_event_after_as_of"]);
    assert_eq!(later, (&Value::from(1), &Value::from(FAR_AHEAD)));
    let phases: Vec<(u64, u64)> = document["srm"]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| (of["phase"].as_u64().unwrap(), of["units"].as_u64().unwrap()))
        .collect();
    assert_eq!(phases, [(1, 20), (2, 12)]);
    let verification = document["verification"].as_array().unwrap().iter().map(|of| {
        ["exposures_mismatched", "exposures", "units_mismatched", "units"]
            .map(|name| of[name].as_u64().unwrap())
    });
    assert_eq!(verification.collect::<Vec<_>>(), [[0, 20, 0, 20], [1, 15, 0, 13]]);
    assert_eq!(document["test"]["across_phases"]["splits"], 2);
    // The view gives the same numbers in SQL.
    let view = "SELECT variant, uniqExactIf(user_id, event_type = 'exposure'), uniqExactIf(user_id, event_type = \
                'conversion') FROM experiment_events WHERE experiment_id = 'checkout' GROUP BY variant ORDER BY variant";
    assert_eq!(clickhouse.text(view, &[]).unwrap().trim(), "a\t18\t1\nb\t15\t1");
    // So does the query that the document contains.
    let query = document["sql"][0]["query"].as_str().unwrap();
    let again = clickhouse.text(query, &[]).unwrap();
    let sum = |column: usize| -> u64 {
        again.lines().map(|line| line.split('\t').nth(column).unwrap().parse::<u64>().unwrap()).sum()
    };
    // Columns 4, 5, 6 and 12 are units, units_forced, units_forced_later and units with an event; variant, phase,
    // whether their windows have closed and the time of ingestion come before them.
    assert_eq!((sum(4), sum(5), sum(6), sum(12)), (33, 1, 1, 2));

    // The owner excludes the first phase.
    let excluded = "excluded_phases:\n  - { phase: 1, reason: the split was off }\n";
    platform.apply(&definitions("running", (5_000, 2_500), excluded)).unwrap();
    wait_until("the definition", TIMEOUT, POLL, || {
        Ok(clickhouse.number("SELECT count() FROM definition_log WHERE accepted", &[])? == 4)
    })
    .unwrap();
    let document = analyze(&platform);
    assert_eq!(counted(&document), [(8, 0), (4, 1)]);
    assert_eq!(document["units_left_out"], 20);
    assert_eq!(document["test"]["across_phases"], Value::Null);
}
