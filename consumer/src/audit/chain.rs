//! The chain of a partition's batches, computed from their first and last offsets: where it begins and ends, where
//! it has gaps, where batches overlap. Asks nobody.

use crate::pipeline::batch::Span;

/// A batch, as the table's rows describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub span: Span,
    pub rows: u64,
    /// Distinct offsets among the rows.
    pub offsets: u64,
    pub ingest_ms: i64,
}

/// A run of offsets that is covered by one batch, or by several that overlap: a batch that lost rows, and those that
/// brought them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub span: Span,
    pub links: Vec<Link>,
    /// Ingestion of its oldest batch.
    pub ingest_ms: i64,
}

/// The batches of one partition and epoch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub clusters: Vec<Cluster>,
}

/// Offsets between two clusters that no batch covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub span: Span,
    /// Ingestion of the batch behind it. What is missing was ingested before that, if it ever was.
    pub next_ingest_ms: i64,
}

impl Chain {
    pub fn of(mut links: Vec<Link>) -> Chain {
        links.sort_by_key(|link| (link.span.first, link.span.last));
        let mut clusters: Vec<Cluster> = Vec::new();
        for link in links {
            match clusters.last_mut() {
                Some(cluster) if link.span.first <= cluster.span.last => {
                    cluster.span.last = cluster.span.last.max(link.span.last);
                    cluster.ingest_ms = cluster.ingest_ms.min(link.ingest_ms);
                    cluster.links.push(link);
                }
                _ => clusters.push(Cluster { span: link.span, links: vec![link], ingest_ms: link.ingest_ms }),
            }
        }
        Chain { clusters }
    }

    /// From the first offset covered to the last; `None` without batches.
    pub fn span(&self) -> Option<Span> {
        let (first, last) = (self.clusters.first()?, self.clusters.last()?);
        Some(Span { first: first.span.first, last: last.span.last })
    }

    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for pair in self.clusters.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            if after.span.first > before.span.last + 1 {
                let span = Span { first: before.span.last + 1, last: after.span.first - 1 };
                gaps.push(Gap { span, next_ingest_ms: after.ingest_ms });
            }
        }
        gaps
    }
}

impl Cluster {
    /// Whether every offset is the offset of exactly one row, so that nothing needs an explanation. Never said of
    /// batches that overlap.
    pub fn full(&self) -> bool {
        match self.links[..] {
            [link] => link.rows == link.offsets && link.offsets == length(self.span),
            _ => false,
        }
    }
}

/// How many offsets a span has.
pub fn length(span: Span) -> u64 {
    span.last - span.first + 1
}

/// The parts of `span` that are not in `present`, which is in ascending order and may repeat offsets.
pub fn missing(span: Span, present: &[u64]) -> Vec<Span> {
    let mut missing = Vec::new();
    let mut next = span.first;
    for &offset in present.iter().filter(|offset| (span.first..=span.last).contains(offset)) {
        if offset > next {
            missing.push(Span { first: next, last: offset - 1 });
        }
        next = next.max(offset + 1);
    }
    if next <= span.last {
        missing.push(Span { first: next, last: span.last });
    }
    missing
}

/// The runs of consecutive offsets in `offsets`, which are in ascending order.
pub fn runs(offsets: impl IntoIterator<Item = u64>) -> Vec<Span> {
    let mut runs: Vec<Span> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if offset <= run.last => {}
            Some(run) if offset == run.last + 1 => run.last = offset,
            _ => runs.push(Span { first: offset, last: offset }),
        }
    }
    runs
}

/// Joins spans with fewer than `distance` offsets between them, so that they are read together.
pub fn joined(spans: &[Span], distance: u64) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for &span in spans {
        match joined.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(distance) => {
                last.last = last.last.max(span.last);
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// Whether `offset` is in one of `spans`, which are in ascending order.
pub fn contains(spans: &[Span], offset: u64) -> bool {
    let at = spans.partition_point(|span| span.last < offset);
    spans.get(at).is_some_and(|span| span.first <= offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn link(first: u64, last: u64, rows: u64, ingest_ms: i64) -> Link {
        Link { span: span(first, last), rows, offsets: rows, ingest_ms }
    }

    #[test]
    fn a_chain_without_gaps_is_full_where_every_offset_is_a_row() {
        let chain = Chain::of(vec![link(10, 19, 10, 2), link(0, 9, 9, 1)]);
        assert_eq!(chain.span(), Some(span(0, 19)));
        assert_eq!(chain.gaps(), []);
        assert_eq!(chain.clusters.iter().map(Cluster::full).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_lost_batch_is_a_gap_that_knows_when_the_next_one_was_ingested() {
        let chain = Chain::of(vec![link(0, 9, 10, 1), link(20, 29, 10, 3)]);
        assert_eq!(chain.gaps(), [Gap { span: span(10, 19), next_ingest_ms: 3 }]);
    }

    #[test]
    fn a_batch_inside_another_is_one_cluster_with_it() {
        let chain = Chain::of(vec![link(0, 9, 8, 1), link(3, 4, 2, 9), link(10, 11, 2, 2)]);
        assert_eq!(chain.clusters.len(), 2);
        assert_eq!(chain.clusters[0].span, span(0, 9));
        assert_eq!(chain.clusters[0].ingest_ms, 1);
        assert!(!chain.clusters[0].full());
        assert_eq!(chain.gaps(), []);
    }

    #[test]
    fn a_row_twice_in_a_batch_does_not_stand_for_another() {
        let twice = Link { span: span(0, 1), rows: 2, offsets: 1, ingest_ms: 0 };
        assert!(!Chain::of(vec![twice]).clusters[0].full());
    }

    #[test]
    fn what_is_missing_of_a_span() {
        assert_eq!(missing(span(5, 9), &[]), [span(5, 9)]);
        assert_eq!(missing(span(5, 9), &[5, 6, 7, 8, 9]), []);
        assert_eq!(missing(span(5, 9), &[4, 6, 6, 7, 10]), [span(5, 5), span(8, 9)]);
        assert_eq!(missing(span(0, 0), &[0]), []);
    }

    #[test]
    fn runs_of_offsets_and_spans_read_together() {
        assert_eq!(runs([1, 2, 2, 3, 7]), [span(1, 3), span(7, 7)]);
        assert_eq!(joined(&[span(0, 0), span(9, 9), span(20, 30)], 10), [span(0, 9), span(20, 30)]);
        assert_eq!(joined(&[span(0, 0), span(9, 9), span(19, 30)], 10), [span(0, 30)]);
        assert!(contains(&[span(1, 3), span(7, 7)], 7));
        assert!(!contains(&[span(1, 3), span(7, 7)], 5));
    }
}
