//! Reads one header of a request. It does not know what the headers mean.

use axum::http::HeaderMap;

use super::exception::{Exception, code};

/// The text of a header; `None` if it is missing or empty.
pub fn header<'headers>(
    headers: &'headers HeaderMap,
    name: &str,
) -> Result<Option<&'headers str>, Exception> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok("") => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Exception::new(
                code::BAD_REQUEST_PARAMETER,
                format_args!("the header {name} is not plain text"),
            )),
        },
    }
}
