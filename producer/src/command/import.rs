//! `splitstream import` turns what another platform exports into a definition file for `splitstream apply`. It prints the
//! definitions on standard output and the findings on standard error. It needs no server and no configuration.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use ops::Exit;

use super::{print_json, print_text};
use crate::import::{Format, import};
use crate::text;

#[derive(clap::Args)]
pub struct Args {
    /// What wrote the file
    #[arg(long, value_name = "FORMAT")]
    from: Format,
    /// The file, in JSON
    file: PathBuf,
    /// Write the definitions to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The owner of all definitions
    #[arg(long, default_value = "")]
    owner: String,
    /// Print one document with the definitions and the findings
    #[arg(long)]
    json: bool,
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Format] {
        &Format::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Exits with [`Exit::Found`] if something is lost.
pub fn run(args: Args) -> anyhow::Result<Exit> {
    let name = args.file.display();
    let bytes =
        std::fs::read(&args.file).with_context(|| format!("reading {name}")).context(Exit::InvalidInput)?;
    let text =
        text::decode_file(&bytes).map_err(|error| anyhow!("{name}: {error}")).context(Exit::InvalidInput)?;
    let imported = import(args.from, text, &args.owner)
        .map_err(|error| anyhow!("{name}, {error}; it must be what {} writes", args.from))
        .context(Exit::InvalidInput)?;
    let file = imported.file();
    if let Some(out) = &args.out {
        std::fs::write(out, &file).with_context(|| format!("writing {}", out.display()))?;
    }
    match (args.json, &args.out) {
        (true, _) => print_json(&imported)?,
        (false, None) => {
            print_text(&file)?;
        }
        (false, Some(_)) => {}
    }
    if !args.json {
        eprint!("{}", imported.report());
    }
    Ok(if imported.is_lossy() { Exit::Found } else { Exit::Done })
}
