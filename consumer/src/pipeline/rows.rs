//! The five tables as columns being filled: what a decoded message becomes, and the INSERT that takes it.
//! Each `push` stands beside the list of columns that it fills.

use schemas::definition::Change;
use schemas::look::LookRecord;
use schemas::{Alias, Conversion, Exposure, Sender, UnitKey};
use xxhash_rust::xxh3::xxh3_64;

use crate::pipeline::batch::Stamp;
use crate::pipeline::native::{
    Fixed, KEY, KEYS, LOW, Lists, LowTexts, MAP, Maps, Named, Optional, Repeated, Texts, Uuids, block,
};
use crate::pipeline::verify::Verification;

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
            Table::Exposures => "exposures",
            Table::Conversions => "conversions",
            Table::Aliases => "aliases",
            Table::Definitions => "definition_log",
            Table::Looks => "look_log",
        }
    }

    /// Whether its rows are events, whose ids are remembered for a while. Of the logs, which are short, ClickHouse
    /// is always asked.
    pub fn holds_events(self) -> bool {
        !matches!(self, Table::Definitions | Table::Looks)
    }

    /// The column of what a row is known again by.
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
            Table::Exposures => {
                "INSERT INTO exposures (event_id, experiment, variant, unit_type, unit_id, unit_key, other_ids, \
                 carried_keys, phase, definition_version, configuration_version, bucket_slot, bucket_rollout, \
                 bucket_variant, rule, reason, attributes, region, plan, device, browser, environment, sender_service, \
                 sender_instance, sender_version, verification, created_at, ingest_ts, kafka_partition, kafka_offset, \
                 epoch, batch_first, batch_last) FORMAT Native"
            }
            Table::Conversions => {
                "INSERT INTO conversions (event_id, name, unit_type, unit_id, unit_key, other_ids, carried_keys, \
                 experiment, value, metadata, region, plan, device, browser, environment, sender_service, \
                 sender_instance, sender_version, created_at, ingest_ts, kafka_partition, kafka_offset, epoch, \
                 batch_first, batch_last) FORMAT Native"
            }
            Table::Aliases => {
                "INSERT INTO aliases (event_id, from_unit_type, from_unit_id, from_unit_key, to_unit_type, to_unit_id, \
                 to_unit_key, environment, sender_service, sender_instance, sender_version, created_at, ingest_ts, \
                 kafka_partition, kafka_offset, epoch, batch_first, batch_last) FORMAT Native"
            }
            Table::Definitions => {
                "INSERT INTO definition_log (version, change_id, rule_version, kind, key, based_on, definition, \
                 author, reason, accepted, refusal, changed_at, ingest_ts, kafka_partition, kafka_offset, epoch, \
                 batch_first, batch_last) FORMAT Native"
            }
            Table::Looks => {
                "INSERT INTO look_log (version, look_id, rule_version, experiment, number, based_on, look, looked_at, \
                 ingest_ts, kafka_partition, kafka_offset, epoch, batch_first, batch_last) FORMAT Native"
            }
        }
    }
}

impl Rows {
    /// A digest of the offsets of the rows so far.
    pub fn kept(&self) -> u64 {
        let offsets = match self {
            Rows::Exposures(rows) => &rows.offset,
            Rows::Conversions(rows) => &rows.offset,
            Rows::Aliases(rows) => &rows.offset,
            Rows::Definitions(rows) => &rows.offset,
            Rows::Looks(rows) => &rows.offset,
        };
        xxh3_64(offsets.bytes())
    }

    /// The finished block, every row with the batch's stamp. The columns are empty then.
    pub fn drain(&mut self, rows: usize, stamp: &Stamp) -> Vec<u8> {
        let mut ingest_ts = Repeated { value: stamp.ingest_ms.to_le_bytes(), rows };
        let mut partition = Repeated { value: stamp.partition.to_le_bytes(), rows };
        let mut epoch = Repeated { value: stamp.epoch.to_le_bytes(), rows };
        let mut first = Repeated { value: stamp.first.to_le_bytes(), rows };
        let mut last = Repeated { value: stamp.last.to_le_bytes(), rows };
        let mut columns = self.columns();
        columns.extend([
            Named { name: "ingest_ts", kind: "DateTime64(3, 'UTC')", column: &mut ingest_ts },
            Named { name: "kafka_partition", kind: "UInt16", column: &mut partition },
            Named { name: "epoch", kind: "UInt32", column: &mut epoch },
            Named { name: "batch_first", kind: "UInt64", column: &mut first },
            Named { name: "batch_last", kind: "UInt64", column: &mut last },
        ]);
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

#[derive(Default)]
pub struct ExposureRows {
    event_id: Uuids,
    experiment: LowTexts,
    variant: LowTexts,
    unit_type: LowTexts,
    unit_id: Texts,
    unit_key: Keys,
    other_ids: Maps,
    carried_keys: Lists,
    phase: Fixed,
    definition_version: Fixed,
    configuration_version: Fixed,
    bucket_slot: Optional,
    bucket_rollout: Optional,
    bucket_variant: Optional,
    rule: LowTexts,
    reason: LowTexts,
    attributes: Maps,
    context: Context,
    environment: LowTexts,
    sender: Senders,
    verification: Fixed,
    created_at: Fixed,
    offset: Fixed,
}

impl ExposureRows {
    pub fn push(&mut self, exposure: &Exposure<'_>, verification: Verification, offset: u64) {
        let buckets = exposure.buckets;
        self.event_id.push(exposure.event_id);
        self.experiment.push(&exposure.experiment);
        self.variant.push(&exposure.variant);
        self.unit_type.push(&exposure.unit_type);
        self.unit_id.push(&exposure.unit_id);
        self.unit_key.push(exposure.unit_key());
        self.other_ids.push(exposure.other_ids.iter());
        self.carried_keys.push(exposure.carried_keys().map(UnitKey::get));
        self.phase.push(exposure.phase.to_le_bytes());
        self.definition_version.push(exposure.definition_version.to_le_bytes());
        self.configuration_version.push(exposure.configuration_version.to_le_bytes());
        self.bucket_slot.push(buckets.map(|buckets| buckets.slot.to_le_bytes()));
        self.bucket_rollout.push(buckets.map(|buckets| buckets.rollout.to_le_bytes()));
        self.bucket_variant.push(buckets.map(|buckets| buckets.variant.to_le_bytes()));
        self.rule.push(&exposure.rule);
        self.reason.push(exposure.reason.as_str());
        let mut known = Known::default();
        self.attributes.push(exposure.attributes.iter().inspect(|pair| known.see(pair)));
        self.context.push(&known);
        self.environment.push(&exposure.environment);
        self.sender.push(&exposure.sender);
        self.verification.push((verification as i8).to_le_bytes());
        self.created_at.push(exposure.created_at.get().to_le_bytes());
        self.offset.push(offset.to_le_bytes());
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        let mut columns = vec![
            Named { name: "event_id", kind: "UUID", column: &mut self.event_id },
            Named { name: "experiment", kind: LOW, column: &mut self.experiment },
            Named { name: "variant", kind: LOW, column: &mut self.variant },
            Named { name: "unit_type", kind: LOW, column: &mut self.unit_type },
            Named { name: "unit_id", kind: "String", column: &mut self.unit_id },
            Named { name: "unit_key", kind: KEY, column: &mut self.unit_key.0 },
            Named { name: "other_ids", kind: MAP, column: &mut self.other_ids },
            Named { name: "carried_keys", kind: KEYS, column: &mut self.carried_keys },
            Named { name: "phase", kind: "UInt32", column: &mut self.phase },
            Named { name: "definition_version", kind: "UInt64", column: &mut self.definition_version },
            Named { name: "configuration_version", kind: "UInt64", column: &mut self.configuration_version },
            Named { name: "bucket_slot", kind: "Nullable(UInt32)", column: &mut self.bucket_slot },
            Named { name: "bucket_rollout", kind: "Nullable(UInt32)", column: &mut self.bucket_rollout },
            Named { name: "bucket_variant", kind: "Nullable(UInt32)", column: &mut self.bucket_variant },
            Named { name: "rule", kind: LOW, column: &mut self.rule },
            Named { name: "reason", kind: LOW, column: &mut self.reason },
            Named { name: "attributes", kind: MAP, column: &mut self.attributes },
            Named { name: "environment", kind: LOW, column: &mut self.environment },
            Named { name: "verification", kind: "Int8", column: &mut self.verification },
            Named { name: "created_at", kind: "DateTime64(6, 'UTC')", column: &mut self.created_at },
            Named { name: "kafka_offset", kind: "UInt64", column: &mut self.offset },
        ];
        columns.extend(self.context.columns());
        columns.extend(self.sender.columns());
        columns
    }
}

#[derive(Default)]
pub struct ConversionRows {
    event_id: Uuids,
    name: LowTexts,
    unit_type: LowTexts,
    unit_id: Texts,
    unit_key: Keys,
    other_ids: Maps,
    carried_keys: Lists,
    experiment: LowTexts,
    value: Optional,
    metadata: Maps,
    context: Context,
    environment: LowTexts,
    sender: Senders,
    created_at: Fixed,
    offset: Fixed,
}

impl ConversionRows {
    pub fn push(&mut self, conversion: &Conversion<'_>, offset: u64) {
        self.event_id.push(conversion.event_id);
        self.name.push(&conversion.name);
        self.unit_type.push(&conversion.unit_type);
        self.unit_id.push(&conversion.unit_id);
        self.unit_key.push(conversion.unit_key());
        self.other_ids.push(conversion.other_ids.iter());
        self.carried_keys.push(conversion.carried_keys().map(UnitKey::get));
        self.experiment.push(conversion.experiment.as_deref().unwrap_or(""));
        self.value.push(conversion.value.map(|value| value.millionths().to_le_bytes()));
        let mut known = Known::default();
        self.metadata.push(conversion.metadata.iter().inspect(|pair| known.see(pair)));
        self.context.push(&known);
        self.environment.push(&conversion.environment);
        self.sender.push(&conversion.sender);
        self.created_at.push(conversion.created_at.get().to_le_bytes());
        self.offset.push(offset.to_le_bytes());
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        let mut columns = vec![
            Named { name: "event_id", kind: "UUID", column: &mut self.event_id },
            Named { name: "name", kind: LOW, column: &mut self.name },
            Named { name: "unit_type", kind: LOW, column: &mut self.unit_type },
            Named { name: "unit_id", kind: "String", column: &mut self.unit_id },
            Named { name: "unit_key", kind: KEY, column: &mut self.unit_key.0 },
            Named { name: "other_ids", kind: MAP, column: &mut self.other_ids },
            Named { name: "carried_keys", kind: KEYS, column: &mut self.carried_keys },
            Named { name: "experiment", kind: LOW, column: &mut self.experiment },
            Named { name: "value", kind: "Nullable(Decimal(18, 6))", column: &mut self.value },
            Named { name: "metadata", kind: MAP, column: &mut self.metadata },
            Named { name: "environment", kind: LOW, column: &mut self.environment },
            Named { name: "created_at", kind: "DateTime64(6, 'UTC')", column: &mut self.created_at },
            Named { name: "kafka_offset", kind: "UInt64", column: &mut self.offset },
        ];
        columns.extend(self.context.columns());
        columns.extend(self.sender.columns());
        columns
    }
}

#[derive(Default)]
pub struct AliasRows {
    event_id: Uuids,
    from_unit_type: LowTexts,
    from_unit_id: Texts,
    from_unit_key: Keys,
    to_unit_type: LowTexts,
    to_unit_id: Texts,
    to_unit_key: Keys,
    environment: LowTexts,
    sender: Senders,
    created_at: Fixed,
    offset: Fixed,
}

impl AliasRows {
    pub fn push(&mut self, alias: &Alias<'_>, offset: u64) {
        self.event_id.push(alias.event_id);
        self.from_unit_type.push(&alias.from.unit_type);
        self.from_unit_id.push(&alias.from.unit_id);
        self.from_unit_key.push(alias.from_unit_key());
        self.to_unit_type.push(&alias.to.unit_type);
        self.to_unit_id.push(&alias.to.unit_id);
        self.to_unit_key.push(alias.to_unit_key());
        self.environment.push(&alias.environment);
        self.sender.push(&alias.sender);
        self.created_at.push(alias.created_at.get().to_le_bytes());
        self.offset.push(offset.to_le_bytes());
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        let mut columns = vec![
            Named { name: "event_id", kind: "UUID", column: &mut self.event_id },
            Named { name: "from_unit_type", kind: LOW, column: &mut self.from_unit_type },
            Named { name: "from_unit_id", kind: "String", column: &mut self.from_unit_id },
            Named { name: "from_unit_key", kind: KEY, column: &mut self.from_unit_key.0 },
            Named { name: "to_unit_type", kind: LOW, column: &mut self.to_unit_type },
            Named { name: "to_unit_id", kind: "String", column: &mut self.to_unit_id },
            Named { name: "to_unit_key", kind: KEY, column: &mut self.to_unit_key.0 },
            Named { name: "environment", kind: LOW, column: &mut self.environment },
            Named { name: "created_at", kind: "DateTime64(6, 'UTC')", column: &mut self.created_at },
            Named { name: "kafka_offset", kind: "UInt64", column: &mut self.offset },
        ];
        columns.extend(self.sender.columns());
        columns
    }
}

/// Keys of units.
#[derive(Default)]
struct Keys(Fixed);

impl Keys {
    fn push(&mut self, key: UnitKey) {
        self.0.push(key.get().to_le_bytes());
    }
}

/// What the log's rule said of a change.
pub struct Verdict {
    /// Empty if accepted.
    pub refusal: String,
}

#[derive(Default)]
pub struct DefinitionRows {
    version: Fixed,
    change_id: Uuids,
    rule_version: Fixed,
    kind: LowTexts,
    key: Texts,
    based_on: Fixed,
    definition: Texts,
    author: Texts,
    reason: Texts,
    accepted: Fixed,
    refusal: Texts,
    changed_at: Fixed,
    offset: Fixed,
}

impl DefinitionRows {
    pub fn push(&mut self, change: &Change, verdict: &Verdict, changed_at_ms: i64, offset: u64) {
        self.version.push((offset + 1).to_le_bytes());
        self.change_id.push(change.change_id);
        self.rule_version.push(change.rule_version.to_le_bytes());
        self.kind.push(&change.kind);
        self.key.push(&change.key);
        self.based_on.push(change.based_on.to_le_bytes());
        self.definition.push(&change.definition);
        self.author.push(&change.author);
        self.reason.push(&change.reason);
        self.accepted.push([u8::from(verdict.refusal.is_empty())]);
        self.refusal.push(&verdict.refusal);
        self.changed_at.push(changed_at_ms.to_le_bytes());
        self.offset.push(offset.to_le_bytes());
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        vec![
            Named { name: "version", kind: "UInt64", column: &mut self.version },
            Named { name: "change_id", kind: "UUID", column: &mut self.change_id },
            Named { name: "rule_version", kind: "UInt32", column: &mut self.rule_version },
            Named { name: "kind", kind: LOW, column: &mut self.kind },
            Named { name: "key", kind: "String", column: &mut self.key },
            Named { name: "based_on", kind: "UInt64", column: &mut self.based_on },
            Named { name: "definition", kind: "String", column: &mut self.definition },
            Named { name: "author", kind: "String", column: &mut self.author },
            Named { name: "reason", kind: "String", column: &mut self.reason },
            Named { name: "accepted", kind: "Bool", column: &mut self.accepted },
            Named { name: "refusal", kind: "String", column: &mut self.refusal },
            Named { name: "changed_at", kind: "DateTime64(3, 'UTC')", column: &mut self.changed_at },
            Named { name: "kafka_offset", kind: "UInt64", column: &mut self.offset },
        ]
    }
}

#[derive(Default)]
pub struct LookRows {
    version: Fixed,
    look_id: Uuids,
    rule_version: Fixed,
    experiment: Texts,
    number: Fixed,
    based_on: Fixed,
    look: Texts,
    looked_at: Fixed,
    offset: Fixed,
}

impl LookRows {
    pub fn push(&mut self, record: &LookRecord, looked_at_ms: i64, offset: u64) {
        self.version.push((offset + 1).to_le_bytes());
        self.look_id.push(record.look_id);
        self.rule_version.push(record.rule_version.to_le_bytes());
        self.experiment.push(&record.experiment);
        self.number.push(record.number.to_le_bytes());
        self.based_on.push(record.based_on.to_le_bytes());
        self.look.push(&record.look);
        self.looked_at.push(looked_at_ms.to_le_bytes());
        self.offset.push(offset.to_le_bytes());
    }

    fn columns(&mut self) -> Vec<Named<'_>> {
        vec![
            Named { name: "version", kind: "UInt64", column: &mut self.version },
            Named { name: "look_id", kind: "UUID", column: &mut self.look_id },
            Named { name: "rule_version", kind: "UInt32", column: &mut self.rule_version },
            Named { name: "experiment", kind: "String", column: &mut self.experiment },
            Named { name: "number", kind: "UInt32", column: &mut self.number },
            Named { name: "based_on", kind: "UInt64", column: &mut self.based_on },
            Named { name: "look", kind: "String", column: &mut self.look },
            Named { name: "looked_at", kind: "DateTime64(3, 'UTC')", column: &mut self.looked_at },
            Named { name: "kafka_offset", kind: "UInt64", column: &mut self.offset },
        ]
    }
}

/// The attributes that have columns of their own.
#[derive(Default)]
struct Context {
    region: LowTexts,
    plan: LowTexts,
    device: LowTexts,
    browser: LowTexts,
}

/// Their values in one row; empty where there is none.
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

impl Context {
    fn push(&mut self, known: &Known<'_>) {
        self.region.push(known.region);
        self.plan.push(known.plan);
        self.device.push(known.device);
        self.browser.push(known.browser);
    }

    fn columns(&mut self) -> [Named<'_>; 4] {
        [
            Named { name: "region", kind: LOW, column: &mut self.region },
            Named { name: "plan", kind: LOW, column: &mut self.plan },
            Named { name: "device", kind: LOW, column: &mut self.device },
            Named { name: "browser", kind: LOW, column: &mut self.browser },
        ]
    }
}

#[derive(Default)]
struct Senders {
    service: LowTexts,
    instance: LowTexts,
    version: LowTexts,
}

impl Senders {
    fn push(&mut self, sender: &Sender<'_>) {
        self.service.push(&sender.service);
        self.instance.push(&sender.instance);
        self.version.push(&sender.library_version);
    }

    fn columns(&mut self) -> [Named<'_>; 3] {
        [
            Named { name: "sender_service", kind: LOW, column: &mut self.service },
            Named { name: "sender_instance", kind: LOW, column: &mut self.instance },
            Named { name: "sender_version", kind: LOW, column: &mut self.version },
        ]
    }
}
