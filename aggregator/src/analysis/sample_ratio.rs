//! Whether the units came to the variants as planned; if not, no other number can be trusted.

use schemas::definition::Experiment;
use stats::{NoAnswer, srm};

use crate::counts::Counts;
use crate::document::{Expectation, SampleRatio};

/// Whether the variants have their planned shares of the units.
pub fn sample_ratio(experiment: &Experiment, counts: &[Counts]) -> SampleRatio {
    let shares: Vec<srm::Share> = experiment
        .variants
        .iter()
        .map(|variant| srm::Share {
            weight: f64::from(variant.weight.get()),
            units: counts.iter().filter(|of| of.variant == variant.key.as_str()).map(|of| of.units).sum(),
        })
        .collect();
    let mut ratio = SampleRatio {
        alarm: None,
        alarm_level: srm::ALARM_LEVEL,
        chi_square: None,
        degrees_of_freedom: None,
        p_value: None,
        variants: experiment
            .variants
            .iter()
            .zip(&shares)
            .map(|(variant, share)| Expectation {
                key: variant.key.as_str().to_owned(),
                units: share.units,
                expected: None,
            })
            .collect(),
        missing: None,
    };
    let (alarm, test) = match srm::check(&shares) {
        Ok(srm::Verdict::AsPlanned(test)) => (false, test),
        Ok(srm::Verdict::Mismatch(test)) => (true, test),
        Ok(srm::Verdict::UnplannedArm { .. }) => {
            ratio.alarm = Some(true);
            ratio.missing = Some(unplanned(&mut ratio.variants, &shares));
            return ratio;
        }
        Err(NoAnswer::Missing(missing)) => {
            ratio.missing = Some(missing.to_string());
            return ratio;
        }
        Err(NoAnswer::Invalid(invalid)) => {
            ratio.missing = Some(invalid.to_string());
            return ratio;
        }
    };
    ratio.alarm = Some(alarm);
    ratio.chi_square = Some(test.statistic);
    ratio.degrees_of_freedom = Some(test.degrees as u64);
    ratio.p_value = Some(test.p_value);
    for (variant, expected) in ratio.variants.iter_mut().zip(test.expected) {
        variant.expected = Some(expected);
    }
    ratio
}

/// Units where none were planned are expected to be 0, and say which arms have them.
fn unplanned(variants: &mut [Expectation], shares: &[srm::Share]) -> String {
    let mut said = Vec::new();
    for (variant, share) in variants.iter_mut().zip(shares) {
        if share.weight == 0.0 {
            variant.expected = Some(0.0);
            if share.units > 0 {
                said.push(format!("`{}` has {} units", variant.key, share.units));
            }
        }
    }
    format!("{}, and a planned share of none", said.join(", "))
}
