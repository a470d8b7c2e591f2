//! What a browser is told about pages of other origins. It decides from the origin and the tokens' lists; the answer's body
//! is somebody else's.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What pages may send.
const ALLOWED_HEADERS: &str =
    "Content-Type, Authorization, X-API-Key, If-None-Match, Last-Event-ID, X-Splitstream-Exposure";
/// What pages may read besides the body.
const EXPOSED_HEADERS: &str = "ETag, Retry-After, X-Splitstream-Stale, X-Splitstream-Version";
const ALLOWED_METHODS: &str = "GET, POST, OPTIONS";
/// Seconds for which a browser may remember a preflight. Two hours is what the browsers bound it to.
const PREFLIGHT_AGE_S: &str = "7200";

/// The origin of the page that asks.
pub fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN)?.to_str().ok()
}

/// Adds what lets a page of this origin read the answer. A page may have shown its token as a cookie.
pub fn allow(headers: &mut HeaderMap, origin: &str) {
    let Ok(origin) = HeaderValue::from_str(origin) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    insert(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
}

/// Adds the answer to a preflight.
pub fn allow_preflight(headers: &mut HeaderMap, origin: &str) {
    allow(headers, origin);
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    insert(headers, header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE_S);
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
