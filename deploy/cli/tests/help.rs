//! Tests the help page, the completions and the exit code of a wrong command line.

use std::process::{Command, Output};

fn splitstream(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitstream")).args(args).output().unwrap()
}

#[test]
fn the_first_page_describes_the_program_and_groups_the_commands() {
    let help = splitstream(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.starts_with("An open A/B-testing platform"), "{text}");
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
    assert!(at("To try it on this machine:") < at("\n  demo ") && at("\n  demo ") < at("For operators:"));
    assert!(at("For operators:") < at("\n  audit "));
}

#[test]
fn shells_get_completions_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = splitstream(&["completions", shell]);
        assert!(completions.status.success(), "{shell}");
        let text = String::from_utf8(completions.stdout).unwrap();
        assert!(text.contains("restore-looks") && text.contains("dead-letters"), "{shell}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in [&["config", "lab"][..], &["consumer"], &["no-such-command"], &["power", "--baseline", "5"]] {
        assert_eq!(splitstream(args).status.code(), Some(2), "{args:?}");
    }
}

/// Somebody who sets nothing asks what to set.
#[test]
fn the_settings_of_a_service_are_printed_before_any_is_set() {
    let unset = |service: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_splitstream"))
            .args(["config", service])
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let unset = text.lines().filter(|line| line.ends_with(" is not set: nothing starts without it"));
        unset.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(unset("producer"), ["brokers"]);
    assert_eq!(unset("edge"), ["brokers", "directory"]);
    assert_eq!(unset("consumer"), ["brokers", "url"]);
    assert_eq!(unset("aggregator"), ["brokers", "url"]);
}
