//! How fast the edge answers, beside a bare axum handler that returns the same bytes: requests a second, latencies and
//! processor time, from one load generator in one run, in turns. Then how long a change takes until it is answered and
//! announced. It judges nothing; the generator and the servers share the processors, so that only ratios mean anything.
//!
//! `cargo bench -p edge --bench service`, with SPLITSTREAM_BENCH_ROUNDS, SPLITSTREAM_BENCH_SECONDS for a turn,
//! SPLITSTREAM_BENCH_CONNECTIONS, SPLITSTREAM_BENCH_CHANGES; SPLITSTREAM_BENCH_ONLY names parts of cases' names, with
//! semicolons between them, `change` among them.

mod bare;
mod changes;
#[path = "../../tests/edge_fixture/mod.rs"]
mod edge_fixture;
mod load;
mod place;
mod report;

use anyhow::{Context, Result, ensure};

use bare::Bare;
use load::{Connections, Request};
use place::{Place, process_cpu};
use report::{Report, Turn};

const ROUNDS: usize = 5;
const SECONDS: usize = 3;
const CONNECTIONS: usize = 32;
const CHANGES: usize = 100;
/// Units whose exposures were all logged before the turns of repeats.
const REPEATING_UNITS: u64 = 1_000;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    seconds: usize,
    connections: usize,
    changes: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(bare::ARGUMENT) {
        let file = arguments.next().context("the bare server needs the file of its answer")?;
        return bare::serve(file.as_ref());
    }
    // `cargo test --benches` runs this as a test; only `cargo bench` measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let scale = Scale {
        rounds: setting("SPLITSTREAM_BENCH_ROUNDS", ROUNDS)?,
        seconds: setting("SPLITSTREAM_BENCH_SECONDS", SECONDS)?,
        connections: setting("SPLITSTREAM_BENCH_CONNECTIONS", CONNECTIONS)?,
        changes: setting("SPLITSTREAM_BENCH_CHANGES", CHANGES)?,
    };
    let only = std::env::var("SPLITSTREAM_BENCH_ONLY").unwrap_or_default();
    let is_wanted = |name: &str| only.split(';').any(|part| name.contains(part));
    let place = Place::open()?;
    let mut report = Report::default();
    for case in cases(&place)? {
        if is_wanted(case.name) {
            measure(&place, &case, scale, &mut report).context(case.name)?;
        }
    }
    print!("{report}");
    for streams in [1, 1_000] {
        let name = format!("change, {streams} streams");
        if is_wanted(&name) {
            print!("{}", changes::measure(&place, streams, scale.changes).context(name)?);
        }
    }
    Ok(())
}

/// One kind of request.
struct Case {
    name: &'static str,
    request: Request,
    /// What every answer has.
    status: u16,
}

fn cases(place: &Place) -> Result<Vec<Case>> {
    let single = || place.request("/ofrep/v1/evaluate/flags/checkout", &[]);
    let bulk = || place.request("/ofrep/v1/evaluate/flags", &[]);
    let off = [("x-splitstream-exposure", "off")];
    let answer = place.ask(&bulk().with_units(1))?;
    let tag = answer.header("etag").context("a bulk answer has a tag")?;
    Ok(vec![
        Case { name: "single, every one exposes", request: single(), status: 200 },
        Case { name: "single, repeats", request: single().with_units(REPEATING_UNITS), status: 200 },
        Case {
            name: "single, exposure off",
            request: place.request("/ofrep/v1/evaluate/flags/checkout", &off),
            status: 200,
        },
        Case { name: "bulk of 1,000 flags", request: bulk(), status: 200 },
        Case {
            name: "bulk, not modified",
            request: place.request("/ofrep/v1/evaluate/flags", &[("if-none-match", tag)]).with_units(1),
            status: 304,
        },
    ])
}

/// Takes turns: the edge, the bare handler, the edge, ...
fn measure(place: &Place, case: &Case, scale: Scale, report: &mut Report) -> Result<()> {
    let answer = place.ask(&case.request)?;
    ensure!(answer.status == case.status, "the edge answers {}: {}", answer.status, answer.text());
    let bare = Bare::start(&place.path("bare"), &answer)?;
    let mut edge = Connections::open(place.address(), scale.connections, &case.request)?;
    let mut floor = Connections::open(bare.address(), scale.connections, &case.request)?;
    // Once without measuring: what is allocated and compiled the first time.
    for connections in [&mut edge, &mut floor] {
        connections.load(1.0, case.status)?;
    }
    for _ in 0..scale.rounds {
        for (server, connections, pid) in
            [("edge", &mut edge, place.edge_pid()), ("bare axum", &mut floor, bare.pid())]
        {
            let before = process_cpu(pid)?;
            let load = connections.load(scale.seconds as f64, case.status)?;
            let cpu = process_cpu(pid)?.saturating_sub(before);
            report.add(case.name, server, Turn { load, cpu });
        }
    }
    Ok(())
}

fn setting(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, not a number")),
        Err(_) => Ok(default),
    }
}
