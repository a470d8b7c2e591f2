//! Which events are already in ClickHouse. A window in memory holds the ids of all durable events of one partition
//! that were created since its horizon. A resend carries the creation time of the first sending, so an event
//! created since the horizon is a duplicate if and only if the window has its id. For older events ClickHouse is
//! asked. An id enters the window once its row is durable; the ids of batches in flight are held by the batches.
//! The answers are exact.

use std::collections::BTreeMap;
use std::ops::Range;

use schemas::{Micros, Uuid};

pub use ids::Ids;

mod ids;

/// Ids are kept and dropped in slices of time. A slice is at most a minute.
const MINUTE_MICROS: i64 = 60_000_000;
/// A slice that holds an eighth of all ids allowed ends at its newest id, so that dropping a slice drops few ids,
/// however many events a minute has.
const SLICES_MIN: usize = 8;

/// Ids whose slots the processor's cache holds at the same time.
const WARM_AT_ONCE: usize = 256;

/// The id of an event and its creation time.
type Event = (Uuid, Micros);

/// What the window knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowAnswer {
    Seen,
    New,
    /// Created before the horizon: only ClickHouse knows.
    AskStore,
}

/// The durable ids of one partition.
pub struct Window {
    /// By the time at which each begins. A slice ends where the next one begins, or with its minute.
    slices: BTreeMap<i64, Slice>,
    ids: usize,
    ids_max: usize,
    horizon: Micros,
}

#[derive(Default)]
struct Slice {
    ids: Ids,
    newest: i64,
}

impl Window {
    /// An empty window that never holds more than `ids_max` ids. Its answers are right once every durable event
    /// created since `horizon` has been entered.
    pub fn new(horizon: Micros, ids_max: usize) -> Window {
        Window { slices: BTreeMap::new(), ids: 0, ids_max, horizon }
    }

    /// Enters events whose rows are durable. If the window would exceed its bound, its oldest slice is dropped and
    /// the horizon moves behind it.
    pub fn enter(&mut self, mut events: &[Event]) {
        while let Some((time, some, rest)) = self.of_one_slice(events) {
            events = rest;
            let slice = self.slices.entry(time.start).or_default();
            slice.ids.warm(some.iter().map(|(id, _)| *id));
            for (id, created_at) in some {
                if *created_at >= self.horizon {
                    self.ids += usize::from(slice.ids.insert(*id));
                    slice.newest = slice.newest.max(created_at.get());
                }
            }
            let follows = slice.newest + 1;
            if slice.ids.len() >= self.ids_max / SLICES_MIN && time.contains(&follows) {
                self.slices.entry(follows).or_default();
            }
            while self.ids > self.ids_max {
                self.forget_oldest();
            }
        }
    }

    fn forget_oldest(&mut self) {
        let (start, slice) = self.slices.pop_first().expect("there are ids, hence slices");
        self.ids -= slice.ids.len();
        let behind = match self.slices.is_empty() {
            true => slice.newest + 1,
            false => self.slice_around(start).end,
        };
        self.horizon = Micros::new(behind).unwrap_or(Micros::MAX).max(self.horizon);
    }

    /// The time of the slice that `at` belongs to.
    fn slice_around(&self, at: i64) -> Range<i64> {
        let minute = at.div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
        let before = self.slices.range(minute..=at).next_back();
        let behind = self.slices.range(at + 1..minute + MINUTE_MICROS).next();
        let start = before.map_or(minute, |(start, _)| *start);
        start..behind.map_or(minute + MINUTE_MICROS, |(start, _)| *start)
    }

    /// The time of the first event's slice, the first events that belong to it, at most [`WARM_AT_ONCE`], and the
    /// rest. `None` if there are no events.
    fn of_one_slice<'e>(&self, events: &'e [Event]) -> Option<(Range<i64>, &'e [Event], &'e [Event])> {
        let (_, first) = events.first()?;
        let time = self.slice_around(first.get());
        let belongs = |(_, at): &&Event| time.contains(&at.get());
        let (some, rest) = events.split_at(events.iter().take(WARM_AT_ONCE).take_while(belongs).count());
        Some((time, some, rest))
    }

    /// Answers for one event after another. It is fastest for events of the same minute.
    pub fn reader(&self) -> Reader<'_> {
        Reader { window: self, time: 0..0, slice: None }
    }

    /// As [`Ids::warm`].
    pub fn warm(&self, mut events: &[Event]) {
        while let Some((time, some, rest)) = self.of_one_slice(events) {
            events = rest;
            if let Some(slice) = self.slices.get(&time.start) {
                slice.ids.warm(some.iter().map(|(id, _)| *id));
            }
        }
    }

    /// Drops slices that end before `horizon`.
    pub fn advance(&mut self, horizon: Micros) {
        if horizon <= self.horizon {
            return;
        }
        self.horizon = horizon;
        let first_kept = self.slice_around(horizon.get()).start;
        self.slices = self.slices.split_off(&first_kept);
        self.ids = self.slices.values().map(|slice| slice.ids.len()).sum();
    }

    pub fn ids(&self) -> usize {
        self.ids
    }

    /// Bytes of memory that the ids take.
    pub fn bytes(&self) -> usize {
        self.slices.values().map(|slice| slice.ids.bytes()).sum()
    }

    pub fn horizon(&self) -> Micros {
        self.horizon
    }
}

/// Looks ids up in a window.
pub struct Reader<'w> {
    window: &'w Window,
    /// The slice asked last.
    time: Range<i64>,
    slice: Option<&'w Slice>,
}

impl Reader<'_> {
    pub fn look_up(&mut self, id: Uuid, created_at: Micros) -> WindowAnswer {
        if created_at < self.window.horizon {
            return WindowAnswer::AskStore;
        }
        let at = created_at.get();
        if !self.time.contains(&at) {
            self.time = self.window.slice_around(at);
            self.slice = self.window.slices.get(&self.time.start);
        }
        if self.slice.is_some_and(|slice| slice.ids.contains(id)) {
            WindowAnswer::Seen
        } else {
            WindowAnswer::New
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Micros {
        Micros::new(minute * MINUTE_MICROS).unwrap()
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn an_id_is_seen_once_entered_and_only_then() {
        let mut window = Window::new(at(10), 100);
        assert_eq!(window.reader().look_up(id(1), at(10)), WindowAnswer::New);
        window.enter(&[(id(1), at(10))]);
        assert_eq!(window.reader().look_up(id(1), at(10)), WindowAnswer::Seen);
        assert_eq!(window.reader().look_up(id(2), at(10)), WindowAnswer::New);
    }

    #[test]
    fn before_the_horizon_the_store_is_asked() {
        let mut window = Window::new(at(10), 100);
        window.enter(&[(id(1), at(9))]);
        assert_eq!(window.reader().look_up(id(1), at(9)), WindowAnswer::AskStore);
        assert_eq!(window.ids(), 0);
    }

    #[test]
    fn outgrowing_the_bound_moves_the_horizon_and_loses_no_answer() {
        let mut window = Window::new(at(10), 2);
        window.enter(&[(id(1), at(10))]);
        window.enter(&[(id(2), at(11))]);
        window.enter(&[(id(3), at(11))]);
        // No further than necessary: just behind what was dropped.
        assert_eq!((window.ids(), window.horizon().get()), (2, at(10).get() + 1));
        assert_eq!(window.reader().look_up(id(1), at(10)), WindowAnswer::AskStore);
        assert_eq!(window.reader().look_up(id(2), at(11)), WindowAnswer::Seen);
    }

    /// At a million events a second a minute has more of them than the window may hold.
    #[test]
    fn the_bound_holds_within_a_minute_too() {
        let mut window = Window::new(at(10), 80);
        let event = |number: i64| (id(1 + number as u128), Micros::new(at(10).get() + number).unwrap());
        for number in 0..1_000 {
            window.enter(&[event(number)]);
            assert!(window.ids() <= 80, "{} ids", window.ids());
        }
        // Slices of ten ids: at most one slice too many of the last 80 has been dropped.
        assert_eq!((window.ids(), window.horizon().get() - at(10).get()), (80, 920));
        let mut reader = window.reader();
        for number in 0..1_000 {
            let (id, created_at) = event(number);
            let known = if number < 920 { WindowAnswer::AskStore } else { WindowAnswer::Seen };
            assert_eq!(reader.look_up(id, created_at), known, "{number}");
        }
        let (_, last) = event(999);
        assert_eq!(reader.look_up(id(5_000), last), WindowAnswer::New);
    }

    #[test]
    fn ids_of_one_instant_are_bounded_as_well() {
        let mut window = Window::new(at(10), 80);
        let events: Vec<Event> = (1..=1_000).map(|number| (id(number), at(10))).collect();
        window.enter(&events);
        assert!(window.ids() <= 80, "{} ids", window.ids());
        assert!(events.iter().all(|(id, at)| window.reader().look_up(*id, *at) == WindowAnswer::AskStore));
        assert_eq!(window.horizon().get(), at(10).get() + 1);
    }

    /// Whatever is entered in whatever order, an answer is right, or is left to ClickHouse.
    #[test]
    fn it_never_answers_wrongly() {
        for seed in 1..=20_u64 {
            let mut state = seed;
            let mut dice = |sides: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % sides
            };
            let mut window = Window::new(at(10), 64);
            let mut entered: Vec<Event> = Vec::new();
            for number in 0..600_u64 {
                let created_at =
                    at(10).get() + (dice(4) * 20_000_000 + number * 100_000 + dice(1_000)) as i64;
                entered.push((id(1 + u128::from(number)), Micros::new(created_at).unwrap()));
                if dice(3) == 0 {
                    let since = entered.len() - (1 + dice(entered.len() as u64) as usize);
                    window.enter(&entered[since..]);
                } else {
                    window.enter(&entered[entered.len() - 1..]);
                }
                if dice(50) == 0 {
                    window.advance(Micros::new(at(10).get() + number as i64 * 90_000).unwrap());
                }
                assert!(window.ids() <= 64, "seed {seed}: {} ids", window.ids());
            }
            let mut reader = window.reader();
            for (id, created_at) in &entered {
                let known =
                    if *created_at < window.horizon() { WindowAnswer::AskStore } else { WindowAnswer::Seen };
                assert_eq!(reader.look_up(*id, *created_at), known, "seed {seed}");
            }
            assert_eq!(reader.look_up(id(9_999), Micros::MAX), WindowAnswer::New);
        }
    }

    #[test]
    fn events_entered_together_are_what_they_are_one_by_one() {
        let events: Vec<Event> = [(1, 9), (2, 10), (3, 11), (4, 11), (5, 10), (2, 10)]
            .map(|(number, minute)| (id(number), at(minute)))
            .into();
        let (mut together, mut one_by_one) = (Window::new(at(10), 100), Window::new(at(10), 100));
        together.enter(&events);
        events.iter().for_each(|event| one_by_one.enter(&[*event]));
        assert_eq!((together.ids(), one_by_one.ids()), (4, 4));
        let (mut reader, mut other) = (together.reader(), one_by_one.reader());
        let known: Vec<WindowAnswer> =
            events.iter().map(|(id, created_at)| reader.look_up(*id, *created_at)).collect();
        assert_eq!(known[0], WindowAnswer::AskStore);
        assert!(known[1..].iter().all(|known| *known == WindowAnswer::Seen), "{known:?}");
        assert_eq!(other.look_up(id(5), at(10)), WindowAnswer::Seen);
        assert_eq!(reader.look_up(id(5), at(11)), WindowAnswer::New);
    }

    #[test]
    fn advancing_forgets_whole_slices() {
        let mut window = Window::new(at(10), 100);
        window.enter(&[(id(1), at(10))]);
        window.enter(&[(id(2), at(12))]);
        window.advance(at(12));
        assert_eq!(window.ids(), 1);
        assert_eq!(window.reader().look_up(id(1), at(10)), WindowAnswer::AskStore);
        assert_eq!(window.reader().look_up(id(2), at(12)), WindowAnswer::Seen);
    }
}
