//! The types and contracts that all packages of Splitstream share: events and definitions, their Avro
//! encoding and framing, the topics, the ClickHouse migrations, and the rules that decide whether a change of
//! a definition is accepted. Every function here depends on its arguments alone; nothing here uses a network,
//! a file or a clock.

pub mod avro;
pub mod bucket;
pub mod clickhouse;
pub mod definition;
pub mod evaluation_counts;
pub mod event;
pub mod key;
pub mod look;
pub mod number;
pub mod switchback;
pub mod time;
pub mod topics;
pub mod unit_key;

pub use bucket::{BUCKETS, BasisPoints, Bucket, BucketRange};
pub use event::{Alias, Buckets, Conversion, Decimal6, Event, Exposure, Pairs, Reason, Sender, Unit};
pub use key::Key;
pub use switchback::SwitchbackUnit;
pub use time::Micros;
pub use unit_key::UnitKey;
pub use uuid::Uuid;
