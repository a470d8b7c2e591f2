//! Several events that must follow each other.
//!
//! A step is the earliest event of its name that is not before the step before it; of two at the same time it is the one
//! with the smaller id, and one event is never two steps. Each step has a window of its own, which begins at the step before
//! it, the first one's at the exposure (after the delay). The steps of a unit end at the first one that is missing.

use super::{Events, Value};
use crate::event::EventId;
use crate::micros::Micros;
use crate::names::Name;

/// y is 1 for a unit that went through all steps, else 0; `steps` says how many it went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Funnel {
    /// At least two.
    pub steps: Vec<Name>,
    pub delay: Micros,
    /// The length of each step's window.
    pub window: Option<Micros>,
}

impl Funnel {
    /// When the last step's window has closed, whenever the steps before it were taken.
    pub(super) fn closes_after(&self) -> Option<Micros> {
        let steps = Micros::try_from(self.steps.len()).expect("there are few steps");
        self.window.map(|window| window.saturating_mul(steps).saturating_add(self.delay))
    }

    pub(super) fn value(&self, events: &impl Events, exposed_at: Micros) -> Value {
        let mut from = exposed_at.saturating_add(self.delay);
        let mut taken: Vec<EventId> = Vec::new();
        for series in &self.steps {
            let to = self.window.map(|window| from.saturating_add(window));
            let Some(step) = events.of(*series, from, to).find(|event| !taken.contains(&event.id())) else {
                break;
            };
            from = step.at;
            taken.push(step.id());
        }
        let all = taken.len() == self.steps.len();
        let steps = u8::try_from(taken.len()).expect("there are few steps");
        Value { takes_part: true, has_event: all, y: i128::from(all), x: 0, steps }
    }
}
