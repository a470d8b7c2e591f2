//! How fast the event path is, in one run on the local stack: the bare limit (fetch and throw away while
//! prepared blocks are inserted), our consumer, a naive one, and ClickHouse's own Kafka engine, interleaved,
//! each several times; rows a second, the consumer's processor time for each row, and each as a share of the
//! limit. Then the time from produced to durable at a tenth of the load.
//!
//! `cargo bench -p consumer --bench pipeline`, with SPLITSTREAM_BENCH_EVENTS and SPLITSTREAM_BENCH_ROUNDS;
//! SPLITSTREAM_BENCH_ONLY names parts of contenders' names, with semicolons between them.

mod engine;
mod events;
#[path = "../exposures.rs"]
mod exposures;
mod latency;
mod limit;
mod naive;
mod ours;
mod place;
mod report;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use events::Workload;
use place::{Measured, Place};
use report::Report;

const EVENTS: usize = 6_000_000;
const ROUNDS: usize = 3;
/// What the others are shares of.
const LIMIT: &str = "limit: both at once";
const OURS: &str = "this consumer";

/// Carries the workload once; the number is that of the round.
type Contender = fn(&Place, &Workload, usize) -> Result<Measured>;

fn main() -> Result<()> {
    // `cargo test --benches` runs this as a test; only `cargo bench` measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let events = setting("SPLITSTREAM_BENCH_EVENTS", EVENTS)?;
    let rounds = setting("SPLITSTREAM_BENCH_ROUNDS", ROUNDS)?;
    let directory = tempfile::tempdir().context("making a directory for the stack")?;
    let place = Place::open(directory.path())?;
    let workload = Workload::make(events);
    workload.produce(&place)?;
    engine::produce(&place, &workload)?;

    let mut report = Report::of_limit(LIMIT);
    let all: [(&'static str, Contender); 7] = [
        ("fetch, thrown away", |place, workload, _| limit::fetch(place, workload)),
        ("insert, prepared blocks", limit::insert),
        (LIMIT, limit::both),
        (OURS, |place, workload, round| ours::run(place, workload, "", round)),
        ("naive consumer", naive::run),
        ("this consumer, framed", |place, workload, round| ours::run(place, workload, engine::PREFIX, round)),
        ("ClickHouse's Kafka engine", engine::run),
    ];
    let only = std::env::var("SPLITSTREAM_BENCH_ONLY").unwrap_or_default();
    let wanted = all.into_iter().filter(|(name, _)| only.split(';').any(|part| name.contains(part)));
    let wanted: Vec<(&'static str, Contender)> = wanted.collect();
    let bar = ProgressBar::new((rounds * wanted.len()) as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    for round in 0..rounds {
        for (name, run) in &wanted {
            bar.set_message(*name);
            if bar.is_hidden() {
                eprintln!("{name} ...");
            }
            report.add(name, run(&place, &workload, round).context(*name)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report.add("decode alone", workload.decode());
    print!("{report}");
    if wanted.iter().any(|(name, _)| *name == OURS) {
        println!("{}", ours::account()?);
        println!("{}", latency::measure(&place, &workload, report.median(OURS) / 10.0)?);
    }
    Ok(())
}

fn setting(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, not a number")),
        Err(_) => Ok(default),
    }
}
