//! Caps for heavy-tailed metrics: every unit's total is cut at a quantile of all arms together, and
//! the capped values are then compared like any others. The estimated quantity is the capped mean.
//!
//! A cap per arm would cut more from a treatment that raises the tail, and a cap that changes between
//! looks invalidates group-sequential tests: compute it once, from all arms, and keep it.

use crate::{Invalid, quantile::rank, terms::between_0_and_1};

/// The platform's share of the non-zero totals that stays uncut.
pub const QUANTILE: f64 = 0.999;

/// The definition of a quantile that falls between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantileRule {
    /// Between the two nearest values: type 7 of Hyndman & Fan (1996), The American Statistician
    /// 50(4); numpy, Excel, ClickHouse `quantileExactInclusive`.
    Linear,
    /// The smallest value that at least this share does not exceed: their type 1.
    InvertedCdf,
}

/// The rule that determines the caps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The share of the totals that the upper cap does not cut, strictly between 0 and 1; at least 0.5 where
    /// both sides are cut.
    pub quantile: f64,
    /// The definition of the quantile.
    pub reading: QuantileRule,
    /// Whether to cut also below the quantile `1 - quantile`.
    pub both_sides: bool,
    /// Whether to compute the quantiles from the non-zero totals only. Otherwise, if the share of zeros exceeds
    /// `quantile`, the cap is 0 and every value becomes 0.
    pub ignore_zeros: bool,
}

/// The caps, the lower at most the upper; a missing cap is infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caps {
    /// In the metric's unit; minus infinity cuts nothing.
    pub lower: f64,
    /// In the metric's unit.
    pub upper: f64,
}

impl Caps {
    /// Computes the caps by `rule` from the totals of the units of all arms; `None` when no total counts.
    pub fn find(totals: &[f64], rule: Rule) -> Result<Option<Caps>, Invalid> {
        let q = between_0_and_1("quantile", rule.quantile)?;
        if rule.both_sides && q < 0.5 {
            // The lower cap would be above the upper one.
            return Err(Invalid::OutOfRange {
                what: "quantile",
                value: q,
                range: "at least 0.5 for caps on both sides",
            });
        }
        if let Some(&value) = totals.iter().find(|total| !total.is_finite()) {
            return Err(Invalid::NotFinite { what: "total", value });
        }
        let counted = totals.iter().copied().filter(|&total| !rule.ignore_zeros || total != 0.0);
        let mut sorted: Vec<f64> = counted.collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return Ok(None);
        }
        let at = |q| quantile_of_sorted(&sorted, q, rule.reading);
        let upper = at(q);
        let lower = if rule.both_sides { at(1.0 - q).min(upper) } else { f64::NEG_INFINITY };
        Ok(Some(Caps { lower, upper }))
    }

    /// Returns the total, or the cap that it exceeds.
    pub fn apply(self, total: f64) -> f64 {
        total.max(self.lower).min(self.upper)
    }

    /// Returns whether this total is cut.
    pub fn cuts(self, total: f64) -> bool {
        total < self.lower || total > self.upper
    }

    /// Returns whether the cap is 0: more than the chosen share of totals is 0, and every value becomes 0.
    /// Callers should show this as a warning.
    pub fn destroys_metric(self) -> bool {
        self.upper == 0.0
    }
}

/// The quantile `q` in 0..=1 of ascending values, at least one.
fn quantile_of_sorted(sorted: &[f64], q: f64, reading: QuantileRule) -> f64 {
    let last = sorted.len() - 1;
    match reading {
        QuantileRule::Linear => {
            let position = last as f64 * q;
            let below = (position.floor() as usize).min(last);
            let above = (below + 1).min(last);
            let between = sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]);
            between.min(sorted[above])
        }
        QuantileRule::InvertedCdf => sorted[rank(q, sorted.len()) - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPPER: Rule =
        Rule { quantile: 0.5, reading: QuantileRule::Linear, both_sides: false, ignore_zeros: false };

    #[test]
    fn the_two_quantile_rules_differ_between_values() {
        let caps = |reading| Caps::find(&[4.0, 1.0, 2.0, 3.0], Rule { reading, ..UPPER });
        assert_eq!(caps(QuantileRule::Linear).unwrap().unwrap().upper, 2.5);
        assert_eq!(caps(QuantileRule::InvertedCdf).unwrap().unwrap().upper, 2.0);
    }

    /// 30 % cut above and 30 % below leave a middle; with 70 % above and 70 % below the caps would cross.
    #[test]
    fn caps_on_both_sides_do_not_cross() {
        let totals = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        for reading in [QuantileRule::Linear, QuantileRule::InvertedCdf] {
            let both = |quantile| Caps::find(&totals, Rule { quantile, reading, both_sides: true, ..UPPER });
            for quantile in [0.3, 0.499_999] {
                let range = "at least 0.5 for caps on both sides";
                assert_eq!(
                    both(quantile),
                    Err(Invalid::OutOfRange { what: "quantile", value: quantile, range })
                );
            }
            for quantile in [0.5, 0.500_000_1, 0.7, 0.999] {
                let caps = both(quantile).unwrap().unwrap();
                assert!(caps.lower <= caps.upper, "{quantile}: {caps:?}");
                assert_eq!(caps.apply(-1.0), caps.lower);
            }
        }
        assert_eq!(Caps::find(&totals, Rule { quantile: 0.3, ..UPPER }).unwrap().unwrap().upper, 2.5);
    }

    /// 0.55 of 100 totals is the 55th, and 0.45 (1 - 0.55) is the 45th.
    #[test]
    fn shares_of_totals_are_decimals() {
        let totals: Vec<f64> = (1..=100).map(f64::from).collect();
        let rule = Rule {
            quantile: 0.55,
            reading: QuantileRule::InvertedCdf,
            both_sides: true,
            ignore_zeros: false,
        };
        assert_eq!(Caps::find(&totals, rule), Ok(Some(Caps { lower: 45.0, upper: 55.0 })));
    }

    #[test]
    fn a_cap_of_zero_is_reported() {
        let totals = [0.0, 0.0, 0.0, 5.0];
        assert!(Caps::find(&totals, UPPER).unwrap().unwrap().destroys_metric());
        let nonzero = Rule { ignore_zeros: true, ..UPPER };
        assert_eq!(Caps::find(&totals, nonzero).unwrap().unwrap().upper, 5.0);
        assert_eq!(Caps::find(&[0.0], nonzero), Ok(None));
        assert_eq!(Caps::find(&[], UPPER), Ok(None));
    }

    #[test]
    fn quantiles_must_be_strictly_between_0_and_1() {
        assert!(Caps::find(&[1.0], Rule { quantile: 1.0, ..UPPER }).is_err());
        assert!(Caps::find(&[f64::NAN], UPPER).is_err());
    }
}
