//! Units that were assigned in phases, each with its own shares. Differences are computed only inside a
//! phase, and the phases are added up with weights that do not depend on the outcomes. A unit belongs to the
//! phase of its first exposure; phases with equal shares may be merged. This module knows no clock and no
//! storage.
//!
//! With weights `w_k = n_ck n_tk / (n_ck + n_tk)` the score `U = sum w_k d_k` is, without an effect, a
//! martingale with variance `V = sum w_k^2 v_k`. The effect seen so far may have influenced the shares, as
//! long as the shares of a phase are chosen before its units arrive (Jennison & Turnbull 2000, Group
//! Sequential Methods, chapters 7 and 11). So `z = U / sqrt(V)` can be used as the z of one phase: in the
//! boundary with the share of the planned weight, in the always-valid sequence with the weight itself.
//! Weights of `1 / v_k` would be wrong: an arm with few units of skewed values tends to have a small mean
//! together with a small variance, and the bias adds up over the phases.

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

/// The treatment's planned share of two arms' units in a phase: from 1e-12 to 1 - 1e-12. It is computed from
/// the weights of the variants, not from the units that were exposed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct TreatmentShare(f64);

impl TreatmentShare {
    /// 50/50.
    pub const HALF: TreatmentShare = TreatmentShare(0.5);

    /// Accepts a share from 1e-12 to 1 - 1e-12: with a smaller one no unit is ever assigned, and there is
    /// nothing to compare.
    pub fn new(share: f64) -> Result<TreatmentShare, Invalid> {
        const SMALLEST: f64 = 1e-12;
        if !(SMALLEST..=1.0 - SMALLEST).contains(&share) {
            let (what, range) = ("treatment share", "strictly between 0 and 1, by 1e-12 at least");
            return Err(Invalid::OutOfRange { what, value: share, range });
        }
        Ok(TreatmentShare(share))
    }

    /// The share of the treatment, between 0 and 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The share of the control, between 0 and 1.
    pub fn of_control(self) -> f64 {
        1.0 - self.0
    }

    /// The share of the smaller arm, at most 1/2.
    fn smaller(self) -> f64 {
        self.0.min(1.0 - self.0)
    }

    /// Returns whether the two differ by no more than rounding: 9000 of 10,000 leaves a little less than 0.1.
    fn is_about(self, other: TreatmentShare) -> bool {
        const ROUNDING: f64 = 1e-9;
        (self.0 - other.0).abs() < ROUNDING
    }
}

/// The units of two arms that were first exposed in one phase. All strata of one comparison are of one kind,
/// rates or means.
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
    /// A stratum of conversion rates.
    pub fn of_rates(treatment_share: TreatmentShare, arms: Pair<Arm>) -> Stratum {
        Stratum { treatment_share, outcome: Outcome::Rates(arms) }
    }

    /// A stratum of means. Without [`Stratum::counting`] the gate of few conversions does not apply.
    pub fn of_means(treatment_share: TreatmentShare, moments: Pair<Moments>) -> Stratum {
        Stratum { treatment_share, outcome: Outcome::Means { moments, with_events: None } }
    }

    /// Adds how many units of a mean have any event; a stratum of rates is returned unchanged.
    pub fn counting(self, with_events: Pair<Arm>) -> Stratum {
        match self.outcome {
            Outcome::Rates(_) => self,
            Outcome::Means { moments, .. } => {
                Stratum { outcome: Outcome::Means { moments, with_events: Some(with_events) }, ..self }
            }
        }
    }

    /// Returns the stratum in which the effect is the treatment's mean minus `factor` times the control's. Its variance is
    /// that of the contrast, `v_t / n_t + factor^2 v_c / n_c`, also for rates: the pooled variance is right only for equal
    /// rates. It has no gate of few conversions; ask for that before.
    pub fn with_control_times(&self, factor: f64) -> Stratum {
        let moments = match self.outcome {
            Outcome::Rates(arms) => arms.map(Moments::of_counts),
            Outcome::Means { moments, .. } => moments,
        };
        let control = moments.control.times(factor);
        Stratum::of_means(self.treatment_share, Pair { control, ..moments })
    }

    /// The planned share of the phase.
    pub fn treatment_share(&self) -> TreatmentShare {
        self.treatment_share
    }

    /// The units of each arm.
    pub fn units(&self) -> Pair<u64> {
        match self.outcome {
            Outcome::Rates(arms) => arms.map(Arm::units),
            Outcome::Means { moments, .. } => moments.map(Moments::count),
        }
    }

    /// The units of each arm, and how many converted or have any event; `None` for a mean whose events were
    /// not counted.
    pub fn arms(&self) -> Option<Pair<Arm>> {
        match self.outcome {
            Outcome::Rates(arms) => Some(arms),
            Outcome::Means { with_events, .. } => with_events,
        }
    }

    /// `n_c n_t / (n_c + n_t)`, in units. It is 0 while the phase contributes nothing: an arm has no units
    /// or, for a mean, fewer than two and so no variance.
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

    /// Returns the result of the phase by itself, as its metric's test computes it; for means also without
    /// variation.
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

/// The contribution of one phase to the score.
struct Part {
    units: Pair<u64>,
    weight: f64,
    means: Pair<f64>,
    /// The effect, with the standard error of the metric's test: pooled for rates, Welch's for means.
    effect: Effect,
    /// The variance of each arm's mean; `None` for rates, whose variance is treated as known.
    variances: Option<Pair<f64>>,
}

/// The score of all phases together.
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
    /// Adds up the strata that have units in both arms (for means, two in each). One stratum gives exactly
    /// the results of [`pooled_z`] and [`welch::test`].
    ///
    /// For means z is the normal deviate with the tail of Student's t, with Satterthwaite's degrees of
    /// freedom (1946, Biometrics Bulletin 2(6)) of all the phases' variances:
    /// `V^2 / sum (w_k^2 s_ak^2 / n_ak)^2 / (n_ak - 1)`.
    ///
    /// Returns [`Missing::Units`] where no stratum has enough of them, and [`Missing::Variation`] where
    /// nothing varies; rates without variation have z = 0, as in one phase. Z is normal in the limit: rates
    /// need ten conversions an arm over all phases ([`few`]), and means need what Welch's test needs. Welch's
    /// error of skewed values is too small where an uneven share leaves an arm few units that are not 0: with
    /// 200 buyers in the smaller arm one look at 90/10 rejects in 7 % instead of 5 %, nearly always because
    /// that arm is lower.
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

    /// `U / W` with the error `sqrt(V) / W`, in the metric's unit: the effect for an always-valid look.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The same estimate with the standard error that matches z: the effect for a boundary and its intervals.
    /// For rates it is [`Score::effect`]; for means the error is `estimate / z`.
    pub fn effect_of_z(&self) -> Effect {
        let Effect { estimate, standard_error } = self.effect;
        let standard_error =
            if !self.is_of_means || self.z == 0.0 { standard_error } else { estimate / self.z };
        Effect { estimate, standard_error }
    }

    /// The statistic z; standard normal in the limit if there is no effect.
    pub fn z(&self) -> f64 {
        self.z
    }

    /// The total weight `W`, in units.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The units of each arm, in the phases that contribute.
    pub fn units(&self) -> Pair<u64> {
        self.units
    }

    /// The rates or means of both arms with the weights of the effect, which is their difference. A relative
    /// lift is the effect divided by the control's.
    pub fn means(&self) -> Pair<f64> {
        self.means
    }

    /// `sum (n_k / n) d_k` over all units: the effect on the units that were exposed, for display only. Do
    /// not use it in a test: its variance can grow with more data.
    pub fn effect_by_units(&self) -> Effect {
        self.by_units
    }
}

/// Returns the weighted sum of independent effects. The variance is summed relative to its largest part, so
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

/// Returns the fraction for a boundary: `W` divided by the planned weight, `n_c n_t / (n_c + n_t)` of the
/// units planned with the first phase's shares. In one phase it is
/// [`group_sequential::information_fraction`]. The more uneven a phase is, the more slowly the fraction grows
/// per unit, so the planned units are reached before a fraction of 1. Spending all of alpha there lets the
/// effect that changed the shares choose how much is seen: 5.8 % false alarms instead of 5 where the better
/// arm was given 90 %. A boundary whose last look is the first at a fraction of 1 kept 5 % (the aggregator's
/// README).
pub fn information_fraction(strata: &[Stratum], planned: Pair<u64>) -> Result<f64, Invalid> {
    match strata {
        [one] => group_sequential::information_fraction(one.units(), planned),
        several => {
            let (c, t) = (planned.control as f64, planned.treatment as f64);
            // Checks that the planned weight is above 0.
            group_sequential::information_fraction(planned, planned)?;
            // Starts at 0, because the sum of an empty list is -0.
            let weight = several.iter().map(Stratum::weight).fold(0.0, |sum, weight| sum + weight);
            Ok(weight / (c * (t / (c + t))))
        }
    }
}

/// The plan of an always-valid analysis over phases, fixed before the first look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlwaysValidDesign {
    sequence: confidence_sequence::Design,
    first_share: TreatmentShare,
    counts: CountTest,
}

impl AlwaysValidDesign {
    /// `first_share` is the share of the first phase, also when that phase is left out later; `concentration`
    /// is that of [`CountTest`], which decides below the gate.
    pub fn new(
        sequence: confidence_sequence::Design,
        first_share: TreatmentShare,
        concentration: f64,
    ) -> Result<AlwaysValidDesign, Invalid> {
        let counts = CountTest::new(concentration, sequence.alpha())?;
        Ok(AlwaysValidDesign { sequence, first_share, counts })
    }

    /// The number of units that would have the same weight at the first phase's shares, `W / (pi_c pi_t)`.
    /// The mixing ratio is `r = rho^2 N* W / W*` with `W* = N* pi_c pi_t`, that of one phase with this many
    /// units. Units assigned with the first phase's shares count as one each, so that in one phase nothing
    /// changes.
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

    /// Returns the look with Z = z of the score. It is valid whatever determined the looks and the shares.
    /// One phase with the first phase's shares gives exactly [`confidence_sequence::Design::look_at_rates`],
    /// with its score interval, or [`confidence_sequence::Design::look_at_means`]. Otherwise the interval is
    /// the estimate plus and minus the critical value times the standard error; for rates that is the pooled
    /// one, whatever the null.
    ///
    /// Below the gate over all phases ([`few`]) it returns [`Missing::Conversions`] or
    /// [`Missing::Unconverted`]; [`AlwaysValidDesign::p_value`] then decides by the counts.
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
        // Rounding to whole units does not matter for a tuning parameter.
        Ok(self.sequence.look(effect, self.units(strata).round().max(1.0) as u64))
    }

    /// The p-value of this look by the test that decides: the sequence or, below the gate, the counts. The
    /// always-valid p-value is the smallest over all looks. Where counts decide it is two-sided, whatever the
    /// sequence's alternative.
    pub fn p_value(&self, strata: &[Stratum]) -> Result<f64, Missing> {
        match few(strata) {
            Some(below) if below.few.total() == 0 => Err(below.few.missing()),
            Some(below) => Ok(self.counts.evidence(&below.by_phase).p_value),
            None => self.look(strata).map(|look| look.p_value),
        }
    }

    /// The confidence sequence, which decides above the gate.
    pub fn sequence(&self) -> &confidence_sequence::Design {
        &self.sequence
    }

    /// The count test, which decides below the gate.
    pub fn counts(&self) -> &CountTest {
        &self.counts
    }
}

/// Tests whether the effect is the same in all phases: Cochran's Q (1954, Biometrics 10(1)),
/// `sum (d_k - D)^2 / v_k` with D weighted by `1 / v_k` and each arm's own variance, chi-square with one
/// degree less than phases. If the effects differ, one number does not describe them.
///
/// Phases below their own gate of few conversions and those without variation are not compared; `None` where
/// fewer than two remain. It is for one look: tested at every look it raises more false alarms than its
/// level.
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

/// The probability, without an effect, that the boundary would still have rejected if its last look, which
/// found `z` and did not cross, had been followed by one more look with all of the planned information. A new
/// test at that level, of units that arrived since and by any rule, keeps alpha for both together: Mueller &
/// Schaefer (2001), Biometrics 57(3). It is for changes that strata cannot represent, such as a new primary
/// metric.
///
/// The result is from 0 to 1: 0 where the boundary has ended, because no alpha remains; all of alpha before
/// the first look; and 1 where `z` reaches the last bound, because the test has rejected. The remaining looks
/// are replaced by one at the end, which must be fixed in advance and not chosen by z.
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
