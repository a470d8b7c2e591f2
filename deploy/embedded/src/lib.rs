//! The ClickHouse engine as a server on one machine: libchdb behind ClickHouse's HTTP interface. Ordinary
//! clients use it as they use a ClickHouse server. One process, one data path, one user; no clustering, no
//! native protocol, no TLS.
//!
//! ```text
//!  client ─▶ listener   at most --max-connections at once; time limits for a head and for an unread answer
//!              │ └──▶ long_urls   URLs of up to 1 MiB
//!              ▼
//!             http ─▶ origins     may this web page send requests?
//!              │ └──▶ request     the query, its settings and its credentials, from URL and headers
//!              │ └──▶ spool       the body, in memory, at most --max-body-bytes
//!              ▼
//!           execute ─▶ compression, multipart, external_table   what the body contains
//!              │  └──▶ statement, insert, lexer                 what the statement is, and where its rows begin
//!              │  └──▶ guard, ast                               what the statement may do
//!              │  └──▶ session, settings                        the connection that runs it
//!              ▼
//!            engine     libchdb, confined to the data directory
//!              ▼
//!            output ─▶ client   1 MiB buffered, then streamed, at most two chunks ahead
//! ```
//!
//! # What SQL can reach
//!
//! SQL reaches tables, the files in `user_files` of the data directory, and nothing else of the machine. The
//! engine is built for one trusted program: it would open any file and start any program for everyone who
//! reaches the port. Three layers prevent that:
//!
//! - [`guard`] checks the tokens of each statement. file() may name a user file, by a relative path without
//!   `..`. It refuses what no grant of the engine covers: table and database engines that are files or
//!   programs, dictionaries with such a source, ATTACH ... FROM a path. INTO OUTFILE and FROM INFILE, which
//!   the client part of the engine would carry out, are refused with the statement.
//! - The engine's own rules (`rules/users.xml`) grant nothing for SQLite, ODBC and JDBC, and no tables that
//!   are named like paths. They make the settings that name a file, and a table's own disks, unchangeable,
//!   and set no path for backups.
//! - [`confine`] asks the kernel (Linux 5.19 or later): no file outside the data directory, no program,
//!   whatever the other two have missed. Tokens do not show SQL inside a string, such as a DEFAULT in the
//!   columns of format(), nor expressions in the rows of VALUES, nor the target of a symbolic link. On an
//!   older kernel the server logs a warning and removes the grant for files: SQL cannot read files as tables,
//!   and [`guard`] alone checks file() as a function.
//!
//! A refused file gets code 291 (DATABASE_ACCESS_DENIED). A table name like `/etc/hosts` in the default
//! database still shows whether such a file exists (EXISTS).
//!
//! A request that is not a POST runs with the engine's `readonly = 2`, or 1 if it asks for that. A statement
//! that the engine would run although it writes is refused before ([`ast`]).

mod ast;
mod compression;
mod confine;
mod credentials;
mod data_directory;
mod engine;
mod exception;
mod execute;
mod external_table;
mod guard;
mod http;
mod insert;
mod kill;
mod lexer;
mod listener;
mod long_urls;
mod multipart;
mod origins;
mod output;
mod processes;
mod quoting;
mod request;
mod request_headers;
mod response_headers;
mod result_chunks;
mod running;
mod session;
mod settings;
mod spool;
mod spool_table;
mod statement;
mod syntax;

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

/// The server's configuration.
pub struct Config {
    /// The path of libchdb.
    pub library: PathBuf,
    /// The data directory, created if it does not exist. One server locks it at a time.
    pub path: PathBuf,
    pub listen: SocketAddr,
    /// The file that gets "host:port" when the server answers.
    pub port_file: Option<PathBuf>,
    pub user: String,
    /// If empty, the user must send none.
    pub password: String,
    /// Origins of web pages that may use the server, besides those of this machine; `*` allows any.
    pub allow_origins: Vec<String>,
    /// Queries at once, including those whose bodies are still arriving; more are refused (code 202).
    pub queries_max: usize,
    /// Sessions at once, each with a connection of the engine; more are refused (code 202).
    pub sessions_max: usize,
    /// One body, as sent and as decompressed; a larger one is refused (code 229).
    pub body_bytes_max: u64,
    /// All bodies at once, which are kept in memory; a body that does not fit is refused (code 202).
    pub spool_bytes_max: u64,
    pub limits: Limits,
    /// The time for running queries to end after SIGTERM or SIGINT; then they are cancelled.
    pub stop_timeout: Duration,
}

/// The shutdown does not wait longer for a cancelled query.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often expired sessions are ended.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// ClickHouse recurses over expressions on the calling thread, and limits the depth by the stack.
const STACK_BYTES: usize = 8 << 20;
/// Threads besides those of the queries: for killing queries, and for opening and closing connections.
const SPARE_THREADS: usize = 32;

/// The state that all requests share.
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

/// Serves until SIGTERM or SIGINT. Then it stops accepting, lets running queries end within the time limit,
/// and closes the engine with everything on disk.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let data = data_directory::open(&config.path)?;
    let library = data_directory::resolve_library(&config.library)?;
    let port_file = match &config.port_file {
        Some(path) => Some(std::path::absolute(path).context("resolving the port file's path")?),
        None => None,
    };
    // SAFETY: other threads are started below; fetching the engine, if that was necessary, has ended.
    unsafe { data.enter()? };
    // Everything for SQL runs on this new thread and the threads that it starts, which are confined. The
    // calling thread is not confined: the port file may be anywhere.
    let (sender, answering) = mpsc::channel();
    let server = thread::Builder::new().name("server".to_owned()).spawn(move || {
        let outcome = serve_confined(config, &library, data.path(), sender);
        drop(data);
        outcome
    });
    let server = server.context("starting the server's thread")?;
    if let Ok(address) = answering.recv() {
        if let Some(path) = &port_file {
            data_directory::write_port_file(path, address)?;
        }
        // An error means that the sender is gone: the server stops.
        let _ = answering.recv();
        if let Some(path) = &port_file {
            data_directory::remove_port_file(path);
        }
    }
    server.join().map_err(|_| anyhow!("the server's thread failed; the reason is printed above"))?
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
    let (engine, connection) = opening.await.context("opening the engine")??;
    let server = Arc::new(Server::new(engine, connection, &config, origins)?);
    let sessions = Arc::clone(&server.sessions);
    tokio::spawn(async move {
        let mut period = tokio::time::interval(SWEEP_PERIOD);
        loop {
            period.tick().await;
            let sessions = Arc::clone(&sessions);
            // Closing a connection blocks for a moment.
            if tokio::task::spawn_blocking(move || sessions.sweep(Instant::now())).await.is_err() {
                return;
            }
        }
    });

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(listener::serve(listener, Arc::clone(&server), config.limits, stopping));
    tracing::info!(%address, path = %data.display(), version = %server.version, "serving ClickHouse over HTTP");
    // The receiver exists until the server's thread has ended.
    let _ = answering.send(address);
    // Losing either branch loses nothing: the other signal means the same.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(running = server.running.all().len(), "stopping");
    stop.send_replace(true);
    server.drain(config.stop_timeout).await;
    if tokio::time::timeout(CANCEL_TIMEOUT, serving).await.is_err() {
        tracing::warn!("some clients still hold their connections; closing them");
    }
    drop(answering);
    tokio::task::spawn_blocking(move || server.close()).await.context("closing the engine")?;
    tracing::info!("stopped");
    Ok(())
}

impl Server {
    fn new(
        engine: Arc<Engine>,
        mut connection: Connection,
        config: &Config,
        origins: Origins,
    ) -> anyhow::Result<Server> {
        let facts_sql = "SELECT version(), timezone(), hostName()";
        let facts = connection.run(facts_sql.as_bytes(), "JSONCompactEachRow", &[]);
        let facts = facts.map_err(|exception| anyhow::anyhow!("{facts_sql}: {}", exception.message))?;
        let (version, timezone, display_name): (String, String, String) =
            serde_json::from_slice(facts.bytes())
                .with_context(|| format!("reading the answer to {facts_sql}"))?;
        drop(facts);
        engine.keep(connection);
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

    /// Opens a connection with the defaults of a server, where those of the embedded engine differ.
    fn connect(&self) -> Result<Connection, Exception> {
        let mut connection = self.engine.connect()?;
        let defaults = [settings::CLEAR_MARK, settings::SERVER_DEFAULTS].concat();
        connection.run(&defaults, "Null", &[])?;
        Ok(connection)
    }

    /// Stops a query, between its steps or in the engine.
    fn stop(self: &Arc<Server>, query: &Arc<Query>) {
        if !query.ask_to_stop() {
            return;
        }
        let (server, query) = (Arc::clone(self), Arc::clone(query));
        tokio::task::spawn_blocking(move || server.kill_until_gone(&query));
    }

    fn kill_until_gone(&self, query: &Query) {
        // The engine may not have begun the query yet, so killing it once is not enough.
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
            // An error only means that the query is not gone yet.
            let _ = tokio::runtime::Handle::current().block_on(gone);
        }
    }

    /// Waits for the running queries, then cancels those that are left.
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
            tracing::warn!("leaving queries that did not end {CANCEL_TIMEOUT:?} after they were cancelled");
        }
    }

    /// Closes the connections that keep the engine open.
    fn close(&self) {
        self.sessions.close();
        self.engine.release();
    }
}
