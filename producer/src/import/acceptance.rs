//! Asks the platform's own rules whether they accept the documents of an import, as `splitstream apply` does on an empty log.

use schemas::definition::{Definitions, parse_file};

use super::Draft;
use crate::apply::{Signature, Verdict, in_order, rehearse};

/// Returns the first document that would be refused, and why.
pub fn refused(drafts: &[Draft]) -> Option<(usize, String)> {
    let mut definitions = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        match parse_file(&draft.document.to_string()) {
            Ok(mut parsed) => definitions.append(&mut parsed),
            Err(errors) => {
                let problems: Vec<String> = errors.iter().map(|error| error.problem.to_string()).collect();
                return Some((index, problems.join("; ")));
            }
        }
    }
    let ordered = match in_order(definitions) {
        Ok(ordered) => ordered,
        Err(twice) => return Some((last_of(drafts, twice.kind.as_str(), &twice.key)?, twice.to_string())),
    };
    let signature = Signature { author: "import".to_owned(), reason: "import".to_owned() };
    let verdicts =
        rehearse(&Definitions::default(), ordered, &signature).expect("a writer knows its own rule");
    let refused = verdicts.into_iter().find_map(|applied| match applied.verdict {
        Verdict::Refused { reason } => Some((applied.kind, applied.key, reason)),
        _ => None,
    })?;
    let (kind, key, reason) = refused;
    Some((last_of(drafts, kind.as_str(), &key)?, reason))
}

fn last_of(drafts: &[Draft], kind: &str, key: &str) -> Option<usize> {
    drafts.iter().rposition(|draft| draft.document["kind"] == kind && draft.document["key"] == key)
}
