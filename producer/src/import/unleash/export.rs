//! The export of features from Unleash's interface, which lists strategies, environments and dependencies beside the features,
//! brought into the form that is served to clients.

use serde_json::{Value, json};

use super::list;
use crate::import::finding::Findings;

/// Joins the lists of an export to features. `None` if the source is no export.
pub fn join(root: &Value, findings: &mut Findings) -> Option<Vec<Value>> {
    root.get("featureStrategies")?;
    for field in ["contextFields", "featureTags", "tagTypes", "links"] {
        if !list(root, field).is_empty() {
            findings.note(field, "is not taken over", "");
        }
    }
    let of = |field: &str, by: &str, name: &Value| -> Vec<&Value> {
        list(root, field).iter().filter(|item| item.get(by) == Some(name)).collect()
    };
    let mut features = Vec::new();
    for feature in list(root, "features") {
        let name = &feature["name"];
        let mut joined = feature.clone();
        let mut strategies = of("featureStrategies", "featureName", name);
        strategies.sort_by_key(|strategy| strategy.get("sortOrder").and_then(Value::as_i64).unwrap_or(0));
        joined["strategies"] = json!(strategies);
        if let Some(environment) = of("featureEnvironments", "featureName", name).first() {
            joined["enabled"] = environment.get("enabled").cloned().unwrap_or(json!(false));
            if let Some(variants) = environment.get("variants") {
                joined["variants"] = variants.clone();
            }
        }
        let dependencies: Vec<&Value> = of("dependencies", "feature", name)
            .into_iter()
            .flat_map(|all| list(all, "dependencies"))
            .collect();
        if !dependencies.is_empty() {
            joined["dependencies"] = json!(dependencies);
        }
        if let Some(fields) = joined.as_object_mut() {
            fields.remove("archived");
        }
        features.push(joined);
    }
    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_joined_by_the_names_of_features() {
        let root = json!({
            "features": [{"name": "a"}, {"name": "b"}],
            "featureStrategies": [
                {"featureName": "a", "name": "default", "sortOrder": 2},
                {"featureName": "a", "name": "userWithId", "sortOrder": 1},
            ],
            "featureEnvironments": [{"featureName": "a", "enabled": true, "variants": []}],
            "dependencies": [{"feature": "b", "dependencies": [{"feature": "a"}]}],
        });
        let joined = join(&root, &mut Findings::default()).unwrap();
        assert_eq!(joined[0]["strategies"][0]["name"], "userWithId");
        assert_eq!(
            (&joined[0]["enabled"], &joined[1]["dependencies"][0]["feature"]),
            (&json!(true), &json!("a"))
        );
        assert_eq!(join(&json!({"features": []}), &mut Findings::default()), None);
    }
}
