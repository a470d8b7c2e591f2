//! The alpha spent by looks before there was a log of looks. Only documents of the first form record it, so
//! this is the one place that reads a document for statistical state: once, to enter the amount in the log as
//! the experiment's first look. From then on only the log is read for it, even if the documents are lost.

use anyhow::Context;
use schemas::Uuid;
use serde::Deserialize;

use crate::database::Database;
use crate::document::Unreadable;
use crate::experiment_analysis::Moment;
use crate::look::Look;
use crate::look_log::LookLog;
use crate::store;

/// Enters the alpha spent before the log in the log, if there is any and the log has no look at the experiment
/// yet. It may be interrupted and run again.
///
/// # Errors
/// Also if the old document cannot be read: nothing may be decided while the spent alpha is unknown.
pub async fn carry_over(
    database: &Database,
    log: &mut LookLog,
    moment: &Moment<'_>,
    key: &str,
) -> anyhow::Result<()> {
    if log.count(key) > 0 {
        return Ok(());
    }
    let Some(document) = store::last_of_the_first_form(database, key).await? else {
        return Ok(());
    };
    let spent = alpha_spent(key, &document)?;
    if spent <= 0.0 {
        return Ok(());
    }
    let defined = moment.definitions.experiments.get(key);
    let version = defined.with_context(|| format!("no experiment `{key}` is defined"))?.version;
    let look = Look::carried_over(Uuid::now_v7(), version, moment.as_of, moment.cut.clone(), spent);
    match log.propose(key, &look).await? {
        Ok(()) => tracing::info!(experiment = key, spent, "the log tells what looks before it have spent"),
        Err(refusal) => tracing::info!(experiment = key, %refusal, "another aggregator has looked first"),
    }
    Ok(())
}

/// Returns the part of the plan's alpha that the boundaries of a document of the first form have spent. 0 for a
/// document of a later form: its looks are in the log.
pub fn alpha_spent(experiment: &str, document: &str) -> Result<f64, Unreadable> {
    #[derive(Deserialize)]
    struct FirstForm {
        document_version: Option<u32>,
        #[serde(default)]
        alpha_spent_before: f64,
        #[serde(default)]
        metrics: Vec<Metric>,
    }
    #[derive(Deserialize)]
    struct Metric {
        #[serde(default)]
        boundaries: Vec<Boundary>,
    }
    #[derive(Deserialize)]
    struct Boundary {
        looks: Vec<BoundaryLook>,
    }
    #[derive(Deserialize)]
    struct BoundaryLook {
        alpha_spent: f64,
    }
    let first: FirstForm = serde_json::from_str(document)
        .map_err(|error| Unreadable::Damaged { experiment: experiment.to_owned(), why: error.to_string() })?;
    if first.document_version.is_some() {
        return Ok(0.0);
    }
    let boundaries = first.metrics.iter().flat_map(|metric| &metric.boundaries);
    let spent = boundaries.filter_map(|boundary| boundary.looks.last()).map(|look| look.alpha_spent);
    Ok(first.alpha_spent_before + spent.sum::<f64>())
}
