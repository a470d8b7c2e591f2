//! What each kind of metric makes of a unit's events, small enough to check by hand.

use counting::event::{Conversion, Scope};
use counting::kind::{self, Cap, Events, Kind, Of, PerUnit, Span, Term, Value};
use counting::micros::{DAY, HOUR, Micros};
use counting::names::{Name, Names};

/// Conversions in the order of their time.
struct List(Vec<Conversion>);

impl Events for List {
    fn of(&self, series: Name, from: Micros, to: Option<Micros>) -> impl Iterator<Item = &Conversion> {
        let counts =
            move |of: &&Conversion| of.series == series && of.at >= from && to.is_none_or(|to| of.at < to);
        self.0.iter().filter(counts)
    }
}

/// The unit is first exposed at this time.
const EXPOSED: Micros = 100 * DAY;

/// Makes the names `a`, `b` and `c`, and events from (name, time after the exposure, millionths), with ids from 1 on.
fn events(list: &[(&str, Micros, i64)]) -> ([Name; 3], List) {
    let mut names = Names::default();
    let series = ["a", "b", "c"].map(|text| names.add(text));
    let scope = Scope { environment: series[0], experiment: None };
    let event = |(index, (text, after, millionths)): (usize, &(&str, Micros, i64))| {
        Conversion::new(names.get(text).unwrap(), EXPOSED + after, index as u128 + 1, *millionths, scope)
    };
    let mut list: Vec<Conversion> = list.iter().enumerate().map(event).collect();
    list.sort();
    (series, List(list))
}

fn value(takes_part: bool, has_event: bool, y: i128, x: i128, steps: u8) -> Value {
    Value { takes_part, has_event, y, x, steps }
}

const WINDOW: Span = Span { delay: HOUR, end: Some(3 * HOUR) };

/// Before, at the exposure, in the delay, at its end, in the window, at its end.
const AROUND: [(&str, Micros, i64); 6] = [
    ("a", -1, 1_000_000),
    ("a", 0, 2_000_000),
    ("a", HOUR - 1, 4_000_000),
    ("a", HOUR, 8_000_000),
    ("a", 3 * HOUR - 1, 16_000_000),
    ("a", 3 * HOUR, 32_000_000),
];

#[test]
fn a_span_begins_after_the_delay_and_ends_before_the_end_of_the_window() {
    let ([a, b, _], events) = events(&AROUND);
    let conversion = |series, span| Kind::Conversion(kind::Conversion { series, span });
    assert_eq!(conversion(a, WINDOW).value(&events, EXPOSED, None), value(true, true, 1, 0, 0));
    assert_eq!(conversion(b, WINDOW).value(&events, EXPOSED, None), value(true, false, 0, 0, 0));
    let count =
        |span| Kind::Count(kind::Count { series: a, span, cap: Cap::None }).value(&events, EXPOSED, None);
    assert_eq!(count(WINDOW), value(true, true, 2, 0, 0));
    assert_eq!(count(Span::default()), value(true, true, 5, 0, 0));
    let mean = Kind::Mean(kind::Mean { series: a, span: WINDOW, cap: Cap::None });
    assert_eq!(mean.value(&events, EXPOSED, None), value(true, true, 24_000_000, 0, 0));
}

#[test]
fn a_covariate_ends_with_the_exposure() {
    let ([a, ..], events) = events(&[("a", -DAY - 1, 7), ("a", -DAY, 1), ("a", -1, 2), ("a", 0, 4)]);
    let span = Span::default();
    let of = |kind: Kind| kind.value(&events, EXPOSED, Some(DAY));
    assert_eq!(of(Kind::Conversion(kind::Conversion { series: a, span })), value(true, true, 1, 1, 0));
    assert_eq!(of(Kind::Count(kind::Count { series: a, span, cap: Cap::None })), value(true, true, 1, 2, 0));
    assert_eq!(of(Kind::Mean(kind::Mean { series: a, span, cap: Cap::None })), value(true, true, 4, 3, 0));
}

#[test]
fn a_cap_cuts_the_total_of_the_unit_and_its_covariate() {
    let ([a, ..], events) = events(&[("a", -2, 30), ("a", -1, 30), ("a", 1, 40), ("a", 2, 40)]);
    let span = Span::default();
    let mean = |cap| Kind::Mean(kind::Mean { series: a, span, cap }).value(&events, EXPOSED, Some(DAY));
    assert_eq!(mean(Cap::At(50)), value(true, true, 50, 50, 0));
    assert_eq!(mean(Cap::At(80)), value(true, true, 80, 60, 0));
    assert_eq!(mean(Cap::NotYet), mean(Cap::None));
    let count = Kind::Count(kind::Count { series: a, span, cap: Cap::At(1) });
    assert_eq!(count.value(&events, EXPOSED, Some(DAY)), value(true, true, 1, 1, 0));
}

#[test]
fn a_ratio_has_both_totals_of_the_unit() {
    let ([a, b, c], events) = events(&[("a", 1, 5_000_000), ("a", 2, 2_500_000), ("b", 3, 9), ("b", -1, 9)]);
    let ratio = |numerator, denominator| {
        let term = |(series, of)| Term { series, of };
        let ratio =
            kind::Ratio { numerator: term(numerator), denominator: term(denominator), span: Span::default() };
        Kind::Ratio(ratio).value(&events, EXPOSED, None)
    };
    assert_eq!(ratio((a, Of::Total), (b, Of::Events)), value(true, true, 7_500_000, 1, 0));
    assert_eq!(ratio((a, Of::Events), (b, Of::Total)), value(true, true, 2, 9, 0));
    assert_eq!(ratio((c, Of::Events), (c, Of::Events)), value(true, false, 0, 0, 0));
}

#[test]
fn day_n_is_the_24_hours_that_begin_n_days_after_the_exposure() {
    let retained = |after: Micros, first, last, window| {
        let ([a, ..], events) = events(&[("a", after, 0)]);
        let retention = kind::Retention { series: a, first, last, window };
        Kind::Retention(retention).value(&events, EXPOSED, None).y
    };
    assert_eq!([DAY - 1, DAY, 2 * DAY - 1, 2 * DAY].map(|after| retained(after, 1, 1, None)), [0, 1, 1, 0]);
    assert_eq!([7 * DAY - 1, 8 * DAY - 1, 8 * DAY].map(|after| retained(after, 1, 7, None)), [1, 1, 0]);
    assert_eq!([36 * HOUR - 1, 36 * HOUR].map(|after| retained(after, 1, 7, Some(36 * HOUR))), [1, 0]);
}

#[test]
fn a_quantile_takes_one_value_of_each_unit_that_has_any() {
    let of = |list: &[(&str, Micros, i64)], per_unit| {
        let ([a, ..], events) = events(list);
        Kind::Quantile(kind::Quantile { series: a, span: WINDOW, per_unit }).value(&events, EXPOSED, None)
    };
    let list = [("a", 0, 50), ("a", HOUR + 1, 3), ("a", HOUR, -7), ("a", HOUR, 9), ("a", 3 * HOUR, 50)];
    let y = |per_unit| of(&list, per_unit).y;
    // The mean is 5 / 3. Of the two earliest events the one with the smaller id is the first.
    let all = [PerUnit::Total, PerUnit::Mean, PerUnit::Largest, PerUnit::First];
    assert_eq!(all.map(y), [5, 1, 9, -7]);
    assert_eq!(of(&[("a", HOUR, -5), ("a", HOUR, 0)], PerUnit::Mean).y, -2);
    assert_eq!(of(&list[..1], PerUnit::Total), value(false, false, 0, 0, 0));
}

#[test]
fn a_step_of_a_funnel_is_the_earliest_event_not_before_the_step_before() {
    let funnel = |list: &[(&str, Micros, i64)], steps: &str, window| {
        let ([a, b, c], events) = events(list);
        let of = |step| match step {
            'a' => a,
            'b' => b,
            _ => c,
        };
        let funnel = kind::Funnel { steps: steps.chars().map(of).collect(), delay: 0, window };
        let value = Kind::Funnel(funnel).value(&events, EXPOSED, None);
        (value.steps, value.y)
    };
    assert_eq!(funnel(&[("a", 1, 0), ("b", 2, 0), ("c", 3, 0)], "abc", None), (3, 1));
    // b was there, but before a.
    assert_eq!(funnel(&[("b", 1, 0), ("a", 2, 0), ("c", 3, 0)], "abc", None), (1, 0));
    // At the same time is not before, whatever the ids.
    assert_eq!(funnel(&[("b", 1, 0), ("a", 1, 0)], "ab", None), (2, 1));
    // One event is not two steps.
    assert_eq!(funnel(&[("a", 1, 0)], "aa", None), (1, 0));
    assert_eq!(funnel(&[("a", 1, 0), ("a", 1, 0)], "aa", None), (2, 1));
    // Each step has a window of its own. The first a decides, although a later one would leave time for b.
    assert_eq!(funnel(&[("a", 9, 0), ("b", 18, 0), ("c", 27, 0)], "abc", Some(10)), (3, 1));
    assert_eq!(funnel(&[("a", 9, 0), ("b", 19, 0)], "ab", Some(10)), (1, 0));
    assert_eq!(funnel(&[("a", 1, 0), ("a", 9, 0), ("b", 12, 0)], "ab", Some(10)), (1, 0));
    assert_eq!(funnel(&[("a", 10, 0)], "ab", Some(10)), (0, 0));
}

#[test]
fn values_are_final_when_the_last_window_has_closed() {
    let ([a, b, _], _) = events(&[]);
    let funnel = |window| Kind::Funnel(kind::Funnel { steps: vec![a, b, a], delay: HOUR, window });
    assert_eq!(funnel(Some(DAY)).closes_after(), Some(3 * DAY + HOUR));
    assert_eq!(funnel(None).closes_after(), None);
    let retention = Kind::Retention(kind::Retention { series: a, first: 1, last: 7, window: None });
    assert_eq!(retention.closes_after(), Some(8 * DAY));
    let conversion = Kind::Conversion(kind::Conversion { series: a, span: WINDOW });
    assert_eq!(conversion.closes_after(), Some(3 * HOUR));
}
