//! A fake broker, a fake ClickHouse and members of the group, with one partition. Every step is drawn from a seeded
//! generator: what happens, what is lost, who stands still.

use std::collections::HashSet;
use std::time::Duration;

use consumer::pipeline::batch::Span;
use consumer::pipeline::protocol::{Action, Closed, Event, Intent, Machine, Note, Observation, TopicIds};

pub const EPOCH: u32 = 1;
pub const DEADLINE: Duration = Duration::from_secs(60);
const BATCH_ROWS_MAX: usize = 4;

/// SplitMix64: small, seeded, good enough to draw schedules from.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// The protection that is removed, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The broker takes commits from members that have lost the partition.
    pub fence: bool,
    /// ClickHouse forgets tokens at once.
    pub tokens: bool,
    /// Announcements are lost, as if there were no note beside the offset.
    pub notes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub offset: u64,
    pub id: u64,
    pub span: Span,
}

#[derive(Clone, Debug)]
struct Insert {
    token: String,
    rows: Vec<Row>,
    /// The number of the request. Its sender may wait for the answer.
    request: usize,
}

/// A member of the group. While one stands still, more than one believes that it owns the partition.
struct Member {
    generation: u64,
    machine: Machine,
    action: Action,
    window: HashSet<u64>,
    filling: Vec<(u64, u64)>,
    next: u64,
    closed: Option<(Span, Vec<(u64, u64)>)>,
    replay: Option<Intent>,
    committed: u64,
    /// The request whose answer is awaited; the event once it is there.
    awaits: Option<usize>,
    answer: Option<Event>,
}

pub struct World {
    pub dice: Dice,
    broken: Broken,
    clock: Duration,
    /// The id at each offset. `None` for a message that is no event.
    pub log: Vec<Option<u64>>,
    generation: u64,
    committed: Option<(u64, String)>,
    pub rows: Vec<Row>,
    tokens: HashSet<String>,
    /// On the wire: nobody can end these.
    travelling: Vec<Insert>,
    /// Running in ClickHouse.
    running: Vec<Insert>,
    members: Vec<Member>,
    requests: usize,
    pub is_calm: bool,
}

impl World {
    pub fn new(seed: u64, broken: Broken) -> World {
        let mut world = World {
            dice: Dice::new(seed),
            broken,
            clock: Duration::ZERO,
            log: Vec::new(),
            generation: 0,
            committed: None,
            rows: Vec::new(),
            tokens: HashSet::new(),
            travelling: Vec::new(),
            running: Vec::new(),
            members: Vec::new(),
            requests: 0,
            is_calm: false,
        };
        world.produce();
        world.give_to_a_new_member();
        world
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.clock += Duration::from_millis(self.dice.below(2_000) as u64);
        match self.dice.below(100) {
            0..=59 => {
                let member = self.dice.below(self.members.len());
                self.act(member);
            }
            60..=74 => self.deliver(),
            75..=89 => self.execute(),
            90..=93 => self.produce(),
            94 => self.clickhouse_dies(),
            95 => self.clock += Duration::from_secs(self.dice.below(200) as u64),
            // The owner is killed.
            96..=97 => {
                self.members.pop();
                self.give_to_a_new_member();
            }
            // The owner stands still for so long that the partition is assigned to another member. It wakes up at
            // some time and goes on where it was.
            _ => {
                self.give_to_a_new_member();
                if self.members.len() > 4 {
                    self.members.remove(0);
                }
            }
        }
    }

    /// Nothing goes wrong any more; the owner works until the log's end is in the table.
    pub fn settle(&mut self) {
        self.is_calm = true;
        // The members that stood still end. What they have sent arrives.
        let owner = self.members.pop().expect("somebody owns the partition");
        self.members = vec![owner];
        for round in 0.. {
            assert!(round < 10_000, "the owner does not get on: {:?}", self.members[0].action);
            self.clock += Duration::from_millis(10);
            self.deliver();
            self.execute();
            self.act(0);
            let owner = &self.members[0];
            let at_end = owner.next == self.log.len() as u64 && owner.filling.is_empty();
            let idle = owner.committed == owner.next && owner.action == Action::Fill;
            if at_end && idle && self.travelling.is_empty() && self.running.is_empty() {
                return;
            }
        }
    }

    fn produce(&mut self) {
        for _ in 0..=self.dice.below(6) {
            let sent = self.log.len() as u64;
            let message = match self.dice.below(10) {
                0 => None,
                // A resend of anything before.
                1 | 2 if sent > 0 => self.log[self.dice.below(self.log.len())],
                _ => Some(sent + 1_000),
            };
            self.log.push(message);
        }
    }

    fn give_to_a_new_member(&mut self) {
        self.generation += 1;
        let mut machine = Machine::new(EPOCH, DEADLINE);
        let action = machine.on(Event::Begun, self.clock);
        self.members.push(Member {
            generation: self.generation,
            machine,
            action,
            window: HashSet::new(),
            filling: Vec::new(),
            next: 0,
            closed: None,
            replay: None,
            committed: 0,
            awaits: None,
            answer: None,
        });
    }

    fn goes_wrong(&mut self, chance: usize) -> bool {
        !self.is_calm && self.dice.percent(chance)
    }

    /// A member does what its machine wants, or a part of it.
    fn act(&mut self, at: usize) {
        let action = self.members[at].action.clone();
        let event = match action {
            Action::End => {
                self.running.clear();
                Some(Event::Done)
            }
            Action::Observe => Some(Event::Observed(self.look(at))),
            Action::Count(span) => {
                let there = self.rows.iter().filter(|row| (span.first..=span.last).contains(&row.offset));
                Some(Event::Counted(there.count() as u64))
            }
            Action::Resume { from, replay } => {
                let window = self.rows.iter().map(|row| row.id).collect();
                let member = &mut self.members[at];
                (member.window, member.next, member.replay) = (window, from, replay);
                member.filling.clear();
                member.closed = None;
                Some(Event::Done)
            }
            Action::Fill => self.fill(at),
            Action::Commit { offset, ref note } => self.commit(at, offset, note),
            Action::Insert { intent, not_after } => self.insert(at, &intent, not_after),
            Action::Land(_) => {
                let member = &mut self.members[at];
                let (_, rows) = member.closed.take().expect("what lands was closed");
                member.window.extend(rows.iter().map(|(_, id)| id));
                Some(Event::Done)
            }
            Action::Rest { halted, .. } => {
                assert_eq!(halted, None, "nothing that happens here needs an operator");
                Some(Event::Begun)
            }
        };
        let Some(event) = event else { return };
        let can_fail = matches!(
            self.members[at].action,
            Action::End | Action::Observe | Action::Count(_) | Action::Resume { .. } | Action::Commit { .. }
        );
        let event = if can_fail && self.goes_wrong(5) { Event::Failed } else { event };
        let clock = self.clock;
        let member = &mut self.members[at];
        member.action = member.machine.on(event, clock);
    }

    fn look(&mut self, at: usize) -> Observation {
        let committed = self.committed.clone();
        let note = committed.as_ref().and_then(|(_, text)| Note::parse(text).expect("a note of ours"));
        let committed = committed.map(|(offset, _)| offset);
        self.members[at].committed = committed.unwrap_or(0);
        Observation {
            committed,
            note: if self.broken.notes { None } else { note },
            topic: TopicIds::default(),
            durable: self.rows.iter().map(|row| row.span.last).max(),
            low: 0,
            high: self.log.len() as u64,
        }
    }

    /// Takes some messages. Nothing, if there is neither a batch to close nor a tail to commit.
    fn fill(&mut self, at: usize) -> Option<Event> {
        let wanted = if self.is_calm { usize::MAX } else { self.dice.below(6) };
        let took = self.take(at, wanted);
        let closes = self.is_calm || self.dice.percent(50);
        let now_ms = self.clock.as_millis() as i64;
        let member = &mut self.members[at];
        let due = match member.replay {
            Some(intent) => member.next > intent.span.last,
            None => member.filling.len() >= BATCH_ROWS_MAX || (closes && !member.filling.is_empty()),
        };
        if due {
            let rows = std::mem::take(&mut member.filling);
            let first = member
                .replay
                .map_or(member.machine.durable().map_or(0, |durable| durable + 1), |it| it.span.first);
            let span = Span { first, last: member.next - 1 };
            let kept = rows.iter().fold(7, |kept, (offset, _)| kept * 31 + offset);
            let closed = Closed { span, rows: rows.len() as u64, kept, now_ms };
            member.closed = Some((span, rows));
            return Some(Event::Closed(closed));
        }
        let passed_only =
            member.replay.is_none() && member.filling.is_empty() && member.next > member.committed;
        (passed_only && took == 0).then_some(Event::Idle { next: member.next })
    }

    fn take(&mut self, at: usize, wanted: usize) -> usize {
        let member = &mut self.members[at];
        let end = member.replay.map_or(self.log.len() as u64, |intent| intent.span.last + 1);
        let mut took = 0;
        while took < wanted && member.next < end {
            if member.replay.is_none() && member.filling.len() >= BATCH_ROWS_MAX {
                break;
            }
            let offset = member.next;
            if let Some(id) = self.log[offset as usize] {
                let on_its_way = |rows: &[(u64, u64)]| rows.iter().any(|(_, other)| *other == id);
                let known = member.window.contains(&id)
                    || on_its_way(&member.filling)
                    || member.closed.as_ref().is_some_and(|(_, rows)| on_its_way(rows));
                if !known {
                    member.filling.push((offset, id));
                }
            }
            member.next += 1;
            took += 1;
        }
        took
    }

    fn commit(&mut self, at: usize, offset: u64, note: &Note) -> Option<Event> {
        let fenced = self.members[at].generation != self.generation && !self.broken.fence;
        if fenced || self.goes_wrong(5) {
            return Some(Event::Failed);
        }
        self.committed = Some((offset, note.to_string()));
        // The broker's answer may still be lost.
        if self.goes_wrong(5) {
            return Some(Event::Failed);
        }
        self.members[at].committed = offset;
        Some(Event::Done)
    }

    fn insert(&mut self, at: usize, intent: &Intent, not_after: Duration) -> Option<Event> {
        if let Some(request) = self.members[at].awaits {
            if let Some(answer) = self.members[at].answer.take() {
                self.members[at].awaits = None;
                return Some(answer);
            }
            // Given up, wherever the insert is; or the answer was lost and the time is over.
            let is_gone =
                !self.travelling.iter().chain(&self.running).any(|insert| insert.request == request);
            if self.goes_wrong(5) || (self.is_calm && is_gone) {
                self.members[at].awaits = None;
                return Some(Event::Failed);
            }
            if self.members[at].replay.is_none() {
                let wanted = self.dice.below(4);
                self.take(at, wanted);
            }
            return None;
        }
        if self.clock > not_after {
            return Some(Event::Failed);
        }
        let member = &mut self.members[at];
        let (span, rows) = member.closed.as_ref().expect("a batch was closed");
        assert_eq!(*span, intent.span);
        let rows = rows.iter().map(|(offset, id)| Row { offset: *offset, id: *id, span: *span }).collect();
        let token = format!("{}-{}/{}#{}", span.first, span.last, intent.ingest_ms, intent.attempt);
        self.requests += 1;
        (member.awaits, member.answer) = (Some(self.requests), None);
        self.travelling.push(Insert { token, rows, request: self.requests });
        None
    }

    fn deliver(&mut self) {
        if !self.travelling.is_empty() {
            let at = self.dice.below(self.travelling.len());
            let insert = self.travelling.remove(at);
            self.running.push(insert);
        }
    }

    /// ClickHouse brings one of the running inserts to its end.
    fn execute(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.dice.below(self.running.len());
        let insert = self.running.remove(at);
        let is_new = self.tokens.insert(insert.token.clone()) || self.broken.tokens;
        // Killed after the token was written and before the rows were there.
        if is_new && self.goes_wrong(5) {
            self.running.push(insert);
            return self.clickhouse_dies();
        }
        if is_new {
            self.rows.extend(insert.rows.iter().cloned());
        }
        if !self.goes_wrong(10) {
            self.answer(insert.request, Event::Inserted);
        }
    }

    fn clickhouse_dies(&mut self) {
        for insert in std::mem::take(&mut self.running) {
            self.answer(insert.request, Event::Failed);
        }
    }

    fn answer(&mut self, request: usize, event: Event) {
        if let Some(member) = self.members.iter_mut().find(|member| member.awaits == Some(request)) {
            member.answer.get_or_insert(event);
        }
    }
}
