//! The framing before a record's body, which references the schema that it was written with: Avro's
//! single-object encoding (`C3 01` and a fingerprint) or Confluent's (`00` and the schema's id in a registry,
//! big-endian).

use super::plan::Body;
use super::{DecodeError, Fingerprint};

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const SINGLE_OBJECT_BYTES: usize = 10;
const CONFLUENT: u8 = 0x00;
const CONFLUENT_BYTES: usize = 5;

/// How a message references the schema that it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WrittenWith {
    /// Single-object encoding: the schema's own fingerprint.
    Fingerprint(Fingerprint),
    /// Confluent's encoding: the id of the schema in a registry.
    RegistryId(u32),
}

impl WrittenWith {
    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        match self {
            WrittenWith::Fingerprint(fingerprint) => {
                bytes.extend_from_slice(&SINGLE_OBJECT);
                bytes.extend_from_slice(&fingerprint.0.to_le_bytes());
            }
            WrittenWith::RegistryId(id) => {
                bytes.push(CONFLUENT);
                bytes.extend_from_slice(&id.to_be_bytes());
            }
        }
    }
}

/// Splits a message into the reference to its schema and its body.
pub fn unframe(message: &[u8]) -> Result<(WrittenWith, Body<'_>), DecodeError> {
    if let Some(&[first, second, f0, f1, f2, f3, f4, f5, f6, f7]) =
        message.first_chunk::<SINGLE_OBJECT_BYTES>()
        && [first, second] == SINGLE_OBJECT
    {
        let fingerprint = Fingerprint(u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]));
        return Ok((WrittenWith::Fingerprint(fingerprint), Body { message, at: SINGLE_OBJECT_BYTES }));
    }
    if let Some(&[CONFLUENT, i0, i1, i2, i3]) = message.first_chunk::<CONFLUENT_BYTES>() {
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        return Ok((WrittenWith::RegistryId(id), Body { message, at: CONFLUENT_BYTES }));
    }
    if message.is_empty() {
        return Err(DecodeError::Empty);
    }
    let start = message.iter().take(SINGLE_OBJECT_BYTES).map(|byte| format!("{byte:02x}")).collect();
    Err(DecodeError::NotFramed { start })
}
