//! Structured logs on standard error: one event a line, written at once. Events of libraries that use the `log`
//! crate, librdkafka among them, are written in the same form.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::{Format, Log};

/// Starts logging for the lifetime of the process. A panic is logged as an error before it unwinds.
///
/// # Errors
/// If logging was started before.
pub fn start(log: &Log) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match log.format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(log.level.directives()).with(lines).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%panic, %backtrace, "a bug: panicked");
    }));
    Ok(())
}
