//! The total value of a unit's events.

use super::{Cap, Events, Span, Value, before};
use crate::micros::Micros;
use crate::names::Name;

/// y is the sum of the values of the events in the span in millionths, at most the cap; 0 for a unit without events. An event
/// without a value adds 0. The covariate is the same for the time before the exposure, with the same cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mean {
    pub series: Name,
    pub span: Span,
    pub cap: Cap,
}

impl Mean {
    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros, covariate: Option<Micros>) -> Value {
        let total = |(from, to)| {
            let of = events.of(self.series, from, to);
            of.fold((false, 0), |(_, total), event| (true, total + i128::from(event.millionths)))
        };
        let (has_event, of_unit) = total(self.span.after(exposed_at));
        Value {
            takes_part: true,
            has_event,
            y: self.cap.cut(of_unit),
            x: covariate.map_or(0, |length| self.cap.cut(total(before(exposed_at, length)).1)),
            steps: 0,
        }
    }
}
