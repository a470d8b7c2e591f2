//! The exit code of a command that fails: 4 if the configuration is wrong, 5 if a server does not answer, 1 for
//! the rest.

use std::io::{Read, Write};
use std::net::TcpListener;

/// An address where nobody listens.
fn silent() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// An HTTP server that answers every request with this exception of ClickHouse.
fn refusing(exception: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 65_536];
            let _ = stream.read(&mut request);
            let length = exception.len();
            let head =
                format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{exception}").as_bytes());
        }
    });
    address
}

/// The exit code and the program's output.
fn run(arguments: &[&str], clickhouse: &str, more: &[(&str, &str)]) -> (i32, String) {
    let output = local::programs::splitstream()
        .unwrap()
        .args(arguments)
        .env("SPLITSTREAM_KAFKA__BROKERS", silent())
        .env("SPLITSTREAM_CLICKHOUSE__URL", format!("http://{clickhouse}"))
        .envs(more.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

const ASKING: [&[&str]; 4] = [&["audit"], &["audit", "--heal"], &["migrate"], FORGET];
const FORGET: &[&str] = &["forget", "--unit-type", "user", "u1"];
const KEY: (&str, &str) = ("SPLITSTREAM_CONSUMER__FORGET_KEY", "0123456789abcdef0123456789abcdef");

#[test]
fn a_silent_server_is_unreachable() {
    for arguments in ASKING {
        let (code, said) = run(arguments, &silent(), &[KEY]);
        assert_eq!(code, 5, "{arguments:?}: {said}");
    }
    let (code, said) = run(&["dead-letters", "list"], &silent(), &[]);
    assert_eq!(code, 5, "{said}");
}

#[test]
fn a_file_of_the_configuration_that_is_not_there_is_invalid_input() {
    let missing = "/nowhere/at/all.pem";
    let clickhouse = [
        KEY,
        ("SPLITSTREAM_CLICKHOUSE__URL", "https://localhost:8443"),
        ("SPLITSTREAM_CLICKHOUSE__CA_FILE", missing),
    ];
    for arguments in ASKING {
        let (code, said) = run(arguments, &silent(), &clickhouse);
        assert_eq!(code, 4, "{arguments:?}: {said}");
        assert!(said.contains(missing), "{arguments:?}: {said}");
    }
    for arguments in [&["audit"][..], FORGET] {
        let (code, said) = run(arguments, &silent(), &[("SPLITSTREAM_CONSUMER__FORGET_KEY_FILE", missing)]);
        assert_eq!(code, 4, "{arguments:?}: {said}");
        assert!(said.contains(missing), "{arguments:?}: {said}");
    }
    let password = [
        ("SPLITSTREAM_KAFKA__SECURITY", "sasl_plaintext"),
        ("SPLITSTREAM_KAFKA__SASL_USERNAME", "consumer"),
        ("SPLITSTREAM_KAFKA__SASL_PASSWORD_FILE", missing),
    ];
    let (code, said) = run(&["dead-letters", "list"], &silent(), &password);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(missing), "{said}");
}

#[test]
fn a_refused_login_is_invalid_input() {
    let clickhouse =
        refusing("Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)");
    for arguments in ASKING {
        let (code, said) = run(arguments, &clickhouse, &[KEY]);
        assert_eq!(code, 4, "{arguments:?}: {said}");
        assert!(said.contains("Authentication failed"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_clickhouse_refuses_for_another_reason_is_a_failure() {
    let clickhouse = refusing("Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)");
    for arguments in ASKING {
        let (code, said) = run(arguments, &clickhouse, &[KEY]);
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert!(said.contains("Memory limit exceeded"), "{arguments:?}: {said}");
    }
}
