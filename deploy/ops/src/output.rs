//! Prints the result of a command on standard output. A reader that has seen enough, such as `head`, closes the pipe: that
//! is no failure, and a command that writes to a log goes on with its work.

use std::io::{self, Write};

use anyhow::Context;

/// Prints the text, unless nobody reads any more.
///
/// # Errors
/// If standard output cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    write(&mut io::stdout().lock(), text).context("writing to standard output")
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    /// `splitstream definitions | head` ended with an error.
    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        write(&mut Fails(io::ErrorKind::BrokenPipe), "text").unwrap();
        let full = write(&mut Fails(io::ErrorKind::StorageFull), "text").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let mut out = Vec::new();
        write(&mut out, "text").unwrap();
        assert_eq!(out, b"text");
    }
}
