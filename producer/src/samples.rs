//! Definitions for the tests of `producer` and `sdk`.

use schemas::definition::{Definitions, parse_file};
use schemas::{Micros, Uuid};

/// Returns the definitions of a file, accepted in the order of the file.
pub fn definitions(text: &str) -> Definitions {
    let mut definitions = Definitions::default();
    for (offset, written) in parse_file(text).unwrap().into_iter().enumerate() {
        let definition = assignment::resolve(&definitions, Micros::EPOCH, written).unwrap();
        let change = definitions.change_to(&definition, Uuid::from_u128(1), "ann", "test");
        definitions.apply(offset as u64, Micros::EPOCH, &change).unwrap().unwrap();
    }
    definitions
}
