//! Brownian paths that have not left the continuation region at any look so far. The z statistic
//! at information t is B(t)/sqrt(t), so every question about a boundary is one about such paths.

use crate::{distributions::normal_tail_and_density, quadrature::GaussLegendre};

/// Regions and single steps are cut this many standard deviations from their centre. The part
/// beyond has probability 1e-19, and 3e-7 where a drift of four standard deviations points
/// there.
const REACH_SD: f64 = 9.0;

/// The surviving paths at one look, as a quadrature: integrals over their density are sums over `points`
/// weighted by `mass`. The weights are those without drift; [`Survivors::tilt`] re-weights them for others.
#[derive(Clone, Debug)]
pub(crate) struct Survivors {
    time: f64,
    points: Vec<f64>,
    mass: Vec<f64>,
    /// Each point represents itself and its mirror image, with `mass` each.
    folded: bool,
}

/// A probability and its derivative with respect to the level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) probability: f64,
    pub(crate) density: f64,
}

impl Survivors {
    /// All paths at time 0, where they are at 0.
    pub(crate) fn start() -> Survivors {
        Survivors { time: 0.0, points: vec![0.0], mass: vec![1.0], folded: false }
    }

    pub(crate) fn time(&self) -> f64 {
        self.time
    }

    /// The highest point of the grid.
    pub(crate) fn highest(&self) -> f64 {
        self.points.last().copied().expect("a grid has points")
    }

    /// P(survived so far and B(time) > level), for a drift per unit of time.
    pub(crate) fn above(&self, time: f64, level: f64, drift: f64) -> Tail {
        self.beyond(time, level, drift, 1.0)
    }

    /// P(survived so far and B(time) < level), for a drift per unit of time.
    pub(crate) fn below(&self, time: f64, level: f64, drift: f64) -> Tail {
        self.beyond(time, -level, -drift, -1.0)
    }

    /// The tail above `level` of the paths multiplied by `sign`.
    fn beyond(&self, time: f64, level: f64, drift: f64, sign: f64) -> Tail {
        let step = time - self.time;
        let sd = step.sqrt();
        let mut tail = Tail { probability: 0.0, density: 0.0 };
        let mut add = |point: f64, mass: f64| {
            let z = (level - point - drift * step) / sd;
            if z < REACH_SD {
                let mass = mass * self.tilt(point, drift);
                let (probability, density) = normal_tail_and_density(z);
                tail.probability += mass * probability;
                tail.density += mass * density / sd;
            }
        };
        for (&point, &mass) in self.points.iter().zip(&self.mass) {
            add(sign * point, mass);
            if self.folded {
                add(-sign * point, mass);
            }
        }
        tail
    }

    /// How much likelier a path to `point` is with drift than without: Girsanov's
    /// `exp(drift x - drift^2 t / 2)`. What happened on the way does not matter.
    fn tilt(&self, point: f64, drift: f64) -> f64 {
        if drift == 0.0 { 1.0 } else { (drift * point - 0.5 * drift * drift * self.time).exp() }
    }

    /// The density of survivors at `y` at a later time, without drift; `y >= 0` if folded.
    fn density_at(&self, time: f64, y: f64) -> f64 {
        let sd = (time - self.time).sqrt();
        let mut sum = 0.0;
        for (&point, &mass) in self.points.iter().zip(&self.mass) {
            sum += mass * bell((y - point) / sd);
        }
        if self.folded {
            let near = self.points.partition_point(|&point| y + point < REACH_SD * sd);
            for (&point, &mass) in self.points[..near].iter().zip(&self.mass) {
                sum += mass * bell((y + point) / sd);
            }
        }
        sum * INVERSE_SQRT_TAU / sd
    }

    /// The surviving paths that are inside `lower..upper` at `time`, on points close enough together to
    /// step to `next_time` with an error below 1e-9. A region symmetric about 0 is folded.
    pub(crate) fn inside(&self, time: f64, lower: f64, upper: f64, next_time: f64) -> Survivors {
        let reach = REACH_SD * time.sqrt();
        let (lower, upper) = (lower.max(-reach), upper.min(reach));
        let mirror = lower == -upper && (self.folded || self.points == [0.0]);
        let from = if mirror { 0.0 } else { lower };
        // The integrand of the next step is a product of densities of both steps' widths.
        let finest = (time - self.time).min(next_time - time).sqrt();
        let rule = GaussLegendre::shared(points_for((upper - from) / finest));
        let (points, mass) =
            rule.over(from, upper).map(|(y, weight)| (y, weight * self.density_at(time, y))).unzip();
        Survivors { time, points, mass, folded: mirror }
    }
}

/// The number of Gauss-Legendre points for an interval of `widths` step widths. The error falls about tenfold
/// with each 0.1 of the first constant: 1.2 gives an error of 2e-8 in a bound of 28 looks at random times,
/// 1.5 gives 1e-11.
fn points_for(widths: f64) -> usize {
    (1.5 * widths).ceil().min(POINTS_MAX) as usize + 8
}

/// Only a look with more than a million times the information of the one before needs more points.
const POINTS_MAX: f64 = 4_096.0;

/// 1 / sqrt(2 pi)
const INVERSE_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

/// exp(-z^2 / 2), 0 beyond [`REACH_SD`].
fn bell(z: f64) -> f64 {
    if z.abs() > REACH_SD { 0.0 } else { (-0.5 * z * z).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributions::{normal_pdf, normal_sf};

    /// Two looks with bounds +-1: P(stay at 0.5 and end above 1 at 1) has a direct integral.
    #[test]
    fn one_step_is_the_textbook_integral() {
        let first = Survivors::start().inside(0.5, -1.0, 1.0, 1.0);
        assert!(first.folded);
        let direct = GaussLegendre::shared(80).integrate(-1.0, 1.0, |x| {
            let sd = 0.5f64.sqrt();
            normal_pdf(x / sd) / sd * normal_sf((1.0 - x) / sd)
        });
        let tail = first.above(1.0, 1.0, 0.0);
        assert!((tail.probability - direct).abs() < 1e-10, "{} {direct}", tail.probability);
        let below = first.below(1.0, -1.0, 0.0);
        assert!((below.probability - direct).abs() < 1e-10);
    }

    /// A region without limits loses no path, whatever the drift and the spacing of the looks.
    #[test]
    fn a_wide_region_keeps_all_paths() {
        for times in [[0.3, 0.6, 1.0], [0.5, 0.501, 1.0], [0.1, 0.99, 1.0]] {
            let mut paths = Survivors::start();
            for k in 0..2 {
                paths = paths.inside(times[k], -50.0, 50.0, times[k + 1]);
            }
            for drift in [0.0, 2.5, -3.0] {
                for level in [0.0, 2.0, 4.0] {
                    let got = paths.above(1.0, level, drift).probability;
                    let expected = normal_sf(level - drift);
                    assert!((got - expected).abs() < 1e-9, "{times:?} {drift} {level}: {got}");
                }
            }
        }
    }
}
