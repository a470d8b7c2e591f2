//! The text of the counting query: the template with the expressions of the metric in it, and the values that are bound to
//! it, in order.

use clickhouse::query::Query;
use schemas::Micros;

use super::Question;
use super::expressions::{Expressions, micros_of_hours};
use crate::cut::{Cut, ends};
use crate::database::Database;

const TEMPLATE: &str = include_str!("../counts.sql");

/// A value that is bound to a `?`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Epochs(Vec<u32>),
    Offsets(Vec<u64>),
}

/// A piece of SQL with a value for each of its `?`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

impl Piece {
    pub(super) fn new(text: impl Into<String>) -> Piece {
        Piece { text: text.into(), values: Vec::new() }
    }

    pub(super) fn bind(mut self, value: Value) -> Piece {
        self.values.push(value);
        self
    }

    pub(super) fn push(&mut self, other: Piece) {
        self.text.push_str(&other.text);
        self.values.extend(other.values);
    }
}

pub(super) fn query(database: &Database, question: &Question<'_>, cut: &Cut, as_of: Micros) -> Query {
    let Piece { text, values } = whole(question, cut, as_of);
    values.into_iter().fold(database.query(&text), |query, value| match value {
        Value::Text(value) => query.bind(value),
        Value::Texts(value) => query.bind(value),
        Value::Number(value) => query.bind(value),
        Value::Epochs(value) => query.bind(value),
        Value::Offsets(value) => query.bind(value),
    })
}

fn whole(question: &Question<'_>, cut: &Cut, as_of: Micros) -> Piece {
    let experiment = question.experiment;
    let expressions = Expressions::of(question);
    let environments = experiment.counted_environments.iter().map(|key| key.to_string()).collect();
    let seconds = |of: Option<u32>| Value::Number(i64::from(of.unwrap_or(0)));
    let (exposures, conversions) = (ends(&cut.exposures), ends(&cut.conversions));
    let covariate = experiment.plan.covariate_days.map_or(0, |days| micros_of_hours(days * 24));
    let mut values = [
        Value::Text(experiment.key.to_string()),
        Value::Texts(environments),
        Value::Text(experiment.unit_type.to_string()),
        seconds(experiment.switchback.map(|of| of.window_seconds)),
        seconds(experiment.switchback.map(|of| of.burn_in_seconds)),
        Value::Number(expressions.span_from),
        Value::Number(expressions.span_to.unwrap_or(0)),
        Value::Number(expressions.closes_after.unwrap_or(0)),
        Value::Number(covariate),
        Value::Number(as_of.get()),
        Value::Epochs(exposures.epochs),
        Value::Offsets(exposures.next_offsets),
        Value::Epochs(conversions.epochs),
        Value::Offsets(conversions.next_offsets),
    ]
    .into_iter();
    let mut whole = Piece::default();
    let mut rest = TEMPLATE;
    while let Some(at) = rest.find(['?', '{']) {
        whole.text.push_str(&rest[..at]);
        if rest[at..].starts_with('?') {
            whole.text.push('?');
            whole.values.push(values.next().expect("each ? of the template has a value"));
            rest = &rest[at + 1..];
        } else {
            let end = at + rest[at..].find('}').expect("each brace of the template is closed");
            whole.push(expressions.named(&rest[at + 1..end]));
            rest = &rest[end + 1..];
        }
    }
    assert!(values.next().is_none(), "the template has fewer ? than there are values");
    whole.text.push_str(rest);
    whole
}
