//! `splitstream ship` ends an experiment and serves one variant from then on; `splitstream rollback` ends it and serves
//! the control. Each proposes one change and prints the verdict.

use clap::ValueEnum;
use ops::Exit;
use schemas::definition::{ServeTo, parse_share};
use schemas::{BasisPoints, Key};

use super::apply::{ProposalArgs, propose_one};
use super::open_log;
use crate::config::Config;
use crate::ship::{Audience, rolled_back, shipped};

#[derive(clap::Args)]
pub struct ShipArgs {
    /// The key of an experiment that runs or is over
    key: String,
    /// The variant that is served from now on
    #[arg(value_parser = super::environment)]
    variant: Key,
    /// Whom it is served to
    #[arg(long, value_enum, default_value_t = To::All)]
    to: To,
    /// The share of them, such as 50% or, in basis points, 5000; whoever saw the variant keeps it
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = parse_share)]
    rollout: BasisPoints,
    #[command(flatten)]
    proposal: ProposalArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum To {
    All,
    /// The units that the experiment's targeting matches
    Targeted,
}

#[derive(clap::Args)]
pub struct RollbackArgs {
    /// The key of an experiment that runs or is over
    key: String,
    #[command(flatten)]
    proposal: ProposalArgs,
}

pub async fn ship(config: &Config, args: ShipArgs) -> anyhow::Result<Exit> {
    let mut log = open_log(config).await?;
    let to = match args.to {
        To::All => ServeTo::All,
        To::Targeted => ServeTo::Targeted,
    };
    let audience = Audience { to, rollout: args.rollout };
    let over = shipped(log.definitions(), &args.key, args.variant, audience);
    propose_one(&mut log, over.map_err(|why| anyhow::Error::new(why).context(Exit::Refused))?, &args.proposal)
        .await
}

pub async fn rollback(config: &Config, args: RollbackArgs) -> anyhow::Result<Exit> {
    let mut log = open_log(config).await?;
    let over = rolled_back(log.definitions(), &args.key);
    propose_one(&mut log, over.map_err(|why| anyhow::Error::new(why).context(Exit::Refused))?, &args.proposal)
        .await
}
