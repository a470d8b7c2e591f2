//! Syntax errors at a token, in the words of the engine.

use super::exception::{Exception, code};
use super::lexer::Token;

/// Refuses a token after a semicolon.
pub fn refuse_more(next: Option<Token>) -> Result<(), Exception> {
    match next {
        None => Ok(()),
        Some(token) => Err(Exception::new(
            code::SYNTAX_ERROR,
            format_args!(
                "Syntax error (Multi-statements are not allowed): failed at position {}: {}",
                token.at + 1,
                String::from_utf8_lossy(token.text)
            ),
        )),
    }
}

/// A syntax error at a token.
pub fn syntax_error(token: &Token, expected: &str) -> Exception {
    let text = String::from_utf8_lossy(token.text);
    let position = token.at + 1;
    Exception::new(
        code::SYNTAX_ERROR,
        format_args!("Syntax error: failed at position {position} ({text}): {text}. Expected {expected}"),
    )
}
