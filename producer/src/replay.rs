//! Reads events, with their own ids and times, from lines of JSON. A line is an event or the reason why it is
//! none. Versions that a line leaves out are filled in from the current definitions. An exposure from a file
//! keeps all its attributes, cut to their bounds.

use std::io::{self, BufRead};

use schemas::definition::Definitions;
use schemas::{Event, Exposure};
use serde::Deserialize;

use crate::text;

/// The longest line in bytes, line end included. Valid events are much shorter.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The lines of a file, one at a time in a buffer of bounded size.
pub struct Lines<R> {
    reader: R,
    number: u64,
    buffer: Vec<u8>,
}

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line number, from 1.
    pub number: u64,
    /// The text without the line end; an error if the line is longer than [`LINE_BYTES_MAX`].
    pub text: Result<&'a [u8], TooLong>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("longer than {LINE_BYTES_MAX} bytes")]
pub struct TooLong;

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, number: 0, buffer: Vec::new() }
    }

    /// Reads the next line that is not blank, without a byte order mark at its beginning: concatenated files
    /// have such marks at later lines too.
    ///
    /// # Errors
    /// If reading fails, or the first line shows that the file is in another encoding.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let text = loop {
            self.buffer.clear();
            let length = read_line(&mut self.reader, &mut self.buffer)?;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 {
                text::check_encoding(&self.buffer)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            if length > LINE_BYTES_MAX {
                break Err(TooLong);
            }
            if !without_mark(&self.buffer).is_empty() {
                break Ok(without_mark(&self.buffer));
            }
        };
        Ok(Some(Line { number: self.number, text }))
    }
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(text::BYTE_ORDER_MARK).unwrap_or(line).trim_ascii()
}

/// Reads up to and including the next line end and returns the number of bytes read; `buffer` gets at most
/// [`LINE_BYTES_MAX`] of them.
fn read_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(length);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(available.len(), |at| at + 1);
        let room = LINE_BYTES_MAX.saturating_sub(buffer.len()).min(taken);
        buffer.extend_from_slice(&available[..room]);
        reader.consume(taken);
        length += taken;
        if end.is_some() {
            return Ok(length);
        }
    }
}

/// Reads the event of a line.
///
/// # Errors
/// The reason why the line is no event; it names the field.
pub fn event(line: &[u8], definitions: &Definitions) -> Result<Event<'static>, String> {
    let mut event: Event<'static> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if let Event::Exposure(exposure) = &mut event
        && exposure.definition_version == 0
    {
        fill_version(exposure, line, definitions)?;
    }
    event.fit_attributes();
    event.check().map_err(|problem| problem.to_string())?;
    Ok(event)
}

/// Gives an exposure without a definition version the current one, which must have its variant. Such an
/// exposure also gets the current configuration version and phase, unless it names its own.
fn fill_version(exposure: &mut Exposure<'_>, line: &[u8], definitions: &Definitions) -> Result<(), String> {
    let key = &exposure.experiment;
    let Some((version, experiment)) = definitions.experiment(key) else {
        return Err(format!(
            "experiment: `{key}` is not defined; apply its definition, or give definition_version"
        ));
    };
    if !experiment.variants.iter().any(|variant| variant.key.as_str() == exposure.variant) {
        let known: Vec<&str> = experiment.variants.iter().map(|variant| variant.key.as_str()).collect();
        return Err(format!("variant: `{}` is none of `{key}`'s: {}", exposure.variant, known.join(", ")));
    }
    exposure.definition_version = version;
    if exposure.configuration_version == 0 {
        exposure.configuration_version = definitions.version();
    }
    if exposure.phase != experiment.phase() && !gives_phase(line) {
        exposure.phase = experiment.phase();
    }
    Ok(())
}

/// Returns whether the line has a phase; a missing phase is deserialized as 1.
fn gives_phase(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Given {
        phase: Option<u32>,
    }
    serde_json::from_slice::<Given>(line).is_ok_and(|given| given.phase.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use schemas::event::CUT_MARK;

    fn definitions() -> Definitions {
        let text = r#"
{kind: metric, key: click, event: click, type: conversion}
---
{kind: experiment, key: e, assignment: external, state: running, control: a,
 variants: [{key: a, weight: 5000}, {key: b, weight: 5000}], metrics: {primary: click}}
---
{kind: layer, key: main}
"#;
        samples::definitions(text)
    }

    fn exposure(more: &str) -> Vec<u8> {
        format!(
            r#"{{"type": "exposure", "event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e",
                "variant": "a", "unit_type": "user", "unit_id": "u1", "created_at": "2019-11-24T00:00:17.004101Z"
                {more}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn the_current_version_is_filled_in_and_a_given_one_stays() {
        let definitions = definitions();
        let version_of = |line: &[u8]| match event(line, &definitions).unwrap() {
            Event::Exposure(exposure) => {
                (exposure.definition_version, exposure.configuration_version, exposure.phase)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(version_of(&exposure("")), (2, 3, 1));
        assert_eq!(version_of(&exposure(r#", "definition_version": 0"#)), (2, 3, 1));
        assert_eq!(version_of(&exposure(r#", "phase": 3"#)), (2, 3, 3));
        assert_eq!(version_of(&exposure(r#", "configuration_version": 8"#)), (2, 8, 1));
        // A line with its own definition version and no configuration version keeps 0.
        assert_eq!(version_of(&exposure(r#", "definition_version": 9, "phase": 4"#)), (9, 0, 4));
    }

    #[test]
    fn all_attributes_of_a_line_are_kept_and_long_ones_are_cut() {
        let more = format!(r#", "attributes": {{"user_feature_0": "x", "note": "{}"}}"#, "n".repeat(1_025));
        let Event::Exposure(read) = event(&exposure(&more), &definitions()).unwrap() else {
            panic!("an exposure")
        };
        let cut = ["n".repeat(1_016).as_str(), CUT_MARK].concat();
        assert_eq!(
            read.attributes.iter().collect::<Vec<_>>(),
            [("user_feature_0", "x"), ("note", cut.as_str())]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let definitions = definitions();
        let wrong = |line: &[u8]| event(line, &definitions).unwrap_err();
        let with =
            |from: &str, to: &str| String::from_utf8(exposure("")).unwrap().replace(from, to).into_bytes();
        assert_eq!(
            wrong(&with(r#""experiment": "e""#, r#""experiment": "f""#)),
            "experiment: `f` is not defined; apply its definition, or give definition_version"
        );
        assert_eq!(
            wrong(&with(r#""variant": "a""#, r#""variant": "c""#)),
            "variant: `c` is none of `e`'s: a, b"
        );
        assert_eq!(
            wrong(&exposure(r#", "environment": "no t""#)),
            "environment: `no t` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -"
        );
        assert!(wrong(&exposure(r#", "colour": "red""#)).starts_with("unknown field `colour`"));
        assert_eq!(wrong(b"{"), "EOF while parsing an object at line 1 column 1");
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_are_skipped() {
        let text = b"one\n\n  \r\ntwo\r\nthree";
        let mut lines = Lines::new(io::BufReader::with_capacity(3, &text[..]));
        let mut read = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            read.push((line.number, line.text.unwrap().to_vec()));
        }
        assert_eq!(read, [(1, b"one".to_vec()), (4, b"two".to_vec()), (5, b"three".to_vec())]);
    }

    /// Windows tools write such marks; the first event was once left out.
    #[test]
    fn a_byte_order_mark_is_no_part_of_a_line() {
        let text = b"\xef\xbb\xbf{\"a\": 1}\r\n\xef\xbb\xbf\r\n{}\n\xef\xbb\xbf{}";
        let mut lines = Lines::new(io::BufReader::with_capacity(1, &text[..]));
        let mut read = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            read.push((line.number, line.text.unwrap().to_vec()));
        }
        assert_eq!(read, [(1, b"{\"a\": 1}".to_vec()), (3, b"{}".to_vec()), (4, b"{}".to_vec())]);
        assert_eq!(Lines::new(&b"\xef\xbb\xbf"[..]).next_line().unwrap(), None);
    }

    #[test]
    fn a_file_in_another_encoding_is_refused_as_a_whole() {
        let text: Vec<u8> = "\u{feff}{}\n{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = Lines::new(&text[..]).next_line().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the text is UTF-16LE, not UTF-8; save it as UTF-8, or convert it with `iconv -f UTF-16LE -t UTF-8`"
        );
        let error = Lines::new(&b"\x1f\x8b\x08\x00\n"[..]).next_line().unwrap_err();
        assert_eq!(error.to_string(), "it is compressed with gzip; unpack it first");
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_as_a_whole() {
        let mut text = vec![b'x'; LINE_BYTES_MAX];
        text.extend_from_slice(b"\nnext\n");
        text.extend(vec![b'y'; LINE_BYTES_MAX - 1]);
        text.push(b'\n');
        let mut lines = Lines::new(&text[..]);
        assert_eq!(lines.next_line().unwrap(), Some(Line { number: 1, text: Err(TooLong) }));
        assert_eq!(lines.next_line().unwrap(), Some(Line { number: 2, text: Ok(b"next") }));
        let last = lines.next_line().unwrap().unwrap();
        assert_eq!((last.number, last.text.unwrap().len()), (3, LINE_BYTES_MAX - 1));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
