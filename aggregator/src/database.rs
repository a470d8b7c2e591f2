//! Access to ClickHouse for this service: every query has a time limit, every failure is named, and the two
//! failures that an operator can repair (no server, no tables) are distinguished from the rest.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, RowOwned, RowRead};
use ops::Exit;
use ops::config::ClickHouse;
use serde::Serialize;

/// The client waits this much longer than the server's own time limit, so that the server's message arrives
/// first.
const GRACE: Duration = Duration::from_secs(5);

/// A client with its bounds; clones share its connections.
#[derive(Clone)]
pub struct Database {
    client: Client,
    query_timeout: Duration,
}

impl Database {
    /// Connects when it is first used.
    pub fn new(config: &ClickHouse, query_timeout: Duration) -> anyhow::Result<Database> {
        let client = clickhouse_client::open(config)?;
        // The queries need these settings, whatever the user's profile has.
        let client = client
            .with_setting("max_execution_time", query_timeout.as_secs().max(1).to_string())
            .with_setting("join_use_nulls", "0")
            .with_setting("async_insert", "0")
            .with_setting("date_time_input_format", "best_effort");
        Ok(Database { client, query_timeout })
    }

    /// A query whose every `?` is to be bound.
    pub fn query(&self, sql: &str) -> Query {
        self.client.query(sql)
    }

    /// Fetches all rows; `doing` names the purpose, as in "reading the cut".
    pub async fn rows<T>(&self, doing: &str, query: Query) -> anyhow::Result<Vec<T>>
    where
        T: RowOwned + RowRead,
    {
        self.bounded(doing, query.fetch_all::<T>()).await
    }

    /// Inserts rows as one block: all of them or none. `statement` ends in `FORMAT JSONEachRow`.
    pub async fn insert<T: Serialize>(&self, statement: &'static str, rows: &[T]) -> anyhow::Result<()> {
        let mut body = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut body, row).context("writing a row as JSON")?;
            body.push(b'\n');
        }
        let mut insert = self.client.insert_formatted_with(statement).buffered_with_capacity(body.len());
        self.bounded(statement, async move {
            insert.write_buffered(&body);
            insert.end().await
        })
        .await
    }

    async fn bounded<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> anyhow::Result<T> {
        match tokio::time::timeout(self.query_timeout + GRACE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failure(error)).with_context(|| doing.to_owned()),
            Err(_) => {
                Err(anyhow::anyhow!("ClickHouse gave no answer within {:?}", self.query_timeout + GRACE)
                    .context(Exit::Unreachable)
                    .context(doing.to_owned()))
            }
        }
    }
}

/// Returns the error with its exit code and, if there is one, the remedy.
fn failure(error: Error) -> anyhow::Error {
    match &error {
        Error::Network(_) | Error::TimedOut => anyhow::Error::new(error)
            .context("ClickHouse cannot be reached; is it running, and is clickhouse.url right?")
            .context(Exit::Unreachable),
        missing if clickhouse_client::tables_are_missing(missing) => anyhow::Error::new(error)
            .context("the tables are not there; `splitstream migrate` makes them")
            .context(Exit::Unreachable),
        _ => anyhow::Error::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tables_name_the_remedy() {
        let error = failure(Error::BadResponse("Code: 60. DB::Exception: Unknown table".into()));
        assert_eq!(Exit::of(&error), Exit::Unreachable);
        assert_eq!(
            format!("{error:#}"),
            "unreachable: the tables are not there; `splitstream migrate` makes them: bad response: Code: 60. \
             DB::Exception: Unknown table"
        );
    }

    #[test]
    fn a_wrong_query_is_a_failure_of_ours() {
        let error = failure(Error::BadResponse("Code: 62. DB::Exception: Syntax error".into()));
        assert_eq!(Exit::of(&error), Exit::Failed);
    }
}
