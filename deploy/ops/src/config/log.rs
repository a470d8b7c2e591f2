//! `[log]`: which events are written to standard error, and in which form.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::{Field, Section, Setting, Shown};

/// The level and form of the log.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: Filter,
    pub format: Format,
}

impl Section for Log {
    const NAME: &'static str = "log";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("level", &self.level, "the least serious events that are logged"),
            Field::of("format", &self.format, "the form of a log line"),
        ]
    }
}

/// A level, or levels by module: `info`, `warn,consumer=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Filter(String);

impl Default for Filter {
    fn default() -> Filter {
        Filter("info".into())
    }
}

impl Filter {
    /// Returns the filter in the form that `tracing` uses.
    pub(crate) fn directives(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Filter, String> {
        // The parser would read a misspelt level as the name of a module, and then nothing would be logged.
        let level = |text: &str| text.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        let sound = !text.is_empty()
            && EnvFilter::try_new(&text).is_ok()
            && text.split(',').all(|part| part.contains('=') || level(part));
        if sound {
            Ok(Filter(text))
        } else {
            Err(format!("{text:?} where {} is expected", Filter::allowed()))
        }
    }
}

impl Setting for Filter {
    fn allowed() -> String {
        "one of off, error, warn, info, debug, trace, or levels by module as in warn,consumer=debug".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(&self.0)
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Setting for Format {
    fn allowed() -> String {
        "text or json".into()
    }

    fn shown(&self) -> Shown {
        Shown::text(match self {
            Format::Text => "text",
            Format::Json => "json",
        })
    }
}
