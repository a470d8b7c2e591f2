//! The harm of a guardrail beyond its margin. A relative margin m tolerates a treatment whose mean is `1 - m` times the
//! control's (`1 + m` where lower is better). So the test is of the contrast "treatment minus this multiple of the control",
//! which has a variance of its own; it is always valid, as the test of any harm is. Pure.

use schemas::definition::Direction;
use stats::conversion_counts::CONCENTRATION;
use stats::few_conversions::Outcome;
use stats::phases::{self, FewByPhase, PhaseCounts, Stratum};
use stats::{Alternative, Invalid, Side};

use super::{AlwaysValidPlan, Data, Names};
use crate::document::{AlwaysValidResult, Bounds, Margin};
use crate::look::{self, PhaseSums};

/// Replaces the test of any harm by that of more harm than is tolerated.
pub(super) fn judge(
    names: &Names,
    data: &Data,
    plan: &AlwaysValidPlan,
    result: &mut AlwaysValidResult,
) -> Result<(), String> {
    let (Some(better), Some(relative)) = (plan.harm, plan.margin) else { return Ok(()) };
    let tolerated = Tolerated {
        ratio: match better {
            Direction::Increase => 1.0 - relative,
            Direction::Decrease => 1.0 + relative,
        },
        better,
    };
    let mut margin = Margin { relative, interval: None, is_no_worse: false, missing: None };
    result.harm_p_value = match data.few() {
        None => tolerated.by_the_contrast(names, data, plan, &mut margin)?,
        Some(few) if few.few.total() > 0 && data.is_of_rates() => {
            tolerated.by_the_counts(names, data, plan, &few, result, &mut margin)?
        }
        // How many units of a mean have events says nothing about how much less their mean is.
        Some(few) => {
            margin.missing = Some(names.sentence(few.few.missing()));
            None
        }
    };
    result.margin = Some(margin);
    Ok(())
}

/// The treatment's mean over the control's from which on it is harmed.
struct Tolerated {
    ratio: f64,
    better: Direction,
}

impl Tolerated {
    /// Tests the contrast; none if it has no number.
    fn by_the_contrast(
        &self,
        names: &Names,
        data: &Data,
        plan: &AlwaysValidPlan,
        margin: &mut Margin,
    ) -> Result<Option<f64>, String> {
        // A part of a mean below 0 is no loss.
        if data.means().is_some_and(|means| means.control <= 0.0) {
            margin.missing = Some(format!("a relative margin needs a mean of `{}` above 0", names.control));
            return Ok(None);
        }
        // What a covariate takes out of a mean has a variance that cancels in a difference, and not in this contrast.
        let plain: Vec<PhaseSums> = data.splits.iter().map(PhaseSums::unadjusted).collect();
        let contrast = |stratum: &Stratum| stratum.with_control_times(self.ratio);
        let strata: Vec<Stratum> = look::strata(&plain)?.iter().map(contrast).collect();
        match plan.design(Alternative::TwoSided)?.look(&strata) {
            Ok(look) => {
                let interval = Bounds::from(look.interval);
                margin.is_no_worse = interval.toward_better(self.better).lower.is_some_and(|end| end > 0.0);
                margin.interval = Some(interval);
            }
            Err(missing) => margin.missing = Some(names.sentence(missing)),
        }
        let worse = plan.design(AlwaysValidPlan::worse(self.better))?;
        Ok(worse.look(&strata).ok().map(|look| look.p_value))
    }

    /// Tests the counts of converted units against the tolerated ratio of the rates, exactly at any counts.
    fn by_the_counts(
        &self,
        names: &Names,
        data: &Data,
        plan: &AlwaysValidPlan,
        few: &FewByPhase,
        shown: &AlwaysValidResult,
        margin: &mut Margin,
    ) -> Result<Option<f64>, String> {
        if few.few.outcome == Outcome::NotConverted {
            return self.near_one(names, data, plan, few, margin);
        }
        let invalid = |invalid: Invalid| invalid.to_string();
        let shifted: Result<Vec<PhaseCounts>, Invalid> =
            few.by_phase.iter().map(|of| of.at_rate_ratio(self.ratio)).collect();
        let suspect = match self.better {
            Direction::Increase => Side::Control,
            Direction::Decrease => Side::Treatment,
        };
        let ratio = shown.exact.map(|exact| exact.ratio);
        margin.is_no_worse = ratio.is_some_and(|ratio| match self.better {
            Direction::Increase => ratio.lower.is_some_and(|lower| lower > self.ratio),
            Direction::Decrease => ratio.upper.is_some_and(|upper| upper < self.ratio),
        });
        let shifted = shifted.map_err(invalid)?;
        let evidence = phases::more_than_its_share(&shifted, CONCENTRATION, suspect).map_err(invalid)?;
        Ok(Some(evidence.p_value))
    }

    /// Nearly all units converted, so that no ratio of those that did not belongs to the margin. Harm shows in the arm whose
    /// rate would have to be the lower one. If that arm has enough units without a conversion, its error is the larger one
    /// and the contrast holds; else its rate is near 1, and there is no evidence of harm.
    fn near_one(
        &self,
        names: &Names,
        data: &Data,
        plan: &AlwaysValidPlan,
        few: &FewByPhase,
        margin: &mut Margin,
    ) -> Result<Option<f64>, String> {
        let lower = match self.better {
            Direction::Increase => few.few.counts.treatment,
            Direction::Decrease => few.few.counts.control,
        };
        if lower < few.few.need {
            return Ok(Some(1.0));
        }
        self.by_the_contrast(names, data, plan, margin)
    }
}
