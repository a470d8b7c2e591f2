//! All rows of one unit in the order in which they are counted, each event once.

use std::cmp::Ordering;
use std::mem::size_of;

use hashbrown::{HashMap, HashSet};

use crate::event::{Conversion, EventId, Exposure};
use crate::names::Name;

/// The rows of one key: exposures by experiment, conversions by series, each in the order of their time, and of two at the
/// same time the one with the smaller id first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    exposures: Vec<Exposure>,
    conversions: Vec<Conversion>,
}

/// Above this many new rows at once, known ids are looked up by hash.
const SEARCHED_ONE_BY_ONE_MAX: usize = 16;

impl Rows {
    /// Adds rows in any order. Of rows with one id in one experiment, or in one series, the least stays: what is sent again is
    /// the same, and if it is not, the order of arrival still decides nothing.
    ///
    /// Returns whether anything changed.
    pub fn add(&mut self, other: Rows) -> bool {
        let exposures = merge(&mut self.exposures, other.exposures);
        let conversions = merge(&mut self.conversions, other.conversions);
        exposures || conversions
    }

    pub fn push_exposure(&mut self, exposure: Exposure) {
        merge(&mut self.exposures, vec![exposure]);
    }

    pub fn push_conversion(&mut self, conversion: Conversion) {
        merge(&mut self.conversions, vec![conversion]);
    }

    pub fn is_empty(&self) -> bool {
        self.exposures.is_empty() && self.conversions.is_empty()
    }

    pub fn exposures(&self) -> &[Exposure] {
        &self.exposures
    }

    pub fn conversions(&self) -> &[Conversion] {
        &self.conversions
    }

    /// The exposures to one experiment.
    pub fn exposures_to(&self, experiment: Name) -> &[Exposure] {
        run(&self.exposures, |of| of.experiment.cmp(&experiment))
    }

    /// The conversions of one series.
    pub fn conversions_of(&self, series: Name) -> &[Conversion] {
        run(&self.conversions, |of| of.series.cmp(&series))
    }

    /// Removes the rows that one of the conditions holds for.
    pub fn remove(&mut self, exposure: impl Fn(&Exposure) -> bool, conversion: impl Fn(&Conversion) -> bool) {
        self.exposures.retain(|of| !exposure(of));
        self.conversions.retain(|of| !conversion(of));
        self.exposures.shrink_to_fit();
        self.conversions.shrink_to_fit();
    }

    /// The memory of the rows, in bytes, without that of the struct itself.
    pub fn bytes(&self) -> usize {
        allocated(self.exposures.capacity() * size_of::<Exposure>())
            + allocated(self.conversions.capacity() * size_of::<Conversion>())
    }

    /// Rows that are known to be as they must be.
    pub(crate) fn from_sorted(exposures: Vec<Exposure>, conversions: Vec<Conversion>) -> Rows {
        debug_assert!(exposures.is_sorted() && conversions.is_sorted());
        Rows { exposures, conversions }
    }
}

/// What the allocator takes for so many bytes. It is what glibc takes below 128 KiB: 8 bytes of its own, rounded up to a
/// multiple of 16, at least 32. Others have classes of sizes, which take about as much.
fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

/// The part of a sorted slice that the order calls equal.
fn run<T>(sorted: &[T], order: impl Fn(&T) -> Ordering) -> &[T] {
    let start = sorted.partition_point(|of| order(of) == Ordering::Less);
    let length = sorted[start..].partition_point(|of| order(of) == Ordering::Equal);
    &sorted[start..start + length]
}

/// A row with what makes two rows one event.
trait Row: Copy + Ord {
    fn event(&self) -> (Name, EventId);
}

impl Row for Exposure {
    fn event(&self) -> (Name, EventId) {
        (self.experiment, self.id())
    }
}

impl Row for Conversion {
    fn event(&self) -> (Name, EventId) {
        (self.series, self.id())
    }
}

/// Merges `new` into `sorted`. Returns whether anything changed.
fn merge<T: Row>(sorted: &mut Vec<T>, mut new: Vec<T>) -> bool {
    new.sort_unstable();
    if new.len() > 1 {
        let mut seen = HashSet::new();
        new.retain(|row| seen.insert(row.event()));
    }
    // From here on `new` has each event once, with its least row.
    let search = Search::of(&new);
    let mut is_known = vec![false; new.len()];
    let mut replaced = Vec::new();
    for (index, row) in sorted.iter().enumerate() {
        let Some(found) = search.find(&new, row) else { continue };
        if new[found] < *row {
            replaced.push(index);
        } else {
            is_known[found] = true;
        }
    }
    for index in replaced.into_iter().rev() {
        sorted.remove(index);
    }
    let mut known = is_known.into_iter();
    new.retain(|_| !known.next().expect("there is one for each row"));
    let Some(first) = new.first() else { return false };
    // Rows that come in the order of their time are the usual case.
    let in_order = sorted.last().is_none_or(|last| last < first);
    sorted.reserve_exact(room_for(sorted.len(), new.len()));
    sorted.append(&mut new);
    if !in_order {
        sorted.sort();
    }
    true
}

/// How the new row of an event is found.
enum Search {
    OneByOne,
    ByHash(HashMap<(Name, EventId), usize>),
}

impl Search {
    fn of<T: Row>(rows: &[T]) -> Search {
        if rows.len() <= SEARCHED_ONE_BY_ONE_MAX {
            return Search::OneByOne;
        }
        Search::ByHash(rows.iter().enumerate().map(|(index, row)| (row.event(), index)).collect())
    }

    fn find<T: Row>(&self, rows: &[T], like: &T) -> Option<usize> {
        match self {
            Search::OneByOne => rows.iter().position(|row| row.event() == like.event()),
            Search::ByHash(found) => found.get(&like.event()).copied(),
        }
    }
}

/// How many more rows to make room for: an eighth of what is there, since most units get few rows after the first ones.
fn room_for(have: usize, new: usize) -> usize {
    new.max(have / 8)
}
