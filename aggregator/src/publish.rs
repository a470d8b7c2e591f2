//! One experiment from its counts to its document, in an order that survives a crash at any point: count, look,
//! put the look into the log, and only then tell anybody. A look that was put there and not told of is told of by the
//! next analysis; two aggregators at once publish by the same looks.

use std::time::Duration;

use anyhow::bail;
use schemas::Uuid;

use crate::analyze::{Analysis, Moment, count};
use crate::cut;
use crate::database::Database;
use crate::expiry;
use crate::look::Looks;
use crate::looks::LookLog;
use crate::store::{self, Written};

/// Another aggregator that is faster this often is no race any more.
const RACES_MAX: u32 = 5;

/// What came of it.
pub struct Published {
    pub written: Written,
    /// Looks that this analysis put into the log: none or one.
    pub looks: u32,
    /// Looks that another aggregator had put there first.
    pub lost: u32,
}

/// Counts, analyzes and publishes. `before` is what was written last; without it the document is written in any
/// case. An experiment whose first exposures are gone is counted no more.
pub async fn publish(
    database: &Database,
    log: &mut LookLog,
    moment: &Moment<'_>,
    key: &str,
    before: Option<&Written>,
    document_every: Duration,
) -> anyhow::Result<Published> {
    if let Some(before) = before.filter(|before| expiry::is_frozen(&before.result, moment.as_of)) {
        let written = match expiry::frozen(&before.result) {
            None => before.clone(),
            Some(mut frozen) => {
                (frozen.analysis_id, frozen.computed_at) = (Uuid::now_v7(), cut::now()?.to_string());
                store::write(database, frozen, false, Some(before), document_every).await?
            }
        };
        return Ok(Published { written, looks: 0, lost: 0 });
    }
    let counting = count(database, moment, key).await?;
    let spent_before = match log.count(key) {
        0 => store::alpha_spent_by_an_old_document(database, key).await?,
        _ => 0.0,
    };
    for lost in 0..RACES_MAX {
        let taken = log.of(key)?;
        let Analysis { result, look } = counting.analyze(moment, Looks { taken: &taken, spent_before });
        let is_look = look.is_some();
        if let Some(look) = look
            && let Err(refusal) = log.propose(key, &look).await?
        {
            tracing::info!(experiment = key, %refusal, "another aggregator looked first; analyzing after its look");
            continue;
        }
        let written = store::write(database, result, is_look, before, document_every).await?;
        return Ok(Published { written, looks: u32::from(is_look), lost });
    }
    bail!("other aggregators were faster with a look at `{key}` {RACES_MAX} times in a row")
}
