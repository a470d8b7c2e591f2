//! Compares boundaries with a second method that shares nothing with the first: the grid of Jennison &
//! Turnbull (2000), section 19.2, with Simpson's rule and bisection, fine enough to be accurate to 3e-7.

use statrs::distribution::{Continuous, ContinuousCDF, Normal};
use stats::{
    Alpha, Alternative,
    group_sequential::{Boundary, Design, Spending},
    random::Random,
};

/// The published accuracy of a bound.
const ACCURACY: f64 = 1e-6;

/// The r of a grid with 6 r - 1 points and as many midpoints; 18 is usual, 96 is accurate to 1e-7.
const R: usize = 80;

/// Points and Simpson weights on [-bound, bound].
fn grid(bound: f64) -> Vec<(f64, f64)> {
    let r = R as f64;
    let mut points = Vec::new();
    for i in 1..=6 * R - 1 {
        let at = i as f64;
        points.push(if i < R {
            -3.0 - 4.0 * (r / at).ln()
        } else if i <= 5 * R {
            -3.0 + 3.0 * (at - r) / (2.0 * r)
        } else {
            3.0 + 4.0 * (r / (6.0 * r - at)).ln()
        });
    }
    points.retain(|&x| x > -bound && x < bound);
    points.insert(0, -bound);
    points.push(bound);
    let mut weighted = vec![(points[0], 0.0)];
    for pair in points.windows(2) {
        let width = pair[1] - pair[0];
        let last = weighted.len() - 1;
        weighted[last].1 += width / 6.0;
        weighted.push((0.5 * (pair[0] + pair[1]), 4.0 * width / 6.0));
        weighted.push((pair[1], width / 6.0));
    }
    weighted
}

fn bounds(fractions: &[f64], spent: impl Fn(f64) -> f64) -> Vec<f64> {
    let normal = Normal::standard();
    let mut criticals = Vec::new();
    // z and probability mass of the paths that continue.
    let mut mass: Vec<(f64, f64)> = vec![(0.0, 1.0)];
    let mut before = 0.0;
    for &now in fractions {
        let increment = spent(now) - spent(before);
        let sd = (now - before).sqrt();
        let standardized = |y: f64, x: f64| (y * now.sqrt() - x * before.sqrt()) / sd;
        let above = |b: f64| mass.iter().map(|&(x, m)| m * normal.sf(standardized(b, x))).sum::<f64>();
        let (mut low, mut high) = (0.5, 9.0);
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if above(middle) > increment { low = middle } else { high = middle }
        }
        let critical = 0.5 * (low + high);
        let density = |y: f64| {
            mass.iter().map(|&(x, m)| m * normal.pdf(standardized(y, x))).sum::<f64>() * now.sqrt() / sd
        };
        mass = grid(critical).into_iter().map(|(y, weight)| (y, weight * density(y))).collect();
        criticals.push(critical);
        before = now;
    }
    criticals
}

#[test]
fn bounds_at_uneven_looks_are_accurate_to_a_millionth() {
    const SEED: u64 = 3;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    for spending in [Spending::OBrienFleming, Spending::Pocock] {
        let steps: Vec<f64> = (0..28).map(|_| 0.3 + random.uniform()).collect();
        let total: f64 = steps.iter().sum();
        let mut sum = 0.0;
        let mut fractions: Vec<f64> = steps
            .iter()
            .map(|step| {
                sum += step;
                sum / total
            })
            .collect();
        fractions[27] = 1.0;
        // Earlier bounds of O'Brien-Fleming are beyond 5, where a grid in z is inaccurate.
        if spending == Spending::OBrienFleming {
            fractions.drain(..5);
        }
        let design = Design { alpha: Alpha::FIVE_PERCENT, alternative: Alternative::TwoSided, spending };
        let boundary = Boundary::planned(design, &fractions).unwrap();
        let expected = bounds(&fractions, |t| spending.spent(t, 0.025));
        for (k, (bound, expected)) in boundary.bounds().iter().zip(&expected).enumerate() {
            let off = (bound.critical - expected).abs();
            assert!(off < ACCURACY, "{spending:?}, look {k} at {}: off by {off:e}", bound.fraction);
        }
    }
}
