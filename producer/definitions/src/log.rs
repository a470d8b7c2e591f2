//! The log of definitions on Kafka. It is read from its beginning and folded into [`Definitions`], and changes
//! are proposed to it.

use std::sync::Arc;

use kafka::{OrderedLog, Proposal};
use ops::config::Kafka;
use schemas::avro;
use schemas::definition::{Accepted, Change, Definitions, Refusal, UnknownRule};
use schemas::{Micros, Uuid, topics};

use crate::CLIENT_ID;
use crate::history::{Content, Entry, History, Judged};

/// The log, read up to some offset, with the definitions at that offset and the history of all changes.
pub struct DefinitionLog {
    log: OrderedLog,
    fold: Fold,
}

#[derive(Default)]
struct Fold {
    definitions: Definitions,
    history: History,
    undecodable: u64,
}

/// The verdict on the change with this id.
type Settled = (Uuid, Result<Arc<Accepted>, Refusal>);

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Log(Box<kafka::LogError>),
    #[error(transparent)]
    UnknownRule(#[from] UnknownRule),
}

impl From<kafka::LogError> for LogError {
    fn from(error: kafka::LogError) -> LogError {
        LogError::Log(Box::new(error))
    }
}

impl DefinitionLog {
    /// Reads the whole log.
    pub async fn open(kafka: &Kafka) -> Result<DefinitionLog, LogError> {
        let log = OrderedLog::open(kafka, topics::DEFINITIONS, CLIENT_ID).await?;
        let mut log = DefinitionLog { log, fold: Fold::default() };
        log.catch_up().await?;
        Ok(log)
    }

    /// The definitions after the last record read.
    pub fn definitions(&self) -> &Definitions {
        &self.fold.definitions
    }

    /// Every record read so far: who proposed what, and the verdict.
    pub fn history(&self) -> &History {
        &self.fold.history
    }

    /// The number of records that were no changes and were skipped.
    pub fn undecodable(&self) -> u64 {
        self.fold.undecodable
    }

    /// Reads on to the end that the log has at the time of the call.
    pub async fn catch_up(&mut self) -> Result<(), LogError> {
        let DefinitionLog { log, fold } = self;
        log.catch_up(|record| Ok::<_, LogError>(fold.apply(record).map(drop)?)).await
    }

    /// Writes the change to the log and reads it back. The order of the log decides the verdict.
    pub async fn propose(&mut self, change: &Change) -> Result<Result<Arc<Accepted>, Refusal>, LogError> {
        let again = format!(
            "Applying the same file again is safe: both are based on version {}, and the log accepts only one of them",
            change.based_on
        );
        let proposal = Proposal {
            id: change.change_id,
            key: &change.key,
            payload: &avro::encode_change(change),
            what: "change",
            see: ", which `splitstream definitions log` prints",
            again: &again,
        };
        let DefinitionLog { log, fold } = self;
        log.propose(&proposal, |record| {
            let settled = fold.apply(record)?.filter(|(id, _)| *id == change.change_id);
            Ok::<_, LogError>(settled.map(|(_, verdict)| verdict))
        })
        .await
    }
}

impl Fold {
    /// Folds one record; `None` for bytes that are no change.
    fn apply(&mut self, record: kafka::Record<'_>) -> Result<Option<Settled>, UnknownRule> {
        let offset = record.offset;
        let time = record.time_ms.and_then(|millis| Micros::new(millis.checked_mul(1_000)?).ok());
        let change = match avro::decode_change(record.payload) {
            Ok(change) => change,
            Err(error) => {
                self.definitions.skip(offset);
                self.undecodable += 1;
                tracing::warn!(offset, %error, "a record of the definitions log is no change; skipped");
                self.history.push(Entry { offset, time, content: Content::Undecodable(error.to_string()) });
                return Ok(None);
            }
        };
        let before = self.definitions.version();
        let at = time.unwrap_or(self.definitions.time());
        let verdict = self.definitions.apply(offset, at, &change)?;
        debug_assert!(verdict.is_err() || self.definitions.version() > before);
        let previous =
            if change.based_on == 0 { None } else { self.definitions.at_version(change.based_on).cloned() };
        let id = change.change_id;
        let judged = Judged::new(change, previous, verdict.clone());
        self.history.push(Entry { offset, time, content: Content::Judged(Box::new(judged)) });
        Ok(Some((id, verdict)))
    }
}
