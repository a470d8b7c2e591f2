//! The share of units that something serves, which may change with time.

use schemas::definition::{RampStep, Schedule, Switchback};
use schemas::{BUCKETS, BasisPoints, Micros};

/// A share by time: buckets below it are inside.
#[derive(Clone, Debug)]
pub(crate) enum Rollout {
    Constant(u32),
    /// Each step holds from its time on; nobody is inside before the first.
    Ramp(Box<[(Micros, u32)]>),
}

impl Rollout {
    pub(crate) fn of(constant: BasisPoints, ramp: &[RampStep]) -> Rollout {
        if ramp.is_empty() {
            return Rollout::Constant(constant.buckets());
        }
        Rollout::Ramp(ramp.iter().map(|step| (step.from, step.rollout.buckets())).collect())
    }

    pub(crate) fn at(&self, now: Micros) -> u32 {
        match self {
            Rollout::Constant(share) => *share,
            Rollout::Ramp(steps) => {
                let over = steps.partition_point(|(from, _)| *from <= now);
                over.checked_sub(1).map_or(0, |last| steps[last].1)
            }
        }
    }

    /// Returns whether every unit is inside at every time.
    pub(crate) fn is_everybody(&self) -> bool {
        matches!(self, Rollout::Constant(BUCKETS))
    }

    /// The instants at which the share changes.
    pub(crate) fn instants(&self) -> impl Iterator<Item = Micros> {
        let steps: &[(Micros, u32)] = match self {
            Rollout::Constant(_) => &[],
            Rollout::Ramp(steps) => steps,
        };
        steps.iter().map(|(from, _)| *from)
    }
}

/// When something holds: from the start on, and before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: Option<Micros>,
    pub(crate) end: Option<Micros>,
}

impl Window {
    pub(crate) fn of(schedule: Option<&Schedule>) -> Window {
        Window {
            start: schedule.and_then(|schedule| schedule.start),
            end: schedule.and_then(|schedule| schedule.end),
        }
    }

    pub(crate) fn is_before(self, now: Micros) -> bool {
        self.start.is_some_and(|start| now < start)
    }

    pub(crate) fn is_over(self, now: Micros) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    pub(crate) fn has(self, now: Micros) -> bool {
        !self.is_before(now) && !self.is_over(now)
    }

    /// The instants at which it begins and ends.
    pub(crate) fn instants(self) -> impl Iterator<Item = Micros> {
        [self.start, self.end].into_iter().flatten()
    }
}

/// The instants at which the answers of switchbacks change: the starts of their windows, while they are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switches {
    switchback: Switchback,
    open: Window,
}

impl Switches {
    pub(crate) fn of(switchback: Switchback, schedule: Option<&Schedule>) -> Switches {
        // The burn-in changes no answer: without it, switchbacks of one window are alike.
        Switches { switchback: Switchback { burn_in_seconds: 0, ..switchback }, open: Window::of(schedule) }
    }

    /// The last of them that is over at `now`.
    pub(crate) fn last(self, now: Micros) -> Option<Micros> {
        let while_open = match self.open.end {
            Some(end) if self.open.is_over(now) => Micros::new(end.get() - 1).ok()?,
            _ => now,
        };
        let last = self.switchback.window_start(while_open);
        (!self.open.is_before(last)).then_some(last)
    }

    /// The first of them after `now`; none before the schedule's start, which is an instant of its own.
    pub(crate) fn next(self, now: Micros) -> Option<Micros> {
        let next = self.switchback.next_window_start(now)?;
        self.open.has(now).then_some(next).filter(|next| !self.open.is_over(*next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_holds_from_each_step_on() {
        let at = |micros| Micros::new(micros).unwrap();
        let step = |from, share| RampStep { from: at(from), rollout: BasisPoints::new(share).unwrap() };
        let ramp = Rollout::of(BasisPoints::ALL, &[step(10, 100), step(20, 5_000), step(30, 0)]);
        for (now, share) in [(0, 0), (9, 0), (10, 10_000), (19, 10_000), (20, 500_000), (30, 0), (99, 0)] {
            assert_eq!(ramp.at(at(now)), share, "{now}");
        }
        assert!(!ramp.is_everybody());
        assert!(Rollout::of(BasisPoints::ALL, &[]).is_everybody());
    }

    #[test]
    fn a_switchback_changes_at_the_starts_of_its_windows_while_it_is_open() {
        let seconds = |seconds: i64| Micros::new(seconds * 1_000_000).unwrap();
        let before = |seconds: i64| Micros::new(seconds * 1_000_000 - 1).unwrap();
        let switchback = Switchback { window_seconds: 60, burn_in_seconds: 30 };
        let both = |switches: Switches, now| (switches.last(now), switches.next(now));
        let always = Switches::of(switchback, None);
        assert_eq!(both(always, seconds(0)), (Some(seconds(0)), Some(seconds(60))));
        assert_eq!(both(always, before(60)), (Some(seconds(0)), Some(seconds(60))));
        assert_eq!(both(always, seconds(60)), (Some(seconds(60)), Some(seconds(120))));
        assert_eq!(both(always, Micros::MAX).1, None);
        let schedule = Schedule { start: Some(seconds(90)), end: Some(seconds(240)) };
        let open = Switches::of(switchback, Some(&schedule));
        assert_eq!(both(open, before(90)), (None, None));
        assert_eq!(both(open, seconds(90)), (None, Some(seconds(120))));
        assert_eq!(both(open, seconds(120)), (Some(seconds(120)), Some(seconds(180))));
        // The end is an instant of the schedule, and no window begins at it.
        assert_eq!(both(open, before(240)), (Some(seconds(180)), None));
        assert_eq!(both(open, seconds(999)), (Some(seconds(180)), None));
    }
}
