//! The audit that a running consumer makes by itself. After each restart of ClickHouse it audits the recent batches,
//! since a crash loses the latest rows first. It counts and reports; healing is an operator's decision.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use prometheus::{IntCounter, Registry};

use super::report::Report;
use super::{Auditor, Depth, now_ms};
use crate::config::Config;

const CHECKED_EVERY: Duration = Duration::from_secs(10);
/// How far back batches are audited: longer than a server may take to write rows to disk.
const RECENT_MS: i64 = 2 * 3_600_000;
/// From the answer of a restarted server to the audit, and between two attempts: the consumers first look after
/// their own inserts. A failed audit is tried again without end, since an audit that is left out would hide a
/// loss; failures are counted.
const SETTLE: Duration = Duration::from_secs(30);
/// The uptime counts whole seconds, and the two clocks are not read at the same moment.
const UPTIME_SLACK_SECONDS: u64 = 5;

#[derive(Clone)]
pub struct AuditMetrics {
    pub holes: IntCounter,
    pub duplicates: IntCounter,
    pub runs: IntCounter,
    pub failures: IntCounter,
}

impl AuditMetrics {
    pub fn new(registry: &Registry) -> prometheus::Result<AuditMetrics> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(AuditMetrics {
            holes: counter(
                "consumer_audit_holes_total",
                "offsets that audits found without a row and without an explanation, lost ones included",
            )?,
            duplicates: counter("consumer_audit_duplicates_total", "rows that audits found to be too many")?,
            runs: counter("consumer_audit_runs_total", "audits made after a restart of ClickHouse")?,
            failures: counter("consumer_audit_failures_total", "audits that could not be made")?,
        })
    }

    fn count(&self, report: &Report) {
        self.runs.inc();
        self.holes.inc_by(report.holes + report.lost);
        self.duplicates.inc_by(report.duplicates);
    }
}

/// The server's uptime when it was last asked for.
#[derive(Clone, Copy)]
struct LastUptime {
    uptime_seconds: u64,
    at: Instant,
}

/// Audits after every restart of ClickHouse, until the shutdown begins. Needs a runtime with several threads.
pub async fn watch(config: Config, metrics: AuditMetrics, shutdown: ops::Shutdown) {
    let mut seen: Option<LastUptime> = None;
    let mut due = false;
    while !shutdown.sleep(if due { SETTLE } else { CHECKED_EVERY }).await {
        if due {
            match audit_recent(&config).await {
                Ok(report) => {
                    metrics.count(&report);
                    due = false;
                    if report.clean {
                        tracing::info!("ClickHouse was restarted; the recent batches are whole");
                    } else {
                        let (holes, lost, duplicates) = (report.holes, report.lost, report.duplicates);
                        tracing::error!(
                            holes,
                            lost,
                            duplicates,
                            "ClickHouse was restarted and recent rows are not what they were: see `splitstream audit`"
                        );
                    }
                }
                Err(error) => {
                    metrics.failures.inc();
                    tracing::warn!("cannot audit after a restart of ClickHouse yet: {error:#}");
                }
            }
            continue;
        }
        let Ok(uptime_seconds) = uptime(&config).await else { continue };
        let now = LastUptime { uptime_seconds, at: Instant::now() };
        due = seen.is_some_and(|seen| restarted(seen, now));
        seen = Some(now);
    }
}

/// Audits the recent batches.
pub async fn audit_recent(config: &Config) -> Result<Report> {
    let auditor = Auditor::open(config).await?;
    let depth = Depth::Since { ingest_ms: now_ms() - RECENT_MS };
    Ok(auditor.audit(None, depth).await?.report)
}

async fn uptime(config: &Config) -> Result<u64> {
    let client = clickhouse_client::open(&config.clickhouse)?;
    super::Tables::new(client).uptime_seconds().await.context("asking ClickHouse how long it has been up")
}

/// Whether the server is younger than it should be by now.
fn restarted(seen: LastUptime, now: LastUptime) -> bool {
    let expected = seen.uptime_seconds + now.at.duration_since(seen.at).as_secs();
    now.uptime_seconds + UPTIME_SLACK_SECONDS < expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_young_was_restarted() {
        let start = Instant::now();
        let seen = LastUptime { uptime_seconds: 100, at: start };
        let after = |uptime_seconds| LastUptime { uptime_seconds, at: start + Duration::from_secs(10) };
        assert!(!restarted(seen, after(110)));
        assert!(!restarted(seen, after(105)));
        assert!(restarted(seen, after(104)));
        assert!(restarted(seen, after(3)));
        // Restarted between two checks, soon after its start.
        let young = LastUptime { uptime_seconds: 1, at: start };
        assert!(!restarted(young, after(8)));
    }
}
