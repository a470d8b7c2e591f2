//! Where everything runs: a local stack of one broker and one ClickHouse, and a database for each run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clickhouse::Client;
use local::{Options, Server, Stack};
use tokio::runtime::Runtime;

pub const PARTITIONS: u16 = 4;

pub struct Place {
    pub stack: Stack,
    pub runtime: Runtime,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub rows_per_second: f64,
    /// Of the measured process alone; of its threads if it is this one.
    pub cpu_nanoseconds_per_row: Option<f64>,
}

impl Place {
    pub fn open(directory: &Path) -> Result<Place> {
        let servers = vec![Server::Kafka, Server::ClickHouse, Server::Registry];
        let stack = Stack::up(Options { servers, ..Options::at(directory) })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Place { stack, runtime })
    }

    /// Fresh tables in a database of that name.
    pub fn database(&self, name: &str) -> Result<Client> {
        let client = Client::default().with_url(self.stack.clickhouse_url()).with_database(name);
        self.runtime.block_on(consumer::migrate::migrate(&client, name))?;
        Ok(client)
    }

    /// Gives up what a run has filled, so that merges of one do not slow the next. The files go later.
    pub fn drop_database(&self, client: &Client, name: &str) -> Result<()> {
        let drop = client.query("DROP DATABASE ?").bind(clickhouse::sql::Identifier(name));
        Ok(self.runtime.block_on(drop.execute())?)
    }

    /// Waits until the table has so many rows.
    pub fn wait_for_rows(&self, client: &Client, rows: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let count = client.query("SELECT count() FROM exposures").fetch_one::<u64>();
            let count = self.runtime.block_on(count)?;
            if count >= rows {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(300) {
                bail!("{count} of {rows} rows after five minutes");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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

impl Measured {
    pub fn of(rows: usize, took: Duration, cpu: Option<Duration>) -> Measured {
        let rows = rows as f64;
        Measured {
            rows_per_second: rows / took.as_secs_f64(),
            cpu_nanoseconds_per_row: cpu.map(|cpu| cpu.as_nanos() as f64 / rows),
        }
    }
}
