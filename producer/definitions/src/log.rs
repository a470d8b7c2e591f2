//! The log of definitions on Kafka. It is read from its beginning and folded into [`Definitions`], and changes
//! are proposed to it.

use std::sync::Arc;

use kafka::{OrderedLog, Proposal};
use ops::config::Kafka;
use schemas::avro::{self, DecodeError};
use schemas::definition::{Accepted, Change, Definitions, Refusal, UnknownRule};
use schemas::{Micros, topics};

use crate::CLIENT_ID;

/// The log, read up to some offset, with the definitions at that offset.
pub struct DefinitionLog {
    log: OrderedLog,
    fold: Fold,
}

#[derive(Default)]
struct Fold {
    definitions: Definitions,
    undecodable: u64,
}

/// One record of the log, as [`DefinitionLog::catch_up`] passes it to its callback.
#[derive(Debug)]
pub struct Record {
    pub offset: u64,
    /// The time by the broker's clock, the only clock of the log.
    pub time: Option<Micros>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Judged {
        change: Change,
        /// The version on which the change is based, if there is one.
        previous: Option<Arc<Accepted>>,
        verdict: Result<Arc<Accepted>, Refusal>,
    },
    /// The bytes are no change; they have no effect.
    Undecodable(DecodeError),
}

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
    /// Reads the whole log. `see` is called with every record in order.
    pub async fn open(kafka: &Kafka, see: impl FnMut(&Record)) -> Result<DefinitionLog, LogError> {
        let log = OrderedLog::open(kafka, topics::DEFINITIONS, CLIENT_ID).await?;
        let mut log = DefinitionLog { log, fold: Fold::default() };
        log.catch_up(see).await?;
        Ok(log)
    }

    /// The definitions after the last record read.
    pub fn definitions(&self) -> &Definitions {
        &self.fold.definitions
    }

    /// The number of records that were no changes and were skipped.
    pub fn undecodable(&self) -> u64 {
        self.fold.undecodable
    }

    /// Reads on to the end that the log has at the time of the call. `see` is called with every record in
    /// order.
    pub async fn catch_up(&mut self, mut see: impl FnMut(&Record)) -> Result<(), LogError> {
        let DefinitionLog { log, fold } = self;
        log.catch_up(|record| {
            see(&fold.apply(record)?);
            Ok::<_, LogError>(())
        })
        .await
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
            Ok::<_, LogError>(match fold.apply(record)?.content {
                Content::Judged { change: read, verdict, .. } if read.change_id == change.change_id => {
                    Some(verdict)
                }
                _ => None,
            })
        })
        .await
    }
}

impl Fold {
    fn apply(&mut self, record: kafka::Record<'_>) -> Result<Record, UnknownRule> {
        let offset = record.offset;
        let time = record.time_ms.and_then(|millis| Micros::new(millis.checked_mul(1_000)?).ok());
        let change = match avro::decode_change(record.payload) {
            Ok(change) => change,
            Err(error) => {
                self.definitions.skip(offset);
                self.undecodable += 1;
                tracing::warn!(offset, %error, "a record of the definitions log is no change; skipped");
                return Ok(Record { offset, time, content: Content::Undecodable(error) });
            }
        };
        let before = self.definitions.version();
        let at = time.unwrap_or(self.definitions.time());
        let verdict = self.definitions.apply(offset, at, &change)?;
        debug_assert!(verdict.is_err() || self.definitions.version() > before);
        let previous =
            if change.based_on == 0 { None } else { self.definitions.at_version(change.based_on).cloned() };
        Ok(Record { offset, time, content: Content::Judged { change, previous, verdict } })
    }
}
