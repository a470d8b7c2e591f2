//! The counts of evaluations, from real edges through aggregators into the table: exact although edges and aggregators are
//! killed, two aggregators read the same edges, and one edge is never there.

use std::time::Duration;

use local::{Service, ServiceOptions};
use serde_json::{Value, json};
use tests::Platform;
use tests::platform::wait_until;

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const TOKEN: &str = "the edges' token";

const FLAGS: &str = r#"
{ kind: flag, key: banner, value_type: boolean, default_variant: "on",
  variants: [{ key: "on", value: true }, { key: "off", value: false }],
  rules: [{ key: minors, when: { attribute: age, below: 18 }, split: [{ variant: "off", weight: 100% }] }] }
---
{ kind: flag, key: layout, value_type: string, default_variant: wide, variants: [{ key: wide, value: "wide" }] }
"#;

/// An edge, and where clients ask it.
struct Edge {
    service: Service,
    public: String,
}

impl Edge {
    fn start(platform: &Platform, name: &str) -> Edge {
        let public = format!("http://{}", free_address());
        let spool = platform.path(name).display().to_string();
        let settings = [
            ("SPLITSTREAM_SPOOL__DIRECTORY", spool.as_str()),
            ("SPLITSTREAM_EDGE__LISTEN", &public["http://".len()..]),
            ("SPLITSTREAM_EDGE__OPEN_WITHOUT_TOKENS", "true"),
            ("SPLITSTREAM_HTTP__TOKEN", TOKEN),
        ];
        let options = ServiceOptions { settings: &settings, port: None };
        Edge { service: platform.stack().service_with("edge", options).unwrap(), public }
    }

    fn evaluate(&self, path: &str, age: u32) -> Value {
        let context = json!({"context": {"targetingKey": "u1", "age": age}});
        let url = format!("{}/ofrep/v1/evaluate/flags{path}", self.public);
        ureq::post(&url).send_json(context).unwrap().body_mut().read_json().unwrap()
    }

    /// Reads both flags of an adult `times` times together.
    fn bulk(&self, times: u32) {
        for _ in 0..times {
            assert_eq!(self.evaluate("", 20)["flags"].as_array().unwrap().len(), 2);
        }
    }

    fn banner(&self, age: u32, variant: &str, times: u32) {
        for _ in 0..times {
            assert_eq!(self.evaluate("/banner", age)["variant"], variant);
        }
    }

    fn kill_and_start(&self) {
        self.service.kill().unwrap();
        self.service.start().unwrap();
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn aggregator(platform: &Platform, edges: &str) -> Service {
    let settings = [
        ("SPLITSTREAM_AGGREGATOR__EDGES", edges),
        ("SPLITSTREAM_AGGREGATOR__EDGE_TOKEN", TOKEN),
        ("SPLITSTREAM_AGGREGATOR__EDGE_INTERVAL_MS", "100"),
    ];
    let options = ServiceOptions { settings: &settings, port: None };
    platform.stack().service_with("aggregator", options).unwrap()
}

/// What the view has, over all days: flag, variant, single, bulk, reported. A test may run across midnight.
fn counted(platform: &Platform) -> String {
    let sql = "SELECT flag, variant, sum(single), sum(bulk), sum(reported) FROM evaluations_by_day \
               WHERE environment = 'production' GROUP BY flag, variant ORDER BY flag, variant FORMAT CSV";
    platform.clickhouse().text(sql, &[]).unwrap().replace('"', "")
}

/// Waits until the view has exactly this, and then for some more readings, which must change nothing.
#[track_caller]
fn check(platform: &Platform, expected: &str) {
    let reached = wait_until("the counts", TIMEOUT, POLL, || Ok(counted(platform) == expected));
    assert!(reached.is_ok(), "{}\nwhere this is expected:\n{expected}", counted(platform));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(counted(platform), expected);
}

fn metric(service: &Service, series: &str) -> f64 {
    let text =
        ureq::get(format!("{}/metrics", service.url())).call().unwrap().body_mut().read_to_string().unwrap();
    let line =
        text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn evaluations_are_in_the_table_once_whoever_is_restarted() {
    let platform = Platform::up().unwrap();
    platform.apply(FLAGS).unwrap();
    let (one, two) = (Edge::start(&platform, "one"), Edge::start(&platform, "two"));
    let nobody = format!("http://{}", free_address());
    let edges = format!("{},{},{nobody}", one.service.url(), two.service.url());
    let first = aggregator(&platform, &edges);

    one.banner(20, "on", 3);
    one.banner(17, "off", 2);
    two.bulk(4);
    check(&platform, "banner,off,2,0,0\nbanner,on,3,4,0\nlayout,wide,0,4,0");

    // An edge is killed: it counts from 0 again, under another id.
    one.kill_and_start();
    one.banner(20, "on", 1);
    check(&platform, "banner,off,2,0,0\nbanner,on,4,4,0\nlayout,wide,0,4,0");
    let lost = format!(
        "splitstream_aggregator_edge_counts_lost_total{{edge=\"{}\",why=\"restarted\"",
        one.service.url()
    );
    assert_eq!(metric(&first, &lost), 1.0);

    // A second aggregator reads the same edges at the same time.
    let second = aggregator(&platform, &edges);
    two.banner(20, "on", 5);
    check(&platform, "banner,off,2,0,0\nbanner,on,9,4,0\nlayout,wide,0,4,0");

    // Both are killed, perhaps between reading and writing, and the edges count on.
    first.kill().unwrap();
    second.kill().unwrap();
    one.bulk(2);
    two.bulk(1);
    first.start().unwrap();
    check(&platform, "banner,off,2,0,0\nbanner,on,9,7,0\nlayout,wide,0,7,0");

    // Merging the parts changes nothing: a row remains for each process, day and variant.
    platform.clickhouse().text("OPTIMIZE TABLE evaluation_counts FINAL", &[]).unwrap();
    check(&platform, "banner,off,2,0,0\nbanner,on,9,7,0\nlayout,wide,0,7,0");
    let sql = "SELECT uniqExact(edge_instance), uniqExact(day, flag, variant, edge_instance) = count() FROM evaluation_counts";
    assert_eq!(platform.clickhouse().text(sql, &[]).unwrap(), "3\t1");

    // The edge that was never there is named, and kept nobody else from being read.
    let series = |outcome: &str| {
        format!("splitstream_aggregator_edge_readings_total{{edge=\"{nobody}\",outcome=\"{outcome}\"")
    };
    assert!(metric(&first, &series("failed")) > 0.0);
    assert_eq!(metric(&first, &series("stored")), 0.0);

    api_answers(&first);
}

fn api_answers(aggregator: &Service) {
    let url = format!("{}/api/v1/flags/counts", aggregator.url());
    let answer: Value =
        ureq::get(format!("{url}?days=2&flag=layout")).call().unwrap().body_mut().read_json().unwrap();
    let rows = answer["counts"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["bulk"].as_u64().unwrap()).sum::<u64>(), 7, "{answer}");
    for row in rows {
        assert_eq!(
            [&row["environment"], &row["flag"], &row["variant"], &row["single"], &row["reported"]],
            [&json!("production"), &json!("layout"), &json!("wide"), &json!(0), &json!(0)]
        );
        assert!(row["day"].as_str() >= answer["from"].as_str(), "{answer}");
    }
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let refused = |question: &str| {
        let mut answer = agent.get(format!("{url}?{question}")).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap()["error"].clone())
    };
    assert_eq!(refused("days=401"), (400, json!("days=401 where a whole number from 1 to 400 is expected")));
    assert_eq!(
        refused("days=week"),
        (400, json!("days=week where a whole number from 1 to 400 is expected"))
    );
    assert_eq!(
        refused("day=2"),
        (
            400,
            json!(
                "Failed to deserialize query string: day: unknown field `day`, expected one of `days`, `flag`, `environment`"
            )
        )
    );
    assert_eq!(
        refused("flag=a%20b"),
        (400, json!("flag: 1 to 64 of the characters A-Z a-z 0-9 . _ - are expected"))
    );
}
