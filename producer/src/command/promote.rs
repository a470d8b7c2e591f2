//! `splitstream promote` copies one environment's settings of a flag or an experiment to another environment.
//! It proposes them as one change and prints the verdict.

use anyhow::anyhow;
use ops::Exit;
use schemas::Key;
use schemas::definition::{Definition, Definitions, Kind};

use super::apply::{ProposalArgs, propose_one};
use super::open_log;
use crate::config::Config;
use crate::environments::{Promotion, is_known, unknown};

#[derive(clap::Args)]
pub struct Args {
    /// The key of a flag or an experiment
    key: String,
    /// The environment whose settings are copied
    #[arg(long, value_name = "NAME", value_parser = super::environment)]
    from: Key,
    /// The environment that receives the settings
    #[arg(long, value_name = "NAME", value_parser = super::environment)]
    to: Key,
    #[command(flatten)]
    proposal: ProposalArgs,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let mut log = open_log(config).await?;
    let from = args.from.clone();
    let promotion = Promotion { from: args.from, to: args.to };
    let is_named = |definition: &Definition| {
        matches!(definition.kind(), Kind::Flag | Kind::Experiment) && definition.key().as_str() == args.key
    };
    let named = log.definitions().iter().find(|accepted| is_named(&accepted.definition));
    require_known(log.definitions(), &from, "copied")?;
    let Some(promoted) = named.and_then(|accepted| promotion.promoted(&accepted.definition)) else {
        let refused = anyhow!(
            "there is no flag or experiment `{}`; `splitstream definitions` lists all definitions",
            args.key
        );
        return Err(refused.context(Exit::Refused));
    };
    propose_one(&mut log, promoted, &args.proposal).await
}

/// Refuses an environment that no definition mentions; it is most likely a typing error. `action` is the
/// participle that ends the message.
pub(super) fn require_known(definitions: &Definitions, from: &Key, action: &str) -> anyhow::Result<()> {
    if is_known(definitions, from) {
        return Ok(());
    }
    Err(anyhow::Error::msg(unknown(from, &format!("would be {action}"))).context(Exit::Refused))
}
