//! Spans of time in microseconds, the resolution of events.

/// Microseconds since 1970, or between two instants.
pub type Micros = i64;

pub const HOUR: Micros = 3_600_000_000;
pub const DAY: Micros = 24 * HOUR;
