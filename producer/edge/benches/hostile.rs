//! The edge under a long hostile load, on a real Kafka: `cargo bench -p edge --bench hostile [-- SEED]`. It prints how long good
//! evaluations take with and without the attack, and fails if one of them fails or a hostile request gets another answer than
//! the stated one. The ratio is the result; the times are this machine's.

#[path = "../tests/edge_fixture/mod.rs"]
mod edge_fixture;
#[path = "../tests/hostile_load/mod.rs"]
mod hostile_load;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use edge_fixture::{DEFINITIONS, Fixture};
use hostile_load::{Good, Plan, SETTINGS};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::definition::{Definitions, parse_file};
use schemas::{Micros, Uuid, avro};

/// Flags besides those of [`DEFINITIONS`], so that a bulk answer is large.
const FLAGS: usize = 10_000;
/// Open files of this process besides idle connections and streams.
const OTHER_FILES: u64 = 4_000;

fn main() -> ExitCode {
    let seed = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let mut plan = Plan {
        seed,
        good_connections: 4,
        good_requests: 5_000,
        attackers: 4,
        slow_heads: 200,
        slow_bodies: 500,
        idle_connections: 10_000,
        streams: 1_000,
    };
    plan.idle_connections = allowed(plan.idle_connections, plan.streams);
    println!(
        "seed {seed}; {} idle connections, {} event streams, {FLAGS} flags",
        plan.idle_connections, plan.streams
    );
    let fixture = Fixture::alone("hostile");
    let began = Instant::now();
    fixture.apply(DEFINITIONS);
    write_flags(&fixture);
    println!("the definitions took {:.1} s", began.elapsed().as_secs_f64());
    let edge = fixture.edge(&SETTINGS);
    let flags = edge.bulk("{}", &[]).json()["flags"].as_array().unwrap().len();
    assert!(flags > FLAGS, "{flags} flags are served");
    let report = hostile_load::run(&edge, &plan);
    println!("\n{:<40} {:>10} {:>8}", "hostile", "answer", "count");
    for ((name, answer), count) in &report.answers {
        println!("{name:<40} {answer:>10} {count:>8}");
    }
    println!(
        "\n{:<10} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "good", "count", "errors", "p50 us", "p99 us", "p99.9 us", "max us"
    );
    for (name, good) in [("quiet", &report.quiet), ("attacked", &report.attacked)] {
        let of = |thousandths| good.percentile(thousandths);
        println!(
            "{name:<10} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            good.micros.len(),
            good.errors.len(),
            of(500),
            of(990),
            of(999),
            of(1_000)
        );
    }
    let ratio = |thousandths| {
        let of = |good: &Good| good.percentile(thousandths) as f64;
        of(&report.attacked) / of(&report.quiet)
    };
    println!("{:<10} {:>36.1} {:>9.1} {:>9.1}", "ratio", ratio(500), ratio(990), ratio(999));
    let lasted = |good: &Good| good.micros.iter().sum::<u64>() as f64 / 1e6 / plan.good_connections as f64;
    println!(
        "the good requests took {:.1} s in quiet and {:.1} s under attack",
        lasted(&report.quiet),
        lasted(&report.attacked)
    );
    for wrong in report.unexpected.iter().chain(&report.quiet.errors).chain(&report.attacked.errors).take(20)
    {
        println!("wrong: {wrong}");
    }
    let fails = !report.unexpected.is_empty()
        || !report.quiet.errors.is_empty()
        || !report.attacked.errors.is_empty();
    let healthy = edge.private("/healthz").status == 200;
    println!("resident memory of the edge: {}", resident(edge.service.pid()));
    if fails || !healthy { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Writes the flags into the log at once; `splitstream apply` waits for each of them.
fn write_flags(fixture: &Fixture) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", fixture.stack().brokers()).create().unwrap();
    let topic = fixture.topic(schemas::topics::DEFINITIONS);
    // None of them depends on another.
    let none = Definitions::default();
    for index in 0..FLAGS {
        let flag = format!(
            "{{ kind: flag, key: f-{index:05}, value_type: boolean, default_variant: \"on\", \
             variants: [{{ key: \"off\", value: false }}, {{ key: \"on\", value: true }}] }}"
        );
        let written = parse_file(&flag).unwrap().remove(0);
        let definition = assignment::resolve(&none, Micros::EPOCH, written).unwrap();
        let change = none.change_to(&definition, Uuid::from_u128(index as u128 + 1), "ann", "because");
        let payload = avro::encode_change(&change);
        let record = BaseRecord::<(), _>::to(&topic).partition(0).payload(&payload);
        producer.send(record).expect("the queue has room for all of them");
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// As many idle connections as open files are allowed for.
fn allowed(idle: usize, streams: usize) -> usize {
    let needed = (idle + streams) as u64 + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files can be asked for");
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
            .expect("the limit can be raised to the hard one");
    }
    let fit = hard.saturating_sub(streams as u64 + OTHER_FILES) as usize;
    if fit < idle {
        println!("{fit} idle connections in place of {idle}: {hard} files may be open");
    }
    idle.min(fit)
}

fn resident(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("not known on this system".to_owned(), |line| format!("{} at most", line.trim()))
}
