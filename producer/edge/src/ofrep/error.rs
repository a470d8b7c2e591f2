//! The body of every answer that is no success. Clients parse it before they look at the status, and some fail if a field
//! is missing, so it always has all of them.

use assignment::EvaluationError;
use schemas::Key;
use serde::Serialize;

/// The longest key that an answer repeats, in characters.
const KEY_CHARACTERS_MAX: usize = 80;

/// OpenFeature's codes, as far as a server says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    ProviderNotReady,
    FlagNotFound,
    ParseError,
    TargetingKeyMissing,
    InvalidContext,
    General,
}

/// Why a request, or one flag of it, has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub struct Problem {
    pub code: ErrorCode,
    pub details: String,
}

/// No flags are known yet: neither the log nor a snapshot on disk has been read.
pub const NOT_READY: &str =
    "no definitions have been read yet, neither from Kafka nor from a snapshot on disk; try again";

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(rename = "errorCode")]
    code: ErrorCode,
    #[serde(rename = "errorDetails")]
    details: &'a str,
    metadata: Empty,
}

#[derive(Serialize)]
struct Empty {}

impl Problem {
    pub fn new(code: ErrorCode, details: impl Into<String>) -> Problem {
        Problem { code, details: details.into() }
    }

    pub fn general(details: impl Into<String>) -> Problem {
        Problem::new(ErrorCode::General, details)
    }

    pub fn not_ready() -> Problem {
        Problem::new(ErrorCode::ProviderNotReady, NOT_READY)
    }

    /// Writes the body; `key` is the flag's, for everything but a whole bulk request.
    pub fn write(&self, key: Option<&str>, out: &mut Vec<u8>) {
        let cut: Option<String> = key.map(|key| key.chars().take(KEY_CHARACTERS_MAX).collect());
        let body = Body { key: cut.as_deref(), code: self.code, details: &self.details, metadata: Empty {} };
        serde_json::to_writer(out, &body).expect("texts can be written into memory");
    }

    pub fn body(&self, key: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.write(key, &mut out);
        out
    }
}

impl Problem {
    /// `token_type` is the type of the unit that the token's targeting keys identify.
    pub fn of_evaluation(error: &EvaluationError, token_type: &Key) -> Problem {
        let code = match error {
            EvaluationError::NotFound(_) => ErrorCode::FlagNotFound,
            EvaluationError::NoUnit { .. } => ErrorCode::TargetingKeyMissing,
            // An empty key is none: some clients send it for an anonymous person.
            EvaluationError::UnitId { bytes: 0, .. } => ErrorCode::TargetingKeyMissing,
            EvaluationError::UnitId { .. } | EvaluationError::Cluster { .. } => ErrorCode::InvalidContext,
        };
        let details = match error {
            EvaluationError::NotFound(_) => "there is no flag or experiment of this key".to_owned(),
            EvaluationError::NoUnit { unit_type, .. } if unit_type == token_type => format!(
                "the context has no text that is the id of the {unit_type}: with this token it is the targetingKey, or the \
                 attribute `{unit_type}`"
            ),
            EvaluationError::NoUnit { unit_type, .. } => format!(
                "the context has no text that is the id of the {unit_type}: with this token it is the attribute \
                 `{unit_type}`, and the targetingKey is the id of the {token_type}"
            ),
            _ => error.to_string(),
        };
        Problem { code, details }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(problem: &Problem, key: Option<&str>) -> String {
        String::from_utf8(problem.body(key)).unwrap()
    }

    #[test]
    fn a_body_has_every_field_that_a_client_may_ask_for() {
        let user = Key::new("user").unwrap();
        let problem = Problem::of_evaluation(&EvaluationError::NotFound("x".to_owned()), &user);
        assert_eq!(
            text(&problem, Some("x\"y")),
            r#"{"key":"x\"y","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no flag or experiment of this key","metadata":{}}"#
        );
        assert_eq!(
            text(&Problem::new(ErrorCode::ParseError, "no JSON"), None),
            r#"{"errorCode":"PARSE_ERROR","errorDetails":"no JSON","metadata":{}}"#
        );
        assert_eq!(text(&Problem::general("e"), Some(&"k".repeat(1_000))).matches('k').count(), 81);
    }

    #[test]
    fn a_missing_and_an_empty_unit_have_one_code_and_a_long_one_another() {
        let unit_type = Key::new("user").unwrap();
        let code = |error: EvaluationError| {
            serde_json::to_value(Problem::of_evaluation(&error, &unit_type).code).unwrap()
        };
        let missing = EvaluationError::NoUnit { unit_type: unit_type.clone(), is_default: true };
        assert_eq!(code(missing), "TARGETING_KEY_MISSING");
        assert_eq!(
            code(EvaluationError::UnitId { unit_type: unit_type.clone(), bytes: 0 }),
            "TARGETING_KEY_MISSING"
        );
        assert_eq!(
            code(EvaluationError::UnitId { unit_type: unit_type.clone(), bytes: 257 }),
            "INVALID_CONTEXT"
        );
    }

    /// A token for accounts was told to send a user's id as the targetingKey, which it had sent.
    #[test]
    fn a_missing_id_is_asked_for_where_the_token_has_it() {
        let [user, account] = ["user", "account"].map(|unit_type| Key::new(unit_type).unwrap());
        let missing = EvaluationError::NoUnit { unit_type: user.clone(), is_default: true };
        assert_eq!(
            Problem::of_evaluation(&missing, &user).details,
            "the context has no text that is the id of the user: with this token it is the targetingKey, or the attribute \
             `user`"
        );
        assert_eq!(
            Problem::of_evaluation(&missing, &account).details,
            "the context has no text that is the id of the user: with this token it is the attribute `user`, and the \
             targetingKey is the id of the account"
        );
    }
}
