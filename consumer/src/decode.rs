//! From a message's bytes to what they hold. Which record belongs in which topic is settled here; what is
//! wrong with one that does not is a value, not a failure.

use schemas::avro::{self, DecodeError};
use schemas::definition::Change;
use schemas::{Alias, Conversion, Exposure, Micros, Uuid};

use crate::rows::Table;

/// What a message holds; texts are borrowed from its bytes.
pub enum Decoded<'a> {
    Exposure(Exposure<'a>),
    Conversion(Conversion<'a>),
    Alias(Alias<'a>),
    Change(Change),
}

pub fn decode(table: Table, bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    match table {
        Table::Exposures => avro::decode_exposure(bytes).map(Decoded::Exposure),
        Table::Conversions => avro::decode_conversion(bytes).map(Decoded::Conversion),
        Table::Aliases => avro::decode_alias(bytes).map(Decoded::Alias),
        Table::Definitions => avro::decode_change(bytes).map(Decoded::Change),
    }
}

impl Decoded<'_> {
    /// The event's identity and time; `None` for what is no event.
    pub fn identity(&self) -> Option<(Uuid, Micros)> {
        match self {
            Decoded::Exposure(exposure) => Some((exposure.event_id, exposure.created_at)),
            Decoded::Conversion(conversion) => Some((conversion.event_id, conversion.created_at)),
            Decoded::Alias(alias) => Some((alias.event_id, alias.created_at)),
            Decoded::Change(_) => None,
        }
    }
}
