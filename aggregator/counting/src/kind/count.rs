//! How many events a unit has.

use super::{Cap, Events, Span, Value, before};
use crate::micros::Micros;
use crate::names::Name;

/// y is the number of events in the span, at most the cap. The covariate is the same for the time before the exposure, with
/// the same cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub series: Name,
    pub span: Span,
    pub cap: Cap,
}

impl Count {
    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros, covariate: Option<Micros>) -> Value {
        let number = |(from, to)| events.of(self.series, from, to).count() as i128;
        let of_unit = number(self.span.after(exposed_at));
        Value {
            takes_part: true,
            has_event: of_unit > 0,
            y: self.cap.cut(of_unit),
            x: covariate.map_or(0, |length| self.cap.cut(number(before(exposed_at, length)))),
            steps: 0,
        }
    }
}
