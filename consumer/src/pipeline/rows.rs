//! The five tables as columns being filled: what a decoded message becomes, and the INSERT that takes it.
//! Each table's columns are declared once, in a list with their types; its `push` follows the list and takes
//! the record apart without `..`, so that a field that is new is named here by the compiler.

use schemas::definition::Change;
use schemas::look::LookRecord;
use schemas::{Alias, Buckets, Conversion, Exposure, Sender, UnitKey};
use xxhash_rust::xxh3::xxh3_64;

use crate::pipeline::native::{
    Column, Fixed, KEY, KEYS, LOW, Lists, LowTexts, MAP, Maps, Named, Optional, Repeated, Texts, Uuids, block,
};
use crate::pipeline::verify::Verification;

/// What every row of a batch carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchStamp {
    pub partition: u16,
    pub epoch: u32,
    pub first: u64,
    pub last: u64,
    /// Milliseconds since 1970, chosen once. It decides which partition of the table the block goes to.
    pub ingest_ms: i64,
}

/// The columns of one batch.
pub enum Rows {
    Exposures(Box<ExposureRows>),
    Conversions(Box<ConversionRows>),
    Aliases(Box<AliasRows>),
    Definitions(Box<DefinitionRows>),
    Looks(Box<LookRows>),
}

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Exposures,
    Conversions,
    Aliases,
    Definitions,
    Looks,
}

impl Table {
    pub const ALL: [Table; 5] =
        [Table::Exposures, Table::Conversions, Table::Aliases, Table::Definitions, Table::Looks];

    /// The topic that it is filled from, before any prefix.
    pub fn topic(self) -> &'static str {
        match self {
            Table::Exposures => schemas::topics::EXPOSURES,
            Table::Conversions => schemas::topics::CONVERSIONS,
            Table::Aliases => schemas::topics::ALIASES,
            Table::Definitions => schemas::topics::DEFINITIONS,
            Table::Looks => schemas::topics::LOOKS,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Table::Exposures => ExposureRows::TABLE,
            Table::Conversions => ConversionRows::TABLE,
            Table::Aliases => AliasRows::TABLE,
            Table::Definitions => DefinitionRows::TABLE,
            Table::Looks => LookRows::TABLE,
        }
    }

    /// Returns whether its rows are events, whose ids are remembered for a while. The logs are short, so for them
    /// ClickHouse is always asked.
    pub fn holds_events(self) -> bool {
        !matches!(self, Table::Definitions | Table::Looks)
    }

    /// The column with the id of the row.
    pub fn identity(self) -> &'static str {
        match self {
            Table::Exposures | Table::Conversions | Table::Aliases => "event_id",
            Table::Definitions => "change_id",
            Table::Looks => "look_id",
        }
    }

    pub fn rows(self) -> Rows {
        match self {
            Table::Exposures => Rows::Exposures(Box::default()),
            Table::Conversions => Rows::Conversions(Box::default()),
            Table::Aliases => Rows::Aliases(Box::default()),
            Table::Definitions => Rows::Definitions(Box::default()),
            Table::Looks => Rows::Looks(Box::default()),
        }
    }

    /// The statement that a block of this table follows. The block names its columns itself.
    pub fn insert(self) -> &'static str {
        match self {
            Table::Exposures => ExposureRows::INSERT,
            Table::Conversions => ConversionRows::INSERT,
            Table::Aliases => AliasRows::INSERT,
            Table::Definitions => DefinitionRows::INSERT,
            Table::Looks => LookRows::INSERT,
        }
    }
}

/// The columns that a batch's stamp fills, the same in all of its rows.
const STAMPED: [(&str, &str); 5] = [
    ("ingest_ts", TIME_MILLIS),
    ("kafka_partition", "UInt16"),
    ("epoch", "UInt32"),
    ("batch_first", "UInt64"),
    ("batch_last", "UInt64"),
];

const TIME_MICROS: &str = "DateTime64(6, 'UTC')";
const TIME_MILLIS: &str = "DateTime64(3, 'UTC')";

impl Rows {
    /// A digest of the offsets of the rows so far.
    pub fn kept(&self) -> u64 {
        let offsets = match self {
            Rows::Exposures(rows) => &rows.kafka_offset,
            Rows::Conversions(rows) => &rows.kafka_offset,
            Rows::Aliases(rows) => &rows.kafka_offset,
            Rows::Definitions(rows) => &rows.kafka_offset,
            Rows::Looks(rows) => &rows.kafka_offset,
        };
        xxh3_64(offsets.bytes())
    }

    /// The finished block, every row with the batch's stamp. The columns are empty then.
    pub fn drain(&mut self, rows: usize, stamp: &BatchStamp) -> Vec<u8> {
        let BatchStamp { partition, epoch, first, last, ingest_ms } = *stamp;
        let mut ingest_ts = Repeated { value: ingest_ms.to_le_bytes(), rows };
        let mut partition = Repeated { value: partition.to_le_bytes(), rows };
        let mut epoch = Repeated { value: epoch.to_le_bytes(), rows };
        let mut first = Repeated { value: first.to_le_bytes(), rows };
        let mut last = Repeated { value: last.to_le_bytes(), rows };
        let stamped: [&mut dyn Column; 5] =
            [&mut ingest_ts, &mut partition, &mut epoch, &mut first, &mut last];
        let mut columns = self.columns();
        columns.extend(STAMPED.into_iter().zip(stamped).map(|((name, kind), column)| Named {
            name,
            kind,
            column,
        }));
        block(rows, &mut columns)
    }

    /// Bytes of memory held, about.
    pub fn room(&mut self) -> usize {
        self.columns().iter().map(|named| named.column.room()).sum()
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        match self {
            Rows::Exposures(rows) => rows.columns(),
            Rows::Conversions(rows) => rows.columns(),
            Rows::Aliases(rows) => rows.columns(),
            Rows::Definitions(rows) => rows.columns(),
            Rows::Looks(rows) => rows.columns(),
        }
    }
}

/// Declares a table's columns: each by its name in the table, what it is filled as, and its type in a block. The
/// statement names those of [`STAMPED`] besides.
macro_rules! columns {
    ($rows:ident of $table:literal { $($name:ident: $column:ty = $kind:expr,)+ }) => {
        #[derive(Default)]
        pub struct $rows {
            $($name: $column,)+
        }

        impl $rows {
            const TABLE: &str = $table;
            const INSERT: &str = concat!(
                "INSERT INTO ", $table, " (", $(stringify!($name), ", ",)+
                "ingest_ts, kafka_partition, epoch, batch_first, batch_last) FORMAT Native"
            );

            fn columns(&mut self) -> Vec<Named<'_>> {
                vec![$(Named { name: stringify!($name), kind: $kind, column: &mut self.$name },)+]
            }
        }
    };
}

columns! {
    ExposureRows of "exposures" {
        event_id: Uuids = "UUID",
        experiment: LowTexts = LOW,
        variant: LowTexts = LOW,
        unit_type: LowTexts = LOW,
        unit_id: Texts = "String",
        unit_key: Fixed = KEY,
        other_ids: Maps = MAP,
        carried_keys: Lists = KEYS,
        phase: Fixed = "UInt32",
        definition_version: Fixed = "UInt64",
        configuration_version: Fixed = "UInt64",
        bucket_slot: Optional = "Nullable(UInt32)",
        bucket_rollout: Optional = "Nullable(UInt32)",
        bucket_variant: Optional = "Nullable(UInt32)",
        rule: LowTexts = LOW,
        reason: LowTexts = LOW,
        attributes: Maps = MAP,
        region: LowTexts = LOW,
        plan: LowTexts = LOW,
        device: LowTexts = LOW,
        browser: LowTexts = LOW,
        environment: LowTexts = LOW,
        sender_service: LowTexts = LOW,
        sender_instance: LowTexts = LOW,
        sender_version: LowTexts = LOW,
        verification: Fixed = "Int8",
        created_at: Fixed = TIME_MICROS,
        kafka_offset: Fixed = "UInt64",
    }
}

impl ExposureRows {
    pub fn push(&mut self, exposure: &Exposure<'_>, verification: Verification, offset: u64) {
        let Exposure {
            event_id,
            experiment,
            variant,
            unit_type,
            unit_id,
            other_ids,
            phase,
            definition_version,
            configuration_version,
            buckets,
            rule,
            reason,
            attributes,
            environment,
            sender: Sender { service, instance, library_version },
            created_at,
        } = exposure;
        self.event_id.push(*event_id);
        self.experiment.push(experiment);
        self.variant.push(variant);
        self.unit_type.push(unit_type);
        self.unit_id.push(unit_id);
        self.unit_key.push(exposure.unit_key().get().to_le_bytes());
        self.other_ids.push(other_ids.iter());
        self.carried_keys.push(exposure.carried_keys().map(UnitKey::get));
        self.phase.push(phase.to_le_bytes());
        self.definition_version.push(definition_version.to_le_bytes());
        self.configuration_version.push(configuration_version.to_le_bytes());
        let [slot, rollout, bucket] = match *buckets {
            None => [None; 3],
            Some(Buckets { slot, rollout, variant }) => [Some(slot), Some(rollout), Some(variant)],
        };
        self.bucket_slot.push(slot.map(u32::to_le_bytes));
        self.bucket_rollout.push(rollout.map(u32::to_le_bytes));
        self.bucket_variant.push(bucket.map(u32::to_le_bytes));
        self.rule.push(rule);
        self.reason.push(reason.as_str());
        let mut known = Known::default();
        self.attributes.push(attributes.iter().inspect(|pair| known.see(pair)));
        self.region.push(known.region);
        self.plan.push(known.plan);
        self.device.push(known.device);
        self.browser.push(known.browser);
        self.environment.push(environment);
        self.sender_service.push(service);
        self.sender_instance.push(instance);
        self.sender_version.push(library_version);
        self.verification.push((verification as i8).to_le_bytes());
        self.created_at.push(created_at.get().to_le_bytes());
        self.kafka_offset.push(offset.to_le_bytes());
    }
}

columns! {
    ConversionRows of "conversions" {
        event_id: Uuids = "UUID",
        name: LowTexts = LOW,
        unit_type: LowTexts = LOW,
        unit_id: Texts = "String",
        unit_key: Fixed = KEY,
        other_ids: Maps = MAP,
        carried_keys: Lists = KEYS,
        experiment: LowTexts = LOW,
        value: Optional = "Nullable(Decimal(18, 6))",
        metadata: Maps = MAP,
        region: LowTexts = LOW,
        plan: LowTexts = LOW,
        device: LowTexts = LOW,
        browser: LowTexts = LOW,
        environment: LowTexts = LOW,
        sender_service: LowTexts = LOW,
        sender_instance: LowTexts = LOW,
        sender_version: LowTexts = LOW,
        created_at: Fixed = TIME_MICROS,
        kafka_offset: Fixed = "UInt64",
    }
}

impl ConversionRows {
    pub fn push(&mut self, conversion: &Conversion<'_>, offset: u64) {
        let Conversion {
            event_id,
            name,
            unit_type,
            unit_id,
            other_ids,
            experiment,
            value,
            metadata,
            environment,
            sender: Sender { service, instance, library_version },
            created_at,
        } = conversion;
        self.event_id.push(*event_id);
        self.name.push(name);
        self.unit_type.push(unit_type);
        self.unit_id.push(unit_id);
        self.unit_key.push(conversion.unit_key().get().to_le_bytes());
        self.other_ids.push(other_ids.iter());
        self.carried_keys.push(conversion.carried_keys().map(UnitKey::get));
        self.experiment.push(experiment.as_deref().unwrap_or(""));
        self.value.push(value.map(|value| value.millionths().to_le_bytes()));
        let mut known = Known::default();
        self.metadata.push(metadata.iter().inspect(|pair| known.see(pair)));
        self.region.push(known.region);
        self.plan.push(known.plan);
        self.device.push(known.device);
        self.browser.push(known.browser);
        self.environment.push(environment);
        self.sender_service.push(service);
        self.sender_instance.push(instance);
        self.sender_version.push(library_version);
        self.created_at.push(created_at.get().to_le_bytes());
        self.kafka_offset.push(offset.to_le_bytes());
    }
}

columns! {
    AliasRows of "aliases" {
        event_id: Uuids = "UUID",
        from_unit_type: LowTexts = LOW,
        from_unit_id: Texts = "String",
        from_unit_key: Fixed = KEY,
        to_unit_type: LowTexts = LOW,
        to_unit_id: Texts = "String",
        to_unit_key: Fixed = KEY,
        environment: LowTexts = LOW,
        sender_service: LowTexts = LOW,
        sender_instance: LowTexts = LOW,
        sender_version: LowTexts = LOW,
        created_at: Fixed = TIME_MICROS,
        kafka_offset: Fixed = "UInt64",
    }
}

impl AliasRows {
    pub fn push(&mut self, alias: &Alias<'_>, offset: u64) {
        let Alias {
            event_id,
            from,
            to,
            environment,
            sender: Sender { service, instance, library_version },
            created_at,
        } = alias;
        self.event_id.push(*event_id);
        self.from_unit_type.push(&from.unit_type);
        self.from_unit_id.push(&from.unit_id);
        self.from_unit_key.push(alias.from_unit_key().get().to_le_bytes());
        self.to_unit_type.push(&to.unit_type);
        self.to_unit_id.push(&to.unit_id);
        self.to_unit_key.push(alias.to_unit_key().get().to_le_bytes());
        self.environment.push(environment);
        self.sender_service.push(service);
        self.sender_instance.push(instance);
        self.sender_version.push(library_version);
        self.created_at.push(created_at.get().to_le_bytes());
        self.kafka_offset.push(offset.to_le_bytes());
    }
}

/// The verdict of the log's rule on a change.
pub struct RuleVerdict {
    /// Empty if accepted.
    pub refusal: String,
}

columns! {
    DefinitionRows of "definition_log" {
        version: Fixed = "UInt64",
        change_id: Uuids = "UUID",
        rule_version: Fixed = "UInt32",
        kind: LowTexts = LOW,
        key: Texts = "String",
        based_on: Fixed = "UInt64",
        definition: Texts = "String",
        author: Texts = "String",
        reason: Texts = "String",
        accepted: Fixed = "Bool",
        refusal: Texts = "String",
        changed_at: Fixed = TIME_MILLIS,
        kafka_offset: Fixed = "UInt64",
    }
}

impl DefinitionRows {
    pub fn push(&mut self, change: &Change, verdict: &RuleVerdict, changed_at_ms: i64, offset: u64) {
        let Change { change_id, rule_version, kind, key, based_on, definition, author, reason } = change;
        self.version.push((offset + 1).to_le_bytes());
        self.change_id.push(*change_id);
        self.rule_version.push(rule_version.to_le_bytes());
        self.kind.push(kind);
        self.key.push(key);
        self.based_on.push(based_on.to_le_bytes());
        self.definition.push(definition);
        self.author.push(author);
        self.reason.push(reason);
        self.accepted.push([u8::from(verdict.refusal.is_empty())]);
        self.refusal.push(&verdict.refusal);
        self.changed_at.push(changed_at_ms.to_le_bytes());
        self.kafka_offset.push(offset.to_le_bytes());
    }
}

columns! {
    LookRows of "look_log" {
        version: Fixed = "UInt64",
        look_id: Uuids = "UUID",
        rule_version: Fixed = "UInt32",
        experiment: Texts = "String",
        number: Fixed = "UInt32",
        based_on: Fixed = "UInt64",
        look: Texts = "String",
        looked_at: Fixed = TIME_MILLIS,
        kafka_offset: Fixed = "UInt64",
    }
}

impl LookRows {
    pub fn push(&mut self, record: &LookRecord, looked_at_ms: i64, offset: u64) {
        let LookRecord { look_id, rule_version, experiment, number, based_on, look } = record;
        self.version.push((offset + 1).to_le_bytes());
        self.look_id.push(*look_id);
        self.rule_version.push(rule_version.to_le_bytes());
        self.experiment.push(experiment);
        self.number.push(number.to_le_bytes());
        self.based_on.push(based_on.to_le_bytes());
        self.look.push(look);
        self.looked_at.push(looked_at_ms.to_le_bytes());
        self.kafka_offset.push(offset.to_le_bytes());
    }
}

/// The attributes that have columns of their own, in one row; empty where there is none.
#[derive(Default)]
struct Known<'a> {
    region: &'a str,
    plan: &'a str,
    device: &'a str,
    browser: &'a str,
}

impl<'a> Known<'a> {
    fn see(&mut self, (name, value): &(&'a str, &'a str)) {
        match *name {
            "region" => self.region = value,
            "plan" => self.plan = value,
            "device" => self.device = value,
            "browser" => self.browser = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod columns;
