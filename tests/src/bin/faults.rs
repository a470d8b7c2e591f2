//! `faults`: runs the fault harness from the command line, for any number of rounds.

use std::process::ExitCode;

use clap::Parser;
use tests::harness::{Kind, run};
use tests::random::fresh_seed;

/// Sends traffic through a platform of real parts, injects a fault in each round, and checks after each round
/// that every event is in ClickHouse once
#[derive(Debug, Parser)]
struct Faults {
    /// Seed of all random draws [default: a new one each time]
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Kinds of faults to inject [default: all that need no strace]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    kill: Vec<Kind>,
}

fn main() -> ExitCode {
    let faults = Faults::parse();
    let seed = faults.seed.unwrap_or_else(fresh_seed);
    let kinds = if faults.kill.is_empty() { Kind::PLAIN.to_vec() } else { faults.kill };
    println!("seed {seed}");
    match run(seed, faults.rounds, &kinds, |line| println!("{line}")) {
        Ok(()) => {
            println!("{} rounds, every event once", faults.rounds);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
