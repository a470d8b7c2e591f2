//! Decoding in a worker. A message that can never be decoded is returned as such; one whose writer's schema cannot be
//! had at the moment is waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kafka::registry::Unavailable;
use ops::retry::{End, Retry};
use schemas::avro::DecodeError;

use super::PartitionState;
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::fetch::Message;
use crate::pipeline::schema_cache::PlanError;

/// Without end: a message that cannot be read yet may not be passed over. The wait ends when the partition is taken
/// away; `/readyz` and `consumer_stalled` tell of it.
const WRITERS_SCHEMA: Retry =
    Retry { first: Duration::from_millis(100), longest: Duration::from_secs(5), end: End::Never };

impl PartitionState {
    /// The message's record, or why it can never be decoded. Waits while the registry does not answer.
    #[inline]
    pub(super) fn decoded<'a>(&mut self, message: &Message<'a>) -> Result<Result<Decoded<'a>, DecodeError>> {
        match decode(self.place.table, message.payload, &mut self.plans) {
            Ok(decoded) => Ok(Ok(decoded)),
            Err(PlanError::Undecodable(error)) => Ok(Err(error)),
            Err(PlanError::Unavailable(error)) => self.decoded_later(message, error),
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
            self.readiness.doubt(Instant::now(), &format!("the writer's schema: {error}"));
            let (topic, partition, offset) = (&self.place.topic, self.place.partition, message.offset);
            tracing::warn!(topic, partition, offset, %error, "cannot go on without the writer's schema");
            if self.stopped_within(pause) {
                return Err(error).context("told to stop while waiting for a writer's schema");
            }
            error = match decode(self.place.table, message.payload, &mut self.plans) {
                Ok(decoded) => return Ok(Ok(decoded)),
                Err(PlanError::Undecodable(error)) => return Ok(Err(error)),
                Err(PlanError::Unavailable(error)) => error,
            };
        }
        unreachable!("the retry has no end")
    }
}
