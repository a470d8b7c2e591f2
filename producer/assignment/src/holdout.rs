//! Holdouts: a unit's slot, of a layer or of the whole, decides whether it takes part in the experiments that the holdout
//! covers.

use schemas::definition::{Definitions, Experiment, HoldoutSpan, Version};
use schemas::{Bucket, BucketRange};

use crate::Environment;
use crate::hash::{Salts, Seed};

/// The slots of the units that a holdout holds out.
#[derive(Clone, Debug)]
pub(crate) struct HeldSlots {
    seed: Seed,
    held: Box<[BucketRange]>,
}

impl HeldSlots {
    pub(crate) fn of(definitions: &Definitions, holdout: &Experiment) -> HeldSlots {
        let control = holdout.variants.iter().find(|variant| variant.key == holdout.control);
        HeldSlots {
            seed: Seed::of(&Salts::of(definitions, holdout).slot),
            held: control.map_or(&[][..], |control| &control.ranges).into(),
        }
    }

    /// Returns the unit's slot, and whether it is held out.
    pub(crate) fn side(&self, unit_id: &str) -> (Bucket, bool) {
        let slot = Bucket::of_hash(self.seed.hash(unit_id));
        (slot, self.held.iter().any(|range| range.contains(slot)))
    }
}

/// Every holdout that has covered an experiment in one environment, each with the versions of the configuration in which
/// it ran, so that it can be told of an old exposure whether its unit was held out.
#[derive(Clone, Debug)]
pub struct HoldoutsOver(Box<[(HoldoutSpan, HeldSlots)]>);

impl HoldoutsOver {
    pub fn of(
        definitions: &Definitions,
        experiment: &Experiment,
        environment: Environment<'_>,
    ) -> HoldoutsOver {
        let spans = definitions.holdouts_over(experiment);
        let there = spans.filter(|span| span.holdout().in_environment(environment.0).enabled);
        HoldoutsOver(there.map(|span| (span.clone(), HeldSlots::of(definitions, span.holdout()))).collect())
    }

    /// Returns whether the unit was held out in this version of the whole configuration.
    pub fn hold_out(&self, unit_id: &str, configuration_version: Version) -> bool {
        let ran = self.0.iter().filter(|(span, _)| span.ran_in(configuration_version));
        ran.into_iter().any(|(_, slots)| slots.side(unit_id).1)
    }
}
