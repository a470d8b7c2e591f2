//! The ClickHouse engine as a server on one machine: libchdb behind ClickHouse's HTTP interface, so that
//! ordinary clients cannot tell it from one. One process, one data path, one user; no clustering, no
//! native protocol, no TLS.
//!
//! ```text
//!  request ─▶ heads ─▶ http ─▶ origins   may this page ask?
//!                       │ └──▶ request   who asks, and for what
//!                       │ └──▶ spool     the body, in memory, bounded
//!                       ▼
//!                     execute ─▶ compression, statement, insert   rows and their statement
//!                       │  └───▶ guard, ast                       what SQL may name, and what it is
//!                       │  └───▶ session, settings                a connection that is kept
//!                       ▼
//!                     engine  (libchdb, confined to the data directory)
//!                       ▼
//!                     output ─▶ response   1 MiB held back, then streamed, two pieces ahead at most
//! ```
//!
//! # What SQL can reach
//!
//! Tables, the files in `user_files` of the data directory, and nothing else of the machine. The engine is built
//! for one trusted program and would open any file and start any command for whoever reaches the port; so it is
//! held from three sides:
//!
//! - [`guard`], on the tokens of each statement: file() names a user file, by a relative path without `..`; and
//!   what the engine checks by no grant is refused: the table and database engines that are files or programs,
//!   dictionaries of such a source, ATTACH ... FROM a path, and INTO OUTFILE and FROM INFILE, which the engine's
//!   client half would act on;
//! - the engine's own rules, which it is started with (`rules/users.xml`): no grant for SQLite, for ODBC and
//!   JDBC, or for tables that are named like paths; the settings that name a file, and disks of a table's own,
//!   cannot be changed; no path for backups;
//! - [`confine`], by the kernel (Linux 5.19 or later): no file outside the data directory, no program, whichever
//!   way is found past the other two. SQL inside a text, such as a DEFAULT in the columns given to format(), is
//!   what the tokens do not show, nor expressions among the rows of VALUES, nor where a symbolic link leads. On an older kernel a warning is logged and
//!   the grant for files is left out: no file is a table, and [`guard`] alone holds file() as a value.
//!
//! Refused files are answered with code 291 (DATABASE_ACCESS_DENIED). A name like `/etc/hosts` in the
//! default database still tells whether there is such a file (EXISTS).
//!
//! A request that is not a POST runs with the engine's `readonly = 2`, or 1 if it asks for that; what the
//! engine would run all the same ([`ast`]) is refused before.

mod ast;
mod compression;
mod confine;
mod credentials;
mod data;
mod engine;
mod exception;
mod execute;
mod external;
mod form;
mod guard;
mod heads;
mod http;
mod insert;
mod kill;
mod lexer;
mod listener;
mod literal;
mod origins;
mod output;
mod pieces;
mod processes;
mod request;
mod response_headers;
mod rows;
mod running;
mod session;
mod settings;
mod spool;
mod statement;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use confine::Confinement;
use credentials::Credentials;
use engine::{Connection, Engine, Parameter};
use exception::Exception;
pub use listener::Limits;
use origins::Origins;
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
    /// Origins of web pages that may use the server beside those of this machine; `*` is any.
    pub allow_origins: Vec<String>,
    /// Queries at once, those whose bodies are still arriving included; more are refused (code 202).
    pub queries_max: usize,
    /// Sessions at once, each holding a connection; more are refused (code 202).
    pub sessions_max: usize,
    /// One body, as sent and as decompressed; a larger one is refused (code 229).
    pub body_bytes_max: u64,
    /// All bodies at once, which are held in memory; what does not fit is refused (code 202).
    pub spool_bytes_max: u64,
    pub limits: Limits,
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
    origins: Origins,
    display_name: String,
    timezone: String,
    version: Arc<str>,
}

/// Serves until SIGTERM or SIGINT; then stops accepting, lets running queries end within the bound, and
/// closes the engine with everything on disk.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let data = data::open(&config.path)?;
    let library = data::resolve(&config.library)?;
    let port_file = match &config.port_file {
        Some(place) => Some(std::path::absolute(place).context("resolving the port file's place")?),
        None => None,
    };
    // SAFETY: what reads the environment is started below; what fetched the engine, if it had to be, is done.
    unsafe { data.enter()? };
    // All that reads and writes for SQL runs on this thread and those that it starts, which are confined. This
    // one is not: the port file may lie anywhere.
    let (sender, answering) = mpsc::channel();
    let server = thread::Builder::new().name("server".to_owned()).spawn(move || {
        let outcome = serve_confined(config, &library, data.path(), sender);
        drop(data);
        outcome
    });
    let server = server.context("starting the server's thread")?;
    if let Ok(address) = answering.recv() {
        if let Some(place) = &port_file {
            data::write_port_file(place, address)?;
        }
        // An error means that the sender is gone: the server stops.
        let _ = answering.recv();
        if let Some(place) = &port_file {
            data::remove_port_file(place);
        }
    }
    server.join().map_err(|_| anyhow!("the server's thread failed, and has said why above"))?
}

fn serve_confined(
    config: Config,
    library: &Path,
    data: &Path,
    answering: mpsc::Sender<SocketAddr>,
) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("looking for this program's file")?;
    let confined = confine::confine(data, &[library.to_owned(), own]);
    let confinement = confined.context("confining the server to its data directory with Landlock")?;
    if confinement == Confinement::Unavailable {
        tracing::warn!(
            "this kernel cannot confine the server to its data directory (Landlock, Linux 5.19 or later): SQL cannot \
             read user files as tables, and only the engine's own rules keep it from this machine's files"
        );
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(2 * config.queries_max + SPARE_THREADS)
        .build()
        .context("starting the threads")?
        .block_on(run(config, confinement, library.to_owned(), data.to_owned(), answering))
}

async fn run(
    config: Config,
    confinement: Confinement,
    library: PathBuf,
    data: PathBuf,
    answering: mpsc::Sender<SocketAddr>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("listening on {}: choose another --listen, or port 0 for any", config.listen)
    })?;
    let address = listener.local_addr().context("reading the address that is listened on")?;
    let origins = Origins::new(&config.allow_origins, address.ip().is_loopback())?;

    let opening = tokio::task::spawn_blocking({
        let data = data.clone();
        move || Engine::open(&library, &data, confinement)
    });
    let (engine, keeper) = opening.await.context("opening the engine")??;
    let server = Arc::new(Server::new(engine, keeper, &config, origins)?);
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

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(listener::serve(listener, Arc::clone(&server), config.limits, stopping));
    tracing::info!(%address, path = %data.display(), version = %server.version, "serving ClickHouse over HTTP");
    // The receiver is there until the server's thread has ended.
    let _ = answering.send(address);
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
    drop(answering);
    tokio::task::spawn_blocking(move || server.close()).await.context("closing the engine")?;
    tracing::info!("stopped");
    Ok(())
}

impl Server {
    fn new(
        engine: Arc<Engine>,
        keeper: Connection,
        config: &Config,
        origins: Origins,
    ) -> anyhow::Result<Server> {
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
            origins,
            display_name,
            timezone,
            version: version.into(),
        })
    }

    /// A connection with a server's defaults where the embedded engine has others.
    fn connect(&self) -> Result<Connection, Exception> {
        let mut connection = self.engine.connect()?;
        let defaults = [settings::UNMARK, settings::SERVER_DEFAULTS].concat();
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
