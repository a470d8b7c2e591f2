//! The ids of our schemas in a registry. They are obtained once, before the first event is queued, so that a
//! schema that the registry refuses stops a producer at its start and not later.

use kafka::registry::{Registry, SchemaIdError};
use ops::config::Kafka;
use schemas::avro::{RecordKind, WrittenWith};
use schemas::{Event, topics};

/// The registry's id of the schema of each kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    exposure: u32,
    conversion: u32,
    alias: u32,
}

impl SchemaIds {
    /// Registers the schemas under `<topic>-value`, or looks them up, depending on the registry's settings.
    /// Blocks until the registry has answered.
    pub fn obtain(registry: &Registry, kafka: &Kafka) -> Result<SchemaIds, SchemaIdError> {
        let id = |topic, kind: RecordKind| registry.id(&subject(&kafka.topic(topic)), kind.schema());
        Ok(SchemaIds {
            exposure: id(topics::EXPOSURES, RecordKind::Exposure)?,
            conversion: id(topics::CONVERSIONS, RecordKind::Conversion)?,
            alias: id(topics::ALIASES, RecordKind::Alias)?,
        })
    }

    pub(super) fn of(&self, event: &Event<'_>) -> WrittenWith {
        WrittenWith::RegistryId(match event {
            Event::Exposure(_) => self.exposure,
            Event::Conversion(_) => self.conversion,
            Event::Alias(_) => self.alias,
        })
    }
}

/// Returns the default subject of Confluent's clients.
fn subject(topic: &str) -> String {
    format!("{topic}-value")
}
