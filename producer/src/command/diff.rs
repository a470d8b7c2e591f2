//! `splitstream diff` prints the flags and experiments that differ between two environments, field by field.
//! These are the changes that `splitstream promote` would make.

use crate::environments::Promotion;
use ops::Exit;
use schemas::Key;

use super::promote::require_known;
use super::{open_log, print_json, print_text};
use crate::config::Config;

#[derive(clap::Args)]
pub struct Args {
    /// The environment that would be promoted
    #[arg(long, value_name = "NAME", value_parser = super::environment)]
    from: Key,
    /// The environment that it would be promoted to
    #[arg(long, value_name = "NAME", value_parser = super::environment)]
    to: Key,
    #[arg(long)]
    json: bool,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let log = open_log(config).await?;
    require_known(log.definitions(), &args.from, "compared")?;
    let promotion = Promotion { from: args.from, to: args.to };
    let differences = promotion.differences(log.definitions());
    if args.json {
        print_json(&differences)?;
        return Ok(Exit::Done);
    }
    for difference in &differences {
        let mut text = format!("{} {}, version {}\n", difference.kind, difference.key, difference.version);
        for changed in &difference.changed {
            text.push_str(&format!("    {changed}\n"));
        }
        print_text(&text)?;
    }
    if differences.is_empty() {
        print_text(&format!("nothing differs between {} and {}\n", promotion.from, promotion.to))?;
    }
    Ok(Exit::Done)
}
