//! The cap of a metric that is winsorized at a quantile. It is frozen at the first look that has enough values to know it,
//! from the values of all arms together, and never moves: a cap by arm would cut more from a treatment that raises the tail,
//! and one that moves between looks is another metric at each. Pure; the earlier looks are an argument.

use std::borrow::Cow;

use counting::read::MetricCounts;
use counting::sums::Sums;
use ethnum::I256;
use schemas::definition::MetricType;
use stats::quantile;

use super::{Frame, Outcome};
use crate::document::Cap;
use crate::look::{FrozenCap, fields_that_measure};

/// The counts of a metric, cut where they are to be cut.
pub(super) struct Capped<'a> {
    pub(super) counts: Cow<'a, [MetricCounts]>,
    /// Of a winsorized metric.
    pub(super) cap: Option<Cap>,
    /// The cap, if this analysis knows it for the first time: then it must be recorded.
    pub(super) frozen: Option<FrozenCap>,
}

/// Cuts the values. Where the cap is not known yet, and cannot be frozen now, they stay as they are.
pub(super) fn cut<'a>(frame: &Frame<'_>, outcome: &Outcome<'a>) -> Capped<'a> {
    let whole = Cow::Borrowed(outcome.counts);
    let winsorized = outcome.definition.and_then(|(_, metric)| Some((metric, metric.winsorize()?)));
    let Some((metric, level)) = winsorized else { return Capped { counts: whole, cap: None, frozen: None } };
    let needed = values_needed(level);
    let shown = |at: Option<i128>, values| {
        let unit = if metric.metric_type() == MetricType::Count { 1.0 } else { 1e6 };
        Some(Cap { value: at.map(|cap| cap as f64 / unit), values, values_needed: needed })
    };
    // ClickHouse has cut them already.
    if let Some(cap) = outcome.counted_with_cap {
        return Capped { counts: whole, cap: shown(Some(cap), needed), frozen: None };
    }
    let values = NonZero::of(frame, outcome.counts);
    let known = frame.looks.cap(metric);
    let now = || (values.number >= needed).then(|| values.at_level(level));
    let Some(cap) = known.or_else(now) else {
        return Capped { counts: whole, cap: shown(None, values.number), frozen: None };
    };
    Capped {
        counts: Cow::Owned(outcome.counts.iter().map(|of| at(of, cap)).collect()),
        cap: shown(Some(cap), values.number.max(needed)),
        frozen: known.is_none().then(|| FrozenCap {
            metric: metric.key.to_string(),
            measures: fields_that_measure(metric),
            cap: cap.to_string(),
        }),
    }
}

/// With `2 / (1 - q)` values two of them are expected above the cap.
fn values_needed(level: f64) -> u64 {
    // 1 - 0.9 is below 0.1 by a rounding, which must not ask for one value more.
    (2.0 / (1.0 - level) * (1.0 - 1e-12)).ceil() as u64
}

/// The values of matured units that are not 0, in ascending order, over all arms and the phases that count.
struct NonZero {
    values: Vec<(i128, u64)>,
    number: u64,
}

impl NonZero {
    fn of(frame: &Frame<'_>, counts: &[MetricCounts]) -> NonZero {
        let is_variant = |key: &str| frame.experiment.variants.iter().any(|of| of.key.as_str() == key);
        let counting =
            counts.iter().filter(|of| !frame.left_out.contains(&of.phase) && is_variant(&of.variant));
        let mut values: Vec<(i128, u64)> =
            counting.flat_map(|of| of.matured.values.iter()).filter(|(value, _)| *value != 0).collect();
        values.sort_unstable();
        NonZero { number: values.iter().map(|(_, units)| units).sum(), values }
    }

    /// The value at rank `level * number`, rounded up (type 1 of Hyndman & Fan 1996).
    fn at_level(&self, level: f64) -> i128 {
        let number = usize::try_from(self.number).expect("they are in memory");
        let rank = quantile::rank(level, number) as u64;
        let mut passed = 0;
        let at = self.values.iter().find(|(_, units)| {
            passed += units;
            passed >= rank
        });
        at.expect("the rank is at most their number").0
    }
}

fn at(counts: &MetricCounts, cap: i128) -> MetricCounts {
    MetricCounts {
        variant: counts.variant.clone(),
        phase: counts.phase,
        matured: sums_at(&counts.matured, cap),
        open: sums_at(&counts.open, cap),
    }
}

/// Computes the sums again from the values. The covariate is to be cut at the same cap, which only a new count can do, so
/// that it is not there until then.
fn sums_at(sums: &Sums, cap: i128) -> Sums {
    let mut cut =
        Sums { units: sums.units, with_event: sums.with_event, steps: sums.steps.clone(), ..Sums::default() };
    for (value, units) in sums.values.iter() {
        let value = value.min(cap);
        cut.y += value * i128::from(units);
        cut.yy += I256::from(value) * I256::from(value) * I256::from(units);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_are_expected_above_the_cap() {
        let needed: Vec<u64> = [0.9, 0.95, 0.99, 0.999, 0.75].map(values_needed).to_vec();
        assert_eq!(needed, [20, 40, 200, 2_000, 8]);
    }
}
