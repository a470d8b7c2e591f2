//! How a partition's messages get into their table exactly once, as a machine: events in, one action out,
//! no clock, no broker, no database. The worker performs each action and reports what came of it.
//!
//! ```text
//!            ┌──────────────────────── any doubt: Failed ◀───────────────────────────────────────┐
//!            ▼                                                                                    │
//!   Resting ──▶ Ending ──▶ Looking ──┬──────────────▶ Resuming ──▶ Filling ──▶ Intending ──▶ Inserting
//!            end what    committed,  │ announced and     ▲  seek      │ closed    intent        │ clean
//!            still runs  durable     ▼ not there         │            │           committed     ▼
//!                          │     Counting ───────────────┘            │ ▲                    Checking
//!                          ▼      rows of the batch                   │ └── Landing ◀──────────┘ if replayed
//!                        Halted  (an operator decides)                ▼      ids remembered
//!                                                                 Committing (a tail without rows)
//! ```
//!
//! What it rests on:
//! * A batch is one block: it is in the table as a whole or not at all, and its rows carry its offsets.
//! * No batch is sent before its intent is committed beside the offset. The broker refuses that from a member
//!   that has lost the partition, so nobody but the last owner can have a batch on its way that the next
//!   owner does not find announced.
//! * After any doubt nothing is sent again in hope: what still runs is ended, and the table is asked.
//! * A batch that was announced is made again exactly, with the same token: if the first sending arrives late
//!   after all, one of the two is refused as a repetition, and counting the rows tells that they are there.

use std::time::Duration;

pub use found::{Found, Halt, Topic, Way};
pub use note::{Intent, Note, NoteError};

use crate::pipeline::batch::Span;
use kafka::TopicId;

mod found;
mod note;

/// Pauses between attempts to go on, doubling from the first to the last.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A halted partition looks again this often, since an operator may have mended it.
const HALTED_REST: Duration = Duration::from_secs(30);

/// What the worker is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// End every insert into this partition's rows that still runs in ClickHouse, whoever sent it.
    End,
    /// Ask Kafka and ClickHouse where the partition stands.
    Look,
    /// Count the rows of a batch in the table.
    Count(Span),
    /// Remember the ids of durable events, and seek. With `replay`, the next batch is that one exactly.
    Resume { from: u64, replay: Option<Intent> },
    /// Take messages until a batch is due.
    Fill,
    /// Commit `offset` with `note`, and wait for the broker's word.
    Commit { offset: u64, note: Note },
    /// Send the batch just closed, unless it is `not_after` already; fill the next one meanwhile.
    Insert { intent: Intent, not_after: Duration },
    /// The rows are durable: remember their ids.
    Land(Intent),
    /// Do nothing for a while. `halted`: until somebody has mended it; never go on.
    Rest { pause: Duration, halted: Option<Halt> },
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The partition is ours, or a rest is over.
    Begun,
    /// The action is done (End, Resume, Commit, Land).
    Done,
    Found(Found),
    Counted(u64),
    /// A batch is due; or, when a batch is being replayed, all of its messages have been taken.
    Closed(Closed),
    /// Nothing came; everything before `next` is in the table or was left out for a reason that is
    /// acknowledged.
    Idle {
        next: u64,
    },
    /// The server answered that the insert is done.
    Inserted,
    /// The action was not done, or it is not known whether it was.
    Failed,
}

/// A batch that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub span: Span,
    /// 0 only for a replayed batch of which nothing is kept any more.
    pub rows: u64,
    pub kept: u64,
    /// Now, in milliseconds since 1970.
    pub now_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Resting,
    Ending,
    Looking,
    /// Of an announced batch, before it is made again.
    Counting {
        found: Found,
        intent: Intent,
    },
    Resuming {
        replay: Option<Intent>,
    },
    Filling {
        replay: Option<Intent>,
        uncommitted: bool,
    },
    /// `replayed`: the table is asked even after a clean answer, since an earlier sending may come in between.
    Intending {
        intent: Intent,
        replayed: bool,
        asked: Duration,
    },
    Inserting {
        intent: Intent,
        replayed: bool,
    },
    /// Of a batch that is being made again and of which nothing is kept.
    Recounting {
        intent: Intent,
    },
    Withdrawing {
        from: u64,
    },
    /// Of a batch that was answered as done.
    Checking {
        intent: Intent,
    },
    Landing {
        replayed: bool,
    },
    Committing,
}

/// One partition, as long as it is ours.
#[derive(Clone, Debug)]
pub struct Machine {
    epoch: u32,
    /// Longest time from asking the broker to take an intent to sending the batch.
    deadline: Duration,
    durable: Option<u64>,
    /// The topic's id when the partition was last looked at.
    topic: Option<TopicId>,
    state: State,
    /// Rests since the last batch landed.
    rests: u32,
}

impl Machine {
    /// A partition that has just become ours. Its first event is [`Event::Begun`].
    pub fn new(epoch: u32, deadline: Duration) -> Machine {
        Machine { epoch, deadline, durable: None, topic: None, state: State::Resting, rests: 0 }
    }

    /// The last offset known to be durable.
    pub fn durable(&self) -> Option<u64> {
        self.durable
    }

    /// Takes what came of the last action, at `now` on a clock that never goes back.
    ///
    /// # Panics
    /// On an event that the last action cannot have: a bug of the worker.
    pub fn on(&mut self, event: Event, now: Duration) -> Action {
        use State::*;
        match (self.state.clone(), event) {
            (Resting, Event::Begun) => self.go(Ending, Action::End),
            (Ending, Event::Done) => self.go(Looking, Action::Look),
            (Looking, Event::Found(found)) => self.found(found),
            (Counting { found, intent }, Event::Counted(rows)) => self.settle(found, intent, rows),
            (Resuming { replay }, Event::Done) => self.fill(replay, false),
            (Filling { replay, .. }, Event::Closed(closed)) => self.closed(replay, closed, now),
            (Filling { replay: None, .. }, Event::Idle { next }) => {
                let note = self.note(None);
                self.go(Committing, Action::Commit { offset: next, note })
            }
            // The commit of a tail serves people who watch the lag; the next one covers it.
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
            // What followed the batch was passed over when it was made again.
            (Landing { replayed: true }, Event::Done) => {
                let from = self.durable.map_or(0, |durable| durable + 1);
                self.go(Resuming { replay: None }, Action::Resume { from, replay: None })
            }
            (_, Event::Failed) => self.rest(),
            (state, event) => panic!("a worker in {state:?} reports {event:?}"),
        }
    }

    /// What to commit when the partition is given back in order: `None` if the note there says more.
    pub fn farewell(&self) -> Option<(u64, Note)> {
        match (&self.state, self.durable) {
            (State::Filling { uncommitted: true, .. }, Some(durable)) => Some((durable + 1, self.note(None))),
            _ => None,
        }
    }

    fn found(&mut self, found: Found) -> Action {
        self.durable = found.durable;
        self.topic = found.topic.now;
        match found.way(self.epoch) {
            Ok(Way::GoOn { from }) => {
                self.go(State::Resuming { replay: None }, Action::Resume { from, replay: None })
            }
            Ok(Way::Settle(intent)) => self.go(State::Counting { found, intent }, Action::Count(intent.span)),
            Err(halt) => self.halt(halt),
        }
    }

    /// An announced batch: there are all of its rows, or none and it is made again, or something is wrong.
    fn settle(&mut self, found: Found, intent: Intent, rows: u64) -> Action {
        if intent.is_there(rows) {
            self.durable = Some(intent.span.last);
            let from = intent.span.last + 1;
            return self.go(State::Resuming { replay: None }, Action::Resume { from, replay: None });
        }
        if rows > 0 {
            return self.halt(part_of(intent, rows));
        }
        match found.can_replay(&intent) {
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
            // Announced already, word for word; announcing it again shows that the partition is still ours.
            Some(intent) if (rows, kept) == (intent.rows, intent.kept) => self.intend(intent, true, now),
            // Nothing of it is to be kept: either it has arrived after all, or none of it is wanted any more.
            Some(intent) if rows == 0 => self.go(State::Recounting { intent }, Action::Count(intent.span)),
            // Another set is kept than was announced, perhaps because the first sending has just arrived. With
            // the same token, one of the two gets in.
            Some(intent) => {
                self.intend(Intent { rows, kept, earlier_rows: intent.rows, ..intent }, true, now)
            }
        }
    }

    /// Of a batch of which nothing is kept.
    fn recounted(&mut self, intent: Intent, rows: u64) -> Action {
        if rows > 0 {
            return self.rest();
        }
        // Withdrawn: its offsets become part of the batch that follows.
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
        // The server took it for a repetition of something that is not there: another token.
        self.intend(Intent { attempt: intent.attempt + 1, ..intent }, true, now)
    }

    fn land(&mut self, intent: Intent, replayed: bool) -> Action {
        self.durable = Some(intent.span.last);
        self.rests = 0;
        self.go(State::Landing { replayed }, Action::Land(intent))
    }

    fn rest(&mut self) -> Action {
        let doubled = REST.0.saturating_mul(1 << self.rests.min(10));
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
