//! From counts to numbers: the fixed-horizon test, the always-valid interval and the sample ratio, for every
//! metric and treatment. Pure: the arguments are the counts and the earlier looks. Differences are only taken
//! inside a phase, and the differences of the phases are added up.

use std::collections::BTreeSet;

use counting::micros::HOUR;
use counting::read::MetricCounts;
use lab::format;
use schemas::Micros;
use schemas::definition::{Direction, Experiment, Method, Metric, State, Variant, Version};
use stats::confidence_sequence::DEFAULT_TUNING_UNITS;
use stats::{Alpha, Missing, Pair, TreatmentShare};

use crate::definitions::Phase;
use crate::document::{MetricResult, Role, VariantResult};
use crate::look::{Comparison, EarlierLooks, FrozenCap, Identity, PhaseSums, Sums, splits};

mod always_valid;
pub mod boundary;
mod data;
mod earlier;
mod exact;
mod fixed;
mod margin;
mod measure;
mod sample_ratio;
mod secondary;
mod winsorized;

use always_valid::{AlwaysValidPlan, PastLooks, always_valid};
use data::Data;
use measure::Measure;
pub use sample_ratio::sample_ratio;
pub use secondary::adjust_p_values;

/// A metric with its counts.
pub struct Outcome<'a> {
    pub key: &'a str,
    pub role: Role,
    /// None if no such metric is defined.
    pub definition: Option<(Version, &'a Metric)>,
    pub counts: &'a [MetricCounts],
    /// The frozen cap at which the values were cut when they were counted, if they were.
    pub counted_with_cap: Option<i128>,
}

/// The inputs of the analysis other than the counts.
pub struct Frame<'a> {
    pub experiment: &'a Experiment,
    /// The phases in order, each with its split.
    pub phases: &'a [Phase],
    /// Phases whose units do not count.
    pub left_out: &'a BTreeSet<u32>,
    /// The looks before this one.
    pub looks: EarlierLooks<'a>,
    pub as_of: Micros,
}

impl Frame<'_> {
    fn is_stopped(&self) -> bool {
        matches!(self.experiment.state, State::Stopped | State::Archived)
    }

    /// Returns when the window of a unit that is exposed now has closed. Windows close by the hour.
    fn matured_at_latest(&self, outcome: &Outcome<'_>) -> Option<Micros> {
        let (_, metric) = outcome.definition?;
        let after = i64::try_from(metric.final_after_hours()? + 1).ok()?.checked_mul(HOUR)?;
        Micros::new(self.as_of.get().checked_add(after)?).ok()
    }
}

/// A metric's numbers, and the comparisons that a look would record.
pub struct Analyzed {
    pub result: MetricResult,
    /// Empty for a secondary metric, which decides nothing.
    pub comparisons: Vec<Compared>,
    /// The cap of a winsorized metric, if it has to be recorded.
    pub frozen: Option<FrozenCap>,
}

/// A comparison as this look would record it, and whether it has to be recorded.
pub struct Compared {
    pub comparison: Comparison,
    /// True if a planned look was taken, or the always-valid p-value has halved or passed alpha.
    pub is_due: bool,
}

/// Computes all numbers of one metric.
pub fn metric(frame: &Frame<'_>, outcome: &Outcome<'_>) -> Analyzed {
    let winsorized::Capped { counts, cap, frozen } = winsorized::cut(frame, outcome);
    let mut result = MetricResult {
        key: outcome.key.to_owned(),
        role: outcome.role,
        metric_type: outcome.definition.map(|(_, metric)| metric.metric_type()),
        definition_version: outcome.definition.map(|(version, _)| version),
        event: outcome.definition.map(|(_, metric)| metric.event.as_str().to_owned()),
        window_hours: outcome.definition.and_then(|(_, metric)| metric.window_hours),
        options: outcome.definition.map(|(_, metric)| measure::options(metric)).unwrap_or_default(),
        direction: outcome.definition.map_or(Direction::Increase, |(_, metric)| metric.direction),
        margin: margin_of(frame.experiment, outcome),
        cap,
        missing: None,
        variants: Vec::new(),
        tests: Vec::new(),
        always_valid: Vec::new(),
        boundaries: Vec::new(),
        shown_before: Vec::new(),
    };
    let measure = match outcome.definition {
        None => Err(format!("no metric `{}` is defined", outcome.key)),
        Some((_, metric)) => Measure::of(metric, frame.experiment),
    };
    let shown = measure.as_ref().ok().copied();
    let arms: Vec<VariantCounts<'_>> =
        frame.experiment.variants.iter().map(|variant| VariantCounts::of(variant, &counts, shown)).collect();
    result.variants = arms.iter().map(|arm| arm.shown(frame, shown)).collect();
    let mut comparisons = Vec::new();
    match measure {
        Err(why) => result.missing = Some(why),
        Ok(_) if result.waits_for_its_cap() => {
            // The mean of values that are not cut is another metric.
            result.variants.iter_mut().for_each(|variant| (variant.mean, variant.mean_open) = (None, None));
            result.missing = cap.map(|cap| {
                format!(
                    "its cap needs {} values that are not 0, and {} are there",
                    format::count(cap.values_needed),
                    format::count(cap.values)
                )
            });
        }
        Ok(_) => {
            if let Err(why) = compare(frame, outcome, &arms, &mut result, &mut comparisons) {
                result.missing = Some(why);
            }
        }
    }
    Analyzed { result, comparisons, frozen }
}

/// Returns the relative harm that a guardrail tolerates.
fn margin_of(experiment: &Experiment, outcome: &Outcome<'_>) -> Option<f64> {
    let mut margins = experiment.metrics.margins.iter();
    let own = margins.find(|(key, _)| key.as_str() == outcome.key).map(|(_, margin)| *margin);
    own.filter(|_| outcome.role == Role::Guardrail)
}

/// A variant with its counts by phase; phases in which nobody was exposed to it are absent.
struct VariantCounts<'a> {
    variant: &'a Variant,
    /// Of the matured units.
    sums: Vec<(u32, Sums)>,
    counts: Vec<&'a MetricCounts>,
    nothing: Sums,
}

impl<'a> VariantCounts<'a> {
    fn of(variant: &'a Variant, counts: &'a [MetricCounts], measure: Option<Measure>) -> VariantCounts<'a> {
        let measure = measure.unwrap_or(Measure::Rate);
        let own = counts.iter().filter(|counts| counts.variant == variant.key.as_str());
        let counts: Vec<&MetricCounts> = own.collect();
        let sums = counts.iter().map(|counts| (counts.phase, measure.sums(&counts.matured))).collect();
        VariantCounts { variant, sums, counts, nothing: measure.sums(&counting::sums::Sums::default()) }
    }

    fn of_phase(&self, phase: u32) -> Sums {
        let own = self.sums.iter().find(|(number, _)| *number == phase).map(|(_, sums)| sums);
        own.unwrap_or(&self.nothing).clone()
    }

    /// Returns the sums of the phases that count.
    fn counting<'s>(&'s self, frame: &Frame<'_>) -> impl Iterator<Item = &'s Sums> {
        let left_out = frame.left_out.clone();
        self.sums.iter().filter(move |(phase, _)| !left_out.contains(phase)).map(|(_, sums)| sums)
    }

    fn units(&self, frame: &Frame<'_>) -> u64 {
        self.counting(frame).map(|sums| sums.units).sum()
    }

    fn shown(&self, frame: &Frame<'_>, measure: Option<Measure>) -> VariantResult {
        let units = self.units(frame);
        let conversions = self.counting(frame).map(|sums| sums.conversions).sum();
        let rate = (units > 0).then(|| conversions as f64 / units as f64);
        let counting = self.counts.iter().filter(|of| !frame.left_out.contains(&of.phase));
        let mut all = MetricCounts::default();
        for of in counting {
            all.matured.merge(&of.matured);
            all.open.merge(&of.open);
        }
        let mean = |sums: &counting::sums::Sums| match measure? {
            Measure::Rate => (sums.units > 0).then(|| sums.with_event as f64 / sums.units as f64),
            measure => {
                let moments = measure.sums(sums).moments().ok().flatten();
                moments.filter(|of| of.count() > 0).map(|of| of.mean())
            }
        };
        VariantResult {
            key: self.variant.key.as_str().to_owned(),
            control: self.variant.key == frame.experiment.control,
            weight: self.variant.weight.get(),
            units,
            units_open: all.open.units,
            conversions_open: all.open.with_event,
            mean_open: mean(&all.open),
            conversions,
            units_by_step: all.matured.steps.clone(),
            rate,
            mean: mean(&all.matured),
        }
    }
}

/// Compares the control with each treatment that gets any units.
fn compare(
    frame: &Frame<'_>,
    outcome: &Outcome<'_>,
    arms: &[VariantCounts<'_>],
    result: &mut MetricResult,
    comparisons: &mut Vec<Compared>,
) -> Result<(), String> {
    let experiment = frame.experiment;
    let Some(control) = arms.iter().find(|arm| arm.variant.key == experiment.control) else {
        return Err(format!("the control `{}` is none of the variants", experiment.control));
    };
    let treatments = arms
        .iter()
        .filter(|arm| arm.variant.key != experiment.control && arm.variant.weight.get() > 0)
        .collect::<Vec<_>>();
    let compared: Vec<&str> = treatments.iter().map(|arm| arm.variant.key.as_str()).collect();
    // Each treatment that was ever compared has had its part of the always-valid alpha.
    let share = ever_compared(frame.phases, control.variant);
    let alpha = Alpha::new(experiment.plan.alpha).map_err(|invalid| invalid.to_string())?;
    let units: u64 = arms.iter().map(|arm| arm.units(frame)).sum();
    let matured_at_latest = frame.matured_at_latest(outcome);
    for treatment in treatments {
        let names = Names {
            metric: result.key.clone(),
            control: control.variant.key.as_str().to_owned(),
            treatment: treatment.variant.key.as_str().to_owned(),
        };
        let phases = sums_by_phase(frame, control, treatment);
        let Some(first) = FirstSplit::of(frame, &names) else {
            return Err(format!(
                "`{}` and `{}` are to get no units in any phase",
                names.control, names.treatment
            ));
        };
        let data = Data::of(&phases, frame.left_out)?;
        result.tests.push(fixed::test(&names, &data, alpha, p_value_use(experiment, units)));
        let plan = AlwaysValidPlan {
            alpha: alpha.divided_by(share),
            tuned_for_units: first.tuned_for_units(experiment),
            share: first.share,
            harm: (result.role == Role::Guardrail).then_some(result.direction),
            margin: result.margin,
        };
        let identity = Identity::of(result, &names.control);
        let past = PastLooks { identity: &identity, frame, names: &names };
        let mut kept = Comparison {
            of: identity.clone(),
            treatment: names.treatment.clone(),
            planned: None,
            p_value: None,
            harm_p_value: None,
            phases: phases.clone(),
        };
        let mut is_due = false;
        let mut look = always_valid(&names, &data, &plan)?;
        if result.role != Role::Secondary {
            let smallest = past.smallest(&plan)?;
            is_due = smallest.keep(&mut look, &mut kept);
        } else {
            look.p_value = look.p_value_now;
        }
        if result.role == Role::Primary
            && let Some(test) = boundary::PlannedTest::of(&experiment.plan)
        {
            let current = boundary::Current {
                names: &names,
                data: &data,
                treatments: &compared,
                units_of_all_arms: units,
                open: result.variants.iter().map(|variant| variant.units_open).sum(),
                matured_at_latest,
                is_split_anew: splits(&phases, &BTreeSet::new())?.len() > 1,
                planned: first.planned_units(test.horizon).map(|units| units.round() as u64),
            };
            let boundary = boundary::analyze(test, alpha, &current, &past);
            kept.planned = boundary.taken;
            is_due |= boundary.taken.is_some();
            result.boundaries.push(boundary.result);
        }
        if result.role != Role::Secondary {
            let asked = earlier::Asked {
                role: result.role,
                direction: result.direction,
                has_boundary: !result.boundaries.is_empty(),
            };
            // Each treatment that was planned to get units by then had its part of alpha.
            let alpha_then = |last: u32| {
                let until = frame.phases.partition_point(|phase| phase.number <= last);
                alpha.divided_by(ever_compared(&frame.phases[..until], control.variant)).get()
            };
            result.shown_before.extend(earlier::shown_before(&past, &asked, alpha_then)?);
        }
        result.always_valid.push(look);
        if result.role != Role::Secondary {
            comparisons.push(Compared { comparison: kept, is_due });
        }
    }
    Ok(())
}

/// Returns how many variants other than the control were planned to get units in any phase.
fn ever_compared(phases: &[Phase], control: &Variant) -> u32 {
    let keys = phases.iter().flat_map(|phase| phase.weights.keys());
    let treatments = keys.filter(|key| key.as_str() != control.key.as_str()).collect::<BTreeSet<_>>().len();
    u32::try_from(treatments).unwrap_or(u32::MAX).max(1)
}

/// Returns both arms' units in every phase that the experiment has had.
fn sums_by_phase(
    frame: &Frame<'_>,
    control: &VariantCounts<'_>,
    treatment: &VariantCounts<'_>,
) -> Vec<PhaseSums> {
    let weight = |phase: &Phase, arm: &VariantCounts<'_>| {
        phase.weights.get(arm.variant.key.as_str()).copied().unwrap_or_default()
    };
    let of = |phase: &Phase| PhaseSums {
        phase: phase.number,
        weight_control: weight(phase, control),
        weight_treatment: weight(phase, treatment),
        control: control.of_phase(phase.number),
        treatment: treatment.of_phase(phase.number),
    };
    frame.phases.iter().map(of).collect()
}

/// The names of the metric and of both arms, for messages.
struct Names {
    metric: String,
    control: String,
    treatment: String,
}

impl Names {
    /// Returns the sentence for the missing data, with the variants' names for the arms.
    fn sentence(&self, missing: Missing) -> String {
        let (control, treatment) = (format!("`{}`", self.control), format!("`{}`", self.treatment));
        missing.sentence(Pair { control: &control, treatment: &treatment })
    }
}

/// The split of the first phase in which both arms were planned to get units. Plans use it for the experiment's
/// whole life.
struct FirstSplit {
    /// The treatment's share of both arms' units.
    share: TreatmentShare,
    /// Each arm's share of all arms' units.
    of_all: Pair<f64>,
}

impl FirstSplit {
    fn of(frame: &Frame<'_>, names: &Names) -> Option<FirstSplit> {
        frame.phases.iter().find_map(|phase| {
            let all: f64 = phase.weights.values().map(|weight| f64::from(*weight)).sum();
            let weight = |key: &str| f64::from(phase.weights.get(key).copied().unwrap_or_default());
            let both = Pair { control: weight(&names.control), treatment: weight(&names.treatment) };
            let share = TreatmentShare::new(both.treatment / (both.control + both.treatment)).ok()?;
            Some(FirstSplit { share, of_all: both.map(|weight| weight / all) })
        })
    }

    /// Returns each arm's part of a planned total.
    fn planned_units(&self, horizon: u64) -> Pair<f64> {
        self.of_all.map(|share| horizon as f64 * share)
    }

    /// Returns the planned units of both arms together, or the default.
    fn tuned_for_units(&self, experiment: &Experiment) -> f64 {
        let Some(horizon) = experiment.plan.horizon_units else {
            return DEFAULT_TUNING_UNITS;
        };
        let Pair { control, treatment } = self.planned_units(horizon);
        let planned = control + treatment;
        if planned > 0.0 { planned } else { DEFAULT_TUNING_UNITS }
    }
}

fn p_value_use(experiment: &Experiment, units: u64) -> String {
    match experiment.plan.horizon_units {
        None => "reference only: no horizon was planned".to_owned(),
        Some(horizon) if units < horizon => {
            format!("reference only: {units} of the planned {horizon} units are there")
        }
        Some(_) if experiment.plan.method == Method::FixedHorizon => {
            "reference only: the one planned look, which decides, was taken once".to_owned()
        }
        Some(_) => "reference only: it was looked at before the planned end".to_owned(),
    }
}
