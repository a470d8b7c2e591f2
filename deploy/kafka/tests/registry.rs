//! Tests the client with answers of registries and of proxies in front of them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use kafka::registry::{Reference, Registered, Registry, SchemaIdError};
use ops::config;

/// Starts a server that answers one request. Returns its URL and a handle that yields the request.
fn server(status: &str, body: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/apis/ccompat/v7/", listener.local_addr().unwrap());
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let request = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 4_096];
        let mut length = connection.read(&mut request).unwrap();
        // The body may come in a packet of its own.
        while request[..length].starts_with(b"POST") && !request[..length].ends_with(b"}") {
            length += connection.read(&mut request[length..]).unwrap();
        }
        connection.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    (url, request)
}

fn settings(url: &str) -> config::Registry {
    config::Registry { url: Some(url.to_owned().try_into().unwrap()), ..Default::default() }
}

fn open(url: &str) -> Registry {
    Registry::open(&settings(url)).unwrap().unwrap()
}

#[test]
fn without_a_url_there_is_no_registry() {
    assert!(Registry::open(&config::Registry::default()).unwrap().is_none());
}

#[test]
fn a_schema_is_asked_for_by_its_number() {
    let string = Registered { schema: "\"string\"".to_owned(), references: Vec::new() };
    for body in [
        r#"{"schema": "\"string\""}"#,
        r#"{"schema": "\"string\"", "schemaType": "AVRO", "references": []}"#,
        r#"{"schema": "\"string\"", "references": null}"#,
    ] {
        let (url, asked) = server("200 OK", body);
        assert_eq!(open(&url).schema(7), Ok(Some(string.clone())), "{body}");
        assert!(asked.join().unwrap().starts_with("GET /apis/ccompat/v7/schemas/ids/7 HTTP/1.1\r\n"));
    }
}

#[test]
fn a_schema_comes_with_the_references_to_the_types_that_it_names() {
    let (url, _asked) = server(
        "200 OK",
        r#"{"schema": "\"x.Sender\"", "references": [{"name": "x.Sender", "subject": "sender", "version": 3}]}"#,
    );
    let reference = Reference { name: "x.Sender".to_owned(), subject: "sender".to_owned(), version: 3 };
    let registered = open(&url).schema(7).unwrap().unwrap();
    assert_eq!((registered.schema.as_str(), registered.references), ("\"x.Sender\"", vec![reference]));
}

#[test]
fn a_version_of_a_subject_is_asked_for_even_if_it_was_deleted() {
    let (url, asked) =
        server("200 OK", r#"{"subject": ":.shop:a/b", "version": 3, "id": 9, "schema": "\"string\""}"#);
    let string = Registered { schema: "\"string\"".to_owned(), references: Vec::new() };
    assert_eq!(open(&url).version(":.shop:a/b", 3), Ok(Some(string)));
    let asked = asked.join().unwrap();
    let line = "GET /apis/ccompat/v7/subjects/%3A.shop%3Aa%2Fb/versions/3?deleted=true HTTP/1.1\r\n";
    assert!(asked.starts_with(line), "{asked}");

    for (code, what) in [(40401, "Subject"), (40402, "Version"), (40403, "Schema")] {
        let body = format!(r#"{{"error_code": {code}, "message": "{what} not found"}}"#);
        let (url, _asked) = server("404 Not Found", &body);
        assert_eq!(open(&url).version("sender", 1), Ok(None), "{code}");
    }
    let (url, _asked) = server("404 Not Found", "<html>no such page</html>");
    let unavailable = open(&url).version("sender", 1).unwrap_err();
    assert_eq!(unavailable.reason, "404 Not Found <html>no such page</html>");
}

#[test]
fn only_an_answer_in_a_registrys_form_means_that_there_is_no_such_schema() {
    let (url, _asked) = server("404 Not Found", r#"{"error_code": 40403, "message": "Schema not found"}"#);
    assert_eq!(open(&url).schema(7), Ok(None));
    let (url, _asked) = server("404 Not Found", "<html>no such page</html>");
    let refused = open(&url).schema(7).unwrap_err();
    assert_eq!(refused.reason, "404 Not Found <html>no such page</html>");
    let (url, _asked) = server("404 Not Found", r#"{"error_code": 404, "message": "no such path"}"#);
    assert_eq!(open(&url).schema(7).unwrap_err().reason, "404: no such path");
    let (url, _asked) = server("401 Unauthorized", r#"{"error_code": 40101, "message": "who are you"}"#);
    assert_eq!(open(&url).schema(7).unwrap_err().reason, "40101: who are you");
    let (url, _asked) = server("200 OK", "<html>welcome</html>");
    assert!(open(&url).schema(7).unwrap_err().reason.starts_with("an answer of another form ("));
}

#[test]
fn a_registry_that_does_not_listen_is_not_available() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = open(&format!("http://127.0.0.1:{port}")).schema(7).unwrap_err();
    assert_eq!(refused.url, format!("http://127.0.0.1:{port}"));
}

#[test]
fn a_schema_is_registered_under_its_subject_as_the_configured_user() {
    let (url, asked) = server("200 OK", r#"{"id": 12}"#);
    let with_user = config::Registry {
        user: Some("u".to_owned()),
        password: Some(config::Secret::new("p".to_owned()).unwrap()),
        ..settings(&url)
    };
    assert_eq!(Registry::open(&with_user).unwrap().unwrap().id("exposures-value", "\"string\""), Ok(12));
    let asked = asked.join().unwrap().to_lowercase();
    assert!(
        asked.starts_with("post /apis/ccompat/v7/subjects/exposures-value/versions http/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("\r\nauthorization: basic dtpw\r\n"), "{asked}");
    assert!(asked.contains("\r\ncontent-type: application/vnd.schemaregistry.v1+json\r\n"), "{asked}");
    assert!(asked.ends_with(r#"{"schema":"\"string\""}"#), "{asked}");
}

#[test]
fn a_refused_schema_and_an_unavailable_registry_are_different_errors() {
    let (url, _asked) = server("409 Conflict", r#"{"error_code": 409, "message": "no default"}"#);
    let refused = open(&url).id("exposures-value", "\"string\"").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the schema registry refuses the schema of exposures-value as incompatible with its others: no default"
    );
    let (url, _asked) = server("422 Unprocessable", r#"{"error_code": 42201, "message": "no schema"}"#);
    let refused = open(&url).id("s", "x").unwrap_err();
    assert_eq!(refused, SchemaIdError::Refused { subject: "s".to_owned(), reason: "no schema".to_owned() });
    let (url, _asked) = server("503 Service Unavailable", "later");
    assert!(matches!(open(&url).id("s", "x"), Err(SchemaIdError::Unavailable(_))));
    let (url, asked) = server("404 Not Found", r#"{"error_code": 40403, "message": "Schema not found"}"#);
    let look_up = config::Registry { register: false, ..settings(&url) };
    let refused = Registry::open(&look_up).unwrap().unwrap().id("s", "\"string\"").unwrap_err();
    assert!(matches!(refused, SchemaIdError::NotRegistered { .. }), "{refused}");
    assert!(asked.join().unwrap().starts_with("POST /apis/ccompat/v7/subjects/s HTTP/1.1\r\n"));
}
