//! Trying again what fails because something is just being restarted. For what may be repeated without
//! changing its outcome.

use std::time::Duration;

use anyhow::Result;

use crate::interrupt;
use fetch::progress::tell;

/// With the waits between them they span half a minute: longer than Kafka or ClickHouse takes to come back.
const ATTEMPTS_MAX: u32 = 6;
const WAIT: Duration = Duration::from_secs(5);

/// Does it, again and again within bounds, until it succeeds.
pub fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS_MAX {
        interrupt::check()?;
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => tell(&format!("{error:#}\ntrying again in {} s", WAIT.as_secs())),
        }
        std::thread::sleep(WAIT);
    }
    interrupt::check()?;
    attempt()
}
