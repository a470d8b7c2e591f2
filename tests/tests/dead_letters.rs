//! A message that cannot be read goes to the dead letters with where it came from and why; its neighbours
//! pass. Written byte by byte, as a broken or hostile sender would.

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
    let good: Vec<Vec<u8>> = exposures(0, 6, ago(Duration::from_secs(60))).iter().map(avro::encode).collect();
    // Neither framing begins so.
    let noise = [vec![7], random.bytes(40)].concat();
    let truncated = good[5][..good[5].len() - 1].to_vec();
    let mut unknown_schema = good[5].clone();
    unknown_schema[2..10].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let oversize = [good[5].clone(), vec![0; 65_536]].concat();

    let dead = [
        ("not_framed", noise),
        ("truncated", truncated),
        ("unknown_schema", unknown_schema),
        ("empty", Vec::new()),
        ("oversize", oversize),
    ];
    // good, dead, good, dead, ... good
    let mut messages = Vec::new();
    for (neighbour, (_, bytes)) in good.iter().zip(&dead) {
        messages.push(neighbour.clone());
        messages.push(bytes.clone());
    }
    messages.push(good[5].clone());
    let offsets = topic::write(platform.brokers(), EXPOSURES, PARTITION, &messages).unwrap();
    assert_eq!(offsets, (0..11).collect::<Vec<u64>>());

    let _consumer = platform.consumer(&[]).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.dead_letters), (11, 6, 5));

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

    let sql = "SELECT kafka_offset FROM exposures ORDER BY kafka_offset";
    assert_eq!(platform.clickhouse().text(sql, &[]).unwrap(), "0\n2\n4\n6\n8\n10");
}
