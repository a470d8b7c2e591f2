//! Rows that a query reads as a table, though they came in a request's body: a temporary table over the
//! spool, whose name nobody can guess, for as long as the query runs. SQL of the request may not name a
//! spool itself ([`super::guard`]).

use uuid::Uuid;

use super::external::ExternalTable;
use super::literal::quoted;
use super::spool::Spool;

/// A name for a table of rows; it needs no quotes.
pub fn table_name() -> String {
    format!("embedded_rows_{}", Uuid::new_v4().simple())
}

/// Makes `table` read `rows`, which are in `format`; without a structure, the rows tell their columns.
pub fn create(table: &str, rows: &Spool, format: &str, structure: Option<&str>) -> Vec<u8> {
    let mut sql = [
        b"CREATE TEMPORARY TABLE ".as_slice(),
        table.as_bytes(),
        b" ENGINE = File(",
        &quoted(format, b'\''),
        b", ",
        &quoted(rows.path(), b'\''),
        b")",
    ]
    .concat();
    if let Some(structure) = structure {
        // The engine reads the structure out of a text, so that it can be nothing else.
        sql.extend_from_slice(
            &[b" EMPTY AS SELECT * FROM null(", quoted(structure, b'\'').as_slice(), b")"].concat(),
        );
    }
    sql
}

/// Drops `table`, which may be gone.
pub fn drop(table: &str) -> Vec<u8> {
    [b"DROP TEMPORARY TABLE IF EXISTS ".as_slice(), table.as_bytes()].concat()
}

/// The statements that make an external table of its rows; afterwards it no longer needs the spool.
pub fn create_external(table: &ExternalTable) -> [Vec<u8>; 3] {
    let name = table_name();
    let copy = [
        b"CREATE TEMPORARY TABLE ".as_slice(),
        &quoted(&table.name, b'`'),
        b" AS SELECT * FROM ",
        name.as_bytes(),
    ];
    [create(&name, &table.rows, &table.format, Some(&table.structure)), copy.concat(), drop(&name)]
}

/// Drops an external table.
pub fn drop_external(table: &ExternalTable) -> Vec<u8> {
    [b"DROP TEMPORARY TABLE IF EXISTS ".as_slice(), &quoted(&table.name, b'`')].concat()
}
