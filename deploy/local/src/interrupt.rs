//! Handles SIGINT (Ctrl-C), SIGTERM and SIGHUP: the first signal asks the program to stop in order, the
//! second one ends it at once (the kernel then kills its children).

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The exit code that shells report for a program ended by Ctrl-C.
pub const EXIT_CODE: u8 = 130;

/// Installs the handler: from now on the first SIGINT, SIGTERM or SIGHUP is recorded and does not end the
/// process.
pub fn listen() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(record), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler uses an atomic and _exit alone, both async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("listening for {signal}"))?;
    }
    Ok(())
}

/// Returns whether a signal has been received.
pub fn received() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once a signal has been received. Called between the steps of long work.
pub fn check() -> Result<()> {
    if received() {
        bail!("interrupted");
    }
    Ok(())
}

extern "C" fn record(_: libc::c_int) {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit may be called at any moment, from a handler too.
        unsafe { libc::_exit(i32::from(EXIT_CODE)) }
    }
}
