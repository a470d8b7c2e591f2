//! Converts our events to the Avro library's values.

use apache_avro::Decimal;
use apache_avro::types::Value;
use schemas::{Alias, Buckets, Conversion, Event, Exposure, Pairs, Sender, Unit};

/// Returns the record as the library decodes it, with maps and optional fields in its own types.
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
        let Sender { service, instance, library_version } = sender;
        record(vec![
            ("service", text(service)),
            ("instance", text(instance)),
            ("library_version", text(library_version)),
        ])
    };
    let unit = |unit: &Unit<'_>| {
        let Unit { unit_type, unit_id } = unit;
        record(vec![("unit_type", text(unit_type)), ("unit_id", text(unit_id))])
    };
    match event {
        Event::Exposure(exposure) => {
            let Exposure {
                event_id,
                experiment,
                variant,
                unit_type,
                unit_id,
                other_ids,
                phase,
                definition_version,
                configuration_version,
                buckets,
                rule,
                reason,
                attributes,
                environment,
                sender: who,
                created_at,
            } = exposure;
            let buckets = buckets.map(|Buckets { slot, rollout, variant }| {
                record(vec![
                    ("slot", Value::Int(slot as i32)),
                    ("rollout", Value::Int(rollout as i32)),
                    ("variant", Value::Int(variant as i32)),
                ])
            });
            record(vec![
                ("event_id", Value::Uuid(*event_id)),
                ("experiment", text(experiment)),
                ("variant", text(variant)),
                ("unit_type", text(unit_type)),
                ("unit_id", text(unit_id)),
                ("other_ids", map(other_ids)),
                ("phase", Value::Int(*phase as i32)),
                ("definition_version", Value::Long(*definition_version as i64)),
                ("configuration_version", Value::Long(*configuration_version as i64)),
                ("buckets", optional(buckets)),
                ("rule", text(rule)),
                ("reason", text(reason.as_str())),
                ("attributes", map(attributes)),
                ("environment", text(environment)),
                ("sender", sender(who)),
                ("created_at", Value::TimestampMicros(created_at.get())),
            ])
        }
        Event::Conversion(conversion) => {
            let Conversion {
                event_id,
                name,
                unit_type,
                unit_id,
                other_ids,
                experiment,
                value,
                metadata,
                environment,
                sender: who,
                created_at,
            } = conversion;
            let value = value.map(|value| Value::Decimal(Decimal::from(value.millionths().to_be_bytes())));
            record(vec![
                ("event_id", Value::Uuid(*event_id)),
                ("name", text(name)),
                ("unit_type", text(unit_type)),
                ("unit_id", text(unit_id)),
                ("other_ids", map(other_ids)),
                ("experiment", optional(experiment.as_deref().map(text))),
                ("value", optional(value)),
                ("metadata", map(metadata)),
                ("environment", text(environment)),
                ("sender", sender(who)),
                ("created_at", Value::TimestampMicros(created_at.get())),
            ])
        }
        Event::Alias(Alias { event_id, from, to, environment, sender: who, created_at }) => record(vec![
            ("event_id", Value::Uuid(*event_id)),
            ("from", unit(from)),
            ("to", unit(to)),
            ("environment", text(environment)),
            ("sender", sender(who)),
            ("created_at", Value::TimestampMicros(created_at.get())),
        ]),
    }
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
