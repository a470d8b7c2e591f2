//! The data directory, which one server locks, and the port file. Knows nothing of the engine's own files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The directory of the files that SQL may read and write, as on a server. It becomes the working directory
/// of the process, since the engine resolves relative paths there and puts its cache of format schemas there.
const USER_FILES: &str = "user_files";

/// The engine's temporary files; some of its formats take the path from TMPDIR.
const TEMPORARY_FILES: &str = "tmp";

/// A data directory, locked until this is dropped.
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

/// Creates the directory if it does not exist, and locks it.
///
/// # Errors
/// Another server has locked it, or it cannot be created.
pub fn open(path: &Path) -> anyhow::Result<DataDirectory> {
    fs::create_dir_all(path).with_context(|| format!("creating the data directory {}", path.display()))?;
    let path =
        fs::canonicalize(path).with_context(|| format!("resolving the data directory {}", path.display()))?;
    let lock = lock(&path)?;
    Ok(DataDirectory { path, _lock: lock })
}

/// The absolute path of the library, since the working directory will change.
pub fn resolve_library(library: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(library).with_context(|| format!("looking for the engine at {}", library.display()))
}

impl DataDirectory {
    /// The absolute path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directories of user files and temporary files. The first becomes the working directory of
    /// this process, the second its TMPDIR.
    ///
    /// # Safety
    /// No other thread may read the environment during the call.
    pub unsafe fn enter(&self) -> anyhow::Result<()> {
        let [user_files, temporary] = [USER_FILES, TEMPORARY_FILES].map(|name| self.path.join(name));
        for directory in [&user_files, &temporary] {
            fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        }
        // SAFETY: as the caller promises.
        unsafe { std::env::set_var("TMPDIR", &temporary) };
        std::env::set_current_dir(&user_files).with_context(|| format!("entering {}", user_files.display()))
    }
}

/// Locks the directory, since the engine itself does not.
fn lock(path: &Path) -> anyhow::Result<File> {
    let lock_file = path.join("clickhouse-embedded.lock");
    let file = File::create(&lock_file).with_context(|| format!("creating {}", lock_file.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another clickhouse-embedded serves {} (it holds {}): stop it, or choose another --path",
            path.display(),
            lock_file.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", lock_file.display()))
        }
    }
}

/// Writes the port file. It is written under another name and renamed, so that a reader never sees half of it.
pub fn write_port_file(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let mut new_file = path.as_os_str().to_owned();
    new_file.push(".new");
    let write = || -> io::Result<()> {
        fs::write(&new_file, format!("{address}\n"))?;
        fs::rename(&new_file, path)
    };
    write().with_context(|| format!("writing the port file {}", path.display()))
}

/// Removes the port file, which may have been removed already.
pub fn remove_port_file(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, "cannot remove the port file");
    }
}
