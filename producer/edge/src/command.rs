//! The command line and the service: [`serve`] starts its parts in order and stops them in reverse.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Subcommand;
use http_server::{Intake, Public, Served};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ops::config::Millis;
use ops::{Condition, Exit, Health, Shutdown};
use schemas::Uuid;
use tokio::sync::{Semaphore, watch};

use crate::announce;
use crate::config::Config;
use crate::counts::Counts;
use crate::events::{Events, Opening};
use crate::follow::Follow;
use crate::http::{self, Edge};
use crate::metrics::Metrics;
use crate::samples::Samples;
use crate::serving::Serving;
use crate::suppress::Suppressed;
use crate::token_file::{self, TokenStore, Watch};
use crate::tokens::Tokens;

/// The time that accepted events have at the end to become safe.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The follower's thread does a round at least this often.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
/// How long a batch of events stays open if `producer.linger_ms` is not set. A request that reports events waits for Kafka or
/// for the disk, which is synced after at most 10 ms: at 20 ms the disk got more than half of the events, at 5 ms one in 300.
const LINGER_MS: Millis<0, 1_000> = Millis::of(5);
/// How often the way of events is looked at.
const EVENTS_POLL: Duration = Duration::from_secs(1);
/// The time that the parts have to stop beside requests and events.
const STOP_SLACK: Duration = Duration::from_secs(3);
/// Open files besides connections: Kafka's, the listeners', the snapshot.
const OTHER_FILES: u64 = 256;

#[derive(Subcommand)]
pub enum ServiceCommand {
    /// Answer flags over OFREP and take events, until it is stopped
    Run,
}

/// Runs the service.
pub async fn serve(config: Config) -> anyhow::Result<Exit> {
    run(config).await.map_err(|error| ops::with_exit_code(error, kafka::exit_of))
}

async fn run(config: Config) -> anyhow::Result<Exit> {
    ops::log::start(&config.log)?;
    let settings = config.edge.clone();
    settings.check_access().map_err(ops::config::Error::from)?;
    let shutdown = Shutdown::on_signals(settings.request_timeout_ms.duration() + CLOSE_TIMEOUT + STOP_SLACK)
        .context("listening for signals")?;
    allow_open_files(settings.connections.get() + OTHER_FILES);
    let health = Health::new();
    let registry = ops::metrics::registry("edge", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&registry)?;

    // Who may ask.
    let environment = settings.environment.as_str().to_owned();
    let (tokens, watching) = match &settings.token_file {
        None => (TokenStore::new(Tokens::open()), None),
        Some(path) => {
            let (tokens, text) =
                token_file::read(path, &environment).await.map_err(ops::config::Error::from)?;
            let store = TokenStore::new(tokens);
            let watch = Watch {
                path: path.clone(),
                text,
                environment: environment.clone(),
                store: store.clone(),
                condition: health.condition("tokens", "not read yet"),
                ok: metrics.token_file_ok.clone(),
                shutdown: shutdown.clone(),
            };
            (store, Some(tokio::spawn(watch.run())))
        }
    };

    // What is served, and who is told of changes.
    let serving = Serving::default();
    let counts = Arc::new(Counts::default());
    let following = Follow {
        lists: Arc::default(),
        kafka: config.kafka.clone(),
        environment,
        attributes: config.producer.attributes.clone(),
        snapshot_file: settings.snapshot_file.clone(),
        stale_after: settings.stale_after_ms.duration(),
        serving: serving.clone(),
        counts: counts.clone(),
        condition: health.condition("definitions", "the log has not been read yet"),
        progress: health.progress("definitions", STANDSTILL_MAX),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let following = following.start().context("starting the follower of the definitions")?;
    let (announcing, announced) = watch::channel(None);
    let announcing = tokio::spawn(announce::run(serving.clone(), announcing, shutdown.clone()));

    // The way of events.
    let instance = Uuid::new_v4();
    let mut producer = config.producer.clone();
    producer.linger_ms.get_or_insert(LINGER_MS);
    let opening = Opening {
        kafka: &config.kafka,
        settings: &producer,
        spool: &config.spool,
        registry: &config.registry,
        instance: instance.simple().to_string(),
        metrics: &registry,
    };
    let events = Arc::new(Events::open(opening).await?);
    let condition = health.condition("events", "not looked at yet");
    let watching_events = tokio::spawn(watch_events(events.clone(), condition, shutdown.clone()));

    // The two ports.
    let now = Instant::now();
    let seed = Uuid::new_v4().as_u128() as u64;
    let samples_kept = settings.samples_kept(&config.http);
    if samples_kept == 0 && settings.samples.usize() > 0 {
        let listen = config.http.listen.get();
        tracing::warn!(%listen, "no contexts are sampled for /samples: others can reach http.listen; set http.token");
    }
    let edge = Arc::new(Edge {
        instance,
        serving,
        tokens,
        events: events.clone(),
        suppressed: Suppressed::new(settings.suppressed_exposures.usize(), now),
        samples: Mutex::new(Samples::new(samples_kept, seed, now)),
        samples_kept,
        intake: Intake::new(settings.intake()),
        place: settings.place(),
        counts,
        metrics,
        announced,
        stream_slots: Arc::new(Semaphore::new(settings.streams.usize())),
        shutdown: shutdown.clone(),
        settings,
    });
    let answering = edge.clone();
    let public = Public {
        name: "edge",
        section: "edge",
        http: &edge.settings.public(),
        answer: move |request| http::answer(answering.clone(), request),
        refuse: http::refuse,
    };
    let public = http_server::start_public(public, &shutdown).await?;
    let routes = http_server::guarded(http::private::routes(edge.clone()), &config.http)
        .map_err(ops::config::Error::from)?;
    let private = http_server::start(&config.http, Served { routes, registry, health }, &shutdown).await?;
    drop(edge);

    // Stop taking requests, answer those under way, and make their events safe.
    public.stopped().await?;
    private.stopped().await?;
    for task in [announcing, watching_events].into_iter().chain(watching) {
        task.await.context("a task panicked")?;
    }
    match Arc::into_inner(events) {
        Some(events) => events.close(CLOSE_TIMEOUT).await?,
        None => tracing::error!("a request outlived the server; its events are closed without a flush"),
    }
    let joined = tokio::task::spawn_blocking(move || following.join()).await?;
    joined.map_err(|_| anyhow::anyhow!("the follower of the definitions panicked"))?;
    Ok(Exit::Done)
}

/// Says in `/readyz` how the way of events is.
async fn watch_events(events: Arc<Events>, condition: Condition, shutdown: Shutdown) {
    loop {
        let status = events.status();
        let spooled = status.spool.as_ref().map_or(0, |spool| spool.events);
        let disk_error = status.spool.as_ref().and_then(|spool| spool.disk_error.as_ref());
        match (&status.stopped, disk_error) {
            (Some(why), _) => condition.fails(format!("the kafka client stopped: {why}; restart the edge")),
            (None, Some(error)) => condition.holds_but(format!("the disk of the spool fails: {error}")),
            (None, None) if status.kafka_is_away() => condition.holds_but(format!(
                "kafka acknowledges no event; {} wait, {spooled} of them in the spool",
                status.remaining
            )),
            (None, None) => condition.holds(),
        }
        if shutdown.sleep(EVENTS_POLL).await {
            return;
        }
    }
}

/// Raises the limit of open files to what the connections need, as far as the system allows.
fn allow_open_files(needed: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= needed {
        return;
    }
    let raised = needed.min(hard);
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        tracing::warn!(%error, soft, "raising the limit of open files");
    }
    if raised < needed {
        tracing::warn!(
            needed,
            allowed = raised,
            "fewer files may be open than edge.connections needs; raise the limit (ulimit -n)"
        );
    }
}
