//! Runs one query on a thread of its own: body to rows, settings onto the connection, statement to the
//! engine, result to the output. Blocks; knows nothing of HTTP.

use std::io::Read;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::ast::Ast;
use super::compression::{self, Coding};
use super::engine::{Connection, Parameter, Progress, Reply};
use super::exception::{Exception, code};
use super::external::ExternalTable;
use super::form;
use super::guard;
use super::insert::{Insert, Source};
use super::kill::KillTask;
use super::lexer::{Token, tokens};
use super::output::{self, Output};
use super::pieces::Joining;
use super::processes;
use super::request::{QueryRequest, Readonly};
use super::response_headers::{self, Headers};
use super::rows;
use super::running::{Query, Registration};
use super::session::Lease;
use super::settings::{self, Restore};
use super::spool::Spool;
use super::statement::{self, Class, Other, Statement};

/// ClickHouse's format over HTTP where nobody names one.
const DEFAULT_FORMAT: &str = "TabSeparated";
/// The head of an INSERT, up to its rows, is looked for in as much of the body; max_query_size.
const INSERT_HEAD_BYTES_MAX: u64 = 256 * 1024;
/// A query's text, where it is not followed by rows.
const TEXT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A form with its files, which is taken apart in memory.
const FORM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A query with all that it holds while it runs.
pub struct Job {
    pub server: Arc<Server>,
    pub request: QueryRequest,
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
    // Before anything else: whatever becomes of the query, a session that it ends is ended.
    let lease = match &request.session {
        Some(session) => Some(server.sessions.lease(session, || server.connect())?),
        None => None,
    };
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
            // Ready at once: the whole form is here.
            let fields = Handle::current().block_on(form::fields(form, &boundary))?;
            (server.space.spool()?, request.read_form(fields, &server.space)?)
        }
    };
    let request = &*request;
    let kept = lease.as_ref().map(|lease| &lease.kept);
    let readonly = request.readonly.max(kept.map_or(Readonly::Off, |kept| kept.readonly));
    let task = Task::read(server, &request.text, body, tables)?;
    let own_headers = task.check(readonly)?;
    let headers = match (&own_headers, kept) {
        (Some(headers), _) => headers,
        (None, Some(kept)) if request.response_headers.is_empty() => &kept.response_headers,
        (None, _) => &request.response_headers,
    };
    output.set_headers(headers.clone());
    query.set_text(&task.sql);
    if readonly != Readonly::Off || !task.changes_data() {
        query.set_only_reads();
        // From here on a client that leaves stops the query; this is for one that just left.
        if output.is_abandoned() {
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
            let mut session = InSession { lease, readonly, own_headers };
            let (restore, ended) = session.run(&task, server, request, query, output);
            session.give_back(restore);
            ended
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

    /// Refuses what reaches past the tables and the user files; the headers that the text wants on the answer.
    fn check(&self, readonly: Readonly) -> Result<Option<Headers>, Exception> {
        let all: Vec<Token> = tokens(&self.sql, 0).collect();
        guard::refuse_files(&all)?;
        if readonly != Readonly::Off {
            guard::refuse_lifting(&all)?;
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

    /// SET and USE act on the session itself.
    fn is_about_the_session(&self) -> bool {
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
                    processes::show_in(&self.sql, &other.processes)
                };
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

    /// How the engine reads the statement, if anything depends on it. A request that only reads runs nothing
    /// that could not be read before; otherwise it is the format alone that depends on it.
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
            // Bounds on the answer (max_result_rows) are none on the lines that tell how the statement is read.
            let of = |connection: &mut Connection| Ast::of(connection, &self.sql, parameters);
            read = settings::past_result_bounds(connection, readonly, of);
        }
        match read {
            Ok(ast) => Ok(Some(ast)),
            // What is wrong with it, if anything is, shows when it is run.
            Err(_) if readonly == Readonly::Off => Ok(None),
            Err(exception) => Err(exception),
        }
    }

    /// The name behind FORMAT, which the engine may take for something else.
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
        let table = rows::table_name();
        let create = rows::create(&table, rows, &insert.format, structure.as_deref());
        connection.run(&create, format, &[])?;
        let inserted = connection.run(&insert.reading_table(&self.sql, &table), format, parameters);
        // A session outlives the rows.
        let dropped = connection.run(&rows::drop(&table), format, &[]);
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

/// A query in a session: the connection gets the request's settings and database for it, and its own back.
struct InSession {
    lease: Lease,
    readonly: Readonly,
    own_headers: Option<Headers>,
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
        let ended = ended.and_then(|()| if task.is_about_the_session() { self.keep() } else { Ok(()) });
        (restore, ended)
    }

    fn prepare(
        &mut self,
        task: &Task,
        request: &QueryRequest,
        query: &Query,
        restore: &mut Restore,
    ) -> Result<(), Exception> {
        let kept = self.lease.kept.readonly;
        let connection = self.lease.connection();
        settings::mark(connection, query, b"")?;
        if !task.is_about_the_session() {
            restore.remember(connection, request)?;
            restore.create_until_then(connection, &task.tables)?;
            // The engine refuses the request's settings where the session lets none be changed.
            settings::restrict(connection, kept)?;
            settings::apply(connection, request)?;
            settings::release(connection, kept)?;
        }
        settings::restrict(connection, self.readonly)
    }

    /// Notes what a SET has said that the connection cannot keep.
    fn keep(&mut self) -> Result<(), Exception> {
        if let Some(headers) = self.own_headers.take() {
            self.lease.kept.response_headers = headers;
        }
        if self.readonly == Readonly::Off {
            self.readonly = settings::readonly(self.lease.connection())?;
            self.lease.kept.readonly = self.readonly;
        }
        Ok(())
    }

    fn give_back(mut self, restore: Restore) {
        let connection = self.lease.connection();
        // Whatever failed, the connection may be restricted. The mark goes also when there is nothing to
        // restore: a failed query stays in system.processes until the next one.
        let restored = settings::release(connection, Readonly::Nothing)
            .and_then(|()| connection.run(settings::UNMARK, DEFAULT_FORMAT, &[]).map(drop))
            .and_then(|()| restore.run(connection));
        if let Err(exception) = restored {
            tracing::warn!(%exception.message, "a session could not be restored after a query and was ended");
            self.lease.end();
        }
    }
}
