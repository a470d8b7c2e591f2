//! The engine's `xxh3` computes the keys of the vectors: for rows that were stored before the migration, and
//! for rows that are inserted without keys.

mod server;

use schemas::Pairs;
use schemas::clickhouse::{MIGRATIONS, Migration};
use serde::{Deserialize, Serialize};
use server::Server;

const VECTORS: &str = include_str!("../../../schemas/vectors/unit_key.json");

#[derive(Deserialize)]
struct Vectors {
    units: Vec<Vector>,
    events: Vec<Vector>,
}

/// A unit, and the other ids that an event of it carries.
#[derive(Clone, Deserialize)]
struct Vector {
    unit_type: String,
    unit_id: String,
    #[serde(default)]
    other_ids: Pairs<'static>,
    #[serde(alias = "unit_key")]
    key: String,
    #[serde(default)]
    carried_keys: Vec<String>,
}

/// An exposure or a conversion without keys.
#[derive(Serialize)]
struct EventRow<'a> {
    kafka_offset: usize,
    unit_type: &'a str,
    unit_id: &'a str,
    other_ids: &'a Pairs<'static>,
}

/// An alias without keys.
#[derive(Serialize)]
struct AliasRow<'a> {
    kafka_offset: usize,
    from_unit_type: &'a str,
    from_unit_id: &'a str,
    to_unit_type: &'a str,
    to_unit_id: &'a str,
}

#[test]
fn old_rows_and_rows_without_keys_get_the_keys_of_the_vectors() {
    let Vectors { mut units, events } = serde_json::from_str(VECTORS).unwrap();
    units.extend(events);
    let sides: Vec<(&Vector, &Vector)> = units.iter().zip(units.iter().rev()).collect();
    let of_units: Vec<String> =
        units.iter().map(|unit| format!("{}\t{}", unit.key, unit.carried_keys.join(","))).collect();
    let of_aliases: Vec<String> =
        sides.iter().map(|(from, to)| format!("{}\t{}", from.key, to.key)).collect();

    let server = Server::start(&[]);
    let before = MIGRATIONS.iter().position(|migration| migration.name == "unit_keys").unwrap();
    apply(&server, &MIGRATIONS[..before]);
    fill(&server, &units, &sides);
    apply(&server, &MIGRATIONS[before..]);
    let expect = |times: usize| {
        let all = |rows: &[String]| -> String {
            rows.iter().flat_map(|row| vec![row.as_str(); times]).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(server.sql(EXPOSURES).trim_end_matches('\n'), all(&of_units));
        assert_eq!(server.sql(CONVERSIONS).trim_end_matches('\n'), all(&of_units));
        assert_eq!(server.sql(ALIASES).trim_end_matches('\n'), all(&of_aliases));
    };
    expect(1);
    // A writer that does not know the keys, such as a consumer of the build before.
    fill(&server, &units, &sides);
    expect(2);
    for merge in
        ["OPTIMIZE TABLE exposures FINAL", "OPTIMIZE TABLE conversions FINAL", "OPTIMIZE TABLE aliases FINAL"]
    {
        server.sql(merge);
    }
    expect(2);
}

const EXPOSURES: &str = "SELECT lower(leftPad(hex(unit_key), 16, '0')), \
    arrayStringConcat(arrayMap(key -> lower(leftPad(hex(key), 16, '0')), carried_keys), ',') \
    FROM exposures ORDER BY kafka_offset";
const CONVERSIONS: &str = "SELECT lower(leftPad(hex(unit_key), 16, '0')), \
    arrayStringConcat(arrayMap(key -> lower(leftPad(hex(key), 16, '0')), carried_keys), ',') \
    FROM conversions ORDER BY kafka_offset";
const ALIASES: &str = "SELECT lower(leftPad(hex(from_unit_key), 16, '0')), \
    lower(leftPad(hex(to_unit_key), 16, '0')) FROM aliases ORDER BY kafka_offset";

fn apply(server: &Server, migrations: &[Migration]) {
    for statement in migrations.iter().flat_map(Migration::statements) {
        server.sql(statement);
    }
}

fn fill(server: &Server, units: &[Vector], sides: &[(&Vector, &Vector)]) {
    let mut events = String::new();
    for (kafka_offset, Vector { unit_type, unit_id, other_ids, .. }) in units.iter().enumerate() {
        let row = EventRow { kafka_offset, unit_type, unit_id, other_ids };
        events.push_str(&serde_json::to_string(&row).unwrap());
    }
    let mut aliases = String::new();
    for (kafka_offset, (from, to)) in sides.iter().enumerate() {
        let (from_unit_type, from_unit_id) = (from.unit_type.as_str(), from.unit_id.as_str());
        let (to_unit_type, to_unit_id) = (to.unit_type.as_str(), to.unit_id.as_str());
        let row = AliasRow { kafka_offset, from_unit_type, from_unit_id, to_unit_type, to_unit_id };
        aliases.push_str(&serde_json::to_string(&row).unwrap());
    }
    server.sql(&["INSERT INTO exposures FORMAT JSONEachRow\n", &events].concat());
    server.sql(&["INSERT INTO conversions FORMAT JSONEachRow\n", &events].concat());
    server.sql(&["INSERT INTO aliases FORMAT JSONEachRow\n", &aliases].concat());
}
