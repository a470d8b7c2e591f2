//! Reads one JSON object field by field. Every refusal names the field by its path in the line.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value};
use stats::{Alpha, Alternative, Arm, Counts, Invalid, Moments, Pair, PairMoments, measured};

/// Counts above this are no longer exact in a double.
pub const COUNT_MAX: u64 = 1 << 53;

/// A field with an invalid value.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The path of the field, for example `looks[2].x_c`; `line` for the whole line.
    pub field: String,
    why: String,
}

impl Refused {
    pub fn whole_line(why: impl fmt::Display) -> Refused {
        Refused { field: "line".to_owned(), why: why.to_string() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// Returns whether a person who wrote `name` may have meant `known`: whether they differ by few letters,
/// ignoring separators and capitals.
fn is_near(name: &str, known: &str) -> bool {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-', ' '], "");
    let (name, known) = (plain(name), plain(known));
    // Short names are too close to each other: n_c, n_t, x_c.
    known.len() >= 4 && strsim::damerau_levenshtein(&name, &known) <= known.len() / 4
}

/// The field that gives a method the side of its test.
#[derive(Clone, Copy, PartialEq)]
pub enum Sides {
    /// `alternative`: two-sided, greater or less.
    Alternative,
    /// `sides`: 2, or 1 for an increase.
    Number,
    /// No field: the method is two-sided, or computes both.
    Both,
}

/// The fields that a method looked for, by their path without list indices (`looks[].n_c`), and whether one
/// was present.
type Asked = Rc<RefCell<BTreeMap<String, bool>>>;

/// An object and its path in the line.
pub struct Inputs<'a> {
    object: &'a Map<String, Value>,
    /// "" at the top, else ending in a dot.
    path: String,
    /// The path without list indices.
    kind: String,
    asked: Asked,
}

impl<'a> Inputs<'a> {
    pub fn top(object: &'a Map<String, Value>) -> Inputs<'a> {
        Inputs { object, path: String::new(), kind: String::new(), asked: Asked::default() }
    }

    /// Returns an object in the field `name` or in its list; `place` is the name with the list indices.
    fn inside(&self, name: &str, place: &str, object: &'a Map<String, Value>) -> Inputs<'a> {
        let in_lists = "[]".repeat(place.matches('[').count());
        Inputs {
            object,
            path: format!("{}{place}.", self.path),
            kind: format!("{}{name}{in_lists}.", self.kind),
            asked: Rc::clone(&self.asked),
        }
    }

    /// Returns the fields that the method did not read, those of a list's entries only once (`looks[].day`).
    /// Call it after the method. A field whose name is almost that of a field that the method looked for and
    /// did not find is refused, because its author means that one.
    pub fn unread(&self) -> Result<BTreeSet<String>, Refused> {
        let mut unread = BTreeSet::new();
        self.collect_unread(&mut unread)?;
        Ok(unread)
    }

    fn collect_unread(&self, unread: &mut BTreeSet<String>) -> Result<(), Refused> {
        for (name, value) in self.object {
            let kind = format!("{}{name}", self.kind);
            if !self.asked.borrow().contains_key(&kind) {
                if let Some(meant) = self.meant_by(name) {
                    return Err(self.refuse(name, format!("there is no such field; `{meant}` is meant?")));
                }
                if !value.is_null() {
                    unread.insert(kind);
                }
                continue;
            }
            self.collect_unread_inside(name, name, value, unread)?;
        }
        Ok(())
    }

    fn collect_unread_inside(
        &self,
        name: &str,
        place: &str,
        value: &'a Value,
        unread: &mut BTreeSet<String>,
    ) -> Result<(), Refused> {
        match value {
            Value::Object(object) => self.inside(name, place, object).collect_unread(unread),
            // A list of numbers has no fields, so its entries are not visited.
            Value::Array(values) if !values.iter().all(Value::is_number) => {
                for (index, value) in values.iter().enumerate() {
                    self.collect_unread_inside(name, &format!("{place}[{index}]"), value, unread)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Returns a field of this object that was looked for and not found, and whose name is almost `name`.
    fn meant_by(&self, name: &str) -> Option<String> {
        let asked = self.asked.borrow();
        let absent = asked.iter().filter(|(_, there)| !**there);
        let here = absent.filter_map(|(path, _)| path.strip_prefix(&self.kind));
        let near = here.filter(|known| !known.contains('.') && is_near(name, known));
        near.map(str::to_owned).next()
    }

    fn ask(&self, name: &str) -> Option<&'a Value> {
        let value = self.object.get(name);
        let mut asked = self.asked.borrow_mut();
        *asked.entry(format!("{}{name}", self.kind)).or_default() |= value.is_some();
        value
    }

    /// Makes the refusal of the field `name`.
    pub fn refuse(&self, name: &str, why: impl fmt::Display) -> Refused {
        Refused { field: format!("{}{name}", self.path), why: why.to_string() }
    }

    /// Converts the error of a check to a refusal of the field `name`.
    pub fn check<T, E: fmt::Display>(&self, name: &str, result: Result<T, E>) -> Result<T, Refused> {
        result.map_err(|why| self.refuse(name, why))
    }

    /// Refuses a side that the method does not support.
    pub fn check_sides(&self, side_field: Sides) -> Result<(), Refused> {
        let two_sided = "this method is two-sided";
        if side_field != Sides::Alternative && self.alternative()? != Alternative::TwoSided {
            let by_sides = "this method takes its side from `sides`";
            let why = if side_field == Sides::Number { by_sides } else { two_sided };
            return Err(self.refuse("alternative", why));
        }
        if side_field != Sides::Number && self.has("sides") && self.sides()? != Alternative::TwoSided {
            let by_alternative = "this method takes its side from `alternative`";
            let why = if side_field == Sides::Alternative { by_alternative } else { two_sided };
            return Err(self.refuse("sides", why));
        }
        Ok(())
    }

    /// Returns whether the field is present and not null.
    pub fn has(&self, name: &str) -> bool {
        self.ask(name).is_some_and(|value| !value.is_null())
    }

    fn get(&self, name: &str) -> Result<&'a Value, Refused> {
        self.ask(name).ok_or_else(|| self.refuse(name, "it is missing"))
    }

    pub fn object(&self, name: &str) -> Result<Inputs<'a>, Refused> {
        let value = self.get(name)?;
        let object = value.as_object().ok_or_else(|| self.refuse(name, "it is not an object"))?;
        Ok(self.inside(name, name, object))
    }

    pub fn list(&self, name: &str) -> Result<&'a Vec<Value>, Refused> {
        self.get(name)?.as_array().ok_or_else(|| self.refuse(name, "it is not a list"))
    }

    /// The entries of a list of objects.
    pub fn objects(&self, name: &str) -> Result<Vec<Inputs<'a>>, Refused> {
        let mut objects = Vec::new();
        for (index, value) in self.list(name)?.iter().enumerate() {
            let place = format!("{name}[{index}]");
            let object = value.as_object().ok_or_else(|| self.refuse(&place, "it is not an object"))?;
            objects.push(self.inside(name, &place, object));
        }
        Ok(objects)
    }

    /// A list of lists of objects.
    pub fn rows_of_objects(&self, name: &str) -> Result<Vec<Vec<Inputs<'a>>>, Refused> {
        let mut rows = Vec::new();
        for (i, row) in self.list(name)?.iter().enumerate() {
            let place = format!("{name}[{i}]");
            let row = row.as_array().ok_or_else(|| self.refuse(&place, "it is not a list"))?;
            let mut objects = Vec::new();
            for (j, value) in row.iter().enumerate() {
                let place = format!("{name}[{i}][{j}]");
                let object = value.as_object().ok_or_else(|| self.refuse(&place, "it is not an object"))?;
                objects.push(self.inside(name, &place, object));
            }
            rows.push(objects);
        }
        Ok(rows)
    }

    /// A list of lists of counts.
    pub fn rows_of_counts(&self, name: &str) -> Result<Vec<Vec<u64>>, Refused> {
        let mut rows = Vec::new();
        for (i, row) in self.list(name)?.iter().enumerate() {
            let place = format!("{name}[{i}]");
            let row = row.as_array().ok_or_else(|| self.refuse(&place, "it is not a list"))?;
            let count = |(j, value)| self.count_of(&format!("{name}[{i}][{j}]"), value);
            rows.push(row.iter().enumerate().map(count).collect::<Result<_, _>>()?);
        }
        Ok(rows)
    }

    pub fn number(&self, name: &str) -> Result<f64, Refused> {
        self.number_of(name, self.get(name)?)
    }

    fn number_of(&self, place: &str, value: &Value) -> Result<f64, Refused> {
        value.as_f64().ok_or_else(|| self.refuse(place, format!("{value} is not a number")))
    }

    /// A number in a metric's unit, whose squares can be summed.
    pub fn measure(&self, name: &str) -> Result<f64, Refused> {
        self.check(name, measured("it", self.number(name)?))
    }

    pub fn count(&self, name: &str) -> Result<u64, Refused> {
        self.count_of(name, self.get(name)?)
    }

    /// A whole number, also one written as 5.0.
    fn count_of(&self, place: &str, value: &Value) -> Result<u64, Refused> {
        let whole = |number: &f64| *number >= 0.0 && number.fract() == 0.0;
        // Integers are read as such: as a double, 2^53 + 1 would be 2^53.
        let count = value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64));
        count
            .filter(|count| *count <= COUNT_MAX)
            .ok_or_else(|| self.refuse(place, format!("{value} is not a whole number from 0 to 2^53")))
    }

    pub fn text(&self, name: &str) -> Result<&'a str, Refused> {
        let value = self.get(name)?;
        value.as_str().ok_or_else(|| self.refuse(name, format!("{value} is not a text")))
    }

    /// A text, or the default where the field is absent.
    pub fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, Refused> {
        if self.has(name) { self.text(name) } else { Ok(default) }
    }

    /// A boolean; false where the field is absent.
    pub fn flag(&self, name: &str) -> Result<bool, Refused> {
        if !self.has(name) {
            return Ok(false);
        }
        let value = self.get(name)?;
        value.as_bool().ok_or_else(|| self.refuse(name, format!("{value} is neither true nor false")))
    }

    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, Refused> {
        let number = |(i, value)| self.number_of(&format!("{name}[{i}]"), value);
        self.list(name)?.iter().enumerate().map(number).collect()
    }

    /// Numbers in a metric's unit, see [`Inputs::measure`].
    pub fn measures(&self, name: &str) -> Result<Vec<f64>, Refused> {
        let values = self.numbers(name)?;
        for (index, &value) in values.iter().enumerate() {
            self.check(&format!("{name}[{index}]"), measured("it", value))?;
        }
        Ok(values)
    }

    /// Numbers, some of which may be null.
    pub fn numbers_or_null(&self, name: &str) -> Result<Vec<Option<f64>>, Refused> {
        let number = |(i, value): (usize, &Value)| match value {
            Value::Null => Ok(None),
            value => self.number_of(&format!("{name}[{i}]"), value).map(Some),
        };
        self.list(name)?.iter().enumerate().map(number).collect()
    }

    pub fn counts(&self, name: &str) -> Result<Vec<u64>, Refused> {
        let count = |(i, value)| self.count_of(&format!("{name}[{i}]"), value);
        self.list(name)?.iter().enumerate().map(count).collect()
    }

    pub fn alpha(&self) -> Result<Alpha, Refused> {
        self.check("alpha", Alpha::new(self.number("alpha")?))
    }

    /// The field `alternative`; two-sided where it is absent.
    pub fn alternative(&self) -> Result<Alternative, Refused> {
        match self.text_or("alternative", "two-sided")? {
            "two-sided" => Ok(Alternative::TwoSided),
            "greater" => Ok(Alternative::Greater),
            "less" => Ok(Alternative::Less),
            other => {
                let why = format!("{other:?} is none of two-sided, greater, less");
                Err(self.refuse("alternative", why))
            }
        }
    }

    /// The field `sides`; 1 looks for an increase.
    pub fn sides(&self) -> Result<Alternative, Refused> {
        match self.count("sides")? {
            2 => Ok(Alternative::TwoSided),
            1 => Ok(Alternative::Greater),
            other => Err(self.refuse("sides", format!("{other} is neither 1 nor 2"))),
        }
    }

    /// The counts of one arm; if the conversions exceed the units, the field of the conversions is refused.
    pub fn arm(&self, units: &str, conversions: &str) -> Result<Arm, Refused> {
        let counts = Counts { units: self.count(units)?, conversions: self.count(conversions)? };
        self.check(conversions, Arm::new(counts))
    }

    /// The arms in the fields `n_c`, `x_c`, `n_t`, `x_t`.
    pub fn arms(&self) -> Result<Pair<Arm>, Refused> {
        Ok(Pair { control: self.arm("n_c", "x_c")?, treatment: self.arm("n_t", "x_t")? })
    }

    /// The moments from count, sum and sum of squares in these fields.
    pub fn moments(&self, count: &str, sum: &str, squares: &str) -> Result<Moments, Refused> {
        let moments = Moments::from_sums(self.count(count)?, self.number(sum)?, self.number(squares)?);
        moments.map_err(|why| self.refuse(if why.what() == "sum" { sum } else { squares }, why))
    }

    /// Both values of every unit in the object `name`, `{x: [..], y: [..]}`.
    pub fn pairs_of_values(&self, name: &str, x: &str, y: &str) -> Result<Vec<(f64, f64)>, Refused> {
        let object = self.object(name)?;
        let (xs, ys) = (object.measures(x)?, object.measures(y)?);
        if xs.len() != ys.len() {
            let (what, left, right) = ("the values of a unit", xs.len(), ys.len());
            return Err(object.refuse(y, Invalid::Lengths { what, left, right }));
        }
        Ok(xs.into_iter().zip(ys).collect())
    }

    /// The moments of two values a unit from the sums. The names are those of the count and of the sums of x,
    /// of x squared, of y, of y squared and of products.
    pub fn pair_moments(&self, names: [&str; 6]) -> Result<PairMoments, Refused> {
        let [count, x, xx, y, yy, xy] = names;
        let sums_x = (self.number(x)?, self.number(xx)?);
        let sums_y = (self.number(y)?, self.number(yy)?);
        // Checks each value alone first, so that its own field is refused.
        self.moments(count, x, xx)?;
        self.moments(count, y, yy)?;
        let moments = PairMoments::from_sums(self.count(count)?, sums_x, sums_y, self.number(xy)?);
        self.check(xy, moments)
    }
}
