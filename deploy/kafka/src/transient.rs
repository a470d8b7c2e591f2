//! The list of Kafka's transient errors, which pass by themselves. The caller decides what to do about one, and
//! for how long.

use std::time::Duration;

use ops::retry::{End, Retry};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The longest time without a leader of a partition or a coordinator of a group. When its broker is restarted,
/// or another takes over, the election takes seconds.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The retries during an election: a broker that was just restarted answers before it leads, and librdkafka
/// does not retry these requests.
pub const ELECTION: Retry = Retry {
    first: Duration::from_millis(150),
    longest: Duration::from_millis(300),
    end: End::Within(ELECTION_TIMEOUT),
};

/// The reason why the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transient {
    /// No broker answered, or not in time.
    NoAnswer,
    /// A broker answered that it is not the leader or coordinator, or not yet: one is being elected.
    NoLeader,
}

impl Transient {
    /// Classifies an error; `None` for one that lasts until somebody acts.
    pub fn of(error: &KafkaError) -> Option<Transient> {
        use RDKafkaErrorCode::*;
        match error.rdkafka_error_code()? {
            AllBrokersDown
            | BrokerNotAvailable
            | BrokerTransportFailure
            | MessageTimedOut
            | OperationTimedOut
            | RequestTimedOut
            | Resolve => Some(Transient::NoAnswer),
            CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | FencedLeaderEpoch
            | LeaderNotAvailable
            | NotCoordinator
            | NotLeaderForPartition
            | OffsetNotAvailable
            | ReplicaNotAvailable
            | UnknownLeaderEpoch => Some(Transient::NoLeader),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_elections_pass_and_refusals_stay() {
        for (code, expected) in [
            (RDKafkaErrorCode::OperationTimedOut, Some(Transient::NoAnswer)),
            (RDKafkaErrorCode::BrokerTransportFailure, Some(Transient::NoAnswer)),
            (RDKafkaErrorCode::NotLeaderForPartition, Some(Transient::NoLeader)),
            (RDKafkaErrorCode::NotCoordinator, Some(Transient::NoLeader)),
            (RDKafkaErrorCode::TopicAuthorizationFailed, None),
            (RDKafkaErrorCode::OffsetOutOfRange, None),
            (RDKafkaErrorCode::UnknownTopicOrPartition, None),
        ] {
            assert_eq!(Transient::of(&KafkaError::MetadataFetch(code)), expected, "{code:?}");
        }
        assert_eq!(Transient::of(&KafkaError::Canceled), None);
    }
}
