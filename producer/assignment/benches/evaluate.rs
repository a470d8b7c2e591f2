//! Measures what an evaluation costs beside the bare hashes that it cannot do without, in nanoseconds and allocations, in one
//! run; then a thousand flags at once. A plain program: `cargo bench -p assignment`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use assignment::{Context, Environment, Lists, Seed, Snapshot, Value, evaluate, evaluate_all, resolve};
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
        ("country", Value::Text("DE")),
        ("plan", Value::Text("pro")),
        ("age", Value::Integer(42)),
        ("sessions", Value::Number(12.5)),
    ];
    let now = Micros::new(1_790_000_000_000_000).expect("a time");
    let seeds = ["layer/slot", "checkout/rollout", "checkout/variant"].map(Seed::of);

    println!("{:<58} {:>8} {:>8} {:>12}", "nanoseconds each, of rounds", "least", "median", "allocations");
    let hashes = measure("three hashes with their buckets", UNITS, || {
        for unit in &units {
            black_box(seeds.map(|seed| Bucket::of_hash(seed.hash(black_box(unit)))));
        }
    });
    let evaluation = measure("an experiment: 2 arms, 3 rules, texts and numbers", UNITS, || {
        for unit in &units {
            let context =
                Context { targeting_key: Some(black_box(unit)), attributes: black_box(&attributes) };
            black_box(evaluate(&snapshot, black_box("checkout"), &context, now)).expect("a unit is there");
        }
    });
    measure("a flag without rules", UNITS, || {
        for unit in &units {
            let context = Context { targeting_key: Some(black_box(unit)), attributes: &[] };
            black_box(evaluate(&snapshot, black_box("banner"), &context, now)).expect("a value");
        }
    });
    let all = Snapshot::compile(&thousand_flags(), &Lists::default(), Environment::PRODUCTION);
    measure("a thousand flags of one rule, all of them", 1, || {
        let context = Context { targeting_key: Some(black_box("user-1")), attributes: &attributes };
        for (_, answer) in evaluate_all(&all, &context, now) {
            let _ = black_box(answer.expect("a value"));
        }
    });
    println!("an experiment costs {:.1} times its hashes", evaluation / hashes);
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

fn definitions() -> Definitions {
    let mut definitions = Definitions::default();
    propose(&mut definitions, Kind::Metric, json!({"key": "buy", "event": "buy", "type": "conversion"}));
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
