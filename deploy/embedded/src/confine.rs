//! Keeps the process inside its data directory, whatever SQL asks of the engine: Linux's Landlock, which
//! holds for symbolic links and `..`, for reading, writing and starting programs alike. The engine's own
//! rules (see `rules/`) and [`super::guard`] come first and say why; this is what is left if they miss a way.
//!
//! Besides the data directory, the engine may read what it is made of (its library, the system's), and what
//! names hosts, zones, authorities and the machine's size. Nobody's home is among it, no process's
//! environment, and nothing of `/etc` beyond the names below.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

/// Read where they are there. The engine ends itself over a library, or the debug information of one, that it
/// finds and may not read.
const READABLE: [&str; 29] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/run/systemd/resolve",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/var/lib/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    // The memory and the processors that a container may use, and how memory is given; read at the start.
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
    // Without it the engine looks for the same behind the environment, where a changed one is not, and crashes.
    "/proc/self/auxv",
    "/proc/self/cgroup",
    "/proc/sys/vm/overcommit_memory",
    "/dev/urandom",
];

// From linux/landlock.h: the rights that a ruleset can handle, by the version of the interface that
// brought the last of them.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const ALL_SINCE: [(c_int, u64); 3] = [(2, (1 << 14) - 1), (3, (1 << 15) - 1), (5, (1 << 16) - 1)];
/// What can be granted on something that is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: c_int = 1;

#[repr(C)]
struct RulesetAttribute {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    Kept,
    /// The kernel has no Landlock, or not the version that lets a file be renamed from one directory to
    /// another (Linux 5.19), without which no part of a table could be written.
    Unavailable,
}

/// Confines this thread, and the threads that it starts from now on, for good. `data` may be read and
/// written, `readable` read, and no program started.
///
/// # Errors
/// The kernel has Landlock and refuses the rules.
pub fn confine(data: &Path, readable: &[PathBuf]) -> io::Result<Confinement> {
    let Some(handled) = handled_rights() else {
        return Ok(Confinement::Unavailable);
    };
    let ruleset = create(&RulesetAttribute { handled_access_fs: handled })?;
    allow(&ruleset, data, handled & !EXECUTE)?;
    allow(&ruleset, Path::new("/dev/null"), READ_FILE | WRITE_FILE)?;
    let libraries = library_directories()?;
    let fixed = READABLE.iter().map(Path::new);
    for path in fixed.chain(libraries.iter().chain(readable).map(PathBuf::as_path)) {
        allow(&ruleset, path, READ_FILE | READ_DIR)?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: the call takes an open ruleset and flags, of which there are none.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(Confinement::Kept)
}

/// Where the libraries of this process lie, which is where those are that the engine needs beside them.
fn library_directories() -> io::Result<BTreeSet<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let libraries = files.filter(|file| file.to_string_lossy().contains(".so"));
    Ok(libraries.filter_map(Path::parent).map(Path::to_owned).collect())
}

/// All rights that this kernel knows, if they suffice.
fn handled_rights() -> Option<u64> {
    // SAFETY: with this flag the call reads nothing and returns the version.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0, CREATE_RULESET_VERSION)
    };
    let known = ALL_SINCE.iter().rev().find(|(since, _)| version >= i64::from(*since));
    known.map(|(_, rights)| *rights)
}

fn create(attribute: &RulesetAttribute) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is as long as it is said to be, and only read.
    let ruleset = checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attribute),
            size_of::<RulesetAttribute>(),
            0,
        )
    })?;
    // SAFETY: a successful call returns a descriptor that nobody else owns; descriptors fit.
    Ok(unsafe { OwnedFd::from_raw_fd(ruleset as c_int) })
}

/// Grants `rights` on `path` and all beneath it; nothing if it is not there.
fn allow(ruleset: &OwnedFd, path: &Path, rights: u64) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let Ok(place) = OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return Ok(());
    };
    let rights = if place.metadata()?.is_dir() { rights } else { rights & OF_FILES };
    let rule = PathBeneath { allowed_access: rights, parent_fd: place.as_raw_fd() };
    // SAFETY: the rule has the layout that goes with its type, and is only read.
    checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            std::ptr::from_ref(&rule),
            0,
        )
    })?;
    Ok(())
}

fn checked(returned: i64) -> io::Result<i64> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// On a thread of its own, which takes the confinement with it.
    fn confined<T: Send>(data: &Path, act: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| match confine(data, &[]).expect("the rules are taken") {
                Confinement::Kept => Some(act()),
                Confinement::Unavailable => None,
            });
            confined.join().expect("does not panic")
        })
    }

    #[test]
    fn only_the_data_directory_is_within_reach() {
        let root = tempfile::tempdir().expect("a directory");
        let [data, outside] = ["data", "outside"].map(|name| root.path().join(name));
        for place in [&data, &outside] {
            fs::create_dir(place).expect("makes a directory");
            fs::write(place.join("file"), "text").expect("writes");
            fs::create_dir(place.join("deeper")).expect("makes a directory");
        }
        symlink(outside.join("file"), data.join("link")).expect("links");
        let denied = |result: io::Result<()>| result.err().map(|error| error.kind());
        let found = confined(&data, || {
            let text = fs::read_to_string(data.join("file")).expect("reads");
            fs::read("/proc/self/auxv").expect("reads what the engine asks of the kernel");
            fs::rename(data.join("file"), data.join("deeper/file")).expect("renames");
            fs::hard_link(data.join("deeper/file"), data.join("again")).expect("links");
            let refused = [
                denied(fs::read(outside.join("file")).map(drop)),
                denied(fs::read(data.join("../outside/file")).map(drop)),
                denied(fs::read(data.join("link")).map(drop)),
                denied(fs::read("/etc/passwd").map(drop)),
                denied(fs::read("/proc/self/environ").map(drop)),
                denied(fs::write(outside.join("new"), "")),
                denied(fs::remove_file(outside.join("file"))),
                denied(fs::read_dir(&outside).map(drop)),
                denied(Command::new("/bin/sh").args(["-c", "true"]).status().map(drop)),
            ];
            (text, refused)
        });
        // A kernel without Landlock has nothing to show here.
        let Some((text, refused)) = found else { return };
        assert_eq!(text, "text");
        assert_eq!(refused, [Some(io::ErrorKind::PermissionDenied); 9]);
    }

    #[test]
    fn another_thread_is_not_confined() {
        let data = tempfile::tempdir().expect("a directory");
        confined(data.path(), || {});
        assert!(fs::read("/etc/passwd").is_ok());
    }
}
