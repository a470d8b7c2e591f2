//! Compares with well-known numbers of the literature. Each test names what the number was really compared
//! with: a package's own output, its manual, or the figure that the literature is quoted for.

use stats::{
    Alpha, Alternative, Pair, Power,
    group_sequential::{Boundary, Design, Family, Looks, Spending},
    power::{self, NullVariance, Plan},
};

fn equal(looks: usize) -> Vec<f64> {
    (1..=looks).map(|k| k as f64 / looks as f64).collect()
}

fn classical(family: Family, looks: usize) -> Looks {
    Looks::classical(family, &equal(looks), Alpha::FIVE_PERCENT, Alternative::TwoSided).unwrap()
}

fn assert_printed(what: &str, got: f64, printed: f64, half_a_digit: f64) {
    assert!((got - printed).abs() <= half_a_digit * 1.000_001, "{what}: got {got}, printed {printed}");
}

/// Constants of the classical boundaries at 5 %, two-sided: C_P(K) and C_B(K) in the notation of Jennison &
/// Turnbull (2000). Recomputed with the integration kernel of the PyPI package gsdesign 0.1.5 (48 grid
/// points) and bisection, not copied from the book.
#[test]
fn constants_of_pocock_and_of_obrien_and_fleming() {
    let recomputed = [
        (1, 1.959_96, 1.959_96),
        (2, 2.178_27, 1.977_43),
        (3, 2.289_48, 2.004_04),
        (4, 2.361_30, 2.024_30),
        (5, 2.413_18, 2.040_07),
        (6, 2.453_21, 2.052_79),
        (7, 2.485_49, 2.063_32),
        (8, 2.512_34, 2.072_21),
        (9, 2.535_19, 2.079_85),
        (10, 2.555_01, 2.086_50),
        (20, 2.671_97, 2.125_65),
    ];
    for (looks, pocock, obrien_fleming) in recomputed {
        let last = |family| classical(family, looks).criticals()[looks - 1];
        assert_printed(&format!("C_P({looks})"), last(Family::Pocock), pocock, 1e-5);
        assert_printed(&format!("C_B({looks})"), last(Family::OBrienFleming), obrien_fleming, 1e-5);
    }
}

/// The largest sample of these boundaries relative to one look at 80 % power, R_P(K) and R_B(K); by the same
/// kernel and a second bisection for the drift.
#[test]
fn inflation_factors_at_80_percent_power() {
    let recomputed = [
        (2, 1.110_39, 1.007_78),
        (3, 1.166_31, 1.017_40),
        (4, 1.202_33, 1.023_84),
        (5, 1.228_37, 1.028_41),
        (10, 1.300_32, 1.039_89),
    ];
    for (looks, pocock, obrien_fleming) in recomputed {
        let cost =
            |family| classical(family, looks).cost(Alpha::FIVE_PERCENT, Power::EIGHTY_PERCENT).inflation;
        assert_printed(&format!("R_P({looks})"), cost(Family::Pocock), pocock, 1e-5);
        assert_printed(&format!("R_B({looks})"), cost(Family::OBrienFleming), obrien_fleming, 1e-5);
    }
}

/// Bounds of the spending functions of Lan & DeMets (1983) at five equal looks, two-sided 5 %: as R's rpact
/// 3.3.4 and the gsdesign kernel give them, to three digits.
#[test]
fn spending_bounds_at_five_looks() {
    let printed = [
        (Spending::OBrienFleming, [4.877, 3.357, 2.680, 2.290, 2.031]),
        (Spending::Pocock, [2.438, 2.427, 2.410, 2.397, 2.386]),
    ];
    for (spending, bounds) in printed {
        let design = Design { alpha: Alpha::FIVE_PERCENT, alternative: Alternative::TwoSided, spending };
        let boundary = Boundary::planned(design, &equal(5)).unwrap();
        for (bound, printed) in boundary.bounds().iter().zip(bounds) {
            assert_printed(&format!("{spending:?}"), bound.critical, printed, 5e-4);
        }
    }
}

/// The probability of a nominal 5 % at any of K looks, for which Armitage, McPherson & Rowe (1969), JRSS A
/// 132(2), are quoted; all but that of 4 looks are also in the golden file `peeking_type1`, by the gsdesign
/// kernel.
#[test]
fn repeated_tests_of_accumulating_data() {
    let printed =
        [(1, 0.050), (2, 0.083), (3, 0.107), (4, 0.126), (5, 0.142), (10, 0.193), (20, 0.248), (50, 0.320)];
    let critical = Alternative::TwoSided.critical_z(Alpha::FIVE_PERCENT);
    for (looks, printed) in printed {
        let uncorrected = Looks::with_bounds(&equal(looks), &vec![critical; looks], Alternative::TwoSided);
        let found = uncorrected.unwrap().crossing_probability(0.0);
        assert_printed(&format!("{looks} looks"), found, printed, 5e-4);
    }
}

/// Units an arm for d = 0.2, 0.5, 0.8 at 80 % power, as Cohen (1988), Statistical Power Analysis, is quoted
/// for; and the examples of R's manual, `power.t.test(power = .90, delta = 1)` and its one-sided version.
#[test]
fn sample_sizes_of_the_t_test() {
    let size = |alternative, difference, power| {
        let plan = Plan::new(Alpha::FIVE_PERCENT, alternative, 1.0).unwrap();
        power::means_sample_size_t(1.0, difference, Power::new(power).unwrap(), &plan).unwrap()
    };
    for (d, printed) in [(0.2, 394), (0.5, 64), (0.8, 26)] {
        assert_eq!(size(Alternative::TwoSided, d, 0.8).control, printed, "{d}");
    }
    assert_printed("R", size(Alternative::TwoSided, 1.0, 0.9).control_exact, 22.02110, 5e-5);
    assert_printed("R, one-sided", size(Alternative::Greater, 1.0, 0.9).control_exact, 17.84713, 5e-5);
}

/// The example of R's manual, `power.prop.test(p1 = .50, p2 = .75, power = .90)`: n = 76.7.
#[test]
fn sample_size_of_two_rates() {
    let plan = Plan::even(Alpha::FIVE_PERCENT);
    let rates = Pair { control: 0.5, treatment: 0.75 };
    let size =
        power::rates_sample_size(rates, Power::new(0.9).unwrap(), &plan, NullVariance::Pooled).unwrap();
    assert_printed("R", size.control_exact, 76.7, 0.05);
}
