//! `splitstream simulate` sends seeded traffic of a running experiment with known true conversion rates: to Kafka, where
//! the library assigns, or through an edge, which assigns and logs the exposures. It prints the exact counts of what it
//! sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::simulate::{EdgeTraffic, Mix, Plan, Simulation, Tally, evaluation_body, snapshot};
use crate::unit_context::UnitContext;
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use ops::config::ServerUrl;
use ops::{Exit, Shutdown};
use schemas::definition::Experiment;
use schemas::{Decimal6, Event, Key, Micros};
use sdk::event::now;
use serde::Serialize;

use super::event_sender::EventSender;
use super::{open_log, print_json, print_text};
use crate::config::Config;
use edge_client::Edge;
use through_edge::EdgeNumbers;

mod edge_answer;
mod edge_client;
mod through_edge;

/// The time that events sent before a signal may take to be acknowledged by Kafka.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that an edge has after a signal to answer what it was asked before: twice as long as it waits for Kafka.
const EDGE_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of moments, at each of which one unit does something, between two updates of the progress bar.
const MOMENTS_PER_UPDATE: u64 = 1_024;

/// The id with which an edge is asked by which definitions it evaluates.
const NO_UNIT: &str = "splitstream-simulate";

#[derive(clap::Args)]
pub struct Args {
    /// A running, hashed experiment
    #[arg(long, value_name = "KEY")]
    experiment: String,
    /// Units that arrive
    #[arg(long, value_name = "N")]
    units: u64,
    /// The true conversion rate of each variant: `control=0.05,treatment=0.058`
    #[arg(long, value_name = "VARIANT=RATE,...", value_delimiter = ',', value_parser = rate, required = true)]
    rates: Vec<(String, f64)>,
    /// Name of the conversion event
    #[arg(long, value_name = "NAME", value_parser = key)]
    event: Key,
    /// The same seed and batch id are the same units, events and ids
    #[arg(long)]
    seed: u64,
    /// Begins the unit ids and is part of the event ids; `sim-SEED` if left out
    #[arg(long, value_name = "NAME", value_parser = key)]
    batch_id: Option<Key>,
    /// Ask this edge for each unit, and send conversions to it, instead of assigning here and sending to Kafka. An edge
    /// stamps exposures with its own clock, so this traffic is always live, and the clocks of this machine and of the
    /// edge must agree: a conversion that lies before its exposure does not count. Its token is read from
    /// SPLITSTREAM_TOKEN
    #[arg(long, value_name = "URL", value_parser = edge_url, conflicts_with_all = ["start", "span", "ids"])]
    edge: Option<ServerUrl>,
    /// The file of the edge's token, in place of SPLITSTREAM_TOKEN
    #[arg(long, value_name = "FILE", requires = "edge")]
    edge_token_file: Option<PathBuf>,
    /// Connections to the edge, each with one request at a time
    #[arg(long, value_name = "N", requires = "edge", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,
    /// Live traffic at about this many events a second; as fast as possible if left out
    #[arg(long, value_name = "EVENTS_PER_S", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    /// Share of the events that are sent a second time, unchanged, at once or later
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    duplicates: f64,
    /// The attributes of the units
    #[arg(long, value_name = "MIX", value_enum, default_value_t = AttributeMix::Default)]
    attribute_mix: AttributeMix,
    /// What a conversion is worth, from and to: `5.00,49.99`; no value if left out
    #[arg(long, value_name = "FROM,TO", value_parser = value)]
    value: Option<(Decimal6, Decimal6)>,
    /// When the first unit arrives (RFC 3339); if left out, now with --rate, else the span before now
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<Micros>,
    /// The time over which the units arrive, when they are sent as fast as possible
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, conflicts_with = "rate",
          value_parser = clap::value_parser!(u64).range(0..=315_360_000))]
    span: u64,
    /// The longest time from arrival to conversion, and from an event to its repetition
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    delay: u64,
    /// Write the id and kind of every distinct event here, one a line
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AttributeMix {
    /// region, plan, device and browser, independent of each other
    Default,
    None,
}

#[derive(Serialize)]
struct Summary<'a> {
    experiment: &'a Key,
    definition_version: u64,
    configuration_version: u64,
    seed: u64,
    batch_id: &'a Key,
    start: Micros,
    #[serde(flatten)]
    tally: &'a Tally,
    distinct_events: u64,
    sent: u64,
    /// Messages that Kafka has acknowledged; not known where an edge sends them.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<EdgeNumbers>,
    seconds: f64,
    events_per_second: f64,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let timeout = if args.edge.is_some() { EDGE_DRAIN_TIMEOUT } else { DRAIN_TIMEOUT };
    let shutdown = Shutdown::on_signals(timeout).context("listening for signals")?;
    let log = open_log(config).await?;
    let definitions = log.definitions();
    let Some((version, experiment)) = definitions.experiment(&args.experiment) else {
        let refused = anyhow!(
            "there is no experiment `{}`; `splitstream definitions` lists all definitions",
            args.experiment
        );
        return Err(refused.context(Exit::Refused));
    };
    let bar = bar(args.units);
    let token_file = args.edge_token_file.as_deref();
    let edge = args
        .edge
        .as_ref()
        .map(|url| Edge::new(url, token_file, shutdown.clone(), bar.clone()))
        .transpose()?;
    let _asking = edge.as_ref().map(|_| shutdown.hold("requests to the edge"));
    if let Some(edge) = &edge {
        // Before the clock of the traffic starts. Waiting blocks; nothing else runs on this runtime.
        let body = evaluation_body(&UnitContext::new(experiment.unit_type.as_str(), NO_UNIT, &[]));
        let version = definitions.version();
        let ready =
            tokio::task::block_in_place(|| edge.connect().await_version(&experiment.key, &body, version))?;
        if ready == edge_client::Sent::Stopped {
            return Err(anyhow!(
                "stopped by a signal before the edge at {} was ready; nothing was sent",
                edge.url()
            ));
        }
    }
    let plan = plan(config, &args, experiment)?;
    let (batch_id, start) = (plan.batch_id.clone(), plan.start);
    let snapshot = snapshot(definitions);
    let simulation = Simulation::new(&snapshot, experiment, plan).context(Exit::Refused)?;
    let began = Instant::now();
    let Sent { tally, delivered, edge } = match &edge {
        Some(edge) => tokio::task::block_in_place(|| {
            send_through_edge(edge, &args, experiment, simulation, &shutdown, &bar)
        })?,
        None => send_to_kafka(config, &args, simulation, &shutdown, &bar).await?,
    };
    bar.finish_and_clear();
    let tally = &tally;
    let seconds = began.elapsed().as_secs_f64();
    let summary = Summary {
        experiment: &experiment.key,
        definition_version: version,
        configuration_version: definitions.version(),
        seed: args.seed,
        batch_id: &batch_id,
        start,
        tally,
        distinct_events: tally.distinct(),
        sent: tally.sent(),
        delivered,
        edge,
        seconds,
        events_per_second: (tally.sent() as f64 / seconds).round(),
    };
    if args.json {
        print_json(&summary)?;
    } else {
        print_text(&text(&summary))?;
    }
    if shutdown.begun() {
        return Err(anyhow!("stopped by a signal before the last unit; what was counted is delivered"));
    }
    Ok(Exit::Done)
}

/// What was sent, and by which way.
struct Sent {
    tally: Tally,
    delivered: Option<u64>,
    edge: Option<EdgeNumbers>,
}

async fn send_to_kafka(
    config: &Config,
    args: &Args,
    mut simulation: Simulation<'_>,
    shutdown: &Shutdown,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut ids = args.ids.as_deref().map(Ids::create).transpose()?;
    let sender = EventSender::open(config, batch_id(args)?.to_string()).await?;
    let mut moments: u64 = 0;
    // A signal ends this between two moments: what has happened is counted, so all of it is sent.
    while let Some(at) = simulation.next_at() {
        if args.rate.is_some() {
            let early = at.get().saturating_sub(now().get()).max(0).unsigned_abs();
            if early > 0 && shutdown.sleep(Duration::from_micros(early)).await {
                break;
            }
        }
        for sent in simulation.next_moment() {
            if let Some(ids) = ids.as_mut().filter(|_| !sent.repeated) {
                ids.add(&sent.event)?;
            }
            if let Err(problem) = sender.send(sent.event).await? {
                return Err(anyhow!("a simulated event is refused: {problem}").context(Exit::Refused));
            }
        }
        moments += 1;
        if moments.is_multiple_of(MOMENTS_PER_UPDATE) {
            bar.set_position(simulation.tally().units);
            if shutdown.begun() {
                break;
            }
        }
    }
    bar.set_message("waiting for the last acknowledgements");
    let delivered = sender.finish().await?.delivered;
    if let Some(ids) = ids {
        ids.finish()?;
    }
    Ok(Sent { tally: simulation.tally().clone(), delivered: Some(delivered), edge: None })
}

fn send_through_edge(
    edge: &Edge,
    args: &Args,
    experiment: &Experiment,
    simulation: Simulation<'_>,
    shutdown: &Shutdown,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut traffic = EdgeTraffic::new(simulation);
    let connections = usize::from(args.connections);
    let numbers = through_edge::run(edge, connections, &experiment.key, &mut traffic, shutdown, bar)?;
    Ok(Sent { tally: traffic.tally().clone(), delivered: None, edge: Some(numbers) })
}

fn batch_id(args: &Args) -> anyhow::Result<Key> {
    match &args.batch_id {
        Some(batch_id) => Ok(batch_id.clone()),
        None => Key::new(format!("sim-{}", args.seed)).context(Exit::Usage),
    }
}

fn plan(config: &Config, args: &Args, experiment: &Experiment) -> anyhow::Result<Plan> {
    let rates: BTreeMap<String, f64> = args.rates.iter().cloned().collect();
    let (start, step_nanos) = match args.rate {
        Some(rate) => {
            let nanos = 1e9 * events_per_unit(experiment, &rates, args.duplicates) / rate as f64;
            (args.start.unwrap_or_else(now), nanos.round() as u64)
        }
        None if args.edge.is_some() => (now(), 0),
        None => {
            let before = Micros::new(now().get() - args.span as i64 * 1_000_000).context(Exit::Usage)?;
            (args.start.unwrap_or(before), args.span * 1_000_000_000 / args.units.max(1))
        }
    };
    Ok(Plan {
        seed: args.seed,
        batch_id: batch_id(args)?,
        units: args.units,
        rates,
        event: args.event.clone(),
        value: args.value,
        duplicates: args.duplicates,
        mix: match args.attribute_mix {
            AttributeMix::Default => Mix::Default,
            AttributeMix::None => Mix::None,
        },
        attributes: config.producer.attributes.clone(),
        start,
        step_nanos,
        delay_micros_max: args.delay * 1_000_000,
    })
}

/// The average number of messages for a unit that takes part.
fn events_per_unit(experiment: &Experiment, rates: &BTreeMap<String, f64>, duplicates: f64) -> f64 {
    let mut conversions = 0.0;
    for variant in &experiment.variants {
        let share = f64::from(variant.weight.get()) / 10_000.0;
        conversions += share * rates.get(variant.key.as_str()).copied().unwrap_or(0.0);
    }
    (1.0 + conversions) * (1.0 + duplicates)
}

/// The file with the ids of the events sent; tests compare it with the events that arrived.
struct Ids {
    file: BufWriter<File>,
    name: String,
}

impl Ids {
    fn create(path: &Path) -> anyhow::Result<Ids> {
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("creating {name}"))?;
        Ok(Ids { file: BufWriter::new(file), name })
    }

    fn add(&mut self, event: &Event<'_>) -> anyhow::Result<()> {
        let kind = match event {
            Event::Exposure(_) => "exposure",
            Event::Conversion(_) => "conversion",
            Event::Alias(_) => "alias",
        };
        writeln!(self.file, "{} {kind}", event.event_id()).with_context(|| format!("writing {}", self.name))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("writing {}", self.name))
    }
}

/// The progress bar; it is hidden if standard error is no terminal.
fn bar(units: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} units {per_sec} {eta} {msg}")
        .expect("the template is sound");
    ProgressBar::new(units).with_style(style)
}

fn text(summary: &Summary<'_>) -> String {
    let Summary { tally, distinct_events, sent, edge, seconds, events_per_second, .. } = summary;
    let mut text = format!("{} units, {} exposed\n", tally.units, tally.exposed);
    for (reason, units) in &tally.not_exposed {
        text.push_str(&format!("  not exposed: {units}, {reason}\n"));
    }
    for variant in &tally.variants {
        text.push_str(&format!(
            "  {}: {} units, {} conversions\n",
            variant.key, variant.units, variant.conversions
        ));
    }
    for (holdout, sides) in &tally.holdouts {
        let sides: Vec<String> = sides.iter().map(|(side, units)| format!("{side} {units}")).collect();
        text.push_str(&format!("  holdout {holdout}: {} units\n", sides.join(", ")));
    }
    text.push_str(&match edge {
        None => format!(
            "{distinct_events} events, {} sent twice: {sent} messages in {seconds:.1} s, {events_per_second} a second\n",
            tally.duplicates
        ),
        Some(edge) => format!(
            "the edge at {} answered {} evaluations, took {} exposures and accepted {} conversions: {} requests in \
             {seconds:.1} s, {} a second, {} of them sent again\n",
            edge.url,
            edge.evaluations,
            tally.exposures,
            edge.conversions,
            edge.requests,
            edge.requests_per_second,
            edge.resent
        ),
    });
    if tally.exposed == 0 && tally.units > 0 {
        text.push_str("nobody was exposed to the experiment\n");
    }
    text
}

fn key(text: &str) -> Result<Key, String> {
    Key::new(text).map_err(|error| error.to_string())
}

fn edge_url(text: &str) -> Result<ServerUrl, String> {
    ServerUrl::try_from(text.to_owned())
}

fn rate(text: &str) -> Result<(String, f64), String> {
    let (variant, rate) = text.split_once('=').ok_or("variant=rate is expected")?;
    let rate = rate.parse().map_err(|_| format!("`{rate}` is not a number"))?;
    Ok((variant.to_owned(), rate))
}

fn value(text: &str) -> Result<(Decimal6, Decimal6), String> {
    let (from, to) = text.split_once(',').ok_or("from,to is expected")?;
    let parse = |text: &str| Decimal6::parse(text).map_err(|error| error.to_string());
    let (from, to) = (parse(from)?, parse(to)?);
    if to < from {
        return Err(format!("{to} is less than {from}"));
    }
    Ok((from, to))
}

fn time(text: &str) -> Result<Micros, String> {
    Micros::parse(text).map_err(|error| error.to_string())
}
