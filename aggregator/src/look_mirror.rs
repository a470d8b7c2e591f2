//! The mirror of the log of looks in ClickHouse. It has every record, also those that the log's rule refused,
//! so it is folded by the same rule: only looks that counted in the log count here. It decides nothing and
//! writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clickhouse::Row;
use schemas::Uuid;
use schemas::look::{Accepted, LookRecord, Looks, UnknownRule};
use serde::Deserialize;

use crate::database::Database;

/// A record as the mirror has it.
#[derive(Clone, Debug, Row, Deserialize)]
pub struct Mirrored {
    /// Kafka's id of the topic that the record came from; empty if none was noted. Offsets of different topics
    /// are different records.
    pub topic_id: String,
    pub version: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub look_id: Uuid,
    pub rule_version: u32,
    pub experiment: String,
    pub number: u32,
    pub based_on: u64,
    pub look: String,
}

/// The records in the order of their topic, each once. The topics are in the order in which the table was
/// filled from them.
const RECORDS: &str = "
SELECT
    noted.topic_id AS topic_id, version, look_id, rule_version, experiment, number, based_on,
    if(?, look_log.look, '') AS look
FROM look_log
LEFT JOIN
(
    SELECT epoch, topic_id, min(epoch) OVER (PARTITION BY topic_id) AS since
    FROM (SELECT epoch, argMin(topic_id, noted_at) AS topic_id FROM topic_ids WHERE table_name = 'look_log' GROUP BY epoch)
) AS noted ON look_log.epoch = noted.epoch
ORDER BY noted.since, topic_id, version, look_log.epoch
LIMIT 1 BY topic_id, version";

/// The looks that count, from all topics that the table was ever filled from: looks of a recreated topic were
/// taken too.
#[derive(Debug, Default)]
pub struct Mirror {
    topics: Vec<Looks>,
    unconnected: BTreeMap<String, usize>,
}

impl Mirror {
    /// Reads the mirror without the looks' content, for comparison.
    pub async fn numbers(database: &Database) -> anyhow::Result<Mirror> {
        read(database, false).await
    }

    /// Reads the mirror with the looks' content, to write it again.
    pub async fn contents(database: &Database) -> anyhow::Result<Mirror> {
        read(database, true).await
    }

    /// Returns the looks of each experiment, by key: those of the topic that has most of them, in a tie those
    /// of the earlier topic.
    pub fn looks(&self) -> BTreeMap<&str, &[Arc<Accepted>]> {
        let mut longest: BTreeMap<&str, &[Arc<Accepted>]> = BTreeMap::new();
        for looks in &self.topics {
            for last in looks.latest() {
                let experiment = last.record.experiment.as_str();
                let own = looks.of(experiment);
                let before = longest.entry(experiment).or_insert(own);
                if own.len() > before.len() {
                    *before = own;
                }
            }
        }
        longest
    }

    /// Returns, by experiment, the number of records that are based on records missing in the mirror: whether
    /// they counted is not known here.
    pub fn unconnected(&self) -> &BTreeMap<String, usize> {
        &self.unconnected
    }
}

async fn read(database: &Database, with_content: bool) -> anyhow::Result<Mirror> {
    let query = database.query(RECORDS).bind(with_content);
    Ok(fold(database.rows("reading the looks mirrored", query).await?)?)
}

/// Folds the records in the order of each topic.
pub fn fold(records: Vec<Mirrored>) -> Result<Mirror, UnknownRule> {
    let mut mirror = Mirror::default();
    let versions: BTreeSet<(String, u64)> =
        records.iter().map(|record| (record.topic_id.clone(), record.version)).collect();
    let mut topic = None;
    for mirrored in records {
        if topic.as_ref() != Some(&mirrored.topic_id) {
            mirror.topics.push(Looks::default());
            topic = Some(mirrored.topic_id.clone());
        }
        let looks = mirror.topics.last_mut().expect("one was begun");
        // A version is the offset plus one.
        let Some(offset) = mirrored.version.checked_sub(1).filter(|offset| *offset >= looks.next_offset())
        else {
            continue;
        };
        let is_connected =
            mirrored.based_on == 0 || versions.contains(&(mirrored.topic_id, mirrored.based_on));
        let record = LookRecord {
            look_id: mirrored.look_id,
            rule_version: mirrored.rule_version,
            experiment: mirrored.experiment.clone(),
            number: mirrored.number,
            based_on: mirrored.based_on,
            look: mirrored.look,
        };
        if looks.apply(offset, record)?.is_err() && !is_connected {
            *mirror.unconnected.entry(mirrored.experiment).or_default() += 1;
        }
    }
    Ok(mirror)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic_id: &str, version: u64, number: u32, based_on: u64) -> Mirrored {
        Mirrored {
            topic_id: topic_id.to_owned(),
            version,
            look_id: Uuid::from_u128(u128::from(version)),
            rule_version: 1,
            experiment: "e".to_owned(),
            number,
            based_on,
            look: format!("{topic_id}{number}"),
        }
    }

    /// Returns the content of the looks that count.
    fn looks(records: Vec<Mirrored>) -> Vec<String> {
        let mirror = fold(records).unwrap();
        let looks = mirror.looks();
        looks
            .get("e")
            .into_iter()
            .flat_map(|looks| looks.iter())
            .map(|look| look.record.look.clone())
            .collect()
    }

    /// A record with number 99 that the log had refused kept every aggregator from deciding anything.
    #[test]
    fn a_record_that_the_log_refused_counts_as_little_here() {
        let refused = record("t", 2, 99, 0);
        assert_eq!(looks(vec![refused.clone()]), Vec::<String>::new());
        let records = vec![record("t", 1, 1, 0), refused.clone(), record("t", 5, 2, 1), record("t", 6, 3, 1)];
        assert_eq!(looks(records.clone()), ["t1", "t2"]);
        assert_eq!(fold(records).unwrap().unconnected().len(), 0);
    }

    #[test]
    fn each_topic_is_a_log_of_its_own_and_the_longest_one_counts() {
        let old = [record("old", 1, 1, 0), record("old", 2, 2, 1), record("old", 3, 3, 2)];
        let new = [record("new", 1, 1, 0), record("new", 2, 2, 1)];
        assert_eq!(looks([&old[..], &new[..]].concat()), ["old1", "old2", "old3"]);
        assert_eq!(looks([&old[..2], &new[..]].concat()), ["old1", "old2"]);
        let longer = [&old[..1], &new[..]].concat();
        assert_eq!(looks(longer), ["new1", "new2"]);
    }

    #[test]
    fn what_is_based_on_a_record_that_is_lacking_is_told() {
        let mirror = fold(vec![record("t", 1, 1, 0), record("t", 3, 3, 2), record("t", 4, 4, 3)]).unwrap();
        assert_eq!(mirror.looks()["e"].len(), 1);
        assert_eq!(mirror.unconnected(), &BTreeMap::from([("e".to_owned(), 1)]));
    }

    #[test]
    fn a_later_rule_is_not_passed_over() {
        let later = Mirrored { rule_version: 2, ..record("t", 1, 1, 0) };
        assert_eq!(fold(vec![later]).unwrap_err(), UnknownRule { offset: 0, rule_version: 2 });
    }
}
