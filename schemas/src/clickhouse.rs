//! The ClickHouse tables, as numbered migrations. They are applied in order, each once, and are never changed
//! after a release.

/// One numbered step of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    pub number: u32,
    pub name: &'static str,
    /// Statements separated by a semicolon at the end of a line.
    pub sql: &'static str,
}

pub const MIGRATIONS: [Migration; 14] = [
    Migration { number: 1, name: "events", sql: include_str!("../clickhouse/0001_events.sql") },
    Migration { number: 2, name: "definitions", sql: include_str!("../clickhouse/0002_definitions.sql") },
    Migration {
        number: 3,
        name: "experiment_events",
        sql: include_str!("../clickhouse/0003_experiment_events.sql"),
    },
    Migration { number: 4, name: "results", sql: include_str!("../clickhouse/0004_results.sql") },
    Migration { number: 5, name: "forgotten", sql: include_str!("../clickhouse/0005_forgotten.sql") },
    Migration { number: 6, name: "insert_parts", sql: include_str!("../clickhouse/0006_insert_parts.sql") },
    Migration { number: 7, name: "topic_ids", sql: include_str!("../clickhouse/0007_topic_ids.sql") },
    Migration {
        number: 8,
        name: "forgotten_tags",
        sql: include_str!("../clickhouse/0008_forgotten_tags.sql"),
    },
    Migration { number: 9, name: "unit_keys", sql: include_str!("../clickhouse/0009_unit_keys.sql") },
    Migration { number: 10, name: "looks", sql: include_str!("../clickhouse/0010_looks.sql") },
    Migration { number: 11, name: "analyses", sql: include_str!("../clickhouse/0011_analyses.sql") },
    Migration {
        number: 12,
        name: "counted_events",
        sql: include_str!("../clickhouse/0012_counted_events.sql"),
    },
    Migration {
        number: 13,
        name: "switchback_events",
        sql: include_str!("../clickhouse/0013_switchback_events.sql"),
    },
    Migration {
        number: 14,
        name: "evaluation_counts",
        sql: include_str!("../clickhouse/0014_evaluation_counts.sql"),
    },
];

/// The schema that this build needs: the number of the last migration.
pub const SCHEMA_VERSION: u32 = MIGRATIONS[MIGRATIONS.len() - 1].number;

impl Migration {
    /// Returns the statements in order, without the comments between them.
    pub fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split(";\n").map(str::trim).filter(|statement| {
            statement.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_from_one() {
        let numbers: Vec<u32> = MIGRATIONS.iter().map(|migration| migration.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(SCHEMA_VERSION, 14);
    }

    /// If two processes migrate at once, the second one finds the columns that the first one has added.
    #[test]
    fn a_column_is_added_where_it_is_not_there() {
        for statement in MIGRATIONS.iter().flat_map(Migration::statements) {
            let added = statement.matches("ADD COLUMN ").count();
            assert_eq!(statement.matches("ADD COLUMN IF NOT EXISTS ").count(), added, "{statement}");
        }
    }

    #[test]
    fn the_events_migration_makes_three_tables() {
        let made: Vec<&str> = MIGRATIONS[0]
            .statements()
            .flat_map(|statement| statement.lines().filter(|line| line.starts_with("CREATE")))
            .collect();
        assert_eq!(made, ["CREATE TABLE exposures", "CREATE TABLE conversions", "CREATE TABLE aliases"]);
    }
}
