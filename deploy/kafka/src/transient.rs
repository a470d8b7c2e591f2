//! Which errors of Kafka pass by themselves: the one list of them. What a caller does about one, and for how
//! long, is the caller's.

use std::time::Duration;

use ops::retry::{End, Retry};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long nobody may lead a partition or coordinate a group: where its broker is restarted, or another takes
/// over, the election takes seconds.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The leader is asked again meanwhile: a broker that was just restarted answers before it leads, and
/// librdkafka does not ask these questions again.
pub const ELECTION: Retry = Retry {
    first: Duration::from_millis(150),
    longest: Duration::from_millis(300),
    end: End::Within(ELECTION_TIMEOUT),
};

/// Why the same question may be answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transient {
    /// No broker answered, or not in time.
    NoAnswer,
    /// A broker answered that it is not the one to ask, or not yet: a leader or a coordinator is being found.
    NoLeader,
}

impl Transient {
    /// `None` for an error that stays until somebody does something about it.
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
