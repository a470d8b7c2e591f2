//! Decoding in a worker. A message that can never be decoded is returned as such; one whose writer's schema cannot be
//! had at the moment is waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kafka::registry::Unavailable;
use schemas::avro::DecodeError;

use super::PartitionState;
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::fetch::Message;
use crate::pipeline::schema_cache::PlanError;

/// How often a waiting worker asks the cache. How often the registry itself is asked is the cache's business.
const ASK_CACHE_EVERY: Duration = Duration::from_millis(100);

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
        let (topic, partition, offset) = (self.place.topic.clone(), self.place.partition, message.offset);
        tracing::warn!(topic, partition, offset, %error, "waiting for the writer's schema");
        self.set_stalled(true);
        // Without end: a message that cannot be read yet may not be passed over. The wait ends when the partition is
        // taken away; `/readyz` and `consumer_stalled` report it.
        loop {
            self.readiness.failed(Instant::now(), &format!("the writer's schema: {error}"));
            if self.stopped_within(ASK_CACHE_EVERY) {
                return Err(error).context("told to stop while waiting for a writer's schema");
            }
            let counted = self.plans.counts();
            let again = match decode(self.place.table, message.payload, &mut self.plans) {
                Ok(decoded) => return Ok(Ok(decoded)),
                Err(PlanError::Undecodable(error)) => return Ok(Err(error)),
                Err(PlanError::Unavailable(error)) => error,
            };
            // It is one message, however often it is tried.
            self.plans.restore_counts(counted);
            if again.to_string() != error.to_string() {
                tracing::warn!(topic, partition, offset, error = %again, "waiting for the writer's schema");
            }
            error = again;
        }
    }
}
