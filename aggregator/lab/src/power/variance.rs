//! The effect of clusters and covariates on the variance of a difference. Pure.

use stats::{Invalid, power};

/// The properties that make the variance of a difference larger or smaller than that of independent units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variance {
    /// The units of one cluster; 1 where units themselves are assigned.
    pub cluster_size: f64,
    /// The intraclass correlation of a cluster's units, from 0 to 1.
    pub intraclass_correlation: f64,
    /// The correlation of the outcome with a covariate from before the experiment, from -1 to 1 (exclusive):
    /// CUPED.
    pub covariate_correlation: f64,
}

impl Variance {
    /// Independent units without a covariate.
    pub const PLAIN: Variance =
        Variance { cluster_size: 1.0, intraclass_correlation: 0.0, covariate_correlation: 0.0 };

    /// `(1 + (m - 1) icc) (1 - rho^2)`
    pub(super) fn factor(self) -> Result<f64, Invalid> {
        let rho = self.covariate_correlation;
        if !(rho > -1.0 && rho < 1.0) {
            let range = "strictly between -1 and 1";
            return Err(Invalid::OutOfRange { what: "covariate correlation", value: rho, range });
        }
        let effect = power::design_effect(self.cluster_size, self.intraclass_correlation)?;
        Ok(effect * (1.0 - rho * rho))
    }
}
