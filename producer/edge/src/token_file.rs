//! Keeps the tokens up to date with their file, without a restart. A file that is being written is not taken half: a change
//! counts once two readings in a row are the same. A new file that is not valid changes nothing: the tokens before it count on,
//! and `/readyz`, the log and a metric say so.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ops::{Condition, Shutdown};
use prometheus::IntGauge;
use tokio::sync::watch;

use crate::tokens::Tokens;

/// How often the file is looked at: a change counts after one to two of these.
const POLL: Duration = Duration::from_secs(1);
/// The longest file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The tokens that count now; clones share them.
#[derive(Clone)]
pub struct TokenStore(watch::Sender<Arc<Tokens>>);

impl TokenStore {
    pub fn new(tokens: Tokens) -> TokenStore {
        TokenStore(watch::Sender::new(Arc::new(tokens)))
    }

    pub fn current(&self) -> Arc<Tokens> {
        self.0.borrow().clone()
    }

    /// Learns of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Tokens>> {
        self.0.subscribe()
    }

    fn replace(&self, tokens: Tokens) {
        self.0.send_replace(Arc::new(tokens));
    }
}

/// The text of the file, or why it cannot be read.
type Reading = Result<String, String>;

/// Reads the file for the first time; returns its text too, with which later ones are compared.
///
/// # Errors
/// Names the file and what is wrong.
pub async fn read(path: &Path, environment: &str) -> Result<(Tokens, String), String> {
    let at = |what: String| format!("edge.token_file {}: {what}", path.display());
    let text = text(path).await.map_err(at)?;
    let tokens = Tokens::parse(&text, environment, None, Instant::now()).map_err(at)?;
    Ok((tokens, text))
}

/// Reads on a thread for that: a disk that is slow must not hold up requests.
async fn text(path: &Path) -> Reading {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || text_now(&path)).await.expect("reading a file does not panic")
}

fn text_now(path: &Path) -> Reading {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("a file of tokens has at most {FILE_BYTES_MAX} bytes; this one has more"));
    }
    Ok(text)
}

/// What was read of the file up to now.
struct Readings {
    settled: Reading,
    /// The reading before, if it was another one.
    before: Option<Reading>,
}

impl Readings {
    /// Takes the next reading, and returns it if it is a change that has settled. Texts are compared, not times: a file that is
    /// replaced within one tick of the clock has changed too.
    fn take(&mut self, now: Reading) -> Option<&Reading> {
        if now == self.settled {
            self.before = None;
            return None;
        }
        if self.before.as_ref() != Some(&now) {
            self.before = Some(now);
            return None;
        }
        self.before = None;
        self.settled = now;
        Some(&self.settled)
    }
}

/// What keeps the tokens up to date.
pub struct Watch {
    pub path: PathBuf,
    /// The text that the tokens were read from.
    pub text: String,
    pub environment: String,
    pub store: TokenStore,
    pub condition: Condition,
    pub ok: IntGauge,
    pub shutdown: Shutdown,
}

impl Watch {
    /// Reads the file again and again, until the shutdown.
    pub async fn run(self) {
        let mut readings = Readings { settled: Ok(self.text.clone()), before: None };
        self.report(Ok(()));
        while !self.shutdown.sleep(POLL).await {
            let Some(settled) = readings.take(text(&self.path).await) else { continue };
            let read = settled.clone().and_then(|text| {
                Tokens::parse(&text, &self.environment, Some(&self.store.current()), Instant::now())
            });
            self.report(read.map(|tokens| {
                tracing::info!(tokens = tokens.len(), "read the tokens again");
                self.store.replace(tokens);
            }));
        }
    }

    fn report(&self, outcome: Result<(), String>) {
        self.ok.set(outcome.is_ok().into());
        match outcome {
            Ok(()) => self.condition.holds(),
            Err(why) => {
                let path = self.path.display();
                tracing::error!(%path, why, "the new file of tokens is not valid; the tokens before it count");
                self.condition
                    .holds_but(format!("the new {path} is not valid, the tokens before it count: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_not_taken_half() {
        let mut readings = Readings { settled: Ok("old".to_owned()), before: None };
        let text = |text: &str| Ok(text.to_owned());
        for (now, taken) in [
            (text("old"), false),
            // Cut off, then written on, then whole.
            (text(""), false),
            (text("new: a"), false),
            (text("new: a, b"), false),
            (text("new: a, b"), true),
            (text("new: a, b"), false),
            // Away for a moment, as between two renames.
            (Err("not there".to_owned()), false),
            (text("new: a, b"), false),
            // Away for longer, which is said.
            (Err("not there".to_owned()), false),
            (Err("not there".to_owned()), true),
            (text("new: a, b"), false),
            (text("new: a, b"), true),
        ] {
            assert_eq!(readings.take(now.clone()).cloned(), taken.then_some(now));
        }
    }

    #[tokio::test]
    async fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, "x".repeat(FILE_BYTES_MAX as usize)).unwrap();
        assert_eq!(text(&path).await.unwrap().len() as u64, FILE_BYTES_MAX);
        std::fs::write(&path, "x".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
        assert_eq!(
            text(&path).await.unwrap_err(),
            "a file of tokens has at most 4194304 bytes; this one has more"
        );
    }
}
