//! Kills a consumer while one of its inserts runs. The result is certain: true only if the insert was running
//! and had not been answered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use local::Service;

use crate::clickhouse::ClickHouse;
use crate::signals::{freeze, thaw};

/// Short, since an insert of ten thousand rows runs for some ten milliseconds.
const POLL: Duration = Duration::from_millis(1);

/// Sends SIGKILL to a consumer while one of its inserts runs in ClickHouse and has not been answered. Returns
/// false if no insert ran within `timeout`; the consumer then goes on running.
///
/// The consumer is frozen first and ClickHouse queried again, so that the result is certain: an insert that
/// runs after the freeze has not been answered, and the frozen process can read no answer before it is
/// killed.
pub fn kill_in_flight(consumer: &Service, clickhouse: &ClickHouse, timeout: Duration) -> Result<bool> {
    let started = Instant::now();
    while started.elapsed() < timeout {
        ensure!(consumer.ended()?.is_none(), "the consumer ended by itself");
        if clickhouse.running_inserts().unwrap_or(0) > 0 {
            freeze(consumer.pid())?;
            if clickhouse.running_inserts().unwrap_or(0) > 0 {
                consumer.kill()?;
                return Ok(true);
            }
            thaw(consumer.pid())?;
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}
