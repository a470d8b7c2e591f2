//! Secondary metrics decide nothing and have no boundary under any plan: their intervals and p-values are
//! always-valid, so that they may be read at any time, and the p-values are adjusted for the number of metrics.

use stats::multiple_testing::{Correction, adjust};

use crate::document::{AlwaysValidResult, MetricResult, Role};

/// Adjusts the always-valid p-values of all secondary metrics and treatments together after Benjamini and
/// Hochberg: of those at most alpha, a share of at most alpha is expected to be false. A result without a
/// p-value is no test.
pub fn adjust_p_values(metrics: &mut [MetricResult]) {
    let secondary = metrics.iter_mut().filter(|metric| metric.role == Role::Secondary);
    let mut looks: Vec<&mut AlwaysValidResult> =
        secondary.flat_map(|metric| &mut metric.always_valid).filter(|look| look.p_value.is_some()).collect();
    let p_values: Vec<f64> = looks.iter().filter_map(|look| look.p_value).collect();
    let adjusted = adjust(&p_values, Correction::BenjaminiHochberg).expect("p-values are from 0 to 1");
    for (look, adjusted) in looks.iter_mut().zip(adjusted) {
        look.p_value_adjusted = Some(adjusted);
    }
}
