//! The source of a record's fields: the message itself, if it was written with our own schema, or otherwise
//! the cells that a plan filled from the message. Records are read from both in the same order.

use std::borrow::Cow;

use uuid::Uuid;

use super::DecodeError;
use super::read::Reader;
use crate::event::{Decimal6, Pairs};

/// Reads fields by their path, in the order of our schema.
pub trait Source<'a> {
    fn text(&mut self, field: &'static str) -> Result<Cow<'a, str>, DecodeError>;
    fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError>;
    /// Reads an `int` or `long`.
    fn number(&mut self, field: &'static str) -> Result<Number, DecodeError>;
    fn map(&mut self, field: &'static str) -> Result<Pairs<'a>, DecodeError>;
    fn decimal(&mut self, field: &'static str) -> Result<Decimal6, DecodeError>;
    /// Reads whether an optional field has a value, which then follows.
    fn present(&mut self, field: &'static str) -> Result<bool, DecodeError>;

    /// Reads a number that must not be negative and must fit `T`.
    fn unsigned<T: TryFrom<i64>>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        let Number { value, at } = self.number(field)?;
        if value < 0 {
            return Err(DecodeError::Malformed { field, what: "negative", at });
        }
        T::try_from(value).map_err(|_| DecodeError::Malformed { field, what: "too large", at })
    }
}

/// A number and its position in the message.
#[derive(Clone, Copy)]
pub struct Number {
    pub value: i64,
    pub at: usize,
}

/// The most cells of any record, including the one for a map's value. Compiling a plan for more is a panic.
pub const CELLS_MAX: usize = 22;
/// The cell for the value of a map's entry, until the plan inserts it into the map.
pub const ENTRY: usize = CELLS_MAX - 1;

/// One leaf of a record.
#[derive(Clone, Debug, Default)]
pub enum Cell<'a> {
    #[default]
    Empty,
    Null,
    Present,
    Text(Cow<'a, str>),
    Uuid(Uuid),
    Number {
        value: i64,
        at: usize,
    },
    Decimal(Decimal6),
    Map(Pairs<'a>),
}

/// The leaves of one record, filled in the writer's order and read in ours.
pub struct Cells<'a> {
    paths: &'static [String],
    cells: [Cell<'a>; CELLS_MAX],
    next: usize,
}

impl<'a> Cells<'a> {
    pub fn new(paths: &'static [String]) -> Cells<'a> {
        Cells { paths, cells: Default::default(), next: 0 }
    }

    pub fn put(&mut self, slot: usize, cell: Cell<'a>) {
        self.cells[slot] = cell;
    }

    pub fn take_entry(&mut self) -> Cell<'a> {
        std::mem::take(&mut self.cells[ENTRY])
    }

    /// Advances to the cell of `field`. The leaves of a missing optional record are skipped.
    fn seek(&mut self, field: &'static str) -> &mut Cell<'a> {
        while self.paths.get(self.next).is_some_and(|path| path != field) {
            self.next += 1;
        }
        assert!(self.next < self.paths.len(), "`{field}` is read, and our schema does not have it there");
        &mut self.cells[self.next]
    }

    fn take(&mut self, field: &'static str) -> Cell<'a> {
        std::mem::take(self.seek(field))
    }
}

/// Panics: a plan fills each cell with a value of its leaf's type, or does not compile.
fn unfilled(field: &'static str, cell: &Cell<'_>) -> ! {
    panic!("the plan put {cell:?} where `{field}` is read")
}

impl<'a> Source<'a> for Cells<'a> {
    fn text(&mut self, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        match self.take(field) {
            Cell::Text(text) => Ok(text),
            other => unfilled(field, &other),
        }
    }

    fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        match self.take(field) {
            Cell::Uuid(uuid) => Ok(uuid),
            other => unfilled(field, &other),
        }
    }

    fn number(&mut self, field: &'static str) -> Result<Number, DecodeError> {
        match self.take(field) {
            Cell::Number { value, at } => Ok(Number { value, at }),
            other => unfilled(field, &other),
        }
    }

    fn map(&mut self, field: &'static str) -> Result<Pairs<'a>, DecodeError> {
        match self.take(field) {
            Cell::Map(pairs) => Ok(pairs),
            other => unfilled(field, &other),
        }
    }

    fn decimal(&mut self, field: &'static str) -> Result<Decimal6, DecodeError> {
        match self.take(field) {
            Cell::Decimal(decimal) => Ok(decimal),
            other => unfilled(field, &other),
        }
    }

    fn present(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.seek(field) {
            Cell::Null => Ok(false),
            Cell::Empty => unfilled(field, &Cell::Empty),
            _ => Ok(true),
        }
    }
}

impl<'a> Source<'a> for Reader<'a> {
    #[inline]
    fn text(&mut self, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        Reader::text(self, field).map(Cow::Borrowed)
    }

    #[inline]
    fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        Reader::uuid(self, field)
    }

    #[inline]
    fn number(&mut self, field: &'static str) -> Result<Number, DecodeError> {
        let at = self.at();
        self.long(field).map(|value| Number { value, at })
    }

    #[inline]
    fn map(&mut self, field: &'static str) -> Result<Pairs<'a>, DecodeError> {
        Reader::map(self, field)
    }

    #[inline]
    fn decimal(&mut self, field: &'static str) -> Result<Decimal6, DecodeError> {
        Reader::decimal(self, field)
    }

    /// In our own schemas null is the first of the two branches.
    #[inline]
    fn present(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.branch(field, 2).map(|branch| branch == 1)
    }
}
