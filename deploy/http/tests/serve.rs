//! The routes that every service has, and the bounds of its own routes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http_server::{Public, Served, Server};
use ops::config::{Config, Http, Page};
use ops::{Health, Shutdown, metrics};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    http: Http,
}

impl Config for Service {
    fn pages(&self) -> Vec<Page> {
        vec![Page::of(&self.http)]
    }
}

fn http(lines: &str, variables: &[(&str, &str)]) -> Http {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let file = format!("[http]\n{lines}");
    let service: Service = ops::config::parse(Some(("s.toml", &file)), variables).unwrap();
    service.http
}

async fn start(http: &Http, routes: Router, health: &Health, shutdown: &Shutdown) -> Server {
    let served = Served { routes, registry: metrics::registry("example", "1.0.0"), health: health.clone() };
    http_server::start(http, served, shutdown).await.unwrap()
}

/// Returns the status and body of any answer. It runs outside the async runtime, because the client blocks.
async fn ask(server: &Server, path: &str, authorization: Option<&str>) -> (u16, String) {
    let url = format!("http://{}{path}", server.address());
    let authorization = authorization.map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let mut request = agent().get(url);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), body)
    })
    .await
    .unwrap()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_served() {
    let health = Health::new();
    let shutdown = Shutdown::manual();
    let server = start(&http("", &[]), Router::new(), &health, &shutdown).await;

    let tables = health.condition("tables", "not looked for yet");
    let work = health.progress("work", Duration::from_secs(60));
    assert_eq!(ask(&server, "/healthz", None).await, (200, r#"{"ok":true,"checks":{"work":"ok"}}"#.into()));
    assert_eq!(
        ask(&server, "/readyz", None).await,
        (503, r#"{"ok":false,"checks":{"tables":"not looked for yet","work":"ok"}}"#.into())
    );
    tables.holds();
    assert_eq!(ask(&server, "/readyz", None).await.0, 200);
    drop(work);
    assert_eq!(
        ask(&server, "/healthz", None).await,
        (503, r#"{"ok":false,"checks":{"work":"ended unexpectedly"}}"#.into())
    );
    assert_eq!(
        ask(&server, "/metrics", None).await,
        (
            200,
            "# HELP splitstream_build_info The version that runs; always 1.\n\
             # TYPE splitstream_build_info gauge\n\
             splitstream_build_info{version=\"1.0.0\",service=\"example\"} 1\n"
                .into()
        )
    );
    shutdown.begin("the test is over");
    server.stopped().await.unwrap();
    assert_eq!(shutdown.running(), "nothing that was registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_file_holds_the_address_that_is_listened_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("port");
    let lines = format!("port_file = '{}'", path.display());
    let shutdown = Shutdown::manual();
    let server = start(&http(&lines, &[]), Router::new(), &Health::new(), &shutdown).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", server.address()));
    assert_ne!(server.address().port(), 0);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_file_that_cannot_be_written_stops_the_start() {
    let lines = "port_file = '/no/such/directory/port'";
    let served = Served {
        routes: Router::new(),
        registry: metrics::registry("example", "1.0.0"),
        health: Health::new(),
    };
    let error = http_server::start(&http(lines, &[]), served, &Shutdown::manual()).await.err().unwrap();
    assert_eq!(
        format!("{error:#}"),
        "writing /no/such/directory/port, which is http.port_file: No such file or directory (os error 2)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn private_routes_require_the_token() {
    let private = || Router::new().route("/private", get(async || "yours"));
    let shutdown = Shutdown::manual();

    let with = http("", &[("SPLITSTREAM_HTTP__TOKEN", "t0ken")]);
    let routes = http_server::guarded(private(), &with).unwrap();
    let server = start(&with, routes, &Health::new(), &shutdown).await;
    let refused = r#"{"error":"not public: show the service's token as a bearer, or as the password of basic authentication"}"#;
    // The second one is what a browser sends for any user and the password `t0ken`.
    for right in ["Bearer t0ken", "bearer t0ken", "Basic YW55Ym9keTp0MGtlbg=="] {
        assert_eq!(ask(&server, "/private", Some(right)).await, (200, "yours".into()), "{right}");
    }
    let wrong = [
        None,
        Some("Bearer "),
        Some("Bearer t0ke"),
        Some("Bearer t0ken!"),
        Some("Bearer T0ken"),
        Some("t0ken"),
        // `t0ken` without a user, `t0ken:` as the user, and no base64.
        Some("Basic dDBrZW4="),
        Some("Basic dDBrZW46"),
        Some("Basic t0ken"),
        Some("Digest t0ken"),
    ];
    for wrong in wrong {
        assert_eq!(ask(&server, "/private", wrong).await, (401, refused.into()), "{wrong:?}");
    }
    assert_eq!(ask(&server, "/healthz", None).await.0, 200);

    let without = http("", &[]);
    let routes = http_server::guarded(private(), &without).unwrap();
    let server = start(&without, routes, &Health::new(), &shutdown).await;
    assert_eq!(ask(&server, "/private", None).await, (200, "yours".into()));
}

/// The reason may name servers and statements, so only the log has it.
#[test]
fn a_client_gets_a_reference_to_the_log_and_not_the_reason_of_a_failure() {
    let failure =
        anyhow::anyhow!("connecting to clickhouse.internal:8443 as `splitstream`").context("counting");
    let message = http_server::log_failure("ClickHouse does not answer", &failure);
    let (what, reference) = message.split_once(", under ").unwrap();
    assert_eq!(what, "ClickHouse does not answer; the service's log has the reason");
    assert_eq!(
        (reference.len(), reference.bytes().all(|byte| byte.is_ascii_hexdigit())),
        (8, true),
        "{reference}"
    );
}

/// Reads until the server closes the connection.
fn read_to_the_end(mut connection: TcpStream) -> String {
    let mut all = String::new();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    connection.read_to_string(&mut all).expect("the server closes the connection");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_request_head_does_not_come_is_closed() {
    let shutdown = Shutdown::manual();
    let http = http("head_timeout_ms = 300", &[]);
    let server = start(&http, Router::new(), &Health::new(), &shutdown).await;
    let address = server.address();
    let (silent, slow) = tokio::task::spawn_blocking(move || {
        let silent = TcpStream::connect(address).unwrap();
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ").unwrap();
        (read_to_the_end(silent), read_to_the_end(slow))
    })
    .await
    .unwrap();
    assert!(!silent.contains("200"), "{silent}");
    assert!(!slow.contains("200"), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_waits_for_another_to_be_closed() {
    let shutdown = Shutdown::manual();
    let http = http("connections = 1\nhead_timeout_ms = 600000", &[]);
    let server = start(&http, Router::new(), &Health::new(), &shutdown).await;
    let address = server.address();
    let answer = tokio::task::spawn_blocking(move || {
        let ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut first = TcpStream::connect(address).unwrap();
        // The first connection has the only slot: its answer shows that it was accepted.
        first.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut beginning = [0; 12];
        first.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).unwrap();
        second.write_all(ask).unwrap();
        second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(
            second.read(&mut [0]).is_err(),
            "the second connection was answered while the first was open"
        );
        drop(first);
        read_to_the_end(second)
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    shutdown.begin("the test is over");
    server.stopped().await.unwrap();
}

/// The only connection that is allowed becomes free, so that another client is served.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_does_not_keep_its_connection() {
    const MORE_THAN_ANY_BUFFER: usize = 64 << 20;
    let routes = Router::new().route("/large", get(async || vec![b'x'; MORE_THAN_ANY_BUFFER]));
    let shutdown = Shutdown::manual();
    let http = http("connections = 1\nunread_timeout_ms = 300", &[]);
    let server = start(&http, routes, &Health::new(), &shutdown).await;
    let address = server.address();
    let answer = tokio::task::spawn_blocking(move || {
        let mut unread = TcpStream::connect(address).unwrap();
        unread.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut beginning = [0; 12];
        unread.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).unwrap();
        second.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let answer = read_to_the_end(second);
        drop(unread);
        answer
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_and_one_too_many_are_refused_and_operators_are_served() {
    let slow = Router::new().route("/slow", get(async || std::future::pending::<()>().await));
    let shutdown = Shutdown::manual();
    let http = http("request_timeout_ms = 1500\nrequests_at_once = 1", &[]);
    let server = start(&http, slow, &Health::new(), &shutdown).await;
    let (first, second, healthy) = tokio::join!(
        ask(&server, "/slow", None),
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            ask(&server, "/slow", None).await
        },
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            ask(&server, "/healthz", None).await
        },
    );
    assert_eq!(first, (503, r#"{"error":"no answer within 1500 ms"}"#.into()));
    assert_eq!(
        second,
        (503, r#"{"error":"as many requests as are allowed at once are under way; try again later"}"#.into())
    );
    assert_eq!(healthy.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_accepted_up_to_its_bound() {
    let length = Router::new().route("/length", post(async |body: String| body.len().to_string()));
    let shutdown = Shutdown::manual();
    let http = http("body_bytes = 2000", &[]);
    let server = start(&http, length, &Health::new(), &shutdown).await;
    let url = format!("http://{}/length", server.address());
    let statuses = tokio::task::spawn_blocking(move || {
        [2_000, 2_001].map(|bytes| {
            let response = agent().post(&url).send("x".repeat(bytes)).unwrap();
            response.status().as_u16()
        })
    })
    .await
    .unwrap();
    assert_eq!(statuses, [200, 413]);
}

/// Sends the bytes and returns all that comes until the server closes the connection, which may end it by a reset.
async fn exchange(server: &Server, sent: Vec<u8>) -> String {
    let address = server.address();
    tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        connection.write_all(&sent).unwrap();
        read_to_the_end(connection)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_request_is_bounded() {
    let routes = Router::new().route("/", get(async || "here"));
    let shutdown = Shutdown::manual();
    let server = start(&http("", &[]), routes, &Health::new(), &shutdown).await;
    let head = |target: usize, header: usize| {
        let (target, header) = ("q".repeat(target), "h".repeat(header));
        format!("GET /?{target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {header}\r\n\r\n").into_bytes()
    };
    for (target, header, status, body) in [
        (8_190, 16_000, "200", "here"),
        (8_191, 0, "414", r#"{"error":"a path and its query have at most 8192 bytes"}"#),
        (0, 16_385, "431", r#"{"error":"the headers of a request have at most 16384 bytes together"}"#),
        // Beyond what is buffered the HTTP library answers, without a body.
        (0, 100_000, "431", ""),
    ] {
        let answer = exchange(&server, head(target, header)).await;
        let (head, answered) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {header}: {head}");
        assert_eq!(answered, body, "{target} {header}");
    }
    let many: String = (0..101).map(|index| format!("x-{index}: 1\r\n")).collect();
    let answer = exchange(&server, format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_meets_a_bug_gets_500_and_the_connection_goes_on() {
    let routes = Router::new()
        .route("/bug", get(async || -> &'static str { panic!("a bug that the test wants") }))
        .route("/", get(async || "here"));
    let shutdown = Shutdown::manual();
    let server = start(&http("", &[]), routes, &Health::new(), &shutdown).await;
    let both = "GET /bug HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = exchange(&server, both.into()).await;
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    let body = r#"{"error":"the service failed at this request; its log has the reason"}"#;
    assert!(answers.contains(body) && answers.ends_with("here"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_function_has_the_bounds_of_routes() {
    let answer = async |request: Request| match request.uri().path() {
        "/bug" => panic!("a bug that the test wants"),
        "/slow" => std::future::pending().await,
        path => path.to_owned().into_response(),
    };
    let refuse = |status: StatusCode, why: String| (status, format!("refused: {why}")).into_response();
    let http = http("request_timeout_ms = 300", &[]);
    let public = Public { name: "public", section: "http", http: &http, answer, refuse };
    let shutdown = Shutdown::manual();
    let server = http_server::start_public(public, &shutdown).await.unwrap();
    let bug = "refused: the service failed at this request; its log has the reason".to_owned();
    assert_eq!(ask(&server, "/bug", None).await, (500, bug));
    assert_eq!(ask(&server, "/slow", None).await, (503, "refused: no answer within 300 ms".into()));
    let long = format!("/{}", "x".repeat(8_192));
    let too_long = "refused: a path and its query have at most 8192 bytes".to_owned();
    assert_eq!(ask(&server, &long, None).await, (414, too_long));
    assert_eq!(ask(&server, "/here", None).await, (200, "/here".into()));
    // The operator's routes are elsewhere.
    assert_eq!(ask(&server, "/healthz", None).await, (200, "/healthz".into()));
    shutdown.begin("the test is over");
    server.stopped().await.unwrap();
    assert_eq!(shutdown.running(), "nothing that was registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_refused_for_now_is_told_when_to_come_again() {
    let slow = Router::new().route("/slow", get(async || std::future::pending::<()>().await));
    let shutdown = Shutdown::manual();
    let server = start(&http("request_timeout_ms = 100", &[]), slow, &Health::new(), &shutdown).await;
    let answer =
        exchange(&server, b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
}

/// The kernel would answer what still comes with a reset, which may take the answer with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_much_can_read_the_answer() {
    let length = Router::new().route("/length", post(async |body: String| body.len().to_string()));
    let shutdown = Shutdown::manual();
    let server = start(&http("body_bytes = 2000", &[]), length, &Health::new(), &shutdown).await;
    for round in 0..20 {
        let head =
            "POST /length HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 900000\r\n\r\n";
        let answer = exchange(&server, [head.as_bytes(), &[b'x'; 900_000]].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{round}: {answer}");
    }
}

/// It was left to the time in which an answer may stay unread, which may be longer than the shutdown has.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_does_not_hold_up_the_shutdown() {
    const MORE_THAN_ANY_BUFFER: usize = 64 << 20;
    let routes = Router::new().route("/large", get(async || vec![b'x'; MORE_THAN_ANY_BUFFER]));
    let shutdown = Shutdown::manual();
    let http = http("request_timeout_ms = 300\nunread_timeout_ms = 600000", &[]);
    let server = start(&http, routes, &Health::new(), &shutdown).await;
    let mut unread = TcpStream::connect(server.address()).unwrap();
    unread.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let unread = tokio::task::spawn_blocking(move || {
        let mut beginning = [0; 12];
        unread.read_exact(&mut beginning).unwrap();
        assert_eq!(&beginning, b"HTTP/1.1 200");
        unread
    })
    .await
    .unwrap();
    shutdown.begin("the test is over");
    tokio::time::timeout(Duration::from_secs(60), server.stopped()).await.expect("the server stops").unwrap();
    drop(unread);
}

/// Sends the parts of a request with a pause between them, reads the answer, and asks again on the same connection. Returns
/// the head of the first answer and the body of the second; without a second answer the body is empty.
async fn ask_twice(server: &Server, parts: [&str; 2]) -> (String, String) {
    let address = server.address();
    let parts = parts.map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            // The server may have closed the connection already.
            let _ = connection.write_all(part.as_bytes());
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.split_once("content-length: ").unwrap().1.split_once('\r').unwrap().0;
        connection.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
        let _ = connection.write_all(b"GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let second = read_to_the_end(connection);
        (head, second.rsplit("\r\n\r\n").next().unwrap().to_owned())
    })
    .await
    .unwrap()
}

/// The connection was closed without a word, so a client with keep-alive sent its next request into nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_body_says_that_the_connection_ends() {
    let next = || get(async || "next");
    let routes = Router::new()
        .route("/refuse", post(async || (StatusCode::TOO_MANY_REQUESTS, "later")))
        .route("/read", post(async |body: String| body))
        .route("/next", next());
    let shutdown = Shutdown::manual();
    let with_routes = start(&http("body_bytes = 1024", &[]), routes, &Health::new(), &shutdown).await;
    let answer = async |request: Request| match request.uri().path() {
        "/read" => {
            let body = axum::body::to_bytes(request.into_body(), 1024).await;
            body.map_or_else(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response(), IntoResponse::into_response)
        }
        "/refuse" => (StatusCode::TOO_MANY_REQUESTS, "later").into_response(),
        "/next" => "next".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    let refuse = |status: StatusCode, why: String| (status, why).into_response();
    let bounds = http("", &[]);
    let public = Public { name: "public", section: "http", http: &bounds, answer, refuse };
    let with_a_function = http_server::start_public(public, &shutdown).await.unwrap();

    const REFUSE: &str = "POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
    const READ: &str = "POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
    const NOWHERE: &str = "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let too_long = format!("POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    for server in [&with_routes, &with_a_function] {
        for (parts, status, goes_on) in [
            ([REFUSE, "body"], 429, false),
            ([NOWHERE, "body"], 404, false),
            ([&too_long, &chunk], 413, false),
            // All of it is here, or there is none.
            (["POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody", ""], 429, true),
            (["POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", ""], 429, true),
            (["GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n", ""], 404, true),
            ([READ, "body"], 200, true),
        ] {
            let (head, second) = ask_twice(server, parts).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{parts:?}: {head}");
            assert_eq!(!head.contains("\r\nconnection: close\r\n"), goes_on, "{parts:?}: {head}");
            assert_eq!(second, if goes_on { "next" } else { "" }, "{parts:?}: {head}");
        }
    }
}
