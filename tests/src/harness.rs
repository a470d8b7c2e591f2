//! The fault harness: runs rounds of traffic, injects into each a fault drawn from a seed, and runs the
//! oracle after each. The seed alone determines the plan (which fault, when, at which byte). The
//! interleavings depend on the machine too, so a replay repeats the plan and not every interleaving.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use local::Service;
use local::process::Identity;

use crate::faults::kill_in_flight;
use crate::platform::SESSION_TIMEOUT;
use crate::proxy::{Effect, Fault, Matcher};
use crate::random::Random;
use crate::relayed::{INSERT, Relayed};
use crate::signals::{freeze, thaw};
use crate::syscalls::{Call, Trap, find_strace};
use crate::traffic::{DEFINITIONS, Traffic};

const UNITS_PER_ROUND: u64 = 20_000;
const DUPLICATES: f64 = 0.02;
/// The longest wait for the event at which a fault is injected.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL to the consumer at any moment
    Consumer,
    /// SIGKILL to the consumer while an insert runs
    InFlight,
    /// SIGKILL to ClickHouse
    Clickhouse,
    /// SIGKILL to the broker
    Broker,
    /// SIGSTOP to the consumer, SIGCONT before or after the end of its session
    FreezeConsumer,
    /// SIGSTOP and SIGCONT to ClickHouse
    FreezeClickhouse,
    /// SIGSTOP and SIGCONT to the broker
    FreezeBroker,
    /// Cuts, delays and lost answers between the consumer and ClickHouse
    NetworkClickhouse,
    /// Cuts, delays and lost answers between the consumer and the broker
    NetworkBroker,
    /// SIGKILL to the consumer inside a system call that sends or writes (needs strace)
    SyscallConsumer,
    /// SIGKILL to ClickHouse inside a system call that renames or writes (needs strace)
    SyscallClickhouse,
}

impl Kind {
    /// The kinds that need only the platform itself.
    pub const PLAIN: [Kind; 9] = [
        Kind::Consumer,
        Kind::InFlight,
        Kind::Clickhouse,
        Kind::Broker,
        Kind::FreezeConsumer,
        Kind::FreezeClickhouse,
        Kind::FreezeBroker,
        Kind::NetworkClickhouse,
        Kind::NetworkBroker,
    ];

    pub fn needs_strace(self) -> bool {
        matches!(self, Kind::SyscallConsumer | Kind::SyscallClickhouse)
    }
}

/// A fault whose parameters are all drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PlannedFault {
    Kill(Victim, Duration),
    KillInFlight,
    Freeze(Victim, Duration, Duration),
    Network(Victim, Vec<(Matcher, Effect)>),
    Syscall(Victim, &'static str, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Consumer,
    ClickHouse,
    Broker,
}

impl fmt::Display for PlannedFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlannedFault::Kill(victim, after) => write!(formatter, "SIGKILL to {victim:?} after {after:?}"),
            PlannedFault::KillInFlight => write!(formatter, "SIGKILL to Consumer while an insert runs"),
            PlannedFault::Freeze(victim, after, length) => {
                write!(formatter, "{victim:?} frozen after {after:?} for {length:?}")
            }
            PlannedFault::Network(victim, effects) => {
                write!(formatter, "between Consumer and {victim:?}: {effects:?}")
            }
            PlannedFault::Syscall(victim, calls, count) => {
                write!(formatter, "SIGKILL to {victim:?} at {calls} number {count} of a thread")
            }
        }
    }
}

/// Runs `rounds` rounds with the given kinds of faults, in a seeded order: each kind once, then each once
/// more, and so on. `report` is called with a line for each round. The error names the round.
pub fn run(seed: u64, rounds: u64, kinds: &[Kind], mut report: impl FnMut(&str)) -> Result<()> {
    if kinds.iter().any(|kind| kind.needs_strace()) {
        find_strace().context("these kinds of faults need strace; the others do not")?;
    }
    let mut random = Random::new(seed);
    let relayed = Relayed::up()?;
    relayed.platform.apply(DEFINITIONS)?;
    let consumer = relayed.consumer(&[])?;
    let mut order = Vec::new();
    for round in 0..rounds {
        if order.is_empty() {
            order = kinds.to_vec();
            random.shuffle(&mut order);
        }
        let Some(kind) = order.pop() else { bail!("no kind of fault is given") };
        let fault = draw(kind, &mut random);
        let traffic = Traffic {
            name: format!("round-{round}"),
            seed: random.below(1_000_000),
            units: UNITS_PER_ROUND,
            duplicates: DUPLICATES,
        };
        let started = Instant::now();
        let line = format!("round {round}: {fault}");
        let outcome = run_round(&relayed, &consumer, &fault, &traffic);
        match outcome {
            Ok(result) => report(&format!("{line}: {result} ({:.1} s)", started.elapsed().as_secs_f64())),
            Err(error) => {
                let logs = relayed.platform.keep();
                return Err(error.context(format!("seed {seed}, {line}; the logs are in {}", logs.display())));
            }
        }
    }
    Ok(())
}

fn run_round(
    relayed: &Relayed,
    consumer: &Service,
    fault: &PlannedFault,
    traffic: &Traffic,
) -> Result<String> {
    let running = traffic.start(&relayed.platform)?;
    let injected = inject(relayed, consumer, fault)?;
    let tally = running.finish();
    restore(relayed, consumer)?;
    tally?;
    let agreement = relayed.platform.every_event_once()?;
    Ok(format!("{}; {agreement}", if injected { "met" } else { "missed" }))
}

fn draw(kind: Kind, random: &mut Random) -> PlannedFault {
    const NEVER: Duration = Duration::ZERO;
    let soon = random.between(NEVER, Duration::from_secs(4));
    match kind {
        Kind::Consumer => PlannedFault::Kill(Victim::Consumer, soon),
        Kind::InFlight => PlannedFault::KillInFlight,
        Kind::Clickhouse => PlannedFault::Kill(Victim::ClickHouse, soon),
        Kind::Broker => PlannedFault::Kill(Victim::Broker, soon),
        Kind::FreezeConsumer => {
            let length = random.between(Duration::from_secs(1), SESSION_TIMEOUT * 2);
            PlannedFault::Freeze(Victim::Consumer, soon, length)
        }
        Kind::FreezeClickhouse => {
            let length = random.between(Duration::from_millis(100), Duration::from_secs(5));
            PlannedFault::Freeze(Victim::ClickHouse, soon, length)
        }
        Kind::FreezeBroker => {
            let length = random.between(Duration::from_millis(100), Duration::from_secs(5));
            PlannedFault::Freeze(Victim::Broker, soon, length)
        }
        Kind::NetworkClickhouse => {
            let effects = (0..4).map(|_| (INSERT, draw_effect(random, 80_000))).collect();
            PlannedFault::Network(Victim::ClickHouse, effects)
        }
        Kind::NetworkBroker => {
            // Produce, Fetch, OffsetCommit, OffsetFetch, JoinGroup, Heartbeat
            let effects = (0..4)
                .map(|_| {
                    (Matcher::KafkaApi(random.choose(&[0, 1, 1, 8, 8, 9, 11, 12])), draw_effect(random, 200))
                })
                .collect();
            PlannedFault::Network(Victim::Broker, effects)
        }
        Kind::SyscallConsumer => {
            let calls = random.choose(&["write,writev", "sendto,sendmsg"]);
            PlannedFault::Syscall(Victim::Consumer, calls, 1 + random.below(40))
        }
        Kind::SyscallClickhouse => {
            let calls = random.choose(&["rename,renameat,renameat2", "write,pwrite64"]);
            PlannedFault::Syscall(Victim::ClickHouse, calls, 1 + random.below(12))
        }
    }
}

fn draw_effect(random: &mut Random, bytes: u64) -> Effect {
    match random.below(4) {
        0 => Effect::CutRequest { after: random.below(bytes) as usize },
        1 => Effect::CutAnswer { after: random.below(100) as usize },
        2 => Effect::HoldAnswer,
        _ => Effect::Delay(random.between(Duration::from_millis(1), Duration::from_millis(300))),
    }
}

/// Injects the fault. Returns whether it took place: a fault that waits for an event may wait in vain.
fn inject(relayed: &Relayed, consumer: &Service, fault: &PlannedFault) -> Result<bool> {
    let stack = relayed.platform.stack();
    let pid = |victim| match victim {
        Victim::Consumer => Some(consumer.pid()),
        Victim::ClickHouse => stack.clickhouse_pid(),
        Victim::Broker => stack.kafka_pid(0),
    };
    match fault {
        PlannedFault::Kill(victim, after) => {
            std::thread::sleep(*after);
            match victim {
                Victim::Consumer => consumer.kill()?,
                Victim::ClickHouse => stack.kill_clickhouse()?,
                Victim::Broker => {
                    stack.kill_kafka(0)?;
                    // Started again at once: the producer is sending and waits for it.
                    relayed.platform.start_kafka(0)?;
                }
            }
            Ok(true)
        }
        PlannedFault::KillInFlight => kill_in_flight(consumer, &relayed.platform.clickhouse(), TIMEOUT),
        PlannedFault::Freeze(victim, after, length) => {
            std::thread::sleep(*after);
            let pid = pid(*victim).context("the process has no pid")?;
            freeze(pid)?;
            std::thread::sleep(*length);
            thaw(pid)?;
            Ok(true)
        }
        PlannedFault::Network(victim, effects) => {
            let proxy = if *victim == Victim::Broker { &relayed.kafka } else { &relayed.clickhouse };
            let before = proxy.matched();
            for (matcher, effect) in effects {
                proxy.inject(Fault::once(matcher.clone(), *effect));
            }
            let all = proxy.wait_until_matched(before + effects.len() as u64, TIMEOUT / 4).is_ok();
            Ok(all || proxy.matched() > before)
        }
        PlannedFault::Syscall(victim, calls, count) => {
            let pid = pid(*victim).context("the process has no pid")?;
            let trap = Trap::set(pid, &Call { names: calls, on: Vec::new(), count: *count })?;
            Ok(trap.kills_within(TIMEOUT))
        }
    }
}

/// Removes the remaining faults and starts again what has ended.
fn restore(relayed: &Relayed, consumer: &Service) -> Result<()> {
    relayed.kafka.clear_faults();
    relayed.clickhouse.clear_faults();
    let stack = relayed.platform.stack();
    if !is_alive(stack.clickhouse_pid()) {
        // The stack must know that the process is gone before it starts another.
        stack.kill_clickhouse()?;
        stack.start_clickhouse()?;
    }
    if !is_alive(Some(consumer.pid())) {
        consumer.kill()?;
        consumer.start()?;
    }
    Ok(())
}

fn is_alive(pid: Option<u32>) -> bool {
    pid.is_some_and(|pid| Identity::of(pid).is_some())
}
