//! The edge while Kafka is away: it answers from memory and from its snapshot on disk, and says that the answers may be old.

use std::time::Duration;

use serde_json::json;

use crate::edge_fixture::{DEFINITIONS, Fixture, SERVER_TOKEN, send, within};

const CONVERSION: &str = r#"{"events": [{"event_id": "019c1360-2c7b-7000-8000-000000000001", "type": "conversion",
    "key": "purchase", "targetingKey": "u1"}]}"#;

#[test]
fn it_keeps_answering_says_so_and_recovers() {
    let fixture = Fixture::alone("away");
    fixture.apply(DEFINITIONS);
    let snapshot = fixture.path("snapshot").display().to_string();
    let settings = [
        ("SPLITSTREAM_EDGE__SNAPSHOT_FILE", snapshot.as_str()),
        ("SPLITSTREAM_EDGE__STALE_AFTER_MS", "2500"),
        ("SPLITSTREAM_EDGE__TRACK_TIMEOUT_MS", "300"),
    ];
    let edge = fixture.edge(&settings);
    let context = r#"{"targetingKey": "u1", "age": 20}"#;
    let before = edge.bulk(context, &[]);
    let tag = before.header("etag").unwrap().to_owned();
    assert_eq!(before.header("x-splitstream-stale"), None);

    // Kafka goes away.
    fixture.stack().kill_kafka(0).unwrap();
    within(30, "the answers say that they may be old", || {
        edge.bulk(context, &[]).header("x-splitstream-stale") == Some("kafka")
    });
    let again = edge.bulk(context, &[("if-none-match", &tag)]);
    assert_eq!((again.status, again.header("x-splitstream-stale")), (304, Some("kafka")));
    assert_eq!(edge.single("checkout", context).json()["metadata"]["exposure_logged"], true);
    let ready = edge.private("/readyz");
    assert_eq!(ready.status, 200);
    let check = ready.json()["checks"]["definitions"].as_str().unwrap().to_owned();
    assert!(check.starts_with("ok, but kafka does not answer; version "), "{check}");
    assert_eq!(edge.metric("splitstream_edge_stale{"), 1.0);

    // An edge that starts now serves its snapshot, with the same tags.
    edge.service.kill().unwrap();
    edge.service.start().unwrap();
    let restarted = edge.bulk(context, &[]);
    assert_eq!((restarted.status, restarted.header("x-splitstream-stale")), (200, Some("snapshot")));
    assert_eq!(restarted.json(), before.json());
    assert_eq!(restarted.header("etag"), Some(tag.as_str()));
    let ready = edge.private("/readyz").json();
    let check = ready["checks"]["definitions"].as_str().unwrap();
    assert!(check.contains("as it was on disk"), "{check}");

    // A snapshot that is older than what a client has seen.
    let own = before.json()["metadata"]["version"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = own.split('.').collect();
    let newer = format!("{}.{}.0", parts[0], parts[1].parse::<u64>().unwrap() + 1);
    let path = format!("/ofrep/v1/evaluate/flags?flagConfigEtag=%22{newer}%22");
    let old = edge.post_with(&path, &format!(r#"{{"context": {context}}}"#), &[("if-none-match", &tag)]);
    assert_eq!((old.status, old.header("x-splitstream-stale")), (200, Some("snapshot")));

    // Events are accepted once the spool has them.
    let tracked = edge.post("/ofrep/v1/track", CONVERSION);
    assert_eq!(tracked.status, 200, "{tracked:?}");
    assert_eq!(tracked.json()["events"][0]["status"], "accepted");

    // Without a snapshot either there is nothing to answer.
    edge.service.kill().unwrap();
    std::fs::rename(&snapshot, fixture.path("moved")).unwrap();
    edge.service.spawn().unwrap();
    let listens = || std::panic::catch_unwind(|| edge.bulk("{}", &[]).status == 503).unwrap_or(false);
    within(30, "it listens again", listens);
    let empty = edge.single("checkout", context);
    assert_eq!((empty.status, empty.header("retry-after")), (503, Some("1")), "{empty:?}");
    assert_eq!(
        (&empty.json()["errorCode"], &empty.json()["key"]),
        (&json!("PROVIDER_NOT_READY"), &json!("checkout"))
    );
    let bulk = edge.bulk("{}", &[]);
    assert_eq!((bulk.status, bulk.json()["errorCode"].clone()), (503, json!("PROVIDER_NOT_READY")));
    assert_eq!(edge.private("/readyz").status, 503);
    assert_eq!(edge.private("/healthz").status, 200);

    // Kafka comes back.
    fixture.stack().start_kafka(0).unwrap();
    within(60, "the answers are current", || {
        let answer = edge.bulk(context, &[]);
        answer.status == 200 && answer.header("x-splitstream-stale").is_none()
    });
    within(30, "events are accepted", || edge.post("/ofrep/v1/track", CONVERSION).status == 200);
    assert!(std::path::Path::new(&snapshot).exists());

    // A damaged snapshot is put aside, and the log is read.
    edge.service.stop().unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    edge.service.start().unwrap();
    assert_eq!(edge.bulk(context, &[]).header("x-splitstream-stale"), None);
    assert!(std::path::Path::new(&format!("{snapshot}.damaged")).exists());
    // It stops in order.
    let url = edge.url();
    assert!(edge.service.stop().unwrap().unwrap().success());
    let stopped = std::panic::catch_unwind(|| send("GET", &url, &[("x-api-key", SERVER_TOKEN)], ""));
    assert!(stopped.is_err());
    std::thread::sleep(Duration::from_millis(1));
}
