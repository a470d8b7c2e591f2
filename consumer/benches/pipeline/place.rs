//! Where everything runs: a local stack of one broker and one ClickHouse, and a database for each run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clickhouse::Client;
use local::{Options, Server, Stack};
use tokio::runtime::Runtime;

pub const PARTITIONS: u16 = 4;
/// Shortest and longest pause between two questions for the number of rows.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// A run's rate is taken while so many hundredths of its rows come into the table: at first no batch is full
/// yet, and the last ones never are and wait for their age.
const MEASURED_PERCENT: (usize, usize) = (10, 90);

/// Those that are ten times slower are measured by as many rows at most.
pub const SLOW_ROWS_MAX: usize = 500_000;

/// Between which counts of `rows` a run is measured.
pub fn measured(rows: usize) -> (u64, u64) {
    let at = |percent: usize| (rows * percent / 100) as u64;
    (at(MEASURED_PERCENT.0), at(MEASURED_PERCENT.1))
}

pub struct Place {
    pub stack: Stack,
    pub runtime: Runtime,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub rows_per_second: f64,
    /// Processor time in nanoseconds a row; `None` where that process had no part in it.
    pub client: Option<f64>,
    pub clickhouse: Option<f64>,
    pub broker: Option<f64>,
}

/// Reads the clock and every process's processor time, from its start to its stop.
pub struct Meter {
    began: Instant,
    /// The measured process, ClickHouse and the broker, with what each had used.
    processes: [(u32, Duration); 3],
}

impl Place {
    pub fn open(directory: &Path) -> Result<Place> {
        let servers = vec![Server::Kafka, Server::ClickHouse, Server::Registry];
        let stack = Stack::up(Options { servers, ..Options::at(directory) })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Place { stack, runtime })
    }

    /// Fresh tables in a database of that name, whose parts of exposures are not merged.
    pub fn database(&self, name: &str) -> Result<Client> {
        let client = Client::default().with_url(self.stack.clickhouse_url()).with_database(name);
        self.runtime.block_on(consumer::migrate::migrate(&client, name))?;
        // Merging a row costs more than inserting it, whoever inserted it, and goes on long after; a run that
        // is over sooner would pay less of it.
        let stop = client.query("SYSTEM STOP MERGES ?.exposures").bind(clickhouse::sql::Identifier(name));
        self.runtime.block_on(stop.execute())?;
        Ok(client)
    }

    /// Gives up what a run has filled, so that merges of one do not slow the next. The files go later.
    pub fn drop_database(&self, client: &Client, name: &str) -> Result<()> {
        let drop = client.query("DROP DATABASE ?").bind(clickhouse::sql::Identifier(name));
        Ok(self.runtime.block_on(drop.execute())?)
    }

    /// Begins to measure; `client` is the process that does the work, perhaps this one.
    pub fn meter(&self, client: u32) -> Result<Meter> {
        let servers = (self.stack.clickhouse_pid(), self.stack.kafka_pid(0));
        let (Some(clickhouse), Some(broker)) = servers else { bail!("the stack's servers do not run") };
        let mut processes = [client, clickhouse, broker].map(|pid| (pid, Duration::ZERO));
        for (pid, used) in &mut processes {
            *used = process_cpu(*pid)?;
        }
        Ok(Meter { began: Instant::now(), processes })
    }

    /// Waits until the table has so many rows; returns how many it has. Asked seldom while there is far to go,
    /// since asking takes time from what is measured.
    pub fn wait_for_rows(&self, client: &Client, rows: u64) -> Result<u64> {
        let began = Instant::now();
        loop {
            let count = client.query("SELECT count() FROM exposures").fetch_one::<u64>();
            let count = self.runtime.block_on(count)?;
            if count >= rows {
                return Ok(count);
            }
            if began.elapsed() > Duration::from_secs(300) {
                bail!("{count} of {rows} rows after five minutes");
            }
            let left = began.elapsed().mul_f64((rows - count) as f64 / count.max(1) as f64);
            std::thread::sleep((left / 2).clamp(POLL.0, POLL.1));
        }
    }
}

impl Meter {
    pub fn stop(&self, rows: usize) -> Result<Measured> {
        let took = self.began.elapsed();
        let mut used = [0.0; 3];
        for (used, (pid, before)) in used.iter_mut().zip(self.processes) {
            *used = process_cpu(pid)?.saturating_sub(before).as_nanos() as f64 / rows as f64;
        }
        let [client, clickhouse, broker] = used.map(Some);
        Ok(Measured { rows_per_second: rows as f64 / took.as_secs_f64(), client, clickhouse, broker })
    }
}

/// Processor time of a process so far.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th words.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|word| word.parse().unwrap_or(0_u64)).sum();
    // A tick is a hundredth of a second on every Linux that Rust runs on.
    Ok(Duration::from_millis(ticks * 10))
}
