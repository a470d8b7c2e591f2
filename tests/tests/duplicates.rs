//! An event that is sent again is counted once: in the same batch, later, and after a kill of the consumer,
//! whether its id is still in memory or must be looked up in ClickHouse.

use std::time::Duration;

use schemas::Event;
use tests::Platform;
use tests::traffic::{DEFINITIONS, ago, exposures, replay};

const MINUTE: Duration = Duration::from_secs(60);
/// Older than the window of ids in memory.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

#[test]
fn a_resent_event_is_counted_once() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let mut repeated = exposures(0, 1_000, ago(MINUTE));
    repeated.extend(exposures(10_000, 1_000, ago(MONTH)));
    // Sent after the repeated events to the same partitions: when these are stored, those have been processed.
    let later = |round: u64| exposures(100_000 * round, 400, ago(MINUTE));

    // Each event twice in a row, before a consumer is started: both are in the same batch.
    let twice: Vec<Event> = repeated.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
    replay(&platform, &twice).unwrap();
    let consumer = platform.consumer(&[]).unwrap();
    let first = platform.every_event_once().unwrap();
    assert_eq!((first.messages, first.rows, first.duplicates), (4_000, 2_000, 2_000));

    // Sent again when all are durable.
    replay(&platform, &repeated).unwrap();
    replay(&platform, &later(1)).unwrap();
    let second = platform.every_event_once().unwrap();
    assert_eq!((second.messages, second.rows, second.duplicates), (6_400, 2_400, 4_000));

    // Sent again to a consumer that has lost its memory.
    consumer.kill().unwrap();
    replay(&platform, &repeated).unwrap();
    replay(&platform, &later(2)).unwrap();
    consumer.start().unwrap();
    let third = platform.every_event_once().unwrap();
    assert_eq!((third.messages, third.rows, third.duplicates), (8_800, 2_800, 6_000));
}

/// Duplicates use no memory. A batch that was filled by duplicates alone was once never closed and accepted
/// no more events.
#[test]
fn more_duplicates_than_a_batch_has_bytes_do_not_stop_a_partition() {
    let platform = Platform::up().unwrap();
    platform.apply(DEFINITIONS).unwrap();
    let _consumer = platform.consumer(&[("SPLITSTREAM_CONSUMER__BATCH_BYTES", "1024")]).unwrap();
    let repeated = exposures(0, 400, ago(MINUTE));
    for _ in 0..3 {
        replay(&platform, &repeated).unwrap();
    }
    replay(&platform, &exposures(1_000, 40, ago(MINUTE))).unwrap();
    let agreement = platform.every_event_once().unwrap();
    assert_eq!((agreement.messages, agreement.rows, agreement.duplicates), (1_240, 440, 800));
}
