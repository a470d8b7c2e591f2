//! The ClickHouse engine as a server on one machine: libchdb behind ClickHouse's HTTP interface, so that
//! ordinary clients cannot tell it from one. One process, one data path, one user; no clustering, no
//! native protocol, no TLS.
//!
//! ```text
//!  request ─▶ http ─▶ request   who asks, and for what
//!              │  └─▶ spool     the body, in memory, bounded
//!              ▼
//!            execute ─▶ compression, statement   rows and their statement
//!              │    └─▶ session                  a connection that is kept
//!              ▼
//!            engine  (libchdb: all the unsafe code)
//!              ▼
//!            output  ─▶ response   1 MiB held back, then streamed, two pieces ahead at most
//! ```

mod compression;
mod engine;
mod exception;
mod execute;
mod external;
mod form;
mod http;
mod lexer;
mod output;
mod pieces;
mod processes;
mod request;
mod running;
mod session;
mod spool;
mod statement;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use engine::{Connection, Engine, Parameter};
use exception::Exception;
use request::Credentials;
use running::{Query, Running};
use session::Sessions;
use spool::SpoolSpace;

/// How the server is to run.
pub struct Config {
    /// libchdb.
    pub library: PathBuf,
    /// The data directory, made if it is not there. Held by one server at a time.
    pub path: PathBuf,
    pub listen: SocketAddr,
    /// Where "host:port" is written once the server answers.
    pub port_file: Option<PathBuf>,
    pub user: String,
    /// Empty: the user must give none.
    pub password: String,
    /// Queries at once, those whose bodies are still arriving included; more are refused (code 202).
    pub queries_max: usize,
    /// Sessions at once, each holding a connection; more are refused (code 202).
    pub sessions_max: usize,
    /// One body, as sent and as decompressed; a larger one is refused (code 229).
    pub body_bytes_max: u64,
    /// All bodies at once, which are held in memory; what does not fit is refused (code 202).
    pub spool_bytes_max: u64,
    /// On SIGTERM and SIGINT running queries get this long to end, then are cancelled.
    pub stop_timeout: Duration,
}

/// A cancelled query that does not end by then is left behind on shutdown.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// ClickHouse recurses over expressions on the calling thread, and checks its depth against the stack.
const STACK_BYTES: usize = 8 << 20;
/// Threads for what runs beside the queries: their killers, opening and closing.
const SPARE_THREADS: usize = 32;

/// What all requests share.
struct Server {
    engine: Arc<Engine>,
    running: Arc<Running>,
    sessions: Arc<Sessions>,
    space: Arc<SpoolSpace>,
    permits: Arc<Semaphore>,
    queries_max: usize,
    credentials: Credentials,
    display_name: String,
    timezone: String,
    version: Arc<str>,
}

/// Serves until SIGTERM or SIGINT; then stops accepting, lets running queries end within the bound, and
/// closes the engine with everything on disk.
pub fn serve(config: Config) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(2 * config.queries_max + SPARE_THREADS)
        .build()
        .context("starting the threads")?
        .block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let path = &config.path;
    fs::create_dir_all(path).with_context(|| format!("creating the data directory {}", path.display()))?;
    let path =
        fs::canonicalize(path).with_context(|| format!("resolving the data directory {}", path.display()))?;
    let _lock = lock(&path)?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("listening on {}: choose another --listen, or port 0 for any", config.listen)
    })?;
    let address = listener.local_addr().context("reading the address that is listened on")?;

    let library = config.library.clone();
    let opening = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Engine::open(&library, &path)
    });
    let (engine, keeper) = opening.await.context("opening the engine")??;
    let server = Arc::new(Server::new(engine, keeper, &config)?);
    let keeper = Arc::clone(&server);
    tokio::spawn(async move {
        let mut period = tokio::time::interval(SWEEP_PERIOD);
        loop {
            period.tick().await;
            let sessions = Arc::clone(&keeper.sessions);
            // Closing a connection takes the engine a moment.
            if tokio::task::spawn_blocking(move || sessions.sweep(Instant::now())).await.is_err() {
                return;
            }
        }
    });

    if let Some(port_file) = &config.port_file {
        write_port_file(port_file, address)?;
    }
    tracing::info!(%address, path = %path.display(), version = %server.version, "serving ClickHouse over HTTP");
    let app = axum::Router::new().fallback(http::answer).with_state(Arc::clone(&server));
    // Small answers must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, and with it the server.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    let serving = tokio::spawn(serving.into_future());
    // Losing either branch loses a signal of the same meaning.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(running = server.running.all().len(), "stopping");
    stop.send_replace(true);
    server.drain(config.stop_timeout).await;
    if tokio::time::timeout(CANCEL_TIMEOUT, serving).await.is_err() {
        tracing::warn!("some clients still hold their connections; leaving them");
    }
    if let Some(port_file) = &config.port_file
        && let Err(error) = fs::remove_file(port_file)
    {
        tracing::debug!(%error, "cannot remove the port file");
    }
    tokio::task::spawn_blocking(move || server.close()).await.context("closing the engine")?;
    tracing::info!("stopped");
    Ok(())
}

impl Server {
    fn new(engine: Arc<Engine>, keeper: Connection, config: &Config) -> anyhow::Result<Server> {
        let mut keeper = keeper;
        let asked = "SELECT version(), timezone(), hostName()";
        let facts = keeper.run(asked.as_bytes(), "JSONCompactEachRow", &[]);
        let facts = facts.map_err(|exception| anyhow::anyhow!("{asked}: {}", exception.message))?;
        let (version, timezone, display_name): (String, String, String) =
            serde_json::from_slice(facts.bytes())
                .with_context(|| format!("reading the answer to {asked}"))?;
        drop(facts);
        engine.keep(keeper);
        Ok(Server {
            engine,
            running: Arc::default(),
            sessions: Sessions::new(config.sessions_max),
            space: SpoolSpace::new(config.body_bytes_max, config.spool_bytes_max),
            permits: Arc::new(Semaphore::new(config.queries_max)),
            queries_max: config.queries_max,
            credentials: Credentials { user: config.user.clone(), password: config.password.clone() },
            display_name,
            timezone,
            version: version.into(),
        })
    }

    /// A connection with a server's defaults where the embedded engine has others.
    fn connect(&self) -> Result<Connection, Exception> {
        let mut connection = self.engine.connect()?;
        let defaults = [b"SET promql_table = ''".as_slice(), execute::SERVER_DEFAULTS].concat();
        connection.run(&defaults, "Null", &[])?;
        Ok(connection)
    }

    /// Stops a query: between its steps, and in the engine, until it is gone.
    fn stop(self: &Arc<Server>, query: &Arc<Query>) {
        if !query.ask_to_stop() {
            return;
        }
        let (server, query) = (Arc::clone(self), Arc::clone(query));
        tokio::task::spawn_blocking(move || server.kill_until_gone(&query));
    }

    fn kill_until_gone(&self, query: &Query) {
        // The engine may not have begun yet, so once is not enough.
        const RETRY: [u64; 4] = [5, 20, 100, 500];
        let marker = Parameter { name: "marker".to_owned(), value: query.marker.clone().into_bytes() };
        let sql = b"KILL QUERY WHERE Settings['promql_table'] = {marker:String} ASYNC";
        for attempt in 0_usize.. {
            if query.is_gone() {
                return;
            }
            if query.is_in_engine() {
                let killed = self.engine.connect().and_then(|mut connection| {
                    connection.run(sql, "Null", std::slice::from_ref(&marker)).map(drop)
                });
                if let Err(exception) = killed {
                    tracing::warn!(query_id = query.id, %exception.message, "cannot kill a query; trying again");
                }
            }
            let pause = Duration::from_millis(RETRY[attempt.min(RETRY.len() - 1)]);
            let gone = async { tokio::time::timeout(pause, query.gone()).await };
            // An error only says that it is not gone yet.
            let _ = tokio::runtime::Handle::current().block_on(gone);
        }
    }

    /// Waits for the running queries, then cancels what is left.
    async fn drain(self: &Arc<Server>, timeout: Duration) {
        let all_gone = async |server: &Server| {
            for query in server.running.all() {
                query.gone().await;
            }
        };
        if tokio::time::timeout(timeout, all_gone(self)).await.is_ok() {
            return;
        }
        let left = self.running.all();
        tracing::warn!(queries = left.len(), "cancelling the queries that did not end in {timeout:?}");
        left.iter().for_each(|query| self.stop(query));
        if tokio::time::timeout(CANCEL_TIMEOUT, all_gone(self)).await.is_err() {
            tracing::warn!(
                "leaving queries behind that did not end {CANCEL_TIMEOUT:?} after they were cancelled"
            );
        }
    }

    /// Closes what keeps the engine open.
    fn close(&self) {
        self.sessions.close();
        self.engine.release();
    }
}

/// One server per data path: the engine itself does not look.
fn lock(path: &Path) -> anyhow::Result<File> {
    let place = path.join("clickhouse-embedded.lock");
    let file = File::create(&place).with_context(|| format!("creating {}", place.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another clickhouse-embedded serves {} (it holds {}): stop it, or choose another --path",
            path.display(),
            place.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", place.display()))
        }
    }
}

/// Written beside its place and renamed, so that a reader finds all of it or nothing.
fn write_port_file(place: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(".new");
    let write = || -> io::Result<()> {
        fs::write(&beside, format!("{address}\n"))?;
        fs::rename(&beside, place)
    };
    write().with_context(|| format!("writing the port file {}", place.display()))
}
