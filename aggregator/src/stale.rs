//! The last document of an experiment that cannot be analyzed: it stays, and gives the reason wherever it is
//! shown. The first analysis that succeeds replaces it.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::Uuid;

use crate::cut;
use crate::database::Database;
use crate::document::{ExperimentResult, Warning, WarningKind};
use crate::store;

/// Marks the last document as stale, if there is one that is not marked yet. `why` is shown to everybody who
/// sees the page.
pub async fn mark(database: &Database, key: &str, why: &str) -> anyhow::Result<()> {
    let Some(last) = store::last_written(database, key).await? else {
        return Ok(());
    };
    let Some(mut stale) = stale(&last.result, why) else {
        return Ok(());
    };
    (stale.analysis_id, stale.computed_at) = (Uuid::now_v7(), cut::now()?.to_string());
    // The warning is new, so the document is written at once.
    store::write(database, stale, false, Some(&last), Duration::MAX).await?;
    Ok(())
}

/// Returns the document with the reason why it stays; none if it has one already.
pub fn stale(last: &ExperimentResult, why: &str) -> Option<ExperimentResult> {
    if is_stale(last) {
        return None;
    }
    let text = format!(
        "The experiment cannot be analyzed now: {why}. The numbers and the verdict are those of {}.",
        last.computed_at
    );
    let mut stale = last.clone();
    stale.warnings.insert(0, Warning { kind: WarningKind::Stale, text, share_of_units: None, metric: None });
    Some(stale)
}

/// Returns whether the document has such a reason.
pub fn is_stale(document: &ExperimentResult) -> bool {
    document.warnings.iter().any(|warning| warning.kind == WarningKind::Stale)
}

/// `/readyz` names at most this many experiments that cannot be analyzed, so that its answer stays short;
/// metrics name all.
const NAMED_MAX: usize = 20;

/// Returns the text of `/readyz` about experiments whose document is an earlier one, with the reasons why they
/// cannot be analyzed.
pub fn remark(stale: &BTreeMap<String, String>) -> Option<String> {
    let named: Vec<String> =
        stale.iter().take(NAMED_MAX).map(|(key, why)| format!("`{key}` cannot be analyzed: {why}")).collect();
    let more = stale.len() - named.len();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("{}{more}", named.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_the_experiments_that_cannot_be_analyzed() {
        let stale = |keys: usize| -> BTreeMap<String, String> {
            (0..keys).map(|key| (format!("e{key:02}"), "look 2 cannot be read".to_owned())).collect()
        };
        assert_eq!(remark(&stale(0)), None);
        assert_eq!(
            remark(&stale(2)).unwrap(),
            "`e00` cannot be analyzed: look 2 cannot be read; `e01` cannot be analyzed: look 2 cannot be read"
        );
        assert!(
            remark(&stale(22))
                .unwrap()
                .ends_with("`e19` cannot be analyzed: look 2 cannot be read; and 2 more")
        );
    }
}
