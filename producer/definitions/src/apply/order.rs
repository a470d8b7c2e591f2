//! The order of the definitions of a file: each comes after those it refers to. What cannot be ordered before the log has
//! judged it, a variant that goes and the prerequisite that named it, is tried once more.

use std::collections::BTreeSet;

use schemas::definition::{Definition, Kind, Refusal};

use super::{Applied, Verdict};

/// Two definitions of a file have the same key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{key}` is defined twice in the file; keep one")]
pub struct DefinedTwice {
    pub kind: Kind,
    pub key: String,
}

/// Sorts the definitions so that each comes after those it refers to: settings, metrics, lists, layers, then
/// flags after their prerequisites, then experiments. An experiment that a flag waits for comes before that flag.
/// Otherwise the order of the file is kept.
pub fn in_order(mut definitions: Vec<Definition>) -> Result<Vec<Definition>, DefinedTwice> {
    let mut seen = BTreeSet::new();
    for definition in &definitions {
        if !seen.insert((rank(definition.kind()), definition.key().clone())) {
            return Err(DefinedTwice { kind: definition.kind(), key: definition.key().to_string() });
        }
    }
    definitions.sort_by_key(|definition| rank(definition.kind()));
    let at = definitions.partition_point(|definition| rank(definition.kind()) < rank(Kind::Flag));
    let evaluated = definitions.split_off(at);
    definitions.extend(after_prerequisites(evaluated));
    Ok(definitions)
}

fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Settings => 0,
        Kind::Metric => 1,
        Kind::List => 2,
        Kind::Layer => 3,
        Kind::Flag => 4,
        Kind::Experiment => 5,
    }
}

/// Sorts flags after their prerequisites, which are flags or experiments. Flags in a cycle keep their order; the log refuses them with the
/// reason.
fn after_prerequisites(mut waiting: Vec<Definition>) -> Vec<Definition> {
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|definition| {
            let Definition::Flag(flag) = definition else { return true };
            let waits_for = |key| waiting.iter().any(|other| other.key() == key);
            !flag.prerequisites.iter().any(|prerequisite| waits_for(&prerequisite.flag))
        });
        ordered.push(waiting.remove(ready.unwrap_or(0)));
    }
    ordered
}

/// Returns the definitions of a file that are to be tried once more, in this order: those that were refused before a later one
/// was accepted. What takes out a prerequisite comes after what it waited for, and only then can the variant go. So the last
/// is tried first.
pub fn to_try_again(all: &[Applied]) -> Vec<usize> {
    let is_accepted =
        |applied: &Applied| matches!(applied.verdict, Verdict::Accepted { .. } | Verdict::WouldBeAccepted);
    let is_not_allowed =
        |applied: &Applied| matches!(applied.verdict, Verdict::Refused { reason: Refusal::NotAllowed(_) });
    let last = all.iter().rposition(is_accepted).unwrap_or(0);
    (0..last).rev().filter(|index| is_not_allowed(&all[*index])).collect()
}
