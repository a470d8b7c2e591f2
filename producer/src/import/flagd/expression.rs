//! Reads an expression of JsonLogic: as a condition where it is asked whether it is true, and as a tree of conditions with values
//! where its value matters.

use schemas::Micros;
use serde_json::{Map, Value};

use super::fractional;
use super::tree::{Branch, Tree};
use super::version::{self, Answer};
use crate::import::attribute::{PLAIN_NUMBERS, Part, leads_into_a_list, to_number};
use crate::import::finding::{Findings, Inexpressible};
use crate::import::javascript::{self, Attribute, Case};
use crate::import::logic::Logic;
use crate::import::pattern::Compare;

/// What a finding says of `sem_ver`.
const VERSIONS: &str = "a version that begins with `V` is none, and one that is a number compares as a number: 1.15 is below 1.2";

/// The most references to shared evaluators inside each other.
const REFERENCES_MAX: usize = 32;

/// The expressions of one flag.
#[derive(Clone, Copy, Debug)]
pub struct Expressions<'s> {
    /// The flag's name in the source.
    pub flag: &'s str,
    pub evaluators: &'s Map<String, Value>,
}

/// What an operator compares.
pub enum Operand {
    Value(Value),
    Attribute(Attribute),
    /// The seconds since 1970, now.
    Time,
}

type Result<T> = std::result::Result<T, Inexpressible>;

/// An expression that is not a plain value: its operator and its arguments.
struct Operation<'e> {
    name: &'e str,
    arguments: &'e [Value],
    path: String,
}

impl Operation<'_> {
    fn argument(&self, index: usize) -> String {
        format!("{}[{index}]", self.path)
    }

    fn lost(&self, what: impl Into<String>) -> Inexpressible {
        Inexpressible::new(self.path.as_str(), what, "")
    }
}

impl<'s> Expressions<'s> {
    /// Reads the value of the expression.
    pub fn tree(self, expression: &Value, path: &str) -> Result<Tree> {
        let expression = self.resolved(expression, path)?;
        let Some(operation) = operation(expression, path)? else {
            return Ok(Tree::Value(expression.clone()));
        };
        let arguments = operation.arguments;
        match (operation.name, arguments) {
            ("if" | "?:", _) => self.if_tree(&operation, 0),
            ("fractional", _) => fractional::read(self, arguments, &operation.path),
            ("and" | "or", [_, ..]) if !self.is_boolean(expression) => self.joined_tree(&operation),
            ("!" | "!!", [argument]) if contains_fractional(argument) => {
                let (then, otherwise) = if operation.name == "!" { (false, true) } else { (true, false) };
                let tree = self.tree(argument, &operation.argument(0))?;
                Ok(tree.branch(&Branch::constants(then, otherwise)))
            }
            ("var", _) => match self.operand(expression, path)? {
                Operand::Value(value) => Ok(Tree::Value(value)),
                Operand::Attribute(attribute) => Ok(Tree::Attribute(attribute)),
                Operand::Time => Err(operation.lost("the time is no variant")),
            },
            ("starts_with" | "ends_with" | "sem_ver", _) => {
                let Answer { is_true, is_known } = self.answer(&operation)?;
                let known = Tree::choose(is_known, Tree::Value(false.into()), Tree::Value(Value::Null));
                Ok(Tree::choose(is_true, Tree::Value(true.into()), known))
            }
            ("cat" | "lower" | "upper", _) => match self.operand(expression, path)? {
                Operand::Value(value) => Ok(Tree::Value(value)),
                _ => Err(operation.lost(format!("`{}` of an attribute is no variant", operation.name))),
            },
            _ => {
                let is_true = self.truth(expression, path)?;
                Ok(Tree::choose(is_true, Tree::Value(true.into()), Tree::Value(false.into())))
            }
        }
    }

    /// Tells where the operators of the expression work differently here.
    pub fn tell(self, expression: &Value, path: &str, findings: &mut Findings) {
        let Ok(expression) = self.resolved(expression, path) else { return };
        let is_number = |value: &Value| match value {
            Value::String(text) => to_number(text).is_some(),
            value => value.is_number() || value.is_boolean(),
        };
        match expression {
            Value::Array(items) => items.iter().for_each(|item| self.tell(item, path, findings)),
            Value::Object(fields) => {
                for (name, arguments) in fields {
                    let compares = matches!(name.as_str(), "==" | "!=" | "<" | "<=" | ">" | ">=");
                    if compares && arguments.as_array().is_some_and(|all| all.iter().any(is_number)) {
                        findings.changed(path, PLAIN_NUMBERS, "");
                    }
                    if name == "sem_ver" {
                        findings.changed(path, VERSIONS, "send versions as text, and without a capital `V`");
                    }
                    self.tell(arguments, path, findings);
                }
            }
            _ => {}
        }
    }

    /// Reads `if` from its argument `from` on: a condition, its value, and the rest.
    fn if_tree(self, operation: &Operation<'_>, from: usize) -> Result<Tree> {
        match &operation.arguments[from..] {
            [] => Ok(Tree::Value(Value::Null)),
            [otherwise] => self.tree(otherwise, &operation.argument(from)),
            [condition, then, ..] => {
                let then = self.tree(then, &operation.argument(from + 1))?;
                let otherwise = self.if_tree(operation, from + 2)?;
                let path = operation.argument(from);
                if contains_fractional(condition) {
                    let condition = self.tree(condition, &path)?;
                    return Ok(condition.branch(&Branch { then: Some(then), otherwise: Some(otherwise) }));
                }
                Ok(Tree::choose(self.truth(condition, &path)?, then, otherwise))
            }
        }
    }

    /// `and` has the value of its first argument that is false, or else of its last; `or` of its first that is true.
    fn joined_tree(self, operation: &Operation<'_>) -> Result<Tree> {
        let mut last: Option<Tree> = None;
        for (index, argument) in operation.arguments.iter().enumerate().rev() {
            let tree = self.tree(argument, &operation.argument(index))?;
            last = Some(match last {
                None => tree,
                Some(rest) if operation.name == "and" => {
                    tree.branch(&Branch { then: Some(rest), otherwise: None })
                }
                Some(rest) => tree.branch(&Branch { then: None, otherwise: Some(rest) }),
            });
        }
        last.ok_or_else(|| operation.lost("joins nothing"))
    }

    /// Reads when the expression is true. An operator whose arguments it cannot use answers nothing, which is not true.
    pub fn truth(self, expression: &Value, path: &str) -> Result<Logic> {
        let expression = self.resolved(expression, path)?;
        let Some(operation) = operation(expression, path)? else {
            return Ok(Logic::constant(javascript::is_truthy(expression)));
        };
        let arguments = operation.arguments;
        match (operation.name, arguments) {
            ("and", _) => Ok(Logic::all(self.truths(&operation)?)),
            ("or", _) => Ok(Logic::any(self.truths(&operation)?)),
            ("!", [argument]) => Ok(self.truth(argument, &operation.argument(0))?.not()),
            ("!!", [argument]) => self.truth(argument, &operation.argument(0)),
            ("if" | "?:", _) => self.if_truth(&operation, 0),
            ("==", [left, right]) => self.equality(&operation, [left, right], false),
            ("!=", [left, right]) => Ok(self.equality(&operation, [left, right], false)?.not()),
            ("===", [left, right]) => self.equality(&operation, [left, right], true),
            ("!==", [left, right]) => Ok(self.equality(&operation, [left, right], true)?.not()),
            ("<", _) => self.order(&operation, Compare::Below),
            ("<=", _) => self.order(&operation, Compare::AtMost),
            (">", _) => self.order(&operation, Compare::Above),
            (">=", _) => self.order(&operation, Compare::AtLeast),
            ("in", [needle, haystack]) => self.membership(&operation, needle, haystack),
            ("starts_with" | "ends_with" | "sem_ver", _) => Ok(self.answer(&operation)?.is_true),
            ("missing", _) => self.missing(&operation),
            ("var" | "cat" | "lower" | "upper", _) => Ok(match self.operand(expression, path)? {
                Operand::Value(value) => Logic::constant(javascript::is_truthy(&value)),
                Operand::Attribute(attribute) => attribute.is_truthy(),
                Operand::Time => Logic::TRUE,
            }),
            (name, _) => Err(operation
                .lost(format!("`{name}` with {} arguments has no counterpart here", arguments.len()))),
        }
    }

    fn truths(self, operation: &Operation<'_>) -> Result<Vec<Logic>> {
        let mut all = Vec::new();
        for (index, argument) in operation.arguments.iter().enumerate() {
            all.push(self.truth(argument, &operation.argument(index))?);
        }
        Ok(all)
    }

    fn if_truth(self, operation: &Operation<'_>, from: usize) -> Result<Logic> {
        match &operation.arguments[from..] {
            [] => Ok(Logic::FALSE),
            [otherwise] => self.truth(otherwise, &operation.argument(from)),
            [condition, then, ..] => {
                let condition = self.truth(condition, &operation.argument(from))?;
                let then = self.truth(then, &operation.argument(from + 1))?;
                Ok(Logic::choose(condition, then, self.if_truth(operation, from + 2)?))
            }
        }
    }

    fn equality(self, operation: &Operation<'_>, sides: [&Value; 2], strict: bool) -> Result<Logic> {
        let left = self.operand(sides[0], &operation.argument(0))?;
        let right = self.operand(sides[1], &operation.argument(1))?;
        match (left, right) {
            (Operand::Value(left), Operand::Value(right)) => {
                Ok(Logic::constant(javascript::equal(&left, &right, strict)))
            }
            (Operand::Attribute(attribute), Operand::Value(value))
            | (Operand::Value(value), Operand::Attribute(attribute)) => Ok(attribute.equals(&value, strict)),
            (Operand::Time, _) | (_, Operand::Time) => Err(operation.lost("compares the time for equality")),
            (Operand::Attribute(_), Operand::Attribute(_)) => Err(operation.lost("compares two attributes")),
        }
    }

    /// Two arguments, or three of which the middle one lies between the others.
    fn order(self, operation: &Operation<'_>, compare: Compare) -> Result<Logic> {
        let pairs: &[[usize; 2]] = match (operation.arguments.len(), compare) {
            (2, _) => &[[0, 1]],
            (3, Compare::Below | Compare::AtMost) => &[[0, 1], [1, 2]],
            (count, _) => return Err(operation.lost(format!("compares {count} values"))),
        };
        let mut all = Vec::new();
        for [left, right] in pairs {
            let one = self.operand(&operation.arguments[*left], &operation.argument(*left))?;
            let other = self.operand(&operation.arguments[*right], &operation.argument(*right))?;
            let compared = match (one, other) {
                (Operand::Value(left), Operand::Value(right)) => {
                    Some(Logic::constant(javascript::compared(compare, &left, &right)))
                }
                (Operand::Attribute(attribute), Operand::Value(value)) => attribute.compares(compare, &value),
                (Operand::Value(value), Operand::Attribute(attribute)) => {
                    attribute.compares(compare.mirrored(), &value)
                }
                (Operand::Time, Operand::Value(value)) => time(compare, &value),
                (Operand::Value(value), Operand::Time) => time(compare.mirrored(), &value),
                (Operand::Time, Operand::Time) => None,
                (Operand::Attribute(_) | Operand::Time, Operand::Attribute(_) | Operand::Time) => {
                    return Err(operation.lost("compares two attributes, or an attribute with the time"));
                }
            };
            all.push(compared.ok_or_else(|| operation.lost("compares with a value that has no order"))?);
        }
        Ok(Logic::all(all))
    }

    fn membership(self, operation: &Operation<'_>, needle: &Value, haystack: &Value) -> Result<Logic> {
        let needle = self.operand(needle, &operation.argument(0))?;
        let haystack = self.operand(haystack, &operation.argument(1))?;
        match (needle, haystack) {
            (Operand::Attribute(attribute), Operand::Value(Value::Array(values))) => {
                Ok(attribute.is_one_of(&values))
            }
            (Operand::Value(value), Operand::Attribute(attribute)) => attribute
                .contains(&value)
                .ok_or_else(|| operation.lost("looks for a value that is neither text nor number")),
            (Operand::Value(value), Operand::Value(Value::Array(values))) => {
                Ok(Logic::constant(values.contains(&value)))
            }
            (Operand::Value(Value::String(part)), Operand::Value(Value::String(text))) => {
                Ok(Logic::constant(text.contains(&part)))
            }
            _ => Err(operation.lost("looks for an attribute in something else than a list of values")),
        }
    }

    /// `missing` is true if an attribute is absent, null or empty.
    fn missing(self, operation: &Operation<'_>) -> Result<Logic> {
        let mut all = Vec::new();
        for name in operation.arguments {
            let Value::String(name) = name else { return Err(operation.lost("does not name an attribute")) };
            let attribute = Attribute { path: name.clone(), default: Value::Null, case: None };
            all.push(Logic::any([attribute.equals(&Value::Null, true), attribute.equals(&"".into(), true)]));
        }
        Ok(Logic::any(all))
    }

    fn answer(self, operation: &Operation<'_>) -> Result<Answer> {
        let mut operands = Vec::new();
        for (index, argument) in operation.arguments.iter().enumerate() {
            operands.push(self.operand(argument, &operation.argument(index))?);
        }
        match (operation.name, operands.as_slice()) {
            (
                "sem_ver",
                [
                    Operand::Attribute(attribute),
                    Operand::Value(Value::String(operator)),
                    Operand::Value(Value::String(bound)),
                ],
            ) if attribute.default.is_null() && attribute.case.is_none() => {
                Ok(version::compare(attribute, operator, bound))
            }
            (
                "starts_with" | "ends_with",
                [Operand::Attribute(attribute), Operand::Value(Value::String(text))],
            ) => {
                let part = if operation.name == "starts_with" { Part::Start } else { Part::End };
                Ok(Answer { is_true: attribute.has_text(part, text), is_known: attribute.is_text() })
            }
            // What is not a text, and the wrong number of arguments, is an error, which answers nothing.
            ("starts_with" | "ends_with", [Operand::Attribute(_), Operand::Value(_)]) => Ok(Answer::none()),
            ("starts_with" | "ends_with", [] | [_] | [_, _, _, ..]) => Ok(Answer::none()),
            ("sem_ver", operands) if operands.len() != 3 => Ok(Answer::none()),
            (name, _) => Err(operation.lost(format!("`{name}` does not compare an attribute with a value"))),
        }
    }

    pub fn operand(self, expression: &Value, path: &str) -> Result<Operand> {
        let expression = self.resolved(expression, path)?;
        let Some(operation) = operation(expression, path)? else {
            if expression.as_array().is_some_and(|items| items.iter().any(is_expression)) {
                return Err(Inexpressible::new(path, "the list holds expressions", ""));
            }
            return Ok(Operand::Value(expression.clone()));
        };
        match (operation.name, operation.arguments) {
            ("var", arguments) => self.variable(&operation, arguments),
            ("lower" | "upper", [argument]) => {
                let case = if operation.name == "lower" { Case::Lower } else { Case::Upper };
                match self.operand(argument, &operation.argument(0))? {
                    Operand::Value(Value::String(text)) => {
                        Ok(Operand::Value(Value::from(case.convert(&text))))
                    }
                    Operand::Attribute(attribute)
                        if attribute.case.is_none() && attribute.default.is_null() =>
                    {
                        Ok(Operand::Attribute(Attribute { case: Some(case), ..attribute }))
                    }
                    _ => Err(operation.lost("converts something else than a text or an attribute")),
                }
            }
            ("cat", arguments) => {
                let mut text = String::new();
                for (index, argument) in arguments.iter().enumerate() {
                    match self.operand(argument, &operation.argument(index))? {
                        Operand::Value(Value::String(part)) => text.push_str(&part),
                        Operand::Value(Value::Number(part)) => text.push_str(&part.to_string()),
                        _ => return Err(operation.lost("joins the text of an attribute")),
                    }
                }
                Ok(Operand::Value(Value::from(text)))
            }
            (name, _) => Err(operation.lost(format!("`{name}` has no counterpart as a value to compare"))),
        }
    }

    fn variable(self, operation: &Operation<'_>, arguments: &[Value]) -> Result<Operand> {
        let (Some(Value::String(name)), default) = (arguments.first(), arguments.get(1)) else {
            return Err(operation.lost("`var` does not name an attribute"));
        };
        let default = default.cloned().unwrap_or(Value::Null);
        match name.as_str() {
            "$flagd.flagKey" => Ok(Operand::Value(Value::from(self.flag))),
            "$flagd.timestamp" => Ok(Operand::Time),
            "" => Err(operation.lost("`var` names the whole context")),
            name if leads_into_a_list(name) => Err(operation.lost(format!("`{name}` leads into a list"))),
            _ if is_expression(&default) => Err(operation.lost("the default of `var` is an expression")),
            name => Ok(Operand::Attribute(Attribute { path: name.to_owned(), default, case: None })),
        }
    }

    /// Follows references to shared evaluators.
    fn resolved<'e>(self, expression: &'e Value, path: &str) -> Result<&'e Value>
    where
        's: 'e,
    {
        let mut expression = expression;
        for _ in 0..REFERENCES_MAX {
            let Some(name) =
                expression.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("$ref"))
            else {
                return Ok(expression);
            };
            let found = name.as_str().and_then(|name| self.evaluators.get(name));
            expression = found.ok_or_else(|| {
                Inexpressible::new(
                    path,
                    format!("there is no shared evaluator {name}, so flagd answers with an error"),
                    "",
                )
            })?;
        }
        Err(Inexpressible::new(path, "the shared evaluators refer to each other in a circle", ""))
    }

    /// Whether the value of the expression is always true or false.
    fn is_boolean(self, expression: &Value) -> bool {
        const OPERATORS: [&str; 11] = ["==", "!=", "===", "!==", "<", "<=", ">", ">=", "in", "!", "!!"];
        let Ok(expression) = self.resolved(expression, "") else { return false };
        match operation(expression, "") {
            Ok(Some(Operation { name: "and" | "or", arguments, .. })) => {
                arguments.iter().all(|argument| self.is_boolean(argument))
            }
            Ok(Some(Operation { name, arguments, .. })) => {
                OPERATORS.contains(&name) && !arguments.iter().any(contains_fractional)
            }
            _ => expression.is_boolean(),
        }
    }
}

/// Returns the operation, or `None` for a plain value.
fn operation<'e>(expression: &'e Value, path: &str) -> Result<Option<Operation<'e>>> {
    let Value::Object(fields) = expression else { return Ok(None) };
    let mut fields = fields.iter();
    let (Some((name, arguments)), None) = (fields.next(), fields.next()) else {
        return Err(Inexpressible::new(path, "an expression has one operator", ""));
    };
    let arguments = match arguments {
        Value::Array(arguments) => arguments.as_slice(),
        argument => std::slice::from_ref(argument),
    };
    Ok(Some(Operation { name, arguments, path: format!("{path}.{name}") }))
}

fn is_expression(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().any(is_expression),
        _ => false,
    }
}

fn contains_fractional(expression: &Value) -> bool {
    match expression {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name == "fractional" || contains_fractional(value))
        }
        Value::Array(items) => items.iter().any(contains_fractional),
        _ => false,
    }
}

/// The seconds since 1970, rounded down, compare so with the value.
fn time(compare: Compare, value: &Value) -> Option<Logic> {
    let seconds = value.as_f64()?;
    let from = |second: f64| {
        let micros = second * 1e6;
        if micros <= 0.0 {
            return Logic::TRUE;
        }
        Micros::new(micros as i64).map_or(Logic::FALSE, Logic::From)
    };
    match compare {
        Compare::AtLeast => Some(from(seconds.ceil())),
        Compare::Above => Some(from(seconds.floor() + 1.0)),
        Compare::Below => Some(from(seconds.ceil()).not()),
        Compare::AtMost => Some(from(seconds.floor() + 1.0).not()),
        Compare::Equal => None,
    }
}
