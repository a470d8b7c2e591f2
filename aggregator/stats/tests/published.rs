//! Numbers as printed in books and manuals, to the digits printed there.

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

/// Jennison & Turnbull (2000), Group Sequential Methods with Applications to Clinical Trials: table 2.1, C_P(K, 0.05),
/// and table 2.3, C_B(K, 0.05).
#[test]
fn constants_of_pocock_and_of_obrien_and_fleming() {
    let printed = [
        (1, 1.960, 1.960),
        (2, 2.178, 1.977),
        (3, 2.289, 2.004),
        (4, 2.361, 2.024),
        (5, 2.413, 2.040),
        (6, 2.453, 2.053),
        (7, 2.485, 2.063),
        (8, 2.512, 2.072),
        (9, 2.535, 2.080),
        (10, 2.555, 2.087),
        (20, 2.672, 2.126),
    ];
    for (looks, pocock, obrien_fleming) in printed {
        let last = |family| classical(family, looks).criticals()[looks - 1];
        assert_printed(&format!("C_P({looks})"), last(Family::Pocock), pocock, 5e-4);
        assert_printed(&format!("C_B({looks})"), last(Family::OBrienFleming), obrien_fleming, 5e-4);
    }
}

/// The same book, tables 2.2 and 2.4: R_P(K, 0.05, 0.2) and R_B(K, 0.05, 0.2), the largest sample relative to one
/// look at 80 % power. The book rounds its Pocock factors up in places, so they are held to one unit of the last digit.
#[test]
fn inflation_factors_at_80_percent_power() {
    let printed =
        [(2, 1.110, 1.008), (3, 1.166, 1.017), (4, 1.202, 1.024), (5, 1.229, 1.028), (10, 1.301, 1.040)];
    for (looks, pocock, obrien_fleming) in printed {
        let cost =
            |family| classical(family, looks).cost(Alpha::FIVE_PERCENT, Power::EIGHTY_PERCENT).inflation;
        assert_printed(&format!("R_P({looks})"), cost(Family::Pocock), pocock, 1e-3);
        assert_printed(&format!("R_B({looks})"), cost(Family::OBrienFleming), obrien_fleming, 5e-4);
    }
}

/// Bounds of the spending functions at five equal looks, two-sided 5 % (Lan & DeMets 1983; Reboussin, DeMets, Kim &
/// Lan 2000, Controlled Clinical Trials 21(3), whose program prints them).
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

/// Armitage, McPherson & Rowe (1969), JRSS A 132(2), table 2: the chance of a nominal 5 % at some of K looks.
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

/// Cohen (1988), Statistical Power Analysis, table 2.4.1: units an arm for d = 0.2, 0.5, 0.8 at 80 % power; and the
/// examples of R's manual, `power.t.test(power = .90, delta = 1)` and its one-sided version.
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
