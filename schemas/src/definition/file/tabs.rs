//! Tabs. Behind a colon YAML 1.2 takes one for a space (6.2, separation spaces), the parser for an error where a
//! word follows. As indentation it is none (6.1), and the error says so where the tab is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

const TAB_BEHIND_COLON: &str = ":\t";
const SPACE_BEHIND_COLON: &str = ": ";

/// The text with a space for each tab directly behind a colon, but for those inside of texts. Lines and columns
/// stay what they are.
pub fn separated(text: &str) -> Cow<'_, str> {
    if !text.contains(TAB_BEHIND_COLON) {
        return Cow::Borrowed(text);
    }
    // Inside of a text a blank ends nothing, whichever it is: the texts lie where they lie with the tabs.
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

/// Where texts in quotes and in blocks lie, from their first character to the one behind their last. What
/// follows an error does not matter: the file is refused for it.
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

/// What an indentation with a tab is refused with.
pub const NO_INDENTATION: &str = "a tab is no indentation; use spaces";

/// Where the error is about a tab, the line of the first one that stands for indentation, from 1. The parser
/// tells the line on which the value before it begins.
pub fn first_indentation(text: &str, error: &ScanError) -> Option<usize> {
    if !error.info().contains("tab") {
        return None;
    }
    Indented::by_tabs(text).0.into_keys().find(|line| *line >= error.marker().line())
}

/// The lines that begin with blanks, a tab among them, and something behind. Inside of braces and brackets that is
/// no indentation, and inside of texts neither.
pub struct Indented(BTreeMap<usize, Content>);

struct Content {
    /// In characters, from 0.
    column: usize,
    is_dash: bool,
}

impl Indented {
    pub fn by_tabs(text: &str) -> Indented {
        let mut lines = BTreeMap::new();
        // As the parser counts them.
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

    /// Whether what begins there is the first on such a line.
    pub fn begins(&self, at: &Marker) -> bool {
        self.0.get(&at.line()).is_some_and(|content| content.column == at.col())
    }

    /// Whether what begins there is an entry of a list whose dash is the first on such a line.
    pub fn is_entry(&self, at: &Marker) -> bool {
        self.0.get(&at.line()).is_some_and(|content| content.is_dash && content.column < at.col())
    }
}
