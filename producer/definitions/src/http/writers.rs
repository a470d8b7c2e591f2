//! Who may write over HTTP: named tokens, each with a number of changes a minute. They are not the token for
//! reading. The name of a token is the author of its changes, so nobody can write in another's name.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_server::error;
use ops::config::Secret;
use subtle::ConstantTimeEq;

/// A shorter token could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 128;
const TOKENS_MAX: usize = 1_000;

/// The author of a change: the name of the token that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Author(pub(super) String);

/// The tokens that may write.
pub struct Writers {
    writers: Vec<Writer>,
    /// The name of the setting with the tokens.
    setting: &'static str,
}

struct Writer {
    name: String,
    token: Secret,
    pace: Mutex<Pace>,
}

impl fmt::Debug for Writers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.writers.iter().map(|writer| &writer.name)).finish()
    }
}

impl Writers {
    /// Reads the tokens: `name:token`, separated by spaces, commas or line breaks. Without any, nobody may write.
    /// Two tokens may have one name, so that a token can be replaced without a pause. `setting` is the name of the
    /// setting that the text comes from.
    ///
    /// # Errors
    /// If the text holds no token or one that is not safe; the error contains no token.
    pub fn new(
        tokens: Option<&Secret>,
        writes_per_minute: u64,
        setting: &'static str,
    ) -> Result<Writers, String> {
        let mut writers: Vec<Writer> = Vec::new();
        let text = tokens.map_or("", Secret::reveal);
        let separated =
            text.split(|at: char| at.is_whitespace() || at == ',').filter(|part| !part.is_empty());
        for (index, part) in separated.enumerate() {
            let wrong = |what: &str| format!("{setting}: write token {}: {what}", index + 1);
            let (name, token) =
                part.split_once(':').ok_or_else(|| wrong("not of the form `name:token`, without spaces"))?;
            check_name(name).and_then(|()| check_token(token)).map_err(|what| wrong(&what))?;
            if writers.iter().any(|writer| writer.token.reveal() == token) {
                return Err(wrong("the same token as an earlier one"));
            }
            if index == TOKENS_MAX {
                return Err(wrong(&format!("there can be {TOKENS_MAX}")));
            }
            writers.push(Writer {
                name: name.to_owned(),
                token: Secret::new(token.to_owned()).map_err(|what| wrong(&what))?,
                pace: Mutex::new(Pace::new(writes_per_minute)),
            });
        }
        if tokens.is_some() && writers.is_empty() {
            return Err(format!("{setting}: holds no token; write `name:token` on a line of its own"));
        }
        Ok(Writers { writers, setting })
    }

    /// Returns whether the token may write.
    pub fn accept(&self, token: &Secret) -> bool {
        self.find(token.reveal().as_bytes()).is_some()
    }

    /// Returns the author of a change that was asked for with this `Authorization` header.
    fn admit(&self, authorization: Option<&[u8]>, now: Instant) -> Result<Author, Denied> {
        if self.writers.is_empty() {
            return Err(Denied::NotConfigured { setting: self.setting });
        }
        let writer = authorization.and_then(bearer).and_then(|token| self.find(token));
        let writer = writer.ok_or(Denied::Unknown)?;
        let mut pace = writer.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.take(now).map_err(|wait| Denied::TooMany { wait })?;
        Ok(Author(writer.name.clone()))
    }

    /// Compares with every token, each in constant time.
    fn find(&self, shown: &[u8]) -> Option<&Writer> {
        let mut found = None;
        for writer in &self.writers {
            if bool::from(shown.ct_eq(writer.token.reveal().as_bytes())) {
                found = Some(writer);
            }
        }
        found
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("its name needs 1 to {NAME_BYTES_MAX} bytes, and no control characters"));
    }
    Ok(())
}

/// A token has the characters that a bearer token can have (RFC 6750, section 2.1).
fn check_token(token: &str) -> Result<(), String> {
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Err(format!(
            "the token has {} bytes and needs {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}; `openssl rand -hex 32` makes one",
            token.len()
        ));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !token.bytes().all(allowed) {
        return Err("the token can have the characters A-Z a-z 0-9 - . _ ~ + / =".to_owned());
    }
    Ok(())
}

/// Returns the token of `Authorization: Bearer TOKEN`. A password of basic authentication is not accepted, because
/// a browser would send it with every request.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = (&authorization[..space], &authorization[space + 1..]);
    scheme.eq_ignore_ascii_case(b"bearer").then_some(token)
}

/// Why a request may not write.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    NotConfigured {
        setting: &'static str,
    },
    /// No token was shown, or none that may write.
    Unknown,
    TooMany {
        wait: Duration,
    },
}

impl Denied {
    fn response(&self) -> Response {
        match self {
            Denied::NotConfigured { setting } => error(
                StatusCode::FORBIDDEN,
                format!("nobody may write here: {setting} is not set; it holds a `name:token` a line"),
            ),
            Denied::Unknown => {
                let mut response = error(
                    StatusCode::UNAUTHORIZED,
                    "changes need a write token as a bearer; the token for reading does not write",
                );
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
                response
            }
            Denied::TooMany { wait } => {
                let seconds = wait.as_millis().div_ceil(1_000).max(1);
                let mut response = error(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!(
                        "this token has written as often as it may in a minute; try again in {seconds} s"
                    ),
                );
                let seconds =
                    HeaderValue::from_str(&seconds.to_string()).expect("a number is a header's value");
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
                response
            }
        }
    }
}

/// Lets requests with a write token through, with their [`Author`].
pub(super) async fn authorize(
    State(writers): State<Arc<Writers>>,
    mut request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    match writers.admit(authorization, Instant::now()) {
        Ok(author) => {
            request.extensions_mut().insert(author);
            next.run(request).await
        }
        Err(denied) => {
            tracing::info!(?denied, path = request.uri().path(), "a change over HTTP was not admitted");
            denied.response()
        }
    }
}

/// A number of requests a minute. They may come at once; then one more is allowed after each interval. (The generic
/// cell rate algorithm: ITU-T I.371.)
struct Pace {
    interval: Duration,
    /// The time at which the allowance is whole again.
    whole_at: Option<Instant>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Pace {
    fn new(per_minute: u64) -> Pace {
        assert!((1..=60_000).contains(&per_minute), "{per_minute} changes a minute");
        Pace { interval: Duration::from_micros(60_000_000 / per_minute), whole_at: None }
    }

    /// Takes one request, or returns the time after which there is one again.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let whole_at = self.whole_at.map_or(now, |whole_at| whole_at.max(now));
        let used_up = whole_at - now + self.interval;
        if let Some(wait) = used_up.checked_sub(MINUTE).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.whole_at = Some(whole_at + self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ann-0123456789abcdef";
    const BOB: &str = "bob-0123456789abcdef";

    fn writers(text: &str, per_minute: u64) -> Result<Writers, String> {
        Writers::new(Some(&Secret::new(text.to_owned()).unwrap()), per_minute, "x.write_tokens")
    }

    #[test]
    fn the_name_of_the_token_is_the_author() {
        let text = format!("ann:{ANN}\nbob@example.com:{BOB}\n");
        for text in [text.clone(), text.replace('\n', ","), text.replace('\n', " , ")] {
            let writers = writers(&text, 60).unwrap();
            let now = Instant::now();
            let admit = |header: String| writers.admit(Some(header.as_bytes()), now);
            assert_eq!(admit(format!("Bearer {ANN}")), Ok(Author("ann".to_owned())));
            assert_eq!(admit(format!("bearer {BOB}")), Ok(Author("bob@example.com".to_owned())));
            for wrong in ["", "Bearer ", "Bearer ann", "Basic YW5uOmFubi0wMTIzNDU2Nzg5YWJjZGVm"] {
                assert_eq!(admit(wrong.to_owned()), Err(Denied::Unknown), "{wrong}");
            }
            for wrong in [format!("Bearer {ANN}0"), format!("Bearer  {ANN}"), format!("Bearer ann:{ANN}")] {
                assert_eq!(admit(wrong.clone()), Err(Denied::Unknown), "{wrong}");
            }
            assert_eq!(writers.admit(None, now), Err(Denied::Unknown));
            assert_eq!(format!("{writers:?}"), r#"["ann", "bob@example.com"]"#);
        }
    }

    #[test]
    fn without_tokens_nobody_writes_and_the_setting_is_named() {
        let none = Writers::new(None, 60, "x.write_tokens").unwrap();
        let denied = none.admit(Some(b"Bearer "), Instant::now());
        assert_eq!(denied, Err(Denied::NotConfigured { setting: "x.write_tokens" }));
    }

    #[test]
    fn a_token_that_is_not_safe_is_refused_without_being_printed() {
        let short = "its-15-bytes-ok";
        for (text, what) in [
            (" \n".to_owned(), "x.write_tokens: holds no token; write `name:token` on a line of its own"),
            (ANN.to_owned(), "x.write_tokens: write token 1: not of the form `name:token`, without spaces"),
            (
                format!("ann:{ANN}\nbob:{short}"),
                "x.write_tokens: write token 2: the token has 15 bytes and needs 16 to 512; `openssl rand -hex 32` \
                 makes one",
            ),
            (
                format!(":{ANN}"),
                "x.write_tokens: write token 1: its name needs 1 to 128 bytes, and no control characters",
            ),
            (
                format!("ann:{ANN}:"),
                "x.write_tokens: write token 1: the token can have the characters A-Z a-z 0-9 - . _ ~ + / =",
            ),
            (
                format!("ann:{ANN} bob:{ANN}"),
                "x.write_tokens: write token 2: the same token as an earlier one",
            ),
        ] {
            assert_eq!(writers(&text, 60).unwrap_err(), what);
        }
        // Two tokens with one name: the second replaces the first, which is removed later.
        assert!(writers(&format!("ann:{ANN} ann:{BOB}"), 60).is_ok());
    }

    #[test]
    fn a_token_writes_so_often_a_minute() {
        let writers = writers(&format!("ann:{ANN} bob:{BOB}"), 3).unwrap();
        let start = Instant::now();
        let admit = |token: &str, seconds: u64| {
            let header = format!("Bearer {token}");
            writers.admit(Some(header.as_bytes()), start + Duration::from_secs(seconds)).map(drop)
        };
        let wait = |seconds| Err(Denied::TooMany { wait: Duration::from_secs(seconds) });
        for _ in 0..3 {
            assert_eq!(admit(ANN, 0), Ok(()));
        }
        assert_eq!(admit(ANN, 0), wait(20));
        assert_eq!(admit(BOB, 0), Ok(()));
        assert_eq!(admit(ANN, 15), wait(5));
        assert_eq!(admit(ANN, 20), Ok(()));
        assert_eq!(admit(ANN, 21), wait(19));
        // After a minute of silence all of them may come at once again.
        for _ in 0..3 {
            assert_eq!(admit(ANN, 200), Ok(()));
        }
        assert_eq!(admit(ANN, 200), wait(20));
    }
}
