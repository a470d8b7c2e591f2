//! Kills inside system calls: strace watches a running process and kills it when one of its threads enters a
//! chosen call for the n-th time, before the call has done anything. It knows processes, files and sockets,
//! and nothing of what they are for.

use std::fs;
use std::io::Read;
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use local::process::{Identity, spawn_bound};

/// Threads of a busy process are watched after some ten milliseconds.
const WATCHED_WITHIN: Duration = Duration::from_secs(20);
/// Letting go of all threads takes as long.
const LETS_GO_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A system call to be killed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// As strace takes them: "rename,renameat,renameat2".
    pub names: &'static str,
    /// Only those on one of these: absolute paths, or sockets as [`socket_of`] names them. Empty: on anything.
    pub on: Vec<String>,
    /// Each thread counts its own calls, from 1; the first one that gets so far is killed with its process.
    pub count: u64,
}

/// Waits for a call. Dropped before that, it lets the process go.
pub struct Trap {
    strace: Child,
    victim: Identity,
}

impl Trap {
    /// Returns when every thread of the process is watched.
    ///
    /// # Errors
    /// When strace is not installed or may not watch the process; the error says how to mend that.
    pub fn set(pid: u32, call: &Call) -> Result<Trap> {
        find_strace()?;
        let Call { names, on, count } = call;
        let victim = Identity::of(pid).with_context(|| format!("process {pid} has ended already"))?;
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        command.args(["-e", &format!("trace={names}")]);
        command.args(["-e", &format!("inject={names}:signal=SIGKILL:when={count}")]);
        for on in on {
            command.args(["-P", on]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut trap = Trap { strace: spawn_bound(command).context("starting strace")?, victim };
        let deadline = Instant::now() + WATCHED_WITHIN;
        while !watched(pid)? {
            if trap.strace.try_wait().context("waiting for strace")?.is_some() {
                let mut said = String::new();
                if let Some(errors) = &mut trap.strace.stderr {
                    errors.read_to_string(&mut said).context("reading what strace says")?;
                }
                bail!(
                    "strace may not watch process {pid}: {}. Where the kernel lets processes be watched by their \
                     ancestors alone, allow it: sysctl kernel.yama.ptrace_scope=0",
                    said.trim()
                );
            }
            if Instant::now() >= deadline {
                bail!("strace does not watch process {pid} after {} s", WATCHED_WITHIN.as_secs());
            }
            std::thread::sleep(LOOK);
        }
        Ok(trap)
    }

    /// True once the process is dead; false if it lives on after `patience`, and nobody watches it any more.
    pub fn springs_within(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.victim.is_alive() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        !self.victim.is_alive()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        // It ends by itself after its victim, and lets go of a living one when it is told to end.
        let stopped = Identity::of(self.strace.id()).map(|strace| strace.stop(LETS_GO_WITHIN)).transpose();
        if let Err(error) = stopped {
            eprintln!("stopping strace: {error:#}");
        }
        let _ = self.strace.wait();
    }
}

/// An error if there is no strace.
pub fn find_strace() -> Result<()> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "strace is not installed: strace kills processes inside system calls, on Linux alone. To get it: apt-get \
         install strace"
    )
}

/// A connection, as the side sees it whose socket is meant. One port of this machine can be an end of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub own: SocketAddrV4,
    pub far: SocketAddrV4,
}

/// The socket of a connection of this machine: "socket:[INODE]".
pub fn socket_of(ends: Ends) -> Result<String> {
    let table = fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp")?;
    let inode = inode_of(&table, ends).with_context(|| format!("there is no connection {ends:?}"))?;
    Ok(format!("socket:[{inode}]"))
}

fn inode_of(table: &str, ends: Ends) -> Option<&str> {
    // The address as the number that its bytes are in memory, the port as a number.
    let shown =
        |end: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
    let (own, far) = (shown(ends.own), shown(ends.far));
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(1..3) == Some(&[own.as_str(), far.as_str()]))?;
    line.get(9).copied()
}

/// Whether every thread of the process is watched.
fn watched(pid: u32) -> Result<bool> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let status = task.with_context(|| format!("reading {tasks}"))?.path().join("status");
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(status) else { continue };
        if status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"])) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_connection_is_found_by_its_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(own), SocketAddr::V4(far)) =
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        else {
            panic!("bound to IPv4")
        };
        let link = fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap();
        assert_eq!(socket_of(Ends { own, far }).unwrap(), link.display().to_string());
    }

    /// Looked up by its own end alone, a connection was now and then taken for an old one of the same port.
    #[test]
    fn the_kernels_table_of_connections_is_read() {
        let table = "\
            sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
            2: 0100007F:8D8A 0100007F:5371 06 00000000:00000000 03:00000017 00000000 0 0 0 3 0\n\
            3: 0100007F:8D8A 0100007F:5370 01 00000000:00000000 00:00000000 00000000 0 0 1982939 2 0\n\
            4: 0100007F:5370 0100007F:8D8A 01 00000000:00000000 00:00000000 00000000 0 0 1982940 2 0\n";
        let client: SocketAddrV4 = "127.0.0.1:36234".parse().unwrap();
        let server: SocketAddrV4 = "127.0.0.1:21360".parse().unwrap();
        assert_eq!(inode_of(table, Ends { own: client, far: server }), Some("1982939"));
        assert_eq!(inode_of(table, Ends { own: server, far: client }), Some("1982940"));
        assert_eq!(inode_of(table, Ends { own: client, far: client }), None);
    }

    #[test]
    fn a_process_dies_before_its_nth_call_and_not_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        // Waits until it is watched, so that no write comes before.
        let script = "read _; for i in 1 2 3; do echo $i >>$0; echo $i >>$1; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&one).arg(&two).stdin(Stdio::piped());
        let mut child = spawn_bound(command).unwrap();
        let call = Call { names: "write", on: vec![two.display().to_string()], count: 2 };
        let trap = Trap::set(child.id(), &call).unwrap();
        drop(child.stdin.take());
        assert!(trap.springs_within(Duration::from_secs(20)));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        assert_eq!(fs::read_to_string(one).unwrap(), "1\n2\n");
        assert_eq!(fs::read_to_string(two).unwrap(), "1\n");
    }

    #[test]
    fn a_trap_that_nobody_enters_lets_the_process_go() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = spawn_bound(command).unwrap();
        let trap = Trap::set(child.id(), &Call { names: "rename", on: Vec::new(), count: 1 }).unwrap();
        assert!(!trap.springs_within(Duration::from_millis(50)));
        assert!(!watched(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
