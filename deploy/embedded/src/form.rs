//! A body of `multipart/form-data` taken apart: clients send a query with bound parameters that way.

use super::exception::{Exception, code};

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Field<'body> {
    pub name: String,
    /// A file: an external table's rows.
    pub is_file: bool,
    pub value: &'body [u8],
}

/// The boundary that a content type names; `None` if it is no form.
///
/// # Errors
/// A form without a boundary.
pub fn boundary(content_type: &str) -> Result<Option<String>, Exception> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
        return Ok(None);
    }
    let boundary = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    });
    match boundary {
        Some(boundary) if !boundary.is_empty() => Ok(Some(boundary)),
        _ => Err(broken("its Content-Type names no boundary")),
    }
}

/// The fields, in order.
///
/// # Errors
/// A body that is not such a form, or one that is cut short.
pub fn fields<'body>(body: &'body [u8], boundary: &str) -> Result<Vec<Field<'body>>, Exception> {
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut fields = Vec::new();
    let begins = find(body, opening.as_bytes()).ok_or_else(|| broken("its boundary does not occur"))?;
    let mut rest = &body[begins + opening.len()..];
    // Behind a boundary: two hyphens at the end of the form, a line end before a field.
    while !rest.starts_with(b"--") {
        let head = find(rest, b"\r\n").ok_or_else(|| broken("it is cut short"))? + 2;
        let value = find(rest, b"\r\n\r\n").ok_or_else(|| broken("a field has no head"))? + 4;
        let end =
            value + find(&rest[value..], between.as_bytes()).ok_or_else(|| broken("it is cut short"))?;
        // A field without any header has its value right behind the line end.
        let headers = std::str::from_utf8(&rest[head.min(value)..value])
            .map_err(|_| broken("a field's head is not UTF-8"))?;
        let disposition = headers
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
            })
            .ok_or_else(|| broken("a field has no Content-Disposition"))?;
        fields.push(Field {
            name: attribute(disposition, "name").ok_or_else(|| broken("a field has no name"))?,
            is_file: attribute(disposition, "filename").is_some(),
            value: &rest[value..end],
        });
        rest = &rest[end + between.len()..];
    }
    Ok(fields)
}

fn attribute(disposition: &str, wanted: &str) -> Option<String> {
    disposition.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        (name == wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn broken(why: &str) -> Exception {
    Exception::new(code::BAD_REQUEST_PARAMETER, format_args!("cannot read the form in the body: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_and_its_parameters() {
        let content_type = "multipart/form-data; boundary=\"abc\"";
        let boundary = boundary(content_type).expect("is a form").expect("has a boundary");
        let body = b"--abc\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {x:String}\r\n\
            --abc\r\ncontent-disposition: form-data; name=\"param_x\"\r\nContent-Type: text/plain\r\n\r\n\
            a\r\n\r\n--b\r\n--abc--\r\n";
        let found = fields(body, &boundary).expect("is whole");
        let names: Vec<(&str, bool)> =
            found.iter().map(|field| (field.name.as_str(), field.is_file)).collect();
        assert_eq!(names, [("query", false), ("param_x", false)]);
        assert_eq!(found[0].value, b"SELECT {x:String}");
        assert_eq!(found[1].value, b"a\r\n\r\n--b");
    }

    #[test]
    fn what_is_no_form_is_none_and_what_is_cut_is_refused() {
        assert_eq!(boundary("text/plain").expect("is no form"), None);
        assert!(boundary("multipart/form-data").is_err());
        let cut = b"--abc\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT 1";
        assert!(fields(cut, "abc").expect_err("is cut").message.contains("it is cut short"));
        assert!(fields(b"SELECT 1", "abc").is_err());
    }

    #[test]
    fn a_file_is_told_from_a_field() {
        let body =
            b"--abc\r\nContent-Disposition: form-data; name=\"t\"; filename=\"t.tsv\"\r\n\r\n1\n\r\n--abc--";
        assert!(fields(body, "abc").expect("is whole")[0].is_file);
    }
}
