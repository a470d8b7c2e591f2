//! Draws lines over time as SVG, with an optional band and a line at zero. Pure; the style sheet determines
//! colours and fonts.

use std::fmt::Write;

/// The contents of a chart.
pub struct Chart<'a> {
    /// A text for readers who cannot see the chart.
    pub description: &'a str,
    pub series: Vec<Series>,
    /// A band behind the lines.
    pub band: Vec<Stretch>,
    pub zero_line: bool,
    /// Formats a value for the axis.
    pub label: fn(f64) -> String,
}

pub struct Series {
    pub name: String,
    /// The style sheet's class: `line-0` to `line-5`.
    pub class: String,
    /// Milliseconds since 1970, in order, and the value; `None` breaks the line.
    pub points: Vec<(i64, Option<f64>)>,
}

/// The band at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub at_ms: i64,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

/// About the width of a chart on a page in pixels, so that its text is as large as the page's.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// Intervals are very wide at first, so the first third of the band does not extend the axis and may be cut
/// off.
const IGNORED_SHARE_OF_BAND: usize = 3;
const GRID_LINES_WANTED: f64 = 5.0;

impl Chart<'_> {
    /// Returns the chart as SVG; `None` if there is no value to draw.
    pub fn svg(&self) -> Option<String> {
        let frame = Frame::around(self)?;
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.description),
        );
        self.grid(&frame, &mut svg);
        // An inner viewport cuts off the parts beyond the axes.
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        put(
            &mut svg,
            format_args!(
                "<svg x=\"{LEFT}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\" \
                 viewBox=\"{LEFT} {TOP} {width} {height}\">\n"
            ),
        );
        let band = band_path(&frame, &self.band);
        if !band.is_empty() {
            put(&mut svg, format_args!("<path class=\"band\" d=\"{band}\"/>\n"));
        }
        for series in &self.series {
            let line = line_path(&frame, &series.points);
            put(
                &mut svg,
                format_args!(
                    "<path class=\"line {}\" d=\"{line}\"><title>{}</title></path>\n",
                    series.class,
                    escape(&series.name)
                ),
            );
            if let Some((at_ms, Some(value))) = series.points.last() {
                put(
                    &mut svg,
                    format_args!(
                        "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>\n",
                        series.class,
                        frame.x(*at_ms),
                        frame.y(*value)
                    ),
                );
            }
        }
        svg.push_str("</svg>\n</svg>\n");
        Some(svg)
    }

    fn grid(&self, frame: &Frame, svg: &mut String) {
        let step = nice_step((frame.high - frame.low) / GRID_LINES_WANTED);
        let mut index = (frame.low / step).ceil();
        while index * step <= frame.high + step * 1e-9 {
            let value = index * step;
            let y = frame.y(value);
            let class = if self.zero_line && index == 0.0 { "zero" } else { "grid" };
            put(
                svg,
                format_args!(
                    "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    WIDTH - RIGHT,
                    LEFT - 8.0,
                    y + 4.0,
                    (self.label)(if index == 0.0 { 0.0 } else { value })
                ),
            );
            index += 1.0;
        }
        let middle = frame.from_ms + (frame.to_ms - frame.from_ms) / 2;
        let ends = [(frame.from_ms, "start"), (middle, "middle"), (frame.to_ms, "end")];
        let one_time = frame.from_ms == frame.to_ms;
        for (at_ms, anchor) in ends.into_iter().skip(if one_time { 2 } else { 0 }) {
            put(
                svg,
                format_args!(
                    "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
                    frame.x(at_ms),
                    HEIGHT - 8.0,
                    time_label(at_ms, frame.to_ms - frame.from_ms)
                ),
            );
        }
    }
}

/// The ranges of both axes, which convert values to coordinates.
struct Frame {
    from_ms: i64,
    to_ms: i64,
    low: f64,
    high: f64,
}

impl Frame {
    fn around(chart: &Chart<'_>) -> Option<Frame> {
        let times = || {
            let series = chart.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
            series.chain(chart.band.iter().map(|stretch| stretch.at_ms))
        };
        let settled = chart.band.iter().skip(chart.band.len() / IGNORED_SHARE_OF_BAND);
        let values: Vec<f64> = chart
            .series
            .iter()
            .flat_map(|series| series.points.iter().filter_map(|point| point.1))
            .chain(settled.flat_map(|stretch| [stretch.lower, stretch.upper]).flatten())
            .chain(chart.zero_line.then_some(0.0))
            .filter(|value| value.is_finite())
            .collect();
        if chart.series.iter().all(|series| series.points.iter().all(|point| point.1.is_none())) {
            return None;
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Values that are all equal still need an axis with some height.
        let room = if high > low { (high - low) * 0.08 } else { high.abs().max(1e-9) * 0.5 };
        Some(Frame { from_ms: times().min()?, to_ms: times().max()?, low: low - room, high: high + room })
    }

    fn x(&self, at_ms: i64) -> f64 {
        let span = (self.to_ms - self.from_ms) as f64;
        let share = if span > 0.0 { (at_ms - self.from_ms) as f64 / span } else { 1.0 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// Values far outside are moved closer, because infinite coordinates would break the path.
    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(-10.0, 11.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

fn line_path(frame: &Frame, points: &[(i64, Option<f64>)]) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (at_ms, value) in points {
        let Some(value) = value else {
            pen_down = false;
            continue;
        };
        let command = if pen_down { 'L' } else { 'M' };
        put(&mut path, format_args!("{command}{:.1} {:.1}", frame.x(*at_ms), frame.y(*value)));
        pen_down = true;
    }
    path
}

/// Returns one closed shape for each stretch of time in which both ends are known.
fn band_path(frame: &Frame, band: &[Stretch]) -> String {
    let mut path = String::new();
    for stretch in band.split(|stretch| stretch.lower.is_none() || stretch.upper.is_none()) {
        let upper = stretch.iter().filter_map(|of| Some((of.at_ms, of.upper?)));
        let lower = stretch.iter().rev().filter_map(|of| Some((of.at_ms, of.lower?)));
        for (index, (at_ms, value)) in upper.chain(lower).enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            put(&mut path, format_args!("{command}{:.1} {:.1}", frame.x(at_ms), frame.y(value)));
        }
        if !stretch.is_empty() {
            path.push('Z');
        }
    }
    path
}

/// Returns 1, 2 or 5 times a power of ten, at least `wanted`.
fn nice_step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= wanted * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Formats a time in UTC, with the date where the span is longer than a day.
fn time_label(at_ms: i64, span_ms: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(at_ms) else {
        return String::new();
    };
    let text = time.to_string();
    // "2026-01-31T12:34:56.789Z"
    let (date, rest) = text.split_once('T').unwrap_or((&text, ""));
    let clock = rest.get(..8).unwrap_or(rest);
    if span_ms > 86_400_000 {
        format!("{date} {}", clock.get(..5).unwrap_or(clock))
    } else {
        clock.to_owned()
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string never fails");
}

/// Escapes a text for HTML, in an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(i64, Option<f64>)>, band: Vec<Stretch>) -> Chart<'static> {
        Chart {
            description: "lift <over> time",
            series: vec![Series { name: "b".into(), class: "line-1".into(), points }],
            band,
            zero_line: true,
            label: |value| format!("{value:.1}"),
        }
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert_eq!(chart(vec![], vec![]).svg(), None);
        assert_eq!(chart(vec![(0, None)], vec![]).svg(), None);
    }

    #[test]
    fn a_line_runs_from_edge_to_edge_and_breaks_where_a_value_is_missing() {
        let frame = Frame { from_ms: 0, to_ms: 100, low: 0.0, high: 1.0 };
        let points = [(0, Some(0.0)), (50, Some(1.0)), (75, None), (100, Some(0.5))];
        assert_eq!(line_path(&frame, &points), "M70.0 192.0L259.0 10.0M448.0 101.0");
    }

    #[test]
    fn a_band_is_one_closed_shape_for_each_known_stretch() {
        let frame = Frame { from_ms: 0, to_ms: 100, low: 0.0, high: 1.0 };
        let at = |at_ms, ends: Option<(f64, f64)>| Stretch {
            at_ms,
            lower: ends.map(|ends| ends.0),
            upper: ends.map(|ends| ends.1),
        };
        let band =
            [at(0, Some((0.0, 1.0))), at(50, Some((0.5, 1.0))), at(75, None), at(100, Some((0.0, 1.0)))];
        assert_eq!(
            band_path(&frame, &band),
            "M70.0 10.0L259.0 10.0L259.0 101.0L70.0 192.0ZM448.0 10.0L448.0 192.0Z"
        );
    }

    #[test]
    fn steps_of_the_grid_are_round_numbers() {
        assert_eq!([0.9, 1.0, 1.1, 3.0, 7.0].map(nice_step), [1.0, 1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn text_in_a_chart_is_escaped() {
        let svg = chart(vec![(0, Some(0.5)), (1_000, Some(0.7))], vec![]).svg().unwrap();
        assert!(svg.contains("aria-label=\"lift &lt;over&gt; time\""), "{svg}");
        assert!(svg.contains(">00:00:01</text>"), "{svg}");
    }
}
