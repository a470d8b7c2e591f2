//! The two tokens by which a client says what it has. The *revision* names a configuration and the time epoch; the event
//! stream sends it and clients return it as `flagConfigEtag`. The *tag* names one answer, and clients return it in
//! `If-None-Match`. Nothing here knows HTTP.
//!
//! A tag is never used again: it has the log's id, so that a log that was made anew does not repeat the tags of the one
//! before it, the configuration's version, the time epoch, and a hash of the context, of what the token may see and of what an
//! answer says of the edge.

use std::fmt;

use schemas::definition::Version;
use xxhash_rust::xxh3::xxh3_64;

/// Part of every tag; raised when the same evaluation is written in another way.
const ANSWER_FORMAT: u64 = 1;

/// A configuration and the span between two instants at which answers change by time alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The log's id, of the characters of URL-safe base64; behind a `~` follows what tells the members of lists apart that
    /// are in force while others are awaited.
    pub log: String,
    pub version: Version,
    /// The last instant at which an answer may have changed by time alone, in microseconds since 1970; 0 if there is none.
    pub epoch: u64,
}

/// What an answer depends on besides the revision.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// See [`crate::ofrep::canonical`].
    pub context: u128,
    /// Names what the token may see and where it is sent for changes: the same for two tokens only if their answers are.
    pub class: &'a str,
    /// What the answer says of this edge: its environment, and the addresses of events and of the event stream.
    pub place: &'a str,
}

/// What a client says that it has.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// The values of `If-None-Match`.
    pub tags: Vec<&'a str>,
    pub config_etag: Option<&'a str>,
    /// Seconds since 1970.
    pub config_modified_s: Option<i64>,
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client has this answer: 304.
    NotModified,
    Answer,
    /// The client has seen a newer configuration than this one: an answer that says that it is stale, never a 304.
    AnswerStale,
}

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.log, self.version, self.epoch)
    }
}

impl Revision {
    /// Reads a revision, or the one at the beginning of a tag, with or without quotes. `None` if it is none of ours.
    pub fn parse(text: &str) -> Option<Revision> {
        let mut parts = unquoted(text).splitn(4, '.');
        let log = parts.next().filter(|log| !log.is_empty())?.to_owned();
        Some(Revision { log, version: parts.next()?.parse().ok()?, epoch: parts.next()?.parse().ok()? })
    }

    /// Whether this one is certainly newer than `other`. Revisions of two logs cannot be compared.
    pub fn is_newer_than(&self, other: &Revision) -> bool {
        self.log == other.log && (self.version, self.epoch) > (other.version, other.epoch)
    }

    /// The tag of an answer, without quotes.
    pub fn tag(&self, asked: &Asked<'_>) -> String {
        let mut bytes = asked.context.to_le_bytes().to_vec();
        bytes.extend(ANSWER_FORMAT.to_le_bytes());
        bytes.extend(asked.class.as_bytes());
        // Neither has a line break.
        bytes.push(b'\n');
        bytes.extend(asked.place.as_bytes());
        format!("{self}.{:016x}", xxh3_64(&bytes))
    }
}

/// Decides what a client gets that has `known`. `tag` is the answer's, `modified_s` the configuration's last change.
pub fn decide(revision: &Revision, tag: &str, modified_s: i64, known: &Known<'_>) -> Verdict {
    let tags = || known.tags.iter().flat_map(|value| value.split(',')).map(unquoted);
    let config = known.config_etag.and_then(Revision::parse);
    let newer = |seen: Revision| seen.is_newer_than(revision);
    let modified_later = known.config_modified_s.is_some_and(|seen| seen > modified_s);
    // Where the token can be compared it decides; the time has only seconds, and another clock.
    let config_newer = match config {
        Some(config) if config.log == revision.log => newer(config),
        _ => modified_later,
    };
    if config_newer || tags().filter_map(Revision::parse).any(newer) {
        return Verdict::AnswerStale;
    }
    if tags().any(|known| known == tag || known == "*") { Verdict::NotModified } else { Verdict::Answer }
}

/// A tag without the mark of a weak one and without quotes: some clients leave the quotes out.
fn unquoted(tag: &str) -> &str {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "Zl3-OYYMR_mYD-iZj0yZ7w";

    fn revision(version: u64, epoch: u64) -> Revision {
        Revision { log: LOG.to_owned(), version, epoch }
    }

    fn tag(revision: &Revision) -> String {
        revision.tag(&Asked { context: 7, class: "server user", place: "production" })
    }

    fn verdict(revision: &Revision, known: &Known<'_>) -> Verdict {
        decide(revision, &tag(revision), 1_000, known)
    }

    #[test]
    fn a_tag_depends_on_all_that_an_answer_depends_on() {
        let at = |log: &str, version, epoch, context, class, place| {
            Revision { log: log.to_owned(), version, epoch }.tag(&Asked { context, class, place })
        };
        let of =
            |log: &str, version, epoch, context, class| at(log, version, epoch, context, class, "production");
        let one = of(LOG, 12, 3, 7, "server user");
        assert!(one.starts_with("Zl3-OYYMR_mYD-iZj0yZ7w.12.3."), "{one}");
        assert_eq!(one, of(LOG, 12, 3, 7, "server user"));
        for other in [
            of("another-log", 12, 3, 7, "server user"),
            of(LOG, 13, 3, 7, "server user"),
            of(LOG, 12, 4, 7, "server user"),
            of(LOG, 12, 3, 8, "server user"),
            of(LOG, 12, 3, 7, "client user"),
            at(LOG, 12, 3, 7, "server user", "staging"),
            at(LOG, 12, 3, 7, "server user", "production /flags"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_known_tag_is_not_modified_however_it_is_written() {
        let current = revision(12, 3);
        let own = tag(&current);
        for known in [
            format!("\"{own}\""),
            own.clone(),
            format!("W/\"{own}\""),
            format!("\"other\", \"{own}\""),
            "*".to_owned(),
        ] {
            let known = Known { tags: vec![&known], ..Known::default() };
            assert_eq!(verdict(&current, &known), Verdict::NotModified, "{known:?}");
        }
        let lines = format!("\"{own}\"");
        let known = Known { tags: vec!["\"other\"", &lines], ..Known::default() };
        assert_eq!(verdict(&current, &known), Verdict::NotModified);
    }

    #[test]
    fn another_tag_is_answered() {
        let current = revision(12, 3);
        for known in ["\"other\"", "", "\"", &format!("\"{}\"", tag(&revision(11, 9))), "x.12.3.0"] {
            let known = Known { tags: vec![known], ..Known::default() };
            assert_eq!(verdict(&current, &known), Verdict::Answer, "{known:?}");
        }
        assert_eq!(verdict(&current, &Known::default()), Verdict::Answer);
    }

    #[test]
    fn whoever_has_seen_a_newer_configuration_gets_a_stale_answer_and_never_a_304() {
        let current = revision(12, 3);
        let own = format!("\"{}\"", tag(&current));
        for newer in [revision(13, 0), revision(12, 4)] {
            let config = format!("\"{newer}\"");
            let known = Known { tags: vec![&own], config_etag: Some(&config), config_modified_s: None };
            assert_eq!(verdict(&current, &known), Verdict::AnswerStale, "{known:?}");
            let seen = format!("\"{}\"", tag(&newer));
            let known = Known { tags: vec![&seen], ..Known::default() };
            assert_eq!(verdict(&current, &known), Verdict::AnswerStale, "{known:?}");
            let both = format!("{own}, {seen}");
            let known = Known { tags: vec![&both], ..Known::default() };
            assert_eq!(verdict(&current, &known), Verdict::AnswerStale, "{known:?}");
        }
    }

    #[test]
    fn the_token_of_the_configuration_is_no_tag_of_an_answer() {
        let current = revision(12, 3);
        let config = current.to_string();
        let known = Known { config_etag: Some(&config), ..Known::default() };
        assert_eq!(verdict(&current, &known), Verdict::Answer);
        let own = tag(&current);
        let older = format!("\"{}\"", revision(12, 2));
        let known = Known { tags: vec![&own], config_etag: Some(&older), config_modified_s: Some(9_999) };
        // The token can be compared, so the time, which another clock gave, says nothing.
        assert_eq!(verdict(&current, &known), Verdict::NotModified);
    }

    #[test]
    fn the_time_of_the_last_change_counts_where_the_token_cannot_be_compared() {
        let current = revision(12, 3);
        let own = tag(&current);
        for token in [None, Some("of another server"), Some("another-log.99.0")] {
            let known = |seen| Known { tags: vec![&own], config_etag: token, config_modified_s: Some(seen) };
            assert_eq!(verdict(&current, &known(1_000)), Verdict::NotModified, "{token:?}");
            assert_eq!(verdict(&current, &known(1_001)), Verdict::AnswerStale, "{token:?}");
        }
    }
}
