//! Reads the ledger: all of it at the start, later only new entries. If the number of entries read before has
//! changed, as when somebody deleted one, all of it is read again. An entry that cannot be used stops the
//! consumer: nobody knows then what must not be kept.

use std::sync::{Arc, PoisonError, RwLock};

use clickhouse::{Client, Row};
use schemas::Micros;
use serde::Deserialize;

use super::ledger::{Entry, Ledger, ReadUpTo};
use super::{LedgerKey, REFRESHED_EVERY, Tag, UNITS_READ_MAX, UnitHash};

/// Why the ledger is not known as it is now.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading again may help. What was read before stays in force.
    #[error("reading the ledger of forgotten units")]
    Unreachable(#[from] clickhouse::error::Error),
    /// It has an entry that cannot be used. No event may pass until somebody has repaired that.
    #[error("{0}")]
    Unusable(String),
}

/// The number of entries, and of those entered up to a time.
const COUNT: &str =
    "SELECT count(), countIf(requested_at <= fromUnixTimestamp64Milli({latest:Int64}, 'UTC')) FROM forgotten";

/// The units of all entries, or of those entered after a time. Columns of the condition have other names in the
/// answer, since the condition would read the aliases.
const READ: &str = "SELECT unit_hash, any(unit_tag) AS tag, key_check, \
     toUnixTimestamp64Micro(max(forgotten_at)) AS until, count() AS entries, \
     toUnixTimestamp64Milli(max(requested_at)) AS latest_ms FROM forgotten \
     WHERE {whole:Bool} OR requested_at > fromUnixTimestamp64Milli({after:Int64}, 'UTC') \
     GROUP BY unit_hash, key_check";

#[derive(Row, Deserialize)]
struct Entered {
    unit_hash: String,
    tag: Option<u64>,
    key_check: String,
    until: i64,
    entries: u64,
    latest_ms: i64,
}

impl Ledger {
    /// The whole ledger.
    ///
    /// # Errors
    /// Also if it has entries under another key: then no event may pass.
    pub async fn read(client: &Client, key: Option<&LedgerKey>) -> Result<Ledger, LedgerError> {
        let mut ledger = Ledger::under(key);
        ledger.take(client, key, None).await?;
        Ok(ledger)
    }

    /// The ledger with the entries made since. `None` if there are none.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub async fn newer(
        &self,
        client: &Client,
        key: Option<&LedgerKey>,
    ) -> Result<Option<Ledger>, LedgerError> {
        let (entries, known): (u64, u64) =
            client.query(COUNT).param("latest", self.read_up_to.latest_ms).fetch_one().await?;
        if known == self.read_up_to.entries && entries == known {
            return Ok(None);
        }
        if known != self.read_up_to.entries || self.is_empty() {
            // Some were deleted, or became visible late.
            return Ledger::read(client, key).await.map(Some);
        }
        let mut newer = self.clone();
        newer.take(client, key, Some(self.read_up_to.latest_ms)).await?;
        Ok(Some(newer))
    }

    /// Reads the entries made after `after_ms`, or all.
    async fn take(
        &mut self,
        client: &Client,
        key: Option<&LedgerKey>,
        after_ms: Option<i64>,
    ) -> Result<(), LedgerError> {
        let mut entries = client
            .query(READ)
            .param("whole", after_ms.is_none())
            .param("after", after_ms.unwrap_or(0))
            .fetch::<Entered>()?;
        while let Some(entered) = entries.next().await? {
            self.enter(entered.checked(key)?);
            self.read_up_to = ReadUpTo {
                entries: self.read_up_to.entries + entered.entries,
                latest_ms: self.read_up_to.latest_ms.max(entered.latest_ms),
            };
            if self.len() > UNITS_READ_MAX {
                return Err(LedgerError::Unusable(format!(
                    "the ledger of forgotten units holds more than {UNITS_READ_MAX} units, which `splitstream forget` \
                     does not enter: delete the rows of the table `forgotten` that somebody else wrote"
                )));
            }
        }
        Ok(())
    }
}

impl Entered {
    fn checked(&self, key: Option<&LedgerKey>) -> Result<Entry, LedgerError> {
        let Some(key) = key else {
            let what =
                "there are forgotten units, and no key: set consumer.forget_key or consumer.forget_key_file";
            return Err(LedgerError::Unusable(what.to_owned()));
        };
        if self.key_check != key.check() {
            return Err(LedgerError::Unusable(key.other_than(&self.key_check)));
        }
        let not_one = |column: &str, what: &str| {
            LedgerError::Unusable(format!(
                "the row of the table `forgotten` with the unit_hash `{}` has no {what} in {column}: mend or delete \
                 it",
                self.unit_hash
            ))
        };
        Ok(Entry {
            hash: UnitHash::parse(&self.unit_hash)
                .ok_or_else(|| not_one("unit_hash", "64 hexadecimal digits"))?,
            tag: self.tag.map(Tag),
            until: Micros::new(self.until)
                .map_err(|_| not_one("forgotten_at", "time between 1970 and 2261"))?,
        })
    }
}

/// The ledger for many readers, replaced as a whole when it has new entries.
#[derive(Clone, Default)]
pub struct SharedLedger {
    ledger: Arc<RwLock<Arc<Ledger>>>,
}

impl SharedLedger {
    pub fn new(ledger: Ledger) -> SharedLedger {
        SharedLedger { ledger: Arc::new(RwLock::new(Arc::new(ledger))) }
    }

    /// The ledger as it is now. Asked for once for each group of messages.
    pub fn current(&self) -> Arc<Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads new entries every [`REFRESHED_EVERY`] until the shutdown begins. If the ledger cannot be read, it
    /// stays as it was. If it cannot be used, the shutdown begins: a consumer that starts again waits until it is
    /// repaired, and takes no messages.
    pub async fn keep_fresh(self, client: Client, key: Option<LedgerKey>, shutdown: ops::Shutdown) {
        while !shutdown.sleep(REFRESHED_EVERY).await {
            match self.current().newer(&client, key.as_ref()).await {
                Ok(None) => {}
                Ok(Some(ledger)) => {
                    *self.ledger.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ledger);
                }
                Err(error @ LedgerError::Unusable(_)) => {
                    tracing::error!(%error, "the ledger of forgotten units cannot be heeded");
                    shutdown.begin(format!("the ledger of forgotten units cannot be heeded: {error}"));
                }
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    tracing::warn!("the ledger of forgotten units stays as it was: {error:#}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(unit_hash: &str, key: &LedgerKey, until: i64) -> Entered {
        Entered {
            unit_hash: unit_hash.to_owned(),
            tag: None,
            key_check: key.check().to_owned(),
            until,
            entries: 1,
            latest_ms: 0,
        }
    }

    /// Otherwise it would be an entry that is there and has no effect.
    #[test]
    fn an_entry_that_cannot_be_heeded_is_named() {
        let (key, other) = (LedgerKey::new(&[7; 32]).unwrap(), LedgerKey::new(&[8; 32]).unwrap());
        let hash = key.unit_hash("user", "u1").to_string();
        let said = |entered: Entered, key: Option<&LedgerKey>| match entered.checked(key) {
            Ok(entry) => entry.hash.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said(entered(&hash, &key, 5), Some(&key)), hash);
        assert_eq!(
            said(entered(&hash, &key, 5), None),
            "there are forgotten units, and no key: set consumer.forget_key or consumer.forget_key_file"
        );
        assert_eq!(
            said(entered(&hash, &other, 5), Some(&key)),
            format!(
                "there are units forgotten under the key {}, and the one configured is {}: configure the key that \
                 they were entered with",
                other.check(),
                key.check()
            )
        );
        assert_eq!(
            said(entered("", &key, 5), Some(&key)),
            "the row of the table `forgotten` with the unit_hash `` has no 64 hexadecimal digits in unit_hash: mend \
             or delete it"
        );
        assert_eq!(
            said(entered(&hash, &key, -1), Some(&key)),
            format!(
                "the row of the table `forgotten` with the unit_hash `{hash}` has no time between 1970 and 2261 in \
                 forgotten_at: mend or delete it"
            )
        );
    }
}
