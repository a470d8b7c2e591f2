//! Reads the counts of each edge on a schedule of its own and stores what is new. An edge that does not answer is tried
//! again after the usual time, and the others go on. Several aggregators may do this at once.

use std::time::Duration;

use anyhow::Context;
use ops::config::{Secret, ServerUrl};
use ops::{Condition, Health, Shutdown};
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use super::client::EdgeClient;
use super::{Lost, Stored, store};
use crate::config::AggregatorSection;
use crate::cut;
use crate::database::Database;

/// The metrics of the readings, by the edge's URL.
#[derive(Clone)]
pub struct Metrics {
    readings: IntCounterVec,
    last_reading: GaugeVec,
    lost: IntCounterVec,
}

impl Metrics {
    /// # Panics
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Metrics {
        const LEGAL: &str = "the names are legal and used once";
        let metrics = Metrics {
            readings: IntCounterVec::new(
                Opts::new(
                    "aggregator_edge_readings_total",
                    "Readings of an edge's counts: stored or failed.",
                ),
                &["edge", "outcome"],
            )
            .expect(LEGAL),
            last_reading: GaugeVec::new(
                Opts::new(
                    "aggregator_edge_last_reading_timestamp_seconds",
                    "When an edge's counts were last stored; the start of this process until then.",
                ),
                &["edge"],
            )
            .expect(LEGAL),
            lost: IntCounterVec::new(
                Opts::new(
                    "aggregator_edge_counts_lost_total",
                    "Times that an edge lost counts before they were read.",
                ),
                &["edge", "why"],
            )
            .expect(LEGAL),
        };
        registry.register(Box::new(metrics.readings.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.last_reading.clone())).expect(LEGAL);
        registry.register(Box::new(metrics.lost.clone())).expect(LEGAL);
        metrics
    }

    /// Every series exists from the start, so that its first increase can be seen.
    fn show(&self, edge: &str) {
        for outcome in ["stored", "failed"] {
            self.readings.with_label_values(&[edge, outcome]).reset();
        }
        for why in ["restarted", "too_late"] {
            self.lost.with_label_values(&[edge, why]).reset();
        }
        self.note_reading(edge);
    }

    fn note_reading(&self, edge: &str) {
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0;
        self.last_reading.with_label_values(&[edge]).set(now);
    }
}

/// One edge that is read.
struct Edge {
    url: String,
    client: EdgeClient,
    database: Database,
    stored: Stored,
    condition: Condition,
    metrics: Metrics,
    interval: Duration,
}

/// Starts a task for each edge of the configuration. They end when the shutdown begins.
///
/// # Errors
/// If the token cannot be read, or there are no authorities for an https URL.
pub fn start(
    settings: &AggregatorSection,
    database: &Database,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let token = Secret::resolve(settings.edge_token.as_ref(), settings.edge_token_file.as_ref())?;
    let open = |url: &ServerUrl| EdgeClient::open(url, token.as_ref(), settings.edge_timeout_ms.duration());
    for url in settings.edges.urls() {
        let condition = health.condition(format!("edge {}", url.as_str()), "not read yet");
        // Verdicts do not depend on it.
        condition.holds_but("its counts were not read yet");
        metrics.show(url.as_str());
        let edge = Edge {
            url: url.as_str().to_owned(),
            client: open(url)?,
            database: database.clone(),
            stored: Stored::default(),
            condition,
            metrics: metrics.clone(),
            interval: settings.edge_interval_ms.duration(),
        };
        let (hold, shutdown) = (shutdown.hold("edge counts"), shutdown.clone());
        tokio::spawn(async move {
            let _hold = hold;
            edge.run(&shutdown).await;
        });
    }
    Ok(())
}

impl Edge {
    async fn run(mut self, shutdown: &Shutdown) {
        loop {
            // Losing a reading is harmless: the edge keeps its counts, and the next reading has all of them.
            let outcome = tokio::select! {
                outcome = self.read_and_store() => outcome,
                _ = shutdown.wait() => return,
            };
            self.report(outcome);
            if shutdown.sleep(self.interval).await {
                return;
            }
        }
    }

    async fn read_and_store(&mut self) -> anyhow::Result<Option<Lost>> {
        let client = self.client.clone();
        let reading =
            tokio::task::spawn_blocking(move || client.read()).await.context("the reader panicked")??;
        let news = self.stored.news(&reading);
        if !news.is_empty() {
            store(&self.database, &reading, &news, cut::now()?).await?;
        }
        let lost = self.stored.lost(&reading);
        self.stored.note(reading);
        Ok(lost)
    }

    fn report(&self, outcome: anyhow::Result<Option<Lost>>) {
        let edge = self.url.as_str();
        match outcome {
            Ok(lost) => {
                self.metrics.readings.with_label_values(&[edge, "stored"]).inc();
                self.metrics.note_reading(edge);
                self.condition.holds();
                if let Some(lost) = lost {
                    self.metrics.lost.with_label_values(&[edge, lost.code()]).inc();
                    warn_of(edge, lost);
                }
            }
            Err(error) => {
                self.metrics.readings.with_label_values(&[edge, "failed"]).inc();
                let error = format!("{error:#}");
                self.condition.holds_but(format!("its counts could not be read or stored: {error}"));
                tracing::warn!(edge, error, "the counts of an edge were not stored; they are read again");
            }
        }
    }
}

fn warn_of(edge: &str, lost: Lost) {
    match lost {
        Lost::Restarted { former } => {
            tracing::warn!(edge, %former, "an edge was restarted; what it had counted since its last reading is lost");
        }
        Lost::TooLate { since } => {
            tracing::warn!(edge, %since, "an edge was not read for more than a day; what it counted since is lost, up to \
                                          the day before yesterday");
        }
    }
}
