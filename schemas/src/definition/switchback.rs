//! Switchbacks: experiments whose clusters, such as regions, change between the variants from one window of time to the
//! next. What a window's unit is called is said in [`crate::switchback`].

use serde::{Deserialize, Serialize};

use super::{Assignment, Experiment, Problem, is_zero};
use crate::time::Micros;

/// The shortest and the longest window, in seconds: a minute and a week.
pub const WINDOW_SECONDS_MIN: u32 = 60;
pub const WINDOW_SECONDS_MAX: u32 = 604_800;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// How a switchback's time is cut into windows. Windows begin at multiples of their length since 1970, so that all
/// clusters change at the same instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switchback {
    /// The length of a window, [`WINDOW_SECONDS_MIN`] to [`WINDOW_SECONDS_MAX`].
    pub window_seconds: u32,
    /// The beginning of each window in which conversions do not count, since the window before still has an effect: from
    /// 0 on, and below the window.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub burn_in_seconds: u32,
}

impl Switchback {
    /// The start of the window that `at` is in, in seconds since 1970.
    pub fn window_start_s(&self, at: Micros) -> u64 {
        let window = u64::from(self.window_seconds);
        at.get().unsigned_abs() / MICROS_PER_SECOND / window * window
    }

    /// The instant at which that window begins.
    pub fn window_start(&self, at: Micros) -> Micros {
        let micros = self.window_start_s(at) * MICROS_PER_SECOND;
        Micros::new(micros as i64).expect("a window begins between 1970 and a time in it")
    }

    /// The instant at which the next window begins; `None` if the years of [`Micros`] end before.
    pub fn next_window_start(&self, at: Micros) -> Option<Micros> {
        let micros = (self.window_start_s(at) + u64::from(self.window_seconds)) * MICROS_PER_SECOND;
        Micros::new(micros as i64).ok()
    }
}

pub(super) fn check_switchback(experiment: &Experiment, problems: &mut Vec<Problem>) {
    let Some(Switchback { window_seconds, burn_in_seconds }) = experiment.switchback else { return };
    if !(WINDOW_SECONDS_MIN..=WINDOW_SECONDS_MAX).contains(&window_seconds) {
        problems.push(Problem::new(
            "switchback.window_seconds",
            format!("{window_seconds} is not in {WINDOW_SECONDS_MIN} to {WINDOW_SECONDS_MAX}"),
        ));
    }
    if burn_in_seconds >= window_seconds {
        problems.push(Problem::new(
            "switchback.burn_in_seconds",
            format!("{burn_in_seconds} is not below the window of {window_seconds}, so nothing would count"),
        ));
    }
    if experiment.assignment == Assignment::External {
        problems.push(Problem::new(
            "switchback",
            "the windows of an external experiment are the other system's; leave it out, and send its windows as units",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_start_and_not_its_end() {
        let hourly = Switchback { window_seconds: 3_600, burn_in_seconds: 0 };
        let at = |text: &str| Micros::parse(text).unwrap();
        let start = 1_767_225_600;
        for (now, expected) in [
            ("2026-01-01T00:00:00Z", start),
            ("2026-01-01T00:59:59.999999Z", start),
            ("2026-01-01T01:00:00Z", start + 3_600),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(hourly.window_start_s(at(now)), expected, "{now}");
        }
        let now = at("2026-01-01T00:59:59.999999Z");
        assert_eq!(hourly.window_start(now), at("2026-01-01T00:00:00Z"));
        assert_eq!(hourly.next_window_start(now), Some(at("2026-01-01T01:00:00Z")));
        assert_eq!(hourly.next_window_start(Micros::MAX), None);
        // 7 days since 1970, a Thursday.
        let weekly = Switchback { window_seconds: WINDOW_SECONDS_MAX, burn_in_seconds: 0 };
        assert_eq!(weekly.window_start(now), at("2026-01-01T00:00:00Z"));
        assert_eq!(weekly.window_start(at("2025-12-31T23:59:59Z")), at("2025-12-25T00:00:00Z"));
    }
}
