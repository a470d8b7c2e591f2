//! Whether a unit has the event.

use super::{Events, Span, Value, before};
use crate::micros::Micros;
use crate::names::Name;

/// y is 1 for a unit with at least one event in the span, else 0. The covariate is the same for the time before the
/// exposure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    pub series: Name,
    pub span: Span,
}

impl Conversion {
    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros, covariate: Option<Micros>) -> Value {
        let has = |(from, to)| events.of(self.series, from, to).next().is_some();
        let converted = has(self.span.after(exposed_at));
        Value {
            takes_part: true,
            has_event: converted,
            y: i128::from(converted),
            x: covariate.map_or(0, |length| i128::from(has(before(exposed_at, length)))),
            steps: 0,
        }
    }
}
