//! From a writer's schema and ours to the steps between them. Source: Apache Avro 1.12 specification, "Schema
//! Resolution"; where it leaves a choice, or where meaning would be lost, the narrower reading is taken: which
//! types are taken for which of ours is the table of [`leaf`](super::leaf).

use std::collections::HashMap;

use serde_json::Value;

use super::{Plan, Step, leaf};
use crate::avro::schema::{Field, Node, NodeId, Record, Schema};
use crate::avro::source::{Cell, ENTRY};
use crate::avro::{IncompatibleSchema, RecordKind};
use crate::event::Pairs;

/// A union with so many branches is somebody's mistake.
const BRANCHES_MAX: usize = 1_000;

pub fn compile(
    kind: RecordKind,
    writer: &Schema,
    reader: &'static Schema,
) -> Result<Plan, IncompatibleSchema> {
    if same(writer, writer.root, reader, reader.root) {
        return Ok(Plan { kind, exact: true, steps: Vec::new(), end: 0, subroutines: Vec::new() });
    }
    let mut compiler = Compiler {
        writer,
        reader,
        paths: kind.paths(),
        steps: Vec::new(),
        subroutines: HashMap::new(),
        waiting: Vec::new(),
        empty: writer.empty_nodes(),
    };
    let whole = Place { path: String::new(), slot: None };
    compiler.resolve(writer.root, reader.root, &whole)?;
    let end = compiler.steps.len();

    let mut subroutines = Vec::new();
    while let Some(node) = compiler.waiting.get(subroutines.len()).copied() {
        let start = compiler.steps.len();
        let Node::Record(record) = writer.node(node) else { unreachable!("only records are waiting") };
        for field in &record.fields {
            compiler.skip(field.node)?;
        }
        subroutines.push((start, compiler.steps.len()));
    }
    Ok(Plan { kind, exact: false, steps: compiler.steps, end, subroutines })
}

/// Whether two schemas write the same bytes for the same record. Ours lead nowhere back to themselves, so
/// this ends.
fn same(writer: &Schema, left: NodeId, reader: &Schema, right: NodeId) -> bool {
    match (writer.node(left), reader.node(right)) {
        (Node::Array(left), Node::Array(right)) | (Node::Map(left), Node::Map(right)) => {
            same(writer, *left, reader, *right)
        }
        (Node::Union(left), Node::Union(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(writer, *left, reader, *right))
        }
        (Node::Record(left), Node::Record(right)) => {
            left.name.unqualified() == right.name.unqualified()
                && left.fields.len() == right.fields.len()
                && left.fields.iter().zip(&right.fields).all(|(left, right)| {
                    left.name == right.name && same(writer, left.node, reader, right.node)
                })
        }
        (left, right) => left == right,
    }
}

struct Compiler<'w> {
    writer: &'w Schema,
    reader: &'static Schema,
    paths: &'static [&'static str],
    steps: Vec<Step>,
    /// Named types that are skipped, each once however often it occurs.
    subroutines: HashMap<NodeId, usize>,
    waiting: Vec<NodeId>,
    /// Of each of the writer's nodes, whether its values take no bytes.
    empty: Vec<bool>,
}

/// Where in our record something goes.
struct Place {
    path: String,
    /// `None` for a record that is always there: its leaves have places, it has none.
    slot: Option<usize>,
}

impl Compiler<'_> {
    /// The steps that read a `writer` value into a `reader` place.
    fn resolve(&mut self, writer: NodeId, reader: NodeId, place: &Place) -> Result<(), IncompatibleSchema> {
        if let Node::Union(branches) = self.writer.node(writer) {
            return self.resolve_union(branches, reader, place);
        }
        let Node::Union(branches) = self.reader.node(reader) else {
            return self.resolve_plain(writer, reader, place);
        };
        // Ours are all of null and something.
        let mut refused = None;
        for branch in branches {
            let start = self.steps.len();
            match self.resolve_plain(writer, *branch, place) {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
            self.steps.truncate(start);
        }
        Err(refused.unwrap_or_else(|| self.mismatch(writer, reader, place)))
    }

    /// Each branch for itself: one that does not fit is refused where a message takes it.
    fn resolve_union(
        &mut self,
        branches: &[NodeId],
        reader: NodeId,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        if branches.len() > BRANCHES_MAX {
            return Err(place.incompatible(format!("a union of {} branches", branches.len())));
        }
        let field = self.field(place);
        let fork = self.steps.len();
        self.steps.push(Step::GoOn(fork));
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        let mut refused = None;
        let mut fits = false;
        for branch in branches {
            let target = self.steps.len();
            targets.push(target);
            let resolved = match self.writer.node(*branch) {
                Node::Union(_) => Err(place.incompatible("a union in a union")),
                _ => self.resolve(*branch, reader, place),
            };
            match resolved {
                Ok(()) => fits = true,
                Err(error) => {
                    self.steps.truncate(target);
                    self.steps
                        .push(Step::Refuse { field, what: "a branch of the writer's that ours has not" });
                    refused = Some(error);
                }
            }
            ends.push(self.steps.len());
            self.steps.push(Step::GoOn(0));
        }
        if !fits {
            return Err(refused.unwrap_or_else(|| place.incompatible("a union of nothing")));
        }
        let after = self.steps.len();
        for end in ends {
            self.steps[end] = Step::GoOn(after);
        }
        self.steps[fork] = Step::Branch { field, targets: targets.into() };
        Ok(())
    }

    /// Neither is a union.
    fn resolve_plain(
        &mut self,
        writer: NodeId,
        reader: NodeId,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        match (self.writer.node(writer), self.reader.node(reader)) {
            (Node::Record(written), Node::Record(ours)) => return self.resolve_record(written, ours, place),
            (Node::Map(values), Node::Map(ours)) => {
                let at = self.steps.len();
                let slot = place.leaf();
                self.steps.push(Step::Map { slot, body: 0 });
                let entry = Place { path: place.path.clone(), slot: Some(ENTRY) };
                self.resolve(*values, *ours, &entry)?;
                self.steps[at] = Step::Map { slot, body: self.steps.len() - at - 1 };
                return Ok(());
            }
            _ => {}
        }
        match leaf::step(self.writer.node(writer), self.reader.node(reader)) {
            Some(step) => self.steps.push(step(place.leaf())),
            None => return Err(self.mismatch(writer, reader, place)),
        }
        Ok(())
    }

    fn resolve_record(
        &mut self,
        writer: &Record,
        reader: &'static Record,
        place: &Place,
    ) -> Result<(), IncompatibleSchema> {
        if writer.name.unqualified() != reader.name.unqualified() && !reader.aliases.contains(&writer.name) {
            return Err(place.incompatible(format!(
                "a record {:?} where {:?} is read",
                writer.name.unqualified(),
                reader.name.unqualified()
            )));
        }
        if let Some(slot) = place.slot {
            self.steps.push(Step::Constant(slot, Cell::Present));
        }
        // Of our fields, which of the writer's each is: by its name, else by a former one.
        let mut ours_of: Vec<Option<&'static Field>> = vec![None; writer.fields.len()];
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
                Some(field) => self.resolve(written.node, field.node, &self.place_of(place, field))?,
                None => self.skip(written.node)?,
            }
        }
        Ok(())
    }

    /// What a field holds that the writer does not have.
    fn default(&mut self, field: &'static Field, place: &Place) -> Result<(), IncompatibleSchema> {
        let Some(default) = &field.default else {
            return Err(place.incompatible("the writer does not have it, and it has no default"));
        };
        self.constant(field.node, default, place);
        Ok(())
    }

    /// A default of our own schema. That it fits its type is checked by a test.
    fn constant(&mut self, reader: NodeId, value: &'static Value, place: &Place) {
        let cell = match (self.reader.node(reader), value) {
            // The default of a union is one of its first branch.
            (Node::Union(branches), value) => return self.constant(branches[0], value, place),
            (Node::Record(record), Value::Object(values)) => {
                for field in &record.fields {
                    let value = values.get(&field.name).or(field.default.as_ref());
                    let value = value.expect("a record's default has all its fields");
                    self.constant(field.node, value, &self.place_of(place, field));
                }
                return;
            }
            (Node::Null, Value::Null) => Cell::Null,
            (Node::String { uuid: false }, Value::String(text)) => Cell::Text(text.as_str().into()),
            (Node::Int(_) | Node::Long(_), Value::Number(number)) => {
                Cell::Number { value: number.as_i64().expect("a whole default"), at: 0 }
            }
            (Node::Map(_), Value::Object(entries)) if entries.is_empty() => Cell::Map(Pairs::default()),
            (node, value) => unreachable!("{}: {value} is no default of {node:?}", place.path),
        };
        self.steps.push(Step::Constant(place.leaf(), cell));
    }

    fn skip(&mut self, writer: NodeId) -> Result<(), IncompatibleSchema> {
        let step = match self.writer.node(writer) {
            Node::Null => return Ok(()),
            Node::Boolean => Step::SkipBoolean,
            Node::Int(_) => Step::SkipInt,
            Node::Long(_) => Step::SkipLong,
            Node::Float => Step::SkipFixed(4),
            Node::Double => Step::SkipFixed(8),
            Node::Bytes(_) => Step::SkipBytes,
            Node::String { .. } => Step::SkipText,
            Node::Fixed { size: 0 } => return Ok(()),
            Node::Fixed { size } => Step::SkipFixed(*size),
            Node::Enum { symbols } => Step::SkipEnum(symbols.len()),
            Node::Array(items) => return self.skip_items(false, *items),
            Node::Map(values) => return self.skip_items(true, *values),
            Node::Union(branches) => return self.skip_union(branches),
            Node::Record(_) if self.empty[writer] => return Ok(()),
            Node::Record(_) => {
                let next = self.waiting.len();
                let subroutine = *self.subroutines.entry(writer).or_insert(next);
                if subroutine == next {
                    self.waiting.push(writer);
                }
                Step::SkipNamed(subroutine)
            }
        };
        self.steps.push(step);
        Ok(())
    }

    fn skip_items(&mut self, keyed: bool, item: NodeId) -> Result<(), IncompatibleSchema> {
        let at = self.steps.len();
        self.steps.push(Step::SkipItems { keyed, body: 0 });
        self.skip(item)?;
        self.steps[at] = Step::SkipItems { keyed, body: self.steps.len() - at - 1 };
        Ok(())
    }

    fn skip_union(&mut self, branches: &[NodeId]) -> Result<(), IncompatibleSchema> {
        if branches.len() > BRANCHES_MAX {
            let what = format!("a union of {} branches", branches.len());
            return Err(IncompatibleSchema::NotASchema { what });
        }
        let fork = self.steps.len();
        self.steps.push(Step::GoOn(fork));
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        for branch in branches {
            targets.push(self.steps.len());
            self.skip(*branch)?;
            ends.push(self.steps.len());
            self.steps.push(Step::GoOn(0));
        }
        let after = self.steps.len();
        for end in ends {
            self.steps[end] = Step::GoOn(after);
        }
        self.steps[fork] = Step::Branch { field: super::SKIPPED, targets: targets.into() };
        Ok(())
    }

    fn place_of(&self, place: &Place, field: &Field) -> Place {
        let path = match place.path.as_str() {
            "" => field.name.clone(),
            outer => format!("{outer}.{}", field.name),
        };
        let slot = self.paths.iter().position(|known| *known == path);
        Place { path, slot }
    }

    fn field(&self, place: &Place) -> &'static str {
        let known = self.paths.iter().find(|path| **path == place.path);
        known
            .copied()
            .or_else(|| self.paths.iter().find(|path| path.starts_with(&place.path)).copied())
            .unwrap_or("")
    }

    fn mismatch(&self, writer: NodeId, reader: NodeId, place: &Place) -> IncompatibleSchema {
        place.incompatible(leaf::mismatch(self.writer.node(writer), self.reader.node(reader)))
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

    fn leaves(schema: &Schema, node: NodeId, path: &str, found: &mut Vec<String>) {
        let node = match schema.node(node) {
            Node::Union(branches) => {
                let value = schema.node(branches[1]);
                if let Node::Record(_) = value {
                    found.push(path.to_owned());
                }
                value
            }
            plain => plain,
        };
        let Node::Record(record) = node else { return found.push(path.to_owned()) };
        for field in &record.fields {
            let inner = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            leaves(schema, field.node, &inner, found);
        }
    }

    #[test]
    fn the_paths_are_those_of_our_schemas() {
        for kind in RecordKind::ALL {
            let mut found = Vec::new();
            leaves(kind.reader(), kind.reader().root, "", &mut found);
            assert_eq!(found, kind.paths(), "{kind:?}");
        }
    }

    #[test]
    fn every_default_of_ours_fits_its_type() {
        for kind in RecordKind::ALL {
            let writer = format!(
                r#"{{"type": "record", "name": "{}", "fields": []}}"#,
                match kind {
                    RecordKind::DefinitionChange => "DefinitionChange",
                    RecordKind::Exposure => "Exposure",
                    RecordKind::Conversion => "Conversion",
                    RecordKind::Alias => "Alias",
                    RecordKind::Look => "Look",
                }
            );
            let writer = Schema::parse(&writer).unwrap();
            let (paths, reader) = (kind.paths(), kind.reader());
            let mut compiler = Compiler {
                writer: &writer,
                reader,
                paths,
                steps: Vec::new(),
                subroutines: HashMap::new(),
                waiting: Vec::new(),
                empty: writer.empty_nodes(),
            };
            let Node::Record(record) = reader.node(reader.root) else { panic!("not a record") };
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
        let reader: &'static Schema = Box::leak(Box::new(Schema::parse(&text).unwrap()));
        let written = RecordKind::Alias.schema().replace("\"environment\"", "\"env\"");
        for (name, fits) in [
            ("\"Alias\"", true),
            ("\"splitstream.events.Link\"", true),
            ("\"old.Merge\"", true),
            ("\"old.Link\"", false),
        ] {
            let writer = written.replacen("\"Alias\"", name, 1);
            let plan = compile(RecordKind::Alias, &Schema::parse(&writer).unwrap(), reader);
            assert_eq!(plan.is_ok(), fits, "{name}");
            let Ok(plan) = plan else { continue };
            let slot = RecordKind::Alias.paths().iter().position(|path| *path == "environment").unwrap();
            let reads = |step: &Step| matches!(step, Step::Text(place) if *place == slot);
            assert!(plan.steps.iter().any(reads), "{name}");
            assert!(
                !plan.steps.iter().any(|step| matches!(step, Step::Constant(place, _) if *place == slot))
            );
        }
    }
}
