//! The history of the definitions: for each record of the log, who proposed what, when and why, and whether it was
//! accepted. The definitions themselves, which the log's rule folds, keep none of this. Nothing here knows Kafka
//! or how a history is shown.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use schemas::definition::{Accepted, Change, Definition, Kind, Refusal, Version};
use schemas::{Micros, Uuid};
use serde::Serialize;

use crate::diff::{Changed, diff};

/// Every record of the log up to where it was read, in the log's order.
#[derive(Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
}

/// One record of the log.
#[derive(Debug)]
pub struct Entry {
    pub offset: u64,
    /// The time by the broker's clock, the only clock of the log.
    pub time: Option<Micros>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Judged(Box<Judged>),
    /// The bytes are no change, for this reason; they have no effect.
    Undecodable(String),
}

/// A change with its verdict.
#[derive(Debug)]
pub struct Judged {
    pub change_id: Uuid,
    /// As it was written. The kind of an accepted change is a [`Kind`], its key a key.
    pub kind: String,
    pub key: String,
    pub based_on: Version,
    pub author: String,
    pub reason: String,
    /// The version on which the change is based, if there is one.
    previous: Option<Arc<Accepted>>,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub enum Verdict {
    Accepted(Arc<Accepted>),
    Refused {
        refusal: Refusal,
        /// The JSON of the definition that was proposed.
        definition: String,
    },
}

/// An entry as it is printed and served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntryDocument {
    pub offset: u64,
    pub time: Option<Micros>,
    /// accepted, refused or undecodable
    pub verdict: &'static str,
    /// The version that an accepted change created.
    pub version: Option<Version>,
    /// The reason why it was refused or cannot be decoded.
    pub because: Option<String>,
    #[serde(flatten)]
    pub proposal: Option<ProposalDocument>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProposalDocument {
    pub change_id: Uuid,
    pub kind: String,
    pub key: String,
    pub based_on: Version,
    pub author: String,
    pub reason: String,
    #[serde(flatten)]
    pub standing: Standing,
    /// How it differs from the version that it is based on; empty for a new key.
    pub changed: Vec<Changed>,
}

/// The changes of one definition as they are printed and served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changes {
    pub kind: Kind,
    pub key: String,
    pub changes: Vec<EntryDocument>,
}

/// Why a key does not name one definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOneKind {
    #[error("there is no definition `{key}`; `splitstream definitions` lists all")]
    Unknown { key: String },
    #[error(
        "there is no definition `{key}`: every change of it was refused; ask for the refused ones as well"
    )]
    NeverAccepted { key: String },
    #[error("`{key}` is the key of several definitions: {}; choose one by its kind", list(kinds))]
    Several { key: String, kinds: Vec<Kind> },
    #[error("there is no {kind} `{key}`; the key has another kind: {}", list(kinds))]
    OtherKind { key: String, kind: Kind, kinds: Vec<Kind> },
}

/// The state of a definition, as far as its kind has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Of an experiment or a flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Of an experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
}

impl History {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the change that created this version.
    pub fn of_version(&self, version: Version) -> Option<(&Entry, &Judged)> {
        let offset = version.checked_sub(1)?;
        let at = self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        match &self.entries[at].content {
            Content::Judged(judged) if judged.is_accepted() => Some((&self.entries[at], judged)),
            _ => None,
        }
    }

    /// Returns the changes of one definition, the newest last. With `refused`, so are the changes that were refused,
    /// those of another kind with the same key included.
    pub fn changes(&self, kind: Kind, key: &str, refused: bool) -> Changes {
        let of_kind =
            |judged: &Judged| Kind::parse(&judged.kind).is_some_and(|other| other.shares_keys_with(kind));
        let wanted = self
            .changes_of(key)
            .filter(|(_, judged)| of_kind(judged) && (refused || judged.is_accepted()))
            .map(|(entry, _)| entry.document())
            .collect();
        Changes { kind, key: key.to_owned(), changes: wanted }
    }

    /// Returns the kind of the definition with this key. With `refused`, a key counts whose changes were all
    /// refused.
    ///
    /// # Errors
    /// If there is none, or several and `kind` does not choose one.
    pub fn kind_of(&self, key: &str, kind: Option<Kind>, refused: bool) -> Result<Kind, NotOneKind> {
        let mut accepted = BTreeSet::new();
        let mut proposed = BTreeSet::new();
        for (_, judged) in self.changes_of(key) {
            let Some(kind) = Kind::parse(&judged.kind) else { continue };
            proposed.insert(kind);
            if judged.is_accepted() {
                accepted.insert(kind);
            }
        }
        let was_refused = accepted.is_empty() && !proposed.is_empty();
        let known = if was_refused && refused { proposed } else { accepted };
        let known: Vec<Kind> = known.into_iter().collect();
        let key = key.to_owned();
        match (kind, known.as_slice()) {
            (_, []) if was_refused => Err(NotOneKind::NeverAccepted { key }),
            (_, []) => Err(NotOneKind::Unknown { key }),
            (None, [kind]) => Ok(*kind),
            (None, _) => Err(NotOneKind::Several { key, kinds: known }),
            (Some(kind), known) if known.contains(&kind) => Ok(kind),
            (Some(kind), _) => Err(NotOneKind::OtherKind { key, kind, kinds: known }),
        }
    }

    fn changes_of<'h>(&'h self, key: &str) -> impl Iterator<Item = (&'h Entry, &'h Judged)> {
        self.entries.iter().filter_map(move |entry| match &entry.content {
            Content::Judged(judged) if judged.key == key => Some((entry, &**judged)),
            _ => None,
        })
    }
}

fn list(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
}

impl Entry {
    pub fn document(&self) -> EntryDocument {
        let Entry { offset, time, content } = self;
        let (offset, time) = (*offset, *time);
        let judged = match content {
            Content::Judged(judged) => judged,
            Content::Undecodable(why) => {
                let because = Some(why.clone());
                let verdict = "undecodable";
                return EntryDocument { offset, time, verdict, version: None, because, proposal: None };
            }
        };
        let proposal = Some(judged.document());
        match &judged.verdict {
            Verdict::Accepted(accepted) => EntryDocument {
                offset,
                time,
                verdict: "accepted",
                version: Some(accepted.version),
                because: None,
                proposal,
            },
            Verdict::Refused { refusal, .. } => EntryDocument {
                offset,
                time,
                verdict: "refused",
                version: None,
                because: Some(refusal.to_string()),
                proposal,
            },
        }
    }
}

impl Judged {
    /// `previous` is the version that the change names as its base.
    pub(crate) fn new(
        change: Change,
        previous: Option<Arc<Accepted>>,
        verdict: Result<Arc<Accepted>, Refusal>,
    ) -> Judged {
        let Change { change_id, kind, key, based_on, definition, author, reason, .. } = change;
        let verdict = match verdict {
            Ok(accepted) => Verdict::Accepted(accepted),
            Err(refusal) => Verdict::Refused { refusal, definition },
        };
        Judged { change_id, kind, key, based_on, author, reason, previous, verdict }
    }

    pub fn is_accepted(&self) -> bool {
        matches!(self.verdict, Verdict::Accepted(_))
    }

    fn document(&self) -> ProposalDocument {
        let proposed = self.proposed();
        ProposalDocument {
            change_id: self.change_id,
            kind: self.kind.clone(),
            key: self.key.clone(),
            based_on: self.based_on,
            author: self.author.clone(),
            reason: self.reason.clone(),
            standing: proposed.as_deref().map_or_else(Standing::default, Standing::of),
            changed: proposed.as_deref().map_or_else(Vec::new, |proposed| self.changed(proposed)),
        }
    }

    /// The definition that was proposed; `None` if a refused change holds none.
    fn proposed(&self) -> Option<Cow<'_, Definition>> {
        match &self.verdict {
            Verdict::Accepted(accepted) => Some(Cow::Borrowed(&accepted.definition)),
            Verdict::Refused { definition, .. } => {
                let kind = Kind::parse(&self.kind)?;
                let definition = Definition::from_json(kind, serde_json::from_str(definition).ok()?).ok()?;
                Some(Cow::Owned(definition))
            }
        }
    }

    /// A refused change may name a version of another definition as its base; nothing is compared with that.
    fn changed(&self, proposed: &Definition) -> Vec<Changed> {
        let previous = self.previous.as_ref().map(|previous| &previous.definition);
        let same =
            |previous: &&Definition| previous.kind() == proposed.kind() && previous.key() == proposed.key();
        diff(previous.filter(same), proposed)
    }
}

impl Standing {
    pub fn of(definition: &Definition) -> Standing {
        match definition {
            Definition::Experiment(experiment) => {
                Standing { state: Some(experiment.state.as_str()), phase: Some(experiment.phase()) }
            }
            Definition::Flag(flag) => {
                let state = match (flag.archived, flag.enabled) {
                    (true, _) => "archived",
                    (false, true) => "enabled",
                    (false, false) => "disabled",
                };
                Standing { state: Some(state), phase: None }
            }
            Definition::Layer(_) | Definition::Metric(_) | Definition::List(_) | Definition::Settings(_) => {
                Standing::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::definition::{Definitions, RULE_VERSION};
    use serde_json::json;

    use super::*;

    fn history(changes: &[(&str, serde_json::Value, Version, &str)]) -> History {
        let mut definitions = Definitions::default();
        let mut history = History::default();
        for (offset, (kind, definition, based_on, author)) in changes.iter().enumerate() {
            let change = Change {
                change_id: Uuid::from_u128(offset as u128),
                rule_version: RULE_VERSION,
                kind: (*kind).to_owned(),
                key: definition["key"].as_str().unwrap().to_owned(),
                based_on: *based_on,
                definition: definition.to_string(),
                author: (*author).to_owned(),
                reason: "because".to_owned(),
            };
            let offset = offset as u64;
            let verdict = definitions.apply(offset, Micros::EPOCH, &change).unwrap();
            let previous = definitions.at_version(change.based_on).cloned();
            let judged = Judged::new(change, previous, verdict);
            history.push(Entry { offset, time: None, content: Content::Judged(Box::new(judged)) });
        }
        history
    }

    /// The offsets, authors and changed fields.
    fn told(changes: &Changes) -> Vec<(u64, &str, Vec<String>)> {
        let told = changes.changes.iter().map(|entry| {
            let proposal = entry.proposal.as_ref().unwrap();
            (
                entry.offset,
                proposal.author.as_str(),
                proposal.changed.iter().map(ToString::to_string).collect(),
            )
        });
        told.collect()
    }

    #[test]
    fn each_key_space_has_a_history_of_its_own() {
        let flag = |owner: &str| {
            json!({"key": "a", "owner": owner, "value_type": "boolean", "default_variant": "on",
                   "variants": [{"key": "on", "value": true}]})
        };
        let history = history(&[
            ("layer", json!({"key": "a"}), 0, "ann"),
            ("flag", flag(""), 0, "bob"),
            ("layer", json!({"key": "a", "owner": "web"}), 1, "cid"),
            // Another writer was first.
            ("layer", json!({"key": "a", "owner": "app"}), 1, "dan"),
            // The key is a flag's, and the base is a version of a layer.
            ("experiment", json!({"key": "a"}), 1, "eve"),
            ("flag", flag("web"), 2, "fay"),
            ("layer", json!({"key": "b"}), 1, "gus"),
            ("widget", json!({"key": "a"}), 0, "hal"),
        ]);
        let web = || vec![r#"owner: "" -> "web""#.to_owned()];
        let accepted = history.changes(Kind::Layer, "a", false);
        assert_eq!(told(&accepted), [(0, "ann", vec![]), (2, "cid", web())]);
        let all = history.changes(Kind::Layer, "a", true);
        assert_eq!(told(&all)[2], (3, "dan", vec![r#"owner: "" -> "app""#.to_owned()]));
        assert_eq!(all.changes[2].version, None);
        assert_eq!(
            all.changes[2].because.as_deref(),
            Some("`a` has moved on: the change is based on version 1, the current one is 3")
        );
        let of_flag = history.changes(Kind::Flag, "a", true);
        assert_eq!(told(&of_flag), [(1, "bob", vec![]), (4, "eve", vec![]), (5, "fay", web())]);
        assert_eq!(told(&history.changes(Kind::Layer, "b", true)), [(6, "gus", vec![])]);

        let author = |version| history.of_version(version).map(|(_, judged)| judged.author.as_str());
        assert_eq!([0, 1, 3, 4, 6, 9].map(author), [None, Some("ann"), Some("cid"), None, Some("fay"), None]);
        assert_eq!(history.kind_of("a", Some(Kind::Flag), false), Ok(Kind::Flag));
        let kinds = vec![Kind::Flag, Kind::Layer];
        assert_eq!(history.kind_of("a", None, true), Err(NotOneKind::Several { key: "a".to_owned(), kinds }));
        assert_eq!(history.kind_of("b", None, false), Err(NotOneKind::NeverAccepted { key: "b".to_owned() }));
        assert_eq!(history.kind_of("b", None, true), Ok(Kind::Layer));
    }
}
