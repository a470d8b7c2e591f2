//! From counts to numbers: the fixed-horizon test, the always-valid interval and the sample ratio, for
//! every metric and treatment. Pure; the counts come in, and the earlier looks that an always-valid
//! p-value remembers.

use schemas::definition::{Direction, Experiment, Method, Metric, MetricType, Variant, Version};
use stats::confidence_sequence::{DEFAULT_TUNING_UNITS, Design, Look, Mixing};
use stats::few_conversions::Few;
use stats::{Alpha, Alternative, Arm, Interval, Lift, Missing, Moments, Pair, lift, two_proportion, welch};

use crate::counts::{Counts, Value};
use crate::document::{
    AlwaysValid, Bounds, ExperimentResult, MetricResult, Role, Test, TestMethod, VariantResult,
};

pub mod boundary;
mod exact;
mod sample_ratio;
mod secondary;

pub use sample_ratio::sample_ratio;
pub use secondary::adjust_p_values;

/// A metric with what was counted for it.
pub struct Outcome<'a> {
    pub key: &'a str,
    pub role: Role,
    /// None if no such metric is defined.
    pub definition: Option<(Version, &'a Metric)>,
    pub counts: &'a [Counts],
}

/// What the numbers are computed by, beside the counts.
pub struct Frame<'a> {
    pub experiment: &'a Experiment,
    /// The analysis before, if it counted the same units in the same way.
    pub previous: Option<&'a ExperimentResult>,
    /// The analysis before, whatever it counted: its looks have spent alpha.
    pub latest: Option<&'a ExperimentResult>,
}

/// Everything about one metric.
pub fn metric(frame: &Frame<'_>, outcome: &Outcome<'_>) -> MetricResult {
    let mut result = MetricResult {
        key: outcome.key.to_owned(),
        role: outcome.role,
        metric_type: outcome.definition.map(|(_, metric)| metric.metric_type()),
        definition_version: outcome.definition.map(|(version, _)| version),
        event: outcome.definition.map(|(_, metric)| metric.event.as_str().to_owned()),
        window_hours: outcome.definition.and_then(|(_, metric)| metric.window_hours),
        direction: outcome.definition.map_or(Direction::Increase, |(_, metric)| metric.direction),
        missing: None,
        variants: Vec::new(),
        tests: Vec::new(),
        always_valid: Vec::new(),
        boundaries: Vec::new(),
    };
    let kind = match outcome.definition {
        None => Err(format!("no metric `{}` is defined", outcome.key)),
        Some((_, metric)) => Compared::of(metric),
    };
    let arms: Vec<Counted<'_>> =
        frame.experiment.variants.iter().map(|of| Counted::find(of, outcome)).collect();
    result.variants = arms.iter().map(|arm| arm.shown(frame, kind.as_ref().ok().copied())).collect();
    match kind {
        Err(why) => result.missing = Some(why),
        Ok(kind) => {
            if let Err(why) = compare(frame, kind, &arms, &mut result) {
                result.missing = Some(why);
            }
        }
    }
    result
}

/// What of a unit is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// Whether it converted.
    Rate,
    /// A value of it.
    Mean(Value),
}

impl Compared {
    fn of(metric: &Metric) -> Result<Compared, String> {
        let kind = match metric.metric_type() {
            MetricType::Conversion => Compared::Rate,
            MetricType::Count => Compared::Mean(Value::Events),
            MetricType::Mean => Compared::Mean(Value::Total),
            MetricType::Ratio => return Err(not_computed("ratio metrics")),
            MetricType::Retention => return Err(not_computed("retention metrics")),
            MetricType::Quantile => return Err(not_computed("quantile metrics")),
            MetricType::Funnel => return Err(not_computed("funnel metrics")),
        };
        match metric.winsorize() {
            Some(_) if kind != Compared::Rate => Err(not_computed("winsorized metrics")),
            _ => Ok(kind),
        }
    }
}

fn not_computed(what: &str) -> String {
    format!("this version does not compute {what}")
}

/// A variant with its counts; zeros if nobody has been exposed to it.
struct Counted<'a> {
    variant: &'a Variant,
    counts: Option<&'a Counts>,
}

impl<'a> Counted<'a> {
    fn find(variant: &'a Variant, outcome: &Outcome<'a>) -> Counted<'a> {
        let counts = outcome.counts.iter().find(|counts| counts.variant == variant.key.as_str());
        Counted { variant, counts }
    }

    fn units(&self) -> u64 {
        self.counts.map_or(0, |counts| counts.units)
    }

    fn conversions(&self) -> u64 {
        self.counts.map_or(0, |counts| counts.conversions)
    }

    fn moments(&self, value: Value) -> Result<Moments, String> {
        self.counts.map_or(Ok(Moments::EMPTY), |counts| counts.moments(value))
    }

    fn arm(&self) -> Result<Arm, String> {
        let counts = stats::Counts { units: self.units(), conversions: self.conversions() };
        Arm::new(counts).map_err(|invalid| invalid.to_string())
    }

    fn shown(&self, frame: &Frame<'_>, kind: Option<Compared>) -> VariantResult {
        let units = self.units();
        let rate = (units > 0).then(|| self.conversions() as f64 / units as f64);
        VariantResult {
            key: self.variant.key.as_str().to_owned(),
            control: self.variant.key == frame.experiment.control,
            weight: self.variant.weight.get(),
            units,
            conversions: self.conversions(),
            rate,
            mean: match kind {
                None => None,
                Some(Compared::Rate) => rate,
                Some(Compared::Mean(value)) => {
                    self.moments(value).ok().filter(|_| units > 0).map(|moments| moments.mean())
                }
            },
        }
    }
}

/// The control against each treatment that gets any units.
fn compare(
    frame: &Frame<'_>,
    kind: Compared,
    arms: &[Counted<'_>],
    result: &mut MetricResult,
) -> Result<(), String> {
    let experiment = frame.experiment;
    let Some(control) = arms.iter().find(|arm| arm.variant.key == experiment.control) else {
        return Err(format!("the control `{}` is none of the variants", experiment.control));
    };
    let treatments = arms
        .iter()
        .filter(|arm| arm.variant.key != experiment.control && arm.variant.weight.get() > 0)
        .collect::<Vec<_>>();
    let share = u32::try_from(treatments.len()).unwrap_or(u32::MAX).max(1);
    let alpha = Alpha::new(experiment.plan.alpha).map_err(|invalid| invalid.to_string())?;
    for treatment in treatments {
        let pair = Pair { control, treatment };
        let names = Names {
            metric: result.key.clone(),
            control: control.variant.key.as_str().to_owned(),
            treatment: treatment.variant.key.as_str().to_owned(),
        };
        let data = match kind {
            Compared::Rate => Data::Rates(pair.try_map(|_, arm| arm.arm())?),
            Compared::Mean(value) => Data::Means {
                moments: pair.try_map(|_, arm| arm.moments(value))?,
                arms: pair.try_map(|_, arm| arm.arm())?,
            },
        };
        let treatment_share = share_of_treatment(pair);
        let units: u64 = arms.iter().map(Counted::units).sum();
        result.tests.push(test(&names, &data, alpha, p_value_use(experiment, units)));
        let planned = Planned {
            alpha: alpha.divided_by(share),
            tuned_for_units: tuned_for_units(experiment, pair),
            treatment_share,
            harm: (result.role == Role::Guardrail).then_some(result.direction),
        };
        let smallest = smallest_so_far(frame.previous, result, &names);
        let look = always_valid(&names, &data, planned, smallest)?;
        if result.role == Role::Primary
            && let Some(asked) = boundary::Asked::by(&experiment.plan)
        {
            let past = boundary::Past::of(frame, result, &names.control);
            let now = boundary::Now {
                names: &names,
                data: &data,
                units: pair.map(Counted::units),
                units_of_all_arms: units,
                planned: planned_units(experiment, pair, asked.horizon).map(|units| units.round() as u64),
                treatment_share,
            };
            result.boundaries.push(boundary::follow(asked, alpha, share, &now, &past));
        }
        result.always_valid.push(look);
    }
    Ok(())
}

/// Who is compared, and by what.
struct Names {
    metric: String,
    control: String,
    treatment: String,
}

enum Data {
    Rates(Pair<Arm>),
    Means {
        moments: Pair<Moments>,
        /// How many units have any event at all.
        arms: Pair<Arm>,
    },
}

fn test(names: &Names, data: &Data, alpha: Alpha, p_value_use: String) -> Test {
    let mut test = Test {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        method: match data {
            Data::Rates(_) => TestMethod::TwoProportionZ,
            Data::Means { .. } => TestMethod::WelchT,
        },
        z: None,
        t: None,
        degrees_of_freedom: None,
        p_value: None,
        p_value_use,
        confidence: 1.0 - alpha.get(),
        lift_absolute: None,
        interval_absolute: None,
        lift_relative: None,
        interval_relative: None,
        interval_relative_method: None,
        missing: None,
    };
    let lift = match data {
        Data::Rates(arms) => two_proportion::compare(*arms, alpha).and_then(|comparison| {
            if comparison.test == two_proportion::Test::FisherExact {
                test.method = TestMethod::FisherExact;
            }
            test.z = Some(comparison.pooled.z);
            test.p_value = Some(comparison.p_value);
            test.lift_absolute = Some(comparison.pooled.effect.estimate);
            test.interval_absolute = Some(comparison.interval.into());
            comparison.lift
        }),
        Data::Means { moments, .. } => welch::compare(*moments, alpha).and_then(|comparison| {
            test.t = Some(comparison.test.t);
            test.degrees_of_freedom = Some(comparison.test.degrees);
            test.p_value = Some(comparison.test.p_value);
            test.lift_absolute = Some(comparison.test.effect.estimate);
            test.interval_absolute = Some(comparison.interval.into());
            comparison.lift
        }),
    };
    match lift {
        Ok(Lift { estimate, interval, method }) => {
            test.lift_relative = Some(estimate);
            test.interval_relative = Some(interval.into());
            let method = match method {
                lift::Method::Fieller => "fieller",
                lift::Method::LogRatio => "log_ratio",
            };
            test.interval_relative_method = Some(method.to_owned());
        }
        Err(missing) => test.missing = Some(named(missing, names)),
    }
    test
}

/// What was laid down before the first look.
struct Planned {
    alpha: Alpha,
    tuned_for_units: f64,
    /// Of both arms' units.
    treatment_share: f64,
    /// Set for guardrails: the direction that is better.
    harm: Option<Direction>,
}

impl Planned {
    fn design(&self, alternative: Alternative) -> Result<Design, String> {
        Design::new(self.alpha, alternative, Mixing::TunedForUnits(self.tuned_for_units))
            .map_err(|invalid| invalid.to_string())
    }
}

fn always_valid(names: &Names, data: &Data, planned: Planned, smallest: f64) -> Result<AlwaysValid, String> {
    let mut result = AlwaysValid {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        alpha: planned.alpha.get(),
        tuned_for_units: planned.tuned_for_units,
        lift_absolute: None,
        // An earlier look stays true, whatever this one has to say.
        p_value: (smallest < 1.0).then_some(smallest),
        p_value_adjusted: None,
        p_value_now: None,
        log_e_value: None,
        interval_absolute: None,
        interval_relative_to_control: None,
        includes_zero: None,
        harm_p_value: None,
        exact: None,
        missing: None,
    };
    match data.few() {
        Some(few) => exact::always_valid(names, data, &planned, &few, &mut result)?,
        None => by_the_interval(names, data, &planned, &mut result)?,
    }
    result.p_value = result.p_value_now.map_or(result.p_value, |now| Some(now.min(smallest)));
    Ok(result)
}

/// The asymptotic confidence sequence, where there are conversions enough for it.
fn by_the_interval(
    names: &Names,
    data: &Data,
    planned: &Planned,
    result: &mut AlwaysValid,
) -> Result<(), String> {
    let look = |design: Design| -> Result<Look, Missing> {
        match data {
            Data::Rates(arms) => design.look_at_rates(*arms),
            Data::Means { moments, .. } => design.look_at_means(*moments),
        }
    };
    match look(planned.design(Alternative::TwoSided)?) {
        Err(missing) => result.missing = Some(named(missing, names)),
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
    if let Some(better) = planned.harm {
        let worse = match better {
            Direction::Increase => Alternative::Less,
            Direction::Decrease => Alternative::Greater,
        };
        result.harm_p_value = look(planned.design(worse)?).ok().map(|look| look.p_value);
    }
    Ok(())
}

impl Data {
    /// The control's mean, if a share of it can be taken.
    fn control_mean(&self) -> Option<f64> {
        let mean = match self {
            Data::Rates(arms) => arms.control.rate()?,
            Data::Means { moments, .. } => moments.control.mean(),
        };
        (mean > 0.0).then_some(mean)
    }

    /// Treatment minus control; none without units.
    fn difference(&self) -> Option<f64> {
        let means = match self {
            Data::Rates(arms) => Pair { control: arms.control.rate()?, treatment: arms.treatment.rate()? },
            Data::Means { moments, .. } => moments.map(|of| of.mean()),
        };
        Some(means.treatment - means.control)
    }

    /// Both arms' units with any event.
    fn arms(&self) -> Pair<Arm> {
        match self {
            Data::Rates(arms) | Data::Means { arms, .. } => *arms,
        }
    }

    /// Whether there is anything to count: units in both arms, and of a mean a value that is not 0.
    fn has_counts(&self) -> bool {
        let Pair { control, treatment } = self.arms();
        let has_units = control.units() > 0 && treatment.units() > 0;
        match self {
            Data::Rates(_) => has_units,
            Data::Means { moments, .. } => {
                let is_zero = |of: Moments| of.mean() == 0.0 && of.variance().unwrap_or_default() == 0.0;
                let no_values = is_zero(moments.control) && is_zero(moments.treatment);
                let no_events = control.conversions() + treatment.conversions() == 0;
                has_units && (no_events || !no_values)
            }
        }
    }

    /// The counts that decide, if they are too few for a normal approximation.
    fn few(&self) -> Option<Few> {
        match self {
            _ if !self.has_counts() => None,
            Data::Rates(arms) => Few::of_rates(*arms),
            Data::Means { arms, .. } => Few::of_means(*arms),
        }
    }

    /// The same at a planned look.
    fn few_at_a_planned_look(&self, treatment_share: f64) -> Option<Few> {
        match self {
            _ if !self.has_counts() => None,
            Data::Rates(arms) => Few::of_rates_at_a_planned_look(*arms, treatment_share),
            Data::Means { arms, .. } => Few::of_means_at_a_planned_look(*arms, treatment_share),
        }
    }
}

/// The smallest always-valid p-value of the looks before: they are one sequence as long as the units, the
/// metric and the control are the same.
fn smallest_so_far(previous: Option<&ExperimentResult>, now: &MetricResult, names: &Names) -> f64 {
    previous
        .into_iter()
        .flat_map(|previous| &previous.metrics)
        .filter(|metric| metric.key == now.key && metric.definition_version == now.definition_version)
        .flat_map(|metric| &metric.always_valid)
        .filter(|look| look.control == names.control && look.treatment == names.treatment)
        .filter_map(|look| look.p_value)
        .fold(1.0, f64::min)
}

/// The planned units of both arms together, or the default.
fn tuned_for_units(experiment: &Experiment, pair: Pair<&Counted<'_>>) -> f64 {
    let Some(horizon) = experiment.plan.horizon_units else {
        return DEFAULT_TUNING_UNITS;
    };
    let Pair { control, treatment } = planned_units(experiment, pair, horizon);
    let planned = control + treatment;
    if planned > 0.0 { planned } else { DEFAULT_TUNING_UNITS }
}

/// Each arm's part of a planned total.
fn planned_units(experiment: &Experiment, pair: Pair<&Counted<'_>>, horizon: u64) -> Pair<f64> {
    let all: f64 = experiment.variants.iter().map(|variant| f64::from(variant.weight.get())).sum();
    pair.map(|arm| horizon as f64 * f64::from(arm.variant.weight.get()) / all)
}

/// Of both arms' units, as planned: it does not depend on what came.
fn share_of_treatment(pair: Pair<&Counted<'_>>) -> f64 {
    let weights = pair.map(|arm| f64::from(arm.variant.weight.get()));
    weights.treatment / (weights.control + weights.treatment)
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

/// What is missing, with the variants' names in place of "control arm" and "treatment arm".
fn named(missing: Missing, names: &Names) -> String {
    let sentence = missing.to_string();
    sentence
        .replace("the control arm", &format!("`{}`", names.control))
        .replace("the treatment arm", &format!("`{}`", names.treatment))
}

impl From<Interval> for Bounds {
    fn from(interval: Interval) -> Bounds {
        let finite = |end: f64| end.is_finite().then_some(end);
        Bounds { lower: finite(interval.lower), upper: finite(interval.upper) }
    }
}

impl Bounds {
    fn divided_by(self, by: f64) -> Bounds {
        Bounds { lower: self.lower.map(|end| end / by), upper: self.upper.map(|end| end / by) }
    }
}
