//! The numbers of our schemas in a registry, asked for once, before the first event is taken: a schema that the
//! registry refuses stops a producer at its start and not in the middle of its work.

use kafka::registry::{Registry, SchemaIdError};
use ops::config::Kafka;
use schemas::avro::{RecordKind, WrittenWith};
use schemas::{Event, topics};

/// The number of each event's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    exposure: u32,
    conversion: u32,
    alias: u32,
}

impl SchemaIds {
    /// Registers the schemas under `<topic>-value`, or looks them up, as the registry's settings say. Waits for
    /// the registry.
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

/// As Confluent's clients name it by default.
fn subject(topic: &str) -> String {
    format!("{topic}-value")
}
