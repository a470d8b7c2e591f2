//! The aggregator: counts at a cut, tests, decisions, results, API and page.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = aggregator::command::Arguments::parse();
    ops::main(aggregator::command::run(arguments))
}
