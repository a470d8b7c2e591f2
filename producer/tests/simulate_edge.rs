//! Simulated traffic through a real edge on a real Kafka: what the simulation reports as accepted is what is stored, and the
//! same as when the library assigns; an edge that limits the rate or restarts is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use local::{Service, ServiceOptions};
use schemas::{Conversion, Exposure, avro};
use serde_json::Value;

use crate::kafka_fixture::{KafkaFixture, ProgramOutput};

/// A tenth is held out; of the others nine tenths are targeted and take part.
const DEFINITIONS: &str = "\
{ kind: metric, key: purchase, event: purchase, type: conversion }
---
{ kind: experiment, key: all, holdout: true, state: running, control: held, metrics: { primary: purchase },
  variants: [{ key: held, weight: 1000 }, { key: rest, weight: 9000 }] }
---
{ kind: experiment, key: checkout, state: running, control: control, metrics: { primary: purchase },
  targeting: [{ key: known, when: { attribute: browser, in: [chrome, safari, edge] } }],
  variants: [{ key: control, weight: 5000 }, { key: treatment, weight: 5000 }] }
";

const TOKEN: &str = "simulation-0123456789abcdef";
const PAGE_TOKEN: &str = "page-0123456789abcdef";

struct Edge {
    service: Service,
    url: String,
}

/// Starts an edge on a port that it keeps, and that no client gets by chance.
fn edge(fixture: &KafkaFixture, settings: &[(&str, &str)]) -> Edge {
    static EDGES: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Two edges of this process try different ports: nothing reserves one until its edge has started.
    let mut ports = (first + EDGES.fetch_add(1, Ordering::Relaxed)..20_000).step_by(8);
    let listen = format!("127.0.0.1:{}", ports.find(free).unwrap());
    let spool = fixture.path("spool").display().to_string();
    let prefix = fixture.prefix();
    let own = [
        ("SPLITSTREAM_EDGE__LISTEN", listen.as_str()),
        ("SPLITSTREAM_SPOOL__DIRECTORY", &spool),
        ("SPLITSTREAM_KAFKA__TOPIC_PREFIX", prefix),
        ("SPLITSTREAM_PRODUCER__LINGER_MS", "0"),
    ];
    let settings = [&own[..], settings].concat();
    let options = ServiceOptions { settings: &settings, port: None };
    let service = fixture.stack().service_with("edge", options).unwrap();
    Edge { service, url: format!("http://{listen}") }
}

const OPEN: (&str, &str) = ("SPLITSTREAM_EDGE__OPEN_WITHOUT_TOKENS", "true");

fn arguments<'a>(units: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let all = [
        "simulate",
        "--json",
        "--experiment",
        "checkout",
        "--event",
        "purchase",
        "--rates",
        "control=0.2,treatment=0.5",
        "--seed",
        "7",
        "--delay",
        "1",
        "--value",
        "5.00,9.99",
        "--units",
        units,
    ];
    [&all[..], more].concat()
}

fn summary(output: &ProgramOutput) -> Value {
    assert_eq!(output.code, 0, "{output:?}");
    serde_json::from_str(&output.out).unwrap()
}

/// The distinct exposures and conversions of the topics.
fn distinct(fixture: &KafkaFixture) -> (Vec<Exposure<'static>>, Vec<Conversion<'static>>) {
    let values = |topic: &str| -> BTreeSet<Vec<u8>> {
        fixture.stored(topic).into_iter().map(|stored| stored.value).collect()
    };
    let exposures = values("exposures");
    let conversions = values("conversions");
    let leaked = |value: Vec<u8>| -> &'static [u8] { Vec::leak(value) };
    (
        exposures.into_iter().map(|value| avro::decode_exposure(leaked(value)).unwrap()).collect(),
        conversions.into_iter().map(|value| avro::decode_conversion(leaked(value)).unwrap()).collect(),
    )
}

#[test]
fn what_the_edge_accepts_is_stored_once_and_is_what_the_library_would_assign() {
    let fixture = KafkaFixture::new("through");
    fixture.accept("definitions.yaml", DEFINITIONS);
    let edge = edge(&fixture, &[OPEN]);
    let through = ["--edge", &edge.url, "--duplicates", "0.2", "--connections", "8"];
    let accepted = summary(&fixture.producer(&arguments("2000", &through)));
    let number = |field: &str| accepted[field].as_u64().unwrap();
    let (exposures, conversions) = distinct(&fixture);
    // A repeated evaluation is suppressed by the edge; a repeated conversion is the same bytes again.
    assert_eq!(fixture.stored("exposures").len() as u64, number("exposures"));
    assert_eq!(
        (exposures.len() as u64, conversions.len() as u64),
        (number("exposures"), number("conversions"))
    );
    let sent_twice = fixture.stored("conversions").len() - conversions.len();
    let edge_numbers = &accepted["edge"];
    assert_eq!(edge_numbers["conversions"], fixture.stored("conversions").len());
    assert_eq!(edge_numbers["evaluations"], 2_000 + number("duplicates") - sent_twice as u64);
    assert!(number("duplicates") > 300 && sent_twice > 50, "{accepted}");

    let mut exposed_at: BTreeMap<&str, i64> = BTreeMap::new();
    let mut units: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for exposure in &exposures {
        exposed_at.insert(&exposure.unit_id, exposure.created_at.get());
        *units.entry((&exposure.experiment, &exposure.variant)).or_default() += 1;
        assert_eq!((exposure.sender.service.as_ref(), exposure.attributes.iter().count()), ("edge", 4));
    }
    for arm in accepted["variants"].as_array().unwrap() {
        assert_eq!(arm["units"], units[&("checkout", arm["key"].as_str().unwrap())]);
    }
    assert_eq!(accepted["holdouts"]["all"]["held"], units[&("all", "held")]);
    assert_eq!(units[&("all", "held")] + units[&("all", "rest")], 2_000);
    for conversion in &conversions {
        assert!(exposed_at[conversion.unit_id.as_ref()] <= conversion.created_at.get(), "{conversion:?}");
        assert_eq!(conversion.event_id.get_version_num(), 7);
        assert_eq!(conversion.event_id.as_u128() >> 80, conversion.created_at.get() as u128 / 1_000);
        assert_eq!((conversion.sender.service.as_ref(), conversion.metadata.iter().count()), ("open", 4));
        let value = conversion.value.unwrap().millionths();
        assert!((5_000_000..=9_990_000).contains(&value), "{value}");
    }

    let direct = summary(&fixture.producer(&arguments("2000", &["--duplicates", "0.2"])));
    for field in ["units", "exposed", "variants", "holdouts", "exposures", "conversions"] {
        assert_eq!(direct[field], accepted[field], "{field}");
    }
    assert_eq!(direct["not_exposed"]["the unit is held out"], units[&("all", "held")]);
}

#[test]
fn an_edge_that_limits_the_rate_is_asked_again_and_one_that_refuses_is_an_error() {
    let fixture = KafkaFixture::new("limited");
    fixture.accept("definitions.yaml", DEFINITIONS);
    let tokens = format!(
        "[[token]]\nname = 'simulation'\nkind = 'server'\nsecret = '{TOKEN}'\nrequests_per_second = 100\nburst = 50\n\
         [[token]]\nname = 'page'\nkind = 'client'\nsecret = '{PAGE_TOKEN}'\n"
    );
    let tokens = fixture.file("tokens.toml", &tokens).display().to_string();
    let edge = edge(&fixture, &[("SPLITSTREAM_EDGE__TOKEN_FILE", &tokens)]);
    let file: PathBuf = fixture.file("token", &format!("{TOKEN}\n"));
    let file = file.to_str().unwrap();
    let through = ["--edge", &edge.url, "--edge-token-file", file];
    let accepted = summary(&fixture.producer(&arguments("200", &through)));
    let (exposures, conversions) = distinct(&fixture);
    assert_eq!(accepted["exposures"], exposures.len());
    assert_eq!(accepted["conversions"], conversions.len());
    assert_eq!(accepted["edge"]["evaluations"], 200);
    assert!(accepted["edge"]["resent"].as_u64().unwrap() > 0, "{accepted}");

    let path = "/ofrep/v1/evaluate/flags/checkout";
    let unauthorized = "401 show a token: as `Authorization: Bearer ...` or as `X-API-Key`";
    let not_valid =
        "401 the token that was shown is not valid here: it is unknown, revoked, or of another environment";
    let refused = |more: &[&str], why: &str| {
        let began = Instant::now();
        let output = fixture.producer(&arguments("1", more));
        let error = format!("error: refused: the edge at {} refuses {why}\n", edge.url);
        assert_eq!((output.code, output.err), (3, error));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    };
    refused(
        &["--edge", &edge.url],
        &format!(
            "{path}: {unauthorized}; no token was shown: put one into SPLITSTREAM_TOKEN, or name its file with \
             --edge-token-file"
        ),
    );
    let wrong = fixture.file("wrong", "wrong-0123456789abcdef");
    let wrong = wrong.to_str().unwrap();
    refused(
        &["--edge", &edge.url, "--edge-token-file", wrong],
        &format!("{path}: {not_valid}; the token of {wrong} is none of the edge's: see `edge.token_file`"),
    );
    // A client sees nothing that is not marked for it: asked again for two minutes, once.
    let page = fixture.file("page", PAGE_TOKEN);
    refused(
        &["--edge", &edge.url, "--edge-token-file", page.to_str().unwrap()],
        &format!(
            "{path}: 404 it has the definitions and does not show the experiment; use the token of a server (a client \
             sees only what is marked `client_safe`), or the edge of the Kafka to which the experiment was applied"
        ),
    );
}

/// It was silent for two minutes, and took thirty seconds to end.
#[test]
fn an_edge_that_does_not_answer_is_named_at_once_and_a_signal_ends_the_wait() {
    let fixture = KafkaFixture::new("away");
    fixture.accept("definitions.yaml", DEFINITIONS);
    // A port that only the system could take.
    let url = "http://127.0.0.1:1";
    for signal in ["-TERM", "-INT"] {
        let mut command = fixture.command(&arguments("1", &["--edge", url]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = local::process::spawn_bound(command).unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        errors.read_line(&mut first).unwrap();
        assert_eq!(
            first,
            format!(
                "the edge at {url} gives no answer: io: Connection refused (os error 111); trying again for up to 120 s\n"
            )
        );
        let began = Instant::now();
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let code = child.wait().unwrap().code();
        assert!(began.elapsed() < Duration::from_secs(3), "{signal}: {:?}", began.elapsed());
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        let error =
            format!("error: stopped by a signal before the edge at {url} was ready; nothing was sent\n");
        assert_eq!((code, rest), (Some(1), error), "{signal}");
    }
}

#[test]
fn an_edge_that_restarts_is_asked_again() {
    let fixture = KafkaFixture::new("restarts");
    fixture.accept("definitions.yaml", DEFINITIONS);
    let edge = edge(&fixture, &[OPEN]);
    let mut command = fixture.command(&arguments("3000", &["--edge", &edge.url, "--rate", "600"]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = local::process::spawn_bound(command).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.stored("exposures").len() < 200 {
        assert!(Instant::now() < deadline, "200 exposures are not stored");
        std::thread::sleep(Duration::from_millis(20));
    }
    edge.service.stop().unwrap();
    edge.service.start().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, out, err) = (output.status.code().unwrap(), text(output.stdout), text(output.stderr));
    let accepted = summary(&ProgramOutput { code, out, err });
    assert!(accepted["edge"]["resent"].as_u64().unwrap() > 0, "{accepted}");
    let (exposures, conversions) = distinct(&fixture);
    // A unit whose answer was lost is asked for again, and the edge that has restarted logs it again.
    let exposed: BTreeSet<(&str, &str)> =
        exposures.iter().map(|exposure| (exposure.experiment.as_ref(), exposure.unit_id.as_ref())).collect();
    assert_eq!(accepted["exposures"], exposed.len());
    let converted: BTreeSet<_> = conversions.iter().map(|conversion| conversion.event_id).collect();
    assert_eq!(
        (accepted["conversions"].as_u64().unwrap(), conversions.len()),
        (converted.len() as u64, converted.len())
    );
}
