//! Writes the SQL for a temporary table over a spool, so that a query can read rows from a request's body as
//! a table. The table has a name that nobody can guess, and is dropped after the query. SQL of the request
//! may not name a spool itself ([`super::guard`]). Runs nothing.

use uuid::Uuid;

use super::external_table::ExternalTable;
use super::quoting::quote;
use super::spool::Spool;

/// A name for a table of rows; it needs no quotes.
pub fn table_name() -> String {
    format!("embedded_rows_{}", Uuid::new_v4().simple())
}

/// Creates `table` over `rows`, which are in `format`. Without a structure, the engine infers the columns
/// from the rows.
pub fn create(table: &str, rows: &Spool, format: &str, structure: Option<&str>) -> Vec<u8> {
    let mut sql = [
        b"CREATE TEMPORARY TABLE ".as_slice(),
        table.as_bytes(),
        b" ENGINE = File(",
        &quote(format, b'\''),
        b", ",
        &quote(rows.path(), b'\''),
        b")",
    ]
    .concat();
    if let Some(structure) = structure {
        // The engine parses the structure from a string, so it cannot contain another statement.
        sql.extend_from_slice(
            &[b" EMPTY AS SELECT * FROM null(", quote(structure, b'\'').as_slice(), b")"].concat(),
        );
    }
    sql
}

/// Drops `table`, which may have been dropped already.
pub fn drop(table: &str) -> Vec<u8> {
    [b"DROP TEMPORARY TABLE IF EXISTS ".as_slice(), table.as_bytes()].concat()
}

/// The statements that create an external table from its rows. Afterwards it no longer needs the spool.
pub fn create_external(table: &ExternalTable) -> [Vec<u8>; 3] {
    let name = table_name();
    let copy = [
        b"CREATE TEMPORARY TABLE ".as_slice(),
        &quote(&table.name, b'`'),
        b" AS SELECT * FROM ",
        name.as_bytes(),
    ];
    [create(&name, &table.rows, &table.format, Some(&table.structure)), copy.concat(), drop(&name)]
}

/// Drops an external table.
pub fn drop_external(table: &ExternalTable) -> Vec<u8> {
    [b"DROP TEMPORARY TABLE IF EXISTS ".as_slice(), &quote(&table.name, b'`')].concat()
}
