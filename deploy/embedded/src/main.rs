//! The command line of clickhouse-embedded. Knows nothing of the engine and of HTTP.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use embedded::{Config, Limits};
use fetch::Cache;
use tracing_subscriber::EnvFilter;

/// The ClickHouse engine (libchdb) behind ClickHouse's HTTP interface.
///
/// SQL reaches tables, the network and the files in user_files of the data directory, and no other file of
/// this machine (code 291). A request that is not a POST cannot write (code 164).
///
/// The password comes from --password-file, or from the environment variable
/// CLICKHOUSE_EMBEDDED_PASSWORD; without either the user has none. Logs go to standard error, at the
/// level of the environment variable RUST_LOG (default: info).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The data directory; created if it does not exist, kept when the server stops.
    #[arg(long)]
    path: PathBuf,
    /// Address and port; port 0 means a free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// libchdb.so; by default the pinned version, which is fetched into the cache if it is not there yet.
    #[arg(long)]
    library: Option<PathBuf>,
    /// The file that gets "host:port" when the server answers; removed when it stops.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// The one user.
    #[arg(long, default_value = "default")]
    user: String,
    /// A file with the user's password in its first line.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The origin of web pages that may use the server, as scheme://host[:port]; * allows any page. May be
    /// given more than once. Pages of this machine (localhost, 127.0.0.1 and [::1] on any port) are always
    /// allowed. Requests of other pages are refused with code 497. If --listen is this machine alone, so is a
    /// Host header with another domain name, since a page can point its own name to this machine.
    #[arg(long)]
    allow_origin: Vec<String>,
    /// Queries at once; more are refused with code 202.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_queries: u16,
    /// Sessions at once; more are refused with code 202.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    max_sessions: u16,
    /// One request's body, as sent and as decompressed; a larger one is refused with code 229.
    #[arg(long, default_value_t = 1 << 30)]
    max_body_bytes: u64,
    /// All bodies at once, which are kept in memory; a body that does not fit is refused with code 202.
    #[arg(long, default_value_t = 2 << 30)]
    max_spool_bytes: u64,
    /// Connections at once; one more waits until another is closed.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// Seconds for the head of a request, and between two requests on one connection; then the connection is
    /// closed.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    head_timeout: u16,
    /// Seconds that a client may leave its answer unread; then the connection is closed.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    unread_timeout: u16,
    /// Seconds for running queries to end after SIGTERM; then they are cancelled.
    #[arg(long, default_value_t = 20)]
    stop_timeout: u64,
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let password = match &arguments.password_file {
        Some(file) => {
            let text = fs::read_to_string(file)
                .with_context(|| format!("reading the password file {}", file.display()))?;
            text.lines().next().unwrap_or("").to_owned()
        }
        None => std::env::var("CLICKHOUSE_EMBEDDED_PASSWORD").unwrap_or_default(),
    };
    let library = match arguments.library {
        Some(library) => library,
        None => Cache::open()?.engine()?,
    };
    embedded::serve(Config {
        library,
        path: arguments.path,
        listen: arguments.listen,
        port_file: arguments.port_file,
        user: arguments.user,
        password,
        allow_origins: arguments.allow_origin,
        queries_max: arguments.max_concurrent_queries.into(),
        sessions_max: arguments.max_sessions.into(),
        body_bytes_max: arguments.max_body_bytes,
        spool_bytes_max: arguments.max_spool_bytes,
        limits: Limits {
            connections_max: arguments.max_connections.into(),
            head_timeout: Duration::from_secs(arguments.head_timeout.into()),
            unread_timeout: Duration::from_secs(arguments.unread_timeout.into()),
        },
        stop_timeout: Duration::from_secs(arguments.stop_timeout),
    })
}
