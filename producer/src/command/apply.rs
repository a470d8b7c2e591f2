//! `splitstream apply` proposes the definitions of a file to the log, one after the other. It prints the
//! verdict, the changed fields and the warnings of each.

use std::path::PathBuf;

use ::definitions::log::DefinitionLog;
use anyhow::{Context, anyhow};
use definitions::apply::{Applied, Signature, Unopened, Verdict, apply, in_order, rehearse, to_try_again};
use ops::Exit;
use schemas::definition::{Definition, parse_file};
use sdk::event::now;

use super::{log_error, open_log, print_json, print_text};
use crate::config::Config;
use crate::text;

#[derive(clap::Args)]
pub struct Args {
    /// Definitions in YAML or JSON
    file: PathBuf,
    #[command(flatten)]
    proposal: ProposalArgs,
}

/// The options of commands that propose changes.
#[derive(clap::Args)]
pub(super) struct ProposalArgs {
    /// The author of the change
    #[arg(long)]
    author: String,
    /// The reason for the change
    #[arg(long)]
    reason: String,
    /// Print the verdicts and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl ProposalArgs {
    pub fn signature(&self) -> Signature {
        Signature { author: self.author.clone(), reason: self.reason.clone() }
    }
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let definitions = read(&args.file)?;
    let signature = args.proposal.signature();
    let mut log = open_log(config).await?;
    let mut all = Vec::new();
    let mut failure = None;
    if args.proposal.dry_run {
        all = rehearse(log.definitions(), now(), definitions, &signature)?;
        for applied in all.iter().filter(|_| !args.proposal.json) {
            print_text(&render_text(applied))?;
        }
    } else {
        let text = !args.proposal.json;
        failure = apply_all(&mut log, &definitions, &signature, text, &mut all).await?;
    }
    if args.proposal.json {
        print_json(&serde_json::json!({ "definitions": all }))?;
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let refused = all.iter().any(Applied::is_refused);
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

/// Proposes each definition, and once more those that another of the file had to come before. Prints each verdict as it
/// comes, but a refused one at the end, when it is final. Returns why the log could not be read or written any further.
async fn apply_all(
    log: &mut DefinitionLog,
    definitions: &[Definition],
    signature: &Signature,
    text: bool,
    all: &mut Vec<Applied>,
) -> anyhow::Result<Option<anyhow::Error>> {
    let mut failure = None;
    let mut refused = Vec::new();
    for (index, definition) in definitions.iter().enumerate() {
        match apply(log, now(), definition.clone(), signature).await {
            Ok(applied) if applied.is_refused() => {
                refused.push(index);
                all.push(applied);
            }
            Ok(applied) => {
                if text {
                    print_text(&render_text(&applied))?;
                }
                all.push(applied);
            }
            Err(error) => {
                failure = Some(log_error(error));
                break;
            }
        }
    }
    let again = if failure.is_none() { to_try_again(all) } else { Vec::new() };
    for index in again {
        match apply(log, now(), definitions[index].clone(), signature).await {
            Ok(applied) => all[index] = applied,
            Err(error) => {
                failure = Some(log_error(error));
                break;
            }
        }
    }
    for index in refused.into_iter().filter(|_| text) {
        print_text(&render_text(&all[index]))?;
    }
    Ok(failure)
}

/// Proposes one definition, or rehearses that, and prints the verdict.
pub(super) async fn propose_one(
    log: &mut DefinitionLog,
    definition: Definition,
    proposal: &ProposalArgs,
) -> anyhow::Result<Exit> {
    let signature = proposal.signature();
    let applied = if proposal.dry_run {
        rehearse(log.definitions(), now(), vec![definition], &signature)?.remove(0)
    } else {
        apply(log, now(), definition, &signature).await.map_err(log_error)?
    };
    if proposal.json {
        print_json(&applied)?;
    } else {
        print_text(&render_text(&applied))?;
    }
    Ok(if applied.is_refused() { Exit::Refused } else { Exit::Done })
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<Definition>> {
    let name = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("reading {name}")).context(Exit::InvalidInput)?;
    let text =
        text::decode_file(&bytes).map_err(|error| anyhow!("{name}: {error}")).context(Exit::InvalidInput)?;
    let definitions = parse_file(text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("{name}, {error}")).collect();
        anyhow::Error::msg(lines.join("\n")).context(Exit::InvalidInput)
    })?;
    in_order(definitions).map_err(|error| anyhow!("{name}: {error}")).context(Exit::InvalidInput)
}

fn render_text(applied: &Applied) -> String {
    let Applied { kind, key, verdict, changed, warnings, opened, unopened } = applied;
    let verdict = match verdict {
        Verdict::Accepted { version } => format!("accepted, version {version}"),
        Verdict::WouldBeAccepted => "would be accepted".to_owned(),
        Verdict::Unchanged { version } => format!("unchanged, version {version}"),
        Verdict::Refused { reason } => format!("refused: {reason}"),
    };
    let mut text = format!("{kind} {key}: {verdict}\n");
    for changed in changed {
        text.push_str(&format!("    {changed}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("    warning: {warning}\n"));
    }
    for opened in opened {
        text.push_str("  opens a phase, for other units take part: ");
        text.push_str(&render_text(opened));
    }
    if let Some(Unopened { experiments, because }) = unopened {
        let experiments = experiments.join(", ");
        text.push_str(&format!(
            "  phases not open yet: {experiments}; apply the list again to open them: {because}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use schemas::definition::Kind;

    use super::*;

    #[test]
    fn warnings_follow_the_verdict() {
        let applied = Applied {
            kind: Kind::Experiment,
            key: "checkout".to_owned(),
            verdict: Verdict::Accepted { version: 7 },
            changed: Vec::new(),
            warnings: vec!["there will be no verdict".to_owned()],
            opened: Vec::new(),
            unopened: None,
        };
        assert_eq!(
            render_text(&applied),
            "experiment checkout: accepted, version 7\n    warning: there will be no verdict\n"
        );
    }

    #[test]
    fn phases_that_are_not_open_yet_are_told_beside_the_list() {
        let experiments = vec!["e".to_owned(), "f".to_owned()];
        let applied = Applied {
            kind: Kind::List,
            key: "testers".to_owned(),
            verdict: Verdict::Accepted { version: 7 },
            changed: Vec::new(),
            warnings: Vec::new(),
            opened: Vec::new(),
            unopened: Some(Unopened { experiments, because: "kafka does not answer".to_owned() }),
        };
        assert_eq!(
            render_text(&applied),
            "list testers: accepted, version 7\n  phases not open yet: e, f; apply the list again to open them: kafka \
             does not answer\n"
        );
    }
}
