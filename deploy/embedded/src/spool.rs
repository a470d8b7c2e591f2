//! Stores a request's body as a file that the engine can read, since the text of a query cannot contain
//! arbitrary bytes. The file is in memory and has no name, so nothing of it outlives the process. Knows
//! nothing of what a body contains.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exception::{Exception, code};

/// The memory for all bodies together.
pub struct SpoolSpace {
    /// The most bytes of one body, as sent and as decompressed.
    pub body_bytes_max: u64,
    /// The most bytes of all bodies at once.
    pub total_bytes_max: u64,
    used: AtomicU64,
}

impl SpoolSpace {
    pub fn new(body_bytes_max: u64, total_bytes_max: u64) -> Arc<SpoolSpace> {
        Arc::new(SpoolSpace { body_bytes_max, total_bytes_max, used: AtomicU64::new(0) })
    }

    /// An empty spool.
    pub fn new_spool(self: &Arc<SpoolSpace>) -> Result<Spool, Exception> {
        let file = anonymous_file().map_err(cannot_write)?;
        Ok(Spool { space: Arc::clone(self), path: path_of(&file), file, bytes: 0 })
    }

    pub fn body_too_large(&self) -> Exception {
        Exception::new(
            code::QUERY_IS_TOO_LARGE,
            format_args!(
                "the body is larger than {} bytes: send it in parts, or start the server with a larger --max-body-bytes",
                self.body_bytes_max
            ),
        )
    }
}

/// Bytes written once, then read.
pub struct Spool {
    space: Arc<SpoolSpace>,
    file: File,
    path: String,
    bytes: u64,
}

impl Spool {
    /// Appends `bytes`; an error beyond the limits of the space.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Exception> {
        let more = bytes.len() as u64;
        if self.bytes + more > self.space.body_bytes_max {
            return Err(self.space.body_too_large());
        }
        let used = self.space.used.fetch_add(more, Ordering::Relaxed) + more;
        self.bytes += more;
        if used > self.space.total_bytes_max {
            return Err(Exception::new(
                code::TOO_MANY_SIMULTANEOUS_QUERIES,
                format_args!(
                    "the bodies of all running queries take more than {} bytes: try again later, or start the \
                     server with a larger --max-spool-bytes",
                    self.space.total_bytes_max
                ),
            ));
        }
        self.file.write_all(bytes).map_err(cannot_write)
    }

    pub fn len(&self) -> u64 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The path that this process can open the file at.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads from byte `from` to the end.
    pub fn read_from(&self, from: u64) -> SpoolReader<'_> {
        SpoolReader { file: &self.file, at: from }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a [`Spool`] from its own position.
pub struct SpoolReader<'spool> {
    file: &'spool File,
    at: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

fn cannot_write(error: io::Error) -> Exception {
    let code = match error.raw_os_error() {
        Some(number) if number == nix::errno::Errno::ENOSPC as i32 => code::NOT_ENOUGH_SPACE,
        _ => code::CANNOT_WRITE_TO_FILE_DESCRIPTOR,
    };
    Exception::new(code, format_args!("cannot keep the body in memory: {error}"))
}

/// The path that this process can open `file` at, while `file` is open.
pub fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A file in memory, without a name.
#[cfg(target_os = "linux")]
pub fn anonymous_file() -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(File::from(memfd_create(c"request-body", MFdFlags::MFD_CLOEXEC)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_read_through_the_path() {
        let mut spool = SpoolSpace::new(10, 10).new_spool().expect("a spool");
        spool.append(b"ab\0").expect("fits");
        spool.append(b"\xffd").expect("fits");
        assert_eq!(std::fs::read(spool.path()).expect("readable"), b"ab\0\xffd");
        let mut tail = Vec::new();
        spool.read_from(3).read_to_end(&mut tail).expect("readable");
        assert_eq!(tail, b"\xffd");
    }

    #[test]
    fn limits_are_enforced_and_space_is_released() {
        let space = SpoolSpace::new(4, 6);
        let mut first = space.new_spool().expect("a spool");
        first.append(b"1234").expect("fits");
        assert_eq!(first.append(b"5").expect_err("too large").code, code::QUERY_IS_TOO_LARGE);
        let mut second = space.new_spool().expect("a spool");
        assert_eq!(second.append(b"123").expect_err("no space").code, code::TOO_MANY_SIMULTANEOUS_QUERIES);
        drop((first, second));
        space.new_spool().expect("a spool").append(b"1234").expect("fits again");
    }
}
