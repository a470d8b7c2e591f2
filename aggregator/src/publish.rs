//! One experiment from its counts to its document, in an order that survives a crash at any point: count,
//! analyze and decide, write the look to the log, and only then publish. The next analysis publishes a look
//! that is in the log and not yet published; two aggregators at once publish by the same looks. The last
//! document is used only to decide whether a new one has to be written.

use std::time::Duration;

use anyhow::{Context, bail};
use schemas::{Micros, Uuid};

use crate::database::Database;
use crate::experiment_analysis::{Moment, count};
use crate::look::EarlierLooks;
use crate::look_log::LookLog;
use crate::store::{self, Written};
use crate::{before_the_log, cut, expiry};

/// Losing to another aggregator this often is no longer a race.
const RACES_MAX: u32 = 5;

/// The outcome of one analysis.
pub struct Published {
    pub written: Written,
    /// Looks that this analysis wrote to the log: none or one.
    pub looks: u32,
    /// Looks that another aggregator had written first.
    pub lost: u32,
}

/// Counts, analyzes, decides, records the look and publishes. `before` is what was written last; without it the
/// document is always written. An experiment whose first exposures are gone is no longer counted.
pub async fn publish(
    database: &Database,
    log: &mut LookLog,
    moment: &Moment<'_>,
    key: &str,
    before: Option<&Written>,
    document_every: Duration,
) -> anyhow::Result<Published> {
    before_the_log::carry_over(database, log, moment, key).await?;
    let last = before.map(|before| &before.result);
    if let Some(until) = expiry::expired(EarlierLooks(&log.of(key)?), last, moment.as_of) {
        let written = freeze(database, key, before, until).await?;
        return Ok(Published { written, looks: 0, lost: 0 });
    }
    let looks = log.of(key)?;
    let counted = count(database, moment, key, EarlierLooks(&looks)).await?;
    for lost in 0..RACES_MAX {
        let looks = log.of(key)?;
        let numbers = counted.analyze(EarlierLooks(&looks));
        let conclusion = counted.decide(&numbers);
        let is_look = numbers.look.is_some();
        if let Some(look) = &numbers.look
            && let Err(refusal) = log.propose(key, look).await?
        {
            tracing::info!(experiment = key, %refusal, "another aggregator looked first; analyzing after its look");
            continue;
        }
        let document = counted.document(numbers, conclusion);
        let written = store::write(database, document, is_look, before, document_every).await?;
        return Ok(Published { written, looks: u32::from(is_look), lost });
    }
    bail!("other aggregators were faster with a look at `{key}` {RACES_MAX} times in a row")
}

/// Keeps the last document and adds the reason.
async fn freeze(
    database: &Database,
    key: &str,
    before: Option<&Written>,
    until: Micros,
) -> anyhow::Result<Written> {
    let before = before.with_context(|| {
        format!(
            "the first exposures of `{key}` have been dropped since {until}, and its last document is lost"
        )
    })?;
    let Some(mut frozen) = expiry::frozen(&before.result, until) else {
        return Ok(before.clone());
    };
    (frozen.analysis_id, frozen.computed_at) = (Uuid::now_v7(), cut::now()?.to_string());
    // The warning is new, so the document is written at once.
    store::write(database, frozen, false, Some(before), Duration::MAX).await
}
