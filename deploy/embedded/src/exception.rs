//! ClickHouse's errors: a numeric code, a message, and the HTTP status of the code. Parses the engine's error
//! text and formats the text that a server sends. Knows nothing of connections.

use std::fmt;

/// The codes that this server raises or handles; names and numbers are ClickHouse's.
pub mod code {
    pub const CANNOT_READ_ALL_DATA: u16 = 33;
    pub const BAD_ARGUMENTS: u16 = 36;
    pub const TOO_LARGE_SIZE_COMPRESSED: u16 = 39;
    pub const CHECKSUM_DOESNT_MATCH: u16 = 40;
    pub const NOT_IMPLEMENTED: u16 = 48;
    pub const LOGICAL_ERROR: u16 = 49;
    pub const SYNTAX_ERROR: u16 = 62;
    pub const CANNOT_WRITE_TO_FILE_DESCRIPTOR: u16 = 75;
    pub const CANNOT_OPEN_FILE: u16 = 76;
    pub const UNKNOWN_FORMAT: u16 = 73;
    pub const UNKNOWN_TYPE_OF_QUERY: u16 = 78;
    pub const UNKNOWN_COMPRESSION_METHOD: u16 = 89;
    pub const READONLY: u16 = 164;
    pub const TOO_MANY_SIMULTANEOUS_QUERIES: u16 = 202;
    pub const SOCKET_TIMEOUT: u16 = 209;
    pub const NETWORK_ERROR: u16 = 210;
    pub const QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: u16 = 216;
    pub const QUERY_IS_TOO_LARGE: u16 = 229;
    pub const ABORTED: u16 = 236;
    pub const NOT_ENOUGH_SPACE: u16 = 243;
    pub const CANNOT_DECOMPRESS: u16 = 271;
    pub const DATABASE_ACCESS_DENIED: u16 = 291;
    pub const INTO_OUTFILE_NOT_ALLOWED: u16 = 358;
    pub const SESSION_NOT_FOUND: u16 = 372;
    pub const SESSION_IS_LOCKED: u16 = 373;
    pub const INVALID_SESSION_TIMEOUT: u16 = 374;
    pub const QUERY_WAS_CANCELLED: u16 = 394;
    pub const TOO_MANY_ROWS_OR_BYTES: u16 = 396;
    pub const BAD_REQUEST_PARAMETER: u16 = 408;
    pub const ACCESS_DENIED: u16 = 497;
    pub const AUTHENTICATION_FAILED: u16 = 516;
}

/// An error as ClickHouse reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    pub code: u16,
    /// What went wrong, with the code's name in parentheses at its end.
    pub message: String,
}

impl Exception {
    /// An exception that this server itself raises.
    pub fn new(code: u16, message: impl fmt::Display) -> Exception {
        Exception { code, message: format!("{message}. ({})", name(code)) }
    }

    /// Parses `Code: 62. DB::Exception: <message>. (SYNTAX_ERROR)`. The client part of the engine wraps an
    /// error of its server part; the inner error is the one that a server would send.
    pub fn from_engine(text: &str) -> Exception {
        let Some((code, mut message)) = split_code(text) else {
            return Exception::new(code::LOGICAL_ERROR, text.trim_end().trim_end_matches('.'));
        };
        if let Some((_, inner)) = split_code(message) {
            message = inner.rsplit_once(" (version ").map_or(inner, |(before, _)| before);
        }
        // The client sent a body, and does not know that the engine reads it as a file.
        let mut message = message.replace(": data for INSERT was parsed from file", "");
        if let Some(from) = message.find(" (in file/uri ")
            && let Some(length) = message[from..].find(')')
        {
            message.replace_range(from..from + length + 1, "");
        }
        let message =
            message.replace(": While executing File", "").replace(":: While executing", ": While executing");
        Exception { code, message: message.trim_end().to_owned() }
    }

    /// Returns whether the engine refused to stream the query, since it is no SELECT. The query has not been
    /// run.
    pub fn refuses_streaming(&self) -> bool {
        self.code == code::BAD_ARGUMENTS
            && self.message.starts_with("Streaming query is not supported for query")
    }

    /// Subtracts `bytes` from the positions in the message: the engine got as many bytes before the client's
    /// text.
    pub fn shift_position_back(mut self, bytes: usize) -> Exception {
        for before in ["failed at position ", "(line 1, col "] {
            let Some(start) = self.message.find(before).map(|at| at + before.len()) else { continue };
            let digits = self.message[start..].bytes().take_while(u8::is_ascii_digit).count();
            let place = self.message[start..start + digits].parse::<usize>().ok();
            if let Some(place) = place.and_then(|place| place.checked_sub(bytes)) {
                self.message.replace_range(start..start + digits, &place.to_string());
            }
        }
        self
    }

    /// The text of the response's body, without a line end.
    pub fn text(&self, version: &str) -> String {
        format!("Code: {}. DB::Exception: {} (version {version} (official build))", self.code, self.message)
    }

    /// The HTTP status that ClickHouse maps the code to. Unlike ClickHouse, the limits of this server get
    /// 503, since the client may try again.
    pub fn status(&self) -> u16 {
        match self.code {
            194 => 401,
            192 | 193 | code::ACCESS_DENIED | 512 | code::AUTHENTICATION_FAILED => 403,
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167 | 168
            | 223 | 321 | 376 | 427 | 441 | 675 | 676 => 400,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | code::SESSION_NOT_FOUND | 511 => {
                404
            }
            code::QUERY_IS_TOO_LARGE => 413,
            code::NOT_IMPLEMENTED => 501,
            159 => 408,
            381 => 411,
            code::CANNOT_OPEN_FILE | 439 | code::SOCKET_TIMEOUT | code::TOO_MANY_SIMULTANEOUS_QUERIES => 503,
            _ => 500,
        }
    }
}

/// Splits `Code: N. DB::Exception: rest` (or another exception class) into N and the rest.
fn split_code(text: &str) -> Option<(u16, &str)> {
    let (number, rest) = text.strip_prefix("Code: ")?.split_once(". ")?;
    let (_class, message) = rest.split_once("Exception: ")?;
    Some((number.parse().ok()?, message))
}

fn name(code: u16) -> &'static str {
    match code {
        code::CANNOT_READ_ALL_DATA => "CANNOT_READ_ALL_DATA",
        code::BAD_ARGUMENTS => "BAD_ARGUMENTS",
        code::TOO_LARGE_SIZE_COMPRESSED => "TOO_LARGE_SIZE_COMPRESSED",
        code::CHECKSUM_DOESNT_MATCH => "CHECKSUM_DOESNT_MATCH",
        code::NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
        code::SYNTAX_ERROR => "SYNTAX_ERROR",
        code::CANNOT_WRITE_TO_FILE_DESCRIPTOR => "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
        code::UNKNOWN_FORMAT => "UNKNOWN_FORMAT",
        code::UNKNOWN_TYPE_OF_QUERY => "UNKNOWN_TYPE_OF_QUERY",
        code::UNKNOWN_COMPRESSION_METHOD => "UNKNOWN_COMPRESSION_METHOD",
        code::READONLY => "READONLY",
        code::TOO_MANY_SIMULTANEOUS_QUERIES => "TOO_MANY_SIMULTANEOUS_QUERIES",
        code::SOCKET_TIMEOUT => "SOCKET_TIMEOUT",
        code::NETWORK_ERROR => "NETWORK_ERROR",
        code::QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING => "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
        code::QUERY_IS_TOO_LARGE => "QUERY_IS_TOO_LARGE",
        code::ABORTED => "ABORTED",
        code::NOT_ENOUGH_SPACE => "NOT_ENOUGH_SPACE",
        code::CANNOT_DECOMPRESS => "CANNOT_DECOMPRESS",
        code::DATABASE_ACCESS_DENIED => "DATABASE_ACCESS_DENIED",
        code::INTO_OUTFILE_NOT_ALLOWED => "INTO_OUTFILE_NOT_ALLOWED",
        code::SESSION_NOT_FOUND => "SESSION_NOT_FOUND",
        code::SESSION_IS_LOCKED => "SESSION_IS_LOCKED",
        code::INVALID_SESSION_TIMEOUT => "INVALID_SESSION_TIMEOUT",
        code::QUERY_WAS_CANCELLED => "QUERY_WAS_CANCELLED",
        code::BAD_REQUEST_PARAMETER => "BAD_REQUEST_PARAMETER",
        code::ACCESS_DENIED => "ACCESS_DENIED",
        code::AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
        _ => "LOGICAL_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_text_is_parsed() {
        let read =
            Exception::from_engine("Code: 395. DB::Exception: boom: while executing 'f(1)'. (THROW_IF)");
        assert_eq!(
            read,
            Exception { code: 395, message: "boom: while executing 'f(1)'. (THROW_IF)".to_owned() }
        );
        assert_eq!(
            read.text("26.5.1.1"),
            "Code: 395. DB::Exception: boom: while executing 'f(1)'. (THROW_IF) (version 26.5.1.1 (official build))"
        );
    }

    #[test]
    fn the_client_parts_wrapping_is_removed() {
        let read = Exception::from_engine(
            "Code: 33. DB::Exception: Code: 33. DB::Exception: Cannot read all data in NativeReader. Rows read: 1. \
             Rows expected: 2: (in file/uri /proc/self/fd/9): While executing Native: While executing File: data \
             for INSERT was parsed from file. (CANNOT_READ_ALL_DATA) (version 26.5.1.1). (CANNOT_READ_ALL_DATA)",
        );
        assert_eq!(read.code, 33);
        assert_eq!(
            read.message,
            "Cannot read all data in NativeReader. Rows read: 1. Rows expected: 2: While executing Native. \
             (CANNOT_READ_ALL_DATA)"
        );
    }

    #[test]
    fn positions_are_shifted_back() {
        let shifted = |message: &str| {
            Exception { code: 62, message: message.to_owned() }.shift_position_back(12).message
        };
        assert_eq!(
            shifted("Syntax error: failed at position 13 (SELEC): SELEC 13"),
            "Syntax error: failed at position 1 (SELEC): SELEC 13"
        );
        assert_eq!(
            shifted("failed at position 20 (b) (line 1, col 20): b"),
            "failed at position 8 (b) (line 1, col 8): b"
        );
        assert_eq!(
            shifted("failed at position 20 (b) (line 2, col 1): b"),
            "failed at position 8 (b) (line 2, col 1): b"
        );
        assert_eq!(shifted("Max query size exceeded"), "Max query size exceeded");
    }

    #[test]
    fn text_without_a_code_is_kept() {
        let read = Exception::from_engine("No active streaming query");
        assert_eq!(
            read,
            Exception { code: 49, message: "No active streaming query. (LOGICAL_ERROR)".to_owned() }
        );
    }

    #[test]
    fn statuses_are_clickhouses() {
        let status = |code| Exception { code, message: String::new() }.status();
        assert_eq!(
            [194, 516, 62, 115, 60, 229, 48, 159, 202, 241, 372, 497].map(status),
            [401, 403, 400, 404, 404, 413, 501, 408, 503, 500, 404, 403]
        );
    }
}
