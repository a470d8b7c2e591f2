//! Asks the platform's own rules whether they accept the documents of an import, as `splitstream apply` does on an empty log. No
//! clock and no log is asked: the records are made up, at the beginning of 1970.

use assignment::resolve;
use schemas::definition::{Definition, Definitions, parse_file};
use schemas::{Micros, Uuid};

use super::Draft;
use ::definitions::apply::in_order;

/// Returns the first document that would be refused, and why.
pub fn refused(drafts: &[Draft]) -> Option<(usize, String)> {
    let mut written = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        match parse_file(&draft.document.to_string()) {
            Ok(mut parsed) => written.append(&mut parsed),
            Err(errors) => {
                let problems: Vec<String> = errors.iter().map(|error| error.problem.to_string()).collect();
                return Some((index, problems.join("; ")));
            }
        }
    }
    let ordered = match in_order(written) {
        Ok(ordered) => ordered,
        Err(twice) => return Some((last_of(drafts, twice.kind.as_str(), &twice.key)?, twice.to_string())),
    };
    let mut definitions = Definitions::default();
    for definition in ordered {
        let (kind, key) = (definition.kind().as_str(), definition.key().to_string());
        if let Err(why) = accept(&mut definitions, definition) {
            return Some((last_of(drafts, kind, &key)?, why));
        }
    }
    None
}

fn accept(definitions: &mut Definitions, written: Definition) -> Result<(), String> {
    let definition = resolve(definitions, Micros::EPOCH, written).map_err(|problem| problem.to_string())?;
    let change = definitions.change_to(&definition, Uuid::nil(), "import", "import");
    let verdict = definitions.apply(definitions.next_offset(), Micros::EPOCH, &change);
    let verdict = verdict.expect("a writer knows its own rule");
    verdict.map(|_| ()).map_err(|refusal| refusal.to_string())
}

fn last_of(drafts: &[Draft], kind: &str, key: &str) -> Option<usize> {
    drafts.iter().rposition(|draft| draft.document["kind"] == kind && draft.document["key"] == key)
}
