//! From an accepted change to the first answer that has it, and to the last event stream that was told: one flag is
//! switched again and again while a client asks for it and others listen. The clock starts when the writer has read
//! its change back as accepted, by which time the edge may have it too: a time before that counts as 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use definitions::DefinitionLog;
use definitions::apply::{Signature, Verdict, apply};

use schemas::definition::{Definition, Version, parse_file};
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
        let mut log = DefinitionLog::open(&place.kafka()).await?;
        let mut all = Vec::new();
        for change in 0..changes {
            let pause = change as u64 * PAUSE_STEP_MS % PAUSE_MAX_MS;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            all.push(
                change_once(&mut log, streams, &mut news)
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
        + &row("from the proposal to accepted", |times| times.written)
        + &row("from accepted to the first answer", |times| times.answered)
        + &row("from accepted to the last stream told", |times| times.told))
}

/// Switches the flag, and waits until it is answered and every stream was told.
async fn change_once(
    log: &mut DefinitionLog,
    streams: usize,
    news: &mut UnboundedReceiver<Seen>,
) -> Result<Times> {
    let current = log.definitions().iter().find(|accepted| accepted.definition.key().as_str() == SWITCHED);
    let is_on = match current.map(|accepted| &accepted.definition) {
        Some(Definition::Flag(flag)) => flag.default_variant.as_str() == "on",
        _ => anyhow::bail!("the flag that is switched is not defined"),
    };
    let parsed = parse_file(&switched(!is_on)).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let definition = parsed.into_iter().next().context("the flag's definition")?;
    let signature = Signature { author: "bench".to_owned(), reason: "measuring".to_owned() };
    let proposed = Instant::now();
    let applied = apply(log, sdk::event::now(), definition, &signature).await?;
    let accepted = Instant::now();
    let Verdict::Accepted { version } = applied.verdict else {
        anyhow::bail!("the change was not accepted: {:?}", applied.verdict)
    };
    let (mut answered, mut told, mut last) = (None, 0, accepted);
    while answered.is_none() || told < streams {
        let next = tokio::time::timeout(CHANGE_TIMEOUT, news.recv()).await;
        match next.context("a change takes too long")?.context("nobody asks any more")? {
            Seen::Value(value, at) if value != is_on && answered.is_none() => answered = Some(at),
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
