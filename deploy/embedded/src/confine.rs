//! Keeps the process inside its data directory, whatever SQL asks of the engine: Linux's Landlock, which
//! holds for symbolic links and `..`, for reading, writing and starting programs alike. The engine's own
//! rules (see `rules/`) and [`super::guard`] come first and say why; this is what is left if they miss a way.
//!
//! Besides the data directory, the engine may read what it is made of (its library, the system's), and what
//! names hosts, zones, authorities and the machine's size. Nobody's home is among it, no process's
//! environment, and nothing of `/etc` beyond the names below.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    path_beneath_rules,
};

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
pub fn confine(data: &Path, readable: &[PathBuf]) -> anyhow::Result<Confinement> {
    let needed = AccessFs::from_all(ABI::V2);
    let needed = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(needed);
    let Ok(ruleset) = needed else {
        return Ok(Confinement::Unavailable);
    };
    // Later kernels hold more: truncating a file (6.2) and the calls of a device (6.10).
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // What is not there needs no rule.
    ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules([data], all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(READABLE, read))?
        .add_rules(path_beneath_rules(library_directories()?, read))?
        .add_rules(path_beneath_rules(readable, read))?
        .restrict_self()?;
    Ok(Confinement::Kept)
}

/// Where the libraries of this process lie, which is where those are that the engine needs beside them.
fn library_directories() -> io::Result<BTreeSet<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let libraries = files.filter(|file| file.to_string_lossy().contains(".so"));
    Ok(libraries.filter_map(Path::parent).map(Path::to_owned).collect())
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
