//! The complementary error function to full double precision; statrs' own is wrong by 1e-10 for
//! arguments above a half, which is visible in p-values and accumulates in boundary integrals.

// The coefficients are printed with more digits than a double keeps.
#![allow(clippy::excessive_precision)]

/// 1 / sqrt(pi)
const FRAC_1_SQRT_PI: f64 = 0.564_189_583_547_756_286_95;

/// Where the first rational function ends.
const NEAR_END: f64 = 0.46875;

/// Numerator and denominator of erf(x) / x in x^2, |x| <= 0.46875; highest power first.
const NEAR: ([f64; 5], [f64; 5]) = (
    [
        1.857_777_061_846_031_53e-1,
        3.161_123_743_870_565_60e0,
        1.138_641_541_510_501_56e2,
        3.774_852_376_853_020_21e2,
        3.209_377_589_138_469_47e3,
    ],
    [
        1.0,
        2.360_129_095_234_412_09e1,
        2.440_246_379_344_441_73e2,
        1.282_616_526_077_372_28e3,
        2.844_236_833_439_170_62e3,
    ],
);

/// The same for exp(x^2) erfc(x) in x, 0.46875 < x <= 4.
const MIDDLE: ([f64; 9], [f64; 9]) = (
    [
        2.153_115_354_744_038_46e-8,
        5.641_884_969_886_700_89e-1,
        8.883_149_794_388_375_94e0,
        6.611_919_063_714_162_95e1,
        2.986_351_381_974_001_31e2,
        8.819_522_212_417_690_90e2,
        1.712_047_612_634_070_58e3,
        2.051_078_377_826_071_47e3,
        1.230_339_354_797_997_25e3,
    ],
    [
        1.0,
        1.574_492_611_070_983_47e1,
        1.176_939_508_913_124_99e2,
        5.371_811_018_620_098_58e2,
        1.621_389_574_566_690_19e3,
        3.290_799_235_733_459_63e3,
        4.362_619_090_143_247_16e3,
        3.439_367_674_143_721_64e3,
        1.230_339_354_803_749_42e3,
    ],
);

/// The same for `(1/sqrt(pi) - x exp(x^2) erfc(x)) x^2` in 1/x^2, x > 4.
const FAR: ([f64; 6], [f64; 6]) = (
    [
        1.631_538_713_730_209_78e-2,
        3.053_266_349_612_323_44e-1,
        3.603_448_999_498_044_39e-1,
        1.257_817_261_112_292_46e-1,
        1.608_378_514_874_227_66e-2,
        6.587_491_615_298_378_03e-4,
    ],
    [
        1.0,
        2.568_520_192_289_822_42e0,
        1.872_952_849_923_460_47e0,
        5.279_051_029_514_284_12e-1,
        6.051_834_131_244_131_91e-2,
        2.335_204_976_268_691_85e-3,
    ],
);

/// `2/sqrt(pi)` times the integral of exp(-t^2) from x to infinity. Cody (1969), Rational Chebyshev
/// approximations for the error function, Mathematics of Computation 23(107), with the
/// coefficients of his CALERF. Relative error below 1e-15 until exp(-x^2) underflows at x = 26.5.
pub(crate) fn erfc(x: f64) -> f64 {
    let y = x.abs();
    if y > 30.0 {
        return if x < 0.0 { 2.0 } else { 0.0 };
    }
    if y <= NEAR_END {
        return 1.0 - x * rational(&NEAR, y * y);
    }
    // y^2 in two parts, so that the exponential does not magnify the rounding of the square.
    let coarse = (y * 16.0).trunc() / 16.0;
    let exponential = (-coarse * coarse).exp() * (-(y - coarse) * (y + coarse)).exp();
    let upper = exponential * scaled(y);
    if x < 0.0 { 2.0 - upper } else { upper }
}

/// erfc(x) from a known `exp(-x^2)`: it saves one exponential, and has a relative error of up to
/// x^2 roundings.
pub(crate) fn erfc_from(x: f64, exponential: f64) -> f64 {
    let y = x.abs();
    if y <= NEAR_END {
        return 1.0 - x * rational(&NEAR, y * y);
    }
    let upper = exponential * scaled(y);
    if x < 0.0 { 2.0 - upper } else { upper }
}

/// The logarithm of erfc(x), for x above a half; finite where erfc itself underflows.
pub(crate) fn log_erfc(x: f64) -> f64 {
    scaled(x).ln() - x * x
}

/// `exp(y^2) erfc(y)` for y above [`NEAR_END`].
fn scaled(y: f64) -> f64 {
    if y <= 4.0 {
        return rational(&MIDDLE, y);
    }
    let inverse = 1.0 / (y * y);
    (FRAC_1_SQRT_PI - inverse * rational(&FAR, inverse)) / y
}

fn rational<const N: usize>((numerator, denominator): &([f64; N], [f64; N]), x: f64) -> f64 {
    let horner =
        |coefficients: &[f64; N]| coefficients.iter().fold(0.0, |sum, &coefficient| sum * x + coefficient);
    horner(numerator) / horner(denominator)
}

#[cfg(test)]
mod tests {
    use super::{erfc, erfc_from};

    /// Values of Python's math.erfc (the C library's).
    #[test]
    fn values_are_right_to_the_last_digits() {
        for (x, expected) in CASES {
            let got = erfc(x);
            assert!((got / expected - 1.0).abs() < 1e-14, "{x}: {got:e}, {expected:e}");
            let from = erfc_from(x, (-x * x).exp());
            assert!((from / expected - 1.0).abs() < 1e-13, "{x}: {from:e}, {expected:e}");
        }
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(erfc(0.0), 1.0);
        assert_eq!(erfc(f64::INFINITY), 0.0);
        assert_eq!(erfc(f64::NEG_INFINITY), 2.0);
    }

    const CASES: [(f64, f64); 10] = [
        (-3.0, 1.9999779095030015),
        (-0.7, 1.6778011938374184),
        (-0.3, 1.3286267594591274),
        (0.1, 0.8875370839817152),
        (0.46, 0.5153446099983203),
        (0.5, 0.4795001221869535),
        (1.3, 0.06599205505934755),
        (3.9, 3.479224859723177e-08),
        (4.1, 6.700027654084918e-09),
        (20.0, 5.3958656116079005e-176),
    ];
}
