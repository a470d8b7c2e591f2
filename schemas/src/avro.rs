//! The records on the wire: Avro binary in single-object encoding (`C3 01`, the fingerprint of the writer's
//! schema, the body). The codec is written for our own four schemas and nothing else, since a generic one
//! costs the event path ten to fifty times as much; the library is the oracle in the tests.

use crate::definition::Change;
use crate::event::{Alias, Conversion, EVENT_BYTES_MAX, Event, Exposure, OutOfRange};

mod read;
mod records;
mod write;

use read::Reader;

pub const EXPOSURE_SCHEMA: &str = include_str!("../avro/exposure.avsc");
pub const CONVERSION_SCHEMA: &str = include_str!("../avro/conversion.avsc");
pub const ALIAS_SCHEMA: &str = include_str!("../avro/alias.avsc");
pub const DEFINITION_CHANGE_SCHEMA: &str = include_str!("../avro/definition_change.avsc");

/// CRC-64-AVRO of the schema's parsing canonical form, as the single-object header carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub const EXPOSURE: Fingerprint = Fingerprint(0xb3a2_1e72_a0d9_e276);
    pub const CONVERSION: Fingerprint = Fingerprint(0xb54a_a7c0_7c04_449f);
    pub const ALIAS: Fingerprint = Fingerprint(0x32fe_5cc7_49ff_ec4c);
    pub const DEFINITION_CHANGE: Fingerprint = Fingerprint(0xc1ce_61a6_dc0c_77f2);
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

const MARKER: [u8; 2] = [0xC3, 0x01];
const HEADER_BYTES: usize = 10;

/// Why bytes are not a record. Each is a property of the bytes alone: reading them again gives the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("empty message")]
    Empty,
    #[error("{bytes} bytes, more than {EVENT_BYTES_MAX}")]
    Oversize { bytes: usize },
    #[error("no single-object header: the message begins with {start}, not c301 and a fingerprint")]
    NotFramed { start: String },
    #[error("written with the unknown schema {fingerprint}")]
    UnknownSchema { fingerprint: Fingerprint },
    #[error("holds {found}, which does not belong in this topic")]
    WrongRecord { found: &'static str },
    #[error("ends inside `{field}`, at byte {at}")]
    Truncated { field: &'static str, at: usize },
    #[error("{extra} bytes follow the record")]
    Trailing { extra: usize },
    #[error("`{field}`: {what}, at byte {at}")]
    Malformed { field: &'static str, what: &'static str, at: usize },
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl DecodeError {
    /// A word for counters and for the dead letter's `code` header.
    pub fn code(&self) -> &'static str {
        match self {
            DecodeError::Empty => "empty",
            DecodeError::Oversize { .. } => "oversize",
            DecodeError::NotFramed { .. } => "not_framed",
            DecodeError::UnknownSchema { .. } => "unknown_schema",
            DecodeError::WrongRecord { .. } => "wrong_record",
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::Trailing { .. } => "trailing",
            DecodeError::Malformed { .. } => "malformed",
            DecodeError::OutOfRange(_) => "out_of_range",
        }
    }
}

/// The bytes of an event. It must have passed [`Event::check`]; whatever it holds, the bytes say the same.
pub fn encode(event: &Event<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    match event {
        Event::Exposure(exposure) => {
            header(&mut bytes, Fingerprint::EXPOSURE);
            records::write_exposure(&mut bytes, exposure);
        }
        Event::Conversion(conversion) => {
            header(&mut bytes, Fingerprint::CONVERSION);
            records::write_conversion(&mut bytes, conversion);
        }
        Event::Alias(alias) => {
            header(&mut bytes, Fingerprint::ALIAS);
            records::write_alias(&mut bytes, alias);
        }
    }
    bytes
}

/// An exposure with every field in its range, borrowing its texts from `bytes`.
pub fn decode_exposure(bytes: &[u8]) -> Result<Exposure<'_>, DecodeError> {
    let exposure = body(bytes, Fingerprint::EXPOSURE, records::read_exposure)?;
    exposure.check()?;
    Ok(exposure)
}

/// A conversion with every field in its range, borrowing its texts from `bytes`.
pub fn decode_conversion(bytes: &[u8]) -> Result<Conversion<'_>, DecodeError> {
    let conversion = body(bytes, Fingerprint::CONVERSION, records::read_conversion)?;
    conversion.check()?;
    Ok(conversion)
}

/// An alias with every field in its range, borrowing its texts from `bytes`.
pub fn decode_alias(bytes: &[u8]) -> Result<Alias<'_>, DecodeError> {
    let alias = body(bytes, Fingerprint::ALIAS, records::read_alias)?;
    alias.check()?;
    Ok(alias)
}

/// The bytes of a proposed change of a definition.
pub fn encode_change(change: &Change) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    header(&mut bytes, Fingerprint::DEFINITION_CHANGE);
    records::write_change(&mut bytes, change);
    bytes
}

/// A proposed change; whether it is allowed is another question, the log's.
pub fn decode_change(bytes: &[u8]) -> Result<Change, DecodeError> {
    body(bytes, Fingerprint::DEFINITION_CHANGE, records::read_change)
}

fn header(bytes: &mut Vec<u8>, fingerprint: Fingerprint) {
    bytes.extend_from_slice(&MARKER);
    bytes.extend_from_slice(&fingerprint.0.to_le_bytes());
}

fn body<'a, T>(
    bytes: &'a [u8],
    expected: Fingerprint,
    read: fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > EVENT_BYTES_MAX && expected != Fingerprint::DEFINITION_CHANGE {
        return Err(DecodeError::Oversize { bytes: bytes.len() });
    }
    let Some((&[first, second, f0, f1, f2, f3, f4, f5, f6, f7], _)) =
        bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return Err(not_framed(bytes));
    };
    if [first, second] != MARKER {
        return Err(not_framed(bytes));
    }
    let fingerprint = Fingerprint(u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]));
    if fingerprint != expected {
        return Err(match record_name(fingerprint) {
            Some(found) => DecodeError::WrongRecord { found },
            None => DecodeError::UnknownSchema { fingerprint },
        });
    }
    let mut reader = Reader::new(bytes, HEADER_BYTES);
    let record = read(&mut reader)?;
    match reader.remaining() {
        0 => Ok(record),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

fn not_framed(bytes: &[u8]) -> DecodeError {
    let start = bytes.iter().take(HEADER_BYTES).map(|byte| format!("{byte:02x}")).collect();
    DecodeError::NotFramed { start }
}

fn record_name(fingerprint: Fingerprint) -> Option<&'static str> {
    match fingerprint {
        Fingerprint::EXPOSURE => Some("an exposure"),
        Fingerprint::CONVERSION => Some("a conversion"),
        Fingerprint::ALIAS => Some("an alias"),
        Fingerprint::DEFINITION_CHANGE => Some("a change of a definition"),
        _ => None,
    }
}
