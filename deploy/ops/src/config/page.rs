//! Sections that document themselves. The list of a section's fields is checked against the fields that serde
//! reads, so that `config` prints exactly the settings that the program accepts.

use std::collections::{BTreeSet, btree_map};
use std::fmt::Write;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{self, Node, Value};
use super::{Config, Error, FILE_VERSION, PREFIX, Setting, Shown};

/// One table of the configuration. Its struct has `#[serde(deny_unknown_fields)]` and a default
/// for every field that [`REQUIRED`](Section::REQUIRED) does not name.
pub trait Section: DeserializeOwned {
    /// The name of the table in the file.
    const NAME: &'static str;

    /// The shortest valid text of the section: one line with an example for each setting without a default;
    /// empty if every setting has a default.
    const REQUIRED: &'static str = "";

    /// Returns every field in the order of the struct.
    fn fields(&self) -> Vec<Field>;

    /// Checks settings that exclude or need each other. The error names the settings by their full path.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// One setting with its documentation and its value.
#[derive(Debug, Clone)]
pub struct Field {
    key: &'static str,
    doc: &'static str,
    allowed: String,
    shown: Shown,
}

impl Field {
    /// Declares a setting. `doc` describes on one line what it does and what happens at its bound.
    pub fn of<T: Setting>(key: &'static str, value: &T, doc: &'static str) -> Field {
        Field { key, doc, allowed: T::allowed(), shown: value.shown() }
    }
}

/// A section as [`render`] prints it, and the result of its own check.
#[derive(Debug)]
pub struct Page {
    name: &'static str,
    entries: Vec<Entry>,
    pub(super) checked: Result<(), Error>,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    /// `None` if the setting is required.
    default: Option<Shown>,
    example: Shown,
}

impl Page {
    /// Creates the page of a section with its current values.
    pub fn of<S: Section>(section: &S) -> Page {
        let required = required_keys::<S>();
        let shortest: S = parse(S::REQUIRED).expect("a section's shortest text is valid");
        let mut entries = Vec::new();
        for (field, base) in section.fields().into_iter().zip(shortest.fields()) {
            let default = (!required.contains(base.key)).then(|| base.shown.clone());
            entries.push(Entry { field, default, example: base.shown });
        }
        Page { name: S::NAME, entries, checked: section.check().map_err(Error::from) }
    }
}

/// The settings of a section that have no default.
#[derive(Debug)]
pub struct Required {
    section: &'static str,
    /// An example for each, one on a line.
    examples: &'static str,
}

/// A setting by its section and its key.
pub(super) type Path = (&'static str, &'static str);

impl Required {
    pub fn of<S: Section>() -> Required {
        Required { section: S::NAME, examples: S::REQUIRED }
    }

    /// Puts the example of each setting that is not set into the tree. Returns these settings.
    pub(super) fn fill(&self, root: &mut Node) -> Result<Vec<Path>, Error> {
        let mut unset = Vec::new();
        let Value::Table(sections) = &mut root.value else { return Ok(unset) };
        let section = sections.entry(self.section.to_owned()).or_insert_with(Node::empty);
        // What is no table is refused when it is read.
        let Value::Table(entries) = &mut section.value else { return Ok(unset) };
        let Value::Table(examples) = Node::parse(self.section, self.examples)?.value else {
            return Ok(unset);
        };
        let keys: BTreeSet<&'static str> = self.examples.lines().map(line_key).collect();
        for (key, example) in examples {
            if let btree_map::Entry::Vacant(missing) = entries.entry(key) {
                unset.extend(keys.get(missing.key().as_str()).map(|key| (self.section, *key)));
                missing.insert(example);
            }
        }
        Ok(unset)
    }
}

/// Renders the whole configuration as a valid TOML file: every setting with what it does, what is allowed, its
/// default and its current value. Secrets are not printed.
pub fn render(config: &impl Config) -> String {
    render_with_unset(config, &[])
}

/// Like [`render`], but shows these settings as not set.
pub(super) fn render_with_unset(config: &impl Config, unset: &[Path]) -> String {
    let mut out = format!(
        "# Every setting, with its current value. The environment wins over the file:\n\
         # {PREFIX}<SECTION>__<FIELD>, in upper case.\n\n\
         version = {FILE_VERSION} # of the file format\n"
    );
    for page in config.pages() {
        write_page(&mut out, &page, unset).expect("writing to a String cannot fail");
    }
    out
}

fn write_page(out: &mut String, page: &Page, unset: &[Path]) -> std::fmt::Result {
    writeln!(out, "\n[{}]", page.name)?;
    for entry in &page.entries {
        let Field { key, doc, allowed, shown } = &entry.field;
        writeln!(out, "# {key}: {doc}.")?;
        let otherwise = match (&entry.default, &entry.example) {
            (Some(Shown::Toml(default)), _) => format!("Default: {default}"),
            (Some(_), _) => "Default: none".into(),
            (None, Shown::Toml(example)) => format!("Required, for example {example}"),
            (None, _) => "Required".into(),
        };
        writeln!(out, "#   Allowed: {allowed}. {otherwise}.")?;
        if unset.contains(&(page.name, *key)) {
            writeln!(out, "# {key} is not set: nothing starts without it")?;
            continue;
        }
        match shown {
            Shown::Toml(value) => writeln!(out, "{key} = {value}")?,
            Shown::Hidden => writeln!(out, "# {key} is set, and hidden")?,
            Shown::Unset => writeln!(out, "# {key} is not set")?,
        }
    }
    Ok(())
}

/// Checks that a section's declaration is consistent: it lists the fields that serde reads, in that order; its
/// shortest text is valid, and invalid if any of its lines is left out; and an unknown key is refused. Every
/// section has a test that calls this.
pub fn check_declaration<S: Section>() -> Result<(), String> {
    let shortest: S = parse(S::REQUIRED).map_err(|error| format!("REQUIRED: {error}"))?;
    shortest.check().map_err(|error| format!("REQUIRED: {error}"))?;
    let mut listed = Vec::new();
    for field in shortest.fields() {
        listed.push(field.key);
        if field.doc.contains('\n') || field.doc.ends_with('.') || field.doc.is_empty() {
            return Err(format!("{}: its text is one line without full stop", field.key));
        }
    }
    let read = serde_fields::<S>();
    if listed != read {
        return Err(format!("fields() lists {listed:?}, serde reads {read:?}"));
    }
    for key in required_keys::<S>() {
        let mut rest = String::new();
        for line in S::REQUIRED.lines().filter(|line| line_key(line) != key) {
            let _ = writeln!(rest, "{line}");
        }
        if parse::<S>(&rest).is_ok() {
            return Err(format!("{key} is in REQUIRED and has a default"));
        }
    }
    let unknown = format!("{}\nno_such_setting = 1\n", S::REQUIRED);
    if parse::<S>(&unknown).is_ok() {
        return Err("an unknown key is accepted; add #[serde(deny_unknown_fields)]".into());
    }
    Ok(())
}

fn parse<S: Section>(text: &str) -> Result<S, Error> {
    tree::read_section(S::NAME, &Node::parse(S::NAME, text)?)
}

fn required_keys<S: Section>() -> BTreeSet<&'static str> {
    S::REQUIRED.lines().map(line_key).collect()
}

fn line_key(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

/// Returns the names of the fields that serde reads for `S`, without reading any.
fn serde_fields<S: DeserializeOwned>() -> Vec<&'static str> {
    struct Probe<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only the names are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut names = Vec::new();
    // The probe always returns its own error; the names that it collected are the result.
    let _ = S::deserialize(Probe(&mut names));
    names
}
