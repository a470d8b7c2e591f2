//! The data directory as one server's own, and the files beside it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where SQL's own files lie, as a server's, and what the engine makes of its own accord (the cache of format
/// schemas): it takes a relative path from this process's directory.
const USER_FILES: &str = "user_files";

/// The engine's own; some of its formats look for it in the environment.
const TEMPORARY_FILES: &str = "tmp";

/// A data directory, held until this is dropped.
pub struct Data {
    path: PathBuf,
    _lock: File,
}

/// Makes the directory if it is not there, and takes hold of it.
///
/// # Errors
/// Another server holds it; it cannot be made.
pub fn open(path: &Path) -> anyhow::Result<Data> {
    fs::create_dir_all(path).with_context(|| format!("creating the data directory {}", path.display()))?;
    let path =
        fs::canonicalize(path).with_context(|| format!("resolving the data directory {}", path.display()))?;
    let lock = lock(&path)?;
    Ok(Data { path, _lock: lock })
}

/// The library's place, whatever directory this process will be in.
pub fn resolve(library: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(library).with_context(|| format!("looking for the engine at {}", library.display()))
}

impl Data {
    /// Without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory of user files this process's own, and that of temporary files.
    ///
    /// # Safety
    /// No other thread may read the environment meanwhile.
    pub unsafe fn enter(&self) -> anyhow::Result<()> {
        let [user_files, temporary] = [USER_FILES, TEMPORARY_FILES].map(|name| self.path.join(name));
        for place in [&user_files, &temporary] {
            fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))?;
        }
        // SAFETY: as the caller promises.
        unsafe { std::env::set_var("TMPDIR", &temporary) };
        std::env::set_current_dir(&user_files).with_context(|| format!("entering {}", user_files.display()))
    }
}

/// One server per data path: the engine itself does not look.
fn lock(path: &Path) -> anyhow::Result<File> {
    let place = path.join("clickhouse-embedded.lock");
    let file = File::create(&place).with_context(|| format!("creating {}", place.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another clickhouse-embedded serves {} (it holds {}): stop it, or choose another --path",
            path.display(),
            place.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", place.display())),
    }
}

/// Written beside its place and renamed, so that a reader finds all of it or nothing.
pub fn write_port_file(place: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(".new");
    let write = || -> io::Result<()> {
        fs::write(&beside, format!("{address}\n"))?;
        fs::rename(&beside, place)
    };
    write().with_context(|| format!("writing the port file {}", place.display()))
}

/// Removes the port file; it may be gone.
pub fn remove_port_file(place: &Path) {
    if let Err(error) = fs::remove_file(place) {
        tracing::debug!(%error, "cannot remove the port file");
    }
}
