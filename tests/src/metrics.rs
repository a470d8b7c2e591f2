//! Reads a service's `/metrics` and `/readyz`, as its operator would.

use anyhow::{Context, Result, anyhow};

/// The values of all series called `name`, each with its labels in the text form of the page.
pub fn series(url: &str, name: &str) -> Result<Vec<(String, f64)>> {
    let text = local::probe::get(&format!("{url}/metrics")).map_err(|reason| anyhow!("{url}: {reason}"))?;
    Ok(parse(&text, name))
}

/// The sum over all series called `name` whose labels contain `label`; 0 if there are none.
pub fn sum(url: &str, name: &str, label: &str) -> Result<f64> {
    let all = series(url, name)?;
    Ok(all.iter().filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum())
}

/// The document of `/readyz`, whether the service is ready or not.
pub fn readiness(url: &str) -> Result<serde_json::Value> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent.get(format!("{url}/readyz")).call().with_context(|| format!("asking {url}"))?;
    let body = answer.body_mut().read_to_string().context("reading /readyz")?;
    serde_json::from_str(&body).with_context(|| format!("/readyz answers {body}"))
}

fn parse(text: &str, name: &str) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (labels, value) = match rest.strip_prefix('{') {
            Some(labelled) => match labelled.rsplit_once("} ") {
                Some(split) => split,
                None => continue,
            },
            None => match rest.strip_prefix(' ') {
                Some(value) => ("", value),
                None => continue,
            },
        };
        if let Ok(value) = value.trim().parse() {
            found.push((labels.to_owned(), value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_distinguished_by_name_and_labels() {
        let text =
            "# HELP rows x\nrows{topic=\"a\",partition=\"0\"} 3\nrows{topic=\"b\"} 4\nrows_total 9\nup 1\n";
        assert_eq!(
            parse(text, "rows"),
            [("topic=\"a\",partition=\"0\"".to_owned(), 3.0), ("topic=\"b\"".to_owned(), 4.0)]
        );
        assert_eq!(parse(text, "up"), [(String::new(), 1.0)]);
    }
}
