//! Who may ask, and what: the tokens of a file, each a client key, which anybody can read out of a page and which sees only
//! what is safe there, or a server key. It reads no file. Secrets are kept as digests and compared in constant time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schemas::Key;
use schemas::definition::PRODUCTION;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::rate::{Bucket, Rate, TooMany};

/// The most tokens of a file: each request is compared with all of them.
const TOKENS_MAX: usize = 1_000;
/// The most origins of a token.
const ORIGINS_MAX: usize = 100;
/// The shortest and longest secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=512;
const RATE_RANGE: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// Begins what is hashed into the ticket of a token.
const TICKET_PURPOSE: &[u8] = b"splitstream event stream\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Sees only what is marked as safe for clients.
    Client,
    Server,
}

/// One token.
pub struct Token {
    pub name: Key,
    pub kind: TokenKind,
    /// The type of the unit that the targeting key identifies.
    pub unit_type: Key,
    digest: [u8; 32],
    /// Opens the event stream and nothing else, so that the address of the stream does not carry the token.
    pub ticket: String,
    origins: Origins,
    rates: Option<Rates>,
    /// Its event streams that are open; shared with the token of this name that it takes the place of.
    streams: Arc<AtomicUsize>,
    class: String,
}

/// One open event stream of a token, until it is dropped.
#[derive(Debug)]
pub struct OpenStream(Arc<AtomicUsize>);

/// The origins of pages that may read answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    named: BTreeSet<String>,
    /// Every page of this machine.
    loopback: bool,
}

/// All tokens of one environment.
#[derive(Debug, Default)]
pub struct Tokens {
    tokens: Vec<Arc<Token>>,
    /// Those of all tokens together: a preflight shows no token.
    origins: Origins,
    /// Stands in for every token, where there are none.
    open: Option<Arc<Token>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Key,
    kind: TokenKind,
    secret: Option<Hidden>,
    /// The hexadecimal digest of the secret, in place of it.
    sha256: Option<String>,
    #[serde(default = "production")]
    environment: Key,
    #[serde(default = "default_unit_type")]
    unit_type: Key,
    #[serde(default)]
    origins: Vec<String>,
    requests_per_second: Option<u32>,
    burst: Option<u32>,
}

/// A text that no message shows.
struct Hidden(String);

impl Tokens {
    /// Reads a file of tokens; those of other environments are left out. The buckets and the open streams of `before` are
    /// taken over, so that a reload is no fresh burst.
    ///
    /// # Errors
    /// Says what is wrong and where; never a secret.
    pub fn parse(
        text: &str,
        environment: &str,
        before: Option<&Tokens>,
        now: Instant,
    ) -> Result<Tokens, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            // Only the message: the whole error quotes the line, which may have a secret.
            format!("line {line}: {}", error.message())
        })?;
        if file.token.len() > TOKENS_MAX {
            return Err(format!("{} tokens; a file has at most {TOKENS_MAX}", file.token.len()));
        }
        let mut tokens: Vec<Arc<Token>> = Vec::new();
        let mut names = BTreeSet::new();
        let mut digests = BTreeSet::new();
        for written in file.token {
            let name = written.name.clone();
            let elsewhere = written.environment.as_str() != environment;
            let token = Token::of(written, before, now).map_err(|why| format!("token `{name}`: {why}"))?;
            if !names.insert(name.clone()) {
                return Err(format!("two tokens have the name `{name}`"));
            }
            if !digests.insert(token.digest) {
                return Err(format!("token `{name}`: another token has the same secret"));
            }
            if !elsewhere {
                tokens.push(Arc::new(token));
            }
        }
        if tokens.is_empty() {
            return Err(format!("no token is for environment `{environment}`: nobody could ask"));
        }
        let mut origins = Origins::default();
        for token in &tokens {
            origins.any |= token.origins.any;
            origins.named.extend(token.origins.named.iter().cloned());
        }
        Ok(Tokens { tokens, origins, open: None })
    }

    /// No tokens: everybody is served as by a server key, without a rate, and pages of this machine may read the answers.
    pub fn open() -> Tokens {
        let key = |text: &str| Key::new(text).expect("a fixed key is one");
        let origins = Origins { loopback: true, ..Origins::default() };
        let token = Token::new(
            TokenParts {
                name: key("open"),
                kind: TokenKind::Server,
                unit_type: default_unit_type(),
                origins: origins.clone(),
            },
            Sha256::digest(b"").into(),
            None,
        );
        Tokens { tokens: Vec::new(), origins, open: Some(Arc::new(token)) }
    }

    /// Returns the token that was shown. It takes the same time whichever of them it is.
    pub fn find(&self, shown: Option<&[u8]>) -> Option<Arc<Token>> {
        if let Some(open) = &self.open {
            return Some(open.clone());
        }
        let digest: [u8; 32] = Sha256::digest(shown?).into();
        self.matching(|token| token.digest[..].ct_eq(&digest[..]).into())
    }

    /// Returns the token whose ticket was shown.
    pub fn find_by_ticket(&self, shown: &[u8]) -> Option<Arc<Token>> {
        self.matching(|token| token.ticket.as_bytes().ct_eq(shown).into())
    }

    fn matching(&self, is_it: impl Fn(&Token) -> bool) -> Option<Arc<Token>> {
        let mut found = None;
        for token in &self.tokens {
            if is_it(token) {
                found = Some(token);
            }
        }
        found.cloned()
    }

    /// Whether this very token still counts: a rotated one does not.
    pub fn has(&self, token: &Token) -> bool {
        self.open.is_some()
            || self.tokens.iter().any(|own| own.name == token.name && own.digest == token.digest)
    }

    /// Whether a page of this origin may read any answer at all.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.allow(origin)
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Both fill at the same rate. They are two, so that whoever reports many events keeps nobody from evaluating.
struct Rates {
    requests: Mutex<Bucket>,
    events: Mutex<Bucket>,
}

impl Rates {
    fn new(rate: Rate, now: Instant) -> Rates {
        Rates { requests: Mutex::new(Bucket::new(rate, now)), events: Mutex::new(Bucket::new(rate, now)) }
    }
}

struct TokenParts {
    name: Key,
    kind: TokenKind,
    unit_type: Key,
    origins: Origins,
}

impl Token {
    fn of(written: Written, before: Option<&Tokens>, now: Instant) -> Result<Token, String> {
        let digest = match (&written.secret, &written.sha256) {
            (Some(Hidden(secret)), None) if SECRET_BYTES.contains(&secret.len()) => {
                Sha256::digest(secret).into()
            }
            (Some(Hidden(secret)), None) => {
                return Err(format!("its secret has {} bytes; it needs 16 to 512", secret.len()));
            }
            (None, Some(text)) => {
                let mut digest = [0; 32];
                hex::decode_to_slice(text, &mut digest)
                    .map_err(|_| "its sha256 is not 64 hexadecimal digits".to_owned())?;
                digest
            }
            _ => return Err("it needs a secret or its sha256, and not both".to_owned()),
        };
        let rate = match (written.requests_per_second, written.burst) {
            (None, None) => None,
            (None, Some(_)) => return Err("burst is set without requests_per_second".to_owned()),
            (Some(per_second), burst) => Some(Rate { per_second, burst: burst.unwrap_or(per_second) }),
        };
        if rate
            .is_some_and(|rate| !RATE_RANGE.contains(&rate.per_second) || !RATE_RANGE.contains(&rate.burst))
        {
            return Err("requests_per_second and burst are 1 to 1000000".to_owned());
        }
        let origins = Origins::parse(&written.origins)?;
        let kept = before.and_then(|before| before.tokens.iter().find(|token| token.name == written.name));
        let streams = kept.map(|token| token.streams.clone()).unwrap_or_default();
        let rates = rate
            .map(|rate| kept.and_then(|token| token.rates_of(rate)).unwrap_or_else(|| Rates::new(rate, now)));
        let parts =
            TokenParts { name: written.name, kind: written.kind, unit_type: written.unit_type, origins };
        Ok(Token { streams, ..Token::new(parts, digest, rates) })
    }

    fn new(parts: TokenParts, digest: [u8; 32], rates: Option<Rates>) -> Token {
        let TokenParts { name, kind, unit_type, origins } = parts;
        let ticket = hex::encode(Sha256::new().chain_update(TICKET_PURPOSE).chain_update(digest).finalize());
        let class = format!("{kind:?} {unit_type} {ticket}");
        Token { name, kind, unit_type, digest, ticket, origins, rates, streams: Arc::default(), class }
    }

    /// A copy of the buckets, if they have this rate.
    fn rates_of(&self, rate: Rate) -> Option<Rates> {
        let copy = |bucket: &Mutex<Bucket>| {
            let bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            (bucket.rate() == rate).then(|| Mutex::new(bucket.copy()))
        };
        let Rates { requests, events } = self.rates.as_ref()?;
        Some(Rates { requests: copy(requests)?, events: copy(events)? })
    }

    /// Takes one request out of the token's rate.
    pub fn take(&self, now: Instant) -> Result<(), TooMany> {
        match &self.rates {
            Some(rates) => rates.requests.lock().unwrap_or_else(PoisonError::into_inner).take(now),
            None => Ok(()),
        }
    }

    /// Takes so many events out of the token's rate of events.
    pub fn take_events(&self, events: usize, now: Instant) -> Result<(), TooMany> {
        match &self.rates {
            Some(rates) => {
                rates.events.lock().unwrap_or_else(PoisonError::into_inner).take_batch(events, now)
            }
            None => Ok(()),
        }
    }

    /// Counts a further event stream; `None` if `streams_max` are open.
    pub fn open_stream(&self, streams_max: usize) -> Option<OpenStream> {
        let more = |open: usize| (open < streams_max).then_some(open + 1);
        self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(OpenStream(self.streams.clone()))
    }

    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.allow(origin)
    }

    /// The part of a tag that names what the token sees.
    pub fn class(&self) -> &str {
        &self.class
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The name alone: the rest is as good as the secret.
impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "token {}", self.name)
    }
}

impl Origins {
    fn parse(texts: &[String]) -> Result<Origins, String> {
        if texts.len() > ORIGINS_MAX {
            return Err(format!("{} origins; a token has at most {ORIGINS_MAX}", texts.len()));
        }
        let mut origins = Origins::default();
        for text in texts {
            if text == "*" {
                origins.any = true;
                continue;
            }
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            let plain = |host: &str| {
                !host.is_empty()
                    && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte))
            };
            if !host.is_some_and(plain) || *text != text.to_ascii_lowercase() {
                return Err(format!(
                    "`{text}` is no origin such as https://shop.example (or * for every page)"
                ));
            }
            origins.named.insert(text.clone());
        }
        Ok(origins)
    }

    fn allow(&self, origin: &str) -> bool {
        self.any || self.named.contains(origin) || (self.loopback && is_loopback(origin))
    }
}

/// Whether a page of this origin comes from this machine.
fn is_loopback(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some(host) = host else { return false };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| {
        host.strip_prefix(own).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

fn production() -> Key {
    Key::new(PRODUCTION).expect("the name of the environment is a key")
}

fn default_unit_type() -> Key {
    Key::new(assignment::DEFAULT_UNIT_TYPE).expect("the default type is a key")
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hidden, D::Error> {
        struct Text;
        const NOT_A_TEXT: &str = "a secret is a text, in quotes";

        impl Visitor<'_> for Text {
            type Value = Hidden;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a secret, which is a text")
            }

            // The default messages would show the value.
            fn visit_i64<E: Error>(self, _: i64) -> Result<Hidden, E> {
                Err(E::custom(NOT_A_TEXT))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Hidden, E> {
                Err(E::custom(NOT_A_TEXT))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Hidden, E> {
                Err(E::custom(NOT_A_TEXT))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Hidden, E> {
                Ok(Hidden(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[token]]
name = "web"
kind = "client"
secret = "web-0123456789abcdef"
origins = ["https://shop.example", "http://localhost:3000"]
requests_per_second = 2
burst = 1

[[token]]
name = "shop"
kind = "server"
# sha256 of "shop-0123456789abcdef"
sha256 = "SHOP"
unit_type = "account"

[[token]]
name = "elsewhere"
kind = "server"
environment = "staging"
secret = "elsewhere-0123456789"
"#;

    fn file() -> String {
        FILE.replace("SHOP", &hex::encode(Sha256::digest("shop-0123456789abcdef")))
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        Tokens::parse(text, "production", None, Instant::now())
    }

    fn name(token: Option<Arc<Token>>) -> Option<String> {
        token.map(|token| token.name.to_string())
    }

    #[test]
    fn a_token_is_found_by_its_secret_or_its_digest() {
        let tokens = parse(&file()).unwrap();
        assert_eq!(tokens.len(), 2);
        let find = |shown: &str| name(tokens.find(Some(shown.as_bytes())));
        assert_eq!(find("web-0123456789abcdef").as_deref(), Some("web"));
        assert_eq!(find("shop-0123456789abcdef").as_deref(), Some("shop"));
        for other in ["", "web", "web-0123456789abcdef ", "elsewhere-0123456789"] {
            assert_eq!(find(other), None, "{other}");
        }
        assert_eq!(name(tokens.find(None)), None);
        let shop = tokens.find(Some(b"shop-0123456789abcdef")).unwrap();
        assert_eq!((shop.kind, shop.unit_type.as_str()), (TokenKind::Server, "account"));
    }

    #[test]
    fn a_ticket_opens_the_stream_and_is_no_token() {
        let tokens = parse(&file()).unwrap();
        let web = tokens.find(Some(b"web-0123456789abcdef")).unwrap();
        assert_eq!(web.ticket.len(), 64);
        assert_eq!(name(tokens.find_by_ticket(web.ticket.as_bytes())).as_deref(), Some("web"));
        assert_eq!(name(tokens.find(Some(web.ticket.as_bytes()))), None);
        assert_eq!(name(tokens.find_by_ticket(b"web-0123456789abcdef")), None);
        // The address is stable: another reading of the file gives the same.
        assert_eq!(parse(&file()).unwrap().find(Some(b"web-0123456789abcdef")).unwrap().ticket, web.ticket);
    }

    #[test]
    fn a_rotated_token_does_not_count_any_more_and_the_rate_goes_on() {
        let now = Instant::now();
        let before = Tokens::parse(&file(), "production", None, now).unwrap();
        let old = before.find(Some(b"web-0123456789abcdef")).unwrap();
        assert_eq!(old.take(now), Ok(()));
        let rotated = file().replace("web-0123456789abcdef", "web-fedcba9876543210");
        let after = Tokens::parse(&rotated, "production", Some(&before), now).unwrap();
        assert!(before.has(&old) && !after.has(&old));
        let new = after.find(Some(b"web-fedcba9876543210")).unwrap();
        assert_eq!(new.take(now), Err(TooMany { retry_after_s: 1 }));
    }

    #[test]
    fn a_token_has_a_bounded_number_of_streams_also_after_it_is_rotated() {
        let now = Instant::now();
        let before = parse(&file()).unwrap();
        let web = before.find(Some(b"web-0123456789abcdef")).unwrap();
        let shop = before.find(Some(b"shop-0123456789abcdef")).unwrap();
        let first = web.open_stream(2).unwrap();
        let second = web.open_stream(2).unwrap();
        assert!(web.open_stream(2).is_none() && shop.open_stream(2).is_some());
        let rotated = file().replace("web-0123456789abcdef", "web-fedcba9876543210");
        let after = Tokens::parse(&rotated, "production", Some(&before), now).unwrap();
        let new = after.find(Some(b"web-fedcba9876543210")).unwrap();
        assert!(new.open_stream(2).is_none());
        drop(first);
        let third = new.open_stream(2).unwrap();
        assert!(new.open_stream(2).is_none() && web.open_stream(2).is_none());
        drop((second, third));
        assert_eq!(new.streams.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_page_reads_what_its_token_allows() {
        let tokens = parse(&file()).unwrap();
        let web = tokens.find(Some(b"web-0123456789abcdef")).unwrap();
        let shop = tokens.find(Some(b"shop-0123456789abcdef")).unwrap();
        for (origin, allowed) in [
            ("https://shop.example", true),
            ("http://localhost:3000", true),
            ("http://shop.example", false),
            ("https://shop.example.evil", false),
            ("null", false),
        ] {
            assert_eq!(
                (web.allows_origin(origin), tokens.allows_origin(origin)),
                (allowed, allowed),
                "{origin}"
            );
            assert!(!shop.allows_origin(origin), "{origin}");
        }
    }

    #[test]
    fn without_tokens_pages_of_this_machine_alone_read_answers() {
        let tokens = Tokens::open();
        assert_eq!(name(tokens.find(None)).as_deref(), Some("open"));
        for (origin, allowed) in [
            ("http://localhost", true),
            ("http://localhost:5173", true),
            ("https://127.0.0.1:8443", true),
            ("http://[::1]:80", true),
            ("http://localhost.evil", false),
            ("http://localhost:80.evil", false),
            ("https://shop.example", false),
        ] {
            assert_eq!(tokens.allows_origin(origin), allowed, "{origin}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let refused = |from: &str, to: &str| {
            let text = file();
            assert!(text.contains(from), "{from}");
            let error = parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(!error.contains("0123456789"), "{error}");
            error
        };
        assert_eq!(
            refused("\"web-0123456789abcdef\"", "\"short\""),
            "token `web`: its secret has 5 bytes; it needs 16 to 512"
        );
        assert_eq!(refused("name = \"shop\"", "name = \"web\""), "two tokens have the name `web`");
        assert_eq!(
            refused("elsewhere-0123456789", "web-0123456789abcdef"),
            "token `elsewhere`: another token has the same secret"
        );
        assert_eq!(
            refused("https://shop.example", "https://shop.example/path"),
            "token `web`: `https://shop.example/path` is no origin such as https://shop.example (or * for every page)"
        );
        assert_eq!(
            refused("burst = 1", "burst = 0"),
            "token `web`: requests_per_second and burst are 1 to 1000000"
        );
        assert!(
            refused("kind = \"client\"", "kind = \"admin\"").starts_with("line 4: unknown variant `admin`")
        );
        assert!(refused("burst = 1", "brust = 1").contains("unknown field `brust`"));
        // A line that is no TOML, with the secret in it.
        assert!(refused("secret = \"web", "secret \"web").starts_with("line 5: "));
        let none = Tokens::parse(&file(), "test", None, Instant::now()).unwrap_err();
        assert_eq!(none, "no token is for environment `test`: nobody could ask");
    }
}
