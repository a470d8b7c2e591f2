//! Reads the URL, the headers and the form of a request: the query with its settings, parameters, session,
//! credentials, formats and codings. Runs nothing and waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::compression::Coding;
use super::credentials::Credentials;
use super::engine::Parameter;
use super::exception::{Exception, code};
use super::external_table::{Description, ExternalTable};
use super::guard;
use super::multipart::{self, Field};
use super::request_headers::header;
use super::response_headers::{self, Headers};
use super::spool::SpoolSpace;

/// ClickHouse's timeout of a session that names none, and the longest that a session may name.
const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// A query, as its request describes it.
#[derive(Debug)]
pub struct QueryRequest {
    /// The part of the query's text that is in the URL.
    pub text: String,
    pub query_id: Option<String>,
    pub credentials: Credentials,
    pub database: Option<String>,
    pub default_format: Option<String>,
    /// Settings for this query alone, in the order of the URL.
    pub settings: Vec<Setting>,
    pub parameters: Vec<Parameter>,
    pub session: Option<SessionRequest>,
    /// Only a POST may change anything.
    pub method_may_write: bool,
    /// The stricter of the limits of the method and of the setting `readonly`. It is never in `settings`.
    pub readonly: Readonly,
    /// The response headers that the URL or the form sets.
    pub response_headers: Headers,
    /// A page in a browser may read the response.
    pub page_may_read: bool,
    pub replace_running_query: bool,
    /// The response begins only when the result is complete.
    pub wait_end_of_query: bool,
    pub body_coding: Coding,
    /// The boundary between the fields, if the body is a form.
    pub form: Option<String>,
    pub response_coding: Coding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Only letters, digits, `_` and `.`.
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    pub id: String,
    pub timeout: Duration,
    /// The session must exist already.
    pub must_exist: bool,
    /// The session ends with this query.
    pub ends: bool,
}

/// What a query may change, from anything to nothing: ClickHouse's setting `readonly`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readonly {
    #[default]
    Off,
    /// Only settings can be changed.
    Settings,
    Nothing,
}

impl Readonly {
    /// Reads the setting's value.
    pub fn read(value: &str) -> Result<Readonly, Exception> {
        match value.trim().parse::<u64>() {
            Ok(0) => Ok(Readonly::Off),
            Ok(1) => Ok(Readonly::Nothing),
            Ok(_) => Ok(Readonly::Settings),
            Err(_) => Err(Exception::new(
                code::BAD_ARGUMENTS,
                format_args!(
                    "readonly is {value:?}: it is 0, 1 (nothing can be changed) or 2 (settings can)"
                ),
            )),
        }
    }

    /// The setting's value.
    pub fn value(self) -> u8 {
        match self {
            Readonly::Off => 0,
            Readonly::Settings => 2,
            Readonly::Nothing => 1,
        }
    }
}

impl QueryRequest {
    /// Reads the URL and the headers. `query` is the URL after its question mark.
    pub fn read(method: &Method, query: &str, headers: &HeaderMap) -> Result<QueryRequest, Exception> {
        let mut request = QueryRequest {
            text: String::new(),
            query_id: header(headers, "x-clickhouse-query-id")?.map(str::to_owned),
            credentials: Credentials { user: String::new(), password: String::new() },
            database: header(headers, "x-clickhouse-database")?.map(str::to_owned),
            default_format: header(headers, "x-clickhouse-format")?.map(str::to_owned),
            settings: Vec::new(),
            parameters: Vec::new(),
            session: None,
            method_may_write: *method == Method::POST,
            readonly: if *method == Method::POST { Readonly::Off } else { Readonly::Settings },
            response_headers: Headers::new(),
            page_may_read: true,
            replace_running_query: false,
            wait_end_of_query: false,
            body_coding: Coding::Identity,
            form: None,
            response_coding: Coding::Identity,
        };
        let mut url_user = None;
        let mut url_password = None;
        let mut session_id = None;
        let mut session_timeout = SESSION_TIMEOUT_DEFAULT;
        let mut session_check = false;
        let mut close_session = false;
        let mut blocks_in = false;
        let mut blocks_out = false;
        let mut http_compression = true;
        for (name, value) in pairs(query)? {
            match name.as_str() {
                "query" => request.text.push_str(&value),
                "query_id" => request.query_id = Some(value).filter(|id| !id.is_empty()),
                "database" => request.database = Some(value).filter(|name| !name.is_empty()),
                "default_format" => request.default_format = Some(value).filter(|name| !name.is_empty()),
                "user" => url_user = Some(value),
                "password" => url_password = Some(value),
                "session_id" => session_id = Some(value).filter(|id| !id.is_empty()),
                "session_timeout" => session_timeout = read_timeout(&value)?,
                "session_check" => session_check = flag(&name, &value)?,
                "close_session" => close_session = flag(&name, &value)?,
                "compress" => blocks_out = flag(&name, &value)?,
                "decompress" => blocks_in = flag(&name, &value)?,
                "wait_end_of_query" => request.wait_end_of_query = flag(&name, &value)?,
                // These change nothing: the server decides how a result is buffered, there are no quotas, and
                // stack traces are not printed.
                "buffer_size" | "quota_key" | "stacktrace" | "client_protocol_version" => {}
                "role" => {
                    return Err(Exception::new(
                        code::NOT_IMPLEMENTED,
                        "roles are not supported by the embedded server",
                    ));
                }
                _ => {
                    if let Some(parameter) = name.strip_prefix("param_") {
                        request
                            .parameters
                            .push(Parameter { name: parameter.to_owned(), value: value.into_bytes() });
                        continue;
                    }
                    match name.as_str() {
                        "replace_running_query" => request.replace_running_query = flag(&name, &value)?,
                        "http_wait_end_of_query" => request.wait_end_of_query = flag(&name, &value)?,
                        "enable_http_compression" => http_compression = flag(&name, &value)?,
                        _ => {}
                    }
                    request.set(name, value)?;
                }
            }
        }
        request.credentials = Credentials::read(headers, url_user, url_password)?;
        if let Some(id) = session_id {
            request.session = Some(SessionRequest {
                id,
                timeout: session_timeout,
                must_exist: session_check,
                ends: close_session,
            });
        }
        request.form = multipart::boundary(header(headers, "content-type")?.unwrap_or(""))?;
        request.body_coding = body_coding(headers, blocks_in)?;
        request.response_coding = match header(headers, "accept-encoding")? {
            _ if blocks_out => Coding::Blocks,
            Some(offers) if http_compression => Coding::negotiate(offers),
            _ => Coding::Identity,
        };
        Ok(request)
    }

    /// Adds a setting of the query.
    fn set(&mut self, name: String, value: String) -> Result<(), Exception> {
        guard::refuse_file_setting(&name)?;
        match name.as_str() {
            "readonly" => {
                let asked = Readonly::read(&value)?;
                if asked == Readonly::Off && !self.method_may_write {
                    return Err(Exception::new(
                        code::READONLY,
                        "Cannot modify 'readonly' setting in readonly mode: only a POST may write",
                    ));
                }
                self.readonly = self.readonly.max(asked);
                return Ok(());
            }
            "add_http_cors_header" => self.page_may_read = flag(&name, &value)?,
            response_headers::SETTING => self.response_headers = response_headers::read(&value)?,
            _ => {}
        }
        self.settings.push(Setting::new(name, value)?);
        Ok(())
    }

    /// Reads the fields of a form like parameters of the URL, and its files as external tables.
    pub fn read_form(
        &mut self,
        fields: Vec<Field>,
        space: &Arc<SpoolSpace>,
    ) -> Result<Vec<ExternalTable>, Exception> {
        let mut files = Vec::new();
        let mut settings = Vec::new();
        for field in fields {
            if field.is_file {
                files.push(field);
                continue;
            }
            match (field.name.as_str(), field.name.strip_prefix("param_")) {
                ("query", _) => self.text.push_str(&String::from_utf8_lossy(&field.value)),
                (_, Some(name)) => {
                    self.parameters.push(Parameter { name: name.to_owned(), value: field.value.to_vec() });
                }
                (name, None) => {
                    let value = String::from_utf8_lossy(&field.value).into_owned();
                    settings.push((name.to_owned(), value));
                }
            }
        }
        for (name, value) in settings {
            self.set(name, value)?;
        }
        // A description of a table looks like a setting. Without a file of that name it is one.
        let mut descriptions = Vec::new();
        self.settings.retain(|setting| {
            let description = Description::read(&setting.name, &setting.value)
                .filter(|description| files.iter().any(|file| file.name == description.table));
            let is_setting = description.is_none();
            descriptions.extend(description);
            is_setting
        });
        files.iter().map(|file| ExternalTable::read(file, &descriptions, space)).collect()
    }
}

impl Setting {
    fn new(name: String, value: String) -> Result<Setting, Exception> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        if name.is_empty() || !name.bytes().all(plain) {
            // 115 is ClickHouse's code for a setting that it does not know.
            return Err(Exception {
                code: 115,
                message: format!("Unknown setting '{name}'. (UNKNOWN_SETTING)"),
            });
        }
        Ok(Setting { name, value })
    }
}

/// The names and values in a URL's query, decoded.
fn pairs(query: &str) -> Result<Vec<(String, String)>, Exception> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, decode(value)?));
    }
    Ok(pairs)
}

/// Decodes a name or a value. A `%` without two hexadecimal digits is an error, not a character.
fn decode(text: &str) -> Result<String, Exception> {
    let bad = |what: &str| {
        Exception::new(code::BAD_REQUEST_PARAMETER, format_args!("the address has {what}: {text}"))
    };
    let is_byte = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_byte) {
        return Err(bad("a % without two hexadecimal digits"));
    }
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().map_err(|_| bad("bytes that are not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn flag(name: &str, value: &str) -> Result<bool, Exception> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "" | "0" | "false" => Ok(false),
        _ => Err(Exception::new(
            code::BAD_REQUEST_PARAMETER,
            format_args!("{name} is {value:?}, neither 0 nor 1"),
        )),
    }
}

fn read_timeout(value: &str) -> Result<Duration, Exception> {
    let refused = |why: String| Exception::new(code::INVALID_SESSION_TIMEOUT, why);
    let seconds: u64 = value.parse().map_err(|_| refused(format!("Invalid session timeout: '{value}'")))?;
    let timeout = Duration::from_secs(seconds);
    if timeout > SESSION_TIMEOUT_MAX {
        let max = SESSION_TIMEOUT_MAX.as_secs();
        return Err(refused(format!("Session timeout '{value}' is larger than max_session_timeout: {max}")));
    }
    Ok(timeout)
}

fn body_coding(headers: &HeaderMap, blocks: bool) -> Result<Coding, Exception> {
    let named = header(headers, "content-encoding")?.unwrap_or("");
    let Some(coding) = Coding::from_http(named) else {
        return Err(Exception::new(
            code::UNKNOWN_COMPRESSION_METHOD,
            format_args!("Unknown compression method: {named}; lz4, zstd, br, gzip and deflate are read"),
        ));
    };
    if blocks && coding != Coding::Identity {
        return Err(Exception::new(
            code::BAD_REQUEST_PARAMETER,
            format_args!(
                "decompress=1 and Content-Encoding: {named} were both given: compress the body in one way"
            ),
        ));
    }
    Ok(if blocks { Coding::Blocks } else { coding })
}

#[cfg(test)]
pub mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    pub fn read(query: &str, given: &[(&'static str, &'static str)]) -> Result<QueryRequest, Exception> {
        QueryRequest::read(&Method::POST, query, &headers(given))
    }

    pub fn refused(query: &str, given: &[(&'static str, &'static str)]) -> u16 {
        read(query, given).expect_err("refused").code
    }

    #[test]
    fn a_url_is_read() {
        let request = read(
            "query=SELECT+%7Bx%3AString%7D%20%2B+1&param_x=a%09b%27&database=d&query_id=q1&max_threads=2\
             &session_id=s&session_timeout=5&session_check=1&default_format=CSV&wait_end_of_query=1",
            &[],
        )
        .expect("reads");
        assert_eq!(request.text, "SELECT {x:String} + 1");
        assert_eq!(request.parameters, [Parameter { name: "x".to_owned(), value: b"a\tb'".to_vec() }]);
        assert_eq!(request.settings, [Setting { name: "max_threads".to_owned(), value: "2".to_owned() }]);
        assert_eq!((request.database.as_deref(), request.query_id.as_deref()), (Some("d"), Some("q1")));
        let session = SessionRequest {
            id: "s".to_owned(),
            timeout: Duration::from_secs(5),
            must_exist: true,
            ends: false,
        };
        assert_eq!(request.session, Some(session));
        assert_eq!(request.default_format.as_deref(), Some("CSV"));
        assert!(request.wait_end_of_query && request.method_may_write && request.page_may_read);
        let session =
            read("session_id=s&close_session=1", &[]).expect("reads").session.expect("has a session");
        assert!(session.ends && !session.must_exist);
        assert!(!read("add_http_cors_header=0", &[]).expect("reads").page_may_read);
    }

    #[test]
    fn the_stricter_of_method_and_setting_counts() {
        let readonly = |method: Method, query: &str| {
            QueryRequest::read(&method, query, &HeaderMap::new()).map(|it| it.readonly).map_err(|it| it.code)
        };
        assert_eq!(readonly(Method::POST, ""), Ok(Readonly::Off));
        assert_eq!(readonly(Method::POST, "readonly=0"), Ok(Readonly::Off));
        assert_eq!(readonly(Method::POST, "readonly=1"), Ok(Readonly::Nothing));
        assert_eq!(readonly(Method::POST, "readonly=2"), Ok(Readonly::Settings));
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(readonly(method.clone(), ""), Ok(Readonly::Settings));
            assert_eq!(readonly(method.clone(), "readonly=1"), Ok(Readonly::Nothing));
            assert_eq!(readonly(method, "readonly=0"), Err(164));
        }
        assert_eq!(readonly(Method::POST, "readonly=yes"), Err(36));
    }

    #[test]
    fn response_headers_are_read() {
        let request = read("http_response_headers=%7B%27X-My%27%3A%271%27%7D", &[]).expect("reads");
        assert_eq!(
            request.response_headers,
            [("x-my".parse().expect("a name"), HeaderValue::from_static("1"))]
        );
        assert_eq!(request.settings.len(), 1);
        assert_eq!(refused("http_response_headers=%7B%27X%27%3A%27a%5Cnb%27%7D", &[]), 36);
    }

    #[test]
    fn codings_are_chosen() {
        let codings = |query: &str, given: &[(&'static str, &'static str)]| {
            let request = read(query, given).expect("reads");
            (request.body_coding, request.response_coding)
        };
        assert_eq!(codings("compress=1&decompress=1", &[]), (Coding::Blocks, Coding::Blocks));
        assert_eq!(codings("", &[("accept-encoding", "gzip")]), (Coding::Identity, Coding::Gzip));
        assert_eq!(
            codings("enable_http_compression=0", &[("accept-encoding", "gzip"), ("content-encoding", "lz4")]),
            (Coding::Lz4, Coding::Identity)
        );
        assert_eq!(refused("", &[("content-encoding", "snappy")]), 89);
        assert_eq!(refused("decompress=1", &[("content-encoding", "gzip")]), 408);
    }

    #[test]
    fn bad_urls_are_refused() {
        assert_eq!(refused("query=%4", &[]), 408);
        assert_eq!(refused("query=%g1", &[]), 408);
        assert_eq!(refused("query=%é", &[]), 408);
        assert_eq!(refused("query=%ff", &[]), 408);
        assert_eq!(refused("wait_end_of_query=maybe", &[]), 408);
        assert_eq!(refused("max%20threads=1", &[]), 115);
        assert_eq!(refused("session_timeout=3601", &[]), 374);
        assert_eq!(refused("session_timeout=x", &[]), 374);
        assert_eq!(refused("role=r", &[]), 48);
        assert_eq!(refused("format_template_row=/etc/hosts", &[]), 291);
    }
}
