//! From an accepted change to the first answer that has it, and to the last event stream that was told: one flag is
//! switched again and again while a client asks for it and others listen. The clock starts when the broker has acknowledged
//! the change, which is when the log has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use definitions::DefinitionLog;
use ops::config::Kafka;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use schemas::definition::{Definition, Definitions, Version, parse_file};
use schemas::topics::DEFINITIONS;
use schemas::{Uuid, avro};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::edge_fixture::SERVER_TOKEN;
use super::load::Connection;
use super::place::{Place, SWITCHED, switched};
use super::report::quantile;

/// Between two questions for the flag; the resolution of the first answer's time.
const ASK_INTERVAL: Duration = Duration::from_millis(1);
/// The longest that a change may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses between changes differ, so that they meet the edge at every moment of its rounds.
const PAUSE_STEP_MS: u64 = 37;
const PAUSE_MAX_MS: u64 = 250;

/// An answer with this value came, or a stream was told of this version.
enum Seen {
    Value(bool, Instant),
    Told(Version, Instant),
}

/// The times of one change, in microseconds.
struct Times {
    written: u64,
    answered: u64,
    told: u64,
}

pub fn measure(place: &Place, streams: usize, changes: usize) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut times = runtime.block_on(async {
        let (seen, mut news) = unbounded_channel();
        let ended = Arc::new(AtomicBool::new(false));
        for _ in 0..streams {
            let stream = open_stream(place.address()).await?;
            tokio::spawn(listen(stream, seen.clone()));
        }
        let request = place.request(&format!("/ofrep/v1/evaluate/flags/{SWITCHED}"), &[]);
        let connection = Connection::open(place.address(), request).await?;
        let asking = tokio::spawn(ask(connection, seen, ended.clone()));
        let mut writer = Writer::open(&place.kafka()).await?;
        let mut all = Vec::new();
        for change in 0..changes {
            let pause = change as u64 * PAUSE_STEP_MS % PAUSE_MAX_MS;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            all.push(
                change_once(&mut writer, streams, &mut news)
                    .await
                    .with_context(|| format!("change {change}"))?,
            );
        }
        ended.store(true, Ordering::Relaxed);
        asking.await??;
        Ok::<_, anyhow::Error>(all)
    })?;
    let mut row = |what: &str, of: fn(&Times) -> u64| {
        times.sort_by_key(of);
        let sorted: Vec<u64> = times.iter().map(of).collect();
        let at = |share| quantile(&sorted, share) as f64 / 1_000.0;
        let name = format!("change, {streams} streams: {what}");
        format!("{name:58} {:>7.1} {:>7.1} {:>7.1}\n", at(0.5), at(0.99), at(1.0))
    };
    let head = format!("{:58} {:>7} {:>7} {:>7}\n", format!("{changes} changes, ms"), "p50", "p99", "max");
    Ok(head
        + &row("from sent to in the log", |times| times.written)
        + &row("from in the log to the first answer", |times| times.answered)
        + &row("from in the log to the last stream told", |times| times.told))
}

/// Writes changes to the log and keeps its producer: a writer that opens one for each change, and reads it back, takes longer
/// than all that is measured here.
struct Writer {
    definitions: Definitions,
    producer: FutureProducer,
    topic: String,
}

impl Writer {
    async fn open(kafka: &Kafka) -> Result<Writer> {
        let definitions = DefinitionLog::open(kafka).await?.definitions().clone();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", kafka.brokers.as_str())
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()?;
        Ok(Writer { definitions, producer, topic: kafka.topic(DEFINITIONS) })
    }

    fn is_on(&self) -> Result<bool> {
        let mut known = self.definitions.iter().map(|accepted| &accepted.definition);
        match known.find(|definition| definition.key().as_str() == SWITCHED) {
            Some(Definition::Flag(flag)) => Ok(flag.default_variant.as_str() == "on"),
            _ => anyhow::bail!("the flag that is switched is not defined"),
        }
    }

    /// Returns when the change is in the log: whether the flag is on by it, and its version.
    async fn switch(&mut self) -> Result<(bool, Version)> {
        let is_on = self.is_on()?;
        let now = sdk::event::now();
        let parsed = parse_file(&switched(!is_on)).map_err(|errors| anyhow!("{errors:?}"))?;
        let written = parsed.into_iter().next().context("the flag's definition")?;
        let definition =
            assignment::resolve(&self.definitions, now, written).map_err(|why| anyhow!("{why}"))?;
        let change = self.definitions.change_to(&definition, Uuid::now_v7(), "bench", "measuring");
        let payload = avro::encode_change(&change);
        let record = FutureRecord::to(&self.topic).partition(0).key(&change.key).payload(&payload);
        let sent = self.producer.send(record, Timeout::Never).await.map_err(|(error, _)| error)?;
        let offset = u64::try_from(sent.offset)?;
        let accepted =
            self.definitions.apply(offset, now, &change)?.map_err(|refusal| anyhow!("{refusal}"))?;
        Ok((!is_on, accepted.version))
    }
}

/// Switches the flag, and waits until it is answered and every stream was told.
async fn change_once(
    writer: &mut Writer,
    streams: usize,
    news: &mut UnboundedReceiver<Seen>,
) -> Result<Times> {
    let proposed = Instant::now();
    let (is_on, version) = writer.switch().await?;
    let accepted = Instant::now();
    let (mut answered, mut told, mut last) = (None, 0, accepted);
    while answered.is_none() || told < streams {
        let next = tokio::time::timeout(CHANGE_TIMEOUT, news.recv()).await;
        match next.context("a change takes too long")?.context("nobody asks any more")? {
            Seen::Value(value, at) if value == is_on && answered.is_none() => answered = Some(at),
            Seen::Told(of, at) if of == version => {
                told += 1;
                last = last.max(at);
            }
            Seen::Value(..) | Seen::Told(..) => {}
        }
    }
    let since = |at: Instant| at.saturating_duration_since(accepted).as_micros() as u64;
    Ok(Times {
        written: (accepted - proposed).as_micros() as u64,
        answered: since(answered.unwrap_or(accepted)),
        told: since(last),
    })
}

/// Asks for the flag until the end, and reports each value.
async fn ask(mut connection: Connection, seen: UnboundedSender<Seen>, ended: Arc<AtomicBool>) -> Result<()> {
    while !ended.load(Ordering::Relaxed) {
        let (status, answer) = connection.ask().await?;
        ensure!(status == 200, "the flag is answered with {status}");
        let is_on = answer.windows(12).any(|window| window == b"\"value\":true");
        if seen.send(Seen::Value(is_on, Instant::now())).is_err() {
            return Ok(());
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
    Ok(())
}

async fn open_stream(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /ofrep/v1/stream HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SERVER_TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Reports each announcement on the stream.
async fn listen(mut stream: TcpStream, seen: UnboundedSender<Seen>) {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let at = Instant::now();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            // The id is the revision: log, version and epoch.
            let version = line.trim().strip_prefix("id: ").and_then(|id| id.split('.').nth_back(1));
            if let Some(version) = version.and_then(|version| version.parse().ok())
                && seen.send(Seen::Told(version, at)).is_err()
            {
                return;
            }
        }
    }
}
