//! The edge with unmodified clients from their registries: OpenFeature's SDKs and OFREP providers for servers and pages in
//! JavaScript, for Python, Java and Rust; in the page with the hook of this package. All of them agree with one table of
//! cases, `conformance/cases.json`, which follows the scenarios of OpenFeature's specification. The providers for Go and .NET
//! are played back.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fetch::Cache;
use schemas::avro;

use crate::edge_fixture::{DEFINITIONS, Edge, Fixture, SERVER_TOKEN, TOKENS, here, within};
use crate::played_back;

/// Another default of the flag `factor`.
const FLIPPED: &str = "{ kind: flag, key: factor, value_type: number, default_variant: half,
  variants: [{ key: whole, value: 1 }, { key: half, value: 0.5 }] }";

/// The flag `on-sale`, switched off.
const KILLED: &str = "{ kind: flag, key: on-sale, value_type: boolean, enabled: false, default_variant: off,
  variants: [{ key: off, value: false }, { key: on, value: true }] }";

/// A token whose second request within a second is too early.
const LIMITED: &str = "
[[token]]
name = \"limited\"
kind = \"server\"
secret = \"limited-0123456789abcdef\"
requests_per_second = 1
burst = 1
";

/// Definitions that every client reads, and an edge that serves them.
struct Served {
    fixture: Fixture,
    edge: Edge,
}

impl Served {
    fn new(name: &str) -> Served {
        Served::with(name, &[])
    }

    fn with(name: &str, settings: &[(&str, &str)]) -> Served {
        let fixture = Fixture::new(name);
        fixture.apply(DEFINITIONS);
        fixture.apply(&std::fs::read_to_string(here("tests/conformance/definitions.yaml")).unwrap());
        let tokens = fixture.file("tokens.toml", &[TOKENS, LIMITED].concat()).display().to_string();
        let tokens = [("SPLITSTREAM_EDGE__TOKEN_FILE", tokens.as_str())];
        let edge = fixture.edge_with(&[&tokens[..], settings].concat());
        Served { fixture, edge }
    }

    /// Runs a client with the cases, the address and a token, and checks its last line. It may ask for changes.
    fn passes(&self, command: &mut Command, expected: &str) {
        command.arg(here("tests/conformance/cases.json")).args([&self.edge.url(), SERVER_TOKEN]);
        run(command, expected, |asked| {
            match asked {
                "flip" => self.fixture.apply(FLIPPED),
                "kill" => self.fixture.apply(KILLED),
                _ => panic!("the client asked for `{asked}`"),
            }
            String::new()
        });
    }
}

/// Runs a client to its end and checks its last line. Each line before it asks for something, which is answered by `done` and what
/// `asked` returns.
fn run(command: &mut Command, expected: &str, mut asked: impl FnMut(&str) -> String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut answers = child.stdin.take().unwrap();
    let mut last = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line != expected {
            let done = format!("done {}", asked(&line));
            answers.write_all(format!("{}\n", done.trim_end()).as_bytes()).unwrap();
        }
        last = Some(line);
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(last.as_deref(), Some(expected), "{errors}");
    assert!(output.status.success(), "{errors}");
}

/// Runs a program that builds something; it must succeed.
fn succeeds(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_javascript_provider_for_servers() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/server.mjs"));
    Served::new("js_server").passes(&mut command, "server: all checks passed");
}

#[test]
fn the_javascript_provider_for_pages_with_our_hook() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    // A batch of the hook is too large for this edge.
    let served = Served::with("js_web", &[("SPLITSTREAM_EDGE__TRACK_BODY_BYTES", "2048")]);
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/web.mjs")).arg(here("js/index.js"));
    served.passes(&mut command, "web: all checks passed");
    // What the hook reported, once, with what the evaluation said.
    let stored = served.fixture.stored("exposures");
    assert_eq!(stored.len(), 1);
    let exposure = avro::decode_exposure(&stored[0]).unwrap();
    assert_eq!(
        (&*exposure.experiment, &*exposure.unit_id, &*exposure.rule),
        ("checkout", "page-1", "adults")
    );
    assert!(exposure.buckets.is_some());
    assert_eq!(exposure.attributes.get("age"), Some("20"));
    let stored = served.fixture.stored("conversions");
    let conversions: Vec<_> = stored.iter().map(|event| avro::decode_conversion(event).unwrap()).collect();
    let purchases: Vec<_> = conversions.iter().filter(|conversion| conversion.name == "purchase").collect();
    assert_eq!(purchases.len(), 1);
    assert_eq!(purchases[0].value.unwrap().millionths(), 19_990_000);
    let kept = conversions.iter().filter(|conversion| conversion.name == "kept");
    assert_eq!(kept.map(|conversion| conversion.event_id).collect::<BTreeSet<_>>().len(), 32);
}

#[test]
fn the_hook_with_an_edge_that_answers_as_told() {
    let output = Command::new("node").arg("--test").current_dir(here("js")).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("# pass 16"), "{printed}");
}

#[test]
fn the_python_provider() {
    let python = Cache::open().unwrap().python(&here("tests/python/requirements.txt")).unwrap();
    let mut command = Command::new(python);
    command.arg(here("tests/python/client.py"));
    Served::new("python").passes(&mut command, "python: all checks passed");
}

#[test]
fn the_java_provider() {
    let jars = Cache::open().unwrap().java(&here("tests/java")).unwrap();
    let served = Served::new("java");
    // The compiler is one of the jars, so that no JDK is needed.
    let classes = served.fixture.path("classes");
    let class_path = class_path(&jars, &classes);
    let compiler = "org.eclipse.jdt.internal.compiler.batch.Main";
    let mut compile = Command::new("java");
    compile.args(["-cp", &class_path, compiler, "-17", "-nowarn", "-classpath", &class_path, "-d"]);
    succeeds(compile.arg(&classes).arg(here("tests/java/Client.java")));
    let mut command = Command::new("java");
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &class_path, "Client"]);
    served.passes(&mut command, "java: all checks passed");
}

/// Each jar of a directory, and a directory of classes.
fn class_path(jars: &Path, classes: &Path) -> String {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(jars).unwrap().map(|jar| jar.unwrap().path()).collect();
    paths.push(classes.to_owned());
    std::env::join_paths(paths).unwrap().into_string().unwrap()
}

#[test]
fn the_rust_provider() {
    let package = here("tests/rust_client");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust_client");
    let mut build = local::programs::cargo();
    build.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(package.join("Cargo.toml"));
    succeeds(build.arg("--target-dir").arg(&target));
    let mut command = Command::new(target.join("debug/rust-client"));
    Served::new("rust").passes(&mut command, "rust: all checks passed");
}

#[test]
fn what_the_providers_for_go_and_dotnet_demand() {
    // The .NET provider drops the path of its base address, so the root answers wherever a proxy mounts the edge.
    let served = Served::with("played_back", &[("SPLITSTREAM_EDGE__PATH_PREFIX", "/flags")]);
    played_back::dotnet_gets_what_it_demands(&served.edge);
    played_back::go_gets_what_it_demands(&served.edge);
}

#[test]
fn pages_that_are_open_while_an_experiment_is_shipped_and_taken_back() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    let fixture = Fixture::new("shipping");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let ended = |command: &[&str]| {
        fixture.run(&[command, &["--author", "ann", "--reason", "the numbers say so"]].concat());
    };
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/shipping.mjs"));
    run(command.args([&edge.url(), SERVER_TOKEN]), "shipping: all checks passed", |asked| {
        match asked {
            "ship to half of the targeted" => {
                ended(&["ship", "checkout", "treatment", "--to", "targeted", "--rollout", "50%"]);
            }
            "ship" => ended(&["ship", "checkout", "treatment"]),
            "rollback" => ended(&["rollback", "checkout"]),
            _ => panic!("the pages asked for `{asked}`"),
        }
        String::new()
    });
}

/// The flag `factor` as at the beginning.
const FLIPPED_BACK: &str = "{ kind: flag, key: factor, value_type: number, default_variant: whole,
  variants: [{ key: whole, value: 1 }, { key: half, value: 0.5 }] }";

/// All that another log says.
const ANEW: &str = "{ kind: flag, key: factor, value_type: number, default_variant: quarter,
  variants: [{ key: quarter, value: 0.25 }] }";

#[test]
fn a_page_that_outlives_the_edge_and_the_log() {
    let modules = Cache::open().unwrap().node(&here("tests/javascript")).unwrap();
    let fixture = Fixture::alone("restarts");
    fixture.apply(DEFINITIONS);
    let snapshot = fixture.path("snapshot").display().to_string();
    let edge = fixture.edge(&[("SPLITSTREAM_EDGE__SNAPSHOT_FILE", &snapshot)]);
    let serves_anew = || {
        within(60, "the edge serves the new log", || {
            let answer = edge.bulk("{}", &[]);
            answer.header("x-splitstream-stale").is_none() && answer.json()["flags"][0]["value"] == 0.25
        });
    };
    let mut command = Command::new("node");
    command.current_dir(modules).arg(here("tests/javascript/restarts.mjs"));
    run(command.args([&edge.url(), SERVER_TOKEN]), "restarts: all checks passed", |asked| {
        match asked {
            "restart without kafka" => {
                fixture.stack().kill_kafka(0).unwrap();
                edge.service.kill().unwrap();
                edge.service.start().unwrap();
            }
            "kafka" => fixture.stack().start_kafka(0).unwrap(),
            "flip" => fixture.apply(FLIPPED),
            "flip back while away" => {
                edge.service.kill().unwrap();
                fixture.apply(FLIPPED_BACK);
                edge.service.start().unwrap();
            }
            "a new log" => {
                edge.service.stop().unwrap();
                fixture.make_definitions_anew();
                fixture.apply(ANEW);
                edge.service.start().unwrap();
                serves_anew();
            }
            "the same log again" => {
                fixture.make_definitions_anew();
                fixture.apply(ANEW);
            }
            _ => panic!("the page asked for `{asked}`"),
        }
        edge.url()
    });
}
