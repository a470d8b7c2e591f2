//! Decides which web pages may use the server. The server may have no password, and any page in a browser on
//! this machine can reach it. A browser adds headers to the requests of a page that the page cannot remove.
//! By them a request is refused, unless its page comes from this machine or from an origin that the operator
//! has named.

use std::net::IpAddr;

use anyhow::bail;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::exception::{Exception, code};

/// The origins that are allowed.
#[derive(Debug)]
pub struct Origins {
    any: bool,
    /// In lower case: `scheme://host`, with the port if it is not the scheme's default.
    listed: Vec<String>,
    /// Only this machine reaches the server, so a public name in the Host header means that a page has
    /// pointed its name to this machine (DNS rebinding).
    is_local: bool,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The headers of an answer that a browser lets a page read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-ClickHouse-Query-Id, X-ClickHouse-Summary, X-ClickHouse-Format, X-ClickHouse-Timezone, \
     X-ClickHouse-Server-Display-Name, X-ClickHouse-Exception-Code, X-ClickHouse-Exception-Tag",
);
/// The methods that the server accepts.
pub const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, OPTIONS");
/// A wildcard does not include Authorization.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("Authorization, *");
/// A day, as in ClickHouse's own configuration.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");

impl Origins {
    /// Allows pages of this machine and those in `listed`: origins, or `*` for any page.
    ///
    /// # Errors
    /// One of `listed` is no origin.
    pub fn new(listed: &[String], is_local: bool) -> anyhow::Result<Origins> {
        let mut origins = Origins { any: false, listed: Vec::new(), is_local };
        for given in listed {
            if given == "*" {
                origins.any = true;
                continue;
            }
            let origin = given.to_ascii_lowercase();
            if !can_be_listed(&origin) {
                bail!("--allow-origin {given} is no origin: give scheme://host[:port] without a path, or *");
            }
            origins.listed.push(origin);
        }
        Ok(origins)
    }

    /// The origin of the page that sent the request, if it is a page and is allowed.
    ///
    /// # Errors
    /// A page that is not allowed, or one that uses its own name for this machine.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Exception> {
        let text = |name: &HeaderName| headers.get(name).map(|it| String::from_utf8_lossy(it.as_bytes()));
        if let Some(host) = text(&header::HOST)
            && !self.is_allowed_host(&host.to_ascii_lowercase())
        {
            return Err(denied(&format!("pages that call this machine {host}"), &format!("http://{host}")));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let page = text(&header::ORIGIN).unwrap_or_default().to_ascii_lowercase();
            return match self.any || self.listed.contains(&page) || is_loopback(&page) {
                true => Ok(Some(origin.clone())),
                false => Err(denied(&format!("pages of {page}"), &page)),
            };
        }
        let is_cross_site = text(&SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
        if is_cross_site && !self.any {
            return Err(denied("pages of other sites", ""));
        }
        Ok(None)
    }

    fn is_allowed_host(&self, host: &str) -> bool {
        let name = without_port(host);
        // A name without a dot is not public.
        let is_own = !name.contains('.') || name.ends_with(".localhost") || is_address(name);
        let is_listed = || self.listed.iter().any(|origin| host_of(origin).is_some_and(|it| it == name));
        is_own || self.any || !self.is_local || is_listed()
    }
}

/// Lets the page at `origin` read an answer.
pub fn allow_reading(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Answers a preflight: lets the page send the request that it asks for.
pub fn allow_request(headers: &mut HeaderMap, preflight: &HeaderMap) {
    let wanted = preflight.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
}

fn denied(who: &str, origin: &str) -> Exception {
    let origin = if can_be_listed(origin) { origin } else { "'*'" };
    Exception::new(
        code::ACCESS_DENIED,
        format_args!("{who} may not use this server: start it with --allow-origin {origin} to let them"),
    )
}

fn can_be_listed(origin: &str) -> bool {
    let is_web = origin.starts_with("http://") || origin.starts_with("https://");
    is_web && host_of(origin).is_some()
}

/// Returns whether the page comes from this machine.
fn is_loopback(origin: &str) -> bool {
    let Some(name) = host_of(origin) else { return false };
    let is_address = || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    name == "localhost" || name.ends_with(".localhost") || is_address()
}

fn is_address(name: &str) -> bool {
    name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// The host of `scheme://host[:port]`, if it is that and nothing more.
fn host_of(origin: &str) -> Option<&str> {
    let (scheme, rest) = origin.split_once("://")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    let name = without_port(rest);
    let is_whole = !scheme.is_empty() && !name.is_empty() && rest.bytes().all(plain);
    is_whole.then_some(name)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(origins: &Origins, given: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let value = HeaderValue::from_str(value).expect("a header's value");
            headers.insert(HeaderName::from_static(name), value);
        }
        let page = origins.check(&headers).map_err(|exception| exception.code)?;
        Ok(page.map(|it| it.to_str().expect("plain text").to_owned()))
    }

    fn origins(listed: &[&str]) -> Origins {
        let listed: Vec<String> = listed.iter().map(|&it| it.to_owned()).collect();
        Origins::new(&listed, true).expect("are origins")
    }

    #[test]
    fn pages_of_this_machine_are_allowed_and_others_must_be_named() {
        let own = origins(&[]);
        for page in ["http://localhost:5173", "https://app.localhost", "http://127.0.0.1", "http://[::1]:80"]
        {
            assert_eq!(checked(&own, &[("origin", page)]), Ok(Some(page.to_owned())), "{page}");
        }
        for page in [
            "https://evil.example",
            "http://localhost.evil.example",
            "null",
            "file://",
            "http://127.0.0.1.nip.io",
        ] {
            assert_eq!(checked(&own, &[("origin", page)]), Err(497), "{page}");
        }
        let named = origins(&["https://App.example:8443"]);
        assert_eq!(
            checked(&named, &[("origin", "https://app.example:8443")]),
            Ok(Some("https://app.example:8443".to_owned()))
        );
        assert_eq!(checked(&named, &[("origin", "https://app.example")]), Err(497));
        assert_eq!(checked(&origins(&["*"]), &[("origin", "null")]), Ok(Some("null".to_owned())));
    }

    #[test]
    fn a_request_of_another_site_without_an_origin_is_refused() {
        assert_eq!(checked(&origins(&[]), &[("sec-fetch-site", "cross-site")]), Err(497));
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(checked(&origins(&[]), &[("sec-fetch-site", site)]), Ok(None), "{site}");
        }
        assert_eq!(checked(&origins(&["*"]), &[("sec-fetch-site", "cross-site")]), Ok(None));
    }

    #[test]
    fn a_page_cannot_use_its_own_name_for_this_machine() {
        let own = origins(&["http://app.example"]);
        for host in [
            "localhost:8123",
            "127.0.0.1:8123",
            "[::1]:8123",
            "[::1]",
            "db",
            "db:8123",
            "x.localhost",
            "app.example:8123",
        ] {
            assert_eq!(checked(&own, &[("host", host)]), Ok(None), "{host}");
        }
        assert_eq!(checked(&own, &[("host", "evil.example:8123")]), Err(497));
        // A server for other machines can have any name.
        let open = Origins::new(&[], false).expect("are origins");
        assert_eq!(checked(&open, &[("host", "db.example:8123")]), Ok(None));
    }

    #[test]
    fn a_text_that_is_no_origin_is_refused_at_the_start() {
        for given in
            ["app.example", "http://", "http://app.example/path", "ftp://app.example", "http://a b", ""]
        {
            assert!(Origins::new(&[given.to_owned()], true).is_err(), "{given:?}");
        }
    }
}
