//! From a message's bytes to the record that its topic holds. A message that cannot be decoded is an error value
//! with a code for its dead letter, not a failure of the consumer.

use schemas::avro::{self, AvroRecord, WrittenWith};
use schemas::definition::Change;
use schemas::look::LookRecord;
use schemas::{Alias, Conversion, Exposure, Micros, Uuid};

use crate::pipeline::rows::Table;
use crate::pipeline::schema_cache::{PlanError, Plans};

/// The record of a message. Its texts are borrowed from the message's bytes.
pub enum Decoded<'a> {
    Exposure(Exposure<'a>),
    Conversion(Conversion<'a>),
    Alias(Alias<'a>),
    Change(Change),
    Look(LookRecord),
}

/// # Errors
/// `Undecodable` for a dead letter, `Unavailable` for a message that has to wait until the registry answers.
#[inline]
pub fn decode<'a>(table: Table, bytes: &'a [u8], plans: &mut Plans) -> Result<Decoded<'a>, PlanError> {
    match table {
        Table::Exposures => event(bytes, plans).map(Decoded::Exposure),
        Table::Conversions => event(bytes, plans).map(Decoded::Conversion),
        Table::Aliases => event(bytes, plans).map(Decoded::Alias),
        // Only our own tools write the logs. Every reader reads them without a registry.
        Table::Definitions => Ok(Decoded::Change(avro::decode_change(bytes)?)),
        Table::Looks => Ok(Decoded::Look(avro::decode_look(bytes)?)),
    }
}

#[inline]
fn event<'a, T: AvroRecord<'a>>(bytes: &'a [u8], plans: &mut Plans) -> Result<T, PlanError> {
    let (schema, body) = avro::open(T::KIND, bytes)?;
    Ok(match schema {
        WrittenWith::Fingerprint(fingerprint) => avro::known(T::KIND, fingerprint)?.decode(body)?,
        WrittenWith::RegistryId(id) => plans.plan(T::KIND, id)?.decode(body)?,
    })
}

impl Decoded<'_> {
    /// The id by which it is recognized, and its creation time. A record of a log has no creation time; it counts
    /// as older than any window, so that the table is asked.
    pub fn identity(&self) -> (Uuid, Micros) {
        match self {
            Decoded::Exposure(exposure) => (exposure.event_id, exposure.created_at),
            Decoded::Conversion(conversion) => (conversion.event_id, conversion.created_at),
            Decoded::Alias(alias) => (alias.event_id, alias.created_at),
            Decoded::Change(change) => (change.change_id, Micros::EPOCH),
            Decoded::Look(record) => (record.look_id, Micros::EPOCH),
        }
    }
}
