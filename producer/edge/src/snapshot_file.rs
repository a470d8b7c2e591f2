//! The definitions on this machine's disk, for a start while Kafka is away: the accepted changes as they were read, with the
//! log's id and a checksum. They are folded by the same rule as the log itself. The file is replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use definitions::RecordedChange;
use schemas::definition::{Definitions, UnknownRule};
use schemas::{Micros, avro};
use xxhash_rust::xxh3::xxh3_64;

/// Begins the file; the digit is the format's version.
const MAGIC: &[u8; 8] = b"SSEDGE\x002";
const CHECKSUM_BYTES: usize = 8;
/// The longest id of a log.
const LOG_BYTES_MAX: usize = 256;

/// What the file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub log: String,
    pub changes: Vec<RecordedChange>,
    /// The members of the lists that the definitions name, as [`assignment::Members::to_bytes`] writes them.
    pub lists: Vec<Box<[u8]>>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not those that were written.
    #[error("{0}")]
    Damaged(&'static str),
    #[error(transparent)]
    UnknownRule(#[from] UnknownRule),
}

impl Saved {
    pub fn encode(&self) -> Vec<u8> {
        let payloads: usize = self.changes.iter().map(|change| change.payload.len() + 20).sum();
        let mut out = Vec::with_capacity(64 + self.log.len() + payloads);
        out.extend(MAGIC);
        write_bytes(&mut out, self.log.as_bytes());
        out.extend((self.changes.len() as u64).to_le_bytes());
        for change in &self.changes {
            out.extend(change.offset.to_le_bytes());
            out.extend(change.time.get().to_le_bytes());
            write_bytes(&mut out, &change.payload);
        }
        out.extend((self.lists.len() as u64).to_le_bytes());
        for members in &self.lists {
            write_bytes(&mut out, members);
        }
        let checksum = xxh3_64(&out);
        out.extend(checksum.to_le_bytes());
        out
    }

    /// Reads what [`Saved::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Saved, Unusable> {
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Unusable::Damaged("it is too short"))?;
        let (body, checksum) = bytes.split_at(body);
        if !body.starts_with(MAGIC) {
            return Err(Unusable::Damaged("it is no snapshot, or one of another build"));
        }
        if xxh3_64(body).to_le_bytes() != checksum {
            return Err(Unusable::Damaged("its checksum does not fit"));
        }
        let mut rest = Rest(&body[MAGIC.len()..]);
        let log =
            std::str::from_utf8(rest.bytes()?).map_err(|_| Unusable::Damaged("the log's id is no text"))?;
        if log.len() > LOG_BYTES_MAX {
            return Err(Unusable::Damaged("the log's id is too long"));
        }
        let count = rest.number()?;
        let mut changes = Vec::new();
        for _ in 0..count {
            let offset = rest.number()?;
            let time = Micros::new(rest.number()? as i64)
                .map_err(|_| Unusable::Damaged("a time is out of range"))?;
            changes.push(RecordedChange { offset, time, payload: rest.bytes()?.into() });
        }
        let count = rest.number()?;
        let mut lists = Vec::new();
        for _ in 0..count {
            lists.push(rest.bytes()?.into());
        }
        if !rest.0.is_empty() {
            return Err(Unusable::Damaged("it has more than its changes and lists"));
        }
        Ok(Saved { log: log.to_owned(), changes, lists })
    }

    /// Folds the changes.
    pub fn definitions(&self) -> Result<Definitions, Unusable> {
        let mut definitions = Definitions::default();
        for change in &self.changes {
            if change.offset < definitions.next_offset() {
                return Err(Unusable::Damaged("its changes are not in order"));
            }
            let decoded = avro::decode_change(&change.payload);
            let decoded = decoded.map_err(|_| Unusable::Damaged("one of its changes cannot be decoded"))?;
            if definitions.apply(change.offset, change.time, &decoded)?.is_err() {
                return Err(Unusable::Damaged("one of its changes is not accepted"));
            }
        }
        Ok(definitions)
    }

    /// When the last change was made.
    pub fn changed_at(&self) -> Micros {
        self.changes.last().map_or(Micros::EPOCH, |change| change.time)
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// What is left to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unusable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unusable::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, Unusable> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Unusable> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes"));
        self.take(length as usize)
    }
}

/// Reads the file; `None` if there is none.
pub fn load(path: &Path) -> Result<Option<Saved>, Unusable> {
    match fs::read(path) {
        Ok(bytes) => Saved::decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file: after a crash at any moment it is the old one or the new one.
pub fn store(path: &Path, saved: &Saved) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = Path::new(&name);
    let mut file = File::create(unfinished)?;
    file.write_all(&saved.encode())?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Puts a file that cannot be used aside, for whoever wants to know what happened to it.
pub fn set_aside(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    fs::rename(path, name)
}

#[cfg(test)]
mod tests {
    use schemas::Uuid;
    use schemas::definition::Change;

    use super::*;

    fn saved() -> Saved {
        let change = |offset: u64, key: &str| {
            let definition = format!(
                r#"{{"key": "{key}", "value_type": "boolean", "default_variant": "off",
                    "variants": [{{"key": "off", "value": false}}, {{"key": "on", "value": true}}]}}"#
            );
            let change = Change {
                change_id: Uuid::from_u128(offset.into()),
                rule_version: 1,
                kind: "flag".to_owned(),
                key: key.to_owned(),
                based_on: 0,
                definition,
                author: "ann".to_owned(),
                reason: "because".to_owned(),
            };
            RecordedChange {
                offset,
                time: Micros::new(1_000 + offset as i64).unwrap(),
                payload: avro::encode_change(&change).into(),
            }
        };
        Saved {
            log: "Zl3-OYYMR_mYD-iZj0yZ7w".to_owned(),
            changes: vec![change(0, "a"), change(7, "b")],
            lists: vec![Box::new([0; 8]), Box::new([])],
        }
    }

    #[test]
    fn what_is_stored_is_loaded_and_folds_to_the_same_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        assert!(load(&path).unwrap().is_none());
        store(&path, &saved()).unwrap();
        let loaded = load(&path).unwrap().unwrap();
        assert_eq!(loaded, saved());
        let definitions = loaded.definitions().unwrap();
        assert_eq!((definitions.version(), definitions.iter().count()), (8, 2));
        assert_eq!(loaded.changed_at().get(), 1_007);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let bytes = saved().encode();
        for cut in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Saved::decode(&changed).is_err(), "changed at {at}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(Saved::decode(&longer).is_err());
    }

    #[test]
    fn changes_out_of_order_or_refused_are_damage() {
        let mut swapped = saved();
        swapped.changes.swap(0, 1);
        assert!(matches!(swapped.definitions(), Err(Unusable::Damaged("its changes are not in order"))));
        let mut twice = saved();
        twice.changes[1].payload = twice.changes[0].payload.clone();
        assert!(matches!(twice.definitions(), Err(Unusable::Damaged("one of its changes is not accepted"))));
    }
}
