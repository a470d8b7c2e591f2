//! Keeps the tokens up to date with their file, without a restart. A new file that is not valid changes nothing: the tokens
//! before it count on, and `/readyz`, the log and a metric say so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ops::{Condition, Shutdown};
use prometheus::IntGauge;

use crate::tokens::Tokens;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);
/// The longest file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The tokens that count now; clones share them.
#[derive(Clone)]
pub struct TokenStore(Arc<Mutex<Arc<Tokens>>>);

impl TokenStore {
    pub fn new(tokens: Tokens) -> TokenStore {
        TokenStore(Arc::new(Mutex::new(Arc::new(tokens))))
    }

    pub fn current(&self) -> Arc<Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, tokens: Tokens) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }
}

/// Reads the file for the first time; returns its text too, with which later ones are compared.
///
/// # Errors
/// Names the file and what is wrong.
pub fn read(path: &Path, environment: &str) -> Result<(Tokens, String), String> {
    let at = |what: String| format!("edge.token_file {}: {what}", path.display());
    let text = text(path).map_err(at)?;
    let tokens = Tokens::parse(&text, environment, None, Instant::now()).map_err(at)?;
    Ok((tokens, text))
}

fn text(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{length} bytes; a file of tokens has at most {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
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
    /// Reads the file again whenever its text has changed, until the shutdown.
    pub async fn run(self) {
        let mut seen = Ok(self.text.clone());
        self.report(Ok(()));
        while !self.shutdown.sleep(POLL).await {
            // Its text, not its time: a file that is replaced within one tick of the clock has changed too.
            let now = text(&self.path);
            if now == seen {
                continue;
            }
            let read = now.clone().and_then(|text| {
                Tokens::parse(&text, &self.environment, Some(&self.store.current()), Instant::now())
            });
            self.report(read.map(|tokens| {
                tracing::info!(tokens = tokens.len(), "read the tokens again");
                self.store.replace(tokens);
            }));
            seen = now;
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
