//! `splitstream audit --heal` killed in each of its phases, which are recognized by its requests. The next
//! heal restores exactly what is still missing, an audit after it finds nothing, and every event is stored
//! once; also if the block of a killed heal arrives late.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use local::process::spawn_bound;
use schemas::avro;
use schemas::topics::{DEAD_LETTERS, EXPOSURES};
use serde_json::Value;
use tests::oracle::row_count;
use tests::platform::wait_until;
use tests::proxy::{Effect, Fault, Matcher, Proxy};
use tests::relayed::{INSERT, PRODUCE, Relayed};
use tests::topic;
use tests::traffic::{ago, exposures};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const SIGKILL: i32 = 9;
/// The number of events of one batch; no other limit closes a batch.
const BATCH: u64 = 20;
const WHOLE_BATCHES: [(&str, &str); 2] =
    [("SPLITSTREAM_CONSUMER__BATCH_ROWS", "20"), ("SPLITSTREAM_CONSUMER__BATCH_AGE_MS", "60000")];

/// The first query of a heal.
const RUNNING_QUERIES: Matcher = Matcher::Text("FROM system.processes");
const STORED_IDS: Matcher = Matcher::Text("SELECT DISTINCT event_id");
const STORED_OFFSETS: Matcher = Matcher::Text("SELECT kafka_offset FROM");
const REPEATED_EVENTS: Matcher = Matcher::Text("uniqExact(event_id)");

/// The data that the test deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The rows of a batch, by its number from 0.
    Rows(u64),
    /// The one dead letter, of a message in batch 0.
    DeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Kafka,
    ClickHouse,
}

/// A heal that is killed. It is held at each step until the fault of the next step is injected, and killed at
/// the last.
struct Phase {
    name: &'static str,
    lost: &'static [Lost],
    steps: &'static [(Server, Matcher, Effect)],
    /// The number of rows and dead letters that the next heal must restore.
    left: u64,
}

use Effect::{CutRequest, HoldAnswer, HoldRequest, SwallowRequest};
use Lost::{DeadLetter, Rows};
use Server::{ClickHouse, Kafka};

/// The phases, in the order of a heal.
const PHASES: [Phase; 10] = [
    Phase {
        name: "before running queries are ended",
        lost: &[Rows(1)],
        steps: &[(ClickHouse, RUNNING_QUERIES, SwallowRequest)],
        left: BATCH,
    },
    Phase {
        name: "before the dead letter is sent",
        lost: &[DeadLetter, Rows(0)],
        steps: &[(Kafka, PRODUCE, SwallowRequest)],
        left: 1 + BATCH,
    },
    Phase {
        name: "the dead letter is stored, not acknowledged",
        lost: &[DeadLetter, Rows(0)],
        steps: &[(Kafka, PRODUCE, HoldAnswer)],
        left: BATCH,
    },
    Phase {
        name: "between the dead letter and the rows",
        lost: &[DeadLetter, Rows(0)],
        steps: &[(ClickHouse, RUNNING_QUERIES, HoldRequest), (ClickHouse, STORED_IDS, SwallowRequest)],
        left: BATCH,
    },
    Phase {
        name: "before the block is sent",
        lost: &[Rows(2)],
        steps: &[(ClickHouse, INSERT, SwallowRequest)],
        left: BATCH,
    },
    Phase {
        name: "within the block",
        lost: &[Rows(3)],
        steps: &[(ClickHouse, INSERT, CutRequest { after: 800 })],
        left: BATCH,
    },
    Phase {
        name: "the rows are stored, not acknowledged",
        lost: &[Rows(4)],
        steps: &[(ClickHouse, INSERT, HoldAnswer)],
        left: 0,
    },
    Phase {
        name: "before the rows are read back",
        lost: &[Rows(5)],
        steps: &[(ClickHouse, INSERT, HoldRequest), (ClickHouse, STORED_OFFSETS, SwallowRequest)],
        left: 0,
    },
    Phase {
        name: "between two batches",
        lost: &[Rows(6), Rows(8)],
        steps: &[(ClickHouse, INSERT, HoldRequest), (ClickHouse, INSERT, SwallowRequest)],
        left: BATCH,
    },
    Phase {
        name: "in the audit after the heal",
        lost: &[Rows(7)],
        steps: &[(ClickHouse, INSERT, HoldRequest), (ClickHouse, REPEATED_EVENTS, SwallowRequest)],
        left: 0,
    },
];

const BATCHES: u64 = 10;

struct Fixture {
    relayed: Relayed,
    whole: String,
}

impl Fixture {
    /// Starts a platform with stored batches. Batch 0 covers offsets 0 to 20, where 10 is no event; each
    /// further batch covers 20 offsets.
    fn filled(batches: u64) -> Fixture {
        let relayed = Relayed::up().unwrap();
        let consumer = relayed.consumer(&WHOLE_BATCHES).unwrap();
        for number in 0..batches {
            let events = exposures(number * BATCH, BATCH, ago(Duration::from_secs(60)));
            let mut messages: Vec<Vec<u8>> = events.iter().map(avro::encode).collect();
            if number == 0 {
                messages.insert(10, b"no event".to_vec());
            }
            topic::write(relayed.platform.brokers(), EXPOSURES, 0, &messages).unwrap();
            let stored = || Ok(row_count(&relayed.platform.clickhouse())? == (number + 1) * BATCH);
            wait_until("the batch", TIMEOUT, POLL, stored).unwrap();
        }
        consumer.stop().unwrap();
        let mut fixture = Fixture { relayed, whole: String::new() };
        fixture.whole = fixture.contents();
        fixture
    }

    fn contents(&self) -> String {
        let sql = "SELECT kafka_offset, event_id, unit_id FROM exposures ORDER BY kafka_offset, event_id";
        self.relayed.platform.clickhouse().text(sql, &[]).unwrap()
    }

    fn lose(&self, lost: Lost) {
        let platform = &self.relayed.platform;
        match lost {
            DeadLetter => topic::delete_all(platform.brokers(), DEAD_LETTERS).unwrap(),
            Rows(batch) => {
                let offset = if batch == 0 { 0 } else { batch * BATCH + 1 }.to_string();
                let sql = "ALTER TABLE exposures DELETE WHERE kafka_offset BETWEEN {first:UInt64} AND {first:UInt64} + 20 \
                           AND batch_first = {first:UInt64} SETTINGS mutations_sync = 2";
                platform.clickhouse().text(sql, &[("first", &offset)]).unwrap();
            }
        }
    }

    fn proxy(&self, server: Server) -> &Proxy {
        match server {
            Kafka => &self.relayed.kafka,
            ClickHouse => &self.relayed.clickhouse,
        }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.relayed.platform.stack().command(arguments).unwrap();
        command.envs(self.relayed.proxy_settings());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        spawn_bound(command).unwrap()
    }

    /// Runs an audit and returns its exit code and report.
    fn audit(&self, more: &[&str]) -> (Option<i32>, Value) {
        let output = self.start(&[&["audit", "--json"], more].concat()).wait_with_output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn kill_heal_at(&self, steps: &[(Server, Matcher, Effect)]) {
        let arm = |(server, matcher, effect): &(Server, Matcher, Effect)| {
            let proxy = self.proxy(*server);
            proxy.inject(Fault::once(matcher.clone(), *effect));
            (proxy, proxy.matched() + 1, proxy.withheld() + 1)
        };
        let mut armed = arm(&steps[0]);
        let mut heal = self.start(&["audit", "--heal"]);
        for (at, (_, _, effect)) in steps.iter().enumerate() {
            let (proxy, matched, withheld) = armed;
            proxy.wait_until_matched(matched, TIMEOUT).unwrap();
            if *effect == HoldAnswer {
                proxy.wait_until_withheld(withheld, TIMEOUT).unwrap();
            }
            if let Some(next) = steps.get(at + 1) {
                armed = arm(next);
                proxy.release();
            }
        }
        heal.kill().unwrap();
        assert_eq!(heal.wait().unwrap().signal(), Some(SIGKILL));
    }

    fn expect_healed(&self, left: u64, phase: &str) {
        let (code, report) = self.audit(&["--heal"]);
        assert_eq!((code, &report["healed"]), (Some(0), &left.into()), "{phase}: {report}");
        self.expect_clean(phase);
    }

    fn expect_clean(&self, phase: &str) {
        let (code, report) = self.audit(&[]);
        assert_eq!((code, &report["clean"]), (Some(0), &true.into()), "{phase}: {report}");
        assert_eq!(self.contents(), self.whole, "{phase}");
    }
}

#[test]
fn a_heal_killed_in_any_phase_is_finished_by_the_next() {
    let fixture = Fixture::filled(BATCHES);
    for Phase { name, lost, steps, left } in &PHASES {
        lost.iter().for_each(|lost| fixture.lose(*lost));
        fixture.kill_heal_at(steps);
        fixture.relayed.kafka.clear_faults();
        fixture.relayed.clickhouse.clear_faults();
        fixture.expect_healed(*left, name);
    }
    let agreement = fixture.relayed.platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.dead_letters), (201, 200, 1));
}

#[test]
fn a_block_of_a_killed_heal_that_arrives_after_the_next_is_refused() {
    let fixture = Fixture::filled(3);
    fixture.lose(Rows(1));
    fixture.kill_heal_at(&[(ClickHouse, INSERT, HoldRequest)]);
    // The block of the killed heal is still in flight.
    fixture.expect_healed(BATCH, "before it arrives");
    let refused = "SELECT sum(value) FROM system.events WHERE event = 'DuplicatedInsertedBlocks'";
    let refused = || fixture.relayed.platform.clickhouse().number(refused, &[]);
    assert_eq!(refused().unwrap(), 0);
    fixture.relayed.clickhouse.release();
    wait_until("its arrival", TIMEOUT, POLL, || Ok(refused()? > 0)).unwrap();
    fixture.expect_clean("after it has arrived");
    let agreement = fixture.relayed.platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.dead_letters), (61, 60, 1));
}
