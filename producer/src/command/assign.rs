//! `splitstream assign` prints the variant that a unit gets in an experiment, or the reason why it gets none, and the value
//! that a flag serves to it. With `--explain` it prints each step with its numbers.

use crate::explain::{self, Attributes, Explanation, flag::FlagExplanation};
use ::definitions::lists::read_lists;
use assignment::{DEFAULT_UNIT_TYPE, Environment, EvaluationError, Lists, Name, Snapshot};
use ops::Exit;
use schemas::definition::{Definitions, Kind, PRODUCTION};
use schemas::event::UNIT_ID_BYTES_MAX;
use schemas::{Key, number};
use sdk::event::now;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{log_error, open_log, print_json, print_text};
use crate::config::Config;
use crate::environments::{is_known, unknown};
use crate::unit_context::UnitContext;

#[derive(clap::Args)]
pub struct Args {
    /// The key of an experiment or a flag
    key: String,
    /// The unit's id, 1 to 256 bytes, used exactly as given
    #[arg(value_parser = unit_id)]
    unit: String,
    /// An attribute of the unit, for targeting: `plan=pro`, `age=42`, `beta=true`; in quotes it is text:
    /// `zip="42"`
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// The environment in which the unit is evaluated
    #[arg(long, value_name = "NAME", value_parser = super::environment, default_value = PRODUCTION)]
    environment: Key,
    /// Print every step with its numbers
    #[arg(long)]
    explain: bool,
    #[arg(long)]
    json: bool,
}

pub async fn run(config: &Config, args: Args) -> anyhow::Result<Exit> {
    let log = open_log(config).await?;
    let definitions = log.definitions();
    if !is_known(definitions, &args.environment) {
        eprintln!("warning: {}", unknown(&args.environment, "are evaluated"));
    }
    let lists = known_lists(config, definitions).await?;
    let snapshot = Snapshot::compile(definitions, &lists, Environment(args.environment.as_str()));
    let attributes: Attributes = args.attributes.iter().cloned().collect();
    let refused = |error: EvaluationError| anyhow::Error::new(error).context(Exit::Refused);
    let known: Vec<(Name<'_>, assignment::Value<'_>)> =
        attributes.iter().map(|(name, value)| (Name::of(name), assignment::Value::Json(value))).collect();
    if let Some((version, flag)) = definitions.flag(&args.key) {
        refuse_id_as_attribute(&args, &flag.unit_type)?;
        let context = UnitContext::new(flag.unit_type.as_str(), &args.unit, &known);
        let explanation =
            explain::flag::explain(&snapshot, (version, flag), &context.get(), attributes.clone(), now())
                .map_err(refused)?;
        return print_flag(&args, &explanation);
    }
    let Some((version, experiment)) = definitions.experiment(&args.key) else {
        let refused = anyhow::anyhow!(
            "there is no experiment `{}`, and no flag of that key; `splitstream definitions` lists all definitions",
            args.key
        );
        return Err(refused.context(Exit::Refused));
    };
    refuse_id_as_attribute(&args, &experiment.unit_type)?;
    let context = UnitContext::new(experiment.unit_type.as_str(), &args.unit, &known);
    let explained = (version, experiment);
    let explanation =
        explain::explain(definitions, &snapshot, explained, &context.get(), attributes.clone(), now())
            .map_err(refused)?;
    print_experiment(&args, &explanation)
}

/// Reads the members of lists, if there is a list.
async fn known_lists(config: &Config, definitions: &Definitions) -> anyhow::Result<Lists> {
    if definitions.iter().any(|accepted| accepted.definition.kind() == Kind::List) {
        return read_lists(&config.kafka).await.map_err(log_error);
    }
    Ok(Lists::default())
}

/// The id of a unit that is no user would be hidden by an attribute of the same name, or hide it.
fn refuse_id_as_attribute(args: &Args, unit_type: &Key) -> anyhow::Result<()> {
    let named = args.attributes.iter().any(|(name, _)| name == unit_type.as_str());
    if named && unit_type.as_str() != DEFAULT_UNIT_TYPE {
        let clash =
            anyhow::anyhow!("the {unit_type} is the unit itself: leave out `--attribute {unit_type}=...`");
        return Err(clash.context(Exit::Usage));
    }
    Ok(())
}

fn print_flag(args: &Args, explanation: &FlagExplanation) -> anyhow::Result<Exit> {
    match (args.json, args.explain) {
        (true, true) => print_json(explanation)?,
        (true, false) => print_json(&json!({
            "flag": explanation.flag,
            "version": explanation.version,
            "configuration_version": explanation.configuration_version,
            "environment": explanation.environment,
            "unit_id": explanation.unit_id,
            "variant": explanation.served.variant,
            "value": explanation.served.value,
            "reason": explanation.served.reason,
            "rule": explanation.rule,
        }))?,
        (false, true) => {
            print_text(&format!("{explanation}\n"))?;
        }
        (false, false) => {
            print_text(&format!("{}\n", explanation.served.value))?;
        }
    }
    Ok(Exit::Done)
}

fn print_experiment(args: &Args, explanation: &Explanation) -> anyhow::Result<Exit> {
    match (args.json, args.explain) {
        (true, true) => print_json(explanation)?,
        (true, false) => print_json(&json!({
            "experiment": explanation.experiment,
            "version": explanation.version,
            "configuration_version": explanation.configuration_version,
            "phase": explanation.phase,
            "environment": explanation.environment,
            "unit_id": explanation.unit_id,
            "variant": explanation.variant,
            "rule": explanation.rule,
            "reason": explanation.reason,
            "served": explanation.served,
        }))?,
        (false, true) => {
            print_text(&format!("{explanation}\n"))?;
        }
        (false, false) => {
            print_text(&match (&explanation.variant, &explanation.reason) {
                (Some(variant), _) => format!("{variant}\n"),
                (None, reason) => format!("no variant: {}\n", reason.as_deref().unwrap_or_default()),
            })?;
        }
    }
    Ok(Exit::Done)
}

fn unit_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > UNIT_ID_BYTES_MAX {
        return Err(format!("{} bytes is not in 1 to {UNIT_ID_BYTES_MAX}", text.len()));
    }
    Ok(text.to_owned())
}

/// Parses `name=value`. A value that is a JSON number, boolean or string is read as JSON; any other is text.
///
/// # Errors
/// If a number cannot be represented exactly: it would be compared as another number.
fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("name=value is expected")?;
    if name.is_empty() {
        return Err("the name is missing".to_owned());
    }
    let value = match serde_json::from_str::<&RawValue>(value) {
        Ok(json) if json.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            number::read(json.get()).map(Value::Number).map_err(|error| error.to_string())?
        }
        _ => match serde_json::from_str(value) {
            Ok(scalar @ (Value::Bool(_) | Value::String(_))) => scalar,
            _ => Value::from(value),
        },
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_json_or_text() {
        for (text, expected) in [
            ("age=42", json!(42)),
            ("beta=true", json!(true)),
            ("zip=\"42\"", json!("42")),
            ("plan=pro", json!("pro")),
            ("version=1.2.3", json!("1.2.3")),
            ("query=a=b", json!("a=b")),
            ("empty=", json!("")),
            ("list=[1]", json!("[1]")),
            ("account=9007199254740993", json!(9_007_199_254_740_993_u64)),
            ("account=18446744073709551615", json!(u64::MAX)),
            ("account=-9223372036854775808", json!(i64::MIN)),
            ("account=\"18446744073709551616\"", json!("18446744073709551616")),
            ("share=0.1", json!(0.1)),
            ("spaced= 42 ", json!(42)),
            // No JSON number begins like this.
            ("zip=007", json!("007")),
            ("phone=+49", json!("+49")),
            ("minus=-", json!("-")),
        ] {
            assert_eq!(attribute(text).unwrap().1, expected, "{text}");
        }
        assert_eq!(attribute("plan").unwrap_err(), "name=value is expected");
        assert_eq!(attribute("=pro").unwrap_err(), "the name is missing");
        assert_eq!(
            attribute("account=18446744073709551616").unwrap_err(),
            "18446744073709551616 is too large for a number; if it is a name, put it in quotes"
        );
        assert_eq!(
            attribute("x=1e400").unwrap_err(),
            "1e400 is too large for a number; if it is a name, put it in quotes"
        );
        assert_eq!(
            attribute("x=9007199254740993.0").unwrap_err(),
            "9007199254740993.0 has more digits than a double; write a whole number without point and exponent"
        );
    }
}
