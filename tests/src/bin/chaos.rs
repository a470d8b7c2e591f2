//! `chaos`: takes Kafka away from a platform under load, kills edges meanwhile, and counts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::chaos::{Scale, run};
use tests::random::fresh_seed;

/// Stops Kafka under load, kills edges and starts them on their spools, starts Kafka again, and checks that every accepted
/// event is in ClickHouse once and no refused one
#[derive(Debug, Parser)]
struct Chaos {
    /// Seed of all random draws [default: a new one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds for which Kafka is away
    #[arg(long, default_value_t = 60)]
    away: u64,
    /// Faults of edges meanwhile
    #[arg(long, default_value_t = 9)]
    faults: usize,
}

fn main() -> ExitCode {
    let chaos = Chaos::parse();
    let seed = chaos.seed.unwrap_or_else(fresh_seed);
    let scale = Scale {
        kafka_away: Duration::from_secs(chaos.away),
        around: Duration::from_secs(5),
        faults: chaos.faults,
    };
    println!("seed {seed}");
    match run(seed, scale, |line| println!("{line}")) {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
