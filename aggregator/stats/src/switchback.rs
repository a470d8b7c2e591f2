//! Switchback experiments: a region is switched between control and treatment from one time window to the
//! next. The window is the cluster ([`crate::clusters`]) and the assigned item ([`crate::permutation`]). This
//! module has the parts that depend on time and region: dropping burn-in, fixed effects, carryover.

use std::collections::BTreeSet;

use crate::{Effect, Missing, Moments, Pair, Side, linear::solve, permutation::Assigned};

/// The number of counted windows from which [`fixed_effects`] may be looked at repeatedly.
pub const FIXED_EFFECTS_WINDOWS: usize = 40;

/// One region in one period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The region's number; any number, the same for all windows of a region.
    pub region: u32,
    /// The period's number, in order of time; consecutive periods of a region follow each other.
    pub period: u32,
    /// Whether the region had the treatment in this period.
    pub treated: bool,
    /// The units measured in the window; a window without any does not count.
    pub units: u64,
    /// The sum of the outcome over its units.
    pub sum: f64,
    /// Whether the window is still influenced by the one before, and therefore not analysed.
    pub burn_in: bool,
}

impl Window {
    /// Returns whether the window is analysed: it has units and is not burn-in.
    pub fn counts(&self) -> bool {
        self.units > 0 && !self.burn_in
    }

    fn mean(&self) -> f64 {
        self.sum / self.units as f64
    }
}

/// Returns the counted windows as clusters, for [`crate::clusters`]. The variance of their units is unknown
/// and not needed there.
pub fn clusters(windows: &[Window]) -> Pair<Vec<Moments>> {
    let of = |treated: bool| {
        let side = windows.iter().filter(|w| w.counts() && w.treated == treated);
        side.map(|w| Moments::with_variance(w.units, w.mean(), 0.0)).collect()
    };
    Pair { control: of(false), treatment: of(true) }
}

/// Returns the counted windows as assigned items, for [`crate::permutation`], in the order given.
pub fn assigned(windows: &[Window]) -> Vec<Assigned> {
    let of = |w: &Window| Assigned { treated: w.treated, units: w.units, sum: w.sum };
    windows.iter().filter(|w| w.counts()).map(of).collect()
}

/// The effect with fixed effects of region and period: least squares on window means weighted by units, with
/// dummies for both, and HC1 errors (MacKinnon & White 1985, Journal of Econometrics 29(3)). It removes
/// the differences between regions and between times of day.
///
/// The error is normal only if there are many more windows than regions and periods. With 4 regions without
/// an effect, looked at from their second period on, a confidence sequence rejects in 11 %; from
/// [`FIXED_EFFECTS_WINDOWS`] on it keeps its 5 %, and single tests at 112 windows reject in 5.9 %
/// (`splitstream calibrate`).
///
/// Returns [`Missing::Variation`] when the treatment is determined by regions and periods, as in a
/// single region.
pub fn fixed_effects(windows: &[Window]) -> Result<Effect, Missing> {
    let used: Vec<&Window> = windows.iter().filter(|w| w.counts()).collect();
    let others = |of: fn(&Window) -> u32| -> Vec<u32> {
        let all: BTreeSet<u32> = used.iter().map(|w| of(w)).collect();
        all.into_iter().skip(1).collect()
    };
    let (regions, periods) = (others(|w| w.region), others(|w| w.period));
    let row = |w: &Window| -> Vec<f64> {
        let dummy = |yes: bool| if yes { 1.0 } else { 0.0 };
        let mut row = vec![dummy(w.treated), 1.0];
        row.extend(regions.iter().map(|&region| dummy(w.region == region)));
        row.extend(periods.iter().map(|&period| dummy(w.period == period)));
        row
    };
    let rows: Vec<Vec<f64>> = used.iter().map(|w| row(w)).collect();
    let (count, columns) = (rows.len(), 2 + regions.len() + periods.len());
    if count <= columns {
        return Err(Missing::Variation);
    }
    let mut normal = vec![vec![0.0; columns]; columns];
    let mut right = vec![0.0; columns];
    for (row, window) in rows.iter().zip(&used) {
        let weight = window.units as f64;
        for (i, &left) in row.iter().enumerate() {
            right[i] += weight * left * window.mean();
            for (j, &other) in row.iter().enumerate() {
                normal[i][j] += weight * left * other;
            }
        }
    }
    let mut first = vec![0.0; columns];
    first[0] = 1.0;
    let coefficients = solve(normal.clone(), right).ok_or(Missing::Variation)?;
    let influence = solve(normal, first).ok_or(Missing::Variation)?;
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
    let squares: f64 = rows
        .iter()
        .zip(&used)
        .map(|(row, window)| {
            let residual = window.mean() - dot(row, &coefficients);
            (window.units as f64 * residual * dot(row, &influence)).powi(2)
        })
        .sum();
    let correction = count as f64 / (count - columns) as f64;
    let standard_error = (correction * squares).sqrt();
    Ok(Effect { estimate: coefficients[0], standard_error })
}

/// The Horvitz-Thompson estimate when a treatment still acts `carryover` windows later and every
/// window was a fair coin: the mean over windows t after the first `carryover` ones of
/// `Y_t [1{last m + 1 all treated} - 1{all control}] 2^(m + 1)`. Bojinov, Simchi-Levi & Zhao (2023),
/// Management Science 69(7). It is unbiased, but very variable, because few windows have such a past.
///
/// Windows that do not count give no Y, but their arm belongs to the past of the windows after them.
pub fn horvitz_thompson(windows: &[Window], carryover: usize) -> Result<f64, Missing> {
    let mut ordered: Vec<&Window> = windows.iter().collect();
    ordered.sort_by_key(|w| (w.region, w.period));
    let scale = 2f64.powi(carryover as i32 + 1);
    let (mut sum, mut have) = (0.0, 0);
    for past in ordered.windows(carryover + 1) {
        let now = past[carryover];
        if past[0].region != now.region || !now.counts() {
            continue;
        }
        have += 1;
        if past.iter().all(|w| w.treated) {
            sum += now.mean() * scale;
        } else if past.iter().all(|w| !w.treated) {
            sum -= now.mean() * scale;
        }
    }
    if have == 0 {
        return Err(Missing::Clusters { arm: Side::Treatment, have: 0, need: 1 });
    }
    Ok(sum / f64::from(have))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(region: u32, period: u32, treated: bool, sum: f64) -> Window {
        Window { region, period, treated, units: 10, sum, burn_in: false }
    }

    /// With y = 1 + 2 region + period/10 + 0.5 treated, the fixed effects find exactly 0.5.
    #[test]
    fn fixed_effects_take_out_regions_and_periods() {
        let pattern = [true, false, true, true, false, false, true, false];
        let windows: Vec<Window> = (0..8)
            .map(|i| {
                let (region, period, treated) = (i / 4, i % 4, pattern[i as usize]);
                let mean =
                    1.0 + 2.0 * f64::from(region) + 0.1 * f64::from(period) + if treated { 0.5 } else { 0.0 };
                window(region, period, treated, 10.0 * mean)
            })
            .collect();
        let effect = fixed_effects(&windows).unwrap();
        assert!((effect.estimate - 0.5).abs() < 1e-12, "{effect:?}");
        assert!(effect.standard_error < 1e-12);
        assert_eq!(fixed_effects(&windows[..4]), Err(Missing::Variation));
    }

    /// The past of a region does not reach into another one.
    #[test]
    fn carryover_stays_in_its_region() {
        let windows = [
            window(0, 0, true, 10.0),
            window(0, 1, true, 20.0),
            window(1, 0, true, 30.0),
            window(1, 1, false, 40.0),
        ];
        assert_eq!(horvitz_thompson(&windows, 1), Ok(4.0)); // (2 * 4 + 0) / 2
        assert_eq!(horvitz_thompson(&windows, 0), Ok(1.0)); // 2 (1 + 2 + 3 - 4) / 4
        assert!(horvitz_thompson(&windows, 2).is_err());
    }

    #[test]
    fn burn_in_and_empty_windows_do_not_count() {
        let mut windows = vec![window(0, 0, true, 1.0), window(0, 1, false, 1.0)];
        windows[0].burn_in = true;
        windows.push(Window { units: 0, ..windows[1] });
        assert_eq!(assigned(&windows).len(), 1);
        assert_eq!(clusters(&windows).treatment.len(), 0);
    }
}
