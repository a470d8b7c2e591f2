//! The first page of `--help`. It lists the commands in groups, by the people who need them.

use std::fmt::Write;

use clap::Command;

/// The groups; every command is in exactly one.
const GROUPS: [(&str, &[&str]); 5] = [
    ("To try it on this machine", &["demo", "local"]),
    (
        "For owners of experiments",
        &[
            "apply",
            "import",
            "diff",
            "promote",
            "ship",
            "rollback",
            "lists",
            "definitions",
            "history",
            "assign",
            "results",
            "analyze",
        ],
    ),
    ("For planning and checking statistics", &["power", "compute", "calibrate"]),
    ("To send events", &["topics", "replay", "simulate"]),
    (
        "For operators",
        &[
            "edge",
            "consumer",
            "aggregator",
            "config",
            "migrate",
            "audit",
            "dead-letters",
            "forget",
            "restore-looks",
            "completions",
        ],
    ),
];

/// Returns the command with a help page that lists its subcommands in groups.
pub fn grouped(command: Command) -> Command {
    let width = command.get_subcommands().map(|sub| sub.get_name().len()).max().unwrap_or(0);
    let mut groups = String::new();
    for (title, names) in GROUPS {
        write!(groups, "\n\n{title}:").expect("writing to a string never fails");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            write!(groups, "\n  {name:width$}  {about}").expect("writing to a string never fails");
        }
    }
    command
        .help_template(format!("{{about}}\n\n{{usage-heading}} {{usage}}{groups}\n\nOptions:\n{{options}}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::Arguments;

    #[test]
    fn every_command_is_in_exactly_one_group() {
        let command = Arguments::command();
        let expected: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<_>>(), expected);
        assert_eq!(grouped.len(), expected.len());
    }

    #[test]
    fn the_whole_command_line_is_consistent() {
        grouped(Arguments::command()).debug_assert();
    }
}
