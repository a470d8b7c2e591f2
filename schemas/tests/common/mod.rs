//! Our events as the Avro library sees them.

use apache_avro::Decimal;
use apache_avro::types::Value;
use schemas::{Event, Pairs, Sender, Unit};

/// The record as the library sees it, with maps and optional fields in its own types.
pub fn value(event: &Event<'_>) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let map = |pairs: &Pairs<'_>| {
        Value::Map(
            pairs.iter().map(|(name, value)| (name.to_owned(), Value::String(value.to_owned()))).collect(),
        )
    };
    let optional = |value: Option<Value>| match value {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(value) => Value::Union(1, Box::new(value)),
    };
    let sender = |sender: &Sender<'_>| {
        Value::Record(vec![
            ("service".to_owned(), text(&sender.service)),
            ("instance".to_owned(), text(&sender.instance)),
            ("library_version".to_owned(), text(&sender.library_version)),
        ])
    };
    let unit = |unit: &Unit<'_>| {
        Value::Record(vec![
            ("unit_type".to_owned(), text(&unit.unit_type)),
            ("unit_id".to_owned(), text(&unit.unit_id)),
        ])
    };
    let fields = match event {
        Event::Exposure(e) => vec![
            ("event_id", Value::Uuid(e.event_id)),
            ("experiment", text(&e.experiment)),
            ("variant", text(&e.variant)),
            ("unit_type", text(&e.unit_type)),
            ("unit_id", text(&e.unit_id)),
            ("other_ids", map(&e.other_ids)),
            ("phase", Value::Int(e.phase as i32)),
            ("definition_version", Value::Long(e.definition_version as i64)),
            ("configuration_version", Value::Long(e.configuration_version as i64)),
            (
                "buckets",
                optional(e.buckets.map(|b| {
                    Value::Record(vec![
                        ("slot".to_owned(), Value::Int(b.slot as i32)),
                        ("rollout".to_owned(), Value::Int(b.rollout as i32)),
                        ("variant".to_owned(), Value::Int(b.variant as i32)),
                    ])
                })),
            ),
            ("rule", text(&e.rule)),
            ("reason", text(e.reason.as_str())),
            ("attributes", map(&e.attributes)),
            ("environment", text(&e.environment)),
            ("sender", sender(&e.sender)),
            ("created_at", Value::TimestampMicros(e.created_at.get())),
        ],
        Event::Conversion(c) => vec![
            ("event_id", Value::Uuid(c.event_id)),
            ("name", text(&c.name)),
            ("unit_type", text(&c.unit_type)),
            ("unit_id", text(&c.unit_id)),
            ("other_ids", map(&c.other_ids)),
            ("experiment", optional(c.experiment.as_deref().map(text))),
            ("value", optional(c.value.map(|v| Value::Decimal(Decimal::from(v.millionths().to_be_bytes()))))),
            ("metadata", map(&c.metadata)),
            ("environment", text(&c.environment)),
            ("sender", sender(&c.sender)),
            ("created_at", Value::TimestampMicros(c.created_at.get())),
        ],
        Event::Alias(a) => vec![
            ("event_id", Value::Uuid(a.event_id)),
            ("from", unit(&a.from)),
            ("to", unit(&a.to)),
            ("environment", text(&a.environment)),
            ("sender", sender(&a.sender)),
            ("created_at", Value::TimestampMicros(a.created_at.get())),
        ],
    };
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
