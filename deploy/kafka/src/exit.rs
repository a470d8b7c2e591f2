//! Maps errors of Kafka and of the schema registry to exit codes, the same in every command.

use std::error::Error as Cause;

use ops::Exit;
use rdkafka::error::KafkaError;

use crate::registry::Unavailable;
use crate::{ConnectError, Transient};

/// Returns the exit code for one cause of an error; `None` if it is no error of Kafka or the registry, or has
/// no exit code.
pub fn exit_of(cause: &(dyn Cause + 'static)) -> Option<Exit> {
    if cause.is::<Unavailable>() {
        return Some(Exit::Unreachable);
    }
    match cause.downcast_ref::<ConnectError>() {
        Some(ConnectError::Settings(_)) => return Some(Exit::InvalidInput),
        Some(ConnectError::Silent { .. }) => return Some(Exit::Unreachable),
        None => {}
    }
    let error = cause.downcast_ref::<KafkaError>()?;
    if let KafkaError::ClientConfig(..) = error {
        return Some(Exit::InvalidInput);
    }
    // No broker answered, or there was no leader for long.
    Transient::of(error).map(|_| Exit::Unreachable)
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn silence_is_unreachable_and_a_denial_is_not() {
        let of = |code| exit_of(&KafkaError::MetadataFetch(code));
        assert_eq!(of(RDKafkaErrorCode::OperationTimedOut), Some(Exit::Unreachable));
        assert_eq!(of(RDKafkaErrorCode::TopicAuthorizationFailed), None);
        let settings = ConnectError::Settings("no such property".to_owned());
        assert_eq!(exit_of(&settings), Some(Exit::InvalidInput));
    }
}
