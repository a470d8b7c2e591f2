//! A message that cannot be read becomes a dead letter with its origin and the reason, and its neighbours are
//! stored. The test writes raw bytes, as a broken or hostile sender would.

use std::time::Duration;

use schemas::avro;
use schemas::topics::EXPOSURES;
use tests::oracle::dead_letters;
use tests::topic::{self, Position};
use tests::traffic::{ago, exposures};
use tests::{Platform, Random};

const PARTITION: u16 = 2;

#[test]
fn malformed_messages_are_dead_lettered_and_their_neighbours_pass() {
    let mut random = Random::from_environment();
    let platform = Platform::up().unwrap();
    let good: Vec<Vec<u8>> = exposures(0, 7, ago(Duration::from_secs(60))).iter().map(avro::encode).collect();
    // No framing starts with this byte.
    let noise = [vec![7], random.bytes(40)].concat();
    let truncated = good[5][..good[5].len() - 1].to_vec();
    let mut unknown_schema = good[5].clone();
    unknown_schema[2..10].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut unknown_reason = good[5].clone();
    let at = unknown_reason.windows(6).position(|window| window == b"\x0asplit").unwrap();
    unknown_reason[at + 1..at + 6].copy_from_slice(b"drawn");
    let oversize = [good[5].clone(), vec![0; 65_536]].concat();

    let dead = [
        ("not_framed", noise),
        ("truncated", truncated),
        ("unknown_schema", unknown_schema),
        ("empty", Vec::new()),
        ("oversize", oversize),
        ("unknown_reason", unknown_reason),
    ];
    // good, dead, good, dead, ... good
    let mut messages = Vec::new();
    for (neighbour, (_, bytes)) in good.iter().zip(&dead) {
        messages.push(neighbour.clone());
        messages.push(bytes.clone());
    }
    messages.push(good[6].clone());
    messages.push(message_of_first_schema());
    let offsets = topic::write(platform.brokers(), EXPOSURES, PARTITION, &messages).unwrap();
    assert_eq!(offsets, (0..14).collect::<Vec<u64>>());

    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.dead_letters), (14, 8, 6));

    let letters = dead_letters(platform.brokers()).unwrap();
    for (index, (code, payload)) in dead.iter().enumerate() {
        let position = Position { partition: PARTITION, offset: 2 * index as u64 + 1 };
        let letter = &letters[&(EXPOSURES.to_owned(), position)];
        assert_eq!((letter.code.as_str(), &letter.payload), (*code, payload), "{}", letter.reason);
    }
    let reason =
        |offset| letters[&(EXPOSURES.to_owned(), Position { partition: PARTITION, offset })].reason.as_str();
    assert_eq!(reason(5), "written with the unknown schema 0807060504030201");
    assert_eq!(reason(7), "empty message");
    assert_eq!(reason(11), "exposed for the unknown reason `drawn`; known are split, forced, held_out");

    let sql = "SELECT kafka_offset FROM exposures ORDER BY kafka_offset";
    assert_eq!(platform.clickhouse().text(sql, &[]).unwrap(), "0\n2\n4\n6\n8\n10\n12\n13");
    let sql = "SELECT unit_id, phase, configuration_version, reason, attributes['x'] FROM exposures WHERE kafka_offset = 13";
    assert_eq!(
        platform.clickhouse().text(sql, &[]).unwrap(),
        "\u{65e5}\u{672c} \"u\" \\\\ \\n\t3\t0\tsplit\tü"
    );
}

/// An exposure in the first schema, which had no reason, as written by the last build with it.
fn message_of_first_schema() -> Vec<u8> {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../schemas/vectors/messages.json")).unwrap();
    let former = &vectors["messages"][1];
    assert_eq!(former["schema"], "exposure_1");
    let digits = former["single_object"].as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
