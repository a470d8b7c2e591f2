//! The oracle. It computes from the messages in Kafka the rows that ClickHouse should have: one row for each
//! message with its position, except duplicates and unreadable messages. It reads both with clients that the
//! platform does not use on this path, and compares row by row.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::message::Message;
use schemas::topics::{ALIASES, CONVERSIONS, DEAD_LETTERS, DEFINITIONS, EXPOSURES, dead_letter_headers};
use schemas::{Uuid, avro};

use crate::clickhouse::ClickHouse;
use crate::topic::{self, Position};

/// The topics of events; each has a table of the same name.
pub const EVENT_TOPICS: [&str; 3] = [EXPOSURES, CONVERSIONS, ALIASES];

/// How long to wait for a new row before failing. Longer than any restart and any back-off takes.
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);
/// How long to wait for unexpected extra rows, from an insert that still runs or from the batch that is being filled.
const SETTLE_WAIT: Duration = Duration::from_millis(1_500);
/// How many differences an error lists.
const LISTED_MAX: usize = 10;

/// The rows and dead letters that should exist, computed from the messages of the topics.
#[derive(Debug, Default)]
pub struct Expected {
    topics: BTreeMap<&'static str, ExpectedTopic>,
    /// Offsets of the changes in the log of definitions.
    changes: Vec<u64>,
}

#[derive(Debug, Default)]
struct ExpectedTopic {
    /// Offset and event id of the first message of each event, by partition, ordered by offset.
    rows: BTreeMap<u16, Vec<(u64, Uuid)>>,
    row_count: u64,
    duplicates: u64,
    /// The messages that cannot be read, with the code and the reason.
    unreadable: BTreeMap<Position, (String, String)>,
    messages: u64,
}

/// The numbers of what was compared and is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    pub messages: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Agreement { messages, rows, duplicates, dead_letters } = self;
        write!(
            formatter,
            "{messages} messages: {rows} rows, {duplicates} duplicates, {dead_letters} dead letters"
        )
    }
}

/// A dead letter: the reason from its headers, and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub code: String,
    pub reason: String,
    pub payload: Vec<u8>,
}

impl Expected {
    /// Reads all messages that the topics have now.
    pub fn read(brokers: &str) -> Result<Expected> {
        let mut expected = Expected::default();
        for name in EVENT_TOPICS {
            let mut of_topic = ExpectedTopic::default();
            let mut seen = HashSet::new();
            topic::read(brokers, name, |position, message| {
                of_topic.messages += 1;
                match event_id(name, message.payload().unwrap_or_default()) {
                    Err(error) => {
                        let why = (error.code().to_owned(), error.to_string());
                        of_topic.unreadable.insert(position, why);
                    }
                    Ok(id) if seen.insert(id) => {
                        of_topic.rows.entry(position.partition).or_default().push((position.offset, id));
                        of_topic.row_count += 1;
                    }
                    Ok(_) => of_topic.duplicates += 1,
                }
            })?;
            expected.topics.insert(name, of_topic);
        }
        topic::read(brokers, DEFINITIONS, |position, message| {
            if avro::decode_change(message.payload().unwrap_or_default()).is_ok() {
                expected.changes.push(position.offset);
            }
        })?;
        Ok(expected)
    }

    pub fn rows(&self) -> u64 {
        self.topics.values().map(|topic| topic.row_count).sum()
    }

    /// The expected numbers.
    pub fn summary(&self) -> Agreement {
        let sum = |of: fn(&ExpectedTopic) -> u64| self.topics.values().map(of).sum();
        Agreement {
            messages: sum(|topic| topic.messages),
            rows: sum(|topic| topic.row_count),
            duplicates: sum(|topic| topic.duplicates),
            dead_letters: sum(|topic| topic.unreadable.len() as u64),
        }
    }

    /// Waits until ClickHouse has the expected number of rows and Kafka the expected number of dead letters,
    /// waits for inserts that still run, and compares every row.
    pub fn wait_and_compare(&self, brokers: &str, clickhouse: &ClickHouse) -> Result<Agreement> {
        wait_for_rows(clickhouse, self.rows())?;
        self.wait_for_changes(clickhouse)?;
        self.wait_for_dead_letters(brokers)?;
        std::thread::sleep(SETTLE_WAIT);
        wait_for_inserts_to_end(clickhouse)?;
        self.compare(brokers, clickhouse)
    }

    /// Compares every row and every dead letter without waiting.
    pub fn compare(&self, brokers: &str, clickhouse: &ClickHouse) -> Result<Agreement> {
        let mut differences = Vec::new();
        for (name, expected) in &self.topics {
            compare_rows(name, expected, &stored(clickhouse, name)?, &mut differences);
            let sql = "SELECT count() - uniqExact(event_id) FROM {table:Identifier}";
            let repeated = clickhouse.number(sql, &[("table", name)])?;
            if repeated != 0 {
                differences.push(format!("{name}: {repeated} rows repeat the event id of another"));
            }
        }
        self.compare_dead_letters(&dead_letters(brokers)?, &mut differences);
        let found = changes(clickhouse)?;
        if found != self.changes {
            let wanted = &self.changes;
            differences.push(format!("definition_log has the offsets {found:?}, the log {wanted:?}"));
        }
        if !differences.is_empty() {
            let listed = differences.iter().take(LISTED_MAX).map(String::as_str).collect::<Vec<_>>();
            bail!("{} differences, such as:\n{}", differences.len(), listed.join("\n"));
        }
        Ok(self.summary())
    }

    fn wait_for_changes(&self, clickhouse: &ClickHouse) -> Result<()> {
        let started = Instant::now();
        while changes(clickhouse)?.len() < self.changes.len() {
            ensure!(started.elapsed() < TIMEOUT, "the log of definitions is not mirrored");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn wait_for_dead_letters(&self, brokers: &str) -> Result<()> {
        let expected = self.summary().dead_letters;
        let started = Instant::now();
        while expected > 0 && (dead_letters(brokers)?.len() as u64) < expected {
            ensure!(started.elapsed() < TIMEOUT, "not all of {expected} dead letters have come");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn compare_dead_letters(
        &self,
        found: &BTreeMap<(String, Position), DeadLetter>,
        differences: &mut Vec<String>,
    ) {
        let mut wanted = BTreeMap::new();
        for (name, topic) in &self.topics {
            for (position, why) in &topic.unreadable {
                wanted.insert(((*name).to_owned(), *position), why.clone());
            }
        }
        for (origin, (code, reason)) in &wanted {
            match found.get(origin) {
                None => differences.push(format!("{origin:?} ({reason}) is not among the dead letters")),
                Some(letter) if (&letter.code, &letter.reason) != (code, reason) => {
                    differences.push(format!("{origin:?} is dead because {}, not {reason}", letter.reason));
                }
                Some(_) => {}
            }
        }
        for origin in found.keys().filter(|origin| !wanted.contains_key(*origin)) {
            differences.push(format!("{origin:?} can be read and is among the dead letters"));
        }
    }
}

/// Reads Kafka, waits for ClickHouse, and compares the two.
pub fn every_event_once(brokers: &str, clickhouse: &ClickHouse) -> Result<Agreement> {
    Expected::read(brokers)?.wait_and_compare(brokers, clickhouse)
}

/// The number of rows in the three event tables.
pub fn row_count(clickhouse: &ClickHouse) -> Result<u64> {
    let sql = "SELECT (SELECT count() FROM exposures) + (SELECT count() FROM conversions) + \
               (SELECT count() FROM aliases)";
    clickhouse.number(sql, &[])
}

/// Returns when there are at least `expected` rows. ClickHouse may be unavailable meanwhile.
pub fn wait_for_rows(clickhouse: &ClickHouse, expected: u64) -> Result<()> {
    let (mut best, mut last_progress) = (0, Instant::now());
    loop {
        let found = row_count(clickhouse);
        match &found {
            Ok(rows) if *rows >= expected => return Ok(()),
            Ok(rows) if *rows > best => (best, last_progress) = (*rows, Instant::now()),
            Ok(_) | Err(_) => {}
        }
        if last_progress.elapsed() > TIMEOUT {
            let found = found.context("counting the rows")?;
            bail!("{found} of {expected} rows are in ClickHouse, and no more for {} s", TIMEOUT.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// The dead letters by the origin of their messages: topic and position. A letter that was sent twice appears
/// once.
pub fn dead_letters(brokers: &str) -> Result<BTreeMap<(String, Position), DeadLetter>> {
    let mut letters = BTreeMap::new();
    let mut without_origin = 0;
    topic::read(brokers, DEAD_LETTERS, |_, message| {
        let text = |name| topic::header(message, name).map(str::to_owned);
        let number = |name| topic::header(message, name).and_then(|text| text.parse::<u64>().ok());
        let origin = || {
            let partition = u16::try_from(number(dead_letter_headers::PARTITION)?).ok()?;
            let offset = number(dead_letter_headers::OFFSET)?;
            Some((text(dead_letter_headers::TOPIC)?, Position { partition, offset }))
        };
        let letter = || {
            Some(DeadLetter {
                code: text(dead_letter_headers::CODE)?,
                reason: text(dead_letter_headers::REASON)?,
                payload: message.payload().unwrap_or_default().to_vec(),
            })
        };
        match (origin(), letter()) {
            (Some(origin), Some(letter)) => {
                letters.insert(origin, letter);
            }
            _ => without_origin += 1,
        }
    })?;
    ensure!(
        without_origin == 0,
        "{without_origin} dead letters have no origin or no reason in their headers"
    );
    Ok(letters)
}

fn event_id(topic: &str, payload: &[u8]) -> Result<Uuid, avro::DecodeError> {
    match topic {
        EXPOSURES => avro::decode_exposure(payload).map(|event| event.event_id),
        CONVERSIONS => avro::decode_conversion(payload).map(|event| event.event_id),
        _ => avro::decode_alias(payload).map(|event| event.event_id),
    }
}

/// The offsets of the changes that ClickHouse has mirrored.
fn changes(clickhouse: &ClickHouse) -> Result<Vec<u64>> {
    let text = clickhouse.text("SELECT kafka_offset FROM definition_log ORDER BY kafka_offset", &[])?;
    text.lines().map(|line| line.parse().with_context(|| format!("{line:?} is no offset"))).collect()
}

/// Returns when no insert of the consumer runs.
fn wait_for_inserts_to_end(clickhouse: &ClickHouse) -> Result<()> {
    let started = Instant::now();
    while clickhouse.running_inserts()? > 0 {
        ensure!(started.elapsed() < TIMEOUT, "an insert runs for {} s", TIMEOUT.as_secs());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The position and event id of every row, ordered by position.
fn stored(clickhouse: &ClickHouse, table: &str) -> Result<Vec<(Position, Uuid)>> {
    const ROW_BYTES: usize = 2 + 8 + 16;
    let sql = "SELECT kafka_partition, kafka_offset, event_id FROM {table:Identifier} \
               ORDER BY kafka_partition, kafka_offset FORMAT RowBinary";
    let bytes = clickhouse.bytes(sql, &[("table", table)])?;
    ensure!(bytes.len().is_multiple_of(ROW_BYTES), "{} bytes are no whole rows of {table}", bytes.len());
    let mut rows = Vec::with_capacity(bytes.len() / ROW_BYTES);
    for row in bytes.chunks_exact(ROW_BYTES) {
        let word = |at: usize| u64::from_le_bytes(row[at..at + 8].try_into().expect("eight bytes"));
        let position = Position { partition: u16::from_le_bytes([row[0], row[1]]), offset: word(2) };
        rows.push((position, Uuid::from_u64_pair(word(10), word(18))));
    }
    Ok(rows)
}

/// Compares the rows of one table with the expected ones; both are ordered by position.
fn compare_rows(
    table: &str,
    expected: &ExpectedTopic,
    stored: &[(Position, Uuid)],
    differences: &mut Vec<String>,
) {
    let wanted = expected.rows.iter().flat_map(|(&partition, rows)| {
        rows.iter().map(move |&(offset, id)| (Position { partition, offset }, id))
    });
    let mut wanted = wanted.peekable();
    let mut found = stored.iter().copied().peekable();
    loop {
        match (wanted.peek().copied(), found.peek().copied()) {
            (None, None) => return,
            (Some(want), Some(have)) if want == have => {
                wanted.next();
                found.next();
                let mut copies = 0;
                while found.next_if(|(position, _)| *position == have.0).is_some() {
                    copies += 1;
                }
                if copies > 0 {
                    differences.push(format!("{table}: {:?} is there {} times", have.0, copies + 1));
                }
            }
            (Some((at, id)), have) if have.is_none_or(|(position, _)| at < position) => {
                wanted.next();
                differences.push(format!("{table}: {id} at {at:?} is missing"));
            }
            (want, Some((at, id))) => {
                found.next();
                if let Some((_, other)) = want.filter(|(position, _)| *position == at) {
                    wanted.next();
                    differences.push(format!("{table}: {at:?} holds {id} and not {other}"));
                } else {
                    differences.push(format!("{table}: {id} at {at:?} should not be there"));
                }
            }
            (Some(_), None) => unreachable!("an expected row without a counterpart is handled as missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn at(partition: u16, offset: u64) -> Position {
        Position { partition, offset }
    }

    fn differences(stored: &[(Position, Uuid)]) -> Vec<String> {
        let mut expected = ExpectedTopic::default();
        expected.rows.insert(0, vec![(0, id(1)), (2, id(2))]);
        expected.rows.insert(1, vec![(5, id(3))]);
        let mut differences = Vec::new();
        compare_rows("t", &expected, stored, &mut differences);
        differences
    }

    #[test]
    fn the_same_rows_agree() {
        let none: Vec<String> = Vec::new();
        assert_eq!(differences(&[(at(0, 0), id(1)), (at(0, 2), id(2)), (at(1, 5), id(3))]), none);
    }

    #[test]
    fn a_missing_surplus_repeated_or_different_row_is_reported() {
        let zero = "00000000-0000-0000-0000-00000000000";
        for (stored, expected) in [
            (
                vec![(at(0, 0), id(1)), (at(1, 5), id(3))],
                format!("t: {zero}2 at Position {{ partition: 0, offset: 2 }} is missing"),
            ),
            (
                vec![(at(0, 0), id(1)), (at(0, 2), id(2))],
                format!("t: {zero}3 at Position {{ partition: 1, offset: 5 }} is missing"),
            ),
            (
                vec![(at(0, 0), id(1)), (at(0, 1), id(9)), (at(0, 2), id(2)), (at(1, 5), id(3))],
                format!("t: {zero}9 at Position {{ partition: 0, offset: 1 }} should not be there"),
            ),
            (
                vec![(at(0, 0), id(1)), (at(0, 2), id(2)), (at(0, 2), id(2)), (at(1, 5), id(3))],
                "t: Position { partition: 0, offset: 2 } is there 2 times".to_owned(),
            ),
            (
                vec![(at(0, 0), id(1)), (at(0, 2), id(8)), (at(1, 5), id(3))],
                format!("t: Position {{ partition: 0, offset: 2 }} holds {zero}8 and not {zero}2"),
            ),
        ] {
            assert_eq!(differences(&stored), [expected]);
        }
    }
}
