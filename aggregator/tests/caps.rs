//! The cap of a winsorized metric: frozen at the first look with enough values, and never moved.

mod story;

use aggregator::document::{Cap, Role, Verdict};
use counting::kind::Value as UnitValue;
use counting::sums::{Shape, Sums};
use serde_json::{Value, json};
use stats::{Alpha, Moments, Pair, fixed_horizon};
use story::{Counted, Story, metric};

/// Units with these totals, whole numbers of the unit, and 30 without events. Single values are kept.
fn arm(totals: &[i128]) -> Sums {
    let mut sums = Sums::default();
    for total in totals.iter().copied().chain([0; 30]) {
        let y = total * 1_000_000;
        let value = UnitValue { takes_part: true, has_event: y != 0, y, x: 0, steps: 0 };
        sums.add(&value, Shape { steps: 0, keeps_values: true });
    }
    sums
}

fn counted(role: Role, cap: Option<i128>, arms: [Sums; 2]) -> Counted {
    let metric = metric("m", &json!({"type": "mean", "winsorize": 0.9}));
    Counted { metric, role, cap, arms: arms.map(|arm| (arm, Sums::default())).to_vec() }
}

/// 1 to 12 in one arm, 1 to 11 and 1,000 in the other: of the 24 values the 22nd is 11.
fn both() -> [Sums; 2] {
    let low: Vec<i128> = (1..=12).collect();
    let high: Vec<i128> = (1..=11).chain([1_000]).collect();
    [arm(&low), arm(&high)]
}

fn mean_test(arms: [Vec<f64>; 2]) -> (f64, f64) {
    let [control, treatment] = arms.map(|arm| Moments::of(arm.into_iter().chain([0.0; 30])).unwrap());
    let found = fixed_horizon::compare_means(Pair { control, treatment }, Alpha::FIVE_PERCENT).unwrap();
    (found.test.t, found.test.effect.estimate)
}

/// At the 90 % quantile 20 values are needed.
#[test]
fn before_the_cap_is_known_there_is_no_number() {
    let mut story = Story::of(json!({"horizon_units": 1_000}));
    let few: Vec<i128> = (1..=9).collect();
    story.analyze_counted(&[counted(Role::Primary, None, [arm(&few), arm(&few)])]);
    story.check(
        Verdict::NotEnoughData,
        "Not enough data on `m`: its cap needs 20 values that are not 0, and 18 are there.",
    );
    let metric = &story.last().metrics[0];
    assert_eq!(metric.cap, Some(Cap { value: None, values: 18, values_needed: 20 }));
    assert_eq!((metric.tests.len(), metric.boundaries.len(), metric.variants[0].mean), (0, 0, None));
    assert_eq!(story.looks, []);
}

#[test]
fn the_look_that_knows_the_cap_freezes_it_and_is_cut_at_it() {
    let mut story = Story::of(json!({}));
    story.analyze_counted(&[counted(Role::Primary, None, both())]);
    let look: Value = serde_json::to_value(&story.looks[0]).unwrap();
    assert_eq!(
        look["caps"],
        json!([{
            "metric": "m",
            "measures": {"event": "buy", "type": "mean", "winsorize": 0.9},
            "cap": "11000000",
        }])
    );
    let metric = &story.last().metrics[0];
    assert_eq!(metric.cap, Some(Cap { value: Some(11.0), values: 24, values_needed: 20 }));
    assert_eq!(metric.facts(), ["Values above 11.00 count as 11.00, the cap that a look has frozen"]);
    let low = || (1..=11).map(f64::from).chain([11.0]).collect::<Vec<f64>>();
    let (t, difference) = mean_test([low(), low()]);
    assert_eq!((metric.tests[0].t, metric.tests[0].lift_absolute), (Some(t), Some(difference)));
    assert_eq!(difference, 0.0);
    // 2 * (1 + ... + 11) + 2 * 11 over 84 units.
    assert_eq!(metric.variants[0].mean, Some(77.0 / 42.0));
}

/// Larger values come, and the cap stays: whether the values were counted with it, or by an aggregator that did not know
/// it yet.
#[test]
fn a_frozen_cap_never_moves() {
    let mut story = Story::of(json!({}));
    story.analyze_counted(&[counted(Role::Primary, None, both())]);
    let large: Vec<i128> = (1..=12).map(|value| value * 100).collect();
    story.analyze_counted(&[counted(Role::Primary, None, [arm(&large), arm(&large[..6])])]);
    let metric = &story.last().metrics[0];
    assert_eq!(metric.cap.unwrap().value, Some(11.0));
    assert_eq!(metric.variants[0].mean, Some(12.0 * 11.0 / 42.0));
    assert!(story.looks.iter().skip(1).all(|look| look.caps.is_empty()));
    // As they are counted with it.
    let cut = [arm(&[11; 12]), arm(&[11; 6])];
    story.analyze_counted(&[counted(Role::Primary, Some(11_000_000), cut)]);
    let metric = &story.last().metrics[0];
    assert_eq!(metric.cap.unwrap().value, Some(11.0));
    assert_eq!(metric.variants[0].mean, Some(12.0 * 11.0 / 42.0));
}

/// Of another quantile it is another cap.
#[test]
fn a_cap_belongs_to_what_is_measured() {
    let mut story = Story::of(json!({}));
    story.analyze_counted(&[counted(Role::Primary, None, both())]);
    let half = Counted {
        metric: metric("m", &json!({"type": "mean", "winsorize": 0.75})),
        ..counted(Role::Primary, None, both())
    };
    story.analyze_counted(&[half]);
    // The 18th of 24.
    assert_eq!(story.last().metrics[0].cap.unwrap().value, Some(9.0));
}

#[test]
fn a_secondary_metric_has_a_look_for_its_cap() {
    let mut story = Story::of(json!({}));
    let conversions: Vec<i128> = vec![1; 12];
    let primary = Counted {
        metric: metric("p", &json!({"type": "conversion"})),
        ..counted(Role::Primary, None, [arm(&conversions), arm(&conversions)])
    };
    story.analyze_counted(&[primary, counted(Role::Secondary, None, both())]);
    assert_eq!(story.looks.len(), 1);
    assert_eq!(story.looks[0].caps[0].cap, "11000000");
    assert!(story.looks[0].comparisons.iter().all(|of| of.of.metric == "p"));
}

/// A look without caps is written as before there were any.
#[test]
fn records_without_caps_are_as_before() {
    let mut story = Story::of(json!({"horizon_units": 10_000}));
    story.analyze(&[(1_000, 100), (1_000, 110)]);
    let record = serde_json::to_value(&story.looks[0]).unwrap();
    let fields: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "alpha_spent_before",
            "analysis_id",
            "as_of",
            "comparisons",
            "cut",
            "definition_version",
            "phases_left_out",
            "sample_ratio_alarms",
        ]
    );
    let planned = record["comparisons"][0]["planned"].as_object().unwrap();
    assert!(!planned.contains_key("is_early"));
    let sums = record["comparisons"][0]["phases"][0]["control"].to_string();
    assert_eq!(sums, r#"{"conversions":100,"units":1000}"#);
}
