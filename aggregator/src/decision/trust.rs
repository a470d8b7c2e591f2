//! Whether the numbers may be read at all: the split, and units that were exposed to more than one variant. And the
//! warnings that stand beside the numbers.

use super::{Evidence, Ruling};
use crate::document::{Expectation, MetricResult, Role, SampleRatio, Verdict, Warning, WarningKind};
use lab::format;

/// An arm without any unit is called missing from this many expected ones on: by chance it would happen
/// once in 3,000 experiments (e^-8).
const MISSING_ARM_EXPECTED: f64 = 8.0;

/// Above this share of units that saw several variants every verdict begins with it. Assignment gives a unit one variant
/// as long as the weights stand, so the share to be expected is 0; one in a hundred is more than accidents (shared devices,
/// tests by hand), and is where GrowthBook warns.
const SEVERAL_WARNS_ABOVE: f64 = 0.01;

/// Above this share no number is to be believed. A unit counts in the variant that it saw first. Where more than a tenth
/// saw another one too, the first says so little of what they saw that an effect of a tenth may be made or hidden, which
/// is the size that most experiments look for; and the same fault may have sent the others anywhere. PostHog speaks of a
/// high share from here on.
const SEVERAL_INVALID_ABOVE: f64 = 0.1;

/// Fewer units may be somebody's tests by hand. From here on they make the numbers invalid.
const SEVERAL_INVALID_FROM: u64 = 8;

/// Units that were exposed to more than one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExposedToSeveral {
    pub units: u64,
    /// All that are counted.
    pub of: u64,
}

impl ExposedToSeveral {
    fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.units as f64 / self.of as f64 }
    }

    fn is_invalid(self) -> bool {
        self.units >= SEVERAL_INVALID_FROM && self.share() > SEVERAL_INVALID_ABOVE
    }

    /// "312 of 6,000 units (5.20 %) have seen more than one variant", where they are more than accidents explain.
    fn sentence(self) -> Option<String> {
        (self.share() > SEVERAL_WARNS_ABOVE).then(|| {
            format!(
                "{} of {} units ({}) have seen more than one variant",
                format::count(self.units),
                format::count(self.of),
                format::percent(self.share())
            )
        })
    }
}

const FIND_OUT_WHY: &str = "find out why before reading any number here.";

/// The first reason not to read any number.
pub(super) fn invalid(evidence: &Evidence<'_>) -> Option<Ruling> {
    exposed_to_several(evidence.exposed).or_else(|| missing_arm(evidence.srm)).or_else(|| split(evidence.srm))
}

fn exposed_to_several(exposed: ExposedToSeveral) -> Option<Ruling> {
    let sentence = exposed.sentence().filter(|_| exposed.is_invalid())?;
    let reason = format!(
        "{sentence}, and above {:.0} % the first one does not say what a unit saw; {FIND_OUT_WHY}",
        SEVERAL_INVALID_ABOVE * 100.0
    );
    Some(Ruling::of_the_whole(Verdict::Invalid, reason))
}

fn missing_arm(srm: &SampleRatio) -> Option<Ruling> {
    let missing = srm.variants.iter().find(|variant| {
        variant.units == 0 && variant.expected.is_some_and(|expected| expected >= MISSING_ARM_EXPECTED)
    })?;
    let reason = format!(
        "No unit has seen `{}`, where {} were expected: {FIND_OUT_WHY}",
        missing.key,
        format::count(missing.expected.unwrap_or_default().round() as u64)
    );
    Some(Ruling::about(&missing.key, Verdict::Invalid, reason))
}

fn split(srm: &SampleRatio) -> Option<Ruling> {
    if srm.alarm != Some(true) {
        return None;
    }
    let alarm = srm.phases.iter().find(|of| of.alarm && !of.left_out)?;
    let shares: Vec<String> = srm.variants.iter().map(units_of).collect();
    let shares = shares.join(", ");
    let what = match (srm.phases.len(), alarm.p_value.filter(|p| *p <= alarm.level)) {
        (1, Some(p)) => {
            format!("The split is not the planned one: {shares} (always-valid {})", format::p_value(p))
        }
        (_, Some(p)) => format!(
            "The split of phase {} is not the planned one (always-valid {}): {shares}",
            alarm.phase,
            format::p_value(p)
        ),
        (_, None) => format!(
            "The split of phase {} was not the planned one at an earlier look, which later units do not mend: {shares}",
            alarm.phase
        ),
    };
    let reason = format!("{what}; {FIND_OUT_WHY}");
    Some(Ruling::of_the_whole(Verdict::Invalid, reason))
}

/// "`b` has 333 units instead of 400", "`c` has 333 units and a planned share of none".
fn units_of(variant: &Expectation) -> String {
    let units = format!("`{}` has {} units", variant.key, format::count(variant.units));
    match variant.expected {
        Some(0.0) if variant.units > 0 => format!("{units} and a planned share of none"),
        Some(expected) => format!("{units} instead of {}", format::count(expected.round() as u64)),
        None => units,
    }
}

/// The reason, between the warning that must come before it and what is left open.
pub(super) fn with_warnings(evidence: &Evidence<'_>, verdict: Verdict, reason: String) -> String {
    // Where it is the reason itself, it is not repeated.
    let warning = evidence.exposed.sentence().filter(|_| !evidence.exposed.is_invalid());
    let before =
        warning.map_or(String::new(), |sentence| format!("Warning: {sentence}, and count in the first. "));
    let after = match verdict {
        Verdict::Ship | Verdict::Stop | Verdict::KeepRunning => {
            guardrails_without_data(evidence).map(|(_, text)| format!(" {text}")).collect()
        }
        _ => String::new(),
    };
    format!("{before}{reason}{after}")
}

/// The warnings of a document.
pub fn warnings(evidence: &Evidence<'_>) -> Vec<Warning> {
    let exposed = evidence.exposed;
    let several = exposed.sentence().map(|sentence| Warning {
        kind: WarningKind::UnitsInSeveralVariants,
        text: format!("{sentence}, and count in the first."),
        share_of_units: Some(exposed.share()),
        metric: None,
    });
    let guardrails = guardrails_without_data(evidence).map(|(metric, text)| Warning {
        kind: WarningKind::GuardrailWithoutData,
        text,
        share_of_units: None,
        metric: Some(metric.key.clone()),
    });
    let boundaries = evidence.metrics.iter().flat_map(|metric| &metric.boundaries);
    let crossings = boundaries.filter_map(|boundary| {
        let look = boundary.crossed_with_phases_left_out?;
        let stands = match boundary.crossed_at_look {
            Some(_) => "the phases that remain cross it too",
            None => "the phases that remain do not",
        };
        Some(Warning {
            kind: WarningKind::VerdictRestedOnPhasesLeftOut,
            text: format!(
                "What was decided of `{}` at look {look} rested on phases that are left out now: the boundary was \
                 crossed, and {stands}.",
                boundary.treatment
            ),
            share_of_units: None,
            metric: Some(boundary.metric.clone()),
        })
    });
    several.into_iter().chain(crossings).chain(guardrails).collect()
}

/// Guardrails of which no arm has any conversion, though both have units.
fn guardrails_without_data<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = (&'a MetricResult, String)> {
    evidence
        .metrics
        .iter()
        .filter(|metric| metric.role == Role::Guardrail && !metric.always_valid.is_empty())
        .filter(|metric| metric.variants.iter().all(|variant| variant.conversions == 0))
        .filter(|metric| metric.variants.iter().any(|variant| variant.units > 0))
        .map(|metric| {
            let text = format!(
                "The guardrail `{}` has no conversions in any arm, so it shows neither harm nor safety.",
                metric.key
            );
            (metric, text)
        })
}
