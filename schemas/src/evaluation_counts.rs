//! What an edge says about the evaluations that it has counted, and the day by which they are counted. The counts are
//! absolute values of one process, so reading them twice, or by two readers, changes nothing. This module does not know
//! how they are counted or where they are kept.

use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::key::Key;
use crate::time::Micros;

const DAY_MICROS: i64 = 86_400_000_000;
const FIRST: Date = jiff::civil::date(1970, 1, 1);

/// A day in UTC, from 1970-01-01 to 2261-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(u32);

/// Why a text is not a [`Day`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a day such as 2026-01-31, from 1970 to 2261")]
pub struct NotADay {
    pub text: String,
}

/// The answer of an edge: its counts of today and of yesterday.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsReading {
    /// Made at the start of the process: another process counts from 0 again.
    pub instance: Uuid,
    pub environment: Key,
    /// The day by the clock of the edge.
    pub today: Day,
    /// Only what was counted at least once. By day, flag and variant, each once.
    pub counts: Vec<CountRow>,
}

/// How often one variant of a flag or an experiment was served on one day, by one process so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRow {
    pub day: Day,
    pub flag: Key,
    pub variant: Key,
    /// Evaluations of this key alone: somebody read it.
    pub single: u64,
    /// Evaluations together with all others, which nobody may have read. One that the client had already (304) evaluates
    /// nothing.
    pub bulk: u64,
    /// Reads of a value evaluated in bulk, as clients reported them and the edge accepted them.
    pub reported: u64,
}

impl Day {
    pub fn of(time: Micros) -> Day {
        Day(u32::try_from(time.get() / DAY_MICROS).expect("a time is between 1970 and 2261"))
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The day with this number; `None` after 2261.
    pub fn from_number(number: u32) -> Option<Day> {
        (number <= Day::of(Micros::MAX).0).then_some(Day(number))
    }
}

impl TryFrom<String> for Day {
    type Error = NotADay;

    fn try_from(text: String) -> Result<Day, NotADay> {
        let read = |text: &str| {
            // The library also reads other forms, of which one day would have several.
            let date: Date = text.parse().ok().filter(|date: &Date| date.to_string() == text)?;
            let days = FIRST.until(date).ok()?.get_days();
            Day::from_number(u32::try_from(days).ok()?)
        };
        read(&text).ok_or(NotADay { text })
    }
}

impl From<Day> for String {
    fn from(day: Day) -> String {
        day.to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midnight = Micros::new(i64::from(self.0) * DAY_MICROS).expect("a day is between 1970 and 2261");
        formatter.write_str(&midnight.to_string()[.."2026-01-31".len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Result<Day, NotADay> {
        Day::try_from(text.to_owned())
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        for (time, text, number) in [
            ("1970-01-01T00:00:00Z", "1970-01-01", 0),
            ("2026-02-28T23:59:59.999999Z", "2026-02-28", 20_512),
            ("2026-03-01T00:00:00Z", "2026-03-01", 20_513),
            ("2026-03-01T00:00:00+02:00", "2026-02-28", 20_512),
            ("2261-12-31T23:59:59.999999Z", "2261-12-31", 106_650),
        ] {
            let of = Day::of(Micros::parse(time).unwrap());
            assert_eq!((of.to_string().as_str(), of.number()), (text, number), "{time}");
            assert_eq!(day(text), Ok(of));
        }
        assert_eq!(Day::from_number(106_651), None);
    }

    #[test]
    fn another_text_is_no_day() {
        for text in
            ["", "2026-02-30", "1969-12-31", "2262-01-01", "20260131", "2026-01-31T00:00", "+002026-01-31"]
        {
            assert_eq!(day(text), Err(NotADay { text: text.to_owned() }));
        }
    }

    #[test]
    fn the_answer_has_this_form() {
        let text = r#"{"instance":"0191e3a0-0000-4000-8000-000000000001","environment":"production","today":"2026-03-01","counts":[{"day":"2026-02-28","flag":"checkout","variant":"on","single":3,"bulk":2,"reported":1}]}"#;
        let reading: CountsReading = serde_json::from_str(text).unwrap();
        assert_eq!(reading.counts[0].day, day("2026-02-28").unwrap());
        assert_eq!(serde_json::to_string(&reading).unwrap(), text);
    }
}
