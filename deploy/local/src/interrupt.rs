//! Ctrl-C, and SIGTERM and SIGHUP: the first one asks the program to stop in order, the
//! second one ends it at once (the kernel then ends its children).

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The exit code of a program ended by Ctrl-C, as shells have it.
pub const EXIT_CODE: u8 = 130;

/// From now on SIGINT, SIGTERM and SIGHUP are noted instead of fatal.
pub fn listen() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler uses an atomic and _exit alone, both async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("listening for {signal}"))?;
    }
    Ok(())
}

/// Whether a signal has come.
pub fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once a signal has come; called between the steps of something long.
pub fn check() -> Result<()> {
    if came() {
        bail!("interrupted");
    }
    Ok(())
}

extern "C" fn note(_: libc::c_int) {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit may be called at any moment, from a handler too.
        unsafe { libc::_exit(i32::from(EXIT_CODE)) }
    }
}
