//! Shares and means with their standard errors, and the tally of one method.

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A count and its total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    count: u64,
    of: u64,
}

impl Share {
    pub const NONE: Share = Share { count: 0, of: 0 };

    pub fn count(&mut self, yes: bool) {
        self.of += 1;
        self.count += u64::from(yes);
    }

    pub fn add(&mut self, other: Share) {
        self.count += other.count;
        self.of += other.of;
    }

    /// The count.
    pub fn count_of(self) -> u64 {
        self.count
    }

    /// The total.
    pub fn total(self) -> u64 {
        self.of
    }

    /// Returns `None` where nothing was counted.
    pub fn if_any(self) -> Option<Share> {
        (self.of > 0).then_some(self)
    }

    /// The share; 0 where nothing was counted.
    pub fn estimate(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.count as f64 / self.of as f64 }
    }

    pub fn standard_error(self) -> f64 {
        let p = self.estimate();
        if self.of == 0 { 0.0 } else { (p * (1.0 - p) / self.of as f64).sqrt() }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Share", 4)?;
        shown.serialize_field("share", &self.estimate())?;
        shown.serialize_field("standard_error", &self.standard_error())?;
        shown.serialize_field("count", &self.count)?;
        shown.serialize_field("of", &self.of)?;
        shown.end()
    }
}

/// The mean of a number, computed from its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Mean {
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    pub fn merge(&mut self, other: Mean) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean; 0 where nothing was added.
    pub fn value(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    pub fn standard_error(self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let n = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / n) / (n - 1.0);
        (variance.max(0.0) / n).sqrt()
    }
}

impl Serialize for Mean {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Mean", 2)?;
        shown.serialize_field("mean", &self.value())?;
        shown.serialize_field("standard_error", &self.standard_error())?;
        shown.end()
    }
}

/// The counts of one method.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub null_by_plan: Share,
    pub null_by_end: Share,
    pub effect_by_plan: Share,
    pub effect_by_end: Share,
    pub covered: Share,
    pub covered_stagewise: Share,
    pub stopped_if_effect: Mean,
    pub stopped_if_none: Mean,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            null_by_plan: Share::NONE,
            null_by_end: Share::NONE,
            effect_by_plan: Share::NONE,
            effect_by_end: Share::NONE,
            covered: Share::NONE,
            covered_stagewise: Share::NONE,
            stopped_if_effect: Mean::default(),
            stopped_if_none: Mean::default(),
        }
    }
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.null_by_plan.add(other.null_by_plan);
        self.null_by_end.add(other.null_by_end);
        self.effect_by_plan.add(other.effect_by_plan);
        self.effect_by_end.add(other.effect_by_end);
        self.covered.add(other.covered);
        self.covered_stagewise.add(other.covered_stagewise);
        self.stopped_if_effect.merge(other.stopped_if_effect);
        self.stopped_if_none.merge(other.stopped_if_none);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_counts_and_means() {
        let mut share = Share::NONE;
        for yes in [true, false, false, false] {
            share.count(yes);
        }
        assert_eq!((share.estimate(), share.standard_error()), (0.25, (0.1875_f64 / 4.0).sqrt()));
        let mut mean = Mean::default();
        for value in [1.0, 3.0] {
            mean.add(value);
        }
        assert_eq!((mean.value(), mean.standard_error()), (2.0, 1.0));
        assert_eq!(Share::NONE.if_any(), None);
    }
}
