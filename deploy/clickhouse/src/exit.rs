//! The exit code that an error of the client asks for, the same in every command.

use std::error::Error as Cause;

use clickhouse::error::Error;
use ops::Exit;

/// ClickHouse refuses the login (`AUTHENTICATION_FAILED`).
const LOGIN_REFUSED: &str = "Code: 516.";
/// There is no such table, or no such database: the tables have not been made.
const NO_TABLES: [&str; 2] = ["Code: 60.", "Code: 81."];

/// Of one cause of an error; `None` if it is not the client's, or asks for none.
pub fn exit_of(cause: &(dyn Cause + 'static)) -> Option<Exit> {
    match cause.downcast_ref::<Error>()? {
        Error::Network(_) | Error::TimedOut => Some(Exit::Unreachable),
        Error::BadResponse(text) if text.starts_with(LOGIN_REFUSED) => Some(Exit::InvalidInput),
        error if tables_are_missing(error) => Some(Exit::Unreachable),
        _ => None,
    }
}

/// Whether the server says that there are no such tables: they are to be made.
pub fn tables_are_missing(error: &Error) -> bool {
    matches!(error, Error::BadResponse(text) if NO_TABLES.iter().any(|code| text.starts_with(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(text: &str) -> Option<Exit> {
        exit_of(&Error::BadResponse(text.to_owned()))
    }

    #[test]
    fn what_an_operator_can_mend_is_told_apart() {
        assert_eq!(exit_of(&Error::TimedOut), Some(Exit::Unreachable));
        assert_eq!(
            asked_for("Code: 516. DB::Exception: default: Authentication failed"),
            Some(Exit::InvalidInput)
        );
        assert_eq!(asked_for("Code: 81. DB::Exception: Database x does not exist"), Some(Exit::Unreachable));
        assert_eq!(asked_for("Code: 60. DB::Exception: Unknown table"), Some(Exit::Unreachable));
        assert_eq!(asked_for("Code: 62. DB::Exception: Syntax error"), None);
        assert_eq!(exit_of(&std::fmt::Error), None);
    }
}
