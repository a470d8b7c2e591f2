//! Topic to table. [`run`] waits for the tables, follows the definitions log, joins the consumer group, starts a
//! worker for each partition, and at the end finishes what is in flight. What a worker does with a message is in
//! [`partition`]; what it does next, also after a failure, is decided in [`protocol`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use axum::Router;
use ops::retry::{End, Retry};
use tokio::runtime::Handle;

use crate::audit::{self, AuditMetrics};
use crate::config::Config;
use crate::dead_letters::DeadLetterProducer;
use crate::forget::{Ledger, LedgerKey, SharedLedger};
use crate::metrics::Metrics;
use crate::migrate::check_schema;
use batch::Limits;
use buffer_pool::BufferPool;
use definitions::Follower;
use group::{GroupConsumer, StartWorker};
use memory::Budget;
use partition::{Readiness, Shared, Worker};
use rows::Table;
use schema_cache::SchemaCache;
use store::{Place, Store};

// Who works on a partition, and what comes next.
pub mod group;
pub mod partition;
pub mod protocol;

// From a message to a row that is new.
pub mod decode;
pub mod dedupe;
pub mod fetch;
pub mod schema_cache;
pub mod verify;

// From rows to a block in ClickHouse.
pub mod batch;
pub mod native;
pub mod rows;
pub mod store;

// Memory and counts that the partitions share.
pub mod buffer_pool;
pub mod heap;
pub mod memory;
pub mod tally;

/// A loop that makes no round for this long counts as hung. It is longer than every bounded wait.
const STANDSTILL_MAX: Duration = Duration::from_secs(180);
const GROUP_POLL: Duration = Duration::from_millis(100);
const CAUGHT_UP_POLL: Duration = Duration::from_millis(20);
/// Without end: a consumer that is started before ClickHouse, or before `splitstream migrate`, has nothing else to
/// do, and `/readyz` says what it waits for.
const TABLES: Retry =
    Retry { first: Duration::from_secs(1), longest: Duration::from_secs(1), end: End::Never };
const DEAD_LETTERS_FLUSH: Duration = Duration::from_secs(10);
/// The pool of buffers may hold a quarter of what batches may hold, in addition to it.
const BUFFER_POOL_SHARE: usize = 4;

/// Runs until told to stop.
pub async fn run(config: Config) -> Result<ops::Exit> {
    ops::log::start(&config.log)?;
    let settings = &config.consumer;
    let wind_up = Duration::from_millis(settings.session_timeout_ms.get() / 2);
    let shutdown = ops::Shutdown::on_signals(wind_up + DEAD_LETTERS_FLUSH + Duration::from_secs(10))?;
    let health = ops::Health::new();
    let registry = ops::metrics::registry("consumer", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new(&registry)?;
    let audit_metrics = AuditMetrics::new(&registry)?;
    let ledger_key = audit::ledger_key(&config)?;
    let tables_there = health.condition("tables", "not looked for yet");
    let definitions_read = health.condition("definitions", "the log has not been read yet");
    let partitions_given = health.condition("partitions", "none has been given yet");
    let served = http_server::Served { routes: Router::new(), registry, health: health.clone() };
    let server = http_server::start(&config.http, served, &shutdown).await?;

    // Wait for the tables.
    let client = clickhouse_client::open(&config.clickhouse)?;
    let opened = open_tables(&config, &client, ledger_key.as_ref(), &tables_there, &shutdown).await;
    let Some((store, ledger)) = opened else { return Ok(ops::Exit::Done) };
    let ledger = SharedLedger::new(ledger);
    tokio::spawn(ledger.clone().keep_fresh(client, ledger_key, shutdown.clone()));
    tokio::spawn(audit::watch(config.clone(), audit_metrics, shutdown.clone()));

    // Follow the definitions log.
    let follower = Arc::new(Follower::default());
    let following = follow_definitions(&config.kafka, &follower, definitions_read, &shutdown).await?;

    // Join the group and work on its partitions.
    let shared = Arc::new(Shared {
        store,
        schema_cache: SchemaCache::open(&config.registry).map_err(ops::config::Error::from)?,
        dead_letters: DeadLetterProducer::open(&config.kafka)?,
        kafka: config.kafka.clone(),
        group: settings.group.clone(),
        ledger,
        follower,
        metrics: metrics.clone(),
        runtime: Handle::current(),
        limits: Limits {
            rows: settings.batch_rows.usize(),
            bytes: settings.batch_bytes.usize(),
            age: settings.batch_age_ms.duration(),
        },
        memory: Budget::new(settings.memory_bytes.usize()),
        buffer_pool: BufferPool::new(settings.memory_bytes.usize() / BUFFER_POOL_SHARE),
        window_micros: settings.window_hours.get() as i64 * 3_600_000_000,
        window_ids: settings.window_ids_per_partition.usize(),
        deadline: settings.insert_timeout_ms.duration(),
        wind_up,
    });
    let topics: Vec<String> = Table::ALL.iter().map(|table| config.kafka.topic(table.topic())).collect();
    let start = worker_starter(&config, &shared, &health)?;
    let consumer = group::join(&config.kafka, settings, &topics, metrics, start)?;
    let polling = {
        let (shutdown, progress) = (shutdown.clone(), health.progress("group", STANDSTILL_MAX));
        tokio::task::spawn_blocking(move || {
            let ended = poll(&consumer, &topics, &shutdown, &progress, &partitions_given);
            progress.done();
            ended
        })
    };
    let polled = polling.await.context("the group's loop panicked")?;

    // Finish what is in flight.
    if polled.is_err() {
        shutdown.begin("a worker ended by itself");
    }
    shared.dead_letters.flush(DEAD_LETTERS_FLUSH);
    let followed = following.join().map_err(|_| anyhow!("the follower of the definitions log panicked"))?;
    let served = server.stopped().await;
    polled.and(followed)?;
    served.context("serving metrics and health")?;
    Ok(ops::Exit::Done)
}

/// Waits until the tables are those of this build, and reads the ledger of forgotten units. `None` if told to stop
/// before that.
async fn open_tables(
    config: &Config,
    client: &clickhouse::Client,
    ledger_key: Option<&LedgerKey>,
    tables_there: &ops::Condition,
    shutdown: &ops::Shutdown,
) -> Option<(Store, Ledger)> {
    let open = async || {
        check_schema(client, config.clickhouse.database.as_str()).await?;
        let ledger = Ledger::read(client, ledger_key).await?;
        let store = Store::open(client.clone(), config.consumer.insert_timeout_ms.duration());
        anyhow::Ok((store.await.context("asking ClickHouse for its settings")?, ledger))
    };
    for pause in TABLES.pauses() {
        match open().await {
            Ok(opened) => {
                tables_there.holds();
                return Some(opened);
            }
            Err(error) => {
                tracing::warn!("waiting for the tables: {error:#}");
                tables_there.fails(format!("{error:#}"));
            }
        }
        if shutdown.sleep(pause).await {
            break;
        }
    }
    None
}

/// Starts the thread that follows the definitions log, and waits until it has read what the log holds now. A log that
/// cannot be followed begins the shutdown.
async fn follow_definitions(
    kafka: &ops::config::Kafka,
    follower: &Arc<Follower>,
    definitions_read: ops::Condition,
    shutdown: &ops::Shutdown,
) -> Result<JoinHandle<Result<()>>> {
    let caught_up = Arc::new(AtomicBool::new(false));
    let follow = {
        let (follower, kafka, stop, caught_up) =
            (follower.clone(), kafka.clone(), shutdown.clone(), caught_up.clone());
        move || {
            let followed = follower.follow(
                &kafka,
                || stop.begun(),
                || {
                    caught_up.store(true, Ordering::Release);
                    definitions_read.holds();
                },
            );
            if followed.is_err() {
                stop.begin("the definitions log cannot be followed");
            }
            followed
        }
    };
    let thread = thread::Builder::new().name("definitions".to_owned()).spawn(follow)?;
    while !caught_up.load(Ordering::Acquire) && !thread.is_finished() {
        if shutdown.sleep(CAUGHT_UP_POLL).await {
            break;
        }
    }
    Ok(thread)
}

/// What starts the worker of a partition that has been given.
fn worker_starter(config: &Config, shared: &Arc<Shared>, health: &ops::Health) -> Result<StartWorker> {
    let (kafka, database) = (config.kafka.clone(), config.clickhouse.database.clone());
    let epoch = u32::try_from(config.consumer.epoch.get()).context("consumer.epoch")?;
    let (shared, health) = (shared.clone(), health.clone());
    Ok(Box::new(move |consumer, assigned, stop| {
        let table = Table::ALL.into_iter().find(|table| kafka.topic(table.topic()) == assigned.topic);
        let table = table.ok_or_else(|| io::Error::other("a partition of a topic not subscribed to"))?;
        let partition = u16::try_from(assigned.partition).map_err(io::Error::other)?;
        let topic = assigned.topic.clone();
        let name = format!("{topic}/{partition}");
        let place = Place { database: database.clone(), table, topic, partition, epoch };
        let progress = health.progress(&name, STANDSTILL_MAX);
        let readiness = Readiness::new(health.condition(format!("{name} makes progress"), "just given"));
        let worker = Worker::new(assigned, place, consumer, shared.clone(), stop, progress, readiness);
        thread::Builder::new().name(name).spawn(move || worker.run())
    }))
}

/// Polls the group until the shutdown begins, then ends the workers and leaves the group.
fn poll(
    consumer: &GroupConsumer,
    topics: &[String],
    shutdown: &ops::Shutdown,
    progress: &ops::Progress,
    partitions_given: &ops::Condition,
) -> Result<()> {
    use rdkafka::consumer::Consumer;
    let mut outcome = Ok(());
    while !shutdown.begun() && outcome.is_ok() {
        progress.touch();
        match consumer.poll(GROUP_POLL) {
            Some(Err(error)) => tracing::warn!(%error, "from the broker"),
            Some(Ok(message)) => {
                use rdkafka::Message;
                outcome = Err(anyhow!(
                    "a message of {}/{} arrived in the group's queue instead of its partition's",
                    message.topic(),
                    message.partition()
                ));
            }
            None => {}
        }
        match consumer.context().state() {
            Ok(0) => partitions_given.fails("none is given at the moment"),
            Ok(_) => partitions_given.holds(),
            Err(failed) => outcome = Err(anyhow!(failed)),
        }
        if outcome.is_ok() {
            outcome = group::rejoin_if_asked(consumer, topics);
        }
    }
    consumer.context().stop_all();
    consumer.unsubscribe();
    if let Err(error) = outcome {
        bail!(error);
    }
    Ok(())
}
