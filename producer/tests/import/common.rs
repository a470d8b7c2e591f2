//! Imports a source as the command does, applies the file that it writes to an empty log, and evaluates it.

use assignment::{
    Context, Environment, EvaluationError, Lists, Name, Snapshot, Value as Attribute, evaluate, resolve,
};
use definitions::apply::in_order;
use producer::import::{Format, Imported, Severity, import};
use schemas::definition::{Definitions, parse_file};
use schemas::{Micros, Uuid};
use serde_json::{Map, Value};

/// A source that is in effect.
pub struct World {
    pub imported: Imported,
    pub definitions: Definitions,
    snapshot: Snapshot,
}

/// The unit that asks.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    pub targeting_key: Option<String>,
    pub attributes: Map<String, Value>,
}

/// What a key answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub variant: String,
    pub value: Value,
}

impl World {
    pub fn of(format: Format, source: &Value) -> World {
        let imported =
            import(format, &source.to_string(), "").unwrap_or_else(|error| panic!("{error}: {source}"));
        // A source without features gives a file without definitions, which nobody applies.
        let written = match imported.definitions.as_slice() {
            [] => Vec::new(),
            _ => parse_file(&imported.file())
                .unwrap_or_else(|errors| panic!("{errors:?}: {}", imported.file())),
        };
        let mut definitions = Definitions::default();
        for definition in in_order(written).expect("each key is defined once") {
            let definition =
                resolve(&definitions, Micros::EPOCH, definition).expect("every definition is complete");
            let change = definitions.change_to(&definition, Uuid::from_u128(1), "a tester", "a test");
            let verdict = definitions
                .apply(definitions.next_offset(), Micros::EPOCH, &change)
                .expect("the rule is known");
            verdict.unwrap_or_else(|refusal| panic!("{refusal}: {}", definition.to_json()));
        }
        let snapshot = Snapshot::compile(&definitions, &Lists::default(), Environment("production"));
        World { imported, definitions, snapshot }
    }

    /// Asks for the key. `None` if there is no such key, so that the caller takes its own default.
    pub fn ask(&self, key: &str, unit: &Unit, now: Micros) -> Option<Served> {
        let attributes: Vec<(Name<'_>, Attribute<'_>)> =
            unit.attributes.iter().map(|(name, value)| (Name::of(name), Attribute::Json(value))).collect();
        let context = Context { targeting_key: unit.targeting_key.as_deref(), attributes: &attributes };
        match evaluate(&self.snapshot, key, &context, now) {
            Ok(answer) => Some(Served { variant: answer.variant.to_string(), value: answer.value.clone() }),
            Err(EvaluationError::NotFound(_)) => None,
            Err(error) => panic!("{key}: {error}"),
        }
    }

    /// Whether a finding names the place, or one inside of it, as lost or changed.
    pub fn names(&self, path: &str) -> bool {
        self.has(path, |severity| severity != Severity::Note)
    }

    pub fn has_lost(&self, path: &str) -> bool {
        self.has(path, |severity| severity == Severity::Lost)
    }

    fn has(&self, path: &str, fits: impl Fn(Severity) -> bool) -> bool {
        let inside = |place: &String| {
            place.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let of_place =
            |finding: &&producer::import::Finding| inside(&finding.path) || finding.also.iter().any(inside);
        self.imported.findings.iter().filter(of_place).any(|finding| fits(finding.severity))
    }

    /// The document with this key.
    pub fn document(&self, key: &str) -> &Value {
        let found = self.imported.definitions.iter().find(|document| document["key"] == key);
        found.unwrap_or_else(|| panic!("there is no {key}"))
    }

    /// The share of units that get each variant, among units that differ by this attribute alone. The targeting key is one.
    pub fn distribution(&self, key: &str, unit: &Unit, attribute: &str, now: Micros) -> Vec<(String, f64)> {
        const UNITS: u32 = 20_000;
        let mut counts: Vec<(String, u32)> = Vec::new();
        for number in 0..UNITS {
            let mut unit = unit.clone();
            let id = format!("unit-{number}");
            match attribute {
                "targetingKey" => unit.targeting_key = Some(id),
                attribute => set(&mut unit.attributes, attribute, Value::from(id)),
            }
            let served = self.ask(key, &unit, now).unwrap_or_else(|| panic!("there is no {key}"));
            match counts.iter_mut().find(|(variant, _)| *variant == served.variant) {
                Some((_, count)) => *count += 1,
                None => counts.push((served.variant, 1)),
            }
        }
        counts.sort();
        counts.into_iter().map(|(variant, count)| (variant, f64::from(count) / f64::from(UNITS))).collect()
    }
}

/// Sets an attribute by its path.
fn set(attributes: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        Some((name, rest)) => {
            let inner = attributes.entry(name).or_insert_with(|| Value::Object(Map::new()));
            set(inner.as_object_mut().expect("the path leads through objects"), rest, value);
        }
        None => {
            attributes.insert(path.to_owned(), value);
        }
    }
}

/// Whether two values are the same, numbers by their value.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// Asserts that the shares are as expected, within four standard deviations of 20,000 draws at the most.
pub fn assert_shares(what: &str, shares: &[(String, f64)], expected: &[(&str, f64)]) {
    let named: Vec<&str> = shares.iter().map(|(variant, _)| variant.as_str()).collect();
    let mut wanted: Vec<&str> = expected.iter().map(|(variant, _)| *variant).collect();
    wanted.sort_unstable();
    assert_eq!(named, wanted, "{what}");
    for (variant, share) in shares {
        let expected = expected.iter().find(|(other, _)| other == variant).expect("the names are the same").1;
        assert!((share - expected).abs() < 0.015, "{what}: {variant} has {share}, not {expected}");
    }
}
