//! Whether an exposure is what its definition says. The buckets are computed again from the unit and the salts (of a
//! switchback, whose unit is a cluster in a window, the window must be that of the exposure's time),
//! the variant from the buckets and the allocation of the exposure's environment, and the unit must not have been held
//! out. If no bucket of the experiment decided, only the variant's name is checked. The result is a column of the row,
//! never a reason to drop the row.

use std::collections::BTreeSet;
use std::sync::Arc;

use assignment::{Environment, HoldoutsOver, Placement, Salts, Seeds};
use schemas::definition::{Accepted, Assignment, Definition, Definitions, Experiment};
use schemas::{Buckets, Exposure, Key, Reason, SwitchbackUnit};

/// The `verification` column. The numbers are those of its Enum8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verification {
    /// The log holds no such version of this experiment.
    Unknown = 0,
    Verified = 1,
    Mismatched = 2,
    /// No bucket of the experiment decided: another system assigns, the variant was forced, or another system held the
    /// unit out. The column `reason` tells them apart.
    External = 3,
}

impl Verification {
    pub const ALL: [Verification; 4] =
        [Verification::Unknown, Verification::Verified, Verification::Mismatched, Verification::External];

    pub fn as_str(self) -> &'static str {
        match self {
            Verification::Unknown => "unknown",
            Verification::Verified => "verified",
            Verification::Mismatched => "mismatched",
            Verification::External => "external",
        }
    }
}

/// Who takes part in an experiment in one environment, and sees what.
struct There {
    placement: Placement,
    holdouts: HoldoutsOver,
}

/// The same in each environment that the experiment or a holdout over it names, and in all others.
pub struct Placements {
    named: Box<[(Key, There)]>,
    elsewhere: There,
}

impl Placements {
    fn of(definitions: &Definitions, experiment: &Experiment) -> Placements {
        let there = |environment: &str| There {
            placement: Placement::of(experiment, Environment(environment)),
            holdouts: HoldoutsOver::of(definitions, experiment, Environment(environment)),
        };
        let of_holdouts = definitions.holdouts_over(experiment);
        let of_holdouts = of_holdouts.flat_map(|span| span.holdout().environments.keys());
        let named: BTreeSet<&Key> = experiment.environments.keys().chain(of_holdouts).collect();
        let named = named.into_iter().map(|environment| (environment.clone(), there(environment.as_str())));
        // No key is empty, so no environment that is named.
        Placements { named: named.collect(), elsewhere: there("") }
    }

    fn get(&self, environment: &str) -> &There {
        let named = self.named.iter().find(|(key, _)| key.as_str() == environment);
        named.map_or(&self.elsewhere, |(_, there)| there)
    }
}

/// The definition version that exposures name, with its salts hashed and its allocations compiled.
pub enum NamedVersion {
    Experiment {
        accepted: Arc<Accepted>,
        seeds: Seeds,
        placements: Placements,
        /// The configuration of which the holdouts were taken.
        configuration_version: u64,
    },
    /// A version of something else than an experiment.
    Other,
}

impl NamedVersion {
    /// `None` if the log does not hold that version, or not yet.
    pub fn of(definitions: &Definitions, version: u64) -> Option<NamedVersion> {
        let accepted = definitions.at_version(version)?;
        Some(match &accepted.definition {
            Definition::Experiment(experiment) => NamedVersion::Experiment {
                accepted: accepted.clone(),
                seeds: Salts::of(definitions, experiment).seeds(),
                placements: Placements::of(definitions, experiment),
                configuration_version: definitions.version(),
            },
            _ => NamedVersion::Other,
        })
    }

    /// Returns whether a holdout may have begun or ended since this was looked up, up to this configuration.
    pub fn is_older_than(&self, configuration: u64) -> bool {
        matches!(self, NamedVersion::Experiment { configuration_version, .. } if *configuration_version < configuration)
    }

    /// Compares `exposure` with the version that it names, and with the holdouts of the configuration that it names.
    /// For a forced exposure nothing is hashed; where we assign, the experiment must allow some list its variant. For one that another system held out, the buckets that it carries are
    /// hashed again. The experiment's state and targeting are not evaluated again, since
    /// the exposure need not carry every attribute that the rule saw.
    pub fn verify(&self, exposure: &Exposure<'_>) -> Verification {
        let NamedVersion::Experiment { accepted, seeds, placements, configuration_version } = self else {
            return Verification::Unknown;
        };
        let Definition::Experiment(experiment) = &accepted.definition else {
            return Verification::Unknown;
        };
        if experiment.key.as_str() != exposure.experiment {
            return Verification::Unknown;
        }
        if experiment.unit_type.as_str() != exposure.unit_type {
            return Verification::Mismatched;
        }
        let Some(unit) = Unit::of(experiment, exposure) else { return Verification::Mismatched };
        let hashed = || unit.buckets(seeds);
        match (experiment.assignment, exposure.reason) {
            (Assignment::External, _) => undecided(experiment, exposure, exposure.buckets.is_none()),
            // Whether the unit is a member of the list is not known here: the members are in a topic of their own.
            (Assignment::Hashed, Reason::Forced) => {
                let is_allowed =
                    experiment.allow.iter().any(|allowed| allowed.variant.as_str() == exposure.variant);
                undecided(experiment, exposure, exposure.buckets.is_none() && is_allowed)
            }
            (Assignment::Hashed, Reason::HeldOut) => {
                undecided(experiment, exposure, exposure.buckets.is_none_or(|carried| carried == hashed()))
            }
            (Assignment::Hashed, Reason::Split) => {
                let buckets = hashed();
                let There { placement, holdouts } = placements.get(&exposure.environment);
                let placed = placement
                    .variant(buckets, exposure.created_at)
                    .is_ok_and(|index| experiment.variants[index].key.as_str() == exposure.variant);
                let takes_part = !holdouts.hold_out(unit.id(), exposure.configuration_version);
                if !takes_part && *configuration_version < exposure.configuration_version {
                    // The holdout may have ended in between.
                    return Verification::Unknown;
                }
                if placed && takes_part && exposure.buckets == Some(buckets) {
                    Verification::Verified
                } else {
                    Verification::Mismatched
                }
            }
        }
    }
}

/// What is hashed.
enum Unit<'a> {
    Whole(&'a str),
    Switchback(SwitchbackUnit<'a>),
}

impl<'a> Unit<'a> {
    /// `None` if the experiment is a switchback, and the exposure's unit is not a cluster in the window of its time.
    fn of(experiment: &Experiment, exposure: &'a Exposure<'_>) -> Option<Unit<'a>> {
        let Some(switchback) = experiment.switchback else { return Some(Unit::Whole(&exposure.unit_id)) };
        let unit = SwitchbackUnit::parse(&exposure.unit_id)?;
        let is_its_window = unit.window_start_s() == switchback.window_start_s(exposure.created_at);
        is_its_window.then_some(Unit::Switchback(unit))
    }

    /// The id that holdouts are asked of.
    fn id(&self) -> &'a str {
        match self {
            Unit::Whole(id) => id,
            Unit::Switchback(unit) => unit.cluster(),
        }
    }

    fn buckets(&self, seeds: &Seeds) -> Buckets {
        match self {
            Unit::Whole(id) => seeds.buckets(id),
            Unit::Switchback(unit) => seeds.switchback_buckets(*unit),
        }
    }
}

/// The result when no bucket decided.
fn undecided(experiment: &Experiment, exposure: &Exposure<'_>, is_sound: bool) -> Verification {
    let known = experiment.variants.iter().any(|variant| variant.key.as_str() == exposure.variant);
    if known && is_sound { Verification::External } else { Verification::Mismatched }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::definition::Kind;
    use schemas::{Buckets, Micros, Uuid};

    fn variant_in<'a>(experiment: &'a Experiment, environment: &str, buckets: Buckets) -> &'a str {
        let index =
            Placement::of(experiment, Environment(environment)).variant(buckets, Micros::EPOCH).unwrap();
        experiment.variants[index].key.as_str()
    }

    fn definitions() -> Definitions {
        let mut definitions = Definitions::default();
        let metric = serde_json::json!({"key": "buy", "event": "buy", "type": "conversion"});
        let experiment = |key: &str, assignment: &str| {
            serde_json::json!({
                "key": key, "state": "running", "assignment": assignment, "control": "a",
                "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
                "metrics": {"primary": "buy"},
            })
        };
        for (kind, json) in [
            (Kind::Metric, metric),
            (Kind::Experiment, experiment("hashed", "hashed")),
            (Kind::Experiment, experiment("elsewhere", "external")),
        ] {
            accept_as(&mut definitions, kind, json);
        }
        definitions
    }

    fn accept(definitions: &mut Definitions, experiment: serde_json::Value) -> u64 {
        accept_as(definitions, Kind::Experiment, experiment)
    }

    fn accept_as(definitions: &mut Definitions, kind: Kind, json: serde_json::Value) -> u64 {
        let definition = Definition::from_json(kind, json).unwrap();
        let definition = assignment::resolve(definitions, Micros::EPOCH, definition).unwrap();
        let change = definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
        definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).unwrap().unwrap().version
    }

    /// The allocation of the environment that the exposure names counts, not another's.
    #[test]
    fn an_exposure_is_verified_by_what_holds_in_its_environment() {
        let mut definitions = definitions();
        let split = serde_json::json!({
            "key": "split", "state": "running", "control": "a", "rollout": 0,
            "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            "metrics": {"primary": "buy"},
            "environments": {"staging": {"rollout": 10000}, "canary": {"enabled": false, "rollout": 10000}},
        });
        let version = accept(&mut definitions, split);
        let (_, experiment) = definitions.experiment("split").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let variant = variant_in(experiment, "staging", buckets);
        let named = NamedVersion::of(&definitions, version).unwrap();
        for (environment, expected) in [
            ("staging", Verification::Verified),
            ("production", Verification::Mismatched),
            ("canary", Verification::Mismatched),
        ] {
            let mut exposure = exposure("split", version, variant, Some(buckets));
            exposure.environment = environment.into();
            assert_eq!(named.verify(&exposure), expected, "{environment}");
        }
    }

    /// The holdouts of the configuration that the exposure names count, not those that run when it is verified.
    #[test]
    fn an_exposure_of_a_unit_that_was_held_out_is_mismatched() {
        let halves = |fields: serde_json::Value| {
            let mut experiment = serde_json::json!({
                "state": "running", "control": "a", "metrics": {"primary": "buy"},
                "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            });
            experiment.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            experiment
        };
        let holdout = |fields: serde_json::Value| {
            let mut holdout = serde_json::json!({
                "key": "quarter", "holdout": true, "environments": {"staging": {"enabled": false}},
            });
            holdout.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            halves(holdout)
        };
        let mut definitions = definitions();
        let before = accept(&mut definitions, halves(serde_json::json!({"key": "before"})));
        let began = accept(&mut definitions, holdout(serde_json::json!({})));
        let after = accept(&mut definitions, halves(serde_json::json!({"key": "after"})));
        let ended = accept(&mut definitions, holdout(serde_json::json!({"state": "stopped"})));
        let (_, quarter) = definitions.experiment("quarter").unwrap();
        let side = |unit: &str| {
            let buckets = Salts::of(&definitions, quarter).buckets(unit);
            (variant_in(quarter, "production", buckets), buckets)
        };
        // One unit on each side.
        let unit_on = |of: &str| {
            let units = (0..).map(|number| format!("user-{number}"));
            units.into_iter().find(|unit| side(unit).0 == of).unwrap()
        };
        let (held, other) = (unit_on("a"), unit_on("b"));
        let exposed = |key: &str, version: u64, unit: &str, configuration: u64, environment: &str| {
            let (_, experiment) = definitions.experiment(key).unwrap();
            let buckets = Salts::of(&definitions, experiment).buckets(unit);
            let mut exposure =
                exposure(key, version, variant_in(experiment, "production", buckets), Some(buckets));
            exposure.unit_id = unit.to_owned().into();
            exposure.configuration_version = configuration;
            exposure.environment = environment.to_owned().into();
            NamedVersion::of(&definitions, version).unwrap().verify(&exposure)
        };
        for (key, version, unit, configuration, environment, expected) in [
            ("before", before, &held, after, "production", Verification::Verified),
            ("after", after, &held, after, "production", Verification::Mismatched),
            ("after", after, &other, after, "production", Verification::Verified),
            ("after", after, &held, after, "staging", Verification::Verified),
            ("after", after, &held, ended, "production", Verification::Verified),
            // A configuration that the log has not reached yet: the holdout may have ended.
            ("after", after, &held, ended + 1, "production", Verification::Verified),
        ] {
            let found = exposed(key, version, unit, configuration, environment);
            assert_eq!(found, expected, "{key} {unit} {configuration} {environment}");
        }
        for (unit, reason, expected) in [
            (&held, Reason::Split, Verification::Verified),
            (&other, Reason::Split, Verification::Verified),
            // What another system says of a unit is not verified.
            (&held, Reason::HeldOut, Verification::External),
        ] {
            let (variant, buckets) = side(unit);
            let exposure = Exposure {
                reason,
                unit_id: unit.to_owned().into(),
                ..exposure("quarter", began, variant, Some(buckets))
            };
            let found = NamedVersion::of(&definitions, began).unwrap().verify(&exposure);
            assert_eq!(found, expected, "{unit} {reason:?}");
        }
    }

    /// The vectors have the bucket of this cluster in this window, 84222, which is of the first half.
    #[test]
    fn an_exposure_to_a_switchback_is_verified_by_the_window_of_its_time() {
        let mut definitions = definitions();
        let list = serde_json::json!({
            "key": "testers", "unit_type": "region", "members_sha256": "0".repeat(64), "members": 1,
        });
        accept_as(&mut definitions, Kind::List, list);
        let surge = serde_json::json!({
            "key": "surge", "state": "running", "control": "a", "unit_type": "region",
            "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            "metrics": {"primary": "buy"}, "switchback": {"window_seconds": 3600},
            "allow": [{"list": "testers", "variant": "b"}],
        });
        let version = accept(&mut definitions, surge);
        let (_, experiment) = definitions.experiment("surge").unwrap();
        let of_cluster = Salts::of(&definitions, experiment).buckets("eu");
        let buckets = Buckets { variant: 84_222, ..of_cluster };
        let named = NamedVersion::of(&definitions, version).unwrap();
        let (first, last) = ("2026-01-01T00:00:00Z", "2026-01-01T00:59:59.999999Z");
        let (this, next) = ("eu\x001767225600", "eu\x001767229200");
        use Verification::{External, Mismatched, Verified};
        for (unit_id, created_at, reason, variant, buckets, expected) in [
            (this, first, Reason::Split, "a", Some(buckets), Verified),
            (this, last, Reason::Split, "a", Some(buckets), Verified),
            (this, "2025-12-31T23:59:59.999999Z", Reason::Split, "a", Some(buckets), Mismatched),
            (this, "2026-01-01T01:00:00Z", Reason::Split, "a", Some(buckets), Mismatched),
            (next, first, Reason::Split, "a", Some(buckets), Mismatched),
            (this, first, Reason::Split, "b", Some(buckets), Mismatched),
            (this, first, Reason::Split, "a", Some(of_cluster), Mismatched),
            ("eu", first, Reason::Split, "a", Some(buckets), Mismatched),
            ("eu\0noon", first, Reason::Split, "a", Some(buckets), Mismatched),
            (this, first, Reason::Forced, "b", None, External),
            (next, first, Reason::Forced, "b", None, Mismatched),
        ] {
            let mut exposure = Exposure { reason, ..exposure("surge", version, variant, buckets) };
            (exposure.unit_type, exposure.unit_id) = ("region".into(), unit_id.into());
            exposure.created_at = Micros::parse(created_at).unwrap();
            assert_eq!(named.verify(&exposure), expected, "{exposure:?}");
        }
    }

    /// The time of the exposure counts, not the time at which it is verified.
    #[test]
    fn an_exposure_is_verified_by_the_schedule_at_its_time() {
        let mut definitions = definitions();
        let timed = serde_json::json!({
            "key": "timed", "state": "running", "control": "a",
            "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            "metrics": {"primary": "buy"},
            "plan": {"schedule": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}},
        });
        let version = accept(&mut definitions, timed);
        let (_, experiment) = definitions.experiment("timed").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let start = Micros::parse("2026-01-01T00:00:00Z").unwrap();
        let index = Placement::of(experiment, Environment::PRODUCTION).variant(buckets, start).unwrap();
        let variant = experiment.variants[index].key.as_str();
        let named = NamedVersion::of(&definitions, version).unwrap();
        for (created_at, expected) in [
            ("2025-12-31T23:59:59.999999Z", Verification::Mismatched),
            ("2026-01-01T00:00:00Z", Verification::Verified),
            ("2026-01-01T23:59:59.999999Z", Verification::Verified),
            ("2026-01-02T00:00:00Z", Verification::Mismatched),
        ] {
            let mut exposure = exposure("timed", version, variant, Some(buckets));
            exposure.created_at = Micros::parse(created_at).unwrap();
            assert_eq!(named.verify(&exposure), expected, "{created_at}");
        }
    }

    fn exposure(
        experiment: &str,
        version: u64,
        variant: &str,
        buckets: Option<Buckets>,
    ) -> Exposure<'static> {
        let json = serde_json::json!({
            "event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": experiment, "variant": variant,
            "unit_type": "user", "unit_id": "user-1", "definition_version": version, "buckets": buckets,
            "created_at": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json).unwrap()
    }

    /// Whatever the split would give the unit.
    #[test]
    fn a_forced_exposure_has_no_buckets_and_a_known_variant_and_one_held_out_may_carry_buckets() {
        let mut definitions = definitions();
        let list = serde_json::json!({"key": "testers", "members_sha256": "0".repeat(64), "members": 1});
        accept_as(&mut definitions, Kind::List, list);
        let allowing = serde_json::json!({
            "key": "hashed", "state": "running", "control": "a", "metrics": {"primary": "buy"},
            "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            "allow": [{"list": "testers", "variant": "a"}],
        });
        let version = accept(&mut definitions, allowing);
        let (_, experiment) = definitions.experiment("hashed").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let moved = Buckets { slot: buckets.slot ^ 1, ..buckets };
        for (reason, variant, buckets, expected) in [
            (Reason::Forced, "a", None, Verification::External),
            // No list is allowed to see it.
            (Reason::Forced, "b", None, Verification::Mismatched),
            (Reason::Forced, "c", None, Verification::Mismatched),
            (Reason::Forced, "a", Some(buckets), Verification::Mismatched),
            (Reason::HeldOut, "a", None, Verification::External),
            (Reason::HeldOut, "a", Some(buckets), Verification::External),
            (Reason::HeldOut, "b", Some(buckets), Verification::External),
            (Reason::HeldOut, "a", Some(moved), Verification::Mismatched),
            (Reason::HeldOut, "c", None, Verification::Mismatched),
        ] {
            let exposure = Exposure { reason, ..exposure("hashed", version, variant, buckets) };
            let found = NamedVersion::of(&definitions, version).unwrap().verify(&exposure);
            assert_eq!(found, expected, "{exposure:?}");
        }
        // The version that the exposure names counts: this one allowed nobody. Where another system assigns, it may force.
        for (key, version, expected) in
            [("hashed", 2, Verification::Mismatched), ("elsewhere", 3, Verification::External)]
        {
            let exposure = Exposure { reason: Reason::Forced, ..exposure(key, version, "a", None) };
            assert_eq!(NamedVersion::of(&definitions, version).unwrap().verify(&exposure), expected, "{key}");
        }
    }

    #[test]
    fn each_mark_has_its_case() {
        let definitions = definitions();
        let (_, experiment) = definitions.experiment("hashed").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let variant = variant_in(experiment, "production", buckets);
        let other = if variant == "a" { "b" } else { "a" };
        let moved = Buckets { slot: buckets.slot ^ 1, ..buckets };
        for (exposure, expected) in [
            (exposure("hashed", 2, variant, Some(buckets)), Verification::Verified),
            (exposure("hashed", 2, other, Some(buckets)), Verification::Mismatched),
            (exposure("hashed", 2, variant, Some(moved)), Verification::Mismatched),
            (exposure("hashed", 2, variant, None), Verification::Mismatched),
            (exposure("hashed", 9, variant, Some(buckets)), Verification::Unknown),
            (exposure("hashed", 1, variant, Some(buckets)), Verification::Unknown),
            (exposure("hashed", 3, variant, Some(buckets)), Verification::Unknown),
            (exposure("elsewhere", 3, "b", None), Verification::External),
            (exposure("elsewhere", 3, "c", None), Verification::Mismatched),
            (exposure("elsewhere", 3, "b", Some(buckets)), Verification::Mismatched),
        ] {
            let named = NamedVersion::of(&definitions, exposure.definition_version);
            let found = named.map_or(Verification::Unknown, |named| named.verify(&exposure));
            assert_eq!(found, expected, "{exposure:?}");
        }
    }
}
