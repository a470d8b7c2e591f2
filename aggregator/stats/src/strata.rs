//! Comparisons inside each stratum and over all of them: the post-stratified difference,
//! whether the strata agree, and whether the aggregate has the opposite sign (Simpson's paradox).
//!
//! Strata must be fixed before exposure. If the arms differ in their mix of strata (p-value of
//! [`Stratified::mix`] below 0.001), the assignment is broken: raise the alarm, and do not report the
//! corrected number.

use crate::{
    Alpha, Alternative, Arm, Effect, Interval, Missing, Pair,
    distributions::{chi_square_sf, normal_sf},
    srm::{self, Balance},
    two_proportion::unpooled_effect,
};

/// The result over all strata.
#[derive(Clone, Debug, PartialEq)]
pub struct Stratified {
    /// The difference that ignores the strata, with its unpooled standard error.
    pub aggregate: Effect,
    /// One difference per stratum used, in the order given.
    pub differences: Vec<f64>,
    /// The strata with an empty arm, which are left out; the others share their weight. Callers should report
    /// them.
    pub dropped: Vec<usize>,
    /// The differences weighted by each stratum's share of all units, the weights taken as fixed.
    pub poststratified: Effect,
    /// The standard error when the strata's sizes are a sample too.
    pub superpopulation_standard_error: f64,
    /// The balance of arm by stratum; `None` with fewer than two strata.
    pub mix: Option<Balance>,
    /// Whether the aggregate contradicts the strata.
    pub paradox: Paradox,
}

/// How the aggregate relates to the strata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paradox {
    /// Every stratum has strictly the opposite sign of the aggregate.
    pub full_reversal: bool,
    /// The post-stratified difference has the opposite sign of the aggregate.
    pub sign_flip: bool,
}

/// `D = sum w_s d_s` with `w_s = N_s / N`, variance `sum w_s^2 (p_c q_c / n_c + p_t q_t / n_t)`;
/// the superpopulation adds `sum w_s (d_s - D)^2 / N`. Miratrix, Sekhon & Yu (2013), JRSS B 75(2);
/// GrowthBook. Accurate when each stratum has a few dozen units in each arm.
///
/// Returns [`Missing::Units`] when no stratum has units in both arms.
pub fn poststratify(strata: &[Pair<Arm>]) -> Result<Stratified, Missing> {
    let aggregate = unpooled_effect(total(strata))?;
    let (used, dropped): (Vec<usize>, Vec<usize>) =
        (0..strata.len()).partition(|&i| has_both_arms(&strata[i]));
    let used: Vec<Pair<Arm>> = used.into_iter().map(|i| strata[i]).collect();
    let effects: Vec<Effect> =
        used.iter().map(|&stratum| unpooled_effect(stratum)).collect::<Result<_, _>>()?;
    let units: Vec<f64> = used.iter().map(size).collect();
    let all: f64 = units.iter().sum();
    if all == 0.0 {
        return Err(Missing::Units { arm: crate::Side::Treatment, have: 0, need: 1 });
    }
    let weighted = |f: &dyn Fn(f64, Effect) -> f64| -> f64 {
        units.iter().zip(&effects).map(|(n, &effect)| f(n / all, effect)).sum()
    };
    let estimate = weighted(&|w, effect| w * effect.estimate);
    let variance = weighted(&|w, effect| (w * effect.standard_error).powi(2));
    let between = weighted(&|w, effect| w * (effect.estimate - estimate).powi(2)) / all;
    let opposite = |d: f64| d * aggregate.estimate < 0.0;
    Ok(Stratified {
        aggregate,
        dropped,
        poststratified: Effect { estimate, standard_error: variance.sqrt() },
        superpopulation_standard_error: (variance + between).sqrt(),
        mix: mix(&used),
        paradox: Paradox {
            full_reversal: effects.iter().all(|effect| opposite(effect.estimate)),
            sign_flip: opposite(estimate),
        },
        differences: effects.iter().map(|effect| effect.estimate).collect(),
    })
}

impl Stratified {
    /// Returns z and the two-sided normal p-value of the post-stratified difference.
    pub fn test(&self) -> Result<(f64, f64), Missing> {
        let Effect { estimate, standard_error } = self.poststratified;
        if standard_error == 0.0 {
            return Err(Missing::Variation);
        }
        let z = estimate / standard_error;
        Ok((z, Alternative::TwoSided.p_value(z, normal_sf)))
    }

    /// The normal interval of the post-stratified difference.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        self.poststratified.interval(Alternative::TwoSided.critical_z(alpha))
    }
}

fn total(strata: &[Pair<Arm>]) -> Pair<Arm> {
    strata.iter().fold(Pair::default(), |sum: Pair<Arm>, stratum| Pair {
        control: sum.control.merge(stratum.control),
        treatment: sum.treatment.merge(stratum.treatment),
    })
}

fn has_both_arms(stratum: &Pair<Arm>) -> bool {
    stratum.control.units() > 0 && stratum.treatment.units() > 0
}

fn size(stratum: &Pair<Arm>) -> f64 {
    stratum.control.units() as f64 + stratum.treatment.units() as f64
}

fn mix(strata: &[Pair<Arm>]) -> Option<Balance> {
    let of = |side: fn(&Pair<Arm>) -> Arm| strata.iter().map(|s| side(s).units()).collect();
    srm::balance(&[of(|s| s.control), of(|s| s.treatment)]).ok()
}

/// The common odds ratio of the strata, treatment over control, with tests of it and of its being common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommonOdds {
    /// Mantel & Haenszel (1959), Journal of the National Cancer Institute 22(4).
    pub odds_ratio: f64,
    /// The standard error of its logarithm: Robins, Breslow & Greenland (1986), Biometrics 42(2).
    pub log_standard_error: f64,
    /// The Cochran-Mantel-Haenszel statistic, without continuity correction, with one degree of freedom.
    pub cmh_chi2: f64,
    /// From 0 to 1.
    pub cmh_p_value: f64,
    /// The test of Breslow & Day (1980) that the odds ratios differ, without Tarone's correction. `None` with
    /// fewer than two strata in which both outcomes occur, or where a cell is rounded to 0.
    pub breslow_day: Option<Heterogeneity>,
}

/// A test that the strata share one odds ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heterogeneity {
    /// The statistic, at least 0.
    pub chi2: f64,
    /// The number of strata in which both outcomes occur, minus 1.
    pub degrees: usize,
    /// From 0 to 1.
    pub p_value: f64,
}

impl CommonOdds {
    /// The interval of the odds ratio.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        let spread = (Alternative::TwoSided.critical_z(alpha) * self.log_standard_error).exp();
        Interval { lower: self.odds_ratio / spread, upper: self.odds_ratio * spread }
    }
}

/// One two-by-two table: treatment and control, converted or not.
#[derive(Clone, Copy)]
struct Table {
    treated: [f64; 2],
    untreated: [f64; 2],
    total: f64,
}

impl Table {
    fn of(stratum: &Pair<Arm>) -> Table {
        let row = |arm: Arm| [arm.conversions() as f64, (arm.units() - arm.conversions()) as f64];
        let (treated, untreated) = (row(stratum.treatment), row(stratum.control));
        Table { treated, untreated, total: size(stratum) }
    }

    fn converted(&self) -> f64 {
        self.treated[0] + self.untreated[0]
    }

    fn has_both_outcomes(&self) -> bool {
        self.converted() > 0.0 && self.converted() < self.total
    }

    /// The expected cells at the odds ratio `ratio`, given all margins: treated and untreated, converted
    /// before not converted. One is the root of a quadratic that leaves no cell negative; the others follow
    /// from the margins.
    fn expected(&self, ratio: f64) -> [f64; 4] {
        // The quadratic is solved for the cell in which nothing cancels: with the outcomes exchanged for a
        // ratio above 1, and with both arms and outcomes exchanged where the treated plus the converted units
        // exceed all units.
        if ratio > 1.0 {
            let [a, b, c, d] = self.with_outcomes_exchanged().expected(1.0 / ratio);
            return [b, a, d, c];
        }
        let (n, m) = (self.treated[0] + self.treated[1], self.converted());
        // The number of units neither treated nor converted, minus those that are both.
        let others = self.untreated[1] - self.treated[0];
        if others < 0.0 {
            let exchanged = Table { treated: self.untreated, untreated: self.treated, ..*self };
            let [a, b, c, d] = exchanged.with_outcomes_exchanged().expected(ratio);
            return [d, c, b, a];
        }
        let (a, b) = (1.0 - ratio, others + ratio * (n + m));
        let root = (b * b + 4.0 * a * ratio * n * m).sqrt();
        let both = 2.0 * ratio * n * m / (b + root);
        let (treated, untreated, neither) = (n - both, m - both, others + both);
        // The less accurate of the two differences is computed from the ratio instead.
        if treated * m < untreated * n {
            [both, both / untreated * (neither / ratio), untreated, neither]
        } else {
            [both, treated, both / treated * (neither / ratio), neither]
        }
    }

    fn with_outcomes_exchanged(&self) -> Table {
        let exchanged = |[converted, not]: [f64; 2]| [not, converted];
        Table { treated: exchanged(self.treated), untreated: exchanged(self.untreated), ..*self }
    }
}

/// Cochran-Mantel-Haenszel over the strata in which both arms and both outcomes occur; the others
/// have no information about the odds. Returns [`Missing::Variation`] when no stratum remains, or when the odds
/// ratio is 0 or infinite.
pub fn common_odds(strata: &[Pair<Arm>]) -> Result<CommonOdds, Missing> {
    let tables: Vec<Table> = strata.iter().filter(|s| has_both_arms(s)).map(Table::of).collect();
    let informative: Vec<Table> = tables.into_iter().filter(Table::has_both_outcomes).collect();
    let (mut r_sum, mut s_sum) = (0.0, 0.0);
    let (mut pr, mut ps_qr, mut qs) = (0.0, 0.0, 0.0);
    let (mut excess, mut variance) = (0.0, 0.0);
    for table in &informative {
        let ([a, b], [c, d], n) = (table.treated, table.untreated, table.total);
        let (r, s) = (a * d / n, b * c / n);
        let (p, q) = ((a + d) / n, (b + c) / n);
        r_sum += r;
        s_sum += s;
        pr += p * r;
        ps_qr += p * s + q * r;
        qs += q * s;
        // Each margin is the sum of its own cells: computed from the total, a small margin would be lost in
        // rounding.
        let margins = (a + b) * (c + d) * ((a + c) * (b + d));
        excess += difference_of_products((a, d), (b, c)) / n;
        variance += margins / (n * n * (n - 1.0));
    }
    if r_sum == 0.0 || s_sum == 0.0 {
        return Err(Missing::Variation);
    }
    let odds_ratio = r_sum / s_sum;
    let log_variance =
        pr / (2.0 * r_sum * r_sum) + ps_qr / (2.0 * r_sum * s_sum) + qs / (2.0 * s_sum * s_sum);
    let cmh_chi2 = excess * excess / variance;
    Ok(CommonOdds {
        odds_ratio,
        log_standard_error: log_variance.sqrt(),
        cmh_chi2,
        cmh_p_value: chi_square_sf(cmh_chi2, 1.0),
        breslow_day: heterogeneity(&informative, odds_ratio),
    })
}

/// `a d - b c` accurate to a rounding, also where the products are nearly equal, because the rounding error
/// of a product is added back (Kahan's algorithm; Jeannerod, Louvet & Muller 2013, Mathematics of Computation
/// 82(284)).
fn difference_of_products((a, d): (f64, f64), (b, c): (f64, f64)) -> f64 {
    let product = b * c;
    let error = b.mul_add(-c, product);
    a.mul_add(d, -product) + error
}

fn heterogeneity(tables: &[Table], odds_ratio: f64) -> Option<Heterogeneity> {
    if tables.len() < 2 {
        return None;
    }
    let part = |table: &Table| {
        let cells = table.expected(odds_ratio);
        // The excess is the same in every cell except for the sign; the smallest cell gives it most accurately.
        let pairs = [table.treated, table.untreated].concat().into_iter().zip(cells);
        let excess =
            pairs.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0.0, |(observed, cell)| observed - cell);
        // Its square divided by the variance, which is 1 over the sum of the inverse cells.
        excess * excess * cells.iter().map(|cell| 1.0 / cell).sum::<f64>()
    };
    let chi2: f64 = tables.iter().map(part).sum();
    if !chi2.is_finite() {
        return None;
    }
    let degrees = tables.len() - 1;
    Some(Heterogeneity { chi2, degrees, p_value: chi_square_sf(chi2, degrees as f64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counts;

    fn stratum(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
        Pair { control, treatment }
            .map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
    }

    #[test]
    fn strata_with_an_empty_arm_are_named() {
        let strata = [stratum((0, 0), (1, 10)), stratum((2, 20), (3, 20)), stratum((2, 20), (0, 0))];
        let found = poststratify(&strata).unwrap();
        assert_eq!(found.dropped, [0, 2]);
        assert_eq!(found.differences.len(), 1);
        assert_eq!(found.mix, None);
        assert!(poststratify(&strata[..1]).is_err());
        assert!(poststratify(&[]).is_err());
    }

    /// The cells have the ratio and the margins, for ratios from 10^-30 to 10^30.
    #[test]
    fn expected_cells_have_the_ratio() {
        for stratum in [
            stratum((8, 10), (9, 10)),
            stratum((1, 1 << 50), (1 << 49, 1 << 50)),
            stratum((90, 91), (3, 1_000)),
        ] {
            let table = Table::of(&stratum);
            for exponent in [-30, -5, 0, 3, 30] {
                let ratio = 10_f64.powi(exponent);
                let [a, b, c, d] = table.expected(ratio);
                assert!([a, b, c, d].iter().all(|cell| *cell >= 0.0), "{stratum:?} {ratio}");
                assert!(((a + b) / (table.treated[0] + table.treated[1]) - 1.0).abs() < 1e-12);
                assert!(((a + c) / table.converted() - 1.0).abs() < 1e-12);
                if [a, b, c, d].iter().all(|cell| *cell > 0.0) {
                    assert!(
                        ((a / b) * (d / c) / ratio - 1.0).abs() < 1e-6,
                        "{stratum:?} {ratio}: {a} {b} {c} {d}"
                    );
                }
            }
        }
    }

    #[test]
    fn odds_need_conversions_on_both_sides() {
        assert_eq!(common_odds(&[stratum((0, 9), (3, 9))]), Err(Missing::Variation));
        assert_eq!(common_odds(&[stratum((0, 9), (0, 9))]), Err(Missing::Variation));
    }
}
