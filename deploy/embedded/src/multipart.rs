//! Splits a body of `multipart/form-data` into its fields: clients send a query with bound parameters and
//! external tables that way.

use axum::body::{Body, Bytes};
use multer::Multipart;

use super::exception::{Exception, code};

/// Fields of one form. Each file takes a descriptor, and each setting is compared with each file.
const FIELDS_MAX: usize = 1_000;

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// A file: an external table's rows.
    pub is_file: bool,
    pub value: Bytes,
}

/// The boundary that a content type names; `None` if it is no form.
///
/// # Errors
/// A form without a boundary.
pub fn boundary(content_type: &str) -> Result<Option<String>, Exception> {
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    match multer::parse_boundary(content_type) {
        Ok(boundary) if !boundary.is_empty() => Ok(Some(boundary)),
        _ => Err(broken("its Content-Type names no boundary")),
    }
}

/// The fields, in order.
///
/// # Errors
/// A body that is not such a form, is cut short, or has too many fields.
pub async fn fields(body: Vec<u8>, boundary: &str) -> Result<Vec<Field>, Exception> {
    let mut form = Multipart::new(Body::from(body).into_data_stream(), boundary);
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        if fields.len() == FIELDS_MAX {
            return Err(broken(&format!("it has more than {FIELDS_MAX} fields")));
        }
        let name = field.name().ok_or_else(|| broken("a field has no name"))?.to_owned();
        let is_file = field.file_name().is_some();
        let value = field.bytes().await.map_err(unreadable)?;
        fields.push(Field { name, is_file, value });
    }
    Ok(fields)
}

fn unreadable(error: multer::Error) -> Exception {
    use multer::Error::{IncompleteFieldData, IncompleteHeaders, IncompleteStream};
    match error {
        IncompleteFieldData { .. } | IncompleteHeaders | IncompleteStream => {
            broken("it is cut short, or has another boundary than its Content-Type names")
        }
        error => broken(&error.to_string()),
    }
}

fn broken(why: &str) -> Exception {
    Exception::new(code::BAD_REQUEST_PARAMETER, format_args!("cannot read the form in the body: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_query_and_its_parameters() {
        let content_type = "multipart/form-data; boundary=\"aBc\"";
        let boundary = boundary(content_type).expect("is a form").expect("has a boundary");
        let body = b"--aBc\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {x:String}\r\n\
            --aBc\r\ncontent-disposition: form-data; name=\"param_x\"\r\nContent-Type: text/plain\r\n\r\n\
            a\r\n\r\n--b\r\n--aBc--\r\n";
        let found = fields(body.to_vec(), &boundary).await.expect("is whole");
        let names: Vec<(&str, bool)> =
            found.iter().map(|field| (field.name.as_str(), field.is_file)).collect();
        assert_eq!(names, [("query", false), ("param_x", false)]);
        assert_eq!(found[0].value, "SELECT {x:String}");
        assert_eq!(found[1].value, "a\r\n\r\n--b");
    }

    #[tokio::test]
    async fn another_content_type_is_no_form_and_a_cut_form_is_refused() {
        for content_type in ["", "text/plain", "no type at all", "multipart/mixed; boundary=a"] {
            assert_eq!(boundary(content_type).expect("is no form"), None, "{content_type}");
        }
        for content_type in ["multipart/form-data", "multipart/form-data; boundary="] {
            assert!(boundary(content_type).is_err(), "{content_type}");
        }
        let cut = b"--abc\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT 1";
        let refused = fields(cut.to_vec(), "abc").await.expect_err("is cut");
        assert!(refused.message.contains("it is cut short"), "{}", refused.message);
        assert!(fields(b"SELECT 1".to_vec(), "abc").await.is_err());
        assert!(fields(Vec::new(), "abc").await.is_err());
        let without_name = b"--abc\r\nContent-Type: text/plain\r\n\r\n1\r\n--abc--";
        assert!(
            fields(without_name.to_vec(), "abc")
                .await
                .expect_err("has no name")
                .message
                .contains("a field has no name")
        );
    }

    #[tokio::test]
    async fn a_file_is_distinguished_from_a_field() {
        let body =
            b"--abc\r\nContent-Disposition: form-data; name=\"t\"; filename=\"t.tsv\"\r\n\r\n1\n\r\n--abc--";
        assert!(fields(body.to_vec(), "abc").await.expect("is whole")[0].is_file);
    }

    #[tokio::test]
    async fn a_form_has_a_thousand_fields_at_most() {
        let form = |fields: usize| {
            let field = "--abc\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n";
            (field.repeat(fields) + "--abc--").into_bytes()
        };
        assert_eq!(fields(form(FIELDS_MAX), "abc").await.expect("fits").len(), FIELDS_MAX);
        let refused = fields(form(FIELDS_MAX + 1), "abc").await.expect_err("has too many");
        assert!(refused.message.contains("it has more than 1000 fields"), "{}", refused.message);
    }
}
