//! Tests `splitstream import` as a person uses it: without a server, and without any setting.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn import(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitstream"))
        .arg("import")
        .args(args)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const KEPT: &str = r#"{"flags": {"banner": {
    "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
    "targeting": {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on", null]}}}}"#;

const LOST: &str = r#"{"flags": {"banner": {
    "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
    "targeting": {"if": [{"==": [{"%": [{"var": "n"}, 2]}, 0]}, "on", "off"]}}}}"#;

#[test]
fn the_definitions_are_printed_and_the_findings_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kept.json"), KEPT).unwrap();
    let kept = import(folder.path(), &["--from", "flagd", "kept.json", "--owner", "web"]);
    assert_eq!(
        text(&kept.stdout),
        r#"[
  {
    "kind": "flag",
    "key": "banner",
    "owner": "web",
    "enabled": true,
    "value_type": "boolean",
    "default_variant": "off",
    "rules": [
      {
        "key": "rule-1",
        "when": { "attribute": "email", "ends_with": "@example.com" },
        "split": [{ "variant": "on", "weight": "100%" }]
      }
    ],
    "variants": [{ "key": "off", "value": false }, { "key": "on", "value": true }]
  }
]
"#
    );
    assert_eq!(text(&kept.stderr), "definitions: 1; findings: 0 lost, 0 changed, 0 notes\n");
    assert_eq!(kept.status.code(), Some(0));
}

#[test]
fn what_is_lost_is_exit_code_6() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lost.json"), LOST).unwrap();
    let lost = import(folder.path(), &["--from", "flagd", "lost.json", "--out", "out.json"]);
    assert_eq!((lost.status.code(), text(&lost.stdout)), (Some(6), ""));
    assert_eq!(
        text(&lost.stderr),
        "lost flags.banner.targeting.if[0].==[0].%: `%` has no counterpart as a value to compare\n    \
         the flag is imported switched off and serves its default; complete it, then enable it\n\
         definitions: 1; findings: 1 lost, 0 changed, 0 notes\n"
    );
    let written: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out.json")).unwrap()).unwrap();
    assert_eq!((&written[0]["key"], &written[0]["enabled"]), (&json!("banner"), &json!(false)));

    let both = import(folder.path(), &["--from", "flagd", "lost.json", "--json"]);
    let document: Value = serde_json::from_slice(&both.stdout).unwrap();
    assert_eq!((both.status.code(), text(&both.stderr)), (Some(6), ""));
    assert_eq!(document["definitions"], written);
    assert_eq!(document["findings"][0]["severity"], "lost");
}

#[test]
fn what_is_no_source_is_exit_code_4_with_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    for (from, source, expected) in [
        ("flagd", "{\n  \"flags\": [\n}", "source.json, line 3: not JSON: expected value at line 3 column 1"),
        (
            "flagd",
            "{\"flags\": {\n\"a\": {\n\"state\": \"ON\"}}}",
            "source.json, line 3: flags.a.state: must be ENABLED or DISABLED",
        ),
        ("growthbook", "{\"features\":\n[]}", "source.json, line 2: features: must be an object"),
        ("unleash", "{\"version\": 1}", "source.json, line 1: has no list of `features`"),
        (
            "unleash",
            "{\"features\": [\n{\"name\": \"a\"},\n{\"enabled\": true}]}",
            "source.json, line 3: features[1]: the feature has no name",
        ),
    ] {
        std::fs::write(folder.path().join("source.json"), source).unwrap();
        let output = import(folder.path(), &["--from", from, "source.json"]);
        assert_eq!(output.status.code(), Some(4), "{source}");
        let error = format!("error: invalid input: {expected}; it must be what {from} writes\n");
        assert_eq!(text(&output.stderr), error);
    }
    let missing = import(folder.path(), &["--from", "flagd", "missing.json"]);
    assert_eq!(missing.status.code(), Some(4));
    let unknown = import(folder.path(), &["--from", "launchdarkly", "source.json"]);
    assert_eq!(unknown.status.code(), Some(2));
}
