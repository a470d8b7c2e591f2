//! The directory of a spool: its lock and its segment files. It moves bytes between memory and the disk and reports
//! every error; it knows no event and decides nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::record::{self, HEADER_BYTES, SegmentNumber};

/// The length at which a segment is closed; one group of records more is possible.
pub const SEGMENT_BYTES: u64 = 8 * 1_024 * 1_024;

const LOCK_NAME: &str = "lock";
const SEGMENT_EXTENSION: &str = "segment";
const DAMAGED_EXTENSION: &str = "damaged";

/// The spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process, or another emitter of this one, has the directory.
    #[error(
        "the spool directory {} belongs to a process that is running; give each process a directory of its own \
         (`spool.directory`), or end that process (`fuser {}` names it)", directory.display(), lock.display()
    )]
    InUse { directory: PathBuf, lock: PathBuf },
    /// The disk refused.
    #[error("{doing} {}: {source}; the spool needs a local directory that this process may write", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// A later version of this library wrote the file.
    #[error(
        "{} has version {version} of the spool's format; start the version of the service that wrote it, until it \
         has sent its spool, or move the file away", path.display()
    )]
    LaterVersion { path: PathBuf, version: u32 },
    /// The file is longer than this library makes them.
    #[error("{} has {bytes} bytes, so it is no segment of a spool; move it away", path.display())]
    NoSegment { path: PathBuf, bytes: u64 },
    /// Bounds of the settings that contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// The directory, which this process holds as long as the value lives. The operating system frees it when the
/// process dies.
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

/// The files that a directory contains.
#[derive(Debug, Default)]
pub struct Listing {
    /// The segments with their lengths, in order.
    pub segments: Vec<(SegmentNumber, u64)>,
    /// The bytes of the files that were kept aside.
    pub aside_bytes: u64,
    /// The number of the next segment.
    pub next: u64,
}

impl Directory {
    /// Makes the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Directory, SpoolError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { doing, path, source }
        };
        make_durable(path).map_err(failed("making the spool directory", path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(failed("opening the lock of the spool", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SpoolError::InUse { directory: path.to_owned(), lock: lock_path });
            }
            Err(TryLockError::Error(source)) => {
                return Err(failed("locking the spool with", &lock_path)(source));
            }
        }
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    pub fn list(&self) -> Result<Listing, SpoolError> {
        let failed = |source| SpoolError::Io { doing: "listing", path: self.path.clone(), source };
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some((number, extension)) = parse_name(&name) else { continue };
            let bytes = entry.metadata().map_err(failed)?.len();
            listing.next = listing.next.max(number.0 + 1);
            if extension == SEGMENT_EXTENSION {
                if bytes > 2 * SEGMENT_BYTES {
                    return Err(SpoolError::NoSegment { path: entry.path(), bytes });
                }
                listing.segments.push((number, bytes));
            } else {
                listing.aside_bytes += bytes;
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }

    pub fn path_of(&self, number: SegmentNumber) -> PathBuf {
        self.path.join(format!("{:020}.{SEGMENT_EXTENSION}", number.0))
    }

    pub fn read(&self, number: SegmentNumber) -> io::Result<Vec<u8>> {
        fs::read(self.path_of(number))
    }

    /// Cuts what is behind the last whole record of a segment that is not written any more.
    pub fn cut(&self, number: SegmentNumber, bytes: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path_of(number))?.set_len(bytes)
    }

    pub fn delete(&self, number: SegmentNumber) -> io::Result<()> {
        fs::remove_file(self.path_of(number))
    }

    /// Renames a damaged segment, so that somebody can look at its bytes. Returns the new path.
    pub fn set_aside(&self, number: SegmentNumber) -> io::Result<PathBuf> {
        let aside = self.path_of(number).with_extension(DAMAGED_EXTENSION);
        fs::rename(self.path_of(number), &aside)?;
        Ok(aside)
    }

    /// Makes a segment whose name and header survive a loss of power.
    pub fn create(&self, number: SegmentNumber) -> io::Result<SegmentFile> {
        let path = self.path_of(number);
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let made = self.write_header(&file, number);
        if let Err(error) = made {
            // Without records it is of no use; if it cannot be deleted now, the next start does it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(SegmentFile { file, number, bytes: HEADER_BYTES as u64 })
    }

    fn write_header(&self, mut file: &File, number: SegmentNumber) -> io::Result<()> {
        file.write_all(&record::header(number))?;
        file.sync_all()?;
        sync_directory(&self.path)
    }
}

/// The segment that is appended to.
pub struct SegmentFile {
    file: File,
    number: SegmentNumber,
    bytes: u64,
}

impl SegmentFile {
    pub fn number(&self) -> SegmentNumber {
        self.number
    }

    /// The bytes that are synced.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends records and syncs them. After an error nothing of them may be taken for durable, and nothing may be
    /// appended: a kernel may forget that a page was not written once it has reported it.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)?;
        self.file.sync_data()?;
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// Cuts what a failed append left, which also frees the disk, and returns the length of the file.
    pub fn abandon(self) -> u64 {
        match self.file.set_len(self.bytes) {
            Ok(()) => self.bytes,
            Err(_) => self.file.metadata().map_or(self.bytes, |metadata| metadata.len()),
        }
    }
}

/// Makes a directory and those above it that are missing. The entry of each is in the one above it, which is synced.
fn make_durable(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
    fs::create_dir_all(path)?;
    for made in missing {
        match made.parent() {
            Some(above) if !above.as_os_str().is_empty() => sync_directory(above)?,
            _ => sync_directory(Path::new("."))?,
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parse_name(name: &std::ffi::OsStr) -> Option<(SegmentNumber, &str)> {
    let (number, extension) = name.to_str()?.split_once('.')?;
    if number.len() != 20 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let known = [SEGMENT_EXTENSION, DAMAGED_EXTENSION].contains(&extension);
    known.then_some((SegmentNumber(number.parse().ok()?), extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_and_is_free_after_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/spool");
        let first = Directory::open(&path).unwrap();
        let refused = Directory::open(&path).err().unwrap().to_string();
        let expected = format!(
            "the spool directory {0} belongs to a process that is running; give each process a directory of its own \
             (`spool.directory`), or end that process (`fuser {0}/lock` names it)",
            path.display()
        );
        assert_eq!(refused, expected);
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn the_listing_has_the_segments_in_order_and_the_bytes_kept_aside() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        for number in [11, 2, 7] {
            let mut file = directory.create(SegmentNumber(number)).unwrap();
            file.append(b"abc").unwrap();
            assert_eq!(file.bytes(), 19);
        }
        directory.set_aside(SegmentNumber(11)).unwrap();
        directory.cut(SegmentNumber(7), 16).unwrap();
        fs::write(parent.path().join("notes.txt"), "not ours").unwrap();
        let listing = directory.list().unwrap();
        assert_eq!(listing.segments, [(SegmentNumber(2), 19), (SegmentNumber(7), 16)]);
        assert_eq!((listing.aside_bytes, listing.next), (19, 12));
    }
}
