//! Compiles a writer's schema and ours, both parsed by the Avro library, to the steps of a plan. Source:
//! Apache Avro 1.12 specification, "Schema Resolution"; where it leaves a choice, or where meaning would be
//! lost, the narrower interpretation is used. The table in [`leaf`](super::leaf) lists the types that are
//! accepted for each of ours.
//!
//! Compiling also decides whether two schemas are compatible. The library's `SchemaCompatibility` cannot be
//! used: it treats every logical type as its base type (milliseconds as microseconds), refuses decimals of
//! another precision, and does not follow names, so that a type is incompatible with itself if one schema
//! declares it and the other names it. A test compares its results with ours
//! (`tests/evolution/compatibility.rs`).

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema, UuidSchema};
use serde_json::Value;

use super::{Plan, Step, leaf};
use crate::avro::kind::{OurSchema, path_of};
use crate::avro::schema::{Names, WriterSchema, fixed_size};
use crate::avro::source::{Cell, ENTRY};
use crate::avro::{IncompatibleSchema, RecordKind};
use crate::event::Pairs;

/// The most branches of a union. A union with more is a mistake.
const BRANCHES_MAX: usize = 1_000;

pub fn compile(
    kind: RecordKind,
    written: &WriterSchema,
    ours: &'static OurSchema,
) -> Result<Plan, IncompatibleSchema> {
    let OurSchema { schema: reader, paths } = ours;
    assert!(
        paths.len() <= ENTRY,
        "{kind:?}: {} leaves and a map's entry are more than CELLS_MAX",
        paths.len()
    );
    let (writer, writer_names) = written.resolve()?;
    let mut compiler = Compiler::new(writer_names, ours)?;
    if compiler.same(writer, reader) {
        return Ok(Plan { kind, paths, exact: true, steps: Vec::new(), end: 0, subroutines: Vec::new() });
    }
    let whole = Place { path: String::new(), slot: None };
    compiler.resolve(writer, reader, &whole)?;
    let end = compiler.steps.len();

    let mut subroutines = Vec::new();
    while let Some(record) = compiler.waiting.get(subroutines.len()).copied() {
        let start = compiler.steps.len();
        for field in &record.fields {
            compiler.skip(&field.schema)?;
        }
        subroutines.push((start, compiler.steps.len()));
    }
    Ok(Plan { kind, paths, exact: false, steps: compiler.steps, end, subroutines })
}

struct Compiler<'w> {
    writer: Names<'w>,
    reader: Names<'static>,
    paths: &'static [String],
    steps: Vec<Step>,
    /// The records that are skipped, each compiled once however often it occurs.
    subroutines: HashMap<&'w Name, usize>,
    waiting: Vec<&'w RecordSchema>,
}

/// The place of a value in our record.
struct Place {
    path: String,
    /// `None` for a record that is always present: only its leaves have slots.
    slot: Option<usize>,
}

impl<'w> Compiler<'w> {
    fn new(writer: Names<'w>, ours: &'static OurSchema) -> Result<Compiler<'w>, IncompatibleSchema> {
        Ok(Compiler {
            writer,
            reader: Names::of(&ours.schema)?,
            paths: &ours.paths,
            steps: Vec::new(),
            subroutines: HashMap::new(),
            waiting: Vec::new(),
        })
    }

    /// Returns whether two schemas write the same bytes for the same record. This terminates, because our
    /// schemas are not recursive.
    fn same(&self, writer: &'w Schema, reader: &'static Schema) -> bool {
        match (self.writer.resolve(writer), self.reader.resolve(reader)) {
            (Schema::Array(left), Schema::Array(right)) => self.same(&left.items, &right.items),
            (Schema::Map(left), Schema::Map(right)) => self.same(&left.types, &right.types),
            (Schema::Union(left), Schema::Union(right)) => {
                let (left, right) = (left.variants(), right.variants());
                left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| self.same(left, right))
            }
            (Schema::Record(left), Schema::Record(right)) => {
                left.name.name() == right.name.name()
                    && left.fields.len() == right.fields.len()
                    && left.fields.iter().zip(&right.fields).all(|(left, right)| {
                        left.name == right.name && self.same(&left.schema, &right.schema)
                    })
            }
            (left, right) => leaf::same(left, right),
        }
    }

    /// Compiles the steps that read a `writer` value into the place of a `reader` value.
    fn resolve(
        &mut self,
        writer: &'w Schema,
        reader: &'static Schema,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        let (writer, reader) = (self.writer.resolve(writer), self.reader.resolve(reader));
        if let Schema::Union(union) = writer {
            return self.resolve_union(union.variants(), reader, place);
        }
        let Schema::Union(union) = reader else {
            return self.resolve_plain(writer, reader, place);
        };
        // All our unions are of null and one other type.
        let mut refused = None;
        for branch in union.variants() {
            let start = self.steps.len();
            match self.resolve_plain(writer, self.reader.resolve(branch), place) {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
            self.steps.truncate(start);
        }
        Err(refused.unwrap_or_else(|| place.incompatible(leaf::mismatch(writer, reader))))
    }

    /// Compiles each branch separately: an incompatible branch is an error only for a message that uses it.
    fn resolve_union(
        &mut self,
        branches: &'w [Schema],
        reader: &'static Schema,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        if branches.len() > BRANCHES_MAX {
            return Err(place.incompatible(format!("a union of {} branches", branches.len())));
        }
        let field = self.field(place);
        let fork = self.steps.len();
        self.steps.push(Step::Jump(fork));
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        let mut refused = None;
        let mut fits = false;
        for branch in branches {
            let target = self.steps.len();
            targets.push(target);
            match self.resolve(branch, reader, place) {
                Ok(()) => fits = true,
                Err(error) => {
                    self.steps.truncate(target);
                    self.steps.push(Step::Refuse {
                        field,
                        what: "a branch of the writer's union that our schema does not have",
                    });
                    refused = Some(error);
                }
            }
            ends.push(self.steps.len());
            self.steps.push(Step::Jump(0));
        }
        if !fits {
            return Err(refused.unwrap_or_else(|| place.incompatible("a union of nothing")));
        }
        let after = self.steps.len();
        for end in ends {
            self.steps[end] = Step::Jump(after);
        }
        self.steps[fork] = Step::Branch { field, targets: targets.into() };
        Ok(())
    }

    /// Compiles two schemas that are neither unions nor names.
    fn resolve_plain(
        &mut self,
        writer: &'w Schema,
        reader: &'static Schema,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        match (writer, reader) {
            (Schema::Record(written), Schema::Record(ours)) => {
                return self.resolve_record(written, ours, place);
            }
            (Schema::Map(written), Schema::Map(ours)) => {
                let at = self.steps.len();
                let slot = place.leaf();
                self.steps.push(Step::Map { slot, body: 0 });
                let entry = Place { path: place.path.clone(), slot: Some(ENTRY) };
                self.resolve(&written.types, &ours.types, &entry)?;
                self.steps[at] = Step::Map { slot, body: self.steps.len() - at - 1 };
                return Ok(());
            }
            _ => {}
        }
        match leaf::step(writer, reader) {
            Some(step) => self.steps.push(step(place.leaf())),
            None => return Err(place.incompatible(leaf::mismatch(writer, reader))),
        }
        Ok(())
    }

    fn resolve_record(
        &mut self,
        writer: &'w RecordSchema,
        reader: &'static RecordSchema,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        let (written, ours) = (writer.name.name(), reader.name.name());
        let full_name = writer.name.fullname(None);
        let mut former_names = reader.aliases.iter().flatten().map(|alias| alias.fullname(None));
        if written != ours && !former_names.any(|former| former == full_name) {
            return Err(place.incompatible(format!("a record {written:?} where {ours:?} is read")));
        }
        if let Some(slot) = place.slot {
            self.steps.push(Step::Constant(slot, Cell::Present));
        }
        // For each field of the writer, our field: found by its name or, failing that, by an alias.
        let mut ours_of: Vec<Option<&'static RecordField>> = vec![None; writer.fields.len()];
        for field in &reader.fields {
            let found =
                writer.fields.iter().position(|written| written.name == field.name).or_else(|| {
                    writer.fields.iter().position(|written| field.aliases.contains(&written.name))
                });
            match found {
                Some(at) => ours_of[at] = Some(field),
                None => self.default(field, &self.place_of(place, field))?,
            }
        }
        for (written, ours) in writer.fields.iter().zip(ours_of) {
            match ours {
                Some(field) => {
                    self.resolve(&written.schema, &field.schema, &self.place_of(place, field))?;
                }
                None => self.skip(&written.schema)?,
            }
        }
        Ok(())
    }

    /// Compiles the default of a field that the writer does not have.
    fn default(&mut self, field: &'static RecordField, place: &Place) -> Result<(), IncompatibleSchema> {
        let Some(default) = &field.default else {
            return Err(place.incompatible("the writer does not have it, and it has no default"));
        };
        self.constant(&field.schema, default, place);
        Ok(())
    }

    /// Compiles a default of our own schema. A test checks that it fits its type.
    fn constant(&mut self, reader: &'static Schema, value: &'static Value, place: &Place) {
        let cell = match (self.reader.resolve(reader), value) {
            // The default of a union is one of its first branch.
            (Schema::Union(union), value) => return self.constant(&union.variants()[0], value, place),
            (Schema::Record(record), Value::Object(values)) => {
                for field in &record.fields {
                    let value = values.get(&field.name).or(field.default.as_ref());
                    let value = value.expect("a record's default has all its fields");
                    self.constant(&field.schema, value, &self.place_of(place, field));
                }
                return;
            }
            (Schema::Null, Value::Null) => Cell::Null,
            (Schema::String, Value::String(text)) => Cell::Text(text.as_str().into()),
            (Schema::Int | Schema::Long, Value::Number(number)) => {
                Cell::Number { value: number.as_i64().expect("a whole default"), at: 0 }
            }
            (Schema::Map(_), Value::Object(entries)) if entries.is_empty() => Cell::Map(Pairs::default()),
            (schema, value) => unreachable!("{}: {value} is no default of {schema:?}", place.path),
        };
        self.steps.push(Step::Constant(place.leaf(), cell));
    }

    fn skip(&mut self, writer: &'w Schema) -> Result<(), IncompatibleSchema> {
        let writer = self.writer.resolve(writer);
        let step = match writer {
            Schema::Null => return Ok(()),
            Schema::Boolean => Step::SkipBoolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Step::SkipInt,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Step::SkipLong,
            Schema::Float => Step::SkipFixed(4),
            Schema::Double => Step::SkipFixed(8),
            Schema::String | Schema::Uuid(UuidSchema::String) => Step::SkipText,
            Schema::Fixed(_)
            | Schema::Duration(_)
            | Schema::Uuid(_)
            | Schema::Decimal(_)
            | Schema::Bytes
            | Schema::BigDecimal => match fixed_size(writer) {
                Some(0) => return Ok(()),
                Some(size) => Step::SkipFixed(size),
                None => Step::SkipBytes,
            },
            Schema::Enum(schema) => Step::SkipEnum(schema.symbols.len()),
            Schema::Array(array) => return self.skip_items(false, &array.items),
            Schema::Map(map) => return self.skip_items(true, &map.types),
            Schema::Union(union) => return self.skip_union(union.variants()),
            Schema::Record(record) if self.writer.is_empty(&record.name) => return Ok(()),
            Schema::Record(record) => {
                let next = self.waiting.len();
                let subroutine = *self.subroutines.entry(&record.name).or_insert(next);
                if subroutine == next {
                    self.waiting.push(record);
                }
                Step::SkipNamed(subroutine)
            }
            Schema::Ref { name } => unreachable!("{name} was resolved"),
        };
        self.steps.push(step);
        Ok(())
    }

    fn skip_items(&mut self, keyed: bool, item: &'w Schema) -> Result<(), IncompatibleSchema> {
        let at = self.steps.len();
        self.steps.push(Step::SkipItems { keyed, body: 0 });
        self.skip(item)?;
        self.steps[at] = Step::SkipItems { keyed, body: self.steps.len() - at - 1 };
        Ok(())
    }

    fn skip_union(&mut self, branches: &'w [Schema]) -> Result<(), IncompatibleSchema> {
        if branches.len() > BRANCHES_MAX {
            let what = format!("a union of {} branches", branches.len());
            return Err(IncompatibleSchema::NotASchema { what });
        }
        let fork = self.steps.len();
        self.steps.push(Step::Jump(fork));
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        for branch in branches {
            targets.push(self.steps.len());
            self.skip(branch)?;
            ends.push(self.steps.len());
            self.steps.push(Step::Jump(0));
        }
        let after = self.steps.len();
        for end in ends {
            self.steps[end] = Step::Jump(after);
        }
        self.steps[fork] = Step::Branch { field: super::SKIPPED, targets: targets.into() };
        Ok(())
    }

    fn place_of(&self, place: &Place, field: &RecordField) -> Place {
        let path = path_of(&place.path, &field.name);
        let slot = self.paths.iter().position(|known| *known == path);
        Place { path, slot }
    }

    /// Returns what errors call a place. A record that is always present is called by its first leaf.
    fn field(&self, place: &Place) -> &'static str {
        let exactly = self.paths.iter().find(|path| **path == place.path);
        let inside = || self.paths.iter().find(|path| path.starts_with(&place.path));
        exactly.or_else(inside).map_or("", String::as_str)
    }
}

impl Place {
    fn leaf(&self) -> usize {
        self.slot.unwrap_or_else(|| panic!("`{}` is a leaf of our schema and has no cell", self.path))
    }

    fn incompatible(&self, what: impl Into<String>) -> IncompatibleSchema {
        let field = match self.path.as_str() {
            "" => "the record".to_owned(),
            path => path.to_owned(),
        };
        IncompatibleSchema::Field { field, what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_of_ours_fits_its_type() {
        for kind in RecordKind::ALL {
            let writer = WriterSchema::parse("\"null\"", &[]).unwrap();
            let (_, names) = writer.resolve().unwrap();
            let mut compiler = Compiler::new(names, kind.our_schema()).unwrap();
            let Schema::Record(record) = &kind.our_schema().schema else { panic!("not a record") };
            let whole = Place { path: String::new(), slot: None };
            for field in record.fields.iter().filter(|field| field.default.is_some()) {
                compiler.default(field, &compiler.place_of(&whole, field)).unwrap();
            }
        }
    }

    /// A reader's schema that knows former names of a field and of a record.
    #[test]
    fn a_former_name_is_found_by_our_aliases() {
        let text = RecordKind::Alias.schema();
        let text =
            text.replacen(r#""name": "Alias","#, r#""name": "Alias", "aliases": ["Link", "old.Merge"],"#, 1);
        let text = text.replace(
            r#"{"name": "environment", "#,
            r#"{"name": "environment", "aliases": ["stage", "env"], "#,
        );
        let paths = RecordKind::Alias.our_schema().paths.clone();
        let ours: &'static OurSchema =
            Box::leak(Box::new(OurSchema { schema: Schema::parse_str(&text).unwrap(), paths }));
        let written = RecordKind::Alias.schema().replace("\"environment\"", "\"env\"");
        for (name, fits) in [
            ("\"Alias\"", true),
            ("\"splitstream.events.Link\"", true),
            ("\"old.Merge\"", true),
            ("\"old.Link\"", false),
        ] {
            let writer = written.replacen("\"Alias\"", name, 1);
            let plan = compile(RecordKind::Alias, &WriterSchema::parse(&writer, &[]).unwrap(), ours);
            assert_eq!(plan.is_ok(), fits, "{name}");
            let Ok(plan) = plan else { continue };
            let slot = ours.paths.iter().position(|path| path == "environment").unwrap();
            let reads = |step: &Step| matches!(step, Step::Text(place) if *place == slot);
            assert!(plan.steps.iter().any(reads), "{name}");
            assert!(
                !plan.steps.iter().any(|step| matches!(step, Step::Constant(place, _) if *place == slot))
            );
        }
    }
}
