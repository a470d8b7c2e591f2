//! The split of the units among the variants, in the notation "50/50".

use std::fmt;
use std::str::FromStr;

/// The shares of the units, the control first: at least two, all above 0, in any scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Split(Vec<f64>);

impl Split {
    /// The shares, the control's first.
    pub fn shares(&self) -> &[f64] {
        &self.0
    }
}

impl FromStr for Split {
    type Err = String;

    /// Parses "50/50", "90/10", "50/25/25", ...
    fn from_str(text: &str) -> Result<Split, String> {
        let refusal = || {
            format!(
                "`{text}` is not a split: shares above 0 with slashes between, the control first, as in 50/50"
            )
        };
        let shares: Vec<f64> = text
            .split('/')
            .map(|share| share.trim().parse().map_err(|_| refusal()))
            .collect::<Result<_, _>>()?;
        if shares.len() < 2 || shares.iter().any(|share| !(share.is_finite() && *share > 0.0)) {
            return Err(refusal());
        }
        Ok(Split(shares))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares: Vec<String> = self.0.iter().map(f64::to_string).collect();
        formatter.write_str(&shares.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::Split;

    #[test]
    fn a_split_has_two_shares_above_0() {
        let split: Split = "50/25/25".parse().unwrap();
        assert_eq!((split.shares(), split.to_string()), (&[50.0, 25.0, 25.0][..], "50/25/25".to_owned()));
        for text in ["100", "50/0", "50/x", "-1/2", "1/NaN", ""] {
            let expected = format!(
                "`{text}` is not a split: shares above 0 with slashes between, the control first, as in 50/50"
            );
            assert_eq!(text.parse::<Split>().unwrap_err(), expected);
        }
    }
}
