//! The five records that travel: our schema of each, the paths of its leaves, and the versions of its schema
//! that our own writers have ever used.

use std::sync::OnceLock;

use apache_avro::Schema;

use super::schema::fingerprint;
use super::{
    ALIAS_SCHEMA, CONVERSION_SCHEMA, DEFINITION_CHANGE_SCHEMA, EXPOSURE_SCHEMA, EXPOSURE_SCHEMA_1,
    Fingerprint, LOOK_SCHEMA, Plan,
};

/// Which record a schema or a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    Exposure,
    Conversion,
    Alias,
    DefinitionChange,
    Look,
}

/// A schema that our own writers use or have used, as single-object encoding names it.
struct Known {
    fingerprint: Fingerprint,
    kind: RecordKind,
    schema: &'static str,
}

/// When a schema changes, its former text stays in `avro/` under the number of its version, and here: what was
/// written with it stays in its topic for days, and an older writer runs on. The current ones first.
const KNOWN: [Known; 6] = [
    Known { fingerprint: Fingerprint::EXPOSURE, kind: RecordKind::Exposure, schema: EXPOSURE_SCHEMA },
    Known { fingerprint: Fingerprint::CONVERSION, kind: RecordKind::Conversion, schema: CONVERSION_SCHEMA },
    Known { fingerprint: Fingerprint::ALIAS, kind: RecordKind::Alias, schema: ALIAS_SCHEMA },
    Known {
        fingerprint: Fingerprint::DEFINITION_CHANGE,
        kind: RecordKind::DefinitionChange,
        schema: DEFINITION_CHANGE_SCHEMA,
    },
    Known { fingerprint: Fingerprint::LOOK, kind: RecordKind::Look, schema: LOOK_SCHEMA },
    // Without configuration_version and reason.
    Known { fingerprint: Fingerprint::EXPOSURE_1, kind: RecordKind::Exposure, schema: EXPOSURE_SCHEMA_1 },
];

/// The plan for a schema that our own writers use or have used; `None` for a stranger's.
pub(super) fn known(name: Fingerprint) -> Option<&'static Plan> {
    static PLANS: [OnceLock<Plan>; KNOWN.len()] = [const { OnceLock::new() }; KNOWN.len()];
    let at = KNOWN.iter().position(|known| known.fingerprint == name)?;
    let Known { fingerprint: named, kind, schema } = &KNOWN[at];
    Some(PLANS[at].get_or_init(|| {
        assert_eq!(fingerprint(schema), *named, "the fingerprint of our schema of {kind:?}");
        Plan::compile(*kind, schema).expect("our own schemas fit our records")
    }))
}

impl RecordKind {
    pub const ALL: [RecordKind; 5] = [
        RecordKind::Exposure,
        RecordKind::Conversion,
        RecordKind::Alias,
        RecordKind::DefinitionChange,
        RecordKind::Look,
    ];

    /// Whether it is made for a unit, and therefore short; the others are records of our own logs.
    pub fn is_event(self) -> bool {
        match self {
            RecordKind::Exposure | RecordKind::Conversion | RecordKind::Alias => true,
            RecordKind::DefinitionChange | RecordKind::Look => false,
        }
    }

    /// The text of our current schema.
    pub fn schema(self) -> &'static str {
        match self {
            RecordKind::Exposure => EXPOSURE_SCHEMA,
            RecordKind::Conversion => CONVERSION_SCHEMA,
            RecordKind::Alias => ALIAS_SCHEMA,
            RecordKind::DefinitionChange => DEFINITION_CHANGE_SCHEMA,
            RecordKind::Look => LOOK_SCHEMA,
        }
    }

    /// As errors call one.
    pub fn a_record(self) -> &'static str {
        match self {
            RecordKind::Exposure => "an exposure",
            RecordKind::Conversion => "a conversion",
            RecordKind::Alias => "an alias",
            RecordKind::DefinitionChange => "a change of a definition",
            RecordKind::Look => "a look",
        }
    }

    pub(super) fn fingerprint(self) -> Fingerprint {
        match self {
            RecordKind::Exposure => Fingerprint::EXPOSURE,
            RecordKind::Conversion => Fingerprint::CONVERSION,
            RecordKind::Alias => Fingerprint::ALIAS,
            RecordKind::DefinitionChange => Fingerprint::DEFINITION_CHANGE,
            RecordKind::Look => Fingerprint::LOOK,
        }
    }

    pub(super) fn reader(self) -> &'static Schema {
        static READERS: [OnceLock<Schema>; RecordKind::ALL.len()] =
            [const { OnceLock::new() }; RecordKind::ALL.len()];
        READERS[self as usize]
            .get_or_init(|| Schema::parse_str(self.schema()).expect("our own schemas are schemas"))
    }

    /// The leaves of our record, in the order in which it is read. An optional record is a leaf before its own.
    pub(super) fn paths(self) -> &'static [&'static str] {
        match self {
            RecordKind::Exposure => &[
                "event_id",
                "experiment",
                "variant",
                "unit_type",
                "unit_id",
                "other_ids",
                "phase",
                "definition_version",
                "configuration_version",
                "buckets",
                "buckets.slot",
                "buckets.rollout",
                "buckets.variant",
                "rule",
                "reason",
                "attributes",
                "environment",
                "sender.service",
                "sender.instance",
                "sender.library_version",
                "created_at",
            ],
            RecordKind::Conversion => &[
                "event_id",
                "name",
                "unit_type",
                "unit_id",
                "other_ids",
                "experiment",
                "value",
                "metadata",
                "environment",
                "sender.service",
                "sender.instance",
                "sender.library_version",
                "created_at",
            ],
            RecordKind::Alias => &[
                "event_id",
                "from.unit_type",
                "from.unit_id",
                "to.unit_type",
                "to.unit_id",
                "environment",
                "sender.service",
                "sender.instance",
                "sender.library_version",
                "created_at",
            ],
            RecordKind::DefinitionChange => {
                &["change_id", "rule_version", "kind", "key", "based_on", "definition", "author", "reason"]
            }
            RecordKind::Look => &["look_id", "rule_version", "experiment", "number", "based_on", "look"],
        }
    }
}
