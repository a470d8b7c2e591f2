//! Guardrails without a number. They show neither harm nor safety, so nothing ships with them. The rule
//! requires the number; the reason for its absence is reported and decides nothing. The only exception is a
//! rate of an unwanted event that has not occurred.

use schemas::definition::Direction;

use super::{Evidence, Ruling, primary};
use crate::document::{AlwaysValidResult, MetricResult, Role, Verdict};
use lab::format;

/// A guardrail that has no number for a treatment.
pub(super) struct WithoutNumber<'a> {
    pub(super) metric: &'a MetricResult,
    /// The reason, as one sentence.
    pub(super) text: String,
}

/// Returns the guardrails without a number for a treatment that the primary metric compares.
pub(super) fn without_number<'a>(evidence: &Evidence<'a>) -> Vec<WithoutNumber<'a>> {
    let looks = primary(evidence).map_or(&[][..], |metric| metric.always_valid.as_slice());
    let treatments: Vec<&str> = looks.iter().map(|look| look.treatment.as_str()).collect();
    let has_units = |metric: &MetricResult| metric.variants.iter().any(|variant| variant.units > 0);
    guardrails(evidence)
        // Before the first unit nothing has a number.
        .filter(|metric| metric.missing.is_some() || has_units(metric))
        .filter_map(|metric| treatments.iter().find_map(|treatment| open(metric, treatment)))
        .collect()
}

/// Replaces a verdict to ship unless every guardrail has a number for the treatment.
pub(super) fn held_back(evidence: &Evidence<'_>, ruling: Ruling) -> Ruling {
    let Ruling { verdict: Verdict::Ship, treatment: Some(treatment), reason } = &ruling else {
        return ruling;
    };
    let open: Vec<WithoutNumber<'_>> = guardrails(evidence)
        .filter(|metric| !is_unwanted_and_absent(metric))
        .filter_map(|metric| open(metric, treatment))
        .collect();
    if open.is_empty() {
        return ruling;
    }
    let texts: Vec<&str> = open.iter().map(|of| of.text.as_str()).collect();
    let texts = texts.join(" ");
    // More units may bring a number, except where the metric is not computed at all.
    let (verdict, what) =
        if open.iter().any(|of| of.metric.missing.is_some() && !of.metric.waits_for_its_cap()) {
            (Verdict::NotComputed, format!("Whether to ship `{treatment}` cannot be decided"))
        } else {
            (Verdict::NotEnoughData, format!("Not enough data to ship `{treatment}`"))
        };
    let reason = format!("{what}. {texts} The primary metric alone would say: {reason}");
    Ruling::about(treatment, verdict, reason)
}

/// Describes for people what a look shows about the margin of a guardrail.
pub fn margin(look: &AlwaysValidResult) -> Option<String> {
    let margin = look.margin.as_ref()?;
    let percent = format::percent(margin.relative);
    let treatment = &look.treatment;
    Some(match (&margin.missing, look.harm_p_value) {
        (Some(missing), _) => format!("the margin of {percent} is not tested for `{treatment}`: {missing}"),
        (None, Some(p)) if p <= look.alpha => {
            format!("`{treatment}` is worse than the margin of {percent}")
        }
        (None, _) if margin.is_no_worse => format!("`{treatment}` is no worse than the margin of {percent}"),
        (None, _) => format!("whether `{treatment}` is worse than the margin of {percent} is open"),
    })
}

fn guardrails<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = &'a MetricResult> {
    evidence.metrics.iter().filter(|metric| metric.role == Role::Guardrail)
}

/// Returns whether the metric is a rate of an unwanted event that no unit of any arm has: no harm can be seen,
/// and there is none. The verdict mentions it all the same, because the event may be misspelled.
fn is_unwanted_and_absent(metric: &MetricResult) -> bool {
    metric.missing.is_none()
        && metric.is_rate()
        && metric.direction == Direction::Decrease
        && metric.variants.iter().all(|variant| variant.units > 0 && variant.conversions == 0)
}

fn open<'a>(metric: &'a MetricResult, treatment: &str) -> Option<WithoutNumber<'a>> {
    let key = &metric.key;
    let look = metric.always_valid.iter().find(|look| look.treatment == treatment);
    let why = match (&metric.missing, look) {
        (Some(missing), _) => missing.clone(),
        (None, Some(look)) if look.harm_p_value.is_some() => return None,
        (None, Some(_)) if metric.variants.iter().all(|variant| variant.conversions == 0) => {
            let text = format!(
                "The guardrail `{key}` has no conversions in any arm, so it shows neither harm nor safety."
            );
            return Some(WithoutNumber { metric, text });
        }
        (None, Some(look)) => {
            let of_the_margin = look.margin.as_ref().and_then(|margin| margin.missing.clone());
            let missing = of_the_margin.or_else(|| look.missing.clone());
            missing.unwrap_or_else(|| "nothing has been counted".to_owned())
        }
        (None, None) => format!("it does not compare `{treatment}`"),
    };
    let text = format!("The guardrail `{key}` has no number ({why}), so it shows neither harm nor safety.");
    Some(WithoutNumber { metric, text })
}
