//! `splitstream topics` creates the topics that are missing and compares the others with the contracts. With
//! `--fix` it also sets the settings that differ.

use crate::topics::{Difference, Outcome, Replication, TopicsError, ensure};
use anyhow::Context;
use ops::Exit;

use super::print_text;
use crate::config::Config;

#[derive(clap::Args)]
pub struct Args {
    /// Copies of each partition; the brokers' default if left out. From 3 on a write needs two copies
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    replication: Option<u8>,
    /// Set the settings that differ (never the number of partitions)
    #[arg(long)]
    fix: bool,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let replication = args.replication.map_or(Replication::Brokers, Replication::Copies);
    let reports = ensure(&config.kafka, replication, args.fix).await.map_err(|error| match error {
        TopicsError::Connect(_) => anyhow::Error::new(error).context(Exit::Unreachable),
        TopicsError::Refused { .. } => error.into(),
    })?;
    let mut exit = Exit::Done;
    for report in reports {
        let line = match &report.outcome {
            Outcome::Created => "created".to_owned(),
            Outcome::Present => "present".to_owned(),
            Outcome::Fixed(differences) => format!("set: {}", list(differences)),
            Outcome::Differs(differences) => {
                exit = Exit::Refused;
                format!("differs: {}", list(differences))
            }
        };
        print_text(&format!("{}: {line}\n", report.topic)).context("reporting the topics")?;
    }
    if matches!(exit, Exit::Refused) {
        eprintln!(
            "error: topics differ from the contracts; `splitstream topics --fix` sets their settings, a number of \
             partitions can only be changed by a new topic"
        );
    }
    Ok(exit)
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
