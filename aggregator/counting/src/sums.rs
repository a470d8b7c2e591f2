//! Exact sums of values over units. They are integers, so that neither order, nor batching, nor repetition can change them.

use std::collections::BTreeMap;

use ethnum::I256;
use xxhash_rust::xxh3::xxh3_128;

use crate::kind::Value;

/// The sums of one cell. All are 0 where nobody is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The units that take part.
    pub units: u64,
    /// Those with an event.
    pub with_event: u64,
    pub y: i128,
    pub x: i128,
    pub yy: I256,
    pub xx: I256,
    pub xy: I256,
    /// By step of a funnel, the units that went through it; empty for other kinds.
    pub steps: Vec<u64>,
    /// The single values of y, where an order statistic is asked for; empty otherwise.
    pub values: Values,
}

/// How often each value is there, in ascending order of the values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    counts: BTreeMap<i128, u64>,
    /// The sum of a hash of each value, modulo 2^128: it depends on the values alone, not on their order.
    hash: u128,
}

/// What a cell counts besides the sums that all have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub steps: usize,
    pub keeps_values: bool,
}

impl Sums {
    /// Adds a unit.
    pub fn add(&mut self, value: &Value, shape: Shape) {
        if !value.takes_part {
            return;
        }
        self.units += 1;
        self.with_event += u64::from(value.has_event);
        if value.y != 0 {
            self.y += value.y;
            self.yy += product(value.y, value.y);
        }
        if value.x != 0 {
            self.x += value.x;
            self.xx += product(value.x, value.x);
            self.xy += product(value.x, value.y);
        }
        if shape.steps > 0 {
            self.steps.resize(shape.steps, 0);
            for step in self.steps.iter_mut().take(usize::from(value.steps)) {
                *step += 1;
            }
        }
        if shape.keeps_values {
            self.values.add(value.y, 1);
        }
    }

    /// Takes out a unit that was added.
    ///
    /// # Panics
    /// If it was not.
    pub fn remove(&mut self, value: &Value, shape: Shape) {
        if !value.takes_part {
            return;
        }
        self.units = self.units.checked_sub(1).expect("the unit was added");
        self.with_event =
            self.with_event.checked_sub(u64::from(value.has_event)).expect("the unit was added");
        if value.y != 0 {
            self.y -= value.y;
            self.yy -= product(value.y, value.y);
        }
        if value.x != 0 {
            self.x -= value.x;
            self.xx -= product(value.x, value.x);
            self.xy -= product(value.x, value.y);
        }
        for step in self.steps.iter_mut().take(usize::from(value.steps)) {
            *step = step.checked_sub(1).expect("the unit was added");
        }
        if shape.keeps_values {
            self.values.remove(value.y);
        }
    }

    /// Adds all units of another cell.
    pub fn merge(&mut self, other: &Sums) {
        self.units += other.units;
        self.with_event += other.with_event;
        self.y += other.y;
        self.x += other.x;
        self.yy += other.yy;
        self.xx += other.xx;
        self.xy += other.xy;
        if self.steps.len() < other.steps.len() {
            self.steps.resize(other.steps.len(), 0);
        }
        for (step, more) in self.steps.iter_mut().zip(&other.steps) {
            *step += more;
        }
        for (value, count) in &other.values.counts {
            self.values.add(*value, *count);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.units == 0
    }

    /// Appends what identifies these sums: equal sums give equal bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.units.to_le_bytes());
        out.extend(self.with_event.to_le_bytes());
        out.extend(self.y.to_le_bytes());
        out.extend(self.x.to_le_bytes());
        for square in [self.yy, self.xx, self.xy] {
            out.extend(square.to_le_bytes());
        }
        for step in &self.steps {
            out.extend(step.to_le_bytes());
        }
        out.extend(self.values.hash.to_le_bytes());
    }

    /// The memory outside of the struct, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.steps.capacity() * 8 + self.values.counts.len() * VALUE_BYTES
    }
}

/// What a value takes in memory, about.
const VALUE_BYTES: usize = 32;

impl Values {
    /// Each value with the number of its units, in any order.
    pub fn from_counts(counts: impl IntoIterator<Item = (i128, u64)>) -> Values {
        let mut values = Values::default();
        counts.into_iter().for_each(|(value, times)| values.add(value, times));
        values
    }

    fn add(&mut self, value: i128, times: u64) {
        *self.counts.entry(value).or_insert(0) += times;
        self.hash = self.hash.wrapping_add(hash_of(value).wrapping_mul(u128::from(times)));
    }

    fn remove(&mut self, value: i128) {
        let count = self.counts.get_mut(&value).expect("the value was added");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&value);
        }
        self.hash = self.hash.wrapping_sub(hash_of(value));
    }

    /// Each value with the number of its units, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (i128, u64)> {
        self.counts.iter().map(|(value, count)| (*value, *count))
    }

    /// How many units there are.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The value at a rank, from 1, in ascending order. None beyond the last.
    pub fn at_rank(&self, rank: u64) -> Option<i128> {
        let mut passed = 0;
        self.iter().find_map(|(value, count)| {
            passed += count;
            (passed >= rank).then_some(value)
        })
    }
}

fn hash_of(value: i128) -> u128 {
    xxh3_128(&value.to_le_bytes())
}

/// A total of a unit is at most 2^63 millionths for each of its events, so that it has fewer than 128 bits, and the product of
/// two fewer than 256.
fn product(a: i128, b: i128) -> I256 {
    // Nearly all totals have fewer than 64 bits, whose product is much cheaper.
    match (i64::try_from(a), i64::try_from(b)) {
        (Ok(a), Ok(b)) => I256::from(i128::from(a) * i128::from(b)),
        _ => I256::from(a) * I256::from(b),
    }
}
