//! The report of an audit: a JSON document for machines, a page for people. Every number is exact.

use std::fmt::Write;

use schemas::Uuid;
use serde::Serialize;

use super::tables::Doubled;
use crate::pipeline::batch::Span;
use kafka::TopicId;

/// Spans listed for one partition. The counts beside them are of all spans.
const SPANS_MAX: usize = 100;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// No hole, nothing lost, nothing twice, and every topic is the one that its table was filled from.
    pub clean: bool,
    pub holes: u64,
    pub lost: u64,
    pub duplicates: u64,
    pub healed: u64,
    /// Messages that no consumer has taken yet. They are no fault: what was taken may be clean without them.
    pub not_yet_stored: u64,
    pub topics: Vec<TopicReport>,
}

#[derive(Debug, Default, Serialize)]
pub struct TopicReport {
    pub topic: String,
    pub table: &'static str,
    /// Days that rows are kept after their ingestion; null: for ever.
    pub retention_days: Option<u64>,
    /// Set if the topic is not the one that the rows of this epoch came from: its messages are in no table.
    pub made_anew: Option<MadeAnew>,
    /// Rows beyond one for each event id, over all partitions and epochs.
    pub event_ids_twice: u64,
    pub event_ids_twice_examples: Vec<Doubled>,
    pub partitions: Vec<PartitionReport>,
}

/// Kafka's ids of a topic that was deleted and made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MadeAnew {
    /// Of the topic that the rows came from.
    pub noted: String,
    pub now: String,
}

#[derive(Debug, Default, Serialize)]
pub struct PartitionReport {
    pub partition: u16,
    pub epoch: u32,
    /// First and last offset that batches cover; null without rows.
    pub covered: Option<[u64; 2]>,
    /// What the group has committed; null if nothing, or if the epoch is a past one.
    pub committed: Option<u64>,
    /// The offset at which the topic ends, if that is before the end of the batches: it was recreated or lost its
    /// end, and explains nothing.
    pub topic_ends_at: Option<u64>,
    pub batches: u64,
    pub rows: u64,
    pub gaps: u64,
    pub skipped: Skipped,
    /// Rows beyond one for each offset.
    pub offsets_twice: u64,
    /// Rows whose offset is outside of their batch.
    pub astray: u64,
    /// Offsets that Kafka still has, without a row and without an explanation.
    pub holes: u64,
    pub hole_spans: Vec<[u64; 2]>,
    /// The holes behind the last batch: a consumer stands still before them.
    pub holes_at_the_end: u64,
    /// Offsets that no batch covers and Kafka no longer has.
    pub lost: u64,
    pub lost_spans: Vec<[u64; 2]>,
    /// Rows and dead letters that this run brought back.
    pub healed: u64,
    /// Messages of Kafka behind all that was taken; 0 of a past epoch.
    pub not_yet_stored: u64,
}

/// Offsets without a row, by what explains them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The event is in the table, from another offset.
    pub duplicate: u64,
    /// The message is in the dead-letter topic.
    pub dead_letter: u64,
    /// Of a unit that asked to be forgotten.
    pub forgotten: u64,
    /// Older than the table keeps rows.
    pub expired: u64,
    /// There is no message: control records, aborted transactions.
    pub not_in_log: u64,
    /// Inside a batch that has rows, and Kafka no longer has the message: nobody can tell whether it was a duplicate.
    pub unproven: u64,
}

impl MadeAnew {
    pub fn of(noted: TopicId, now: TopicId) -> MadeAnew {
        MadeAnew { noted: noted.to_string(), now: now.to_string() }
    }
}

impl Report {
    /// Sums up the partitions.
    pub fn of(topics: Vec<TopicReport>) -> Report {
        let mut report = Report::default();
        let mut same = true;
        for topic in &topics {
            same &= topic.made_anew.is_none();
            report.duplicates += topic.event_ids_twice;
            for partition in &topic.partitions {
                same &= partition.topic_ends_at.is_none();
                report.holes += partition.holes;
                report.lost += partition.lost;
                report.duplicates += partition.offsets_twice + partition.astray;
                report.healed += partition.healed;
                report.not_yet_stored += partition.not_yet_stored;
            }
        }
        report.clean = same && report.holes + report.lost + report.duplicates == 0;
        report.topics = topics;
        report
    }

    /// For people.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let line = |page: &mut String, cells: [&str; 11]| {
            let [place, rest @ ..] = cells;
            write!(page, "{place:<28}").expect("a String takes all");
            for cell in rest {
                write!(page, " {cell:>10}").expect("a String takes all");
            }
            page.push('\n');
        };
        line(
            &mut page,
            [
                "topic/partition@epoch",
                "batches",
                "rows",
                "duplicate",
                "dead",
                "forgotten",
                "expired",
                "unproven",
                "twice",
                "holes",
                "lost",
            ],
        );
        for topic in &self.topics {
            for part in &topic.partitions {
                let skipped = part.skipped;
                let counts = [
                    part.batches,
                    part.rows,
                    skipped.duplicate,
                    skipped.dead_letter,
                    skipped.forgotten,
                    skipped.expired,
                    skipped.unproven,
                    part.offsets_twice + part.astray,
                    part.holes,
                    part.lost,
                ]
                .map(|count| count.to_string());
                let place = format!("{}/{}@{}", topic.topic, part.partition, part.epoch);
                let mut cells = [place.as_str(); 11];
                for (cell, count) in cells[1..].iter_mut().zip(&counts) {
                    *cell = count;
                }
                line(&mut page, cells);
            }
        }
        for topic in &self.topics {
            if let Some(MadeAnew { noted, now }) = &topic.made_anew {
                writeln!(
                    page,
                    "{} was recreated: its id was {noted} when the rows were taken and is {now} now; to take its \
                     messages raise `consumer.epoch`",
                    topic.topic
                )
                .expect("a String takes all");
            }
            for part in &topic.partitions {
                let place = format!("{}/{}", topic.topic, part.partition);
                if let (Some(ends_at), Some([_, last])) = (part.topic_ends_at, part.covered) {
                    writeln!(
                        page,
                        "{place} ends at {ends_at}, its rows reach to {last}: the topic was recreated or lost its end; if \
                         it was recreated, raise `consumer.epoch`"
                    )
                    .expect("a String takes all");
                }
                for (what, count, spans) in
                    [("holes", part.holes, &part.hole_spans), ("lost", part.lost, &part.lost_spans)]
                {
                    if count > 0 {
                        let spans: Vec<String> =
                            spans.iter().map(|[first, last]| format!("{first}-{last}")).collect();
                        writeln!(page, "{what} in {place}: {}", spans.join(", "))
                            .expect("a String takes all");
                    }
                }
                if part.holes_at_the_end > 0 {
                    writeln!(
                        page,
                        "{} of the holes in {place} are behind its last batch: a consumer stands still there until they \
                         are healed",
                        part.holes_at_the_end
                    )
                    .expect("a String takes all");
                }
            }
            if topic.event_ids_twice > 0 {
                let ids: Vec<Uuid> =
                    topic.event_ids_twice_examples.iter().map(|doubled| doubled.event_id).collect();
                writeln!(
                    page,
                    "{} rows too many for the events of {}, such as {ids:?}",
                    topic.event_ids_twice, topic.topic
                )
                .expect("a String takes all");
            }
        }
        if self.not_yet_stored > 0 {
            writeln!(
                page,
                "not yet stored: {} events, which the consumer has not taken; audit again once it has",
                self.not_yet_stored
            )
            .expect("a String takes all");
        }
        let verdict = match (self.clean, self.healed) {
            (true, 0) => "clean: every offset is a row or explained, none twice".to_owned(),
            (true, healed) => format!("clean, after {healed} offsets were brought back"),
            (false, _) if self.holes + self.lost + self.duplicates == 0 => {
                "not clean: a topic is not the one that its table was filled from".to_owned()
            }
            (false, _) => format!("{} holes, {} lost, {} duplicates", self.holes, self.lost, self.duplicates),
        };
        writeln!(page, "{verdict}").expect("a String takes all");
        page
    }
}

/// The first of `spans`, for a document.
pub fn shown(spans: &[Span]) -> Vec<[u64; 2]> {
    spans.iter().take(SPANS_MAX).map(|span| [span.first, span.last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(holes: u64) -> Report {
        let partition = PartitionReport {
            partition: 3,
            epoch: 1,
            batches: 2,
            rows: 18,
            holes,
            hole_spans: if holes > 0 { vec![[5, 6]] } else { Vec::new() },
            ..PartitionReport::default()
        };
        Report::of(vec![TopicReport {
            topic: "exposures".to_owned(),
            table: "exposures",
            partitions: vec![partition],
            ..TopicReport::default()
        }])
    }

    #[test]
    fn a_hole_makes_it_unclean_and_is_named() {
        let found = report(2);
        assert_eq!((found.clean, found.holes), (false, 2));
        assert!(found.page().ends_with("holes in exposures/3: 5-6\n2 holes, 0 lost, 0 duplicates\n"));
        assert!(report(0).clean);
        assert!(report(0).page().ends_with("clean: every offset is a row or explained, none twice\n"));
    }

    #[test]
    fn what_is_not_stored_yet_is_named_and_no_fault() {
        let mut topics = report(0).topics;
        topics[0].partitions[0].not_yet_stored = 120;
        let behind = Report::of(topics);
        assert_eq!((behind.clean, behind.not_yet_stored), (true, 120));
        assert!(behind.page().ends_with(
            "\nnot yet stored: 120 events, which the consumer has not taken; audit again once it has\n\
             clean: every offset is a row or explained, none twice\n"
        ));
        assert!(!report(0).page().contains("not yet stored"));
    }

    #[test]
    fn a_topic_that_is_not_the_tables_own_makes_it_unclean() {
        let mut topics = report(0).topics;
        topics[0].made_anew = Some(MadeAnew { noted: "a".to_owned(), now: "b".to_owned() });
        let anew = Report::of(topics);
        assert_eq!((anew.clean, anew.holes + anew.lost + anew.duplicates), (false, 0));
        let page = anew.page();
        assert!(
            page.contains("exposures was recreated: its id was a when the rows were taken and is b now"),
            "{page}"
        );
        assert!(
            page.ends_with("not clean: a topic is not the one that its table was filled from\n"),
            "{page}"
        );

        let mut topics = report(0).topics;
        topics[0].partitions[0].covered = Some([0, 99]);
        topics[0].partitions[0].topic_ends_at = Some(40);
        let shorter = Report::of(topics);
        assert!(!shorter.clean);
        assert!(
            shorter.page().contains("exposures/3 ends at 40, its rows reach to 99"),
            "{}",
            shorter.page()
        );
    }
}
