//! Reads the last lines of a log, for errors that quote them and for `splitstream local logs`. Knows nothing
//! of their format.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The last `count` lines of a file that are not blank; none if the file cannot be read.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    /// Enough to quote from. A log may be larger than memory.
    const TAIL_BYTES: u64 = 64 * 1024;
    let read_tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read_tail().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}
