//! The records on the wire: Avro binary after a reference to the writer's schema. The Avro library parses and
//! fingerprints schemas. The codec is written for our own five records, because a generic one costs the event
//! path ten to fifty times as much: a record written with our own schema is read directly from the bytes, and
//! any other writer's schema is compiled once into a [`Plan`]. This module does not fetch schemas. The tests
//! compare it with the library's reader and writer.

use crate::definition::Change;
use crate::event::{Alias, Conversion, EVENT_BYTES_MAX, Event, Exposure, OutOfRange, Reason};
use crate::look::LookRecord;

mod framing;
mod kind;
mod plan;
mod quick;
mod read;
mod records;
mod schema;
mod source;
mod write;

pub use framing::WrittenWith;
pub use kind::RecordKind;
pub use plan::{Body, Plan};
pub use schema::SCHEMA_BYTES_MAX;

use framing::unframe;
use source::Source;

pub const EXPOSURE_SCHEMA: &str = include_str!("../avro/exposure.avsc");
/// The first version of the exposure schema; see [`known`].
pub const EXPOSURE_SCHEMA_1: &str = include_str!("../avro/exposure_1.avsc");
pub const CONVERSION_SCHEMA: &str = include_str!("../avro/conversion.avsc");
pub const ALIAS_SCHEMA: &str = include_str!("../avro/alias.avsc");
pub const DEFINITION_CHANGE_SCHEMA: &str = include_str!("../avro/definition_change.avsc");
pub const LOOK_SCHEMA: &str = include_str!("../avro/look.avsc");

/// The CRC-64-AVRO of a schema's parsing canonical form, as in the header of single-object encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub const EXPOSURE: Fingerprint = Fingerprint(0xeb14_fc79_cbf4_33ec);
    pub const EXPOSURE_1: Fingerprint = Fingerprint(0xb3a2_1e72_a0d9_e276);
    pub const CONVERSION: Fingerprint = Fingerprint(0xb54a_a7c0_7c04_449f);
    pub const ALIAS: Fingerprint = Fingerprint(0x32fe_5cc7_49ff_ec4c);
    pub const DEFINITION_CHANGE: Fingerprint = Fingerprint(0xc1ce_61a6_dc0c_77f2);
    pub const LOOK: Fingerprint = Fingerprint(0x72bd_c525_7a07_ae7c);
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// One of the five records, read field by field.
pub trait AvroRecord<'a>: Sized + sealed::Sealed {
    const KIND: RecordKind;

    #[doc(hidden)]
    #[allow(private_bounds)]
    fn read<S: Source<'a>>(source: &mut S) -> Result<Self, DecodeError>;

    /// A faster [`Self::read`] for the usual message. `None` leaves the message, valid or not, to
    /// [`Self::read`].
    #[doc(hidden)]
    fn read_quickly(_body: Body<'a>) -> Option<Self> {
        None
    }

    #[doc(hidden)]
    fn check(&self) -> Result<(), OutOfRange>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Exposure<'_> {}
    impl Sealed for super::Conversion<'_> {}
    impl Sealed for super::Alias<'_> {}
    impl Sealed for super::Change {}
    impl Sealed for super::LookRecord {}
}

/// Why records of a writer's schema cannot be read as one of ours. It depends on the two schemas alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncompatibleSchema {
    #[error("not a schema: {what}")]
    NotASchema { what: String },
    #[error("`{field}`: {what}")]
    Field { field: String, what: String },
    /// The schema names types of other schemas, and these cannot be used together.
    #[error("its references: {what}")]
    References { what: String },
}

/// Why bytes are not a record. It depends on the bytes alone: reading them again gives the same error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("empty message")]
    Empty,
    #[error("{bytes} bytes, more than {EVENT_BYTES_MAX}")]
    Oversize { bytes: usize },
    #[error(
        "names no schema: begins with {start}, not with c301 and a fingerprint, nor with 00 and a number"
    )]
    NotFramed { start: String },
    #[error("written with the unknown schema {fingerprint}")]
    UnknownSchema { fingerprint: Fingerprint },
    #[error("written with schema {id} of a registry, {what}")]
    UnknownId { id: u32, what: &'static str },
    #[error(
        "written with schema {id} of a registry, which names {name:?} of version {version} of the subject \
         {subject:?}, and the registry does not have that"
    )]
    UnknownReference { id: u32, name: String, subject: String, version: i32 },
    #[error("written with schema {id} of the registry, which does not fit: {source}")]
    Incompatible { id: u32, source: IncompatibleSchema },
    #[error("holds {found}, which does not belong in this topic")]
    WrongRecord { found: &'static str },
    #[error("ends inside `{field}`, at byte {at}")]
    Truncated { field: &'static str, at: usize },
    #[error("{extra} bytes follow the record")]
    Trailing { extra: usize },
    #[error("`{field}`: {what}, at byte {at}")]
    Malformed { field: &'static str, what: &'static str, at: usize },
    /// The reason comes from a newer writer, or is invalid: this build does not know how to count it.
    #[error("exposed for the unknown reason `{reason}`; known are {}", Reason::NAMES.join(", "))]
    UnknownReason { reason: String },
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

impl DecodeError {
    /// Returns the code of the error, for counters and for the dead letter's `code` header.
    pub fn code(&self) -> &'static str {
        match self {
            DecodeError::Empty => "empty",
            DecodeError::Oversize { .. } => "oversize",
            DecodeError::NotFramed { .. } => "not_framed",
            DecodeError::UnknownSchema { .. }
            | DecodeError::UnknownId { .. }
            | DecodeError::UnknownReference { .. } => "unknown_schema",
            DecodeError::Incompatible { .. } => "incompatible_schema",
            DecodeError::WrongRecord { .. } => "wrong_record",
            DecodeError::Truncated { .. } => "truncated",
            DecodeError::Trailing { .. } => "trailing",
            DecodeError::Malformed { .. } => "malformed",
            DecodeError::UnknownReason { .. } => "unknown_reason",
            DecodeError::OutOfRange(_) => "out_of_range",
        }
    }
}

/// Encodes an event, framed with the fingerprint of our own schema. The event must have passed
/// [`Event::check`]; then the bytes decode to the same event.
pub fn encode(event: &Event<'_>) -> Vec<u8> {
    encode_with(event, WrittenWith::Fingerprint(kind_of(event).fingerprint()))
}

/// Encodes an event, framed with any reference to our own schema, such as its id in a registry.
pub fn encode_with(event: &Event<'_>, schema: WrittenWith) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    schema.write(&mut bytes);
    match event {
        Event::Exposure(exposure) => records::write_exposure(&mut bytes, exposure),
        Event::Conversion(conversion) => records::write_conversion(&mut bytes, conversion),
        Event::Alias(alias) => records::write_alias(&mut bytes, alias),
    }
    bytes
}

fn kind_of(event: &Event<'_>) -> RecordKind {
    match event {
        Event::Exposure(_) => RecordKind::Exposure,
        Event::Conversion(_) => RecordKind::Conversion,
        Event::Alias(_) => RecordKind::Alias,
    }
}

/// Decodes an exposure with every field in its range; its texts are borrowed from `bytes`. See [`decode`].
pub fn decode_exposure(bytes: &[u8]) -> Result<Exposure<'_>, DecodeError> {
    decode(bytes)
}

/// Decodes a conversion with every field in its range; its texts are borrowed from `bytes`. See [`decode`].
pub fn decode_conversion(bytes: &[u8]) -> Result<Conversion<'_>, DecodeError> {
    decode(bytes)
}

/// Decodes an alias with every field in its range; its texts are borrowed from `bytes`. See [`decode`].
pub fn decode_alias(bytes: &[u8]) -> Result<Alias<'_>, DecodeError> {
    decode(bytes)
}

/// Encodes a proposed change of a definition.
pub fn encode_change(change: &Change) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    WrittenWith::Fingerprint(Fingerprint::DEFINITION_CHANGE).write(&mut bytes);
    records::write_change(&mut bytes, change);
    bytes
}

/// Decodes a proposed change. Whether it is accepted is decided by [`crate::definition::Definitions`].
pub fn decode_change(bytes: &[u8]) -> Result<Change, DecodeError> {
    decode(bytes)
}

/// Encodes a proposed look.
pub fn encode_look(record: &LookRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4_096);
    WrittenWith::Fingerprint(Fingerprint::LOOK).write(&mut bytes);
    records::write_look(&mut bytes, record);
    bytes
}

/// Decodes a proposed look. Whether it counts is decided by [`crate::look::Looks`].
pub fn decode_look(bytes: &[u8]) -> Result<LookRecord, DecodeError> {
    decode(bytes)
}

/// Decodes a record of one of our own writers, of this version or an earlier one, without a registry.
pub fn decode<'a, T: AvroRecord<'a>>(message: &'a [u8]) -> Result<T, DecodeError> {
    let (schema, body) = open(T::KIND, message)?;
    match schema {
        WrittenWith::Fingerprint(fingerprint) => known(T::KIND, fingerprint)?.decode(body),
        WrittenWith::RegistryId(id) => {
            Err(DecodeError::UnknownId { id, what: "and no registry is used here" })
        }
    }
}

/// Returns the reference to the schema that a message was written with, and its body. An event that is too
/// long is an error.
pub fn open(kind: RecordKind, message: &[u8]) -> Result<(WrittenWith, Body<'_>), DecodeError> {
    if message.len() > EVENT_BYTES_MAX && kind.is_event() {
        return Err(DecodeError::Oversize { bytes: message.len() });
    }
    unframe(message)
}

/// Returns the plan for records of one of our own writers.
pub fn known(kind: RecordKind, fingerprint: Fingerprint) -> Result<&'static Plan, DecodeError> {
    match kind::known(fingerprint) {
        Some(plan) if plan.kind() == kind => Ok(plan),
        Some(plan) => Err(DecodeError::WrongRecord { found: plan.kind().a_record() }),
        None => Err(DecodeError::UnknownSchema { fingerprint }),
    }
}
