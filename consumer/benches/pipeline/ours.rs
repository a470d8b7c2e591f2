//! This consumer as it is in production: the program itself, everything on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::events::Workload;
use super::place::{Measured, Place, measured};

/// What the last run said of its stages.
static STAGES: Mutex<String> = Mutex::new(String::new());

/// The program, stopped when dropped.
pub struct Running {
    child: Child,
    port: u16,
}

impl Running {
    pub fn start(place: &Place, database: &str, prefix: &str) -> Result<Running> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = place
            .stack
            .command(&["consumer", "run"])?
            .env("SPLITSTREAM_CLICKHOUSE__DATABASE", database)
            .env("SPLITSTREAM_CONSUMER__GROUP", database)
            .env("SPLITSTREAM_KAFKA__TOPIC_PREFIX", prefix)
            .env("SPLITSTREAM_HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .env("SPLITSTREAM_LOG__LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the consumer")?;
        Ok(Running { child, port })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The page of metrics.
    pub fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }

    /// Waits for the first messages to be taken.
    pub fn wait_for_first(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if self.metrics().is_ok_and(|page| sum(&page, "consumer_records_total", "taken") > 0.0) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the consumer has taken nothing for a minute")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ours, and nobody waits for it but we.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On the topics that begin with `prefix`.
pub fn run(place: &Place, workload: &Workload, prefix: &str, round: usize) -> Result<Measured> {
    let name = format!("ours_{prefix}{round}");
    let client = place.database(&name)?;
    let running = Running::start(place, &name, prefix)?;
    // Between two moments of steady work: at first there are batches to be filled before any can land.
    let (from, to) = measured(workload.distinct);
    let before = place.wait_for_rows(&client, from)?;
    let meter = place.meter(running.pid())?;
    let rows = place.wait_for_rows(&client, to)?;
    let result = meter.stop((rows - before) as usize)?;
    // That the rest comes too is not measured, but demanded.
    let rows = place.wait_for_rows(&client, workload.distinct as u64)?;
    ensure!(rows == workload.distinct as u64, "{rows} rows of {} events", workload.distinct);
    *STAGES.lock().expect("no thread panics with it") = running.metrics()?;
    drop(running);
    place.drop_database(&client, &name)?;
    Ok(result)
}

/// Where the time of the last run's workers went, and with it the price of exactly once.
pub fn account() -> Result<String> {
    let page = STAGES.lock().expect("no thread panics with it").clone();
    let mut text = String::from("where the workers' time went in the last run (seconds, all partitions):\n");
    let stages = ["fetch", "decode", "dedupe", "append", "encode", "intent", "insert", "count", "commit"];
    for stage in stages {
        let seconds = sum(&page, "consumer_stage_seconds_sum", stage);
        text += &format!("  {stage:8} {seconds:8.3}\n");
    }
    let price = sum(&page, "consumer_stage_seconds_sum", "intent")
        + sum(&page, "consumer_stage_seconds_sum", "count")
        + sum(&page, "consumer_stage_seconds_sum", "commit");
    let all: f64 = stages.iter().map(|stage| sum(&page, "consumer_stage_seconds_sum", stage)).sum();
    text += &format!("exactly once (intent, count, commit) takes {:.1} % of it", 100.0 * price / all);
    Ok(text)
}

/// The sum of a metric's samples whose labels mention `label`.
pub fn sum(page: &str, name: &str, label: &str) -> f64 {
    page.lines()
        .filter(|line| {
            line.starts_with(&format!("splitstream_{name}")) && line.contains(&format!("\"{label}\""))
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
