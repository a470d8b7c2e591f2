//! The one-sided count test: does one arm have more conversions than its share?

use super::Evidence;
use crate::{
    Arm, Counts, Invalid, Pair, Side,
    bayes::BetaPrior,
    multinomial_mixture::{Cell, log_bayes_factor},
    terms::{between_0_and_1, positive},
};

/// The plan of the one-sided test, fixed before the first look. It is not the two-sided test at half or at
/// twice its level: where the split is uneven, the mixture does not have half of its mass on either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneSided {
    /// The share of the arm that is suspected of having more conversions.
    share: f64,
    concentration: f64,
    suspect: Side,
    /// ln P(theta > share) of the whole mixture.
    log_prior_mass: f64,
}

impl OneSided {
    /// Tests whether `suspect` has more conversions than its share; `treatment_share` and `concentration` as in
    /// [`super::Design::new`].
    pub fn new(treatment_share: f64, concentration: f64, suspect: Side) -> Result<OneSided, Invalid> {
        let treatment_share = between_0_and_1("treatment share", treatment_share)?;
        let concentration = positive("concentration", concentration)?;
        let share = match suspect {
            Side::Treatment => treatment_share,
            Side::Control => 1.0 - treatment_share,
        };
        let mut design = OneSided { share, concentration, suspect, log_prior_mass: 0.0 };
        design.log_prior_mass = design.mass_above(0, 0)?.ln();
        Ok(design)
    }

    /// Computes the evidence, with the mixture Beta(k s, k (1 - s)) over only those shares theta that are
    /// above the suspect's share s, divided by its mass there. With x conversions of the suspect and y of the
    /// other arm:
    ///
    /// `ln e = ln BF + ln P(Beta(k s + x, k (1 - s) + y) > s) - ln P(Beta(k s, k (1 - s)) > s)`.
    ///
    /// Each factor (theta/s)^x ((1 - theta)/(1 - s))^y with theta > s grows by
    /// `q theta/s + (1 - q)(1 - theta)/(1 - s)` in the mean at a conversion that is the suspect's with
    /// probability q: by 1 where q = s, by less where q < s. So the mixture is a martingale if the suspect
    /// has its share, and a supermartingale if it has less; with a probability of at least `1 - a` it is at
    /// most 1/a at all times (Ville 1939). This is the one-sided beta-binomial mixture of Howard, Ramdas,
    /// McAuliffe & Sekhon (2021), Annals of Statistics 49(2), after Robbins (1970), Annals of Mathematical
    /// Statistics 41(5).
    pub fn look(&self, conversions: Pair<u64>) -> Evidence {
        let (suspects, others) = match self.suspect {
            Side::Treatment => (conversions.treatment, conversions.control),
            Side::Control => (conversions.control, conversions.treatment),
        };
        let cells = [
            Cell { share: self.share, count: suspects as f64 },
            Cell { share: 1.0 - self.share, count: others as f64 },
        ];
        let mass = self.mass_above(suspects, others).expect("the parameters were checked");
        // If the whole mass is below the share there is no evidence: ln 0 makes the result minus infinity.
        let log_e_value = log_bayes_factor(&cells, self.concentration) + mass.ln() - self.log_prior_mass;
        Evidence::of(log_e_value)
    }

    /// P(theta > share) after these conversions.
    fn mass_above(&self, suspects: u64, others: u64) -> Result<f64, Invalid> {
        let prior = BetaPrior::new(self.concentration * self.share, self.concentration * (1.0 - self.share))?;
        let both = Arm::new(Counts { units: suspects.saturating_add(others), conversions: suspects })?;
        Ok(prior.after(both).sf(self.share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion_counts::{CONCENTRATION, Design};

    const SHARES: [f64; 5] = [0.05, 0.1, 0.5, 0.9, 0.95];

    fn log_e(design: &OneSided, treatment: u64, control: u64) -> f64 {
        design.look(Pair { control, treatment }).log_e_value
    }

    /// The mean of the next e-value is the present one, whatever the counts: the e-values are a martingale.
    #[test]
    fn the_next_conversion_does_not_change_the_mean_e_value() {
        for share in SHARES {
            for suspect in [Side::Control, Side::Treatment] {
                let design = OneSided::new(share, CONCENTRATION, suspect).unwrap();
                assert!(log_e(&design, 0, 0).abs() < 1e-12);
                for (treatment, control) in [(0, 0), (3, 0), (0, 9), (40, 25), (2, 300)] {
                    let now = log_e(&design, treatment, control).exp();
                    let next = share * log_e(&design, treatment + 1, control).exp()
                        + (1.0 - share) * log_e(&design, treatment, control + 1).exp();
                    assert!((next / now - 1.0).abs() < 1e-9, "{share} {suspect}: {now} {next}");
                }
            }
        }
    }

    /// P(the e-value ever reaches 1/alpha within `conversions`), exactly. It follows the paths that have not
    /// reached it yet, by the number of the treatment's conversions. The true share is `truth`.
    fn ever_reached(design: &OneSided, truth: f64, alpha: f64, conversions: u64) -> f64 {
        let mut paths = vec![1.0];
        let mut reached = 0.0;
        for n in 1..=conversions {
            let mut next = vec![0.0; n as usize + 1];
            for (treatment, mass) in paths.iter().enumerate() {
                next[treatment] += mass * (1.0 - truth);
                next[treatment + 1] += mass * truth;
            }
            for (treatment, mass) in next.iter_mut().enumerate() {
                let treatment = treatment as u64;
                if *mass > 0.0 && log_e(design, treatment, n - treatment) >= -alpha.ln() {
                    reached += std::mem::take(mass);
                }
            }
            paths = next;
        }
        reached
    }

    /// A look after each of 300 conversions, by enumeration of all paths. An arm with less than its share
    /// raises an alarm even less often.
    #[test]
    fn false_alarms_are_at_most_alpha() {
        for share in SHARES {
            for suspect in [Side::Control, Side::Treatment] {
                let design = OneSided::new(share, CONCENTRATION, suspect).unwrap();
                let reached = ever_reached(&design, share, 0.05, 300);
                assert!(reached < 0.05 && reached > 0.001, "{share} {suspect}: {reached}");
                let less = match suspect {
                    Side::Treatment => 0.9 * share,
                    Side::Control => 1.0 - 0.9 * (1.0 - share),
                };
                assert!(ever_reached(&design, less, 0.05, 300) < reached, "{share} {suspect}");
            }
        }
    }

    /// At an even split half of the mixture is on each side: for extreme counts the one-sided e-value is
    /// twice the two-sided one.
    #[test]
    fn extreme_counts_have_twice_the_two_sided_e_value_at_an_even_split() {
        let both = Design::new(0.5, CONCENTRATION, crate::Alpha::FIVE_PERCENT).unwrap();
        let counts = Pair { control: 2_010, treatment: 0 };
        let fewer = OneSided::new(0.5, CONCENTRATION, Side::Control).unwrap().look(counts);
        let difference = fewer.log_e_value - both.look(counts).log_bayes_factor;
        assert!((difference - std::f64::consts::LN_2).abs() < 1e-9, "{difference}");
        let more = OneSided::new(0.5, CONCENTRATION, Side::Treatment).unwrap().look(counts);
        assert_eq!(more.p_value, 1.0);
        assert!(more.log_e_value < -20.0, "{more:?}");
    }

    #[test]
    fn shares_and_concentrations_are_checked() {
        assert!(OneSided::new(1.0, 10.0, Side::Treatment).is_err());
        assert!(OneSided::new(0.5, -1.0, Side::Treatment).is_err());
    }
}
