//! Random expressions of JsonLogic on random attributes: what the imported flag serves is compared with a second reading of the
//! language, which evaluates the expression itself.

use std::cmp::Ordering;

use producer::import::Format;
use proptest::prelude::*;
use proptest::sample::select;
use schemas::Micros;
use serde_json::{Map, Value, json};

use crate::common::{Unit, World};

/// The value of an expression by JsonLogic's rules, for the operators that the test draws.
fn value_of(expression: &Value, data: &Map<String, Value>) -> Value {
    let Some((operator, arguments)) = expression.as_object().and_then(|fields| fields.iter().next()) else {
        return expression.clone();
    };
    let arguments: Vec<&Value> = match arguments {
        Value::Array(items) => items.iter().collect(),
        item => vec![item],
    };
    let at = |index: usize| arguments.get(index).map_or(Value::Null, |argument| value_of(argument, data));
    let order = |left: Value, right: Value| match (&left, &right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => number(&left)?.partial_cmp(&number(&right)?),
    };
    let chain = |holds: fn(Ordering) -> bool| {
        let pairs = 0..arguments.len() - 1;
        json!(pairs.into_iter().all(|index| order(at(index), at(index + 1)).is_some_and(holds)))
    };
    match operator.as_str() {
        "var" => match at(0).as_str().and_then(|name| data.get(name)) {
            None | Some(Value::Null) => at(1),
            Some(value) => value.clone(),
        },
        "if" => {
            let mut index = 0;
            while index + 1 < arguments.len() {
                if truthy(&at(index)) {
                    return at(index + 1);
                }
                index += 2;
            }
            at(index)
        }
        "and" => (0..arguments.len())
            .map(at)
            .find(|value| !truthy(value))
            .unwrap_or_else(|| at(arguments.len() - 1)),
        "or" => (0..arguments.len()).map(at).find(truthy).unwrap_or_else(|| at(arguments.len() - 1)),
        "!" => json!(!truthy(&at(0))),
        "!!" => json!(truthy(&at(0))),
        "===" => json!(same(&at(0), &at(1))),
        "!==" => json!(!same(&at(0), &at(1))),
        "==" => json!(loosely(&at(0), &at(1))),
        "!=" => json!(!loosely(&at(0), &at(1))),
        "<" => chain(Ordering::is_lt),
        "<=" => chain(Ordering::is_le),
        ">" => chain(Ordering::is_gt),
        ">=" => chain(Ordering::is_ge),
        "in" => json!(match (at(0), at(1)) {
            (part, Value::Array(items)) => items.iter().any(|item| same(item, &part)),
            (Value::String(part), Value::String(text)) => text.contains(&part),
            (Value::Number(part), Value::String(text)) => text.contains(&part.to_string()),
            _ => false,
        }),
        "starts_with" | "ends_with" => match (at(0), at(1)) {
            (Value::String(text), Value::String(part)) => {
                json!(if operator == "starts_with" { text.starts_with(&part) } else { text.ends_with(&part) })
            }
            _ => Value::Null,
        },
        other => panic!("{other} is not drawn"),
    }
}

fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
        && *value != json!("")
        && *value != json!([])
        && number_is_not_zero(value)
}

fn number_is_not_zero(value: &Value) -> bool {
    value.as_f64() != Some(0.0)
}

fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// The number that JavaScript converts a value to.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.trim().is_empty() => Some(0.0),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn loosely(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, right) => right.is_null(),
        (left, Value::Null) => left.is_null(),
        (Value::String(left), Value::String(right)) => left == right,
        (left, right) => same(left, right) || number(left).is_some_and(|left| number(right) == Some(left)),
    }
}

fn literal() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(vec![json!(0), json!(1), json!(5), json!(-2), json!(1.5), json!(10)]),
        select(vec![
            json!(""),
            json!("a"),
            json!("ab"),
            json!("1"),
            json!("5"),
            json!("1.5"),
            json!("-2"),
            json!("b")
        ]),
        select(vec![json!(true), json!(false), json!(null)]),
    ]
}

fn attribute_value() -> impl Strategy<Value = Value> {
    prop_oneof![4 => literal(), 1 => prop::collection::vec(select(vec![json!("a"), json!(1), json!("ab")]), 0..3).prop_map(Value::from)]
}

fn variable() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => select(vec!["x", "y"]).prop_map(|name| json!({"var": name})),
        1 => (select(vec!["x", "y"]), literal()).prop_map(|(name, default)| json!({"var": [name, default]})),
    ]
}

fn comparison() -> impl Strategy<Value = Value> {
    let equality = (select(vec!["==", "!=", "===", "!=="]), variable(), literal(), any::<bool>());
    let order = (select(vec!["<", "<=", ">", ">="]), variable(), literal(), any::<bool>());
    let pair = |(operator, variable, literal, turned): (&str, Value, Value, bool)| {
        let pair = if turned { json!([literal, variable]) } else { json!([variable, literal]) };
        json!({ operator: pair })
    };
    let between = (select(vec!["<", "<="]), literal(), variable(), literal())
        .prop_map(|(operator, low, variable, high)| json!({ operator: [low, variable, high] }));
    let text = select(vec!["", "a", "ab", "1"]);
    let texts = (select(vec!["starts_with", "ends_with"]), variable(), text.clone())
        .prop_map(|(operator, variable, text)| json!({ operator: [variable, text] }));
    let choices = (variable(), prop::collection::vec(literal(), 0..4))
        .prop_map(|(variable, choices)| json!({"in": [variable, choices]}));
    let substring = (text, variable()).prop_map(|(text, variable)| json!({"in": [text, variable]}));
    prop_oneof![equality.prop_map(pair), order.prop_map(pair), between, texts, choices, substring, variable()]
}

fn condition() -> impl Strategy<Value = Value> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| json!({"!": [one]})),
            inner.clone().prop_map(|one| json!({"!!": [one]})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|all| json!({"and": all})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|any| json!({"or": any})),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| json!({"if": [a, b, c]})),
        ]
    })
}

/// A targeting: its value names a variant, is nothing, or is true or false.
fn targeting() -> impl Strategy<Value = Value> {
    let variant = select(vec![json!("one"), json!("two"), json!(null), json!(true), json!(false)]);
    let chain = (condition(), variant.clone(), condition(), variant.clone(), variant)
        .prop_map(|(a, b, c, d, e)| json!({"if": [a, b, c, d, e]}));
    let boolean = condition().prop_map(|condition| json!({"!!": [condition]}));
    let operator = (select(vec!["starts_with", "ends_with"]), select(vec!["x", "y"]))
        .prop_map(|(operator, name)| json!({ operator: [{"var": name}, "a"] }));
    prop_oneof![6 => chain, 1 => boolean, 1 => operator]
}

proptest! {
    #[test]
    fn an_imported_flag_serves_what_its_expression_says(
        targeting in targeting(),
        units in prop::collection::vec([prop::option::of(attribute_value()), prop::option::of(attribute_value())], 1..12),
    ) {
        let variants = json!({"one": 1, "two": 2, "true": 3, "false": 4, "rest": 5});
        let source = json!({"flags": {"f": {
            "state": "ENABLED", "variants": variants, "defaultVariant": "rest", "targeting": targeting,
        }}});
        let world = World::of(Format::Flagd, &source);
        // An expression that nests too deep for a definition is named.
        prop_assume!(!world.has_lost("flags.f"));
        for unit in units {
            let named = ["x", "y"].into_iter().zip(unit);
            let attributes: Map<String, Value> =
                named.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
            let expected = match value_of(&targeting, &attributes) {
                Value::Null => "rest".to_owned(),
                Value::String(name) => name,
                value => value.to_string(),
            };
            let served = world.ask("f", &Unit { targeting_key: None, attributes: attributes.clone() }, Micros::EPOCH);
            prop_assert_eq!(served.unwrap().variant, expected, "{:?}", attributes);
        }
    }
}
