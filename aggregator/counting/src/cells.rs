//! Cells: exact sums over the units that one experiment exposed at about the same time in the same way. A cell holds
//! absolute values, never differences, so that publishing one twice changes nothing.
//!
//! The units of a metric that has a window are apart until it has closed: by the hour of their first exposure in *open*
//! cells, afterwards by the day in *closed* ones. So the closed cells are the matured units, at every moment, and what is
//! kept does not grow with the number of hours. Segments are by day throughout.

use std::collections::BTreeMap;
use std::mem::size_of;

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128;

use crate::event::SEGMENTS;
use crate::kind::Value;
use crate::micros::{HOUR, Micros};
use crate::names::{Name, Names};
use crate::sums::{Shape, Sums};

/// How a unit stands in an experiment: the units of a group are summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// By the first exposure, as is the phase.
    pub variant: Name,
    pub phase: u32,
    /// Whether the unit was exposed to another variant too.
    pub several: bool,
    pub forced: Forced,
}

/// Whether a unit was ever forced into a variant. Nothing counts of one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forced {
    Never,
    /// By its first exposure.
    First,
    /// By a later one: it counted until then.
    Later,
}

/// Which units a cell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cohort {
    /// Those exposed in an hour, counted from 1970, whose window is open.
    Hour(i32),
    /// Those exposed on a day, counted from 1970, whose window has closed; or which has none.
    Day(i32),
    /// All exposed on a day, whose first exposure has this value of an attribute.
    Segment { day: i32, attribute: u8, value: Name },
}

/// The place of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub cohort: Cohort,
    pub group: Group,
}

/// What one unit adds to an experiment, or to one of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contribution {
    pub(crate) exposed_at: Micros,
    pub(crate) group: Group,
    pub(crate) segments: [Name; SEGMENTS],
    pub(crate) value: Value,
}

impl Contribution {
    /// Whether both are in the same cells, before and after a window closes.
    pub(crate) fn is_in_the_place_of(&self, other: &Contribution) -> bool {
        self.group == other.group
            && self.segments == other.segments
            && hour_of(self.exposed_at) == hour_of(other.exposed_at)
    }
}

/// A [`Place`] in few bytes: its group is a number, and its cohort is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Kind of the cohort and attribute, time, group.
    high: u64,
    value: u32,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    sums: Sums,
    /// The hash that it had when the last round ended; 0 if it was not there.
    hash: u128,
    is_changed: bool,
}

/// The cells of the units of an experiment, or of one metric.
#[derive(Clone, Debug)]
pub struct Cells {
    /// What identifies what is summed.
    identity: Box<str>,
    shape: Shape,
    /// How long after the first exposure a unit's value is final; none if it has no window.
    closes_after: Option<Micros>,
    cells: HashMap<Key, Cell>,
    groups: Groups,
    /// The hours that have open cells, with their groups.
    open: BTreeMap<i32, Vec<u16>>,
    changed: Vec<Place>,
    digest: u128,
}

/// A cell that changed in a round, with its sums now. Nobody is in it any more if they are empty.
#[derive(Clone, Debug)]
pub struct Changed<'a> {
    pub place: Place,
    pub sums: &'a Sums,
}

impl Cells {
    pub(crate) fn new(identity: &str, shape: Shape, closes_after: Option<Micros>) -> Cells {
        Cells {
            identity: identity.into(),
            shape,
            closes_after,
            cells: HashMap::new(),
            groups: Groups::default(),
            open: BTreeMap::new(),
            changed: Vec::new(),
            digest: 0,
        }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Moves the units whose window has closed by now.
    pub(crate) fn close(&mut self, as_of: Micros) {
        let Some(closes_after) = self.closes_after else { return };
        while let Some((&hour, _)) = self.open.first_key_value() {
            if !has_closed(hour, closes_after, as_of) {
                break;
            }
            for number in self.open.remove(&hour).expect("it is the first") {
                let group = self.groups.all[usize::from(number)];
                let sums = std::mem::take(self.touch(Place { cohort: Cohort::Hour(hour), group }, number));
                self.touch(Place { cohort: Cohort::Day(day_of(hour)), group }, number).merge(&sums);
            }
        }
    }

    pub(crate) fn add(&mut self, of: &Contribution, as_of: Micros) {
        let shape = self.shape;
        self.change(of, as_of, |sums| sums.add(&of.value, shape));
    }

    pub(crate) fn remove(&mut self, of: &Contribution, as_of: Micros) {
        let shape = self.shape;
        self.change(of, as_of, |sums| sums.remove(&of.value, shape));
    }

    /// Replaces the value of a unit whose place stays the same.
    pub(crate) fn replace(&mut self, before: &Contribution, after: &Contribution, as_of: Micros) {
        let shape = self.shape;
        self.change(after, as_of, |sums| {
            sums.remove(&before.value, shape);
            sums.add(&after.value, shape);
        });
    }

    fn change(&mut self, of: &Contribution, as_of: Micros, change: impl Fn(&mut Sums)) {
        let hour = hour_of(of.exposed_at);
        let day = day_of(hour);
        let group = of.group;
        let number = self.groups.number(group);
        let is_open = self.closes_after.is_some_and(|after| !has_closed(hour, after, as_of));
        if is_open {
            let groups = self.open.entry(hour).or_default();
            if !groups.contains(&number) {
                groups.push(number);
            }
        }
        let cohort = if is_open { Cohort::Hour(hour) } else { Cohort::Day(day) };
        change(self.touch(Place { cohort, group }, number));
        for (attribute, value) in of.segments.into_iter().enumerate() {
            let attribute = u8::try_from(attribute).expect("there are few");
            change(self.touch(Place { cohort: Cohort::Segment { day, attribute, value }, group }, number));
        }
    }

    /// Returns the sums of a cell that is about to change.
    fn touch(&mut self, place: Place, group: u16) -> &mut Sums {
        let cell = self.cells.entry(Key::of(place.cohort, group)).or_default();
        if !cell.is_changed {
            cell.is_changed = true;
            self.changed.push(place);
        }
        &mut cell.sums
    }

    /// The cells that changed since the last round ended.
    pub fn changed(&self) -> impl Iterator<Item = Changed<'_>> {
        self.changed.iter().map(|place| Changed { place: *place, sums: &self.cell(*place).sums })
    }

    /// Ends a round: brings the digest up to date.
    pub(crate) fn end_round(&mut self, experiment: &str, names: &Names) {
        let mut bytes = Vec::new();
        for place in std::mem::take(&mut self.changed) {
            let key = self.key(place);
            let cell = self.cells.get_mut(&key).expect("a cell that changed is there until the round ends");
            bytes.clear();
            let hash = hash_of(experiment, &self.identity, place, &cell.sums, names, &mut bytes);
            self.digest = self.digest.wrapping_sub(cell.hash).wrapping_add(hash);
            (cell.hash, cell.is_changed) = (hash, false);
            if cell.sums.is_empty() {
                self.cells.remove(&key);
            }
        }
    }

    /// The sum of a hash of each cell, modulo 2^128, when the last round ended. Equal cells have equal digests, whatever
    /// happened before.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// All cells, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &Sums)> {
        let all = self.cells.iter().map(|(key, cell)| (key.place(&self.groups), &cell.sums));
        all.filter(|(_, sums)| !sums.is_empty())
    }

    fn cell(&self, place: Place) -> &Cell {
        &self.cells[&self.key(place)]
    }

    fn key(&self, place: Place) -> Key {
        Key::of(place.cohort, self.groups.numbers[&place.group])
    }

    /// The memory of the cells, in bytes, about.
    pub fn bytes(&self) -> usize {
        let values: usize = self.cells.values().map(|cell| cell.sums.bytes()).sum();
        self.cells.capacity() * (size_of::<(Key, Cell)>() + 1) + values
    }
}

/// The groups that there are, which are few, as numbers.
#[derive(Clone, Debug, Default)]
struct Groups {
    numbers: HashMap<Group, u16>,
    all: Vec<Group>,
    /// The one that was asked for last, which is often asked for again.
    last: Option<(Group, u16)>,
}

impl Groups {
    fn number(&mut self, group: Group) -> u16 {
        if let Some((last, number)) = self.last
            && last == group
        {
            return number;
        }
        let next = u16::try_from(self.all.len()).expect("an experiment has fewer than 65,536 groups");
        let number = *self.numbers.entry(group).or_insert(next);
        if number == next {
            self.all.push(group);
        }
        self.last = Some((group, number));
        number
    }
}

const TIME_BITS: u32 = 32;
const GROUP_BITS: u32 = 16;

impl Key {
    fn of(cohort: Cohort, group: u16) -> Key {
        let (kind, time, value) = match cohort {
            Cohort::Hour(hour) => (0, hour, 0),
            Cohort::Day(day) => (1, day, 0),
            Cohort::Segment { day, attribute, value } => (2 + u64::from(attribute), day, value.number()),
        };
        // The bits of a negative time are those of a large one, and come back as they were.
        let time = u64::from(time.cast_unsigned());
        Key { high: (kind << TIME_BITS | time) << GROUP_BITS | u64::from(group), value }
    }

    fn place(self, groups: &Groups) -> Place {
        let group = groups.all[(self.high & u64::from(u16::MAX)) as usize];
        let time = ((self.high >> GROUP_BITS) as u32).cast_signed();
        let cohort = match self.high >> (GROUP_BITS + TIME_BITS) {
            0 => Cohort::Hour(time),
            1 => Cohort::Day(time),
            kind => {
                let attribute = u8::try_from(kind - 2).expect("there are few");
                Cohort::Segment { day: time, attribute, value: Name::of_number(self.value) }
            }
        };
        Place { cohort, group }
    }
}

/// Hours are closed as a whole, when the window of the last unit in them has.
fn has_closed(hour: i32, closes_after: Micros, as_of: Micros) -> bool {
    (Micros::from(hour) + 1).saturating_mul(HOUR).saturating_add(closes_after) <= as_of
}

fn hour_of(at: Micros) -> i32 {
    i32::try_from(at.div_euclid(HOUR)).expect("events are of the years 1 to 9999")
}

fn day_of(hour: i32) -> i32 {
    hour.div_euclid(24)
}

/// The hash of a cell, by what it is called and not by numbers of this process; 0 of an empty one, as if it was not there.
fn hash_of(
    experiment: &str,
    identity: &str,
    place: Place,
    sums: &Sums,
    names: &Names,
    bytes: &mut Vec<u8>,
) -> u128 {
    if sums.is_empty() {
        return 0;
    }
    let mut text = |text: &str| {
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    text(experiment);
    text(identity);
    text(names.text(place.group.variant));
    let (kind, time, attribute) = match place.cohort {
        Cohort::Hour(hour) => (0, hour, 0),
        Cohort::Day(day) => (1, day, 0),
        Cohort::Segment { day, attribute, value } => {
            text(names.text(value));
            (2, day, attribute)
        }
    };
    bytes.extend([kind, attribute, u8::from(place.group.several), place.group.forced as u8]);
    bytes.extend(time.to_le_bytes());
    bytes.extend(place.group.phase.to_le_bytes());
    sums.write(bytes);
    xxh3_128(bytes)
}
