//! Switchbacks evaluated: which window a cluster is in, what is hashed, and when an answer changes. The buckets are those
//! of the vectors in `schemas/vectors`.

use assignment::{
    Context, Environment, EvaluationError, Exposed, Lists, Name, Salts, Snapshot, Step, Value, evaluate,
    evaluate_traced, resolve,
};
use schemas::definition::{Definition, Definitions, Kind};
use schemas::switchback::NotACluster;
use schemas::{Micros, Uuid};
use serde_json::json;

/// `surge` changes hourly, `plain` has the same salt and no windows.
fn definitions(fields: &serde_json::Value) -> Definitions {
    let experiment = |key: &str| {
        json!({
            "key": key, "salt": "surge", "state": "running", "control": "a", "unit_type": "region",
            "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}],
            "metrics": {"primary": "ride"},
        })
    };
    let mut surge = experiment("surge");
    surge["switchback"] = json!({"window_seconds": 3_600, "burn_in_seconds": 600});
    surge.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut definitions = Definitions::default();
    for (kind, json) in [
        (Kind::Metric, json!({"key": "ride", "event": "ride", "type": "count"})),
        (Kind::Experiment, surge),
        (Kind::Experiment, experiment("plain")),
    ] {
        let written = Definition::from_json(kind, json).unwrap();
        let definition = resolve(&definitions, Micros::EPOCH, written).unwrap();
        let change = definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
        definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).unwrap().unwrap();
    }
    definitions
}

fn snapshot(definitions: &Definitions) -> Snapshot {
    Snapshot::compile(definitions, &Lists::default(), Environment::PRODUCTION)
}

fn at(text: &str) -> Micros {
    Micros::parse(text).unwrap()
}

fn exposed<'s>(
    snapshot: &'s Snapshot,
    key: &str,
    region: &str,
    now: Micros,
) -> Result<Exposed<'s>, EvaluationError> {
    let context =
        Context { targeting_key: Some("u1"), attributes: &[(Name::of("region"), Value::Text(region))] };
    let evaluation = evaluate(snapshot, key, &context, now)?;
    Ok(evaluation.experiment.unwrap().outcome.unwrap())
}

#[test]
fn a_cluster_takes_part_as_a_whole_and_has_a_variant_for_each_window() {
    let definitions = definitions(&json!({}));
    let snapshot = snapshot(&definitions);
    let (_, surge) = definitions.experiment("surge").unwrap();
    for (region, now, window_start_s, variant, bucket) in [
        ("eu", "2026-01-01T00:00:00Z", 1_767_225_600, "a", 84_222),
        ("eu", "2026-01-01T00:59:59.999999Z", 1_767_225_600, "a", 84_222),
        ("eu", "2026-01-01T01:00:00Z", 1_767_229_200, "a", 91_272),
        ("地域", "2026-01-01T00:59:59.999999Z", 1_767_225_600, "b", 732_054),
        ("地域", "2026-01-01T01:00:00Z", 1_767_229_200, "a", 204_053),
    ] {
        let exposed_then = exposed(&snapshot, "surge", region, at(now)).unwrap();
        assert_eq!(exposed_then.variant.key.as_str(), variant, "{region} {now}");
        assert_eq!(exposed_then.window_start_s, Some(window_start_s), "{region} {now}");
        let buckets = exposed_then.buckets.unwrap();
        let of_cluster = Salts::of(&definitions, surge).buckets(region);
        assert_eq!(
            (buckets.slot, buckets.rollout, buckets.variant),
            (of_cluster.slot, of_cluster.rollout, bucket)
        );
        let plain = exposed(&snapshot, "plain", region, at(now)).unwrap();
        assert_eq!((plain.buckets, plain.window_start_s), (Some(of_cluster), None));
    }
}

#[test]
fn the_window_and_its_unit_are_a_step_of_the_evaluation() {
    let definitions = definitions(&json!({}));
    let snapshot = snapshot(&definitions);
    let context = Context { targeting_key: None, attributes: &[(Name::of("region"), Value::Text("eu"))] };
    let mut steps: Vec<Step<'_>> = Vec::new();
    evaluate_traced(&snapshot, "surge", &context, at("2026-01-01T00:30:00Z"), &mut steps).unwrap();
    let window = Step::Window {
        start: at("2026-01-01T00:00:00Z"),
        window_seconds: 3_600,
        unit_id: "eu\x001767225600".to_owned(),
    };
    assert_eq!(steps, [window]);
}

#[test]
fn what_cannot_be_a_cluster_is_an_error_that_says_so() {
    let definitions = definitions(&json!({}));
    let snapshot = snapshot(&definitions);
    let now = at("2026-01-01T00:30:00Z");
    assert!(exposed(&snapshot, "surge", &"r".repeat(245), now).is_ok());
    let refused = |region: &str| exposed(&snapshot, "surge", region, now).unwrap_err();
    assert_eq!(
        refused("e\0u").to_string(),
        "the region cannot be the cluster of a switchback: it has a zero byte, which separates a cluster from its window; \
         use an id without it"
    );
    let why = NotACluster::TooLong { bytes: 246 };
    assert!(matches!(refused(&"r".repeat(246)), EvaluationError::Cluster { why: found, .. } if found == why));
    // A plain experiment takes both.
    assert!(exposed(&snapshot, "plain", "e\0u", now).is_ok());
    assert!(exposed(&snapshot, "plain", &"r".repeat(256), now).is_ok());
}

#[test]
fn every_start_of_a_window_is_an_instant_while_the_switchback_runs() {
    let running = snapshot(&definitions(&json!({})));
    let (midnight, one) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z"));
    let before_one = at("2026-01-01T00:59:59.999999Z");
    let both = |snapshot: &Snapshot, now| (snapshot.last_instant(now), snapshot.next_instant(now));
    assert_eq!(both(&running, midnight), (Some(midnight), Some(one)));
    assert_eq!(both(&running, before_one), (Some(midnight), Some(one)));
    assert_eq!(both(&running, one), (Some(one), Some(at("2026-01-01T02:00:00Z"))));

    let end = at("2026-01-01T01:30:00Z");
    let planned = definitions(&json!({"plan": {"schedule": {"end": end}}}));
    let planned = snapshot(&planned);
    assert_eq!(both(&planned, one), (Some(one), Some(end)));
    assert_eq!(both(&planned, end), (Some(end), None));

    for fields in [json!({"state": "draft"}), json!({"environments": {"production": {"enabled": false}}})] {
        assert_eq!(both(&snapshot(&definitions(&fields)), one), (None, None), "{fields}");
    }
}

/// While it is shipped step by step, a cluster must not switch any more.
#[test]
fn what_a_finished_switchback_serves_depends_on_the_cluster_alone() {
    let mut definitions = definitions(&json!({}));
    let (_, running) = definitions.experiment("surge").unwrap();
    let mut stopped: serde_json::Value =
        serde_json::from_str(&Definition::Experiment(running.clone()).to_json()).unwrap();
    stopped["state"] = json!("stopped");
    stopped["serve"] = json!({"variant": "b", "rollout": 5_000});
    let stopped = Definition::from_json(Kind::Experiment, stopped).unwrap();
    let change = definitions.change_to(&stopped, Uuid::from_u128(1), "a tester", "a test");
    definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).unwrap().unwrap();
    let snapshot = snapshot(&definitions);
    let (_, surge) = definitions.experiment("surge").unwrap();
    let salts = Salts::of(&definitions, surge);
    let mut served = [0, 0];
    for region in (0..100).map(|number| format!("region-{number}")) {
        let inside = salts.buckets(&region).rollout < 500_000;
        served[usize::from(inside)] += 1;
        for now in ["2026-01-01T00:30:00Z", "2026-01-01T01:30:00Z", "2026-01-01T02:30:00Z"] {
            let context =
                Context { targeting_key: None, attributes: &[(Name::of("region"), Value::Text(&region))] };
            let answer = evaluate(&snapshot, "surge", &context, at(now)).unwrap();
            assert_eq!(answer.variant.as_str(), if inside { "b" } else { "a" }, "{region} {now}");
        }
    }
    assert!(served.iter().all(|regions| *regions > 30), "{served:?}");
    assert_eq!(snapshot.next_instant(at("2026-01-01T00:30:00Z")), None);
}
