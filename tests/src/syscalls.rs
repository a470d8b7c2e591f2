//! Kills processes inside system calls: strace traces a running process and kills it when one of its threads
//! enters a chosen call for the n-th time, before the call has any effect. This module knows processes, files
//! and sockets, but not their purpose.

use std::fs;
use std::io::Read;
use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use local::process::{Identity, spawn_bound};

/// strace attaches to the threads of a busy process within some ten milliseconds.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);
/// Detaching from all threads takes as long.
const DETACH_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// The system call at which a process is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Names in the form of strace's options: "rename,renameat,renameat2".
    pub names: &'static str,
    /// Only calls on these absolute paths, or sockets as returned by [`socket_of`]. If empty, calls on
    /// anything.
    pub on: Vec<String>,
    /// The number of the call, from 1; each thread counts its own. The first thread that reaches it is killed
    /// with its process.
    pub count: u64,
}

/// Kills a process at a call. If it is dropped before the call, it detaches from the process.
pub struct Trap {
    strace: Child,
    victim: Identity,
}

impl Trap {
    /// Starts strace and returns when it traces every thread of the process.
    ///
    /// # Errors
    /// strace is not installed or is not allowed to trace the process; the error explains how to fix that.
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
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while !is_traced(pid)? {
            if trap.strace.try_wait().context("waiting for strace")?.is_some() {
                let mut message = String::new();
                if let Some(errors) = &mut trap.strace.stderr {
                    errors.read_to_string(&mut message).context("reading the errors of strace")?;
                }
                bail!(
                    "strace is not allowed to trace process {pid}: {}. If the kernel lets only ancestors trace a \
                     process, allow it: sysctl kernel.yama.ptrace_scope=0",
                    message.trim()
                );
            }
            if Instant::now() >= deadline {
                bail!("strace does not trace process {pid} after {} s", ATTACH_TIMEOUT.as_secs());
            }
            std::thread::sleep(POLL);
        }
        Ok(trap)
    }

    /// Returns true when the process is dead. Returns false if it is alive after `timeout`; it is then no
    /// longer traced.
    pub fn kills_within(self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.victim.is_alive() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        !self.victim.is_alive()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        // strace ends by itself after the process; on SIGTERM it detaches from a process that is alive.
        let stopped = Identity::of(self.strace.id()).map(|strace| strace.stop(DETACH_TIMEOUT)).transpose();
        if let Err(error) = stopped {
            eprintln!("stopping strace: {error:#}");
        }
        let _ = self.strace.wait();
    }
}

/// Fails if strace is not installed.
pub fn find_strace() -> Result<()> {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "strace is not installed: strace kills processes inside system calls, on Linux only. To get it: apt-get \
         install strace"
    )
}

/// The addresses of a connection: that of the socket itself and that of its peer. Both are needed, since one
/// port of this machine can be an end of several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    pub own: SocketAddrV4,
    pub peer: SocketAddrV4,
}

/// The socket of a connection of this machine: "socket:[INODE]".
pub fn socket_of(endpoints: Endpoints) -> Result<String> {
    let table = fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp")?;
    let inode =
        inode_of(&table, endpoints).with_context(|| format!("there is no connection {endpoints:?}"))?;
    Ok(format!("socket:[{inode}]"))
}

fn inode_of(table: &str, endpoints: Endpoints) -> Option<&str> {
    // The kernel prints the address's four bytes as an integer in native byte order, and the port as a number.
    let format_end =
        |end: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
    let (own, peer) = (format_end(endpoints.own), format_end(endpoints.peer));
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(1..3) == Some(&[own.as_str(), peer.as_str()]))?;
    line.get(9).copied()
}

/// Returns whether every thread of the process is traced.
fn is_traced(pid: u32) -> Result<bool> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let status = task.with_context(|| format!("reading {tasks}"))?.path().join("status");
        // The thread may have ended meanwhile.
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
    fn a_connection_is_found_by_its_endpoints() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(own), SocketAddr::V4(peer)) =
            (client.local_addr().unwrap(), client.peer_addr().unwrap())
        else {
            panic!("bound to IPv4")
        };
        let link = fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap();
        assert_eq!(socket_of(Endpoints { own, peer }).unwrap(), link.display().to_string());
    }

    /// A lookup by the own address alone sometimes found an old connection of the same port.
    #[test]
    fn the_kernels_table_of_connections_is_parsed() {
        let table = "\
            sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
            2: 0100007F:8D8A 0100007F:5371 06 00000000:00000000 03:00000017 00000000 0 0 0 3 0\n\
            3: 0100007F:8D8A 0100007F:5370 01 00000000:00000000 00:00000000 00000000 0 0 1982939 2 0\n\
            4: 0100007F:5370 0100007F:8D8A 01 00000000:00000000 00:00000000 00000000 0 0 1982940 2 0\n";
        let client: SocketAddrV4 = "127.0.0.1:36234".parse().unwrap();
        let server: SocketAddrV4 = "127.0.0.1:21360".parse().unwrap();
        assert_eq!(inode_of(table, Endpoints { own: client, peer: server }), Some("1982939"));
        assert_eq!(inode_of(table, Endpoints { own: server, peer: client }), Some("1982940"));
        assert_eq!(inode_of(table, Endpoints { own: client, peer: client }), None);
    }

    #[test]
    fn a_process_is_killed_before_its_nth_call_on_the_given_file() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        // The script waits for its stdin to close, so that it writes nothing before it is traced.
        let script = "read _; for i in 1 2 3; do echo $i >>$0; echo $i >>$1; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&one).arg(&two).stdin(Stdio::piped());
        let mut child = spawn_bound(command).unwrap();
        let call = Call { names: "write", on: vec![two.display().to_string()], count: 2 };
        let trap = Trap::set(child.id(), &call).unwrap();
        drop(child.stdin.take());
        assert!(trap.kills_within(Duration::from_secs(20)));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
        assert_eq!(fs::read_to_string(one).unwrap(), "1\n2\n");
        assert_eq!(fs::read_to_string(two).unwrap(), "1\n");
    }

    #[test]
    fn a_trap_whose_call_never_comes_detaches_from_the_process() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = spawn_bound(command).unwrap();
        let trap = Trap::set(child.id(), &Call { names: "rename", on: Vec::new(), count: 1 }).unwrap();
        assert!(!trap.kills_within(Duration::from_millis(50)));
        assert!(!is_traced(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
