//! The five records: our schema of each, the paths of its leaves, and all versions of its schema that our own
//! writers have ever used.

use std::sync::OnceLock;

use apache_avro::Schema;

use super::schema::{Names, fingerprint};
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

/// A schema that our own writers use or have used, with its fingerprint for single-object encoding.
struct KnownSchema {
    fingerprint: Fingerprint,
    kind: RecordKind,
    schema: &'static str,
}

/// The current schemas, then former versions. When a schema changes, its former text stays in `avro/`, with
/// the number of its version, and here: records written with it stay in the topic for days, and older writers
/// keep running.
const KNOWN: [KnownSchema; 6] = [
    KnownSchema { fingerprint: Fingerprint::EXPOSURE, kind: RecordKind::Exposure, schema: EXPOSURE_SCHEMA },
    KnownSchema {
        fingerprint: Fingerprint::CONVERSION,
        kind: RecordKind::Conversion,
        schema: CONVERSION_SCHEMA,
    },
    KnownSchema { fingerprint: Fingerprint::ALIAS, kind: RecordKind::Alias, schema: ALIAS_SCHEMA },
    KnownSchema {
        fingerprint: Fingerprint::DEFINITION_CHANGE,
        kind: RecordKind::DefinitionChange,
        schema: DEFINITION_CHANGE_SCHEMA,
    },
    KnownSchema { fingerprint: Fingerprint::LOOK, kind: RecordKind::Look, schema: LOOK_SCHEMA },
    // Without configuration_version and reason.
    KnownSchema {
        fingerprint: Fingerprint::EXPOSURE_1,
        kind: RecordKind::Exposure,
        schema: EXPOSURE_SCHEMA_1,
    },
];

/// Returns the plan for a schema that our own writers use or have used; `None` for any other.
pub(super) fn known(name: Fingerprint) -> Option<&'static Plan> {
    static PLANS: [OnceLock<Plan>; KNOWN.len()] = [const { OnceLock::new() }; KNOWN.len()];
    let at = KNOWN.iter().position(|known| known.fingerprint == name)?;
    let KnownSchema { fingerprint: named, kind, schema } = &KNOWN[at];
    Some(PLANS[at].get_or_init(|| {
        let computed = fingerprint(schema);
        assert!(computed == *named, "{kind:?}: our schema's fingerprint is {computed}, not {named}");
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

    /// Returns whether the record is an event, and therefore short. The others are records of our own logs.
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

    /// What errors call such a record.
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

    pub(super) fn our_schema(self) -> &'static OurSchema {
        static OURS: [OnceLock<OurSchema>; RecordKind::ALL.len()] =
            [const { OnceLock::new() }; RecordKind::ALL.len()];
        OURS[self as usize].get_or_init(|| {
            let schema = Schema::parse_str(self.schema()).expect("our own schemas are schemas");
            let mut paths = Vec::new();
            leaves(&Names::of(&schema).expect("our own types have one name"), &schema, "", &mut paths);
            OurSchema { schema, paths }
        })
    }
}

/// Our current schema of a record, which records are decoded to.
pub struct OurSchema {
    pub schema: Schema,
    /// The paths of the leaves, in the order in which they are read. An optional record is itself a leaf,
    /// before its own leaves.
    pub paths: Vec<String>,
}

fn leaves<'s>(names: &Names<'s>, schema: &'s Schema, path: &str, paths: &mut Vec<String>) {
    let schema = match names.resolve(schema) {
        // All our unions are of null and one other type.
        Schema::Union(union) => {
            let value = names.resolve(&union.variants()[1]);
            if let Schema::Record(_) = value {
                paths.push(path.to_owned());
            }
            value
        }
        plain => plain,
    };
    let Schema::Record(record) = schema else { return paths.push(path.to_owned()) };
    for field in &record.fields {
        leaves(names, &field.schema, &path_of(path, &field.name), paths);
    }
}

/// Returns the path of a field of the record at `path`.
pub fn path_of(path: &str, field: &str) -> String {
    match path {
        "" => field.to_owned(),
        outer => format!("{outer}.{field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaves_of_a_record_are_those_of_its_schema() {
        let paths = |kind: RecordKind| kind.our_schema().paths.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            paths(RecordKind::Alias),
            [
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
            ]
        );
        let exposure = paths(RecordKind::Exposure);
        let buckets = exposure.iter().position(|path| *path == "buckets").unwrap();
        assert_eq!(
            exposure[buckets..][..4],
            ["buckets", "buckets.slot", "buckets.rollout", "buckets.variant"]
        );
    }
}
