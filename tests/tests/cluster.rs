//! The cluster's version of the tables: ClickHouse can parse every statement, and each differs from the single
//! server's only in its engine, its database and its cluster.

use local::{Options, Server, Stack};
use schemas::clickhouse::MIGRATIONS;

struct ClickHouse {
    stack: Stack,
    _dir: tempfile::TempDir,
}

impl ClickHouse {
    fn up() -> ClickHouse {
        let dir = tempfile::tempdir().unwrap();
        let stack =
            Stack::up(Options { servers: vec![Server::ClickHouse], ..Options::at(dir.path()) }).unwrap();
        ClickHouse { stack, _dir: dir }
    }

    /// The statement as the server parses and formats it; an error fails the test.
    fn formatted(&self, statement: &str) -> String {
        let sql = "SELECT formatQuery({statement:String}) FORMAT TSVRaw";
        let answer = ureq::post(self.stack.clickhouse_url())
            // Escaped as in tab-separated values, the format in which the server reads parameters.
            .query(
                "param_statement",
                statement.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t"),
            )
            .send(sql);
        let text = answer.unwrap_or_else(|error| panic!("{error}: {statement}")).body_mut().read_to_string();
        text.unwrap().trim_end().to_owned()
    }
}

/// The cluster's files, in the order of the migrations.
const CLUSTER: [&str; MIGRATIONS.len()] = [
    include_str!("../../schemas/clickhouse/cluster/0001_events.sql"),
    include_str!("../../schemas/clickhouse/cluster/0002_definitions.sql"),
    include_str!("../../schemas/clickhouse/cluster/0003_experiment_events.sql"),
    include_str!("../../schemas/clickhouse/cluster/0004_results.sql"),
    include_str!("../../schemas/clickhouse/cluster/0005_forgotten.sql"),
    include_str!("../../schemas/clickhouse/cluster/0006_insert_parts.sql"),
    include_str!("../../schemas/clickhouse/cluster/0007_topic_ids.sql"),
    include_str!("../../schemas/clickhouse/cluster/0008_forgotten_tags.sql"),
    include_str!("../../schemas/clickhouse/cluster/0009_unit_keys.sql"),
    include_str!("../../schemas/clickhouse/cluster/0010_looks.sql"),
    include_str!("../../schemas/clickhouse/cluster/0011_analyses.sql"),
    include_str!("../../schemas/clickhouse/cluster/0012_counted_events.sql"),
    include_str!("../../schemas/clickhouse/cluster/0013_switchback_events.sql"),
    include_str!("../../schemas/clickhouse/cluster/0014_evaluation_counts.sql"),
];

#[test]
fn a_cluster_has_the_tables_of_one_server_with_other_engines() {
    let clickhouse = ClickHouse::up();
    for (migration, cluster) in MIGRATIONS.iter().zip(CLUSTER) {
        let single: Vec<String> = statements(migration.sql).map(|one| clickhouse.formatted(one)).collect();
        let all: Vec<String> = statements(cluster).map(|one| clickhouse.formatted(one)).collect();
        let (distributed, all): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|statement| statement.contains("ENGINE = Distributed("));
        // A new column is added both to the tables that store the rows and to the distributed tables over them.
        let (added, own): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|statement| adds_columns_to_distributed(statement));
        if !added.is_empty() {
            let own: Vec<String> = own.iter().map(|statement| normalize(statement)).collect();
            assert_eq!(added.iter().map(|statement| normalize(statement)).collect::<Vec<_>>(), own);
        }
        let own: Vec<String> =
            own.iter().filter(|statement| !statement.starts_with("CREATE DATABASE")).cloned().collect();
        assert_eq!(
            own.iter().map(|statement| normalize(statement)).collect::<Vec<_>>(),
            single.iter().map(|statement| normalize(statement)).collect::<Vec<_>>(),
            "{}",
            migration.name
        );
        for statement in own.iter().filter(|statement| statement.contains("ENGINE = ")) {
            assert!(
                statement.contains("ENGINE = ReplicatedMergeTree(")
                    || statement.contains("ENGINE = ReplicatedReplacingMergeTree(")
                    || statement.contains("ENGINE = ReplicatedAggregatingMergeTree("),
                "{statement}"
            );
        }
        let expected = if migration.name == "events" { 3 } else { 0 };
        assert_eq!(distributed.len(), expected, "{}", migration.name);
        for statement in distributed {
            assert!(statement.contains(", kafka_partition)"), "{statement}");
        }
    }
}

fn adds_columns_to_distributed(statement: &str) -> bool {
    ["exposures", "conversions", "aliases"].iter().any(|table| {
        let head = ["ALTER TABLE splitstream.", table, " ON CLUSTER"].concat();
        statement.starts_with(&head) && statement.contains("ADD COLUMN")
    })
}

fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(str::trim).filter(|statement| {
        statement.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    })
}

/// A statement without the parts in which a cluster's statement may differ.
fn normalize(statement: &str) -> String {
    let mut lines = Vec::new();
    for line in statement.lines() {
        if line.starts_with("ENGINE = ") || line.contains("deduplication_window") {
            continue;
        }
        lines.push(
            line.replace(" IF NOT EXISTS", "")
                .replace(" ON CLUSTER splitstream", "")
                .replace("splitstream.", "")
                .replace("_local", "")
                .replace("GLOBAL ", ""),
        );
    }
    lines.join("\n")
}
