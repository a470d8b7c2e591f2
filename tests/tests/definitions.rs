//! Definitions are refused with a reason that their author can act on. Of two authors who change the same
//! definition at the same time, exactly one wins.

use std::process::Stdio;

use local::process::spawn_bound;
use serde_json::Value;
use tests::Platform;
use tests::traffic::DEFINITIONS;

/// Exit codes of `splitstream apply`.
const REFUSED: i32 = 3;
const INVALID_INPUT: i32 = 4;

#[test]
fn definitions_are_refused_with_a_reason() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let experiment = DEFINITIONS.split("---\n").nth(1).unwrap();
    for (definition, code, reason) in [
        (
            experiment.replace("key: checkout", "key: other").replace("purchase", "no-such-metric"),
            REFUSED,
            "experiment other: refused: metrics.primary: there is no metric `no-such-metric`; define it first",
        ),
        (
            experiment.replace("unit_type: user", "unit_type: device"),
            REFUSED,
            "experiment checkout: refused: unit_type: ",
        ),
        ("kind: layer\nkey: a key with spaces\n".to_owned(), INVALID_INPUT, "definitions.yaml, line 2"),
        ("kind: metric\nkey: m\nevnt: x\n".to_owned(), INVALID_INPUT, "definitions.yaml, line 3"),
        (
            experiment.replacen("weight: 5000", "weight: 5001", 1),
            INVALID_INPUT,
            "100.01%, 1 basis point too many",
        ),
    ] {
        let output = platform.try_apply(&definition).unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(reason), "{printed}\ndoes not contain\n{reason}");
    }
    // The refused definitions have changed nothing.
    let output = platform.try_apply(DEFINITIONS).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "metric purchase: unchanged, version 1\nexperiment checkout: unchanged, version 2\n"
    );
}

/// The number of rounds in which both writers must have read the same version.
const RACES: usize = 5;
/// Nearly every round is such a race, since both processes start at the same time.
const ROUNDS_MAX: usize = 40;

#[test]
fn of_two_writers_of_one_definition_exactly_one_wins_each_round() {
    let platform = Platform::up().unwrap();
    let mut races = 0;
    let mut rounds = 0;
    while races < RACES {
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "{races} of {rounds} rounds were races");
        // A layer's salt can never change, so a writer that comes late cannot win either.
        let key = format!("layer-{rounds}");
        let writers = ["ann", "bob"].map(|author| (author, Writer::start(&platform, &key, author)));
        let outcomes = writers.map(|(author, writer)| (author, writer.finish()));
        let winners: Vec<&str> =
            outcomes.iter().filter(|(_, (code, _))| *code == 0).map(|(author, _)| *author).collect();
        let losers: Vec<&(i32, String)> =
            outcomes.iter().map(|(_, outcome)| outcome).filter(|(code, _)| *code != 0).collect();
        let ([winner], [(code, printed)]) = (&winners[..], &losers[..]) else {
            panic!("round {rounds}: {outcomes:?}");
        };
        assert_eq!(*code, REFUSED, "{printed}");
        let stale = printed.contains("has moved on: the change is based on version 0");
        let late = printed.contains("salt: ");
        assert!(stale || late, "{printed}");
        races += usize::from(stale);
        assert_eq!(salt(&platform, &key), *winner, "round {rounds}: the winner's definition holds");
    }
    eprintln!("{races} races in {rounds} rounds");
}

/// A run of `splitstream apply` that sets a layer's salt to its author's name.
struct Writer(std::process::Child);

impl Writer {
    fn start(platform: &Platform, key: &str, author: &str) -> Writer {
        let file = platform.path(&format!("{author}.yaml"));
        std::fs::write(&file, format!("kind: layer\nkey: {key}\nsalt: {author}\n")).unwrap();
        let path = file.display().to_string();
        let mut command =
            platform.stack().command(&["apply", &path, "--author", author, "--reason", "a race"]).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Writer(spawn_bound(command).unwrap())
    }

    /// Waits for its end and returns its exit code and its output.
    fn finish(self) -> (i32, String) {
        let output = self.0.wait_with_output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
    }
}

/// The layer's salt according to a new reader of the log.
fn salt(platform: &Platform, key: &str) -> String {
    let output = platform.stack().run(&["definitions", "--json"]).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let layer = all.iter().find(|definition| definition["key"] == key).unwrap();
    layer["salt"].as_str().unwrap().to_owned()
}
