//! Who owns which bucket: the ranges of an experiment's variants, or of a rule's shares, laid out so that the owner is found
//! without a guess at which side of a bound the unit is. Half of such guesses are wrong, and a wrong one costs a processor
//! more than the hash did.

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
    /// The first range, with its owner, comes first.
    pub(crate) fn of(ranges: impl Iterator<Item = (BucketRange, usize)>) -> Owners {
        let ranges: Vec<(BucketRange, usize)> = ranges.collect();
        // Nothing beyond the last bucket has an owner.
        let bounds_of = |(range, _): &(BucketRange, usize)| [range.lo(), range.hi()];
        let mut candidates: Vec<u32> = ranges.iter().flat_map(bounds_of).chain([BUCKETS]).collect();
        candidates.sort_unstable();
        candidates.dedup();
        let owner_of = |bucket: u32| {
            let holds = |range: &BucketRange| range.lo() <= bucket && bucket < range.hi();
            ranges.iter().find(|(range, _)| holds(range)).map_or(NOBODY, |(_, owner)| {
                u32::try_from(*owner).expect("a definition has fewer than 2^32 parts")
            })
        };
        let (mut bounds, mut owners) = (Vec::new(), vec![owner_of(0)]);
        for bound in candidates {
            let owner = owner_of(bound);
            if owners.last() != Some(&owner) {
                bounds.push(bound);
                owners.push(owner);
            }
        }
        Owners { bounds: bounds.into(), owners: owners.into() }
    }

    /// Returns the owner of a bucket; nobody owns one that there is not.
    #[inline]
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
    use super::*;

    fn range(lo: u32, hi: u32) -> BucketRange {
        BucketRange::new(lo, hi).unwrap()
    }

    #[test]
    fn the_first_of_the_ranges_that_hold_a_bucket_owns_it() {
        let ranges = [(range(100, 200), 1), (range(300, 400), 0), (range(150, 350), 2), (range(200, 210), 1)];
        let owners = Owners::of(ranges.into_iter());
        for bucket in (0..500).chain([BUCKETS - 1, BUCKETS, u32::MAX]) {
            let holds = |range: BucketRange| (range.lo()..range.hi()).contains(&bucket);
            let expected = ranges.iter().find(|(range, _)| holds(*range)).map(|(_, owner)| *owner);
            assert_eq!(owners.owner(bucket), expected, "{bucket}");
        }
    }

    #[test]
    fn nobody_owns_a_bucket_without_ranges_and_everybody_shares_all_of_them() {
        assert_eq!(Owners::of(std::iter::empty()).owner(0), None);
        let all = Owners::of([(BucketRange::ALL, 3)].into_iter());
        assert_eq!([0, BUCKETS - 1, BUCKETS].map(|bucket| all.owner(bucket)), [Some(3), Some(3), None]);
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
