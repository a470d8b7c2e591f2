//! Creates the topics that a cluster lacks and compares the others with the contracts. Settings change only on
//! request, and the number of partitions never changes, because it decides to which partition a unit's events
//! go.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use ops::config::Kafka;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::topics::{TOPICS, Topic};

use crate::CLIENT_ID;
use kafka::{ConnectError, client};

/// The time that the cluster may take for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two checks for a new topic.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The number of copies that a cluster keeps of each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// The brokers' `default.replication.factor`.
    Brokers,
    /// From 1 to the number of brokers. With 3 or more, a write is acknowledged only when it has two copies, so
    /// that the loss of one broker loses no event.
    Copies(u8),
}

/// The outcome for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub topic: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    /// The topic exists and agrees with the contracts.
    Present,
    /// The settings that differed were set; the others were not touched.
    Fixed(Vec<Difference>),
    Differs(Vec<Difference>),
}

/// A setting that differs from the contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub setting: String,
    pub wanted: String,
    pub found: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{action} topic {topic}: {source}")]
    Refused { action: &'static str, topic: String, source: KafkaError },
}

/// Creates every topic of the contracts that is missing and compares the others. With `fix` it sets the
/// settings that differ, but never the number of partitions. Returns when the new topics can be used.
pub async fn ensure(kafka: &Kafka, replication: Replication, fix: bool) -> Result<Vec<Report>, TopicsError> {
    let present: BTreeMap<String, usize> = client::topics(kafka, CLIENT_ID).await?.into_iter().collect();
    let admin: AdminClient<DefaultClientContext> = client::client(kafka, CLIENT_ID)?
        .create()
        .map_err(|error| ConnectError::Settings(error.to_string()))?;
    let mut reports = Vec::new();
    for topic in &TOPICS {
        let name = kafka.topic(topic.name);
        let settings = settings(topic, replication);
        let outcome = match present.get(&name) {
            Some(partitions) => compare(&admin, &name, topic, *partitions, &settings, fix).await?,
            None => match create(&admin, &name, topic, replication, &settings).await? {
                true => Outcome::Created,
                // Another process created it first, with the same settings.
                false => Outcome::Present,
            },
        };
        reports.push(Report { topic: name, outcome });
    }
    let any_created = reports.iter().any(|report| report.outcome == Outcome::Created);
    if any_created {
        wait_for_all(kafka).await?;
    }
    Ok(reports)
}

/// Waits until the new topics are known: the controller answers before every broker knows them.
async fn wait_for_all(kafka: &Kafka) -> Result<(), TopicsError> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        let missing = missing(kafka).await?;
        let Some(topic) = missing.into_iter().next() else { return Ok(()) };
        if Instant::now() >= deadline {
            let source = KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut);
            return Err(TopicsError::Refused { action: "waiting for the new", topic, source });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The names of the contracts' topics that the cluster does not have.
pub async fn missing(kafka: &Kafka) -> Result<Vec<String>, ConnectError> {
    let present = client::topics(kafka, CLIENT_ID).await?;
    let exists = |name: &String| present.iter().any(|(present, _)| present == name);
    Ok(TOPICS.iter().map(|topic| kafka.topic(topic.name)).filter(|name| !exists(name)).collect())
}

fn settings(topic: &Topic, replication: Replication) -> Vec<(&'static str, &'static str)> {
    let mut settings = topic.settings.to_vec();
    if let Replication::Copies(3..) = replication {
        settings.push(("min.insync.replicas", "2"));
    }
    settings
}

/// Returns whether this call created the topic, and not another process before it.
async fn create(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    topic: &Topic,
    replication: Replication,
    settings: &[(&str, &str)],
) -> Result<bool, TopicsError> {
    let refused = |source| TopicsError::Refused { action: "creating", topic: name.to_owned(), source };
    let copies = match replication {
        Replication::Brokers => -1,
        Replication::Copies(copies) => copies.into(),
    };
    let mut wanted = NewTopic::new(name, topic.partitions, TopicReplication::Fixed(copies));
    for (setting, value) in settings {
        wanted = wanted.set(setting, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
    for result in admin.create_topics([&wanted], &options).await.map_err(refused)? {
        match result {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((_, code)) => return Err(refused(KafkaError::AdminOp(code))),
        }
    }
    Ok(true)
}

async fn compare(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    topic: &Topic,
    partitions: usize,
    wanted: &[(&str, &str)],
    fix: bool,
) -> Result<Outcome, TopicsError> {
    let found = describe(admin, name).await?;
    let mut differences = differences(wanted, &found);
    if fix && !differences.is_empty() {
        alter(admin, name, wanted, &found).await?;
        if partitions == topic.partitions as usize {
            return Ok(Outcome::Fixed(differences));
        }
        differences.clear();
    }
    if partitions != topic.partitions as usize {
        differences.push(Difference {
            setting: "partitions".to_owned(),
            wanted: topic.partitions.to_string(),
            found: partitions.to_string(),
        });
    }
    Ok(if differences.is_empty() { Outcome::Present } else { Outcome::Differs(differences) })
}

/// The value of a setting, and whether it was set for this topic itself.
struct Setting {
    value: String,
    of_topic: bool,
}

fn differences(wanted: &[(&str, &str)], found: &BTreeMap<String, Setting>) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (setting, value) in wanted {
        let found = found.get(*setting).map_or("", |found| &found.value);
        if found != *value {
            differences.push(Difference {
                setting: (*setting).to_owned(),
                wanted: (*value).to_owned(),
                found: found.to_owned(),
            });
        }
    }
    differences
}

async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
) -> Result<BTreeMap<String, Setting>, TopicsError> {
    let refused =
        |source| TopicsError::Refused { action: "reading the settings of", topic: name.to_owned(), source };
    let mut settings = BTreeMap::new();
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(name)], &AdminOptions::new())
        .await
        .map_err(refused)?;
    for resource in described {
        for entry in resource.map_err(|code| refused(KafkaError::AdminOp(code)))?.entries {
            let of_topic = entry.source == ConfigSource::DynamicTopic;
            settings.insert(entry.name, Setting { value: entry.value.unwrap_or_default(), of_topic });
        }
    }
    Ok(settings)
}

/// Sets the wanted settings. The request replaces all settings of the topic, so it repeats those that are not
/// ours.
async fn alter(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    wanted: &[(&str, &str)],
    found: &BTreeMap<String, Setting>,
) -> Result<(), TopicsError> {
    let refused =
        |source| TopicsError::Refused { action: "changing the settings of", topic: name.to_owned(), source };
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (setting, Setting { value, of_topic }) in found {
        if *of_topic {
            change = change.set(setting, value);
        }
    }
    for (setting, value) in wanted {
        change = change.set(setting, value);
    }
    for result in admin.alter_configs([&change], &AdminOptions::new()).await.map_err(refused)? {
        result.map_err(|(_, code)| refused(KafkaError::AdminOp(code)))?;
    }
    Ok(())
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { setting, wanted, found } = self;
        write!(formatter, "{setting} is {found}, wanted {wanted}")
    }
}
