//! The fixed-horizon test: right if read once, at a planned end.

use stats::distributions::{normal_quantile, normal_sf};
use stats::fixed_horizon::{self, RateTest};
use stats::phases::Score;
use stats::{Alpha, Effect, Lift, Pair, lift};

use super::{Data, Names};
use crate::document::{AcrossPhases, Adjusted, Test, TestMethod};
use crate::look::{PhaseSums, strata};

pub(super) fn test(names: &Names, data: &Data, alpha: Alpha, p_value_use: String) -> Test {
    let mut test = Test {
        metric: names.metric.clone(),
        control: names.control.clone(),
        treatment: names.treatment.clone(),
        method: if data.is_of_rates() { TestMethod::TwoProportionZ } else { TestMethod::WelchT },
        z: None,
        t: None,
        degrees_of_freedom: None,
        p_value: None,
        p_value_use,
        confidence: 1.0 - alpha.get(),
        lift_absolute: None,
        interval_absolute: None,
        lift_relative: None,
        interval_relative: None,
        interval_relative_method: None,
        across_phases: None,
        adjusted: adjusted(data),
        missing: None,
    };
    let outcome = match data.splits.as_slice() {
        [_] => of_one_split(data, alpha, &mut test),
        _ => of_several_splits(data, alpha, &mut test),
    };
    if let Err(why) = outcome {
        test.missing = Some(match why {
            NoTest::Data(missing) => names.sentence(missing),
            NoTest::Sums(why) => why,
        });
    }
    test
}

/// Compares the effect with the one that is not adjusted; none without a covariate, or without both effects.
fn adjusted(data: &Data) -> Option<Adjusted> {
    let has_covariate = |of: &PhaseSums| of.control.values.as_ref().is_some_and(|of| of.covariate.is_some());
    if !data.splits.iter().any(has_covariate) {
        return None;
    }
    let plain: Vec<PhaseSums> = data.splits.iter().map(PhaseSums::unadjusted).collect();
    let plain = Score::of(&strata(&plain).ok()?).ok()?.effect();
    let variance = |effect: Effect| effect.standard_error * effect.standard_error;
    let reduction = 1.0 - variance(data.score().ok()?.effect()) / variance(plain);
    Some(Adjusted {
        variance_reduction: Some(reduction).filter(|share| share.is_finite()),
        lift_absolute_unadjusted: plain.estimate,
    })
}

/// The reason why there is no test, or no relative lift.
enum NoTest {
    Data(stats::Missing),
    Sums(String),
}

impl From<stats::Missing> for NoTest {
    fn from(missing: stats::Missing) -> NoTest {
        NoTest::Data(missing)
    }
}

fn of_one_split(data: &Data, alpha: Alpha, test: &mut Test) -> Result<(), NoTest> {
    let [only] = data.splits.as_slice() else { unreachable!("it is asked of one split") };
    let lift = match only.moments().map_err(NoTest::Sums)? {
        Some(moments) => {
            let comparison = fixed_horizon::compare_means(moments, alpha)?;
            test.t = Some(comparison.test.t);
            test.degrees_of_freedom = Some(comparison.test.degrees);
            test.p_value = Some(comparison.test.p_value);
            test.lift_absolute = Some(comparison.test.effect.estimate);
            test.interval_absolute = Some(comparison.interval.into());
            comparison.lift
        }
        None => {
            let arms = Pair {
                control: only.control.arm().map_err(NoTest::Sums)?,
                treatment: only.treatment.arm().map_err(NoTest::Sums)?,
            };
            let comparison = fixed_horizon::compare_rates(arms, alpha)?;
            if comparison.test == RateTest::FisherExact {
                test.method = TestMethod::FisherExact;
            }
            test.z = Some(comparison.pooled.z);
            test.p_value = Some(comparison.p_value);
            test.lift_absolute = Some(comparison.pooled.effect.estimate);
            test.interval_absolute = Some(comparison.interval.into());
            comparison.lift
        }
    };
    let Lift { estimate, interval, method } = lift?;
    test.lift_relative = Some(estimate);
    test.interval_relative = Some(interval.into());
    let method = match method {
        lift::Method::Fieller => "fieller",
        lift::Method::LogRatio => "log_ratio",
    };
    test.interval_relative_method = Some(method.to_owned());
    Ok(())
}

/// Fills in the asymptotically normal test over several splits. It gives no interval of the relative lift.
fn of_several_splits(data: &Data, alpha: Alpha, test: &mut Test) -> Result<(), NoTest> {
    let score = data.score()?;
    let effect = score.effect_of_z();
    test.z = Some(score.z());
    test.p_value = Some((2.0 * normal_sf(score.z().abs())).min(1.0));
    test.lift_absolute = Some(effect.estimate);
    test.interval_absolute = Some(effect.interval(normal_quantile(1.0 - alpha.get() / 2.0)).into());
    test.lift_relative = data.control_mean().map(|mean| effect.estimate / mean);
    test.across_phases = Some(AcrossPhases {
        splits: data.splits.iter().filter(|of| of.control.units > 0 && of.treatment.units > 0).count() as u64,
        lift_by_units: score.effect_by_units().estimate,
        heterogeneity_p_value: stats::phases::heterogeneity(&data.strata).map(|of| of.p_value),
    });
    Ok(())
}
