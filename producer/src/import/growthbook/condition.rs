//! Reads the conditions of GrowthBook: objects in the style of MongoDB whose values are tested as JavaScript does. An absent
//! attribute is null, so that it is not equal to anything, and 0 where it is compared with a number.

use serde_json::{Map, Value, json};

use crate::import::attribute::{self, Part, TARGETING_KEY, leads_into_a_list};
use crate::import::finding::{Findings, Inexpressible};
use crate::import::javascript::{Attribute, is_truthy};
use crate::import::logic::Logic;
use crate::import::pattern::{self, Compare};

/// The attribute whose value GrowthBook hashes if a rule names no other: the targeting key here.
pub const ID: &str = "id";

type Result<T> = std::result::Result<T, Inexpressible>;

/// What conditions refer to, and where their findings go.
pub struct Conditions<'a> {
    pub saved_groups: &'a Map<String, Value>,
    pub findings: &'a mut Findings,
}

/// Returns what the attribute is called here.
pub fn attribute_of(name: &str) -> &str {
    if name == ID { TARGETING_KEY } else { name }
}

/// How an operator compares.
fn comparison(operator: &str) -> Option<Compare> {
    match operator.trim_start_matches('$').trim_start_matches('v') {
        "eq" => Some(Compare::Equal),
        "lt" => Some(Compare::Below),
        "lte" => Some(Compare::AtMost),
        "gt" => Some(Compare::Above),
        "gte" => Some(Compare::AtLeast),
        _ => None,
    }
}

impl Conditions<'_> {
    /// Reads a condition on the attributes of a unit.
    pub fn read(&mut self, condition: &Value, path: &str) -> Result<Logic> {
        let Value::Object(fields) = condition else {
            return Err(Inexpressible::new(path, "the condition is no object", ""));
        };
        let mut all = Vec::new();
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            all.push(match name.as_str() {
                "$or" | "$nor" => {
                    let any = self.read_each(value, &path)?;
                    // Without any, `$or` holds.
                    let any = if any.is_empty() { Logic::TRUE } else { Logic::any(any) };
                    if name == "$nor" { any.not() } else { any }
                }
                "$and" => Logic::all(self.read_each(value, &path)?),
                "$not" => self.read(value, &path)?.not(),
                name => self.attribute(name, value, &path)?,
            });
        }
        Ok(Logic::all(all))
    }

    fn read_each(&mut self, conditions: &Value, path: &str) -> Result<Vec<Logic>> {
        let Value::Array(conditions) = conditions else {
            return Err(Inexpressible::new(path, "is no list of conditions", ""));
        };
        let conditions = conditions.iter().enumerate();
        conditions.map(|(index, condition)| self.read(condition, &format!("{path}[{index}]"))).collect()
    }

    fn attribute(&mut self, name: &str, value: &Value, path: &str) -> Result<Logic> {
        if leads_into_a_list(name) {
            return Err(Inexpressible::new(path, "leads into a list", ""));
        }
        if name == ID {
            self.findings.changed(
                path,
                "the attribute `id` is the targeting key here",
                "give the id as targeting key, as text",
            );
        }
        self.test(attribute_of(name), value, path)
    }

    /// Reads what is asked of the attribute's value.
    fn test(&mut self, name: &str, value: &Value, path: &str) -> Result<Logic> {
        match value {
            Value::String(text) => Ok(text_equals(name, text)),
            Value::Number(_) => {
                self.findings.changed(path, attribute::PLAIN_NUMBERS, "");
                let attribute = Attribute { path: name.to_owned(), default: json!(0), case: None };
                Ok(attribute.equals(value, false))
            }
            Value::Bool(true) => Ok(attribute::truthy(name, false)),
            Value::Bool(false) => Ok(attribute::one_of(name, &[json!(false), json!(0), json!("")])),
            Value::Null => Ok(attribute::missing(name)),
            Value::Object(operators)
                if !operators.is_empty() && operators.keys().all(|key| key.starts_with('$')) =>
            {
                let mut all = Vec::new();
                for (operator, expected) in operators {
                    all.push(self.operator(name, operator, expected, &format!("{path}.{operator}"))?);
                }
                Ok(Logic::all(all))
            }
            value => Ok(attribute::equals(name, value)),
        }
    }

    fn operator(&mut self, name: &str, operator: &str, expected: &Value, path: &str) -> Result<Logic> {
        let lost = |what: String| Inexpressible::new(path, what, "");
        match (operator, expected) {
            ("$eq", expected) => Ok(strictly_equals(name, expected)),
            ("$ne", expected) => Ok(strictly_equals(name, expected).not()),
            ("$lt" | "$lte" | "$gt" | "$gte", expected) => {
                let attribute = Attribute { path: name.to_owned(), default: Value::Null, case: None };
                let compare = comparison(operator).expect("the pattern lists comparisons");
                if expected.as_str().is_none_or(|text| attribute::to_number(text).is_some()) {
                    self.findings.changed(path, attribute::PLAIN_NUMBERS, "");
                }
                attribute
                    .compares(compare, expected)
                    .ok_or_else(|| lost("compares with a value that has no order".to_owned()))
            }
            ("$veq" | "$vne" | "$vlt" | "$vlte" | "$vgt" | "$vgte", Value::String(version)) => {
                self.version(name, operator, version, path)
            }
            ("$exists", expected) => {
                let missing = attribute::missing(name);
                Ok(if is_truthy_in_javascript(expected) { missing.not() } else { missing })
            }
            ("$in", Value::Array(values)) => Ok(is_in(name, values)),
            ("$nin", Value::Array(values)) => Ok(is_in(name, values).not()),
            ("$ini", Value::Array(values)) => Ok(self.is_in_any_case(name, values, path)),
            ("$nini", Value::Array(values)) => Ok(self.is_in_any_case(name, values, path).not()),
            ("$in" | "$nin" | "$ini" | "$nini" | "$all" | "$alli", expected) if !expected.is_array() => {
                Ok(Logic::FALSE)
            }
            ("$inGroup" | "$notInGroup", Value::String(group)) => {
                let values = match self.saved_groups.get(group) {
                    Some(Value::Array(values)) => values.as_slice(),
                    _ => &[],
                };
                let inside = is_in(name, values);
                Ok(if operator == "$inGroup" { inside } else { inside.not() })
            }
            ("$not", expected) => Ok(self.test(name, expected, path)?.not()),
            ("$size", Value::Number(size)) if size.as_u64() == Some(0) => {
                Ok(attribute::equals(name, &json!([])))
            }
            ("$elemMatch", expected) => element(name, expected)
                .ok_or_else(|| lost("asks of an element of a list more than which value it is".to_owned())),
            ("$all", Value::Array(values)) => {
                let plain = values.iter().all(|value| value.is_string() || value.is_number());
                if values.is_empty() || !plain {
                    return Err(lost(
                        "asks for elements of a list that are not named by their value".to_owned(),
                    ));
                }
                Ok(Logic::test(name, "has_all", json!(values)))
            }
            ("$regex" | "$regexi" | "$notRegex" | "$notRegexi", Value::String(pattern)) => {
                let matches = self.pattern(name, pattern, operator.ends_with('i'), path)?;
                Ok(if operator.starts_with("$not") { matches.not() } else { matches })
            }
            ("$type", Value::String(kind)) => of_type(name, kind)
                .ok_or_else(|| lost(format!("whether a value is of the type `{kind}` cannot be asked here"))),
            (operator, _) => Err(lost(format!("`{operator}` with this value has no counterpart here"))),
        }
    }

    fn is_in_any_case(&mut self, name: &str, values: &[Value], path: &str) -> Logic {
        if values.iter().any(|value| value.as_str().is_some_and(has_letters)) {
            self.findings.changed(
                path,
                "the elements of a list are compared with regard to case here, a text without",
                "",
            );
        }
        let one = values.iter().map(|value| match value {
            Value::String(text) => attribute::text_in_any_case(name, Part::Whole, text),
            value => attribute::equals(name, value),
        });
        Logic::any(one.chain([list_has(name, values)]))
    }

    fn version(&mut self, name: &str, operator: &str, version: &str, path: &str) -> Result<Logic> {
        if !is_version(version) {
            return Err(Inexpressible::new(path, format!("`{version}` is not a semantic version"), ""));
        }
        self.findings.changed(
            path,
            "versions are compared as semantic versions: missing parts are 0, and a text that is none passes no test",
            "",
        );
        let test = |operator| Logic::test(name, operator, version);
        // An absent version comes before all others.
        Ok(match operator {
            "$veq" => test("version_equals"),
            "$vne" => test("version_equals").not(),
            "$vlt" => Logic::any([test("version_below"), attribute::missing(name)]),
            "$vlte" => Logic::any([test("version_at_most"), attribute::missing(name)]),
            "$vgt" => test("version_above"),
            _ => test("version_at_least"),
        })
    }

    fn pattern(&mut self, name: &str, pattern: &str, any_case: bool, path: &str) -> Result<Logic> {
        let translated = pattern::from_javascript(pattern);
        let translated = if any_case { format!("(?i){translated}") } else { translated };
        let compiled = regex::Regex::new(&translated).map_err(|_| {
            let what = format!("`{pattern}` is not a pattern here: no look-around, no back-references");
            Inexpressible::new(path, what, "")
        })?;
        self.findings.changed(path, "a number is not matched as its text", "send the attribute as text");
        // GrowthBook converts an absent value to this text.
        let missing = if compiled.is_match("null") { attribute::missing(name) } else { Logic::FALSE };
        Ok(Logic::any([Logic::test(name, "matches", translated), missing]))
    }
}

/// A value whose text this is: a number and a boolean have one too, and nothing has the text `null`.
fn text_equals(name: &str, text: &str) -> Logic {
    let mut values = vec![json!(text)];
    values.extend(attribute::as_usual_number(text).map(Value::Number));
    match text {
        "true" => values.push(json!(true)),
        "false" => values.push(json!(false)),
        "null" => values.push(Value::Null),
        "" => values.push(json!([])),
        _ => {}
    }
    attribute::one_of(name, &values)
}

/// The same type and value; two lists or objects are never the same to JavaScript.
fn strictly_equals(name: &str, value: &Value) -> Logic {
    if value.is_array() || value.is_object() { Logic::FALSE } else { attribute::equals(name, value) }
}

/// One of the values, or a list that has one of them.
fn is_in(name: &str, values: &[Value]) -> Logic {
    Logic::any([attribute::one_of(name, values), list_has(name, values)])
}

fn list_has(name: &str, values: &[Value]) -> Logic {
    attribute::list_with_any(name, values)
}

/// `$elemMatch` that asks which value an element is. An element that counts as false is never looked at.
fn element(name: &str, expected: &Value) -> Option<Logic> {
    let operators = expected.as_object().filter(|operators| operators.len() == 1)?;
    let values: Vec<Value> = match operators.iter().next()? {
        (operator, Value::Array(values)) if operator == "$in" => values.clone(),
        (operator, value) if operator == "$eq" && !value.is_array() && !value.is_object() => {
            vec![value.clone()]
        }
        _ => return None,
    };
    let values: Vec<Value> = values.into_iter().filter(is_truthy_in_javascript).collect();
    Some(list_has(name, &values))
}

/// Unlike JsonLogic, JavaScript counts an empty list as true.
fn is_truthy_in_javascript(value: &Value) -> bool {
    value.is_array() || is_truthy(value)
}

fn of_type(name: &str, kind: &str) -> Option<Logic> {
    match kind {
        "string" => Some(attribute::is_text(name)),
        "number" => Some(Logic::any([Logic::test(name, "at_least", 0), Logic::test(name, "below", 0)])),
        "boolean" => Some(attribute::one_of(name, &[json!(true), json!(false)])),
        "null" => Some(attribute::missing(name)),
        _ => None,
    }
}

fn has_letters(text: &str) -> bool {
    text.chars().any(|character| character.to_lowercase().ne(character.to_uppercase()))
}

/// Whether the text is a version of one to three numbers, perhaps with a pre-release and a build.
pub fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, tail) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let plain = |number: &str| number.parse::<u64>().is_ok_and(|parsed| parsed.to_string() == number);
    let parts: Vec<&str> = core.split('.').collect();
    let in_tail = |character: char| character.is_ascii_alphanumeric() || "-+.".contains(character);
    parts.len() <= 3 && parts.iter().all(|part| plain(part)) && tail.chars().all(in_tail) && tail.len() != 1
}
