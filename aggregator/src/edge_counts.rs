//! The counts of evaluations that the edges hold in memory, added to the table `evaluation_counts`. What is read and written
//! are absolute values of one process of an edge and one day, so that nothing is counted twice, whoever reads how often.
//! What decides is here, and takes values; [`client`] asks an edge, and [`collect`] does it again and again. Nothing here
//! knows what a flag is.

use std::collections::BTreeMap;

use clickhouse::Row;
use schemas::evaluation_counts::{CountRow, CountsReading, Day};
use schemas::{Key, Micros, Uuid};
use serde::{Deserialize, Serialize};

use crate::database::Database;

pub mod client;
pub mod collect;

/// The days for which the table keeps counts.
pub const DAYS_MAX: u32 = 400;
/// The most rows of one answer of the API; a question for more is refused.
pub const ROWS_MAX: usize = 100_000;

/// What this process has stored last of one edge: all values of its last reading.
#[derive(Debug, Default)]
pub struct Stored(Option<CountsReading>);

/// Counts that were lost, of which nobody can say how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The edge is another process now: what the former one counted after its last reading.
    Restarted { former: Uuid },
    /// An edge holds two days: what it counted from the last reading until the end of the day before yesterday.
    TooLate { since: Day },
}

impl Lost {
    pub fn code(self) -> &'static str {
        match self {
            Lost::Restarted { .. } => "restarted",
            Lost::TooLate { .. } => "too_late",
        }
    }
}

impl Stored {
    /// Returns the rows that are to be written: those that differ from what is stored.
    pub fn news<'r>(&self, reading: &'r CountsReading) -> Vec<&'r CountRow> {
        let before = self.0.iter().filter(|before| before.instance == reading.instance);
        let before: BTreeMap<(Day, &Key, &Key), &CountRow> =
            before.flat_map(|before| &before.counts).map(|row| (place(row), row)).collect();
        reading.counts.iter().filter(|row| before.get(&place(row)) != Some(row)).collect()
    }

    /// Returns what was lost between the last reading and this one. Before the first reading this process knows of none.
    pub fn lost(&self, reading: &CountsReading) -> Option<Lost> {
        let before = self.0.as_ref()?;
        if before.instance != reading.instance {
            return Some(Lost::Restarted { former: before.instance });
        }
        let is_too_late = reading.today.number() > before.today.number() + 1;
        is_too_late.then_some(Lost::TooLate { since: before.today })
    }

    /// Notes that all values of the reading are in the table.
    pub fn note(&mut self, reading: CountsReading) {
        self.0 = Some(reading);
    }
}

fn place(row: &CountRow) -> (Day, &Key, &Key) {
    (row.day, &row.flag, &row.variant)
}

/// A row of the table.
#[derive(Serialize)]
struct StoredRow<'a> {
    day: Day,
    environment: &'a Key,
    flag: &'a Key,
    variant: &'a Key,
    edge_instance: Uuid,
    single: u64,
    bulk: u64,
    reported: u64,
    read_at: String,
}

/// Writes rows of a reading. If it is not known whether they were written, writing them again changes nothing.
pub async fn store(
    database: &Database,
    reading: &CountsReading,
    rows: &[&CountRow],
    read_at: Micros,
) -> anyhow::Result<()> {
    let rows: Vec<StoredRow<'_>> = rows
        .iter()
        .map(|row| StoredRow {
            day: row.day,
            environment: &reading.environment,
            flag: &row.flag,
            variant: &row.variant,
            edge_instance: reading.instance,
            single: row.single,
            bulk: row.bulk,
            reported: row.reported,
            read_at: read_at.to_string(),
        })
        .collect();
    database.insert("INSERT INTO evaluation_counts FORMAT JSONEachRow", &rows).await
}

/// What is asked of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub from: Day,
    /// One flag or experiment; all if none is named.
    pub flag: Option<Key>,
    /// One environment; all if none is named.
    pub environment: Option<Key>,
}

/// The evaluations of one day by all edges together.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Evaluations {
    pub day: String,
    pub environment: String,
    pub flag: String,
    pub variant: String,
    pub single: u64,
    pub bulk: u64,
    pub reported: u64,
}

const BY_DAY: &str = "
SELECT toString(counts.day) AS day, environment, flag, variant, single, bulk, reported
FROM evaluations_by_day AS counts
WHERE counts.day >= toDate(?) AND (? = '' OR counts.flag = ?) AND (? = '' OR counts.environment = ?)
ORDER BY day, environment, flag, variant
LIMIT ?";

/// Reads the evaluations by day, environment, flag and variant; one row more than [`ROWS_MAX`] if there are more.
pub async fn by_day(database: &Database, question: &Question) -> anyhow::Result<Vec<Evaluations>> {
    let text = |key: &Option<Key>| key.as_ref().map(Key::to_string).unwrap_or_default();
    let (flag, environment) = (text(&question.flag), text(&question.environment));
    let query = database
        .query(BY_DAY)
        .bind(question.from.to_string())
        .bind(&flag)
        .bind(&flag)
        .bind(&environment)
        .bind(&environment)
        .bind(ROWS_MAX as u64 + 1);
    database.rows("reading the evaluations by day", query).await
}

/// Returns the first of the last `days` days, today among them.
pub fn first_day(today: Day, days: u32) -> Day {
    Day::from_number((today.number() + 1).saturating_sub(days)).expect("an earlier day than today")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: u32) -> Day {
        Day::from_number(number).unwrap()
    }

    fn row(on: u32, variant: &str, single: u64) -> CountRow {
        let [flag, variant] = ["f", variant].map(|key| Key::new(key).unwrap());
        CountRow { day: day(on), flag, variant, single, bulk: 0, reported: 0 }
    }

    fn reading(instance: u128, today: u32, counts: Vec<CountRow>) -> CountsReading {
        CountsReading {
            instance: Uuid::from_u128(instance),
            environment: Key::new("production").unwrap(),
            today: day(today),
            counts,
        }
    }

    #[test]
    fn only_what_is_new_is_written() {
        let mut stored = Stored::default();
        let first = reading(1, 100, vec![row(100, "off", 1), row(100, "on", 2)]);
        assert_eq!(stored.news(&first), [&row(100, "off", 1), &row(100, "on", 2)]);
        // Not stored yet, because the insert failed: all of it is written again.
        assert_eq!(stored.news(&first).len(), 2);
        stored.note(first.clone());
        assert_eq!(stored.news(&first), Vec::<&CountRow>::new());
        let next = reading(1, 101, vec![row(100, "off", 1), row(100, "on", 3), row(101, "on", 1)]);
        assert_eq!(stored.news(&next), [&row(100, "on", 3), &row(101, "on", 1)]);
        // The same numbers of another process are others.
        let restarted = reading(2, 100, first.counts.clone());
        assert_eq!(stored.news(&restarted).len(), 2);
    }

    #[test]
    fn what_can_have_been_lost_is_named() {
        let mut stored = Stored::default();
        assert_eq!(stored.lost(&reading(1, 100, vec![])), None);
        stored.note(reading(1, 100, vec![]));
        assert_eq!(stored.lost(&reading(1, 100, vec![])), None);
        assert_eq!(stored.lost(&reading(1, 101, vec![])), None);
        assert_eq!(stored.lost(&reading(1, 102, vec![])), Some(Lost::TooLate { since: day(100) }));
        assert_eq!(
            stored.lost(&reading(2, 100, vec![])),
            Some(Lost::Restarted { former: Uuid::from_u128(1) })
        );
    }

    #[test]
    fn days_are_counted_with_today() {
        assert_eq!(first_day(day(100), 1), day(100));
        assert_eq!(first_day(day(100), 7), day(94));
        assert_eq!(first_day(day(3), DAYS_MAX), day(0));
    }
}
