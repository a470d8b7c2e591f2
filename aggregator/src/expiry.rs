//! Expiry of exposures: a table keeps them for a number of days after their ingestion. Units whose first
//! exposure is gone would be counted from a later one, or not at all, so an experiment is frozen before that.

use schemas::Micros;

use crate::document::{ExperimentResult, Warning, WarningKind};
use crate::look::EarlierLooks;
use crate::stale;

const DAY_MICROS: i64 = 86_400_000_000;

/// The document warns this long before the expiry.
const WARNED_BEFORE_MICROS: i64 = 28 * DAY_MICROS;

/// Returns when the first of the counted exposures may be dropped: at the end of the given number of days after
/// the day of its ingestion. If there is none now, returns the time recorded by the looks. None if exposures
/// are kept for ever, or there never were any.
pub fn complete_until(
    ingested_since_ms: Option<i64>,
    looks: EarlierLooks<'_>,
    kept_days: u32,
) -> Option<Micros> {
    if kept_days == 0 {
        return None;
    }
    let Some(first) = ingested_since_ms else { return looks.complete_until() };
    let day = (first * 1_000).div_euclid(DAY_MICROS);
    Micros::new((day + i64::from(kept_days)) * DAY_MICROS).ok()
}

/// Returns the warning for readers of the document, if the expiry is near.
pub fn warning(complete_until: Option<Micros>, now: Micros) -> Option<Warning> {
    let until = complete_until.filter(|until| until.get() - now.get() <= WARNED_BEFORE_MICROS)?;
    let text = format!(
        "The first exposures are dropped from the table at {until}; from then on nothing is counted and this document \
         stays. Stop the experiment before, or keep exposures for longer (`kind: settings`)."
    );
    Some(Warning { kind: WarningKind::ExposuresExpire, text, share_of_units: None, metric: None })
}

/// Returns the time from which nothing is counted any more, if it has come: the first exposures have begun to
/// be dropped. The last look records it. Looks of earlier builds do not; for those the document does.
pub fn expired(looks: EarlierLooks<'_>, document: Option<&ExperimentResult>, now: Micros) -> Option<Micros> {
    let until = looks.complete_until().or_else(|| document.and_then(|last| last.complete_until));
    until.filter(|until| *until <= now)
}

/// Returns the last document with the reason why it no longer changes; none if it has that reason already.
pub fn frozen(last: &ExperimentResult, until: Micros) -> Option<ExperimentResult> {
    if last.warnings.iter().any(|warning| warning.kind == WarningKind::Frozen) && !stale::is_stale(last) {
        return None;
    }
    let mut frozen = last.clone();
    let is_over = [WarningKind::ExposuresExpire, WarningKind::Stale, WarningKind::Frozen];
    frozen.warnings.retain(|warning| !is_over.contains(&warning.kind));
    let text = format!(
        "The first exposures have been dropped from the table since {until}: the numbers are from before that date."
    );
    frozen
        .warnings
        .insert(0, Warning { kind: WarningKind::Frozen, text, share_of_units: None, metric: None });
    Some(frozen)
}
