//! The OFREP providers for Go and .NET, played back: neither can be installed where these tests run, so the bytes that they send
//! are formed here as they form them, and what they demand of an answer is asserted here as they check it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::edge_fixture::{Edge, SERVER_TOKEN};

/// A token that allows one request a second.
const LIMITED_TOKEN: &str = "limited-0123456789abcdef";

/// An answer as a client's HTTP library returns it.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A connection that a client keeps for its requests, until an answer says that it ends.
pub struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
    ends: bool,
}

impl Connection {
    pub fn open(edge: &Edge) -> Connection {
        let host = edge.url().strip_prefix("http://").unwrap().to_owned();
        let stream = connect(&host);
        Connection { host, stream, ends: false }
    }

    /// Sends a request whose head has `{host}` in it.
    fn send(&mut self, head: &str, body: &[u8]) -> Answer {
        let head = head.replace("{host}", &self.host);
        if self.ends {
            self.stream = connect(&self.host);
        }
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        self.read()
    }

    fn read(&mut self) -> Answer {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        self.ends = answer.header("connection") == Some("close");
        answer
    }
}

fn connect(host: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    BufReader::new(stream)
}

/// Go's provider. `net/http` writes its own headers first and the provider's in the order of their names; `encoding/json`
/// sorts the fields and writes `<`, `>` and `&` as escapes.
pub mod go {
    use super::*;

    /// What the provider returns: a value with its reason, or an error of OpenFeature.
    pub type Resolved<T> = Result<(T, String), (&'static str, String)>;

    pub fn single(connection: &mut Connection, token: &str, key: &str, context: &str) -> Answer {
        let body = format!(r#"{{"context":{context}}}"#);
        let head = format!(
            "POST /ofrep/v1/evaluate/flags/{key} HTTP/1.1\r\nHost: {{host}}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Accept-Encoding: gzip\r\n\r\n",
            body.len()
        );
        connection.send(&head, body.as_bytes())
    }

    fn resolve<T>(answer: &Answer, value: impl FnOnce(&Value) -> Option<T>) -> Resolved<T> {
        let text = |body: &Value, field: &str| match &body[field] {
            Value::String(text) => text.clone(),
            // A field of another type fails to be unmarshalled.
            other => panic!("`{field}` is {other} in {}", answer.body),
        };
        let body = || answer.json();
        match answer.status {
            200 => {
                let body = body();
                assert!(body["metadata"].is_object(), "metadata must be an object: {body}");
                let (reason, _) = (text(&body, "reason"), text(&body, "variant"));
                assert_ne!(reason, "DISABLED", "the value would be ignored: {body}");
                match value(&body["value"]) {
                    Some(value) => Ok((value, reason)),
                    None => Err(("TYPE_MISMATCH", format!("resolved value {}", body["value"]))),
                }
            }
            400 => {
                let body = body();
                let details = text(&body, "errorDetails");
                Err(match text(&body, "errorCode").as_str() {
                    "PARSE_ERROR" => ("PARSE_ERROR", details),
                    "TARGETING_KEY_MISSING" => ("TARGETING_KEY_MISSING", details),
                    "INVALID_CONTEXT" => ("INVALID_CONTEXT", details),
                    _ => ("GENERAL", details),
                })
            }
            401 | 403 => Err(("GENERAL", "authentication/authorization error".to_owned())),
            404 => Err(("FLAG_NOT_FOUND", String::new())),
            429 => {
                let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
                let seconds = seconds.expect("whole seconds");
                Err(("GENERAL", format!("try again after {seconds} seconds")))
            }
            500 => Err(("GENERAL", text(&body(), "errorDetails"))),
            other => Err(("GENERAL", format!("invalid response {other}"))),
        }
    }

    pub fn boolean(answer: &Answer) -> Resolved<bool> {
        resolve(answer, Value::as_bool)
    }

    pub fn string(answer: &Answer) -> Resolved<String> {
        resolve(answer, |value| value.as_str().map(str::to_owned))
    }

    pub fn float(answer: &Answer) -> Resolved<f64> {
        resolve(answer, Value::as_f64)
    }

    /// Every number of JSON is a double there, which becomes an integer if it is whole.
    pub fn int(answer: &Answer) -> Resolved<i64> {
        resolve(answer, |value| {
            value.as_f64().filter(|number| number.trunc() == *number).map(|number| number as i64)
        })
    }

    pub fn object(answer: &Answer) -> Resolved<Value> {
        resolve(answer, |value| Some(value.clone()))
    }

    /// The answer for all flags, by key: each is a value with metadata that is no text or list, or an error with its code.
    pub fn bulk(connection: &mut Connection, context: &str) -> Vec<Value> {
        let body = format!(r#"{{"context":{context}}}"#);
        let head = format!(
            "POST /ofrep/v1/evaluate/flags HTTP/1.1\r\nHost: {{host}}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nAuthorization: Bearer {SERVER_TOKEN}\r\nContent-Type: application/json\r\n\
             Accept-Encoding: gzip\r\n\r\n",
            body.len()
        );
        let answer = connection.send(&head, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let flags = answer.json()["flags"].as_array().cloned().expect("a list of flags");
        for flag in &flags {
            assert!(flag["key"].is_string() && flag["metadata"].is_object(), "{flag}");
            assert!(flag["errorCode"].is_string() || flag["reason"].is_string(), "{flag}");
        }
        flags
    }
}

/// .NET's provider. `HttpClient` sends the body in chunks, as `JsonContent` does not know its length; `System.Text.Json` writes
/// what is not ASCII, and quotes within texts, as escapes.
pub mod dotnet {
    use super::*;

    /// What the provider returns: a value, or OpenFeature's type of error.
    pub type Resolved<T> = Result<T, &'static str>;

    /// Of the base address the provider drops the path: it asks for an absolute one.
    pub fn single(connection: &mut Connection, token: &str, key: &str, context: &str) -> Answer {
        let body = format!(r#"{{"context":{context}}}"#);
        let head = format!(
            "POST /ofrep/v1/evaluate/flags/{key} HTTP/1.1\r\nHost: {{host}}\r\nAuthorization: Bearer {token}\r\n\
             Accept-Encoding: gzip, deflate\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: application/json; charset=utf-8\r\n\r\n"
        );
        let chunks = format!("{:X}\r\n{body}\r\n0\r\n\r\n", body.len());
        connection.send(&head, chunks.as_bytes())
    }

    fn resolve<T>(answer: &Answer, value: impl FnOnce(&Value) -> Option<T>) -> Resolved<T> {
        match answer.status {
            200 => {
                let body = read(answer);
                assert!(body["key"].is_string() && body["metadata"].is_object(), "{body}");
                // A value of another type fails to be read.
                value(&body["value"]).ok_or("GENERAL")
            }
            400 => match read(answer)["errorCode"].as_str().map(str::to_lowercase).as_deref() {
                Some("parse_error") => Err("PARSE_ERROR"),
                Some("targeting_key_missing") => Err("TARGETING_KEY_MISSING"),
                Some("invalid_context") => Err("INVALID_CONTEXT"),
                Some("general") => Err("GENERAL"),
                // Another code would be no error at all, and its value `false`.
                other => panic!("{other:?} in {}", answer.body),
            },
            404 => Err("FLAG_NOT_FOUND"),
            401 | 403 => Err("PROVIDER_NOT_READY"),
            429 => {
                // Without it, the provider waits for a minute.
                let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
                assert!(seconds.is_some_and(|seconds| seconds < 60), "{seconds:?}");
                Err("PROVIDER_NOT_READY")
            }
            _ => Err("GENERAL"),
        }
    }

    /// Reads the body as the provider does: it needs JSON's content type.
    fn read(answer: &Answer) -> Value {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer.json()
    }

    pub fn boolean(answer: &Answer) -> Resolved<bool> {
        resolve(answer, Value::as_bool)
    }

    pub fn string(answer: &Answer) -> Resolved<String> {
        resolve(answer, |value| value.as_str().map(str::to_owned))
    }

    /// An integer has 32 bits and is written without a point.
    pub fn int(answer: &Answer) -> Resolved<i32> {
        resolve(answer, |value| value.as_i64().and_then(|number| i32::try_from(number).ok()))
    }

    pub fn double(answer: &Answer) -> Resolved<f64> {
        resolve(answer, Value::as_f64)
    }

    pub fn object(answer: &Answer) -> Resolved<Value> {
        resolve(answer, |value| value.is_object().then(|| value.clone()))
    }
}

/// What both must get, of the flags of `conformance/definitions.yaml`.
pub fn go_gets_what_it_demands(edge: &Edge) {
    let connection = &mut Connection::open(edge);
    let mut ask = |key: &str, context: &str| go::single(connection, SERVER_TOKEN, key, context);
    let text = |text: &str| text.to_owned();
    assert_eq!(go::boolean(&ask("banner", "{}")), Ok((true, text("STATIC"))));
    assert_eq!(go::string(&ask("headline", "{}")), Ok((text("Größe 42 – \"neu\""), text("STATIC"))));
    assert_eq!(go::int(&ask("page-size", "{}")), Ok((10, text("STATIC"))));
    assert_eq!(
        go::int(&ask("page-size.staff", r#"{"age":101}"#)),
        Ok((2_147_483_648, text("TARGETING_MATCH")))
    );
    assert_eq!(go::float(&ask("discount", "{}")), Ok((0.5, text("STATIC"))));
    // The point of `2.0` is lost in a double, so the flag is an integer as well.
    let whole = r#"{"email":"ann@shop.example"}"#;
    assert_eq!(go::float(&ask("discount.staff", whole)), Ok((2.0, text("TARGETING_MATCH"))));
    assert_eq!(go::int(&ask("discount.staff", whole)), Ok((2, text("TARGETING_MATCH"))));
    assert_eq!(go::int(&ask("discount", "{}")).unwrap_err().0, "TYPE_MISMATCH");
    assert_eq!(go::boolean(&ask("headline", "{}")).unwrap_err().0, "TYPE_MISMATCH");
    let wide = json!({"images": true, "title": "a \"wide\" one", "per_page": 100, "ratio": 1.5});
    assert_eq!(go::object(&ask("gallery", "{}")), Ok((wide, text("STATIC"))));
    // A flag that is switched off says so by its variant: of `DISABLED` the value is ignored.
    assert_eq!(go::string(&ask("killed", "{}")), Ok((text("off"), text("STATIC"))));
    // A context that was never set is null.
    assert_eq!(go::boolean(&ask("banner", "null")), Ok((true, text("STATIC"))));
    let escaped = r#"{"age":20,"note":"a\u003cb\u003e\u0026c","targetingKey":"go-1"}"#;
    assert_eq!(go::string(&ask("sign-up", escaped)), Ok((text("form"), text("SPLIT"))));
    // Each error has its details.
    let (code, details) = go::string(&ask("sign-up", r#"{"age":20}"#)).unwrap_err();
    assert_eq!(code, "TARGETING_KEY_MISSING");
    assert!(details.contains("user"), "{details}");
    let long = format!(r#"{{"age":20,"targetingKey":"{}"}}"#, "x".repeat(257));
    assert_eq!(go::string(&ask("sign-up", &long)).unwrap_err().0, "INVALID_CONTEXT");
    assert_eq!(go::boolean(&ask("banner", "[]")).unwrap_err().0, "INVALID_CONTEXT");
    assert_eq!(go::boolean(&ask("banner", "{")).unwrap_err().0, "PARSE_ERROR");
    assert_eq!(go::boolean(&ask("nobody", "{}")).unwrap_err().0, "FLAG_NOT_FOUND");
    let stranger = go::single(connection, "wrong", "banner", "{}");
    assert_eq!(go::boolean(&stranger).unwrap_err().1, "authentication/authorization error");
    let limited = until_limited(|| go::single(connection, LIMITED_TOKEN, "banner", "{}"));
    assert_eq!(go::boolean(&limited).unwrap_err().1, "try again after 1 seconds");
    let flags = go::bulk(connection, r#"{"targetingKey":"go-1"}"#);
    let failed: Vec<&str> = flags
        .iter()
        .filter(|flag| flag["errorCode"].is_string())
        .filter_map(|flag| flag["key"].as_str())
        .collect();
    assert_eq!(failed, ["by-account", "by-shop"]);
}

pub fn dotnet_gets_what_it_demands(edge: &Edge) {
    let connection = &mut Connection::open(edge);
    let mut ask = |key: &str, context: &str| dotnet::single(connection, SERVER_TOKEN, key, context);
    assert_eq!(dotnet::boolean(&ask("banner", "{}")), Ok(true));
    assert_eq!(dotnet::string(&ask("headline", "{}")), Ok("Größe 42 – \"neu\"".to_owned()));
    assert_eq!(dotnet::int(&ask("page-size", "{}")), Ok(10));
    assert_eq!(dotnet::int(&ask("page-size.none", "{}")), Ok(0));
    assert_eq!(dotnet::int(&ask("page-size.staff", r#"{"age":101}"#)), Err("GENERAL"));
    assert_eq!(dotnet::double(&ask("discount", "{}")), Ok(0.5));
    assert_eq!(dotnet::double(&ask("page-size", "{}")), Ok(10.0));
    assert_eq!(dotnet::int(&ask("discount", "{}")), Err("GENERAL"));
    assert_eq!(dotnet::object(&ask("gallery", "{}")).unwrap()["per_page"], 100);
    assert_eq!(dotnet::string(&ask("killed", "{}")), Ok("off".to_owned()));
    // An attribute that is null stays one within the context.
    assert_eq!(dotnet::string(&ask("headline.staff", r#"{"email":null}"#)), Ok("new".to_owned()));
    let escaped = r#"{"targetingKey":"Gr\u00F6\u00DFe-1","age":20,"note":"a\u0022b\u0027c\u002Bd"}"#;
    assert_eq!(dotnet::string(&ask("sign-up", escaped)), Ok("form".to_owned()));
    assert_eq!(dotnet::string(&ask("sign-up", r#"{"age":20}"#)), Err("TARGETING_KEY_MISSING"));
    let long = format!(r#"{{"targetingKey":"{}","age":20}}"#, "x".repeat(257));
    assert_eq!(dotnet::string(&ask("sign-up", &long)), Err("INVALID_CONTEXT"));
    // Keys are escaped where that is needed, and in the path alone.
    assert_eq!(dotnet::boolean(&ask("no%20body", "{}")), Err("FLAG_NOT_FOUND"));
    assert_eq!(
        dotnet::boolean(&dotnet::single(connection, "wrong", "banner", "{}")),
        Err("PROVIDER_NOT_READY")
    );
    let limited = until_limited(|| dotnet::single(connection, LIMITED_TOKEN, "banner", "{}"));
    assert_eq!(dotnet::boolean(&limited), Err("PROVIDER_NOT_READY"));
}

/// The first of some requests that comes too early; on a slow machine it may not be the second.
fn until_limited(mut ask: impl FnMut() -> Answer) -> Answer {
    (0..100).map(|_| ask()).find(|answer| answer.status == 429).expect("one of a hundred is too early")
}
