//! The floor: an axum handler in a process of its own that reads the body and returns one answer, whatever was asked.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;

use super::load::Answer;

/// The first argument of the process.
pub const ARGUMENT: &str = "serve-the-same-bytes";

/// Headers that the server adds itself.
const OWN_HEADERS: [&str; 2] = ["date", "content-length"];

/// The process, stopped when dropped.
pub struct Bare {
    child: Child,
    address: String,
}

impl Bare {
    /// Starts this program again, as the server of `answer`; `file` is where the two meet.
    pub fn start(file: &Path, answer: &Answer) -> Result<Bare> {
        let address_file = address_file(file);
        std::fs::write(file, &answer.raw)?;
        let _ = std::fs::remove_file(&address_file);
        let child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the bare server")?;
        let mut bare = Bare { child, address: String::new() };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if let Ok(address) = std::fs::read_to_string(&address_file) {
                bare.address = address;
                return Ok(bare);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the bare server does not listen")
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Ours, and nobody waits for it but we.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Fixed {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Serves until it is killed, on a runtime like that of every service.
pub fn serve(file: &Path) -> Result<()> {
    let answer = Answer::parse(&std::fs::read(file)?)?.context("the answer is whole")?;
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers.iter().filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str())) {
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    let fixed = Fixed { status: StatusCode::from_u16(answer.status)?, headers, body: answer.body.into() };
    // Leaked, since it is served to the end: not even a count is shared between the threads.
    let fixed: &'static Fixed = Box::leak(Box::new(fixed));
    let routes = Router::new()
        .route("/ofrep/v1/evaluate/flags", post(answer_with))
        .route("/ofrep/v1/evaluate/flags/{*key}", post(answer_with))
        .with_state(fixed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let unfinished = file.with_extension("unfinished");
        std::fs::write(&unfinished, address)?;
        std::fs::rename(&unfinished, address_file(file))?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, routes).await?;
        Ok(())
    })
}

async fn answer_with(State(fixed): State<&'static Fixed>, _body: Bytes) -> Response {
    (fixed.status, fixed.headers.clone(), fixed.body.clone()).into_response()
}

fn address_file(file: &Path) -> std::path::PathBuf {
    file.with_extension("address")
}
