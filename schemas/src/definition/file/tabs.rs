//! Tabs in YAML. After a colon, YAML 1.2 reads a tab as a space (6.2, separation spaces), but the parser
//! reports an error if a word follows. A tab is not allowed as indentation (6.1); this error has the line of
//! the tab.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

const TAB_BEHIND_COLON: &str = ":\t";
const SPACE_BEHIND_COLON: &str = ": ";

/// Replaces each tab directly after a colon with a space, except inside quoted texts and blocks. Lines and
/// columns do not change.
pub fn separated(text: &str) -> Cow<'_, str> {
    if !text.contains(TAB_BEHIND_COLON) {
        return Cow::Borrowed(text);
    }
    // A tab and a space inside a text are both part of it, so the texts have the same positions as with the
    // tabs.
    let blindly = text.replace(TAB_BEHIND_COLON, SPACE_BEHIND_COLON);
    let kept = texts(&blindly);
    let mut kept = kept.iter().peekable();
    let mut separated = String::with_capacity(text.len());
    let mut before = ' ';
    for (index, character) in text.chars().enumerate() {
        while kept.next_if(|(_, end)| *end <= index).is_some() {}
        let inside = kept.peek().is_some_and(|(start, _)| *start <= index);
        let replaced = character == '\t' && before == ':' && !inside;
        separated.push(if replaced { ' ' } else { character });
        before = character;
    }
    Cow::Owned(separated)
}

/// Returns the positions of the texts in quotes and in blocks, each from its first character to the one after
/// its last. What follows an error does not matter: the file is refused because of it.
fn texts(text: &str) -> Vec<(usize, usize)> {
    let mut parser = Parser::new_from_str(text);
    let mut texts = Vec::new();
    while let Some(Ok((event, span))) = parser.next_event() {
        if let Event::Scalar(_, style, ..) = event
            && style != ScalarStyle::Plain
        {
            texts.push((span.start.index(), span.end.index()));
        }
    }
    texts
}

/// The error for an indentation with a tab.
pub const NO_INDENTATION: &str = "a tab is no indentation; use spaces";

/// If the error is about a tab, returns the line of the first tab that is used as indentation, from 1. The
/// parser reports the line on which the value before it begins.
pub fn first_indentation(text: &str, error: &ScanError) -> Option<usize> {
    if !error.info().contains("tab") {
        return None;
    }
    Indented::by_tabs(text).0.into_keys().find(|line| *line >= error.marker().line())
}

/// The lines that begin with blanks, at least one of them a tab, and then have content. Inside braces,
/// brackets and texts such blanks are not indentation.
pub struct Indented(BTreeMap<usize, Content>);

struct Content {
    /// In characters, from 0.
    column: usize,
    is_dash: bool,
}

impl Indented {
    pub fn by_tabs(text: &str) -> Indented {
        let mut lines = BTreeMap::new();
        // Lines are counted as the parser counts them.
        for (index, line) in text.replace("\r\n", "\n").split(['\n', '\r']).enumerate() {
            let content = line.trim_start_matches([' ', '\t']);
            let blanks = &line[..line.len() - content.len()];
            if blanks.contains('\t') && !content.is_empty() {
                let is_dash = content == "-" || content.starts_with("- ") || content.starts_with("-\t");
                lines.insert(index + 1, Content { column: blanks.len(), is_dash });
            }
        }
        Indented(lines)
    }

    /// Returns whether `at` is where the content of such a line begins.
    pub fn begins(&self, at: &Marker) -> bool {
        self.0.get(&at.line()).is_some_and(|content| content.column == at.col())
    }

    /// Returns whether `at` is an entry of a list whose dash is the first content of such a line.
    pub fn is_entry(&self, at: &Marker) -> bool {
        self.0.get(&at.line()).is_some_and(|content| content.is_dash && content.column < at.col())
    }
}
