//! Buckets: units are hashed onto the interval [0, 1), which is divided into a million buckets. Variants,
//! rollouts and slots own ranges of buckets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of buckets. A basis point is a hundred of them.
pub const BUCKETS: u32 = 1_000_000;

/// The number of a bucket, in `[0, BUCKETS)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Bucket(u32);

impl Bucket {
    /// `None` outside `[0, BUCKETS)`.
    pub fn new(bucket: u32) -> Option<Bucket> {
        (bucket < BUCKETS).then_some(Bucket(bucket))
    }

    /// Returns the bucket of a 64-bit hash: the hash as a fraction of 2^64, times a million, rounded down.
    /// Without a modulo, there is no bias beyond 2^-64 * BUCKETS.
    pub fn of_hash(hash: u64) -> Bucket {
        Bucket(((u128::from(hash) * u128::from(BUCKETS)) >> 64) as u32)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A non-empty run of buckets `[lo, hi)`; written `[lo, hi]` as a pair in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct BucketRange {
    lo: u32,
    hi: u32,
}

/// Why two numbers are not a [`BucketRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{lo}, {hi}) is not a range of buckets: it must be non-empty and inside [0, 1000000)")]
pub struct NotARange {
    lo: u32,
    hi: u32,
}

impl BucketRange {
    pub const ALL: BucketRange = BucketRange { lo: 0, hi: BUCKETS };

    pub fn new(lo: u32, hi: u32) -> Result<BucketRange, NotARange> {
        if lo < hi && hi <= BUCKETS { Ok(BucketRange { lo, hi }) } else { Err(NotARange { lo, hi }) }
    }

    pub fn lo(self) -> u32 {
        self.lo
    }

    pub fn hi(self) -> u32 {
        self.hi
    }

    /// The number of buckets in the range.
    pub fn width(self) -> u32 {
        self.hi - self.lo
    }

    pub fn contains(self, bucket: Bucket) -> bool {
        self.lo <= bucket.0 && bucket.0 < self.hi
    }

    pub fn overlaps(self, other: BucketRange) -> bool {
        self.lo < other.hi && other.lo < self.hi
    }
}

impl TryFrom<(u32, u32)> for BucketRange {
    type Error = NotARange;

    fn try_from((lo, hi): (u32, u32)) -> Result<BucketRange, NotARange> {
        BucketRange::new(lo, hi)
    }
}

impl From<BucketRange> for (u32, u32) {
    fn from(range: BucketRange) -> (u32, u32) {
        (range.lo, range.hi)
    }
}

impl fmt::Display for BucketRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}, {})", self.lo, self.hi)
    }
}

/// Returns the buckets of `ranges` that are in none of `without`, as ascending ranges that do not touch.
pub fn difference(ranges: &[BucketRange], without: &[BucketRange]) -> Vec<BucketRange> {
    let mut cut: Vec<BucketRange> = without.to_vec();
    cut.sort_unstable();
    let mut rest = Vec::new();
    let mut ranges: Vec<BucketRange> = ranges.to_vec();
    ranges.sort_unstable();
    for range in ranges {
        let mut at = range.lo;
        for gone in cut.iter().filter(|gone| gone.overlaps(range)) {
            rest.extend(BucketRange::new(at, gone.lo.min(range.hi)));
            at = at.max(gone.hi);
        }
        rest.extend(BucketRange::new(at, range.hi));
    }
    merge_adjacent(rest)
}

/// Sorts the ranges and merges those that touch.
pub fn merge_adjacent(mut ranges: Vec<BucketRange>) -> Vec<BucketRange> {
    ranges.sort_unstable();
    let mut merged: Vec<BucketRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.hi == range.lo => last.hi = range.hi,
            _ => merged.push(range),
        }
    }
    merged
}

/// A share in hundredths of a percent, from 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BasisPoints(u32);

/// Why a number is not a share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a share in basis points: 0 to 10000, 10000 being everything")]
pub struct NotAShare(u32);

impl BasisPoints {
    pub const ALL: BasisPoints = BasisPoints(10_000);

    pub fn new(share: u32) -> Result<BasisPoints, NotAShare> {
        if share <= 10_000 { Ok(BasisPoints(share)) } else { Err(NotAShare(share)) }
    }

    pub fn get(self) -> u32 {
        self.0
    }

    /// The number of buckets that this share of all buckets has.
    pub fn buckets(self) -> u32 {
        self.0 * (BUCKETS / 10_000)
    }
}

impl TryFrom<u32> for BasisPoints {
    type Error = NotAShare;

    fn try_from(share: u32) -> Result<BasisPoints, NotAShare> {
        BasisPoints::new(share)
    }
}

impl From<BasisPoints> for u32 {
    fn from(share: BasisPoints) -> u32 {
        share.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_hash_are_the_ends_of_the_buckets() {
        assert_eq!(Bucket::of_hash(0).get(), 0);
        assert_eq!(Bucket::of_hash(u64::MAX).get(), 999_999);
        // The smallest hash in bucket 1 is 2^64 / 10^6, rounded up.
        assert_eq!(Bucket::of_hash(18_446_744_073_709).get(), 0);
        assert_eq!(Bucket::of_hash(18_446_744_073_710).get(), 1);
        assert_eq!(Bucket::new(1_000_000), None);
    }

    #[test]
    fn ranges_are_half_open() {
        let range = BucketRange::new(10, 20).unwrap();
        assert!(range.contains(Bucket::new(10).unwrap()));
        assert!(range.contains(Bucket::new(19).unwrap()));
        assert!(!range.contains(Bucket::new(20).unwrap()));
        assert!(range.overlaps(BucketRange::new(19, 30).unwrap()));
        assert!(!range.overlaps(BucketRange::new(20, 30).unwrap()));
        assert_eq!(
            BucketRange::new(5, 5).unwrap_err().to_string(),
            "[5, 5) is not a range of buckets: it must be non-empty and inside [0, 1000000)"
        );
    }

    #[test]
    fn a_difference_is_what_is_left() {
        let ranges = |pairs: &[(u32, u32)]| -> Vec<BucketRange> {
            pairs.iter().map(|(lo, hi)| BucketRange::new(*lo, *hi).unwrap()).collect()
        };
        for (from, without, left) in [
            (&[(0, 10)][..], &[][..], &[(0, 10)][..]),
            (&[(0, 10)], &[(0, 10)], &[]),
            (&[(0, 10)], &[(2, 3), (5, 20)], &[(0, 2), (3, 5)]),
            (&[(20, 30), (0, 10), (10, 15)], &[(12, 22)], &[(0, 12), (22, 30)]),
            (&[(5, 6)], &[(0, 5), (6, 9)], &[(5, 6)]),
        ] {
            assert_eq!(difference(&ranges(from), &ranges(without)), ranges(left), "{from:?} {without:?}");
        }
    }

    #[test]
    fn a_basis_point_is_a_hundred_buckets() {
        assert_eq!(BasisPoints::ALL.buckets(), BUCKETS);
        assert_eq!(BasisPoints::new(1).unwrap().buckets(), 100);
        assert_eq!(
            BasisPoints::new(10_001).unwrap_err().to_string(),
            "10001 is not a share in basis points: 0 to 10000, 10000 being everything"
        );
    }
}
