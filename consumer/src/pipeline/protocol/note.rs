//! What the consumer writes beside a committed offset: how far the table reached, and the batch that it is about to
//! insert. The broker refuses it from a member that has lost the partition, so a writer that was left behind cannot
//! write it. It is plain text of a few hundred bytes; a broker takes 4,096 by default.

use std::fmt;
use std::str::FromStr;

use crate::pipeline::batch::Span;
use kafka::TopicId;

/// The first word of every note. Another format gets another number.
const HEAD: &str = "splitstream/2";
/// The format before, which did not name the topic. It is still read.
const HEAD_WITHOUT_TOPIC: &str = "splitstream/1";
const HEAD_ANY: &str = "splitstream/";

/// A batch that is about to be inserted: what is needed to make it again from the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    pub span: Span,
    /// Messages of the span that become rows, at least 1.
    pub rows: u64,
    /// A digest of the offsets that become rows.
    pub kept: u64,
    /// The batch's `ingest_ts`, in milliseconds since 1970, chosen once.
    pub ingest_ms: i64,
    /// The rows of an earlier announcement of the same batch, if it differed; else 0. Both announcements have
    /// the same token, so at most one of the two gets in.
    pub earlier_rows: u64,
    /// From 0. Raised when ClickHouse knows the token but has no rows for it.
    pub attempt: u32,
}

impl Intent {
    /// Whether a count of the batch's rows says that it is in the table.
    pub fn is_there(&self, rows: u64) -> bool {
        rows > 0 && (rows == self.rows || rows == self.earlier_rows)
    }
}

/// The text beside a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub epoch: u32,
    /// The topic of the offsets. `None` in a note of an earlier build, or where brokers give topics no ids.
    pub topic: Option<TopicId>,
    /// The last offset that the table covered when this was written.
    pub durable: Option<u64>,
    pub intent: Option<Intent>,
}

/// Why a note cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A later build wrote it.
    #[error("the text beside the committed offset is of a later build ({0}); install that build")]
    Later(String),
    #[error("the text beside the committed offset is damaged: {0}")]
    Damaged(String),
}

impl Note {
    /// The note in `text`. `None` if it is empty or not ours, as after an operator has set the offset.
    pub fn parse(text: &str) -> Result<Option<Note>, NoteError> {
        if !text.starts_with(HEAD_ANY) {
            return Ok(None);
        }
        let mut words = text.split(' ');
        let names_topic = match words.next() {
            Some(HEAD) => true,
            Some(HEAD_WITHOUT_TOPIC) => false,
            _ => return Err(NoteError::Later(text.to_owned())),
        };
        parse_words(words, names_topic).map(Some).ok_or_else(|| NoteError::Damaged(text.to_owned()))
    }
}

fn parse_words<'text>(mut words: impl Iterator<Item = &'text str>, names_topic: bool) -> Option<Note> {
    let epoch = value(words.next()?, "epoch")?;
    let topic = match names_topic {
        false => None,
        true => match words.next()? {
            "topic=none" => None,
            word => Some(value(word, "topic")?),
        },
    };
    let durable = match words.next()? {
        "durable=none" => None,
        word => Some(value(word, "durable")?),
    };
    let intent = match words.next()? {
        "intent=none" => None,
        word => {
            let (first, last) = word.strip_prefix("intent=")?.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            Some(Intent {
                span: Span { first, last },
                rows: value(words.next()?, "rows")?,
                kept: u64::from_str_radix(words.next()?.strip_prefix("kept=")?, 16).ok()?,
                ingest_ms: value(words.next()?, "ingest")?,
                earlier_rows: value(words.next()?, "earlier")?,
                attempt: value(words.next()?, "attempt")?,
            })
        }
    };
    let sound = intent.is_none_or(|intent| intent.span.first <= intent.span.last && intent.rows > 0);
    (sound && words.next().is_none()).then_some(Note { epoch, topic, durable, intent })
}

fn value<T: FromStr>(word: &str, name: &str) -> Option<T> {
    word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{HEAD} epoch={} topic=", self.epoch)?;
        match self.topic {
            None => write!(out, "none")?,
            Some(topic) => write!(out, "{topic}")?,
        }
        write!(out, " durable=")?;
        match self.durable {
            None => write!(out, "none")?,
            Some(durable) => write!(out, "{durable}")?,
        }
        match &self.intent {
            None => write!(out, " intent=none"),
            Some(Intent { span, rows, kept, ingest_ms, earlier_rows, attempt }) => write!(
                out,
                " intent={}-{} rows={rows} kept={kept:016x} ingest={ingest_ms} \
                 earlier={earlier_rows} attempt={attempt}",
                span.first, span.last
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "Zl3-OYYMR_mYD-iZj0yZ7w";
    const TEXT: &str = "splitstream/2 epoch=1 topic=Zl3-OYYMR_mYD-iZj0yZ7w durable=149 intent=150-249 rows=98 \
                        kept=0000000000000abc ingest=1790000000000 earlier=0 attempt=2";
    /// As a build wrote it that did not know of topics' ids.
    const TEXT_WITHOUT_TOPIC: &str = "splitstream/1 epoch=1 durable=149 intent=150-249 rows=98 \
                                      kept=0000000000000abc ingest=1790000000000 earlier=0 attempt=2";

    fn note() -> Note {
        Note {
            epoch: 1,
            topic: Some(TOPIC.parse().unwrap()),
            durable: Some(149),
            intent: Some(Intent {
                span: Span { first: 150, last: 249 },
                rows: 98,
                kept: 0xabc,
                ingest_ms: 1_790_000_000_000,
                earlier_rows: 0,
                attempt: 2,
            }),
        }
    }

    #[test]
    fn a_note_is_this_text_and_this_text_that_note() {
        assert_eq!(note().to_string(), TEXT);
        assert_eq!(Note::parse(TEXT), Ok(Some(note())));
        let none = Note { topic: None, durable: None, intent: None, ..note() };
        assert_eq!(none.to_string(), "splitstream/2 epoch=1 topic=none durable=none intent=none");
        assert_eq!(Note::parse(&none.to_string()), Ok(Some(none)));
    }

    #[test]
    fn a_note_of_an_earlier_build_names_no_topic() {
        assert_eq!(Note::parse(TEXT_WITHOUT_TOPIC), Ok(Some(Note { topic: None, ..note() })));
        let none = Note { topic: None, durable: None, intent: None, ..note() };
        assert_eq!(Note::parse("splitstream/1 epoch=1 durable=none intent=none"), Ok(Some(none)));
    }

    #[test]
    fn other_peoples_texts_are_none_and_a_later_builds_is_refused() {
        assert_eq!(Note::parse(""), Ok(None));
        assert_eq!(Note::parse("set by hand"), Ok(None));
        assert_eq!(Note::parse("splitstream/3 x"), Err(NoteError::Later("splitstream/3 x".into())));
    }

    #[test]
    fn half_a_note_is_damaged() {
        for cut in [
            &TEXT[..TEXT.len() - 10],
            "splitstream/2",
            "splitstream/2 epoch=1 durable=149 intent=none",
            "splitstream/2 epoch=1 topic=short durable=149 intent=none",
            "splitstream/1 epoch=1 durable=x intent=none",
        ] {
            assert_eq!(Note::parse(cut), Err(NoteError::Damaged(cut.into())));
        }
        let backwards = TEXT.replace("150-249", "250-249");
        assert_eq!(Note::parse(&backwards), Err(NoteError::Damaged(backwards.clone())));
    }
}
