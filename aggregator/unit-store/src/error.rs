//! Why rows cannot be kept or brought back. What the store has is lost with each of these: the caller mends the cause and
//! counts again from the tables.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the directory.
    #[error(
        "units' rows cannot be kept in {}: another process keeps its own there; give each process a directory of its own",
        .directory.display()
    )]
    InUse { directory: PathBuf },
    /// The file system, or what this process may write, is full.
    #[error(
        "there is no room for units' rows in {}, which has {bytes} bytes: make room on its file system or raise the limit, and start again",
        .path.display()
    )]
    Full { path: PathBuf, bytes: u64, source: io::Error },
    /// The file or its directory cannot be used for another reason.
    #[error(
        "cannot {action} {}, which keeps units' rows: check the directory, its owner and the disk, and start again",
        .path.display()
    )]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// What was read is not what was written.
    #[error("{} is damaged at byte {offset}: check the disk, and start again", .path.display())]
    Damaged { path: PathBuf, offset: u64 },
    /// Even with the rows of all units on disk, what remains in memory is more than allowed.
    #[error(
        "the places of {units} units need {bytes} bytes of memory without their rows, and {bytes_max} are allowed: allow more"
    )]
    NoRoom { units: usize, bytes: usize, bytes_max: usize },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// An error in writing to a file that has so many bytes.
    pub(crate) fn write(path: &Path, bytes: u64, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Error::Full { path, bytes, source }
            }
            _ => Error::Io { action: "write to", path, source },
        }
    }
}
