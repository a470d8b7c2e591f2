//! How much of alpha may be spent by which share of the information.

use crate::{
    Invalid,
    distributions::{normal_quantile, normal_sf},
    terms::positive,
};

/// An alpha-spending function (Lan & DeMets 1983, Biometrika 70(3)): non-decreasing, 0 at no
/// information, all of alpha at the planned information.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spending {
    /// Spends almost nothing early and leaves almost the fixed-horizon bound at the end; the platform's
    /// default.
    OBrienFleming,
    /// Spends much early, and has a higher bound at the end.
    Pocock,
    /// `alpha t^exponent` (Kim & DeMets 1987, Biometrika 74(1)); see [`Spending::power`].
    Power {
        /// Above 0.
        exponent: f64,
    },
    /// `alpha (1 - e^(-gamma t)) / (1 - e^-gamma)` (Hwang, Shih & DeCani 1990, Statistics in
    /// Medicine 9(12)); see [`Spending::gamma`].
    Gamma {
        /// From -100 to 100.
        gamma: f64,
    },
}

impl Spending {
    /// The power family; the exponent is above 0 (1 spends evenly, 3 is close to O'Brien-Fleming).
    pub fn power(exponent: f64) -> Result<Spending, Invalid> {
        Ok(Spending::Power { exponent: positive("exponent of the spending", exponent)? })
    }

    /// The gamma family; -4 is close to O'Brien-Fleming, 1 is close to Pocock, 0 spends evenly.
    pub fn gamma(gamma: f64) -> Result<Spending, Invalid> {
        if gamma.is_finite() && gamma.abs() <= 100.0 {
            Ok(Spending::Gamma { gamma })
        } else {
            let range = "between -100 and 100";
            Err(Invalid::OutOfRange { what: "gamma of the spending", value: gamma, range })
        }
    }

    /// Returns how much of `alpha` may be spent by `fraction` >= 0 of the planned information, on one side.
    /// O'Brien-Fleming: `2 (1 - Phi(z_{1 - alpha/2} / sqrt t))`; Pocock: `alpha ln(1 + (e - 1) t)`.
    /// For a two-sided test `alpha` is half its level; with the whole level the bounds would not
    /// be the published ones.
    pub fn spent(self, fraction: f64, alpha: f64) -> f64 {
        if fraction >= 1.0 {
            return alpha;
        }
        if fraction <= 0.0 {
            return 0.0;
        }
        match self {
            Spending::OBrienFleming => 2.0 * normal_sf(-normal_quantile(alpha / 2.0) / fraction.sqrt()),
            Spending::Pocock => alpha * ((std::f64::consts::E - 1.0) * fraction).ln_1p(),
            Spending::Power { exponent } => alpha * fraction.powf(exponent),
            Spending::Gamma { gamma: 0.0 } => alpha * fraction,
            Spending::Gamma { gamma } => alpha * (-gamma * fraction).exp_m1() / (-gamma).exp_m1(),
        }
    }
}
