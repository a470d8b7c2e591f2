//! Kafka goes away under load, and edges are killed meanwhile and start again on their spools. In the end every conversion
//! that was accepted and every exposure older than the stated bound is in ClickHouse once, and nothing that was refused.
//! The seed alone determines the moments of the faults; what an edge is doing at them depends on the machine too.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use local::Service;
use schemas::Uuid;

use crate::clickhouse::ClickHouse;
use crate::edge_load::{self, DEFINITIONS, Ledger};
use crate::edges::EdgePlace;
use crate::metrics;
use crate::oracle::Agreement;
use crate::platform::{Platform, wait_until};
use crate::random::Random;

/// How long an edge holds an exposure before it is in the spool. A killed one loses what is younger.
pub const SPOOL_DELAY: Duration = Duration::from_millis(100);
/// What the spool's writer may need on a busy machine besides.
const WRITER_LAG_MAX: Duration = Duration::from_millis(500);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
const DRAIN_POLL: Duration = Duration::from_millis(200);
const EDGES: usize = 2;
/// Threads that send conversions.
const TRACKERS: usize = 2;
/// The most differences that an error lists.
const LISTED_MAX: usize = 10;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub kafka_away: Duration,
    /// The load before Kafka goes away, and after it has come back.
    pub around: Duration,
    /// Faults of edges while Kafka is away; each kind comes at least once if there are three.
    pub faults: usize,
}

/// What happens to an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EdgeFault {
    /// SIGKILL, and a start at its place.
    Kill,
    /// SIGKILL, and once more while the next process starts.
    KillTwice,
    /// SIGKILL, and another process takes over the place for good.
    TakeOver,
}

/// What was sent and what was found.
#[derive(Debug)]
pub struct Outcome {
    pub ledger: LedgerCounts,
    /// Exposures that were logged so long before any kill that they had to arrive.
    pub guaranteed: usize,
    /// Logged exposures that did not arrive, and the age of the oldest of them at the kill.
    pub lost: usize,
    pub oldest_lost: Duration,
    pub kills: usize,
    pub agreement: Agreement,
}

/// The lengths of a ledger's lists.
#[derive(Debug)]
pub struct LedgerCounts {
    pub logged: usize,
    pub not_logged: usize,
    pub unanswered: u64,
    pub accepted: usize,
    pub refused: usize,
    pub resends: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LedgerCounts { logged, not_logged, unanswered, accepted, refused, resends } = &self.ledger;
        writeln!(
            out,
            "evaluations: {logged} logged an exposure, {not_logged} did not, {unanswered} had no answer\n\
             exposures: {} had to arrive and did; of the younger ones {} were lost in {} kills, the oldest {} ms \
             before its kill\n\
             conversions: {accepted} accepted, each there once, after {resends} batches were sent again; \
             {refused} refused, none there",
            self.guaranteed,
            self.lost,
            self.kills,
            self.oldest_lost.as_millis()
        )?;
        write!(out, "kafka and clickhouse: {}", self.agreement)
    }
}

/// Runs the whole story once. `report` is called with a line for each fault.
///
/// # Errors
/// If an event is missing, doubled, or there although it was refused; then the logs are kept.
pub fn run(seed: u64, scale: Scale, mut report: impl FnMut(&str)) -> Result<Outcome> {
    let platform = Platform::up()?;
    let outcome = run_on(&platform, seed, scale, &mut report);
    outcome.map_err(|error| {
        let logs = platform.keep();
        error.context(format!("seed {seed}; the logs are in {}", logs.display()))
    })
}

fn run_on(platform: &Platform, seed: u64, scale: Scale, report: &mut dyn FnMut(&str)) -> Result<Outcome> {
    platform.apply(DEFINITIONS)?;
    let _consumer = platform.consumer(&[])?;
    let names: Vec<String> = (0..EDGES).map(|edge| format!("edge-{edge}")).collect();
    let places = names.iter().map(|name| EdgePlace::new(platform, name)).collect::<Result<Vec<_>>>()?;
    let mut edges = places.iter().map(|place| place.start(platform, &[])).collect::<Result<Vec<_>>>()?;
    let run = format!("chaos-{seed}");
    let ended = AtomicBool::new(false);
    let (kills, ledger) = std::thread::scope(|scope| {
        let (run, places, ended) = (&run, &places, &ended);
        let mut threads = Vec::new();
        for (edge, place) in places.iter().enumerate() {
            threads.push(scope.spawn(move || edge_load::evaluate(run, edge, place, ended)));
        }
        for thread in 0..TRACKERS {
            threads.push(scope.spawn(move || edge_load::track(run, thread, places, ended)));
        }
        let kills = inject(platform, places, &mut edges, &mut Random::new(seed), scale, report);
        // Also after a failure, or the threads would go on for ever.
        ended.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for thread in threads {
            ledger.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, anyhow::Error>((kills?, ledger))
    })?;
    for edge in &edges {
        wait_until_drained(edge)?;
    }
    let agreement = platform.every_event_once()?;
    judge(&ledger, &kills, &platform.clickhouse(), agreement)
}

/// Takes Kafka away and gives it back, and meanwhile kills edges. Returns the moment just before each kill.
fn inject(
    platform: &Platform,
    places: &[EdgePlace],
    edges: &mut [Service],
    random: &mut Random,
    scale: Scale,
    report: &mut dyn FnMut(&str),
) -> Result<Vec<(usize, Instant)>> {
    std::thread::sleep(scale.around);
    let began = Instant::now();
    platform.stack().kill_kafka(0)?;
    let mut kinds = vec![EdgeFault::Kill, EdgeFault::KillTwice, EdgeFault::TakeOver];
    random.shuffle(&mut kinds);
    let mut kills = Vec::new();
    for fault in 0..scale.faults {
        let slice = scale.kafka_away / scale.faults as u32;
        let at = slice * fault as u32 + random.between(Duration::ZERO, slice);
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        let (edge, kind) = (random.below(EDGES as u64) as usize, kinds[fault % kinds.len()]);
        report(&format!(
            "{:.1} s after kafka went away: {kind:?} of edge {edge}",
            began.elapsed().as_secs_f64()
        ));
        kills.push((edge, Instant::now()));
        places[edge].kill(&edges[edge])?;
        match kind {
            EdgeFault::Kill => edges[edge].start()?,
            EdgeFault::KillTwice => {
                edges[edge].spawn()?;
                std::thread::sleep(random.between(Duration::ZERO, Duration::from_millis(500)));
                kills.push((edge, Instant::now()));
                places[edge].kill(&edges[edge])?;
                edges[edge].start()?;
            }
            EdgeFault::TakeOver => edges[edge] = places[edge].start(platform, &[])?,
        }
    }
    std::thread::sleep(scale.kafka_away.saturating_sub(began.elapsed()));
    platform.start_kafka(0)?;
    report(&format!("{:.1} s after kafka went away: it is back", began.elapsed().as_secs_f64()));
    // Once more while the spools are being sent.
    let edge = random.below(EDGES as u64) as usize;
    std::thread::sleep(random.between(Duration::ZERO, scale.around));
    kills.push((edge, Instant::now()));
    places[edge].kill(&edges[edge])?;
    edges[edge].start()?;
    std::thread::sleep(scale.around);
    Ok(kills)
}

/// Waits until Kafka has everything that the edge accepted.
fn wait_until_drained(edge: &Service) -> Result<()> {
    let waiting = |name: &str| -> Result<f64> {
        Ok(metrics::series(&edge.url(), name)?.iter().map(|(_, value)| value).sum())
    };
    wait_until("an edge without waiting events", DRAIN_TIMEOUT, DRAIN_POLL, || {
        let names = ["splitstream_producer_queue_events", "splitstream_producer_spool_events"];
        for name in names {
            if waiting(name)? > 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

fn judge(
    ledger: &Ledger,
    kills: &[(usize, Instant)],
    clickhouse: &ClickHouse,
    agreement: Agreement,
) -> Result<Outcome> {
    let exposures = counts(clickhouse, "SELECT unit_id, count() FROM exposures GROUP BY unit_id")?;
    let conversions = counts(clickhouse, "SELECT event_id, count() FROM conversions GROUP BY event_id")?;
    let mut wrong = Vec::new();
    let (mut guaranteed, mut lost, mut oldest_lost) = (0, 0, Duration::ZERO);
    for exposed in &ledger.exposures {
        let found = exposures.get(&exposed.unit).copied().unwrap_or(0);
        // Also a kill before the answer was read: the answer may have been on its way.
        let next = kills.iter().filter(|(edge, at)| *edge == exposed.edge && *at >= exposed.asked).min();
        let age = next.map_or(Duration::MAX, |(_, at)| at.saturating_duration_since(exposed.answered));
        let must_be_there = exposed.logged && age >= SPOOL_DELAY + WRITER_LAG_MAX;
        guaranteed += usize::from(must_be_there);
        if found > 1 || (must_be_there && found == 0) || (!exposed.logged && found > 0) {
            wrong.push(format!("{exposed:?} is there {found} times; {age:?} until the next kill"));
        } else if exposed.logged && found == 0 {
            lost += 1;
            oldest_lost = oldest_lost.max(age);
        }
    }
    let of = |id: &Uuid| conversions.get(&id.to_string()).copied().unwrap_or(0);
    let accepted = ledger.accepted.iter().filter(|id| of(id) != 1);
    wrong.extend(accepted.map(|id| format!("conversion {id} was accepted and is there {} times", of(id))));
    let refused = ledger.refused.iter().filter(|id| of(id) != 0);
    wrong.extend(refused.map(|id| format!("conversion {id} was refused and is there")));
    if !wrong.is_empty() {
        let listed = wrong.iter().take(LISTED_MAX).map(String::as_str).collect::<Vec<_>>();
        bail!("{} differences, such as:\n{}", wrong.len(), listed.join("\n"));
    }
    let others = conversions.len() - ledger.accepted.len();
    ensure!(others == 0, "{others} conversions are there that nobody sent");
    let logged = ledger.exposures.iter().filter(|exposed| exposed.logged).count();
    let ledger = LedgerCounts {
        logged,
        not_logged: ledger.exposures.len() - logged,
        unanswered: ledger.unanswered,
        accepted: ledger.accepted.len(),
        refused: ledger.refused.len(),
        resends: ledger.resends,
    };
    Ok(Outcome { ledger, guaranteed, lost, oldest_lost, kills: kills.len(), agreement })
}

/// The rows of a query with a text and a number.
fn counts(clickhouse: &ClickHouse, sql: &str) -> Result<HashMap<String, u64>> {
    let text = clickhouse.text(sql, &[])?;
    let row = |line: &str| {
        let (name, count) = line.split_once('\t').with_context(|| format!("{line:?} is no count"))?;
        Ok((name.to_owned(), count.parse::<u64>()?))
    };
    text.lines().map(row).collect()
}
