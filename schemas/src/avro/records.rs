//! The four records, field by field in the order of their schemas; each `write_` stands beside its `read_`.

use std::borrow::Cow;

use uuid::Uuid;

use super::read::Reader;
use super::{DecodeError, write};
use crate::definition::Change;
use crate::event::{Alias, Buckets, Conversion, Exposure, Sender, Unit};
use crate::time::Micros;

pub fn write_exposure(bytes: &mut Vec<u8>, exposure: &Exposure<'_>) {
    write_uuid(bytes, exposure.event_id);
    write::text(bytes, &exposure.experiment);
    write::text(bytes, &exposure.variant);
    write::text(bytes, &exposure.unit_type);
    write::text(bytes, &exposure.unit_id);
    write::map(bytes, &exposure.other_ids);
    write::long(bytes, exposure.phase.into());
    write::long(bytes, exposure.definition_version as i64);
    match exposure.buckets {
        None => write::long(bytes, 0),
        Some(buckets) => {
            write::long(bytes, 1);
            write::long(bytes, buckets.slot.into());
            write::long(bytes, buckets.rollout.into());
            write::long(bytes, buckets.variant.into());
        }
    }
    write::text(bytes, &exposure.rule);
    write::map(bytes, &exposure.attributes);
    write::text(bytes, &exposure.environment);
    write_sender(bytes, &exposure.sender);
    write::long(bytes, exposure.created_at.get());
}

pub fn read_exposure<'a>(reader: &mut Reader<'a>) -> Result<Exposure<'a>, DecodeError> {
    Ok(Exposure {
        event_id: read_uuid(reader, "event_id")?,
        experiment: reader.text("experiment")?,
        variant: reader.text("variant")?,
        unit_type: reader.text("unit_type")?,
        unit_id: reader.text("unit_id")?,
        other_ids: reader.map("other_ids")?,
        phase: reader.unsigned("phase")?,
        definition_version: reader.unsigned("definition_version")?,
        buckets: match reader.branch("buckets", 2)? {
            0 => None,
            _ => Some(Buckets {
                slot: reader.unsigned("buckets.slot")?,
                rollout: reader.unsigned("buckets.rollout")?,
                variant: reader.unsigned("buckets.variant")?,
            }),
        },
        rule: reader.text("rule")?,
        attributes: reader.map("attributes")?,
        environment: reader.text("environment")?,
        sender: read_sender(reader)?,
        created_at: read_time(reader, "created_at")?,
    })
}

pub fn write_conversion(bytes: &mut Vec<u8>, conversion: &Conversion<'_>) {
    write_uuid(bytes, conversion.event_id);
    write::text(bytes, &conversion.name);
    write::text(bytes, &conversion.unit_type);
    write::text(bytes, &conversion.unit_id);
    write::map(bytes, &conversion.other_ids);
    match &conversion.experiment {
        None => write::long(bytes, 0),
        Some(experiment) => {
            write::long(bytes, 1);
            write::text(bytes, experiment);
        }
    }
    match conversion.value {
        None => write::long(bytes, 0),
        Some(value) => {
            write::long(bytes, 1);
            write::decimal(bytes, value);
        }
    }
    write::map(bytes, &conversion.metadata);
    write::text(bytes, &conversion.environment);
    write_sender(bytes, &conversion.sender);
    write::long(bytes, conversion.created_at.get());
}

pub fn read_conversion<'a>(reader: &mut Reader<'a>) -> Result<Conversion<'a>, DecodeError> {
    Ok(Conversion {
        event_id: read_uuid(reader, "event_id")?,
        name: reader.text("name")?,
        unit_type: reader.text("unit_type")?,
        unit_id: reader.text("unit_id")?,
        other_ids: reader.map("other_ids")?,
        experiment: match reader.branch("experiment", 2)? {
            0 => None,
            _ => Some(reader.text("experiment")?),
        },
        value: match reader.branch("value", 2)? {
            0 => None,
            _ => Some(reader.decimal("value")?),
        },
        metadata: reader.map("metadata")?,
        environment: reader.text("environment")?,
        sender: read_sender(reader)?,
        created_at: read_time(reader, "created_at")?,
    })
}

pub fn write_alias(bytes: &mut Vec<u8>, alias: &Alias<'_>) {
    write_uuid(bytes, alias.event_id);
    write_unit(bytes, &alias.from);
    write_unit(bytes, &alias.to);
    write::text(bytes, &alias.environment);
    write_sender(bytes, &alias.sender);
    write::long(bytes, alias.created_at.get());
}

pub fn read_alias<'a>(reader: &mut Reader<'a>) -> Result<Alias<'a>, DecodeError> {
    Ok(Alias {
        event_id: read_uuid(reader, "event_id")?,
        from: Unit { unit_type: reader.text("from.unit_type")?, unit_id: reader.text("from.unit_id")? },
        to: Unit { unit_type: reader.text("to.unit_type")?, unit_id: reader.text("to.unit_id")? },
        environment: reader.text("environment")?,
        sender: read_sender(reader)?,
        created_at: read_time(reader, "created_at")?,
    })
}

pub fn write_change(bytes: &mut Vec<u8>, change: &Change) {
    write_uuid(bytes, change.change_id);
    write::long(bytes, change.rule_version.into());
    write::text(bytes, &change.kind);
    write::text(bytes, &change.key);
    write::long(bytes, change.based_on as i64);
    write::text(bytes, &change.definition);
    write::text(bytes, &change.author);
    write::text(bytes, &change.reason);
}

pub fn read_change(reader: &mut Reader<'_>) -> Result<Change, DecodeError> {
    Ok(Change {
        change_id: read_uuid(reader, "change_id")?,
        rule_version: reader.unsigned("rule_version")?,
        kind: reader.text("kind")?.into_owned(),
        key: reader.text("key")?.into_owned(),
        based_on: reader.unsigned("based_on")?,
        definition: reader.text("definition")?.into_owned(),
        author: reader.text("author")?.into_owned(),
        reason: reader.text("reason")?.into_owned(),
    })
}

fn write_uuid(bytes: &mut Vec<u8>, uuid: Uuid) {
    write::text(bytes, uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

fn read_uuid(reader: &mut Reader<'_>, field: &'static str) -> Result<Uuid, DecodeError> {
    let text = reader.bytes(field)?;
    Uuid::try_parse_ascii(text).map_err(|_| reader.malformed(field, "not a UUID"))
}

fn write_unit(bytes: &mut Vec<u8>, unit: &Unit<'_>) {
    write::text(bytes, &unit.unit_type);
    write::text(bytes, &unit.unit_id);
}

fn write_sender(bytes: &mut Vec<u8>, sender: &Sender<'_>) {
    write::text(bytes, &sender.service);
    write::text(bytes, &sender.instance);
    write::text(bytes, &sender.library_version);
}

fn read_sender<'a>(reader: &mut Reader<'a>) -> Result<Sender<'a>, DecodeError> {
    let service: Cow<'a, str> = reader.text("sender.service")?;
    let instance = reader.text("sender.instance")?;
    let library_version = reader.text("sender.library_version")?;
    Ok(Sender { service, instance, library_version })
}

fn read_time(reader: &mut Reader<'_>, field: &'static str) -> Result<Micros, DecodeError> {
    let micros = reader.long(field)?;
    Micros::new(micros).map_err(|_| reader.malformed(field, "not a time in 1970 to 2261"))
}
