//! An interval in a document: an infinite end is null.

use schemas::definition::Direction;
use serde::{Deserialize, Serialize};
use stats::Interval;

/// The interval from `lower` to `upper`; a null end is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

impl Bounds {
    /// Infinite on both sides.
    pub const NONE: Bounds = Bounds { lower: None, upper: None };

    /// Returns whether zero is inside or on an end.
    pub fn includes_zero(self) -> bool {
        self.lower.is_none_or(|lower| lower <= 0.0) && self.upper.is_none_or(|upper| upper >= 0.0)
    }

    pub fn divided_by(self, by: f64) -> Bounds {
        Bounds { lower: self.lower.map(|end| end / by), upper: self.upper.map(|end| end / by) }
    }

    /// Returns the same interval on a scale where above zero is better.
    pub fn toward_better(self, direction: Direction) -> Bounds {
        match direction {
            Direction::Increase => self,
            Direction::Decrease => {
                Bounds { lower: self.upper.map(|end| -end), upper: self.lower.map(|end| -end) }
            }
        }
    }
}

impl From<Interval> for Bounds {
    fn from(interval: Interval) -> Bounds {
        let finite = |end: f64| end.is_finite().then_some(end);
        Bounds { lower: finite(interval.lower), upper: finite(interval.upper) }
    }
}
