//! Compares the codec with the Avro library, which shares nothing with it but the schema files.

mod common;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use common::value;
use proptest::collection::vec;
use proptest::prelude::*;
use schemas::avro::{self, DecodeError};
use schemas::{
    Alias, Buckets, Conversion, Decimal6, Event, Exposure, Micros, Pairs, Reason, Sender, Unit, Uuid,
};

const HEADER_BYTES: usize = 10;

fn schema(text: &str) -> Schema {
    Schema::parse_str(text).expect("the schema file is a schema")
}

#[test]
fn fingerprints_are_those_of_the_schema_files() {
    // The library's canonical form keeps `{"type": "string"}` for a type with a logical type; the
    // specification's (rule PRIMITIVES) has `"string"`. Without logical types the two agree.
    let of = |text: &str| {
        let plain = without_logical_types(serde_json::from_str(text).unwrap());
        let bytes = schema(&plain.to_string()).fingerprint::<Rabin>().bytes;
        format!("{:016x}", u64::from_le_bytes(bytes.try_into().unwrap()))
    };
    assert_eq!(of(avro::EXPOSURE_SCHEMA), avro::Fingerprint::EXPOSURE.to_string());
    assert_eq!(of(avro::EXPOSURE_SCHEMA_1), avro::Fingerprint::EXPOSURE_1.to_string());
    assert_eq!(of(avro::CONVERSION_SCHEMA), avro::Fingerprint::CONVERSION.to_string());
    assert_eq!(of(avro::ALIAS_SCHEMA), avro::Fingerprint::ALIAS.to_string());
    assert_eq!(of(avro::DEFINITION_CHANGE_SCHEMA), avro::Fingerprint::DEFINITION_CHANGE.to_string());
    assert_eq!(of(avro::LOOK_SCHEMA), avro::Fingerprint::LOOK.to_string());
}

fn without_logical_types(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) if fields.contains_key("logicalType") => fields["type"].clone(),
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, value)| (name, without_logical_types(value))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_logical_types).collect()),
        other => other,
    }
}

fn schema_of(event: &Event<'_>) -> Schema {
    match event {
        Event::Exposure(_) => schema(avro::EXPOSURE_SCHEMA),
        Event::Conversion(_) => schema(avro::CONVERSION_SCHEMA),
        Event::Alias(_) => schema(avro::ALIAS_SCHEMA),
    }
}

fn decode<'a>(like: &Event<'_>, bytes: &'a [u8]) -> Result<Event<'a>, DecodeError> {
    Ok(match like {
        Event::Exposure(_) => Event::Exposure(avro::decode_exposure(bytes)?),
        Event::Conversion(_) => Event::Conversion(avro::decode_conversion(bytes)?),
        Event::Alias(_) => Event::Alias(avro::decode_alias(bytes)?),
    })
}

fn key() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}

fn unit_id() -> impl Strategy<Value = String> {
    "\\PC{1,40}"
}

fn pairs() -> impl Strategy<Value = Pairs<'static>> {
    // The prefix `x.` makes the names different from the unit types below, which do not have it.
    vec(("x\\.[a-z0-9]{1,20}", "\\PC{1,30}"), 0..6).prop_map(Pairs::from_iter)
}

fn sender() -> impl Strategy<Value = Sender<'static>> {
    ("\\PC{0,20}", "\\PC{0,20}", "[0-9.]{0,8}").prop_map(|(service, instance, library_version)| Sender {
        service: service.into(),
        instance: instance.into(),
        library_version: library_version.into(),
    })
}

fn time() -> impl Strategy<Value = Micros> {
    (0..=Micros::MAX.get()).prop_map(|micros| Micros::new(micros).unwrap())
}

fn event_id() -> impl Strategy<Value = Uuid> {
    (1..u128::MAX).prop_map(Uuid::from_u128)
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![Just(Reason::Split), Just(Reason::Forced), Just(Reason::HeldOut)]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let bucket = 0..1_000_000u32;
    let exposure = (
        (event_id(), key(), key(), "[a-z]{1,8}", unit_id(), pairs()),
        (
            1..=i32::MAX as u32,
            (0..=i64::MAX as u64, 0..=i64::MAX as u64),
            proptest::option::of((bucket.clone(), bucket.clone(), bucket)),
        ),
        ((prop_oneof![Just(String::new()), key()], reason()), pairs(), key(), sender(), time()),
    )
        .prop_map(|((event_id, experiment, variant, unit_type, unit_id, other_ids), middle, end)| {
            let (phase, (definition_version, configuration_version), buckets) = middle;
            let ((rule, reason), attributes, environment, sender, created_at) = end;
            Event::Exposure(Exposure {
                event_id,
                experiment: experiment.into(),
                variant: variant.into(),
                unit_type: unit_type.into(),
                unit_id: unit_id.into(),
                other_ids,
                phase,
                definition_version,
                configuration_version,
                buckets: buckets.map(|(slot, rollout, variant)| Buckets { slot, rollout, variant }),
                rule: rule.into(),
                reason,
                attributes,
                environment: environment.into(),
                sender,
                created_at,
            })
        });
    let decimal = (-Decimal6::MILLIONTHS_MAX..=Decimal6::MILLIONTHS_MAX)
        .prop_map(|millionths| Decimal6::from_millionths(millionths).unwrap());
    let conversion = (
        (event_id(), key(), "[a-z]{1,8}", unit_id(), pairs(), proptest::option::of(key())),
        (proptest::option::of(decimal), pairs(), key(), sender(), time()),
    )
        .prop_map(|((event_id, name, unit_type, unit_id, other_ids, experiment), end)| {
            let (value, metadata, environment, sender, created_at) = end;
            Event::Conversion(Conversion {
                event_id,
                name: name.into(),
                unit_type: unit_type.into(),
                unit_id: unit_id.into(),
                other_ids,
                experiment: experiment.map(Into::into),
                value,
                metadata,
                environment: environment.into(),
                sender,
                created_at,
            })
        });
    let unit = || {
        (key(), unit_id())
            .prop_map(|(unit_type, unit_id)| Unit { unit_type: unit_type.into(), unit_id: unit_id.into() })
    };
    let alias = (event_id(), unit(), unit(), key(), sender(), time()).prop_map(
        |(event_id, from, to, environment, sender, created_at)| {
            Event::Alias(Alias { event_id, from, to, environment: environment.into(), sender, created_at })
        },
    );
    prop_oneof![exposure, conversion, alias]
}

proptest! {
    #[test]
    fn the_library_reads_what_we_write(event in event()) {
        prop_assert_eq!(event.check(), Ok(()));
        let bytes = avro::encode(&event);
        let mut body = &bytes[HEADER_BYTES..];
        let schema = schema_of(&event);
        let read = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut body).unwrap();
        prop_assert_eq!(read, value(&event));
        prop_assert!(body.is_empty());
    }

    #[test]
    fn we_read_what_the_library_writes(event in event()) {
        let ours = avro::encode(&event);
        let mut bytes = ours[..HEADER_BYTES].to_vec();
        let schema = schema_of(&event);
        bytes.extend(GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value(&event)).unwrap());
        // The library's maps have no order, so the events are compared as the library's values.
        let read = decode(&event, &bytes).unwrap();
        prop_assert_eq!(value(&read), value(&event));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused(event in event(), cut in 0.0..1.0f64) {
        let bytes = avro::encode(&event);
        let cut = (bytes.len() as f64 * cut) as usize;
        prop_assert!(decode(&event, &bytes[..cut]).is_err());
    }

    #[test]
    fn any_bytes_give_an_event_or_an_error(event in event(), body in vec(any::<u8>(), 0..200)) {
        let mut bytes = avro::encode(&event)[..HEADER_BYTES].to_vec();
        bytes.extend(body);
        if let Ok(read) = decode(&event, &bytes) {
            prop_assert_eq!(read.check(), Ok(()));
        }
    }
}

fn conversion() -> Event<'static> {
    serde_json::from_str(
        r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000001", "name": "buy",
            "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#,
    )
    .unwrap()
}

#[test]
fn refusals_name_what_is_wrong() {
    let bytes = avro::encode(&conversion());
    let refused = |bytes: &[u8]| {
        let error = avro::decode_conversion(bytes).unwrap_err();
        (error.code(), error.to_string())
    };
    assert_eq!(refused(&[]), ("empty", "empty message".to_owned()));
    assert_eq!(
        refused(b"hello"),
        (
            "not_framed",
            "names no schema: begins with 68656c6c6f, not with c301 and a fingerprint, nor with 00 and a number"
                .to_owned()
        )
    );
    assert_eq!(
        refused(&[0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("unknown_schema", "written with the unknown schema 0807060504030201".to_owned())
    );
    assert_eq!(
        refused(&[0, 0, 0, 0, 7, 1, 2, 3]),
        ("unknown_schema", "written with schema 7 of a registry, and no registry is used here".to_owned())
    );
    assert_eq!(refused(&bytes[..40]), ("truncated", "ends inside `event_id`, at byte 11".to_owned()));
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(refused(&longer), ("trailing", "1 bytes follow the record".to_owned()));
    assert_eq!(refused(&vec![0; 65_537]), ("oversize", "65537 bytes, more than 65536".to_owned()));
    assert_eq!(
        avro::decode_exposure(&bytes).unwrap_err().to_string(),
        "holds a conversion, which does not belong in this topic"
    );
}

#[test]
fn a_decimal_has_as_few_bytes_as_possible() {
    for (text, expected) in [
        ("0", &[0x00][..]),
        ("-0.000001", &[0xFF]),
        ("0.000127", &[0x7F]),
        ("0.000128", &[0x00, 0x80]),
        ("-0.000128", &[0x80]),
        ("-0.000129", &[0xFF, 0x7F]),
    ] {
        let mut event = conversion();
        if let Event::Conversion(conversion) = &mut event {
            conversion.value = Some(Decimal6::parse(text).unwrap());
        }
        let bytes = avro::encode(&event);
        let mut needle = vec![2, expected.len() as u8 * 2];
        needle.extend_from_slice(expected);
        assert!(bytes.windows(needle.len()).any(|window| window == needle), "{text}: {bytes:02x?}");
    }
}
