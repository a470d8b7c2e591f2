//! Reads YAML as a tree in which every value has its line. Only what JSON can express is accepted: tags,
//! anchors and aliases are refused. Values that nest too deep are refused before any recursion into them.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::Value;

use super::tabs::{Indented, NO_INDENTATION};
use crate::number::{self, NumberError};

/// How deep a file may nest; far above any definition.
const DEPTH_MAX: usize = 64;

pub struct Node {
    /// Counted from 1.
    pub line: usize,
    pub content: Content,
}

pub enum Content {
    /// Text, a number, true, false or null.
    Scalar(Value),
    List(Vec<Node>),
    /// The entries in the order of the file; a name may occur twice.
    Map(Vec<Entry>),
    /// A value that a definition cannot have, and why.
    Refused(String),
}

pub struct Entry {
    /// The line of the name.
    pub line: usize,
    pub name: String,
    pub value: Node,
}

/// Reads the documents of the text. The error is the first place that is not YAML.
pub fn documents(text: &str) -> Result<Vec<Node>, ScanError> {
    let mut reader = Reader { parser: Parser::new_from_str(text), by_tabs: Indented::by_tabs(text) };
    let mut documents = Vec::new();
    while let Some(event) = reader.parser.next_event() {
        let (event, span) = event?;
        if matches!(
            event,
            Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd
        ) {
            continue;
        }
        documents.push(reader.node(event, span, 0)?);
    }
    Ok(documents)
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    by_tabs: Indented,
}

impl<'text> Reader<'text> {
    /// Reads the node that `event` opens, including its end. Recursion ends at `DEPTH_MAX`.
    fn node(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Node, ScanError> {
        let line = span.start.line();
        if let Some(why) = refusal(&event, depth) {
            self.skip(&event)?;
            return Ok(Node { line, content: Content::Refused(why) });
        }
        let content = match event {
            Event::Scalar(text, style, ..) => match scalar(&text, style) {
                Ok(value) => Content::Scalar(value),
                Err(why) => Content::Refused(why),
            },
            Event::SequenceStart(..) => Content::List(self.list(depth)?),
            Event::MappingStart(..) => Content::Map(self.map(span, depth)?),
            event => unreachable!("{event:?} opens no node"),
        };
        Ok(Node { line, content })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, ScanError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (_, span) if self.by_tabs.is_entry(&span.start) => return Err(indented(span)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    /// Reads the map that the event at `start` opened.
    fn map(&mut self, start: Span, depth: usize) -> Result<Vec<Entry>, ScanError> {
        let mut entries = Vec::new();
        // Without braces a map begins with its first name.
        let mut by_indentation = false;
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                name => name,
            };
            by_indentation |= span.start.index() == start.start.index();
            if by_indentation && self.by_tabs.begins(&span.start) {
                return Err(indented(span));
            }
            let name = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            entries.push(entry(name, self.node(event, span, depth + 1)?));
        }
    }

    /// Skips the node that `event` opened.
    fn skip(&mut self, event: &Event<'text>) -> Result<(), ScanError> {
        let mut open = usize::from(matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)));
        while open > 0 {
            match self.next()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => open += 1,
                Event::SequenceEnd | Event::MappingEnd => open -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), ScanError> {
        let event = self.parser.next_event();
        event.expect("the stream ends after every list and map in it has ended, or with an error")
    }
}

fn indented(span: Span) -> ScanError {
    ScanError::new_str(span.start, NO_INDENTATION)
}

fn refusal(event: &Event<'_>, depth: usize) -> Option<String> {
    let (anchor, tag, nests) = match event {
        Event::Scalar(_, _, anchor, tag) => (*anchor, tag, false),
        Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag, true),
        Event::Alias(_) => {
            return Some("aliases are not used in definitions; write the value out".to_owned());
        }
        _ => return None,
    };
    // Anchors are numbered from 1.
    if anchor > 0 {
        Some("anchors are not used in definitions; write the value out where it is needed".to_owned())
    } else if tag.is_some() {
        Some("tags are not used in definitions; leave it out".to_owned())
    } else if nests && depth >= DEPTH_MAX {
        Some(format!("nests deeper than {DEPTH_MAX}"))
    } else {
        None
    }
}

fn entry(name: Node, value: Node) -> Entry {
    let line = name.line;
    let (name, why) = match name.content {
        Content::Scalar(Value::String(name)) => return Entry { line, name, value },
        Content::Scalar(name) => (name.to_string(), "a name must be text; put it in quotes".to_owned()),
        Content::List(_) | Content::Map(_) => ("?".to_owned(), "a name must be text".to_owned()),
        Content::Refused(why) => ("?".to_owned(), why),
    };
    Entry { line, name, value: Node { line, content: Content::Refused(why) } }
}

/// Reads a scalar by the core schema of YAML 1.2 (10.3.2): `yes`, `no`, `on` and `off` are text. A number
/// keeps its value or is refused.
fn scalar(text: &str, style: ScalarStyle) -> Result<Value, String> {
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|digit| digit.is_digit(radix))
        {
            return u64::from_str_radix(digits, radix)
                .map(Value::from)
                .map_err(|_| NumberError::TooLarge(text.to_owned()).to_string());
        }
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&unsigned) {
        return Err(format!("`{text}` is not a finite number"));
    }
    match number::read(text) {
        Ok(number) => Ok(Value::Number(number)),
        Err(NumberError::NotANumber(_)) => Ok(Value::String(text.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}
