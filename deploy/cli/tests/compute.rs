//! Tests `splitstream compute` as a script uses it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs the program itself: whatever a line contains, the next line gets its answer.
#[test]
fn a_malformed_line_does_not_affect_the_answer_to_the_next_one() {
    let good = r#"{"control":[1,2],"treatment":[2,3,4],"alpha":0.05}"#;
    let odd: [&[u8]; 9] = [
        b"",
        b"{",
        b"[1e154]",
        b"\xff\xfe",
        br#"{"control":[1e154,2e154],"treatment":[2e154,3e154,4e154],"alpha":0.05}"#,
        br#"{"control":[1e999],"treatment":[1],"alpha":0.05}"#,
        br#"{"control":[0,0],"treatment":[1,2],"alpha":1e-300}"#,
        br#"{"control":[],"treatment":[],"alpha":5e-324}"#,
        br#"{"control":[5e-324,0],"treatment":[1.7976931348623157e308,0],"alpha":0.05}"#,
    ];
    let mut program = Command::new(env!("CARGO_BIN_EXE_splitstream"))
        .args(["compute", "welch_t"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = program.stdin.take().expect("a pipe");
    for line in odd {
        for part in [line, b"\n", good.as_bytes(), b"\n"] {
            input.write_all(part).expect("the program reads");
        }
    }
    drop(input);
    let output = program.wait_with_output().expect("the program ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let answers = String::from_utf8(output.stdout).expect("UTF-8");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // The last line feed ends a line and does not begin another.
    assert_eq!(answers.len(), 2 * odd.len());
    for (index, answer) in answers.iter().enumerate() {
        if index % 2 == 1 {
            assert!((answer["p_value"].as_f64().unwrap() - 0.148_027_88).abs() < 1e-8, "{index}: {answer}");
        }
    }
    assert_eq!(answers[8]["field"], "control[0]");
    assert_eq!(answers[16]["field"], "control[0]");
    assert_eq!(answers[14]["field"], "alpha");
}
