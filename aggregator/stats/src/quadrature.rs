//! Gauss-Legendre quadrature: exact for polynomials of degree 2n - 1, and with a few dozen points
//! exact to rounding for the smooth integrands of this package.

use std::sync::OnceLock;

/// Nodes and weights on [-1, 1], nodes ascending.
#[derive(Clone, Debug)]
pub(crate) struct GaussLegendre {
    nodes: Vec<f64>,
    weights: Vec<f64>,
}

/// Shared rules have a multiple of this many points.
const SHARED_STEP: usize = 2;

/// The largest shared rule has this many steps; requests for more get this rule.
const SHARED_RULES: usize = 2048;

static SHARED: [OnceLock<GaussLegendre>; SHARED_RULES] = [const { OnceLock::new() }; SHARED_RULES];

impl GaussLegendre {
    /// A rule with at least `points` points (at most 4096), computed once per process.
    pub(crate) fn shared(points: usize) -> &'static GaussLegendre {
        let steps = points.div_ceil(SHARED_STEP).clamp(1, SHARED_RULES);
        SHARED[steps - 1].get_or_init(|| GaussLegendre::new(steps * SHARED_STEP))
    }

    /// The rule with `points` >= 1 points. Newton's method on the Legendre polynomial from
    /// Tricomi's starting values (Press et al., Numerical Recipes, section 4.6).
    pub(crate) fn new(points: usize) -> GaussLegendre {
        let n = points as f64;
        let mut nodes = vec![0.0; points];
        let mut weights = vec![0.0; points];
        for i in 0..points.div_ceil(2) {
            let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5)).cos();
            let mut slope = 1.0;
            for _ in 0..10 {
                let (value, derivative) = legendre(points, x);
                slope = derivative;
                let step = value / derivative;
                x -= step;
                if step.abs() < 1e-15 {
                    break;
                }
            }
            let weight = 2.0 / ((1.0 - x * x) * slope * slope);
            (nodes[i], weights[i]) = (-x, weight);
            (nodes[points - 1 - i], weights[points - 1 - i]) = (x, weight);
        }
        GaussLegendre { nodes, weights }
    }

    /// The integral of `f` from `lower` to `upper`.
    pub(crate) fn integrate(&self, lower: f64, upper: f64, f: impl Fn(f64) -> f64) -> f64 {
        self.over(lower, upper).map(|(x, weight)| weight * f(x)).sum()
    }

    /// Returns each point and its weight, scaled to [`lower`, `upper`].
    pub(crate) fn over(&self, lower: f64, upper: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let (middle, half) = (0.5 * (lower + upper), 0.5 * (upper - lower));
        self.nodes.iter().zip(&self.weights).map(move |(&x, &weight)| (middle + half * x, half * weight))
    }
}

/// The Legendre polynomial of degree `n` and its derivative at x, |x| < 1.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut previous, mut current) = (0.0, 1.0);
    for k in 1..=n {
        let k = k as f64;
        let next = ((2.0 * k - 1.0) * x * current - (k - 1.0) * previous) / k;
        (previous, current) = (current, next);
    }
    (current, n as f64 * (x * current - previous) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_points_are_the_printed_ones() {
        let rule = GaussLegendre::new(3);
        let expected = [-(0.6f64.sqrt()), 0.0, 0.6f64.sqrt()];
        for (got, expected) in rule.nodes.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-14, "{got} {expected}");
        }
        for (got, expected) in rule.weights.iter().zip([5.0 / 9.0, 8.0 / 9.0, 5.0 / 9.0]) {
            assert!((got - expected).abs() < 1e-14, "{got} {expected}");
        }
    }

    #[test]
    fn n_points_integrate_degree_2n_minus_1_exactly() {
        let rule = GaussLegendre::new(8);
        let integral = rule.integrate(0.0, 2.0, |x| x.powi(15) - 3.0 * x.powi(14));
        let exact = 2f64.powi(16) / 16.0 - 3.0 * 2f64.powi(15) / 15.0;
        assert!((integral - exact).abs() < 1e-11 * exact.abs(), "{integral} {exact}");
    }

    #[test]
    fn the_normal_density_integrates_to_1() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let integral = GaussLegendre::new(64).integrate(-10.0, 10.0, density);
        assert!((integral - 1.0).abs() < 1e-14, "{integral}");
    }
}
