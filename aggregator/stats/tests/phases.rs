//! Tests of phases as strata: one phase gives the results of the methods without phases, and several phases
//! agree with numpy and scipy (`references/phases.py`, numpy 2.4, scipy 1.17.1).

use stats::conditional::{self, Levels};
use stats::confidence_sequence::{self, Mixing};
use stats::conversion_counts::{self, CONCENTRATION};
use stats::few_conversions::Few;
use stats::group_sequential::{
    self, Boundary, CountBound, CountBoundary, Design, PhaseTotal, Spending, Stage,
};
use stats::phases::{self, AlwaysValidDesign, CountTest, PhaseCounts, Score, Stratum, TreatmentShare};
use stats::{
    Alpha, Alternative, Arm, Counts, Effect, Interval, Missing, Moments, Pair, Side, two_proportion, welch,
};

fn share(share: f64) -> TreatmentShare {
    TreatmentShare::new(share).unwrap()
}

/// Makes the arms from (conversions, units).
fn arms(control: (u64, u64), treatment: (u64, u64)) -> Pair<Arm> {
    Pair { control, treatment }.map(|(conversions, units)| Arm::new(Counts { units, conversions }).unwrap())
}

fn rates(treatment_share: f64, control: (u64, u64), treatment: (u64, u64)) -> Stratum {
    Stratum::of_rates(share(treatment_share), arms(control, treatment))
}

/// Makes the moments from (units, mean, variance).
fn moments(control: (u64, f64, f64), treatment: (u64, f64, f64)) -> Pair<Moments> {
    Pair { control, treatment }
        .map(|(count, mean, variance)| Moments::from_variance(count, mean, variance).unwrap())
}

fn three_phases() -> [Stratum; 3] {
    [
        rates(0.5, (250, 5000), (290, 5010)),
        rates(0.1, (500, 9000), (70, 1000)),
        rates(0.05, (90, 1900), (9, 100)),
    ]
}

fn always_valid(units: f64) -> AlwaysValidDesign {
    let sequence = confidence_sequence::Design::new(
        Alpha::FIVE_PERCENT,
        Alternative::TwoSided,
        Mixing::TunedForUnits(units),
    );
    AlwaysValidDesign::new(sequence.unwrap(), TreatmentShare::HALF, CONCENTRATION).unwrap()
}

fn obrien_fleming() -> Design {
    Design {
        alpha: Alpha::FIVE_PERCENT,
        alternative: Alternative::TwoSided,
        spending: Spending::OBrienFleming,
    }
}

#[track_caller]
fn near(found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{found} is not {expected}");
}

#[test]
fn one_phase_of_rates_is_the_pooled_test_to_the_last_bit() {
    let arms = arms((503, 9_817), (577, 10_021));
    let stratum = Stratum::of_rates(TreatmentShare::HALF, arms);
    let test = two_proportion::pooled_z(arms, Alternative::TwoSided).unwrap();
    let empty = rates(0.1, (3, 70), (0, 0));
    for strata in [vec![stratum], vec![stratum, empty]] {
        let score = Score::of(&strata).unwrap();
        assert_eq!((score.effect(), score.effect_of_z(), score.z()), (test.effect, test.effect, test.z));
        assert_eq!(score.effect_by_units(), test.effect);
        assert_eq!(score.means(), two_proportion::rates(arms).unwrap());
        assert_eq!(score.units(), arms.map(Arm::units));
    }
    let always = always_valid(20_000.0);
    assert_eq!(always.look(&[stratum]), always.sequence().look_at_rates(arms));
    assert_eq!(always.units(&[stratum]), 19_838.0);
    let planned = Pair { control: 12_345, treatment: 12_346 };
    let fraction = group_sequential::information_fraction(arms.map(Arm::units), planned);
    assert_eq!(phases::information_fraction(&[stratum], planned), fraction);
    assert_eq!(phases::information_fraction(&[stratum, empty], planned), fraction);
    assert_eq!(phases::heterogeneity(&[stratum, empty]), None);
}

/// For means, the boundary uses the effect with the error of the normal deviate that has the tail of t.
#[test]
fn one_phase_of_means_is_welchs_test_to_the_last_bit() {
    let moments = moments((12, 3.1, 4.0), (9, 4.6, 9.0));
    let stratum = Stratum::of_means(TreatmentShare::HALF, moments);
    let test = welch::test(moments, Alternative::TwoSided).unwrap();
    let score = Score::of(&[stratum]).unwrap();
    assert_eq!((score.effect(), score.z()), (test.effect, test.as_z()));
    let estimate = test.effect.estimate;
    assert_eq!(score.effect_of_z(), Effect { estimate, standard_error: estimate / test.as_z() });
    let always = always_valid(20_000.0);
    assert_eq!(always.look(&[stratum]), always.sequence().look_at_means(moments));
}

#[test]
fn one_phase_of_counts_gives_the_tests_without_phases() {
    let (counts, half) = (Pair { control: 12, treatment: 3 }, TreatmentShare::HALF);
    let phase = [PhaseCounts { treatment_share: half, counts }];
    let design = conversion_counts::Design::new(0.5, CONCENTRATION, Alpha::FIVE_PERCENT).unwrap();
    let (was, is) =
        (design.look(counts), CountTest::new(CONCENTRATION, Alpha::FIVE_PERCENT).unwrap().look(&phase));
    assert_eq!(
        (is.log_e_value, is.p_value, is.log_rate_ratio, is.interval),
        (was.log_bayes_factor, was.p_value, was.log_rate_ratio, Some(was.interval))
    );
    assert_eq!(phases::binomial_tails(&phase), conditional::binomial_tails(counts, 0.5).unwrap());
    let levels = Levels::central(Alpha::FIVE_PERCENT);
    assert_eq!(phases::log_rate_ratio(&phase, levels), conditional::log_rate_ratio(counts, 0.5, levels));
    let harm = conversion_counts::OneSided::new(0.5, CONCENTRATION, Side::Control).unwrap().look(counts);
    assert_eq!(phases::more_than_its_share(&phase, CONCENTRATION, Side::Control), Ok(harm));
    let arms = arms((12, 400), (3, 380));
    assert_eq!(phases::fisher_tails(&[arms]), conditional::fisher_tails(arms));
    let alpha = Alpha::FIVE_PERCENT;
    assert_eq!(phases::log_odds_ratio(&[arms], alpha), conditional::log_odds_ratio(arms, alpha));
    let stratum = Stratum::of_rates(half, arms);
    assert_eq!(phases::few(&[stratum]).map(|few| few.few), Few::of_rates(arms));
    assert_eq!(
        phases::few_at_a_planned_look(&[stratum]).map(|few| few.few),
        Few::of_rates_at_a_planned_look(arms, 0.5)
    );
    let mut was = CountBoundary::new(obrien_fleming(), 0.5, 0.0).unwrap();
    let mut is = CountBoundary::by_phase(obrien_fleming(), 0.0);
    for (fraction, total) in [(0.3, 9), (0.7, 30), (1.0, 41)] {
        let totals = [PhaseTotal { treatment_share: half, total }];
        let final_look = fraction == 1.0;
        assert_eq!(is.look_by_phase(fraction, final_look, &totals), was.look(fraction, final_look, total));
    }
}

#[test]
fn three_phases_of_rates_agree_with_scipy() {
    let strata = three_phases();
    let score = Score::of(&strata).unwrap();
    near(score.effect().estimate, 0.0105161675467, 1e-11);
    near(score.effect().standard_error, 0.00384199420171, 1e-11);
    near(score.z(), 2.73716382549, 1e-11);
    near(score.weight(), 3497.4975025, 1e-11);
    near(score.effect_by_units().estimate, 0.014022206271, 1e-11);
    near(score.effect_by_units().standard_error, 0.00454267463744, 1e-11);
    let Pair { control, treatment } = score.means();
    near(treatment - control, score.effect().estimate, 1e-12);
    let planned = Pair { control: 10_000, treatment: 10_000 };
    near(phases::information_fraction(&strata, planned).unwrap(), 0.6994995005, 1e-11);
    let heterogeneity = phases::heterogeneity(&strata).unwrap();
    assert_eq!(heterogeneity.degrees, 1);
    near(heterogeneity.chi2, 0.471296695146, 1e-10);
    near(heterogeneity.p_value, 0.492391232253, 1e-10);
    let always = always_valid(20_000.0);
    near(always.units(&strata), 13_990.0, 1e-12);
    let look = always.look(&strata).unwrap();
    near(look.log_e_value, 2.2344016587, 1e-10);
    near(look.p_value, 0.10705616682, 1e-10);
    near(look.interval.lower, -0.00119341784534, 1e-10);
    near(look.interval.upper, 0.0222257529386, 1e-10);
    assert_eq!(always.p_value(&strata), Ok(look.p_value));
}

#[test]
fn two_phases_of_means_agree_with_scipy() {
    let strata = [
        Stratum::of_means(share(0.5), moments((12, 3.1, 4.0), (9, 4.6, 9.0))),
        Stratum::of_means(share(0.1), moments((20, 3.0, 5.0), (3, 5.0, 2.0))),
    ];
    let score = Score::of(&strata).unwrap();
    near(score.effect().estimate, 1.66826923077, 1e-11);
    near(score.effect().standard_error, 0.83110062093, 1e-11);
    near(score.z(), 1.87005214532, 1e-9);
    near(score.effect_of_z().standard_error, 1.66826923077 / 1.87005214532, 1e-9);
}

fn counts() -> [PhaseCounts; 3] {
    [(12, 3, 0.5), (30, 1, 0.1), (20, 0, 0.05)].map(|(control, treatment, of)| PhaseCounts {
        treatment_share: share(of),
        counts: Pair { control, treatment },
    })
}

#[test]
fn counts_of_three_phases_agree_with_scipy() {
    let tails = phases::binomial_tails(&counts());
    near(tails.at_most, 0.00249191800965, 1e-10);
    near(tails.at_least, 0.999460476446, 1e-10);
    let ratio = phases::log_rate_ratio(&counts(), Levels::central(Alpha::FIVE_PERCENT)).unwrap();
    near(ratio.lower, -2.79784856582, 1e-10);
    near(ratio.upper, -0.345422473362, 1e-10);
    let look = CountTest::new(100.0, Alpha::FIVE_PERCENT).unwrap().look(&counts());
    near(look.log_e_value, 0.513233787721, 1e-10);
    near(look.p_value, 0.598556840008, 1e-10);
    near(look.log_rate_ratio.unwrap(), -1.41468680011, 1e-10);
    near(look.interval.unwrap().lower, -4.22183467683, 1e-10);
    near(look.interval.unwrap().upper, 0.285037782252, 1e-10);
}

#[test]
fn tables_of_two_phases_agree_with_scipy() {
    let tables = [arms((8, 200), (2, 190)), arms((9, 300), (1, 30)), arms((5, 90), (0, 0))];
    let tails = phases::fisher_tails(&tables).unwrap();
    near(tails.at_most, 0.0988950597709, 1e-10);
    near(tails.at_least, 0.971462369955, 1e-10);
    let ratio = phases::log_odds_ratio(&tables, Alpha::FIVE_PERCENT);
    near(ratio.lower, -2.74779872921, 1e-9);
    near(ratio.upper, 0.372968219497, 1e-9);
}

/// The bounds of looks at 0.3 and 0.6, and the conditional error after z = 1.2 at the second, by Simpson's
/// rule.
#[test]
fn the_conditional_error_agrees_with_simpsons_rule() {
    let mut boundary = Boundary::new(obrien_fleming());
    assert_eq!(phases::conditional_error(&boundary, 0.0), 0.05);
    near(boundary.look(0.3).unwrap().critical, 3.92857254263, 1e-8);
    near(boundary.look(0.6).unwrap().critical, 2.6699720039, 1e-8);
    near(phases::conditional_error(&boundary, 1.2), 0.0482002690902, 1e-7);
    assert_eq!(phases::conditional_error(&boundary, -1.2), phases::conditional_error(&boundary, 1.2));
    assert_eq!(phases::conditional_error(&boundary, 2.7), 1.0);
    boundary.final_look(0.9).unwrap();
    assert_eq!(phases::conditional_error(&boundary, 1.2), 0.0);
}

/// Over all z that did not cross at the first look, the mean of the conditional error is the remaining alpha.
#[test]
fn the_mean_conditional_error_is_the_remaining_alpha() {
    let mut boundary = Boundary::new(obrien_fleming());
    let first = boundary.look(0.5).unwrap();
    const STEPS: usize = 4_000;
    let width = 2.0 * first.critical / STEPS as f64;
    let mean: f64 = (0..STEPS)
        .map(|i| -first.critical + width * (i as f64 + 0.5))
        .map(|z| width * stats::distributions::normal_pdf(z) * phases::conditional_error(&boundary, z))
        .sum();
    near(mean, 0.05 - first.alpha_spent, 1e-5);
}

#[test]
fn phases_without_an_arm_add_nothing_and_no_phase_is_missing_units() {
    let (empty, nothing) = (rates(0.1, (3, 70), (0, 0)), rates(0.1, (0, 0), (0, 0)));
    let missing = Missing::Units { arm: Side::Treatment, have: 0, need: 1 };
    assert_eq!(Score::of(&[]), Err(missing));
    assert_eq!(Score::of(&[empty]), Err(missing));
    let strata = three_phases();
    let with = [strata.as_slice(), &[empty, nothing]].concat();
    assert_eq!(Score::of(&with), Score::of(&strata));
    // One unit of a mean has no variance yet.
    let one = Stratum::of_means(share(0.1), moments((20, 3.0, 5.0), (1, 5.0, 0.0)));
    assert_eq!(Score::of(&[one]), Err(Missing::Units { arm: Side::Treatment, have: 1, need: 2 }));
    assert_eq!(one.weight(), 0.0);
    let zeros = Stratum::of_means(share(0.1), moments((20, 0.0, 0.0), (2, 0.0, 0.0)));
    assert_eq!(Score::of(&[zeros, zeros]), Err(Missing::Variation));
    // Rates without variation have z = 0.
    let none = rates(0.5, (0, 10), (0, 10));
    assert_eq!(Score::of(&[none, none]).unwrap().z(), 0.0);
    let planned = Pair { control: 10, treatment: 0 };
    assert!(phases::information_fraction(&strata, planned).is_err());
}

#[test]
#[should_panic(expected = "rates and means among the strata of one comparison")]
fn rates_and_means_cannot_be_mixed_in_one_comparison() {
    let mean = Stratum::of_means(share(0.5), moments((12, 3.1, 4.0), (9, 4.6, 9.0)));
    let _ = Score::of(&[three_phases()[0], mean]);
}

/// Squares of errors of 1e-200 and of 1e200 are outside the range of a double.
#[test]
fn tiny_and_huge_errors_are_added_up() {
    for scale in [1e-98, 1e98] {
        let of = |mean: f64| moments((50, scale, scale * scale), (50, scale * mean, scale * scale));
        let strata = [1.5, 2.0].map(|mean| Stratum::of_means(TreatmentShare::HALF, of(mean)));
        let score = Score::of(&strata).unwrap();
        near(score.effect().estimate, 0.75 * scale, 1e-12);
        near(score.effect().standard_error, scale * 0.02_f64.sqrt(), 1e-12);
    }
}

#[test]
fn the_gate_counts_conversions_over_all_phases() {
    let (first, second) = (rates(0.5, (30, 500), (6, 500)), rates(0.1, (40, 900), (4, 100)));
    assert!(phases::few(&[first]).is_some());
    assert!(phases::few(&[first, second]).is_none());
    let below = phases::few(&[first, rates(0.1, (40, 900), (3, 100))]).unwrap();
    assert_eq!(below.few.counts, Pair { control: 70, treatment: 9 });
    assert_eq!(below.by_phase[1].counts, Pair { control: 40, treatment: 3 });
    let always = always_valid(20_000.0);
    let missing = Missing::Conversions { arm: Side::Treatment, have: 9, need: 10 };
    let strata = [first, rates(0.1, (40, 900), (3, 100))];
    assert_eq!(always.look(&strata), Err(missing));
    let by_counts = always.counts().evidence(&below.by_phase).p_value;
    assert_eq!(always.p_value(&strata), Ok(by_counts));
    // At a planned look 100 must be expected in the smaller arm where the overall split is uneven: half of 36
    // and a tenth of 820 are 100; with 819 they are 99.9.
    let planned =
        |control| phases::few_at_a_planned_look(&[first, rates(0.1, (control, 9_000), (20, 1_000))]);
    assert!(planned(799).is_some());
    assert!(planned(800).is_none());
    // The gate does not apply to means whose events were not counted.
    let mean = Stratum::of_means(share(0.5), moments((12, 3.1, 4.0), (9, 4.6, 9.0)));
    assert_eq!(phases::few(&[mean, mean]), None);
    let counted = mean.counting(arms((4, 12), (3, 9)));
    assert_eq!(phases::few(&[counted, counted]).unwrap().few.counts, Pair { control: 8, treatment: 6 });
}

/// 30 of 30 conversions in one arm of one phase and in the other arm of the next: no single ratio explains
/// both.
#[test]
fn opposite_phases_have_no_common_ratio() {
    let of = |control, treatment| PhaseCounts {
        treatment_share: TreatmentShare::HALF,
        counts: Pair { control, treatment },
    };
    let test = CountTest::new(CONCENTRATION, Alpha::FIVE_PERCENT).unwrap();
    let look = test.look(&[of(60, 0), of(0, 60)]);
    assert_eq!((look.interval, look.p_value < 1e-6), (None, true));
    near(look.log_rate_ratio.unwrap().abs() + 1.0, 1.0, 1e-9);
    let one_arm = test.look(&[of(9, 0), of(3, 0)]);
    assert_eq!(one_arm.log_rate_ratio, Some(f64::NEG_INFINITY));
    assert_eq!(one_arm.interval.unwrap().lower, f64::NEG_INFINITY);
    assert!(one_arm.interval.unwrap().upper > 0.0);
    let none = test.look(&[of(0, 0), of(0, 0)]);
    assert_eq!((none.p_value, none.interval), (1.0, Some(Interval::EVERYTHING)));
}

/// The probability to cross at any look, by a walk conversion by conversion that shares only the bounds with
/// the boundary.
fn crossing(looks: &[([u64; 3], CountBound)], shares: [f64; 3]) -> (f64, f64) {
    let mut paths = vec![1.0];
    let (mut low, mut high, mut before) = (0.0, 0.0, [0; 3]);
    for (totals, bound) in looks {
        for phase in 0..3 {
            for _ in before[phase]..totals[phase] {
                let mut next = vec![0.0; paths.len() + 1];
                for (count, mass) in paths.iter().enumerate() {
                    next[count] += mass * (1.0 - shares[phase]);
                    next[count + 1] += mass * shares[phase];
                }
                paths = next;
            }
        }
        before = *totals;
        for (count, mass) in paths.iter_mut().enumerate() {
            let count = count as u64;
            if bound.at_most.is_some_and(|most| count <= most) {
                low += std::mem::take(mass);
            } else if bound.at_least.is_some_and(|least| count >= least) {
                high += std::mem::take(mass);
            }
        }
    }
    (low, high)
}

/// Three phases, where units of the first still convert while the later ones run.
#[test]
fn count_boundaries_over_phases_spend_at_most_half_of_alpha_a_side() {
    let shares = [0.5, 0.1, 0.05];
    let mut boundary = CountBoundary::by_phase(obrien_fleming(), 0.0);
    let mut looks = Vec::new();
    for look in 1_u64..=60 {
        let totals = [(look * 2).min(50), look.saturating_sub(20) * 3, look.saturating_sub(40) * 5];
        let phases = [1, 2, 3][usize::from(look > 20) + usize::from(look > 40)];
        let by_phase: Vec<PhaseTotal> = (0..phases)
            .map(|phase| PhaseTotal { treatment_share: share(shares[phase]), total: totals[phase] })
            .collect();
        let bound = boundary.look_by_phase(look as f64 / 60.0, look == 60, &by_phase).unwrap();
        looks.push((totals, bound));
    }
    let (low, high) = crossing(&looks, shares);
    assert!(low <= 0.025 + 1e-12 && high <= 0.025 + 1e-12, "{low} {high}");
    assert!(low > 0.015 && high > 0.015, "{low} {high}");
}

#[test]
fn count_boundaries_check_their_phases() {
    let total = |of: f64, total| PhaseTotal { treatment_share: share(of), total };
    let mut boundary = CountBoundary::by_phase(obrien_fleming(), 0.0);
    boundary.look_by_phase(0.2, false, &[total(0.5, 9), total(0.1, 3)]).unwrap();
    for wrong in [vec![total(0.5, 9)], vec![total(0.5, 8), total(0.1, 3)], vec![total(0.5, 9), total(0.2, 3)]]
    {
        assert!(boundary.look_by_phase(0.4, false, &wrong).is_err(), "{wrong:?}");
    }
    assert!(boundary.look(0.4, false, 12).is_err());
    assert!(boundary.look_by_phase(0.4, false, &[total(0.5, 9), total(0.1, 3), total(0.3, 0)]).is_ok());
}

/// Looks after 1, 2 and 3 phases, of which the second is left out afterwards. The repeated looks are at the
/// shares of the remaining phases, and the spent alpha stays spent, so a look has nothing to spend until it
/// has more information than the last one.
#[test]
fn looks_are_repeated_without_a_phase() {
    let strata = three_phases();
    let planned = Pair { control: 10_000, treatment: 10_000 };
    let fraction = |strata: &[Stratum]| phases::information_fraction(strata, planned).unwrap();
    let mut taken = Boundary::new(obrien_fleming());
    let spent: Vec<f64> =
        (1..=3).map(|phases| taken.look(fraction(&strata[..phases])).unwrap().alpha_spent).collect();
    let again = |remaining: [&[Stratum]; 3]| {
        let mut boundary = Boundary::new(obrien_fleming());
        for (strata, spent) in remaining.into_iter().zip(&spent) {
            boundary.look_having_spent(fraction(strata), *spent).unwrap();
        }
        boundary
    };

    let all = again([&strata[..1], &strata[..2], &strata[..3]]);
    assert_eq!(all.looks().criticals(), taken.looks().criticals());

    let kept = [strata[0], strata[2]];
    let mut left = again([&strata[..1], &strata[..1], &kept]);
    let alphas: Vec<f64> = left.bounds().iter().map(|bound| bound.alpha_spent).collect();
    assert_eq!(alphas, spent);
    assert_eq!(left.bounds()[1].critical, f64::INFINITY);
    let between = left.look(0.65).unwrap();
    assert_eq!((between.critical, between.alpha_spent), (f64::INFINITY, spent[2]));
    let more = left.look(0.8).unwrap();
    assert!(more.critical.is_finite() && more.alpha_spent > spent[2], "{more:?}");
    assert_eq!(left.look(1.0).unwrap().stage, Stage::Final);
    near(left.looks().crossing_probability(0.0), 0.05, 1e-8);

    // Without the first phase there are no data at the first look, hence no bound.
    assert_eq!(fraction(&[]), 0.0);
}

/// The shares depend on the counts: the arm with more conversions gets 90 %, chosen anew at 20 and at 60
/// conversions. The test enumerates all paths of 100 conversions with a look after each; the counts of all
/// three phases are the state. The concentration is 2, with which so few conversions can reject at all.
#[test]
fn the_count_test_keeps_alpha_where_the_shares_depend_on_the_counts() {
    let test = CountTest::new(2.0, Alpha::FIVE_PERCENT).unwrap();
    let better = |counts: &[[u64; 2]]| {
        let sum = |arm: usize| counts.iter().map(|of| of[arm]).sum::<u64>();
        if sum(1) > sum(0) { 0.9 } else { 0.1 }
    };
    // Shares and counts (control, treatment) of the phases so far, with their probability.
    type Path = (Vec<[u64; 2]>, Vec<u64>);
    let mut paths: std::collections::BTreeMap<Path, f64> = [((vec![[0, 0]], vec![5]), 1.0)].into();
    let mut reached = 0.0;
    for conversion in 1..=100_u64 {
        let mut next = std::collections::BTreeMap::new();
        for ((counts, tenths), probability) in paths {
            for (arm, of) in [(1, tenths[tenths.len() - 1]), (0, 10 - tenths[tenths.len() - 1])] {
                let mut counts = counts.clone();
                counts.last_mut().unwrap()[arm] += 1;
                let probability = probability * of as f64 / 10.0;
                let phases: Vec<PhaseCounts> = counts
                    .iter()
                    .zip(&tenths)
                    .map(|(&[control, treatment], &tenths)| PhaseCounts {
                        treatment_share: share(tenths as f64 / 10.0),
                        counts: Pair { control, treatment },
                    })
                    .collect();
                if test.evidence(&phases).p_value <= 0.05 {
                    reached += probability;
                    continue;
                }
                let mut tenths = tenths.clone();
                if conversion == 20 || conversion == 60 {
                    tenths.push((better(&counts) * 10.0) as u64);
                    counts.push([0, 0]);
                }
                *next.entry((counts, tenths)).or_insert(0.0) += probability;
            }
        }
        paths = next;
    }
    assert!(reached < 0.05 && reached > 0.01, "{reached}");
}

#[test]
fn shares_must_be_strictly_between_0_and_1() {
    for wrong in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(TreatmentShare::new(wrong).is_err(), "{wrong}");
    }
    assert_eq!(share(0.2).of_control(), 0.8);
    assert!(CountTest::new(0.0, Alpha::FIVE_PERCENT).is_err());
}

/// Against 0.9 times the control: the estimate 11 - 0.9 * 10, with the variance 4 / 100 + 0.81 * 9 / 100.
#[test]
fn a_contrast_has_a_variance_of_its_own() {
    let moments = Pair { control: (10.0, 9.0), treatment: (11.0, 4.0) }
        .map(|(mean, variance)| Moments::from_variance(100, mean, variance).unwrap());
    let stratum = Stratum::of_means(TreatmentShare::HALF, moments).with_control_times(0.9);
    let effect = Score::of(&[stratum]).unwrap().effect();
    assert!((effect.estimate - 2.0).abs() < 1e-12, "{effect:?}");
    assert!((effect.standard_error - 0.1129_f64.sqrt()).abs() < 1e-12, "{effect:?}");
}

/// At a rate of 1.5 times the control's, half of the units have three of five conversions.
#[test]
fn a_rate_ratio_moves_the_share_of_the_counts() {
    let counts = Pair { control: 5, treatment: 20 };
    let of = PhaseCounts { treatment_share: TreatmentShare::HALF, counts };
    let at = of.at_rate_ratio(1.5).unwrap();
    assert_eq!((at.treatment_share.get(), at.counts), (0.6, counts));
    assert_eq!(of.at_rate_ratio(1.0).unwrap(), of);
    assert!(of.at_rate_ratio(0.0).is_err());
}
