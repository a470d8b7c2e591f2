//! The edge with unmodified clients from their registries: OpenFeature's SDKs and OFREP providers for servers and pages in
//! JavaScript, and for Python; in the page with the hook of this package.

mod edge_fixture;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use edge_fixture::{DEFINITIONS, Edge, Fixture, SERVER_TOKEN, here};
use fetch::Cache;
use schemas::avro;

/// Another default of the flag `factor`.
const FLIPPED: &str = "{ kind: flag, key: factor, value_type: number, default_variant: half,
  variants: [{ key: whole, value: 1 }, { key: half, value: 0.5 }] }";

/// Runs a client, which may ask for the flag to be flipped once, and checks its last line.
fn passes(fixture: &Fixture, edge: &Edge, command: &mut Command, expected: &str) {
    command.args([&edge.url(), SERVER_TOKEN]);
    passes_as_it_is(fixture, command, expected);
}

fn passes_as_it_is(fixture: &Fixture, command: &mut Command, expected: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut answers = child.stdin.take().unwrap();
    let mut printed = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "flip" {
            fixture.apply(FLIPPED);
            answers.write_all(b"done\n").unwrap();
        }
        printed.push(line);
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed.last().map(String::as_str), Some(expected), "{printed:#?}\n{errors}");
    assert!(output.status.success(), "{errors}");
}

#[test]
fn the_javascript_provider_for_servers() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    let fixture = Fixture::new("js_server");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/server.mjs"));
    passes(&fixture, &edge, &mut command, "server: all checks passed");
}

#[test]
fn the_javascript_provider_for_pages_with_our_hook() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    let fixture = Fixture::new("js_web");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/web.mjs"));
    command.args([&edge.url(), SERVER_TOKEN]).arg(here("js/index.js"));
    passes_as_it_is(&fixture, &mut command, "web: all checks passed");
    // What the hook reported, once, with what the evaluation said.
    let stored = fixture.stored("exposures");
    assert_eq!(stored.len(), 1);
    let exposure = avro::decode_exposure(&stored[0]).unwrap();
    assert_eq!(
        (&*exposure.experiment, &*exposure.unit_id, &*exposure.rule),
        ("checkout", "page-1", "adults")
    );
    assert!(exposure.buckets.is_some());
    assert_eq!(exposure.attributes.get("age"), Some("20"));
    let conversions = fixture.stored("conversions");
    assert_eq!(conversions.len(), 1);
    assert_eq!(avro::decode_conversion(&conversions[0]).unwrap().value.unwrap().millionths(), 19_990_000);
}

#[test]
fn the_hook_with_an_edge_that_answers_as_told() {
    let output = Command::new("node").arg("--test").current_dir(here("js")).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("# pass 7"), "{printed}");
}

#[test]
fn the_python_provider() {
    let python = Cache::open().unwrap().python(&here("tests/python/requirements.txt")).unwrap();
    let fixture = Fixture::new("python");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let mut command = Command::new(python);
    command.arg(here("tests/python/client.py"));
    passes(&fixture, &edge, &mut command, "python: all checks passed");
}
