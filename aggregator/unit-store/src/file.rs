//! The file of encoded rows. It consists of segments of one length, each written once as a whole; the last one is open in
//! memory. A record that is taken back becomes garbage, and a segment that has nothing else is written anew. When more
//! than half of the closed segments is garbage, the records of the emptiest one are to be moved; which of them are live is
//! known to the index of the caller alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::Error;

/// Before the payload of a record: its key, its length and a checksum of both.
const HEADER: usize = 16;

/// Where a record is, and its length with the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    segment: u32,
    offset: u32,
    pub bytes: u32,
}

/// A record in the bytes of a segment.
pub struct Record<'a> {
    pub key: u64,
    pub address: Address,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Its first bytes are records, one after the other; of these bytes so many are live.
    Records {
        written: u32,
        live: u32,
    },
    /// The first segment of a record that is longer than a segment. It has as many as it needs for itself, anywhere.
    Long {
        bytes: u32,
        next: u32,
    },
    /// A later segment of such a record. Nobody looks at `next` in the last one.
    Continued {
        next: u32,
    },
}

/// What the file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The length of the file.
    pub file_bytes: u64,
    /// The live records, those of the open segment included.
    pub live_bytes: u64,
}

pub struct SegmentFile {
    file: File,
    path: PathBuf,
    /// Held as long as the file is used.
    _lock: File,
    segment_bytes: usize,
    segments: Vec<State>,
    free: Vec<u32>,
    /// The number of the open segment, and its bytes.
    open: u32,
    bytes: Vec<u8>,
    /// The sum over the closed segments of records, in which garbage is what is not live.
    closed: u64,
    closed_live: u64,
    live: u64,
    file_bytes: u64,
}

impl SegmentFile {
    /// Makes the file anew in the directory, which is made if it is not there.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be written to.
    pub fn create(directory: &Path, segment_bytes: usize) -> Result<SegmentFile, Error> {
        std::fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
        // The lock has a file of its own that stays: a lock on a file that somebody deletes would keep nobody out.
        let path = directory.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = open.map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::InUse { directory: directory.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        // A process that was killed has left its file here.
        let path = directory.join("units");
        let open = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path);
        Ok(SegmentFile {
            file: open.map_err(Error::io("open", &path))?,
            path,
            _lock: lock,
            segment_bytes,
            segments: vec![State::Records { written: 0, live: 0 }],
            free: Vec::new(),
            open: 0,
            bytes: Vec::with_capacity(segment_bytes),
            closed: 0,
            closed_live: 0,
            live: 0,
            file_bytes: 0,
        })
    }

    /// Writes a record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, key: u64, payload: &[u8]) -> Result<Address, Error> {
        let bytes = HEADER + payload.len();
        let length = u32::try_from(bytes).expect("the rows of a unit have less than 4 GiB");
        self.live += u64::from(length);
        if bytes > self.segment_bytes {
            return self.append_long(key, payload, length);
        }
        if self.bytes.len() + bytes > self.segment_bytes {
            self.close_segment()?;
        }
        let address = Address { segment: self.open, offset: self.bytes.len() as u32, bytes: length };
        self.bytes.extend(header(key, payload));
        self.bytes.extend(payload);
        let State::Records { written, live } = &mut self.segments[self.open as usize] else {
            panic!("segment {} is open and has no records", self.open)
        };
        *written += length;
        *live += length;
        Ok(address)
    }

    /// Writes a record into segments of its own.
    fn append_long(&mut self, key: u64, payload: &[u8], bytes: u32) -> Result<Address, Error> {
        let record = [&header(key, payload), payload].concat();
        // From the last segment to the first, so that each knows the next one.
        let mut next = 0;
        for (index, part) in record.chunks(self.segment_bytes).enumerate().rev() {
            let state = if index == 0 { State::Long { bytes, next } } else { State::Continued { next } };
            next = self.take_segment(state);
            self.write(part, self.offset(next))?;
        }
        Ok(Address { segment: next, offset: 0, bytes })
    }

    /// Returns the segments of a long record, each with the number of its bytes.
    fn parts(&self, segment: u32, bytes: u32) -> impl Iterator<Item = (u32, usize)> {
        let (mut segment, mut left) = (segment, bytes as usize);
        std::iter::from_fn(move || {
            let part = (segment, left.min(self.segment_bytes));
            left -= part.1;
            if part.1 == 0 {
                return None;
            }
            match self.segments[segment as usize] {
                State::Long { next, .. } | State::Continued { next } => segment = next,
                state => panic!("segment {segment} is part of a long record and is {state:?}"),
            }
            Some(part)
        })
    }

    /// Writes the open segment and opens another one.
    fn close_segment(&mut self) -> Result<(), Error> {
        let bytes = std::mem::take(&mut self.bytes);
        self.write(&bytes, self.offset(self.open))?;
        self.bytes = bytes;
        self.bytes.clear();
        let closed = self.open;
        let State::Records { live, .. } = self.segments[closed as usize] else {
            panic!("segment {closed} is open and has no records")
        };
        self.closed += self.segment_bytes as u64;
        self.closed_live += u64::from(live);
        self.open = self.take_segment(State::Records { written: 0, live: 0 });
        if live == 0 {
            self.free_records(closed);
        }
        Ok(())
    }

    /// Takes a segment that is free, or a new one.
    fn take_segment(&mut self, state: State) -> u32 {
        if let Some(free) = self.free.pop() {
            self.segments[free as usize] = state;
            return free;
        }
        self.segments.push(state);
        u32::try_from(self.segments.len() - 1).expect("there are fewer than 2^32 segments")
    }

    fn free_records(&mut self, segment: u32) {
        self.closed -= self.segment_bytes as u64;
        self.free(segment);
    }

    fn free(&mut self, segment: u32) {
        self.segments[segment as usize] = State::Free;
        self.free.push(segment);
    }

    /// Declares a record to be garbage.
    pub fn discard(&mut self, at: Address) {
        self.live -= u64::from(at.bytes);
        match &mut self.segments[at.segment as usize] {
            State::Records { live, .. } => {
                *live -= at.bytes;
                let is_empty = *live == 0;
                if at.segment != self.open {
                    self.closed_live -= u64::from(at.bytes);
                    if is_empty {
                        self.free_records(at.segment);
                    }
                }
            }
            State::Long { .. } => {
                let parts: Vec<u32> = self.parts(at.segment, at.bytes).map(|(segment, _)| segment).collect();
                parts.into_iter().for_each(|segment| self.free(segment));
            }
            state => panic!("a record at {at:?}, where the segment is {state:?}"),
        }
    }

    /// Reads the record of a key into `out`, which it replaces, and returns the payload.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    pub fn read<'a>(&self, key: u64, at: Address, out: &'a mut Vec<u8>) -> Result<&'a [u8], Error> {
        let (start, bytes) = (at.offset as usize, at.bytes as usize);
        out.clear();
        if at.segment == self.open {
            out.extend(&self.bytes[start..start + bytes]);
        } else if bytes > self.segment_bytes {
            self.read_long(at.segment, at.bytes, out)?;
        } else {
            self.read_bytes(self.offset(at.segment) + start as u64, bytes, out)?;
        }
        match split(key, out) {
            Some((payload, length)) if length == bytes => Ok(payload),
            _ => Err(self.damaged(at)),
        }
    }

    /// Returns the closed segment with the least live records if more than half of the closed segments is garbage.
    pub fn to_compact(&self) -> Option<u32> {
        if self.closed_live * 2 >= self.closed {
            return None;
        }
        let live = |(segment, state): (usize, &State)| match *state {
            State::Records { live, .. } if segment as u32 != self.open => Some((live, segment as u32)),
            _ => None,
        };
        self.segments.iter().enumerate().filter_map(live).min().map(|(_, segment)| segment)
    }

    /// How many segments there are; the numbers of all are below.
    pub fn segments(&self) -> u32 {
        self.segments.len() as u32
    }

    /// Reads a segment into `out`, which it replaces, as far as it has records.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_segment(&self, segment: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        match self.segments[segment as usize] {
            State::Free | State::Continued { .. } => Ok(()),
            State::Records { .. } if segment == self.open => {
                out.extend(&self.bytes);
                Ok(())
            }
            State::Records { written, .. } => self.read_bytes(self.offset(segment), written as usize, out),
            State::Long { bytes, .. } => self.read_long(segment, bytes, out),
        }
    }

    /// Calls `see` with the records that [`SegmentFile::read_segment`] has read, garbage included, until it fails.
    ///
    /// # Errors
    /// If one is not what was written, or `see` fails.
    pub fn records(
        &mut self,
        segment: u32,
        bytes: &[u8],
        mut see: impl FnMut(&mut SegmentFile, Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut offset = 0;
        while offset < bytes.len() {
            let rest = &bytes[offset..];
            let mut address = Address { segment, offset: offset as u32, bytes: 0 };
            let key = rest.first_chunk().map(|key| u64::from_le_bytes(*key));
            let split = key.and_then(|key| split(key, rest).map(|(payload, length)| (key, payload, length)));
            let (key, payload, length) = split.ok_or_else(|| self.damaged(address))?;
            address.bytes = length as u32;
            see(self, Record { key, address, payload })?;
            offset += length;
        }
        Ok(())
    }

    pub fn usage(&self) -> Usage {
        Usage { file_bytes: self.file_bytes, live_bytes: self.live }
    }

    /// The memory of the open segment and of what is known of the others, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.segments.capacity() * size_of::<State>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// An error about bytes that are not what was written.
    pub fn damaged(&self, at: Address) -> Error {
        Error::Damaged { path: self.path.clone(), offset: self.offset(at.segment) + u64::from(at.offset) }
    }

    fn offset(&self, segment: u32) -> u64 {
        u64::from(segment) * self.segment_bytes as u64
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|source| Error::write(&self.path, self.file_bytes, source))?;
        self.file_bytes = self.file_bytes.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn read_long(&self, segment: u32, bytes: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        out.reserve_exact(bytes as usize);
        for (segment, bytes) in self.parts(segment, bytes) {
            self.read_bytes(self.offset(segment), bytes, out)?;
        }
        Ok(())
    }

    /// Appends bytes of the file.
    fn read_bytes(&self, offset: u64, bytes: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        out.resize(start + bytes, 0);
        match self.file.read_exact_at(&mut out[start..], offset) {
            Ok(()) => Ok(()),
            // Somebody has cut the file.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Damaged { path: self.path.clone(), offset })
            }
            Err(error) => Err(Error::io("read from", &self.path)(error)),
        }
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        // If it cannot be deleted, the next start empties it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn header(key: u64, payload: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&key.to_le_bytes());
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[12..].copy_from_slice(&checksum(key, payload).to_le_bytes());
    header
}

fn checksum(key: u64, payload: &[u8]) -> u32 {
    xxh3_64_with_seed(payload, key) as u32
}

/// Returns the payload of the record of a key that the bytes begin with, and the length of the record.
fn split(key: u64, bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let payload = rest.get(..number(8) as usize)?;
    let is_intact = header[..8] == key.to_le_bytes() && number(12) == checksum(key, payload);
    is_intact.then_some((payload, HEADER + payload.len()))
}
