//! The time of an event, which is its own and never this process's clock. The clock only refuses a time that cannot be right.

use std::time::Duration;

use schemas::{Micros, Uuid};
use serde_json::value::RawValue;

use super::Scope;

/// The longest number of a `ts` that an error repeats, in characters.
const NUMBER_CHARACTERS_MAX: usize = 40;

/// The beginning of the year 2000. An event before it has a time in another unit than it was read in (seconds, read as
/// milliseconds, are of January 1970), or one of a clock that was never set.
const EARLIEST_MICROS: i64 = 946_684_800_000_000;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Where an event is stored.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Exposures,
    Conversions,
    Aliases,
}

/// The times that an event may have.
pub(super) struct TimeBounds {
    now: Micros,
    ahead_max: Duration,
    /// The name of the table and the days for which it keeps an event; 0: for ever.
    table: &'static str,
    kept_days: u32,
}

impl TimeBounds {
    pub(super) fn of(table: Table, scope: Scope<'_>) -> TimeBounds {
        let Scope { configuration, now, ahead_max, .. } = scope;
        let kept = configuration.kept;
        let (table, kept_days) = match table {
            Table::Exposures => ("exposures", kept.exposures),
            Table::Conversions => ("conversions", kept.conversions),
            Table::Aliases => ("aliases", kept.aliases),
        };
        TimeBounds { now, ahead_max, table, kept_days }
    }

    /// Says what is wrong with a time, if anything is. Old events are good for as long as a table keeps them, because the
    /// consumer finds an event of any age that is stored. What was ingested on one day is dropped together.
    fn refusal(&self, at: Micros) -> Option<String> {
        let (at, now) = (at.get(), self.now.get());
        let ahead_max = i64::try_from(self.ahead_max.as_micros()).unwrap_or(i64::MAX);
        let dropped_from = at - at.rem_euclid(MICROS_PER_DAY) + i64::from(self.kept_days) * MICROS_PER_DAY;
        if at < EARLIEST_MICROS {
            return Some("is before the year 2000".to_owned());
        }
        if at - now > ahead_max {
            return Some(format!(
                "is {} ms ahead of this edge's clock, and {} ms are allowed (edge.event_ahead_ms): one of the two clocks is wrong",
                (at - now) / 1_000,
                ahead_max / 1_000
            ));
        }
        if self.kept_days > 0 && dropped_from <= now {
            return Some(format!(
                "is older than the {} days for which {} are kept: if the event was stored before, it would now count twice",
                self.kept_days, self.table
            ));
        }
        None
    }
}

/// The event's time: `ts`, as text or in milliseconds since 1970, or the time in the id.
pub(super) fn created_at(
    ts: Option<&RawValue>,
    event_id: Uuid,
    bounds: &TimeBounds,
) -> Result<Micros, String> {
    let ts = ts.map(RawValue::get).filter(|ts| *ts != "null");
    let (read, from) = match ts {
        None if event_id.get_version_num() != 7 => {
            return Err(
                "ts is missing, and event_id is no UUID of version 7, which would have the time".to_owned()
            );
        }
        None => {
            let millis = i64::try_from(event_id.as_u128() >> 80).expect("48 bits fit");
            (millis_since_1970(millis as f64), "the time in event_id".to_owned())
        }
        Some(ts) if ts.starts_with('"') => {
            let text: String = serde_json::from_str(ts).map_err(|error| format!("ts: {error}"))?;
            (Micros::parse(&text).map_err(|error| error.to_string()), "ts".to_owned())
        }
        Some(ts) => {
            let millis: f64 = ts.parse().map_err(|_| {
                "ts is neither a time such as 2026-01-31T12:00:00Z nor milliseconds since 1970".to_owned()
            })?;
            let shown: String = ts.chars().take(NUMBER_CHARACTERS_MAX).collect();
            (millis_since_1970(millis), format!("ts: {shown} is read as milliseconds since 1970"))
        }
    };
    let at = read.map_err(|why| format!("{from}: {why}"))?;
    match bounds.refusal(at) {
        None => Ok(at),
        Some(why) => Err(format!("{from}: {at} {why}")),
    }
}

/// Up to the year 2255 a double holds every microsecond.
fn millis_since_1970(millis: f64) -> Result<Micros, String> {
    Micros::new((millis * 1_000.0).round() as i64).map_err(|_| "that is outside 1970 to 2261".to_owned())
}
#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    /// The edge's clock shows the year 2026, and conversions are kept for as many days; 0: for ever.
    fn time_in(kept_days: u32, ts: Option<&str>, event_id: &str) -> Result<String, String> {
        let ts = ts.map(raw);
        let bounds = TimeBounds {
            now: Micros::parse("2026-03-01T12:00:00Z").unwrap(),
            ahead_max: Duration::from_secs(600),
            table: "conversions",
            kept_days,
        };
        created_at(ts.as_deref(), event_id.parse().unwrap(), &bounds).map(|time| time.to_string())
    }

    fn time(ts: Option<&str>, event_id: &str) -> Result<String, String> {
        time_in(0, ts, event_id)
    }

    const V7: &str = "019c1360-2c7b-7000-8000-000000000001";
    const V4: &str = "0191e3a0-0000-4000-8000-000000000001";

    #[test]
    fn the_time_is_the_events_own() {
        assert_eq!(time(Some("\"2026-01-31T12:00:00.5+01:00\""), V4).unwrap(), "2026-01-31T11:00:00.500000Z");
        assert_eq!(time(Some("1769860800123"), V4).unwrap(), "2026-01-31T12:00:00.123000Z");
        assert_eq!(time(Some("1769860800123.25"), V4).unwrap(), "2026-01-31T12:00:00.123250Z");
        let own = Uuid::from_u128((1_769_860_800_123_u128 << 80) | (7 << 76) | (2 << 62)).to_string();
        assert_eq!(time(None, &own).unwrap(), "2026-01-31T12:00:00.123000Z");
        assert_eq!(time(Some("null"), &own).unwrap(), "2026-01-31T12:00:00.123000Z");
        assert!(time(None, V7).is_ok());
        assert_eq!(
            time(None, V4).unwrap_err(),
            "ts is missing, and event_id is no UUID of version 7, which would have the time"
        );
        assert_eq!(
            time(Some("true"), V7).unwrap_err(),
            "ts is neither a time such as 2026-01-31T12:00:00Z nor milliseconds since 1970"
        );
        for wrong in ["\"yesterday\"", "-1", "1e300", "\"1969-12-31T23:59:59Z\""] {
            assert!(time(Some(wrong), V7).unwrap_err().starts_with("ts: "), "{wrong}");
        }
        assert!(
            time(None, "ffffffff-ffff-7000-8000-000000000001")
                .unwrap_err()
                .starts_with("the time in event_id: ")
        );
    }

    /// Seconds were taken for milliseconds, and any time in the future was accepted.
    #[test]
    fn a_time_in_another_unit_or_of_a_wrong_clock_is_refused() {
        let refused = |ts: &str| time(Some(ts), V4).unwrap_err();
        // Seconds, microseconds and nanoseconds.
        assert_eq!(
            refused("1769860800"),
            "ts: 1769860800 is read as milliseconds since 1970: 1970-01-21T11:37:40.800000Z is before the year 2000"
        );
        assert_eq!(
            refused("1769860800123000"),
            "ts: 1769860800123000 is read as milliseconds since 1970: that is outside 1970 to 2261"
        );
        assert_eq!(
            refused("1769860800123000000"),
            "ts: 1769860800123000000 is read as milliseconds since 1970: that is outside 1970 to 2261"
        );
        assert_eq!(
            refused("\"1999-12-31T23:59:59.999999Z\""),
            "ts: 1999-12-31T23:59:59.999999Z is before the year 2000"
        );
        assert_eq!(time(Some("\"2000-01-01T00:00:00Z\""), V4).unwrap(), "2000-01-01T00:00:00.000000Z");
        assert_eq!(
            time(None, "00000000-0000-7000-8000-000000000001").unwrap_err(),
            "the time in event_id: 1970-01-01T00:00:00.000000Z is before the year 2000"
        );
        // Ten minutes ahead are allowed.
        assert_eq!(time(Some("\"2026-03-01T12:10:00Z\""), V4).unwrap(), "2026-03-01T12:10:00.000000Z");
        assert_eq!(
            refused("\"2026-03-01T12:10:01Z\""),
            "ts: 2026-03-01T12:10:01.000000Z is 601000 ms ahead of this edge's clock, and 600000 ms are \
             allowed (edge.event_ahead_ms): one of the two clocks is wrong"
        );
    }

    /// Whatever was stored on a day is dropped when it is so many days old.
    #[test]
    fn an_old_event_is_good_for_as_long_as_a_first_sending_is_kept() {
        let kept = |ts: &str| time_in(30, Some(ts), V4);
        assert_eq!(kept("\"2026-01-31T00:00:00Z\"").unwrap(), "2026-01-31T00:00:00.000000Z");
        assert_eq!(
            kept("\"2026-01-30T23:59:59.999999Z\"").unwrap_err(),
            "ts: 2026-01-30T23:59:59.999999Z is older than the 30 days for which conversions are kept: if the event was \
             stored before, it would now count twice"
        );
    }
}
