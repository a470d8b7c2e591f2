//! Units that asked to be forgotten. The ledger in ClickHouse holds only keyed hashes of them. The pipeline looks
//! every event up in it, an audit explains missing rows by it, and a heal leaves its units out. [`request`] enters
//! a unit and deletes its rows.

use std::hash::Hasher;
use std::time::Duration;

use anyhow::{Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip::SipHasher24;

mod ledger;
mod read;
mod request;

pub use ledger::{Entry, Ledger};
pub use read::{LedgerError, SharedLedger};
pub use request::{Deleted, Request, request};

/// How often the pipeline reads new entries. A request waits longer than this before it deletes.
pub const REFRESHED_EVERY: Duration = Duration::from_secs(5);
/// The shortest key, in bytes: the length of the hash.
pub const KEY_BYTES_MIN: usize = 32;
/// Units that may be entered. Each takes some hundred bytes in every consumer, twice while an entry is added. At
/// the bound a request is refused, and nothing is entered or deleted.
pub const UNITS_MAX: usize = 1_000_000;
/// Units that a consumer reads: more than concurrent requests can enter beyond [`UNITS_MAX`]. A consumer that
/// finds more takes no messages.
const UNITS_READ_MAX: usize = 2 * UNITS_MAX;

/// The key under which units are hashed. Shown nowhere.
#[derive(Clone)]
pub struct LedgerKey {
    hmac: Hmac<Sha256>,
    tags: SipHasher24,
    check: String,
}

impl LedgerKey {
    /// # Errors
    /// Where the key is too short to be one.
    pub fn new(key: &[u8]) -> Result<LedgerKey> {
        if key.len() < KEY_BYTES_MIN {
            bail!("the ledger's key has {} bytes, fewer than {KEY_BYTES_MIN}", key.len());
        }
        let hmac = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        // A unit's text has a zero byte in it, these have none.
        let check = hex::encode(&keyed_hash(&hmac, &[b"splitstream ledger key"])[..8]);
        let tags = keyed_hash(&hmac, &[b"splitstream ledger tags"]);
        let tags = SipHasher24::new_with_key(tags.first_chunk().expect("a hash has 32 bytes"));
        Ok(LedgerKey { hmac, tags, check })
    }

    pub fn unit_hash(&self, unit_type: &str, unit_id: &str) -> UnitHash {
        UnitHash(keyed_hash(&self.hmac, &[unit_type.as_bytes(), &[0], unit_id.as_bytes()]))
    }

    /// Hashed with a key derived from the ledger's: without that key, a tag tells no more of a unit than its hash
    /// does.
    #[inline]
    pub fn tag(&self, unit_type: &str, unit_id: &str) -> Tag {
        let mut tag = self.tags;
        tag.write(unit_type.as_bytes());
        tag.write(&[0]);
        tag.write(unit_id.as_bytes());
        Tag(tag.finish())
    }

    /// Identifies the key without revealing it.
    pub fn check(&self) -> &str {
        &self.check
    }

    /// The error about entries under another key.
    fn other_than(&self, check: &str) -> String {
        format!(
            "there are units forgotten under the key {check}, and the one configured is {}: configure the key that \
             they were entered with",
            self.check
        )
    }
}

/// A unit as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitHash([u8; 32]);

/// A short keyed hash of a unit. Other units may have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u64);

impl UnitHash {
    /// `None` for what is not 64 hexadecimal digits.
    fn parse(text: &str) -> Option<UnitHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(UnitHash(bytes))
    }
}

impl std::fmt::Display for UnitHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// HMAC-SHA-256 of the parts, one after the other.
fn keyed_hash(hmac: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = hmac.clone();
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_id_are_not_run_together() {
        let key = LedgerKey::new(&[7; 32]).unwrap();
        assert_ne!(key.unit_hash("user", "1"), key.unit_hash("use", "r1"));
        assert_ne!(key.tag("user", "1"), key.tag("use", "r1"));
    }

    #[test]
    fn another_key_gives_another_hash_and_another_tag() {
        let (one, other) = (LedgerKey::new(&[7; 32]).unwrap(), LedgerKey::new(&[8; 32]).unwrap());
        assert_ne!(one.check(), other.check());
        assert_ne!(one.unit_hash("user", "1"), other.unit_hash("user", "1"));
        assert_ne!(one.tag("user", "1"), other.tag("user", "1"));
        assert!(LedgerKey::new(&[7; 31]).is_err());
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = UnitHash([0xa5; 32]);
        assert_eq!(UnitHash::parse(&hash.to_string()), Some(hash));
        for text in ["", "a5", &"é".repeat(32), &"+1".repeat(32), &"0g".repeat(32)] {
            assert_eq!(UnitHash::parse(text), None, "{text:?}");
        }
    }

    /// RFC 4231, test case 2: the hash is the standard's, so that others can compute it.
    #[test]
    fn the_keyed_hash_is_hmac_sha_256() {
        let hmac = Hmac::new_from_slice(b"Jefe").unwrap();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(keyed_hash(&hmac, &[b"what do ya want ", b"for nothing?"])), expected);
    }

    /// What the ledger holds must be found by every later build.
    #[test]
    fn what_is_entered_for_a_unit_never_changes() {
        let key = LedgerKey::new(b"0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(key.check(), "a03fa4f9bc315278");
        assert_eq!(
            key.unit_hash("user", "u3").to_string(),
            "0e77f5e60db042ef1ca1f8ebfd4242bc1214654a66602ab65a088db5f795bfb9"
        );
        assert_eq!(key.tag("user", "u3"), Tag(0xf088_c083_8be7_d2c7));
    }
}
