//! The fault harness: rounds of traffic, each with a fault drawn from a seed, and after each the oracle's
//! question. What is drawn (which fault, when, at which byte) follows from the seed alone; what the fault
//! meets follows from the machine too, so a replay repeats the plan and not every interleaving.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use local::Service;
use local::process::Identity;

use crate::faults::kill_in_flight;
use crate::platform::SESSION_TIMEOUT;
use crate::proxy::{Fault, Harm, Meets};
use crate::random::Random;
use crate::relayed::{INSERT, Relayed};
use crate::signals::{freeze, thaw};
use crate::syscalls::{Call, Trap, find_strace};
use crate::traffic::{DEFINITIONS, Traffic};

const UNITS_PER_ROUND: u64 = 20_000;
const DUPLICATES: f64 = 0.02;
/// Longest wait for a moment that a fault wants to meet.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to the platform.
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
    /// Those that need nothing but the platform.
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

/// A fault with everything drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Strike {
    Kill(Victim, Duration),
    KillInFlight,
    Freeze(Victim, Duration, Duration),
    Network(Victim, Vec<(Meets, Harm)>),
    Syscall(Victim, &'static str, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Consumer,
    ClickHouse,
    Broker,
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strike::Kill(victim, after) => write!(formatter, "SIGKILL to {victim:?} after {after:?}"),
            Strike::KillInFlight => write!(formatter, "SIGKILL to Consumer while an insert runs"),
            Strike::Freeze(victim, after, length) => {
                write!(formatter, "{victim:?} frozen after {after:?} for {length:?}")
            }
            Strike::Network(victim, harms) => {
                write!(formatter, "between Consumer and {victim:?}: {harms:?}")
            }
            Strike::Syscall(victim, calls, count) => {
                write!(formatter, "SIGKILL to {victim:?} at {calls} number {count} of a thread")
            }
        }
    }
}

/// Runs so many rounds of the kinds given, in a seeded order: each kind once, then each once more, and so
/// on. `tell` gets a line for each round. The error names the round.
pub fn run(seed: u64, rounds: u64, kinds: &[Kind], mut tell: impl FnMut(&str)) -> Result<()> {
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
        let strike = draw(kind, &mut random);
        let traffic = Traffic {
            name: format!("round-{round}"),
            seed: random.below(1_000_000),
            units: UNITS_PER_ROUND,
            duplicates: DUPLICATES,
        };
        let begun = Instant::now();
        let line = format!("round {round}: {strike}");
        let outcome = one_round(&relayed, &consumer, &strike, &traffic);
        match outcome {
            Ok(said) => tell(&format!("{line}: {said} ({:.1} s)", begun.elapsed().as_secs_f64())),
            Err(error) => {
                let logs = relayed.platform.keep();
                return Err(error.context(format!("seed {seed}, {line}; the logs are in {}", logs.display())));
            }
        }
    }
    Ok(())
}

fn one_round(relayed: &Relayed, consumer: &Service, strike: &Strike, traffic: &Traffic) -> Result<String> {
    let running = traffic.start(&relayed.platform)?;
    let met = inflict(relayed, consumer, strike)?;
    let tally = running.finish();
    restore(relayed, consumer)?;
    tally?;
    let agreement = relayed.platform.every_event_once()?;
    Ok(format!("{}; {agreement}", if met { "met" } else { "missed" }))
}

fn draw(kind: Kind, random: &mut Random) -> Strike {
    const NEVER: Duration = Duration::ZERO;
    let soon = random.between(NEVER, Duration::from_secs(4));
    match kind {
        Kind::Consumer => Strike::Kill(Victim::Consumer, soon),
        Kind::InFlight => Strike::KillInFlight,
        Kind::Clickhouse => Strike::Kill(Victim::ClickHouse, soon),
        Kind::Broker => Strike::Kill(Victim::Broker, soon),
        Kind::FreezeConsumer => {
            let length = random.between(Duration::from_secs(1), SESSION_TIMEOUT * 2);
            Strike::Freeze(Victim::Consumer, soon, length)
        }
        Kind::FreezeClickhouse => {
            let length = random.between(Duration::from_millis(100), Duration::from_secs(5));
            Strike::Freeze(Victim::ClickHouse, soon, length)
        }
        Kind::FreezeBroker => {
            let length = random.between(Duration::from_millis(100), Duration::from_secs(5));
            Strike::Freeze(Victim::Broker, soon, length)
        }
        Kind::NetworkClickhouse => {
            let harms = (0..4).map(|_| (INSERT, draw_harm(random, 80_000))).collect();
            Strike::Network(Victim::ClickHouse, harms)
        }
        Kind::NetworkBroker => {
            // Produce, Fetch, OffsetCommit, OffsetFetch, JoinGroup, Heartbeat
            let harms = (0..4)
                .map(|_| {
                    (Meets::KafkaApi(random.choose(&[0, 1, 1, 8, 8, 9, 11, 12])), draw_harm(random, 200))
                })
                .collect();
            Strike::Network(Victim::Broker, harms)
        }
        Kind::SyscallConsumer => {
            let calls = random.choose(&["write,writev", "sendto,sendmsg"]);
            Strike::Syscall(Victim::Consumer, calls, 1 + random.below(40))
        }
        Kind::SyscallClickhouse => {
            let calls = random.choose(&["rename,renameat,renameat2", "write,pwrite64"]);
            Strike::Syscall(Victim::ClickHouse, calls, 1 + random.below(12))
        }
    }
}

fn draw_harm(random: &mut Random, bytes: u64) -> Harm {
    match random.below(4) {
        0 => Harm::CutRequest { after: random.below(bytes) as usize },
        1 => Harm::CutAnswer { after: random.below(100) as usize },
        2 => Harm::HoldAnswer,
        _ => Harm::Delay(random.between(Duration::from_millis(1), Duration::from_millis(300))),
    }
}

/// True if the fault met what it was meant for.
fn inflict(relayed: &Relayed, consumer: &Service, strike: &Strike) -> Result<bool> {
    let stack = relayed.platform.stack();
    let pid = |victim| match victim {
        Victim::Consumer => Some(consumer.pid()),
        Victim::ClickHouse => stack.clickhouse_pid(),
        Victim::Broker => stack.kafka_pid(0),
    };
    match strike {
        Strike::Kill(victim, after) => {
            std::thread::sleep(*after);
            match victim {
                Victim::Consumer => consumer.kill()?,
                Victim::ClickHouse => stack.kill_clickhouse()?,
                Victim::Broker => {
                    stack.kill_kafka(0)?;
                    // At once: the producer that is sending waits for it.
                    relayed.platform.start_kafka(0)?;
                }
            }
            Ok(true)
        }
        Strike::KillInFlight => kill_in_flight(consumer, &relayed.platform.clickhouse(), PATIENCE),
        Strike::Freeze(victim, after, length) => {
            std::thread::sleep(*after);
            let pid = pid(*victim).context("the process has no number")?;
            freeze(pid)?;
            std::thread::sleep(*length);
            thaw(pid)?;
            Ok(true)
        }
        Strike::Network(victim, harms) => {
            let proxy = if *victim == Victim::Broker { &relayed.kafka } else { &relayed.clickhouse };
            let before = proxy.met();
            for (meets, harm) in harms {
                proxy.break_with(Fault::once(meets.clone(), *harm));
            }
            let all = proxy.wait_until_met(before + harms.len() as u64, PATIENCE / 4).is_ok();
            Ok(all || proxy.met() > before)
        }
        Strike::Syscall(victim, calls, count) => {
            let pid = pid(*victim).context("the process has no number")?;
            let trap = Trap::set(pid, &Call { names: calls, on: Vec::new(), count: *count })?;
            Ok(trap.springs_within(PATIENCE))
        }
    }
}

/// Everything runs again and no fault waits any more.
fn restore(relayed: &Relayed, consumer: &Service) -> Result<()> {
    relayed.kafka.heal();
    relayed.clickhouse.heal();
    let stack = relayed.platform.stack();
    if !lives(stack.clickhouse_pid()) {
        // Told that it is gone, however that came about.
        stack.kill_clickhouse()?;
        stack.start_clickhouse()?;
    }
    if !lives(Some(consumer.pid())) {
        consumer.kill()?;
        consumer.start()?;
    }
    Ok(())
}

fn lives(pid: Option<u32>) -> bool {
    pid.is_some_and(|pid| Identity::of(pid).is_some())
}
