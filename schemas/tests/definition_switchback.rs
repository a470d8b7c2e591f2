//! The rule for switchbacks, which is rule 4: what a window may be, what a switchback cannot be, and that it stays once it
//! runs.

mod change_log;

use change_log::{Log, experiment, with};
use schemas::definition::{Definition, Kind, Rule};
use serde_json::{Value, json};

fn switchback(window_seconds: u32, burn_in_seconds: u32) -> Value {
    let switchback = json!({"window_seconds": window_seconds, "burn_in_seconds": burn_in_seconds});
    experiment(json!({"unit_type": "region", "switchback": switchback}))
}

fn rule_for(log: &Log, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::Experiment, definition).unwrap())
}

/// Proposes under rule 4.
fn propose(log: &mut Log, definition: Value) -> Result<(), String> {
    log.propose_by(4, "experiment", definition).map(drop)
}

#[test]
fn a_switchback_is_proposed_by_rule_4_and_unknown_to_the_rules_before() {
    let mut log = Log::furnished();
    let hourly = switchback(3_600, 600);
    assert_eq!(rule_for(&log, experiment(json!({}))), Rule::One);
    assert_eq!(rule_for(&log, experiment(json!({"client_safe": true}))), Rule::Three);
    assert_eq!(rule_for(&log, hourly.clone()), Rule::Four);
    for rule in [1, 2, 3] {
        let refused = format!(
            "the record cannot be understood: switchback: not in rule {rule}, which this change names"
        );
        assert_eq!(log.clone().propose_by(rule, "experiment", hourly.clone()), Err(refused));
    }
    // A field of rule 3 beside it is not named first by rule 4.
    assert_eq!(propose(&mut log, with(hourly.clone(), json!({"client_safe": true}))), Ok(()));
    // What was accepted under rule 4 is changed under it as well.
    let draft = |fields: Value| with(experiment(json!({"key": "d", "state": "draft"})), fields);
    propose(&mut log, draft(json!({"switchback": {"window_seconds": 60}}))).unwrap();
    assert_eq!(rule_for(&log, draft(json!({}))), Rule::Four);
    assert_eq!(propose(&mut log, draft(json!({}))), Ok(()));
    assert_eq!(rule_for(&log, draft(json!({}))), Rule::One);
}

#[test]
fn a_window_is_a_minute_to_a_week_and_longer_than_its_burn_in() {
    let verdict = |window, burn_in| propose(&mut Log::furnished(), switchback(window, burn_in));
    for (window, burn_in) in [(60, 0), (60, 59), (604_800, 604_799)] {
        assert_eq!(verdict(window, burn_in), Ok(()), "{window} {burn_in}");
    }
    let refused = |text: &str| Err(text.to_owned());
    assert_eq!(verdict(59, 0), refused("switchback.window_seconds: 59 is not in 60 to 604800"));
    assert_eq!(verdict(604_801, 0), refused("switchback.window_seconds: 604801 is not in 60 to 604800"));
    assert_eq!(
        verdict(60, 60),
        refused("switchback.burn_in_seconds: 60 is not below the window of 60, so nothing would count")
    );
}

#[test]
fn the_units_of_an_external_experiment_and_of_a_holdout_have_no_windows() {
    let mut external = switchback(3_600, 0);
    let arms = json!([{"key": "a", "weight": 5_000}, {"key": "b", "weight": 5_000}]);
    external = with(external, json!({"assignment": "external", "variants": arms}));
    assert_eq!(
        propose(&mut Log::furnished(), external),
        Err("switchback: the windows of an external experiment are the other system's; leave it out, and send its \
             windows as units"
            .to_owned())
    );
    let holdout = with(switchback(3_600, 0), json!({"holdout": true}));
    assert_eq!(
        propose(&mut Log::furnished(), holdout),
        Err("switchback: the slot alone decides who is held out: the weight of the control; leave this out"
            .to_owned())
    );
}

#[test]
fn a_switchback_stays_once_it_runs() {
    let refused = Err(
        "switchback: cannot change any more, for the units so far are windows of the former one; clone it \
                       under another key"
            .to_owned(),
    );
    let plain = experiment(json!({"unit_type": "region"}));
    for (before, after) in [
        (switchback(3_600, 600), switchback(7_200, 600)),
        (switchback(3_600, 600), switchback(3_600, 0)),
        (switchback(3_600, 600), plain.clone()),
        (plain, switchback(3_600, 600)),
    ] {
        for state in ["running", "stopped"] {
            let mut log = Log::furnished();
            propose(&mut log, before.clone()).unwrap();
            let after = with(after.clone(), json!({"state": state}));
            assert_eq!(propose(&mut log, after), refused, "{before}");
        }
        let mut log = Log::furnished();
        propose(&mut log, with(before, json!({"state": "draft"}))).unwrap();
        assert_eq!(propose(&mut log, after), Ok(()));
    }
}
