//! The power of an always-valid interval over time: the probability that Brownian motion with a drift has
//! left the confidence sequence at any look so far, computed by the recursion of the boundaries. Nothing here
//! is simulated.

use crate::{
    Alpha, Alternative, Invalid, Power,
    confidence_sequence::{Design, Mixing},
    distributions::normal_quantile,
    group_sequential::Looks,
};

/// The largest number of looks. Where a plan has more, they are spaced further apart, which lowers the power a
/// little.
const LOOKS_MAX: f64 = 2_000.0;

/// The bounds of a smaller alpha are more than eight standard deviations away.
const SMALLEST_ALPHA: f64 = 1e-12;

/// How far the search for the wanted power goes, as a multiple of the units of one look.
const SEARCH_END: f64 = 64.0;

/// The power of a two-sided asymptotic confidence sequence, as a function of the units collected. Units are
/// given as multiples of those that one look needs for the wanted power; the sequence is tuned for that
/// number. At looks the power is exact to 1e-6 for a normal process, and between them up to 0.004 too low at
/// 14 looks; the inflation is accurate to 0.005.
#[derive(Clone, Debug, PartialEq)]
pub struct AlwaysValidPower {
    /// The distance between two looks.
    step: f64,
    /// The probability of a rejection by each look, from the first on.
    rejected: Vec<f64>,
    inflation: f64,
}

impl AlwaysValidPower {
    /// Computes the power for an effect that one look finds with the power `wanted`. There are `looks` (at
    /// least 1) evenly spaced looks up to the units of that one look, and looks with the same spacing beyond,
    /// at least up to `end` times these units (above 0).
    ///
    /// Returns an error if 64 times the units do not reach the power, which happens for no `wanted` from 6 %
    /// on at alpha 5 %; and for an alpha below 1e-12, whose bounds are beyond the grid of the recursion.
    pub fn new(alpha: Alpha, wanted: Power, looks: u32, end: f64) -> Result<AlwaysValidPower, Invalid> {
        if alpha.get() < SMALLEST_ALPHA {
            return Err(Invalid::OutOfRange { what: "alpha", value: alpha.get(), range: "at least 1e-12" });
        }
        let sequence = Design::new(alpha, Alternative::TwoSided, Mixing::TunedForUnits(1.0))?;
        let drift = Alternative::TwoSided.critical_z(alpha) + normal_quantile(wanted.get());
        let mut end = if end.is_finite() { end.clamp(2.0, SEARCH_END) } else { SEARCH_END };
        loop {
            let step = (1.0 / f64::from(looks.max(1))).max(end / LOOKS_MAX);
            let count = (end / step).ceil() as usize;
            let times: Vec<f64> = (1..=count).map(|k| k as f64 * step).collect();
            let criticals: Vec<f64> = times.iter().map(|&time| sequence.critical_at(time)).collect();
            let leaving = Looks::with_bounds(&times, &criticals, Alternative::TwoSided)?.crossing(drift);
            let mut so_far = 0.0;
            let rejected: Vec<f64> = leaving
                .iter()
                .map(|look| {
                    so_far += look.toward + look.away;
                    so_far.min(1.0)
                })
                .collect();
            if let Some(inflation) = inflation_for(&rejected, step, wanted.get()) {
                return Ok(AlwaysValidPower { step, rejected, inflation });
            }
            if end >= SEARCH_END {
                let range = "large enough to be reached by an always-valid interval";
                return Err(Invalid::OutOfRange { what: "power", value: wanted.get(), range });
            }
            end = (2.0 * end).min(SEARCH_END);
        }
    }

    /// The units that the wanted power needs when the experiment may end at any look, as a multiple of the
    /// units of one look; above 1.
    pub fn inflation(&self) -> f64 {
        self.inflation
    }

    /// Returns the power, from 0 to 1, at this multiple of the units of one look. Between two looks it
    /// interpolates linearly; past the last look it returns the power of the last look.
    pub fn by(&self, units: f64) -> f64 {
        let position = (units / self.step).max(0.0);
        let before = position.floor() as usize;
        let at = |look: usize| if look == 0 { 0.0 } else { self.rejected[look.min(self.rejected.len()) - 1] };
        at(before) + (position - position.floor()) * (at(before.saturating_add(1)) - at(before))
    }
}

/// Returns the units at which the line through the looks' probabilities reaches `wanted`.
fn inflation_for(rejected: &[f64], step: f64, wanted: f64) -> Option<f64> {
    let look = rejected.iter().position(|&probability| probability >= wanted)?;
    let before = if look == 0 { 0.0 } else { rejected[look - 1] };
    let part = (wanted - before) / (rejected[look] - before);
    Some(step * (look as f64 + part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, random::Random};

    fn power(wanted: f64, looks: u32) -> AlwaysValidPower {
        AlwaysValidPower::new(Alpha::FIVE_PERCENT, Power::new(wanted).unwrap(), looks, 2.0).unwrap()
    }

    /// Simulates Brownian paths and looks at them with the confidence sequence itself, 14 times up to the
    /// units of one look. At the computed inflation the rejected share is the wanted power, to three and a
    /// half standard errors of 20,000 paths.
    #[test]
    fn simulated_paths_have_the_wanted_power_at_the_computed_inflation() {
        const SEED: u64 = 12;
        const PATHS: u64 = 20_000;
        println!("seed {SEED}");
        // So many units that rounding to whole ones does not matter.
        const PLANNED: f64 = 1e6;
        let mixing = Mixing::TunedForUnits(PLANNED);
        let sequence = Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, mixing).unwrap();
        for wanted in [0.5, 0.65, 0.8, 0.9, 0.95] {
            let end = power(wanted, 14).inflation();
            let drift = 1.959_963_985 + normal_quantile(wanted);
            let mut random = Random::new(SEED);
            let mut found = 0;
            for _ in 0..PATHS {
                let (mut time, mut level) = (0.0_f64, 0.0);
                while time < end {
                    let next = ((time * 14.0).round() + 1.0) / 14.0;
                    let next = next.min(end);
                    level += drift * (next - time) + (next - time).sqrt() * random.normal();
                    time = next;
                    let effect = Effect { estimate: level / time, standard_error: 1.0 / time.sqrt() };
                    if sequence.look(effect, (time * PLANNED) as u64).p_value <= 0.05 {
                        found += 1;
                        break;
                    }
                }
            }
            let share = found as f64 / PATHS as f64;
            let slack = 3.5 * (wanted * (1.0 - wanted) / PATHS as f64).sqrt();
            assert!((share - wanted).abs() < slack, "{wanted}: {share} by {end}");
        }
    }

    /// Another simulation counts whole looks, 14 of them by the units of 80 % power: the 25th look is the
    /// first by which 80 % are rejected; and where the sequence is tuned for the units of 90 % power, the
    /// 31st look (2.21 times the units of 80 %) for 90 %. In parts of a look, 8,000,000 paths drawn by numpy
    /// reach 50, 80, 90 and 95 % at these multiples.
    #[test]
    fn inflations_agree_with_other_simulations() {
        let looks_80 = power(0.8, 14).inflation() * 14.0;
        let looks_90 = power(0.9, 14).inflation() * (3.241_516_f64 / 2.801_585).powi(2) * 14.0;
        assert_eq!((looks_80.ceil(), looks_90.ceil()), (25.0, 31.0));
        for (wanted, drawn) in [(0.5, 2.0376), (0.8, 1.7310), (0.9, 1.6341), (0.95, 1.5713)] {
            let found = power(wanted, 14).inflation();
            assert!((found - drawn).abs() < 0.002, "{wanted}: {found} {drawn}");
        }
    }

    /// Between two looks the interpolated power is at most 0.004 below that of an additional look at that
    /// point.
    #[test]
    fn interpolation_between_looks_is_close() {
        let coarse = power(0.8, 14);
        let sequence =
            Design::new(Alpha::FIVE_PERCENT, Alternative::TwoSided, Mixing::TunedForUnits(1.0)).unwrap();
        for look in [5, 14, 25] {
            let mut times: Vec<f64> = (1..=look).map(|k| f64::from(k) / 14.0).collect();
            times.push((f64::from(look) + 0.5) / 14.0);
            let criticals: Vec<f64> = times.iter().map(|&time| sequence.critical_at(time)).collect();
            let looks = Looks::with_bounds(&times, &criticals, Alternative::TwoSided).unwrap();
            let exact = looks.crossing_probability(1.959_963_985 + 0.841_621_234);
            let line = coarse.by(times[look as usize]);
            assert!(exact >= line && exact - line < 0.004, "{look}: {line} {exact}");
        }
    }

    #[test]
    fn looking_more_often_raises_the_power_and_extreme_inputs_are_bounded() {
        let (seldom, often) = (power(0.8, 4), power(0.8, 100));
        assert!(often.inflation() < seldom.inflation());
        assert_eq!(often.by(0.0), 0.0);
        assert!(often.by(1.0) > seldom.by(1.0));
        assert!(often.by(1e9) <= 1.0 && often.by(1e9) > 0.8);
        assert!(AlwaysValidPower::new(Alpha::new(1e-13).unwrap(), Power::EIGHTY_PERCENT, 14, 2.0).is_err());
        // Far more looks than `LOOKS_MAX`.
        assert!((power(0.8, u32::MAX).inflation() - often.inflation()).abs() < 0.05);
    }
}
