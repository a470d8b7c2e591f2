//! Random definitions and contexts, evaluated by the snapshot and by rules that are written a second time.

mod ids_and_instants;
mod reference;

use assignment::{
    Context, Environment, EvaluationError, Lists, Members, Snapshot, Step, evaluate, evaluate_all,
    evaluate_client_safe, evaluate_traced, resolve,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use schemas::definition::{Definition, Definitions, Kind};
use schemas::{Key, Micros, Uuid};
use serde_json::{Map, Value, json};

use reference::Reference;

const ENVIRONMENTS: [&str; 3] = ["production", "staging", "elsewhere"];
const INSTANTS: [&str; 4] = [
    "2026-01-01T00:00:00.000000Z",
    "2026-02-01T00:00:00.000000Z",
    "2026-02-01T00:00:00.000001Z",
    "2026-03-01T00:00:00.000000Z",
];

/// Proposes the definition; one that the rule refuses leaves the log as it is.
fn propose(definitions: &mut Definitions, kind: Kind, json: Value) {
    let Ok(written) = Definition::from_json(kind, json) else { return };
    let Ok(definition) = resolve(definitions, Micros::EPOCH, written) else { return };
    let change = definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
    let _ = definitions.apply(definitions.next_offset(), Micros::EPOCH, &change).expect("the rule is known");
}

/// The members of the lists that may be defined.
const LISTS: [(&str, &str, &[&str]); 3] = [
    ("testers", "user", &["u1", "u2", "u3"]),
    ("staff", "user", &["u3", "u4"]),
    ("partners", "account", &["a1"]),
];

fn members(key: &str, ids: &[&str]) -> Members {
    Members::of_ids(&Key::new(key).unwrap(), ids.iter().copied()).unwrap()
}

fn lists() -> Lists {
    let mut lists = Lists::default();
    for (key, _, ids) in LISTS {
        lists.insert(members(key, ids));
    }
    lists
}

fn log(changes: &[(Kind, Value)]) -> Definitions {
    let mut definitions = Definitions::default();
    for (key, unit_type, ids) in LISTS {
        let digest = members(key, ids).digest();
        let list =
            json!({"key": key, "unit_type": unit_type, "members_sha256": digest, "members": ids.len()});
        propose(&mut definitions, Kind::List, list);
    }
    propose(
        &mut definitions,
        Kind::Metric,
        json!({"key": "signup", "event": "signup", "type": "conversion"}),
    );
    for (kind, json) in changes {
        propose(&mut definitions, *kind, json.clone());
    }
    definitions
}

fn test() -> impl Strategy<Value = Value> {
    let operand = prop_oneof![
        select(vec!["pro", "free", "DE", "x", "u1", "a1"]).prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        (-3_i64..4).prop_map(|whole| json!(whole as f64 + 0.5)),
        any::<bool>().prop_map(Value::from),
    ];
    let number =
        prop_oneof![(-3_i64..4).prop_map(Value::from), (-3_i64..4).prop_map(|whole| json!(whole as f64))];
    let text = select(vec!["p", "ro", "pro", "", "D"]).prop_map(Value::from);
    let with = prop_oneof![
        operand.clone().prop_map(|operand| ("equals", operand)),
        prop::collection::vec(operand.clone(), 0..12).prop_map(|operands| ("in", json!(operands))),
        (select(vec!["has_any", "has_all"]), prop::collection::vec(operand, 0..3).prop_map(|all| json!(all))),
        select(vec!["testers", "partners"]).prop_map(|list| ("in_list", json!(list))),
        (select(vec!["above", "at_least", "below", "at_most"]), number),
        (select(vec!["starts_with", "ends_with", "contains"]), text),
        any::<bool>().prop_map(|expected| ("exists", json!(expected))),
    ];
    let name = select(vec![
        "plan",
        "age",
        "company.plan",
        "company.size.paid",
        "a.b",
        "targetingKey",
        "targetingKey",
        "account",
        "tags",
        "tags",
    ]);
    (name, with).prop_map(|(name, (operator, operand))| json!({"attribute": name, operator: operand}))
}

fn condition() -> impl Strategy<Value = Value> {
    test().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({"all": all})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|any| json!({"any": any})),
            inner.prop_map(|not| json!({"not": not})),
        ]
    })
}

/// A constant share, or a ramp.
fn share() -> impl Strategy<Value = Map<String, Value>> {
    let shares = select(vec![
        json!({"rollout": 0}),
        json!({"rollout": 2_500}),
        json!({"rollout": 10_000}),
        json!({"ramp": [{"from": INSTANTS[1], "rollout": 3_000}, {"from": INSTANTS[2], "rollout": 10_000}]}),
        json!({"ramp": [{"from": INSTANTS[0], "rollout": 10_000}, {"from": INSTANTS[3], "rollout": 0}]}),
    ]);
    shares.prop_map(|share| share.as_object().unwrap().clone())
}

/// Lists that are allowed and denied, for either unit type; those of the other type are refused.
fn unit_lists() -> impl Strategy<Value = Map<String, Value>> {
    let allow = select(vec![
        json!([]),
        json!([{"list": "testers", "variant": "a"}]),
        json!([{"list": "testers", "variant": "b"}, {"list": "staff", "variant": "a"}]),
        json!([{"list": "partners", "variant": "b"}]),
    ]);
    let deny = select(vec![json!([]), json!(["staff"]), json!(["partners"])]);
    let both = (prop::bool::weighted(0.3), allow, deny).prop_map(|(used, allow, deny)| match used {
        true => json!({"allow": allow, "deny": deny}),
        false => json!({}),
    });
    both.prop_map(|lists| lists.as_object().unwrap().clone())
}

fn rules() -> impl Strategy<Value = Vec<Value>> {
    let split = select(vec![
        json!([{"variant": "a", "weight": 10_000}]),
        json!([{"variant": "b", "weight": 10_000}]),
        json!([{"variant": "a", "weight": 5_000}, {"variant": "b", "weight": 5_000}]),
        json!([{"variant": "a", "weight": 0}, {"variant": "b", "weight": 10_000}]),
    ]);
    let schedule =
        select(vec![json!(null), json!(null), json!({"start": INSTANTS[1]}), json!({"end": INSTANTS[2]})]);
    let rule = (prop::option::of(condition()), share(), schedule, split);
    prop::collection::vec(rule, 0..4).prop_map(|rules| {
        let rules = rules.into_iter().enumerate().map(|(index, (when, share, schedule, split))| {
            let mut rule = json!({"key": format!("r{index}"), "split": split, "schedule": schedule});
            rule.as_object_mut().unwrap().extend(share);
            if let Some(when) = when {
                rule["when"] = when;
            }
            rule
        });
        rules.collect()
    })
}

fn flag(index: usize) -> impl Strategy<Value = (Kind, Value)> {
    let values = select(vec![
        ("boolean", json!(true), json!(false)),
        ("string", json!("on"), json!("off")),
        ("integer", json!(9_007_199_254_740_993_i64), json!(-1)),
        ("number", json!(0.5), json!(2)),
        ("json", json!({"color": "red"}), json!([1, null])),
    ]);
    let required = select(vec!["e0", "e1", "f0", "f1", "f2"]);
    let prerequisites = prop::collection::vec((required, select(vec!["a", "b"])), 0..2);
    let unit_type = select(vec!["user", "user", "account"]);
    let overrides = prop::option::of((prop::option::of(any::<bool>()), prop::option::of(rules())));
    (
        values,
        prerequisites,
        unit_type,
        rules(),
        overrides,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        unit_lists(),
    )
        .prop_map(
            move |(
                (value_type, a, b),
                prerequisites,
                unit_type,
                rules,
                overrides,
                enabled,
                archived,
                lists,
            )| {
                let prerequisites: Vec<Value> = prerequisites
                    .into_iter()
                    .map(|(flag, variant)| json!({"flag": flag, "variants": [variant]}))
                    .collect();
                let mut flag = json!({
                    "key": format!("f{index}"), "value_type": value_type, "default_variant": "b",
                    "variants": [{"key": "a", "value": a}, {"key": "b", "value": b}], "unit_type": unit_type,
                    "rules": rules, "prerequisites": prerequisites, "enabled": enabled, "archived": archived,
                    "client_safe": index == 1,
                });
                flag.as_object_mut().unwrap().extend(lists);
                if let Some((enabled, rules)) = overrides {
                    let mut there = json!({});
                    if let Some(enabled) = enabled {
                        there["enabled"] = json!(enabled);
                    }
                    if let Some(rules) = rules {
                        there["rules"] = json!(rules);
                    }
                    flag["environments"] = json!({"staging": there});
                }
                (Kind::Flag, flag)
            },
        )
}

fn experiment(index: usize) -> impl Strategy<Value = (Kind, Value)> {
    let state = select(vec!["running", "running", "running", "draft"]);
    let targeting = prop::collection::vec(condition(), 0..3);
    let schedule = select(vec![
        json!({}),
        json!({"start": INSTANTS[1]}),
        json!({"end": INSTANTS[1]}),
        json!({"start": INSTANTS[1], "end": INSTANTS[2]}),
    ]);
    let place = select(vec![
        json!({}),
        json!({"layer": "pricing", "slots": 3_000}),
        json!({"assignment": "external"}),
        json!({"switchback": {"window_seconds": 3_600, "burn_in_seconds": 60}}),
        json!({"switchback": {"window_seconds": 604_800}, "layer": "pricing", "slots": 3_000}),
    ]);
    let overrides = prop::option::of((any::<bool>(), select(vec![0, 10_000])));
    let value = prop::option::of(select(vec![json!(1), json!({"x": "y"})]));
    (
        state,
        targeting,
        schedule,
        place,
        overrides,
        value,
        select(vec![1_000, 10_000]),
        select(vec!["user", "user", "account"]),
        unit_lists(),
    )
        .prop_map(move |(state, targeting, schedule, place, overrides, value, rollout, unit_type, lists)| {
            let targeting: Vec<Value> = targeting
                .into_iter()
                .enumerate()
                .map(|(index, when)| json!({"key": format!("t{index}"), "when": when}))
                .collect();
            let mut treatment = json!({"key": "b", "weight": 4_000});
            if let Some(value) = value {
                treatment["value"] = value;
            }
            let mut experiment = json!({
                "key": format!("e{index}"), "state": state, "control": "a", "metrics": {"primary": "signup"},
                "variants": [{"key": "a", "weight": 6_000}, treatment], "unit_type": unit_type,
                "targeting": targeting, "rollout": rollout, "plan": {"schedule": schedule},
            });
            experiment.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
            experiment.as_object_mut().unwrap().extend(lists);
            if let Some((enabled, rollout)) = overrides {
                experiment["environments"] = json!({"staging": {"enabled": enabled, "rollout": rollout}});
            }
            (Kind::Experiment, experiment)
        })
}

fn changes() -> impl Strategy<Value = Vec<(Kind, Value)>> {
    let layer = json!({"key": "pricing", "salt": "pricing-2"});
    let flags = (flag(0), flag(1), flag(2), flag(0), flag(1));
    let holdouts = prop::collection::vec((holdout(), prop::bool::weighted(0.7)), 0..3);
    let all = (holdouts, experiment(0), experiment(1), prop::option::of(shipped()), flags);
    all.prop_map(move |(holdouts, one, two, served, (three, four, five, six, seven))| {
        let (before, after): (Vec<_>, Vec<_>) = holdouts.into_iter().partition(|(_, before)| *before);
        let mut changes = vec![(Kind::Layer, layer.clone())];
        changes.extend(before.into_iter().map(|(holdout, _)| holdout));
        let over = served.map(|serve| {
            let mut over = two.1.clone();
            over.as_object_mut().unwrap().extend(serve);
            (Kind::Experiment, over)
        });
        changes.extend([one, two]);
        changes.extend(after.into_iter().map(|(holdout, _)| holdout));
        changes.extend(over);
        changes.extend([three, four, five, six, seven]);
        changes
    })
}

/// A holdout of the whole or of the layer.
fn holdout() -> impl Strategy<Value = (Kind, Value)> {
    let place = select(vec![json!({}), json!({"layer": "pricing"})]);
    let overrides = select(vec![json!({}), json!({"staging": {"enabled": false}})]);
    let key = select(vec!["h0", "h1"]);
    (key, place, overrides, select(vec!["user", "user", "account"]), select(vec![1_000, 5_000])).prop_map(
        |(key, place, overrides, unit_type, share)| {
            let mut holdout = json!({
                "key": key, "state": "running", "holdout": true, "control": "held", "unit_type": unit_type,
                "variants": [{"key": "held", "weight": share}, {"key": "others", "weight": 10_000 - share}],
                "metrics": {"primary": "signup"}, "environments": overrides,
            });
            holdout.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
            (Kind::Experiment, holdout)
        },
    )
}

/// What an experiment is stopped with.
fn shipped() -> impl Strategy<Value = Map<String, Value>> {
    (select(vec!["a", "b"]), select(vec!["all", "targeted"]), share()).prop_map(|(variant, to, share)| {
        let mut serve = json!({"variant": variant, "to": to});
        serve.as_object_mut().unwrap().extend(share);
        let over = json!({"state": "stopped", "serve": serve});
        over.as_object().unwrap().clone()
    })
}

fn attributes() -> impl Strategy<Value = Map<String, Value>> {
    let plan =
        prop::option::of(select(vec![json!("pro"), json!("free"), json!(1), json!(null), json!(true)]));
    let age = prop::option::of((-3_i64..4).prop_map(|age| json!(age)));
    let company = prop::option::of(select(vec![
        json!({"plan": "pro"}),
        json!({"plan": 2, "size": {"paid": 3}}),
        json!({"size.paid": 0.5}),
        json!("none"),
    ]));
    let long = json!("a".repeat(250));
    // The ids of units that come without a targeting key; an attribute that is named like one is no id.
    let user = prop::option::of(select(vec![json!("u1"), json!("u3"), json!(4)]));
    let key = prop::option::weighted(0.1, select(vec![json!("pro"), json!("u1")]));
    let account =
        prop::option::of(select(vec![json!("a1"), json!("a2"), json!(7), json!(""), json!("a\0"), long]));
    let dotted = prop::option::of(select(vec![json!("x"), json!({"b": "pro"})]));
    let tags =
        prop::option::of(select(vec![json!([]), json!(["pro", 1, true]), json!("pro"), json!([1.5, "DE"])]));
    let all = (plan, age, company, user, key, account, dotted, tags);
    all.prop_map(|(plan, age, company, user, key, account, dotted, tags)| {
        let all = [
            ("user", user),
            ("targetingKey", key),
            ("plan", plan),
            ("age", age),
            ("company", company),
            ("account", account),
            ("a", dotted),
            ("tags", tags),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

fn reference(definitions: &Definitions, environment: &str) -> Reference {
    let mut all = Map::new();
    let mut started = std::collections::BTreeMap::new();
    for version in 1..=definitions.version() {
        let Some(accepted) = definitions.at_version(version) else { continue };
        let json: Value = serde_json::from_str(&accepted.definition.to_json()).unwrap();
        if json["state"] == json!("running") {
            started.entry(accepted.definition.key().to_string()).or_insert(version);
        }
    }
    let members = LISTS.map(|(key, _, ids)| (key.to_owned(), ids.iter().map(ToString::to_string).collect()));
    for accepted in definitions.iter() {
        let definition = &accepted.definition;
        let key = match definition.kind() {
            Kind::Layer => format!("layer {}", definition.key()),
            Kind::Flag | Kind::Experiment => definition.key().to_string(),
            _ => continue,
        };
        all.insert(key, serde_json::from_str(&definition.to_json()).unwrap());
    }
    Reference { definitions: all, environment: environment.to_owned(), started, members: members.into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn the_snapshot_answers_as_the_reference(
        changes in changes(),
        units in prop::collection::vec(
            (prop::option::of(prop_oneof![(0..40_u32).prop_map(|unit| format!("u{unit}")), Just(String::new()),
                                          Just("u".repeat(257))]), attributes()),
            1..6),
        environment in select(ENVIRONMENTS.to_vec()),
        instant in select(INSTANTS.to_vec()),
    ) {
        let definitions = log(&changes);
        let snapshot = Snapshot::compile(&definitions, &lists(), Environment(environment));
        let reference = reference(&definitions, environment);
        let now = Micros::parse(instant).unwrap();
        for (unit, attributes) in &units {
            let pairs: Vec<(assignment::Name<'_>, assignment::Value<'_>)> = attributes
                .iter()
                .map(|(name, value)| (assignment::Name::of(name), assignment::Value::Json(value)))
                .collect();
            let context = Context { targeting_key: unit.as_deref(), attributes: &pairs };
            let mut all = evaluate_all(&snapshot, &context, now);
            let safe: Vec<&str> =
                evaluate_client_safe(&snapshot, &context, now).map(|(key, _)| key.as_str()).collect();
            prop_assert_eq!(&safe, &definitions.flag("f1").map(|_| "f1").into_iter().collect::<Vec<_>>());
            for key in ["e0", "e1", "f0", "f1", "f2", "h0", "h1", "none"] {
                let ours = evaluate(&snapshot, key, &context, now);
                if ours != Err(EvaluationError::NotFound(key.to_owned())) {
                    let (also, in_bulk) = all.next().unwrap();
                    prop_assert_eq!((also.as_str(), &in_bulk), (key, &ours));
                }
                let mut trace: Vec<Step<'_>> = Vec::new();
                prop_assert_eq!(&evaluate_traced(&snapshot, key, &context, now, &mut trace), &ours);
                let ours = match ours {
                    Ok(answer) => {
                        let exposures = answer.exposures().map(|exposure| {
                            let exposed = exposure.outcome.unwrap();
                            let buckets = exposed.buckets;
                            let unit_id = context.unit(exposure.experiment.unit_type.as_str()).unwrap();
                            let in_window = |start_s| format!("{unit_id}\0{start_s}");
                            (
                                exposed.window_start_s.map_or(unit_id.to_owned(), in_window),
                                exposure.experiment.key.to_string(),
                                exposed.variant.key.to_string(),
                                exposed.reason.as_str(),
                                buckets.map(|buckets| [buckets.slot, buckets.rollout, buckets.variant]),
                            )
                        });
                        Ok((
                            answer.variant.to_string(),
                            answer.value.clone(),
                            answer.reason.as_str(),
                            answer.rule.map(ToString::to_string),
                            exposures.collect::<Vec<_>>(),
                        ))
                    }
                    Err(EvaluationError::NotFound(_)) => Err("not found"),
                    Err(EvaluationError::NoUnit { .. }) => Err("no unit"),
                    Err(EvaluationError::UnitId { .. }) => Err("unit id"),
                    Err(EvaluationError::Cluster { .. }) => Err("cluster"),
                };
                let expected = reference.answer(key, unit.as_deref(), attributes, instant);
                prop_assert_eq!(ours, expected, "{} for {:?} with {:?}", key, unit, attributes);
            }
            prop_assert!(all.next().is_none());
        }
    }
}

#[test]
fn the_random_definitions_are_accepted_and_reach_every_answer() {
    // A generator whose definitions are all refused would prove nothing.
    let expected = [
        "DEFAULT a ",
        "DEFAULT a held",
        "DEFAULT a held+held",
        "DEFAULT a split",
        "DEFAULT b ",
        "SPLIT a ",
        "SPLIT a split",
        "SPLIT a split+split",
        "SPLIT b ",
        "SPLIT b split",
        "SPLIT b split+split",
        "SPLIT b split+window",
        "SPLIT b window",
        "SPLIT held held",
        "SPLIT others split",
        "STATIC a ",
        "STATIC a split",
        "STATIC b ",
        "TARGETING_MATCH a ",
        "TARGETING_MATCH a forced",
        "TARGETING_MATCH a split",
        "TARGETING_MATCH a split+forced",
        "TARGETING_MATCH b ",
        "TARGETING_MATCH b forced",
        "TARGETING_MATCH b split+forced",
        "cluster",
        "no unit",
        "not found",
        "unit id",
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (changes(), attributes());
    let mut missing = std::collections::BTreeSet::from(expected);
    // Some of them are rare; 10,000 is far more than it takes.
    for _ in 0..10_000 {
        if missing.is_empty() {
            return;
        }
        let (changes, attributes) = strategy.new_tree(&mut runner).unwrap().current();
        let definitions = log(&changes);
        let reference = reference(&definitions, "production");
        for (unit, key) in
            [("u1", "e0"), ("u2", "e0"), ("u3", "e1"), ("u4", "f0"), ("u5", "f1"), ("u6", "f2"), ("u7", "h0")]
        {
            let answer = match reference.answer(key, Some(unit), &attributes, INSTANTS[1]) {
                Ok((variant, _, reason, _, exposures)) => {
                    let exposures: Vec<&str> = exposures
                        .iter()
                        .map(|(unit, _, variant, reason, _)| match variant.as_str() {
                            "held" => "held",
                            _ if unit.contains('\0') => "window",
                            _ => *reason,
                        })
                        .collect();
                    format!("{reason} {variant} {}", exposures.join("+"))
                }
                Err(why) => why.to_owned(),
            };
            missing.remove(answer.as_str());
        }
    }
    panic!("never seen: {missing:?}");
}

/// A flag that is on for everybody, if those that it waits for are.
fn waiting(key: &str, waits_for: &[String]) -> (Kind, Value) {
    let prerequisites: Vec<Value> =
        waits_for.iter().map(|flag| json!({"flag": flag, "variants": ["on"]})).collect();
    let flag = json!({
        "key": key, "value_type": "boolean", "default_variant": "off",
        "variants": [{"key": "on", "value": true}, {"key": "off", "value": false}],
        "rules": [{"key": "all", "split": [{"variant": "on", "weight": 10_000}]}], "prerequisites": prerequisites,
    });
    (Kind::Flag, flag)
}

fn served(snapshot: &Snapshot, key: &str) -> (String, &'static str) {
    let answer = evaluate(snapshot, key, &Context::default(), Micros::EPOCH).unwrap();
    (answer.variant.to_string(), answer.reason.as_str())
}

#[test]
fn a_chain_of_prerequisites_that_is_too_long_serves_the_default() {
    let before = |index: usize| index.checked_sub(1).map(|before| format!("c{before}"));
    let changes: Vec<(Kind, Value)> =
        (0..80).map(|index| waiting(&format!("c{index}"), before(index).as_slice())).collect();
    let snapshot = Snapshot::compile(&log(&changes), &Lists::default(), Environment::PRODUCTION);
    assert_eq!(served(&snapshot, "c64"), ("on".to_owned(), "TARGETING_MATCH"));
    for key in ["c65", "c66", "c79"] {
        assert_eq!(served(&snapshot, key), ("off".to_owned(), "DEFAULT"), "{key}");
    }
}

/// Each flag waits for the one before twice, so the tenth takes 2^10 - 2 evaluations of others: they doubled without an
/// end.
#[test]
fn prerequisites_that_multiply_are_not_followed() {
    let twice = |index: usize| match index.checked_sub(1) {
        Some(before) => vec![format!("d{before}"), format!("d{before}")],
        None => Vec::new(),
    };
    let changes: Vec<(Kind, Value)> =
        (0..60).map(|index| waiting(&format!("d{index}"), &twice(index))).collect();
    let snapshot = Snapshot::compile(&log(&changes), &Lists::default(), Environment::PRODUCTION);
    assert_eq!(served(&snapshot, "d8"), ("on".to_owned(), "TARGETING_MATCH"));
    assert_eq!(served(&snapshot, "d9"), ("off".to_owned(), "DEFAULT"));
    assert_eq!(served(&snapshot, "d59"), ("off".to_owned(), "DEFAULT"));
}
