//! The document: what the platform says about an experiment. The command line, the HTTP API and the page
//! all show this one; numbers that are not defined are null, and a `missing` beside them says why.

use schemas::definition::{Direction, MetricType, State, Version};
use schemas::{Micros, Uuid};
use serde::{Deserialize, Serialize};

use crate::cut::Cut;

mod bounds;
mod earlier;
mod forms;

pub use bounds::Bounds;
pub use earlier::{ShownBefore, ShownBy, Side};
pub use forms::{FIRST_FORM, MetricKeys, Unreadable};

/// The form of the documents that this build writes and reads.
pub const DOCUMENT_VERSION: u32 = 2;

/// What is published, with one entry for each experiment asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub experiments: Vec<ExperimentResult>,
}

/// One analysis of one experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentResult {
    /// Of the document's form, [`DOCUMENT_VERSION`]. One of another form is not read.
    pub document_version: u32,
    pub key: String,
    pub state: State,
    pub phase: u32,
    /// Looks that the log of looks holds of this experiment.
    #[serde(default)]
    pub looks_recorded: u32,
    pub definition_version: Version,
    pub hypothesis: String,
    /// RFC 3339; events made later are left out.
    pub as_of: String,
    pub computed_at: String,
    pub analysis_id: Uuid,
    pub cut: Cut,
    /// Planned total of units; null where no horizon is planned.
    pub horizon_units: Option<u64>,
    /// By the primary metric, in the order of the definition.
    pub variants: Vec<VariantResult>,
    /// Why the numbers are to be read with care; what forbids reading them is a verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Exposed to more than one variant; counted in the first.
    pub units_in_several_variants: u64,
    /// RFC 3339: when the first of the exposures counted here will be dropped from the table; null if never. From then
    /// on this document stays as it is.
    pub complete_until: Option<Micros>,
    /// Ever forced into a variant: they count in nothing.
    pub units_forced: u64,
    /// Of them: those whose first exposure was not forced, so that they had counted until then.
    #[serde(default)]
    pub units_forced_later: u64,
    /// First exposed in a phase that is left out.
    pub units_left_out: u64,
    /// First exposed in a phase that the definition does not have as far as it is mirrored; not counted until it has.
    pub units_of_unknown_phases: u64,
    /// First exposed to a variant that the definition does not have; not counted.
    pub units_of_unknown_variants: u64,
    /// Events of this experiment that carry a time after `as_of`, left out for now.
    pub events_after_as_of: u64,
    /// When the first of them has its time; none without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event_after_as_of: Option<Micros>,
    pub metrics: Vec<MetricResult>,
    /// Of the primary metric; the first of `tests`.
    pub test: Option<Test>,
    /// Of the primary metric: the control against each treatment.
    pub tests: Vec<Test>,
    /// Of the primary metric and the first treatment.
    pub always_valid: Option<AlwaysValidResult>,
    pub srm: SampleRatio,
    pub decision: Decision,
    pub sql: Vec<CountingQuery>,
}

/// Something that the reader of the numbers must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub kind: WarningKind,
    /// For people.
    pub text: String,
    /// Of the counted units, where it is about some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_units: Option<f64>,
    /// Where it is about one metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// More units than accidents explain were exposed to more than one variant.
    UnitsInSeveralVariants,
    /// A guardrail without a number shows neither harm nor safety, and nothing ships beside it.
    GuardrailWithoutData,
    /// An effect was shown for the better while phases counted that are left out now.
    VerdictRestedOnPhasesLeftOut,
    /// Harm was shown while phases counted that are left out now.
    HarmShownWithPhasesLeftOut,
    /// The first exposures are dropped from the table within four weeks.
    ExposuresExpire,
    /// They have begun to be dropped: nothing is counted any more.
    Frozen,
    /// The experiment cannot be analyzed, and the document is an earlier one.
    Stale,
    /// Units that had counted were forced into a variant later, and count no more.
    UnitsForcedLater,
}

/// One variant by one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantResult {
    pub key: String,
    pub control: bool,
    /// Share of the units that it was planned to get, in basis points.
    pub weight: u32,
    pub units: u64,
    /// Units with at least one event.
    pub conversions: u64,
    /// conversions / units; null without units.
    pub rate: Option<f64>,
    /// What the metric compares: the rate, or the mean per unit.
    pub mean: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    Secondary,
    Guardrail,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricResult {
    pub key: String,
    pub role: Role,
    /// Null with the rest if the metric is not defined.
    #[serde(rename = "type")]
    pub metric_type: Option<MetricType>,
    pub definition_version: Option<Version>,
    pub event: Option<String>,
    pub window_hours: Option<u32>,
    pub direction: Direction,
    /// Why this metric is not computed at all.
    pub missing: Option<String>,
    pub variants: Vec<VariantResult>,
    /// The control against each treatment.
    pub tests: Vec<Test>,
    pub always_valid: Vec<AlwaysValidResult>,
    /// Of the primary metric, where the plan names a horizon; each then decides in place of the always-valid
    /// interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<Boundary>,
    /// What earlier looks showed by phases that are left out now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown_before: Vec<ShownBefore>,
}

/// What the p-value of a [`Test`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestMethod {
    /// Two proportions, pooled variance.
    TwoProportionZ,
    /// Two proportions, where an expected count is below 5; `z` is still the pooled one.
    FisherExact,
    /// Two means, unequal variances.
    WelchT,
}

/// A fixed-horizon test: right if read once, at a planned end. Treatment minus control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    pub metric: String,
    pub control: String,
    pub treatment: String,
    pub method: TestMethod,
    pub z: Option<f64>,
    pub t: Option<f64>,
    pub degrees_of_freedom: Option<f64>,
    /// Two-sided.
    pub p_value: Option<f64>,
    /// What the p-value may be used for.
    pub p_value_use: String,
    /// Of the intervals: 1 - alpha.
    pub confidence: f64,
    pub lift_absolute: Option<f64>,
    pub interval_absolute: Option<Bounds>,
    /// treatment / control - 1.
    pub lift_relative: Option<f64>,
    pub interval_relative: Option<Bounds>,
    /// `fieller` or `log_ratio`.
    pub interval_relative_method: Option<String>,
    /// Where units came in phases with different splits: the numbers above are taken inside the splits and added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub across_phases: Option<AcrossPhases>,
    pub missing: Option<String>,
}

/// What the splits say beside what they say together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcrossPhases {
    /// With units in both arms.
    pub splits: u64,
    /// The effect weighted by the units that came: what they saw on the whole. For display; no test rests on it.
    pub lift_by_units: f64,
    /// Of "the effect is the same in all splits"; null where they cannot be compared. Read once, not at every look.
    pub heterogeneity_p_value: Option<f64>,
}

/// What holds however often one looks: an asymptotic confidence sequence. Treatment minus control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlwaysValidResult {
    pub metric: String,
    pub control: String,
    pub treatment: String,
    /// The plan's alpha, divided by the number of treatments.
    pub alpha: f64,
    /// Total units of both arms at which the interval is narrowest; fixed for the experiment's life.
    pub tuned_for_units: f64,
    pub lift_absolute: Option<f64>,
    /// The smallest of all looks so far.
    pub p_value: Option<f64>,
    /// For secondary metrics: `p_value` adjusted for all of them and their treatments (Benjamini-Hochberg).
    #[serde(default)]
    pub p_value_adjusted: Option<f64>,
    /// Of this look.
    pub p_value_now: Option<f64>,
    pub log_e_value: Option<f64>,
    pub interval_absolute: Option<Bounds>,
    /// The interval divided by the control's mean as observed: for reading, not exact.
    pub interval_relative_to_control: Option<Bounds>,
    /// Whether no effect lies in the interval; without one, in that of `exact`.
    pub includes_zero: Option<bool>,
    /// For guardrails: the one-sided p-value, at this look, of "it got worse".
    pub harm_p_value: Option<f64>,
    /// What decides in place of the interval while an arm has too few conversions for one; `missing` then says which
    /// arm. The p-values and the e-value of this look are then its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactTest>,
    pub missing: Option<String>,
}

/// A test of counts alone, exact at any counts: it stands where an arm has too few conversions for a normal
/// approximation. Treatment against control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExactTest {
    pub method: ExactMethod,
    pub counted: CountedUnits,
    pub control: u64,
    pub treatment: u64,
    /// From so many in each arm on a normal approximation may do; a planned look waits until four times as many are
    /// expected.
    pub needed: u64,
    /// Two-sided, of this look.
    pub p_value: f64,
    /// Whether an effect is shown by this look.
    pub rejects: bool,
    /// Of the counted units' rates, treatment over control (of their odds for Fisher's test); a null end is infinite.
    /// Leaves 1 out exactly where the look rejects.
    pub ratio: Bounds,
    /// At a planned look: so few of both arms' counted units under the treatment cross; null where none are few enough.
    #[serde(default)]
    pub at_most: Option<u64>,
    /// So many cross; null where none are many enough.
    #[serde(default)]
    pub at_least: Option<u64>,
}

/// Which exact test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExactMethod {
    /// Always-valid, of the treatment's share of the counted units (Lindon & Malek).
    ConversionCounts,
    /// The same share at planned looks, which together spend what the boundary may.
    CountBoundary,
    /// Fisher's, at the one planned look, each side at half of alpha.
    FisherExact,
}

/// Which units an exact test counts: the rarer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedUnits {
    /// With at least one event.
    Converted,
    /// Without any.
    NotConverted,
}

/// Which test a plan with a horizon decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundaryMethod {
    /// Looks on the way, by Lan-DeMets spending of O'Brien-Fleming's kind.
    GroupSequential,
    /// One look, when the planned units are there.
    FixedHorizon,
}

/// Where an analysis stands in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundaryStage {
    BeforeFirstLook,
    Interim,
    /// The look that spent all of alpha.
    Final,
    /// Units came after the final look: estimates go on, nothing is decided by them.
    PastEnd,
    /// Looks at units that are counted no more left nothing of alpha: estimates only, no look is taken.
    AlphaSpent,
}

/// A test with planned units and the looks it has taken, as the log of looks has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boundary {
    pub metric: String,
    pub control: String,
    pub treatment: String,
    pub method: BoundaryMethod,
    /// What earlier looks left of the plan's alpha, divided by the number of treatments.
    pub alpha: f64,
    /// Spent, by all treatments together, on looks at units that are counted no more: before the weights, the
    /// control or what the metric counts were changed.
    #[serde(default)]
    pub alpha_spent_before: f64,
    pub planned_units_control: u64,
    pub planned_units_treatment: u64,
    /// Share of the planned information that both arms hold now; a look is taken at some of these only.
    pub fraction: f64,
    pub stage: BoundaryStage,
    pub looks: Vec<BoundaryLook>,
    /// The first look that crossed; later ones do not take it back.
    pub crossed_at_look: Option<u32>,
    /// The first look that crossed while phases counted that are left out now: what was decided then rested on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossed_with_phases_left_out: Option<u32>,
    /// Once it has crossed or ended by a look at z.
    pub after_stopping: Option<AfterStopping>,
    /// Why no look could be taken now.
    pub missing: Option<String>,
}

/// One look, as it was taken. Treatment minus control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundaryLook {
    /// From 1.
    pub look: u32,
    pub units_control: u64,
    pub units_treatment: u64,
    /// Share of the planned information.
    pub fraction: f64,
    pub is_final: bool,
    /// |z| from here on crosses; null where too little may be spent for any bound, or where `exact` decided.
    pub critical_value: Option<f64>,
    /// Up to and with this look.
    pub alpha_spent: f64,
    pub z: f64,
    pub crossed: bool,
    pub lift_absolute: f64,
    pub standard_error: f64,
    pub lift_relative: Option<f64>,
    /// The repeated interval: those of all looks hold at once.
    pub interval_absolute: Bounds,
    /// The interval divided by the control's mean as observed: for reading, not exact.
    pub interval_relative_to_control: Option<Bounds>,
    /// What decided this look in place of z, for an arm had too few conversions; the interval of the difference is then
    /// open on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactTest>,
}

/// The estimate that allows for the stopping, by stage-wise ordering. Treatment minus control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AfterStopping {
    /// The first that crossed, else the final one.
    pub look: u32,
    pub p_value: f64,
    /// Median-unbiased.
    pub lift_absolute: f64,
    pub interval_absolute: Bounds,
}

/// Whether the variants have the shares of units that were planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRatio {
    /// Whether a phase that counts is in alarm; null while there are no units.
    pub alarm: Option<bool>,
    /// In order; each with a test of its own, all of them together at 1 %.
    pub phases: Vec<PhaseRatio>,
    /// A reference for readers, right if read once; it decides nothing.
    pub chi_square: Option<f64>,
    pub degrees_of_freedom: Option<u64>,
    pub p_value: Option<f64>,
    pub variants: Vec<Expectation>,
    pub missing: Option<String>,
}

/// The sample ratio of one phase, by a test that may be looked at after every unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseRatio {
    pub phase: u32,
    /// Of the j-th phase 0.01 * 2^-j.
    pub level: f64,
    /// Of this look, and valid however often one looks.
    pub p_value: Option<f64>,
    /// Whether it has ever reached the level. An alarm stays.
    pub alarm: bool,
    /// Its units count in nothing: the owner has left it out, or it ended in alarm.
    pub left_out: bool,
    /// Why its owner has left it out; null where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_reason: Option<String>,
    /// First exposed in it.
    pub units: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    pub key: String,
    pub units: u64,
    pub expected: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The numbers cannot be trusted, so nothing follows from them.
    Invalid,
    /// A guardrail got worse.
    GuardrailHarmed,
    /// The primary metric, or a guardrail without which nothing ships, is not computed at all.
    NotComputed,
    /// Too early. Not to be read as "no effect".
    NotEnoughData,
    Ship,
    Stop,
    KeepRunning,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    /// One sentence with the numbers it rests on.
    pub reason: String,
    /// What the verdict rests on statistically.
    pub method_used: String,
    /// The treatment that the verdict is about, where it is about one.
    pub treatment: Option<String>,
}

/// A query that counted, as it was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountingQuery {
    pub metric: String,
    pub query: String,
}

impl Verdict {
    pub const ALL: [Verdict; 7] = [
        Verdict::Invalid,
        Verdict::GuardrailHarmed,
        Verdict::NotComputed,
        Verdict::NotEnoughData,
        Verdict::Ship,
        Verdict::Stop,
        Verdict::KeepRunning,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Invalid => "invalid",
            Verdict::GuardrailHarmed => "guardrail_harmed",
            Verdict::NotComputed => "not_computed",
            Verdict::NotEnoughData => "not_enough_data",
            Verdict::Ship => "ship",
            Verdict::Stop => "stop",
            Verdict::KeepRunning => "keep_running",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Verdict::Invalid => "Invalid",
            Verdict::GuardrailHarmed => "Guardrail harmed",
            Verdict::NotComputed => "Not computed",
            Verdict::NotEnoughData => "Not enough data",
            Verdict::Ship => "Ship",
            Verdict::Stop => "Stop",
            Verdict::KeepRunning => "Keep running",
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
            Role::Guardrail => "guardrail",
        }
    }
}

impl TestMethod {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            TestMethod::TwoProportionZ => "two-proportion z, pooled",
            TestMethod::FisherExact => "Fisher's exact",
            TestMethod::WelchT => "Welch's t",
        }
    }
}

impl ExactTest {
    /// Whether an arm has fewer than the normal approximation needs.
    pub fn is_below_the_gate(&self) -> bool {
        self.control.min(self.treatment) < self.needed
    }
}

impl Boundary {
    /// The look that settled the test: the first that crossed, else the final one, else none yet.
    pub fn settled(&self) -> Option<&BoundaryLook> {
        let crossed = self.looks.iter().find(|look| look.crossed);
        crossed.or_else(|| self.looks.last().filter(|look| look.is_final))
    }

    pub fn has_ended(&self) -> bool {
        self.looks.last().is_some_and(|look| look.is_final)
    }
}

impl ExperimentResult {
    pub fn primary(&self) -> Option<&MetricResult> {
        self.metrics.iter().find(|metric| metric.role == Role::Primary)
    }
}

impl MetricResult {
    /// Whether the means are shares of units.
    pub fn is_rate(&self) -> bool {
        self.metric_type == Some(MetricType::Conversion)
    }
}
