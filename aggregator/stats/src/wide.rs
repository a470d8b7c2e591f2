//! Unsigned 256-bit integers, with only the operations needed to subtract one large product from another before
//! rounding.

/// `high * 2^128 + low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wide {
    high: u128,
    low: u128,
}

const HALF: u32 = 64;
const LOW_HALF: u128 = u64::MAX as u128;

impl Wide {
    /// The whole product of two 128-bit integers, by schoolbook multiplication of 64-bit halves.
    pub(crate) fn product(a: u128, b: u128) -> Wide {
        let (a1, a0) = (a >> HALF, a & LOW_HALF);
        let (b1, b0) = (b >> HALF, b & LOW_HALF);
        let bottom = a0 * b0;
        let (middle, carried) = (a1 * b0).overflowing_add(a0 * b1);
        let carry_middle = u128::from(carried) << HALF;
        let (low, carried) = bottom.overflowing_add(middle << HALF);
        let high = a1 * b1 + (middle >> HALF) + carry_middle + u128::from(carried);
        Wide { high, low }
    }

    pub(crate) fn square(a: i128) -> Wide {
        Wide::product(a.unsigned_abs(), a.unsigned_abs())
    }

    pub(crate) fn checked_sub(self, other: Wide) -> Option<Wide> {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        let high = self.high.checked_sub(other.high)?.checked_sub(u128::from(borrow))?;
        Some(Wide { high, low })
    }

    /// Rounded twice at most: relative error below 2^-52.
    pub(crate) fn to_f64(self) -> f64 {
        self.high as f64 * 2f64.powi(128) + self.low as f64
    }

    /// `a * b - c * d` of signed factors, rounded once at the end unless the terms differ in sign
    /// (then they add up and nothing can cancel).
    pub(crate) fn signed_difference((a, b): (i128, i128), (c, d): (i128, i128)) -> f64 {
        let left = Wide::product(a.unsigned_abs(), b.unsigned_abs());
        let right = Wide::product(c.unsigned_abs(), d.unsigned_abs());
        let left_negative = (a < 0) != (b < 0);
        let right_negative = (c < 0) != (d < 0);
        let magnitude = |bigger: Wide, smaller: Wide| {
            bigger.checked_sub(smaller).expect("the bigger is not smaller").to_f64()
        };
        match (left_negative, right_negative) {
            (false, false) | (true, true) => {
                let difference = if left >= right { magnitude(left, right) } else { -magnitude(right, left) };
                if left_negative { -difference } else { difference }
            }
            (false, true) => left.to_f64() + right.to_f64(),
            (true, false) => -(left.to_f64() + right.to_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_carry_into_the_high_half() {
        assert_eq!(Wide::product(3, 5), Wide { high: 0, low: 15 });
        assert_eq!(Wide::product(1 << 127, 4), Wide { high: 2, low: 0 });
        // (2^128 - 1)^2 = 2^256 - 2^129 + 1
        assert_eq!(Wide::product(u128::MAX, u128::MAX), Wide { high: u128::MAX - 1, low: 1 });
    }

    #[test]
    fn differences_borrow_from_the_high_half() {
        let two_to_128 = Wide { high: 1, low: 0 };
        let one = Wide { high: 0, low: 1 };
        assert_eq!(two_to_128.checked_sub(one), Some(Wide { high: 0, low: u128::MAX }));
        assert_eq!(one.checked_sub(two_to_128), None);
        assert_eq!(two_to_128.to_f64(), 340_282_366_920_938_463_463_374_607_431_768_211_456.0);
    }

    #[test]
    fn signs_of_both_terms_count() {
        assert_eq!(Wide::signed_difference((2, 3), (4, 5)), -14.0);
        assert_eq!(Wide::signed_difference((-2, 3), (4, 5)), -26.0);
        assert_eq!(Wide::signed_difference((2, 3), (4, -5)), 26.0);
        assert_eq!(Wide::signed_difference((-2, 3), (-4, 5)), 14.0);
    }
}
