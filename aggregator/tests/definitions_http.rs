//! Definitions that are read and changed over HTTP, on a real log: whose change is accepted, what the others are told,
//! and that nothing else is written.

mod served;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use served::{Aggregator, Answer, Topics};

const TOKENS: &str = "SPLITSTREAM_AGGREGATOR__WRITE_TOKENS";
const ANN: (&str, &str) = ("authorization", "Bearer ann-0123456789abcdef");
const BOB: (&str, &str) = ("authorization", "Bearer bob-0123456789abcdef");
const WRITERS: (&str, &str) = (TOKENS, "ann:ann-0123456789abcdef bob:bob-0123456789abcdef");
const REASON: (&str, &str) = ("x-splitstream-reason", "caf%C3%A9");
const NEW: (&str, &str) = ("if-none-match", "*");

const PURCHASE: &str = "/api/v1/definitions/metric/purchase";
const CHECKOUT: &str = "/api/v1/definitions/experiment/checkout";

fn purchase() -> String {
    json!({"kind": "metric", "key": "purchase", "event": "purchase", "type": "conversion"}).to_string()
}

fn checkout(state: &str, alpha: f64) -> String {
    let variants = json!([{"key": "control", "weight": 5_000}, {"key": "treatment", "weight": 5_000}]);
    json!({
        "kind": "experiment", "key": "checkout", "state": state, "variants": variants, "control": "control",
        "metrics": {"primary": "purchase"}, "plan": {"alpha": alpha},
    })
    .to_string()
}

fn layer(key: &str, owner: &str) -> String {
    json!({"kind": "layer", "key": key, "owner": owner}).to_string()
}

/// The fields of an answer's body, by JSON pointer.
fn fields<const N: usize>(answer: &Answer, pointers: [&str; N]) -> [Value; N] {
    pointers.map(|pointer| answer.body.pointer(pointer).cloned().unwrap_or_default())
}

/// How many records the log has, whatever they are.
fn records(topics: &Topics) -> usize {
    let log: Vec<Value> = serde_json::from_str(&topics.run(&["definitions", "log", "--json"])).unwrap();
    log.len()
}

#[test]
fn a_definition_is_created_read_and_changed_and_its_history_names_the_author() {
    let topics = Topics::new("story");
    let server = topics.serve("a", &[WRITERS]);
    let created = server.put(PURCHASE, &[ANN, REASON, NEW], &purchase());
    assert_eq!((created.status, created.tag.as_deref()), (201, Some("\"1\"")), "{created:?}");
    // A body that is sent twice changes nothing, and the log keeps it once.
    let same = server.put(PURCHASE, &[BOB, REASON, ("if-match", "\"1\"")], &purchase());
    assert_eq!((same.status, same.tag.as_deref()), (200, Some("\"1\"")), "{same:?}");
    assert_eq!(fields(&same, ["/verdict"]), [json!("unchanged")]);

    let created = server.put(CHECKOUT, &[ANN, REASON, NEW], &checkout("running", 0.05));
    assert_eq!((created.status, created.tag.as_deref()), (201, Some("\"2\"")), "{created:?}");
    let read = server.get(CHECKOUT, &[]);
    assert_eq!((read.status, read.tag.as_deref()), (200, Some("\"2\"")), "{read:?}");
    // Whoever has this version is not sent it again.
    let (list, history) = ("/api/v1/definitions", format!("{CHECKOUT}/history"));
    for path in [CHECKOUT, list, &history] {
        let known = server.get(path, &[("if-none-match", "\"1\", \"2\"")]);
        assert_eq!(
            (known.status, known.tag.as_deref(), &known.body),
            (304, Some("\"2\""), &Value::Null),
            "{path}"
        );
        assert_eq!(server.get(path, &[("if-none-match", "\"1\"")]).status, 200, "{path}");
    }
    assert_eq!(
        fields(&read, ["/kind", "/key", "/version", "/state", "/phase", "/author", "/reason"]),
        [
            json!("experiment"),
            json!("checkout"),
            json!(2),
            json!("running"),
            json!(1),
            json!("ann"),
            json!("café")
        ]
    );

    // What was read is the body of the next change.
    let mut document = read.body["definition"].clone();
    document["state"] = json!("stopped");
    let stopped = server.put(CHECKOUT, &[BOB, REASON, ("if-match", "\"2\"")], &document.to_string());
    assert_eq!((stopped.status, stopped.tag.as_deref()), (200, Some("\"3\"")), "{stopped:?}");
    assert_eq!(
        stopped.body,
        json!({
            "verdict": "accepted", "kind": "experiment", "key": "checkout", "version": 3,
            "state": "stopped", "phase": 1,
            "changed": [{"field": "state", "before": "running", "after": "stopped"}],
            "definition": document,
        })
    );

    let history = server.get(&format!("{CHECKOUT}/history"), &[]);
    let printed: Value = serde_json::from_str(&topics.run(&["history", "checkout", "--json"])).unwrap();
    assert_eq!((history.status, &history.body), (200, &printed));
    let said = |at: usize| {
        let change = &printed["changes"][at];
        ["version", "author", "reason", "state"].map(|field| change[field].clone())
    };
    assert_eq!(said(0), [json!(2), json!("ann"), json!("café"), json!("running")]);
    assert_eq!(said(1), [json!(3), json!("bob"), json!("café"), json!("stopped")]);

    // What another program writes is seen by the next request.
    topics.apply("{kind: layer, key: shop}");
    let list = server.get("/api/v1/definitions", &[]);
    assert_eq!(
        list.body,
        json!({"version": 4, "definitions": [
            {"kind": "experiment", "key": "checkout", "version": 3, "state": "stopped", "phase": 1},
            {"kind": "layer", "key": "shop", "version": 4},
            {"kind": "metric", "key": "purchase", "version": 1},
        ]})
    );
    for missing in
        ["metric/nothing", "flag/checkout", "flag/checkout/history", "widget/checkout", "metric/a%20b"]
    {
        let answer = server.get(&format!("/api/v1/definitions/{missing}"), &[]);
        assert_eq!(answer.status, 404, "{missing}: {answer:?}");
    }
}

/// Puts one change at each server at the same moment, as ann and as bob.
fn race(
    servers: [&Aggregator; 2],
    path: &str,
    precondition: (&str, &str),
    key: &str,
) -> [(&'static str, Answer); 2] {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let writers = [("ann", ANN, servers[0]), ("bob", BOB, servers[1])].map(|(author, token, server)| {
            let start = &start;
            let writer = scope.spawn(move || {
                start.wait();
                server.put(path, &[token, REASON, precondition], &layer(key, author))
            });
            (author, writer)
        });
        writers.map(|(author, writer)| (author, writer.join().unwrap()))
    })
}

/// Returns the version and the author of the winner; the other was told them.
fn winner(outcomes: [(&'static str, Answer); 2], success: u16) -> (u64, &'static str) {
    let statuses = [outcomes[0].1.status, outcomes[1].1.status];
    let (won, lost) = if statuses == [success, 412] { (0, 1) } else { (1, 0) };
    assert_eq!((statuses[won], statuses[lost]), (success, 412), "{outcomes:?}");
    let (author, accepted) = &outcomes[won];
    let version = accepted.body["version"].as_u64().unwrap();
    assert_eq!(
        fields(&outcomes[lost].1, ["/current/version", "/current/author", "/current/reason"]),
        [json!(version), json!(author), json!("café")],
        "{outcomes:?}"
    );
    (version, author)
}

#[test]
fn of_two_writers_with_one_version_exactly_one_wins() {
    let topics = Topics::new("race");
    let (first, second) = (topics.serve("a", &[WRITERS]), topics.serve("b", &[WRITERS]));
    // At one server the requests take turns, at two the order of the log decides.
    for (round, servers) in [[&first, &first], [&first, &second], [&second, &first]].into_iter().enumerate() {
        let key = format!("layer-{round}");
        let path = format!("/api/v1/definitions/layer/{key}");
        let (mut version, _) = winner(race(servers, &path, NEW, &key), 201);
        for _ in 0..3 {
            // The owner is the last winner, so the next change is of the other one or of nobody.
            let tag = format!("\"{version}\"");
            let reset = servers[0].put(&path, &[ANN, REASON, ("if-match", &tag)], &layer(&key, "nobody"));
            let tag = reset.tag.unwrap();
            let (won, author) = winner(race(servers, &path, ("if-match", &tag), &key), 200);
            let read = second.get(&path, &[]);
            assert_eq!(
                fields(&read, ["/version", "/author", "/definition/owner"]),
                [json!(won), json!(author), json!(author)]
            );
            version = won;
        }
    }
}

#[test]
fn what_is_refused_is_told_and_not_written() {
    let topics = Topics::new("refused");
    let server = topics.serve("a", &[WRITERS]);
    assert_eq!(server.put(PURCHASE, &[ANN, REASON, NEW], &purchase()).status, 201);
    assert_eq!(server.put(CHECKOUT, &[ANN, REASON, NEW], &checkout("running", 0.05)).status, 201);
    let before = records(&topics);

    let current = ("if-match", "\"2\"");
    let other_plan = checkout("running", 0.1);
    let refused = server.put(CHECKOUT, &[ANN, REASON, current], &other_plan);
    let what = "cannot change any more, for the looks so far were taken and spent alpha by the former one; clone it \
                under another key";
    assert_eq!(
        (refused.status, &refused.body),
        (
            422,
            &json!({"error": format!("refused: plan: {what}"), "problems": [{"field": "plan", "what": what}]})
        )
    );

    let stopped = checkout("stopped", 0.05);
    let rehearsed = server.put(&format!("{CHECKOUT}?dry_run=true"), &[ANN, REASON, current], &stopped);
    assert_eq!((rehearsed.status, rehearsed.tag.as_deref()), (200, None), "{rehearsed:?}");
    assert_eq!(
        rehearsed.body,
        json!({
            "verdict": "would_be_accepted", "kind": "experiment", "key": "checkout",
            "changed": [{"field": "state", "before": "running", "after": "stopped"}],
        })
    );
    let rehearsed = server.put(&format!("{CHECKOUT}?dry_run=true"), &[ANN, REASON, current], &other_plan);
    assert_eq!(rehearsed.status, 422, "{rehearsed:?}");

    let stale = server.put(CHECKOUT, &[ANN, REASON, ("if-match", "\"1\"")], &stopped);
    assert_eq!(
        (stale.status, fields(&stale, ["/error", "/current/version", "/current/author"])),
        (
            412,
            [
                json!("`checkout` has moved on: the change is based on version 1, the current one is 2"),
                json!(2),
                json!("ann"),
            ]
        )
    );
    let there = server.put(CHECKOUT, &[ANN, REASON, NEW], &stopped);
    assert_eq!((there.status, &there.body["current"]["version"]), (412, &json!(2)));
    let missing = server.put("/api/v1/definitions/layer/l", &[ANN, REASON, current], &layer("l", ""));
    assert_eq!((missing.status, &missing.body["current"]), (412, &Value::Null));
    // A flag cannot have the key of an experiment.
    let flag = json!({
        "kind": "flag", "key": "checkout", "value_type": "boolean", "default_variant": "on",
        "variants": [{"key": "on", "value": true}],
    });
    let taken = server.put("/api/v1/definitions/flag/checkout", &[ANN, REASON, NEW], &flag.to_string());
    assert_eq!((taken.status, &taken.body["problems"][0]["field"]), (422, &json!("kind")), "{taken:?}");

    for (status, path, headers, body) in [
        (428, CHECKOUT, &[ANN, REASON][..], stopped.as_str()),
        (400, CHECKOUT, &[ANN, current], &stopped),
        (400, CHECKOUT, &[ANN, REASON, ("if-match", "2")], &stopped),
        (400, CHECKOUT, &[ANN, REASON, current], "{"),
        (400, CHECKOUT, &[ANN, REASON, current], &purchase()),
        // A misspelled `dry_run` would write.
        (400, &format!("{CHECKOUT}?dryrun=true"), &[ANN, REASON, current], &stopped),
        (400, &format!("{CHECKOUT}?dry_run=1"), &[ANN, REASON, current], &stopped),
        (401, CHECKOUT, &[REASON, current], &stopped),
        (401, CHECKOUT, &[("authorization", "Bearer nobody-0123456789abcdef"), REASON, current], &stopped),
        // ann's token as the password of basic authentication.
        (
            401,
            CHECKOUT,
            &[("authorization", "Basic YW5uOmFubi0wMTIzNDU2Nzg5YWJjZGVm"), REASON, current],
            &stopped,
        ),
        (422, CHECKOUT, &[ANN, ("x-splitstream-reason", "%20"), current], &stopped),
    ] {
        let answer = server.put(path, headers, body);
        assert_eq!(answer.status, status, "{path} {headers:?} {body}: {answer:?}");
        assert!(answer.body["error"].is_string(), "{answer:?}");
    }
    // The author is the token's name and nothing else.
    let forged = stopped.replacen('{', r#"{"author": "root","#, 1);
    let answer = server.put(CHECKOUT, &[ANN, REASON, current], &forged);
    assert_eq!((answer.status, &answer.body["problems"][0]["field"]), (400, &json!("author")), "{answer:?}");

    assert_eq!(large_body(&server), "HTTP/1.1 413 Payload Too Large");
    assert_eq!(records(&topics), before);
    assert_eq!(server.get(CHECKOUT, &[]).tag.as_deref(), Some("\"2\""));
}

/// Sends a body of 10 MB and returns the first line of the answer. The server may close the connection before all
/// of it is sent.
fn large_body(server: &Aggregator) -> String {
    const BYTES: usize = 10 << 20;
    let mut connection = TcpStream::connect(server.address()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (name, value) = ANN;
    let head = format!(
        "PUT {CHECKOUT} HTTP/1.1\r\nhost: a\r\n{name}: {value}\r\nif-match: \"2\"\r\n{}: {}\r\ncontent-length: {BYTES}\r\n\r\n",
        REASON.0, REASON.1
    );
    connection.write_all(head.as_bytes()).unwrap();
    let _ = connection.write_all(&vec![b' '; BYTES]);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn who_may_not_write_is_told_why() {
    let topics = Topics::new("access");
    let open = topics.serve("open", &[]);
    let denied = open.put(PURCHASE, &[ANN, REASON, NEW], &purchase());
    assert_eq!(
        (denied.status, &denied.body["error"]),
        (
            403,
            &json!(
                "nobody may write here: aggregator.write_tokens_file is not set; it holds a `name:token` a line"
            )
        )
    );
    assert_eq!(open.get("/api/v1/definitions", &[]).body, json!({"version": 0, "definitions": []}));

    let reader = ("authorization", "Bearer reader-0123456789abcdef");
    let settings = [
        WRITERS,
        ("SPLITSTREAM_HTTP__TOKEN", "reader-0123456789abcdef"),
        ("SPLITSTREAM_AGGREGATOR__WRITES_PER_MINUTE", "2"),
    ];
    let guarded = topics.serve("guarded", &settings);
    // Who reads does not write, and who writes does not read.
    assert_eq!(guarded.get("/api/v1/definitions", &[reader]).status, 200);
    assert_eq!(guarded.put(PURCHASE, &[reader, REASON, NEW], &purchase()).status, 401);
    assert_eq!(guarded.get("/api/v1/definitions", &[ANN]).status, 401);
    assert_eq!(guarded.get("/api/v1/definitions", &[]).status, 401);
    assert_eq!(records(&topics), 0);

    assert_eq!(guarded.put(PURCHASE, &[ANN, REASON, NEW], &purchase()).status, 201);
    assert_eq!(guarded.put(PURCHASE, &[ANN, REASON, NEW], &purchase()).status, 412);
    assert_eq!(guarded.put(PURCHASE, &[ANN, REASON, NEW], &purchase()).status, 429);
    assert_eq!(guarded.put(PURCHASE, &[BOB, REASON, ("if-match", "\"1\"")], &purchase()).status, 200);
}
