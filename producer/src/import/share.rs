//! Foreign weights as basis points, which add up to everything. A weight that is no whole number of them is rounded, and the
//! caller hears of it.

/// Everything, in basis points.
pub const ALL: u32 = 10_000;

/// Weights as basis points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    pub basis_points: Vec<u32>,
    /// Whether each is exactly its weight's part of the sum.
    pub exact: bool,
}

/// Divides everything by the weights: each share is rounded down, and those that lost most get what is left, the first of equal
/// ones first. `None` if the weights add up to nothing or one is negative.
pub fn relative(weights: &[f64]) -> Option<Shares> {
    let sum: f64 = weights.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) || weights.iter().any(|weight| *weight < 0.0) {
        return None;
    }
    let exact_shares: Vec<f64> = weights.iter().map(|weight| weight / sum * f64::from(ALL)).collect();
    let near = |share: &f64| (share - share.round()).abs() < 1e-6;
    let mut basis_points: Vec<u32> = Vec::new();
    for share in &exact_shares {
        basis_points.push(if near(share) { share.round() } else { share.floor() } as u32);
    }
    let mut by_loss: Vec<usize> = (0..weights.len()).collect();
    let loss = |index: &usize| exact_shares[*index] - f64::from(basis_points[*index]);
    by_loss.sort_by(|left, right| loss(right).total_cmp(&loss(left)));
    let missing = ALL.saturating_sub(basis_points.iter().sum()) as usize;
    for index in by_loss.into_iter().cycle().take(missing) {
        basis_points[index] += 1;
    }
    Some(Shares { exact: exact_shares.iter().all(near), basis_points })
}

/// A share of everything, from 0 to 1, and whether it is exactly that. A share outside is cut.
pub fn absolute(share: f64) -> (u32, bool) {
    let exact = (share * f64::from(ALL)).clamp(0.0, f64::from(ALL));
    let rounded = exact.round();
    (rounded as u32, (exact - rounded).abs() < 1e-6)
}

/// Writes basis points as a percentage.
pub fn percent(basis_points: u32) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_parts_of_their_sum() {
        for (weights, basis_points, exact) in [
            (&[25.0, 25.0, 25.0, 25.0][..], &[2_500, 2_500, 2_500, 2_500][..], true),
            (&[1.0, 2.0], &[3_333, 6_667], false),
            (&[1.0, 1.0, 1.0], &[3_334, 3_333, 3_333], false),
            (&[0.334, 0.333, 0.333], &[3_340, 3_330, 3_330], true),
            (&[0.0, 7.0], &[0, 10_000], true),
        ] {
            let shares = relative(weights).unwrap();
            assert_eq!((shares.basis_points.as_slice(), shares.exact), (basis_points, exact), "{weights:?}");
        }
        for weights in [&[][..], &[0.0], &[-1.0, 2.0]] {
            assert_eq!(relative(weights), None, "{weights:?}");
        }
    }

    #[test]
    fn a_share_is_written_as_a_percentage() {
        assert_eq!(absolute(0.5), (5_000, true));
        assert_eq!(absolute(0.123_45), (1_235, false));
        assert_eq!(absolute(1.5), (10_000, true));
        for (basis_points, text) in [(0, "0%"), (10, "0.1%"), (3_333, "33.33%"), (10_000, "100%")] {
            assert_eq!(percent(basis_points), text);
        }
    }
}
