//! Reads the user and the password that a request gives. Does not check them.

use axum::http::HeaderMap;
use base64::prelude::{BASE64_STANDARD, Engine};

use super::exception::{Exception, code};
use super::request_headers::header;

/// A user and a password. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Credentials({:?}, ...)", self.user)
    }
}

impl Credentials {
    /// From ClickHouse's headers, from Basic authentication or from the URL. Like ClickHouse, it refuses a
    /// request that uses two of them.
    pub fn read(
        headers: &HeaderMap,
        url_user: Option<String>,
        url_password: Option<String>,
    ) -> Result<Credentials, Exception> {
        const DEFAULT_USER: &str = "default";
        let refused = |why: &str| {
            Exception::new(code::AUTHENTICATION_FAILED, format_args!("Invalid authentication: {why}"))
        };
        let own_user = header(headers, "x-clickhouse-user")?;
        let own_key = header(headers, "x-clickhouse-key")?;
        let authorization = header(headers, "authorization")?;
        if own_user.is_some() || own_key.is_some() {
            if authorization.is_some() || url_user.is_some() || url_password.is_some() {
                return Err(refused(
                    "it is not allowed to use X-ClickHouse HTTP headers and other ways simultaneously",
                ));
            }
            let user = own_user.unwrap_or(DEFAULT_USER).to_owned();
            return Ok(Credentials { user, password: own_key.unwrap_or("").to_owned() });
        }
        if let Some(authorization) = authorization {
            if url_user.is_some() || url_password.is_some() {
                return Err(refused(
                    "it is not allowed to use Authorization HTTP header and authentication via parameters simultaneously",
                ));
            }
            let (scheme, encoded) = authorization.split_once(' ').unwrap_or((authorization, ""));
            if !scheme.eq_ignore_ascii_case("basic") {
                return Err(refused("'Authorization' HTTP header's scheme is not Basic"));
            }
            let decoded =
                BASE64_STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded =
                decoded.ok_or_else(|| refused("'Authorization' HTTP header is not Base64 of UTF-8"))?;
            let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
            return Ok(Credentials { user: user.to_owned(), password: password.to_owned() });
        }
        let user = url_user.filter(|user| !user.is_empty()).unwrap_or_else(|| DEFAULT_USER.to_owned());
        Ok(Credentials { user, password: url_password.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{read, refused};

    #[test]
    fn credentials_come_from_one_place() {
        let who = |query: &str, given: &[(&'static str, &'static str)]| {
            let it = read(query, given).expect("reads").credentials;
            (it.user, it.password)
        };
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(who("", &[]), pair("default", ""));
        assert_eq!(who("user=a&password=b%20c", &[]), pair("a", "b c"));
        assert_eq!(who("", &[("x-clickhouse-user", "a"), ("x-clickhouse-key", "b")]), pair("a", "b"));
        assert_eq!(who("", &[("authorization", "Basic YTpiOmPDqQ==")]), pair("a", "b:cé"));
        assert_eq!(refused("", &[("authorization", "Bearer x")]), 516);
        assert_eq!(refused("", &[("authorization", "Basic *")]), 516);
        assert_eq!(refused("user=a", &[("x-clickhouse-user", "a")]), 516);
        assert_eq!(refused("password=a", &[("authorization", "Basic YTpi")]), 516);
    }

    #[test]
    fn passwords_are_not_printed() {
        let request = read("user=a&password=hidden", &[]).expect("reads");
        assert!(!format!("{request:?}").contains("hidden"));
    }
}
