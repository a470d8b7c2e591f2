//! Every golden case through one adapter. See `golden/README.md` for the format and where the
//! expected numbers come from.

use std::{fs, path::PathBuf};

use serde_json::{Map, Value};

mod adapter;

use adapter::{Inputs, METHODS};

/// Given for information, and not computable from the sums that are the library's input: they need
/// every unit's residual.
const FOR_INFORMATION: &[&str] = &["ancova_se_hc2", "lin_se_hc2"];

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
    let mut numbers = 0;
    for (method, run) in METHODS {
        let text = fs::read_to_string(folder.join(format!("{method}.json"))).expect("golden file");
        let file: Value = serde_json::from_str(&text).expect("golden file is JSON");
        let default = Tolerance::read(&file["default_tolerance"]);
        for case in file["cases"].as_array().expect("cases") {
            let id = format!("{method}/{}", case["id"].as_str().expect("id"));
            let inputs = Inputs::of(&case["inputs"], "inputs").expect("inputs are an object");
            let got = match run(&inputs) {
                Ok(got) => got,
                Err(error) => {
                    failures.push(format!("{id}: {error}"));
                    continue;
                }
            };
            let overrides = case["tolerance"].as_object().cloned().unwrap_or_else(Map::new);
            for (field, expected) in case["expected"].as_object().expect("expected") {
                if FOR_INFORMATION.contains(&field.as_str()) {
                    continue;
                }
                let tolerance = overrides.get(field).map_or(default, Tolerance::read);
                let path = format!("{id}.{field}");
                let found = got.get(field);
                numbers += compare(&path, found, expected, tolerance, &mut failures);
            }
        }
    }
    println!("{numbers} values compared in {} files", METHODS.len());
    assert!(failures.is_empty(), "{} of them differ:\n{}", failures.len(), failures.join("\n"));
}

/// Every file in the folder has its line in the table, so that none is forgotten.
#[test]
fn every_golden_file_has_a_method() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    for entry in fs::read_dir(folder).expect("golden folder") {
        let name = entry.expect("entry").file_name().into_string().expect("utf-8");
        if let Some(method) = name.strip_suffix(".json") {
            assert!(METHODS.iter().any(|(known, _)| *known == method), "{method} has no method");
        }
    }
}

/// Numbers within the tolerance, element by element; everything else exactly. Returns how many
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
