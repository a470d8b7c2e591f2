//! External tables: rows that a request sends with its query, one table in each file of its form. The query
//! sees them as temporary tables. This module reads their descriptions from the URL and the form; it runs no
//! SQL.

use std::sync::Arc;

use super::exception::{Exception, code};
use super::multipart::Field;
use super::spool::{Spool, SpoolSpace};

const DEFAULT_FORMAT: &str = "TabSeparated";

/// A table that exists as long as its query.
pub struct ExternalTable {
    pub name: String,
    /// The format of the rows.
    pub format: String,
    /// The columns with their types, as in CREATE TABLE.
    pub structure: String,
    pub rows: Spool,
}

/// One property of one table, from the URL or a field of the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub table: String,
    pub property: Property,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    Format(String),
    Structure(String),
}

impl Description {
    /// Reads `<table>_format`, `<table>_structure` or `<table>_types`; `None` for any other name.
    pub fn read(name: &str, value: &str) -> Option<Description> {
        let (table, property) = if let Some(table) = name.strip_suffix("_format") {
            (table, Property::Format(value.to_owned()))
        } else if let Some(table) = name.strip_suffix("_structure") {
            (table, Property::Structure(value.to_owned()))
        } else {
            (name.strip_suffix("_types")?, Property::Structure(numbered_columns(value)))
        };
        Some(Description { table: table.to_owned(), property })
    }
}

impl ExternalTable {
    /// The table whose rows are in `field`, with the properties in `descriptions`.
    ///
    /// # Errors
    /// No description names its columns; no memory is left for its rows.
    pub fn read(
        field: &Field,
        descriptions: &[Description],
        space: &Arc<SpoolSpace>,
    ) -> Result<ExternalTable, Exception> {
        let mut format = DEFAULT_FORMAT;
        let mut structure = None;
        for description in descriptions.iter().filter(|it| it.table == field.name) {
            match &description.property {
                Property::Format(given) => format = given,
                Property::Structure(given) => structure = Some(given),
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
        let mut rows = space.new_spool()?;
        rows.append(&field.value)?;
        Ok(ExternalTable {
            name: field.name.clone(),
            format: format.to_owned(),
            structure: structure.clone(),
            rows,
        })
    }
}

/// Turns `UInt8, Decimal(18, 6)` into `_1 UInt8, _2 Decimal(18, 6)`.
fn numbered_columns(types: &str) -> String {
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
        assert_eq!(numbered_columns("UInt8"), "_1 UInt8");
        assert_eq!(numbered_columns("UInt8,Decimal(18, 6),String"), "_1 UInt8, _2 Decimal(18, 6), _3 String");
    }

    #[test]
    fn a_description_starts_with_the_name_of_its_table() {
        let read = |name, value| Description::read(name, value);
        let of = |property| Some(Description { table: "ext".to_owned(), property });
        assert_eq!(read("ext_format", "CSV"), of(Property::Format("CSV".to_owned())));
        assert_eq!(read("ext_structure", "a UInt8"), of(Property::Structure("a UInt8".to_owned())));
        assert_eq!(read("ext_types", "UInt8"), of(Property::Structure("_1 UInt8".to_owned())));
        assert_eq!(read("max_threads", "1"), None);
    }

    #[test]
    fn rows_without_columns_are_refused() {
        let space = SpoolSpace::new(100, 100);
        let field = Field { name: "ext".to_owned(), is_file: true, value: b"1\n".as_slice().into() };
        let refused = ExternalTable::read(&field, &[], &space).err().expect("refused");
        assert_eq!(refused.code, code::BAD_ARGUMENTS);
        let columns =
            Description { table: "ext".to_owned(), property: Property::Structure("a UInt8".to_owned()) };
        let table = ExternalTable::read(&field, &[columns], &space).expect("reads");
        assert_eq!((table.format.as_str(), table.structure.as_str()), ("TabSeparated", "a UInt8"));
        assert_eq!(std::fs::read(table.rows.path()).expect("readable"), b"1\n");
    }
}
