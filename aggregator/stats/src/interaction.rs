//! Two experiments over the same units: does the effect of one depend on the variant of the other,
//! and were the two assignments independent?
//!
//! An interaction needs about four times the units of a main effect. Over many pairs, correct with
//! Benjamini-Hochberg and raise the alarm at a false discovery rate of 0.01.

use crate::{
    Alpha, Alternative, Effect, Interval, Invalid, Missing, Moments, NoAnswer,
    distributions::{chi_square_sf, normal_sf, student_t_sf},
    multiple_testing::{Correction, adjust},
    srm::{self, Balance},
};

/// The outcomes of the units with each pair of variants: `cells[a][b]`, where index 0 is the control.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossed {
    cells: Vec<Vec<Moments>>,
}

/// The difference of the effect of variant `b` between variant `a` and the control of the other
/// experiment: `(m_ab - m_a0) - (m_0b - m_00)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interaction {
    /// Variant of the first experiment, from 1.
    pub a: usize,
    /// Variant of the second experiment, from 1.
    pub b: usize,
    /// In the metric's unit.
    pub effect: Effect,
    /// The estimate divided by the standard error.
    pub z: f64,
    /// Two-sided, from the normal distribution.
    pub p_value: f64,
    /// Two-sided, from t with [`Interaction::degrees`]; it differs from the normal one for small cells only.
    pub p_value_t: f64,
    /// Satterthwaite's degrees of freedom, over the four cells.
    pub degrees: f64,
}

impl Interaction {
    /// The normal interval.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        self.effect.interval(Alternative::TwoSided.critical_z(alpha))
    }
}

/// The joint test of all interactions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// Wald's statistic, at least 0.
    pub chi2: f64,
    /// (A - 1)(B - 1)
    pub degrees: usize,
    /// From 0 to 1.
    pub p_value: f64,
}

impl Crossed {
    /// Needs at least two variants of each experiment, and the same number of cells in every row.
    pub fn new(cells: Vec<Vec<Moments>>) -> Result<Crossed, Invalid> {
        let columns = cells.first().map_or(0, Vec::len);
        if let Some(odd) = cells.iter().find(|row| row.len() != columns) {
            let (what, right) = ("rows of cells", odd.len());
            return Err(Invalid::Lengths { what, left: columns, right });
        }
        let have = cells.len().min(columns);
        if have < 2 {
            return Err(Invalid::TooFew { what: "variants", have, need: 2 });
        }
        Ok(Crossed { cells })
    }

    /// The cells by variant of the first and of the second experiment, with the controls at 0.
    pub fn cells(&self) -> &[Vec<Moments>] {
        &self.cells
    }

    /// The interactions of all pairs of treatment variants. The standard error is
    /// `sqrt(sum s^2 / n)` over the four cells, which is ordinary least squares on all dummies with
    /// HC2 errors (MacKinnon & White 1985, Journal of Econometrics 29(3)).
    ///
    /// Needs two units in every cell and variation in one of the four.
    pub fn interactions(&self) -> Result<Vec<Interaction>, Missing> {
        let mut found = Vec::new();
        for a in 1..self.cells.len() {
            for b in 1..self.cells[0].len() {
                found.push(self.interaction(a, b)?);
            }
        }
        Ok(found)
    }

    fn interaction(&self, a: usize, b: usize) -> Result<Interaction, Missing> {
        let mean = |a: usize, b: usize| self.cells[a][b].mean();
        let four = [(a, b), (a, 0), (0, b), (0, 0)];
        let mut variance = 0.0;
        for (a, b) in four {
            variance += self.variance_of_mean(a, b)?;
        }
        if variance == 0.0 {
            return Err(Missing::Variation);
        }
        // Each cell's variance as a share of the whole, so that no square overflows or underflows.
        let mut squares = 0.0;
        for (a, b) in four {
            let share = self.variance_of_mean(a, b)? / variance;
            squares += share * share / (self.cells[a][b].count() - 1) as f64;
        }
        let effect = Effect {
            estimate: (mean(a, b) - mean(a, 0)) - (mean(0, b) - mean(0, 0)),
            standard_error: variance.sqrt(),
        };
        let z = effect.estimate / effect.standard_error;
        let degrees = 1.0 / squares;
        let two_sided = Alternative::TwoSided;
        Ok(Interaction {
            a,
            b,
            effect,
            z,
            p_value: two_sided.p_value(z, normal_sf),
            p_value_t: two_sided.p_value(z, |z| student_t_sf(z, degrees)),
            degrees,
        })
    }

    fn variance_of_mean(&self, a: usize, b: usize) -> Result<f64, Missing> {
        let cell = self.cells[a][b];
        let missing = Missing::Cell { a, b, have: cell.count(), need: 2 };
        let variance = cell.variance().ok_or(missing)?;
        Ok(variance / cell.count() as f64)
    }

    /// Wald's test that no pair of variants interacts: the interactions' vector times the inverse
    /// of their covariance matrix. Two contrasts share the cells that both contain.
    pub fn joint(&self) -> Result<Joint, Missing> {
        let interactions = self.interactions()?;
        let covariance = |i: &Interaction, j: &Interaction| -> Result<f64, Missing> {
            let mut sum = self.variance_of_mean(0, 0)?;
            if i.a == j.a {
                sum += self.variance_of_mean(i.a, 0)?;
            }
            if i.b == j.b {
                sum += self.variance_of_mean(0, i.b)?;
            }
            if (i.a, i.b) == (j.a, j.b) {
                sum += self.variance_of_mean(i.a, i.b)?;
            }
            Ok(sum)
        };
        let matrix = interactions
            .iter()
            .map(|i| interactions.iter().map(|j| covariance(i, j)).collect())
            .collect::<Result<Vec<Vec<f64>>, Missing>>()?;
        let estimates: Vec<f64> = interactions.iter().map(|i| i.effect.estimate).collect();
        let solved = crate::linear::solve(matrix, estimates.clone()).ok_or(Missing::Variation)?;
        let chi2 = estimates.iter().zip(&solved).map(|(e, s)| e * s).sum::<f64>().max(0.0);
        let degrees = interactions.len();
        Ok(Joint { chi2, degrees, p_value: chi_square_sf(chi2, degrees as f64) })
    }

    /// Tests whether the assignments are independent: chi-square on the counts of units. A failure means
    /// a shared hash seed, or that one experiment filters the units of the other.
    pub fn independence(&self) -> Result<Balance, NoAnswer> {
        let counts = |row: &Vec<Moments>| row.iter().map(|cell| cell.count()).collect();
        srm::balance(&self.cells.iter().map(counts).collect::<Vec<Vec<u64>>>())
    }

    /// The effect of variant `a` against its control inside each variant of the other experiment.
    pub fn effects_within(&self, a: usize) -> Vec<f64> {
        let columns = 0..self.cells[0].len();
        columns.map(|b| self.cells[a][b].mean() - self.cells[0][b].mean()).collect()
    }

    /// The effect of variant `a` over all variants of the other experiment, as the report of the
    /// experiment itself shows it.
    pub fn effect_marginal(&self, a: usize) -> f64 {
        let all = |row: &[Moments]| row.iter().fold(Moments::EMPTY, |sum, &cell| sum.merge(cell));
        all(&self.cells[a]).mean() - all(&self.cells[0]).mean()
    }
}

/// The false discovery rate at which the platform raises an alarm over pairs of experiments.
pub const ALARM_RATE: f64 = 0.01;

/// The adjusted p-values of one pair of experiments among all pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Screened {
    /// The joint test of interaction, adjusted for all pairs.
    pub interaction: Result<f64, Missing>,
    /// The test that the assignments are independent, adjusted for all pairs.
    pub independence: Result<f64, Missing>,
}

/// Tests all pairs and adjusts the p-values by Benjamini & Hochberg (1995, JRSS B 57(1)), the interactions
/// among themselves and the independences among themselves, in the order given. Compare them with
/// [`ALARM_RATE`]. Pairs without an answer are not counted. Pairs that share an experiment depend on each
/// other; the rate is then kept as far as they are positively dependent (Benjamini & Yekutieli 2001, Annals
/// of Statistics 29(4)).
pub fn screen(pairs: &[Crossed]) -> Vec<Screened> {
    let interaction = pairs.iter().map(|pair| pair.joint().map(|joint| joint.p_value)).collect();
    let independence = pairs.iter().map(|pair| match pair.independence() {
        Ok(test) => Ok(test.p_value),
        Err(NoAnswer::Missing(missing)) => Err(missing),
        Err(NoAnswer::Invalid(invalid)) => panic!("{invalid}, which the type excludes"),
    });
    let adjusted = adjusted(interaction).into_iter().zip(adjusted(independence.collect()));
    adjusted.map(|(interaction, independence)| Screened { interaction, independence }).collect()
}

fn adjusted(p_values: Vec<Result<f64, Missing>>) -> Vec<Result<f64, Missing>> {
    let known: Vec<f64> = p_values.iter().flatten().copied().collect();
    let adjusted = adjust(&known, Correction::BenjaminiHochberg).expect("p-values lie between 0 and 1");
    let mut next = adjusted.into_iter();
    p_values.into_iter().map(|p| p.map(|_| next.next().expect("one each"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cell_is_named() {
        let cell = Moments::of([1.0, 2.0, 4.0]).unwrap();
        let small = Moments::of([1.0]).unwrap();
        let crossed = Crossed::new(vec![vec![cell, cell], vec![small, cell]]).unwrap();
        let missing = Missing::Cell { a: 1, b: 0, have: 1, need: 2 };
        assert_eq!(crossed.interactions(), Err(missing));
        assert_eq!(crossed.joint(), Err(missing));
    }

    #[test]
    fn cells_form_a_table() {
        let cell = Moments::of([1.0, 2.0]).unwrap();
        assert!(Crossed::new(vec![vec![cell, cell], vec![cell]]).is_err());
        assert!(Crossed::new(vec![vec![cell, cell]]).is_err());
        assert!(Crossed::new(vec![]).is_err());
    }

    /// With one interaction, Wald's statistic is z squared.
    #[test]
    fn one_interaction_has_the_same_joint_test() {
        let cell = |values: [f64; 3]| Moments::of(values).unwrap();
        let crossed = Crossed::new(vec![
            vec![cell([1.0, 2.0, 4.0]), cell([2.0, 2.0, 3.0])],
            vec![cell([1.0, 5.0, 4.0]), cell([9.0, 7.0, 7.5])],
        ])
        .unwrap();
        let one = crossed.interactions().unwrap()[0];
        let joint = crossed.joint().unwrap();
        assert!((joint.chi2 - one.z * one.z).abs() < 1e-12);
        assert_eq!(joint.degrees, 1);
    }

    /// One pair interacts, and one has no answer. 3 tests are counted, so the smallest p becomes 3 p.
    #[test]
    fn all_pairs_are_adjusted_together() {
        let cell = |mean: f64| Moments::from_variance(1_000, mean, 1.0).unwrap();
        let pair =
            |last: f64| Crossed::new(vec![vec![cell(0.0), cell(0.0)], vec![cell(0.0), cell(last)]]).unwrap();
        let empty = Crossed::new(vec![vec![Moments::EMPTY; 2], vec![Moments::EMPTY; 2]]).unwrap();
        let pairs = [pair(0.0), pair(0.3), empty, pair(0.0)];
        let screened = screen(&pairs);
        let alone = pairs[1].joint().unwrap().p_value;
        assert_eq!(screened[1].interaction, Ok(3.0 * alone));
        assert!(screened[1].interaction.unwrap() < ALARM_RATE);
        assert_eq!(screened[0].interaction, Ok(1.0));
        assert_eq!(screened[2].interaction, Err(Missing::Cell { a: 1, b: 1, have: 0, need: 2 }));
        assert_eq!(screened[0].independence, Ok(1.0));
        assert!(screened[2].independence.is_err());
    }
}
