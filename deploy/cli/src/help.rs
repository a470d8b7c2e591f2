//! The first page of `--help`: the commands in groups, by who needs them.

use std::fmt::Write;

use clap::Command;

/// Every command stands in one group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("To try it on this machine", &["demo", "local"]),
    (
        "For owners of experiments",
        &["apply", "diff", "promote", "definitions", "assign", "results", "analyze"],
    ),
    ("For planning and checking statistics", &["power", "compute", "calibrate"]),
    ("To send events", &["topics", "replay", "simulate"]),
    (
        "For operators",
        &[
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

/// The command with its subcommands shown in groups.
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
    fn every_command_stands_in_one_group() {
        let command = Arguments::command();
        let there: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<_>>(), there);
        assert_eq!(grouped.len(), there.len());
    }

    #[test]
    fn the_whole_command_line_is_consistent() {
        grouped(Arguments::command()).debug_assert();
    }
}
