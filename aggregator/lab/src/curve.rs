//! Draws the power curve as a stand-alone SVG that includes its colours, readable in any viewer. Pure.

use std::fmt::Write;

use crate::format;
use crate::power::Answer;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;

/// Draws the power over units for the three ways to look; `None` where the answer has no curve.
pub fn svg(answer: &Answer) -> Option<String> {
    let most = answer.curve.last()?.units_total as f64;
    let x = |units: f64| LEFT + units / most * (WIDTH - LEFT - RIGHT);
    let y = |power: f64| HEIGHT - BOTTOM - power * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Power over units of all arms</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for tick in 0..=5 {
        let power = f64::from(tick) / 5.0;
        let (at, end) = (y(power), WIDTH - RIGHT);
        put(&mut svg, format_args!("<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/>\n"));
        put(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>\n",
                LEFT - 8.0,
                at + 4.0,
                power * 100.0
            ),
        );
    }
    for tick in 0..=4 {
        let units = most * f64::from(tick) / 4.0;
        let anchor = if tick == 4 { "end" } else { "middle" };
        put(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
                x(units),
                HEIGHT - BOTTOM + 18.0,
                format::count(units.round() as u64)
            ),
        );
    }
    put(
        &mut svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">units of all arms</text>\n",
            0.5 * (LEFT + WIDTH - RIGHT),
            HEIGHT - 8.0
        ),
    );
    let powers = |of: fn(&crate::power::CurvePoint) -> f64| -> Vec<(f64, f64)> {
        answer.curve.iter().map(|point| (point.units_total as f64, of(point))).collect()
    };
    let lines = [
        ("one look", "#1f5fa8", powers(|point| point.power_fixed_horizon)),
        ("boundary", "#b0431e", powers(|point| point.power_group_sequential)),
        ("always valid", "#3b7d3b", powers(|point| point.power_always_valid)),
    ];
    for (index, (name, colour, points)) in lines.into_iter().enumerate() {
        let mut path = String::new();
        for (index, (units, power)) in points.into_iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            put(&mut path, format_args!("{command}{:.1} {:.1}", x(units), y(power)));
        }
        put(
            &mut svg,
            format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"),
        );
        let at = LEFT + 130.0 * index as f64;
        put(&mut svg, format_args!("<text x=\"{at:.1}\" y=\"20\" fill=\"{colour}\">{name}</text>\n"));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string never fails");
}

#[cfg(test)]
mod tests {
    use stats::group_sequential::Spending;

    use super::*;
    use crate::power::{Correction, Outcome, Question, Request, Sequential, Variance, plan};

    fn answer(question: Question) -> Answer {
        plan(&Request {
            outcome: Outcome::Rates { baseline: 0.05 },
            question,
            alpha: 0.05,
            power: 0.8,
            split: "50/50".parse().unwrap(),
            correction: Correction::Bonferroni,
            sequential: Sequential { looks: 5, spending: Spending::OBrienFleming },
            variance: Variance::PLAIN,
            daily_units: None,
        })
        .unwrap()
    }

    #[test]
    fn three_lines_are_drawn_over_the_units() {
        let svg = svg(&answer(Question::Units { difference: 0.005 })).unwrap();
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 3);
        assert!(svg.contains(">124,922</text>") || svg.contains(">124,924</text>"), "{svg}");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn without_a_curve_there_is_no_picture() {
        assert_eq!(svg(&answer(Question::Effect { units_total: 1_000 })), None);
    }
}
