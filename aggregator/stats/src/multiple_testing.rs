//! Several tests at once: adjusted p-values, which are compared with the unchanged level, and the
//! level of the intervals that go with them.
//!
//! Only tests that were carried out count: leave out missing ones. Always-valid p-values may be adjusted
//! like any others; group-sequential tests of several arms each run at a share of alpha instead.

use crate::{Alpha, Invalid};

/// The error rate that is controlled, and the procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Any false positive; valid under every dependence.
    Bonferroni,
    /// Any false positive, never weaker than Bonferroni, valid under every dependence (Holm 1979,
    /// Scandinavian Journal of Statistics 6(2)). The platform's choice over arms.
    Holm,
    /// Any false positive, for independent or positively dependent tests (Hochberg 1988,
    /// Biometrika 75(4)).
    Hochberg,
    /// The share of false among all positives, for independent or positively dependent tests
    /// (Benjamini & Hochberg 1995, JRSS B 57(1)). The platform's choice over secondary metrics.
    BenjaminiHochberg,
    /// The same under every dependence (Benjamini & Yekutieli 2001, Annals of Statistics 29(4)).
    BenjaminiYekutieli,
}

/// Returns adjusted p-values in the order given; reject where one is at most alpha. As R's `p.adjust`.
pub fn adjust(p_values: &[f64], correction: Correction) -> Result<Vec<f64>, Invalid> {
    if let Some(&value) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Invalid::OutOfRange { what: "p-value", value, range: "from 0 to 1" });
    }
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    // The i-th smallest p-value, i from 1, times its factor.
    let raised = |i: usize, p: f64| {
        let (m, rank) = (m as f64, i as f64);
        match correction {
            Correction::Bonferroni => m * p,
            Correction::Holm | Correction::Hochberg => (m - rank + 1.0) * p,
            Correction::BenjaminiHochberg => m / rank * p,
            Correction::BenjaminiYekutieli => harmonic(p_values.len()) * (m / rank) * p,
        }
    };
    let mut adjusted = vec![0.0; m];
    match correction {
        Correction::Bonferroni => {
            for (slot, &p) in adjusted.iter_mut().zip(p_values) {
                *slot = raised(1, p).min(1.0);
            }
        }
        // Step down: no p-value may be adjusted below a smaller one's.
        Correction::Holm => {
            let mut largest: f64 = 0.0;
            for (i, &index) in order.iter().enumerate() {
                largest = largest.max(raised(i + 1, p_values[index])).min(1.0);
                adjusted[index] = largest;
            }
        }
        // Step up: no p-value may be adjusted above a larger one's.
        Correction::Hochberg | Correction::BenjaminiHochberg | Correction::BenjaminiYekutieli => {
            let mut smallest: f64 = 1.0;
            for (i, &index) in order.iter().enumerate().rev() {
                smallest = smallest.min(raised(i + 1, p_values[index]));
                adjusted[index] = smallest;
            }
        }
    }
    Ok(adjusted)
}

/// 1 + 1/2 + ... + 1/m
fn harmonic(m: usize) -> f64 {
    (1..=m).map(|i| 1.0 / i as f64).sum()
}

/// Returns the level for intervals that match the correction, when `rejected` of `tests` hypotheses were
/// rejected. Bonferroni, Holm and Hochberg: `alpha / tests`, for simultaneous coverage (wider than Holm's
/// tests need). The two others: `alpha * rejected / tests`, counting at least one rejection, for the false
/// coverage rate of the rejected ones (Benjamini & Yekutieli 2005, JASA 100).
pub fn interval_alpha(
    alpha: Alpha,
    correction: Correction,
    tests: usize,
    rejected: usize,
) -> Result<Alpha, Invalid> {
    if rejected > tests || tests == 0 {
        return Err(Invalid::Lengths { what: "tests and rejections", left: tests, right: rejected });
    }
    let (rejected, tests_counted) = (rejected.max(1) as f64, tests as f64);
    let of = alpha.get();
    Alpha::new(match correction {
        Correction::Bonferroni | Correction::Holm | Correction::Hochberg => of / tests_counted,
        Correction::BenjaminiHochberg => of * rejected / tests_counted,
        Correction::BenjaminiYekutieli => of * rejected / (tests_counted * harmonic(tests)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_must_be_between_0_and_1() {
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(adjust(&[0.5, p], Correction::Holm).is_err(), "{p}");
        }
    }

    #[test]
    fn interval_levels_follow_the_correction() {
        let level = |correction, rejected| {
            interval_alpha(Alpha::FIVE_PERCENT, correction, 10, rejected).unwrap().get()
        };
        assert_eq!(level(Correction::Holm, 4), 0.005);
        assert_eq!(level(Correction::BenjaminiHochberg, 4), 0.02);
        assert_eq!(level(Correction::BenjaminiHochberg, 0), 0.005);
        assert!(interval_alpha(Alpha::FIVE_PERCENT, Correction::Holm, 1, 2).is_err());
    }
}
