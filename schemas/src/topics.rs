//! The topics: their names, how many partitions they are made with, and the settings that the contracts
//! depend on.

/// Events that units were shown a variant. Keyed by the unit id.
pub const EXPOSURES: &str = "exposures";
/// Events that units did something. Keyed by the unit id.
pub const CONVERSIONS: &str = "conversions";
/// Events that two ids are one unit. Keyed by the `from` unit id.
pub const ALIASES: &str = "aliases";
/// Messages that could not become rows, with their origin in the headers and as the key.
pub const DEAD_LETTERS: &str = "dead_letters";
/// The log of definitions. One partition, kept for ever; keyed by the definition's key.
pub const DEFINITIONS: &str = "definitions";
/// The log of looks. One partition, kept for ever; keyed by the experiment's key.
pub const LOOKS: &str = "looks";

/// Headers of a dead letter: where it came from and why it is one. All are text.
pub mod dead_letter_headers {
    pub const TOPIC: &str = "origin_topic";
    pub const PARTITION: &str = "origin_partition";
    pub const OFFSET: &str = "origin_offset";
    /// The consumer's epoch: of a topic that was made anew, offsets come twice. Earlier builds did not send it.
    pub const EPOCH: &str = "origin_epoch";
    pub const REASON: &str = "reason";
    /// A word for counting: `truncated`, `unknown_schema`, `out_of_range`, ...
    pub const CODE: &str = "code";
    /// How many bytes the message had. A dead letter that carries fewer was cut to fit and cannot be replayed.
    pub const PAYLOAD_BYTES: &str = "payload_bytes";
    /// The code of a record, with the key of a dead letter and no payload, that says that it was replayed.
    pub const REPLAYED: &str = "replayed";
}

/// How a topic is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: &'static str,
    pub partitions: i32,
    pub settings: &'static [(&'static str, &'static str)],
}

/// The broker's clock, so that replayed history is not expired by retention the moment it arrives.
const EVENTS: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    // 7 days: the time in which a consumer that is down loses nothing.
    ("retention.ms", "604800000"),
];

/// One log in order, whose beginning every reader needs.
const LOG: &[(&str, &str)] = &[
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
];

pub const TOPICS: [Topic; 6] = [
    Topic { name: EXPOSURES, partitions: 4, settings: EVENTS },
    Topic { name: CONVERSIONS, partitions: 4, settings: EVENTS },
    Topic { name: ALIASES, partitions: 4, settings: EVENTS },
    Topic {
        name: DEAD_LETTERS,
        partitions: 4,
        // 30 days: the time in which somebody looks at them.
        settings: &[
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "2592000000"),
        ],
    },
    Topic { name: DEFINITIONS, partitions: 1, settings: LOG },
    Topic { name: LOOKS, partitions: 1, settings: LOG },
];
