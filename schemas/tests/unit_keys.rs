//! Compares the keys of units with test vectors from another implementation.

use schemas::{Alias, Conversion, Exposure, Pairs, Unit, UnitKey};
use serde::Deserialize;

const VECTORS: &str = include_str!("../vectors/unit_key.json");

#[derive(Deserialize)]
struct Vectors {
    version: u32,
    units: Vec<UnitVector>,
    events: Vec<EventVector>,
}

#[derive(Deserialize)]
struct UnitVector {
    unit_type: String,
    unit_id: String,
    key: String,
}

#[derive(Deserialize)]
struct EventVector {
    unit_type: String,
    unit_id: String,
    other_ids: Pairs<'static>,
    unit_key: String,
    carried_keys: Vec<String>,
}

fn vectors() -> Vectors {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert_eq!((vectors.version, vectors.units.len(), vectors.events.len()), (1, 25, 6));
    vectors
}

#[test]
fn every_unit_has_its_key() {
    for UnitVector { unit_type, unit_id, key } in vectors().units {
        assert_eq!(UnitKey::of(&unit_type, &unit_id).to_string(), key, "{unit_type} {unit_id}");
    }
}

#[test]
fn an_event_has_the_key_of_its_unit_and_the_keys_of_its_other_ids_in_their_order() {
    for EventVector { unit_type, unit_id, other_ids, unit_key, carried_keys } in vectors().events {
        let unit = Unit { unit_type: unit_type.as_str().into(), unit_id: unit_id.as_str().into() };
        let mut exposure = exposure();
        exposure.unit_type = unit.unit_type.clone();
        exposure.unit_id = unit.unit_id.clone();
        exposure.other_ids = other_ids.clone();
        let mut conversion = conversion();
        conversion.unit_type = unit.unit_type.clone();
        conversion.unit_id = unit.unit_id.clone();
        conversion.other_ids = other_ids;
        assert_eq!(exposure.check().and(conversion.check()), Ok(()));
        assert_eq!(exposure.unit_key().to_string(), unit_key);
        assert_eq!(conversion.unit_key().to_string(), unit_key);
        assert_eq!(exposure.carried_keys().map(|key| key.to_string()).collect::<Vec<_>>(), carried_keys);
        assert_eq!(conversion.carried_keys().map(|key| key.to_string()).collect::<Vec<_>>(), carried_keys);
        let alias = Alias { from: unit.clone(), ..alias() };
        assert_eq!((alias.from_unit_key(), alias.to_unit_key()), (unit.key(), UnitKey::of("user", "u1")));
    }
}

fn exposure() -> Exposure<'static> {
    let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "a",
        "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#;
    serde_json::from_str(json).unwrap()
}

fn conversion() -> Conversion<'static> {
    let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000002", "name": "buy", "unit_type": "user",
        "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#;
    serde_json::from_str(json).unwrap()
}

fn alias() -> Alias<'static> {
    let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000003",
        "from": {"unit_type": "device", "unit_id": "d1"}, "to": {"unit_type": "user", "unit_id": "u1"},
        "created_at": "2026-01-01T00:00:00Z"}"#;
    serde_json::from_str(json).unwrap()
}
