//! Writes documents as a definition file in JSON that people can read: the fields in a sensible order, and what is short on one
//! line.

use serde_json::{Map, Value};

/// Longest list or object on one line, in characters.
const LINE_CHARS_MAX: usize = 100;

/// The fields that come first, in this order; the others follow by their names.
const FIRST: [&str; 26] = [
    "kind",
    "key",
    "owner",
    "description",
    "hypothesis",
    "state",
    "enabled",
    "event",
    "type",
    "value_type",
    "unit_type",
    "salt",
    "layer",
    "slots",
    "slot_ranges",
    "default_variant",
    "prerequisites",
    "attribute",
    "variant",
    "flag",
    "when",
    "schedule",
    "rollout",
    "weight",
    "split",
    "value",
];

/// Writes the documents as one list.
pub fn file(documents: &[Value]) -> String {
    let mut text = String::from("[\n");
    for (index, document) in documents.iter().enumerate() {
        text.push_str("  ");
        write(document, 2, true, &mut text);
        text.push_str(if index + 1 < documents.len() { ",\n" } else { "\n" });
    }
    text.push_str("]\n");
    text
}

fn write(value: &Value, indent: usize, is_document: bool, text: &mut String) {
    let short = one_line(value);
    let is_nested = matches!(value, Value::Object(_) | Value::Array(_));
    if !is_nested || (!is_document && short.chars().count() + indent <= LINE_CHARS_MAX) {
        text.push_str(&short);
        return;
    }
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    let new_line = format!("\n{}", " ".repeat(indent + 2));
    text.push(open);
    let mut separator = "";
    let mut write_entry = |name: Option<&str>, value: &Value| {
        text.push_str(separator);
        text.push_str(&new_line);
        separator = ",";
        if let Some(name) = name {
            text.push_str(&format!("{}: ", Value::from(name)));
        }
        write(value, indent + 2, false, text);
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in ordered(fields) {
                write_entry(Some(name), value);
            }
        }
        Value::Array(items) => {
            for item in items {
                write_entry(None, item);
            }
        }
        _ => {}
    }
    text.push_str(&format!("\n{}{close}", " ".repeat(indent)));
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = ordered(fields);
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", Value::from(*name), one_line(value)))
                .collect();
            if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(one_line).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

fn ordered(fields: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut ordered: Vec<(&str, &Value)> =
        fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    ordered.sort_by_key(|(name, _)| rank(name));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_has_a_line_for_each_field() {
        let document = json!({
            "variants": [{"value": true, "key": "on"}, {"value": false, "key": "off"}],
            "default_variant": "off",
            "kind": "flag",
            "rules": [],
            "key": "a",
        });
        assert_eq!(
            file(&[document.clone(), document]).lines().take(9).collect::<Vec<_>>(),
            [
                "[",
                "  {",
                r#"    "kind": "flag","#,
                r#"    "key": "a","#,
                r#"    "default_variant": "off","#,
                r#"    "rules": [],"#,
                r#"    "variants": [{ "key": "on", "value": true }, { "key": "off", "value": false }]"#,
                "  },",
                "  {",
            ]
        );
    }

    #[test]
    fn what_is_written_is_the_same_json() {
        let long: Vec<Value> = (0..60).map(|number| json!({"key": number, "value": "x\n\"y\""})).collect();
        let document = json!({"kind": "flag", "rules": long, "value": {"a": [1.0, null]}});
        let read: Value = serde_json::from_str(&file(std::slice::from_ref(&document))).unwrap();
        assert_eq!(read, json!([document]));
    }
}
