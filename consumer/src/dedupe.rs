//! Which events are already in ClickHouse. A window in memory holds the ids of every durable event of one
//! partition that was created since its horizon; a resend carries the same time as the first sending, so an
//! event created since the horizon is a duplicate exactly if the window has it. Events created before the
//! horizon are asked of ClickHouse. Ids enter only once their rows are durable; those on their way are held
//! apart. Exact: nothing is ever taken for a duplicate that is none.

use std::collections::BTreeMap;

use schemas::{Micros, Uuid};

pub use ids::Ids;

mod ids;

/// A minute's ids are kept and forgotten together.
const SLICE_MICROS: i64 = 60_000_000;

/// Ids whose places the processor's cache surely holds together.
const WARM_AT_ONCE: usize = 256;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Seen,
    New,
    /// Created before the horizon: only ClickHouse knows.
    AskStore,
}

/// The durable ids of one partition.
pub struct Window {
    slices: BTreeMap<i64, Ids>,
    ids: usize,
    ids_max: usize,
    horizon: Micros,
}

impl Window {
    /// An empty window. It is only right once every durable event created since `horizon` has been entered.
    pub fn new(horizon: Micros, ids_max: usize) -> Window {
        Window { slices: BTreeMap::new(), ids: 0, ids_max, horizon }
    }

    /// Enters events whose rows are durable. Where the window would outgrow its bound, its oldest slice is
    /// forgotten and the horizon moves up behind it.
    pub fn enter(&mut self, events: &[(Uuid, Micros)]) {
        for run in events.chunk_by(|(_, one), (_, next)| slice_of(*one) == slice_of(*next)) {
            let slice = self.slices.entry(slice_of(run[0].1)).or_default();
            for some in run.chunks(WARM_AT_ONCE) {
                slice.warm(some.iter().map(|(id, _)| *id));
                for (id, created_at) in some {
                    if *created_at >= self.horizon {
                        self.ids += usize::from(slice.insert(*id));
                    }
                }
            }
            while self.ids > self.ids_max && self.slices.len() > 1 {
                let (slice, ids) = self.slices.pop_first().expect("there are at least two");
                self.ids -= ids.len();
                self.horizon =
                    Micros::new((slice + 1) * SLICE_MICROS).unwrap_or(Micros::MAX).max(self.horizon);
            }
        }
    }

    /// Answers for one event after another; quickest where they are of one time.
    pub fn reader(&self) -> Reader<'_> {
        Reader { window: self, number: i64::MIN, slice: None }
    }

    /// As [`Ids::warm`].
    pub fn warm(&self, events: &[(Uuid, Micros)]) {
        for run in events.chunk_by(|(_, one), (_, next)| slice_of(*one) == slice_of(*next)) {
            if let Some(slice) = self.slices.get(&slice_of(run[0].1)) {
                slice.warm(run.iter().map(|(id, _)| *id));
            }
        }
    }

    /// Forgets what was created before `horizon`.
    pub fn advance(&mut self, horizon: Micros) {
        if horizon <= self.horizon {
            return;
        }
        self.horizon = horizon;
        let kept = self.slices.split_off(&slice_of(horizon));
        self.slices = kept;
        self.ids = self.slices.values().map(Ids::len).sum();
    }

    pub fn ids(&self) -> usize {
        self.ids
    }

    /// Bytes of memory that the ids take.
    pub fn bytes(&self) -> usize {
        self.slices.values().map(Ids::bytes).sum()
    }

    pub fn horizon(&self) -> Micros {
        self.horizon
    }
}

/// Looks ids up in a window.
pub struct Reader<'w> {
    window: &'w Window,
    /// The slice asked last.
    number: i64,
    slice: Option<&'w Ids>,
}

impl Reader<'_> {
    pub fn know(&mut self, id: Uuid, created_at: Micros) -> Known {
        if created_at < self.window.horizon {
            return Known::AskStore;
        }
        let number = slice_of(created_at);
        if number != self.number {
            (self.number, self.slice) = (number, self.window.slices.get(&number));
        }
        if self.slice.is_some_and(|slice| slice.contains(id)) { Known::Seen } else { Known::New }
    }
}

fn slice_of(created_at: Micros) -> i64 {
    created_at.get() / SLICE_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Micros {
        Micros::new(minute * SLICE_MICROS).unwrap()
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn an_id_is_seen_once_entered_and_only_then() {
        let mut window = Window::new(at(10), 100);
        assert_eq!(window.reader().know(id(1), at(10)), Known::New);
        window.enter(&[(id(1), at(10))]);
        assert_eq!(window.reader().know(id(1), at(10)), Known::Seen);
        assert_eq!(window.reader().know(id(2), at(10)), Known::New);
    }

    #[test]
    fn before_the_horizon_the_store_is_asked() {
        let mut window = Window::new(at(10), 100);
        window.enter(&[(id(1), at(9))]);
        assert_eq!(window.reader().know(id(1), at(9)), Known::AskStore);
        assert_eq!(window.ids(), 0);
    }

    #[test]
    fn outgrowing_the_bound_moves_the_horizon_and_loses_no_answer() {
        let mut window = Window::new(at(10), 2);
        window.enter(&[(id(1), at(10))]);
        window.enter(&[(id(2), at(11))]);
        window.enter(&[(id(3), at(11))]);
        assert_eq!((window.ids(), window.horizon()), (2, at(11)));
        assert_eq!(window.reader().know(id(1), at(10)), Known::AskStore);
        assert_eq!(window.reader().know(id(2), at(11)), Known::Seen);
    }

    #[test]
    fn events_entered_together_are_what_they_are_one_by_one() {
        let events: Vec<(Uuid, Micros)> = [(1, 9), (2, 10), (3, 11), (4, 11), (5, 10), (2, 10)]
            .map(|(number, minute)| (id(number), at(minute)))
            .into();
        let (mut together, mut one_by_one) = (Window::new(at(10), 100), Window::new(at(10), 100));
        together.enter(&events);
        events.iter().for_each(|event| one_by_one.enter(&[*event]));
        assert_eq!((together.ids(), one_by_one.ids()), (4, 4));
        let (mut reader, mut other) = (together.reader(), one_by_one.reader());
        let known: Vec<Known> = events.iter().map(|(id, created_at)| reader.know(*id, *created_at)).collect();
        assert_eq!(known[0], Known::AskStore);
        assert!(known[1..].iter().all(|known| *known == Known::Seen), "{known:?}");
        assert_eq!(other.know(id(5), at(10)), Known::Seen);
        assert_eq!(reader.know(id(5), at(11)), Known::New);
    }

    #[test]
    fn advancing_forgets_whole_slices() {
        let mut window = Window::new(at(10), 100);
        window.enter(&[(id(1), at(10))]);
        window.enter(&[(id(2), at(12))]);
        window.advance(at(12));
        assert_eq!(window.ids(), 1);
        assert_eq!(window.reader().know(id(1), at(10)), Known::AskStore);
        assert_eq!(window.reader().know(id(2), at(12)), Known::Seen);
    }
}
