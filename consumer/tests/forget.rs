//! The ledger of forgotten units and the statements that delete, on a real ClickHouse without a consumer: what a
//! request deletes and keeps, what is refused, and how the ledger is read while it grows.

use std::time::Duration;

use clickhouse::Client;
use consumer::forget::{Deleted, Ledger, LedgerError, LedgerKey, Request, SharedLedger, UNITS_MAX, request};
use local::{Options, Server, Stack};
use ops::Exit;
use schemas::{Micros, Unit};
use tokio::runtime::Runtime;

struct Bench {
    runtime: Runtime,
    client: Client,
    key: LedgerKey,
    _stack: Stack,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A ClickHouse with our tables.
    fn up() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { servers: vec![Server::ClickHouse], ..Options::at(dir.path()) };
        let stack = Stack::up(options).unwrap();
        let runtime = Runtime::new().unwrap();
        let settings = serde_json::json!({"url": stack.clickhouse_url(), "database": "splitstream"});
        let settings: ops::config::ClickHouse = serde_json::from_value(settings).unwrap();
        let client = clickhouse_client::open(&settings).unwrap();
        runtime.block_on(consumer::migrate::migrate(&client, "splitstream")).unwrap();
        let key = LedgerKey::new(b"0123456789abcdef0123456789abcdef").unwrap();
        Bench { runtime, client, key, _stack: stack, _dir: dir }
    }

    fn run(&self, statement: &str) {
        self.runtime.block_on(self.client.query(statement).execute()).unwrap();
    }

    fn numbers(&self, statement: &str) -> Vec<u64> {
        self.runtime.block_on(self.client.query(statement).fetch_all()).unwrap()
    }

    fn texts(&self, statement: &str) -> Vec<String> {
        self.runtime.block_on(self.client.query(statement).fetch_all()).unwrap()
    }

    fn request(&self, unit_type: &str, unit_id: &str) -> anyhow::Result<Deleted> {
        let request_of = Request {
            unit: Unit { unit_type: unit_type.into(), unit_id: unit_id.into() },
            reason: "asked",
            requested_by: "test",
            now: at("2026-01-02T00:00:00Z"),
            settle: Duration::ZERO,
        };
        self.runtime.block_on(request(&self.client, &self.key, &request_of))
    }

    /// Exposures, conversions and aliases deleted.
    fn deleted(&self, unit_type: &str, unit_id: &str) -> [u64; 3] {
        let Deleted { exposures, conversions, aliases, .. } = self.request(unit_type, unit_id).unwrap();
        [exposures, conversions, aliases]
    }

    /// The exit code and the message.
    fn refusal(&self, unit_type: &str, unit_id: &str) -> (Exit, String) {
        let error = self.request(unit_type, unit_id).unwrap_err();
        (Exit::of(&error), format!("{error:#}"))
    }

    fn read(&self) -> Result<Ledger, LedgerError> {
        self.runtime.block_on(Ledger::read(&self.client, Some(&self.key)))
    }

    /// The number of units, if anything was entered or deleted since.
    fn newer(&self, ledger: &mut Ledger) -> Option<usize> {
        let newer = self.runtime.block_on(ledger.newer(&self.client, Some(&self.key))).unwrap()?;
        *ledger = newer;
        Some(ledger.len())
    }

    /// An entry as earlier builds made it, entered at another time.
    fn enter_untagged(&self, unit_id: &str, requested_at: &str) {
        let enter = self
            .client
            .query(
                "INSERT INTO forgotten (unit_hash, key_check, unit_type, forgotten_at, requested_at) \
                 VALUES (?, ?, 'user', '2026-01-02 00:00:00', ?)",
            )
            .bind(self.key.unit_hash("user", unit_id).to_string())
            .bind(self.key.check())
            .bind(requested_at);
        self.runtime.block_on(enter.execute()).unwrap();
    }
}

fn at(text: &str) -> Micros {
    Micros::parse(text).unwrap()
}

/// Users, and accounts that have other ids as well. The last two ids are as strange as ids may be.
const EVENTS: [&str; 3] = [
    r"INSERT INTO exposures (event_id, unit_type, unit_id, other_ids, created_at) VALUES
        (generateUUIDv4(), 'user', 'u1', {}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'user', 'u2', {}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'account', 'a1', {'user': 'u1'}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'account', 'a2', {'device': 'u1'}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'account', 'a3', {'device': 'd', 'user': 'u2'}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'account', 'a4', {}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'user', 'it\'s \\ {unit_id:String} ??\n\t%27', {}, '2026-01-01 00:00:00'),
        (generateUUIDv4(), 'account', 'a5', {'user': 'it\'s \\ {unit_id:String} ??\n\t%27'}, '2026-01-01 00:00:00')",
    "INSERT INTO conversions (event_id, unit_type, unit_id, other_ids, created_at) \
     SELECT generateUUIDv4(), unit_type, unit_id, other_ids, created_at FROM exposures",
    "INSERT INTO aliases (event_id, from_unit_type, from_unit_id, to_unit_type, to_unit_id, created_at) VALUES \
     (generateUUIDv4(), 'device', 'd', 'user', 'u1', '2026-01-01 00:00:00'), \
     (generateUUIDv4(), 'user', 'u1', 'account', 'a4', '2026-01-01 00:00:00'), \
     (generateUUIDv4(), 'device', 'u1', 'user', 'u2', '2026-01-01 00:00:00')",
];

const STRANGE: &str = "it's \\ {unit_id:String} ?\n\t%27";

#[test]
fn a_unit_is_deleted_wherever_it_stands_and_nobody_else_is() {
    let bench = Bench::up();
    EVENTS.iter().for_each(|statement| bench.run(statement));

    assert_eq!(bench.deleted("user", "u1"), [2, 2, 2]);
    for left in [
        bench.texts("SELECT unit_id FROM exposures ORDER BY unit_id"),
        bench.texts("SELECT unit_id FROM conversions ORDER BY unit_id"),
    ] {
        assert_eq!(left, ["a2", "a3", "a4", "a5", STRANGE, "u2"]);
    }
    assert_eq!(bench.texts("SELECT from_unit_id FROM aliases"), ["u1"]);

    assert_eq!(bench.deleted("user", STRANGE), [2, 2, 0]);
    // A map returns the empty text for a type that no event has.
    assert_eq!(bench.deleted("visitor", "u2"), [0, 0, 0]);
    assert_eq!(bench.texts("SELECT unit_id FROM exposures ORDER BY unit_id"), ["a2", "a3", "a4", "u2"]);
    // Once more: nothing is left to delete.
    assert_eq!(bench.deleted("user", "u1"), [0, 0, 0]);
    assert_eq!(bench.numbers("SELECT uniqExact(unit_hash) FROM forgotten"), [3]);
}

/// As if two units had the same key, which nobody can bring about by choosing ids.
#[test]
fn a_unit_with_the_key_of_a_forgotten_one_stays() {
    let bench = Bench::up();
    EVENTS.iter().for_each(|statement| bench.run(statement));
    for same_key in [
        "INSERT INTO exposures (event_id, unit_type, unit_id, unit_key, carried_keys, created_at) SELECT \
         generateUUIDv4(), 'user', 'double', unit_key, [unit_key], created_at FROM exposures WHERE unit_id = 'u1'",
        "INSERT INTO conversions (event_id, unit_type, unit_id, unit_key, carried_keys, created_at) SELECT \
         generateUUIDv4(), 'user', 'double', unit_key, [unit_key], created_at FROM exposures WHERE unit_id = 'u1'",
        "INSERT INTO aliases (event_id, from_unit_type, from_unit_id, from_unit_key, to_unit_type, to_unit_id, \
         to_unit_key, created_at) SELECT generateUUIDv4(), 'user', 'double', unit_key, 'user', 'double', unit_key, \
         created_at FROM exposures WHERE unit_id = 'u1'",
    ] {
        bench.run(same_key);
    }
    assert_eq!(
        bench.numbers("SELECT uniqExact(unit_key) FROM exposures WHERE unit_id IN ('u1', 'double')"),
        [1]
    );
    assert_eq!(bench.deleted("user", "u1"), [2, 2, 2]);
    for left in [
        "SELECT count() FROM exposures WHERE unit_id = 'double'",
        "SELECT count() FROM conversions WHERE unit_id = 'double'",
        "SELECT count() FROM aliases WHERE from_unit_id = 'double'",
    ] {
        assert_eq!(bench.numbers(left), [1], "{left}");
    }
    let ledger = bench.read().unwrap();
    let then = at("2026-01-01T00:00:00Z");
    assert_eq!(["u1", "double"].map(|id| ledger.contains("user", id, then)), [true, false]);
}

/// An empty id, as of an unset variable, once deleted every event: a map returns the empty text for a type that it
/// does not have.
#[test]
fn what_nothing_is_called_is_refused_and_deletes_nothing() {
    let bench = Bench::up();
    EVENTS.iter().for_each(|statement| bench.run(statement));
    let (long, longer) = ("u".repeat(256), "u".repeat(257));
    let no_key = "is not 1 to 64 of the characters A-Z a-z 0-9 . _ -";
    for (unit_type, unit_id, said) in [
        ("user", "", "unit_id: 0 bytes is not in 1 to 256".to_owned()),
        ("visitor", "", "unit_id: 0 bytes is not in 1 to 256".to_owned()),
        ("user", &longer, "unit_id: 257 bytes is not in 1 to 256".to_owned()),
        ("", "u1", format!("unit_type: `` {no_key}")),
        ("us er", "u1", format!("unit_type: `us er` {no_key}")),
    ] {
        let expected = (
            Exit::Usage,
            format!("wrong usage: nothing was deleted, since no unit can be called so: {said}"),
        );
        assert_eq!(bench.refusal(unit_type, unit_id), expected);
    }
    let counts = "SELECT count() FROM exposures UNION ALL SELECT count() FROM conversions UNION ALL SELECT count() FROM \
         forgotten UNION ALL SELECT count() FROM forgotten_deletions";
    let mut rows = bench.numbers(counts);
    rows.sort_unstable();
    assert_eq!(rows, [0, 0, 8, 8]);
    // The longest type and id.
    assert_eq!(bench.deleted("user", &long), [0, 0, 0]);
}

#[test]
fn the_ledger_is_read_as_it_grows_and_anew_where_it_has_shrunk() {
    let bench = Bench::up();
    let forgets = |ledger: &Ledger| -> Vec<&'static str> {
        let then = at("2026-01-01T00:00:00Z");
        ["u1", "u2", "old", "late", ""].into_iter().filter(|id| ledger.contains("user", id, then)).collect()
    };
    let mut ledger = bench.read().unwrap();
    assert_eq!((ledger.len(), bench.newer(&mut ledger)), (0, None));

    bench.request("user", "u1").unwrap();
    assert_eq!(bench.newer(&mut ledger), Some(1));
    assert_eq!((forgets(&ledger), bench.newer(&mut ledger)), (vec!["u1"], None));
    bench.request("user", "u2").unwrap();
    bench.enter_untagged("old", "2100-01-01 00:00:00");
    assert_eq!(bench.newer(&mut ledger), Some(3));
    assert_eq!((forgets(&ledger), bench.newer(&mut ledger)), (vec!["u1", "u2", "old"], None));

    // Entered before what has been read, but visible only now.
    bench.enter_untagged("late", "2020-01-01 00:00:00");
    assert_eq!(bench.newer(&mut ledger), Some(4));
    assert_eq!((forgets(&ledger), bench.newer(&mut ledger)), (vec!["u1", "u2", "old", "late"], None));

    // A unit that is entered again, by an operator's statement, for a later time.
    bench.enter_untagged("u1", "2026-01-03 00:00:00");
    assert_eq!(bench.newer(&mut ledger), Some(4));

    let delete =
        bench.client.query("ALTER TABLE forgotten DELETE WHERE unit_hash = ? SETTINGS mutations_sync = 2");
    let delete = delete.bind(bench.key.unit_hash("user", "u2").to_string());
    bench.runtime.block_on(delete.execute()).unwrap();
    assert_eq!(bench.newer(&mut ledger), Some(3));
    assert_eq!((forgets(&ledger), bench.newer(&mut ledger)), (vec!["u1", "old", "late"], None));
    // Reading all of it at once gives the same.
    assert_eq!(forgets(&bench.read().unwrap()), ["u1", "old", "late"]);
}

#[test]
fn a_ledger_of_another_key_takes_no_entry_and_stops_a_running_consumer() {
    let mut bench = Bench::up();
    let forgotten = SharedLedger::new(bench.read().unwrap());
    let ours = bench.key.clone();
    bench.key = LedgerKey::new(b"another key of thirty-two bytes.").unwrap();
    bench.request("user", "u1").unwrap();
    let other = bench.key.check().to_owned();
    bench.key = ours;

    let said = format!(
        "there are units forgotten under the key {other}, and the one configured is {}: configure the key that they \
         were entered with",
        bench.key.check()
    );
    assert_eq!(bench.refusal("user", "u2"), (Exit::InvalidInput, format!("invalid input: {said}")));
    assert_eq!(bench.numbers("SELECT count() FROM forgotten"), [1]);

    // A running consumer. Its ledger was empty when it began.
    let shutdown = ops::Shutdown::manual();
    let key = Some(bench.key.clone());
    bench.runtime.block_on(forgotten.keep_fresh(bench.client.clone(), key, shutdown.clone()));
    assert_eq!(
        bench.runtime.block_on(shutdown.wait()),
        format!("the ledger of forgotten units cannot be heeded: {said}")
    );
}

#[test]
fn a_full_ledger_takes_no_further_unit_and_loses_none() {
    let bench = Bench::up();
    bench.request("user", "u1").unwrap();
    let others = "INSERT INTO forgotten (unit_hash, key_check, unit_type, forgotten_at) \
         SELECT leftPad(hex(number), 64, '0'), (SELECT any(key_check) FROM forgotten), 'user', '2026-01-02 00:00:00' ";
    bench.run(&[others, "FROM numbers(999998)"].concat());
    // The last unit that has room.
    bench.request("user", "u2").unwrap();
    let (exit, said) = bench.refusal("user", "u3");
    assert_eq!(exit, Exit::Refused);
    assert!(
        said.starts_with(
            "refused: the ledger of forgotten units is full: it holds 1000000 units, and every "
        ),
        "{said}"
    );
    assert_eq!(bench.numbers("SELECT uniqExact(unit_hash) FROM forgotten"), [UNITS_MAX as u64]);
    // A unit that is there already needs no room.
    bench.request("user", "u1").unwrap();

    let ledger = bench.read().unwrap();
    let then = at("2026-01-01T00:00:00Z");
    assert_eq!(ledger.len(), UNITS_MAX);
    let found = ["u1", "u2", "u3"].map(|id| ledger.contains("user", id, then));
    assert_eq!(found, [true, true, false]);

    // What somebody else wrote beyond the bound is not used in part.
    bench.run(&[others, "FROM numbers(999998, 1000001)"].concat());
    assert_eq!(
        bench.read().err().unwrap().to_string(),
        "the ledger of forgotten units holds more than 2000000 units, which `splitstream forget` does not enter: delete \
         the rows of the table `forgotten` that somebody else wrote"
    );
}
