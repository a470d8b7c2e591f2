//! What a change of an experiment does to units that come back: who gets buckets that another variant had before. Pure.

use schemas::bucket;
use schemas::definition::{Accepted, Definition, Definitions, Experiment};
use schemas::{BUCKETS, BucketRange};

/// Returns a warning for each variant that gets buckets of another one in an accepted change. `definitions` have it already.
pub(super) fn warnings(definitions: &Definitions, accepted: &Accepted) -> Vec<String> {
    let Definition::Experiment(now) = &accepted.definition else { return Vec::new() };
    let earlier = definitions.versions_of(accepted.definition.kind(), &now.key);
    let earlier: Vec<&Experiment> = earlier
        .filter(|of| of.version < accepted.version)
        .filter_map(|of| match &of.definition {
            Definition::Experiment(experiment) if experiment.has_looks() => Some(experiment),
            _ => None,
        })
        .collect();
    // What the version before did is told already.
    let Some(last) = earlier.last() else { return Vec::new() };
    let mut warnings = Vec::new();
    for variant in &now.variants {
        let of_last = last.variants.iter().find(|of| of.key == variant.key);
        let gained = bucket::difference(&variant.ranges, of_last.map_or(&[], |of| of.ranges.as_slice()));
        let mut others: Vec<_> = earlier.iter().flat_map(|of| &of.variants).collect();
        others.retain(|of| of.key != variant.key);
        others.sort_by(|one, other| one.key.cmp(&other.key));
        for of_one in others.chunk_by(|one, other| one.key == other.key) {
            let had: Vec<BucketRange> = of_one.iter().flat_map(|of| of.ranges.iter().copied()).collect();
            let kept = bucket::difference(&gained, &had);
            let width =
                |ranges: &[BucketRange]| ranges.iter().map(|range| u64::from(range.width())).sum::<u64>();
            let taken = width(&gained) - width(&kept);
            if taken > 0 {
                let (key, other) = (&variant.key, &of_one[0].key);
                let percent = taken as f64 / f64::from(BUCKETS) * 100.0;
                warnings.push(format!(
                    "`{key}` gets buckets that `{other}` had in an earlier phase ({percent} % of all): units that saw \
                     `{other}` and come back see `{key}`, and count as units in several variants. To move nobody, clone \
                     the experiment under another key"
                ));
            }
        }
    }
    warnings
}
