//! The rule for what a change does to other definitions: other members of a list exchange the units of the experiments that
//! name it, and a variant that goes switches the flags off that wait for it. All of it is rule 4.

mod change_log;

use change_log::{Log, experiment, flag, with};
use schemas::Key;
use schemas::definition::{Change, Definition, Kind, ListsSince, Rule};
use serde_json::{Value, json};

fn list(key: &str, digit: char) -> Value {
    json!({"key": key, "members_sha256": digit.to_string().repeat(64), "members": 1})
}

#[track_caller]
fn check(log: &mut Log, rule: u32, kind: &str, definition: Value, expected: Result<(), &str>) {
    let verdict = log.propose_by(rule, kind, definition.clone()).map(|_| ());
    assert_eq!(verdict, expected.map_err(str::to_owned), "{definition}");
}

fn rule_for(log: &Log, kind: &str, definition: Value) -> Rule {
    log.read.rule_for(&Definition::from_json(Kind::parse(kind).unwrap(), definition).unwrap())
}

const OPENS: &str = "phase: 1 instead of 2: a change of who sees what opens the next phase; leave `phase` out, and it is counted";
const OPENS_NOTHING: &str =
    "phase: 2 instead of 1: nothing opens a new phase; leave `phase` out, and it is counted";

/// Each way to name the list `u` for units that count.
fn named() -> [Value; 4] {
    let targeting = json!([{"key": "t", "when": {"not": {"attribute": "targetingKey", "in_list": "u"}}}]);
    [
        json!({"deny": ["u"]}),
        json!({"allow": [{"list": "u", "variant": "a"}]}),
        json!({"targeting": targeting}),
        json!({"environments": {"production": {"targeting": targeting}}}),
    ]
}

#[test]
fn other_members_of_a_list_open_the_next_phase_of_an_experiment_that_runs() {
    for fields in named() {
        let mut log = Log::furnished();
        log.propose("list", list("u", '0')).unwrap();
        let first = experiment(fields.clone());
        check(&mut log, 3, "experiment", first.clone(), Ok(()));
        check(&mut log, 1, "list", with(list("u", '0'), json!({"description": "d"})), Ok(()));
        // Even though the list has the same members: it may get others in the meantime.
        let described = with(first.clone(), json!({"description": "d"}));
        assert_eq!(rule_for(&log, "experiment", described), Rule::Four);
        check(
            &mut log.clone(),
            4,
            "experiment",
            with(first.clone(), json!({"phase": 2})),
            Err(OPENS_NOTHING),
        );

        check(&mut log, 1, "list", list("u", '1'), Ok(()));
        let second = with(first.clone(), json!({"phase": 2}));
        assert_eq!(rule_for(&log, "experiment", second.clone()), Rule::Four);
        check(&mut log.clone(), 4, "experiment", first.clone(), Err(OPENS));
        // An old record stays judged as it was.
        check(&mut log.clone(), 3, "experiment", first.clone(), Ok(()));
        check(&mut log.clone(), 3, "experiment", second.clone(), Err(OPENS_NOTHING));
        // Nobody is exposed any more to one that ends.
        let stopped = with(first.clone(), json!({"state": "stopped"}));
        assert_eq!(rule_for(&log, "experiment", stopped.clone()), Rule::Three);
        check(&mut log.clone(), 4, "experiment", stopped, Ok(()));
        check(&mut log, 4, "experiment", second.clone(), Ok(()));
        // It has opened, and the next change opens nothing.
        let third = with(second, json!({"description": "d"}));
        check(&mut log, 4, "experiment", third, Ok(()));
    }
}

/// A writer that had not seen the list's change wrote another description under a lower rule. From then on nothing opened the
/// phase, for the list was compared with the experiment's version.
#[test]
fn an_edit_that_opens_nothing_leaves_the_next_phase_owed() {
    for fields in named() {
        let mut log = Log::furnished();
        log.propose("list", list("u", '0')).unwrap();
        let first = experiment(fields.clone());
        check(&mut log, 3, "experiment", first.clone(), Ok(()));
        let described = with(first, json!({"description": "d"}));
        let unseen = Change { rule_version: 3, ..log.change("experiment", described.clone()) };
        check(&mut log, 1, "list", list("u", '1'), Ok(()));
        log.take(&unseen).unwrap();
        let (e, u) = (Key::new("e").unwrap(), Key::new("u").unwrap());
        assert_eq!(log.read.lists_since(&e), ListsSince::Changed);
        assert_eq!(log.read.concerned_by_members(&u).len(), 1);
        check(&mut log.clone(), 4, "experiment", with(described.clone(), json!({"owner": "o"})), Err(OPENS));
        check(&mut log, 4, "experiment", with(described, json!({"phase": 2})), Ok(()));
        assert_eq!(log.read.lists_since(&e), ListsSince::Unchanged);
        assert_eq!(log.read.concerned_by_members(&u), Vec::<&_>::new());
    }
}

/// The first reader that did not know rule 4 would have had to stop, for nothing.
#[test]
fn rule_4_is_named_only_by_a_step_from_running_to_running_that_lists_can_turn() {
    let in_state = |state: &str, fields: Value| with(experiment(json!({"state": state})), fields);
    for fields in named() {
        let mut log = Log::furnished();
        log.propose("list", list("u", '0')).unwrap();
        let draft = in_state("draft", fields.clone());
        check(&mut log, 3, "experiment", draft.clone(), Ok(()));
        check(&mut log, 1, "list", list("u", '1'), Ok(()));
        assert_eq!(rule_for(&log, "experiment", with(draft, json!({"owner": "o"}))), Rule::Three);
        let running = in_state("running", fields.clone());
        assert_eq!(rule_for(&log, "experiment", running.clone()), Rule::Three);
        check(&mut log, 3, "experiment", running.clone(), Ok(()));
        assert_eq!(rule_for(&log, "experiment", with(running, json!({"owner": "o"}))), Rule::Four);
        let stopped = in_state("stopped", fields.clone());
        assert_eq!(rule_for(&log, "experiment", stopped.clone()), Rule::Three);
        check(&mut log, 3, "experiment", stopped, Ok(()));
        let again = with(in_state("running", fields.clone()), json!({"phase": 2}));
        assert_eq!(rule_for(&log, "experiment", again), Rule::Three);
    }
    let mut log = Log::with_experiment("running");
    assert_eq!(rule_for(&log, "experiment", experiment(json!({"owner": "o"}))), Rule::One);
    log.propose("list", list("u", '0')).unwrap();
    // It opens a phase by itself, under every rule.
    let denies = experiment(json!({"deny": ["u"], "phase": 2}));
    assert_eq!(rule_for(&log, "experiment", denies), Rule::Three);
}

/// What the list was before the experiment ran, or ran again, is of no phase.
#[test]
fn members_that_changed_before_the_phase_began_open_nothing() {
    let mut log = Log::furnished();
    log.propose("list", list("u", '0')).unwrap();
    let in_state =
        |state: &str, phase: u32| experiment(json!({"deny": ["u"], "state": state, "phase": phase}));
    let e = Key::new("e").unwrap();
    check(&mut log, 3, "experiment", in_state("draft", 1), Ok(()));
    check(&mut log, 1, "list", list("u", '1'), Ok(()));
    assert_eq!(log.read.lists_since(&e), ListsSince::Unchanged);
    check(&mut log, 3, "experiment", in_state("running", 1), Ok(()));
    assert_eq!(log.read.lists_since(&e), ListsSince::Unchanged);
    check(&mut log, 3, "experiment", in_state("stopped", 1), Ok(()));
    check(&mut log, 1, "list", list("u", '2'), Ok(()));
    check(&mut log, 3, "experiment", in_state("running", 2), Ok(()));
    assert_eq!(log.read.lists_since(&e), ListsSince::Unchanged);
}

#[test]
fn members_that_came_back_within_the_phase_open_nothing() {
    let mut log = Log::furnished();
    log.propose("list", list("u", '0')).unwrap();
    log.propose("list", list("v", '0')).unwrap();
    let denies = experiment(json!({"deny": ["u"]}));
    check(&mut log, 3, "experiment", denies, Ok(()));
    let e = Key::new("e").unwrap();
    for (key, digit, expected) in [
        ("v", '1', ListsSince::Unchanged),
        ("u", '1', ListsSince::Changed),
        ("u", '0', ListsSince::Unchanged),
        ("u", '2', ListsSince::Changed),
    ] {
        log.propose("list", list(key, digit)).unwrap();
        assert_eq!(log.read.lists_since(&e), expected, "{key} {digit}");
        let concerned = log.read.concerned_by_members(&Key::new("u").unwrap());
        assert_eq!(concerned.len(), usize::from(expected == ListsSince::Changed));
        assert_eq!(log.read.concerned_by_members(&Key::new("v").unwrap()), Vec::<&_>::new());
    }
    let digests: Vec<char> = log
        .read
        .list_versions(&Key::new("u").unwrap())
        .map(|list| list.members_sha256.chars().next().unwrap())
        .collect();
    assert_eq!(digests, ['2', '0', '1', '0']);
}

#[test]
fn a_list_of_units_that_do_not_count_opens_nothing() {
    let mut log = Log::furnished();
    log.propose("list", list("u", '0')).unwrap();
    let targeting = json!([{"key": "t", "when": {"attribute": "targetingKey", "in_list": "u"}}]);
    let staging = json!({"environments": {"staging": {"targeting": targeting}}});
    check(&mut log, 3, "experiment", experiment(staging), Ok(()));
    check(&mut log, 1, "list", list("u", '1'), Ok(()));
    assert_eq!(log.read.lists_since(&Key::new("e").unwrap()), ListsSince::Unchanged);
}

#[test]
fn a_variant_stays_while_a_flag_waits_for_it() {
    let missed = "variants: `on` cannot go while flag `waits` waits for it; take it out of the `prerequisites` of `waits` \
                  first, or keep it here without a share";
    let waits = |fields: Value| {
        let prerequisites = json!([{"flag": "f", "variants": ["on", "off"]}]);
        with(flag(json!({"key": "waits", "prerequisites": prerequisites})), fields)
    };
    let only_off = flag(json!({"variants": [{"key": "off", "value": false}]}));
    let mut log = Log::default();
    log.propose("flag", flag(json!({}))).unwrap();
    // Even though nobody waits yet: a flag may in the meantime, and then nothing but rule 4 refuses.
    assert_eq!(rule_for(&log, "flag", only_off.clone()), Rule::Four);
    let unseen = |rule_version| Change { rule_version, ..log.change("flag", only_off.clone()) };
    let (by_three, by_four) = (unseen(3), unseen(4));
    log.propose("flag", waits(json!({}))).unwrap();
    assert_eq!(log.clone().take(&by_three), Ok(3));
    assert_eq!(log.clone().take(&by_four), Err(missed.to_owned()));
    assert_eq!(rule_for(&log, "flag", only_off.clone()), Rule::Four);
    assert_eq!(rule_for(&log, "flag", flag(json!({"owner": "bob"}))), Rule::One);
    check(&mut log, 4, "flag", only_off.clone(), Err(missed));
    check(&mut log.clone(), 3, "flag", only_off.clone(), Ok(()));
    // A further variant may come, and one for which nobody waits may go.
    let third = json!({"variants": [{"key": "on", "value": true}, {"key": "off", "value": false}, {"key": "x", "value": true}]});
    check(&mut log, 4, "flag", flag(third), Ok(()));
    check(&mut log, 4, "flag", flag(json!({})), Ok(()));
    let mut archived = log.clone();
    check(&mut archived, 4, "flag", waits(json!({"archived": true})), Ok(()));
    check(&mut archived, 4, "flag", only_off.clone(), Ok(()));
    check(&mut log, 4, "flag", waits(json!({"prerequisites": [{"flag": "f", "variants": ["off"]}]})), Ok(()));
    check(&mut log, 4, "flag", only_off, Ok(()));
}

#[test]
fn an_experiment_keeps_the_variants_that_flags_wait_for_too() {
    let mut log = Log::with_experiment("draft");
    let waits = flag(json!({"prerequisites": [{"flag": "e", "variants": ["b"]}]}));
    log.propose("flag", waits).unwrap();
    let renamed = json!([
        {"key": "a", "weight": 5_000, "ranges": [[0, 500_000]]},
        {"key": "c", "weight": 5_000, "ranges": [[500_000, 1_000_000]]},
    ]);
    let without = experiment(json!({"state": "draft", "variants": renamed}));
    assert_eq!(rule_for(&log, "experiment", without.clone()), Rule::Four);
    check(
        &mut log,
        4,
        "experiment",
        without,
        Err(
            "variants: `b` cannot go while flag `f` waits for it; take it out of the `prerequisites` of `f` first, or keep \
             it here without a share",
        ),
    );
}
