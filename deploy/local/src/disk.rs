//! Checks the free space on the disk: before a stack starts, and as the likely reason when a part has died.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

/// The space that a stack needs in its first hour: the demo leaves 50 MB, and Kafka's and ClickHouse's logs and
/// merges need more.
const NEEDED_BYTES: u64 = 256 << 20;

/// With less than this no part can be expected to go on running.
const FULL_BYTES: u64 = 4 << 20;

/// Fails if the disk of `dir` has too little free space for a stack.
pub fn require_free_space(dir: &Path) -> Result<()> {
    let free = free_bytes(dir)?;
    ensure!(
        free >= NEEDED_BYTES,
        "only {} MB are free on the disk that holds {}; a stack needs {} MB: make room, or name another \
         directory with --dir",
        free >> 20,
        dir.display(),
        NEEDED_BYTES >> 20
    );
    Ok(())
}

/// A note for the message that a part has ended; empty unless the disk is full.
pub fn full_disk_note(dir: &Path) -> String {
    match free_bytes(dir) {
        Ok(free) if free < FULL_BYTES => format!(", the disk that holds {} is full", dir.display()),
        _ => String::new(),
    }
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let disk = statvfs(dir).with_context(|| format!("asking how much room there is at {}", dir.display()))?;
    // The types of the two numbers differ between systems.
    #[allow(clippy::unnecessary_cast)]
    Ok(disk.blocks_available() as u64 * disk.fragment_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_space_is_accepted_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        require_free_space(directory.path()).unwrap();
        assert_eq!(full_disk_note(directory.path()), "");
        let missing = directory.path().join("missing");
        let refused = require_free_space(&missing).unwrap_err();
        assert_eq!(refused.to_string(), format!("asking how much room there is at {}", missing.display()));
    }
}
