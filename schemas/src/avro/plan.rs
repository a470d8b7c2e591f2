//! A plan decodes a message of a writer's schema as one of our records. It is a flat list of steps, compiled
//! once for each writer's schema and run for each message. A step reads a leaf, skips a value, or jumps to
//! another step. Our own schema needs no steps.

use std::borrow::Cow;

use super::read::Reader;
use super::schema::WriterSchema;
use super::source::{Cell, Cells, ENTRY};
use super::{AvroRecord, DecodeError, IncompatibleSchema, RecordKind};
use crate::event::{MAP_ENTRIES_MAX, Pairs};

mod compile;
mod leaf;

/// How deep the skipped values of a message may nest.
const DEPTH_MAX: usize = 64;
/// The most skipped items of one array that take no bytes. Other items are bounded by the message's size.
const EMPTY_ITEMS_MAX: i64 = 65_536;
/// What errors call a field that is skipped.
const SKIPPED: &str = "a field of the writer's own";

/// Decodes messages of one writer's schema as one of our records.
pub struct Plan {
    kind: RecordKind,
    /// The paths of our record's leaves.
    paths: &'static [String],
    /// The writer's schema is the same as ours: the record is read directly from the message.
    exact: bool,
    steps: Vec<Step>,
    /// The end of the steps of the record itself. The steps of skipped named types follow.
    end: usize,
    /// The start and the end of the steps of each skipped named type.
    subroutines: Vec<(usize, usize)>,
}

/// One step. `body` counts the steps that follow and belong to it.
#[derive(Clone, Debug)]
enum Step {
    Text(usize),
    Uuid(usize),
    Int(usize),
    Long(usize),
    /// A `long` without a logical type, read as a time.
    UntypedTime(usize),
    Decimal(usize),
    /// A value that does not come from the message.
    Constant(usize, Cell<'static>),
    /// A map, read into the cell. The body reads one value into the cell of entries.
    Map {
        slot: usize,
        body: usize,
    },
    /// A union: reads the index of the branch and jumps to the steps of this branch.
    Branch {
        field: &'static str,
        targets: Box<[usize]>,
    },
    Jump(usize),
    /// A value that our record cannot represent, although it can represent other values of the writer's type.
    Refuse {
        field: &'static str,
        what: &'static str,
    },
    SkipInt,
    SkipLong,
    SkipBoolean,
    SkipBytes,
    SkipText,
    SkipFixed(usize),
    SkipEnum(usize),
    SkipItems {
        keyed: bool,
        body: usize,
    },
    SkipNamed(usize),
}

impl Plan {
    /// # Errors
    /// If the text is not a schema, or if records written with it do not have what `kind` needs.
    pub fn compile(kind: RecordKind, writer: &str) -> Result<Plan, IncompatibleSchema> {
        Plan::compile_with(kind, writer, &[])
    }

    /// As [`Plan::compile`], for a schema that names types that other texts declare: its references in a
    /// registry, each after those that it names itself.
    ///
    /// # Errors
    /// Also if two of the texts declare different types of the same name.
    pub fn compile_with(
        kind: RecordKind,
        writer: &str,
        referenced: &[String],
    ) -> Result<Plan, IncompatibleSchema> {
        compile::compile(kind, &WriterSchema::parse(writer, referenced)?, kind.our_schema())
    }

    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Returns whether the writer's schema is the same as ours, so that records are read directly from the
    /// message.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Decodes the record in the body of a message, with every field in its range.
    #[inline]
    pub fn decode<'a, T: AvroRecord<'a>>(&self, body: Body<'a>) -> Result<T, DecodeError> {
        assert_eq!(self.kind, T::KIND, "a plan is for one kind of record");
        if self.exact
            && let Some(record) = T::read_quickly(body)
        {
            record.check()?;
            return Ok(record);
        }
        self.decode_slowly(body)
    }

    /// The general decoder, for any writer and any message.
    pub(super) fn decode_slowly<'a, T: AvroRecord<'a>>(&self, body: Body<'a>) -> Result<T, DecodeError> {
        let mut reader = Reader::new(body.message, body.at);
        let record = if self.exact {
            T::read(&mut reader)?
        } else {
            let mut cells = Cells::new(self.paths);
            self.run(&mut reader, &mut cells, 0, self.end, 0)?;
            T::read(&mut cells)?
        };
        match reader.remaining() {
            0 => {}
            extra => return Err(DecodeError::Trailing { extra }),
        }
        record.check()?;
        Ok(record)
    }

    fn run<'a>(
        &self,
        reader: &mut Reader<'a>,
        cells: &mut Cells<'a>,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let paths = self.paths;
        let path = |slot: usize| paths.get(slot).map_or("a map's value", String::as_str);
        let mut at = start;
        while at < end {
            let mut next = at + 1;
            match &self.steps[at] {
                Step::Text(slot) => {
                    let text = reader.text(path(*slot))?;
                    cells.put(*slot, Cell::Text(Cow::Borrowed(text)));
                }
                Step::Uuid(slot) => {
                    let uuid = reader.uuid(path(*slot))?;
                    cells.put(*slot, Cell::Uuid(uuid));
                }
                Step::Int(slot) => {
                    let start = reader.at();
                    let value = reader.int(path(*slot))?;
                    cells.put(*slot, Cell::Number { value: value.into(), at: start });
                }
                Step::Long(slot) => {
                    let start = reader.at();
                    let value = reader.long(path(*slot))?;
                    cells.put(*slot, Cell::Number { value, at: start });
                }
                Step::UntypedTime(slot) => {
                    let (start, field) = (reader.at(), path(*slot));
                    let value = reader.long(field)?;
                    leaf::untyped_time(value).map_err(|what| DecodeError::Malformed {
                        field,
                        what,
                        at: start,
                    })?;
                    cells.put(*slot, Cell::Number { value, at: start });
                }
                Step::Decimal(slot) => {
                    let decimal = reader.decimal(path(*slot))?;
                    cells.put(*slot, Cell::Decimal(decimal));
                }
                Step::Constant(slot, cell) => cells.put(*slot, cell.clone()),
                Step::Map { slot, body } => {
                    next = at + 1 + body;
                    let map = match &self.steps[at + 1..next] {
                        [Step::Text(ENTRY)] => reader.map(path(*slot))?,
                        _ => self.map(reader, cells, path(*slot), at + 1, next, depth)?,
                    };
                    cells.put(*slot, Cell::Map(map));
                }
                Step::Branch { field, targets } => {
                    next = targets[reader.branch(field, targets.len() as i64)? as usize];
                }
                Step::Jump(target) => next = *target,
                Step::Refuse { field, what } => return Err(reader.malformed(field, what)),
                Step::SkipInt => {
                    reader.int(SKIPPED)?;
                }
                Step::SkipLong => {
                    reader.long(SKIPPED)?;
                }
                Step::SkipBoolean => match reader.fixed(SKIPPED, 1)? {
                    [0 | 1] => {}
                    _ => return Err(reader.malformed(SKIPPED, "neither true nor false")),
                },
                Step::SkipBytes => {
                    reader.bytes(SKIPPED)?;
                }
                Step::SkipText => {
                    reader.text(SKIPPED)?;
                }
                Step::SkipFixed(size) => {
                    reader.fixed(SKIPPED, *size)?;
                }
                Step::SkipEnum(symbols) => {
                    let symbol = reader.int(SKIPPED)?;
                    if !usize::try_from(symbol).is_ok_and(|symbol| symbol < *symbols) {
                        return Err(reader.malformed(SKIPPED, "no such symbol of the enum"));
                    }
                }
                Step::SkipItems { keyed, body } => {
                    next = at + 1 + body;
                    self.skip_items(reader, cells, *keyed, at + 1, next, depth)?;
                }
                Step::SkipNamed(subroutine) => {
                    if depth == DEPTH_MAX {
                        return Err(reader.malformed(SKIPPED, "nested too deep"));
                    }
                    let (start, end) = self.subroutines[*subroutine];
                    self.run(reader, cells, start, end, depth + 1)?;
                }
            }
            at = next;
        }
        Ok(())
    }

    /// Reads a map whose values are not simply texts.
    fn map<'a>(
        &self,
        reader: &mut Reader<'a>,
        cells: &mut Cells<'a>,
        field: &'static str,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Result<Pairs<'a>, DecodeError> {
        let mut pairs = Pairs::default();
        let mut entries = 0_i64;
        loop {
            let count = reader.block(field)?;
            if count == 0 {
                return Ok(pairs);
            }
            entries = entries.saturating_add(count);
            if entries > MAP_ENTRIES_MAX as i64 {
                return Err(reader.malformed(field, "more than 64 entries"));
            }
            for _ in 0..count {
                let name = reader.text(field)?;
                self.run(reader, cells, start, end, depth)?;
                match cells.take_entry() {
                    Cell::Text(value) => pairs.insert(name, value),
                    other => unreachable!("a map's value is a text, not {other:?}"),
                }
            }
        }
    }

    fn skip_items<'a>(
        &self,
        reader: &mut Reader<'a>,
        cells: &mut Cells<'a>,
        keyed: bool,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Result<(), DecodeError> {
        if depth == DEPTH_MAX {
            return Err(reader.malformed(SKIPPED, "nested too deep"));
        }
        let mut empty_items = 0_i64;
        loop {
            let count = reader.block(SKIPPED)?;
            if count == 0 {
                return Ok(());
            }
            if start == end && !keyed {
                // These items take no bytes, so only this check bounds them.
                empty_items = empty_items.saturating_add(count);
                if empty_items > EMPTY_ITEMS_MAX {
                    return Err(reader.malformed(SKIPPED, "too many items"));
                }
                continue;
            }
            for _ in 0..count {
                if keyed {
                    reader.text(SKIPPED)?;
                }
                self.run(reader, cells, start, end, depth + 1)?;
            }
        }
    }
}

/// The body of a message, which follows its framing.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    pub(super) message: &'a [u8],
    pub(super) at: usize,
}
