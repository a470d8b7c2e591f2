//! Conversions per session where whole users are assigned: some users come rarely and hardly ever convert,
//! others come often and convert often. The delta method accounts for the resemblance of a user's sessions; a
//! test of sessions does not.

use stats::power::RatioParts;
use stats::random::Random;
use stats::{
    Alternative, Arm, Counts, Invalid, Pair, PairMoments,
    proportion_interval::{self, Score},
    ratio, two_proportion, welch,
};

use super::{Estimator, Finding, Pace, Study, StudyLook};
use crate::calibrate::{Planned, paths::Truth};

const UNITS: u64 = 1_000;

/// A kind of user; both kinds are equally frequent.
struct Habit {
    /// The mean number of sessions, which is geometric from 1 on.
    sessions: f64,
    /// The conversion rate of a session.
    rate: f64,
}

const HABITS: [Habit; 2] = [Habit { sessions: 2.0, rate: 0.05 }, Habit { sessions: 8.0, rate: 0.45 }];

pub fn study(plan: &Planned) -> Result<Study, Invalid> {
    let pace = Pace::of(plan, UNITS);
    let parts = parts();
    let effect = pace.detectable(plan, parts.sd()?)?;
    let lift = effect / parts.ratio;
    let alpha = plan.alpha;
    let estimator = |name, place| Estimator { name, place, true_effect: effect };
    let mut watchers = estimator("ratio: delta method", 0).all_ways(plan)?;
    watchers.push(estimator("ratio: as if sessions were assigned", 1).once(plan));
    let draw = move |truth: Truth, looks, random: &mut Random| {
        let lifts = truth.arms(0.0, lift);
        let mut arms = Pair::<PairMoments>::default();
        let mut found = Vec::with_capacity(looks);
        for index in 0..looks {
            let new = lifts.map(|lift| {
                let users: Vec<(f64, f64)> = (0..pace.per_look).map(|_| user(lift, random)).collect();
                PairMoments::of(users).expect("counts are finite")
            });
            arms = arms.with(new, |all, more| all.merge(more));
            let delta = ratio::linearized(arms)
                .and_then(|moments| welch::test(moments, Alternative::TwoSided))
                .map(|test| Finding::welch(test, alpha));
            let sessions = arms.map(as_sessions);
            let by_sessions = two_proportion::pooled_z(sessions, Alternative::TwoSided).map(|test| Finding {
                effect: test.effect,
                z: test.z,
                p_value: test.p_value,
                interval: proportion_interval::score(sessions, alpha, Alternative::TwoSided, Score::Mee)
                    .expect("every user has a session"),
            });
            found.push(StudyLook { index, by: vec![delta.ok(), by_sessions.ok()] });
        }
        found
    };
    Ok(Study { every: 1, horizons: None, watchers, draw: Box::new(draw) })
}

/// Draws the conversions and sessions of one user.
fn user(lift: f64, random: &mut Random) -> (f64, f64) {
    let habit = &HABITS[random.below(2) as usize];
    let sessions = 1 + (random.uniform().ln() / (-1.0 / habit.sessions).ln_1p()) as u64;
    let rate = habit.rate * (1.0 + lift);
    let conversions = (0..sessions).filter(|_| random.uniform() < rate).count();
    (conversions as f64, sessions as f64)
}

fn as_sessions(arm: PairMoments) -> Arm {
    let counts = Counts { units: arm.y().sum().round() as u64, conversions: arm.x().sum().round() as u64 };
    Arm::new(counts).expect("a session converts once")
}

/// The moments of a user, in closed form: sessions y of mean m have `E y^2 = 2 m^2 - m`, and conversions x
/// given y are binomial.
fn parts() -> RatioParts {
    let mean = |of: &dyn Fn(&Habit) -> f64| HABITS.iter().map(of).sum::<f64>() / HABITS.len() as f64;
    let squared = |habit: &Habit| 2.0 * habit.sessions * habit.sessions - habit.sessions;
    let (x, y) = (mean(&|of| of.sessions * of.rate), mean(&|of| of.sessions));
    let var_y = mean(&squared) - y * y;
    let var_x = mean(&|of| of.sessions * of.rate * (1.0 - of.rate) + squared(of) * of.rate * of.rate) - x * x;
    let covariance = mean(&|of| squared(of) * of.rate) - x * y;
    RatioParts {
        ratio: x / y,
        numerator_sd: var_x.sqrt(),
        denominator_mean: y,
        denominator_sd: var_y.sqrt(),
        correlation: covariance / (var_x * var_y).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400,000 drawn users have the moments of the closed form, within four standard errors or one per cent.
    #[test]
    fn drawn_users_have_the_moments_of_the_closed_form() {
        const SEED: u64 = 3;
        println!("seed {SEED}");
        let mut random = Random::new(SEED);
        let drawn = PairMoments::of((0..400_000).map(|_| user(0.0, &mut random))).unwrap();
        let parts = parts();
        let ratio = drawn.x().mean() / drawn.y().mean();
        assert!((ratio - 0.37).abs() < 4.0 * parts.sd().unwrap() / 400_000_f64.sqrt(), "{ratio}");
        let sd = |moments: stats::Moments| moments.variance().unwrap().sqrt();
        for (found, expected) in [
            (sd(drawn.x()), parts.numerator_sd),
            (sd(drawn.y()), parts.denominator_sd),
            (drawn.y().mean(), 5.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.01, "{found} {expected}");
        }
        let correlation = drawn.covariance().unwrap() / (sd(drawn.x()) * sd(drawn.y()));
        assert!((correlation - parts.correlation).abs() < 0.005, "{correlation} {parts:?}");
        let linear = ratio::linearized(Pair { control: drawn, treatment: drawn }).unwrap().control;
        assert!((sd(linear) / parts.sd().unwrap() - 1.0).abs() < 0.01, "{linear:?} {parts:?}");
    }
}
