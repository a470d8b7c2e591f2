//! The exit code of a failed command that did not choose one: derived from the causes of its error.

use std::error::Error as Cause;

use clickhouse::error::Error as ClickHouseError;
use kafka::Transient;
use ops::Exit;
use ops::registry::Unavailable;
use rdkafka::error::KafkaError;

use crate::forget::LedgerError;

/// ClickHouse refuses the login (`AUTHENTICATION_FAILED`).
const LOGIN_REFUSED: &str = "Code: 516.";

/// Adds the exit code that the error's causes ask for.
pub fn coded(error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<Exit>().is_some() {
        return error;
    }
    match error.chain().find_map(asked_for_by) {
        Some(exit) => error.context(exit),
        None => error,
    }
}

fn asked_for_by(cause: &(dyn Cause + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<ClickHouseError>() {
        return match error {
            ClickHouseError::Network(_) | ClickHouseError::TimedOut => Some(Exit::Unreachable),
            ClickHouseError::BadResponse(text) if text.starts_with(LOGIN_REFUSED) => Some(Exit::InvalidInput),
            _ => None,
        };
    }
    if let Some(LedgerError::Unusable(_)) = cause.downcast_ref::<LedgerError>() {
        return Some(Exit::InvalidInput);
    }
    if cause.is::<Unavailable>() {
        return Some(Exit::Unreachable);
    }
    if let Some(KafkaError::ClientConfig(..)) = cause.downcast_ref::<KafkaError>() {
        return Some(Exit::InvalidInput);
    }
    match Transient::of(cause.downcast_ref::<KafkaError>()?) {
        Some(Transient::NoAnswer) => Some(Exit::Unreachable),
        Some(Transient::NoLeader) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    fn exit_of(error: anyhow::Error) -> Exit {
        Exit::of(&coded(error))
    }

    #[test]
    fn a_cause_at_any_depth_gives_the_code() {
        let silent = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let error = Err::<(), _>(silent).context("asking the brokers").context("auditing").unwrap_err();
        assert_eq!(exit_of(error), Exit::Unreachable);
        assert_eq!(exit_of(anyhow!(ClickHouseError::TimedOut).context("healing")), Exit::Unreachable);
        let refused = "Code: 516. DB::Exception: default: Authentication failed".to_owned();
        assert_eq!(exit_of(anyhow!(ClickHouseError::BadResponse(refused))), Exit::InvalidInput);
    }

    #[test]
    fn what_is_no_silence_is_a_failure() {
        let missing = "Code: 60. DB::Exception: Unknown table".to_owned();
        assert_eq!(exit_of(anyhow!(ClickHouseError::BadResponse(missing))), Exit::Failed);
        let denied = KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(exit_of(anyhow!(denied)), Exit::Failed);
        assert_eq!(exit_of(anyhow!("offsets are there twice")), Exit::Failed);
    }

    #[test]
    fn what_the_command_said_stays() {
        let error = anyhow!(ClickHouseError::TimedOut).context(Exit::Refused);
        assert_eq!(exit_of(error), Exit::Refused);
    }
}
