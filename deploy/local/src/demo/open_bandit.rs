//! Turns the Open Bandit data into events: each impression is an exposure of its own unit to the policy that
//! the shop chose, each click a conversion of that unit. Event ids are computed from the data, so that
//! replaying it twice adds nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The README in its directory describes the data, its source and its license.
const DATA: &[u8] = include_bytes!("../../open_bandit/open_bandit_small.csv.gz");

/// The definitions of the metric and the three experiments.
pub const DEFINITIONS: &str = include_str!("../../open_bandit/definitions.yaml");

/// The prefix of the key of each experiment.
pub const PREFIX: &str = "open_bandit_";

/// One impression: an item shown to a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Impression {
    impression_id: String,
    campaign: String,
    policy: String,
    timestamp: String,
    item_id: String,
    position: String,
    click: u8,
    user_feature_0: String,
    user_feature_1: String,
    user_feature_2: String,
    user_feature_3: String,
}

/// Reads all impressions, ordered by time.
pub fn impressions() -> Result<Vec<Impression>> {
    let mut impressions = Vec::new();
    for row in csv::Reader::from_reader(GzDecoder::new(DATA)).deserialize() {
        let impression: Impression =
            row.with_context(|| format!("impression {} of the Open Bandit data", impressions.len() + 1))?;
        ensure!(
            impression.click <= 1,
            "impression {} has {} clicks; the data has 0 or 1",
            impression.impression_id,
            impression.click
        );
        impressions.push(impression);
    }
    Ok(impressions)
}

impl Impression {
    /// The key of its experiment, such as "open_bandit_men".
    fn experiment(&self) -> String {
        format!("{PREFIX}{}", self.campaign)
    }

    /// The exposure, and the conversion if it was clicked, as lines for `splitstream replay`. The data
    /// contains the time of the impression but not of the click, so the click gets the same time.
    pub fn events(&self) -> Vec<Value> {
        let shown = json!({ "item_id": self.item_id, "position": self.position });
        let mut attributes = shown.clone();
        for (name, value) in [
            ("user_feature_0", &self.user_feature_0),
            ("user_feature_1", &self.user_feature_1),
            ("user_feature_2", &self.user_feature_2),
            ("user_feature_3", &self.user_feature_3),
        ] {
            attributes[name] = json!(value);
        }
        let mut events = vec![json!({
            "type": "exposure",
            "event_id": event_id("exposure", &self.impression_id),
            "experiment": self.experiment(),
            "variant": self.policy,
            "unit_type": "impression",
            "unit_id": self.impression_id,
            "attributes": attributes,
            "created_at": self.timestamp,
        })];
        if self.click == 1 {
            events.push(json!({
                "type": "conversion",
                "event_id": event_id("click", &self.impression_id),
                "name": "click",
                "unit_type": "impression",
                "unit_id": self.impression_id,
                "experiment": self.experiment(),
                "metadata": shown,
                "created_at": self.timestamp,
            }));
        }
        events
    }
}

/// Computes the event id from the impression and the kind: a UUID of version 8, since the hash is our own. It
/// must never change.
fn event_id(kind: &str, impression_id: &str) -> String {
    let digest = Sha256::digest(format!("open_bandit/{kind}/{impression_id}"));
    let (bytes, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid().to_string()
}

/// The counts of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arm {
    pub units: u64,
    pub conversions: u64,
}

/// Counts each experiment's variants in the data itself, without any part of the pipeline. Keys are
/// (experiment, variant).
pub fn count(impressions: &[Impression]) -> BTreeMap<(String, String), Arm> {
    let mut arms: BTreeMap<(String, String), Arm> = BTreeMap::new();
    for impression in impressions {
        let arm = arms.entry((impression.experiment(), impression.policy.clone())).or_default();
        arm.units += 1;
        arm.conversions += u64::from(impression.click);
    }
    arms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_those_of_the_readme() {
        let counted = count(&impressions().unwrap());
        let arm = |campaign: &str, policy: &str, conversions| {
            ((format!("open_bandit_{campaign}"), policy.to_owned()), Arm { units: 10_000, conversions })
        };
        let expected = BTreeMap::from([
            arm("all", "random", 38),
            arm("all", "bts", 42),
            arm("men", "random", 46),
            arm("men", "bts", 69),
            arm("women", "random", 46),
            arm("women", "bts", 46),
        ]);
        assert_eq!(counted, expected);
    }

    #[test]
    fn a_clicked_impression_is_an_exposure_and_a_conversion() {
        let impression = Impression {
            impression_id: "men-bts-00007".to_owned(),
            campaign: "men".to_owned(),
            policy: "bts".to_owned(),
            timestamp: "2019-11-24T00:03:01.000005Z".to_owned(),
            item_id: "14".to_owned(),
            position: "2".to_owned(),
            click: 1,
            user_feature_0: "a1".to_owned(),
            user_feature_1: "b2".to_owned(),
            user_feature_2: "c3".to_owned(),
            user_feature_3: "d4".to_owned(),
        };
        assert_eq!(
            impression.events(),
            [
                json!({
                    "type": "exposure",
                    "event_id": "cb6e1147-a594-8a4e-8c22-a6c1672d9b2c",
                    "experiment": "open_bandit_men",
                    "variant": "bts",
                    "unit_type": "impression",
                    "unit_id": "men-bts-00007",
                    "attributes": {
                        "item_id": "14", "position": "2", "user_feature_0": "a1", "user_feature_1": "b2",
                        "user_feature_2": "c3", "user_feature_3": "d4",
                    },
                    "created_at": "2019-11-24T00:03:01.000005Z",
                }),
                json!({
                    "type": "conversion",
                    "event_id": "bf91bb0f-602c-8fcf-b198-834db4483090",
                    "name": "click",
                    "unit_type": "impression",
                    "unit_id": "men-bts-00007",
                    "experiment": "open_bandit_men",
                    "metadata": {"item_id": "14", "position": "2"},
                    "created_at": "2019-11-24T00:03:01.000005Z",
                }),
            ]
        );
        let not_clicked = Impression { click: 0, ..impression };
        assert_eq!(not_clicked.events().len(), 1);
    }
}
