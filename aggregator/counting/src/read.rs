//! What an analysis reads: the units and the sums of each variant and phase. The fold and the query of ClickHouse give the
//! same.

use std::collections::BTreeMap;

use crate::cells::{Cells, Cohort, Forced};
use crate::names::Names;
use crate::sums::Sums;

/// The units of one variant in one phase, both taken from the first exposure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitCounts {
    pub variant: String,
    pub phase: u32,
    pub units: u64,
    /// Units ever forced into a variant; not in `units`.
    pub units_forced: u64,
    /// The units of `units_forced` whose first exposure was not forced.
    pub units_forced_later: u64,
    /// The units of `units` that were exposed to another variant later.
    pub units_in_several_variants: u64,
    /// All exposures of the units, also of forced ones.
    pub exposures_of_units: u64,
    /// Those of them that the consumer has marked as mismatched: the configuration version that they name gives
    /// their unit another variant.
    pub exposures_mismatched: u64,
    /// Units that a mismatched exposure counts, since it is their first one, or takes out, since it is a forced one. A later
    /// one moves no number.
    pub units_mismatched: u64,
}

/// The values of one metric over the units of one variant in one phase that were never forced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricCounts {
    pub variant: String,
    pub phase: u32,
    /// The matured units: those whose window has closed, or all if the metric has none.
    pub matured: Sums,
    /// The units whose window is open. Their values may still change.
    pub open: Sums,
}

impl UnitCounts {
    /// Reads them from the cells of an experiment's units, in the order of variant and phase.
    pub fn of(cells: &Cells, names: &Names) -> Vec<UnitCounts> {
        let mut counts: BTreeMap<(&str, u32), UnitCounts> = BTreeMap::new();
        for (place, sums) in cells.iter().filter(|(place, _)| matches!(place.cohort, Cohort::Day(_))) {
            let (variant, phase) = (names.text(place.group.variant), place.group.phase);
            let of = counts.entry((variant, phase)).or_default();
            match place.group.forced {
                Forced::Never => of.units += sums.units,
                Forced::First => of.units_forced += sums.units,
                Forced::Later => {
                    of.units_forced += sums.units;
                    of.units_forced_later += sums.units;
                }
            }
            if place.group.several && place.group.forced == Forced::Never {
                of.units_in_several_variants += sums.units;
            }
            of.exposures_of_units += number(sums.y);
            of.exposures_mismatched += number(sums.x);
            of.units_mismatched += sums.with_event;
        }
        let named = |((variant, phase), of): ((&str, u32), UnitCounts)| UnitCounts {
            variant: variant.to_owned(),
            phase,
            ..of
        };
        counts.into_iter().map(named).collect()
    }
}

impl MetricCounts {
    /// Reads them from the cells of a metric, in the order of variant and phase.
    pub fn of(cells: &Cells, names: &Names) -> Vec<MetricCounts> {
        let mut counts: BTreeMap<(&str, u32), MetricCounts> = BTreeMap::new();
        for (place, sums) in cells.iter() {
            let (variant, phase) = (names.text(place.group.variant), place.group.phase);
            match place.cohort {
                Cohort::Day(_) => counts.entry((variant, phase)).or_default().matured.merge(sums),
                Cohort::Hour(_) => counts.entry((variant, phase)).or_default().open.merge(sums),
                Cohort::Segment { .. } => {}
            }
        }
        let named = |((variant, phase), of): ((&str, u32), MetricCounts)| MetricCounts {
            variant: variant.to_owned(),
            phase,
            ..of
        };
        counts.into_iter().map(named).collect()
    }
}

/// A number of exposures.
fn number(sum: i128) -> u64 {
    u64::try_from(sum).expect("there are no negative exposures")
}
