//! Writes and reads the five records, field by field in the order of their schemas.

use uuid::Uuid;

use super::source::{Number, Source};
use super::{AvroRecord, Body, DecodeError, RecordKind, quick, write};
use crate::definition::Change;
use crate::event::{
    Alias, Buckets, Conversion, Exposure, OutOfRange, Pairs, Reason, Sender, Unit, cut_values,
};
use crate::look::LookRecord;
use crate::time::Micros;

/// How many characters of an unknown reason an error quotes.
const REASON_QUOTED_MAX: usize = 80;

pub fn write_exposure(bytes: &mut Vec<u8>, exposure: &Exposure<'_>) {
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
        sender,
        created_at,
    } = exposure;
    write_uuid(bytes, *event_id);
    write::text(bytes, experiment);
    write::text(bytes, variant);
    write::text(bytes, unit_type);
    write::text(bytes, unit_id);
    write::map(bytes, other_ids);
    write::long(bytes, (*phase).into());
    write::long(bytes, *definition_version as i64);
    write::long(bytes, *configuration_version as i64);
    match *buckets {
        None => write::long(bytes, 0),
        Some(Buckets { slot, rollout, variant }) => {
            write::long(bytes, 1);
            write::long(bytes, slot.into());
            write::long(bytes, rollout.into());
            write::long(bytes, variant.into());
        }
    }
    write::text(bytes, rule);
    write::text(bytes, reason.as_str());
    write::map(bytes, attributes);
    write::text(bytes, environment);
    write_sender(bytes, sender);
    write::long(bytes, created_at.get());
}

impl<'a> AvroRecord<'a> for Exposure<'a> {
    const KIND: RecordKind = RecordKind::Exposure;

    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError> {
        Ok(Exposure {
            event_id: source.uuid("event_id")?,
            experiment: source.text("experiment")?,
            variant: source.text("variant")?,
            unit_type: source.text("unit_type")?,
            unit_id: source.text("unit_id")?,
            other_ids: source.map("other_ids")?,
            phase: source.unsigned("phase")?,
            definition_version: source.unsigned("definition_version")?,
            configuration_version: source.unsigned("configuration_version")?,
            buckets: match source.present("buckets")? {
                false => None,
                true => Some(Buckets {
                    slot: source.unsigned("buckets.slot")?,
                    rollout: source.unsigned("buckets.rollout")?,
                    variant: source.unsigned("buckets.variant")?,
                }),
            },
            rule: source.text("rule")?,
            reason: read_reason(source)?,
            attributes: read_attributes(source)?,
            environment: source.text("environment")?,
            sender: read_sender(source)?,
            created_at: read_time(source, "created_at")?,
        })
    }

    fn read_quickly(body: Body<'a>) -> Option<Self> {
        quick::exposure(body)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        Exposure::check(self)
    }
}

pub fn write_conversion(bytes: &mut Vec<u8>, conversion: &Conversion<'_>) {
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
        sender,
        created_at,
    } = conversion;
    write_uuid(bytes, *event_id);
    write::text(bytes, name);
    write::text(bytes, unit_type);
    write::text(bytes, unit_id);
    write::map(bytes, other_ids);
    match experiment {
        None => write::long(bytes, 0),
        Some(experiment) => {
            write::long(bytes, 1);
            write::text(bytes, experiment);
        }
    }
    match *value {
        None => write::long(bytes, 0),
        Some(value) => {
            write::long(bytes, 1);
            write::decimal(bytes, value);
        }
    }
    write::map(bytes, metadata);
    write::text(bytes, environment);
    write_sender(bytes, sender);
    write::long(bytes, created_at.get());
}

impl<'a> AvroRecord<'a> for Conversion<'a> {
    const KIND: RecordKind = RecordKind::Conversion;

    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError> {
        Ok(Conversion {
            event_id: source.uuid("event_id")?,
            name: source.text("name")?,
            unit_type: source.text("unit_type")?,
            unit_id: source.text("unit_id")?,
            other_ids: source.map("other_ids")?,
            experiment: match source.present("experiment")? {
                false => None,
                true => Some(source.text("experiment")?),
            },
            value: match source.present("value")? {
                false => None,
                true => Some(source.decimal("value")?),
            },
            metadata: source.map("metadata")?,
            environment: source.text("environment")?,
            sender: read_sender(source)?,
            created_at: read_time(source, "created_at")?,
        })
    }

    fn read_quickly(body: Body<'a>) -> Option<Self> {
        quick::conversion(body)
    }

    fn check(&self) -> Result<(), OutOfRange> {
        Conversion::check(self)
    }
}

pub fn write_alias(bytes: &mut Vec<u8>, alias: &Alias<'_>) {
    let Alias { event_id, from, to, environment, sender, created_at } = alias;
    write_uuid(bytes, *event_id);
    write_unit(bytes, from);
    write_unit(bytes, to);
    write::text(bytes, environment);
    write_sender(bytes, sender);
    write::long(bytes, created_at.get());
}

impl<'a> AvroRecord<'a> for Alias<'a> {
    const KIND: RecordKind = RecordKind::Alias;

    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError> {
        Ok(Alias {
            event_id: source.uuid("event_id")?,
            from: Unit { unit_type: source.text("from.unit_type")?, unit_id: source.text("from.unit_id")? },
            to: Unit { unit_type: source.text("to.unit_type")?, unit_id: source.text("to.unit_id")? },
            environment: source.text("environment")?,
            sender: read_sender(source)?,
            created_at: read_time(source, "created_at")?,
        })
    }

    fn check(&self) -> Result<(), OutOfRange> {
        Alias::check(self)
    }
}

pub fn write_change(bytes: &mut Vec<u8>, change: &Change) {
    let Change { change_id, rule_version, kind, key, based_on, definition, author, reason } = change;
    write_uuid(bytes, *change_id);
    write::long(bytes, (*rule_version).into());
    write::text(bytes, kind);
    write::text(bytes, key);
    write::long(bytes, *based_on as i64);
    write::text(bytes, definition);
    write::text(bytes, author);
    write::text(bytes, reason);
}

impl<'a> AvroRecord<'a> for Change {
    const KIND: RecordKind = RecordKind::DefinitionChange;

    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError> {
        Ok(Change {
            change_id: source.uuid("change_id")?,
            rule_version: source.unsigned("rule_version")?,
            kind: source.text("kind")?.into_owned(),
            key: source.text("key")?.into_owned(),
            based_on: source.unsigned("based_on")?,
            definition: source.text("definition")?.into_owned(),
            author: source.text("author")?.into_owned(),
            reason: source.text("reason")?.into_owned(),
        })
    }

    /// No check: the log decides whether a change is accepted.
    fn check(&self) -> Result<(), OutOfRange> {
        Ok(())
    }
}

pub fn write_look(bytes: &mut Vec<u8>, record: &LookRecord) {
    let LookRecord { look_id, rule_version, experiment, number, based_on, look } = record;
    write_uuid(bytes, *look_id);
    write::long(bytes, (*rule_version).into());
    write::text(bytes, experiment);
    write::long(bytes, (*number).into());
    write::long(bytes, *based_on as i64);
    write::text(bytes, look);
}

impl<'a> AvroRecord<'a> for LookRecord {
    const KIND: RecordKind = RecordKind::Look;

    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError> {
        Ok(LookRecord {
            look_id: source.uuid("look_id")?,
            rule_version: source.unsigned("rule_version")?,
            experiment: source.text("experiment")?.into_owned(),
            number: source.unsigned("number")?,
            based_on: source.unsigned("based_on")?,
            look: source.text("look")?.into_owned(),
        })
    }

    /// No check: the log decides whether a look counts.
    fn check(&self) -> Result<(), OutOfRange> {
        Ok(())
    }
}

fn write_uuid(bytes: &mut Vec<u8>, uuid: Uuid) {
    write::text(bytes, uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

fn write_unit(bytes: &mut Vec<u8>, unit: &Unit<'_>) {
    let Unit { unit_type, unit_id } = unit;
    write::text(bytes, unit_type);
    write::text(bytes, unit_id);
}

fn write_sender(bytes: &mut Vec<u8>, sender: &Sender<'_>) {
    let Sender { service, instance, library_version } = sender;
    write::text(bytes, service);
    write::text(bytes, instance);
    write::text(bytes, library_version);
}

fn read_sender<'a>(source: &mut impl Source<'a>) -> Result<Sender<'a>, DecodeError> {
    let service = source.text("sender.service")?;
    let instance = source.text("sender.instance")?;
    let library_version = source.text("sender.library_version")?;
    Ok(Sender { service, instance, library_version })
}

fn read_reason<'a>(source: &mut impl Source<'a>) -> Result<Reason, DecodeError> {
    let reason = source.text("reason")?;
    Reason::parse(&reason).ok_or_else(|| DecodeError::UnknownReason {
        reason: reason.chars().take(REASON_QUOTED_MAX).collect(),
    })
}

/// Reads the attributes. Values that are too long are cut: they must not lead to refusing the exposure.
fn read_attributes<'a>(source: &mut impl Source<'a>) -> Result<Pairs<'a>, DecodeError> {
    let mut attributes = source.map("attributes")?;
    cut_values(&mut attributes);
    Ok(attributes)
}

fn read_time<'a>(source: &mut impl Source<'a>, field: &'static str) -> Result<Micros, DecodeError> {
    let Number { value, at } = source.number(field)?;
    Micros::new(value).map_err(|_| DecodeError::Malformed { field, what: "not a time in 1970 to 2261", at })
}
