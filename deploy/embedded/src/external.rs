//! External tables: rows that a request brings beside its query, each a file of its form. For the query
//! they are temporary tables; here is how the fields and the address become such tables.

use std::sync::Arc;

use super::exception::{Exception, code};
use super::form::Field;
use super::spool::{Spool, SpoolSpace};

const DEFAULT_FORMAT: &str = "TabSeparated";

/// A table that lives as long as its query.
pub struct ExternalTable {
    pub name: String,
    /// The format of the rows.
    pub format: String,
    /// Columns with their types, as in CREATE TABLE.
    pub structure: String,
    pub rows: Spool,
}

/// What the address, or a field of the form, says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub table: String,
    pub fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Format(String),
    Structure(String),
}

impl Description {
    /// Reads `<table>_format`, `<table>_structure` or `<table>_types`; `None` of any other name.
    pub fn read(name: &str, value: &str) -> Option<Description> {
        let (table, fact) = if let Some(table) = name.strip_suffix("_format") {
            (table, Fact::Format(value.to_owned()))
        } else if let Some(table) = name.strip_suffix("_structure") {
            (table, Fact::Structure(value.to_owned()))
        } else {
            (name.strip_suffix("_types")?, Fact::Structure(numbered(value)))
        };
        Some(Description { table: table.to_owned(), fact })
    }
}

impl ExternalTable {
    /// The table in `field`, as the `descriptions` have it.
    ///
    /// # Errors
    /// Nothing says what its columns are; no room for its rows.
    pub fn read(
        field: &Field,
        descriptions: &[Description],
        space: &Arc<SpoolSpace>,
    ) -> Result<ExternalTable, Exception> {
        let mut format = DEFAULT_FORMAT;
        let mut structure = None;
        for description in descriptions.iter().filter(|it| it.table == field.name) {
            match &description.fact {
                Fact::Format(given) => format = given,
                Fact::Structure(given) => structure = Some(given),
            }
        }
        let Some(structure) = structure else {
            return Err(Exception::new(
                code::BAD_ARGUMENTS,
                format_args!(
                    "Neither structure nor types have not been specified for external table {}: give {0}_structure \
                     or {0}_types",
                    field.name
                ),
            ));
        };
        let mut rows = space.spool()?;
        rows.append(&field.value)?;
        Ok(ExternalTable {
            name: field.name.clone(),
            format: format.to_owned(),
            structure: structure.clone(),
            rows,
        })
    }
}

/// `UInt8, Decimal(18, 6)` as `_1 UInt8, _2 Decimal(18, 6)`.
fn numbered(types: &str) -> String {
    let mut columns = String::new();
    let mut depth = 0_usize;
    let mut count = 1;
    for character in types.chars() {
        if columns.is_empty() {
            columns.push_str("_1 ");
        }
        columns.push(character);
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                count += 1;
                columns.push_str(&format!(" _{count} "));
            }
            _ => {}
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_numbered_columns() {
        assert_eq!(numbered("UInt8"), "_1 UInt8");
        assert_eq!(numbered("UInt8,Decimal(18, 6),String"), "_1 UInt8, _2 Decimal(18, 6), _3 String");
    }

    #[test]
    fn a_table_is_described_by_its_name() {
        let read = |name, value| Description::read(name, value);
        let of = |fact| Some(Description { table: "ext".to_owned(), fact });
        assert_eq!(read("ext_format", "CSV"), of(Fact::Format("CSV".to_owned())));
        assert_eq!(read("ext_structure", "a UInt8"), of(Fact::Structure("a UInt8".to_owned())));
        assert_eq!(read("ext_types", "UInt8"), of(Fact::Structure("_1 UInt8".to_owned())));
        assert_eq!(read("max_threads", "1"), None);
    }

    #[test]
    fn rows_without_columns_are_refused() {
        let space = SpoolSpace::new(100, 100);
        let field = Field { name: "ext".to_owned(), is_file: true, value: b"1\n".as_slice().into() };
        let refused = ExternalTable::read(&field, &[], &space).err().expect("refused");
        assert_eq!(refused.code, code::BAD_ARGUMENTS);
        let columns = Description { table: "ext".to_owned(), fact: Fact::Structure("a UInt8".to_owned()) };
        let table = ExternalTable::read(&field, &[columns], &space).expect("reads");
        assert_eq!((table.format.as_str(), table.structure.as_str()), ("TabSeparated", "a UInt8"));
        assert_eq!(std::fs::read(table.rows.path()).expect("readable"), b"1\n");
    }
}
