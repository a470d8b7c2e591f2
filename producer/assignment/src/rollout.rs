//! The share of units that something serves, which may change with time.

use schemas::definition::{RampStep, Schedule};
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
#[derive(Clone, Copy, Debug, Default)]
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
}
