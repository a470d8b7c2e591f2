//! What may happen to a running platform: kills at chosen and at seeded moments. Each fault says for
//! certain what it met; where it cannot, it says that it does not know.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use local::Service;

use crate::clickhouse::ClickHouse;
use crate::signals::{freeze, thaw};

/// An insert of ten thousand rows runs for some ten milliseconds.
const LOOK: Duration = Duration::from_millis(1);

/// SIGKILL to a consumer while an insert of it runs in ClickHouse whose answer it has not got. False if
/// none ran within `patience`; the consumer then lives on.
///
/// The consumer is frozen first and ClickHouse asked again, so that there is no doubt: what runs there
/// after the freeze has not been answered, and the frozen process can take no answer before it is killed.
pub fn kill_in_flight(consumer: &Service, clickhouse: &ClickHouse, patience: Duration) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        ensure!(consumer.ended()?.is_none(), "the consumer ended by itself");
        if clickhouse.running_inserts().unwrap_or(0) > 0 {
            freeze(consumer.pid())?;
            if clickhouse.running_inserts().unwrap_or(0) > 0 {
                consumer.kill()?;
                return Ok(true);
            }
            thaw(consumer.pid())?;
        }
        std::thread::sleep(LOOK);
    }
    Ok(false)
}
