//! What the benchmarks carry: full exposures of the contract, assigned as their definitions say.

use std::borrow::Cow;

use assignment::{Environment, Placement, Salts};
use schemas::definition::{Change, Definition, Definitions, Kind};
use schemas::{Exposure, Micros, Pairs, Reason, Sender, Uuid};

const EXPERIMENTS: [&str; 4] = ["checkout_button", "search_ranking", "onboarding", "price_page"];

/// What the log of definitions says.
pub struct Experiments {
    pub definitions: Definitions,
}

impl Experiments {
    /// With the records of the log.
    pub fn make() -> (Experiments, Vec<Change>) {
        let metric = serde_json::json!({"key": "buy", "event": "buy", "type": "conversion"});
        let mut all = vec![(Kind::Metric, metric)];
        for key in EXPERIMENTS {
            let experiment = serde_json::json!({
                "key": key, "state": "running", "assignment": "hashed", "control": "control",
                "variants": [{"key": "control", "weight": 5000}, {"key": "treatment", "weight": 5000}],
                "metrics": {"primary": "buy"},
            });
            all.push((Kind::Experiment, experiment));
        }
        let (mut definitions, mut changes) = (Definitions::default(), Vec::new());
        for (number, (kind, json)) in all.into_iter().enumerate() {
            let definition = Definition::from_json(kind, json).expect("is a definition");
            let definition =
                assignment::resolve(&definitions, Micros::EPOCH, definition).expect("fits the others");
            let change =
                definitions.change_to(&definition, Uuid::from_u128(number as u128 + 1), "bench", "bench");
            let applied =
                definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).expect("a known rule");
            applied.expect("is accepted");
            changes.push(change);
        }
        (Experiments { definitions }, changes)
    }

    /// All columns filled, as a service in production would.
    pub fn exposure(&self, number: usize, start_micros: i64) -> Exposure<'static> {
        let text = Cow::<'static, str>::Borrowed;
        let created_at = start_micros + number as i64;
        // A UUIDv7 of that time.
        let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = ((created_at / 1_000) as u128) << 80 | 0x7 << 76 | 0x2 << 62 | u128::from(scattered >> 2);
        let mut attributes = Pairs::default();
        let choose = |choices: [&'static str; 4]| choices[number / 7 % 4];
        attributes.insert("region", choose(["US", "DE", "BR", "IN"]));
        attributes.insert("plan", choose(["free", "pro", "team", "free"]));
        attributes.insert("device", choose(["mobile", "desktop", "mobile", "tablet"]));
        attributes.insert("browser", choose(["firefox", "chrome", "safari", "chrome"]));
        let key = choose(EXPERIMENTS);
        let unit_id = format!("user-{}", number % 700_001);
        let (version, experiment) = self.definitions.experiment(key).expect("was defined");
        let buckets = Salts::of(&self.definitions, experiment).buckets(&unit_id);
        let placement = Placement::of(experiment, Environment::PRODUCTION);
        let variant = placement.variant(buckets, Micros::EPOCH).expect("every bucket has a variant");
        let variant = if variant == 0 { "control" } else { "treatment" };
        Exposure {
            event_id: Uuid::from_u128(id),
            experiment: text(key),
            variant: text(variant),
            unit_type: text("user"),
            unit_id: Cow::Owned(unit_id),
            other_ids: Pairs::default(),
            phase: 1,
            definition_version: version,
            configuration_version: self.definitions.version(),
            buckets: Some(buckets),
            rule: text(""),
            reason: Reason::Split,
            attributes,
            environment: text("production"),
            sender: Sender {
                service: text("web"),
                instance: text("web-7f9c"),
                library_version: text("0.1.0"),
            },
            created_at: Micros::new(created_at).unwrap_or(Micros::MAX),
        }
    }
}
