//! Measures whether phases as strata keep alpha when the shares are changed because of the effect seen. It
//! draws experiments without an effect, looks at them repeatedly, and changes the split by rules that depend
//! on z. Wrong methods are included for comparison.

use std::collections::HashMap;

use serde::Serialize;
use stats::confidence_sequence::{self, DEFAULT_TUNING_UNITS, Mixing};
use stats::conversion_counts::CONCENTRATION;
use stats::group_sequential::{Bound, Boundary, CountBoundary, Design, PhaseTotal, Spending, Stage};
use stats::phases::{self, AlwaysValidDesign, Score, Stratum, TreatmentShare};
use stats::random::{Binomial, Random};
use stats::srm_phases::{self, Watched};
use stats::srm_sequential::Phase as RatioPhase;
use stats::{Alpha, Alternative, Arm, Counts, Invalid, Moments, Pair};

use super::{Share, in_parallel};

/// The number of looks up to the planned units; as many follow, at which the always-valid tests continue.
pub const LOOKS: u64 = 40;

/// The planned units of both arms.
pub const PLANNED_UNITS: u64 = 40_000;

const UNITS_PER_LOOK: u64 = PLANNED_UNITS / LOOKS;

/// The looks after which the rules may change the split; the last is the planned end.
const CHANGES: [u64; 5] = [8, 16, 24, 32, 40];

const BUYERS: f64 = 0.05;

/// The level of the test that the phases differ.
const DIFFER: f64 = 0.01;

/// The number of looks at the sample ratio of each phase.
const RATIO_LOOKS: u64 = 16;

/// The units of each of these looks: a million a phase, because the test is conservative with few units.
const RATIO_UNITS: u64 = 62_500;

/// The treatment's shares of the phases whose sample ratio is tested.
const RATIO_SHARES: [f64; 5] = [0.5, 0.1, 0.05, 0.1, 0.5];

/// The experiments to draw for each outcome and rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// At least 1.
    pub runs: u32,
    pub seed: u64,
}

/// The counts of experiments without an effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub settings: Settings,
    pub rows: Vec<Row>,
    /// False alarms of the sample ratio: with the levels of the phases, and with each phase at the whole level.
    pub sample_ratio: Share,
    pub sample_ratio_each_at_the_whole_level: Share,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub outcome: &'static str,
    pub rule: &'static str,
    pub method: &'static str,
    pub alarms: Share,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// 5 %.
    Rates,
    /// 5 %, rising to 8 % at the last look, in both arms.
    RisingRates,
    /// 0.2 %: below the gate nearly to the planned end.
    FewConversions,
    /// 5 % of the units buy, with lognormal sums.
    Skewed,
}

impl Outcome {
    const ALL: [Outcome; 4] =
        [Outcome::Rates, Outcome::RisingRates, Outcome::FewConversions, Outcome::Skewed];

    fn name(self) -> &'static str {
        match self {
            Outcome::Rates => "rates of 5 %",
            Outcome::RisingRates => "rates of 5 %, rising to 8 %",
            Outcome::FewConversions => "rates of 0.2 %",
            Outcome::Skewed => "5 % buyers, lognormal (3.5, 1.2)",
        }
    }

    /// Draws `units` units of one arm at this look.
    fn draw(self, look: u64, units: u64, random: &mut Random) -> (Arm, Moments) {
        let rate = match self {
            Outcome::Rates => 0.05,
            Outcome::RisingRates => 0.05 + 0.03 * look as f64 / (2 * LOOKS) as f64,
            Outcome::FewConversions => 0.002,
            Outcome::Skewed => BUYERS,
        };
        let conversions = Binomial::new(rate).expect("a rate").draw(units, random);
        let arm = Arm::new(Counts { units, conversions }).expect("no more convert than there are");
        if self != Outcome::Skewed {
            return (arm, Moments::EMPTY);
        }
        let bought = Moments::of((0..conversions).map(|_| (3.5 + 1.2 * random.normal()).exp()));
        let nothing = Moments::from_variance(units - conversions, 0.0, 0.0);
        (arm, bought.expect("finite").merge(nothing.expect("finite")))
    }

    fn stratum(self, phase: &Phase) -> Stratum {
        match self {
            Outcome::Rates | Outcome::RisingRates | Outcome::FewConversions => {
                Stratum::of_rates(phase.share, phase.arms)
            }
            Outcome::Skewed => Stratum::of_means(phase.share, phase.moments).counting(phase.arms),
        }
    }
}

/// The rule by which the split changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Never,
    OnceAtHalf,
    WhileSmall,
    TowardsTheBetter,
    EvenWhilePromising,
    UnevenThroughout,
}

impl Rule {
    const ALL: [Rule; 6] = [
        Rule::Never,
        Rule::OnceAtHalf,
        Rule::WhileSmall,
        Rule::TowardsTheBetter,
        Rule::EvenWhilePromising,
        Rule::UnevenThroughout,
    ];

    fn name(self) -> &'static str {
        match self {
            Rule::Never => "50/50 throughout",
            Rule::UnevenThroughout => "90/10 throughout",
            Rule::OnceAtHalf => "90/10 at half if |z| < 1",
            Rule::WhileSmall => "90/10, 95/5 in turn while |z| < 1.5",
            Rule::TowardsTheBetter => "90 % to the better arm",
            Rule::EvenWhilePromising => "50/50 while |z| > 1.5, else 95/5",
        }
    }

    /// The treatment's share of the first phase.
    fn first(self) -> TreatmentShare {
        if self == Rule::UnevenThroughout { share_of(0.1) } else { TreatmentShare::HALF }
    }

    /// The treatment's share from the next look on, if it changes.
    fn next(self, look: u64, z: f64, now: TreatmentShare) -> Option<TreatmentShare> {
        let change = CHANGES.iter().position(|&at| at == look);
        let share = match self {
            Rule::Never | Rule::UnevenThroughout => None,
            Rule::OnceAtHalf => (look == LOOKS / 2 && z.abs() < 1.0).then_some(0.1),
            Rule::WhileSmall => {
                let in_turn = if change? % 2 == 0 { 0.1 } else { 0.05 };
                (z.abs() < 1.5).then_some(in_turn)
            }
            Rule::TowardsTheBetter => {
                change?;
                (z.abs() > 1.0).then_some(if z > 0.0 { 0.9 } else { 0.1 })
            }
            Rule::EvenWhilePromising => {
                change?;
                Some(if z.abs() > 1.5 { 0.5 } else { 0.05 })
            }
        };
        share.map(share_of).filter(|share| *share != now)
    }
}

/// Indices into [`METHODS`].
const BOUNDARY: usize = 0;
const FOR_THE_PLAN: usize = 1;
const FOR_5000: usize = 2;
const RESTARTED: usize = 3;
const BOUNDARY_BY_UNITS: usize = 4;
const ALWAYS_VALID_BY_UNITS: usize = 5;
const POOLED_PHASES: usize = 6;
const PHASES_DIFFER: usize = 7;
const BOUNDARY_BY_WEIGHT: usize = 8;

const METHODS: [&str; 9] = [
    "boundary, O'Brien-Fleming spending",
    "always-valid, tuned for the plan",
    "always-valid, tuned for 5,000 units",
    "WRONG: always-valid, begun anew with each phase",
    "WRONG: boundary, effect weighted by units",
    "WRONG: always-valid, effect weighted by units",
    "WRONG: always-valid, all phases pooled",
    "the phases differ, heterogeneity at 0.01, at the end",
    "boundary that ends with the planned weight",
];

/// Counts the alarms of every method with every outcome and rule, and those of the sample ratio. `progress`
/// is called with the number of finished runs.
pub fn calibrate(settings: Settings, progress: &(dyn Fn(u64) + Sync)) -> Result<Report, Invalid> {
    if settings.runs == 0 {
        return Err(Invalid::OutOfRange { what: "runs", value: 0.0, range: "at least 1" });
    }
    let runs = u64::from(settings.runs);
    let mut rows = Vec::new();
    for (place, outcome) in (0_u64..).zip(Outcome::ALL) {
        for (rule_place, rule) in (0_u64..).zip(Rule::ALL) {
            let methods = Methods::new(rule.first())?;
            let seed = settings.seed.wrapping_add(100 * place + rule_place);
            let parts = in_parallel(runs, |runs| {
                let mut counted = [Share::NONE; METHODS.len()];
                let mut bounds = Ends::ALL.map(|ends| Bounds::new(methods.design, ends));
                for run in runs {
                    let alarms = methods.watch(outcome, rule, &mut bounds, &mut Random::stream(seed, run));
                    for (share, alarm) in counted.iter_mut().zip(alarms) {
                        share.count(alarm);
                    }
                    progress(1);
                }
                counted
            });
            for (index, method) in METHODS.into_iter().enumerate() {
                let mut alarms = Share::NONE;
                for part in &parts {
                    alarms.add(part[index]);
                }
                rows.push(Row { outcome: outcome.name(), rule: rule.name(), method, alarms });
            }
        }
    }
    let parts = in_parallel(runs, |runs| {
        let mut counted = [Share::NONE; 2];
        for run in runs {
            let alarms = watch_sample_ratio(&mut Random::stream(settings.seed.wrapping_add(1_000), run));
            for (share, alarm) in counted.iter_mut().zip(alarms) {
                share.count(alarm);
            }
            progress(1);
        }
        counted
    });
    let mut ratio = [Share::NONE; 2];
    for part in parts {
        for (all, of) in ratio.iter_mut().zip(part) {
            all.add(of);
        }
    }
    let [sample_ratio, sample_ratio_each_at_the_whole_level] = ratio;
    Ok(Report { settings, rows, sample_ratio, sample_ratio_each_at_the_whole_level })
}

/// Returns the total number of runs of a report.
pub fn runs_in_all(settings: Settings) -> u64 {
    u64::from(settings.runs) * (Outcome::ALL.len() * Rule::ALL.len() + 1) as u64
}

fn share_of(share: f64) -> TreatmentShare {
    TreatmentShare::new(share).expect("between 0 and 1")
}

/// The units that were first exposed in one phase.
struct Phase {
    share: TreatmentShare,
    arms: Pair<Arm>,
    moments: Pair<Moments>,
}

impl Phase {
    fn new(share: TreatmentShare) -> Phase {
        Phase { share, arms: Pair::default(), moments: Pair::default() }
    }

    /// Adds the units of one look, split exactly by the share.
    fn grow(&mut self, outcome: Outcome, look: u64, random: &mut Random) {
        let new = split(UNITS_PER_LOOK, self.share).map(|units| outcome.draw(look, units, random));
        self.arms = self.arms.with(new, |arm, (more, _)| arm.merge(more));
        self.moments = self.moments.with(new, |moments, (_, more)| moments.merge(more));
    }
}

struct Methods {
    design: Design,
    first: TreatmentShare,
    planned: Pair<u64>,
    for_the_plan: AlwaysValidDesign,
    for_5000: AlwaysValidDesign,
    sequence: confidence_sequence::Design,
}

impl Methods {
    fn new(first: TreatmentShare) -> Result<Methods, Invalid> {
        let alternative = Alternative::TwoSided;
        let alpha = Alpha::FIVE_PERCENT;
        let sequence =
            |units| confidence_sequence::Design::new(alpha, alternative, Mixing::TunedForUnits(units));
        let for_the_plan = sequence(PLANNED_UNITS as f64)?;
        let always = |sequence| AlwaysValidDesign::new(sequence, first, CONCENTRATION);
        Ok(Methods {
            first,
            design: Design { alpha, alternative, spending: Spending::OBrienFleming },
            planned: split(PLANNED_UNITS, first),
            for_the_plan: always(for_the_plan)?,
            for_5000: always(sequence(DEFAULT_TUNING_UNITS)?)?,
            sequence: for_the_plan,
        })
    }

    /// Returns which of [`METHODS`] raise a false alarm at any look.
    fn watch(
        &self,
        outcome: Outcome,
        rule: Rule,
        [by_units_planned, by_weight_planned]: &mut [Bounds; 2],
        random: &mut Random,
    ) -> [bool; METHODS.len()] {
        let alpha = Alpha::FIVE_PERCENT.get();
        let mut phases = vec![Phase::new(self.first)];
        let mut alarms = [false; METHODS.len()];
        let mut history = Vec::new();
        let mut planned = PlannedLooks::new(self.design);
        let mut by_weight = PlannedLooks::new(self.design);
        for look in 1..=2 * LOOKS {
            let now = phases.last_mut().expect("there is a first");
            now.grow(outcome, look, random);
            let (share, strata) =
                (now.share, phases.iter().map(|phase| outcome.stratum(phase)).collect::<Vec<_>>());
            let Ok(score) = Score::of(&strata) else { continue };
            let units = look * UNITS_PER_LOOK;
            let by_units = score.effect_by_units();
            let fraction = phases::information_fraction(&strata, self.planned).expect("planned units");
            let bound = by_weight_planned.at(look, &history, fraction);
            alarms[BOUNDARY_BY_WEIGHT] |= by_weight.rejects(&strata, &score, bound);
            if look <= LOOKS {
                let bound = by_units_planned.at(look, &history, fraction);
                alarms[BOUNDARY] |= planned.rejects(&strata, &score, bound);
                alarms[BOUNDARY_BY_UNITS] |= by_units.standard_error > 0.0
                    && phases::few_at_a_planned_look(&strata).is_none()
                    && bound.rejects(by_units.estimate / by_units.standard_error);
            }
            let at_most_alpha = |p_value: Result<f64, _>| p_value.is_ok_and(|p_value| p_value <= alpha);
            alarms[FOR_THE_PLAN] |= at_most_alpha(self.for_the_plan.p_value(&strata));
            alarms[FOR_5000] |= at_most_alpha(self.for_5000.p_value(&strata));
            let anew = AlwaysValidDesign::new(self.sequence, share, CONCENTRATION).expect("as before");
            alarms[RESTARTED] |= at_most_alpha(anew.p_value(&strata[strata.len() - 1..]));
            alarms[ALWAYS_VALID_BY_UNITS] |=
                phases::few(&strata).is_none() && self.sequence.look(by_units, units).p_value <= alpha;
            alarms[POOLED_PHASES] |=
                at_most_alpha(self.for_the_plan.p_value(&[outcome.stratum(&pool_phases(&phases))]));
            alarms[PHASES_DIFFER] = look == 2 * LOOKS
                && phases::heterogeneity(&strata).is_some_and(|found| found.p_value <= DIFFER);
            if let Some(share) = rule.next(look, score.z(), share) {
                history.push((look, share.get().to_bits()));
                phases.push(Phase::new(share));
            }
        }
        alarms
    }
}

fn split(units: u64, share: TreatmentShare) -> Pair<u64> {
    let treated = (units as f64 * share.get()).round() as u64;
    Pair { control: units - treated, treatment: treated }
}

/// Merges all phases as if all had the share of the first.
fn pool_phases(phases: &[Phase]) -> Phase {
    let mut all = Phase::new(phases[0].share);
    for phase in phases {
        all.arms = all.arms.with(phase.arms, Arm::merge);
        all.moments = all.moments.with(phase.moments, Moments::merge);
    }
    all
}

/// The planned looks of one experiment, tested as the service does: by counts while those are few.
struct PlannedLooks {
    design: Design,
    counts: CountBoundary,
    counted: Option<stats::few_conversions::Outcome>,
    spent: f64,
    has_crossed: bool,
}

impl PlannedLooks {
    fn new(design: Design) -> PlannedLooks {
        let counts = CountBoundary::by_phase(design, 0.0);
        PlannedLooks { design, counts, counted: None, spent: 0.0, has_crossed: false }
    }

    fn rejects(&mut self, strata: &[Stratum], score: &Score, bound: Bound) -> bool {
        if self.has_crossed || bound.stage == Stage::Past {
            return self.has_crossed;
        }
        let is_final = bound.stage == Stage::Final;
        self.has_crossed = match phases::few_at_a_planned_look(strata) {
            Some(few) => {
                // Counts of the other outcome begin a new walk, with the remaining alpha.
                if self.counted.is_some_and(|counted| counted != few.few.outcome) {
                    self.counts = CountBoundary::by_phase(self.design, self.spent);
                }
                self.counted = Some(few.few.outcome);
                let totals: Vec<PhaseTotal> = few.by_phase.iter().map(|phase| phase.total()).collect();
                let at = self.counts.look_by_phase(bound.fraction, is_final, &totals).expect("totals grow");
                at.rejects(few.few.counts.treatment)
            }
            None => {
                (self.counts, self.counted) = (CountBoundary::by_phase(self.design, bound.alpha_spent), None);
                bound.rejects(score.z())
            }
        };
        self.spent = bound.alpha_spent;
        self.has_crossed
    }
}

/// When a boundary has its last look and spends the remaining alpha.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    WithThePlannedUnits,
    WithThePlannedWeight,
}

impl Ends {
    const ALL: [Ends; 2] = [Ends::WithThePlannedUnits, Ends::WithThePlannedWeight];
}

/// A cache of the boundary at every look of every history of shares. A history lists the looks after which
/// the share changed, with the new share. The shares determine the fractions, and there are few histories.
struct Bounds {
    design: Design,
    ends: Ends,
    known: HashMap<(u64, Vec<(u64, u64)>), Boundary>,
}

impl Bounds {
    fn new(design: Design, ends: Ends) -> Bounds {
        Bounds { design, ends, known: HashMap::new() }
    }

    fn at(&mut self, look: u64, history: &[(u64, u64)], fraction: f64) -> Bound {
        let key = (look, history.to_vec());
        if !self.known.contains_key(&key) {
            let before = history.iter().copied().filter(|&(after, _)| after + 1 < look).collect();
            let mut boundary = match self.known.get(&(look - 1, before)) {
                Some(boundary) => boundary.clone(),
                None => Boundary::new(self.design),
            };
            let bound = if self.ends == Ends::WithThePlannedUnits && look == LOOKS {
                boundary.final_look(fraction)
            } else {
                boundary.look(fraction)
            };
            bound.expect("fractions grow");
            self.known.insert(key.clone(), boundary);
        }
        *self.known[&key].bounds().last().expect("it has this look")
    }
}

/// Returns whether a correct assignment in five phases ever raises an alarm: with the levels of the phases,
/// and with each phase at the whole level.
fn watch_sample_ratio(random: &mut Random) -> [bool; 2] {
    let mut state: Vec<Watched> = srm_phases::START;
    let (mut weights, mut units): (Vec<[f64; 2]>, Vec<[u64; 2]>) = (Vec::new(), Vec::new());
    for share in RATIO_SHARES {
        weights.push([1.0 - share, share]);
        units.push([0, 0]);
        for _ in 0..RATIO_LOOKS {
            // The sum of thousands of coins is drawn as a normal number.
            let mean = share * RATIO_UNITS as f64;
            let drawn = mean + (mean * (1.0 - share)).sqrt() * random.normal();
            let treated = (drawn.round().max(0.0) as u64).min(RATIO_UNITS);
            let now = units.last_mut().expect("pushed");
            *now = [now[0] + RATIO_UNITS - treated, now[1] + treated];
            let phases: Vec<RatioPhase<'_>> =
                weights.iter().zip(&units).map(|(weights, units)| RatioPhase { weights, units }).collect();
            state = srm_phases::watch(&state, &phases).expect("two arms");
        }
    }
    [
        state.iter().any(|phase| phase.alarm),
        state.iter().any(|phase| phase.p_value <= srm_phases::ALARM_LEVEL),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;
    const RUNS: u32 = 40;

    /// The alarms of each method in 960 experiments (40 for each of 4 outcomes and 6 rules). The published
    /// figures are from many more.
    #[test]
    fn phases_as_strata_keep_alpha() {
        println!("seed {SEED}");
        let report = calibrate(Settings { runs: RUNS, seed: SEED }, &|_| {}).unwrap();
        let of = |method: &str| {
            let rows = report.rows.iter().filter(|row| row.method == method);
            rows.map(|row| row.alarms.count_of()).sum::<u64>()
        };
        let counted = METHODS.map(of);
        assert_eq!(counted, [44, 19, 17, 31, 52, 32, 162, 0, 46]);
        assert_eq!(report.rows.len(), METHODS.len() * Outcome::ALL.len() * Rule::ALL.len());
        let ratio = [report.sample_ratio, report.sample_ratio_each_at_the_whole_level];
        assert_eq!(ratio.map(|share| (share.count_of(), share.total())), [(0, 40), (2, 40)]);
    }

    #[test]
    fn rules_change_the_shares_by_the_observed_z() {
        let (even, tenth) = (TreatmentShare::HALF, share_of(0.1));
        assert_eq!(Rule::OnceAtHalf.next(20, 0.9, even), Some(tenth));
        assert_eq!(Rule::OnceAtHalf.next(20, 1.1, even), None);
        assert_eq!(Rule::WhileSmall.next(8, -1.4, even), Some(tenth));
        assert_eq!(Rule::WhileSmall.next(16, -1.4, tenth), Some(share_of(0.05)));
        assert_eq!(Rule::WhileSmall.next(9, 0.0, even), None);
        assert_eq!(Rule::TowardsTheBetter.next(8, 1.2, even), Some(share_of(0.9)));
        assert_eq!(Rule::EvenWhilePromising.next(8, 1.6, even), None);
        assert_eq!(Rule::EvenWhilePromising.next(8, 1.2, even), Some(share_of(0.05)));
    }

    #[test]
    fn no_runs_are_refused() {
        assert!(calibrate(Settings { runs: 0, seed: 1 }, &|_| {}).is_err());
    }
}
