//! The evidence of counts against fixed shares, with a Dirichlet mixture as the alternative. Both the
//! anytime-valid sample ratio test and the conversion-count test use it.

use crate::{
    Invalid,
    special::{log1p_minus, stirling_remainder},
};

/// One category: its share under the null (above 0, all summing to 1) and its count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) share: f64,
    pub(crate) count: f64,
}

/// Returns `value` if the Bayes factor is accurate with this concentration, from 1e-6 to 1e15.
pub(crate) fn concentration(value: f64) -> Result<f64, Invalid> {
    if (1e-6..=1e15).contains(&value) {
        return Ok(value);
    }
    Err(Invalid::OutOfRange { what: "concentration", value, range: "from 1e-6 to 1e15" })
}

/// The logarithm of the Bayes factor of a Dirichlet(k p)-multinomial against a multinomial with
/// shares p: Lindon & Malek (2022), NeurIPS (arXiv 2011.03567),
///
/// `ln G(k) - ln G(k + n) + sum [ln G(k p_i + n_i) - ln G(k p_i)] - sum n_i ln p_i`.
///
/// It is written with Stirling's formula and its remainder S, so that the terms of size n ln n cancel on
/// paper instead of in the computer. With A = k + n and d_i = (n_i - n p_i) / (A p_i) it is
/// `sum [(A p_i (1 + d_i) - 1/2) ln(1 + d_i)] - (m - 1)/2 ln(1 + n/k) + sum [S(A p_i (1 + d_i)) -
/// S(k p_i)] - S(A) + S(k)`. It depends on the totals only: batching does not matter.
pub(crate) fn log_bayes_factor(cells: &[Cell], concentration: f64) -> f64 {
    let n: f64 = cells.iter().map(|cell| cell.count).sum();
    let k = concentration;
    let a = k + n;
    let mut log = stirling_remainder(k) - stirling_remainder(a);
    log -= 0.5 * (cells.len() as f64 - 1.0) * (n / k).ln_1p();
    for &Cell { share, count } in cells {
        let excess = (count - n * share) / (a * share);
        // The sum of a p_i d_i is 0, so subtracting d_i changes only the rounding.
        log += a * share * relative_entropy(excess) - 0.5 * excess.ln_1p();
        log += stirling_remainder(k * share + count) - stirling_remainder(k * share);
    }
    log
}

/// `(1 + d) ln(1 + d) - d`, about d^2 / 2 for a small d, where its parts cancel.
fn relative_entropy(d: f64) -> f64 {
    if d.abs() < 0.25 { (1.0 + d) * log1p_minus(d) + d * d } else { (1.0 + d) * d.ln_1p() - d }
}

#[cfg(test)]
mod tests {
    use statrs::function::gamma::ln_gamma;

    use super::*;

    /// The textbook form, which cancels for large counts but not for small ones.
    fn by_gamma_functions(cells: &[Cell], k: f64) -> f64 {
        let n: f64 = cells.iter().map(|cell| cell.count).sum();
        let of = |cell: &Cell| {
            ln_gamma(k * cell.share + cell.count) - ln_gamma(k * cell.share) - cell.count * cell.share.ln()
        };
        ln_gamma(k) - ln_gamma(k + n) + cells.iter().map(of).sum::<f64>()
    }

    fn halves(a: f64, b: f64) -> [Cell; 2] {
        [a, b].map(|count| Cell { share: 0.5, count })
    }

    #[test]
    fn agrees_with_the_textbook_form_where_that_is_accurate() {
        for k in [2.0, 10.0, 100.0] {
            for (a, b) in [(0.0, 0.0), (1.0, 0.0), (3.0, 9.0), (40.0, 25.0)] {
                let (ours, textbook) =
                    (log_bayes_factor(&halves(a, b), k), by_gamma_functions(&halves(a, b), k));
                assert!((ours - textbook).abs() < 1e-12, "{k} {a} {b}: {ours} {textbook}");
            }
        }
    }

    /// One unit is no evidence under a mixture centred at the null.
    #[test]
    fn one_unit_is_no_evidence() {
        assert!(log_bayes_factor(&halves(1.0, 0.0), 1e6).abs() < 1e-14);
    }

    /// Laplace's approximation, whose error at this size is of the order 1/n: the exact halves of
    /// 10^12 units leave -1/2 ln(1 + n/k).
    #[test]
    fn huge_counts_have_an_accurate_bayes_factor() {
        let got = log_bayes_factor(&halves(5e11, 5e11), 1e4);
        let expected = -0.5 * (1e12f64 / 1e4).ln_1p();
        assert!((got - expected).abs() < 1e-4, "{got} {expected}");
    }
}
