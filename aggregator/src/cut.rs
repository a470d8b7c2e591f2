//! The cut: the offset of every partition up to which the tables contain the stream. Every result names the cut
//! at which it was computed, and counting at the same cut again gives the same numbers.

use std::collections::BTreeMap;

use anyhow::Context;
use clickhouse::Row;
use schemas::Micros;
use schemas::topics::{CONVERSIONS, EXPOSURES};
use serde::{Deserialize, Serialize};

use crate::database::Database;

/// The durable position of each partition of the two event topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub exposures: Positions,
    pub conversions: Positions,
}

/// Positions by partition, without partitions that never delivered anything.
pub type Positions = BTreeMap<u16, Position>;

/// A position in a partition; everything before it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Counts the re-creations of the topic; earlier epochs belong to the cut as a whole.
    pub epoch: u32,
    /// One past the last durable offset.
    pub next_offset: u64,
}

/// The positions in the shape that the queries take: two values for each partition from 0 on, `(0, 0)` where
/// nothing is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    pub epochs: Vec<u32>,
    pub next_offsets: Vec<u64>,
}

/// A batch is in the table as a whole or not at all, and the batches of a partition follow each other without gaps. So the
/// end of the last batch is the end of what is durable.
const SQL: &str = "
SELECT
    ? AS topic,
    kafka_partition AS partition,
    max((epoch, batch_last)).1 AS last_epoch,
    max((epoch, batch_last)).2 + 1 AS next_offset
FROM exposures
GROUP BY kafka_partition
UNION ALL
SELECT
    ? AS topic,
    kafka_partition AS partition,
    max((epoch, batch_last)).1 AS last_epoch,
    max((epoch, batch_last)).2 + 1 AS next_offset
FROM conversions
GROUP BY kafka_partition";

#[derive(Row, Deserialize)]
struct Durable {
    topic: String,
    partition: u16,
    last_epoch: u32,
    next_offset: u64,
}

/// Reads the current cut.
pub async fn read(database: &Database) -> anyhow::Result<Cut> {
    let query = database.query(SQL).bind(EXPOSURES).bind(CONVERSIONS);
    let mut cut = Cut::default();
    for durable in database.rows::<Durable>("reading the durable offsets", query).await? {
        let position = Position { epoch: durable.last_epoch, next_offset: durable.next_offset };
        let positions = if durable.topic == EXPOSURES { &mut cut.exposures } else { &mut cut.conversions };
        positions.insert(durable.partition, position);
    }
    Ok(cut)
}

/// Reads the clock. Events created after the as-of time of an analysis are left out of it.
pub fn now() -> anyhow::Result<Micros> {
    Micros::new(jiff::Timestamp::now().as_microsecond()).context("reading the clock")
}

/// Converts the positions to the shape that the queries take.
pub fn ends(positions: &Positions) -> Ends {
    let partitions = positions.keys().last().map_or(0, |last| usize::from(*last) + 1);
    let mut ends = Ends { epochs: vec![0; partitions], next_offsets: vec![0; partitions] };
    for (partition, position) in positions {
        ends.epochs[usize::from(*partition)] = position.epoch;
        ends.next_offsets[usize::from(*partition)] = position.next_offset;
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_a_position_ends_before_its_first_row() {
        let positions = Positions::from([
            (0, Position { epoch: 0, next_offset: 7 }),
            (2, Position { epoch: 1, next_offset: 3 }),
        ]);
        assert_eq!(ends(&positions), Ends { epochs: vec![0, 0, 1], next_offsets: vec![7, 0, 3] });
        assert_eq!(ends(&Positions::new()), Ends { epochs: vec![], next_offsets: vec![] });
    }

    #[test]
    fn a_cut_is_json_by_topic_and_partition() {
        let cut = Cut {
            exposures: Positions::from([(0, Position { epoch: 0, next_offset: 15_000 })]),
            conversions: Positions::new(),
        };
        let json = r#"{"exposures":{"0":{"epoch":0,"next_offset":15000}},"conversions":{}}"#;
        assert_eq!(serde_json::to_string(&cut).unwrap(), json);
        assert_eq!(serde_json::from_str::<Cut>(json).unwrap(), cut);
    }
}
