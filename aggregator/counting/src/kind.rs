//! The kinds of metric. Each has a file of its own that says what a unit's events become: a [`Value`]. Everything after
//! that is the same for all kinds: values are summed by group ([`crate::cells`]).
//!
//! **The first exposure anchors.** It is the earliest exposure of the unit to the experiment in an environment that
//! counts, of two at the same time the one with the smaller event id; which one arrived first does not matter. An event
//! counts if it is not before it, and inside the metric's [`Span`]: after the delay, and before the end of the window, which
//! begins when the delay ends. A **day** is 24 hours from the first exposure: day 0 begins with it, day 1 begins 24 hours
//! later.

mod conversion;
mod count;
mod funnel;
mod mean;
mod quantile;
mod ratio;
mod retention;

pub use conversion::Conversion;
pub use count::Count;
pub use funnel::Funnel;
pub use mean::Mean;
pub use quantile::{PerUnit, Quantile};
pub use ratio::{Of, Ratio, Term};
pub use retention::Retention;

use crate::event;
use crate::micros::Micros;
use crate::names::Name;

/// A kind of metric with its options.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Conversion(Conversion),
    Count(Count),
    Mean(Mean),
    Ratio(Ratio),
    Retention(Retention),
    Quantile(Quantile),
    Funnel(Funnel),
}

/// The time after the first exposure in which events count: from `delay` on, before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub delay: Micros,
    pub end: Option<Micros>,
}

/// What a unit's events are for a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// Whether the unit is among those whose values are compared. A unit without events is, except for a quantile.
    pub takes_part: bool,
    /// Whether it has an event that counts; of a funnel, whether it went through all steps.
    pub has_event: bool,
    /// What is compared: 0 or 1, a number of events, or millionths.
    pub y: i128,
    /// The denominator of a ratio, or the covariate.
    pub x: i128,
    /// How many steps of a funnel it went through.
    pub steps: u8,
}

/// The conversions that count for one unit in one experiment, in order.
pub trait Events {
    /// Those of one series at `from` or later and before `to`; none: without an end.
    fn of(&self, series: Name, from: Micros, to: Option<Micros>) -> impl Iterator<Item = &event::Conversion>;
}

impl Kind {
    /// Computes the value of a unit that was first exposed at `exposed_at`. `covariate` is the length of the time before that
    /// from which the covariate is taken.
    pub fn value(&self, events: &impl Events, exposed_at: Micros, covariate: Option<Micros>) -> Value {
        match self {
            Kind::Conversion(kind) => kind.value(events, exposed_at, covariate),
            Kind::Count(kind) => kind.value(events, exposed_at, covariate),
            Kind::Mean(kind) => kind.value(events, exposed_at, covariate),
            Kind::Ratio(kind) => kind.value(events, exposed_at),
            Kind::Retention(kind) => kind.value(events, exposed_at),
            Kind::Quantile(kind) => kind.value(events, exposed_at),
            Kind::Funnel(kind) => kind.value(events, exposed_at),
        }
    }

    /// How long after its first exposure a unit's value is final, except for events that come late. None: never, since
    /// there is no window.
    pub fn closes_after(&self) -> Option<Micros> {
        match self {
            Kind::Conversion(kind) => kind.span.end,
            Kind::Count(kind) => kind.span.end,
            Kind::Mean(kind) => kind.span.end,
            Kind::Ratio(kind) => kind.span.end,
            Kind::Retention(kind) => Some(kind.span().end.expect("the last day ends")),
            Kind::Quantile(kind) => kind.span.end,
            Kind::Funnel(kind) => kind.closes_after(),
        }
    }

    /// Returns whether events of the series can change a value.
    pub fn reads(&self, series: Name) -> bool {
        match self {
            Kind::Conversion(kind) => kind.series == series,
            Kind::Count(kind) => kind.series == series,
            Kind::Mean(kind) => kind.series == series,
            Kind::Ratio(kind) => kind.numerator.series == series || kind.denominator.series == series,
            Kind::Retention(kind) => kind.series == series,
            Kind::Quantile(kind) => kind.series == series,
            Kind::Funnel(kind) => kind.steps.contains(&series),
        }
    }

    /// How many steps are counted one by one; 0 for a kind without steps.
    pub fn steps(&self) -> usize {
        match self {
            Kind::Funnel(kind) => kind.steps.len(),
            _ => 0,
        }
    }

    /// Whether the single values are kept beside their sums, since an order statistic of them is asked for.
    pub fn keeps_values(&self) -> bool {
        match self {
            Kind::Quantile(_) => true,
            Kind::Count(kind) => kind.cap == Cap::NotYet,
            Kind::Mean(kind) => kind.cap == Cap::NotYet,
            _ => false,
        }
    }
}

/// The value at which a unit's total is cut, so that a few large ones do not drown the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    None,
    /// A quantile that is not known yet. Nothing is cut, and all values are kept until it is.
    NotYet,
    /// In the unit of the value: events or millionths.
    At(i128),
}

impl Cap {
    fn cut(self, value: i128) -> i128 {
        match self {
            Cap::None | Cap::NotYet => value,
            Cap::At(cap) => value.min(cap),
        }
    }
}

impl Span {
    /// The first instant that counts, and the first one that does not any more.
    fn after(self, exposed_at: Micros) -> (Micros, Option<Micros>) {
        (exposed_at.saturating_add(self.delay), self.end.map(|end| exposed_at.saturating_add(end)))
    }
}

/// The time before the first exposure that a covariate is taken from.
fn before(exposed_at: Micros, covariate: Micros) -> (Micros, Option<Micros>) {
    (exposed_at.saturating_sub(covariate), Some(exposed_at))
}
