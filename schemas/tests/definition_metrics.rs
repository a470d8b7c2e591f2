//! The rule for delays, filters and caps of metrics, for what ratios and quantiles are of, for covariates and for
//! margins, which is rule 5: which changes need it, what it refuses, and what stays once an experiment runs.

mod change_log;

use change_log::{Log, experiment, with};
use schemas::Key;
use schemas::definition::{Definition, Kind, Rule};
use serde_json::{Value, json};

fn rule_for(log: &Log, kind: &str, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::parse(kind).unwrap(), definition).unwrap())
}

/// Proposes under rule 5.
fn propose(log: &mut Log, kind: &str, definition: Value) -> Result<(), String> {
    log.propose_by(5, kind, definition).map(drop)
}

/// Returns the metric `x` with these fields.
fn metric(fields: Value) -> Value {
    with(json!({"key": "x", "event": "buy"}), fields)
}

fn ratio(fields: Value) -> Value {
    metric(with(json!({"type": "ratio", "denominator_event": "click"}), fields))
}

fn quantile(fields: Value) -> Value {
    metric(with(json!({"type": "quantile", "quantile": 0.5}), fields))
}

/// Returns a running experiment with the guardrail `n` and these margins.
fn with_margins(margins: Value) -> Value {
    experiment(json!({"metrics": {"primary": "m", "guardrails": ["n"], "margins": margins}}))
}

#[test]
fn every_new_field_is_proposed_by_rule_5_and_unknown_to_the_rules_before() {
    let germans = json!([{"metadata": "region", "in": ["DE"]}]);
    for (field, kind, definition) in [
        ("delay_hours", "metric", metric(json!({"type": "conversion", "delay_hours": 1}))),
        ("delay_hours", "metric", metric(json!({"type": "mean", "delay_hours": 8_760}))),
        ("where", "metric", metric(json!({"type": "conversion", "where": germans}))),
        (
            "where",
            "metric",
            metric(json!({"type": "funnel", "then_events": ["pay"], "where": [{"value_below": "9"}]})),
        ),
        (
            "where",
            "metric",
            metric(
                json!({"type": "retention", "retention_days": [1, 7], "where": [{"value_at_least": "-0.5"}]}),
            ),
        ),
        ("cap", "metric", metric(json!({"type": "mean", "cap": "0.000001"}))),
        ("cap", "metric", metric(json!({"type": "count", "cap": "999999999999.999999"}))),
        ("numerator", "metric", ratio(json!({"numerator": "total"}))),
        ("denominator", "metric", ratio(json!({"denominator": "total"}))),
        ("denominator_where", "metric", ratio(json!({"denominator_where": germans}))),
        ("per_unit", "metric", quantile(json!({"per_unit": "mean"}))),
        ("per_unit", "metric", quantile(json!({"per_unit": "largest"}))),
        ("per_unit", "metric", quantile(json!({"per_unit": "first"}))),
        ("margins", "experiment", with_margins(json!({"n": 0.01}))),
        ("covariate_days", "experiment", experiment(json!({"plan": {"covariate_days": 1}}))),
        ("covariate_days", "experiment", experiment(json!({"plan": {"covariate_days": 90}}))),
    ] {
        let mut log = Log::furnished();
        assert_eq!(rule_for(&log, kind, definition.clone()), Rule::Five, "{definition}");
        for rule in [1, 2, 3, 4] {
            let refused = format!(
                "the record cannot be understood: {field}: not in rule {rule}, which this change names"
            );
            assert_eq!(log.clone().propose_by(rule, kind, definition.clone()), Err(refused), "{definition}");
        }
        assert_eq!(propose(&mut log, kind, definition.clone()), Ok(()), "{definition}");
    }
}

#[test]
fn what_earlier_rules_can_say_is_proposed_by_them() {
    let log = Log::furnished();
    for (kind, definition) in [
        ("metric", metric(json!({"type": "mean", "winsorize": 0.99, "window_hours": 24}))),
        ("metric", metric(json!({"type": "retention", "retention_days": [1, 7]}))),
        // What is given is the default.
        ("metric", ratio(json!({"numerator": "events", "denominator": "events", "denominator_where": []}))),
        ("metric", quantile(json!({"per_unit": "total", "where": []}))),
        ("experiment", with_margins(json!({}))),
    ] {
        assert_eq!(rule_for(&log, kind, definition.clone()), Rule::One, "{definition}");
    }
    assert_eq!(rule_for(&log, "experiment", experiment(json!({"client_safe": true}))), Rule::Three);
    let hourly = json!({"switchback": {"window_seconds": 3_600}, "unit_type": "region"});
    assert_eq!(rule_for(&log, "experiment", experiment(hourly.clone())), Rule::Four);
    // A field of rule 4 beside one of rule 5 is named first by rule 3, and by rule 4 the later one.
    let both = with(experiment(hourly), json!({"plan": {"covariate_days": 7}}));
    for (rule, field) in [(3, "switchback"), (4, "covariate_days")] {
        let refused =
            format!("the record cannot be understood: {field}: not in rule {rule}, which this change names");
        assert_eq!(log.clone().propose_by(rule, "experiment", both.clone()), Err(refused));
    }
}

#[test]
fn what_was_accepted_by_rule_5_is_changed_by_it() {
    let mut log = Log::furnished();
    propose(&mut log, "metric", metric(json!({"type": "count", "cap": "5"}))).unwrap();
    let plain = metric(json!({"type": "count"}));
    assert_eq!(rule_for(&log, "metric", plain.clone()), Rule::Five);
    propose(&mut log, "metric", plain.clone()).unwrap();
    assert_eq!(rule_for(&log, "metric", with(plain, json!({"owner": "ann"}))), Rule::One);
}

#[test]
fn the_log_has_decimals_with_six_places_and_no_defaults() {
    let stored = |definition: Value| Definition::from_json(Kind::Metric, definition).unwrap().to_json();
    assert_eq!(
        stored(metric(json!({
            "type": "mean", "delay_hours": 24, "cap": "250", "where": [{"value_at_least": "-0.5"}]
        }))),
        r#"{"key":"x","owner":"","description":"","event":"buy","type":"mean","delay_hours":24,"where":[{"value_at_least":"-0.500000"}],"direction":"increase","cap":"250.000000"}"#
    );
    let defaults =
        json!({"numerator": "events", "denominator": "events", "denominator_where": [], "where": []});
    assert_eq!(
        stored(ratio(defaults)),
        r#"{"key":"x","owner":"","description":"","event":"buy","type":"ratio","direction":"increase","denominator_event":"click"}"#
    );
    assert_eq!(
        stored(quantile(json!({"per_unit": "total"}))),
        r#"{"key":"x","owner":"","description":"","event":"buy","type":"quantile","direction":"increase","quantile":0.5}"#
    );
}

#[test]
fn rule_5_refuses_what_contradicts_itself() {
    let verdict = |definition: Value| propose(&mut Log::furnished(), "metric", definition);
    let refused = |text: &str| Err(text.to_owned());
    assert_eq!(
        verdict(metric(json!({"type": "mean", "winsorize": 0.9, "cap": "1"}))),
        refused("cap: `winsorize` cuts the values already; leave one of the two out")
    );
    assert_eq!(
        verdict(metric(json!({"type": "retention", "retention_days": [1, 7], "delay_hours": 0}))),
        refused(
            "delay_hours: 0 is not in 1 to 8760; delay_hours: the days of a retention say it already; leave it out"
        )
    );
    // Everything that is wrong is listed at once.
    assert_eq!(
        verdict(metric(json!({
            "type": "count", "delay_hours": 8_761, "per_unit": "first", "cap": "0", "where": [
                {"metadata": "a", "in": []}, {"metadata": "a", "not_in": ["x", "x"]}
            ]
        }))),
        refused(
            "delay_hours: 8761 is not in 1 to 8760; per_unit: does not belong to this type of metric; cap: 0.000000 is \
             not above 0; where[0].in: 0 texts is not in 1 to 100; where[1].not_in[1]: `x` is named twice"
        )
    );
}

#[test]
fn a_filter_has_at_most_16_tests_and_a_list_100_texts() {
    let with_tests = |tests: usize| {
        metric(json!({"type": "count", "where": vec![json!({"metadata": "a", "exists": true}); tests]}))
    };
    let with_texts = |texts: usize| {
        let texts: Vec<String> = (0..texts).map(|text| text.to_string()).collect();
        ratio(json!({"denominator_where": [{"metadata": "a", "not_in": texts}]}))
    };
    let verdict = |definition: Value| propose(&mut Log::furnished(), "metric", definition);
    assert_eq!(verdict(with_tests(16)), Ok(()));
    assert_eq!(verdict(with_tests(17)), Err("where: 17 tests is more than 16".to_owned()));
    assert_eq!(verdict(with_texts(100)), Ok(()));
    assert_eq!(
        verdict(with_texts(101)),
        Err("denominator_where[0].not_in: 101 texts is not in 1 to 100".to_owned())
    );
}

#[test]
fn a_retention_with_a_window_is_refused_and_an_older_one_stays_readable() {
    let retention =
        |fields: Value| metric(with(json!({"type": "retention", "retention_days": [1, 7]}), fields));
    let refused = Err("window_hours: the days of a retention say it already; leave it out".to_owned());
    let mut log = Log::furnished();
    // A writer names the rule that refuses it.
    let both = retention(json!({"window_hours": 24}));
    assert_eq!(rule_for(&log, "metric", both.clone()), Rule::Five);
    assert_eq!(propose(&mut log, "metric", both.clone()), refused);
    // An earlier build's record is read as before, and the metric can get another owner.
    log.propose_by(4, "metric", both.clone()).unwrap();
    assert_eq!(log.read.metric(&Key::new("x").unwrap()).unwrap().window_hours, Some(24));
    let owned = with(both, json!({"owner": "ann"}));
    assert_eq!(rule_for(&log, "metric", owned.clone()), Rule::One);
    log.propose_by(1, "metric", owned).unwrap();
    let another = retention(json!({"window_hours": 48}));
    assert_eq!(rule_for(&log, "metric", another.clone()), Rule::Five);
    assert_eq!(propose(&mut log, "metric", another), refused);
    // Without the window no later rule is needed than for any change of what it measures.
    assert_eq!(rule_for(&log, "metric", retention(json!({}))), Rule::Two);
    log.propose_by(2, "metric", retention(json!({}))).unwrap();
}

#[test]
fn every_new_option_of_a_metric_stays_under_an_experiment() {
    let count = |fields: Value| metric(with(json!({"type": "count"}), fields));
    let region = |region: &str| json!([{"metadata": "region", "in": [region]}]);
    for (field, before, after) in [
        ("delay_hours", count(json!({})), count(json!({"delay_hours": 1}))),
        ("delay_hours", count(json!({"delay_hours": 1})), count(json!({"delay_hours": 2}))),
        ("where", count(json!({"where": region("DE")})), count(json!({"where": region("FR")}))),
        ("where", count(json!({"where": region("DE")})), count(json!({}))),
        ("cap", count(json!({"cap": "1"})), count(json!({"cap": "1.000001"}))),
        ("winsorize", count(json!({"cap": "1"})), count(json!({"winsorize": 0.9}))),
        ("numerator", ratio(json!({})), ratio(json!({"numerator": "total"}))),
        ("denominator", ratio(json!({"denominator": "total"})), ratio(json!({}))),
        ("denominator_where", ratio(json!({})), ratio(json!({"denominator_where": region("DE")}))),
        ("per_unit", quantile(json!({})), quantile(json!({"per_unit": "first"}))),
    ] {
        let mut log = Log::furnished();
        propose(&mut log, "metric", before).unwrap();
        let guarded = json!({"metrics": {"primary": "m", "guardrails": ["x"]}});
        log.propose("experiment", experiment(guarded)).unwrap();
        assert_eq!(
            propose(&mut log, "metric", after),
            Err(format!(
                "{field}: cannot change under experiment `e`, which is running; define a metric with another key and \
                 name it in a clone of the experiment"
            ))
        );
    }
    // The same decimal in another form is no change.
    let mut log = Log::furnished();
    propose(&mut log, "metric", count(json!({"cap": "1"}))).unwrap();
    log.propose("experiment", experiment(json!({"metrics": {"primary": "x"}}))).unwrap();
    assert_eq!(propose(&mut log, "metric", count(json!({"cap": "1.00"}))), Ok(()));
}

#[test]
fn a_value_is_final_when_the_last_window_has_closed() {
    let hours = |definition: Value| match Definition::from_json(Kind::Metric, definition).unwrap() {
        Definition::Metric(metric) => metric.final_after_hours(),
        other => panic!("{other:?}"),
    };
    let conversion = |fields: Value| hours(metric(with(json!({"type": "conversion"}), fields)));
    assert_eq!(conversion(json!({})), None);
    assert_eq!(conversion(json!({"delay_hours": 5})), None);
    assert_eq!(conversion(json!({"window_hours": 24})), Some(24));
    assert_eq!(conversion(json!({"window_hours": 24, "delay_hours": 5})), Some(29));
    let funnel = json!({"type": "funnel", "then_events": ["b", "c"], "window_hours": 24, "delay_hours": 5});
    assert_eq!(hours(metric(funnel)), Some(77));
    let retention = json!({"type": "retention", "retention_days": [1, 7]});
    assert_eq!(hours(metric(retention)), Some(192));
}

#[test]
fn a_margin_is_for_a_guardrail_and_between_0_and_1() {
    let verdict = |margins: Value| propose(&mut Log::furnished(), "experiment", with_margins(margins));
    for margin in [1e-9, 0.05, 0.999_999] {
        assert_eq!(verdict(json!({"n": margin})), Ok(()), "{margin}");
    }
    for (margins, refusal) in [
        (json!({"n": 0}), "metrics.margins.n: 0 is not in (0, 1)"),
        (json!({"n": 1}), "metrics.margins.n: 1 is not in (0, 1)"),
        (json!({"n": -0.1}), "metrics.margins.n: -0.1 is not in (0, 1)"),
        (
            json!({"m": 0.1}),
            "metrics.margins.m: `m` is no guardrail of the experiment; name it in `metrics.guardrails`, or leave it out",
        ),
    ] {
        assert_eq!(verdict(margins), Err(refusal.to_owned()));
    }
}

#[test]
fn the_margin_of_a_guardrail_stays_once_it_runs() {
    let of = |state: &str, guardrails: &[&str], margins: Value| {
        let metrics = json!({"primary": "m", "guardrails": guardrails, "margins": margins});
        experiment(json!({"state": state, "metrics": metrics}))
    };
    let mut log = Log::furnished();
    propose(&mut log, "metric", metric(json!({"type": "count"}))).unwrap();
    propose(&mut log, "experiment", of("draft", &["n"], json!({"n": 0.1}))).unwrap();
    propose(&mut log, "experiment", of("running", &["n"], json!({"n": 0.2}))).unwrap();
    let fixed = |key: &str| {
        Err(format!(
            "metrics.margins.{key}: cannot change any more, for the looks so far judged harm by the former one; clone it \
             under another key"
        ))
    };
    for state in ["running", "stopped"] {
        assert_eq!(propose(&mut log, "experiment", of(state, &["n"], json!({"n": 0.3}))), fixed("n"));
        assert_eq!(propose(&mut log, "experiment", of(state, &["n"], json!({}))), fixed("n"));
    }
    // A record of an earlier rule, which cannot name the margin, cannot drop it either.
    let without = experiment(json!({"metrics": {"primary": "m", "guardrails": ["n"]}}));
    assert_eq!(log.propose_by(4, "experiment", without.clone()).map(drop), fixed("n"));
    // A guardrail that is added brings its margin, and has it from then on.
    let both = json!({"n": 0.2, "x": 0.05});
    assert_eq!(propose(&mut log, "experiment", of("running", &["n", "x"], both)), Ok(()));
    assert_eq!(propose(&mut log, "experiment", of("running", &["n", "x"], json!({"n": 0.2}))), fixed("x"));
    // One without a margin gets none.
    let mut log = Log::furnished();
    log.propose("experiment", without).unwrap();
    assert_eq!(propose(&mut log, "experiment", of("running", &["n"], json!({"n": 0.1}))), fixed("n"));
}

#[test]
fn the_covariate_is_of_1_to_90_days_and_stays_once_it_runs() {
    let of = |state: &str, days: Value| experiment(json!({"state": state, "plan": {"covariate_days": days}}));
    let out_of_range = |days: u32| Err(format!("plan.covariate_days: {days} is not in 1 to 90"));
    for days in [0, 91] {
        let verdict = propose(&mut Log::furnished(), "experiment", of("running", json!(days)));
        assert_eq!(verdict, out_of_range(days));
    }
    let mut log = Log::furnished();
    propose(&mut log, "experiment", of("draft", json!(7))).unwrap();
    propose(&mut log, "experiment", of("running", json!(14))).unwrap();
    let fixed = Err(
        "plan: cannot change any more, for the looks so far were taken and spent alpha by the former one; \
                     clone it under another key"
            .to_owned(),
    );
    for days in [json!(7), json!(null)] {
        assert_eq!(propose(&mut log, "experiment", of("running", days)), fixed);
    }
}

/// Returns an experiment from 1 February to 1 March 2026, 28 days, with a covariate of 14 days.
fn scheduled() -> Value {
    let schedule = json!({"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T00:00:00Z"});
    experiment(json!({"metrics": {"primary": "x"}, "plan": {"schedule": schedule, "covariate_days": 14}}))
}

fn keeping(exposures: u32, conversions: u32) -> Value {
    json!({"key": "platform", "retention_days": {"exposures": exposures, "conversions": conversions}})
}

/// A delay of a day and a window of a week after the 28 days make 36. The covariate is of conversions alone: 50 days.
#[test]
fn events_are_kept_from_the_covariate_on_and_through_the_delay() {
    let mut furnished = Log::furnished();
    let delayed = metric(json!({"type": "count", "delay_hours": 24, "window_hours": 168}));
    propose(&mut furnished, "metric", delayed).unwrap();
    let exposures = "from its start to its end and through the longest window of its metrics";
    let conversions = "from the 14 days of its covariate before its start to its end and through the longest window of \
                       its metrics";
    let keep = |settings: Value| {
        let mut log = furnished.clone();
        propose(&mut log, "settings", settings).unwrap();
        propose(&mut log, "experiment", scheduled())
    };
    assert_eq!(keep(keeping(36, 50)), Ok(()));
    assert_eq!(
        keep(keeping(35, 50)),
        Err(format!(
            "plan.schedule.end: {exposures} are 36 days, and the settings keep exposures for 35; end it earlier, or \
             raise `retention_days.exposures` first"
        ))
    );
    assert_eq!(
        keep(keeping(36, 49)),
        Err(format!(
            "plan.schedule.end: {conversions} are 50 days, and the settings keep conversions for 49; end it earlier, or \
             raise `retention_days.conversions` first"
        ))
    );
    let mut log = furnished.clone();
    propose(&mut log, "experiment", scheduled()).unwrap();
    assert_eq!(
        propose(&mut log, "settings", keeping(35, 49)),
        Err(format!(
            "retention_days.exposures: experiment `e`, which is running, needs its events for 36 days, {exposures}; keep \
             them as long, or archive it first; retention_days.conversions: experiment `e`, which is running, needs its \
             events for 50 days, {conversions}; keep them as long, or archive it first"
        ))
    );
    assert_eq!(propose(&mut log, "settings", keeping(36, 50)), Ok(()));
}
