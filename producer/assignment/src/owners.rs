//! Who owns which bucket: the ranges of an experiment's variants, or of a rule's shares, laid out so that the owner is found
//! without a guess at which side of a bound the unit is. Half of such guesses are wrong, and a wrong one costs a processor
//! more than the hash did.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use schemas::{BUCKETS, BucketRange};

/// Up to this number of bounds they are all counted; it takes less than to search among them.
const COUNTED_MAX: usize = 8;

/// Every bucket with its owner, if it has one. Of ranges that overlap the first counts.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    /// The buckets at which another owner begins, ascending.
    bounds: Box<[u32]>,
    /// The owner before the first bound, then the one after each; [`NOBODY`] where there is none.
    owners: Box<[u32]>,
}

const NOBODY: u32 = u32::MAX;

impl Owners {
    /// The first range, with its owner, comes first. A definition may have tens of thousands of ranges, and every process
    /// lays them out again when it changes: they are sorted once, and swept from the first bucket to the last.
    pub(crate) fn of(ranges: impl Iterator<Item = (BucketRange, usize)>) -> Owners {
        let ranges: Vec<(BucketRange, usize)> = ranges.collect();
        let bounds_of = |(range, _): &(BucketRange, usize)| [range.lo(), range.hi()];
        // Nothing beyond the last bucket has an owner.
        let mut candidates: Vec<u32> = ranges.iter().flat_map(bounds_of).chain([0, BUCKETS]).collect();
        candidates.sort_unstable();
        candidates.dedup();
        let mut by_start: Vec<usize> = (0..ranges.len()).collect();
        by_start.sort_unstable_by_key(|position| ranges[*position].0.lo());
        let mut waiting = by_start.into_iter().peekable();
        // The positions of ranges that have begun. Of those that have not ended the first is on top.
        let mut begun: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
        let (mut bounds, mut owners) = (Vec::new(), Vec::new());
        for bound in candidates {
            while let Some(position) = waiting.next_if(|position| ranges[*position].0.lo() <= bound) {
                begun.push(Reverse(position));
            }
            while begun.peek().is_some_and(|Reverse(position)| ranges[*position].0.hi() <= bound) {
                begun.pop();
            }
            let owner = begun.peek().map_or(NOBODY, |Reverse(position)| {
                u32::try_from(ranges[*position].1).expect("a definition has fewer than 2^32 parts")
            });
            if owners.last() == Some(&owner) {
                continue;
            }
            // The first owner begins with the first bucket, which is no bound.
            if !owners.is_empty() {
                bounds.push(bound);
            }
            owners.push(owner);
        }
        Owners { bounds: bounds.into(), owners: owners.into() }
    }

    /// Returns the owner of a bucket; nobody owns one that there is not.
    #[inline(always)]
    pub(crate) fn owner(&self, bucket: u32) -> Option<usize> {
        let over = if self.bounds.len() <= COUNTED_MAX {
            self.bounds.iter().map(|bound| usize::from(*bound <= bucket)).sum()
        } else {
            self.bounds.partition_point(|bound| *bound <= bucket)
        };
        let owner = self.owners[over];
        if owner == NOBODY { None } else { Some(owner as usize) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(lo: u32, hi: u32) -> BucketRange {
        BucketRange::new(lo, hi).unwrap()
    }

    /// The meaning of the ranges: of those that hold the bucket, the first one's owner.
    fn first_that_holds(ranges: &[(BucketRange, usize)], bucket: u32) -> Option<usize> {
        let holds = |range: BucketRange| (range.lo()..range.hi()).contains(&bucket);
        ranges.iter().find(|(range, _)| holds(*range)).map(|(_, owner)| *owner)
    }

    proptest! {
        #[test]
        fn the_sweep_finds_whom_a_search_from_the_first_range_finds(
            parts in prop::collection::vec((0_u32..60, 1_u32..30, 0_usize..5), 0..40),
            from_the_end in any::<bool>(),
        ) {
            let ranges: Vec<(BucketRange, usize)> = parts
                .iter()
                .map(|(at, width, owner)| {
                    let lo = if from_the_end { BUCKETS - 90 + at } else { *at };
                    (range(lo, lo + width), *owner)
                })
                .collect();
            let owners = Owners::of(ranges.iter().copied());
            for bucket in (0..100).chain(BUCKETS - 100..BUCKETS + 2) {
                prop_assert_eq!(owners.owner(bucket), first_that_holds(&ranges, bucket), "{}", bucket);
            }
        }
    }

    #[test]
    fn the_first_of_the_ranges_that_hold_a_bucket_owns_it() {
        let ranges = [(range(100, 200), 1), (range(300, 400), 0), (range(150, 350), 2), (range(200, 210), 1)];
        let owners = Owners::of(ranges.into_iter());
        for bucket in (0..500).chain([BUCKETS - 1, BUCKETS, u32::MAX]) {
            assert_eq!(owners.owner(bucket), first_that_holds(&ranges, bucket), "{bucket}");
        }
    }

    #[test]
    fn nobody_owns_a_bucket_without_ranges_and_everybody_shares_all_of_them() {
        assert_eq!(Owners::of(std::iter::empty()).owner(0), None);
        let all = Owners::of([(BucketRange::ALL, 3)].into_iter());
        assert_eq!([0, BUCKETS - 1, BUCKETS].map(|bucket| all.owner(bucket)), [Some(3), Some(3), None]);
    }

    /// As many as a record holds: when each was compared with each, this took seconds.
    #[test]
    fn every_second_bucket_may_be_a_range_of_its_own() {
        let owners = Owners::of(
            (0..BUCKETS / 2).rev().map(|index| (range(index * 2, index * 2 + 1), index as usize % 3)),
        );
        for bucket in 0..BUCKETS {
            let expected = bucket.is_multiple_of(2).then_some(bucket as usize / 2 % 3);
            assert_eq!(owners.owner(bucket), expected, "{bucket}");
        }
    }

    #[test]
    fn many_ranges_are_searched_as_few_are_counted() {
        for count in 1..20 {
            let ranges = (0..count).map(|index| (range(index * 10, index * 10 + 5), index as usize));
            let owners = Owners::of(ranges);
            for bucket in 0..count * 10 + 10 {
                let index = bucket / 10;
                let expected = (index < count && bucket % 10 < 5).then_some(index as usize);
                assert_eq!(owners.owner(bucket), expected, "{bucket} of {count}");
            }
        }
    }
}
