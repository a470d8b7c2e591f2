//! Whether the numbers may be read at all: the split, and units that saw more than one variant. And what the reader has
//! to be told beside them.

use super::{Evidence, Ruling, guardrails, left_out};
use crate::document::{Expectation, SampleRatio, Verdict, Warning, WarningKind};
use lab::format;

/// An arm without any unit is called missing from this many expected ones on: by chance it would happen
/// once in 3,000 experiments (e^-8).
const MISSING_ARM_EXPECTED: f64 = 8.0;

/// Above this share of units that saw several variants every verdict begins with it. Assignment gives a unit one variant
/// as long as the weights stand, so the share to be expected is 0; one in a hundred is more than strays (shared devices,
/// tests by hand), and is where GrowthBook warns.
const CROSSED_WARNS_ABOVE: f64 = 0.01;

/// Above this share nothing is to be believed. A unit counts in the variant that it saw first; where more than a tenth
/// saw another one too, that says so little of what they saw that it can make or hide an effect of a tenth, which is
/// what most experiments look for, and the same fault may have sent the others anywhere. PostHog speaks of a high share
/// from here on.
const CROSSED_INVALID_ABOVE: f64 = 0.1;

/// So few units may be anybody's tests by hand: from here on they make the numbers invalid.
const CROSSED_INVALID_FROM: u64 = 8;

/// Units that were exposed to more than one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    pub units: u64,
    /// All that are counted.
    pub of: u64,
}

impl Crossed {
    fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.units as f64 / self.of as f64 }
    }

    fn is_invalid(self) -> bool {
        self.units >= CROSSED_INVALID_FROM && self.share() > CROSSED_INVALID_ABOVE
    }

    /// "312 of 6,000 units (5.20 %) have seen more than one variant", where they are too many for strays.
    fn sentence(self) -> Option<String> {
        (self.share() > CROSSED_WARNS_ABOVE).then(|| {
            format!(
                "{} of {} units ({}) have seen more than one variant",
                format::count(self.units),
                format::count(self.of),
                format::percent(self.share())
            )
        })
    }
}

const FIND_OUT: &str = "find out why before reading any number here.";

/// The first reason not to read any number.
pub(super) fn invalid(evidence: &Evidence<'_>) -> Option<Ruling> {
    crossed(evidence.crossed).or_else(|| missing_arm(evidence.srm)).or_else(|| split(evidence.srm))
}

fn crossed(crossed: Crossed) -> Option<Ruling> {
    let sentence = crossed.sentence().filter(|_| crossed.is_invalid())?;
    let reason = format!(
        "{sentence}, and above {:.0} % the first one does not say what a unit saw; {FIND_OUT}",
        CROSSED_INVALID_ABOVE * 100.0
    );
    Some((Verdict::Invalid, None, reason))
}

fn missing_arm(srm: &SampleRatio) -> Option<Ruling> {
    let missing = srm.variants.iter().find(|variant| {
        variant.units == 0 && variant.expected.is_some_and(|expected| expected >= MISSING_ARM_EXPECTED)
    })?;
    let reason = format!(
        "No unit has seen `{}`, where {} were expected: {FIND_OUT}",
        missing.key,
        format::count(missing.expected.unwrap_or_default().round() as u64)
    );
    Some((Verdict::Invalid, Some(missing.key.clone()), reason))
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
    let reason = format!("{what}; {FIND_OUT}");
    Some((Verdict::Invalid, None, reason))
}

/// "`b` has 333 units instead of 400", "`c` has 333 units and a planned share of none".
fn units_of(variant: &Expectation) -> String {
    let units = format!("`{}` has {}", variant.key, format::counted(variant.units, "unit", "units"));
    match variant.expected {
        Some(0.0) if variant.units > 0 => format!("{units} and a planned share of none"),
        Some(expected) if expected == variant.units as f64 => format!("{units} as planned"),
        Some(expected) => format!("{units} instead of {}", expected_beside(expected, variant.units)),
        None => units,
    }
}

/// Whole, with one digit behind the point where it would read as the same number.
fn expected_beside(expected: f64, units: u64) -> String {
    let whole = expected.round() as u64;
    if whole != units {
        return format::count(whole);
    }
    let tenths = (expected * 10.0).round() as u64;
    format!("{}.{}", format::count(tenths / 10), tenths % 10)
}

/// The reason with what must be said before it and what is left open behind it.
pub(super) fn told(evidence: &Evidence<'_>, verdict: Verdict, reason: String) -> String {
    // Where it is the reason itself, it need not be said twice.
    let warning = evidence.crossed.sentence().filter(|_| !evidence.crossed.is_invalid());
    let before =
        warning.map_or(String::new(), |sentence| format!("Warning: {sentence}, and count in the first. "));
    let behind = match verdict {
        Verdict::Ship | Verdict::Stop | Verdict::KeepRunning => {
            guardrails::without_number(evidence).iter().map(|of| format!(" {}", of.text)).collect()
        }
        _ => String::new(),
    };
    let left_out = match verdict {
        Verdict::Invalid => String::new(),
        _ => left_out::told(evidence),
    };
    format!("{before}{reason}{behind}{left_out}")
}

/// Units that left the numbers after they had been in them: whoever may force units could take out those that they wish.
pub fn forced_later(units: u64) -> Option<Warning> {
    let text = match units {
        0 => return None,
        1 => "1 unit that had counted was forced into a variant later, and counts in nothing since; earlier looks saw it."
            .to_owned(),
        several => format!(
            "{} units that had counted were forced into a variant later, and count in nothing since; earlier looks saw them.",
            format::count(several)
        ),
    };
    Some(Warning { kind: WarningKind::UnitsForcedLater, text, share_of_units: None, metric: None })
}

/// The same for machines, and for those who read a table.
pub fn warnings(evidence: &Evidence<'_>) -> Vec<Warning> {
    let crossed = evidence.crossed;
    let several = crossed.sentence().map(|sentence| Warning {
        kind: WarningKind::UnitsInSeveralVariants,
        text: format!("{sentence}, and count in the first."),
        share_of_units: Some(crossed.share()),
        metric: None,
    });
    let guardrails = guardrails::without_number(evidence).into_iter().map(|of| Warning {
        kind: WarningKind::GuardrailWithoutData,
        text: of.text,
        share_of_units: None,
        metric: Some(of.metric.key.clone()),
    });
    several.into_iter().chain(left_out::warnings(evidence)).chain(guardrails).collect()
}
