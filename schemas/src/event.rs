//! The three events. Their texts are borrowed after decoding and owned by the code that makes an event, so both
//! ends of the topic use the same types. [`Event::check`] alone defines which values are allowed: the emitter
//! refuses an event that fails it, and the consumer writes such an event to the dead letters.
//!
//! A field is declared here, in its struct, which also defines its JSON. All other places destructure or
//! construct the struct without `..`, so that the compiler reports each of them when a field is added: the
//! check here, the Avro codec (`avro/records.rs`, `avro/quick.rs`), the columns
//! (`consumer/src/pipeline/rows.rs`), the code that makes events, and the tests' own decoder
//! (`tests/common`). Tests compare the contracts that are text files with the code: the schemas (`avro/*.avsc`)
//! have the fields and defaults of the JSON, and the tables (`clickhouse/*.sql`, and `clickhouse/cluster`) have
//! the columns of the rows. A changed schema keeps its former text beside it, with a new fingerprint in `avro.rs`
//! and a row in `avro/kind.rs`; a changed table is a new migration in `clickhouse.rs`; both need messages in
//! `vectors/messages.json`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::key::is_key;
use crate::time::Micros;

mod attributes;
mod decimal;
mod json;
mod pairs;

pub(crate) use attributes::cut_values;
pub use attributes::{ATTRIBUTES_BYTES_MAX, CUT_MARK, LEFT_OUT, STANDARD_ATTRIBUTES};
pub use decimal::{Decimal6, NotADecimal};
pub use pairs::Pairs;

/// The longest unit id, in bytes.
pub const UNIT_ID_BYTES_MAX: usize = 256;
/// The most entries in `attributes`, `metadata` or `other_ids`.
pub const MAP_ENTRIES_MAX: usize = 64;
/// The longest value in a map and the longest text of the sender, in bytes. A longer value in `attributes` is
/// cut.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// The longest event on the wire, framing included, in bytes. A longer event is refused before it is sent, and
/// becomes a dead letter if it arrives.
pub const EVENT_BYTES_MAX: usize = 64 * 1_024;

/// A unit was shown a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposure<'a> {
    pub event_id: Uuid,
    pub experiment: Cow<'a, str>,
    pub variant: Cow<'a, str>,
    pub unit_type: Cow<'a, str>,
    pub unit_id: Cow<'a, str>,
    /// Ids of other types; of a switchback's unit also its cluster, under the unit's own type.
    #[serde(default)]
    pub other_ids: Pairs<'a>,
    #[serde(default = "first_phase")]
    pub phase: u32,
    /// The version of the definition that was evaluated; 0 if none was.
    #[serde(default)]
    pub definition_version: u64,
    /// The version of the whole configuration that was evaluated: the offset, plus one, of the last accepted
    /// change of the definitions log in it. `definition_version` alone does not fix prerequisites, lists or
    /// holdouts. 0 if no configuration was evaluated, or if the sender did not state the version.
    #[serde(default)]
    pub configuration_version: u64,
    /// `None` if no bucket decided: the assignment was external, or forced.
    #[serde(default)]
    pub buckets: Option<Buckets>,
    /// The key of the targeting rule that matched; empty if no rule was evaluated.
    #[serde(default)]
    pub rule: Cow<'a, str>,
    #[serde(default)]
    pub reason: Reason,
    /// What is known about the unit. The sender first brings them into their bounds; the reader cuts values
    /// that are too long: see [`Exposure::fit_attributes`].
    #[serde(default)]
    pub attributes: Pairs<'a>,
    #[serde(default = "production")]
    pub environment: Cow<'a, str>,
    #[serde(default)]
    pub sender: Sender<'a>,
    pub created_at: Micros,
}

/// A unit did something that may be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversion<'a> {
    pub event_id: Uuid,
    pub name: Cow<'a, str>,
    pub unit_type: Cow<'a, str>,
    pub unit_id: Cow<'a, str>,
    #[serde(default)]
    pub other_ids: Pairs<'a>,
    /// If set, the conversion counts in this experiment only; if not, in every experiment that exposed the
    /// unit before.
    #[serde(default)]
    pub experiment: Option<Cow<'a, str>>,
    #[serde(default)]
    pub value: Option<Decimal6>,
    #[serde(default)]
    pub metadata: Pairs<'a>,
    #[serde(default = "production")]
    pub environment: Cow<'a, str>,
    #[serde(default)]
    pub sender: Sender<'a>,
    pub created_at: Micros,
}

/// Two ids are one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias<'a> {
    pub event_id: Uuid,
    pub from: Unit<'a>,
    pub to: Unit<'a>,
    #[serde(default = "production")]
    pub environment: Cow<'a, str>,
    #[serde(default)]
    pub sender: Sender<'a>,
    pub created_at: Micros,
}

/// An id and what it identifies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit<'a> {
    pub unit_type: Cow<'a, str>,
    pub unit_id: Cow<'a, str>,
}

/// The buckets of a unit's three hashes, each in `[0, BUCKETS)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buckets {
    pub slot: u32,
    pub rollout: u32,
    pub variant: u32,
}

/// Why a unit was shown its variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The buckets decided, or the external system of an external experiment.
    #[default]
    Split,
    /// The variant was set for this unit, for example for a tester. It may differ from the variant of the
    /// split.
    Forced,
    /// The unit is in a holdout. Holdouts are evaluated before any split.
    HeldOut,
}

impl Reason {
    pub const NAMES: [&'static str; 3] = ["split", "forced", "held_out"];

    pub fn as_str(self) -> &'static str {
        Reason::NAMES[self as usize]
    }

    /// Parses the name of a reason; `None` if this build does not know it.
    pub fn parse(text: &str) -> Option<Reason> {
        Some(match text {
            "split" => Reason::Split,
            "forced" => Reason::Forced,
            "held_out" => Reason::HeldOut,
            _ => return None,
        })
    }
}

/// Who made an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sender<'a> {
    pub service: Cow<'a, str>,
    pub instance: Cow<'a, str>,
    pub library_version: Cow<'a, str>,
}

/// Any event. In JSON, `type` names its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    Exposure(Exposure<'a>),
    Conversion(Conversion<'a>),
    Alias(Alias<'a>),
}

/// A field has a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct OutOfRange {
    pub field: &'static str,
    pub what: String,
}

impl Event<'_> {
    pub fn event_id(&self) -> Uuid {
        match self {
            Event::Exposure(exposure) => exposure.event_id,
            Event::Conversion(conversion) => conversion.event_id,
            Event::Alias(alias) => alias.event_id,
        }
    }

    pub fn created_at(&self) -> Micros {
        match self {
            Event::Exposure(exposure) => exposure.created_at,
            Event::Conversion(conversion) => conversion.created_at,
            Event::Alias(alias) => alias.created_at,
        }
    }

    /// Returns the message key. All events of a unit go to one partition of their topic.
    pub fn partition_key(&self) -> &str {
        match self {
            Event::Exposure(exposure) => &exposure.unit_id,
            Event::Conversion(conversion) => &conversion.unit_id,
            Event::Alias(alias) => &alias.from.unit_id,
        }
    }

    /// Checks that every field is in its range: it allows exactly the values that [`crate::avro`] can encode
    /// and that the documentation of the fields allows.
    pub fn check(&self) -> Result<(), OutOfRange> {
        match self {
            Event::Exposure(exposure) => exposure.check(),
            Event::Conversion(conversion) => conversion.check(),
            Event::Alias(alias) => alias.check(),
        }
    }
}

impl Exposure<'_> {
    pub fn check(&self) -> Result<(), OutOfRange> {
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
            reason: _,
            attributes,
            environment,
            sender,
            created_at: _,
        } = self;
        check_event_id(*event_id)?;
        check_key("experiment", experiment)?;
        check_key("variant", variant)?;
        check_key("unit_type", unit_type)?;
        check_unit_id("unit_id", unit_id)?;
        match self.switchback_unit() {
            Some(_) => check_ids(other_ids)?,
            None => check_other_ids(other_ids, unit_type)?,
        }
        if *phase == 0 || *phase > i32::MAX as u32 {
            return refuse("phase", format!("{phase} is not in 1 to 2147483647"));
        }
        check_version("definition_version", *definition_version)?;
        check_version("configuration_version", *configuration_version)?;
        if let Some(Buckets { slot, rollout, variant }) = *buckets {
            for (field, bucket) in
                [("buckets.slot", slot), ("buckets.rollout", rollout), ("buckets.variant", variant)]
            {
                if bucket >= crate::BUCKETS {
                    return refuse(field, format!("{bucket} is not in 0 to 999999"));
                }
            }
        }
        if !rule.is_empty() {
            check_key("rule", rule)?;
        }
        check_map("attributes", attributes)?;
        check_key("environment", environment)?;
        check_sender(sender)
    }
}

impl Conversion<'_> {
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Conversion {
            event_id,
            name,
            unit_type,
            unit_id,
            other_ids,
            experiment,
            value: _,
            metadata,
            environment,
            sender,
            created_at: _,
        } = self;
        check_event_id(*event_id)?;
        check_key("name", name)?;
        check_key("unit_type", unit_type)?;
        check_unit_id("unit_id", unit_id)?;
        check_other_ids(other_ids, unit_type)?;
        if let Some(experiment) = experiment {
            check_key("experiment", experiment)?;
        }
        check_map("metadata", metadata)?;
        check_key("environment", environment)?;
        check_sender(sender)
    }
}

impl Alias<'_> {
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Alias { event_id, from, to, environment, sender, created_at: _ } = self;
        check_event_id(*event_id)?;
        check_key("from.unit_type", &from.unit_type)?;
        check_unit_id("from.unit_id", &from.unit_id)?;
        check_key("to.unit_type", &to.unit_type)?;
        check_unit_id("to.unit_id", &to.unit_id)?;
        check_key("environment", environment)?;
        check_sender(sender)
    }
}

impl Unit<'_> {
    /// Checks that the type is a key and that the id has 1 to 256 bytes. Code that looks up a unit by type
    /// and id checks this first, because a table reads a missing id as the empty text.
    pub fn check(&self) -> Result<(), OutOfRange> {
        check_key("unit_type", &self.unit_type)?;
        check_unit_id("unit_id", &self.unit_id)
    }
}

fn first_phase() -> u32 {
    1
}

fn production<'a>() -> Cow<'a, str> {
    Cow::Borrowed(crate::definition::PRODUCTION)
}

fn refuse(field: &'static str, what: String) -> Result<(), OutOfRange> {
    Err(OutOfRange { field, what })
}

fn check_event_id(event_id: Uuid) -> Result<(), OutOfRange> {
    if event_id.is_nil() {
        return refuse("event_id", "the nil UUID identifies no event".to_owned());
    }
    Ok(())
}

fn check_key(field: &'static str, text: &str) -> Result<(), OutOfRange> {
    if is_key(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    refuse(field, format!("`{shown}` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -"))
}

fn check_version(field: &'static str, version: u64) -> Result<(), OutOfRange> {
    if version > i64::MAX as u64 {
        return refuse(field, format!("{version} is not in 0 to 2^63 - 1"));
    }
    Ok(())
}

fn check_unit_id(field: &'static str, text: &str) -> Result<(), OutOfRange> {
    if text.is_empty() || text.len() > UNIT_ID_BYTES_MAX {
        return refuse(field, format!("{} bytes is not in 1 to {UNIT_ID_BYTES_MAX}", text.len()));
    }
    Ok(())
}

fn check_map(field: &'static str, map: &Pairs<'_>) -> Result<(), OutOfRange> {
    if map.len() > MAP_ENTRIES_MAX {
        return refuse(field, format!("{} entries is more than {MAP_ENTRIES_MAX}", map.len()));
    }
    for (name, value) in map.iter() {
        check_key(field, name)?;
        if value.len() > TEXT_BYTES_MAX {
            return refuse(
                field,
                format!("the value of `{name}` has {} bytes, more than {TEXT_BYTES_MAX}", value.len()),
            );
        }
    }
    Ok(())
}

fn check_other_ids(ids: &Pairs<'_>, unit_type: &str) -> Result<(), OutOfRange> {
    check_ids(ids)?;
    if ids.get(unit_type).is_some() {
        return refuse("other_ids", format!("`{unit_type}` is the unit's own type; it may have one id"));
    }
    Ok(())
}

fn check_ids(ids: &Pairs<'_>) -> Result<(), OutOfRange> {
    check_map("other_ids", ids)?;
    for (_, id) in ids.iter() {
        check_unit_id("other_ids", id)?;
    }
    Ok(())
}

fn check_sender(sender: &Sender<'_>) -> Result<(), OutOfRange> {
    let Sender { service, instance, library_version } = sender;
    for (field, text) in [
        ("sender.service", service),
        ("sender.instance", instance),
        ("sender.library_version", library_version),
    ] {
        if text.len() > TEXT_BYTES_MAX {
            return refuse(field, format!("{} bytes is more than {TEXT_BYTES_MAX}", text.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure() -> Exposure<'static> {
        serde_json::from_str(
            r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "a",
                "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_field_that_json_leaves_out_has_the_default_of_the_schema() {
        let exposure = exposure();
        assert_eq!(exposure.phase, 1);
        assert_eq!((exposure.definition_version, exposure.configuration_version), (0, 0));
        assert_eq!(exposure.reason, Reason::Split);
        assert_eq!(exposure.environment, "production");
        assert_eq!(exposure.buckets, None);
        assert_eq!(exposure.check(), Ok(()));
    }

    #[test]
    fn a_reason_is_one_of_three_names_in_json_as_on_the_wire() {
        for (reason, name) in
            [(Reason::Split, "split"), (Reason::Forced, "forced"), (Reason::HeldOut, "held_out")]
        {
            assert_eq!((reason.as_str(), Reason::parse(name)), (name, Some(reason)));
            assert_eq!(serde_json::to_value(reason).unwrap(), name);
            assert_eq!(serde_json::from_value::<Reason>(name.into()).unwrap(), reason);
        }
        assert_eq!(Reason::parse("Split"), None);
        assert_eq!(
            serde_json::from_str::<Reason>("\"drawn\"").unwrap_err().to_string(),
            "unknown variant `drawn`, expected one of `split`, `forced`, `held_out` at line 1 column 7"
        );
    }

    #[test]
    fn a_version_is_one_that_avro_can_carry() {
        let of = |configuration_version| Exposure { configuration_version, ..exposure() }.check();
        assert_eq!(of(i64::MAX as u64), Ok(()));
        assert_eq!(
            of(1 << 63).unwrap_err().to_string(),
            "configuration_version: 9223372036854775808 is not in 0 to 2^63 - 1"
        );
    }

    #[test]
    fn a_unit_id_has_1_to_256_bytes() {
        let of = |bytes: usize| Exposure { unit_id: Cow::Owned("u".repeat(bytes)), ..exposure() }.check();
        assert_eq!(of(1), Ok(()));
        assert_eq!(of(256), Ok(()));
        assert_eq!(of(257).unwrap_err().to_string(), "unit_id: 257 bytes is not in 1 to 256");
        assert_eq!(of(0).unwrap_err().to_string(), "unit_id: 0 bytes is not in 1 to 256");
    }

    fn conversion() -> Conversion<'static> {
        serde_json::from_str(
            r#"{"event_id": "0191e3a0-0000-7000-8000-000000000002", "name": "buy", "unit_type": "user",
                "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#,
        )
        .unwrap()
    }

    fn unit(unit_type: &str, unit_id: &str) -> Unit<'static> {
        Unit { unit_type: unit_type.to_owned().into(), unit_id: unit_id.to_owned().into() }
    }

    fn alias(from: &str, to: &str) -> Alias<'static> {
        Alias {
            event_id: Uuid::from_u128(3),
            from: unit("device", from),
            to: unit("user", to),
            environment: production(),
            sender: Sender::default(),
            created_at: Micros::new(0).unwrap(),
        }
    }

    /// The same rule for every id: the empty text would stand for all units that do not have that id.
    #[test]
    fn every_id_that_an_event_carries_has_1_to_256_bytes() {
        let other_ids = |bytes: usize| Pairs::from_iter([("device".to_owned(), "d".repeat(bytes))]);
        let of = |bytes: usize| -> Vec<Result<(), String>> {
            let id = "u".repeat(bytes);
            let results = [
                Exposure { unit_id: id.clone().into(), ..exposure() }.check(),
                Exposure { other_ids: other_ids(bytes), ..exposure() }.check(),
                Conversion { unit_id: id.clone().into(), ..conversion() }.check(),
                Conversion { other_ids: other_ids(bytes), ..conversion() }.check(),
                alias(&id, "u1").check(),
                alias("d1", &id).check(),
                unit("user", &id).check(),
            ];
            results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect()
        };
        assert_eq!(of(1), vec![Ok(()); 7]);
        assert_eq!(of(256), vec![Ok(()); 7]);
        let fields =
            ["unit_id", "other_ids", "unit_id", "other_ids", "from.unit_id", "to.unit_id", "unit_id"];
        for bytes in [0, 257] {
            let refused: Vec<Result<(), String>> = fields
                .into_iter()
                .map(|field| Err(format!("{field}: {bytes} bytes is not in 1 to 256")))
                .collect();
            assert_eq!(of(bytes), refused);
        }
    }

    #[test]
    fn a_units_type_is_a_key() {
        assert_eq!(unit("user", "u 1").check(), Ok(()));
        let refused = |unit_type: &str| unit(unit_type, "u1").check().unwrap_err().to_string();
        assert_eq!(refused(""), "unit_type: `` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -");
        assert_eq!(refused("us er"), "unit_type: `us er` is not 1 to 64 of the characters A-Z a-z 0-9 . _ -");
        assert!(unit(&"k".repeat(64), "u1").check().is_ok());
        assert!(unit(&"k".repeat(65), "u1").check().is_err());
    }

    #[test]
    fn a_bucket_is_below_a_million() {
        let of = |variant| {
            Exposure { buckets: Some(Buckets { slot: 0, rollout: 0, variant }), ..exposure() }.check()
        };
        assert_eq!(of(999_999), Ok(()));
        assert_eq!(of(1_000_000).unwrap_err().to_string(), "buckets.variant: 1000000 is not in 0 to 999999");
    }

    #[test]
    fn other_ids_do_not_repeat_the_units_own_type() {
        let other_ids = Pairs::from_iter([("user", "u2")]);
        let refused = Exposure { other_ids, ..exposure() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "other_ids: `user` is the unit's own type; it may have one id");
    }

    #[test]
    fn only_the_cluster_of_a_switchbacks_unit_goes_along_under_its_type() {
        let of = |unit_id: &'static str, carried: &'static str| {
            let other_ids = Pairs::from_iter([("region", carried), ("user", "u2")]);
            let (unit_type, unit_id) = ("region".into(), unit_id.into());
            Exposure { unit_type, unit_id, other_ids, ..exposure() }
                .check()
                .map_err(|error| error.to_string())
        };
        assert_eq!(of("eu\x001767225600", "eu"), Ok(()));
        let refused = Err("other_ids: `region` is the unit's own type; it may have one id".to_owned());
        for (unit_id, carried) in [("eu\x001767225600", "us"), ("eu", "eu"), ("eu\0noon", "eu")] {
            assert_eq!(of(unit_id, carried), refused, "{unit_id:?} {carried}");
        }
    }

    #[test]
    fn an_unknown_field_in_json_is_refused() {
        let error = serde_json::from_str::<Sender>(r#"{"servise": "x"}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `servise`"), "{error}");
    }
}
