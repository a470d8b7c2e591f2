//! An interval as a small picture in a table row: a bar and a line at zero, so that it is visible at a glance
//! whether the interval includes zero and on which side it is. Each picture has its own scale.

use crate::document::{Bounds, Decision, Verdict};

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 16.0;
/// The distance between zero's line, in the middle, and the end of the longer side.
const REACH: f64 = 56.0;

/// Draws a bar from end to end with a dot at `lift`; nothing if an end is infinite.
pub fn bar(interval: Bounds, lift: Option<f64>, colour: &str) -> String {
    let (Some(lower), Some(upper)) = (interval.lower, interval.upper) else {
        return String::new();
    };
    let longest = lower.abs().max(upper.abs());
    if longest == 0.0 || !longest.is_finite() {
        return String::new();
    }
    let x = |value: f64| WIDTH / 2.0 + value / longest * REACH;
    let dot = lift.map_or(String::new(), |lift| {
        format!("<circle class=\"{colour}\" cx=\"{:.1}\" cy=\"8\" r=\"3.5\"/>", x(lift))
    });
    format!(
        "<svg class=\"interval\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-hidden=\"true\">\
         <line class=\"zero\" x1=\"60\" x2=\"60\" y1=\"0\" y2=\"16\"/>\
         <rect class=\"{colour}\" x=\"{:.1}\" y=\"5\" width=\"{:.1}\" height=\"6\" rx=\"3\"/>{dot}</svg>",
        x(lower),
        x(upper) - x(lower),
    )
}

/// Returns the style sheet's colour for a verdict.
pub fn colour(decision: &Decision) -> &'static str {
    match decision.verdict {
        Verdict::Ship => "tone-good",
        Verdict::Stop | Verdict::GuardrailHarmed | Verdict::Invalid => "tone-bad",
        Verdict::KeepRunning | Verdict::NotEnoughData | Verdict::NotComputed => "tone-calm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_takes_its_half_and_zero_stays_in_the_middle() {
        let interval = Bounds { lower: Some(-0.001), upper: Some(0.002) };
        let svg = bar(interval, Some(0.0005), "tone-calm");
        assert!(svg.contains("<rect class=\"tone-calm\" x=\"32.0\" y=\"5\" width=\"84.0\""), "{svg}");
        assert!(svg.contains("<circle class=\"tone-calm\" cx=\"74.0\""), "{svg}");
    }

    #[test]
    fn what_has_no_end_or_no_width_at_all_is_not_drawn() {
        assert_eq!(bar(Bounds { lower: None, upper: Some(1.0) }, None, "x"), "");
        assert_eq!(bar(Bounds { lower: Some(0.0), upper: Some(0.0) }, None, "x"), "");
    }
}
