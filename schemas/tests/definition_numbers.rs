//! Numbers in definitions, from a file (JSON or YAML) to the log, read from there, exported, and applied
//! again. Each number stays the same at every step, and an exported definition is never a change of itself.

use schemas::Uuid;
use schemas::definition::{Definition, Definitions, parse_file};
use serde_json::{Number, Value, json};

/// Returns the definition that a reader has after applying a log with only this definition.
fn through_the_log(definition: &Definition) -> Definition {
    let change = Definitions::default().change_to(definition, Uuid::from_u128(1), "ann", "test");
    let accepted = Definitions::default().apply(0, schemas::Micros::EPOCH, &change).unwrap().unwrap();
    accepted.definition.clone()
}

fn one(text: &str) -> Definition {
    let mut definitions = parse_file(text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    assert_eq!(definitions.len(), 1);
    definitions.remove(0)
}

fn values(definition: &Definition) -> Vec<Value> {
    match definition {
        Definition::Flag(flag) => flag.variants.iter().map(|variant| variant.value.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Returns a flag with these values, in JSON and in YAML.
fn flag(value_type: &str, numbers: &[String]) -> [String; 2] {
    let json = |(index, number): (usize, &String)| format!("{{\"key\": \"v{index}\", \"value\": {number}}}");
    let yaml = |(index, number): (usize, &String)| format!("- key: v{index}\n  value: {number}\n");
    let variants: Vec<String> = numbers.iter().enumerate().map(json).collect();
    [
        format!(
            "{{\"kind\": \"flag\", \"key\": \"f\", \"value_type\": \"{value_type}\", \"default_variant\": \"v0\",\n\
             \"variants\": [{}]}}",
            variants.join(",\n")
        ),
        format!(
            "kind: flag\nkey: f\nvalue_type: {value_type}\ndefault_variant: v0\nvariants:\n{}",
            numbers.iter().enumerate().map(yaml).collect::<String>()
        ),
    ]
}

fn check(value_type: &str, numbers: &[(String, Number)]) {
    let texts: Vec<String> = numbers.iter().map(|(text, _)| text.clone()).collect();
    let expected: Vec<Value> = numbers.iter().map(|(_, number)| Value::Number(number.clone())).collect();
    for file in flag(value_type, &texts) {
        let written = one(&file);
        assert_eq!(values(&written), expected, "as read from\n{file}");
        let held = through_the_log(&written);
        assert_eq!(values(&held), expected, "as held of\n{file}");
        assert_eq!(held, written);
        let exported = held.to_document().to_string();
        let again = one(&exported);
        assert_eq!(again, held, "as exported:\n{exported}");
        assert_eq!(again.to_json(), written.to_json());
    }
}

fn double(number: f64) -> Number {
    Number::from_f64(number).unwrap()
}

/// A fixed bug: the log returned 9163.45371808552, 3.013591007694624e-9 and 0.000408151054974514.
#[test]
fn doubles_that_once_changed_stay_the_same() {
    check(
        "number",
        &[
            ("9163.453718085519".to_owned(), double(9163.453718085519)),
            ("3.0135910076946248e-09".to_owned(), double(3.0135910076946248e-9)),
            ("0.00040815105497451397".to_owned(), double(0.00040815105497451397)),
        ],
    );
}

#[test]
fn the_ends_of_every_range() {
    let integers =
        ["9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808", "0"];
    let integer = |text: &str| (text.to_owned(), Number::from(text.parse::<i64>().unwrap()));
    check("integer", &integers.map(integer));
    let double = |text: &str| (text.to_owned(), double(text.parse().unwrap()));
    let mut numbers: Vec<(String, Number)> = integers.map(integer).to_vec();
    numbers.push(("18446744073709551615".to_owned(), Number::from(u64::MAX)));
    numbers.extend(
        [
            "1.7976931348623157e308",
            "5e-324",
            "-2.2250738585072014e-308",
            "1e23",
            "9007199254740992.0",
            "-0.0",
            "1.5e3",
        ]
        .map(double),
    );
    check("number", &numbers);
    check("json", &numbers);
}

#[test]
fn a_number_that_would_have_to_be_rounded_is_refused_with_line_and_field() {
    for (value_type, number, why) in [
        ("number", "1e400", "1e400 is too large for a number; if it is a name, put it in quotes"),
        ("number", "-1e400", "-1e400 is too large for a number; if it is a name, put it in quotes"),
        (
            "integer",
            "1180591620717411303424",
            "1180591620717411303424 is too large for a number; if it is a name, put it in quotes",
        ),
        (
            "json",
            "18446744073709551616",
            "18446744073709551616 is too large for a number; if it is a name, put it in quotes",
        ),
        ("number", "1e-400", "1e-400 is too small for a number; write 0"),
        (
            "number",
            "9007199254740993.0",
            "9007199254740993.0 has more digits than a double; write a whole number without point and exponent",
        ),
        // A whole number, but not a signed 64-bit integer.
        ("integer", "18446744073709551615", "18446744073709551615 is not of the flag's value_type"),
        ("integer", "5.0", "5.0 is not of the flag's value_type"),
    ] {
        for (file, line) in flag(value_type, &["1".to_owned(), number.to_owned()]).iter().zip([3, 9]) {
            let errors: Vec<String> = parse_file(file).unwrap_err().iter().map(ToString::to_string).collect();
            assert_eq!(errors, [format!("line {line}: variants[1].value: {why}")], "{file}");
        }
    }
    let list = format!(
        "kind: list\nkey: l\nmembers_sha256: \"{}\"\nmembers: 9.007199254740993e15\n",
        "0".repeat(64)
    );
    assert_eq!(
        parse_file(&list).unwrap_err()[0].to_string(),
        "line 4: members: 9.007199254740993e15 has more digits than a double; write a whole number without point \
         and exponent"
    );
}

/// SplitMix64; source: Steele, Lea, Flood, OOPSLA 2014.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a finite double of any magnitude, or one between 0 and 1 as people write them.
    fn double(&mut self) -> f64 {
        let any = f64::from_bits(self.bits());
        if any.is_finite() && self.bits() & 1 == 0 {
            any
        } else {
            (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Returns a number and its text: the shortest one, one with 17 digits, or a 64-bit integer.
    fn number(&mut self) -> (String, Number) {
        let double = self.double();
        match self.bits() % 4 {
            0 => (format!("{double:?}"), Number::from_f64(double).unwrap()),
            1 => (format!("{double:.16e}"), Number::from_f64(double).unwrap()),
            2 => {
                let integer = self.bits() as i64 >> (self.bits() % 64);
                (integer.to_string(), Number::from(integer))
            }
            _ => {
                let integer = self.bits() >> (self.bits() % 64);
                (integer.to_string(), Number::from(integer))
            }
        }
    }
}

#[test]
fn any_number_stays_itself() {
    for seed in 0..1_000 {
        let random = &mut Random(seed);
        let numbers: Vec<(String, Number)> = (0..20).map(|_| random.number()).collect();
        let checked = std::panic::catch_unwind(|| check("number", &numbers));
        assert!(checked.is_ok(), "seed {seed}");
    }
}

/// A fixed bug, for rates and thresholds: a plan cannot change after the start, so a plan that was read with
/// another number was refused.
#[test]
fn an_experiment_is_never_a_change_of_itself() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let mut part = || random.double().abs().fract();
        let (alpha, power, relative) = (0.4 * part() + 0.01, 0.5 + 0.4 * part(), part() + 0.001);
        let margin = 0.9 * part() + 0.001;
        let bounds =
            [random.number(), random.number(), random.number(), random.number()].map(|(_, number)| number);
        let experiment = json!({
            "kind": "experiment", "key": "e", "assignment": "external", "control": "a",
            "variants": [
                {"key": "a", "weight": 5000, "value": bounds[0]},
                {"key": "b", "weight": 5000, "value": {"deep": [bounds[1]]}},
            ],
            "metrics": {"primary": "m", "guardrails": ["g"], "margins": {"g": margin}},
            "plan": {"alpha": alpha, "power": power, "mde_relative": relative, "practical_lift_relative": relative},
            "targeting": [{"key": "t", "when": {"all": [
                {"attribute": "x", "above": bounds[0]}, {"attribute": "x", "at_least": bounds[1]},
                {"attribute": "x", "below": bounds[2]}, {"attribute": "x", "at_most": bounds[3]},
                {"attribute": "x", "equals": bounds[0]}, {"attribute": "x", "in": bounds},
            ]}}],
        });
        let written = one(&experiment.to_string());
        let stored: Value = serde_json::from_str(&written.to_json()).unwrap();
        let held = Definition::from_json(written.kind(), stored).unwrap();
        assert_eq!(held, written, "seed {seed}");
        assert_eq!(one(&held.to_document().to_string()), written, "seed {seed}");
        assert_eq!(one(&held.to_document().to_string()).to_json(), written.to_json(), "seed {seed}");
    }
}
