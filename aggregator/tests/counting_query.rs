//! The query of ClickHouse and the fold over rows in memory count the same, for every kind of metric: two implementations
//! that check each other, on random events and the real engine.

use std::fmt::Write as _;

use aggregator::counts::{self, Question};
use aggregator::cut::{Cut, Position};
use aggregator::database::Database;
use aggregator::intake::{ConversionRow, ExposureRow, Intake, Reason};
use aggregator::spec;
use counting::fold::{Counting, NewRows};
use counting::read::{MetricCounts, UnitCounts};
use counting::spec::Spec;
use counting::store::Memory;
use local::{Options, Server, Stack};
use schemas::clickhouse::MIGRATIONS;
use schemas::definition::{Definition, Experiment, Kind, Metric};
use schemas::{Micros, UnitKey, Uuid};
use serde_json::{Value, json};

/// Numbers with commas between them; one if it is not set, for the suite.
const SEEDS: &str = "COUNTING_SEEDS";

fn seeds() -> Vec<u64> {
    let seeds = std::env::var(SEEDS).unwrap_or_else(|_| "20261201".to_owned());
    seeds
        .split(',')
        .map(|seed| seed.parse().unwrap_or_else(|_| panic!("{SEEDS}: {seed} is no number")))
        .collect()
}

const HOUR: i64 = 3_600_000_000;
const START: i64 = 1_800_000_000_000_000 / (24 * HOUR) * (24 * HOUR);

fn metrics() -> Vec<Metric> {
    let metrics = json!([
        {"key": "bought", "event": "purchase", "type": "conversion", "window_hours": 24},
        {"key": "bought_late", "event": "purchase", "type": "conversion", "delay_hours": 3, "window_hours": 6},
        {"key": "clicks", "event": "click", "type": "count", "cap": "2"},
        {"key": "revenue", "event": "purchase", "type": "mean", "window_hours": 48},
        {"key": "capped", "event": "purchase", "type": "mean", "cap": "12.5"},
        {"key": "winsorized", "event": "purchase", "type": "mean", "winsorize": 0.99, "window_hours": 24},
        {"key": "large_us", "event": "purchase", "type": "count", "window_hours": 24, "where": [
            {"metadata": "country", "in": ["US", "CA"]}, {"value_at_least": "10"}, {"value_below": "1000000"},
        ]},
        {"key": "not_us", "event": "purchase", "type": "mean", "where": [
            {"metadata": "country", "not_in": ["US"]}, {"metadata": "coupon", "exists": false},
        ]},
        {"key": "per_click", "event": "purchase", "type": "ratio", "numerator": "total", "denominator_event": "click",
         "where": [{"metadata": "coupon", "exists": true}], "window_hours": 48},
        {"key": "clicks_per_purchase", "event": "click", "type": "ratio", "denominator_event": "purchase",
         "denominator": "total", "denominator_where": [{"metadata": "country", "in": ["US"]}]},
        {"key": "came_back", "event": "click", "type": "retention", "retention_days": [1, 2]},
        {"key": "median_total", "event": "purchase", "type": "quantile", "quantile": 0.5, "window_hours": 48},
        {"key": "median_mean", "event": "purchase", "type": "quantile", "quantile": 0.5, "per_unit": "mean"},
        {"key": "median_largest", "event": "purchase", "type": "quantile", "quantile": 0.5, "per_unit": "largest"},
        {"key": "median_first", "event": "purchase", "type": "quantile", "quantile": 0.5, "per_unit": "first"},
        {"key": "funnel", "event": "click", "type": "funnel", "then_events": ["click", "purchase"], "window_hours": 12},
        {"key": "funnel_ever", "event": "click", "type": "funnel", "then_events": ["purchase", "click", "purchase"],
         "delay_hours": 1, "where": [{"metadata": "country", "not_in": ["CA"]}]},
    ]);
    let Value::Array(metrics) = metrics else { unreachable!() };
    metrics
        .into_iter()
        .map(|metric| match Definition::from_json(Kind::Metric, metric.clone()) {
            Ok(Definition::Metric(metric)) => metric,
            other => panic!("{metric}: {other:?}"),
        })
        .collect()
}

fn experiment(key: &str, more: Value) -> Experiment {
    let mut fields = json!({
        "key": key, "state": "running", "assignment": "external", "control": "a",
        "variants": [{"key": "a", "weight": 5000}, {"key": "b", "weight": 5000}],
        "metrics": {"primary": "bought"},
    });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    match Definition::from_json(Kind::Experiment, fields.clone()) {
        Ok(Definition::Experiment(experiment)) => experiment,
        other => panic!("{fields}: {other:?}"),
    }
}

/// Random numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    fn id(&mut self) -> u128 {
        u128::from(self.below(u64::MAX)) << 64 | u128::from(self.below(u64::MAX))
    }

    /// A quarter of an hour of five days, so that many events have the same time.
    fn time(&mut self) -> i64 {
        START + self.below(5 * 96) as i64 * HOUR / 4
    }
}

/// Events in the form of the tables, one JSON object a line, and the same folded.
struct Stream {
    exposures: String,
    conversions: String,
    intake: Intake,
    rows: NewRows,
    number: u64,
}

impl Stream {
    fn exposure(&mut self, random: &mut Random, experiment: &str) {
        let user = random.below(60).to_string();
        let at = random.time();
        let (unit_type, unit_id) = if experiment == "windows" {
            let window = if random.one_in(6) { START } else { at / (4 * HOUR) * 4 * HOUR };
            ("region", format!("{}\0{}", random.of(&["north", "south"]), window / 1_000_000))
        } else {
            ("user", user)
        };
        let (id, variant, phase) = (random.id(), random.of(&["a", "b"]), 1 + random.below(2) as u32);
        let environment = random.of(&["production", "production", "production", "canary", "staging"]);
        let reason = random.of(&[
            "split", "split", "split", "split", "split", "split", "split", "split", "forced", "held_out",
        ]);
        let mismatched = random.one_in(9);
        self.number += 1;
        for _ in 0..1 + u32::from(random.one_in(12)) {
            let line = json!({
                "event_id": Uuid::from_u128(id).to_string(), "experiment": experiment, "variant": variant, "unit_type": unit_type,
                "unit_id": unit_id, "phase": phase, "reason": reason, "environment": environment,
                "verification": if mismatched { "mismatched" } else { "verified" },
                "created_at": seconds(at), "ingest_ts": seconds(at), "kafka_partition": 0, "kafka_offset": self.number,
            });
            writeln!(self.exposures, "{line}").unwrap();
        }
        let row = ExposureRow {
            event_id: id,
            experiment,
            variant,
            unit_key: UnitKey::of(unit_type, &unit_id).get(),
            unit_id: &unit_id,
            phase,
            environment,
            mismatched,
            created_at: at,
            ingested_ms: at / 1_000,
            segments: ["", "", "", ""],
            reason: match reason {
                "split" => Reason::Split,
                "forced" => Reason::Forced,
                _ => Reason::HeldOut,
            },
        };
        self.intake.exposure(&row, &mut self.rows);
    }

    fn conversion(&mut self, random: &mut Random) {
        let (id, at) = (random.id(), random.time());
        let user = random.below(60).to_string();
        let name = random.of(&["click", "purchase", "purchase", "other"]);
        let value = [
            None,
            Some(0),
            Some(-3_500_000),
            Some(10_000_000),
            Some(9_999_999),
            Some(1_000_000_000_000),
            Some(i64::from(u32::MAX)),
        ][random.below(7) as usize];
        let mut metadata = Vec::new();
        if !random.one_in(4) {
            metadata.push(("country", random.of(&["US", "CA", "DE"])));
        }
        if random.one_in(3) {
            metadata.push(("coupon", random.of(&["", "x"])));
        }
        let mut other_ids = Vec::new();
        if random.one_in(2) {
            other_ids.push(("region", random.of(&["north", "south"])));
        }
        let other_user = random.below(60).to_string();
        let (unit_type, unit_id) = match random.below(4) {
            0 => ("device", "d1"),
            1 => ("region", "north"),
            _ => ("user", user.as_str()),
        };
        if unit_type != "user" && random.one_in(2) {
            other_ids.push(("user", other_user.as_str()));
        }
        other_ids.retain(|(of, _)| *of != unit_type);
        let experiment = random.of(&["", "", "", "", "plain", "both"]);
        let environment = random.of(&["production", "production", "production", "canary", "staging"]);
        let map = |pairs: &[(&str, &str)]| -> Value {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        self.number += 1;
        for _ in 0..1 + u32::from(random.one_in(12)) {
            let line = json!({
                "event_id": Uuid::from_u128(id).to_string(), "name": name, "unit_type": unit_type, "unit_id": unit_id,
                "other_ids": map(&other_ids), "experiment": experiment, "environment": environment, "metadata": map(&metadata),
                "value": value.map(decimal), "created_at": seconds(at), "ingest_ts": seconds(at),
                "kafka_partition": 0, "kafka_offset": self.number,
            });
            writeln!(self.conversions, "{line}").unwrap();
        }
        let carried: Vec<u64> = other_ids.iter().map(|(of, id)| UnitKey::of(of, id).get()).collect();
        let row = ConversionRow {
            event_id: id,
            name,
            unit_type,
            unit_id,
            unit_key: UnitKey::of(unit_type, unit_id).get(),
            other_ids: &other_ids,
            carried_keys: &carried,
            experiment,
            environment,
            value_millionths: value,
            metadata: &metadata,
            created_at: at,
        };
        self.intake.conversion(&row, &mut self.rows);
    }
}

fn seconds(micros: i64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn decimal(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", millionths.unsigned_abs() / 1_000_000, millionths.unsigned_abs() % 1_000_000)
}

/// Runs a statement whose body, if there is one, has the rows.
fn run(url: &str, statement: &str, rows: Option<&str>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(url);
    let request = if statement.starts_with("CREATE DATABASE") {
        request
    } else {
        request.query("database", "splitstream")
    };
    let sent = match rows {
        Some(rows) => request.query("query", statement).send(rows),
        None => request.send(statement),
    };
    let mut answer = sent.unwrap_or_else(|error| panic!("{statement}: {error}"));
    let text = answer.body_mut().read_to_string().unwrap();
    assert_eq!(answer.status(), 200, "{statement}: {text}");
}

#[test]
fn the_query_and_the_fold_count_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { servers: vec![Server::ClickHouse], ..Options::at(directory.path()) };
    let stack = Stack::up(options).unwrap();
    let url = stack.clickhouse_url();
    run(url, "CREATE DATABASE IF NOT EXISTS splitstream", None);
    MIGRATIONS
        .iter()
        .flat_map(|migration| migration.statements())
        .for_each(|statement| run(url, statement, None));
    let config: ops::config::ClickHouse =
        serde_json::from_value(json!({"url": url, "database": "splitstream"})).unwrap();
    let database = Database::new(&config, std::time::Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let metrics = metrics();
    let experiments = [
        experiment("plain", json!({})),
        experiment(
            "both",
            json!({"counted_environments": ["canary", "production"], "plan": {"covariate_days": 2}}),
        ),
        experiment(
            "windows",
            json!({"unit_type": "region", "switchback": {"window_seconds": 14400, "burn_in_seconds": 1800}}),
        ),
    ];
    let mut compared = 0;
    for seed in seeds() {
        eprintln!("seed {seed}; {SEEDS}={seed} repeats it");
        let mut random = Random(seed);
        let mut intake = Intake::default();
        let mut compiled = Vec::new();
        for experiment in &experiments {
            intake.follow(experiment);
            let of = metrics.iter().map(|metric| (metric, None));
            compiled.push(spec::experiment(&mut intake.names, &mut intake.series, experiment, of));
        }
        let spec = Spec { experiments: compiled };
        let (exposures, conversions) = (String::new(), String::new());
        let mut stream = Stream { exposures, conversions, intake, rows: NewRows::default(), number: 0 };
        for _ in 0..900 {
            let experiment = random.of(&["plain", "both", "windows", "unknown"]);
            stream.exposure(&mut random, experiment);
            (0..3).for_each(|_| stream.conversion(&mut random));
        }
        let tables = [
            ("TRUNCATE TABLE exposures", "INSERT INTO exposures FORMAT JSONEachRow", &stream.exposures),
            ("TRUNCATE TABLE conversions", "INSERT INTO conversions FORMAT JSONEachRow", &stream.conversions),
        ];
        for (truncate, insert, rows) in tables {
            run(url, truncate, None);
            run(url, insert, Some(rows));
        }
        let all = || [(0, Position { epoch: 1, next_offset: 0 })].into_iter().collect();
        let cut = Cut { exposures: all(), conversions: all() };
        for days in [1, 3] {
            let as_of = START + days * 24 * HOUR + HOUR / 2;
            let mut counting = Counting::new(spec.clone(), Memory::default());
            let Ok(()) = counting.fold(stream.rows.clone(), as_of);
            for (index, experiment) in experiments.iter().enumerate() {
                let units = UnitCounts::of(counting.units(index), &stream.intake.names);
                assert!(!units.is_empty());
                for (number, metric) in metrics.iter().enumerate() {
                    let question = Question { experiment, metric: Some(metric), cap: None };
                    let answer = runtime
                        .block_on(counts::count(&database, &question, &cut, Micros::new(as_of).unwrap()))
                        .unwrap();
                    let at = format!("seed {seed}, {days} days, `{}` of `{}`", metric.key, experiment.key);
                    assert_eq!(answer.units, units, "units: {at}");
                    let folded = MetricCounts::of(counting.metric(index, number), &stream.intake.names);
                    assert_eq!(answer.metric, folded, "{at}: {}", answer.sql);
                    compared += folded.len();
                }
            }
        }
    }
    eprintln!("{compared} groups compared");
}
