//! One value of each unit, of which a quantile over the units is compared.

use super::{Events, Span, Value};
use crate::micros::Micros;
use crate::names::Name;

/// y is the unit's value in millionths. A unit without an event in the span has no value and does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantile {
    pub series: Name,
    pub span: Span,
    pub per_unit: PerUnit,
}

/// How the values of a unit's events become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerUnit {
    /// Their sum.
    Total,
    /// Their mean, rounded towards zero to whole millionths.
    Mean,
    /// The largest of them.
    Largest,
    /// That of the earliest event, of two at the same time the one with the smaller id.
    First,
}

impl Quantile {
    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros) -> Value {
        let (from, to) = self.span.after(exposed_at);
        let mut values = events.of(self.series, from, to).map(|event| i128::from(event.millionths));
        let Some(first) = values.next() else { return Value::default() };
        let y = match self.per_unit {
            PerUnit::First => first,
            PerUnit::Largest => values.fold(first, i128::max),
            PerUnit::Total => values.fold(first, |sum, value| sum + value),
            PerUnit::Mean => {
                let (sum, number) = values.fold((first, 1), |(sum, number), value| (sum + value, number + 1));
                sum / number
            }
        };
        Value { takes_part: true, has_event: true, y, x: 0, steps: 0 }
    }
}
