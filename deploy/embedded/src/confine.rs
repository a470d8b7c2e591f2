//! Confines the process to its data directory, with Landlock of the Linux kernel. The kernel checks every
//! read, every write and every start of a program, also through symbolic links and `..`. The engine's own
//! rules (see `rules/`) and [`super::guard`] come first and explain their refusals; this module also stops
//! what they miss.
//!
//! Besides the data directory, the engine may read its libraries, and the files that name hosts, time zones,
//! certificate authorities and the size of the machine. It may read no home directory, no environment of a
//! process, and nothing of `/etc` but the names below.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    path_beneath_rules,
};

/// Files and directories that may be read, where they exist. The engine aborts if it finds a library, or the
/// debug information of one, and may not read it.
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
    // The limits of a container on memory and processors, and the kernel's memory settings; read at the start.
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
    // Without it the engine looks for its content after the environment in memory. A changed environment has
    // moved, and the engine crashes.
    "/proc/self/auxv",
    "/proc/self/cgroup",
    "/proc/sys/vm/overcommit_memory",
    "/dev/urandom",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    Kept,
    /// The kernel has no Landlock, or a version before Linux 5.19. That version cannot allow a rename from
    /// one directory to another, and without such a rename no part of a table can be written.
    Unavailable,
}

/// Confines this thread, and the threads that it starts from now on, until they end. They may read and write
/// `data`, read `readable`, and start no program.
///
/// # Errors
/// The kernel has Landlock and refuses the rules.
pub fn confine(data: &Path, readable: &[PathBuf]) -> anyhow::Result<Confinement> {
    let needed = AccessFs::from_all(ABI::V2);
    let needed = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(needed);
    let Ok(ruleset) = needed else {
        return Ok(Confinement::Unavailable);
    };
    // Later kernels also check truncation (6.2) and ioctl on devices (6.10).
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // A path that does not exist gets no rule.
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

/// The directories of this process's libraries; the engine loads others from the same directories.
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

    /// Runs `act` confined, on a thread of its own; the confinement ends with the thread.
    fn confined<T: Send>(data: &Path, act: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| match confine(data, &[]).expect("the kernel accepts the rules") {
                Confinement::Kept => Some(act()),
                Confinement::Unavailable => None,
            });
            confined.join().expect("does not panic")
        })
    }

    #[test]
    fn only_the_data_directory_can_be_reached() {
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
        // A kernel without Landlock confines nothing.
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
