//! From the three buckets of a unit to its variant: the part of an evaluation that follows from unit, time and definition alone, so
//! that anybody can compute it again from an exposure.

use schemas::definition::Experiment;
use schemas::{Buckets, Micros};

use crate::Environment;
use crate::evaluation::NotExposed;
use crate::owners::Owners;
use crate::rollout::Window;

/// An experiment's allocation in one environment.
#[derive(Clone, Debug)]
pub struct Placement {
    enabled: bool,
    window: Window,
    /// The experiment's slots of its layer; `None` without a layer.
    slots: Option<Owners>,
    /// Buckets below it take part.
    rollout: u32,
    /// The variants, by their indexes.
    variants: Owners,
}

impl Placement {
    pub fn of(experiment: &Experiment, environment: Environment<'_>) -> Placement {
        let there = experiment.in_environment(environment.0);
        let ranges = experiment
            .variants
            .iter()
            .enumerate()
            .flat_map(|(index, variant)| variant.ranges.iter().map(move |range| (*range, index)));
        Placement {
            enabled: there.enabled,
            window: Window::of(experiment.plan.schedule.as_ref()),
            // Everybody is on one side of a holdout.
            slots: (experiment.layer.is_some() && !experiment.holdout)
                .then(|| Owners::of(experiment.slot_ranges.iter().map(|range| (*range, 0)))),
            rollout: there.rollout.buckets(),
            variants: Owners::of(ranges),
        }
    }

    /// Returns whether the experiment is enabled in the environment.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Returns whether the experiment takes units at `now`, whoever they are.
    pub(crate) fn is_open(&self, now: Micros) -> Result<(), NotExposed> {
        if !self.enabled {
            return Err(NotExposed::Disabled);
        }
        if self.window.is_before(now) {
            return Err(NotExposed::BeforeStart);
        }
        if self.window.is_over(now) {
            return Err(NotExposed::AfterEnd);
        }
        Ok(())
    }

    /// Returns the index of the variant that a unit with these buckets sees at `now`.
    pub fn variant(&self, buckets: Buckets, now: Micros) -> Result<usize, NotExposed> {
        self.is_open(now)?;
        self.owner(buckets)
    }

    /// The same at a time at which the experiment takes units.
    #[inline(always)]
    pub(crate) fn owner(&self, buckets: Buckets) -> Result<usize, NotExposed> {
        if let Some(slots) = &self.slots
            && slots.owner(buckets.slot).is_none()
        {
            return Err(NotExposed::OutsideSlots);
        }
        if buckets.rollout >= self.rollout {
            return Err(NotExposed::OutsideRollout);
        }
        self.variants.owner(buckets.variant).ok_or(NotExposed::BucketUnowned)
    }

    /// The instants at which an answer changes by time alone.
    pub(crate) fn instants(&self) -> impl Iterator<Item = Micros> {
        self.window.instants()
    }
}
