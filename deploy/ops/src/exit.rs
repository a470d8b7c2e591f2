//! The exit codes that scripts may rely on, and the one place that prints the error with which a program ends.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

/// The time that remaining blocking work gets to finish before the process ends.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The exit code of a program. Give it to an error as context, `.context(Exit::Unreachable)`, and
/// [`main`] exits with it; an error without one exits with [`Exit::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: an unexpected failure.
    Failed = 1,
    /// 2: the command line is invalid (clap exits with this code itself).
    Usage = 2,
    /// 3: the request was understood and refused, with the reason.
    Refused = 3,
    /// 4: a file given to the program, its configuration included, is not valid.
    InvalidInput = 4,
    /// 5: a server that is needed, such as Kafka or ClickHouse, cannot be reached.
    Unreachable = 5,
    /// 6: a check ran to its end and found a problem.
    Found = 6,
}

/// Runs a program on a multi-threaded runtime and prints the error that it ends with and its causes: as a log
/// event if logging was started, else as `error: ...` on standard error.
///
/// ```no_run
/// # async fn run() -> anyhow::Result<()> { Ok(()) }
/// fn main() -> std::process::ExitCode {
///     ops::main(async {
///         run().await?;
///         Ok(ops::Exit::Done)
///     })
/// }
/// ```
pub fn main(program: impl Future<Output = anyhow::Result<Exit>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(program);
    runtime.shutdown_timeout(LEFTOVER_TIMEOUT);
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!(error = %format_args!("{error:#}"), "stopped");
            } else {
                eprintln!("error: {error:#}");
            }
            Exit::of(&error).into()
        }
    }
}

impl Exit {
    /// Returns the exit code of an error, at any depth of its chain.
    pub fn of(error: &anyhow::Error) -> Exit {
        if let Some(exit) = error.downcast_ref::<Exit>() {
            *exit
        } else if error.downcast_ref::<crate::config::Error>().is_some() {
            Exit::InvalidInput
        } else {
            Exit::Failed
        }
    }
}

/// Adds the exit code that `ask` returns for one of the error's causes, unless the error has an exit code
/// already.
pub fn with_exit_code(
    error: anyhow::Error,
    ask: impl Fn(&(dyn std::error::Error + 'static)) -> Option<Exit>,
) -> anyhow::Error {
    if error.downcast_ref::<Exit>().is_some() {
        return error;
    }
    match error.chain().find_map(ask) {
        Some(exit) => error.context(exit),
        None => error,
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "wrong usage",
            Exit::Refused => "refused",
            Exit::InvalidInput => "invalid input",
            Exit::Unreachable => "unreachable",
            Exit::Found => "found",
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_carries_its_exit_code_through_later_context() {
        let error = Err::<(), _>(anyhow!("connection refused"))
            .context(Exit::Unreachable)
            .context("asking 127.0.0.1:9092 for the topics")
            .unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Unreachable);
        assert_eq!(
            format!("{error:#}"),
            "asking 127.0.0.1:9092 for the topics: unreachable: connection refused"
        );
    }

    #[test]
    fn an_error_without_a_code_is_a_failure_and_a_bad_configuration_is_invalid_input() {
        assert_eq!(Exit::of(&anyhow!("surprise")), Exit::Failed);
        let bad = crate::config::Error::from("no such setting".to_string());
        let error = anyhow::Error::new(bad).context("starting");
        assert_eq!(Exit::of(&error), Exit::InvalidInput);
    }
}
