//! The local stack: what it fetches, and how the real parts are run and stopped on one machine.

pub mod fetch;
pub mod progress;
