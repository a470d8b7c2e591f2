//! Sends signals to processes that a test has started itself.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends SIGSTOP: the process stops running, without notice to it.
pub fn freeze(pid: u32) -> Result<()> {
    send(pid, Signal::SIGSTOP)
}

/// Sends SIGCONT: the process goes on where it stopped.
pub fn thaw(pid: u32) -> Result<()> {
    send(pid, Signal::SIGCONT)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = i32::try_from(pid).context("a process number is below 2^22")?;
    kill(Pid::from_raw(number), signal).with_context(|| format!("sending {signal} to process {pid}"))
}
