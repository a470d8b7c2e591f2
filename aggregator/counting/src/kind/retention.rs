//! Whether a unit comes back on one of some days.

use super::{Events, Span, Value};
use crate::micros::{DAY, Micros};
use crate::names::Name;

/// y is 1 for a unit with an event on one of the days `first` to `last` after its first exposure, else 0. Day N is the 24
/// hours that begin N times 24 hours after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub series: Name,
    pub first: u32,
    pub last: u32,
    /// The end of a window besides, as definitions of before could have it.
    pub window: Option<Micros>,
}

impl Retention {
    /// The days as a span.
    pub fn span(&self) -> Span {
        let end = Micros::from(self.last.saturating_add(1)).saturating_mul(DAY);
        Span {
            delay: Micros::from(self.first).saturating_mul(DAY),
            end: Some(self.window.map_or(end, |window| window.min(end))),
        }
    }

    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros) -> Value {
        let (from, to) = self.span().after(exposed_at);
        let came_back = events.of(self.series, from, to).next().is_some();
        Value { takes_part: true, has_event: came_back, y: i128::from(came_back), x: 0, steps: 0 }
    }
}
