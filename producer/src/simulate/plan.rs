//! What is simulated, and why a plan cannot be.

use std::collections::BTreeMap;

use schemas::definition::{Schedule, State};
use schemas::{Decimal6, Key, Micros};
use sdk::attributes::AttributeNames;

use super::Mix;

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The prefix of every unit id, and part of every event id.
    pub batch_id: Key,
    pub units: u64,
    /// The true conversion rate of each variant, in [0, 1].
    pub rates: BTreeMap<String, f64>,
    /// The name of the conversion event.
    pub event: Key,
    /// The lowest and the highest value of a conversion; values are drawn in whole hundredths.
    pub value: Option<(Decimal6, Decimal6)>,
    /// The share of events that are sent a second time, in [0, 1].
    pub duplicates: f64,
    pub mix: Mix,
    /// The attributes that exposures carry in addition to the ones that they always carry.
    pub attributes: AttributeNames,
    /// The arrival of the first unit.
    pub start: Micros,
    /// Nanoseconds between two arrivals.
    pub step_nanos: u64,
    /// The longest time from a unit's arrival to its conversion, and from an event to its repetition, in
    /// microseconds.
    pub delay_micros_max: u64,
}

/// The reason why a plan cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "experiment `{0}` is external: its assignment is made elsewhere, there is nothing to simulate it by"
    )]
    External(Key),
    #[error(
        "experiment `{0}` is a switchback: its units are clusters that come again in every window, and a simulated unit comes \
         once"
    )]
    Switchback(Key),
    #[error("experiment `{key}` is {}, not running: nobody would be exposed", state.as_str())]
    NotRunning { key: Key, state: State },
    /// Its schedule has no instant in common with the time over which the units arrive.
    #[error(
        "experiment `{key}` takes units {}, and those of the simulation arrive from {from} to {to}: nobody would be \
         exposed; choose another `--start`, or another schedule",
        when(schedule)
    )]
    OutsideSchedule { key: Key, schedule: Schedule, from: Micros, to: Micros },
    #[error("experiment `{0}` is not enabled in production: nobody would be exposed")]
    NotEnabled(Key),
    #[error("variant `{0}` has no rate; give one for each variant")]
    NoRate(Key),
    #[error("`{variant}` is no variant of `{key}`; it has {}", known.join(", "))]
    NoVariant { variant: String, key: Key, known: Vec<String> },
    #[error("the rate {rate} of `{variant}` is not in [0, 1]")]
    Rate { variant: String, rate: f64 },
    #[error("the share of duplicates, {0}, is not in [0, 1]")]
    Duplicates(f64),
    #[error("the last event would happen after the year 2261; use fewer units or an earlier start")]
    TooLate,
}

fn when(schedule: &Schedule) -> String {
    let start = schedule.start.map(|start| format!("from {start}"));
    let end = schedule.end.map(|end| format!("until {end}"));
    start.into_iter().chain(end).collect::<Vec<String>>().join(" ")
}
