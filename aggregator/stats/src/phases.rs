//! Units that were assigned in phases, each with its own shares: a difference is only ever taken inside a
//! phase, and the phases are added up with weights that know nothing of the outcomes. A unit belongs to the
//! phase of its first exposure; phases with equal shares may be merged. This module knows no clock and no
//! storage.
//!
//! With weights `w_k = n_ck n_tk / (n_ck + n_tk)` the score `U = sum w_k d_k` is, without an effect, a
//! martingale with variance `V = sum w_k^2 v_k`, whatever the effect seen so far made of the shares, as long
//! as the shares of a phase are chosen before its units come (Jennison & Turnbull 2000, Group Sequential
//! Methods, chapters 7 and 11). So `z = U / sqrt(V)` goes on where one phase's z would: the boundary by the
//! share of the planned weight, the always-valid sequence by the weight itself. Weights of `1 / v_k` would
//! not do: an arm with few units of skewed values shows a small mean and a small variance together, and the
//! bias adds up over the phases.

use crate::{
    Alternative, Arm, Effect, Invalid, Missing, Moments, Pair, Side,
    confidence_sequence::{self, Look},
    distributions::{chi_square_sf, normal_deviate_of_t, normal_sf},
    few_conversions::Few,
    group_sequential::{self, Boundary, Stage},
    strata::Heterogeneity,
    two_proportion::{self, pooled_z, unpooled_effect},
    welch,
};

mod counts;

pub use counts::{
    CountLook, CountTest, FewByPhase, PhaseCounts, binomial_tails, few, few_at_a_planned_look, fisher_tails,
    log_odds_ratio, log_rate_ratio, more_than_its_share,
};

/// The share of two arms' units that the treatment is to get in a phase: from 1e-12 to 1 - 1e-12. It is that
/// of the weights, not of the units that came.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct TreatmentShare(f64);

impl TreatmentShare {
    /// 50/50.
    pub const HALF: TreatmentShare = TreatmentShare(0.5);

    /// From 1e-12 to 1 - 1e-12: a share that no unit ever meets is no phase of the comparison.
    pub fn new(share: f64) -> Result<TreatmentShare, Invalid> {
        const SMALLEST: f64 = 1e-12;
        if !(SMALLEST..=1.0 - SMALLEST).contains(&share) {
            let (what, range) = ("treatment share", "strictly between 0 and 1, by 1e-12 at least");
            return Err(Invalid::OutOfRange { what, value: share, range });
        }
        Ok(TreatmentShare(share))
    }

    /// Of the treatment, between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Of the control, between 0 and 1.
    pub fn of_control(self) -> f64 {
        1.0 - self.0
    }

    /// Of the arm with fewer, at most 1/2.
    fn smaller(self) -> f64 {
        self.0.min(1.0 - self.0)
    }

    /// Whether the two differ by no more than rounding: 9000 of 10,000 leaves a little less than 0.1.
    fn is_about(self, other: TreatmentShare) -> bool {
        const ROUNDING: f64 = 1e-9;
        (self.0 - other.0).abs() < ROUNDING
    }
}

/// Two arms' units that were first exposed in one phase. All strata of one comparison are of one kind, rates
/// or means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stratum {
    treatment_share: TreatmentShare,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Rates(Pair<Arm>),
    Means { moments: Pair<Moments>, with_events: Option<Pair<Arm>> },
}

impl Stratum {
    /// Conversion rates.
    pub fn of_rates(treatment_share: TreatmentShare, arms: Pair<Arm>) -> Stratum {
        Stratum { treatment_share, outcome: Outcome::Rates(arms) }
    }

    /// Means. Without [`Stratum::counting`] there is no gate of few conversions.
    pub fn of_means(treatment_share: TreatmentShare, moments: Pair<Moments>) -> Stratum {
        Stratum { treatment_share, outcome: Outcome::Means { moments, with_events: None } }
    }

    /// How many of a mean's units have any event at all; of rates nothing changes.
    pub fn counting(self, with_events: Pair<Arm>) -> Stratum {
        match self.outcome {
            Outcome::Rates(_) => self,
            Outcome::Means { moments, .. } => {
                Stratum { outcome: Outcome::Means { moments, with_events: Some(with_events) }, ..self }
            }
        }
    }

    /// As planned for the phase.
    pub fn treatment_share(&self) -> TreatmentShare {
        self.treatment_share
    }

    /// Of each arm.
    pub fn units(&self) -> Pair<u64> {
        match self.outcome {
            Outcome::Rates(arms) => arms.map(Arm::units),
            Outcome::Means { moments, .. } => moments.map(Moments::count),
        }
    }

    /// Units and those that converted, or that have any event; none for a mean whose events were not counted.
    pub fn arms(&self) -> Option<Pair<Arm>> {
        match self.outcome {
            Outcome::Rates(arms) => Some(arms),
            Outcome::Means { with_events, .. } => with_events,
        }
    }

    /// `n_c n_t / (n_c + n_t)`, in units; 0 where the phase adds nothing yet: an arm has no units, or of a
    /// mean an arm has fewer than two and so no variance.
    pub fn weight(&self) -> f64 {
        let need = match self.outcome {
            Outcome::Rates(_) => 1,
            Outcome::Means { .. } => 2,
        };
        let units = self.units();
        if units.control < need || units.treatment < need {
            return 0.0;
        }
        let (c, t) = (units.control as f64, units.treatment as f64);
        c * (t / (c + t))
    }

    /// What the phase finds by itself, as its metric's test does; of means also where no unit varies.
    fn part(&self) -> Result<Part, Missing> {
        let units = self.units();
        let weight = self.weight();
        match self.outcome {
            Outcome::Rates(arms) => {
                let means = two_proportion::rates(arms)?;
                let effect = pooled_z(arms, Alternative::TwoSided)?.effect;
                Ok(Part { units, weight, means, effect, variances: None })
            }
            Outcome::Means { moments, .. } => {
                let means = moments.map(Moments::mean);
                let variances =
                    moments.try_map(|side, arm| Ok(arm.variance_of(side)? / arm.count() as f64))?;
                let effect = Effect {
                    estimate: means.treatment - means.control,
                    standard_error: (variances.control + variances.treatment).sqrt(),
                };
                Ok(Part { units, weight, means, effect, variances: Some(variances) })
            }
        }
    }
}

/// One phase's share of the score.
struct Part {
    units: Pair<u64>,
    weight: f64,
    means: Pair<f64>,
    /// With the standard error of the metric's test: pooled for rates, Welch's for means.
    effect: Effect,
    /// Of each arm's mean; none for rates, whose variance is taken as known.
    variances: Option<Pair<f64>>,
}

/// What all phases say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    effect: Effect,
    z: f64,
    weight: f64,
    units: Pair<u64>,
    means: Pair<f64>,
    by_units: Effect,
    is_of_means: bool,
}

impl Score {
    /// The strata that have units in both arms (of means two in each), added up. One stratum gives exactly what
    /// [`pooled_z`] and [`welch::test`] give.
    ///
    /// For means z is the normal deviate with the tail of Student's t, with Satterthwaite's degrees of
    /// freedom (1946, Biometrics Bulletin 2(6)) of all the phases' variances:
    /// `V^2 / sum (w_k^2 s_ak^2 / n_ak)^2 / (n_ak - 1)`.
    ///
    /// [`Missing::Units`] where no stratum has enough of them, [`Missing::Variation`] where nothing varies;
    /// rates without variation have z = 0, as in one phase. Normal in the limit: rates need ten conversions
    /// an arm over all phases ([`few`]), means what Welch's test needs. Welch's error of skewed values is too
    /// small where an uneven share leaves an arm few units that are not 0: with 200 buyers in the smaller arm
    /// one look at 90/10 rejects in 7 % instead of 5 %, nearly always because that arm is lower.
    ///
    /// # Panics
    /// When the strata are of both kinds, rates and means.
    pub fn of(strata: &[Stratum]) -> Result<Score, Missing> {
        let mut parts = Vec::with_capacity(strata.len());
        let mut lacking = Missing::Units { arm: Side::Treatment, have: 0, need: 1 };
        for stratum in strata {
            match stratum.part() {
                Ok(part) => parts.push((part, stratum)),
                Err(missing) => lacking = missing,
            }
        }
        match parts.as_slice() {
            [] => Err(lacking),
            [(part, stratum)] => Score::of_one(part, stratum),
            several => Score::of_several(several.iter().map(|(part, _)| part)),
        }
    }

    fn of_one(part: &Part, stratum: &Stratum) -> Result<Score, Missing> {
        let (effect, z) = match stratum.outcome {
            Outcome::Rates(arms) => {
                let test = pooled_z(arms, Alternative::TwoSided)?;
                (test.effect, test.z)
            }
            Outcome::Means { moments, .. } => {
                let test = welch::test(moments, Alternative::TwoSided)?;
                (test.effect, test.as_z())
            }
        };
        let Part { units, weight, means, .. } = *part;
        Ok(Score { effect, z, weight, units, means, by_units: effect, is_of_means: part.variances.is_some() })
    }

    fn of_several<'a>(parts: impl Iterator<Item = &'a Part> + Clone) -> Result<Score, Missing> {
        let is_of_means = parts.clone().any(|part| part.variances.is_some());
        assert!(
            parts.clone().all(|part| part.variances.is_some() == is_of_means),
            "rates and means among the strata of one comparison"
        );
        let weight: f64 = parts.clone().map(|part| part.weight).sum();
        let all = |part: &Part| (part.units.control + part.units.treatment) as f64;
        let units_of_all: f64 = parts.clone().map(all).sum();
        let effect = weighted(parts.clone().map(|part| (part.weight / weight, part.effect)));
        if effect.standard_error == 0.0 && is_of_means {
            return Err(Missing::Variation);
        }
        let statistic =
            if effect.standard_error == 0.0 { 0.0 } else { effect.estimate / effect.standard_error };
        let z = if is_of_means {
            normal_deviate_of_t(statistic, degrees(parts.clone(), weight, effect.standard_error))
        } else {
            statistic
        };
        let mean = |of: fn(&Pair<f64>) -> f64| {
            parts.clone().map(|part| part.weight / weight * of(&part.means)).sum::<f64>()
        };
        let units = parts.clone().fold(Pair::default(), |sum: Pair<u64>, part| Pair {
            control: sum.control + part.units.control,
            treatment: sum.treatment + part.units.treatment,
        });
        Ok(Score {
            effect,
            z,
            weight,
            units,
            means: Pair { control: mean(|of| of.control), treatment: mean(|of| of.treatment) },
            by_units: weighted(parts.clone().map(|part| (all(part) / units_of_all, part.effect))),
            is_of_means,
        })
    }

    /// `U / W` with `sqrt(V) / W`, in the metric's unit: what an always-valid look takes.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The same with the standard error of z: what a boundary and its intervals take. For rates it is
    /// [`Score::effect`]; for means `estimate / z`.
    pub fn effect_of_z(&self) -> Effect {
        let Effect { estimate, standard_error } = self.effect;
        let standard_error =
            if !self.is_of_means || self.z == 0.0 { standard_error } else { estimate / self.z };
        Effect { estimate, standard_error }
    }

    /// Standard normal in the limit without an effect.
    pub fn z(&self) -> f64 {
        self.z
    }

    /// `W`, in units.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Of each arm, in the phases that add something.
    pub fn units(&self) -> Pair<u64> {
        self.units
    }

    /// Both arms' rates or means with the weights of the effect, which is their difference. A relative lift
    /// is the effect over the control's.
    pub fn means(&self) -> Pair<f64> {
        self.means
    }

    /// `sum (n_k / n) d_k` over all units: the effect on the units that came, for display alone. It must not
    /// carry a test: its variance can grow with more data.
    pub fn effect_by_units(&self) -> Effect {
        self.by_units
    }
}

/// The sum of independent effects with these factors. The variance is summed relative to its largest part, so
/// that squares of tiny and of huge errors stay in range.
fn weighted(parts: impl Iterator<Item = (f64, Effect)> + Clone) -> Effect {
    let estimate = parts.clone().map(|(factor, effect)| factor * effect.estimate).sum();
    let errors = parts.map(|(factor, effect)| factor * effect.standard_error);
    let largest = errors.clone().fold(0.0, f64::max);
    if largest == 0.0 {
        return Effect { estimate, standard_error: 0.0 };
    }
    let squares: f64 = errors.map(|error| (error / largest).powi(2)).sum();
    Effect { estimate, standard_error: largest * squares.sqrt() }
}

fn degrees<'a>(parts: impl Iterator<Item = &'a Part>, weight: f64, standard_error: f64) -> f64 {
    let mut sum = 0.0;
    for part in parts {
        let Some(variances) = part.variances else { continue };
        for (variance, units) in
            [(variances.control, part.units.control), (variances.treatment, part.units.treatment)]
        {
            let error = part.weight / weight * variance.sqrt() / standard_error;
            sum += error.powi(4) / (units - 1) as f64;
        }
    }
    1.0 / sum
}

/// `W` over the planned one, `n_c n_t / (n_c + n_t)` of the units that were planned with the first phase's
/// shares: the fraction of a boundary. In one phase [`group_sequential::information_fraction`]. It grows more
/// slowly per unit the more uneven a phase is, so a plan in units ends before 1. Whoever then spends all of
/// alpha at the planned units lets the effect that changed the shares choose how much is seen: 5.8 % false
/// alarms instead of 5 where the better arm was given 90 %. A boundary whose last look is the first at a
/// fraction of 1 kept 5 % (the aggregator's README).
pub fn information_fraction(strata: &[Stratum], planned: Pair<u64>) -> Result<f64, Invalid> {
    match strata {
        [one] => group_sequential::information_fraction(one.units(), planned),
        several => {
            // The planned weight is that of the planned units over itself, times itself.
            let (c, t) = (planned.control as f64, planned.treatment as f64);
            group_sequential::information_fraction(planned, planned)?;
            // From 0, for the sum of nothing is -0.
            let weight = several.iter().map(Stratum::weight).fold(0.0, |sum, weight| sum + weight);
            Ok(weight / (c * (t / (c + t))))
        }
    }
}

/// An always-valid analysis over phases, laid down before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlwaysValid {
    sequence: confidence_sequence::Design,
    first_share: TreatmentShare,
    counts: CountTest,
}

impl AlwaysValid {
    /// `first_share` is that of the first phase, and stays so when that is left out; `concentration` is that of
    /// [`CountTest`], which decides below the gate.
    pub fn new(
        sequence: confidence_sequence::Design,
        first_share: TreatmentShare,
        concentration: f64,
    ) -> Result<AlwaysValid, Invalid> {
        let counts = CountTest::new(concentration, sequence.alpha())?;
        Ok(AlwaysValid { sequence, first_share, counts })
    }

    /// The units that carry as much weight at the first phase's shares, `W / (pi_c pi_t)`: the mixing ratio
    /// is `r = rho^2 N* W / W*` with `W* = N* pi_c pi_t`, that of one phase with so many units. Units that
    /// came with the first phase's shares count as one each, so that in one phase nothing changes.
    pub fn units(&self, strata: &[Stratum]) -> f64 {
        let each = self.first_share.get() * self.first_share.of_control();
        let of = |stratum: &Stratum| {
            let units = stratum.units();
            if stratum.weight() == 0.0 {
                0.0
            } else if stratum.treatment_share.is_about(self.first_share) {
                (units.control + units.treatment) as f64
            } else {
                stratum.weight() / each
            }
        };
        strata.iter().map(of).sum()
    }

    /// The look with Z = z of the score, whatever the looks and the shares were chosen by. One phase with the
    /// first's shares gives exactly [`confidence_sequence::Design::look_at_rates`], with its score interval,
    /// or [`confidence_sequence::Design::look_at_means`]; otherwise the interval is the estimate plus and
    /// minus the critical value's standard errors, for rates the pooled ones whatever the null.
    ///
    /// Below the gate over all phases [`few`] says so and [`Missing::Conversions`] or
    /// [`Missing::Unconverted`] is returned; [`AlwaysValid::p_value`] decides by the counts there.
    pub fn look(&self, strata: &[Stratum]) -> Result<Look, Missing> {
        if let Some(below) = few(strata) {
            return Err(below.few.missing());
        }
        let mut contributing = strata.iter().filter(|stratum| stratum.weight() > 0.0);
        if let (Some(one), None) = (contributing.next(), contributing.next())
            && one.treatment_share.is_about(self.first_share)
        {
            return match one.outcome {
                Outcome::Rates(arms) => self.sequence.look_at_rates(arms),
                Outcome::Means { moments, .. } => self.sequence.look_at_means(moments),
            };
        }
        let effect = Score::of(strata)?.effect();
        if effect.standard_error == 0.0 {
            return Err(Missing::Variation);
        }
        // A part of a unit is nothing to a tuning parameter.
        Ok(self.sequence.look(effect, self.units(strata).round().max(1.0) as u64))
    }

    /// The p-value of this look by whichever test decides: the sequence, or below the gate the counts. The
    /// always-valid p-value is the smallest over all looks. Two-sided, whatever the sequence's alternative,
    /// where counts decide.
    pub fn p_value(&self, strata: &[Stratum]) -> Result<f64, Missing> {
        match few(strata) {
            Some(below) if below.few.total() == 0 => Err(below.few.missing()),
            Some(below) => Ok(self.counts.evidence(&below.by_phase).p_value),
            None => self.look(strata).map(|look| look.p_value),
        }
    }

    /// As laid down.
    pub fn sequence(&self) -> &confidence_sequence::Design {
        &self.sequence
    }

    /// What decides below the gate.
    pub fn counts(&self) -> &CountTest {
        &self.counts
    }
}

/// Whether the effect is the same in all phases: Cochran's Q (1954, Biometrics 10(1)),
/// `sum (d_k - D)^2 / v_k` with D weighted by `1 / v_k` and each arm's own variance, chi-square with one
/// degree less than phases. Where it is not, one number does not describe the effect.
///
/// Phases below their own gate of few conversions and those without variation are not compared; none where
/// fewer than two are left. For one look: watched at every look it raises more false alarms than its level.
pub fn heterogeneity(strata: &[Stratum]) -> Option<Heterogeneity> {
    let mut effects = Vec::new();
    for stratum in strata {
        let effect = match stratum.outcome {
            Outcome::Rates(arms) if Few::of_rates(arms).is_none() => unpooled_effect(arms).ok(),
            Outcome::Means { with_events: Some(arms), .. } if Few::of_means(arms).is_some() => None,
            Outcome::Means { .. } => stratum.part().ok().map(|part| part.effect),
            Outcome::Rates(_) => None,
        };
        effects.extend(effect.filter(|effect| effect.standard_error > 0.0));
    }
    let smallest = effects.iter().map(|effect| effect.standard_error).fold(f64::INFINITY, f64::min);
    let degrees = effects.len().checked_sub(1).filter(|&degrees| degrees > 0)?;
    let precision = |effect: &Effect| (smallest / effect.standard_error).powi(2);
    let all: f64 = effects.iter().map(precision).sum();
    let common = effects.iter().map(|effect| precision(effect) / all * effect.estimate).sum::<f64>();
    let chi2 =
        effects.iter().map(|effect| ((effect.estimate - common) / effect.standard_error).powi(2)).sum();
    Some(Heterogeneity { chi2, degrees, p_value: chi_square_sf(chi2, degrees as f64) })
}

/// The probability, without an effect, that the boundary would still have rejected if after its last look,
/// which found `z` and did not cross, one more came with all of the planned information. A new test at that
/// level, of units that came since and by any rule, keeps alpha for both together: Mueller & Schaefer (2001),
/// Biometrics 57(3). For changes that no stratum can hold, as a new primary metric.
///
/// From 0 to 1; 0 where the boundary has ended (nothing is left), before the first look all of alpha. 1 where
/// `z` reaches the last bound: the test has rejected. The remaining looks are taken to be one at the end,
/// which must be laid down before and not chosen by z.
pub fn conditional_error(boundary: &Boundary, z: f64) -> f64 {
    let Some(last) = boundary.bounds().last() else {
        return boundary.design().alpha.get();
    };
    if last.rejects(z) {
        return 1.0;
    }
    if last.stage != Stage::Interim || last.fraction >= 1.0 {
        return 0.0;
    }
    let mut ended = boundary.clone();
    let critical = match ended.final_look(1.0) {
        Ok(bound) if bound.critical.is_finite() => bound.critical,
        _ => return 0.0,
    };
    let (level, step) = (z * last.fraction.sqrt(), (1.0 - last.fraction).sqrt());
    let above = normal_sf((critical - level) / step);
    let below = normal_sf((critical + level) / step);
    match boundary.design().alternative {
        Alternative::TwoSided => above + below,
        Alternative::Greater => above,
        Alternative::Less => below,
    }
}
