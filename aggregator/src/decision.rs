//! From numbers to a verdict, by ordered rules: the first that applies decides, and its reason is one sentence
//! with the numbers. If the plan has a boundary ([`PlannedTest::of`]), it decides on the primary metric at the
//! looks taken; otherwise everything rests on the always-valid interval, which holds at any number of looks.

use schemas::definition::{Direction, Experiment, Method, Plan};

use crate::document::{
    AlwaysValidResult, BoundaryMethod, Bounds, Decision, MetricResult, Role, SampleRatio, Test, Verdict,
};
use crate::metric_analysis::boundary::PlannedTest;
use lab::format;

mod boundary;
mod exact;
mod guardrails;
mod left_out;
mod trust;

pub use boundary::progress;
pub use exact::described;
pub use guardrails::margin;
pub use trust::{ExposedToSeveral, Mismatched, forced_later, warnings};

/// A p-value below this reads as significant to most people, so the reason explains why it does not count.
const LOOKS_SIGNIFICANT: f64 = 0.05;

/// The input of a verdict.
pub struct Evidence<'a> {
    pub experiment: &'a Experiment,
    pub srm: &'a SampleRatio,
    pub exposed: ExposedToSeveral,
    pub mismatched: Mismatched,
    /// All metrics, the primary one among them.
    pub metrics: &'a [MetricResult],
}

/// Returns the verdict of the first rule that applies. Its reason begins with what must be known before any
/// number, and ends with what the numbers leave open.
pub fn decide(evidence: &Evidence<'_>) -> Decision {
    let method_used = method_used(evidence);
    let ruling = trust::invalid(evidence)
        .or_else(|| guardrail_harmed(evidence))
        .or_else(|| not_computed(evidence))
        .unwrap_or_else(|| {
            let ruling = left_out::held_back(evidence, by_the_primary_metric(evidence));
            guardrails::held_back(evidence, ruling)
        });
    let Ruling { verdict, treatment, reason } = ruling;
    let reason = trust::with_warnings(evidence, verdict, reason);
    Decision { verdict, reason, method_used, treatment }
}

/// The result of a rule.
struct Ruling {
    verdict: Verdict,
    /// The variant that the verdict is about, if it is about one.
    treatment: Option<String>,
    reason: String,
}

impl Ruling {
    fn about(treatment: &str, verdict: Verdict, reason: String) -> Ruling {
        Ruling { verdict, treatment: Some(treatment.to_owned()), reason }
    }

    fn of_the_whole(verdict: Verdict, reason: String) -> Ruling {
        Ruling { verdict, treatment: None, reason }
    }
}

fn guardrail_harmed(evidence: &Evidence<'_>) -> Option<Ruling> {
    let guardrails = evidence.metrics.iter().filter(|metric| metric.role == Role::Guardrail);
    for metric in guardrails {
        for (look, test) in metric.always_valid.iter().zip(&metric.tests) {
            let Some(p) = look.harm_p_value.filter(|p| *p <= look.alpha) else {
                continue;
            };
            let by = look.exact.map_or(String::new(), |exact| format!("{}, ", exact::counts_tested(&exact)));
            let more_than = metric.margin.map_or(String::new(), |margin| {
                format!(" by more than the margin of {}", format::percent(margin))
            });
            let reason = format!(
                "The guardrail `{}` got worse under `{}`{more_than}: {} ({by}always-valid {}), so the treatment should not \
                 go on whatever the primary metric says.",
                metric.key,
                look.treatment,
                levels(metric, test),
                format::p_value(p)
            );
            return Some(Ruling::about(&look.treatment, Verdict::GuardrailHarmed, reason));
        }
    }
    None
}

fn not_computed(evidence: &Evidence<'_>) -> Option<Ruling> {
    let key = evidence.experiment.metrics.primary.as_str();
    let why = match primary(evidence) {
        None => "it was not analyzed".to_owned(),
        Some(metric) => match &metric.missing {
            Some(missing) => missing.clone(),
            None => no_horizon(&evidence.experiment.plan)?,
        },
    };
    if primary(evidence).is_some_and(MetricResult::waits_for_its_cap) {
        let reason = format!("Not enough data on `{key}`: {why}.");
        return Some(Ruling::of_the_whole(Verdict::NotEnoughData, reason));
    }
    let reason = format!("There is no verdict on the primary metric `{key}`: {why}.");
    Some(Ruling::of_the_whole(Verdict::NotComputed, reason))
}

/// Returns the reason if the plan cannot be followed. No other rule then decides in its place.
fn no_horizon(plan: &Plan) -> Option<String> {
    let what = match plan.method {
        Method::GroupSequential => "a group sequential test",
        Method::FixedHorizon => "one test at the horizon",
        Method::Auto | Method::AlwaysValid => return None,
    };
    plan.horizon_units.is_none().then(|| format!("the plan asks for {what} and names no horizon"))
}

fn primary<'a>(evidence: &Evidence<'a>) -> Option<&'a MetricResult> {
    evidence.metrics.iter().find(|metric| metric.role == Role::Primary)
}

/// The finding of one treatment's interval; the order is that of importance to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum IntervalFinding {
    Better,
    /// A worthwhile effect can no longer be expected, though no harm is shown.
    NotWorthwhile,
    Worse,
    Open,
    TooEarly,
}

fn by_the_primary_metric(evidence: &Evidence<'_>) -> Ruling {
    let Some(metric) = primary(evidence) else {
        unreachable!("without a primary metric nothing is computed, and that rule came before");
    };
    let plan = &evidence.experiment.plan;
    if !metric.boundaries.is_empty() {
        return boundary::rule(plan, metric);
    }
    let findings: Vec<(IntervalFinding, &AlwaysValidResult, &Test)> = metric
        .always_valid
        .iter()
        .zip(&metric.tests)
        .map(|(look, test)| (finding(plan, metric, look, test), look, test))
        .collect();
    let best = |finding: IntervalFinding| {
        findings
            .iter()
            .filter(|(found, ..)| *found == finding)
            .max_by(|(_, a, _), (_, b, _)| gain(metric.direction, a).total_cmp(&gain(metric.direction, b)))
            .map(|(_, look, test)| (*look, *test))
    };
    if let Some((look, test)) = best(IntervalFinding::Better) {
        return ship(metric, look, test);
    }
    if let Some((look, test)) = best(IntervalFinding::Open) {
        return keep_running(evidence.experiment, metric, look, test);
    }
    if let Some((look, _)) = best(IntervalFinding::TooEarly) {
        return not_enough_data(look);
    }
    if let Some((look, test)) = best(IntervalFinding::NotWorthwhile) {
        return not_worthwhile(plan, metric, look, test);
    }
    if let Some((look, test)) = best(IntervalFinding::Worse) {
        return worse(metric, look, test);
    }
    let reason = "Not enough data: no treatment gets any units now.".to_owned();
    Ruling::of_the_whole(Verdict::NotEnoughData, reason)
}

fn finding(plan: &Plan, metric: &MetricResult, look: &AlwaysValidResult, test: &Test) -> IntervalFinding {
    let direction = metric.direction;
    if let Some(exact) = &look.exact {
        return exact::finding(plan, metric, look, test, exact);
    }
    let Some(interval) = look.interval_absolute else {
        return IntervalFinding::TooEarly;
    };
    let toward_better = interval.toward_better(direction);
    let hoped =
        look.interval_relative_to_control.and_then(|interval| interval.toward_better(direction).upper);
    let worthwhile = smallest_worthwhile(plan);
    if toward_better.upper.is_some_and(|upper| upper < 0.0) {
        return IntervalFinding::Worse;
    }
    if let (Some((smallest, _)), Some(hoped)) = (worthwhile, hoped)
        && hoped < smallest
    {
        return IntervalFinding::NotWorthwhile;
    }
    if !toward_better.lower.is_some_and(|lower| lower > 0.0) {
        return IntervalFinding::Open;
    }
    // Significance alone does not ship: the effect must also be worth it.
    let lift = test.lift_relative.map(|lift| toward(direction, lift));
    match (plan.practical_lift_relative, lift) {
        (Some(practical), Some(lift)) if lift < practical => IntervalFinding::Open,
        (Some(_), None) => IntervalFinding::Open,
        _ => IntervalFinding::Better,
    }
}

/// Returns the smallest relative effect that makes the treatment worthwhile, and its name.
fn smallest_worthwhile(plan: &Plan) -> Option<(f64, &'static str)> {
    let practical = plan.practical_lift_relative.filter(|lift| *lift > 0.0);
    practical
        .map(|lift| (lift, "smallest effect worth shipping"))
        .or_else(|| plan.mde_relative.map(|effect| (effect, "smallest effect worth finding")))
}

fn ship(metric: &MetricResult, look: &AlwaysValidResult, test: &Test) -> Ruling {
    let reason = match &look.exact {
        None => format!(
            "Ship `{}`: {}, and the always-valid interval lies wholly on the better side of zero ({}).",
            look.treatment,
            levels(metric, test),
            interval(metric, look)
        ),
        Some(exact) => format!(
            "Ship `{}`: {}, by the {}.",
            look.treatment,
            levels(metric, test),
            exact::shown_by(look, exact)
        ),
    };
    Ruling::about(&look.treatment, Verdict::Ship, reason)
}

fn worse(metric: &MetricResult, look: &AlwaysValidResult, test: &Test) -> Ruling {
    let reason = match &look.exact {
        None => format!(
            "Stop: `{}` does harm: {}, and the always-valid interval lies wholly on the worse side of zero ({}).",
            look.treatment,
            levels(metric, test),
            interval(metric, look)
        ),
        Some(exact) => format!(
            "Stop: `{}` does harm: {}, by the {}.",
            look.treatment,
            levels(metric, test),
            exact::shown_by(look, exact)
        ),
    };
    Ruling::about(&look.treatment, Verdict::Stop, reason)
}

fn not_worthwhile(plan: &Plan, metric: &MetricResult, look: &AlwaysValidResult, test: &Test) -> Ruling {
    let (smallest, what) = smallest_worthwhile(plan).unwrap_or((0.0, "smallest effect worth finding"));
    let reason = format!(
        "Stop: even the best end of the always-valid interval ({}) is below the {what}, {}, with {}.",
        interval(metric, look),
        format::signed_percent(toward(metric.direction, smallest)),
        levels(metric, test)
    );
    Ruling::about(&look.treatment, Verdict::Stop, reason)
}

fn not_enough_data(look: &AlwaysValidResult) -> Ruling {
    let lacking = look.missing.as_deref().unwrap_or("nothing has been counted");
    let lacking = match &look.exact {
        None => lacking.to_owned(),
        Some(exact) => format!("{lacking}, and the {} shows no effect yet", exact::named_with_p(exact)),
    };
    let reason = format!(
        "Not enough data on `{}`: {lacking}; whether `{}` has an effect is open.",
        look.metric, look.treatment
    );
    Ruling::of_the_whole(Verdict::NotEnoughData, reason)
}

fn keep_running(
    experiment: &Experiment,
    metric: &MetricResult,
    look: &AlwaysValidResult,
    test: &Test,
) -> Ruling {
    let levels = levels(metric, test);
    let interval = interval(metric, look);
    let significant_looking = test.p_value.filter(|p| *p < LOOKS_SIGNIFICANT);
    let reason = if look.includes_zero == Some(false) {
        let practical = experiment.plan.practical_lift_relative.unwrap_or(0.0);
        format!(
            "Keep running: the effect of `{}` is real ({levels}; always-valid interval {interval}), but not yet \
             as large as the smallest one worth shipping, {}.",
            look.treatment,
            format::signed_percent(toward(metric.direction, practical))
        )
    } else if let Some(p) = significant_looking {
        let acted = match test.lift_relative.map(|lift| toward(metric.direction, lift)) {
            Some(lift) if lift < 0.0 => "stopped",
            _ => "shipped",
        };
        let unprotected = match experiment.plan.horizon_units {
            None => {
                "no horizon was planned, and a p-value that is read repeatedly falls below 0.05 by chance far too often"
            }
            Some(_) => "a p-value counts only if it is read once, at the planned horizon",
        };
        format!(
            "Keep running: `{}` has {levels} and {}, and is not {acted}: {unprotected}; the always-valid interval, \
             which holds however often one looks, still includes zero ({interval}).",
            look.treatment,
            format::p_value(p)
        )
    } else {
        format!(
            "Keep running: {levels} under `{}`, and the always-valid interval still includes zero ({interval}), \
             so an effect is neither shown nor ruled out.",
            look.treatment
        )
    };
    Ruling::about(&look.treatment, Verdict::KeepRunning, reason)
}

/// Formats both arms' levels and the lift: "0.69 % against 0.46 % (+50.0 %)".
fn levels(metric: &MetricResult, test: &Test) -> String {
    let level = |key: &str| {
        let variant = metric.variants.iter().find(|variant| variant.key == key);
        variant.and_then(|variant| variant.mean).map_or("nothing".to_owned(), |mean| {
            if metric.is_rate() { format::rate(mean) } else { format::mean(mean) }
        })
    };
    let lift =
        test.lift_relative.map_or(String::new(), |lift| format!(" ({})", format::signed_percent(lift)));
    format!("{} against {}{lift}", level(&test.treatment), level(&test.control))
}

/// Formats the always-valid interval of the absolute lift: "-0.17 to +0.63 percentage points"; without one,
/// that of the counts.
fn interval(metric: &MetricResult, look: &AlwaysValidResult) -> String {
    if let Some(exact) = &look.exact {
        return exact::ratio(exact, &look.control, &look.treatment);
    }
    look.interval_absolute.map_or("not known yet".to_owned(), |interval| bounds(metric, interval))
}

fn bounds(metric: &MetricResult, interval: Bounds) -> String {
    let end = |end: Option<f64>| match end {
        None => "unbounded".to_owned(),
        Some(end) => lift(metric, end),
    };
    if interval.lower.is_none() && interval.upper.is_none() {
        return "the interval has no ends".to_owned();
    }
    let unit = if metric.is_rate() { " percentage points" } else { " per unit" };
    format!("{} to {}{unit}", end(interval.lower), end(interval.upper))
}

/// Formats an absolute lift without its unit.
fn lift(metric: &MetricResult, lift: f64) -> String {
    if metric.is_rate() {
        format!("{:+.2}", lift * 100.0)
    } else {
        format!("{}{}", if lift < 0.0 { "" } else { "+" }, format::mean(lift))
    }
}

fn method_used(evidence: &Evidence<'_>) -> String {
    let experiment = evidence.experiment;
    let planned = PlannedTest::of(&experiment.plan).map(|test| test.method);
    let used = match planned {
        None => "always-valid interval (asymptotic confidence sequence)",
        Some(BoundaryMethod::GroupSequential) => {
            "group sequential test (Lan-DeMets spending, O'Brien-Fleming) up to the planned horizon"
        }
        Some(BoundaryMethod::FixedHorizon) => "one test at the planned horizon",
    };
    let treatments = experiment
        .variants
        .iter()
        .filter(|variant| variant.key != experiment.control && variant.weight.get() > 0)
        .count();
    let shared = match treatments {
        0 | 1 => String::new(),
        several => format!(", alpha shared among {several} treatments"),
    };
    let guardrails = if planned.is_some() && !experiment.metrics.guardrails.is_empty() {
        "; guardrails by always-valid p-values"
    } else {
        ""
    };
    let secondary = if experiment.metrics.secondary.is_empty() {
        ""
    } else {
        "; secondary metrics, which decide nothing, by always-valid p-values adjusted for their number"
    };
    let exact = if evidence.metrics.iter().any(exact::decides) {
        "; where an arm has too few conversions, by exact tests of their counts"
    } else {
        ""
    };
    format!("{used}{shared}{guardrails}{secondary}{exact}")
}

/// Returns how good the lift looks, for choosing among treatments.
fn gain(direction: Direction, look: &AlwaysValidResult) -> f64 {
    look.lift_absolute.map_or(f64::NEG_INFINITY, |lift| toward(direction, lift))
}

/// Returns the number, mirrored where less is better, so that above zero is always better.
fn toward(direction: Direction, number: f64) -> f64 {
    match direction {
        Direction::Increase => number,
        Direction::Decrease => -number,
    }
}
