//! One total of a unit's events over another: revenue per order, clicks per impression. What is compared is the ratio of
//! the sums over all units, not the mean of the units' ratios.

use super::{Events, Span, Value};
use crate::micros::Micros;
use crate::names::Name;

/// y is the numerator of the unit in the span, x its denominator. A unit with neither takes part with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub numerator: Term,
    pub denominator: Term,
    pub span: Span,
}

/// One of the two totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub series: Name,
    pub of: Of,
}

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The events.
    Events,
    /// Their values, in millionths.
    Total,
}

impl Ratio {
    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros) -> Value {
        let (from, to) = self.span.after(exposed_at);
        let sum = |term: Term| {
            let of = events.of(term.series, from, to);
            of.fold((false, 0), |(_, sum), event| match term.of {
                Of::Events => (true, sum + 1),
                Of::Total => (true, sum + i128::from(event.millionths)),
            })
        };
        let (has_event, y) = sum(self.numerator);
        let (_, x) = sum(self.denominator);
        Value { takes_part: true, has_event, y, x, steps: 0 }
    }
}
