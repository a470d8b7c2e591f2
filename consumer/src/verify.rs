//! Whether an exposure is what its definition says: the buckets computed again from the unit and the salts,
//! the variant from the buckets and what holds in the exposure's environment. The answer is a mark on the row, never a reason to drop it.

use std::sync::Arc;

use assignment::{Environment, Salts, Seeds, place};
use schemas::Exposure;
use schemas::definition::{Accepted, Assignment, Definition, Definitions};

/// The `verification` column; the numbers are those of its Enum8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verification {
    /// The version named is not one that the log holds for this experiment.
    Unknown = 0,
    Verified = 1,
    Mismatched = 2,
    /// Somebody else assigns; there is nothing to compute.
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

/// What a version of a definition says of the exposures that name it, with its salts hashed.
pub enum Named {
    Experiment {
        accepted: Arc<Accepted>,
        seeds: Seeds,
    },
    /// A version of something else.
    Other,
}

impl Named {
    /// `None` if the log does not hold that version, or not yet.
    pub fn of(definitions: &Definitions, version: u64) -> Option<Named> {
        let accepted = definitions.at_version(version)?;
        Some(match &accepted.definition {
            Definition::Experiment(experiment) => Named::Experiment {
                accepted: accepted.clone(),
                seeds: Salts::of(definitions, experiment).seeds(),
            },
            _ => Named::Other,
        })
    }

    /// Compares `exposure` with the version that it names. The state of the experiment and its targeting are
    /// not asked again: the attributes on an exposure need not be all that the rule saw.
    pub fn verify(&self, exposure: &Exposure<'_>) -> Verification {
        let Named::Experiment { accepted, seeds } = self else { return Verification::Unknown };
        let Definition::Experiment(experiment) = &accepted.definition else {
            return Verification::Unknown;
        };
        if experiment.key.as_str() != exposure.experiment {
            return Verification::Unknown;
        }
        if experiment.unit_type.as_str() != exposure.unit_type {
            return Verification::Mismatched;
        }
        if experiment.assignment == Assignment::External {
            let known = experiment.variants.iter().any(|variant| variant.key.as_str() == exposure.variant);
            return if known && exposure.buckets.is_none() {
                Verification::External
            } else {
                Verification::Mismatched
            };
        }
        let buckets = seeds.buckets(&exposure.unit_id);
        let environment = Environment(&exposure.environment);
        let placed = place(experiment, environment, buckets)
            .is_ok_and(|variant| variant.key.as_str() == exposure.variant);
        if placed && exposure.buckets == Some(buckets) {
            Verification::Verified
        } else {
            Verification::Mismatched
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::definition::{Change, Kind, RULE_VERSION};
    use schemas::{Buckets, Uuid};

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
            let definition = Definition::from_json(kind, json).unwrap();
            let definition = assignment::resolve(&definitions, definition).unwrap();
            let change = Change {
                change_id: Uuid::from_u128(1),
                rule_version: RULE_VERSION,
                kind: kind.to_string(),
                key: definition.key().to_string(),
                based_on: 0,
                definition: definition.to_json(),
                author: "a tester".to_owned(),
                reason: "a test".to_owned(),
            };
            definitions.apply(definitions.next_offset(), &change).unwrap().unwrap();
        }
        definitions
    }

    /// Of the environment that an exposure names, not of another.
    #[test]
    fn an_exposure_is_verified_by_what_holds_in_its_environment() {
        let mut definitions = definitions();
        let json = serde_json::json!({
            "key": "split", "state": "running", "control": "a", "rollout": 0,
            "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
            "metrics": {"primary": "buy"},
            "environments": {"staging": {"rollout": 10000}, "canary": {"enabled": false, "rollout": 10000}},
        });
        let definition = Definition::from_json(Kind::Experiment, json).unwrap();
        let definition = assignment::resolve(&definitions, definition).unwrap();
        let change = Change {
            change_id: Uuid::from_u128(1),
            rule_version: RULE_VERSION,
            kind: "experiment".to_owned(),
            key: "split".to_owned(),
            based_on: 0,
            definition: definition.to_json(),
            author: "a tester".to_owned(),
            reason: "a test".to_owned(),
        };
        let accepted = definitions.apply(definitions.next_offset(), &change).unwrap().unwrap();
        let (_, experiment) = definitions.experiment("split").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let variant = place(experiment, Environment("staging"), buckets).unwrap().key.as_str();
        let named = Named::of(&definitions, accepted.version).unwrap();
        for (environment, expected) in [
            ("staging", Verification::Verified),
            ("production", Verification::Mismatched),
            ("canary", Verification::Mismatched),
        ] {
            let mut exposure = exposure("split", accepted.version, variant, Some(buckets));
            exposure.environment = environment.into();
            assert_eq!(named.verify(&exposure), expected, "{environment}");
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

    #[test]
    fn each_mark_has_its_case() {
        let definitions = definitions();
        let (_, experiment) = definitions.experiment("hashed").unwrap();
        let buckets = Salts::of(&definitions, experiment).buckets("user-1");
        let variant = place(experiment, Environment::PRODUCTION, buckets).unwrap().key.as_str();
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
            let named = Named::of(&definitions, exposure.definition_version);
            let found = named.map_or(Verification::Unknown, |named| named.verify(&exposure));
            assert_eq!(found, expected, "{exposure:?}");
        }
    }
}
