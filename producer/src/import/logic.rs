//! What the importers make of a foreign condition before it becomes a definition: tests of attributes and of the time, joined
//! by and, or and not, and always in the simplest form. It does not know where a condition came from.

use schemas::Micros;
use serde_json::{Value, json};

/// The most rules that one foreign rule may become because its times are joined by `or`.
const WINDOWS_MAX: usize = 16;

/// A condition. Build it with [`Logic::all`], [`Logic::any`] and [`Logic::not`], which simplify.
#[derive(Clone, Debug, PartialEq)]
pub enum Logic {
    /// True if there is none.
    All(Vec<Logic>),
    /// False if there is none.
    Any(Vec<Logic>),
    Not(Box<Logic>),
    /// One operator of a definition's condition.
    Test {
        attribute: String,
        operator: &'static str,
        operand: Value,
    },
    /// It is this time or later.
    From(Micros),
}

/// A part of a condition that holds in one span of time: from `start` on and before `end`.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Tests no time.
    pub when: Logic,
    pub start: Option<Micros>,
    pub end: Option<Micros>,
}

impl Logic {
    pub const TRUE: Logic = Logic::All(Vec::new());
    pub const FALSE: Logic = Logic::Any(Vec::new());

    pub fn constant(value: bool) -> Logic {
        if value { Logic::TRUE } else { Logic::FALSE }
    }

    pub fn test(attribute: &str, operator: &'static str, operand: impl Into<Value>) -> Logic {
        Logic::Test { attribute: attribute.to_owned(), operator, operand: operand.into() }
    }

    pub fn is_true(&self) -> bool {
        *self == Logic::TRUE
    }

    pub fn is_false(&self) -> bool {
        *self == Logic::FALSE
    }

    pub fn all(parts: impl IntoIterator<Item = Logic>) -> Logic {
        let mut flat: Vec<Logic> = Vec::new();
        for part in parts {
            match part {
                Logic::All(inner) => flat.extend(inner),
                part if part.is_false() => return Logic::FALSE,
                part => flat.push(part),
            }
        }
        only_once(&mut flat);
        if flat.len() == 1 { flat.remove(0) } else { Logic::All(flat) }
    }

    pub fn any(parts: impl IntoIterator<Item = Logic>) -> Logic {
        let mut flat: Vec<Logic> = Vec::new();
        for part in parts {
            match part {
                Logic::Any(inner) => flat.extend(inner),
                part if part.is_true() => return Logic::TRUE,
                part => flat.push(part),
            }
        }
        merge_choices(&mut flat);
        only_once(&mut flat);
        if flat.len() == 1 { flat.remove(0) } else { Logic::Any(flat) }
    }

    pub fn not(self) -> Logic {
        match self {
            Logic::Not(inner) => *inner,
            Logic::Test { attribute, operator: "exists", operand: Value::Bool(expected) } => {
                Logic::test(&attribute, "exists", !expected)
            }
            logic if logic.is_true() => Logic::FALSE,
            logic if logic.is_false() => Logic::TRUE,
            logic => Logic::Not(Box::new(logic)),
        }
    }

    /// Returns `self` where `condition` holds, and `other` where it does not.
    pub fn choose(condition: Logic, then: Logic, otherwise: Logic) -> Logic {
        if then == otherwise {
            return then;
        }
        let unless = Logic::all([condition.clone().not(), otherwise]);
        Logic::any([Logic::all([condition, then]), unless])
    }

    pub fn depth(&self) -> usize {
        match self {
            Logic::Test { .. } | Logic::From(_) => 1,
            Logic::Not(inner) => 1 + inner.depth(),
            Logic::All(inner) | Logic::Any(inner) => 1 + inner.iter().map(Logic::depth).max().unwrap_or(0),
        }
    }

    fn tests_time(&self) -> bool {
        match self {
            Logic::Test { .. } => false,
            Logic::From(_) => true,
            Logic::Not(inner) => inner.tests_time(),
            Logic::All(inner) | Logic::Any(inner) => inner.iter().any(Logic::tests_time),
        }
    }

    /// Writes it as the condition of a definition.
    ///
    /// # Panics
    /// If it tests the time, which a condition cannot: see [`Logic::windows`].
    pub fn condition(&self) -> Value {
        match self {
            Logic::All(inner) => json!({ "all": inner.iter().map(Logic::condition).collect::<Vec<_>>() }),
            Logic::Any(inner) => json!({ "any": inner.iter().map(Logic::condition).collect::<Vec<_>>() }),
            Logic::Not(inner) => json!({ "not": inner.condition() }),
            Logic::Test { attribute, operator, operand } => {
                json!({ "attribute": attribute, *operator: operand })
            }
            Logic::From(time) => panic!("a condition does not test the time {time}"),
        }
    }

    /// Splits the condition by time: it holds wherever one of the windows does. `None` if that takes more than
    /// [`WINDOWS_MAX`].
    pub fn windows(&self) -> Option<Vec<Window>> {
        windows(self, false)
    }
}

fn windows(logic: &Logic, negated: bool) -> Option<Vec<Window>> {
    let always = Window { when: Logic::TRUE, start: None, end: None };
    if !logic.tests_time() {
        let when = if negated { logic.clone().not() } else { logic.clone() };
        return Some(if when.is_false() { Vec::new() } else { vec![Window { when, ..always }] });
    }
    match logic {
        Logic::From(time) if negated => Some(vec![Window { end: Some(*time), ..always }]),
        Logic::From(time) => Some(vec![Window { start: Some(*time), ..always }]),
        Logic::Not(inner) => windows(inner, !negated),
        Logic::All(parts) | Logic::Any(parts) => {
            let joined_by_and = matches!(logic, Logic::All(_)) != negated;
            let mut found = if joined_by_and { vec![always] } else { Vec::new() };
            for part in parts {
                let of_part = windows(part, negated)?;
                if joined_by_and {
                    let pairs = found.iter().flat_map(|left| of_part.iter().map(move |right| (left, right)));
                    found = pairs.filter_map(|(left, right)| left.and(right)).collect();
                } else {
                    found.extend(of_part);
                }
                if found.len() > WINDOWS_MAX {
                    return None;
                }
            }
            Some(found)
        }
        Logic::Test { .. } => unreachable!("a test of an attribute tests no time"),
    }
}

impl Window {
    /// Returns where both hold; `None` if that is nowhere.
    fn and(&self, other: &Window) -> Option<Window> {
        let start = self.start.max(other.start);
        let end = match (self.end, other.end) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
        let when = Logic::all([self.when.clone(), other.when.clone()]);
        let is_empty = when.is_false() || matches!((start, end), (Some(start), Some(end)) if end <= start);
        (!is_empty).then_some(Window { when, start, end })
    }
}

fn only_once(parts: &mut Vec<Logic>) {
    let mut kept: Vec<Logic> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        if !kept.contains(&part) {
            kept.push(part);
        }
    }
    *parts = kept;
}

/// Merges the tests of one attribute by `equals` and `in` into one `in`, at the place of the first.
fn merge_choices(parts: &mut Vec<Logic>) {
    let mut kept: Vec<Logic> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        let Some((attribute, values)) = choices(&part) else {
            kept.push(part);
            continue;
        };
        let same = kept.iter_mut().find(|other| choices(other).is_some_and(|(named, _)| named == attribute));
        let Some(other) = same else {
            kept.push(part);
            continue;
        };
        let mut all = choices(other).map(|(_, values)| values).unwrap_or_default();
        for value in values {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        // `equals` takes no null.
        let is_one = all.len() == 1 && !all[0].is_null();
        *other = match is_one {
            true => Logic::test(&attribute, "equals", all.remove(0)),
            false => Logic::test(&attribute, "in", all),
        };
    }
    *parts = kept;
}

/// The attribute and the values that it may equal, if that is what the test asks.
fn choices(logic: &Logic) -> Option<(String, Vec<Value>)> {
    match logic {
        Logic::Test { attribute, operator: "equals", operand } => {
            Some((attribute.clone(), vec![operand.clone()]))
        }
        Logic::Test { attribute, operator: "in", operand: Value::Array(values) } => {
            Some((attribute.clone(), values.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a() -> Logic {
        Logic::test("a", "equals", 1)
    }

    fn at(time: &str) -> Micros {
        Micros::parse(time).unwrap()
    }

    #[test]
    fn constants_and_repetitions_vanish() {
        assert_eq!(Logic::all([Logic::TRUE, a(), a()]), a());
        assert_eq!(Logic::all([a(), Logic::FALSE]), Logic::FALSE);
        assert_eq!(Logic::any([Logic::FALSE, a()]), a());
        assert_eq!(Logic::any([a(), Logic::TRUE]), Logic::TRUE);
        assert_eq!(a().not().not(), a());
        assert_eq!(Logic::test("a", "exists", true).not(), Logic::test("a", "exists", false));
        assert_eq!(Logic::choose(a(), Logic::TRUE, Logic::FALSE), a());
        assert_eq!(Logic::choose(a(), Logic::FALSE, Logic::TRUE), a().not());
    }

    #[test]
    fn equal_values_become_one_choice() {
        let merged = Logic::any([
            a(),
            Logic::test("b", "equals", 1),
            Logic::test("a", "in", json!(["x", 1])),
            Logic::test("a", "above", 3),
        ]);
        assert_eq!(
            merged.condition(),
            json!({"any": [
                {"attribute": "a", "in": [1, "x"]},
                {"attribute": "b", "equals": 1},
                {"attribute": "a", "above": 3},
            ]})
        );
    }

    #[test]
    fn times_become_windows() {
        let (one, two) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        let between = Logic::all([a(), Logic::From(one), Logic::From(two).not()]);
        assert_eq!(between.windows(), Some(vec![Window { when: a(), start: Some(one), end: Some(two) }]));
        let outside = Logic::all([Logic::From(one), Logic::From(two).not()]).not();
        assert_eq!(
            outside.windows(),
            Some(vec![
                Window { when: Logic::TRUE, start: None, end: Some(one) },
                Window { when: Logic::TRUE, start: Some(two), end: None },
            ])
        );
        let never = Logic::all([Logic::From(two), Logic::From(one).not()]);
        assert_eq!(never.windows(), Some(Vec::new()));
        let either = (0..20).map(|second| Logic::From(Micros::new(second).unwrap()));
        assert_eq!(Logic::any(either).windows(), None);
    }
}
