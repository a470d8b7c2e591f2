//! Decoding as a worker does it: what can never be read is told from what cannot be read yet, and the latter is
//! waited for.

use std::time::Duration;

use anyhow::{Context, Result};
use ops::registry::Unavailable;
use ops::retry::{End, Retry};
use schemas::avro::DecodeError;

use super::Line;
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::fetch::Message;
use crate::pipeline::schema_cache::NoPlan;

/// Without end: a message that cannot be read yet may not be passed over. The wait ends when the partition is taken
/// away; `/readyz` and `consumer_stalled` tell of it.
const WRITERS_SCHEMA: Retry =
    Retry { first: Duration::from_millis(100), longest: Duration::from_secs(5), end: End::Never };

impl Line {
    /// What a message holds, or why it never will. While the registry cannot say which, the partition stands still.
    #[inline]
    pub(super) fn decoded<'a>(&mut self, message: &Message<'a>) -> Result<Result<Decoded<'a>, DecodeError>> {
        match decode(self.place.table, message.payload, &mut self.plans) {
            Ok(decoded) => Ok(Ok(decoded)),
            Err(NoPlan::Never(error)) => Ok(Err(error)),
            Err(NoPlan::NotNow(error)) => self.decoded_later(message, error),
        }
    }

    #[cold]
    fn decoded_later<'a>(
        &mut self,
        message: &Message<'a>,
        mut error: Unavailable,
    ) -> Result<Result<Decoded<'a>, DecodeError>> {
        for pause in WRITERS_SCHEMA.pauses() {
            self.set_stalled(true);
            let (topic, partition, offset) = (&self.place.topic, self.place.partition, message.offset);
            tracing::warn!(topic, partition, offset, %error, "cannot go on without the writer's schema");
            if self.told_to_stop_within(pause) {
                return Err(error).context("told to stop while waiting for a writer's schema");
            }
            self.set_stalled(false);
            error = match decode(self.place.table, message.payload, &mut self.plans) {
                Ok(decoded) => return Ok(Ok(decoded)),
                Err(NoPlan::Never(error)) => return Ok(Err(error)),
                Err(NoPlan::NotNow(error)) => error,
            };
        }
        unreachable!("the retry has no end")
    }
}
