//! The log of looks on Kafka: the looks taken, and the alpha of each plan that they spent. It is read from its
//! beginning and compared with its mirror in ClickHouse before anything is decided with it, because deciding
//! with a part of the log would spend alpha twice. A look counts once it is read back from the log; of two
//! aggregators that look at once, one look counts.

use anyhow::{Context, bail, ensure};
use kafka::{LogError, OrderedLog, Proposal, TopicId};
use ops::Exit;
use schemas::look::{LookRecord, Looks, RULE_VERSION, Refusal, UnknownRule};
use schemas::{Uuid, avro, topics};

use crate::database::Database;
use crate::look::Look;
use crate::look_mirror::Mirror;

const CLIENT_ID: &str = "splitstream-aggregator";

/// The log, read up to some offset and found complete.
pub struct LookLog {
    log: OrderedLog,
    looks: Looks,
    /// None if the brokers give topics no ids.
    topic_id: Option<TopicId>,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Log(Box<LogError>),
    #[error(transparent)]
    UnknownRule(#[from] UnknownRule),
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> ReadError {
        ReadError::Log(Box::new(error))
    }
}

/// Kafka's id of the topic that the table is filled from now; empty if none was noted.
const MIRRORED_TOPIC: &str =
    "SELECT argMax(topic_id, epoch) AS topic_id FROM topic_ids WHERE table_name = 'look_log'";

impl LookLog {
    /// Reads the whole log.
    ///
    /// # Errors
    /// If it cannot be read, or has less than its mirror: then nothing may be decided.
    pub async fn open(kafka: &ops::config::Kafka, database: &Database) -> anyhow::Result<LookLog> {
        let log = LookLog::open_unchecked(kafka).await?;
        log.compare(database).await?;
        Ok(log)
    }

    /// Reads the whole log, which may have less than its mirror. For repairing that.
    pub async fn open_unchecked(kafka: &ops::config::Kafka) -> anyhow::Result<LookLog> {
        let log =
            OrderedLog::open(kafka, topics::LOOKS, CLIENT_ID).await.map_err(|error| coded(error.into()))?;
        // The id is read first: if the topic is recreated during the read, the next catch-up notices it.
        let topic_id = log.topic_id().await.context(Exit::Unreachable)?;
        let mut log = LookLog { log, looks: Looks::default(), topic_id };
        log.read_on().await?;
        Ok(log)
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// If the log is no longer the one that was read so far.
    pub async fn catch_up(&mut self) -> anyhow::Result<()> {
        let now = self.log.topic_id().await.context(Exit::Unreachable)?;
        if now != self.topic_id {
            bail!("topic {} was recreated while it was followed", self.log.topic());
        }
        self.read_on().await
    }

    async fn read_on(&mut self) -> anyhow::Result<()> {
        let LookLog { log, looks, .. } = self;
        log.catch_up(|record| fold(looks, record).map(drop))
            .await
            .map_err(coded)
            .context("reading the log of looks")
    }

    /// Checks that the log has everything that the mirror has seen.
    async fn compare(&self, database: &Database) -> anyhow::Result<()> {
        let topic = self.log.topic();
        let ids =
            database.rows::<String>("asking for the topic of the looks", database.query(MIRRORED_TOPIC));
        let mirrored_id = ids.await?.into_iter().next().unwrap_or_default();
        if let Some(id) = self.topic_id.map(|id| id.to_string()).filter(|_| !mirrored_id.is_empty()) {
            ensure!(
                id == mirrored_id,
                "topic {topic} was recreated: Kafka gives it the id {id}, and ClickHouse mirrors {mirrored_id}. \
                 Nothing is decided: the looks of the old topic have spent alpha that this one does not tell of. \
                 Restore the topic from a copy, or from the mirror with `splitstream restore-looks`; then raise \
                 consumer.epoch and restart the consumers, so that the mirror follows the new topic"
            );
        }
        for (experiment, mirrored) in Mirror::numbers(database).await?.looks() {
            let (found, mirrored) = (self.count(experiment), mirrored.len());
            ensure!(
                found >= mirrored,
                "topic {topic} holds {found} looks at `{experiment}`, and ClickHouse has mirrored {mirrored}: the log was \
                 cut or damaged. Nothing is decided: the looks that are missing have spent alpha. Restore the topic from a \
                 copy, or from the mirror with `splitstream restore-looks`"
            );
        }
        Ok(())
    }

    /// Returns the looks at one experiment, in order.
    ///
    /// # Errors
    /// If this build cannot read one of them: nothing may be decided without all of them.
    pub fn of(&self, experiment: &str) -> anyhow::Result<Vec<Look>> {
        let looks = self.looks.of(experiment).iter();
        looks
            .map(|accepted| {
                serde_json::from_str(&accepted.record.look).with_context(|| {
                    format!(
                        "look {} at `{experiment}` (version {} of the log of looks) cannot be read; install a newer \
                         build",
                        accepted.record.number, accepted.version
                    )
                })
            })
            .collect()
    }

    /// Writes a look and reads it back; the log decides whether it counts. Everything before it has been read
    /// then.
    pub async fn propose(&mut self, experiment: &str, look: &Look) -> anyhow::Result<Result<(), Refusal>> {
        let text = serde_json::to_string(look).context("writing a look as JSON")?;
        self.propose_text(experiment, text).await
    }

    /// Does the same with the text of a look as it was written.
    pub async fn propose_text(
        &mut self,
        experiment: &str,
        look: String,
    ) -> anyhow::Result<Result<(), Refusal>> {
        let last = self.looks.of(experiment).last();
        let record = LookRecord {
            look_id: Uuid::now_v7(),
            rule_version: RULE_VERSION,
            experiment: experiment.to_owned(),
            number: last.map_or(0, |last| last.record.number) + 1,
            based_on: last.map_or(0, |last| last.version),
            look,
        };
        let proposal = Proposal {
            id: record.look_id,
            key: experiment,
            payload: &avro::encode_look(&record),
            what: "look",
            see: ", and counts from the next analysis on",
            again: "The next analysis reads the log first, and looks again only if it is not there",
        };
        let LookLog { log, looks, .. } = self;
        log.propose(&proposal, |read| {
            let folded = fold(looks, read)?;
            Ok::<_, ReadError>(
                folded.filter(|folded| folded.id == record.look_id).map(|folded| folded.verdict),
            )
        })
        .await
        .map_err(coded)
        .with_context(|| format!("writing a look at `{experiment}` to the log of looks"))
    }

    /// Returns how many looks at an experiment the log has.
    pub fn count(&self, experiment: &str) -> usize {
        self.looks.of(experiment).len()
    }
}

/// Adds the exit code of the command that ends with this error.
fn coded(error: ReadError) -> anyhow::Error {
    let is_unreachable = matches!(&error, ReadError::Log(log) if log.is_unreachable());
    let error = anyhow::Error::new(error);
    if is_unreachable { error.context(Exit::Unreachable) } else { error }
}

/// A record that was folded into the looks.
struct Folded {
    id: Uuid,
    verdict: Result<(), Refusal>,
}

/// Folds one record into the looks; none for bytes that are no look, which have no effect.
fn fold(looks: &mut Looks, read: kafka::Record<'_>) -> Result<Option<Folded>, ReadError> {
    match avro::decode_look(read.payload) {
        Ok(record) => {
            let id = record.look_id;
            let verdict = looks.apply(read.offset, record)?;
            Ok(Some(Folded { id, verdict: verdict.map(drop) }))
        }
        Err(error) => {
            tracing::warn!(offset = read.offset, %error, "a record of the log of looks is no look; skipped");
            looks.skip(read.offset);
            Ok(None)
        }
    }
}
