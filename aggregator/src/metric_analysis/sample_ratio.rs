//! The sample ratio: whether the units were split as planned, phase by phase; if not, no other number can be
//! trusted. The test may be looked at after every unit, and an alarm stays: later units do not correct the
//! earlier ones.

use std::collections::BTreeSet;

use counting::read::UnitCounts;
use schemas::definition::Experiment;
use stats::{NoAnswer, srm, srm_phases, srm_sequential};

use crate::definitions::Phase;
use crate::document::{Expectation, PhaseRatio, SampleRatio};

/// Computes whether the variants have their planned shares of the units. `alarmed` are the phases that were in
/// alarm before, and `left_out` those that the owner has left out of the analysis.
pub fn sample_ratio(
    experiment: &Experiment,
    phases: &[Phase],
    counts: &[UnitCounts],
    alarmed: &BTreeSet<u32>,
    left_out: &BTreeSet<u32>,
) -> SampleRatio {
    let last = phases.last().map_or(1, |phase| phase.number);
    let by_phase: Vec<PhaseRatio> = phases
        .iter()
        .enumerate()
        .map(|(index, phase)| {
            let mut ratio = phase_ratio(phase, index + 1, counts, alarmed.contains(&phase.number));
            // An alarm of a phase that is over excludes its units.
            ratio.left_out = left_out.contains(&phase.number) || (ratio.alarm && phase.number < last);
            let by_owner = experiment.excluded_phases.iter().find(|excluded| excluded.phase == phase.number);
            ratio.left_out_reason = by_owner.map(|excluded| excluded.reason.clone());
            ratio
        })
        .collect();
    let counting: Vec<&Phase> =
        phases.iter().zip(&by_phase).filter(|(_, of)| !of.left_out).map(|(phase, _)| phase).collect();
    let mut ratio = SampleRatio {
        alarm: None,
        phases: by_phase,
        chi_square: None,
        degrees_of_freedom: None,
        p_value: None,
        variants: experiment
            .variants
            .iter()
            .map(|variant| expectation(variant.key.as_str(), &counting, counts))
            .collect(),
        missing: None,
    };
    reference(&mut ratio);
    let alarms = ratio.phases.iter().any(|of| of.alarm && !of.left_out);
    // A single arm has no ratio.
    let seen: u64 = ratio.variants.iter().map(|variant| variant.units).sum();
    let compares = seen > 0 && counting.iter().any(|phase| phase.weights.len() > 1);
    ratio.alarm = (alarms || compares).then_some(alarms);
    ratio
}

/// Computes the sequential test of the `j`-th phase.
fn phase_ratio(phase: &Phase, j: usize, counts: &[UnitCounts], alarmed: bool) -> PhaseRatio {
    let variants: BTreeSet<&str> = counts
        .iter()
        .filter(|of| of.phase == phase.number)
        .map(|of| of.variant.as_str())
        .chain(phase.weights.keys().map(String::as_str))
        .collect();
    let weights: Vec<f64> =
        variants.iter().map(|key| f64::from(phase.weights.get(*key).copied().unwrap_or_default())).collect();
    let units: Vec<u64> = variants.iter().map(|key| units_of(key, phase, counts)).collect();
    let look = srm_phases::look(j, &srm_sequential::Phase { weights: &weights, units: &units }, alarmed).ok();
    PhaseRatio {
        phase: phase.number,
        level: srm_phases::level(j),
        p_value: look.map(|look| look.evidence.p_value),
        alarm: look.map_or(alarmed, |look| look.alarm),
        left_out: false,
        left_out_reason: None,
        units: units.iter().sum(),
    }
}

fn units_of(variant: &str, phase: &Phase, counts: &[UnitCounts]) -> u64 {
    counts.iter().filter(|of| of.phase == phase.number && of.variant == variant).map(|of| of.units).sum()
}

/// Returns the variant's units in the phases that count, and the units that it was planned to get of them.
fn expectation(variant: &str, phases: &[&Phase], counts: &[UnitCounts]) -> Expectation {
    let mut expected = 0.0;
    let mut units = 0;
    for phase in phases {
        units += units_of(variant, phase, counts);
        let all: u64 = counts.iter().filter(|of| of.phase == phase.number).map(|of| of.units).sum();
        let weights: f64 = phase.weights.values().map(|weight| f64::from(*weight)).sum();
        let weight = f64::from(phase.weights.get(variant).copied().unwrap_or_default());
        expected += all as f64 * weight / weights;
    }
    Expectation { key: variant.to_owned(), units, expected: (!phases.is_empty()).then_some(expected) }
}

/// Computes the chi-square over the phases that count, as a reference for readers. It is right if read once,
/// and decides nothing.
fn reference(ratio: &mut SampleRatio) {
    let shares: Vec<srm::Share> = ratio
        .variants
        .iter()
        .map(|variant| srm::Share { weight: variant.expected.unwrap_or_default(), units: variant.units })
        .collect();
    let test = match srm::check(&shares) {
        Ok(srm::Verdict::AsPlanned(test) | srm::Verdict::Mismatch(test)) => test,
        Ok(srm::Verdict::UnplannedArm { .. }) => {
            ratio.missing = Some(unplanned(&ratio.variants));
            return;
        }
        Err(NoAnswer::Missing(missing)) => {
            ratio.missing = Some(missing.to_string());
            return;
        }
        Err(NoAnswer::Invalid(_)) => {
            ratio.missing = Some("no units are there yet".to_owned());
            return;
        }
    };
    ratio.chi_square = Some(test.statistic);
    ratio.degrees_of_freedom = Some(test.degrees as u64);
    ratio.p_value = Some(test.p_value);
}

/// Returns which arms have units where none were planned.
fn unplanned(variants: &[Expectation]) -> String {
    let unplanned = variants.iter().filter(|variant| variant.expected == Some(0.0) && variant.units > 0);
    let arms: Vec<String> =
        unplanned.map(|variant| format!("`{}` has {} units", variant.key, variant.units)).collect();
    format!("{}, and a planned share of none", arms.join(", "))
}
