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

    /// Enters an event whose row is durable. Where the window would outgrow its bound, its oldest slice is
    /// forgotten and the horizon moves up behind it.
    pub fn enter(&mut self, id: Uuid, created_at: Micros) {
        if created_at < self.horizon {
            return;
        }
        let slice = self.slices.entry(created_at.get() / SLICE_MICROS).or_default();
        self.ids += usize::from(slice.insert(id));
        while self.ids > self.ids_max && self.slices.len() > 1 {
            let (slice, ids) = self.slices.pop_first().expect("there are at least two");
            self.ids -= ids.len();
            self.horizon = Micros::new((slice + 1) * SLICE_MICROS).unwrap_or(Micros::MAX).max(self.horizon);
        }
    }

    pub fn know(&self, id: Uuid, created_at: Micros) -> Known {
        if created_at < self.horizon {
            return Known::AskStore;
        }
        let seen =
            self.slices.get(&(created_at.get() / SLICE_MICROS)).is_some_and(|slice| slice.contains(id));
        if seen { Known::Seen } else { Known::New }
    }

    /// Forgets what was created before `horizon`.
    pub fn advance(&mut self, horizon: Micros) {
        if horizon <= self.horizon {
            return;
        }
        self.horizon = horizon;
        let kept = self.slices.split_off(&(horizon.get() / SLICE_MICROS));
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
        assert_eq!(window.know(id(1), at(10)), Known::New);
        window.enter(id(1), at(10));
        assert_eq!(window.know(id(1), at(10)), Known::Seen);
        assert_eq!(window.know(id(2), at(10)), Known::New);
    }

    #[test]
    fn before_the_horizon_the_store_is_asked() {
        let mut window = Window::new(at(10), 100);
        window.enter(id(1), at(9));
        assert_eq!(window.know(id(1), at(9)), Known::AskStore);
        assert_eq!(window.ids(), 0);
    }

    #[test]
    fn outgrowing_the_bound_moves_the_horizon_and_loses_no_answer() {
        let mut window = Window::new(at(10), 2);
        window.enter(id(1), at(10));
        window.enter(id(2), at(11));
        window.enter(id(3), at(11));
        assert_eq!((window.ids(), window.horizon()), (2, at(11)));
        assert_eq!(window.know(id(1), at(10)), Known::AskStore);
        assert_eq!(window.know(id(2), at(11)), Known::Seen);
    }

    #[test]
    fn advancing_forgets_whole_slices() {
        let mut window = Window::new(at(10), 100);
        window.enter(id(1), at(10));
        window.enter(id(2), at(12));
        window.advance(at(12));
        assert_eq!(window.ids(), 1);
        assert_eq!(window.know(id(1), at(10)), Known::AskStore);
        assert_eq!(window.know(id(2), at(12)), Known::Seen);
    }
}
