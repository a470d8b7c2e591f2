//! Shows progress to a person: on a terminal a spinner with the elapsed time, elsewhere one line at the
//! beginning and one at the end. Always on stderr, since stdout is for results. Knows nothing of what is
//! being done.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line, above the spinner if there is one.
pub fn print_line(line: &str) {
    match &*current_spinner() {
        Some(spinner) => spinner.suspend(|| eprintln!("{line}")),
        None => eprintln!("{line}"),
    }
}

/// The current spinner; there is one at a time.
fn current_spinner() -> MutexGuard<'static, Option<ProgressBar>> {
    static CURRENT: Mutex<Option<ProgressBar>> = Mutex::new(None);
    // The handle is valid at any moment, so a panic elsewhere has not broken it.
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One step of the work. If it is dropped without [`Step::done`], it prints that it did not finish.
pub struct Step {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Announces `what`, such as "fetching Kafka" or "starting ClickHouse".
    pub fn start(what: impl Into<String>) -> Step {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
                    .expect("the template is a constant that parses"),
            );
            spinner.set_prefix(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            *current_spinner() = Some(spinner.clone());
            spinner
        });
        if spinner.is_none() {
            eprintln!("{what} ...");
        }
        Step { what, started: Instant::now(), spinner, finished: false }
    }

    /// Shows a detail beside the spinner. Elsewhere it prints nothing, so it may be called often.
    pub fn note(&self, detail: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(detail.to_owned());
        }
    }

    /// Prints that the step is finished, with its outcome, which may be empty.
    pub fn done(mut self, outcome: &str) {
        self.finished = true;
        let colon = if outcome.is_empty() { "" } else { ": " };
        self.end(&format!("done{colon}{outcome}"));
    }

    fn end(&self, how: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
            *current_spinner() = None;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        eprintln!("{}: {how} ({seconds:.1} s)", self.what);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.end("did not finish");
        }
    }
}
