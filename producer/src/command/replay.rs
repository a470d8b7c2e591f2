//! `splitstream replay` sends the events of a file to Kafka with their own ids and times. It reports lines that
//! are no events and sends the others.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::replay::{Lines, event};
use anyhow::{Context, anyhow};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use ops::{Exit, Shutdown};
use schemas::Event;
use serde::Serialize;

use super::event_sender::EventSender;
use super::{open_log, print_json, print_text};
use crate::config::Config;

/// The number of bad lines that are printed; further ones are only counted.
const REPORTED_MAX: u64 = 100;
/// The time that events read before a signal may take to be acknowledged.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// Events, one JSON object a line; gzip if the name ends in .gz; `-` is standard input
    file: PathBuf,
    #[arg(long)]
    json: bool,
}

/// The counts of what was read and sent.
#[derive(Debug, Default, Serialize)]
struct Summary {
    exposures: u64,
    conversions: u64,
    aliases: u64,
    /// Events that Kafka has acknowledged.
    delivered: u64,
    bad_lines: u64,
    seconds: f64,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let shutdown = Shutdown::on_signals(DRAIN_TIMEOUT).context("listening for signals")?;
    let bar = bar();
    let mut lines = Lines::new(open(&args.file, &bar)?);
    let log = open_log(config).await?;
    let sender = EventSender::open(config, "replay".to_owned()).await?;
    let mut summary = Summary::default();

    while !shutdown.begun() {
        let reading = || format!("reading {}", args.file.display());
        let Some(line) = lines.next_line().with_context(reading).context(Exit::InvalidInput)? else { break };
        let number = line.number;
        let read = match line.text {
            Ok(text) => event(text, log.definitions()),
            Err(too_long) => Err(too_long.to_string()),
        };
        let counted = match &read {
            Ok(Event::Exposure(_)) => &mut summary.exposures,
            Ok(Event::Conversion(_)) => &mut summary.conversions,
            Ok(Event::Alias(_)) => &mut summary.aliases,
            Err(_) => &mut summary.bad_lines,
        };
        let outcome = match read {
            Ok(event) => sender.send(event).await?,
            Err(problem) => Err(problem),
        };
        match outcome {
            Ok(()) => *counted += 1,
            Err(problem) => {
                summary.bad_lines += 1;
                if summary.bad_lines <= REPORTED_MAX {
                    bar.suspend(|| eprintln!("line {number}: {problem}"));
                }
            }
        }
    }
    bar.set_message("waiting for the last acknowledgements");
    summary.delivered = sender.finish().await?.delivered;
    summary.seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();

    if args.json {
        print_json(&summary)?;
    } else {
        print_text(&text(&summary))?;
    }
    if shutdown.begun() {
        return Err(anyhow!("stopped by a signal before the end of the file; what was read is delivered"));
    }
    if summary.bad_lines > 0 {
        return Err(anyhow::Error::msg(bad_lines(&summary)).context(Exit::InvalidInput));
    }
    Ok(Exit::Done)
}

fn open(file: &PathBuf, bar: &ProgressBar) -> anyhow::Result<Box<dyn BufRead + Send>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let opened = File::open(file)
        .and_then(|opened| opened.metadata().map(|metadata| (opened, metadata)))
        .with_context(|| format!("opening {}", file.display()))
        .context(Exit::InvalidInput)?;
    let (opened, metadata) = opened;
    bar.set_length(metadata.len());
    let bytes = bar.wrap_read(opened);
    let zipped = file.extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read + Send> =
        if zipped { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
    Ok(Box::new(BufReader::with_capacity(128 * 1_024, text)))
}

/// The progress bar; it is hidden if standard error is no terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta} {msg}")
        .expect("the template is sound");
    ProgressBar::no_length().with_style(style)
}

fn bad_lines(summary: &Summary) -> String {
    let bad = match summary.bad_lines {
        1 => "1 line is no event and was not sent".to_owned(),
        bad => format!("{bad} lines are no events and were not sent"),
    };
    match summary.delivered {
        0 => format!("{bad}; nothing else was"),
        1 => format!("{bad}; the 1 event of the other lines was"),
        delivered => format!("{bad}; the {delivered} events of the other lines were"),
    }
}

fn text(summary: &Summary) -> String {
    let Summary { exposures, conversions, aliases, delivered, bad_lines, seconds } = summary;
    format!(
        "{exposures} exposures, {conversions} conversions, {aliases} aliases: {delivered} delivered in \
         {seconds:.1} s, {bad_lines} bad lines\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a file of bad lines alone it said that the others were sent.
    #[test]
    fn what_became_of_the_other_lines_is_told_with_their_number() {
        let told = |bad, delivered| bad_lines(&Summary { bad_lines: bad, delivered, ..Summary::default() });
        assert_eq!(told(2, 0), "2 lines are no events and were not sent; nothing else was");
        assert_eq!(told(1, 1), "1 line is no event and was not sent; the 1 event of the other lines was");
        assert_eq!(
            told(3, 40),
            "3 lines are no events and were not sent; the 40 events of the other lines were"
        );
    }
}
