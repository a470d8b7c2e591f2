//! The operator's pages match the code: every metric that a service registers is explained, and every alert
//! uses metrics that exist and has a section that explains what to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The suffixes of the series that Prometheus creates for a histogram.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn every_metric_that_a_service_registers_is_explained_and_no_other() {
    let page = read("deploy/operations/README.md");
    let explained: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `splitstream_")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(explained, registered());
}

#[test]
fn every_alert_uses_metrics_that_exist() {
    let registered = registered();
    let mut unknown = Vec::new();
    let rules = read("deploy/operations/alerts.yaml");
    for (at, _) in rules.match_indices("splitstream_") {
        let rest = &rules[at + "splitstream_".len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        let histogram = HISTOGRAM_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        if !registered.contains(name) && !histogram.is_some_and(|name| registered.contains(name)) {
            unknown.push(name.to_owned());
        }
    }
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = read("deploy/operations/alerts.yaml");
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let page = read("deploy/operations/README.md");
    let (_, section) = page.split_once("\n## Alerts\n").expect("the page has a section `Alerts`");
    let section = section.split("\n## ").next().unwrap_or(section);
    let explained: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(explained, alerts);
    assert!(alerts.len() > 10, "{alerts:?}");
}

/// The names of the metrics in the services' sources, without their common prefix. Metrics that a unit test
/// registers are left out.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["build_info".to_owned()]);
    for (service, folder) in [
        ("consumer", "consumer/src"),
        ("producer", "producer/sdk/src"),
        ("edge", "producer/edge/src"),
        ("aggregator", "aggregator/src"),
    ] {
        for path in sources(&root().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
            let quoted = format!("\"{service}_");
            for (at, _) in code.match_indices(&quoted) {
                let literal = code[at + 1..].split('"').next().unwrap_or_default();
                if literal.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                    names.insert(literal.to_owned());
                }
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
    names
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace")
}
