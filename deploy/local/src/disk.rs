//! Room on the disk: looked for before a stack starts, and named as the likely reason when a part dies for
//! want of it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;

/// What a stack takes in its first hour: the demo leaves 50 MB, Kafka's and ClickHouse's logs and merges
/// need room beside it.
const NEEDED_BYTES: u64 = 256 << 20;

/// With less than this nothing that runs can be expected to go on.
const FULL_BYTES: u64 = 4 << 20;

/// Fails if the disk that holds `dir` has too little room for a stack.
pub fn require_room(dir: &Path) -> Result<()> {
    let free = free_bytes(dir)?;
    ensure!(
        free >= NEEDED_BYTES,
        "only {} MB are free on the disk that holds {}; a stack needs {} MB: make room, or name another directory \
         with --dir",
        free >> 20,
        dir.display(),
        NEEDED_BYTES >> 20
    );
    Ok(())
}

/// A remark for whoever reads of a part's end; empty while there is room.
pub fn remark(dir: &Path) -> String {
    match free_bytes(dir) {
        Ok(free) if free < FULL_BYTES => format!(", the disk that holds {} is full", dir.display()),
        _ => String::new(),
    }
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let disk = statvfs(dir).with_context(|| format!("asking how much room there is at {}", dir.display()))?;
    // Blocks and their size have a type of their own on each system.
    #[allow(clippy::unnecessary_cast)]
    Ok(disk.blocks_available() as u64 * disk.fragment_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_room_is_taken_and_one_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        require_room(directory.path()).unwrap();
        assert_eq!(remark(directory.path()), "");
        let missing = directory.path().join("missing");
        let refused = require_room(&missing).unwrap_err();
        assert_eq!(refused.to_string(), format!("asking how much room there is at {}", missing.display()));
    }
}
