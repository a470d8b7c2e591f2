//! The bytes of a segment: a header, then records of one event each, whose checksums depend on where they stand.
//! [`recover`] finds the records of a segment that a process left behind, and tells what was torn by the death of
//! that process from what was damaged later. It knows no file.

use std::ops::Range;
use std::sync::Arc;

use schemas::event::EVENT_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The bytes before a segment's first record.
pub const HEADER_BYTES: usize = 16;
/// The bytes of a record before its body: its length, a check of the length, and a checksum of both and the body.
const HEAD_BYTES: usize = 16;
/// The bytes of a body before its topic: the stamp and the lengths of topic and key.
const FIXED_BYTES: usize = 8 + 1 + 2;
/// The longest body. Kafka allows 249 bytes for a topic's name; a key is a unit's id.
const BODY_BYTES_MAX: usize = FIXED_BYTES + u8::MAX as usize + u16::MAX as usize + EVENT_BYTES_MAX;

const MAGIC: [u8; 8] = *b"SPLSPOOL";
const VERSION: u32 = 1;

/// The number of a segment; later segments have higher numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

/// An event as it is sent: again and again the same bytes, key and topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: Arc<str>,
    pub key: Box<[u8]>,
    pub value: Box<[u8]>,
    /// When the event was accepted, in microseconds since 1970.
    pub stamp: u64,
}

impl Record {
    /// The number of bytes that the record takes in a segment.
    pub fn framed_bytes(&self) -> usize {
        HEAD_BYTES + FIXED_BYTES + self.topic.len() + self.key.len() + self.value.len()
    }
}

/// A record in the bytes of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub topic: &'a str,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub stamp: u64,
}

/// The segment was written by a later version of this library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaterVersion(pub u32);

/// What is left of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered<'a> {
    /// The whole records with their positions, in order.
    pub records: Vec<(u32, RecordRef<'a>)>,
    /// Bytes that were once whole, or may have been, and are not now: events may be lost.
    pub damaged: Vec<Range<usize>>,
    /// The beginning of a write that the end of its process or a full disk interrupted, so that nobody was told
    /// that it is durable; it reaches to the end of the segment.
    pub torn: Option<usize>,
}

/// The header of a segment.
pub fn header(segment: SegmentNumber) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let check = check_of(&header[..12], segment.0);
    header[12..].copy_from_slice(&check.to_le_bytes());
    header
}

/// Appends a record that will stand at position `at` of the segment.
///
/// # Panics
/// If the topic has more than 255 bytes, the key more than 65,535, or the value more than [`EVENT_BYTES_MAX`]; the
/// emitter refuses such events.
pub fn encode(segment: SegmentNumber, at: usize, record: &Record, out: &mut Vec<u8>) {
    assert!(record.value.len() <= EVENT_BYTES_MAX, "{} bytes", record.value.len());
    let topic_length = u8::try_from(record.topic.len()).expect("a topic's name has at most 249 bytes");
    let key_length = u16::try_from(record.key.len()).expect("a unit's id has at most 65,535 bytes");
    let length =
        u32::try_from(record.framed_bytes() - HEAD_BYTES).expect("its parts were checked").to_le_bytes();
    let start = out.len();
    out.extend_from_slice(&length);
    out.extend_from_slice(&check_of(&length, seed(segment, at)).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&record.stamp.to_le_bytes());
    out.push(topic_length);
    out.extend_from_slice(&key_length.to_le_bytes());
    out.extend_from_slice(record.topic.as_bytes());
    out.extend_from_slice(&record.key);
    out.extend_from_slice(&record.value);
    let checksum = xxh3_64_with_seed(&out[start + HEAD_BYTES..], seed(segment, at));
    out[start + 8..start + HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Returns the record at a position, if it is whole, and the position after it.
pub fn decode(segment: SegmentNumber, bytes: &[u8], at: usize) -> Option<(RecordRef<'_>, usize)> {
    let length = length_at(segment, bytes, at)?;
    let body_at = at + HEAD_BYTES;
    let body = bytes.get(body_at..body_at + length)?;
    let checksum = u64::from_le_bytes(bytes[at + 8..body_at].try_into().expect("8 bytes"));
    if xxh3_64_with_seed(body, seed(segment, at)) != checksum {
        return None;
    }
    Some((parse(body)?, body_at + length))
}

/// Finds what is left of a segment. A record in the middle that is damaged does not hide those behind it.
///
/// # Errors
/// If the segment's version is later than this library.
pub fn recover(segment: SegmentNumber, bytes: &[u8]) -> Result<Recovered<'_>, LaterVersion> {
    let mut found = Recovered::default();
    let expected = header(segment);
    if bytes.len() < HEADER_BYTES && expected.starts_with(bytes) {
        found.torn = (!bytes.is_empty()).then_some(0);
        return Ok(found);
    }
    let mut at = match bytes.get(..HEADER_BYTES) {
        Some(header) if header == expected => HEADER_BYTES,
        Some(header) => {
            check_version(segment, header)?;
            0
        }
        None => 0,
    };
    while at < bytes.len() {
        if let Some((record, next)) = decode(segment, bytes, at) {
            found.records.push((u32::try_from(at).expect("a segment is shorter than 4 GiB"), record));
            at = next;
            continue;
        }
        let next = at + damage_at(segment, bytes, at);
        if next == bytes.len() && is_torn(segment, bytes, at) {
            found.torn = Some(at);
        } else {
            found.damaged.push(at..next);
        }
        at = next;
    }
    Ok(found)
}

/// The number of bytes from a damaged position to the next record, or to the end.
pub fn damage_at(segment: SegmentNumber, bytes: &[u8], at: usize) -> usize {
    let next = (at + 1..bytes.len()).find(|&next| decode(segment, bytes, next).is_some());
    next.unwrap_or(bytes.len()).saturating_sub(at)
}

/// Returns the length of the body of the record at a position, if its check is right.
fn length_at(segment: SegmentNumber, bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    let check = u32::from_le_bytes(head[4..8].try_into().expect("4 bytes"));
    if check_of(&head[..4], seed(segment, at)) != check {
        return None;
    }
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    (FIXED_BYTES..=BODY_BYTES_MAX).contains(&length).then_some(length)
}

fn parse(body: &[u8]) -> Option<RecordRef<'_>> {
    let (fixed, rest) = body.split_at_checked(FIXED_BYTES)?;
    let (topic, rest) = rest.split_at_checked(usize::from(fixed[8]))?;
    let key_length = u16::from_le_bytes(fixed[9..11].try_into().expect("2 bytes"));
    let (key, value) = rest.split_at_checked(usize::from(key_length))?;
    let stamp = u64::from_le_bytes(fixed[..8].try_into().expect("8 bytes"));
    Some(RecordRef { topic: std::str::from_utf8(topic).ok()?, key, value, stamp })
}

/// Whether the end of a segment is the beginning of one write and nothing else. A process that dies leaves a part
/// of its last write; a machine that loses power may leave zeros, because a file can grow before it is filled.
fn is_torn(segment: SegmentNumber, bytes: &[u8], at: usize) -> bool {
    let end = &bytes[at..];
    if end.iter().all(|&byte| byte == 0) {
        return true;
    }
    if end.len() < HEAD_BYTES {
        let Some(check) = end.get(4..8) else { return true };
        return check == check_of(&end[..4], seed(segment, at)).to_le_bytes();
    }
    length_at(segment, bytes, at).is_some_and(|length| at + HEAD_BYTES + length > bytes.len())
}

fn check_version(segment: SegmentNumber, header: &[u8]) -> Result<(), LaterVersion> {
    let version = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes"));
    let whole = header[..8] == MAGIC && check_of(&header[..12], segment.0).to_le_bytes() == header[12..];
    if whole && version > VERSION { Err(LaterVersion(version)) } else { Ok(()) }
}

/// The checksums of a record depend on its place, so that bytes inside of an event, which a stranger may have
/// chosen, cannot pass for a record of their own.
fn seed(segment: SegmentNumber, at: usize) -> u64 {
    segment.0.rotate_left(32) ^ at as u64
}

fn check_of(bytes: &[u8], seed: u64) -> u32 {
    xxh3_64_with_seed(bytes, !seed) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentNumber = SegmentNumber(7);

    fn record(number: u64) -> Record {
        Record {
            topic: "conversions".into(),
            key: format!("u{number}").into_bytes().into(),
            value: vec![number as u8; 5 + number as usize].into(),
            stamp: 1_000 + number,
        }
    }

    /// A segment with the records 0 to 3 and the position of each and of the end.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(SEGMENT).to_vec();
        let mut positions = Vec::new();
        for number in 0..4 {
            positions.push(bytes.len());
            encode(SEGMENT, bytes.len(), &record(number), &mut bytes);
            assert_eq!(bytes.len(), positions.last().unwrap() + record(number).framed_bytes());
        }
        positions.push(bytes.len());
        (bytes, positions)
    }

    fn numbers(found: &Recovered<'_>) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (_, read) in &found.records {
            let number = read.stamp - 1_000;
            let expected = record(number);
            let expected = RecordRef {
                topic: &expected.topic,
                key: &expected.key,
                value: &expected.value,
                stamp: expected.stamp,
            };
            assert_eq!(*read, expected);
            numbers.push(number);
        }
        numbers
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, positions) = segment();
        let found = recover(SEGMENT, &bytes).unwrap();
        assert_eq!(numbers(&found), [0, 1, 2, 3]);
        assert_eq!(found.records.iter().map(|(at, _)| *at as usize).collect::<Vec<_>>(), positions[..4]);
        assert_eq!((found.damaged, found.torn), (vec![], None));
        // A key and a topic may be of any length, and a value may be empty.
        let odd = Record { topic: "".into(), key: Box::new([]), value: Box::new([]), stamp: 0 };
        let long = Record {
            topic: "t".repeat(249).into(),
            key: vec![b'k'; 65_535].into(),
            value: vec![b'v'; EVENT_BYTES_MAX].into(),
            stamp: u64::MAX,
        };
        let mut bytes = header(SEGMENT).to_vec();
        for record in [&odd, &long] {
            encode(SEGMENT, bytes.len(), record, &mut bytes);
        }
        assert_eq!(recover(SEGMENT, &bytes).unwrap().records.len(), 2);
    }

    #[test]
    fn a_segment_cut_at_any_byte_keeps_its_whole_records_and_is_called_torn() {
        let (bytes, positions) = segment();
        for length in 0..=bytes.len() {
            let found = recover(SEGMENT, &bytes[..length]).unwrap();
            let whole = positions[1..].iter().filter(|&&end| end <= length).count();
            assert_eq!(numbers(&found), (0..whole as u64).collect::<Vec<_>>(), "{length}");
            assert_eq!(found.damaged, Vec::<Range<usize>>::new(), "{length}");
            let last_end = if length < HEADER_BYTES { 0 } else { positions[whole] };
            assert_eq!(found.torn, (last_end < length).then_some(last_end), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_at_any_byte_costs_one_record_at_most_and_is_never_called_torn() {
        let (bytes, positions) = segment();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let found = recover(SEGMENT, &bytes).unwrap();
                let hit = positions[1..].iter().position(|&end| at < end).unwrap();
                let (damaged, kept) = if at < HEADER_BYTES {
                    (0..HEADER_BYTES, vec![0, 1, 2, 3])
                } else {
                    (positions[hit]..positions[hit + 1], (0..4).filter(|&n| n != hit as u64).collect())
                };
                assert_eq!(found.damaged, [damaged], "byte {at}, bit {bit}");
                assert_eq!(numbers(&found), kept, "byte {at}, bit {bit}");
                assert_eq!(found.torn, None, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_torn_and_zeros_in_the_middle_are_damage() {
        let (mut bytes, positions) = segment();
        bytes.extend_from_slice(&[0; 100]);
        let found = recover(SEGMENT, &bytes).unwrap();
        assert_eq!((numbers(&found), &found.torn), (vec![0, 1, 2, 3], &Some(positions[4])));
        bytes[positions[1]..positions[3]].fill(0);
        let found = recover(SEGMENT, &bytes).unwrap();
        assert_eq!(numbers(&found), [0, 3]);
        let damaged = positions[1]..positions[3];
        assert_eq!(found.damaged, [damaged]);
    }

    /// Events carry texts of strangers.
    #[test]
    fn a_record_inside_of_an_event_is_not_taken_for_one() {
        let mut inner = Vec::new();
        encode(SEGMENT, HEADER_BYTES, &record(0), &mut inner);
        let outer = Record { value: inner.into(), ..record(1) };
        let mut bytes = header(SEGMENT).to_vec();
        encode(SEGMENT, HEADER_BYTES, &outer, &mut bytes);
        bytes[HEADER_BYTES] ^= 1;
        let found = recover(SEGMENT, &bytes).unwrap();
        assert_eq!(found.records, []);
        let damaged = HEADER_BYTES..bytes.len();
        assert_eq!(found.damaged, [damaged]);
    }

    #[test]
    fn a_segment_under_another_number_has_no_records() {
        let (bytes, _) = segment();
        let found = recover(SegmentNumber(8), &bytes).unwrap();
        assert_eq!(found.records, []);
        let damaged = 0..bytes.len();
        assert_eq!(found.damaged, [damaged]);
    }

    #[test]
    fn a_later_version_is_refused_and_not_read() {
        let (mut bytes, _) = segment();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let check = check_of(&bytes[..12], SEGMENT.0);
        bytes[12..16].copy_from_slice(&check.to_le_bytes());
        assert_eq!(recover(SEGMENT, &bytes), Err(LaterVersion(2)));
    }
}
