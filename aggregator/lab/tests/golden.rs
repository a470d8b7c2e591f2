//! Runs every golden case through the calculator of the command line. See `golden/README.md` for the
//! format and the sources of the expected numbers.

use std::{fs, path::PathBuf};

use lab::compute::METHODS;
use serde_json::{Map, Value, json};

/// Fields that can be computed only from every unit's values; they are compared where those are given.
const FROM_VALUES_ONLY: [&str; 2] = ["ancova_se_hc2", "lin_se_hc2"];

#[derive(Clone, Copy)]
struct Tolerance {
    relative: f64,
    absolute: f64,
}

impl Tolerance {
    fn read(value: &Value) -> Tolerance {
        let part = |name: &str| value[name].as_f64().expect("a tolerance is rel and abs");
        Tolerance { relative: part("rel"), absolute: part("abs") }
    }
}

#[test]
fn every_golden_case_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut failures = Vec::new();
    let (mut numbers, mut cases) = (0, 0);
    for method in METHODS {
        let text = fs::read_to_string(folder.join(format!("{}.json", method.name))).expect("golden file");
        let file: Value = serde_json::from_str(&text).expect("golden file is JSON");
        let default = Tolerance::read(&file["default_tolerance"]);
        for case in file["cases"].as_array().expect("cases") {
            cases += 1;
            let id = format!("{}/{}", method.name, case["id"].as_str().expect("id"));
            let got: Value = serde_json::from_str(&method.answer(&case["inputs"].to_string())).expect("JSON");
            unexplained_nulls(&id, &got, &mut failures);
            let overrides = case["tolerance"].as_object().cloned().unwrap_or_else(Map::new);
            let from_sums = case["inputs"].get("control_raw").is_none();
            for (field, expected) in case["expected"].as_object().expect("expected") {
                if from_sums && FROM_VALUES_ONLY.contains(&field.as_str()) {
                    continue;
                }
                let tolerance = overrides.get(field).map_or(default, Tolerance::read);
                let path = format!("{id}.{field}");
                numbers += compare(&path, got.get(field), expected, tolerance, &mut failures);
            }
        }
    }
    println!("{numbers} values of {cases} cases compared in {} files", METHODS.len());
    assert!(failures.is_empty(), "{} of them differ:\n{}", failures.len(), failures.join("\n"));
}

/// Every file in the folder has a method, so that none is forgotten.
#[test]
fn every_golden_file_has_a_method() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    for entry in fs::read_dir(folder).expect("golden folder") {
        let name = entry.expect("entry").file_name().into_string().expect("utf-8");
        if let Some(name) = name.strip_suffix(".json") {
            assert!(METHODS.iter().any(|method| method.name == name), "{name} has no method");
        }
    }
}

/// Each field of each case in turn is left out, or replaced by an invalid or an extreme value: the answer is
/// one JSON object, and an error names a field.
#[test]
fn no_broken_input_goes_unanswered() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let replacements = [json!(null), json!(-1), json!("x"), json!(1e300)];

    let mut errors = 0;
    for method in METHODS {
        let text = fs::read_to_string(folder.join(format!("{}.json", method.name))).expect("golden file");
        let file: Value = serde_json::from_str(&text).expect("golden file is JSON");
        for case in file["cases"].as_array().expect("cases") {
            let inputs = case["inputs"].as_object().expect("inputs");
            // Small cases test as much as large ones, and are faster.
            if case["inputs"].to_string().len() > 3_000 {
                continue;
            }
            for name in inputs.keys() {
                let mut left_out = inputs.clone();
                left_out.remove(name);
                let mut broken = vec![left_out];
                for replacement in &replacements {
                    let mut replaced = inputs.clone();
                    replaced.insert(name.clone(), replacement.clone());
                    broken.push(replaced);
                }
                for inputs in broken {
                    let line = Value::Object(inputs).to_string();
                    let answer: Value = serde_json::from_str(&method.answer(&line)).expect("JSON");
                    assert!(answer.is_object(), "{} of {line}: {answer}", method.name);
                    if let Some(field) = answer["field"].as_str() {
                        errors += 1;
                        assert!(field != "line", "{} of {line}: {answer}", method.name);
                    }
                }
            }
        }
    }
    println!("{errors} errors named their field");
    assert!(errors > 1_000, "{errors}");
}

/// Collects nulls without a reason in the object's `missing`. `error` is null where there is no error.
fn unexplained_nulls(path: &str, got: &Value, failures: &mut Vec<String>) {
    match got {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "missing" && *name != "error") {
                if value.is_null() && !got["missing"][name].is_string() {
                    failures.push(format!("{path}.{name}: null without a reason"));
                }
                unexplained_nulls(&format!("{path}.{name}"), value, failures);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                unexplained_nulls(&format!("{path}[{index}]"), value, failures);
            }
        }
        _ => {}
    }
}

/// Compares numbers within the tolerance, element by element, and everything else exactly. Returns how many
/// values were compared.
fn compare(
    path: &str,
    got: Option<&Value>,
    expected: &Value,
    tolerance: Tolerance,
    failures: &mut Vec<String>,
) -> usize {
    let Some(got) = got else {
        failures.push(format!("{path}: absent, expected {expected}"));
        return 1;
    };
    match (got, expected) {
        (Value::Array(g), Value::Array(e)) if g.len() == e.len() => g
            .iter()
            .zip(e)
            .enumerate()
            .map(|(i, (g, e))| compare(&format!("{path}[{i}]"), Some(g), e, tolerance, failures))
            .sum(),
        (Value::Object(g), Value::Object(e)) => {
            e.iter().map(|(k, e)| compare(&format!("{path}.{k}"), g.get(k), e, tolerance, failures)).sum()
        }
        (Value::Number(g), Value::Number(e)) if !e.is_u64() || !g.is_u64() => {
            let (g, e) = (g.as_f64().expect("finite"), e.as_f64().expect("finite"));
            let allowed = tolerance.absolute.max(tolerance.relative * e.abs());
            if (g - e).abs() > allowed {
                failures.push(format!("{path}: got {g:?}, expected {e:?}"));
            }
            1
        }
        (g, e) => {
            if g != e {
                failures.push(format!("{path}: got {g}, expected {e}"));
            }
            1
        }
    }
}
