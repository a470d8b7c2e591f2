//! What people must know of the values that a metric compares, beside the numbers.

use lab::format;

use super::{Adjusted, MetricResult};

impl MetricResult {
    /// Returns one sentence, without its full stop, for each fact.
    pub fn facts(&self) -> Vec<String> {
        let open: u64 = self.variants.iter().map(|variant| variant.units_open).sum();
        let open = (open > 0).then(|| {
            let units = format::counted(open, "further unit is", "further units are");
            format!("{units} not compared yet, since the window is open")
        });
        let cap = self.cap.and_then(|cap| cap.value).map(|value| {
            let value = format::mean(value);
            format!("Values above {value} count as {value}, the cap that a look has frozen")
        });
        let covariate = self.tests.iter().filter_map(|test| Some(covariate(&test.treatment, test.adjusted?)));
        open.into_iter().chain(cap).chain(covariate).collect()
    }
}

fn covariate(treatment: &str, adjusted: Adjusted) -> String {
    // A covariate that does not vary with the values removes nothing, but for a rounding.
    let share = adjusted.variance_reduction.filter(|share| share.abs() > 1e-9);
    let Some(share) = share else {
        return format!(
            "The covariate does not vary with the values, so the effect of `{treatment}` is not adjusted"
        );
    };
    format!(
        "The covariate removes {} of the variance of the effect of `{treatment}`, which would be {} without it",
        format::percent(share),
        signed(adjusted.lift_absolute_unadjusted)
    )
}

fn signed(lift: f64) -> String {
    format!("{}{}", if lift < 0.0 { "" } else { "+" }, format::mean(lift))
}
