//! The columns of the rows against the tables that the migrations make, and against what is pushed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use schemas::clickhouse::MIGRATIONS;
use schemas::{Buckets, Uuid};

use super::*;

/// The columns of a table that `statements` make or add, each with its type; what comes behind the type is left out.
fn made<'s>(table: &str, statements: impl Iterator<Item = &'s str>) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for statement in statements {
        let lines = || statement.lines().map(str::trim).filter(|line| !line.starts_with("--"));
        let Some(head) = lines().find(|line| !line.is_empty()) else { continue };
        let is_table = |word: &str| word.rsplit('.').next() == Some(table);
        if !head.split_whitespace().any(is_table) {
            continue;
        }
        let declared: Vec<&str> = if head.starts_with("CREATE TABLE") {
            let inside = lines().skip_while(|line| *line != "(").skip(1).take_while(|line| *line != ")");
            inside.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase())).collect()
        } else if head.starts_with("ALTER TABLE") {
            lines().filter_map(|line| line.strip_prefix("ADD COLUMN IF NOT EXISTS ")).collect()
        } else {
            Vec::new()
        };
        for line in declared {
            let (name, rest) = line.split_once(' ').unwrap();
            let end =
                [" COMMENT", " CODEC", " DEFAULT", " AFTER"].iter().filter_map(|word| rest.find(word)).min();
            let kind = rest[..end.unwrap_or(rest.len())].trim().trim_end_matches(',');
            columns.insert(format!("{name} {kind}"));
        }
    }
    columns
}

/// The columns that a block brings, with the types of the table.
fn brought(table: Table) -> BTreeSet<String> {
    let kind = |name: &str, kind: &str| match name {
        // Sent as the number that it is; the server converts.
        "verification" => "Enum8('unknown' = 0, 'verified' = 1, 'mismatched' = 2, 'external' = 3)".to_owned(),
        _ => kind.to_owned(),
    };
    columns(table).map(|(name, of)| format!("{name} {}", kind(name, of))).collect()
}

fn columns(table: Table) -> impl Iterator<Item = (&'static str, &'static str)> {
    let own: Vec<_> = table.rows().columns().iter().map(|named| (named.name, named.kind)).collect();
    own.into_iter().chain(STAMPED)
}

fn expect_alike(table: Table, made: &BTreeSet<String>) {
    let brought = brought(table);
    assert!(brought.len() > STAMPED.len(), "{} has columns of its own", table.name());
    let differing: Vec<&String> = brought.symmetric_difference(made).collect();
    assert_eq!(differing, Vec::<&String>::new(), "columns of {} on one side alone", table.name());
}

#[test]
fn a_block_has_the_columns_of_its_table() {
    for table in Table::ALL {
        let statements = MIGRATIONS.iter().flat_map(|migration| migration.statements());
        expect_alike(table, &made(table.name(), statements));
    }
}

#[test]
fn a_block_has_the_columns_of_its_table_on_a_cluster() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/clickhouse/cluster");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let sql: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for table in Table::ALL {
        let statements = sql.iter().flat_map(|file| file.split(";\n"));
        // The logs are whole on every server.
        let name =
            if table.holds_events() { format!("{}_local", table.name()) } else { table.name().to_owned() };
        expect_alike(table, &made(&name, statements));
    }
}

#[test]
fn the_statement_names_the_table_and_the_columns_of_the_block() {
    assert_eq!(
        Table::Looks.insert(),
        "INSERT INTO look_log (version, look_id, rule_version, experiment, number, based_on, look, looked_at, \
         kafka_offset, ingest_ts, kafka_partition, epoch, batch_first, batch_last) FORMAT Native"
    );
    for table in Table::ALL {
        let (_, rest) = table.insert().split_once(" (").unwrap();
        let (names, _) = rest.split_once(") ").unwrap();
        let names: Vec<&str> = names.split(", ").collect();
        assert_eq!(names, columns(table).map(|(name, _)| name).collect::<Vec<_>>(), "{}", table.name());
    }
}

/// One that is forgotten would have fewer values than the block has rows.
#[test]
fn every_column_has_a_value_in_every_row() {
    let uuid = Uuid::from_u128(1);
    let (text, created_at) = (|| "a".into(), schemas::Micros::new(1).unwrap());
    let mut exposures = ExposureRows::default();
    let exposure = Exposure {
        event_id: uuid,
        experiment: text(),
        variant: text(),
        unit_type: text(),
        unit_id: text(),
        other_ids: Default::default(),
        phase: 1,
        definition_version: 1,
        configuration_version: 1,
        buckets: Some(Buckets { slot: 1, rollout: 1, variant: 1 }),
        rule: text(),
        reason: Default::default(),
        attributes: Default::default(),
        environment: text(),
        sender: Default::default(),
        created_at,
    };
    exposures.push(&exposure, Verification::Unknown, 1);
    let mut conversions = ConversionRows::default();
    let conversion = Conversion {
        event_id: uuid,
        name: text(),
        unit_type: text(),
        unit_id: text(),
        other_ids: Default::default(),
        experiment: None,
        value: None,
        metadata: Default::default(),
        environment: text(),
        sender: Default::default(),
        created_at,
    };
    conversions.push(&conversion, 1);
    let mut aliases = AliasRows::default();
    let unit = || schemas::Unit { unit_type: text(), unit_id: text() };
    let alias = Alias {
        event_id: uuid,
        from: unit(),
        to: unit(),
        environment: text(),
        sender: Default::default(),
        created_at,
    };
    aliases.push(&alias, 1);
    let mut definitions = DefinitionRows::default();
    let change = Change {
        change_id: uuid,
        rule_version: 1,
        kind: String::new(),
        key: String::new(),
        based_on: 0,
        definition: String::new(),
        author: String::new(),
        reason: String::new(),
    };
    definitions.push(&change, &RuleVerdict { refusal: String::new() }, 1, 1);
    let mut looks = LookRows::default();
    let look = LookRecord {
        look_id: uuid,
        rule_version: 1,
        experiment: String::new(),
        number: 1,
        based_on: 0,
        look: String::new(),
    };
    looks.push(&look, 1, 1);
    let filled = [
        Rows::Exposures(Box::new(exposures)),
        Rows::Conversions(Box::new(conversions)),
        Rows::Aliases(Box::new(aliases)),
        Rows::Definitions(Box::new(definitions)),
        Rows::Looks(Box::new(looks)),
    ];
    for (table, mut filled) in Table::ALL.into_iter().zip(filled) {
        for (filled, empty) in filled.columns().iter().zip(table.rows().columns()) {
            let grown = filled.column.byte_count() > empty.column.byte_count();
            assert!(grown, "{} of {} is not filled", filled.name, table.name());
        }
    }
}
