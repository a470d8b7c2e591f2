//! Runs one query on a thread of its own: reads its rows from the body, applies its settings to the
//! connection, gives its statement to the engine and its result to the output. Blocks; knows nothing of HTTP.

use std::io::Read;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::ast::Ast;
use super::compression::{self, Coding};
use super::engine::{Connection, Parameter, Progress, Reply};
use super::exception::{Exception, code};
use super::external_table::ExternalTable;
use super::guard;
use super::insert::{Insert, Source};
use super::kill::KillTask;
use super::lexer::{Token, tokens};
use super::multipart;
use super::output::{self, Output};
use super::processes;
use super::request::{QueryRequest, Readonly};
use super::response_headers::{self, Headers};
use super::result_chunks::Concatenation;
use super::running::{Query, Registration};
use super::session::Lease;
use super::settings::{self, Restore};
use super::spool::Spool;
use super::spool_table;
use super::statement::{self, Class, Other, Statement};

/// ClickHouse's format over HTTP if the request names none.
const DEFAULT_FORMAT: &str = "TabSeparated";
/// The part of the body in which an INSERT's rows must begin; max_query_size.
const INSERT_HEAD_BYTES_MAX: u64 = 256 * 1024;
/// The text of a query without rows.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A form with its files, which is parsed in memory.
const FORM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A query with all resources that it uses while it runs.
pub struct Job {
    pub server: Arc<Server>,
    pub request: QueryRequest,
    pub body: Spool,
    pub registration: Registration,
    pub permit: OwnedSemaphorePermit,
    pub output: Output,
}

/// Runs the job to its end. It releases all its resources before its client gets the end of the answer, so that
/// the client's next request can use the same query_id and session.
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
        Err(exception) => output.fail(guard::reword(exception, request.method_may_write)),
    }
}

fn execute(
    server: &Arc<Server>,
    request: &mut QueryRequest,
    body: Spool,
    query: &Arc<Query>,
    output: &mut Output,
) -> Result<(), Exception> {
    // First of all: a session that the query ends must end even if the query fails.
    let lease = match &request.session {
        Some(session) => Some(server.sessions.lease(session, || server.connect())?),
        None => None,
    };
    let body = match request.body_coding {
        Coding::Identity => body,
        coding => {
            let mut decompressed = server.space.new_spool()?;
            compression::decompress(coding, body.read_from(0), &mut decompressed)?;
            decompressed
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
            // This waits for nothing: the whole form has arrived.
            let fields = Handle::current().block_on(multipart::fields(form, &boundary))?;
            (server.space.new_spool()?, request.read_form(fields, &server.space)?)
        }
    };
    let request = &*request;
    let kept = lease.as_ref().map(|lease| &lease.settings);
    let readonly = request.readonly.max(kept.map_or(Readonly::Off, |kept| kept.readonly));
    let task = Task::read(server, &request.text, body, tables)?;
    let statement_headers = task.check(readonly)?;
    let headers = match (&statement_headers, kept) {
        (Some(headers), _) => headers,
        (None, Some(kept)) if request.response_headers.is_empty() => &kept.response_headers,
        (None, _) => &request.response_headers,
    };
    output.set_headers(headers.clone());
    query.set_text(&task.sql);
    if readonly != Readonly::Off || !task.changes_data() {
        query.set_only_reads();
        // From here on, a client that leaves stops the query. This check is for a client that left before.
        if output.client_has_left() {
            return Err(output::client_left());
        }
    }
    if query.is_asked_to_stop() {
        return Err(query.cancelled());
    }
    match lease {
        None => {
            let mut connection = server.engine.connect()?;
            settings::mark(&mut connection, query, settings::SERVER_DEFAULTS)?;
            settings::apply(&mut connection, request)?;
            for table in &task.tables {
                settings::create_external(&mut connection, table)?;
            }
            settings::restrict(&mut connection, readonly)?;
            task.run(server, request, readonly, &mut connection, query, output)
        }
        Some(lease) => {
            let mut session = InSession { lease, readonly, statement_headers };
            let (restore, ended) = session.run(&task, server, request, query, output);
            session.give_back(restore);
            ended
        }
    }
}

/// A statement with its text, its rows if it has any, and its external tables.
struct Task {
    sql: Vec<u8>,
    statement: Statement,
    rows: Option<Spool>,
    tables: Vec<ExternalTable>,
}

impl Task {
    /// Reads what ClickHouse reads as one stream: the text in the URL, a line end, the body.
    fn read(server: &Server, text: &str, body: Spool, tables: Vec<ExternalTable>) -> Result<Task, Exception> {
        if text.is_empty() {
            let start = read_text(&body, INSERT_HEAD_BYTES_MAX)?;
            if let Ok(Statement::Insert(insert)) = statement::read(&start) {
                let mut rows = server.space.new_spool()?;
                compression::decompress(Coding::Identity, body.read_from(insert.rows_at as u64), &mut rows)?;
                return Ok(Task::of_insert(start, insert, rows, tables));
            }
        } else if let Ok(Statement::Insert(insert)) = statement::read(text.as_bytes()) {
            let first_rows = text[insert.rows_at..].trim_start();
            if first_rows.is_empty() {
                return Ok(Task::of_insert(text.as_bytes().to_vec(), insert, body, tables));
            }
            let mut rows = server.space.new_spool()?;
            rows.append(&text.as_bytes()[insert.rows_at..])?;
            rows.append(b"\n")?;
            compression::decompress(Coding::Identity, body.read_from(0), &mut rows)?;
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

    /// Refuses SQL that would open other files or start programs. Returns the response headers that the text
    /// sets.
    fn check(&self, readonly: Readonly) -> Result<Option<Headers>, Exception> {
        let all: Vec<Token> = tokens(&self.sql, 0).collect();
        guard::refuse_files(&all)?;
        if readonly != Readonly::Off {
            guard::refuse_readonly_reset(&all)?;
        }
        response_headers::find(&all)
    }

    fn changes_data(&self) -> bool {
        match &self.statement {
            Statement::Insert(_) => true,
            Statement::Kill(_) => false,
            Statement::Other(other) => other.class == Class::Write,
        }
    }

    /// Returns whether the statement is SET or USE, which act on the session.
    fn changes_session(&self) -> bool {
        matches!(&self.statement, Statement::Other(Other { class: Class::Session, .. }))
    }

    fn run(
        &self,
        server: &Arc<Server>,
        request: &QueryRequest,
        readonly: Readonly,
        connection: &mut Connection,
        query: &Arc<Query>,
        output: &mut Output,
    ) -> Result<(), Exception> {
        let default_format = request.default_format.as_deref().unwrap_or(DEFAULT_FORMAT);
        query.enter_engine();
        let ast = self.ast(connection, &request.parameters, readonly)?;
        if readonly != Readonly::Off && ast.as_ref().is_some_and(|ast| !ast.is_read()) {
            return Err(Exception::new(code::READONLY, "Cannot execute query in readonly mode"));
        }
        let named = self.named_format().filter(|name| ast.as_ref().is_none_or(|ast| ast.has_format(name)));
        let format = named.unwrap_or(default_format);
        match &self.statement {
            Statement::Insert(insert) => {
                output.set_format(default_format);
                let reply = self.insert(insert, connection, default_format, &request.parameters)?;
                let written = reply.progress();
                output.count(Progress {
                    read_rows: written.written_rows,
                    read_bytes: written.written_bytes,
                    ..written
                });
                Ok(())
            }
            Statement::Kill(kill) => {
                output.set_format(format);
                let condition = &self.sql[kill.condition.clone()];
                let kill = KillTask { condition, mode: kill.mode, format, parameters: &request.parameters };
                kill.run(server, connection, query, output)
            }
            Statement::Other(other) => {
                output.set_format(format);
                let mut parameters = request.parameters.clone();
                let sql = if other.processes.is_empty() {
                    self.sql.clone()
                } else {
                    parameters.extend(processes::parameters(&server.running, query));
                    processes::replace_processes(&self.sql, &other.processes)
                };
                let settings = request.settings.iter().map(|setting| setting.name.as_str());
                let concatenation = Concatenation::of(format, &sql, settings);
                if other.class == Class::Select && concatenation != Concatenation::Impossible {
                    match stream(connection, &sql, default_format, &parameters, concatenation, query, output)
                    {
                        Err(exception) if exception.refuses_streaming() => {}
                        ended => return ended,
                    }
                }
                let reply = connection.run(&sql, default_format, &parameters)?;
                output.push(reply.bytes(), reply.progress())
            }
        }
    }

    /// How the engine parses the statement, if that is needed: for a request that may only read, and for the
    /// format. A request that may only read must not run a statement that could not be parsed.
    fn ast(
        &self,
        connection: &mut Connection,
        parameters: &[Parameter],
        readonly: Readonly,
    ) -> Result<Option<Ast>, Exception> {
        if readonly == Readonly::Off && self.named_format().is_none() {
            return Ok(None);
        }
        let mut read = Ast::of(connection, &self.sql, parameters);
        if read.as_ref().is_err_and(|exception| exception.code == code::TOO_MANY_ROWS_OR_BYTES) {
            // Limits on the result (max_result_rows) must not apply to the lines of EXPLAIN AST.
            let of = |connection: &mut Connection| Ast::of(connection, &self.sql, parameters);
            read = settings::without_result_limits(connection, readonly, of);
        }
        match read {
            Ok(ast) => Ok(Some(ast)),
            // If the statement is wrong, the engine reports it when it runs the statement.
            Err(_) if readonly == Readonly::Off => Ok(None),
            Err(exception) => Err(exception),
        }
    }

    /// The name after FORMAT. The engine may parse it as something else.
    fn named_format(&self) -> Option<&str> {
        match &self.statement {
            Statement::Insert(_) => None,
            Statement::Kill(kill) => kill.format.as_deref(),
            Statement::Other(other) => other.format.as_deref(),
        }
    }

    fn insert(
        &self,
        insert: &Insert,
        connection: &mut Connection,
        format: &str,
        parameters: &[Parameter],
    ) -> Result<Reply, Exception> {
        let rows = self.rows.as_ref().expect("an INSERT is read together with its rows");
        let Source::Input { structure, .. } = &insert.source else {
            return connection.run(&insert.reading_file(&self.sql, rows.path()), format, parameters);
        };
        let table = spool_table::table_name();
        let create = spool_table::create(&table, rows, &insert.format, structure.as_deref());
        connection.run(&create, format, &[])?;
        let inserted = connection.run(&insert.reading_table(&self.sql, &table), format, parameters);
        // In a session the table would outlive the rows.
        let dropped = connection.run(&spool_table::drop(&table), format, &[]);
        inserted.and_then(|reply| dropped.map(|_| reply))
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
    concatenation: Concatenation,
    query: &Query,
    output: &mut Output,
) -> Result<(), Exception> {
    let mut stream = connection.stream(sql, format, parameters)?;
    let mut is_first = true;
    while let Some(chunk) = stream.next()? {
        let bytes = match concatenation {
            Concatenation::SkipHeader(header) if !is_first => header.strip(chunk.bytes()),
            _ => chunk.bytes(),
        };
        is_first = false;
        output.push(bytes, chunk.progress())?;
        if query.is_asked_to_stop() {
            return Err(query.cancelled());
        }
    }
    Ok(())
}

/// A query in a session. The connection gets the settings and the database of the request, and its own
/// afterwards.
struct InSession {
    lease: Lease,
    readonly: Readonly,
    statement_headers: Option<Headers>,
}

impl InSession {
    fn run(
        &mut self,
        task: &Task,
        server: &Arc<Server>,
        request: &QueryRequest,
        query: &Arc<Query>,
        output: &mut Output,
    ) -> (Restore, Result<(), Exception>) {
        let mut restore = Restore::default();
        let ended = self
            .prepare(task, request, query, &mut restore)
            .and_then(|()| task.run(server, request, self.readonly, self.lease.connection(), query, output));
        let ended = ended.and_then(|()| if task.changes_session() { self.keep() } else { Ok(()) });
        (restore, ended)
    }

    fn prepare(
        &mut self,
        task: &Task,
        request: &QueryRequest,
        query: &Query,
        restore: &mut Restore,
    ) -> Result<(), Exception> {
        let kept = self.lease.settings.readonly;
        let connection = self.lease.connection();
        settings::mark(connection, query, b"")?;
        if !task.changes_session() {
            restore.save(connection, request)?;
            restore.create_external_tables(connection, &task.tables)?;
            // The engine refuses the request's settings where the session lets none be changed.
            settings::restrict(connection, kept)?;
            settings::apply(connection, request)?;
            settings::lift_restriction(connection, kept)?;
        }
        settings::restrict(connection, self.readonly)
    }

    /// Stores what a SET has set that the connection cannot keep.
    fn keep(&mut self) -> Result<(), Exception> {
        if let Some(headers) = self.statement_headers.take() {
            self.lease.settings.response_headers = headers;
        }
        if self.readonly == Readonly::Off {
            self.readonly = settings::readonly(self.lease.connection())?;
            self.lease.settings.readonly = self.readonly;
        }
        Ok(())
    }

    fn give_back(mut self, restore: Restore) {
        let connection = self.lease.connection();
        // The connection may still be restricted, whatever failed. The mark is cleared even if there is
        // nothing to restore: a failed query stays in system.processes until the next query.
        let restored = settings::lift_restriction(connection, Readonly::Nothing)
            .and_then(|()| connection.run(settings::CLEAR_MARK, DEFAULT_FORMAT, &[]).map(drop))
            .and_then(|()| restore.run(connection));
        if let Err(exception) = restored {
            tracing::warn!(%exception.message, "a session could not be restored after a query and was ended");
            self.lease.end();
        }
    }
}
