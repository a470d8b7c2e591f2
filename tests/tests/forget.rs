//! Forgetting on the real parts: invalid ids are refused at the command line and in events, rows that an
//! older build deleted for an empty id are restored, and a consumer that cannot apply the ledger stores
//! nothing.

use std::process::Stdio;
use std::time::Duration;

use local::process::spawn_bound;
use schemas::topics::{ALIASES, CONVERSIONS, EXPOSURES};
use schemas::{Event, avro};
use serde_json::{Value, json};
use tests::oracle::dead_letters;
use tests::platform::wait_until;
use tests::topic::{self, Position};
use tests::{Platform, platform};

const TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
const KEY: (&str, &str) = ("SPLITSTREAM_CONSUMER__FORGET_KEY", "0123456789abcdef0123456789abcdef");
const PARTITION: u16 = 0;

fn id(number: u32) -> String {
    format!("0191e3a0-0000-7000-8000-{number:012}")
}

/// An event with the fields of `more`; its own unit is "u" and its number.
fn event(kind: &str, number: u32, more: Value) -> Vec<u8> {
    let mut event = json!({"type": kind, "event_id": id(number), "created_at": "2026-01-01T00:00:00Z"});
    let own = match kind {
        "alias" => json!({"from": {"unit_type": "device", "unit_id": "d"},
                          "to": {"unit_type": "user", "unit_id": "u"}}),
        "exposure" => json!({"experiment": "e", "variant": "a", "unit_type": "user",
                             "unit_id": format!("u{number}")}),
        _ => json!({"name": "buy", "unit_type": "user", "unit_id": format!("u{number}")}),
    };
    for fields in [own, more] {
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    avro::encode(&serde_json::from_value::<Event<'_>>(event).unwrap())
}

fn wait_for(platform: &Platform, table: &str, rows: u64) {
    let sql = "SELECT count() FROM {table:Identifier}";
    wait_until("the rows", TIMEOUT, POLL, || {
        Ok(platform.clickhouse().number(sql, &[("table", table)])? == rows)
    })
    .unwrap();
}

/// Runs a command of the consumer with the key. Returns its exit code, standard output as JSON, and standard
/// error.
fn consumer(platform: &Platform, arguments: &[&str]) -> (i32, Value, String) {
    let mut command = platform.stack().command(arguments).unwrap();
    command.envs(platform::SMALL_BATCHES.iter().copied()).envs([KEY]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn_bound(command).unwrap().wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        String::from_utf8(output.stderr).unwrap(),
    )
}

const EVENTS: &str = "SELECT * FROM (SELECT event_id, kafka_partition, kafka_offset FROM conversions \
                      UNION ALL SELECT event_id, kafka_partition, kafka_offset FROM exposures) \
                      ORDER BY event_id FORMAT TSV";

#[test]
fn an_empty_id_is_refused_and_rows_that_an_older_build_deleted_for_it_are_restored() {
    let platform = Platform::up().unwrap();
    let running = platform.consumer(&[KEY]).unwrap();
    let mut conversions: Vec<Vec<u8>> =
        (1..11).map(|number| event("conversion", number, json!({}))).collect();
    conversions.extend(
        (11..21).map(|number| {
            event("conversion", number, json!({"other_ids": {"device": format!("d{number}")}}))
        }),
    );
    let exposures: Vec<Vec<u8>> = (21..26).map(|number| event("exposure", number, json!({}))).collect();
    topic::write(platform.brokers(), CONVERSIONS, PARTITION, &conversions).unwrap();
    topic::write(platform.brokers(), EXPOSURES, PARTITION, &exposures).unwrap();
    wait_for(&platform, "conversions", 20);
    wait_for(&platform, "exposures", 5);
    let clickhouse = platform.clickhouse();
    let whole = clickhouse.text(EVENTS, &[]).unwrap();

    let refused = "error: wrong usage: nothing was deleted, since no unit can be called so: unit_id: 0 bytes is not \
                   in 1 to 256\n";
    for unit_type in ["user", "device", "visitor"] {
        let (code, _, stderr) = consumer(&platform, &["forget", "--unit-type", unit_type, "--", ""]);
        assert_eq!((code, stderr.as_str()), (2, refused));
    }
    assert_eq!(clickhouse.text(EVENTS, &[]).unwrap(), whole);
    assert_eq!(clickhouse.number("SELECT count() FROM forgotten", &[]).unwrap(), 0);
    running.stop().unwrap();

    // What older builds did at that request: they recorded the ends of the batches, entered HMAC-SHA-256 of
    // the type, a zero byte and the empty id, and deleted every row.
    for statement in [
        "INSERT INTO batch_ends (table_name, kafka_partition, epoch, batch_last) \
         SELECT 'conversions', kafka_partition, epoch, max(batch_last) FROM conversions GROUP BY ALL \
         UNION ALL SELECT 'exposures', kafka_partition, epoch, max(batch_last) FROM exposures GROUP BY ALL",
        "INSERT INTO forgotten (unit_hash, key_check, unit_type, forgotten_at) VALUES \
         ('28293d25ca1055bcc1f2441da3649cb6bc8876b9957a0219adc2b341362146b6', 'a03fa4f9bc315278', 'user', now64(6))",
        "ALTER TABLE conversions DELETE WHERE true SETTINGS mutations_sync = 2",
        "ALTER TABLE exposures DELETE WHERE true SETTINGS mutations_sync = 2",
    ] {
        clickhouse.text(statement, &[]).unwrap();
    }
    let (code, report, _) = consumer(&platform, &["audit", "--json"]);
    assert_eq!((code, &report["holes"]), (6, &json!(25)), "{report}");
    let (code, report, _) = consumer(&platform, &["audit", "--json", "--heal"]);
    assert_eq!((code, &report["holes"], &report["healed"]), (0, &json!(0), &json!(25)), "{report}");
    assert_eq!(clickhouse.text(EVENTS, &[]).unwrap(), whole);

    // The entry does not hide new events either.
    let _running = platform.consumer(&[KEY]).unwrap();
    let more = event("conversion", 26, json!({"other_ids": {"device": "d"}}));
    topic::write(platform.brokers(), CONVERSIONS, PARTITION, &[more]).unwrap();
    wait_for(&platform, "conversions", 21);
}

#[test]
fn events_with_invalid_ids_are_dead_letters() {
    let platform = Platform::up().unwrap();
    let long = "u".repeat(257);
    let unit = |id: &str| json!({"unit_id": id});
    let others = |id: &str| json!({"other_ids": {"device": id}});
    let side = |side: &str, id: &str| json!({side: {"unit_type": "user", "unit_id": id}});
    let bytes = |field: &str, bytes: usize| format!("{field}: {bytes} bytes is not in 1 to 256");
    let topics = [
        (
            EXPOSURES,
            "exposure",
            vec![
                (unit(""), bytes("unit_id", 0)),
                (unit(&long), bytes("unit_id", 257)),
                (others(""), bytes("other_ids", 0)),
                (others(&long), bytes("other_ids", 257)),
            ],
        ),
        (
            CONVERSIONS,
            "conversion",
            vec![
                (unit(""), bytes("unit_id", 0)),
                (unit(&long), bytes("unit_id", 257)),
                (others(""), bytes("other_ids", 0)),
                (others(&long), bytes("other_ids", 257)),
            ],
        ),
        (
            ALIASES,
            "alias",
            vec![
                (side("from", ""), bytes("from.unit_id", 0)),
                (side("from", &long), bytes("from.unit_id", 257)),
                (side("to", ""), bytes("to.unit_id", 0)),
                (side("to", &long), bytes("to.unit_id", 257)),
            ],
        ),
    ];
    for (topic, kind, refused) in &topics {
        let mut messages: Vec<Vec<u8>> =
            refused.iter().zip(1..).map(|((more, _), number)| event(kind, number, more.clone())).collect();
        // The longest valid id.
        messages.push(match *kind {
            "alias" => event(kind, 9, side("to", &long[1..])),
            _ => event(kind, 9, unit(&long[1..])),
        });
        topic::write(platform.brokers(), topic, PARTITION, &messages).unwrap();
    }
    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.dead_letters), (15, 3, 12));

    let letters = dead_letters(platform.brokers()).unwrap();
    for (topic, _, refused) in &topics {
        for (offset, (_, reason)) in (0..).zip(refused) {
            let letter = &letters[&((*topic).to_owned(), Position { partition: PARTITION, offset })];
            assert_eq!((letter.code.as_str(), &letter.reason), ("out_of_range", reason), "{topic}/{offset}");
        }
    }
}

#[test]
fn a_consumer_that_cannot_apply_the_ledger_stores_nothing() {
    let platform = Platform::up().unwrap();
    let keyless = platform.consumer(&[]).unwrap();
    let (code, deleted, stderr) =
        consumer(&platform, &["forget", "--unit-type", "user", "--json", "--", "u1"]);
    assert_eq!((code, &deleted["conversions"]), (0, &json!(0)), "{stderr}");
    wait_until("its end", TIMEOUT, POLL, || Ok(keyless.ended()?.is_some())).unwrap();
    let log = std::fs::read_to_string(keyless.log_path()).unwrap();
    assert!(log.contains("the ledger of forgotten units cannot be heeded"), "{log}");

    let events = [event("conversion", 1, json!({})), event("conversion", 2, json!({}))];
    topic::write(platform.brokers(), CONVERSIONS, PARTITION, &events).unwrap();
    keyless.spawn().unwrap();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    wait_until("the reason in /readyz", TIMEOUT, POLL, || {
        let mut answer = agent.get(format!("{}/readyz", keyless.url())).call()?;
        let body = answer.body_mut().read_to_string()?;
        Ok(answer.status() == 503 && body.contains("there are forgotten units, and no key"))
    })
    .unwrap();
    assert_eq!(platform.clickhouse().number("SELECT count() FROM conversions", &[]).unwrap(), 0);
    keyless.stop().unwrap();

    let _with_key = platform.consumer(&[KEY]).unwrap();
    wait_for(&platform, "conversions", 1);
    assert_eq!(platform.clickhouse().text("SELECT unit_id FROM conversions", &[]).unwrap(), "u2");
}
