//! The rows of a unit as they are kept in memory: what counting needs of an event, and nothing else.

use crate::micros::Micros;
use crate::names::Name;

/// An event's UUID as a number, so that ids are compared byte by byte. ClickHouse compares the same way with
/// `UUIDToNum(event_id)`, and differently with `event_id` itself.
pub type EventId = u128;

/// How many attributes of an exposure are segments: region, plan, device, browser.
pub const SEGMENTS: usize = 4;

/// An exposure to an experiment that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposure {
    // The order of the fields is the order of exposures: those of an experiment are together, the first one in time leads,
    // and of two at the same time the one with the smaller id.
    pub experiment: Name,
    pub at: Micros,
    id_high: u64,
    id_low: u64,
    pub variant: Name,
    pub phase: u32,
    pub environment: Name,
    pub segments: [Name; SEGMENTS],
    /// When it came into the table, in milliseconds since 1970.
    pub ingested_ms: i64,
    pub forced: bool,
    /// Whether the consumer found that its buckets or its variant are not those of the definition that it names.
    pub mismatched: bool,
}

/// What an [`Exposure`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewExposure {
    pub experiment: Name,
    pub at: Micros,
    pub id: EventId,
    pub variant: Name,
    pub phase: u32,
    pub environment: Name,
    pub segments: [Name; SEGMENTS],
    pub ingested_ms: i64,
    pub forced: bool,
    pub mismatched: bool,
}

/// A conversion that some metric reads. One that passes several filters is there once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conversion {
    // As in [`Exposure`], the order of the fields is the order of conversions.
    pub series: Name,
    pub at: Micros,
    id_high: u64,
    id_low: u64,
    /// The event's value; 0 if it has none.
    pub millionths: i64,
    pub scope: Scope,
}

/// Where a conversion counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub environment: Name,
    /// The experiment that the event names: it counts there alone. None: in every experiment that exposed its unit.
    pub experiment: Option<Name>,
}

impl Exposure {
    pub fn new(new: NewExposure) -> Exposure {
        let NewExposure {
            experiment,
            at,
            id,
            variant,
            phase,
            environment,
            segments,
            ingested_ms,
            forced,
            mismatched,
        } = new;
        let (id_high, id_low) = halves(id);
        Exposure {
            experiment,
            at,
            id_high,
            id_low,
            variant,
            phase,
            environment,
            segments,
            ingested_ms,
            forced,
            mismatched,
        }
    }

    pub fn id(&self) -> EventId {
        whole(self.id_high, self.id_low)
    }
}

impl Conversion {
    pub fn new(series: Name, at: Micros, id: EventId, millionths: i64, scope: Scope) -> Conversion {
        let (id_high, id_low) = halves(id);
        Conversion { series, at, id_high, id_low, millionths, scope }
    }

    pub fn id(&self) -> EventId {
        whole(self.id_high, self.id_low)
    }
}

// A u128 would be aligned to 16 bytes, and a row would be a fifth larger.
fn halves(id: EventId) -> (u64, u64) {
    ((id >> 64) as u64, id as u64)
}

fn whole(high: u64, low: u64) -> EventId {
    EventId::from(high) << 64 | EventId::from(low)
}
