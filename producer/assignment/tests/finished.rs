//! What a finished experiment serves, step by step.

use assignment::{Context, Environment, Lists, Name, NotExposed, Snapshot, Step, evaluate_traced, resolve};
use schemas::definition::{Definition, Definitions, Kind, State};
use schemas::{Key, Micros, Uuid};
use serde_json::{Value, json};

/// The log with these definitions of experiments, one after another.
fn log(experiments: &[Value]) -> Definitions {
    let mut definitions = Definitions::default();
    let metric = json!({"key": "signup", "event": "signup", "type": "conversion"});
    let experiments = experiments.iter().map(|json| (Kind::Experiment, json));
    for (kind, json) in [(Kind::Metric, &metric)].into_iter().chain(experiments) {
        let written = Definition::from_json(kind, json.clone()).unwrap();
        let definition = resolve(&definitions, Micros::EPOCH, written).unwrap();
        let change = definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
        definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).unwrap().unwrap();
    }
    definitions
}

/// The trace ended with the rules, and said nowhere that they decide.
#[test]
fn that_only_the_targeted_are_served_is_a_step_of_the_evaluation() {
    let shipped_to = |to: &str| {
        let running = json!({
            "key": "over", "state": "running", "control": "a", "metrics": {"primary": "signup"},
            "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}],
            "targeting": [{"key": "pro", "when": {"attribute": "plan", "equals": "pro"}}],
        });
        let mut over = running.clone();
        over["state"] = json!("stopped");
        over["serve"] = json!({"variant": "b", "to": to});
        log(&[running, over])
    };
    let variant = Key::new("b").unwrap();
    let pro = Key::new("pro").unwrap();
    let closed = Step::Closed(NotExposed::NotRunning(State::Stopped));
    let serves = Step::Serves { variant: &variant, below: 1_000_000 };
    for (plan, targeted, served) in [("pro", true, "b"), ("free", false, "a")] {
        let definitions = shipped_to("targeted");
        let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
        let context = Context {
            targeting_key: Some("u1"),
            attributes: &[(Name::of("plan"), assignment::Value::Text(plan))],
        };
        let mut steps: Vec<Step<'_>> = Vec::new();
        let answer = evaluate_traced(&snapshot, "over", &context, Micros::EPOCH, &mut steps).unwrap();
        assert_eq!(answer.variant.as_str(), served);
        let rule = Step::Rule { key: &pro, holds: targeted };
        assert_eq!(steps, [closed.clone(), serves.clone(), rule, Step::OnlyTargeted { targeted }]);
    }
    let definitions = shipped_to("all");
    let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION);
    let mut steps: Vec<Step<'_>> = Vec::new();
    evaluate_traced(&snapshot, "over", &Context::default(), Micros::EPOCH, &mut steps).unwrap();
    assert_eq!(steps, [closed, serves]);
}
