//! Reads the configuration once, from a TOML file and the environment, into a service's own checked types. The
//! environment overrides the file. A setting that is unknown, missing or out of bounds is an error that names
//! the setting, where it was written, what is allowed and how to correct it; nothing is guessed.
//!
//! A service declares one struct whose fields are its sections, and lists them as [`Page`]s:
//!
//! ```
//! use ops::config::{Config, Count, Field, Kafka, Page, Section};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Service {
//!     kafka: Kafka,
//!     consumer: Settings,
//! }
//!
//! impl Config for Service {
//!     fn pages(&self) -> Vec<Page> {
//!         vec![Page::of(&self.kafka), Page::of(&self.consumer)]
//!     }
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields, default)]
//! struct Settings {
//!     batch_rows: Count<1, 1_000_000>,
//! }
//!
//! impl Default for Settings {
//!     fn default() -> Self {
//!         Settings { batch_rows: Count::of(100_000) }
//!     }
//! }
//!
//! impl Section for Settings {
//!     const NAME: &'static str = "consumer";
//!
//!     fn fields(&self) -> Vec<Field> {
//!         vec![Field::of("batch_rows", &self.batch_rows, "rows at which a batch is closed")]
//!     }
//! }
//!
//! ops::config::check_declaration::<Settings>().unwrap();
//! let file = "[kafka]\nbrokers = 'kafka:9092'\n[consumer]\nbatch_rows = 0";
//! let error = ops::config::parse::<Service>(Some(("service.toml", file)), []).err().unwrap();
//! assert_eq!(
//!     error.to_string(),
//!     "service.toml, line 4: consumer.batch_rows: integer `0` where a whole number from 1 to \
//!      1000000 is expected"
//! );
//! ```

mod clickhouse;
mod http;
mod kafka;
mod log;
mod page;
mod registry;
mod tree;
mod value;

use std::path::Path;

use serde::de::DeserializeOwned;

pub use clickhouse::{ClickHouse, Identifier, ServerUrl};
pub use http::{Address, Http};
pub use kafka::{Brokers, Kafka, SaslMechanism, Security, TopicPrefix};
pub use log::{Filter, Format, Log};
pub use page::{Field, Page, Required, Section, check_declaration, render};
pub use registry::Registry;
pub use value::{Bounded, Bytes, Count, Millis, Secret, Setting, Shown, unit};

/// The prefix of environment variables that are settings. They have `__` between section and field.
pub const PREFIX: &str = "SPLITSTREAM_";

/// The sections that only some services use; the others ignore them in a shared file.
const OPTIONAL_SECTIONS: [&str; 6] = ["producer", "spool", "consumer", "aggregator", "edge", "registry"];

/// A service's configuration: a struct with `#[serde(deny_unknown_fields)]`, one field for each
/// section.
pub trait Config: DeserializeOwned {
    /// Every section, in the order in which an operator should read them.
    fn pages(&self) -> Vec<Page>;

    /// Every section with settings that have no default.
    fn required() -> Vec<Required> {
        Vec::new()
    }
}

/// The reason why a configuration was refused: one sentence with the setting, where it was written, and what to
/// do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<String> for Error {
    fn from(message: String) -> Error {
        Error(message)
    }
}

/// Reads the configuration from `file`, if one is given, and from the process's environment, which overrides
/// the file.
pub fn load<T: Config>(file: Option<&Path>) -> Result<T, Error> {
    let Sources { file, variables } = Sources::read(file)?;
    parse(file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), variables)
}

/// Renders the configuration that [`load`] would read. A setting that has no default and is not set is shown as such, with
/// an example, so that somebody who has set nothing yet learns what to set.
pub fn describe<T: Config>(file: Option<&Path>) -> Result<String, Error> {
    let Sources { file, variables } = Sources::read(file)?;
    describe_text::<T>(file.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), variables)
}

/// What was written of a configuration.
struct Sources {
    /// The file's name and its text.
    file: Option<(String, String)>,
    /// The variables by name and value.
    variables: Vec<(String, String)>,
}

impl Sources {
    fn read(file: Option<&Path>) -> Result<Sources, Error> {
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| Error(format!("environment variable {name}: not UTF-8 text")))?;
            variables.push((name.to_string(), value));
        }
        let file = match file {
            None => None,
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Error(format!("reading the configuration {name}: {error}")))?;
                Some((name, text))
            }
        };
        Ok(Sources { file, variables })
    }
}

/// Like [`load`], but without I/O: it takes the file's name and text, and variables by name and value.
pub fn parse<T: Config>(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, Error> {
    checked(&written(file, variables)?)
}

/// Like [`describe`], but without I/O.
pub fn describe_text<T: Config>(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<String, Error> {
    let mut root = written(file, variables)?;
    let mut unset = Vec::new();
    for section in T::required() {
        unset.extend(section.fill(&mut root)?);
    }
    Ok(page::render_but(&checked::<T>(&root)?, &unset))
}

/// The tree of what was written.
fn written(
    file: Option<(&str, &str)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<tree::Node, Error> {
    let mut root = match file {
        Some((name, text)) => tree::Node::parse(name, text)?,
        None => tree::Node::empty(),
    };
    check_file_version(&mut root)?;
    for (name, value) in variables {
        if let Some(path) = setting_path(&name)? {
            root.overlay(&name, &path, value)?;
        }
    }
    Ok(root)
}

fn checked<T: Config>(root: &tree::Node) -> Result<T, Error> {
    let config: T = tree::read(root, &OPTIONAL_SECTIONS)?;
    for page in config.pages() {
        page.checked?;
    }
    Ok(config)
}

/// The version of the configuration files that this build reads; a file that names none has this version.
pub const FILE_VERSION: i64 = 1;

/// Removes the version from the tree. Refuses a file of another version, because its settings may have another
/// meaning.
fn check_file_version(root: &mut tree::Node) -> Result<(), Error> {
    let tree::Value::Table(entries) = &mut root.value else { return Ok(()) };
    match entries.remove("version") {
        None | Some(tree::Node { value: tree::Value::Integer(FILE_VERSION), .. }) => Ok(()),
        Some(tree::Node { origin, .. }) => Err(Error(format!(
            "{origin}: version: this build reads configuration files of version {FILE_VERSION}; write `version = \
             {FILE_VERSION}` where the settings are those that `config` prints, or install the build that the file is for"
        ))),
    }
}

/// Returns what replaces a setting of earlier builds.
fn replacement_of(setting: &str) -> Option<String> {
    let table = setting.strip_prefix("consumer.retention_days_")?;
    ["exposures", "conversions", "aliases"].contains(&table).then(|| {
        format!(
            "how long events are kept is a definition, `{{kind: settings, key: platform, retention_days: {{{table}: \
             90}}}}`, which `splitstream apply` proposes and `splitstream migrate` carries out"
        )
    })
}

/// Returns the path of the setting that a variable names; `None` for a variable that is no setting, such as
/// those of the tools around the services.
fn setting_path(variable: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(rest) = variable.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    if rest.contains("__") {
        return Ok(Some(rest.to_lowercase().split("__").map(String::from).collect()));
    }
    // One underscore instead of two is a likely mistake and would otherwise go unnoticed.
    let lower = rest.to_lowercase();
    let shared = [Kafka::NAME, ClickHouse::NAME, Http::NAME, Log::NAME];
    for section in shared.iter().chain(&OPTIONAL_SECTIONS) {
        let field = lower.strip_prefix(section).and_then(|rest| rest.strip_prefix('_'));
        if let Some(field) = field {
            return Err(Error(format!(
                "environment variable {variable}: section and field are separated by two \
                 underscores: {PREFIX}{}__{}",
                section.to_uppercase(),
                field.to_uppercase()
            )));
        }
    }
    Ok(None)
}
