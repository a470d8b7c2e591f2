//! The topics: their names, the number of partitions they are created with, and the settings that the contracts
//! depend on.

/// Exposures: units were shown a variant. Keyed by the unit id.
pub const EXPOSURES: &str = "exposures";
/// Conversions: units did something. Keyed by the unit id.
pub const CONVERSIONS: &str = "conversions";
/// Aliases: two ids are one unit. Keyed by the `from` unit id.
pub const ALIASES: &str = "aliases";
/// Messages that could not become rows. Their origin is in the headers and in the message key.
pub const DEAD_LETTERS: &str = "dead_letters";
/// The log of definitions. One partition, kept forever; keyed by the definition's key.
pub const DEFINITIONS: &str = "definitions";
/// The members of lists, as hashes. One partition, compacted; keyed by the list's key, `/` and the digest.
pub const LISTS: &str = "lists";
/// The largest record of [`LISTS`], in bytes: a million members, and its frame.
pub const LIST_BYTES_MAX: u32 = 8_100_000;
/// The log of looks. One partition, kept forever; keyed by the experiment's key.
pub const LOOKS: &str = "looks";

/// The headers of a dead letter: where it came from and why it was refused. All are text.
pub mod dead_letter_headers {
    pub const TOPIC: &str = "origin_topic";
    pub const PARTITION: &str = "origin_partition";
    pub const OFFSET: &str = "origin_offset";
    /// The consumer's epoch: after a topic is created again, its offsets repeat. Earlier builds did not send
    /// it.
    pub const EPOCH: &str = "origin_epoch";
    pub const REASON: &str = "reason";
    /// The code of the reason, for counting: `truncated`, `unknown_schema`, `out_of_range`, ...
    pub const CODE: &str = "code";
    /// The size of the message in bytes. A dead letter that carries fewer was cut to fit and cannot be
    /// replayed.
    pub const PAYLOAD_BYTES: &str = "payload_bytes";
    /// The code of a record that marks a dead letter as replayed: it has the dead letter's key and no payload.
    pub const REPLAYED: &str = "replayed";
}

/// How a topic is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: &'static str,
    pub partitions: i32,
    pub settings: &'static [(&'static str, &'static str)],
}

/// Timestamps are the broker's, so that retention does not expire replayed history the moment it arrives.
const EVENTS: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    // 7 days: a consumer that is down for less loses nothing.
    ("retention.ms", "604800000"),
];

/// An ordered log that every reader reads from its beginning.
const LOG: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
];

pub const TOPICS: [Topic; 7] = [
    Topic { name: EXPOSURES, partitions: 4, settings: EVENTS },
    Topic { name: CONVERSIONS, partitions: 4, settings: EVENTS },
    Topic { name: ALIASES, partitions: 4, settings: EVENTS },
    Topic {
        name: DEAD_LETTERS,
        partitions: 4,
        // 30 days: the time to look into dead letters.
        settings: &[
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "2592000000"),
        ],
    },
    Topic { name: DEFINITIONS, partitions: 1, settings: LOG },
    Topic {
        name: LISTS,
        partitions: 1,
        settings: &[
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "compact"),
            // LIST_BYTES_MAX
            ("max.message.bytes", "8100000"),
        ],
    },
    Topic { name: LOOKS, partitions: 1, settings: LOG },
];
