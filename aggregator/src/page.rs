//! The page: the document as HTML, rendered on the server. It works without scripts; with scripts it follows
//! the analyses. Pure: results in, text out, and every text that comes from outside is escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::decision::{described, margin, progress};
use crate::document::{AlwaysValidResult, Bounds, ExperimentResult, MetricResult, Role, Test};
use crate::store::Point;
use lab::chart::{Chart, Series, Stretch, escape};
use lab::format;

mod interval;
mod trust;

/// Served as `/style.css`.
pub const STYLE: &str = include_str!("page/style.css");
/// Served as `/refresh.js`.
pub const REFRESH: &str = include_str!("page/refresh.js");

/// The number of line colours in the style sheet; the first is the control's.
const LINE_COLOURS: usize = 6;

/// The histories of an experiment's metrics, by key.
pub type Histories = BTreeMap<String, Vec<Point>>;

/// Renders all experiments, one line each.
pub fn overview(experiments: &[ExperimentResult]) -> String {
    let mut main = String::from(
        "<h1>Experiments</h1>\n<p class=\"soft\">Every verdict rests on an interval that holds however often one \
         looks; a bar that crosses the line has not excluded zero.</p>\n",
    );
    if experiments.is_empty() {
        main.push_str(
            "<div class=\"card\"><p>No experiment has been analyzed yet. Running experiments appear here with \
             their first analysis.</p></div>\n",
        );
        return page("Experiments", &main);
    }
    main.push_str(
        "<div class=\"card scroll\"><table><thead><tr><th>experiment</th><th class=\"text\">verdict</th>\
         <th>units</th><th>lift</th><th colspan=\"2\">always-valid interval</th><th class=\"text\">state</th>\
         </tr></thead>\
         <tbody>\n",
    );
    for result in experiments {
        let units: u64 = result.variants.iter().map(|variant| variant.units).sum();
        let primary = result.primary();
        let shown = shown_comparison(result);
        let lift = shown.map_or("–".to_owned(), |(test, _)| relative(test.lift_relative));
        let interval = match (primary, shown) {
            (Some(metric), Some((_, look))) => interval_of(metric, look),
            _ => "–".to_owned(),
        };
        let colour = interval::colour(&result.decision);
        let bar = shown.and_then(|(test, look)| {
            Some(interval::bar(look.interval_absolute?, test.lift_absolute, colour))
        });
        let bar = bar.unwrap_or_default();
        put(
            &mut main,
            format_args!(
                "<tr><th><a href=\"/experiments/{key}\">{key}</a></th><td class=\"text\">{}</td><td>{}</td>\
                 <td>{lift}</td><td>{bar}</td><td>{interval}</td><td class=\"text\">{}</td></tr>\n",
                badges(result),
                format::count(units),
                result.state.as_str(),
                key = escape(&result.key),
            ),
        );
    }
    main.push_str("</tbody></table></div>\n");
    page("Experiments", &main)
}

/// Renders one experiment with its charts.
pub fn experiment(result: &ExperimentResult, histories: &Histories) -> String {
    let mut main = format!("<h1>{}</h1>\n", escape(&result.key));
    if !result.hypothesis.is_empty() {
        put(&mut main, format_args!("<p class=\"soft\">{}</p>\n", escape(&result.hypothesis)));
    }
    put(
        &mut main,
        format_args!(
            "<section class=\"card verdict\"><p>{} <span class=\"soft\">{}, phase {}, analyzed {}</span></p>\
             <p class=\"reason\">{}</p><p class=\"facts\">Decided by: {}.</p></section>\n",
            badges(result),
            result.state.as_str(),
            result.phase,
            moment(&result.computed_at),
            prose(&result.decision.reason),
            escape(&result.decision.method_used),
        ),
    );
    for metric in &result.metrics {
        main.push_str(&metric_section(metric, histories.get(&metric.key).map_or(&[], Vec::as_slice)));
    }
    main.push_str(&trust::section(result));
    main.push_str(&origin(result));
    page(&result.key, &main)
}

/// Renders the page for a key without an analysis.
pub fn not_found(key: &str) -> String {
    let key: String = key.chars().take(80).collect();
    let main = format!(
        "<h1>Not found</h1><div class=\"card\"><p>No analysis of an experiment <b>{}</b> has been made. \
         <a href=\"/\">All experiments</a></p></div>",
        escape(&key)
    );
    page("Not found", &main)
}

/// Renders the page for results that cannot be read.
pub fn unavailable(why: &str) -> String {
    let main = format!(
        "<h1>Not available</h1><div class=\"card\"><p>The results cannot be read now: {}</p></div>",
        escape(why)
    );
    page("Not available", &main)
}

fn page(title: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{} · Splitstream</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n<script src=\"/refresh.js\" defer></script>\n</head>\n\
         <body>\n<header><a href=\"/\">Splitstream</a><span id=\"connection\"></span></header>\n\
         <main>\n{main}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Returns the test and the look that the verdict is about; the first ones if it is about none.
fn shown_comparison(result: &ExperimentResult) -> Option<(&Test, &AlwaysValidResult)> {
    let metric = result.primary()?;
    let mut pairs = metric.tests.iter().zip(&metric.always_valid);
    let about =
        |(test, _): &(&Test, &AlwaysValidResult)| Some(&test.treatment) == result.decision.treatment.as_ref();
    pairs.clone().find(about).or_else(|| pairs.next())
}

fn metric_section(metric: &MetricResult, history: &[Point]) -> String {
    let kind = metric.metric_type.map_or("undefined", |kind| match kind {
        schemas::definition::MetricType::Conversion => "conversion rate",
        schemas::definition::MetricType::Count => "events per unit",
        schemas::definition::MetricType::Mean => "value per unit",
        schemas::definition::MetricType::Ratio => "ratio",
        schemas::definition::MetricType::Retention => "retention",
        schemas::definition::MetricType::Quantile => "quantile",
        schemas::definition::MetricType::Funnel => "funnel",
    });
    let window =
        metric.window_hours.map_or(String::new(), |hours| format!(", within {hours} h of the exposure"));
    let mut section = format!(
        "<section class=\"card\"><h2>{} <span class=\"soft\">{} metric, {kind}{window}</span></h2>\n",
        escape(&metric.key),
        metric.role.as_str(),
    );
    section.push_str(&variants_table(metric));
    for fact in metric.facts() {
        put(&mut section, format_args!("<p class=\"facts\">{}.</p>\n", prose(&fact)));
    }
    if let Some(missing) = &metric.missing {
        put(&mut section, format_args!("<p>No numbers: {}.</p>\n", escape(missing)));
    }
    section.push_str("</section>\n");
    let charts: Vec<String> = [lift_chart(metric, history), level_chart(metric, history)]
        .into_iter()
        .flatten()
        .map(|chart| format!("<section class=\"card\">{chart}</section>\n"))
        .collect();
    if !charts.is_empty() && metric.role != Role::Secondary {
        put(&mut section, format_args!("<div class=\"charts\">{}</div>\n", charts.concat()));
    }
    section
}

fn variants_table(metric: &MetricResult) -> String {
    let level = if metric.is_rate() { "rate" } else { "mean" };
    let mut table = format!(
        "<div class=\"scroll\"><table><thead><tr><th>variant</th><th>units</th><th>converted</th><th>{level}</th>\
         <th>lift</th><th colspan=\"2\">always-valid interval</th><th>always-valid p</th>\
         <th>fixed-horizon p</th></tr></thead><tbody>\n",
    );
    for variant in &metric.variants {
        let test = metric.tests.iter().find(|test| test.treatment == variant.key);
        let look = metric.always_valid.iter().find(|look| look.treatment == variant.key);
        let control = if variant.control { " <span class=\"soft\">control</span>" } else { "" };
        let bar = look.and_then(|look| {
            let colour = match look.includes_zero {
                Some(false) => "tone-accent",
                _ => "tone-calm",
            };
            Some(interval::bar(look.interval_absolute?, look.lift_absolute, colour))
        });
        let bar = bar.unwrap_or_default();
        put(
            &mut table,
            format_args!(
                "<tr><th>{}{control}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{bar}</td><td>{}</td>\
                 <td>{}</td><td class=\"soft\">{}</td></tr>\n",
                escape(&variant.key),
                format::count(variant.units),
                format::count(variant.conversions),
                variant.mean.map_or("–".to_owned(), |mean| level_of(metric, mean)),
                test.map_or(String::new(), |test| relative(test.lift_relative)),
                look.map_or(String::new(), |look| interval_of(metric, look)),
                look.map_or(String::new(), |look| p_value(look.p_value)),
                test.map_or(String::new(), |test| p_value(test.p_value)),
            ),
        );
    }
    table.push_str("</tbody></table></div>\n");
    for look in &metric.always_valid {
        if let Some(described) = described(look) {
            put(&mut table, format_args!("<p class=\"facts\">{}.</p>\n", prose(&described)));
        } else if let Some(missing) = &look.missing {
            put(&mut table, format_args!("<p class=\"facts\">Too early: {}.</p>\n", prose(missing)));
        }
        if let Some(margin) = margin(look) {
            put(&mut table, format_args!("<p class=\"facts\">Margin: {}.</p>\n", prose(&margin)));
        }
        if let Some(adjusted) = look.p_value_adjusted {
            put(
                &mut table,
                format_args!(
                    "<p class=\"facts\">{}: always-valid p adjusted for all secondary metrics \
                     (Benjamini-Hochberg): {}.</p>\n",
                    escape(&look.treatment),
                    p_value(Some(adjusted))
                ),
            );
        }
    }
    for boundary in &metric.boundaries {
        put(
            &mut table,
            format_args!("<p class=\"facts\">Decided by the {}.</p>\n", prose(&progress(boundary))),
        );
    }
    if let Some(test) = metric.tests.first() {
        put(
            &mut table,
            format_args!(
                "<p class=\"facts\">Fixed-horizon p ({}): {}.</p>\n",
                test.method.title(),
                escape(&test.p_value_use)
            ),
        );
    }
    table
}

/// Draws the absolute lift of the first treatment with its always-valid band, and those of the others as lines.
fn lift_chart(metric: &MetricResult, history: &[Point]) -> Option<String> {
    let mut series = Vec::new();
    for (index, look) in metric.always_valid.iter().enumerate() {
        let points = of_variant(history, &look.treatment);
        series.push(Series {
            name: look.treatment.clone(),
            class: line_class(index + 1),
            points: points.map(|point| (point.computed_at_ms, point.lift_absolute)).collect(),
        });
    }
    let first = metric.always_valid.first()?;
    let band = of_variant(history, &first.treatment)
        .map(|point| Stretch {
            at_ms: point.computed_at_ms,
            lower: point.always_valid_lower,
            upper: point.always_valid_upper,
        })
        .collect();
    let names = series.iter().map(|series| (series.class.clone(), series.name.clone())).collect::<Vec<_>>();
    let title = format!("Lift over {} by {}", first.control, metric.key);
    let chart = Chart {
        description: &title,
        series,
        band,
        zero_line: true,
        label: if metric.is_rate() {
            |value| format!("{:+.2} pp", value * 100.0)
        } else {
            |value| format!("{value:+.3}")
        },
    };
    let svg = chart.svg()?;
    let unit = if metric.is_rate() { "percentage points" } else { "per unit" };
    let mut card =
        format!("<h2>Lift over {} <span class=\"soft\">{unit}</span></h2>\n{svg}", escape(&first.control));
    card.push_str(&legend(&names, Some("always-valid interval")));
    Some(card)
}

fn level_chart(metric: &MetricResult, history: &[Point]) -> Option<String> {
    let mut treatments = 0;
    let mut series = Vec::new();
    for variant in &metric.variants {
        let colour = if variant.control {
            0
        } else {
            treatments += 1;
            treatments
        };
        series.push(Series {
            name: variant.key.clone(),
            class: line_class(colour),
            points: of_variant(history, &variant.key)
                .map(|point| (point.computed_at_ms, point.mean))
                .collect(),
        });
    }
    let names = series.iter().map(|series| (series.class.clone(), series.name.clone())).collect::<Vec<_>>();
    let title = format!("{} by variant", metric.key);
    let chart = Chart {
        description: &title,
        series,
        band: Vec::new(),
        zero_line: false,
        label: if metric.is_rate() {
            |value| format!("{:.2} %", value * 100.0)
        } else {
            |value| format!("{value:.3}")
        },
    };
    let svg = chart.svg()?;
    let what = if metric.is_rate() { "Rate" } else { "Mean per unit" };
    Some(format!("<h2>{what} by variant</h2>\n{svg}{}", legend(&names, None)))
}

fn of_variant<'a>(history: &'a [Point], variant: &str) -> impl Iterator<Item = &'a Point> {
    history.iter().filter(move |point| point.variant == variant)
}

fn line_class(index: usize) -> String {
    format!("line-{}", if index == 0 { 0 } else { (index - 1) % (LINE_COLOURS - 1) + 1 })
}

fn legend(names: &[(String, String)], band: Option<&str>) -> String {
    let mut legend = String::from("<div class=\"legend\">");
    for (class, name) in names {
        put(
            &mut legend,
            format_args!(
                "<span><svg viewBox=\"0 0 20 8\" aria-hidden=\"true\"><line class=\"{class}\" x1=\"0\" x2=\"20\" \
                 y1=\"4\" y2=\"4\"/></svg>{}</span>",
                escape(name)
            ),
        );
    }
    if let Some(band) = band {
        put(
            &mut legend,
            format_args!(
                "<span><svg viewBox=\"0 0 20 8\" aria-hidden=\"true\"><rect class=\"swatch\" width=\"20\" \
                 height=\"8\"/></svg>{band}</span>"
            ),
        );
    }
    legend.push_str("</div>\n");
    legend
}

/// Renders where the numbers come from.
fn origin(result: &ExperimentResult) -> String {
    let cut = serde_json::to_string(&result.cut).expect("a cut's keys are numbers");
    let mut section = format!(
        "<section class=\"card\"><h2>Where this comes from</h2>\n\
         <p class=\"facts\">Analysis {}, definition version {}, events up to {} as of the durable offsets below. \
         <a href=\"/api/v1/experiments/{}\">The same as JSON</a></p>\n\
         <details id=\"cut\"><summary>Offsets</summary><pre>{}</pre></details>\n",
        result.analysis_id,
        result.definition_version,
        moment(&result.as_of),
        escape(&result.key),
        escape(&cut),
    );
    for of in &result.sql {
        put(
            &mut section,
            format_args!(
                "<details id=\"sql-{key}\"><summary>SQL of {key}</summary><pre>{}</pre></details>\n",
                escape(&of.query),
                key = escape(&of.metric),
            ),
        );
    }
    section.push_str("</section>\n");
    section
}

/// Renders the verdict, and a badge for each warning, whose text appears on hover.
fn badges(result: &ExperimentResult) -> String {
    let verdict = result.decision.verdict;
    let mut badges = format!("<span class=\"badge {}\">{}</span>", verdict.as_str(), verdict.title());
    for warning in &result.warnings {
        put(
            &mut badges,
            format_args!(" <span class=\"badge warning\" title=\"{}\">Warning</span>", escape(&warning.text)),
        );
    }
    badges
}

fn level_of(metric: &MetricResult, mean: f64) -> String {
    if metric.is_rate() { format::rate(mean) } else { format::mean(mean) }
}

fn relative(lift: Option<f64>) -> String {
    lift.map_or("–".to_owned(), format::signed_percent)
}

fn p_value(p: Option<f64>) -> String {
    p.map_or("–".to_owned(), |p| format::p_value_short(p).replace('<', "&lt;"))
}

/// Formats the interval of the difference; without one, the exact interval of the ratio.
fn interval_of(metric: &MetricResult, look: &AlwaysValidResult) -> String {
    match &look.exact {
        None => absolute_interval(metric, look.interval_absolute),
        Some(exact) => {
            let end = |end: Option<f64>| end.map_or("∞".to_owned(), format::times);
            format!("{} to {} times", end(exact.ratio.lower), end(exact.ratio.upper))
        }
    }
}

fn absolute_interval(metric: &MetricResult, interval: Option<Bounds>) -> String {
    let end = |end: Option<f64>| match end {
        None => "∞".to_owned(),
        Some(end) if metric.is_rate() => format!("{:+.2}", end * 100.0),
        Some(end) => format!("{end:+.3}"),
    };
    let unit = if metric.is_rate() { " pp" } else { "" };
    interval.map_or("–".to_owned(), |of| format!("{} to {}{unit}", end(of.lower), end(of.upper)))
}

/// Shortens "2026-11-24T04:30:00.123456Z" to the second.
fn moment(text: &str) -> String {
    let seconds = text.get(..19).unwrap_or(text);
    format!("{} UTC", escape(&seconds.replace('T', " ")))
}

/// Renders a sentence, with the names between backticks set as names.
fn prose(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for (index, part) in escape(text).split('`').enumerate() {
        match index % 2 {
            0 => html.push_str(part),
            _ => put(&mut html, format_args!("<code>{part}</code>")),
        }
    }
    html
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string never fails");
}
