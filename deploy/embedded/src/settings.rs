//! Applies a query's settings to its connection, and restores those of a session's connection afterwards.
//! Knows nothing of HTTP.

use super::engine::{Connection, Parameter};
use super::exception::{Exception, code};
use super::external_table::ExternalTable;
use super::processes;
use super::quoting::{assignment, quote, use_database};
use super::request::{QueryRequest, Readonly};
use super::running::Query;
use super::spool_table;

/// The results of these statements are not read.
const FORMAT: &str = "Null";

/// A server's defaults, where the embedded engine has others.
pub const SERVER_DEFAULTS: &[u8] = b", implicit_select = 0, allow_introspection_functions = 0";

/// Clears the mark of [`mark`].
pub const CLEAR_MARK: &[u8] = b"SET promql_table = ''";

/// Marks the connection as `query`'s. The engine gives each query its own id and accepts no other. The mark
/// is the value of a setting that only another dialect uses, so that it can be read in system.processes.
/// `more` are further assignments, each with a comma before it.
pub fn mark(connection: &mut Connection, query: &Query, more: &[u8]) -> Result<(), Exception> {
    let set = [b"SET ".as_slice(), &assignment("promql_table", &query.marker), more].concat();
    connection.run(&set, FORMAT, &[]).map(drop)
}

/// Applies the settings of the request, except `readonly`, and its database.
pub fn apply(connection: &mut Connection, request: &QueryRequest) -> Result<(), Exception> {
    let assignments: Vec<Vec<u8>> =
        request.settings.iter().map(|setting| assignment(&setting.name, &setting.value)).collect();
    if !assignments.is_empty() {
        let set = [b"SET ".as_slice(), &assignments.join(b", ".as_slice())].concat();
        connection.run(&set, FORMAT, &[])?;
    }
    if let Some(database) = &request.database {
        connection.run(&use_database(database), FORMAT, &[])?;
    }
    Ok(())
}

/// Lets the connection only read from now on, which the engine enforces.
pub fn restrict(connection: &mut Connection, readonly: Readonly) -> Result<(), Exception> {
    if readonly == Readonly::Off {
        return Ok(());
    }
    connection.run(format!("SET readonly = {}", readonly.value()).as_bytes(), FORMAT, &[]).map(drop)
}

/// Reverts [`restrict`]. The engine refuses every value but DEFAULT, which it does not check
/// ([`super::guard`] refuses it in users' SQL). If an engine checked it, the session would end.
pub fn lift_restriction(connection: &mut Connection, readonly: Readonly) -> Result<(), Exception> {
    if readonly == Readonly::Off {
        return Ok(());
    }
    connection.run(b"SET readonly = DEFAULT", FORMAT, &[]).map(drop)
}

/// Calls `act` without the limits on a result that have just refused it, on a connection that is restricted to
/// `readonly`. With `break` the engine still returns its first block, which contains the whole explanation.
pub fn without_result_limits<T>(
    connection: &mut Connection,
    readonly: Readonly,
    act: impl FnOnce(&mut Connection) -> Result<T, Exception>,
) -> Result<T, Exception> {
    lift_restriction(connection, readonly)?;
    connection.run(b"SET result_overflow_mode = 'break'", FORMAT, &[])?;
    let done = act(connection);
    // The value before was `throw`, or the engine would not have refused.
    connection.run(b"SET result_overflow_mode = 'throw'", FORMAT, &[])?;
    restrict(connection, readonly)?;
    done
}

/// The value that a SET has given to `readonly`.
pub fn readonly(connection: &mut Connection) -> Result<Readonly, Exception> {
    let reply = connection.run(b"SELECT toString(getSetting('readonly'))", "TSV", &[])?;
    Readonly::read(&String::from_utf8_lossy(reply.bytes()))
}

/// The statements that restore a session's connection after a query.
#[derive(Default)]
pub struct Restore {
    statements: Vec<Vec<u8>>,
}

impl Restore {
    /// Saves the values that the request's settings and database replace.
    pub fn save(&mut self, connection: &mut Connection, request: &QueryRequest) -> Result<(), Exception> {
        let names: Vec<&str> = request.settings.iter().map(|it| it.name.as_str()).collect();
        if !names.is_empty() {
            let names =
                Parameter { name: "embedded_names".to_owned(), value: processes::string_array(&names) };
            let sql = b"SELECT name, value, changed FROM system.settings WHERE name IN {embedded_names:Array(String)}";
            let reply = connection.run(sql, "JSONCompactEachRow", &[names])?;
            for row in reply.bytes().split(|&byte| byte == b'\n').filter(|row| !row.is_empty()) {
                let (name, value, changed): (String, String, u8) =
                    serde_json::from_slice(row).map_err(unreadable)?;
                let value = if changed == 0 { b"DEFAULT".to_vec() } else { quote(&value, b'\'') };
                self.statements.push([b"SET ", name.as_bytes(), b" = ", &value].concat());
            }
        }
        if request.database.is_some() {
            let reply = connection.run(b"SELECT currentDatabase()", "JSONCompactEachRow", &[])?;
            let (database,): (String,) = serde_json::from_slice(reply.bytes()).map_err(unreadable)?;
            self.statements.push(use_database(&database));
        }
        Ok(())
    }

    /// Creates the external tables. It stops at the first failure. That table is not dropped afterwards,
    /// since the session may have a table of that name.
    pub fn create_external_tables(
        &mut self,
        connection: &mut Connection,
        tables: &[ExternalTable],
    ) -> Result<(), Exception> {
        for table in tables {
            create_external(connection, table)?;
            self.statements.push(spool_table::drop_external(table));
        }
        Ok(())
    }

    /// Restores the connection.
    pub fn run(self, connection: &mut Connection) -> Result<(), Exception> {
        for statement in self.statements {
            connection.run(&statement, FORMAT, &[])?;
        }
        Ok(())
    }
}

/// Creates an external table.
pub fn create_external(connection: &mut Connection, table: &ExternalTable) -> Result<(), Exception> {
    let [create, copy, drop] = spool_table::create_external(table);
    connection.run(&create, FORMAT, &[])?;
    let copied = connection.run(&copy, FORMAT, &[]).map(std::mem::drop);
    // It reads a spool that will be dropped.
    connection.run(&drop, FORMAT, &[])?;
    copied
}

fn unreadable(error: serde_json::Error) -> Exception {
    Exception::new(code::LOGICAL_ERROR, format_args!("cannot read the session's state: {error}"))
}
