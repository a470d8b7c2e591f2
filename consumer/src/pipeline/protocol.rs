//! How a partition's messages get into their table exactly once, as a state machine: an event in, an action out.
//! It knows no clock, no broker and no database. The worker performs each action and reports the outcome.
//!
//! ```text
//!      ┌──────────────────────── any failure: Failed ◀───────────────────────────────────────────┐
//!      ▼                                                                                         │
//!   Resting ──▶ Ending ──▶ Observing ──┬──────────────▶ Resuming ──▶ Filling ──▶ Intending ──▶ Inserting
//!            end what      committed,  │ announced and    ▲ ▲ seek     │ closed    intent        │ clean
//!            still runs    durable     ▼ not there        │ │          │           committed     ▼
//!                            │     Counting ──────────────┘ │          │ ▲                    Checking
//!                            ▼      rows of the batch       │          │ └── Landing ◀──────────┘ if replayed
//!                          Resting, halted until repaired   │          ├──▶ Committing (a tail without rows)
//!                                                           │          └──▶ Recounting ──▶ Withdrawing ──┐
//!                                                           └────────────────────────────────────────────┘
//!                                                                           a replayed batch without rows
//! ```
//!
//! Why it is exactly once:
//! * A batch is one block: the table has all of it or nothing, and its rows carry its offsets.
//! * No batch is sent before its intent is committed beside the offset. The broker refuses that commit from a member
//!   that has lost the partition. So only the last owner can have a batch in flight, and the next owner finds it
//!   announced.
//! * After any failure nothing is sent again blindly: inserts that still run are ended, and the table is asked.
//! * An announced batch is made again exactly, with the same token. If the first insert arrives late after all,
//!   ClickHouse refuses one of the two as a repetition, and a count of the rows tells that they are there.

use std::time::Duration;

pub use note::{Intent, Note, NoteError};
pub use observation::{Halt, NextStep, Observation, TopicIds};

use crate::pipeline::batch::Span;
use kafka::TopicId;

mod note;
mod observation;

/// Pauses between attempts, doubling from the first to the last. They have no end, since a partition may not be
/// passed over, and no jitter, since the machine draws no random numbers.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A halted partition looks again this often, since an operator may have repaired it.
const HALTED_REST: Duration = Duration::from_secs(30);
/// The first pause is doubled this many times at most, so the longest one must not be longer than that gives.
const DOUBLINGS_MAX: u32 = 10;
const _: () = assert!(REST.1.as_millis() <= REST.0.as_millis() << DOUBLINGS_MAX);

/// What the worker is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// End every insert of this partition that still runs in ClickHouse, whoever sent it.
    End,
    /// Ask Kafka and ClickHouse for the state of the partition.
    Observe,
    /// Count the rows of a batch in the table.
    Count(Span),
    /// Read the ids of durable events, and seek. With `replay`, the next batch must be exactly that one.
    Resume { from: u64, replay: Option<Intent> },
    /// Take messages until a batch is due.
    Fill,
    /// Commit `offset` with `note`, and wait for the broker's answer.
    Commit { offset: u64, note: Note },
    /// Send the batch just closed, unless `not_after` has passed. Fill the next one meanwhile.
    Insert { intent: Intent, not_after: Duration },
    /// The rows are durable: remember their ids.
    Land(Intent),
    /// Do nothing for a while. `halted`: an operator has to repair something first.
    Rest { pause: Duration, halted: Option<Halt> },
}

/// The outcome of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The partition has been assigned, or a rest is over.
    Begun,
    /// The action is done (End, Resume, Commit, Land).
    Done,
    Observed(Observation),
    Counted(u64),
    /// A batch is due; a replayed one once all of its messages have been taken.
    Closed(Closed),
    /// Nothing came. Everything before `next` is in the table, a duplicate, forgotten, or an acknowledged dead
    /// letter.
    Idle {
        next: u64,
    },
    /// The server answered that the insert is done.
    Inserted,
    /// The action failed, or nobody knows whether it was done.
    Failed,
}

/// A batch that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub span: Span,
    /// 0 only for a replayed batch whose messages are all left out by now.
    pub rows: u64,
    /// A digest of the offsets that became rows.
    pub kept: u64,
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Resting,
    Ending,
    Observing,
    /// The rows of an announced batch, before it is made again.
    Counting {
        observation: Observation,
        intent: Intent,
    },
    Resuming {
        replay: Option<Intent>,
    },
    Filling {
        replay: Option<Intent>,
        uncommitted: bool,
    },
    /// `replayed`: the table is asked even after a clean answer, since an earlier insert may arrive in between.
    Intending {
        intent: Intent,
        replayed: bool,
        asked: Duration,
    },
    Inserting {
        intent: Intent,
        replayed: bool,
    },
    /// The rows of a replayed batch whose messages are all left out.
    Recounting {
        intent: Intent,
    },
    Withdrawing {
        from: u64,
    },
    /// The rows of a batch that was answered as done.
    Checking {
        intent: Intent,
    },
    Landing {
        replayed: bool,
    },
    Committing,
}

/// One partition, as long as it is assigned to us.
#[derive(Clone, Debug)]
pub struct Machine {
    epoch: u32,
    /// Longest time from asking the broker to commit an intent to sending the batch.
    deadline: Duration,
    durable: Option<u64>,
    /// The topic's id when the partition was last looked at.
    topic: Option<TopicId>,
    state: State,
    /// Rests since the last batch landed.
    rests: u32,
}

impl Machine {
    /// A partition that has just been assigned. Its first event is [`Event::Begun`].
    pub fn new(epoch: u32, deadline: Duration) -> Machine {
        Machine { epoch, deadline, durable: None, topic: None, state: State::Resting, rests: 0 }
    }

    /// The last offset known to be durable.
    pub fn durable(&self) -> Option<u64> {
        self.durable
    }

    /// Takes the outcome of the last action, at `now` on a monotonic clock, and returns the next action.
    ///
    /// # Panics
    /// On an event that the last action cannot have: a bug of the worker.
    pub fn on(&mut self, event: Event, now: Duration) -> Action {
        use State::*;
        match (self.state.clone(), event) {
            (Resting, Event::Begun) => self.go(Ending, Action::End),
            (Ending, Event::Done) => self.go(Observing, Action::Observe),
            (Observing, Event::Observed(observation)) => self.observed(observation),
            (Counting { observation, intent }, Event::Counted(rows)) => {
                self.settle(observation, intent, rows)
            }
            (Resuming { replay }, Event::Done) => self.fill(replay, false),
            (Filling { replay, .. }, Event::Closed(closed)) => self.closed(replay, closed, now),
            (Filling { replay: None, .. }, Event::Idle { next }) => {
                let note = self.note(None);
                self.go(Committing, Action::Commit { offset: next, note })
            }
            // The commit of a tail only keeps the reported lag right. The next commit covers it.
            (Committing, Event::Done | Event::Failed) => self.fill(None, false),
            (Intending { intent, replayed, asked }, Event::Done) => {
                let not_after = asked + self.deadline;
                self.go(Inserting { intent, replayed }, Action::Insert { intent, not_after })
            }
            (Inserting { intent, replayed: false }, Event::Inserted) => self.land(intent, false),
            (Inserting { intent, replayed: true }, Event::Inserted) => {
                self.go(Checking { intent }, Action::Count(intent.span))
            }
            (Recounting { intent }, Event::Counted(rows)) => self.recounted(intent, rows),
            (Withdrawing { from }, Event::Done) => {
                self.go(Resuming { replay: None }, Action::Resume { from, replay: None })
            }
            (Checking { intent }, Event::Counted(rows)) => self.checked(intent, rows, now),
            (Landing { replayed: false }, Event::Done) => self.fill(None, true),
            // Nothing behind a replayed batch was taken.
            (Landing { replayed: true }, Event::Done) => {
                let from = self.durable.map_or(0, |durable| durable + 1);
                self.go(Resuming { replay: None }, Action::Resume { from, replay: None })
            }
            (_, Event::Failed) => self.rest(),
            (state, event) => panic!("a worker in {state:?} reports {event:?}"),
        }
    }

    /// What to commit when the partition is given back. `None` if the note that is there says more.
    pub fn final_commit(&self) -> Option<(u64, Note)> {
        match (&self.state, self.durable) {
            (State::Filling { uncommitted: true, .. }, Some(durable)) => Some((durable + 1, self.note(None))),
            _ => None,
        }
    }

    fn observed(&mut self, observation: Observation) -> Action {
        self.durable = observation.durable;
        self.topic = observation.topic.now;
        match observation.next_step(self.epoch) {
            Ok(NextStep::Resume { from }) => {
                self.go(State::Resuming { replay: None }, Action::Resume { from, replay: None })
            }
            Ok(NextStep::Settle(intent)) => {
                self.go(State::Counting { observation, intent }, Action::Count(intent.span))
            }
            Err(halt) => self.halt(halt),
        }
    }

    /// An announced batch: all of its rows are there, or none and it is made again, or something is wrong.
    fn settle(&mut self, observation: Observation, intent: Intent, rows: u64) -> Action {
        if intent.is_there(rows) {
            self.durable = Some(intent.span.last);
            let from = intent.span.last + 1;
            return self.go(State::Resuming { replay: None }, Action::Resume { from, replay: None });
        }
        if rows > 0 {
            return self.halt(part_of(intent, rows));
        }
        match observation.can_replay(&intent) {
            Ok(()) => {
                let (from, replay) = (intent.span.first, Some(intent));
                self.go(State::Resuming { replay }, Action::Resume { from, replay })
            }
            Err(halt) => self.halt(halt),
        }
    }

    fn fill(&mut self, replay: Option<Intent>, uncommitted: bool) -> Action {
        self.go(State::Filling { replay, uncommitted }, Action::Fill)
    }

    fn closed(&mut self, replay: Option<Intent>, closed: Closed, now: Duration) -> Action {
        let Closed { span, rows, kept, now_ms } = closed;
        assert!(replay.is_none_or(|intent| intent.span == span), "{closed:?} is not {replay:?} made again");
        match replay {
            None => {
                let intent = Intent { span, rows, kept, ingest_ms: now_ms, earlier_rows: 0, attempt: 0 };
                self.intend(intent, false, now)
            }
            // Already announced with the same rows. Announcing it again proves that the partition is still ours.
            Some(intent) if (rows, kept) == (intent.rows, intent.kept) => self.intend(intent, true, now),
            // No row is left: either the first insert has arrived after all, or all messages are left out by now.
            Some(intent) if rows == 0 => self.go(State::Recounting { intent }, Action::Count(intent.span)),
            // The rows differ from those announced, perhaps because the first insert has just arrived. Both carry the
            // same token, so one of the two gets in.
            Some(intent) => {
                self.intend(Intent { rows, kept, earlier_rows: intent.rows, ..intent }, true, now)
            }
        }
    }

    /// A replayed batch without rows.
    fn recounted(&mut self, intent: Intent, rows: u64) -> Action {
        if rows > 0 {
            return self.rest();
        }
        // The announcement is withdrawn. Its offsets become part of the next batch.
        let action = Action::Commit { offset: intent.span.first, note: self.note(None) };
        self.go(State::Withdrawing { from: intent.span.first }, action)
    }

    fn intend(&mut self, intent: Intent, replayed: bool, now: Duration) -> Action {
        let action = Action::Commit { offset: intent.span.first, note: self.note(Some(intent)) };
        self.go(State::Intending { intent, replayed, asked: now }, action)
    }

    fn checked(&mut self, intent: Intent, rows: u64, now: Duration) -> Action {
        if intent.is_there(rows) {
            return self.land(intent, true);
        }
        if rows > 0 {
            return self.halt(part_of(intent, rows));
        }
        // The server knows the token but has no rows for it. Another token is needed.
        self.intend(Intent { attempt: intent.attempt + 1, ..intent }, true, now)
    }

    fn land(&mut self, intent: Intent, replayed: bool) -> Action {
        self.durable = Some(intent.span.last);
        self.rests = 0;
        self.go(State::Landing { replayed }, Action::Land(intent))
    }

    fn rest(&mut self) -> Action {
        let doubled = REST.0.saturating_mul(1 << self.rests.min(DOUBLINGS_MAX));
        self.rests += 1;
        let pause = doubled.min(REST.1);
        self.go(State::Resting, Action::Rest { pause, halted: None })
    }

    fn halt(&mut self, halt: Halt) -> Action {
        self.go(State::Resting, Action::Rest { pause: HALTED_REST, halted: Some(halt) })
    }

    fn note(&self, intent: Option<Intent>) -> Note {
        Note { epoch: self.epoch, topic: self.topic, durable: self.durable, intent }
    }

    fn go(&mut self, state: State, action: Action) -> Action {
        self.state = state;
        action
    }
}

fn part_of(intent: Intent, found: u64) -> Halt {
    let Span { first, last } = intent.span;
    Halt::PartOfBatch { first, last, rows: intent.rows, found }
}
