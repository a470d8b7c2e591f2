//! What a person sees while something takes long: a spinner with the elapsed time on a terminal, one
//! plain line at the beginning and at the end anywhere else. Always on stderr; stdout is for results.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line of its own, above a spinner if one turns.
pub fn tell(line: &str) {
    match &*shown() {
        Some(spinner) => spinner.suspend(|| eprintln!("{line}")),
        None => eprintln!("{line}"),
    }
}

/// The spinner that turns now; one at a time.
fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);
    // A handle to the terminal is whole at any moment.
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thing being done. Dropped without [`Step::done`], it says that it did not finish.
pub struct Step {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
    finished: bool,
}

impl Step {
    /// Announces `what`, in the words "fetching Kafka", "starting ClickHouse".
    pub fn start(what: impl Into<String>) -> Step {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
                    .expect("the template is a constant that parses"),
            );
            spinner.set_prefix(what.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
            *shown() = Some(spinner.clone());
            spinner
        });
        if spinner.is_none() {
            eprintln!("{what} ...");
        }
        Step { what, started: Instant::now(), spinner, finished: false }
    }

    /// Shows how far it is. Seen on a terminal only, so it may be called as often as one likes.
    pub fn note(&self, detail: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(detail.to_owned());
        }
    }

    /// It is finished; `outcome` says with what, and may be empty.
    pub fn done(mut self, outcome: &str) {
        self.finished = true;
        let colon = if outcome.is_empty() { "" } else { ": " };
        self.end(&format!("done{colon}{outcome}"));
    }

    fn end(&self, how: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
            *shown() = None;
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
