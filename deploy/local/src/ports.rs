//! Finds free ports on the loopback interface, and reads the files to which programs write their address.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// The ports are below the range of ephemeral ports (32768 and up on Linux). A killed server must find its
/// port free when it restarts; from the ephemeral range, the kernel could give that port to a client that is
/// trying to connect to it.
const LOWEST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Finds a port that nobody listens on now. Nothing reserves it until the server binds it. Therefore each
/// call starts at another place, and one process returns no port twice: with four stacks at once in a range
/// of 12,000, two of them would get the same port in every fiftieth run.
pub fn free() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let seed = [nanos, std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed)];
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let port = first_free(hash_to_index(seed), &given)?;
    given.insert(port);
    Ok(port)
}

/// Returns the given port, or a free one if none is given. Fails if the given port is in use.
pub fn given_or_free(given: Option<u16>) -> Result<u16> {
    let Some(port) = given else { return free() };
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(port),
        Err(error) => Err(error).with_context(|| {
            format!("port {port} cannot be used: stop what listens there, or name another port")
        }),
    }
}

/// Reads the address "host:port" from a program's port file; `None` until the program has written it.
pub fn read_file(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading the port file {}", path.display())),
    }
}

fn first_free(start: u16, given: &BTreeSet<u16>) -> Result<u16> {
    for step in 0..COUNT {
        let port = LOWEST + (start + step) % COUNT;
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {LOWEST} to {}", LOWEST + COUNT - 1)
}

/// Hashes the seed to a number from 0 to `COUNT - 1`. The distribution is about uniform.
fn hash_to_index(seed: [u32; 3]) -> u16 {
    let mixed = seed.iter().fold(0_u64, |mixed, part| {
        (mixed ^ u64::from(*part)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    });
    u16::try_from(mixed % u64::from(COUNT)).expect("the remainder is below 12,000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_skipped_and_the_range_wraps() {
        let last = COUNT - 1;
        // If this fails, somebody else listens on the last port, and it is in use all the same.
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, LOWEST + last));
        let found = first_free(last, &BTreeSet::new()).unwrap();
        assert!((LOWEST..LOWEST + last).contains(&found), "{found}");
        // A port that was returned before is skipped, even if nobody listens on it yet.
        let next = first_free(last, &BTreeSet::from([found])).unwrap();
        assert!((LOWEST..LOWEST + last).contains(&next) && next != found, "{next}");
    }

    #[test]
    fn a_port_in_use_is_refused_by_number() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            given_or_free(Some(port)).unwrap_err().to_string(),
            format!("port {port} cannot be used: stop what listens there, or name another port")
        );
    }

    #[test]
    fn a_port_file_has_no_address_until_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("port");
        assert_eq!(read_file(&path).unwrap(), None);
        std::fs::write(&path, "127.0.0.1:20001\n").unwrap();
        assert_eq!(read_file(&path).unwrap(), Some("127.0.0.1:20001".to_owned()));
    }
}
