//! The protocol, case by case: what a crash or a fault leaves behind, and which actions follow. The numbers are
//! those of the table of crash cases in the consumer's README. Cases that only real parts can show (a body cut
//! half-way, a panic) are among the end-to-end tests.

use std::time::Duration;

use consumer::pipeline::batch::Span;
use consumer::pipeline::protocol::{
    Action, Closed, Event, Halt, Intent, Machine, Note, Observation, TopicIds,
};

const DEADLINE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(1_000);
const SPAN: Span = Span { first: 100, last: 149 };
const INTENT: Intent =
    Intent { span: SPAN, rows: 48, kept: 7, ingest_ms: 1_790_000_000_000, earlier_rows: 0, attempt: 0 };
const CLOSED: Closed = Closed { span: SPAN, rows: 48, kept: 7, now_ms: 1_790_000_000_000 };

fn note(durable: Option<u64>, intent: Option<Intent>) -> Note {
    Note { epoch: 1, topic: None, durable, intent }
}

/// What a new owner observes when the table ends at `durable` and `note` is beside the offset.
fn found(durable: Option<u64>, note: Option<Note>) -> Event {
    Event::Observed(Observation {
        committed: Some(100),
        note,
        topic: TopicIds::default(),
        durable,
        low: 0,
        high: 1_000,
    })
}

/// A machine that has just asked where the partition stands.
fn looking() -> Machine {
    let mut machine = Machine::new(1, DEADLINE);
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
    assert_eq!(machine.on(Event::Done, NOW), Action::Observe);
    machine
}

/// A machine that takes messages from offset 100 on.
fn filling() -> Machine {
    let mut machine = looking();
    let action = machine.on(found(Some(99), Some(note(Some(99), None))), NOW);
    assert_eq!(action, Action::Resume { from: 100, replay: None });
    assert_eq!(machine.on(Event::Done, NOW), Action::Fill);
    machine
}

/// A machine whose batch is announced and sent.
fn inserting() -> Machine {
    let mut machine = filling();
    let announce = Action::Commit { offset: 100, note: note(Some(99), Some(INTENT)) };
    assert_eq!(machine.on(Event::Closed(CLOSED), NOW), announce);
    let insert = Action::Insert { intent: INTENT, not_after: NOW + DEADLINE };
    assert_eq!(machine.on(Event::Done, NOW), insert);
    machine
}

/// A machine that has made the announced batch again and sent it.
fn inserting_again() -> Machine {
    let mut machine = looking();
    let action = machine.on(found(Some(99), Some(note(Some(99), Some(INTENT)))), NOW);
    assert_eq!(action, Action::Count(SPAN));
    let replay = Some(INTENT);
    assert_eq!(machine.on(Event::Counted(0), NOW), Action::Resume { from: 100, replay });
    assert_eq!(machine.on(Event::Done, NOW), Action::Fill);
    let later = Closed { now_ms: 1_790_000_099_999, ..CLOSED };
    let announce = Action::Commit { offset: 100, note: note(Some(99), Some(INTENT)) };
    assert_eq!(machine.on(Event::Closed(later), NOW), announce);
    let insert = Action::Insert { intent: INTENT, not_after: NOW + DEADLINE };
    assert_eq!(machine.on(Event::Done, NOW), insert);
    machine
}

fn rest(pause_ms: u64) -> Action {
    Action::Rest { pause: Duration::from_millis(pause_ms), halted: None }
}

fn halted(halt: Halt) -> Action {
    Action::Rest { pause: Duration::from_secs(30), halted: Some(halt) }
}

#[test]
fn without_any_fault_a_batch_is_announced_inserted_and_remembered() {
    let mut machine = inserting();
    assert_eq!(machine.on(Event::Inserted, NOW), Action::Land(INTENT));
    assert_eq!(machine.durable(), Some(149));
    assert_eq!(machine.on(Event::Done, NOW), Action::Fill);
    // The next intent carries the offset of the last batch: one commit for both.
    let next = Intent { span: Span { first: 150, last: 160 }, rows: 11, ..INTENT };
    let closed = Closed { span: next.span, rows: 11, ..CLOSED };
    let announce = Action::Commit { offset: 150, note: note(Some(149), Some(next)) };
    assert_eq!(machine.on(Event::Closed(closed), NOW), announce);
}

#[test]
fn case_01_before_the_intent_nothing_was_sent_and_the_batch_is_made_freely() {
    let mut machine = looking();
    let action = machine.on(found(Some(99), Some(note(Some(99), None))), NOW);
    assert_eq!(action, Action::Resume { from: 100, replay: None });
}

#[test]
fn case_02_an_intent_without_an_insert_is_carried_out_exactly() {
    let mut machine = inserting_again();
    assert_eq!(machine.on(Event::Inserted, NOW), Action::Count(SPAN));
    assert_eq!(machine.on(Event::Counted(48), NOW), Action::Land(INTENT));
    // Messages behind the batch were not taken meanwhile.
    assert_eq!(machine.on(Event::Done, NOW), Action::Resume { from: 150, replay: None });
}

#[test]
fn case_03_a_body_cut_half_way_leaves_nothing_and_is_made_again() {
    let mut machine = inserting();
    assert_eq!(machine.on(Event::Failed, NOW), rest(100));
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
    assert_eq!(machine.on(Event::Done, NOW), Action::Observe);
    let action = machine.on(found(Some(99), Some(note(Some(99), Some(INTENT)))), NOW);
    assert_eq!(action, Action::Count(SPAN));
    let replay = Some(INTENT);
    assert_eq!(machine.on(Event::Counted(0), NOW), Action::Resume { from: 100, replay });
}

#[test]
fn case_04_an_answer_lost_after_the_rows_were_there_is_found_in_the_table() {
    let mut machine = inserting();
    assert_eq!(machine.on(Event::Failed, NOW), rest(100));
    machine.on(Event::Begun, NOW);
    machine.on(Event::Done, NOW);
    let action = machine.on(found(Some(149), Some(note(Some(99), Some(INTENT)))), NOW);
    assert_eq!(action, Action::Resume { from: 150, replay: None });
}

#[test]
fn case_05_an_offset_not_committed_after_the_answer_is_found_in_the_table() {
    let mut machine = looking();
    let action = machine.on(found(Some(149), Some(note(Some(99), Some(INTENT)))), NOW);
    assert_eq!(action, Action::Resume { from: 150, replay: None });
}

#[test]
fn case_06_an_insert_that_still_runs_is_ended_before_the_table_is_asked() {
    let mut machine = inserting();
    assert_eq!(machine.on(Event::Failed, NOW), rest(100));
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
    // Nobody knows whether it has ended, so the table is not asked yet.
    assert_eq!(machine.on(Event::Failed, NOW), rest(200));
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
    assert_eq!(machine.on(Event::Done, NOW), Action::Observe);
}

#[test]
fn case_07_a_token_used_up_without_its_rows_is_replaced() {
    let mut machine = inserting_again();
    assert_eq!(machine.on(Event::Inserted, NOW), Action::Count(SPAN));
    let again = Intent { attempt: 1, ..INTENT };
    let announce = Action::Commit { offset: 100, note: note(Some(99), Some(again)) };
    assert_eq!(machine.on(Event::Counted(0), NOW), announce);
    assert_eq!(machine.on(Event::Done, NOW), Action::Insert { intent: again, not_after: NOW + DEADLINE });
    assert_eq!(machine.on(Event::Inserted, NOW), Action::Count(SPAN));
    assert_eq!(machine.on(Event::Counted(48), NOW), Action::Land(again));
}

#[test]
fn case_08_clickhouse_killed_after_the_rows_were_there() {
    // The largest offset does not show it yet, but the count does.
    let mut machine = looking();
    machine.on(found(Some(99), Some(note(Some(99), Some(INTENT)))), NOW);
    assert_eq!(machine.on(Event::Counted(48), NOW), Action::Resume { from: 150, replay: None });
    assert_eq!(machine.durable(), Some(149));
}

#[test]
fn case_09_rows_lost_after_the_answer_stop_the_partition() {
    let mut machine = looking();
    let action = machine.on(found(Some(99), Some(note(Some(149), None))), NOW);
    assert_eq!(action, halted(Halt::RowsGone { noted: 149, durable: Some(99) }));
}

#[test]
fn case_10_a_writer_that_stood_still_may_send_only_before_its_deadline() {
    let mut machine = filling();
    machine.on(Event::Closed(CLOSED), NOW);
    // The broker answers after a minute and a half. The deadline counts from the request.
    let late = NOW + Duration::from_secs(90);
    assert_eq!(machine.on(Event::Done, late), Action::Insert { intent: INTENT, not_after: NOW + DEADLINE });
    // So the batch is not sent.
    assert_eq!(machine.on(Event::Failed, late), rest(100));
}

#[test]
fn case_11_given_back_in_the_middle_of_an_insert_the_intent_stays() {
    assert_eq!(inserting().final_commit(), None);
    let mut machine = inserting();
    machine.on(Event::Inserted, NOW);
    machine.on(Event::Done, NOW);
    assert_eq!(machine.final_commit(), Some((150, note(Some(149), None))));
}

#[test]
fn case_12_and_13_without_the_brokers_word_nothing_is_inserted() {
    let mut machine = filling();
    machine.on(Event::Closed(CLOSED), NOW);
    assert_eq!(machine.on(Event::Failed, NOW), rest(100));
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
}

#[test]
fn case_15_and_16_what_clickhouse_refuses_is_tried_for_ever_ever_more_rarely() {
    let mut machine = inserting();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        match machine.on(Event::Failed, NOW) {
            Action::Rest { pause, halted: None } => pauses.push(pause.as_millis()),
            action => panic!("{action:?}"),
        }
        machine.on(Event::Begun, NOW);
        machine.on(Event::Done, NOW);
        machine.on(found(Some(99), Some(note(Some(99), Some(INTENT)))), NOW);
        machine.on(Event::Counted(0), NOW);
        machine.on(Event::Done, NOW);
        machine.on(Event::Closed(CLOSED), NOW);
        // The same batch, the same token.
        assert_eq!(
            machine.on(Event::Done, NOW),
            Action::Insert { intent: INTENT, not_after: NOW + DEADLINE }
        );
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
}

#[test]
fn case_17_retention_that_has_overtaken_us_stops_the_partition() {
    let mut machine = looking();
    let topic = TopicIds::default();
    let found =
        Observation { committed: Some(100), note: None, topic, durable: Some(99), low: 120, high: 1_000 };
    let action = machine.on(Event::Observed(found), NOW);
    assert_eq!(action, halted(Halt::Overtaken { next: 100, low: 120 }));
    // It looks again, in case somebody has repaired it, and observes the same.
    assert_eq!(machine.on(Event::Begun, NOW), Action::End);
    assert_eq!(machine.on(Event::Done, NOW), Action::Observe);
}

#[test]
fn case_18_a_topic_made_anew_stops_the_partition_until_the_epoch_is_raised() {
    let topic = TopicIds::default();
    let found = Observation { committed: None, note: None, topic, durable: Some(99), low: 0, high: 40 };
    let action = looking().on(Event::Observed(found), NOW);
    assert_eq!(action, halted(Halt::TopicShorter { durable: 99, high: 40 }));
    // The new topic is longer than the old one was; its id tells them apart. Kafka has dropped the group's offset
    // with the old topic.
    let (noted, now) = ("Zl3-OYYMR_mYD-iZj0yZ7w".parse().unwrap(), "AZl3OYYMR_mYD-iZj0yZ7w".parse().unwrap());
    let anew = TopicIds { noted: Some(noted), now: Some(now) };
    let longer = Observation { topic: anew, high: 300, ..found };
    let action = looking().on(Event::Observed(longer), NOW);
    assert_eq!(action, halted(Halt::TopicRecreated { noted, now }));
    // The table has no rows of the raised epoch. The note of the old epoch does not count.
    let old = Some(note(Some(99), Some(INTENT)));
    let mut raised = Machine::new(2, DEADLINE);
    raised.on(Event::Begun, NOW);
    raised.on(Event::Done, NOW);
    let topic = TopicIds { noted: None, now: Some(now) };
    let found = Observation { committed: Some(100), note: old, topic, durable: None, low: 0, high: 40 };
    assert_eq!(raised.on(Event::Observed(found), NOW), Action::Resume { from: 0, replay: None });
    // From now on each note names the topic.
    assert_eq!(raised.on(Event::Done, NOW), Action::Fill);
    let note = Note { epoch: 2, topic: Some(now), durable: None, intent: None };
    assert_eq!(raised.on(Event::Idle { next: 7 }, NOW), Action::Commit { offset: 7, note });
}

#[test]
fn case_19_a_table_emptied_behind_our_back_stops_the_partition() {
    let action = looking().on(found(None, Some(note(Some(99), None))), NOW);
    assert_eq!(action, halted(Halt::RowsGone { noted: 99, durable: None }));
}

#[test]
fn a_batch_made_again_with_other_rows_keeps_its_token_and_counts_either_way() {
    let mut machine = looking();
    machine.on(found(Some(99), Some(note(Some(99), Some(INTENT)))), NOW);
    machine.on(Event::Counted(0), NOW);
    machine.on(Event::Done, NOW);
    let fewer = Intent { rows: 40, kept: 8, earlier_rows: 48, ..INTENT };
    let announce = Action::Commit { offset: 100, note: note(Some(99), Some(fewer)) };
    assert_eq!(machine.on(Event::Closed(Closed { rows: 40, kept: 8, ..CLOSED }), NOW), announce);
    assert_eq!(machine.on(Event::Done, NOW), Action::Insert { intent: fewer, not_after: NOW + DEADLINE });
    machine.on(Event::Inserted, NOW);
    // The first insert had arrived after all, and ours was refused as its repetition.
    assert_eq!(machine.on(Event::Counted(48), NOW), Action::Land(fewer));
}

#[test]
fn a_batch_that_is_there_in_part_stops_the_partition() {
    let mut machine = inserting_again();
    machine.on(Event::Inserted, NOW);
    let halt = Halt::PartOfBatch { first: 100, last: 149, rows: 48, found: 47 };
    assert_eq!(machine.on(Event::Counted(47), NOW), halted(halt));
}
