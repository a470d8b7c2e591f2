//! From produced to durable under a steady load, as the consumer itself measures it: from the broker's time
//! stamp of a batch's oldest message to its rows being in the table, which bounds it for every message.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::producer::Producer;

use super::events::{TOPIC, Workload, producer, send};
use super::ours::{Running, sum};
use super::place::{PARTITIONS, Place};

const LOAD: Duration = Duration::from_secs(20);
const SLICE: Duration = Duration::from_millis(10);

pub fn measure(place: &Place, workload: &Workload, rows_per_second: f64) -> Result<String> {
    let client = place.database("latency")?;
    let running = Running::start(place, "latency", "")?;
    running.wait_for_first()?;
    // What the earlier runs left in the topic is taken first.
    let mut before = 0.0;
    loop {
        let taken = sum(&running.metrics()?, "consumer_records_total", "inserted");
        if taken > 0.0 && taken == before {
            break;
        }
        before = taken;
        std::thread::sleep(Duration::from_secs(2));
    }
    let old = buckets(&running.metrics()?);
    let producer = producer(place)?;
    let began = Instant::now();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut sent = 0_usize;
    while began.elapsed() < LOAD {
        let due = (began.elapsed().as_secs_f64() * rows_per_second) as usize;
        while sent < due {
            let event = workload.experiments.exposure(100_000_000 + sent, now.as_micros() as i64);
            let message = schemas::avro::encode(&schemas::Event::Exposure(event));
            send(&producer, TOPIC, (sent % usize::from(PARTITIONS)) as i32, &message)?;
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(SLICE);
    }
    producer.flush(Duration::from_secs(30))?;
    std::thread::sleep(Duration::from_secs(3));
    let new = buckets(&running.metrics()?);
    drop(running);
    place.drop_database(&client, "latency")?;

    let counts: Vec<(f64, f64)> = new
        .iter()
        .map(|(bound, count)| {
            let before = old.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, count)| *count);
            (*bound, count - before)
        })
        .collect();
    let all = counts.last().context("the consumer measures no latency")?.1;
    let quantile =
        |share: f64| counts.iter().find(|(_, count)| *count >= share * all).map_or(f64::INFINITY, |it| it.0);
    Ok(format!(
        "from produced to durable at {rows_per_second:.0} rows/s ({all} batches; of each its oldest message): p50 at \
         most {} s, p99 at most {} s",
        quantile(0.5),
        quantile(0.99)
    ))
}

/// The histogram's bounds with their cumulative counts.
fn buckets(page: &str) -> Vec<(f64, f64)> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("splitstream_consumer_end_to_end_seconds_bucket{")?;
            let (_, rest) = rest.split_once("le=\"")?;
            let (bound, rest) = rest.split_once('"')?;
            let (_, count) = rest.rsplit_once(' ')?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        })
        .collect()
}
