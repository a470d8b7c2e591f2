//! Seeded random numbers for permutation tests and simulations: the same seed gives the same numbers on every
//! machine. Not for secrets, and not for assigning units.

use crate::{Invalid, terms::between_0_and_1};

/// SplitMix64 (Steele, Lea & Flood 2014, OOPSLA): 64 good bits from a counter, period 2^64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// All seeds are equally good.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The generator of one of many independent parts: its numbers do not depend on how many the other parts
    /// have drawn.
    pub fn stream(seed: u64, index: u64) -> Random {
        let mut parent = Random(seed ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Random(parent.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A whole number below `bound` >= 1; all are equally likely, except for a difference of `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform, strictly between 0 and 1, in steps of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal, by the polar method (Marsaglia & Bray 1964, SIAM Review 6(3)); the second number of a
    /// pair is discarded.
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// Draws the number of units that convert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binomial {
    rate: f64,
    log_rest: f64,
}

impl Binomial {
    /// `rate` strictly between 0 and 1.
    pub fn new(rate: f64) -> Result<Binomial, Invalid> {
        let rate = between_0_and_1("rate", rate)?;
        Ok(Binomial { rate, log_rest: (-rate).ln_1p() })
    }

    /// Draws exactly, by the gaps between conversions, which are geometric (Devroye 1986, Non-Uniform Random
    /// Variate Generation, X.4.3): the work is proportional to the number of conversions.
    pub fn draw(&self, units: u64, random: &mut Random) -> u64 {
        let (mut at, mut conversions) = (0_u64, 0);
        loop {
            // The cast saturates at u64::MAX where the gap is larger.
            let gap = (random.uniform().ln() / self.log_rest) as u64;
            at = at.saturating_add(gap).saturating_add(1);
            if at > units {
                return conversions;
            }
            conversions += 1;
        }
    }

    /// Strictly between 0 and 1.
    pub fn rate(&self) -> f64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Moments;

    const SEED: u64 = 7;

    /// The first numbers of the published generator from seed 1234567.
    #[test]
    fn the_bits_are_the_published_ones() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    fn assert_mean_and_variance(what: &str, draws: Vec<f64>, mean: f64, variance: f64) {
        let moments = Moments::of(draws).unwrap();
        let errors = (variance / moments.count() as f64).sqrt();
        assert!((moments.mean() - mean).abs() < 4.0 * errors, "{what}: mean {}", moments.mean());
        let found = moments.variance().unwrap();
        assert!((found / variance - 1.0).abs() < 0.03, "{what}: variance {found}");
    }

    #[test]
    fn means_and_variances_are_those_of_the_distributions() {
        println!("seed {SEED}");
        let mut random = Random::new(SEED);
        let mut draws = |of: &dyn Fn(&mut Random) -> f64| (0..50_000).map(|_| of(&mut random)).collect();
        assert_mean_and_variance("uniform", draws(&Random::uniform), 0.5, 1.0 / 12.0);
        assert_mean_and_variance("normal", draws(&Random::normal), 0.0, 1.0);
        assert_mean_and_variance("exponential", draws(&Random::exponential), 1.0, 1.0);
        for (units, rate) in [(1, 0.3), (50, 0.05), (20, 0.9)] {
            let binomial = Binomial::new(rate).unwrap();
            let (n, p) = (units as f64, rate);
            let counts = draws(&|random| binomial.draw(units, random) as f64);
            assert_mean_and_variance("binomial", counts, n * p, n * p * (1.0 - p));
        }
    }
}
