//! Definitions for the tests of `producer` and `sdk`.

use schemas::definition::{Change, Definitions, parse_file};
use schemas::{Micros, Uuid};

/// Returns the definitions of a file, accepted in the order of the file.
pub fn definitions(text: &str) -> Definitions {
    let mut definitions = Definitions::default();
    for (offset, written) in parse_file(text).unwrap().into_iter().enumerate() {
        let definition = assignment::resolve(&definitions, Micros::EPOCH, written).unwrap();
        let change = Change {
            change_id: Uuid::from_u128(1),
            rule_version: definitions.rule_for(&definition).version(),
            kind: definition.kind().to_string(),
            key: definition.key().to_string(),
            based_on: 0,
            definition: definition.to_json(),
            author: "ann".to_owned(),
            reason: "test".to_owned(),
        };
        definitions.apply(offset as u64, Micros::EPOCH, &change).unwrap().unwrap();
    }
    definitions
}
