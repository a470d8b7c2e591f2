//! KILL QUERY, carried out by this server: the engine does not know the server's query ids, nor a query whose
//! body is still arriving. Knows nothing of how a condition is parsed.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Server;
use super::engine::{Connection, Parameter};
use super::exception::{Exception, code};
use super::output::Output;
use super::processes;
use super::running::Query;
use super::statement::KillMode;

/// A KILL QUERY, ready to run.
pub struct KillTask<'task> {
    /// The expression after WHERE.
    pub condition: &'task [u8],
    pub mode: KillMode,
    /// The format of the answer.
    pub format: &'task str,
    /// The values of the condition's placeholders.
    pub parameters: &'task [Parameter],
}

impl KillTask<'_> {
    /// Stops the queries for which the condition is true, except `query` itself.
    pub fn run(
        &self,
        server: &Arc<Server>,
        connection: &mut Connection,
        query: &Arc<Query>,
        output: &mut Output,
    ) -> Result<(), Exception> {
        let mut parameters = self.parameters.to_vec();
        parameters.extend(processes::parameters(&server.running, query));
        let select = processes::select_matching(self.condition);
        let reply = connection.run(&select, "JSONCompactEachRow", &parameters)?;
        let mut victims = Vec::new();
        for row in reply.bytes().split(|&byte| byte == b'\n').filter(|row| !row.is_empty()) {
            let (id,): (String,) = serde_json::from_slice(row).map_err(|error| {
                Exception::new(code::LOGICAL_ERROR, format_args!("cannot read the queries to kill: {error}"))
            })?;
            // Without the queries that have ended since, and without this one.
            victims.extend(server.running.find(&id).filter(|victim| victim.id != query.id));
        }
        let ids: Vec<&str> = victims.iter().map(|victim| victim.id.as_str()).collect();
        let status = match self.mode {
            KillMode::Async => "waiting",
            KillMode::Sync => "finished",
            KillMode::Test => "unknown_status",
        };
        parameters
            .push(Parameter { name: "embedded_victims".to_owned(), value: processes::string_array(&ids) });
        parameters.push(Parameter { name: "embedded_status".to_owned(), value: status.into() });
        let shown = connection.run(&processes::select_victims(), self.format, &parameters)?;
        if self.mode != KillMode::Test {
            victims.iter().for_each(|victim| server.stop(victim));
        }
        if self.mode == KillMode::Sync {
            Handle::current().block_on(async {
                for victim in &victims {
                    // Losing `gone` loses nothing: another KILL can wait again.
                    tokio::select! {
                        () = victim.gone() => {}
                        () = query.asked_to_stop() => return Err(query.cancelled()),
                    }
                }
                Ok(())
            })?;
        }
        output.push(shown.bytes(), shown.progress())
    }
}
