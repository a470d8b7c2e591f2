//! Switchbacks and aliases on the real parts: the edge exposes a cluster in a window, the consumer verifies it, and the
//! aggregator counts each window as a unit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::ServiceOptions;
use schemas::Uuid;
use serde_json::{Value, json};
use tests::Platform;
use tests::platform::wait_until;

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const WINDOW: u64 = 3_600;
const BURN_IN: u64 = 600;
/// 2026-01-01T00:00:00Z in seconds, at which a window begins.
const START: u64 = 1_767_225_600;

const DEFINITIONS: &str = "
{ kind: metric, key: ride, event: ride, type: count, window_hours: 1 }
---
kind: experiment
key: surge
state: running
unit_type: region
switchback: { window_seconds: 3600, burn_in_seconds: 600 }
variants: [{ key: a, weight: 50% }, { key: b, weight: 50% }]
control: a
metrics: { primary: ride }
---
kind: experiment
key: weekly
state: running
unit_type: region
switchback: { window_seconds: 604800 }
variants: [{ key: a, weight: 50% }, { key: b, weight: 50% }]
control: a
metrics: { primary: ride }
";

const TOKENS: &str = r#"
[[token]]
name = "shop"
kind = "server"
secret = "server-0123456789abcdef"
"#;

/// An event at so many microseconds after [`START`].
#[derive(Clone, Copy)]
struct Happened {
    region: &'static str,
    micros: u64,
}

fn at(region: &'static str, seconds: u64) -> Happened {
    Happened { region, micros: seconds * 1_000_000 }
}

/// What has been exposed, with the variant, and who has ridden. `us` is never exposed.
fn events() -> (Vec<(Happened, &'static str)>, Vec<Happened>) {
    let exposures = vec![
        (at("eu", 0), "a"),
        (at("eu", 1_200), "a"),
        (at("eu", WINDOW), "b"),
        (at("eu", 2 * WINDOW), "a"),
        (at("asia", 300), "b"),
        (at("asia", WINDOW + 900), "b"),
    ];
    let micros = |region, micros| Happened { region, micros };
    let rides = vec![
        // In the burn-in of the first window, at its end, and at the end of the window.
        at("eu", 0),
        micros("eu", BURN_IN * 1_000_000 - 1),
        at("eu", BURN_IN),
        micros("eu", WINDOW * 1_000_000 - 1),
        // In the burn-in of the next one, and behind it.
        at("eu", WINDOW),
        at("eu", WINDOW + BURN_IN),
        at("eu", WINDOW + BURN_IN + 1),
        // In a window that was not exposed, and in one that was exposed later.
        at("eu", 3 * WINDOW + BURN_IN),
        at("asia", WINDOW + BURN_IN),
        at("asia", WINDOW + 900),
        at("us", BURN_IN),
    ];
    (exposures, rides)
}

/// Units, units with an event and events, by variant: the rule in a few lines.
fn recount() -> BTreeMap<&'static str, (u64, u64, u64)> {
    let (exposures, rides) = events();
    let window_of = |event: &Happened| (event.region, event.micros / 1_000_000 / WINDOW);
    let mut first: BTreeMap<_, (u64, &str)> = BTreeMap::new();
    for (event, variant) in &exposures {
        let earliest = first.entry(window_of(event)).or_insert((event.micros, variant));
        *earliest = (*earliest).min((event.micros, variant));
    }
    let mut counts: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for (window, (exposed_at, variant)) in first {
        let counted = rides.iter().filter(|ride| {
            window_of(ride) == window
                && ride.micros >= exposed_at
                && ride.micros % (WINDOW * 1_000_000) >= BURN_IN * 1_000_000
        });
        let counted = counted.count() as u64;
        let of = counts.entry(variant).or_default();
        *of = (of.0 + 1, of.1 + u64::from(counted > 0), of.2 + counted);
    }
    counts
}

/// The lines of `splitstream replay`.
fn lines() -> String {
    let (exposures, rides) = events();
    let mut text = String::new();
    let mut push = |mut event: Value, micros: u64| {
        let number = text.lines().count() as u128 + 1;
        event["event_id"] =
            json!(Uuid::from_u128(0x0191_e3a0_0000_7000_8000_0000_0000_0000 | number).to_string());
        let created_at = schemas::Micros::new((START * 1_000_000 + micros) as i64).unwrap();
        event["created_at"] = json!(created_at.to_string());
        text += &format!("{event}\n");
    };
    for (Happened { region, micros }, variant) in exposures {
        let start = START + micros / 1_000_000 / WINDOW * WINDOW;
        let exposure = json!({
            "type": "exposure", "experiment": "surge", "variant": variant, "unit_type": "region",
            "unit_id": format!("{region}\0{start}"), "other_ids": {"region": region, "user": "u1"},
        });
        push(exposure, micros);
    }
    for (number, Happened { region, micros }) in rides.into_iter().enumerate() {
        // As the unit itself, or beside a user.
        let mut ride =
            json!({"type": "conversion", "name": "ride", "unit_type": "region", "unit_id": region});
        if number % 2 == 0 {
            ride = json!({"type": "conversion", "name": "ride", "unit_type": "user", "unit_id": "u2",
                          "other_ids": {"region": region}});
        }
        push(ride, micros);
    }
    text
}

#[test]
fn windows_are_units_and_aliases_arrive() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let _consumer = platform.consumer(&[]).unwrap();
    let clickhouse = platform.clickhouse();
    let file = platform.path("events.jsonl");
    std::fs::write(&file, lines()).unwrap();
    platform.stack().run(&["replay", &file.display().to_string()]).unwrap();

    // The edge: what it answers is the unit's, in the window of now.
    let (tokens, port_file) = (platform.path("tokens.toml"), platform.path("edge.port"));
    std::fs::write(&tokens, TOKENS).unwrap();
    let (tokens_text, port_text) = (tokens.display().to_string(), port_file.display().to_string());
    let spool = platform.path("edge-spool").display().to_string();
    let settings = [
        ("SPLITSTREAM_EDGE__TOKEN_FILE", tokens_text.as_str()),
        ("SPLITSTREAM_EDGE__PORT_FILE", &port_text),
        ("SPLITSTREAM_SPOOL__DIRECTORY", &spool),
    ];
    let options = ServiceOptions { settings: &settings, port: None };
    let _edge = platform.stack().service_with("edge", options).unwrap();
    let url = format!("http://{}", std::fs::read_to_string(&port_file).unwrap().trim());
    let post = |path: &str, body: &Value| -> Value {
        let request =
            ureq::post(format!("{url}{path}")).header("Authorization", "Bearer server-0123456789abcdef");
        let mut answer = request.send(body.to_string()).unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    };
    let served =
        post("/ofrep/v1/evaluate/flags/weekly", &json!({"context": {"targetingKey": "u3", "region": "eu"}}));
    let anonymous = json!({"unit_type": "device", "unit_id": "d\0 1"});
    let known = json!({"unit_type": "user", "unit_id": "u3"});
    let alias = json!({"type": "alias", "event_id": "019c1360-2c7b-7000-8000-000000000001", "from": anonymous, "to": known});
    let answer = post("/ofrep/v1/track", &json!({"events": [alias]}));
    assert_eq!(answer["events"][0]["status"], "accepted", "{answer}");

    wait_until("the rows", TIMEOUT, POLL, || {
        let count = |table| clickhouse.number("SELECT count() FROM {table:Identifier}", &[("table", table)]);
        Ok((count("exposures")?, count("conversions")?, count("aliases")?) == (7, 11, 1))
    })
    .unwrap();
    // The edge's exposure: verified, in the window of its own time, with its cluster and its member.
    let weekly = "SELECT variant, verification, other_ids['region'], other_ids['user'], unit_id = concat('eu', char(0), \
                  toString(intDiv(toUnixTimestamp(created_at), 604800) * 604800)) FROM exposures WHERE experiment = 'weekly'";
    let variant = served["variant"].as_str().unwrap();
    assert_eq!(clickhouse.text(weekly, &[]).unwrap().trim(), format!("{variant}\tverified\teu\tu3\t1"));
    let aliases = "SELECT replaceAll(from_unit_id, char(0), '@'), from_unit_type, to_unit_id, to_unit_type, environment, \
                   sender_service, toUnixTimestamp64Milli(created_at) FROM aliases";
    assert_eq!(
        clickhouse.text(aliases, &[]).unwrap().trim(),
        format!("d@ 1\tdevice\tu3\tuser\tproduction\tshop\t{}", 0x019c_1360_2c7b_u64)
    );

    // Counted by hand: of `a` the first and the third window of eu, of `b` the second and both of asia.
    let expected = BTreeMap::from([("a", (2, 1, 2)), ("b", (3, 2, 3))]);
    assert_eq!(recount(), expected);
    let output = platform.program(&["analyze", "surge", "--json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let document = &document["experiments"][0];
    for variant in document["variants"].as_array().unwrap() {
        let (units, conversions, _) = expected[variant["key"].as_str().unwrap()];
        assert_eq!(
            (&variant["units"], &variant["conversions"]),
            (&json!(units), &json!(conversions)),
            "{variant}"
        );
    }
    // The query of the document, run again, and the view, say the same; units, units with an event and events are its columns 4, 12 and 13.
    let again = clickhouse.text(document["sql"][0]["query"].as_str().unwrap(), &[]).unwrap();
    let rows: BTreeSet<String> = again
        .lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            [columns[0], columns[4], columns[12], columns[13]].join(" ")
        })
        .collect();
    assert_eq!(rows, ["a 2 1 2", "b 3 2 3"].map(str::to_owned).into());
    let view = "SELECT variant, uniqExactIf(user_id, event_type = 'exposure'), uniqExactIf(user_id, event_type = \
                'conversion'), countIf(event_type = 'conversion') FROM experiment_events WHERE experiment_id = 'surge' \
                GROUP BY variant ORDER BY variant";
    assert_eq!(clickhouse.text(view, &[]).unwrap().trim(), "a\t2\t1\t2\nb\t3\t2\t3");
    // Not one of them is a dead letter, and the audit finds each.
    platform.every_event_once().unwrap();
}
