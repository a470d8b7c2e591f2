//! A query's settings on the connection that runs it, and how a session's connection gets its own back.

use super::engine::{Connection, Parameter};
use super::exception::{Exception, code};
use super::external::ExternalTable;
use super::literal::{assignment, quoted, use_database};
use super::processes;
use super::request::{QueryRequest, Readonly};
use super::rows;
use super::running::Query;

/// What these statements answer is not looked at.
const FORMAT: &str = "Null";

/// Where the embedded engine's settings are not a server's.
pub const SERVER_DEFAULTS: &[u8] = b", implicit_select = 0, allow_introspection_functions = 0";

/// What marks a connection whose query is over.
pub const UNMARK: &[u8] = b"SET promql_table = ''";

/// Marks the connection as `query`'s. The engine gives each query an id of its own and takes none; a setting
/// that only another dialect reads carries ours into system.processes. `more` is assignments, with a comma
/// before each.
pub fn mark(connection: &mut Connection, query: &Query, more: &[u8]) -> Result<(), Exception> {
    let set = [b"SET ".as_slice(), &assignment("promql_table", &query.marker), more].concat();
    connection.run(&set, FORMAT, &[]).map(drop)
}

/// Sets what the request sets, but for `readonly`, and makes its database the current one.
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

/// Lets the connection read alone from now on, as the engine itself sees to.
pub fn restrict(connection: &mut Connection, readonly: Readonly) -> Result<(), Exception> {
    if readonly == Readonly::Off {
        return Ok(());
    }
    connection.run(format!("SET readonly = {}", readonly.value()).as_bytes(), FORMAT, &[]).map(drop)
}

/// Lifts [`restrict`]. The engine refuses every value but this one, which it does not look at
/// ([`super::guard`] keeps it from users); an engine that did would only end the session.
pub fn release(connection: &mut Connection, readonly: Readonly) -> Result<(), Exception> {
    if readonly == Readonly::Off {
        return Ok(());
    }
    connection.run(b"SET readonly = DEFAULT", FORMAT, &[]).map(drop)
}

/// Acts past the bounds on a result that have just refused it, on a connection that is restricted to `readonly`.
/// With `break` the engine still gives its first block, which is all of what it has to explain.
pub fn past_result_bounds<T>(
    connection: &mut Connection,
    readonly: Readonly,
    act: impl FnOnce(&mut Connection) -> Result<T, Exception>,
) -> Result<T, Exception> {
    release(connection, readonly)?;
    connection.run(b"SET result_overflow_mode = 'break'", FORMAT, &[])?;
    let done = act(connection);
    // It was that, or nothing would have been refused.
    connection.run(b"SET result_overflow_mode = 'throw'", FORMAT, &[])?;
    restrict(connection, readonly)?;
    done
}

/// What a SET has made of `readonly`.
pub fn readonly(connection: &mut Connection) -> Result<Readonly, Exception> {
    let reply = connection.run(b"SELECT toString(getSetting('readonly'))", "TSV", &[])?;
    Readonly::read(&String::from_utf8_lossy(reply.bytes()))
}

/// How a session's connection gets back what one query changes.
#[derive(Default)]
pub struct Restore {
    statements: Vec<Vec<u8>>,
}

impl Restore {
    /// Notes what the request's settings and database replace.
    pub fn remember(&mut self, connection: &mut Connection, request: &QueryRequest) -> Result<(), Exception> {
        let names: Vec<&str> = request.settings.iter().map(|it| it.name.as_str()).collect();
        if !names.is_empty() {
            let names = Parameter { name: "embedded_names".to_owned(), value: processes::text_array(&names) };
            let sql = b"SELECT name, value, changed FROM system.settings WHERE name IN {embedded_names:Array(String)}";
            let reply = connection.run(sql, "JSONCompactEachRow", &[names])?;
            for row in reply.bytes().split(|&byte| byte == b'\n').filter(|row| !row.is_empty()) {
                let (name, value, changed): (String, String, u8) =
                    serde_json::from_slice(row).map_err(unreadable)?;
                let value = if changed == 0 { b"DEFAULT".to_vec() } else { quoted(&value, b'\'') };
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

    /// Creates the external tables. Stops at the first that fails, which is then not dropped: the session
    /// may have a table of that name.
    pub fn create_until_then(
        &mut self,
        connection: &mut Connection,
        tables: &[ExternalTable],
    ) -> Result<(), Exception> {
        for table in tables {
            create_external(connection, table)?;
            self.statements.push(rows::drop_external(table));
        }
        Ok(())
    }

    /// Gives the connection back its own.
    pub fn run(self, connection: &mut Connection) -> Result<(), Exception> {
        for statement in self.statements {
            connection.run(&statement, FORMAT, &[])?;
        }
        Ok(())
    }
}

/// Makes the table that came with a request.
pub fn create_external(connection: &mut Connection, table: &ExternalTable) -> Result<(), Exception> {
    let [create, copy, drop] = rows::create_external(table);
    connection.run(&create, FORMAT, &[])?;
    let copied = connection.run(&copy, FORMAT, &[]).map(std::mem::drop);
    // It reads a spool that is about to go.
    connection.run(&drop, FORMAT, &[])?;
    copied
}

fn unreadable(error: serde_json::Error) -> Exception {
    Exception::new(code::LOGICAL_ERROR, format_args!("cannot read the session's state: {error}"))
}
