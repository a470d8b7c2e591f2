//! Runs one query on a thread of its own: body to rows, settings onto the connection, statement to the
//! engine, result to the output. Blocks; knows nothing of HTTP.

use std::io::Read;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::compression::{self, Coding};
use super::engine::{Connection, Parameter, Progress};
use super::exception::{Exception, code};
use super::external::ExternalTable;
use super::output::{self, Output};
use super::pieces::Joining;
use super::processes;
use super::request::{Request, Setting};
use super::running::{Query, Registration};
use super::session::Lease;
use super::spool::Spool;
use super::statement::{self, Class, Insert, Kill, KillMode, Other, Statement};

/// ClickHouse's format over HTTP where nobody names one.
const DEFAULT_FORMAT: &str = "TabSeparated";
/// The head of an INSERT, up to its rows, is looked for in as much of the body; max_query_size.
const INSERT_HEAD_BYTES_MAX: u64 = 256 * 1024;
/// A query's text, where it is not followed by rows.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A form with its files, which is taken apart in memory.
const FORM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the embedded engine's settings are not a server's.
pub const SERVER_DEFAULTS: &[u8] = b", implicit_select = 0, allow_introspection_functions = 0";

/// A query with all that it holds while it runs.
pub struct Job {
    pub server: Arc<Server>,
    pub request: Request,
    pub body: Spool,
    pub registration: Registration,
    pub permit: OwnedSemaphorePermit,
    pub output: Output,
}

/// Runs the job to its end. Everything that it held is free again before its client hears of the end,
/// so that the next request may have the same query_id and session.
pub fn run(job: Job) {
    let Job { server, mut request, body, registration, permit, mut output } = job;
    let ended = execute(&server, &mut request, body, &registration.query, &mut output);
    if let Err(exception) = &ended {
        tracing::debug!(query_id = registration.query.id, code = exception.code, "query failed");
    }
    drop(registration);
    drop(permit);
    match ended {
        Ok(()) => output.finish(),
        Err(exception) => output.fail(exception),
    }
}

fn execute(
    server: &Arc<Server>,
    request: &mut Request,
    body: Spool,
    query: &Arc<Query>,
    output: &mut Output,
) -> Result<(), Exception> {
    let body = match request.body_coding {
        Coding::Identity => body,
        coding => {
            let mut unpacked = server.space.spool()?;
            compression::unpack(coding, body.read_from(0), &mut unpacked)?;
            unpacked
        }
    };
    let (body, tables) = match request.form.take() {
        None => (body, Vec::new()),
        Some(boundary) => {
            if body.len() > FORM_BYTES_MAX {
                return Err(Exception::new(
                    code::QUERY_IS_TOO_LARGE,
                    format_args!("the form has {} bytes, more than {FORM_BYTES_MAX}", body.len()),
                ));
            }
            let form = read_text(&body, FORM_BYTES_MAX)?;
            (server.space.spool()?, request.read_form(&form, &boundary, &server.space)?)
        }
    };
    let request = &*request;
    let task = Task::read(server, &request.text, body, tables)?;
    query.set_text(&task.sql);
    if task.changes_data() {
        task.refuse_if_readonly(request)?;
    } else {
        query.set_only_reads();
        // From here on a client that leaves stops the query; this is for one that just left.
        if output.is_abandoned() {
            return Err(output::client_left());
        }
    }
    if query.is_asked_to_stop() {
        return Err(query.cancelled());
    }
    match &request.session {
        None => {
            let mut connection = server.engine.connect()?;
            apply_settings(&mut connection, SERVER_DEFAULTS, request, query)?;
            for table in &task.tables {
                connection.run(&create_external(table), DEFAULT_FORMAT, &[])?;
            }
            task.run(server, request, &mut connection, query, output)
        }
        Some(session) => {
            let lease = server.sessions.lease(session, || server.connect())?;
            run_in_session(&task, server, request, lease, query, output)
        }
    }
}

/// A statement with its text, its rows if it takes any, and the tables that came with it.
struct Task {
    sql: Vec<u8>,
    statement: Statement,
    rows: Option<Spool>,
    tables: Vec<ExternalTable>,
}

impl Task {
    /// Puts together what ClickHouse reads as one stream: the address's text, a line end, the body.
    fn read(server: &Server, text: &str, body: Spool, tables: Vec<ExternalTable>) -> Result<Task, Exception> {
        if text.is_empty() {
            let start = read_text(&body, INSERT_HEAD_BYTES_MAX)?;
            if let Ok(Statement::Insert(insert)) = statement::read(&start) {
                let mut rows = server.space.spool()?;
                compression::unpack(Coding::Identity, body.read_from(insert.rows_at as u64), &mut rows)?;
                return Ok(Task::of_insert(start, insert, rows, tables));
            }
        } else if let Ok(Statement::Insert(insert)) = statement::read(text.as_bytes()) {
            let first_rows = text[insert.rows_at..].trim_start();
            if first_rows.is_empty() {
                return Ok(Task::of_insert(text.as_bytes().to_vec(), insert, body, tables));
            }
            let mut rows = server.space.spool()?;
            rows.append(&text.as_bytes()[insert.rows_at..])?;
            rows.append(b"\n")?;
            compression::unpack(Coding::Identity, body.read_from(0), &mut rows)?;
            return Ok(Task::of_insert(text.as_bytes().to_vec(), insert, rows, tables));
        }
        if body.len() > TEXT_BYTES_MAX {
            return Err(Exception::new(
                code::QUERY_IS_TOO_LARGE,
                format_args!("the query's text has {} bytes, more than {TEXT_BYTES_MAX}", body.len()),
            ));
        }
        let mut sql = text.as_bytes().to_vec();
        if !sql.is_empty() && !body.is_empty() {
            sql.push(b'\n');
        }
        sql.append(&mut read_text(&body, TEXT_BYTES_MAX)?);
        let statement = statement::read(&sql)?;
        Ok(Task { sql, statement, rows: None, tables })
    }

    fn of_insert(mut sql: Vec<u8>, insert: Insert, rows: Spool, tables: Vec<ExternalTable>) -> Task {
        sql.truncate(insert.rows_at);
        Task { sql, statement: Statement::Insert(insert), rows: Some(rows), tables }
    }

    fn changes_data(&self) -> bool {
        match &self.statement {
            Statement::Insert(_) => true,
            Statement::Kill(_) => false,
            Statement::Other(other) => other.class.changes_data(),
        }
    }

    /// SET and USE act on the session itself.
    fn is_about_the_session(&self) -> bool {
        matches!(&self.statement, Statement::Other(Other { class: Class::Session, .. }))
    }

    fn refuse_if_readonly(&self, request: &Request) -> Result<(), Exception> {
        let asked = request.settings.iter().any(|it| it.name == "readonly" && it.value != "0");
        if request.method_is_safe {
            return Err(Exception::new(
                code::READONLY,
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You \
                 should use method POST for modifying queries",
            ));
        }
        if asked {
            return Err(Exception::new(code::READONLY, "Cannot execute query in readonly mode"));
        }
        Ok(())
    }

    fn run(
        &self,
        server: &Arc<Server>,
        request: &Request,
        connection: &mut Connection,
        query: &Arc<Query>,
        output: &mut Output,
    ) -> Result<(), Exception> {
        let default_format = request.default_format.as_deref().unwrap_or(DEFAULT_FORMAT);
        query.enter_engine();
        match &self.statement {
            Statement::Insert(insert) => {
                output.set_format(default_format);
                let rows = self.rows.as_ref().expect("an INSERT is read together with its rows");
                let reply = connection.run(
                    &insert.reading_file(&self.sql, rows.path()),
                    default_format,
                    &request.parameters,
                )?;
                let written = reply.progress();
                output.count(Progress {
                    read_rows: written.written_rows,
                    read_bytes: written.written_bytes,
                    ..written
                });
                Ok(())
            }
            Statement::Kill(kill) => {
                let format = kill.format.as_deref().unwrap_or(default_format);
                output.set_format(format);
                let kill = KillTask { kill, condition: &self.sql[kill.condition.clone()], format };
                kill.run(server, request, connection, query, output)
            }
            Statement::Other(other) => {
                output.set_format(other.format.as_deref().unwrap_or(default_format));
                let mut parameters = request.parameters.clone();
                let sql = if other.processes.is_empty() {
                    self.sql.clone()
                } else {
                    parameters.extend(processes::parameters(&server.running, query));
                    processes::show_in(&self.sql, &other.processes)
                };
                let format = other.format.as_deref().unwrap_or(default_format);
                let settings = request.settings.iter().map(|setting| setting.name.as_str());
                let joining = Joining::of(format, &sql, settings);
                if other.class == Class::Select && joining != Joining::Whole {
                    match stream(connection, &sql, default_format, &parameters, joining, query, output) {
                        Err(exception) if exception.refuses_streaming() => {}
                        ended => return ended,
                    }
                }
                let reply = connection.run(&sql, default_format, &parameters)?;
                output.push(reply.bytes(), reply.progress())
            }
        }
    }
}

fn read_text(body: &Spool, bytes_max: u64) -> Result<Vec<u8>, Exception> {
    let mut text = Vec::new();
    body.read_from(0).take(bytes_max).read_to_end(&mut text).map_err(|error| {
        Exception::new(code::LOGICAL_ERROR, format_args!("cannot read the body back: {error}"))
    })?;
    Ok(text)
}

fn stream(
    connection: &mut Connection,
    sql: &[u8],
    format: &str,
    parameters: &[Parameter],
    joining: Joining,
    query: &Query,
    output: &mut Output,
) -> Result<(), Exception> {
    let mut stream = connection.stream(sql, format, parameters)?;
    let mut is_first = true;
    while let Some(piece) = stream.next()? {
        let bytes = match joining {
            Joining::Head(head) if !is_first => head.strip(piece.bytes()),
            _ => piece.bytes(),
        };
        is_first = false;
        output.push(bytes, piece.progress())?;
        if query.is_asked_to_stop() {
            return Err(query.cancelled());
        }
    }
    Ok(())
}

/// The session's connection gets the request's settings and database for this query, and its own back.
fn run_in_session(
    task: &Task,
    server: &Arc<Server>,
    request: &Request,
    mut lease: Lease,
    query: &Arc<Query>,
    output: &mut Output,
) -> Result<(), Exception> {
    let connection = lease.connection();
    let mut restore = Restore::default();
    let ended = if task.is_about_the_session() {
        connection.run(&marking(query, b""), DEFAULT_FORMAT, &[]).map(drop)
    } else {
        restore.remember(connection, request)?;
        apply_settings(connection, b"", request, query)
            .and_then(|()| restore.create_until_then(connection, &task.tables))
    };
    let ended = ended.and_then(|()| task.run(server, request, connection, query, output));
    restore_or_end(lease, restore);
    ended
}

fn restore_or_end(mut lease: Lease, restore: Restore) {
    let connection = lease.connection();
    // Also when there is nothing to restore: a failed query stays in system.processes until the next one.
    let mut statements = vec![b"SET promql_table = ''".to_vec()];
    statements.extend(restore.statements);
    for statement in statements {
        if let Err(exception) = connection.run(&statement, DEFAULT_FORMAT, &[]) {
            tracing::warn!(%exception.message, "a session could not be restored after a query and was ended");
            lease.end();
            return;
        }
    }
}

/// `more` is assignments, with a comma before each.
fn apply_settings(
    connection: &mut Connection,
    more: &[u8],
    request: &Request,
    query: &Query,
) -> Result<(), Exception> {
    let mut set = marking(query, more);
    for setting in applied(request) {
        set.extend_from_slice(b", ");
        set.append(&mut assignment(&setting.name, &setting.value));
    }
    connection.run(&set, DEFAULT_FORMAT, &[])?;
    if let Some(database) = &request.database {
        connection.run(&use_database(database), DEFAULT_FORMAT, &[])?;
    }
    Ok(())
}

/// The settings that the engine is told of; `readonly` could not be taken back from a session, and is
/// enforced by [`Task::refuse_if_readonly`].
fn applied(request: &Request) -> impl Iterator<Item = &Setting> {
    request.settings.iter().filter(|it| it.name != "readonly")
}

/// The engine gives each query an id of its own and takes none; a setting that only another dialect
/// reads carries ours into system.processes.
fn marking(query: &Query, more: &[u8]) -> Vec<u8> {
    [b"SET ".as_slice(), &assignment("promql_table", &query.marker), more].concat()
}

fn assignment(name: &str, value: &str) -> Vec<u8> {
    // The name has letters, digits, `_` and `.` alone.
    [name.as_bytes(), b" = ", &quoted(value, b'\'')].concat()
}

fn use_database(database: &str) -> Vec<u8> {
    [b"USE ".as_slice(), &quoted(database, b'`')].concat()
}

/// A literal or identifier that means exactly `text`.
fn quoted(text: &str, quote: u8) -> Vec<u8> {
    let mut literal = vec![quote];
    for &byte in text.as_bytes() {
        if byte == quote || byte == b'\\' {
            literal.push(b'\\');
        }
        literal.push(byte);
    }
    literal.push(quote);
    literal
}

fn create_external(table: &ExternalTable) -> Vec<u8> {
    [
        b"CREATE TEMPORARY TABLE ".as_slice(),
        &quoted(&table.name, b'`'),
        b" AS SELECT * FROM file(",
        &quoted(table.rows.path(), b'\''),
        b", ",
        &quoted(&table.format, b'\''),
        b", ",
        &quoted(&table.structure, b'\''),
        b")",
    ]
    .concat()
}

fn drop_external(table: &ExternalTable) -> Vec<u8> {
    [b"DROP TEMPORARY TABLE IF EXISTS ".as_slice(), &quoted(&table.name, b'`')].concat()
}

/// How a session's connection gets back what one query changes.
#[derive(Default)]
struct Restore {
    statements: Vec<Vec<u8>>,
}

impl Restore {
    /// Notes what the request's settings and database replace.
    fn remember(&mut self, connection: &mut Connection, request: &Request) -> Result<(), Exception> {
        let names: Vec<&str> = applied(request).map(|it| it.name.as_str()).collect();
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
    fn create_until_then(
        &mut self,
        connection: &mut Connection,
        tables: &[ExternalTable],
    ) -> Result<(), Exception> {
        for table in tables {
            connection.run(&create_external(table), DEFAULT_FORMAT, &[])?;
            self.statements.push(drop_external(table));
        }
        Ok(())
    }
}

fn unreadable(error: serde_json::Error) -> Exception {
    Exception::new(code::LOGICAL_ERROR, format_args!("cannot read the session's state: {error}"))
}

/// KILL QUERY: the engine does not know our ids, and cannot see a query whose body is still arriving.
struct KillTask<'task> {
    kill: &'task Kill,
    condition: &'task [u8],
    format: &'task str,
}

impl KillTask<'_> {
    fn run(
        &self,
        server: &Arc<Server>,
        request: &Request,
        connection: &mut Connection,
        query: &Arc<Query>,
        output: &mut Output,
    ) -> Result<(), Exception> {
        let mut parameters = request.parameters.clone();
        parameters.extend(processes::parameters(&server.running, query));
        let select = processes::matching(self.condition);
        let reply = connection.run(&select, "JSONCompactEachRow", &parameters)?;
        let mut victims = Vec::new();
        for row in reply.bytes().split(|&byte| byte == b'\n').filter(|row| !row.is_empty()) {
            let (id,): (String,) = serde_json::from_slice(row).map_err(unreadable)?;
            // Without those that ended meanwhile, and without this one.
            victims.extend(server.running.find(&id).filter(|victim| victim.id != query.id));
        }
        let ids: Vec<&str> = victims.iter().map(|victim| victim.id.as_str()).collect();
        let status = match self.kill.mode {
            KillMode::Async => "waiting",
            KillMode::Sync => "finished",
            KillMode::Test => "unknown_status",
        };
        parameters
            .push(Parameter { name: "embedded_victims".to_owned(), value: processes::text_array(&ids) });
        parameters.push(Parameter { name: "embedded_status".to_owned(), value: status.into() });
        let shown = connection.run(&processes::victims(), self.format, &parameters)?;
        if self.kill.mode != KillMode::Test {
            victims.iter().for_each(|victim| server.stop(victim));
        }
        if self.kill.mode == KillMode::Sync {
            Handle::current().block_on(async {
                for victim in &victims {
                    // Losing `gone` loses nothing: it is asked again by the next KILL.
                    tokio::select! {
                        () = victim.gone() => {}
                        () = query.asked_to_stop() => return Err(query.cancelled()),
                    }
                }
                Ok(())
            })?;
        }
        output.push(shown.bytes(), shown.progress())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(quoted("a'b\\c", b'\''), b"'a\\'b\\\\c'");
        assert_eq!(use_database("d`; DROP"), b"USE `d\\`; DROP`");
        assert_eq!(assignment("log_comment", "x' , y = '1"), b"log_comment = 'x\\' , y = \\'1'");
    }
}
