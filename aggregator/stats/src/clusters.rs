//! Cluster-randomized experiments: whole clusters (accounts, schools, regions, time windows) are assigned,
//! and units are measured. Units of a cluster resemble each other, so standard errors are computed from
//! clusters; the error of a test on units is too small by the square root of the design effect.

use crate::{
    Alpha, Alternative, Effect, Interval, Missing, Moments, Pair, Side,
    distributions::{normal_deviate_of_t, student_t_quantile, student_t_sf},
    lift::means_of_moments,
};

/// The number of clusters from which the platform uses [`delta`]; below it uses [`bias_reduced`].
pub const MANY_CLUSTERS: usize = 40;

/// Prefer an exact permutation p-value ([`crate::permutation`]) where an arm has fewer clusters than this.
pub const FEW_CLUSTERS: usize = 10;

/// The clusters of both arms, each with the moments of its units.
pub type Clusters<'a> = Pair<&'a [Moments]>;

/// A two-sided t-test of the difference between the arms' means over all units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterTest {
    /// Treatment minus control, in the metric's unit.
    pub effect: Effect,
    /// The estimate divided by the standard error.
    pub t: f64,
    /// Degrees of freedom of t, above 0; Satterthwaite's are not whole numbers.
    pub degrees: f64,
    /// Two-sided, from 0 to 1.
    pub p_value: f64,
}

impl ClusterTest {
    fn new(effect: Effect, degrees: f64) -> Result<ClusterTest, Missing> {
        if effect.standard_error == 0.0 {
            return Err(Missing::Variation);
        }
        let t = effect.estimate / effect.standard_error;
        let p_value = Alternative::TwoSided.p_value(t, |t| student_t_sf(t, degrees));
        Ok(ClusterTest { effect, t, degrees, p_value })
    }

    /// The normal deviate with the same tail as t, for use with a boundary; far below t while clusters are few.
    pub fn as_z(&self) -> f64 {
        normal_deviate_of_t(self.t, self.degrees)
    }

    /// The differences that the test would not reject at `alpha`, in the metric's unit.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        let tail = Alternative::TwoSided.tail(alpha);
        self.effect.interval(-student_t_quantile(tail, self.degrees))
    }
}

/// Runs the test that the platform uses: [`delta`] from [`MANY_CLUSTERS`] clusters on, [`bias_reduced`] below.
pub fn compare(clusters: Clusters<'_>) -> Result<ClusterTest, Missing> {
    let with_units = |arm: &[Moments]| arm.iter().filter(|one| one.count() > 0).count();
    if with_units(clusters.control) + with_units(clusters.treatment) >= MANY_CLUSTERS {
        delta(clusters)
    } else {
        bias_reduced(clusters)
    }
}

/// The ratio of totals `R = sum y / sum n` in each arm, with the delta method's variance over its K clusters,
/// `K/(K-1) sum (y_k - R n_k)^2 / (sum n_k)^2`, and t with `K_c + K_t - 2` degrees of freedom. Deng, Knoblich
/// & Lu (2018), KDD. The error is too small with few clusters of unequal size: with 10 to 30 units each the
/// test rejects in 5.8 % at 6 clusters an arm ([`bias_reduced`]: 5.3 %) and in 5.3 % at 56
/// (`splitstream calibrate`).
pub fn delta(clusters: Clusters<'_>) -> Result<ClusterTest, Missing> {
    let arms = arms(clusters)?;
    let variance = |arm: &ArmTotals| {
        let k = arm.residuals.len() as f64;
        k / (k - 1.0) * arm.sum_of(|residual, _| residual * residual)
    };
    let total = variance(&arms.control) + variance(&arms.treatment);
    ClusterTest::new(difference(&arms, total), count(&arms) - 2.0)
}

/// Ordinary least squares on units with clustered errors (CR1): the sum of squared residuals times
/// `G/(G-1) (N-1)/(N-2)`, and t with G - 1 degrees of freedom, as in most software (Liang & Zeger
/// 1986, Biometrika 73(1)). For comparison only.
pub fn clustered_ols(clusters: Clusters<'_>) -> Result<ClusterTest, Missing> {
    let arms = arms(clusters)?;
    let squares = |arm: &ArmTotals| arm.sum_of(|residual, _| residual * residual);
    let g = count(&arms);
    let n = arms.control.units + arms.treatment.units;
    let factor = g / (g - 1.0) * (n - 1.0) / (n - 2.0);
    let total = factor * (squares(&arms.control) + squares(&arms.treatment));
    ClusterTest::new(difference(&arms, total), g - 1.0)
}

/// Ordinary least squares with the bias-reduced variance CR2 and Satterthwaite's degrees of freedom (Bell &
/// McCaffrey 2002, Survey Methodology 28(2); Pustejovsky & Tipton 2018, JBES 36(4); R clubSandwich
/// with a working model of independent units). Right for few clusters.
///
/// For two arms the matrices have closed forms: a cluster's residual is divided by
/// `sqrt(1 - n_g/N)`, and with `B_gg = n_g/N^2`, `B_gh = -k_g k_h n_g n_h / N` inside an arm,
/// `k_g = 1 / (N sqrt(1 - n_g/N))`, the degrees are `(sum B_gg)^2 / sum B_gh^2`.
pub fn bias_reduced(clusters: Clusters<'_>) -> Result<ClusterTest, Missing> {
    let arms = arms(clusters)?;
    let squares = |arm: &ArmTotals| arm.sum_of(|residual, share| residual * residual / share.others);
    let total = squares(&arms.control) + squares(&arms.treatment);
    let trace = 1.0 / arms.control.units + 1.0 / arms.treatment.units;
    let degrees =
        trace * trace / (satterthwaite_squares(&arms.control) + satterthwaite_squares(&arms.treatment));
    ClusterTest::new(difference(&arms, total), degrees)
}

/// The sum of all squared B_gh of one arm.
fn satterthwaite_squares(arm: &ArmTotals) -> f64 {
    let n_all = arm.units;
    // k_g n_g: the cluster's factor of an off-diagonal entry, times sqrt(N).
    let part = |share: Share| share.own / share.others.sqrt();
    let (mut diagonal, mut parts, mut own) = (0.0, 0.0, 0.0);
    for &(_, share) in &arm.residuals {
        diagonal += (share.own / n_all).powi(2);
        parts += part(share).powi(2);
        own += part(share).powi(4);
    }
    diagonal + (parts * parts - own) / (n_all * n_all)
}

/// The difference of means with Welch's error, as if units had been assigned. It exists only to show how
/// wrong that is: with clusters of 20 units and an intraclass correlation of 0.1 there is a false alarm in 26
/// %.
pub fn ignoring_clusters(clusters: Clusters<'_>) -> Result<Effect, Missing> {
    let pool = |arm: &[Moments]| arm.iter().fold(Moments::EMPTY, |sum, &one| sum.merge(one));
    let means = means_of_moments(clusters.map(pool))?;
    Ok(Effect {
        estimate: means.treatment.mean - means.control.mean,
        standard_error: (means.control.variance + means.treatment.variance).sqrt(),
    })
}

/// How similar the units of a cluster are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntraclassCorrelation {
    /// 0 for no resemblance, 1 for equal units; the estimate may fall below 0.
    pub icc: f64,
    /// The effective cluster size n0, close to the mean size.
    pub size: f64,
}

/// The ANOVA estimator within arms, `(MSB - MSW) / (MSB + (n0 - 1) MSW)` with
/// `n0 = (N - sum over arms of sum n_g^2 / N_a) / (G - 2)` (Donner & Klar 2000, Design and Analysis of
/// Cluster Randomization Trials).
pub fn intraclass_correlation(clusters: Clusters<'_>) -> Result<IntraclassCorrelation, Missing> {
    let totals = arms(clusters)?;
    let both = [(clusters.control, &totals.control), (clusters.treatment, &totals.treatment)];
    let (mut between, mut within, mut sizes) = (0.0, 0.0, 0.0);
    for (clusters, arm) in both {
        for cluster in clusters {
            let n = cluster.count() as f64;
            between += n * arm.distance_from_mean(cluster).powi(2);
            within += cluster.sum_of_squared_deviations();
            sizes += n * n / arm.units;
        }
    }
    let groups = count(&totals);
    let units = totals.control.units + totals.treatment.units;
    let freedom = groups - 2.0;
    let (msb, msw) = (between / freedom, within / (units - groups));
    let size = (units - sizes) / freedom;
    let icc = (msb - msw) / (msb + (size - 1.0) * msw);
    // 0/0 when nothing varies, or when every cluster is one unit.
    if icc.is_nan() { Err(Missing::Variation) } else { Ok(IntraclassCorrelation { icc, size }) }
}

/// The totals of one arm over all its clusters.
struct ArmTotals {
    units: f64,
    mean: f64,
    /// The largest difference from the mean that rounding alone may produce.
    noise: f64,
    /// For each cluster that has units: `(y_k - R n_k) / sum n` and its share of the units.
    residuals: Vec<(f64, Share)>,
}

/// The share of an arm's units that a cluster has and the share of all others, each accurate to full precision.
#[derive(Clone, Copy)]
struct Share {
    own: f64,
    others: f64,
}

impl ArmTotals {
    fn of(side: Side, clusters: &[Moments]) -> Result<ArmTotals, Missing> {
        let with_units = clusters.iter().filter(|cluster| cluster.count() > 0);
        let have = with_units.clone().count();
        if have < 2 {
            return Err(Missing::Clusters { arm: side, have, need: 2 });
        }
        let whole: u128 = with_units.clone().map(|cluster| u128::from(cluster.count())).sum();
        let units = whole as f64;
        let mean = with_units.clone().map(|cluster| cluster.sum()).sum::<f64>() / units;
        let largest = with_units.clone().map(|cluster| cluster.mean().abs()).fold(0.0, f64::max);
        // One rounding for each sum and one for each addition.
        let noise = f64::EPSILON * (have as f64 + 4.0) * largest;
        let mut arm = ArmTotals { units, mean, noise, residuals: Vec::new() };
        for cluster in with_units {
            let own = cluster.count() as f64 / units;
            let share = Share { own, others: (whole - u128::from(cluster.count())) as f64 / units };
            arm.residuals.push((arm.distance_from_mean(cluster) * own, share));
        }
        Ok(arm)
    }

    /// A cluster's mean minus the arm's; 0 where only rounding differs, which is no variation.
    fn distance_from_mean(&self, cluster: &Moments) -> f64 {
        let difference = cluster.mean() - self.mean;
        if difference.abs() <= self.noise { 0.0 } else { difference }
    }

    fn sum_of(&self, f: impl Fn(f64, Share) -> f64) -> f64 {
        self.residuals.iter().map(|&(residual, share)| f(residual, share)).sum()
    }
}

fn arms(clusters: Clusters<'_>) -> Result<Pair<ArmTotals>, Missing> {
    clusters.try_map(ArmTotals::of)
}

/// The number of clusters with units, over both arms.
fn count(arms: &Pair<ArmTotals>) -> f64 {
    (arms.control.residuals.len() + arms.treatment.residuals.len()) as f64
}

fn difference(arms: &Pair<ArmTotals>, variance: f64) -> Effect {
    Effect { estimate: arms.treatment.mean - arms.control.mean, standard_error: variance.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(values: &[f64]) -> Moments {
        Moments::of(values.iter().copied()).unwrap()
    }

    #[test]
    fn one_cluster_in_an_arm_allows_no_inference() {
        let (two, one) = (vec![cluster(&[1.0]), cluster(&[2.0])], vec![cluster(&[1.0, 2.0])]);
        let found = compare(Pair { control: &two, treatment: &one });
        let missing = Missing::Clusters { arm: Side::Treatment, have: 1, need: 2 };
        assert_eq!(found, Err(missing));
    }

    /// t = 3 with 4 degrees of freedom has the two-sided p-value 0.03994, and its normal deviate has the same.
    #[test]
    fn the_deviate_has_the_tail_of_t() {
        let effect = Effect { estimate: -3.0, standard_error: 1.0 };
        let test = ClusterTest::new(effect, 4.0).unwrap();
        assert!((test.p_value - 0.039_942).abs() < 1e-6, "{}", test.p_value);
        let tail = 2.0 * crate::distributions::normal_sf(-test.as_z());
        assert!((tail / test.p_value - 1.0).abs() < 1e-9 && test.as_z() < 0.0, "{tail}");
    }

    /// Every cluster has the mean 0.3: the mean over all is off by a rounding, and a t from it would be 10^15.
    #[test]
    fn equal_clusters_do_not_vary() {
        let (c, t) = (cluster(&[0.1, 0.1, 0.1]), cluster(&[0.3, 0.3]));
        let clusters = Pair { control: &[c, c, c][..], treatment: &[t, t, t][..] };
        for test in [delta, clustered_ols, bias_reduced] {
            assert_eq!(test(clusters), Err(Missing::Variation));
        }
        assert_eq!(intraclass_correlation(clusters), Err(Missing::Variation));
    }

    /// One cluster has all units of an arm but two: the share of the others must not be rounded away.
    #[test]
    fn one_cluster_may_have_nearly_all_units() {
        let most = Moments::from_variance(1 << 60, 1.0, 1.0).unwrap();
        let arm = [most, cluster(&[2.0]), cluster(&[5.0])];
        let clusters = Pair { control: &arm[..], treatment: &[cluster(&[1.0]), cluster(&[2.0])][..] };
        for test in [delta, clustered_ols, bias_reduced] {
            let found = test(clusters).unwrap();
            assert!(found.t.is_finite() && found.degrees > 0.0 && found.degrees <= 4.0, "{found:?}");
            assert!(found.p_value > 0.0 && found.p_value < 1.0, "{found:?}");
        }
    }

    /// With one unit per cluster the delta method is the t-test, up to its degrees of freedom.
    #[test]
    fn clusters_of_one_unit_give_the_t_test() {
        let control: Vec<Moments> = [1.0, 2.0, 6.0].iter().map(|&v| cluster(&[v])).collect();
        let treatment: Vec<Moments> = [3.0, 4.0, 9.0].iter().map(|&v| cluster(&[v])).collect();
        let clusters = Pair { control: &control[..], treatment: &treatment[..] };
        let (clustered, plain) = (delta(clusters).unwrap().effect, ignoring_clusters(clusters));
        assert!((clustered.standard_error - plain.unwrap().standard_error).abs() < 1e-15);
        assert_eq!(intraclass_correlation(clusters), Err(Missing::Variation));
    }
}
