//! Answers requests: one path for queries, two for health. Turns a request into a job and the job's result
//! into a response, and stops the query of a client that leaves. Knows nothing of connections and of SQL.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as HttpResponseBody, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Server;
use super::credentials::Credentials;
use super::engine::Progress;
use super::exception::{Exception, code};
use super::execute::{self, Job};
use super::long_urls::{LongUrl, LongUrls, URL_BYTES_MAX};
use super::origins;
use super::output::{Body, Finish, Head, Output, OutputOptions, StreamedBody};
use super::request::QueryRequest;
use super::running::{Query, Registration, already_running};
use super::spool::Spool;

/// The longest time without a byte of the body; then the request is refused.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(300);
/// ClickHouse's replace_running_query_max_wait_ms.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers any request. `long_urls` are the long URLs of its connection.
pub async fn answer(server: &Arc<Server>, long_urls: &LongUrls, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let page = match server.origins.check(&parts.headers) {
        Ok(page) => page,
        Err(exception) => return failure(server, &Uuid::new_v4().to_string(), &exception),
    };
    let (mut response, page_may_read) = match long_urls.take(parts.uri.path()) {
        None => {
            let query = parts.uri.query().unwrap_or("");
            dispatch(server, &parts, parts.uri.path(), query, page.as_ref(), body).await
        }
        Some(LongUrl::Complete(url)) => {
            let (path, query) = split_url(&url);
            dispatch(server, &parts, path, query, page.as_ref(), body).await
        }
        Some(LongUrl::TooLong) => (url_too_long(server), true),
    };
    if let Some(page) = page.filter(|_| page_may_read) {
        origins::allow_reading(response.headers_mut(), &page);
    }
    response
}

/// Returns the response, and whether a page may read it.
async fn dispatch(
    server: &Arc<Server>,
    parts: &Parts,
    path: &str,
    query: &str,
    page: Option<&HeaderValue>,
    body: HttpResponseBody,
) -> (Response, bool) {
    if parts.method == Method::OPTIONS {
        return (preflight(page.is_some(), parts), true);
    }
    match path {
        "/ping" | "/replicas_status" => (plain(StatusCode::OK, "Ok.\n".to_owned()), true),
        "/" => answer_query(server, parts, query, body).await,
        path => {
            let text = format!(
                "There is no handle {path}\nUse / or /ping for health checks.\nOr /replicas_status for more sophisticated health checks.\nSend queries from your program with POST method or GET /?query=...\n"
            );
            (plain(StatusCode::NOT_FOUND, text), true)
        }
    }
}

async fn answer_query(
    server: &Arc<Server>,
    parts: &Parts,
    query: &str,
    body: HttpResponseBody,
) -> (Response, bool) {
    let request = match QueryRequest::read(&parts.method, query, &parts.headers) {
        Ok(request) => request,
        Err(exception) => return (failure(server, &Uuid::new_v4().to_string(), &exception), true),
    };
    let page_may_read = request.page_may_read;
    let id = request.query_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let response = match run(server, parts, request, &id, body).await {
        Ok(response) => response,
        Err(exception) => failure(server, &id, &exception),
    };
    (response, page_may_read)
}

/// Answers a preflight, which a browser sends before a request that no form could send. A page that gets here
/// is allowed.
fn preflight(is_page: bool, parts: &Parts) -> Response {
    let mut response = Response::new(HttpResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, origins::METHODS);
    if is_page {
        origins::allow_request(response.headers_mut(), &parts.headers);
    }
    response
}

fn url_too_long(server: &Server) -> Response {
    let exception = Exception::new(
        code::BAD_REQUEST_PARAMETER,
        format_args!(
            "the address has more than {URL_BYTES_MAX} bytes (http_max_uri_size): send the query in the body of a \
             POST, and its parameters as fields of a form (multipart/form-data)"
        ),
    );
    let mut response = failure(server, &Uuid::new_v4().to_string(), &exception);
    *response.status_mut() = StatusCode::URI_TOO_LONG;
    response
}

/// The path and the query of a URL, which may contain a host before them.
fn split_url(url: &str) -> (&str, &str) {
    let path = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => url,
    };
    path.split_once('?').unwrap_or((path, ""))
}

async fn run(
    server: &Arc<Server>,
    parts: &Parts,
    request: QueryRequest,
    id: &str,
    body: HttpResponseBody,
) -> Result<Response, Exception> {
    server.authenticate(&request.credentials)?;
    match parts.method {
        Method::GET | Method::HEAD if request.text.is_empty() => {
            return Ok(plain(StatusCode::OK, "Ok.\n".to_owned()));
        }
        Method::GET | Method::HEAD | Method::POST | Method::PUT => {}
        ref method => {
            return Err(Exception::new(
                code::NOT_IMPLEMENTED,
                format_args!("the method {method} is not supported"),
            ));
        }
    }
    let permit = Arc::clone(&server.permits).try_acquire_owned().map_err(|_| {
        Exception::new(
            code::TOO_MANY_SIMULTANEOUS_QUERIES,
            format_args!(
                "Too many simultaneous queries. Maximum: {}: try again later, or start the server with a larger \
                 --max-concurrent-queries",
                server.queries_max
            ),
        )
    })?;
    let registration = register(server, &request, id).await?;
    let query = Arc::clone(&registration.query);
    let body = receive(server, &query, parts, body).await?;
    let tag = exception_tag();
    let (sender, head) = oneshot::channel();
    let plan = OutputOptions {
        query: Arc::clone(&query),
        coding: request.response_coding,
        tag: tag.clone(),
        version: Arc::clone(&server.version),
        wait_for_end: request.wait_end_of_query.then(|| Arc::clone(&server.space)),
        head: sender,
    };
    let output = Output::new(plan).map_err(|error| {
        Exception::new(code::LOGICAL_ERROR, format_args!("cannot start to compress the result: {error}"))
    })?;
    let mut response = Response::builder();
    if let Some(coding) = request.response_coding.http_name() {
        response = response.header(header::CONTENT_ENCODING, coding);
    }
    let timezone = request.settings.iter().find(|it| it.name == "session_timezone" && !it.value.is_empty());
    let timezone = timezone.map_or_else(|| server.timezone.to_string(), |it| it.value.clone());
    let mut stop_on_drop = StopOnDrop { server: Arc::clone(server), query: Some(Arc::clone(&query)) };
    let job = Job { server: Arc::clone(server), request, body, registration, permit, output };
    tokio::task::spawn_blocking(move || execute::run(job));
    let head: Head = match head.await {
        Ok(head) => head.inspect_err(|_| stop_on_drop.finish())?,
        // The job's thread has panicked, and has written so to standard error.
        Err(_) => return Err(Exception::new(code::LOGICAL_ERROR, "the query's thread failed")),
    };
    let own = |name: &'static str, value: &str| (HeaderName::from_static(name), HeaderValue::from_str(value));
    let elapsed = query.elapsed();
    let headers = [
        own("x-clickhouse-query-id", id),
        own("x-clickhouse-server-display-name", &server.display_name),
        own("x-clickhouse-format", &head.format),
        own("x-clickhouse-timezone", &timezone),
        own("x-clickhouse-summary", &summary(head.progress, elapsed)),
        own("x-clickhouse-exception-tag", &tag),
        own("content-type", content_type(&head.format)),
    ];
    for (name, value) in headers {
        // A value that no header can contain (such as a query_id with a line end) is left out.
        if let Ok(value) = value {
            response = response.header(name, value);
        }
    }
    if let Some(headers) = response.headers_mut() {
        // Each replaces a header of the server's with the same name.
        head.headers.into_iter().for_each(|(name, value)| drop(headers.insert(name, value)));
    }
    let body = match head.body {
        Body::Whole(bytes) => {
            stop_on_drop.finish();
            HttpResponseBody::from(bytes)
        }
        Body::Streamed(chunks) => HttpResponseBody::new(StreamedBody::new(chunks, stop_on_drop)),
    };
    response
        .body(body)
        .map_err(|error| Exception::new(code::LOGICAL_ERROR, format_args!("bad response: {error}")))
}

impl Server {
    /// Compares digests in constant time, so that the time does not depend on the password.
    fn authenticate(&self, given: &Credentials) -> Result<(), Exception> {
        let are_equal =
            |left: &str, right: &str| Sha256::digest(left).as_slice().ct_eq(Sha256::digest(right).as_slice());
        let expected = &self.credentials;
        let are_right =
            are_equal(&given.user, &expected.user) & are_equal(&given.password, &expected.password);
        if are_right.into() {
            return Ok(());
        }
        Err(Exception::new(
            code::AUTHENTICATION_FAILED,
            format_args!(
                "{}: Authentication failed: password is incorrect, or there is no user with such name",
                given.user
            ),
        ))
    }
}

async fn register(server: &Arc<Server>, request: &QueryRequest, id: &str) -> Result<Registration, Exception> {
    if request.replace_running_query
        && let Some(older) = server.running.find(id)
    {
        server.stop(&older);
        if tokio::time::timeout(REPLACE_TIMEOUT, older.gone()).await.is_err() {
            return Err(already_running(id));
        }
    }
    server.running.register(id.to_owned(), &request.text)
}

/// Receives the body. A body that is cut short never becomes a query.
async fn receive(
    server: &Arc<Server>,
    query: &Query,
    parts: &Parts,
    mut body: HttpResponseBody,
) -> Result<Spool, Exception> {
    let announced =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > server.space.body_bytes_max) {
        return Err(server.space.body_too_large());
    }
    let mut spool = server.space.new_spool()?;
    loop {
        // Losing the frame loses the request, which both other branches end.
        let frame = tokio::select! {
            frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)) => frame,
            () = query.asked_to_stop() => return Err(query.cancelled()),
            () = tokio::time::sleep(RECEIVE_TIMEOUT) => {
                return Err(Exception::new(
                    code::SOCKET_TIMEOUT,
                    format_args!("Timeout exceeded while reading from socket: the body brought nothing for {RECEIVE_TIMEOUT:?}"),
                ));
            }
        };
        match frame {
            None => return Ok(spool),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    spool.append(&bytes)?;
                }
            }
            Some(Err(error)) => {
                return Err(Exception::new(
                    code::CANNOT_READ_ALL_DATA,
                    format_args!("Cannot read all data: the body is cut short: {error}"),
                ));
            }
        }
    }
}

/// Stops a query that only reads when its client leaves, which drops the response or the future that makes it.
struct StopOnDrop {
    server: Arc<Server>,
    query: Option<Arc<Query>>,
}

impl Finish for StopOnDrop {
    fn finish(&mut self) {
        self.query = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(query) = self.query.take().filter(|query| query.only_reads()) {
            self.server.stop(&query);
        }
    }
}

/// Sixteen random letters, as ClickHouse tags its exceptions.
fn exception_tag() -> String {
    Uuid::new_v4().as_bytes().iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

fn summary(progress: Progress, elapsed: Duration) -> String {
    format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\"written_bytes\":\"{}\",\
         \"total_rows_to_read\":\"0\",\"result_rows\":\"{}\",\"result_bytes\":\"{}\",\"elapsed_ns\":\"{}\"}}",
        progress.read_rows,
        progress.read_bytes,
        progress.written_rows,
        progress.written_bytes,
        progress.result_rows,
        progress.result_bytes,
        elapsed.as_nanos()
    )
}

/// The content type of a format, whose name is not case-sensitive.
fn content_type(format: &str) -> &'static str {
    match format.to_ascii_lowercase().as_str() {
        "tabseparated"
        | "tsv"
        | "tabseparatedraw"
        | "tsvraw"
        | "tabseparatedwithnames"
        | "tsvwithnames"
        | "tabseparatedwithnamesandtypes"
        | "tsvwithnamesandtypes" => "text/tab-separated-values; charset=UTF-8",
        "csv" => "text/csv; charset=UTF-8; header=absent",
        "csvwithnames" | "csvwithnamesandtypes" => "text/csv; charset=UTF-8; header=present",
        "jsoneachrow" | "jsoncompacteachrow" | "jsonstringseachrow" | "jsonlines" | "ndjson" => {
            "application/x-ndjson; charset=UTF-8"
        }
        name if name.starts_with("json") => "application/json; charset=UTF-8",
        "xml" => "application/xml; charset=UTF-8",
        name if name == "native" || name.starts_with("rowbinary") => "application/octet-stream",
        "parquet" | "arrow" | "arrowstream" | "orc" | "avro" | "msgpack" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

fn failure(server: &Server, id: &str, exception: &Exception) -> Response {
    // Every code maps to a valid status.
    let status = StatusCode::from_u16(exception.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status, format!("{}\n", exception.text(&server.version)));
    let headers = response.headers_mut();
    headers.insert("x-clickhouse-exception-code", HeaderValue::from(exception.code));
    let texts = [
        ("x-clickhouse-query-id", id),
        ("x-clickhouse-server-display-name", &server.display_name),
        ("x-clickhouse-timezone", &server.timezone),
    ];
    for (name, value) in texts {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(HttpResponseBody::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        assert_eq!(split_url("/?query=a?b"), ("/", "query=a?b"));
        assert_eq!(split_url("/ping"), ("/ping", ""));
        assert_eq!(split_url("/?x=http://a/b"), ("/", "x=http://a/b"));
        assert_eq!(split_url("http://localhost:1/?query=1"), ("/", "query=1"));
        assert_eq!(split_url("http://localhost"), ("/", ""));
    }
}
