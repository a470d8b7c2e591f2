//! Retries, a bounded number of times, work that fails because a part is being restarted. Only for work that
//! may be repeated without changing its outcome.

use std::time::Duration;

use anyhow::Result;

use crate::interrupt;
use fetch::progress::print_line;

/// With the waits between them, the attempts take half a minute: longer than Kafka or ClickHouse takes to
/// restart.
const ATTEMPTS_MAX: u32 = 6;
const WAIT: Duration = Duration::from_secs(5);

/// Calls `attempt` until it succeeds, at most `ATTEMPTS_MAX` times; the last error is returned, the others are
/// printed.
pub fn retry<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS_MAX {
        interrupt::check()?;
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => print_line(&format!("{error:#}\ntrying again in {} s", WAIT.as_secs())),
        }
        std::thread::sleep(WAIT);
    }
    interrupt::check()?;
    attempt()
}
