//! What a unit's value is in SQL, for each kind of metric. The words are those of `counts.sql`: `in_span` says of an event that
//! it counts, `after` is its time after the first exposure in microseconds, and the bits of `of_series` say which events of the
//! metric it is.

use schemas::definition::{EventFilter, EventTest, Limit, Metric, MetricKind, PerUnit, RatioTerm};

use super::Question;
use super::sql::{Piece, Value};

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// The time of the event that stands for a missing step.
const NEVER: i64 = i64::MAX;

pub(super) fn micros_of_hours(hours: u32) -> i64 {
    i64::from(hours) * MICROS_PER_HOUR
}

/// The expressions of one metric, and its times in microseconds after the first exposure.
pub(super) struct Expressions {
    series: Vec<Series>,
    y: Piece,
    x: Piece,
    takes_part: &'static str,
    has_event: String,
    steps: Piece,
    number_of_steps: usize,
    keeps_values: bool,
    pub(super) span_from: i64,
    pub(super) span_to: Option<i64>,
    pub(super) closes_after: Option<i64>,
}

/// Events of one name that pass a filter. Its bit is its position.
struct Series {
    event: String,
    filter: EventFilter,
}

impl Expressions {
    pub(super) fn of(question: &Question<'_>) -> Expressions {
        let Some(metric) = question.metric else { return Expressions::of_units() };
        let delay = metric.delay_hours.map_or(0, micros_of_hours);
        let end = metric.window_hours.map(|hours| delay + micros_of_hours(hours));
        let cap = match &metric.kind {
            MetricKind::Count { limit } | MetricKind::Mean { limit } => match limit {
                Some(Limit::Value(cap)) if matches!(metric.kind, MetricKind::Count { .. }) => {
                    Some(i128::from(cap.millionths()) / 1_000_000)
                }
                Some(Limit::Value(cap)) => Some(i128::from(cap.millionths())),
                Some(Limit::Quantile(_)) => question.cap,
                None => None,
            },
            _ => None,
        };
        let own = || Series { event: metric.event.to_string(), filter: metric.filter.clone() };
        let has_event = "countIf(in_span) > 0".to_owned();
        let whole = Expressions {
            series: vec![own()],
            y: Piece::new("0"),
            x: Piece::new("0"),
            takes_part: "true",
            has_event,
            steps: Piece::new("0"),
            number_of_steps: 0,
            keeps_values: false,
            span_from: delay,
            span_to: end,
            closes_after: end,
        };
        let with_covariate = |of: fn(&str) -> String| {
            let piece = |condition| cut(Piece::new(of(condition)), cap);
            (piece("in_span"), piece("in_covariate"))
        };
        match &metric.kind {
            MetricKind::Conversion => {
                let (y, x) = with_covariate(|condition| format!("countIf({condition}) > 0"));
                Expressions { y, x, ..whole }
            }
            MetricKind::Count { limit } => {
                let (y, x) = with_covariate(|condition| format!("countIf({condition})"));
                Expressions { y, x, keeps_values: waits_for_cap(*limit, cap), ..whole }
            }
            MetricKind::Mean { limit } => {
                let (y, x) = with_covariate(|condition| format!("sumIf(millionths, {condition})"));
                Expressions { y, x, keeps_values: waits_for_cap(*limit, cap), ..whole }
            }
            MetricKind::Ratio { numerator, denominator, denominator_event, denominator_filter } => {
                let second =
                    Series { event: denominator_event.to_string(), filter: denominator_filter.clone() };
                Expressions {
                    series: vec![own(), second],
                    y: Piece::new(term(*numerator, 0)),
                    x: Piece::new(term(*denominator, 1)),
                    has_event: "countIf(in_span AND bitTest(of_series, 0)) > 0".to_owned(),
                    ..whole
                }
            }
            MetricKind::Retention { days: (first, last) } => {
                let end = micros_of_hours((last + 1) * 24);
                let end = metric.window_hours.map_or(end, |hours| end.min(micros_of_hours(hours)));
                Expressions {
                    y: Piece::new("countIf(in_span) > 0"),
                    span_from: micros_of_hours(first * 24),
                    span_to: Some(end),
                    closes_after: Some(end),
                    ..whole
                }
            }
            MetricKind::Quantile { per_unit, .. } => Expressions {
                y: Piece::new(match per_unit {
                    PerUnit::Total => "sumIf(millionths, in_span)",
                    PerUnit::Mean => {
                        "intDiv(sumIf(millionths, in_span), toInt256(greatest(countIf(in_span), 1)))"
                    }
                    PerUnit::Largest => "maxIf(millionths, in_span)",
                    PerUnit::First => "argMinIf(millionths, (after, UUIDToNum(event_id)), in_span)",
                }),
                takes_part: "countIf(in_span) > 0",
                keeps_values: true,
                ..whole
            },
            MetricKind::Funnel { then_events } => {
                whole.of_funnel(metric, then_events.iter().map(|of| of.as_str()))
            }
        }
    }

    /// Only units are counted: no event belongs to no metric.
    fn of_units() -> Expressions {
        Expressions {
            series: Vec::new(),
            y: Piece::new("0"),
            x: Piece::new("0"),
            takes_part: "true",
            has_event: "false".to_owned(),
            steps: Piece::new("0"),
            number_of_steps: 0,
            keeps_values: false,
            span_from: 0,
            span_to: None,
            closes_after: None,
        }
    }

    /// The steps are found one after the other among the events of the unit, in the order of their time. Behind them stands one
    /// that is later than all and passes for every step: a step that is missing finds it, and so do all that follow.
    fn of_funnel<'a>(self, metric: &Metric, then_events: impl Iterator<Item = &'a str>) -> Expressions {
        let mut series = self.series;
        let mut bits = vec![0];
        for event in then_events {
            let known = series.iter().position(|of| of.event == event);
            bits.push(known.unwrap_or(series.len()));
            if known.is_none() {
                series.push(Series { event: event.to_owned(), filter: metric.filter.clone() });
            }
        }
        let number_of_steps = bits.len();
        let bits: Vec<String> = bits.iter().map(|bit| format!("toUInt8({bit})")).collect();
        let window = metric.window_hours.map_or(0, micros_of_hours);
        let text = format!(
            "arrayCount(step -> step.1 < {NEVER}, arrayFold(
            (taken, step) -> arrayPushBack(taken, arrayFirst(
                event -> event.1 = {NEVER}
                    OR (bitTest(event.3, step)
                        AND event.1 >= taken[-1].1
                        AND ({window} = 0 OR event.1 < taken[-1].1 + {window})
                        AND NOT has(taken, event)),
                arrayPushBack(
                    arraySort(groupArrayIf((toInt64(after), UUIDToNum(event_id), of_series), is_event)),
                    (toInt64({NEVER}), toFixedString('', 16), toUInt64(0))))),
            [{bits}],
            [(span_from, toFixedString('', 16), toUInt64(0))])) - 1",
            bits = bits.join(", ")
        );
        let steps_of_window = i64::try_from(number_of_steps).expect("there are few steps");
        Expressions {
            series,
            y: Piece::new(format!("unit_steps = {number_of_steps}")),
            has_event: format!("unit_steps = {number_of_steps}"),
            steps: Piece::new(text),
            number_of_steps,
            closes_after: metric.window_hours.map(|_| self.span_from + window * steps_of_window),
            ..self
        }
    }

    /// The expression that the template calls so.
    pub(super) fn named(&self, name: &str) -> Piece {
        match name {
            "series" => self.series_bits(),
            "names" => {
                let names = self.series.iter().map(|of| of.event.clone()).collect();
                Piece::new("?").bind(Value::Texts(names))
            }
            "y" => self.y.clone(),
            "x" => self.x.clone(),
            "takes_part" => Piece::new(self.takes_part),
            "has_event" => Piece::new(self.has_event.clone()),
            "steps" => self.steps.clone(),
            "number_of_steps" => Piece::new(self.number_of_steps.to_string()),
            "single_values" => Piece::new(if self.keeps_values {
                "arrayMap((value, number) -> (toString(value), number),
        tupleElement(sumMapIf([unit_y], [toUInt64(1)], NOT forced AND has_value) AS by_value, 1), tupleElement(by_value, 2))"
            } else {
                "CAST([], 'Array(Tuple(String, UInt64))')"
            }),
            other => panic!("the template has {{{other}}}, which is no expression"),
        }
    }

    /// A bit for each series that an event belongs to.
    fn series_bits(&self) -> Piece {
        let mut bits = Piece::new("toUInt64(0)");
        for (bit, series) in self.series.iter().enumerate() {
            bits.push(Piece::new(" + if(name = ?").bind(Value::Text(series.event.clone())));
            for test in series.filter.tests() {
                bits.push(Piece::new(" AND "));
                bits.push(passes(test));
            }
            bits.push(Piece::new(format!(", bitShiftLeft(toUInt64(1), {bit}), 0)")));
        }
        bits
    }
}

/// Whether an event passes a test of its metadata or its value.
fn passes(test: &EventTest) -> Piece {
    let text = |key: &schemas::Key| Value::Text(key.to_string());
    match test {
        EventTest::In { metadata, texts } => {
            Piece::new("(mapContains(metadata, ?) AND has(CAST(? AS Array(String)), metadata[?]))")
                .bind(text(metadata))
                .bind(Value::Texts(texts.clone()))
                .bind(text(metadata))
        }
        EventTest::NotIn { metadata, texts } => {
            Piece::new("NOT (mapContains(metadata, ?) AND has(CAST(? AS Array(String)), metadata[?]))")
                .bind(text(metadata))
                .bind(Value::Texts(texts.clone()))
                .bind(text(metadata))
        }
        EventTest::Exists { metadata, exists: true } => {
            Piece::new("mapContains(metadata, ?)").bind(text(metadata))
        }
        EventTest::Exists { metadata, exists: false } => {
            Piece::new("NOT mapContains(metadata, ?)").bind(text(metadata))
        }
        EventTest::ValueAtLeast(bound) => Piece::new("ifNull(reinterpretAsInt64(value) >= ?, false)")
            .bind(Value::Number(bound.millionths())),
        EventTest::ValueBelow(bound) => {
            Piece::new("ifNull(reinterpretAsInt64(value) < ?, false)").bind(Value::Number(bound.millionths()))
        }
    }
}

/// A total of a ratio, over the events with this bit.
fn term(of: RatioTerm, bit: u8) -> String {
    match of {
        RatioTerm::Events => format!("countIf(in_span AND bitTest(of_series, {bit}))"),
        RatioTerm::Total => format!("sumIf(millionths, in_span AND bitTest(of_series, {bit}))"),
    }
}

/// A unit's total, at most the cap.
fn cut(total: Piece, cap: Option<i128>) -> Piece {
    let Some(cap) = cap else { return total };
    let mut piece = Piece::new("least(toInt256(");
    piece.push(total);
    piece.push(Piece::new("), toInt256(?))").bind(Value::Text(cap.to_string())));
    piece
}

/// Whether a metric is cut at a quantile that is not known yet.
fn waits_for_cap(limit: Option<Limit>, cap: Option<i128>) -> bool {
    matches!(limit, Some(Limit::Quantile(_))) && cap.is_none()
}
