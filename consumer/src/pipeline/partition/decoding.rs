//! Decoding as a worker does it: what can never be read is told from what cannot be read yet, and the latter is
//! waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use schemas::avro::DecodeError;

use super::{FETCH_WAIT, Line};
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::fetch::Message;
use crate::pipeline::schema_cache::NoPlan;

/// Pauses between two questions for a schema, doubling from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

impl Line {
    /// What a message holds, or why it never will. While the registry cannot say which, the partition stands.
    #[inline]
    pub(super) fn decoded<'a>(&mut self, message: &Message<'a>) -> Result<Result<Decoded<'a>, DecodeError>> {
        let mut pause = PAUSE.0;
        loop {
            let error = match decode(self.place.table, message.payload, &mut self.plans) {
                Ok(decoded) => return Ok(Ok(decoded)),
                Err(NoPlan::Never(error)) => return Ok(Err(error)),
                Err(NoPlan::NotNow(error)) => error,
            };
            self.set_stalled(true);
            let (topic, partition, offset) = (&self.place.topic, self.place.partition, message.offset);
            tracing::warn!(topic, partition, offset, %error, "cannot go on without the writer's schema");
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if self.stop.said() {
                    return Err(error).context("told to stop while waiting for a writer's schema");
                }
                self.progress.touch();
                std::thread::sleep(FETCH_WAIT);
            }
            self.set_stalled(false);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
