//! Reads records of other writers' schemas: compares plans with the Avro library's own schema resolution, on
//! random schemas, random values and damaged bytes. `AVRO_SEED` replays one case, and `AVRO_CASES` sets the
//! number of cases.

#[path = "../common/mod.rs"]
mod common;
mod compatibility;
mod hostile_schemas;
mod promotions;
mod random;
mod references;
mod rules;
mod values;
mod writers;

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use random::Random;
use schemas::Event;
use schemas::avro::{self, IncompatibleSchema, Plan, RecordKind, WrittenWith};
use values::Values;

const KINDS: [RecordKind; 3] = [RecordKind::Exposure, RecordKind::Conversion, RecordKind::Alias];

/// The leaves of a record by their paths, as text, in the same form for both decoders.
type Leaves = BTreeMap<String, String>;

fn ours(kind: RecordKind, plan: &Result<Plan, IncompatibleSchema>, body: &[u8]) -> Result<Leaves, String> {
    let plan = plan.as_ref().map_err(|error| error.to_string())?;
    let mut message = vec![0, 0, 0, 0, 1];
    message.extend_from_slice(body);
    let (name, body) = avro::open(kind, &message).map_err(|error| error.to_string())?;
    assert_eq!(name, WrittenWith::RegistryId(1));
    let event = match kind {
        RecordKind::Exposure => plan.decode(body).map(Event::Exposure),
        RecordKind::Conversion => plan.decode(body).map(Event::Conversion),
        _ => plan.decode(body).map(Event::Alias),
    };
    Ok(leaves(&common::value(&event.map_err(|error| error.to_string())?)))
}

/// The library's decoder. The library requires a decimal to have its full precision, so a value is read as
/// its bytes.
struct Oracle {
    reader: Schema,
}

impl Oracle {
    fn new(kind: RecordKind) -> Oracle {
        Oracle { reader: schema(&serde_json::from_str(kind.schema()).unwrap()) }
    }

    fn read(&self, writer: &Schema, body: &[u8]) -> Result<Leaves, String> {
        self.read_with(writer, vec![writer], body)
    }

    /// Reads a body; the names in `writer` are looked up in `all`.
    fn read_with(&self, writer: &Schema, all: Vec<&Schema>, mut body: &[u8]) -> Result<Leaves, String> {
        let reader = GenericDatumReader::builder(writer).writer_schemata(all);
        let reader = reader.and_then(|reader| reader.reader_schema(&self.reader).build());
        let value =
            reader.and_then(|reader| reader.read_value(&mut body)).map_err(|error| error.to_string())?;
        Ok(leaves(&value))
    }
}

fn schema(json: &serde_json::Value) -> Schema {
    let text = without_decimals(json);
    Schema::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the schema's text in a form that the library accepts: without decimals.
fn without_decimals(json: &serde_json::Value) -> String {
    json.to_string().replace(r#""logicalType":"decimal","#, "")
}

fn leaves(value: &Value) -> Leaves {
    let mut leaves = Leaves::new();
    collect_leaves(value, String::new(), &mut leaves);
    leaves
}

fn collect_leaves(value: &Value, path: String, leaves: &mut Leaves) {
    let text = match value {
        Value::Record(fields) => {
            for (name, value) in fields {
                collect_leaves(value, format!("{path}/{name}"), leaves);
            }
            return;
        }
        Value::Map(entries) => {
            for (name, value) in entries {
                collect_leaves(value, format!("{path}/{name}"), leaves);
            }
            format!("{} entries", entries.len())
        }
        Value::Union(_, value) => return collect_leaves(value, path, leaves),
        Value::Null => "null".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) | Value::TimestampMicros(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Uuid(uuid) => uuid.to_string(),
        Value::Bytes(bytes) => whole(bytes).to_string(),
        Value::Decimal(decimal) => whole(&Vec::<u8>::try_from(decimal).unwrap()).to_string(),
        other => unreachable!("no field of ours holds {other:?}"),
    };
    leaves.insert(path, text);
}

fn whole(bytes: &[u8]) -> i128 {
    let mut wide = [if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 }; 16];
    let taken = bytes.len().min(16);
    wide[16 - taken..].copy_from_slice(&bytes[bytes.len() - taken..]);
    i128::from_be_bytes(wide)
}

/// Returns the seeds of the cases to run: `few` cases or `AVRO_CASES`; from `AVRO_SEED` on, if it is set, one
/// case or `AVRO_CASES`.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let cases = setting("AVRO_CASES");
    match setting("AVRO_SEED") {
        Some(seed) => seed..seed + cases.unwrap_or(1),
        None => 0..cases.unwrap_or(few),
    }
}

#[test]
fn a_plan_reads_what_the_library_reads_and_refuses_what_it_refuses() {
    let oracles = KINDS.map(Oracle::new);
    let (mut read, mut refused) = (0, 0);
    for seed in seeds(3_000) {
        let random = &mut Random::new(seed);
        let at = random.below(KINDS.len());
        let json = writers::writer(KINDS[at].schema(), random);
        let (writer, plan) = (schema(&json), Plan::compile(KINDS[at], &json.to_string()));
        for _ in 0..4 {
            let mut body = Vec::new();
            Values::new(&json, random).write(&json, "", &mut body);
            match (ours(KINDS[at], &plan, &body), oracles[at].read(&writer, &body)) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(ours, theirs, "AVRO_SEED={seed}\n{json}\n{body:02x?}");
                    read += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (ours, theirs) => {
                    panic!("AVRO_SEED={seed}: we say {ours:?}\nthe library {theirs:?}\n{json}\n{body:02x?}")
                }
            }
        }
    }
    println!("{read} read by both, {refused} refused by both");
    if std::env::var_os("AVRO_SEED").is_none() {
        assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused: the cases are lopsided");
    }
}

#[test]
fn damaged_bytes_are_refused_wherever_the_library_refuses_them() {
    let oracles = KINDS.map(Oracle::new);
    let (mut whole, mut refused) = (0, 0);
    for seed in seeds(1_000) {
        let random = &mut Random::new(seed);
        let at = random.below(KINDS.len());
        // Our own schema, too: its messages are read without the steps of a plan.
        let json = match random.one_in(4) {
            true => serde_json::from_str(KINDS[at].schema()).unwrap(),
            false => writers::writer(KINDS[at].schema(), random),
        };
        let (writer, plan) = (schema(&json), Plan::compile(KINDS[at], &json.to_string()));
        let mut sound = Vec::new();
        Values::new(&json, random).write(&json, "", &mut sound);
        for _ in 0..20 {
            let body = damaged(&sound, random);
            match (ours(KINDS[at], &plan, &body), oracles[at].read(&writer, &body)) {
                (Ok(ours), Ok(theirs)) => {
                    assert_eq!(ours, theirs, "AVRO_SEED={seed}\n{json}\n{body:02x?}");
                    whole += 1;
                }
                (Ok(ours), Err(theirs)) => {
                    panic!(
                        "AVRO_SEED={seed}: we read {ours:?}\nthe library says {theirs}\n{json}\n{body:02x?}"
                    )
                }
                (Err(_), _) => refused += 1,
            }
        }
    }
    println!("{whole} read by both, {refused} refused");
    if std::env::var_os("AVRO_SEED").is_none() {
        assert!(whole > 100 && refused > 1_000, "{whole} read, {refused} refused: the cases are lopsided");
    }
}

/// Cuts the bytes, or changes, inserts or removes some, or inserts a large number.
fn damaged(sound: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for _ in 0..random.below(3) + 1 {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes.insert(at, random.next() as u8),
            4 => {
                bytes.remove(at);
            }
            _ => {
                let mut number = Vec::new();
                let wide = random.next() >> random.below(64);
                values::long(wide as i64, &mut number);
                bytes.splice(at..at, number);
            }
        }
    }
    bytes
}
