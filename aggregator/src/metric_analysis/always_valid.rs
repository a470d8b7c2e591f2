//! The result that holds at any number of looks: the asymptotic confidence sequence, or an exact test where an
//! arm has too few conversions for it, and the smallest p-values of the earlier looks as they were recorded.

use std::collections::{BTreeMap, BTreeSet};

use schemas::definition::Direction;
use stats::confidence_sequence::{Design, Look, Mixing};
use stats::conversion_counts::CONCENTRATION;
use stats::{Alpha, Alternative, Missing, TreatmentShare, phases};

use super::{Data, Frame, Names, exact, margin};
use crate::document::{AlwaysValidResult, Bounds};
use crate::look::{Comparison, Identity, PhaseSums};

/// The parameters fixed before the first look.
pub(super) struct AlwaysValidPlan {
    pub(super) alpha: Alpha,
    pub(super) tuned_for_units: f64,
    pub(super) share: TreatmentShare,
    /// The better direction, for guardrails only.
    pub(super) harm: Option<Direction>,
    /// The relative harm that is tolerated; none: none at all.
    pub(super) margin: Option<f64>,
}

impl AlwaysValidPlan {
    pub(super) fn design(&self, alternative: Alternative) -> Result<phases::AlwaysValidDesign, String> {
        let invalid = |invalid: stats::Invalid| invalid.to_string();
        let mixing = Mixing::TunedForUnits(self.tuned_for_units);
        let sequence = Design::new(self.alpha, alternative, mixing).map_err(invalid)?;
        phases::AlwaysValidDesign::new(sequence, self.share, CONCENTRATION).map_err(invalid)
    }

    /// Returns the better direction of a guardrail that tolerates no harm.
    pub(super) fn any_harm(&self) -> Option<Direction> {
        self.harm.filter(|_| self.margin.is_none())
    }

    /// Returns the side on which a guardrail is harmed.
    pub(super) fn worse(better: Direction) -> Alternative {
        match better {
            Direction::Increase => Alternative::Less,
            Direction::Decrease => Alternative::Greater,
        }
    }
}

pub(super) fn always_valid(
    names: &Names,
    data: &Data,
    plan: &AlwaysValidPlan,
) -> Result<AlwaysValidResult, String> {
    let mut result = AlwaysValidResult {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        alpha: plan.alpha.get(),
        tuned_for_units: plan.tuned_for_units,
        lift_absolute: None,
        p_value: None,
        p_value_adjusted: None,
        p_value_now: None,
        log_e_value: None,
        interval_absolute: None,
        interval_relative_to_control: None,
        includes_zero: None,
        harm_p_value: None,
        margin: None,
        exact: None,
        missing: None,
    };
    match data.few() {
        Some(few) => exact::always_valid(names, data, plan, &few, &mut result)?,
        None => by_the_interval(names, data, plan, &mut result)?,
    }
    margin::judge(names, data, plan, &mut result)?;
    Ok(result)
}

/// Computes the asymptotic confidence sequence, if there are enough conversions for it.
pub(super) fn by_the_interval(
    names: &Names,
    data: &Data,
    plan: &AlwaysValidPlan,
    result: &mut AlwaysValidResult,
) -> Result<(), String> {
    let look = |design: phases::AlwaysValidDesign| -> Result<Look, Missing> { design.look(&data.strata) };
    match look(plan.design(Alternative::TwoSided)?) {
        Err(missing) => result.missing = Some(names.sentence(missing)),
        Ok(look) => {
            let interval = Bounds::from(look.interval);
            result.lift_absolute = Some(look.effect.estimate);
            result.p_value_now = Some(look.p_value);
            result.log_e_value = Some(look.log_e_value);
            result.interval_absolute = Some(interval);
            result.interval_relative_to_control = data.control_mean().map(|mean| interval.divided_by(mean));
            result.includes_zero = Some(interval.includes_zero());
        }
    }
    if let Some(better) = plan.any_harm() {
        let worse = plan.design(AlwaysValidPlan::worse(better))?;
        result.harm_p_value = look(worse).ok().map(|look| look.p_value);
    }
    Ok(())
}

/// The earlier looks at one comparison.
pub(super) struct PastLooks<'a> {
    pub(super) identity: &'a Identity,
    pub(super) frame: &'a Frame<'a>,
    pub(super) names: &'a Names,
}

/// The smallest always-valid p-values of the earlier looks, as they were recorded.
pub(super) struct SmallestPValues {
    pub(super) p_value: f64,
    pub(super) harm_p_value: f64,
    pub(super) alpha: f64,
}

impl PastLooks<'_> {
    pub(super) fn looks(&self) -> Vec<(&Comparison, &BTreeSet<u32>)> {
        self.frame.looks.sequence(self.identity, &self.names.treatment)
    }

    /// Returns the alpha that each treatment's boundary has spent in the sequence that this look continues.
    pub(super) fn spent_by_treatment(&self) -> BTreeMap<&str, f64> {
        let looks = self.frame.looks.0.iter().flat_map(|look| &look.comparisons);
        let own = looks.filter(|look| look.of == *self.identity);
        own.filter_map(|look| Some((look.treatment.as_str(), look.planned?.alpha_spent))).collect()
    }

    /// Returns the phases whose units counted at this look and are left out now.
    pub(super) fn left_out_since(&self, look: &Comparison, then: &BTreeSet<u32>) -> BTreeSet<u32> {
        let has_units = |of: &&PhaseSums| of.control.units + of.treatment.units > 0;
        let phases = look.phases.iter().filter(has_units).map(|of| of.phase);
        phases.filter(|phase| then.contains(phase) != self.frame.left_out.contains(phase)).collect()
    }

    /// Returns the smallest recorded p-values. A look at which other phases were left out is computed again
    /// from those that count now.
    pub(super) fn smallest(&self, plan: &AlwaysValidPlan) -> Result<SmallestPValues, String> {
        let (mut p_value, mut harm_p_value) = (1.0_f64, 1.0_f64);
        for (look, left_out) in self.looks() {
            if self.left_out_since(look, left_out).is_empty() {
                p_value = p_value.min(look.p_value.unwrap_or(1.0));
                harm_p_value = harm_p_value.min(look.harm_p_value.unwrap_or(1.0));
            } else {
                let remaining = Data::of(&look.phases, self.frame.left_out)?;
                let recomputed = always_valid(self.names, &remaining, plan)?;
                p_value = p_value.min(recomputed.p_value_now.unwrap_or(1.0));
                harm_p_value = harm_p_value.min(recomputed.harm_p_value.unwrap_or(1.0));
            }
        }
        Ok(SmallestPValues { p_value, harm_p_value, alpha: plan.alpha.get() })
    }
}

impl SmallestPValues {
    /// Records the p-values that this look makes smaller. Returns whether the look must be recorded because a
    /// p-value has halved or passed alpha. Until a look is recorded, the larger p-value before it is shown,
    /// which is valid all the same.
    pub(super) fn keep(&self, look: &mut AlwaysValidResult, kept: &mut Comparison) -> bool {
        kept.p_value = look.p_value_now.filter(|now| *now < self.p_value);
        kept.harm_p_value = look.harm_p_value.filter(|now| *now < self.harm_p_value);
        let valid = |now: Option<f64>, before: f64| (now.is_some() || before < 1.0).then_some(before);
        look.p_value = valid(look.p_value_now, self.p_value);
        look.harm_p_value = valid(look.harm_p_value, self.harm_p_value);
        self.is_due(kept.p_value, self.p_value) || self.is_due(kept.harm_p_value, self.harm_p_value)
    }

    pub(super) fn is_due(&self, now: Option<f64>, before: f64) -> bool {
        now.is_some_and(|now| now <= before / 2.0 || (now <= self.alpha && before > self.alpha))
    }
}

impl AlwaysValidResult {
    /// Replaces the p-values by those of the recorded look.
    pub fn use_recorded_p_values(&mut self, kept: &Comparison) {
        self.p_value = kept.p_value.or(self.p_value);
        self.harm_p_value = kept.harm_p_value.or(self.harm_p_value);
    }
}
