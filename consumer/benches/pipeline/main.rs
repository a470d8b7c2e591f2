//! How fast the event path is, in one run on the local stack: the bare limit (fetch and throw away while
//! prepared blocks are inserted), our consumer, a naive one, and ClickHouse's own Kafka engine, interleaved,
//! each several times; rows a second, the consumer's processor time for each row, and each as a share of the
//! limit. Then the time from produced to durable at a tenth of the load.
//!
//! `cargo bench -p consumer --bench pipeline`, with SPLITSTREAM_BENCH_EVENTS and SPLITSTREAM_BENCH_ROUNDS.

mod engine;
mod events;
mod latency;
mod limit;
mod naive;
mod ours;
mod place;
mod report;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use events::Workload;
use place::Place;
use report::Report;

const EVENTS: usize = 2_000_000;
const ROUNDS: usize = 3;

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

    let mut report = Report::default();
    let bar = ProgressBar::new((rounds * 7) as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let step = |what: &'static str| {
        bar.set_message(what);
        bar.inc(1);
        if bar.is_hidden() {
            eprintln!("{what} ...");
        }
    };
    for round in 0..rounds {
        step("fetch alone");
        report.add("fetch, thrown away", limit::fetch(&place, &workload)?);
        step("insert alone");
        report.add("insert, prepared blocks", limit::insert(&place, &workload, round)?);
        step("the limit: both at once");
        report.add_limit("limit: both at once", limit::both(&place, &workload, round)?);
        step("this consumer");
        report.add("this consumer", ours::run(&place, &workload, "", round)?);
        step("a naive consumer");
        report.add("naive consumer", naive::run(&place, &workload, round)?);
        step("this consumer, registry's framing");
        report.add("this consumer, framed", ours::run(&place, &workload, engine::PREFIX, round)?);
        step("ClickHouse's Kafka engine");
        report.add("ClickHouse's Kafka engine", engine::run(&place, &workload, round)?);
    }
    bar.finish_and_clear();
    report.add("decode alone", workload.decode());
    print!("{report}");
    println!("{}", ours::account(&place)?);
    println!("{}", latency::measure(&place, &workload, report.median("this consumer") / 10.0)?);
    Ok(())
}

fn setting(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, not a number")),
        Err(_) => Ok(default),
    }
}
