//! Trust in the numbers: the split, exposures that do not agree with the configuration, and units that were
//! exposed to more than one variant, decide whether they may be read at all. Also the document's warnings.

use super::{Evidence, Ruling, boundary, guardrails, left_out};
use crate::document::{Expectation, PhaseVerification, SampleRatio, Verdict, Warning, WarningKind};
use lab::format;

/// An arm without any unit is reported as missing if at least this many units were expected: by chance it would
/// happen once in 3,000 experiments (e^-8).
const MISSING_ARM_EXPECTED: f64 = 8.0;

/// Above this share of units that saw several variants every verdict begins with a warning. Assignment gives a
/// unit one variant while the weights are unchanged, so the expected share is 0; one in a hundred is more than
/// accidents (shared devices, tests by hand), and is where GrowthBook warns.
const SEVERAL_WARNS_ABOVE: f64 = 0.01;

/// Above this share the numbers are invalid. A unit counts in the variant that it saw first. If more than a
/// tenth saw another variant too, the first one describes so little of what they saw that an effect of a tenth,
/// the size that most experiments look for, may be created or hidden; and the same fault may have sent the
/// other units anywhere. PostHog calls the share high from here on.
const SEVERAL_INVALID_ABOVE: f64 = 0.1;

/// Above this share of units that a mismatched exposure counts the numbers are invalid. An assignment can be computed
/// again, so the expected share is 0. Chance need not spread such units over the arms, as their sender may have chosen
/// the variant: in one arm of two, one unit in a hundred moves a rate by up to two percentage points, which is
/// more than the effects that most experiments look for. Unlike an alarm of the split this does not stay: each
/// such unit is counted for good, so later units cannot hide it, but they make it harmless.
const MISMATCHED_INVALID_ABOVE: f64 = 0.01;

/// Fewer units may be somebody's tests by hand. From this many on they make the numbers invalid.
const INVALID_FROM: u64 = 8;

/// Without units there is no share of them.
fn share(units: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { units as f64 / of as f64 }
}

fn is_invalid(units: u64, of: u64, share_max: f64) -> bool {
    units >= INVALID_FROM && share(units, of) > share_max
}

/// Units that were exposed to more than one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExposedToSeveral {
    pub units: u64,
    /// All units that are counted.
    pub of: u64,
}

impl ExposedToSeveral {
    fn share(self) -> f64 {
        share(self.units, self.of)
    }

    fn is_invalid(self) -> bool {
        is_invalid(self.units, self.of, SEVERAL_INVALID_ABOVE)
    }

    /// Formats the share: "312 of 6,000 units (5.20 %) have seen more than one variant", if it is more than
    /// accidents explain.
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

/// Exposures that say something else than the configuration that they name gives their unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mismatched {
    pub exposures: u64,
    /// All exposures that are counted.
    pub of_exposures: u64,
    /// Units that such an exposure counts.
    pub units: u64,
    /// All units that are counted or forced.
    pub of_units: u64,
}

impl Mismatched {
    /// Adds up the phases that count.
    pub fn of(phases: &[PhaseVerification]) -> Mismatched {
        let mut all = Mismatched::default();
        for of in phases.iter().filter(|of| !of.left_out) {
            all.exposures += of.exposures_mismatched;
            all.of_exposures += of.exposures;
            all.units += of.units_mismatched;
            all.of_units += of.units;
        }
        all
    }

    /// By units, since one unit may have any number of exposures.
    fn share(self) -> f64 {
        share(self.units, self.of_units)
    }

    fn is_invalid(self) -> bool {
        is_invalid(self.units, self.of_units, MISMATCHED_INVALID_ABOVE)
    }

    /// Formats how many there are and what that means, if there are any.
    fn sentence(self) -> Option<String> {
        (self.exposures > 0).then(|| {
            format!(
                "{} of {} exposures (of {} of {} units, {}) are mismatched: computed again from the configuration that \
                 they name, the unit does not get what they report",
                format::count(self.exposures),
                format::count(self.of_exposures),
                format::count(self.units),
                format::count(self.of_units),
                format::percent(self.share())
            )
        })
    }
}

const FIND_OUT_WHY: &str = "find out why before reading any number here.";

/// Returns the first reason not to read any number. The other way to "invalid" is [`left_out::held_back`].
pub(super) fn invalid(evidence: &Evidence<'_>) -> Option<Ruling> {
    exposed_to_several(evidence)
        .or_else(|| mismatched(evidence.mismatched))
        .or_else(|| missing_arm(evidence.srm))
        .or_else(|| split(evidence.srm))
}

fn exposed_to_several(evidence: &Evidence<'_>) -> Option<Ruling> {
    let exposed = evidence.exposed;
    let sentence = exposed.sentence().filter(|_| exposed.is_invalid())?;
    let cause = match evidence.experiment.phase() {
        ..=1 => String::new(),
        phase => format!(
            "the experiment is in phase {phase}, and where the split changed between phases, units that return may get \
             another variant; "
        ),
    };
    let reason = format!(
        "{sentence}, and above {:.0} % the first one does not say what a unit saw; {cause}{FIND_OUT_WHY}",
        SEVERAL_INVALID_ABOVE * 100.0
    );
    Some(Ruling::of_the_whole(Verdict::Invalid, reason))
}

fn mismatched(mismatched: Mismatched) -> Option<Ruling> {
    let sentence = mismatched.sentence().filter(|_| mismatched.is_invalid())?;
    let reason = format!(
        "{sentence}; above {:.0} % of the units they may create or hide an effect. Find their sender (`sender_service` \
         and `sender_version` in the table `exposures`) and mend its hash, its definitions or its clock, then leave out the \
         phase in which these units came (`excluded_phases`), or clone the experiment under another key.",
        MISMATCHED_INVALID_ABOVE * 100.0
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
            "The split of phase {} was not the planned one at an earlier look, which later units do not correct: {shares}",
            alarm.phase
        ),
    };
    let reason = format!("{what}; {FIND_OUT_WHY}");
    Some(Ruling::of_the_whole(Verdict::Invalid, reason))
}

/// Formats a variant's units: "`b` has 333 units instead of 400", "`c` has 333 units and a planned share of
/// none".
fn units_of(variant: &Expectation) -> String {
    let units = format!("`{}` has {}", variant.key, format::counted(variant.units, "unit", "units"));
    match variant.expected {
        Some(0.0) if variant.units > 0 => format!("{units} and a planned share of none"),
        Some(expected) if expected == variant.units as f64 => format!("{units} as planned"),
        Some(expected) => format!("{units} instead of {}", expected_beside(expected, variant.units)),
        None => units,
    }
}

/// Formats the expected units as a whole number, with one decimal place if the whole number equals `units`.
fn expected_beside(expected: f64, units: u64) -> String {
    let whole = expected.round() as u64;
    if whole != units {
        return format::count(whole);
    }
    let tenths = (expected * 10.0).round() as u64;
    format!("{}.{}", format::count(tenths / 10), tenths % 10)
}

/// Puts the warning that must come first before the reason, and what is left open behind it.
pub(super) fn with_warnings(evidence: &Evidence<'_>, verdict: Verdict, reason: String) -> String {
    // A warning that is the reason itself is not repeated.
    let Evidence { exposed, mismatched, .. } = evidence;
    let several = exposed.sentence().filter(|_| !exposed.is_invalid());
    let mismatched = mismatched.sentence().filter(|_| exposed.is_invalid() || !mismatched.is_invalid());
    let before: String = several
        .map(|sentence| format!("Warning: {sentence}, and count in the first. "))
        .into_iter()
        .chain(mismatched.map(|sentence| format!("Warning: {sentence}. ")))
        .collect();
    let after = match verdict {
        Verdict::Ship | Verdict::Stop | Verdict::KeepRunning => {
            guardrails::without_number(evidence).iter().map(|of| format!(" {}", of.text)).collect()
        }
        _ => String::new(),
    };
    let left_out = match verdict {
        Verdict::Invalid => String::new(),
        _ => left_out::sentences(evidence),
    };
    format!("{before}{reason}{after}{left_out}")
}

/// Returns the warning for units that had counted and were then forced: by forcing units, somebody could remove
/// chosen units from the numbers.
pub fn forced_later(units: u64) -> Option<Warning> {
    let text = match units {
        0 => return None,
        1 => "1 unit that had counted was forced into a variant later, and is no longer counted; earlier looks saw it."
            .to_owned(),
        several => format!(
            "{} units that had counted were forced into a variant later, and are no longer counted; earlier looks saw them.",
            format::count(several)
        ),
    };
    Some(Warning { kind: WarningKind::UnitsForcedLater, text, share_of_units: None, metric: None })
}

/// Returns the warnings of a document.
pub fn warnings(evidence: &Evidence<'_>) -> Vec<Warning> {
    let exposed = evidence.exposed;
    let several = exposed.sentence().map(|sentence| Warning {
        kind: WarningKind::UnitsInSeveralVariants,
        text: format!("{sentence}, and count in the first."),
        share_of_units: Some(exposed.share()),
        metric: None,
    });
    let mismatched = evidence.mismatched.sentence().map(|sentence| Warning {
        kind: WarningKind::ExposuresMismatched,
        text: format!(
            "{sentence}; `sender_service` and `sender_version` in the table `exposures` tell who sent them."
        ),
        share_of_units: Some(evidence.mismatched.share()),
        metric: None,
    });
    let guardrails = guardrails::without_number(evidence).into_iter().map(|of| Warning {
        kind: WarningKind::GuardrailWithoutData,
        text: of.text,
        share_of_units: None,
        metric: Some(of.metric.key.clone()),
    });
    let planned = evidence.metrics.iter().flat_map(boundary::warnings);
    let left_out = left_out::warnings(evidence);
    several.into_iter().chain(mismatched).chain(left_out).chain(guardrails).chain(planned).collect()
}
