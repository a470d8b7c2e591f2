//! The document: the published result of an experiment. The command line, the HTTP API and the page all show
//! the same document; numbers that are not defined are null, and a `missing` next to them gives the reason.

use schemas::definition::{Direction, MetricType, State, Version};
use schemas::{Micros, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cut::Cut;

mod boundary;
mod bounds;
mod cap;
mod earlier;
mod facts;
mod forms;
mod margin;

pub use boundary::{AfterStopping, Boundary, BoundaryLook, BoundaryMethod, BoundaryStage, FinalLookDue};
pub use bounds::Bounds;
pub use cap::Cap;
pub use earlier::{ShownBefore, ShownBy, Side};
pub use forms::{FIRST_FORM, MetricKeys, Unreadable};
pub use margin::Margin;

/// The form of the documents that this build writes and reads.
pub const DOCUMENT_VERSION: u32 = 2;

/// The published results, with one entry for each experiment requested.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub experiments: Vec<ExperimentResult>,
}

/// One analysis of one experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentResult {
    /// The document's form, [`DOCUMENT_VERSION`]. A document of another form is not read.
    pub document_version: u32,
    pub key: String,
    pub state: State,
    pub phase: u32,
    /// The number of looks at this experiment in the log of looks.
    #[serde(default)]
    pub looks_recorded: u32,
    pub definition_version: Version,
    pub hypothesis: String,
    /// RFC 3339; events created later are left out.
    pub as_of: String,
    pub computed_at: String,
    pub analysis_id: Uuid,
    pub cut: Cut,
    /// Planned total of units; null where no horizon is planned.
    pub horizon_units: Option<u64>,
    /// Results of the primary metric, in the order of the definition.
    pub variants: Vec<VariantResult>,
    /// Reasons to read the numbers with care; a reason not to read them at all is a verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Units exposed to more than one variant; they count in the first.
    pub units_in_several_variants: u64,
    /// RFC 3339: when the first of the counted exposures will be dropped from the table; null if never. From
    /// then on this document does not change.
    pub complete_until: Option<Micros>,
    /// Units ever forced into a variant; they are not counted.
    pub units_forced: u64,
    /// The units of `units_forced` whose first exposure was not forced, so that they had counted until then.
    #[serde(default)]
    pub units_forced_later: u64,
    /// Units first exposed in a phase that is left out.
    pub units_left_out: u64,
    /// Units first exposed in a phase that the mirrored definition does not have yet; they count once it has.
    pub units_of_unknown_phases: u64,
    /// Units first exposed to a variant that the definition does not have; not counted.
    pub units_of_unknown_variants: u64,
    /// Events of this experiment that carry a time after `as_of`, left out for now.
    pub events_after_as_of: u64,
    /// When the first of them reaches its time; none without such events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_event_after_as_of: Option<Micros>,
    pub metrics: Vec<MetricResult>,
    /// The test of the primary metric; the first of `tests`.
    pub test: Option<Test>,
    /// The tests of the primary metric: the control against each treatment.
    pub tests: Vec<Test>,
    /// The always-valid result of the primary metric and the first treatment.
    pub always_valid: Option<AlwaysValidResult>,
    pub srm: SampleRatio,
    /// Whether the exposures agree with the configuration that they name, by phase.
    #[serde(default)]
    pub verification: Vec<PhaseVerification>,
    pub decision: Decision,
    pub sql: Vec<CountingQuery>,
}

/// A warning that the reader of the numbers needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub kind: WarningKind,
    /// The text for people.
    pub text: String,
    /// Share of the counted units, if the warning is about some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_units: Option<f64>,
    /// The metric, if the warning is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// More units than accidents explain were exposed to more than one variant.
    UnitsInSeveralVariants,
    /// Exposures do not agree with the configuration that they name.
    ExposuresMismatched,
    /// A guardrail without a number shows neither harm nor safety, and nothing ships with it.
    GuardrailWithoutData,
    /// An effect was shown for the better while phases counted that are left out now.
    VerdictRestedOnPhasesLeftOut,
    /// Harm was shown while phases counted that are left out now.
    HarmShownWithPhasesLeftOut,
    /// The first exposures are dropped from the table within four weeks.
    ExposuresExpire,
    /// The first exposures have begun to be dropped: nothing is counted any more.
    Frozen,
    /// The experiment cannot be analyzed, and the document is an earlier one.
    Stale,
    /// Units that had counted were forced into a variant later, and no longer count.
    UnitsForcedLater,
    /// There is less information than at the last planned look, so that no look is taken.
    InformationFell,
    /// The experiment was stopped before its planned end, and its last look spent all of alpha that was left.
    EarlyFinalLook,
}

/// The numbers of one variant for one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantResult {
    pub key: String,
    pub control: bool,
    /// Planned share of the units, in basis points.
    pub weight: u32,
    /// The units that are compared: those whose window has closed, or all if the metric has none.
    pub units: u64,
    /// Units whose window is open: their values may still change.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub units_open: u64,
    /// Those of them with at least one event so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub conversions_open: u64,
    /// What `mean` is, of them so far. It is compared with nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_open: Option<f64>,
    /// Units with at least one event.
    pub conversions: u64,
    /// For a funnel: the units that went through the first step, the second, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units_by_step: Vec<u64>,
    /// conversions / units; null without units.
    pub rate: Option<f64>,
    /// The value that the metric compares: the rate, or the mean per unit.
    pub mean: Option<f64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// Null, like the other optional fields of the definition, if the metric is not defined.
    #[serde(rename = "type")]
    pub metric_type: Option<MetricType>,
    pub definition_version: Option<Version>,
    pub event: Option<String>,
    pub window_hours: Option<u32>,
    /// The other options of its definition that decide what is measured, as they are written there.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    pub direction: Direction,
    /// The relative harm that this guardrail tolerates; 0.01 is one percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Where values are cut, if that is a quantile of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Cap>,
    /// The reason why this metric is not computed at all.
    pub missing: Option<String>,
    pub variants: Vec<VariantResult>,
    /// The tests of the control against each treatment.
    pub tests: Vec<Test>,
    pub always_valid: Vec<AlwaysValidResult>,
    /// The boundaries of the primary metric, where the plan names a horizon; each then decides in place of the
    /// always-valid interval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<Boundary>,
    /// Effects that earlier looks showed with phases that are left out now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown_before: Vec<ShownBefore>,
}

/// The method of the p-value of a [`Test`].
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
    /// The confidence of the intervals: 1 - alpha.
    pub confidence: f64,
    pub lift_absolute: Option<f64>,
    pub interval_absolute: Option<Bounds>,
    /// treatment / control - 1.
    pub lift_relative: Option<f64>,
    pub interval_relative: Option<Bounds>,
    /// `fieller` or `log_ratio`.
    pub interval_relative_method: Option<String>,
    /// Set where units came in phases with different splits: the numbers above are computed inside the splits
    /// and added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub across_phases: Option<AcrossPhases>,
    /// Set where a covariate from before the exposure adjusts the numbers above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjusted: Option<Adjusted>,
    pub missing: Option<String>,
}

/// What a covariate did to an effect (CUPED).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adjusted {
    /// The share of the effect's variance that the adjustment removed: it saves this share of the units. Slightly below 0
    /// where the covariate says nothing; null where the unadjusted effect has no variance.
    pub variance_reduction: Option<f64>,
    pub lift_absolute_unadjusted: f64,
}

/// Results of the splits in addition to their combined result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcrossPhases {
    /// Splits with units in both arms.
    pub splits: u64,
    /// The effect weighted by the units of each split: the average over the units as they came. For display; no
    /// test rests on it.
    pub lift_by_units: f64,
    /// The p-value of "the effect is the same in all splits"; null where they cannot be compared. Valid if read
    /// once, not at every look.
    pub heterogeneity_p_value: Option<f64>,
}

/// The result that holds at any number of looks: an asymptotic confidence sequence. Treatment minus control.
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
    /// The smallest p-value of all looks so far.
    pub p_value: Option<f64>,
    /// For secondary metrics: `p_value` adjusted for all of them and their treatments (Benjamini-Hochberg).
    #[serde(default)]
    pub p_value_adjusted: Option<f64>,
    /// The p-value of this look.
    pub p_value_now: Option<f64>,
    pub log_e_value: Option<f64>,
    pub interval_absolute: Option<Bounds>,
    /// The interval divided by the control's mean as observed: for reading, not exact.
    pub interval_relative_to_control: Option<Bounds>,
    /// Whether zero is in the interval; without an interval, whether no effect is in that of `exact`.
    pub includes_zero: Option<bool>,
    /// For guardrails: the one-sided p-value of "it got worse" at this look; with a margin, of "it got worse by more than
    /// the margin".
    pub harm_p_value: Option<f64>,
    /// For guardrails with a margin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
    /// The exact test that decides in place of the interval while an arm has too few conversions for one;
    /// `missing` then names the arm. The p-values and the e-value of this look are then those of this test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<ExactTest>,
    pub missing: Option<String>,
}

/// A test of counts alone, exact at any counts. It replaces the normal approximation where an arm has too few
/// conversions for one. Treatment against control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExactTest {
    pub method: ExactMethod,
    pub counted: CountedUnits,
    pub control: u64,
    pub treatment: u64,
    /// From this many counted units in each arm a normal approximation may be used; a planned look waits until
    /// four times as many are expected.
    pub needed: u64,
    /// Two-sided p-value of this look.
    pub p_value: f64,
    /// Whether this look shows an effect.
    pub rejects: bool,
    /// Interval of the ratio of the counted units' rates, treatment over control (of their odds for Fisher's
    /// test); a null end is infinite. It excludes 1 exactly where the look rejects.
    pub ratio: Bounds,
    /// At a planned look: at most this many of both arms' counted units under the treatment cross; null where
    /// no count is small enough.
    #[serde(default)]
    pub at_most: Option<u64>,
    /// At least this many cross; null where no count is large enough.
    #[serde(default)]
    pub at_least: Option<u64>,
}

/// The exact test used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExactMethod {
    /// An always-valid test of the treatment's share of the counted units (Lindon & Malek).
    ConversionCounts,
    /// A test of the same share at planned looks, which together spend what the boundary may.
    CountBoundary,
    /// Fisher's test, at the one planned look, each side at half of alpha.
    FisherExact,
}

/// The units that an exact test counts: the rarer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedUnits {
    /// Units with at least one event.
    Converted,
    /// Units without any event.
    NotConverted,
}

/// Whether the variants have the shares of units that were planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRatio {
    /// Whether a phase that counts is in alarm; null while there are no units.
    pub alarm: Option<bool>,
    /// The phases in order; each has a test of its own, all of them together at 1 %.
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
    /// The level of the test: 0.01 * 2^-j for the j-th phase.
    pub level: f64,
    /// The p-value of this look, valid at any number of looks.
    pub p_value: Option<f64>,
    /// Whether the p-value has ever reached the level. An alarm stays.
    pub alarm: bool,
    /// Whether its units are not counted: the owner has left it out, or it ended in alarm.
    pub left_out: bool,
    /// The owner's reason for leaving it out; null if the owner has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_reason: Option<String>,
    /// Units first exposed in this phase.
    pub units: u64,
}

/// The exposures of the units first exposed in one phase, as the consumer has marked them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseVerification {
    pub phase: u32,
    pub exposures: u64,
    /// Those that say something else than the configuration that they name gives their unit.
    pub exposures_mismatched: u64,
    /// Units that are counted or forced.
    pub units: u64,
    /// Those whose first exposure, or one that forced them, is mismatched.
    pub units_mismatched: u64,
    /// Whether the phase's units are not counted.
    pub left_out: bool,
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
    /// The primary metric, or a guardrail that must have a number before anything ships, is not computed at
    /// all.
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
    /// The statistical method that the verdict rests on.
    pub method_used: String,
    /// The treatment that the verdict is about, if it is about one.
    pub treatment: Option<String>,
}

/// A counting query, as it was run.
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

    /// Returns the title for people.
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
    /// Returns the title for people.
    pub fn title(self) -> &'static str {
        match self {
            TestMethod::TwoProportionZ => "two-proportion z, pooled",
            TestMethod::FisherExact => "Fisher's exact",
            TestMethod::WelchT => "Welch's t",
        }
    }
}

impl ExactTest {
    /// Returns whether an arm has fewer counted units than the normal approximation needs.
    pub fn is_below_the_gate(&self) -> bool {
        self.control.min(self.treatment) < self.needed
    }
}

impl ExperimentResult {
    pub fn primary(&self) -> Option<&MetricResult> {
        self.metrics.iter().find(|metric| metric.role == Role::Primary)
    }
}

impl MetricResult {
    /// Returns whether there are too few values yet to know where to cut them.
    pub fn waits_for_its_cap(&self) -> bool {
        self.cap.is_some_and(|cap| cap.value.is_none())
    }

    /// Returns whether the means are shares of units.
    pub fn is_rate(&self) -> bool {
        self.metric_type == Some(MetricType::Conversion)
    }
}
