//! Reads a request for a change: the definition in the body, the version that it is based on, and the reason. It
//! decides what cannot be understood; whether the change is accepted is decided by the log.

use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use percent_encoding::percent_decode_str;
use schemas::Key;
use schemas::definition::{Definition, Kind, Version, parse_file};
use serde_json::Value;

use super::answer::{self, Located, Stale};
use super::{Refused, current};
use crate::apply::Signature;
use crate::log::DefinitionLog;

/// The header with the reason for a change: UTF-8, percent-encoded where it is not printable ASCII.
pub const REASON_HEADER: &str = "x-splitstream-reason";

/// A change that was asked for.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    pub definition: Definition,
    pub based_on: BasedOn,
    pub signature: Signature,
}

/// What the author knew about the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BasedOn {
    /// There is none yet: `If-None-Match: *`.
    Nothing,
    /// `If-Match: "7"`.
    Version(Version),
}

/// Why a request cannot be understood.
#[derive(Debug, PartialEq)]
pub(super) struct Unreadable {
    pub status: StatusCode,
    pub error: String,
    pub problems: Vec<Located>,
}

impl ChangeRequest {
    /// `kind` and `key` are those of the path.
    pub fn read(
        kind: Kind,
        key: &str,
        headers: &HeaderMap,
        body: &[u8],
        author: String,
    ) -> Result<ChangeRequest, Refused> {
        let read = || {
            let based_on = read_based_on(headers)?;
            let reason = read_reason(headers)?;
            let definition = read_definition(kind, key, body).map_err(|problems| Unreadable {
                status: StatusCode::BAD_REQUEST,
                error: "the body cannot be read as a definition".to_owned(),
                problems,
            })?;
            Ok(ChangeRequest { definition, based_on, signature: Signature { author, reason } })
        };
        read().map_err(|Unreadable { status, error, problems }| {
            answer::problems(status, error, problems).into()
        })
    }

    pub fn kind(&self) -> Kind {
        self.definition.kind()
    }

    pub fn key(&self) -> &Key {
        self.definition.key()
    }
}

impl BasedOn {
    /// Refuses a change whose author does not know the current version.
    pub fn check(self, log: &DefinitionLog, kind: Kind, key: &Key) -> Result<(), Refused> {
        let current = current(log, kind, key.as_str()).map(|accepted| accepted.version);
        let error = match (self, current) {
            (BasedOn::Nothing, None) => return Ok(()),
            (BasedOn::Version(version), Some(current)) if version == current => return Ok(()),
            (BasedOn::Nothing, Some(current)) => {
                format!("there is a {kind} `{key}` already, version {current}")
            }
            (BasedOn::Version(version), Some(current)) => format!(
                "`{key}` has moved on: the change is based on version {version}, the current one is {current}"
            ),
            (BasedOn::Version(_), None) => {
                format!("there is no {kind} `{key}`; to create it, ask with `If-None-Match: *`")
            }
        };
        Err(answer::stale(Stale::at(log, error, current)).into())
    }
}

/// # Errors
/// If there is no precondition (428), or none that names one version.
fn read_based_on(headers: &HeaderMap) -> Result<BasedOn, Unreadable> {
    match (only(headers, &IF_MATCH)?, only(headers, &IF_NONE_MATCH)?) {
        (None, None) => Err(refusal(
            StatusCode::PRECONDITION_REQUIRED,
            "a change names the version that it is based on, `If-Match: \"7\"`, or says that there is none yet, \
             `If-None-Match: *`; a GET answers with the version as its ETag",
        )),
        (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match exclude each other; send one")),
        (None, Some("*")) => Ok(BasedOn::Nothing),
        (None, Some(_)) => Err(bad("If-None-Match can only be `*` here: there is no such definition yet")),
        (Some(tag), None) => read_tag(tag).map(BasedOn::Version).ok_or_else(|| {
            bad("If-Match must be one version in quotes, as in `If-Match: \"7\"`; a GET answers with it as its ETag")
        }),
    }
}

/// Reads an entity tag as [`answer::tag`] writes it.
fn read_tag(tag: &str) -> Option<Version> {
    let version: Version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    (version > 0 && answer::tag(version) == tag).then_some(version)
}

/// Returns whether the client of a GET has the document with this tag: it is among those of `If-None-Match`, or that is `*`.
/// Compared weakly (RFC 9110, section 13.1.2), since a proxy may have compressed it.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = values.flat_map(|value| value.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn read_reason(headers: &HeaderMap) -> Result<String, Unreadable> {
    let Some(encoded) = only(headers, &HeaderName::from_static(REASON_HEADER))? else {
        return Err(bad("a change needs a reason, in the header X-Splitstream-Reason"));
    };
    let reason = percent_decode_str(encoded).decode_utf8();
    let reason = reason.map_err(|_| bad("X-Splitstream-Reason is not percent-encoded UTF-8"))?;
    if reason.chars().any(char::is_control) {
        return Err(bad("X-Splitstream-Reason holds a control character; write the reason on one line"));
    }
    Ok(reason.trim().to_owned())
}

/// Returns the text of a header that may be given once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Unreadable> {
    let mut values = headers.get_all(name).iter();
    let (value, further): (Option<&HeaderValue>, _) = (values.next(), values.next());
    if further.is_some() {
        return Err(bad(&format!("the header {name} is given twice; send it once")));
    }
    let text = value.map(|value| value.to_str()).transpose();
    text.map_err(|_| bad(&format!("the header {name} is not ASCII; percent-encode it")))
}

/// Reads the JSON of one definition, which must be that of the path.
fn read_definition(kind: Kind, key: &str, body: &[u8]) -> Result<Definition, Vec<Located>> {
    let one = |line: Option<usize>, field: &str, what: String| {
        vec![Located { line, field: field.to_owned(), what }]
    };
    let text = std::str::from_utf8(body).map_err(|error| {
        let line = 1 + body[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        one(Some(line), ".", "the body is not UTF-8".to_owned())
    })?;
    // A file may be YAML; a body is JSON, which the reader of files reads with the lines of its fields.
    let json: Value = serde_json::from_str(text)
        .map_err(|error| one(Some(error.line()), ".", format!("the body is not JSON: {error}")))?;
    if !json.is_object() {
        return Err(one(Some(1), ".", "the body must be one definition, a map with its `kind`".to_owned()));
    }
    let mut definitions = parse_file(text).map_err(|errors| {
        let located = errors.into_iter().map(|error| Located {
            line: Some(error.line),
            field: error.problem.field,
            what: error.problem.what,
        });
        located.collect::<Vec<Located>>()
    })?;
    assert_eq!(definitions.len(), 1, "definitions in one map");
    let definition = definitions.remove(0);
    let (of_kind, of_key) = (definition.kind(), definition.key());
    if of_kind != kind {
        return Err(one(None, "kind", format!("`{of_kind}` in the body, and {kind} in the path")));
    }
    if of_key.as_str() != key {
        return Err(one(None, "key", format!("`{of_key}` in the body, and another one in the path")));
    }
    Ok(definition)
}

fn bad(error: &str) -> Unreadable {
    refusal(StatusCode::BAD_REQUEST, error)
}

fn refusal(status: StatusCode, error: &str) -> Unreadable {
    Unreadable { status, error: error.to_owned(), problems: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_precondition_names_one_version_or_none() {
        let of = |pairs: &[(&'static str, &str)]| {
            read_based_on(&headers(pairs)).map_err(|refused| refused.status.as_u16())
        };
        assert_eq!(of(&[("if-match", "\"7\"")]), Ok(BasedOn::Version(7)));
        assert_eq!(of(&[("if-none-match", "*")]), Ok(BasedOn::Nothing));
        assert_eq!(of(&[]), Err(428));
        for wrong in ["7", "\"0\"", "\"07\"", "\"+7\"", "W/\"7\"", "*", "\"7\", \"8\"", "\"\"", "", "\"é\""]
        {
            assert_eq!(of(&[("if-match", wrong)]), Err(400), "{wrong}");
        }
        assert_eq!(of(&[("if-none-match", "\"7\"")]), Err(400));
        assert_eq!(of(&[("if-match", "\"7\""), ("if-none-match", "*")]), Err(400));
        assert_eq!(of(&[("if-match", "\"7\""), ("if-match", "\"8\"")]), Err(400));
    }

    #[test]
    fn a_document_is_known_by_any_of_the_tags() {
        let is_known = |tags: &[&str]| {
            let pairs: Vec<_> = tags.iter().map(|tag| ("if-none-match", *tag)).collect();
            super::is_known(&headers(&pairs), "\"7\"")
        };
        for known in [&["\"7\""][..], &["W/\"7\""], &["*"], &["\"6\", \"7\""], &["\"6\"", "W/\"7\""]] {
            assert!(is_known(known), "{known:?}");
        }
        for other in [&[][..], &["\"6\""], &["7"], &["\"77\""], &["\"6\",\"8\""], &[""], &["é"]] {
            assert!(!is_known(other), "{other:?}");
        }
    }

    #[test]
    fn a_reason_is_percent_encoded_text_on_one_line() {
        let of =
            |reason: &str| read_reason(&headers(&[(REASON_HEADER, reason)])).map_err(|refused| refused.error);
        assert_eq!(of("the split was off"), Ok("the split was off".to_owned()));
        assert_eq!(of("caf%C3%A9 100%25 a+b"), Ok("café 100% a+b".to_owned()));
        // A blank reason is refused by the log's rule.
        assert_eq!(of("%20"), Ok(String::new()));
        assert_eq!(of("%C3"), Err("X-Splitstream-Reason is not percent-encoded UTF-8".to_owned()));
        assert_eq!(
            of("a%0Ab"),
            Err("X-Splitstream-Reason holds a control character; write the reason on one line".to_owned())
        );
        assert_eq!(
            of("café"),
            Err("the header x-splitstream-reason is not ASCII; percent-encode it".to_owned())
        );
        assert_eq!(
            read_reason(&HeaderMap::new()).unwrap_err().error,
            "a change needs a reason, in the header X-Splitstream-Reason"
        );
    }

    #[test]
    fn a_body_is_the_definition_of_the_path_and_its_problems_have_lines_and_fields() {
        let of = |body: &[u8]| read_definition(Kind::Layer, "shop", body);
        assert_eq!(of(br#"{"kind": "layer", "key": "shop"}"#).unwrap().key().as_str(), "shop");
        let located = |line: Option<usize>, field: &str, what: &str| {
            vec![Located { line, field: field.to_owned(), what: what.to_owned() }]
        };
        for (body, problems) in [
            (
                &b"{\"kind\": \"layer\",\n"[..],
                located(Some(2), ".", "the body is not JSON: EOF while parsing a value at line 2 column 0"),
            ),
            (
                b"{kind: layer, key: shop}",
                located(Some(1), ".", "the body is not JSON: key must be a string at line 1 column 2"),
            ),
            (b"\n\xff", located(Some(2), ".", "the body is not UTF-8")),
            (
                br#"[{"kind": "layer", "key": "shop"}]"#,
                located(Some(1), ".", "the body must be one definition, a map with its `kind`"),
            ),
            (
                b"{\"kind\": \"layer\",\n\"key\": \"shop\",\n\"colour\": 1}",
                located(
                    Some(3),
                    "colour",
                    "no such field; there can be key, owner, description, salt, cooldown_hours",
                ),
            ),
            (
                b"{\"kind\": \"layer\",\n\"key\": \"shop\",\n\"key\": \"shop\"}",
                located(Some(3), "key", "is given twice"),
            ),
            (
                br#"{"key": "shop"}"#,
                located(
                    Some(1),
                    ".",
                    "the definition has no `kind`: one of flag, experiment, layer, metric, list, settings",
                ),
            ),
            (
                br#"{"kind": "layer", "key": "other"}"#,
                located(None, "key", "`other` in the body, and another one in the path"),
            ),
            (
                br#"{"kind": "metric", "key": "shop", "event": "buy", "type": "count"}"#,
                located(None, "kind", "`metric` in the body, and layer in the path"),
            ),
        ] {
            assert_eq!(of(body).unwrap_err(), problems, "{}", String::from_utf8_lossy(body));
        }
        // As deep as the body may be, reading it needs little of the stack.
        let deep = format!("{{\"a\": {}", "[".repeat(500_000));
        assert!(of(deep.as_bytes()).unwrap_err()[0].what.contains("recursion limit exceeded"));
    }
}
