//! The fields that the demo reads from the document of `splitstream results --json`, and the table that it
//! prints from them. The document itself is passed on unchanged.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::open_bandit::Arm;

#[derive(Debug, Clone, Deserialize)]
pub struct Document {
    pub experiments: Vec<Experiment>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Experiment {
    pub key: String,
    pub variants: Vec<Variant>,
    /// The fixed-horizon test of the primary metric.
    pub test: Option<Test>,
    pub always_valid: Option<AlwaysValid>,
    pub decision: Decision,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Variant {
    pub key: String,
    pub units: u64,
    pub conversions: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Test {
    pub z: Option<f64>,
    pub p_value: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct AlwaysValid {
    pub interval_absolute: Option<Bounds>,
}

/// A confidence interval; a bound that is null is infinite.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Bounds {
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Decision {
    pub verdict: String,
    pub reason: String,
}

impl Document {
    pub fn parse(json: &[u8]) -> Result<Document> {
        serde_json::from_slice(json).context("reading the aggregator's document")
    }

    /// The units and conversions of each variant; none of an experiment that has not been analyzed yet.
    pub fn arms(&self, key: &str) -> BTreeMap<String, Arm> {
        let variants = self.experiment(key).into_iter().flat_map(|experiment| &experiment.variants);
        let arm = |variant: &Variant| Arm { units: variant.units, conversions: variant.conversions };
        variants.map(|variant| (variant.key.clone(), arm(variant))).collect()
    }

    pub fn experiment(&self, key: &str) -> Option<&Experiment> {
        self.experiments.iter().find(|experiment| experiment.key == key)
    }

    /// Fails unless each arm has exactly the units and conversions that were counted in the data itself.
    pub fn check(&self, arms: &BTreeMap<(String, String), Arm>) -> Result<()> {
        let mut differences = Vec::new();
        for ((key, variant), expected) in arms {
            let Some(experiment) = self.experiment(key) else {
                differences.push(format!("{key} is not in the document"));
                continue;
            };
            match experiment.variants.iter().find(|found| found.key == *variant) {
                None => differences.push(format!("{key} has no variant {variant}")),
                Some(found) if (found.units, found.conversions) != (expected.units, expected.conversions) => {
                    differences.push(format!(
                        "{key} {variant} has {} units and {} conversions, the data has {} and {}",
                        found.units, found.conversions, expected.units, expected.conversions
                    ));
                }
                Some(_) if experiment.test.is_none() => differences.push(format!("{key} was not tested")),
                Some(_) => {}
            }
        }
        if !differences.is_empty() {
            bail!("the numbers are not those of the data: {}", differences.join("; "));
        }
        Ok(())
    }

    /// Formats the verdicts: a line for each variant, then the reason of each experiment.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<18} {:<10} {:>9} {:>11} {:>8}   {:<21} {:<17} {}\n",
            "experiment",
            "variant",
            "units",
            "conversions",
            "rate",
            "always-valid lift",
            "fixed (reference)",
            "verdict"
        );
        for experiment in &self.experiments {
            for (index, variant) in experiment.variants.iter().enumerate() {
                let (key, interval, test, verdict) = if index == 0 {
                    (experiment.key.as_str(), String::new(), String::new(), "")
                } else {
                    let test = experiment.test.as_ref().map(Test::format).unwrap_or_default();
                    ("", experiment.interval(), test, experiment.decision.verdict.as_str())
                };
                let line = format!(
                    "{key:<18} {:<10} {:>9} {:>11} {:>8}   {interval:<21} {test:<17} {verdict}",
                    variant.key,
                    variant.units,
                    variant.conversions,
                    variant.rate(),
                );
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        for experiment in &self.experiments {
            text.push_str(&format!("\n{}: {}\n", experiment.key, experiment.decision.reason));
        }
        text
    }
}

impl Experiment {
    /// The interval of the treatment's rate minus the control's, in percentage points: "-0.20 to +0.66 pp".
    pub fn interval(&self) -> String {
        let points = |end: f64| format!("{:+.2}", end * 100.0);
        match self.always_valid.as_ref().and_then(|looks| looks.interval_absolute) {
            Some(Bounds { lower: Some(lower), upper: Some(upper) }) => {
                format!("{} to {} pp", points(lower), points(upper))
            }
            Some(Bounds { lower: Some(lower), upper: None }) => format!("above {} pp", points(lower)),
            Some(Bounds { lower: None, upper: Some(upper) }) => format!("below {} pp", points(upper)),
            _ => "-".to_owned(),
        }
    }
}

impl Variant {
    pub fn rate(&self) -> String {
        if self.units == 0 {
            return "-".to_owned();
        }
        format!("{:.2} %", self.conversions as f64 / self.units as f64 * 100.0)
    }
}

impl Test {
    fn format(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        format!("z {} p {}", number(self.z), number(self.p_value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEN: &str = r#"{"experiments": [{
        "key": "open_bandit_men",
        "variants": [
            {"key": "random", "units": 10000, "conversions": 46, "rate": 0.0046},
            {"key": "bts", "units": 10000, "conversions": 69, "rate": 0.0069}
        ],
        "test": {"z": 2.15098, "p_value": 0.03148},
        "always_valid": {"interval_absolute": {"lower": -0.0012, "upper": 0.0058}},
        "decision": {"verdict": "keep_running", "reason": "Because."}
    }]}"#;

    fn arms(clicks_of_bts: u64) -> BTreeMap<(String, String), Arm> {
        let arm = |policy: &str, conversions| {
            (("open_bandit_men".to_owned(), policy.to_owned()), Arm { units: 10_000, conversions })
        };
        BTreeMap::from([arm("random", 46), arm("bts", clicks_of_bts)])
    }

    #[test]
    fn numbers_equal_to_the_data_pass_and_a_missing_click_fails() {
        let document = Document::parse(MEN.as_bytes()).unwrap();
        document.check(&arms(69)).unwrap();
        assert_eq!(
            document.check(&arms(70)).unwrap_err().to_string(),
            "the numbers are not those of the data: open_bandit_men bts has 10000 units and 69 conversions, \
             the data has 10000 and 70"
        );
    }

    #[test]
    fn a_missing_experiment_is_named() {
        let document = Document::parse(br#"{"experiments": []}"#).unwrap();
        let error = document.check(&arms(69)).unwrap_err().to_string();
        assert_eq!(
            error,
            "the numbers are not those of the data: open_bandit_men is not in the document; open_bandit_men \
             is not in the document"
        );
    }

    #[test]
    fn the_table_contains_the_always_valid_interval_the_reference_and_the_reason() {
        let document = Document::parse(MEN.as_bytes()).unwrap();
        assert_eq!(
            document.table(),
            "experiment         variant        units conversions     rate   always-valid lift     fixed (reference) verdict\n\
             open_bandit_men    random         10000          46   0.46 %\n\
             \x20                  bts            10000          69   0.69 %   -0.12 to +0.58 pp     z 2.1510 p 0.0315 keep_running\n\
             \n\
             open_bandit_men: Because.\n"
        );
    }
}
