//! The edge under hostile load, in short: each hostile request gets its exact answer, and good evaluations go on meanwhile. The
//! long form, which compares the times, is `cargo bench -p edge --bench hostile`.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::edge_fixture::{
    CLIENT_TOKEN, DEFINITIONS, Edge, EventStream, Fixture, SERVER_TOKEN, TOKENS, send, within,
};
use crate::hostile_load::{self, Plan, SETTINGS, status_of};

const SINGLE: &str = "/ofrep/v1/evaluate/flags/on-sale";

#[test]
fn good_evaluations_go_on_under_a_hostile_load() {
    let seed = sdk::event::now().get() as u64;
    println!("seed {seed}");
    let fixture = Fixture::new("hostile");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&SETTINGS);
    let plan = Plan {
        seed,
        good_connections: 2,
        good_requests: 300,
        attackers: 2,
        slow_heads: 20,
        slow_bodies: 50,
        idle_connections: 200,
        streams: 50,
    };
    let report = hostile_load::run(&edge, &plan);
    assert_eq!(report.unexpected, Vec::<String>::new(), "seed {seed}");
    for good in [&report.quiet, &report.attacked] {
        assert_eq!((good.micros.len(), &good.errors), (600, &Vec::new()), "seed {seed}");
    }
    // Every kind was sent, and got its answer.
    let kinds = hostile_load::hostile(&mut hostile_load::Random(seed));
    for kind in &kinds {
        assert!(report.answers.contains_key(&(kind.name, kind.status.to_string())), "{}", kind.name);
    }
    assert_eq!(report.answers[&("an event stream at the end", "open".to_owned())], 50);
    for (name, answer) in [("a head byte by byte", "closed"), ("a body byte by byte", "408")] {
        assert!(report.answers.contains_key(&(name, answer.to_owned())), "{:?}", report.answers);
    }
    assert_eq!(
        (edge.private("/healthz").status, edge.metric("splitstream_edge_streams_refused_total")),
        (200, 0.0)
    );
}

/// A connection with a good head, on which one byte of the body has been sent.
fn slow_body(edge: &Edge) -> TcpStream {
    let url = edge.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "POST {SINGLE} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAuthorization: Bearer {SERVER_TOKEN}\r\nContent-Length: 2\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Each took one of the slots in which requests are worked on.
#[test]
fn slow_bodies_keep_nobody_from_being_answered_and_displace_each_other() {
    let fixture = Fixture::new("slow");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[
        ("SPLITSTREAM_EDGE__BODIES_AT_ONCE", "2"),
        ("SPLITSTREAM_EDGE__REQUESTS_AT_ONCE", "1"),
        ("SPLITSTREAM_EDGE__BODY_TIMEOUT_MS", "20000"),
        ("SPLITSTREAM_EDGE__REQUEST_TIMEOUT_MS", "20000"),
    ]);
    let first = slow_body(&edge);
    for _ in 0..20 {
        assert_eq!(edge.post(SINGLE, "{}").status, 200);
    }
    // Whichever of these two comes first, the first one has been awaited longest.
    let mut second = slow_body(&edge);
    let third = slow_body(&edge);
    let displaced = rest(first);
    assert_eq!(status_of(&displaced), "503", "{displaced}");
    assert!(displaced.contains("\r\nretry-after: 1\r\n"), "{displaced}");
    let body: serde_json::Value = serde_json::from_str(displaced.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        (&body["errorCode"], &body["metadata"], body["key"].as_str()),
        (&json!("GENERAL"), &json!({}), Some("on-sale"))
    );
    second.write_all(b"}").unwrap();
    assert_eq!(status_of(&rest(second)), "200");
    drop(third);
}

#[test]
fn one_token_cannot_take_every_stream_and_a_revoked_one_loses_its_own_at_once() {
    let fixture = Fixture::new("streams");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[
        ("SPLITSTREAM_EDGE__STREAMS_PER_TOKEN", "2"),
        // The comment that keeps a stream alive, before which its token was not looked at.
        ("SPLITSTREAM_EDGE__STREAM_KEEP_ALIVE_MS", "300000"),
    ]);
    let open = |token: &str| EventStream::open(&edge, "/ofrep/v1/stream", &[("X-API-Key", token)]);
    let mut streams = [open(SERVER_TOKEN), open(SERVER_TOKEN)];
    let path = format!("{}/ofrep/v1/stream", edge.url());
    let refused = send("GET", &path, &[("x-api-key", SERVER_TOKEN)], "");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("30")), "{refused:?}");
    assert_eq!(refused.json()["metadata"], json!({}));
    let mut other = open(CLIENT_TOKEN);
    assert!(other.next().is_some());
    for stream in &mut streams {
        assert!(stream.next().is_some());
    }
    fixture.file("tokens.toml", &TOKENS.replace(SERVER_TOKEN, "server-fedcba9876543210"));
    for stream in &mut streams {
        assert!(stream.next().is_none());
    }
    within(10, "the streams are gone", || edge.metric("splitstream_edge_streams{") == 1.0);
}

/// A batch that is larger than the burst is let in, and the next one waits for it. Evaluations do not.
#[test]
fn events_have_a_rate_of_their_own() {
    let fixture = Fixture::new("rate");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let limited = TOKENS.replacen("[[token]]", "[[token]]\nrequests_per_second = 1\nburst = 3", 1);
    fixture.file("tokens.toml", &limited);
    // The bucket is new with the rate, so one request that is refused shows that it counts.
    within(20, "the rate counts", || (0..5).any(|_| edge.post(SINGLE, "{}").status == 429));
    let batch = |events: u32| {
        let event = |number: u32| {
            json!({"event_id": format!("019c1360-2c7b-7000-8000-{number:012}"), "type": "conversion", "key": "purchase",
                   "targetingKey": "u1"})
        };
        json!({"events": (0..events).map(event).collect::<Vec<_>>()}).to_string()
    };
    within(20, "the batch", || edge.post("/ofrep/v1/track", &batch(1_000)).status == 200);
    within(20, "an evaluation behind it", || edge.post(SINGLE, "{}").status == 200);
    within(20, "the next batch is told to wait", || {
        let early = edge.post("/ofrep/v1/track", &batch(1));
        if !early.text.contains("more events than the token's rate allows") {
            return false;
        }
        let retry_after: u64 = early.header("retry-after").unwrap().parse().unwrap();
        // 997 of them are still to be waited for, and what this test has taken until now is not.
        assert_eq!((early.status, (930..=998).contains(&retry_after)), (429, true), "{early:?}");
        true
    });
    // Events that nobody can read are refused for nothing.
    within(20, "a request that has only such", || {
        edge.post("/ofrep/v1/track", r#"{"events": [7, 7]}"#).status == 200
    });
}

#[test]
fn an_authorization_of_another_scheme_hides_no_key() {
    let fixture = Fixture::new("schemes");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let status = |headers: &[(&str, &str)]| edge.post_with(SINGLE, "{}", headers).status;
    let basic = ("authorization", "Basic dXNlcjpwYXNz");
    assert_eq!(status(&[basic, ("x-api-key", SERVER_TOKEN)]), 200);
    assert_eq!(status(&[basic, ("x-api-key", "wrong")]), 401);
    assert_eq!(status(&[basic]), 401);
}
