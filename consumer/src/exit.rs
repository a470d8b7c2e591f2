//! The exit code of a command that failed, where the command did not say it: what the causes of its error are.

use ops::Exit;

use crate::forget::LedgerError;

/// Adds the exit code that the error's causes ask for.
pub fn coded(error: anyhow::Error) -> anyhow::Error {
    ops::with_exit_code(error, |cause| {
        if let Some(LedgerError::Unusable(_)) = cause.downcast_ref::<LedgerError>() {
            return Some(Exit::InvalidInput);
        }
        clickhouse_client::exit_of(cause).or_else(|| kafka::exit_of(cause))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use clickhouse::error::Error as ClickHouseError;
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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
        let wrong = "Code: 62. DB::Exception: Syntax error".to_owned();
        assert_eq!(exit_of(anyhow!(ClickHouseError::BadResponse(wrong))), Exit::Failed);
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
