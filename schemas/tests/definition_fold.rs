//! For any definitions log: no reader panics, all readers derive the same definitions, and no two experiments
//! own the same slots.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use schemas::definition::{Accepted, Change, Definition, Definitions, Experiment, State};
use schemas::{BucketRange, Uuid};
use serde_json::{Value, json};

/// What a writer proposes: a definition, and the version that it is based on.
#[derive(Clone, Debug)]
struct Proposal {
    kind: &'static str,
    definition: String,
    key: String,
    /// `None`: the current version. Otherwise another one.
    based_on: Option<Index>,
    rule_version: u32,
}

fn json_proposal(kind: &'static str, definition: Value) -> (&'static str, String, String) {
    (kind, definition.to_string(), definition["key"].as_str().unwrap_or("").to_owned())
}

fn experiment() -> impl Strategy<Value = (&'static str, String, String)> {
    let cut = select(vec![0_u32, 250_000, 500_000, 750_000, 1_000_000]);
    (
        select(vec!["e", "g"]),
        select(vec!["draft", "running", "running", "running", "stopped", "archived"]),
        1..4_u32,
        vec(cut.clone(), 4),
        select(vec![None, Some("l")]),
        (cut.clone(), cut),
        select(vec!["m", "m", "m", "n"]),
        any::<bool>(),
        later_fields(),
    )
        .prop_map(|(key, state, phase, cuts, layer, (low, high), metric, swapped, later)| {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let range = |lo: u32, hi: u32| if lo < hi { json!([[lo, hi]]) } else { json!([]) };
            // The two ranges are often adjacent, and sometimes have a gap between them.
            let middle = if cuts[0] % 500_000 == 0 { cuts[1] } else { cuts[2] };
            let mut variants = vec![
                json!({"key": "a", "weight": cuts[1] / 100, "ranges": range(0, cuts[1])}),
                json!({"key": "b", "weight": (1_000_000 - middle) / 100, "ranges": range(middle, 1_000_000)}),
            ];
            if swapped {
                let (first, second) = (variants[0]["key"].take(), variants[1]["key"].take());
                variants[0]["key"] = second;
                variants[1]["key"] = first;
            }
            let mut definition = json!({
                "key": key, "state": state, "phase": phase, "variants": variants, "control": "a",
                "metrics": {"primary": metric},
            });
            if layer.is_some() {
                let (low, high) = (low.min(high), low.max(high));
                definition["layer"] = json!(layer);
                definition["slots"] = json!((high - low) / 100);
                definition["slot_ranges"] = range(low, high);
            }
            definition.as_object_mut().unwrap().extend(later.as_object().unwrap().clone());
            json_proposal("experiment", definition)
        })
}

/// The fields that later rules add to an experiment; mostly none.
fn later_fields() -> impl Strategy<Value = Value> {
    let schedule = json!({"schedule": {"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T00:00:00Z"}});
    prop_oneof![
        6 => Just(json!({})),
        1 => Just(json!({"plan": schedule})),
        1 => select(vec![7, 14]).prop_map(|days| json!({"plan": {"covariate_days": days}})),
        1 => select(vec![0.1, 0.2]).prop_map(|margin| {
            json!({"metrics": {"primary": "m", "guardrails": ["n"], "margins": {"n": margin}}})
        }),
        1 => Just(json!({"counted_environments": ["staging"]})),
        1 => select(vec![0, 5_000])
            .prop_map(|rollout| json!({"environments": {"staging": {"rollout": rollout}}})),
        1 => (1..3_u32).prop_map(|phase| json!({"excluded_phases": [{"phase": phase, "reason": "off"}]})),
    ]
}

/// The options that rule 5 adds to a count, one of them.
fn later_options() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1..3_u32).prop_map(|hours| json!({"delay_hours": hours})),
        select(vec!["5", "5.0", "7.25"]).prop_map(|cap| json!({"cap": cap})),
        select(vec!["DE", "FR"])
            .prop_map(|region| json!({"where": [{"metadata": "region", "in": [region]}]})),
        Just(json!({"where": [{"value_at_least": "1"}, {"value_below": "2"}]})),
    ]
}

fn flag() -> impl Strategy<Value = (&'static str, String, String)> {
    (select(vec!["e", "f", "h"]), vec((select(vec!["e", "f", "h"]), select(vec!["a", "on"])), 0..3)).prop_map(
        |(key, prerequisites)| {
            let prerequisites: Vec<Value> = prerequisites
                .into_iter()
                .map(|(flag, variant)| json!({"flag": flag, "variants": [variant]}))
                .collect();
            json_proposal(
                "flag",
                json!({
                    "key": key, "value_type": "boolean", "variants": [{"key": "on", "value": true}],
                    "default_variant": "on", "prerequisites": prerequisites,
                }),
            )
        },
    )
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let definition = prop_oneof![
        12 => experiment(),
        3 => flag(),
        1 => select(vec!["l", "e"]).prop_map(|key| json_proposal("layer", json!({"key": key}))),
        2 => select(vec!["m", "n"])
            .prop_map(|key| json_proposal("metric", json!({"key": key, "event": "buy", "type": "count"}))),
        1 => select(vec!["increase", "decrease"]).prop_map(|direction| {
            json_proposal("metric", json!({"key": "m", "event": "buy", "type": "count", "direction": direction}))
        }),
        2 => (select(vec!["m", "n"]), later_options()).prop_map(|(key, later)| {
            let mut metric = json!({"key": key, "event": "buy", "type": "count"});
            metric.as_object_mut().unwrap().extend(later.as_object().unwrap().clone());
            json_proposal("metric", metric)
        }),
        1 => select(vec![0, 27, 28]).prop_map(|days| {
            json_proposal("settings", json!({"key": "platform", "retention_days": {"exposures": days}}))
        }),
        1 => (select(vec!["flag", "layer", "list", "no-kind"]), any::<String>(), any::<String>()),
    ];
    (definition, proptest::option::weighted(0.1, any::<Index>()), select(vec![1, 2, 5])).prop_map(
        |((kind, definition, key), based_on, rule_version)| Proposal {
            kind,
            definition,
            key,
            based_on,
            rule_version,
        },
    )
}

/// Applies the records, and returns the verdict on each.
fn read(definitions: &mut Definitions, records: &[(u64, Change)]) -> Vec<String> {
    records
        .iter()
        .map(|(offset, change)| match definitions.apply(*offset, schemas::Micros::EPOCH, change).unwrap() {
            Ok(accepted) => format!("version {}", accepted.version),
            Err(refusal) => refusal.to_string(),
        })
        .collect()
}

fn state(definitions: &Definitions) -> (Vec<&Accepted>, u64, u64) {
    (definitions.iter().map(AsRef::as_ref).collect(), definitions.version(), definitions.next_offset())
}

fn running(definitions: &Definitions) -> impl Iterator<Item = &Experiment> {
    definitions.iter().filter_map(|accepted| match &accepted.definition {
        Definition::Experiment(experiment) if experiment.state == State::Running => Some(experiment),
        _ => None,
    })
}

fn overlap(left: &[BucketRange], right: &[BucketRange]) -> bool {
    left.iter().any(|left| right.iter().any(|right| left.overlaps(*right)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn all_readers_hold_the_same_and_no_unit_moves(
        proposals in vec((0..3_u64, proposal()), 1..40),
        joins in any::<Index>(),
    ) {
        let mut first = Definitions::default();
        let mut records = Vec::new();
        let mut verdicts = Vec::new();
        let mut versions: BTreeMap<(bool, String), u64> = BTreeMap::new();
        // The definitions that the others need, in most cases.
        let basis = [("metric", json!({"key": "m", "event": "buy", "type": "count"})), ("layer", json!({"key": "l"}))]
            .map(|(kind, definition)| {
                let (kind, definition, key) = json_proposal(kind, definition);
                (0, Proposal { kind, definition, key, based_on: None, rule_version: 1 })
            });
        for (gap, proposal) in basis.into_iter().chain(proposals) {
            let offset = first.next_offset() + gap;
            let place = (matches!(proposal.kind, "flag" | "experiment"), format!("{} {}", match proposal.kind {
                "flag" | "experiment" => "",
                kind => kind,
            }, proposal.key));
            let holds = versions.get(&place).copied().unwrap_or(0);
            let change = Change {
                change_id: Uuid::from_u128(u128::from(offset)),
                rule_version: proposal.rule_version,
                kind: proposal.kind.to_owned(),
                key: proposal.key.clone(),
                based_on: proposal.based_on.map_or(holds, |other| other.index(offset as usize + 1) as u64),
                definition: proposal.definition,
                author: "ann".to_owned(),
                reason: "because".to_owned(),
            };
            let before: BTreeMap<String, Experiment> =
                running(&first).map(|experiment| (experiment.key.to_string(), experiment.clone())).collect();
            let verdict = read(&mut first, &[(offset, change.clone())]).remove(0);
            if verdict == format!("version {}", offset + 1) {
                versions.insert(place, offset + 1);
            }
            // From rule 2 on, no accepted change alters what a metric of a running experiment measures.
            if change.rule_version >= 2 && change.kind == "metric" && first.version() == offset + 1 {
                let named = |experiment: &Experiment| {
                    experiment.metrics.fields().any(|(_, key)| key.as_str() == change.key)
                };
                let metric = |version| match first.at_version(version).map(|accepted| &accepted.definition) {
                    Some(Definition::Metric(metric)) => Some(metric),
                    _ => None,
                };
                if running(&first).any(named) {
                    let (before, after) = (metric(change.based_on).unwrap(), metric(offset + 1).unwrap());
                    prop_assert_eq!(after.measures_otherwise(before), None, "{} under an experiment", change.key);
                }
            }
            verdicts.push(verdict);
            records.push((offset, change));

            let now: Vec<&Experiment> = running(&first).collect();
            for (index, experiment) in now.iter().enumerate() {
                if let Some(before) = before.get(experiment.key.as_str()) {
                    for old in &before.variants {
                        for new in experiment.variants.iter().filter(|new| new.key != old.key) {
                            prop_assert!(!overlap(&old.ranges, &new.ranges), "{} moved", experiment.key);
                        }
                    }
                }
                for other in now[..index].iter().filter(|other| other.layer.is_some() && other.layer == experiment.layer) {
                    prop_assert!(!overlap(&experiment.slot_ranges, &other.slot_ranges));
                }
            }
        }
        // A second reader reads everything at once; a third continues from a copy of the state somewhere on
        // the way.
        let mut second = Definitions::default();
        prop_assert_eq!(&read(&mut second, &records), &verdicts);
        prop_assert_eq!(state(&second), state(&first));
        let (early, late) = records.split_at(joins.index(records.len()));
        let mut third = Definitions::default();
        read(&mut third, early);
        let mut third = third.clone();
        read(&mut third, late);
        prop_assert_eq!(state(&third), state(&first));
        for (offset, _) in &records {
            prop_assert_eq!(second.at_version(offset + 1), first.at_version(offset + 1));
        }
    }
}
