//! Units' rows in a bounded memory. Rows of units that were not used for the longest time are moved to a file and brought
//! back when somebody asks for them. Nothing in the file outlives the process: the tables have every row.
//!
//! The file is our own, of segments with an index in memory, and no database. A unit that is brought back gets a new row
//! nearly always, so whatever is read becomes garbage: a log writes the unit once, where a tree writes a page. Nothing has to
//! be recovered, ordered or shared. With 1,000,000 units of 20 rows, a quarter of the memory and keys by Zipf's law, a key
//! costs 4.4 us of CPU, against 2.7 us in memory alone, and the file has 981 MB, of which 495 MB are used
//! (`cargo bench -p unit-store`). In earlier measurements with 5,000,000 units, another load, and 20,000 keys a round, fjall
//! 2.11 took 11 us a key and panicked in scans after it was opened again, and redb 2.6 took 14 us and 4.3 times the disk.
//!
//! The bound is on what the allocator is asked for and what it is known to add. Rows that grow leave holes in its memory: in
//! the same benchmark 522 MB were resident where 319 MB were allowed. The kernel's cache of the file comes on top, and is
//! given back when memory is short.

mod error;
mod file;

use std::mem::size_of;
use std::path::Path;

use counting::rows::Rows;
use counting::store::Store;
use hashbrown::HashMap;

pub use crate::error::Error;
use crate::file::{Address, SegmentFile};

/// The most bytes that are written to the file at once. Two buffers are as large.
const SEGMENT_BYTES_MAX: usize = 4 << 20;
const SEGMENT_BYTES_MIN: usize = 256;

/// Rows in memory up to a bound, and the others in a file.
pub struct BoundedMemory {
    bytes_max: usize,
    places: HashMap<u64, Place>,
    /// The units in memory, in no order. The hand passes over them in circles and moves out those that were not used since
    /// it came by the last time.
    slots: Vec<Slot>,
    /// The slots that nobody has.
    free: Vec<u32>,
    hand: usize,
    row_bytes: usize,
    file: SegmentFile,
    segment_bytes: usize,
    /// One unit's rows as bytes, or a segment.
    buffer: Vec<u8>,
    moved_out: u64,
    brought_back: u64,
}

/// Where the rows of a key are.
#[derive(Clone, Copy)]
enum Place {
    Slot(u32),
    File(Address),
}

/// A unit in memory. It has no rows while they are taken out, and none if nobody has the slot.
struct Slot {
    key: u64,
    rows: Rows,
    was_used: bool,
}

/// What the store has and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub units_in_memory: usize,
    pub units_in_file: usize,
    /// As [`BoundedMemory::bytes`].
    pub memory_bytes: usize,
    /// The length of the file. It does not become shorter: what is garbage is written anew.
    pub file_bytes: u64,
    /// What the units in the file take.
    pub file_bytes_used: u64,
    /// How often the rows of a unit were moved to the file, and how often they were brought back.
    pub moved_out: u64,
    pub brought_back: u64,
}

impl BoundedMemory {
    /// Opens an empty store that has a directory for itself, where it makes its file anew. What it keeps in memory is at most
    /// `bytes_max`. Not included are the rows that are taken out, the bytes of one unit while it is moved, and the old index
    /// while it grows.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be written to.
    pub fn open(directory: &Path, bytes_max: usize) -> Result<BoundedMemory, Error> {
        let segment_bytes = (bytes_max / 64).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        Ok(BoundedMemory {
            bytes_max,
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            row_bytes: 0,
            file: SegmentFile::create(directory, segment_bytes)?,
            segment_bytes,
            buffer: Vec::with_capacity(segment_bytes),
            moved_out: 0,
            brought_back: 0,
        })
    }

    /// The memory of rows, index and buffers, in bytes, with what the allocator adds, as far as it is known.
    pub fn bytes(&self) -> usize {
        self.row_bytes
            + self.places.allocation_size()
            + self.slots.capacity() * size_of::<Slot>()
            + self.free.capacity() * size_of::<u32>()
            + self.buffer.capacity()
            + self.file.memory()
    }

    pub fn counters(&self) -> Counters {
        let units_in_memory = self.slots.len() - self.free.len();
        let usage = self.file.usage();
        Counters {
            units_in_memory,
            units_in_file: self.places.len() - units_in_memory,
            memory_bytes: self.bytes(),
            file_bytes: usage.file_bytes,
            file_bytes_used: usage.live_bytes,
            moved_out: self.moved_out,
            brought_back: self.brought_back,
        }
    }

    /// Gives a unit a slot in memory.
    fn add_slot(&mut self, key: u64, rows: Rows) {
        self.row_bytes += rows.bytes();
        let slot = Slot { key, rows, was_used: true };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                // An eighth more, instead of the double, keeps little room for nothing.
                if self.slots.len() == self.slots.capacity() {
                    self.slots.reserve_exact(1 + self.slots.len() / 8);
                }
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 units are in memory")
            }
        };
        self.set_place(key, Place::Slot(number));
    }

    fn set_place(&mut self, key: u64, place: Place) {
        // An insertion makes room for another key before it looks whether this one is there.
        match self.places.get_mut(&key) {
            Some(known) => *known = place,
            None => drop(self.places.insert(key, place)),
        }
    }

    fn free_slot(&mut self, number: u32) {
        self.slots[number as usize].was_used = false;
        self.free.push(number);
    }

    /// Moves rows to the file until the rest has room.
    fn make_room(&mut self) -> Result<(), Error> {
        while self.bytes() > self.bytes_max {
            let Some(number) = self.coldest() else {
                return Err(Error::NoRoom {
                    units: self.places.len(),
                    bytes: self.bytes(),
                    bytes_max: self.bytes_max,
                });
            };
            self.move_out(number)?;
            self.compact()?;
        }
        Ok(())
    }

    /// Moves the hand to the next unit that was not used since it came by. None if nobody's rows are in memory.
    fn coldest(&mut self) -> Option<u32> {
        // In the first circle all may have been used; in the second none has.
        for _ in 0..2 * self.slots.len() {
            let number = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[number];
            if !slot.rows.is_empty() && !std::mem::take(&mut slot.was_used) {
                return Some(number as u32);
            }
        }
        None
    }

    fn move_out(&mut self, number: u32) -> Result<(), Error> {
        let slot = &mut self.slots[number as usize];
        let (key, rows) = (slot.key, std::mem::take(&mut slot.rows));
        self.buffer.clear();
        rows.encode(&mut self.buffer);
        let address = self.file.append(key, &self.buffer)?;
        self.buffer.shrink_to(self.segment_bytes);
        self.set_place(key, Place::File(address));
        self.row_bytes -= rows.bytes();
        self.free_slot(number);
        self.moved_out += 1;
        Ok(())
    }

    /// Moves records together while more than half of the file is garbage.
    fn compact(&mut self) -> Result<(), Error> {
        while let Some(segment) = self.file.to_compact() {
            self.file.read_segment(segment, &mut self.buffer)?;
            let places = &mut self.places;
            self.file.records(segment, &self.buffer, |file, record| {
                let Some(Place::File(at)) = places.get_mut(&record.key) else { return Ok(()) };
                if *at == record.address {
                    *at = file.append(record.key, record.payload)?;
                    file.discard(record.address);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn bring_back(&mut self, key: u64, at: Address) -> Result<Rows, Error> {
        let payload = self.file.read(key, at, &mut self.buffer)?;
        let rows = Rows::decode(payload).map_err(|_| self.file.damaged(at))?;
        self.buffer.shrink_to(self.segment_bytes);
        Ok(rows)
    }
}

impl Store for BoundedMemory {
    type Error = Error;

    fn take(&mut self, key: u64) -> Result<Rows, Error> {
        match self.places.get(&key).copied() {
            None => Ok(Rows::default()),
            Some(Place::Slot(number)) => {
                let rows = std::mem::take(&mut self.slots[number as usize].rows);
                self.row_bytes -= rows.bytes();
                Ok(rows)
            }
            Some(Place::File(at)) => {
                let rows = self.bring_back(key, at)?;
                self.file.discard(at);
                self.brought_back += 1;
                self.add_slot(key, Rows::default());
                Ok(rows)
            }
        }
    }

    fn put(&mut self, key: u64, rows: Rows) -> Result<(), Error> {
        let slot = match self.places.get(&key).copied() {
            None => None,
            Some(Place::Slot(number)) => Some(number),
            // Its rows were not taken out: these replace them.
            Some(Place::File(at)) => {
                self.file.discard(at);
                self.places.remove(&key);
                None
            }
        };
        match slot {
            Some(number) if rows.is_empty() => {
                self.row_bytes -= std::mem::take(&mut self.slots[number as usize].rows).bytes();
                self.places.remove(&key);
                self.free_slot(number);
            }
            Some(number) => {
                let slot = &mut self.slots[number as usize];
                self.row_bytes += rows.bytes();
                self.row_bytes -= std::mem::replace(&mut slot.rows, rows).bytes();
                slot.was_used = true;
            }
            None if rows.is_empty() => {}
            None => self.add_slot(key, rows),
        }
        self.make_room()
    }

    fn visit(&mut self, mut visit: impl FnMut(u64, &Rows)) -> Result<(), Error> {
        for slot in self.slots.iter().filter(|slot| !slot.rows.is_empty()) {
            visit(slot.key, &slot.rows);
        }
        let places = &self.places;
        for segment in 0..self.file.segments() {
            self.file.read_segment(segment, &mut self.buffer)?;
            self.file.records(segment, &self.buffer, |file, record| {
                let Some(Place::File(at)) = places.get(&record.key) else { return Ok(()) };
                if *at == record.address {
                    let rows = Rows::decode(record.payload).map_err(|_| file.damaged(*at))?;
                    visit(record.key, &rows);
                }
                Ok(())
            })?;
            self.buffer.clear();
            self.buffer.shrink_to(self.segment_bytes);
        }
        Ok(())
    }
}
