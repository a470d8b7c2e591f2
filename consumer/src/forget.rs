//! Units that asked to be forgotten. The ledger in ClickHouse knows them as keyed hashes only; the pipeline
//! asks it for every event, an audit explains by it what is missing, and a heal leaves out what it names.
//! [`request`] enters a unit and deletes what is there of it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clickhouse::{Client, Row};
use schemas::Micros;
use serde::Deserialize;

use crate::decode::Decoded;

pub mod hmac;
mod request;

pub use request::{Deleted, Request, request};

use hmac::HmacSha256;

/// How often the pipeline reads the ledger again. A request waits for longer than this before it deletes.
pub const REFRESHED_EVERY: Duration = Duration::from_secs(5);
/// The shortest key, in bytes: what the hash has.
pub const KEY_BYTES_MIN: usize = 32;

/// The key under which units are hashed. Shown nowhere.
#[derive(Clone)]
pub struct LedgerKey {
    hmac: HmacSha256,
    check: String,
}

impl LedgerKey {
    /// # Errors
    /// Where the key is too short to be one.
    pub fn new(key: &[u8]) -> Result<LedgerKey> {
        if key.len() < KEY_BYTES_MIN {
            bail!("the ledger's key has {} bytes, fewer than {KEY_BYTES_MIN}", key.len());
        }
        let hmac = HmacSha256::new(key);
        // A unit's text has a zero byte in it, this one has none.
        let check = hex(&hmac.of(&[b"splitstream ledger key"])[..8]);
        Ok(LedgerKey { hmac, check })
    }

    pub fn unit_hash(&self, unit_type: &str, unit_id: &str) -> UnitHash {
        UnitHash(self.hmac.of(&[unit_type.as_bytes(), &[0], unit_id.as_bytes()]))
    }

    /// What tells this key from another.
    pub fn check(&self) -> &str {
        &self.check
    }
}

/// A unit as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitHash([u8; 32]);

impl std::fmt::Display for UnitHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex(&self.0))
    }
}

/// The ledger as it was read last. Without entries it costs a comparison for each event.
#[derive(Clone, Default)]
pub struct Ledger {
    key: Option<LedgerKey>,
    /// Until when what a unit did is forgotten.
    until: HashMap<UnitHash, Micros>,
}

impl Ledger {
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether an event that carries this id and was created then is not to be kept.
    pub fn contains(&self, unit_type: &str, unit_id: &str, created_at: Micros) -> bool {
        let Some(key) = self.key.as_ref().filter(|_| !self.is_empty()) else { return false };
        self.until.get(&key.unit_hash(unit_type, unit_id)).is_some_and(|until| created_at <= *until)
    }

    /// Whether any id that the event carries is one to be forgotten.
    pub fn covers(&self, decoded: &Decoded<'_>) -> bool {
        if self.is_empty() {
            return false;
        }
        match decoded {
            Decoded::Exposure(exposure) => {
                self.contains(&exposure.unit_type, &exposure.unit_id, exposure.created_at)
                    || exposure
                        .other_ids
                        .iter()
                        .any(|(kind, id)| self.contains(kind, id, exposure.created_at))
            }
            Decoded::Conversion(conversion) => {
                self.contains(&conversion.unit_type, &conversion.unit_id, conversion.created_at)
                    || conversion
                        .other_ids
                        .iter()
                        .any(|(kind, id)| self.contains(kind, id, conversion.created_at))
            }
            Decoded::Alias(alias) => [&alias.from, &alias.to]
                .into_iter()
                .any(|unit| self.contains(&unit.unit_type, &unit.unit_id, alias.created_at)),
            Decoded::Change(_) => false,
        }
    }

    /// Reads the ledger.
    ///
    /// # Errors
    /// Where it has entries that this key cannot recognise: then no event may pass.
    pub async fn read(client: &Client, key: Option<&LedgerKey>) -> Result<Ledger> {
        #[derive(Row, Deserialize)]
        struct Entry {
            unit_hash: String,
            key_check: String,
            until: i64,
        }
        let entries: Vec<Entry> = client
            .query(
                "SELECT unit_hash, key_check, toUnixTimestamp64Micro(max(forgotten_at)) AS until FROM forgotten \
                 GROUP BY unit_hash, key_check",
            )
            .fetch_all()
            .await
            .context("reading the ledger of forgotten units")?;
        let mut until = HashMap::with_capacity(entries.len());
        for entry in entries {
            let Some(key) = key else {
                bail!(
                    "there are forgotten units, and no key: set consumer.forget_key or consumer.forget_key_file"
                );
            };
            if entry.key_check != key.check() {
                bail!(
                    "there are units forgotten under the key {}, and the one configured is {}: configure the key \
                     that they were entered with",
                    entry.key_check,
                    key.check()
                );
            }
            let hash = unhex(&entry.unit_hash).context("a hash in the ledger is not one")?;
            let entered: &mut Micros = until.entry(UnitHash(hash)).or_insert(Micros::new(0)?);
            *entered = (*entered).max(Micros::new(entry.until)?);
        }
        Ok(Ledger { key: key.cloned(), until })
    }
}

/// The ledger for many readers, replaced as a whole when it is read again.
#[derive(Clone, Default)]
pub struct Forgotten {
    ledger: Arc<RwLock<Arc<Ledger>>>,
}

impl Forgotten {
    pub fn new(ledger: Ledger) -> Forgotten {
        Forgotten { ledger: Arc::new(RwLock::new(Arc::new(ledger))) }
    }

    /// The ledger as it is now; asked once for each batch of messages.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the ledger again and again until the shutdown begins. One that cannot be read is left as it was.
    pub async fn keep_fresh(self, client: Client, key: Option<LedgerKey>, shutdown: ops::Shutdown) {
        while !shutdown.sleep(REFRESHED_EVERY).await {
            match Ledger::read(&client, key.as_ref()).await {
                Ok(ledger) => {
                    *self.ledger.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ledger);
                }
                Err(error) => tracing::warn!("the ledger of forgotten units stays as it was: {error:#}"),
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Micros {
        Micros::new(micros).unwrap()
    }

    fn ledger() -> Ledger {
        let key = LedgerKey::new(&[7; 32]).unwrap();
        let until = HashMap::from([(key.unit_hash("user", "u1"), at(1_000))]);
        Ledger { key: Some(key), until }
    }

    #[test]
    fn what_a_unit_did_up_to_its_request_is_forgotten_and_not_later() {
        let ledger = ledger();
        assert!(ledger.contains("user", "u1", at(1_000)));
        assert!(!ledger.contains("user", "u1", at(1_001)));
        assert!(!ledger.contains("user", "u2", at(1_000)));
        assert!(!ledger.contains("device", "u1", at(1_000)));
        assert!(!Ledger::default().contains("user", "u1", at(0)));
    }

    #[test]
    fn an_event_is_covered_by_any_id_that_it_carries() {
        let conversion = |unit: &str, others: &str| -> schemas::Conversion<'static> {
            let [id, name] = ["0191e3a0-0000-7000-8000-000000000001", "buy"];
            serde_json::from_value(serde_json::json!({
                "event_id": id, "name": name, "unit_type": "account", "unit_id": unit,
                "other_ids": serde_json::from_str::<serde_json::Value>(others).unwrap(),
                "created_at": "1970-01-01T00:00:00.001Z"
            }))
            .unwrap()
        };
        let ledger = ledger();
        assert!(ledger.covers(&Decoded::Conversion(conversion("a", r#"{"device": "d", "user": "u1"}"#))));
        assert!(!ledger.covers(&Decoded::Conversion(conversion("u1", r#"{"device": "u1"}"#))));
    }

    #[test]
    fn type_and_id_are_not_run_together() {
        let key = LedgerKey::new(&[7; 32]).unwrap();
        assert_ne!(key.unit_hash("user", "1"), key.unit_hash("use", "r1"));
        assert_ne!(key.check(), LedgerKey::new(&[8; 32]).unwrap().check());
        assert!(LedgerKey::new(&[7; 31]).is_err());
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = UnitHash([0xa5; 32]);
        assert_eq!(unhex(&hash.to_string()), Some(hash.0));
        assert_eq!(unhex("a5"), None);
    }
}
