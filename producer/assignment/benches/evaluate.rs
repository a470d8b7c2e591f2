//! Measures what an evaluation costs beside the bare hashes that it cannot do without, in nanoseconds and allocations, in one
//! run: a small experiment, a wide one whose attributes stand in an unlucky order, and a thousand flags at once. A plain
//! program: `cargo bench -p assignment`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use assignment::{
    Context, Environment, Evaluation, EvaluationError, Lists, Name, Seed, Snapshot, Value, evaluate,
    evaluate_all, resolve,
};
use schemas::definition::{Definition, Definitions, Kind};
use schemas::{Bucket, Micros, Uuid};
use serde_json::json;

/// Rounds are so short that the fastest one is not interrupted.
const ROUNDS: usize = 2_000;
const UNITS: usize = 100;

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    // `cargo test --benches` runs this as a test; only `cargo bench` measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let snapshot = Snapshot::compile(&definitions(), &Lists::default(), Environment::PRODUCTION);
    let units: Vec<String> = (0..UNITS).map(|unit| format!("user-{:08}", unit * 7_919)).collect();
    let attributes = [
        (Name::of("country"), Value::Text("DE")),
        (Name::of("plan"), Value::Text("pro")),
        (Name::of("age"), Value::Integer(42)),
        (Name::of("sessions"), Value::Number(12.5)),
    ];
    let now = Micros::new(1_790_000_000_000_000).expect("a time");
    println!("{:<58} {:>8} {:>8} {:>12}", "nanoseconds each, of rounds", "least", "median", "allocations");
    let small = beside_its_hashes("an experiment: 2 arms, 3 rules, texts and numbers", &units, |unit| {
        let context = Context { targeting_key: Some(unit), attributes: black_box(&attributes) };
        used(&evaluate(&snapshot, black_box("checkout"), &context, now));
    });
    let uuids: Vec<String> = (0..UNITS as u128)
        .map(|unit| Uuid::from_u128(unit * 0x0123_4567_89ab_cdef_0f1e_2d3c).to_string())
        .collect();
    let company = json!({"seats": 40, "plan": {"name": "team", "since": 2021}});
    let eight = eight_attributes(&company);
    let wide = beside_its_hashes("3 arms, 6 rules, 8 attributes: nested, versions", &uuids, |unit| {
        let context = Context { targeting_key: Some(unit), attributes: black_box(&eight) };
        used(&evaluate(&snapshot, black_box("onboarding-tour-2026"), &context, now));
    });
    measure("a flag without rules", UNITS, || {
        for unit in &units {
            let context = Context { targeting_key: Some(black_box(unit)), attributes: &[] };
            used(&evaluate(&snapshot, black_box("banner"), &context, now));
        }
    });
    let all = Snapshot::compile(&thousand_flags(), &Lists::default(), Environment::PRODUCTION);
    measure("a thousand flags of one rule, all of them", 1, || {
        let context = Context { targeting_key: Some(black_box("user-1")), attributes: &attributes };
        for (_, answer) in evaluate_all(&all, &context, now) {
            let _ = black_box(answer.expect("a value"));
        }
    });
    println!("an experiment costs {small:.1} times its hashes, the wide one {wide:.1} times");
}

/// Uses an answer where it is, as a service does: a copy of it is not part of the evaluation.
fn used(answer: &Result<Evaluation<'_>, EvaluationError>) {
    assert!(black_box(answer).is_ok());
}

/// Measures the bare hashes of the units and an evaluation, and returns how many times the first the second takes.
fn beside_its_hashes(name: &str, units: &[String], mut evaluation: impl FnMut(&str)) -> f64 {
    let seeds = ["layer/slot", "checkout/rollout", "checkout/variant"].map(Seed::of);
    let bytes = units[0].len();
    let hashes = measure(&format!("three hashes of {bytes} bytes with their buckets"), units.len(), || {
        for unit in units {
            black_box(seeds.map(|seed| Bucket::of_hash(seed.hash(black_box(unit)))));
        }
    });
    let evaluated = measure(name, units.len(), || {
        for unit in units {
            evaluation(black_box(unit));
        }
    });
    evaluated / hashes
}

/// Returns the least nanoseconds of one of the `each` in a call.
fn measure(name: &str, each: usize, mut run: impl FnMut()) -> f64 {
    run();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed().as_nanos() as f64 / each as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<58} {:>8.1} {:>8.1} {allocations:>12}", rounds[0], rounds[ROUNDS / 2]);
    rounds[0]
}

fn propose(definitions: &mut Definitions, kind: Kind, json: serde_json::Value) {
    let written = Definition::from_json(kind, json).expect("a definition");
    let definition = resolve(definitions, Micros::EPOCH, written).expect("its buckets are free");
    let change = definitions.change_to(&definition, Uuid::from_u128(1), "bench", "bench");
    let offset = definitions.next_offset();
    definitions.apply(offset, Micros::EPOCH, &change).expect("the rule is known").expect("it is accepted");
}

/// In an order in which those that the rules ask for most stand last.
fn eight_attributes(company: &serde_json::Value) -> [(Name<'static>, Value<'_>); 8] {
    [
        (Name::of("browser"), Value::Text("Firefox")),
        (Name::of("screen_width"), Value::Integer(1_440)),
        (Name::of("referrer"), Value::Text("https://news.example.org/2026/11/the-best-shops-for-shoes")),
        (Name::of("beta"), Value::Boolean(false)),
        (Name::of("city"), Value::Text("Vienna")),
        (Name::of("locale"), Value::Text("de-AT")),
        (Name::of("app_version"), Value::Text("4.12.1")),
        (Name::of("company"), Value::Json(company)),
    ]
}

/// Of its six rules only the last takes the unit of [`eight_attributes`]; the first asks for an attribute that is not there.
fn wide_experiment() -> serde_json::Value {
    let cities =
        ["Berlin", "Bern", "Graz", "Hamburg", "Linz", "London", "Madrid", "Munich", "Paris", "Zurich"];
    json!({
        "key": "onboarding-tour-2026", "state": "running", "control": "a", "metrics": {"primary": "buy"},
        "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 2_500}, {"key": "c", "weight": 2_500}],
        "targeting": [
            {"key": "staff", "when": {"attribute": "email", "ends_with": "@example.com"}},
            {"key": "old-apps", "when": {"all": [
                {"attribute": "app_version", "version_below": "4.0.0"},
                {"attribute": "locale", "in": ["de-DE", "de-AT"]},
            ]}},
            {"key": "large-companies", "when": {"all": [
                {"attribute": "company.seats", "at_least": 20},
                {"attribute": "company.plan.name", "equals": "enterprise"},
            ]}},
            {"key": "cities", "when": {"all": [
                {"not": {"attribute": "beta", "equals": true}},
                {"attribute": "city", "in": cities},
            ]}},
            {"key": "visitors", "when": {"any": [
                {"attribute": "referrer", "contains": "search.example.net"},
                {"attribute": "screen_width", "above": 2_000},
            ]}},
            {"key": "teams", "when": {"all": [
                {"attribute": "app_version", "version_at_least": "4.10.0"},
                {"attribute": "company.plan.name", "in": ["team", "pro"]},
                {"attribute": "locale", "in": ["de-DE", "de-AT", "de-CH"]},
            ]}},
        ],
    })
}

fn definitions() -> Definitions {
    let mut definitions = Definitions::default();
    propose(&mut definitions, Kind::Metric, json!({"key": "buy", "event": "buy", "type": "conversion"}));
    propose(&mut definitions, Kind::Experiment, wide_experiment());
    let experiment = json!({
        "key": "checkout", "state": "running", "control": "a", "metrics": {"primary": "buy"},
        "variants": [{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}],
        // The first two do not match, so that all three are asked.
        "targeting": [
            {"key": "staff", "when": {"attribute": "plan", "equals": "staff"}},
            {"key": "young", "when": {"all": [{"attribute": "age", "below": 18}, {"attribute": "country", "in": ["US", "CA"]}]}},
            {"key": "adults", "when": {"all": [{"attribute": "age", "at_least": 18}, {"attribute": "country", "in": ["DE", "AT", "CH"]}]}},
        ],
    });
    propose(&mut definitions, Kind::Experiment, experiment);
    let flag = json!({
        "key": "banner", "value_type": "boolean", "default_variant": "off",
        "variants": [{"key": "on", "value": true}, {"key": "off", "value": false}],
    });
    propose(&mut definitions, Kind::Flag, flag);
    definitions
}

fn thousand_flags() -> Definitions {
    let mut definitions = Definitions::default();
    for index in 0..1_000 {
        let flag = json!({
            "key": format!("flag-{index}"), "value_type": "boolean", "default_variant": "off",
            "variants": [{"key": "on", "value": true}, {"key": "off", "value": false}],
            "rules": [{
                "key": "half", "when": {"attribute": "plan", "equals": "pro"},
                "split": [{"variant": "on", "weight": 5_000}, {"variant": "off", "weight": 5_000}],
            }],
        });
        propose(&mut definitions, Kind::Flag, flag);
    }
    definitions
}
