//! Turns what other platforms export into definitions. It keeps the meaning of all that it takes over, and names all that it
//! cannot: nothing is dropped silently, and nothing changes who sees what without a finding. It knows files alone, no server.
//!
//! | | kept | named |
//! |---|---|---|
//! | all | values, defaults, the order of rules, weights and rollouts; conditions with what they make of absent attributes and of other types | `changed`: the hash, so that units change their variant once; numbers as text with an exponent |
//! | flagd | `if` and its nesting, `and`, `or`, `!`, comparisons with JavaScript's conversions, `in`, `starts_with`, `ends_with`, `sem_ver`, `lower`, `upper`, `missing`, `fractional` also as a condition and with conditions inside, `$evaluators`, spans of `$flagd.timestamp` | `changed`: a flag that is disabled serves its default variant; `lost`: arithmetic, comparisons of two attributes, `map` and its like, errors of evaluation; a flag without a default variant is left out |
//! | GrowthBook | `force` with `coverage`, conditions, saved groups as values, prerequisites of a whole feature, namespaces as layers | `changed`: an experiment becomes a draft; `lost`: an experiment among other rules, `filters` on a value, a prerequisite of one rule, `$size`, `$elemMatch` that compares |
//! | Unleash | its own strategies, constraints, segments, variants with overrides, variants of strategies, dependencies; served features and exports | `changed`: units without the hashed attribute, chance; `lost`: custom strategies, overrides inside of a rollout, two hashed attributes in one feature |
//!
//! The rule for what cannot be expressed: from the first such part on, the flag's rules are left out and the flag is switched
//! off, so that it serves its default until somebody has completed it.

use std::fmt;

use acceptance::refused;

use serde::Serialize;
use serde_json::Value;

mod acceptance;
mod attribute;

mod finding;
mod flag;
mod flagd;
mod growthbook;
mod javascript;
mod logic;
mod name;
mod pattern;
mod share;
mod source;
mod unleash;
mod write;

pub use finding::{Finding, Severity};
pub use source::Unreadable;

use finding::{Findings, Inexpressible};
use source::Source;

/// The formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A flag definition file of flagd.
    Flagd,
    /// The features that GrowthBook serves to its SDKs.
    Growthbook,
    /// The features that Unleash serves to its clients, or its export of features.
    Unleash,
}

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Imported {
    /// The definitions, as documents of a definition file.
    pub definitions: Vec<Value>,
    /// What is lost comes first.
    pub findings: Vec<Finding>,
}

/// A document and where it came from.
#[derive(Clone, Debug)]
struct Draft {
    path: String,
    document: Value,
}

/// Imports the text. Every definition gets this owner.
///
/// # Errors
/// If the text is not of the format. What it holds and cannot be expressed is a finding.
pub fn import(format: Format, text: &str, owner: &str) -> Result<Imported, Unreadable> {
    let source = Source::parse(text)?;
    let mut findings = Findings::default();
    let mut drafts = match format {
        Format::Flagd => flagd::import(&source, &mut findings)?,
        Format::Growthbook => growthbook::import(&source, &mut findings)?,
        Format::Unleash => unleash::import(&source, &mut findings)?,
    };
    if !owner.is_empty() {
        for draft in &mut drafts {
            draft.document["owner"] = Value::from(owner);
        }
    }
    leave_out_what_is_refused(&mut drafts, &mut findings);
    let definitions = drafts.into_iter().map(|draft| draft.document).collect();
    Ok(Imported { definitions, findings: findings.sorted() })
}

/// Asks the rules of the log about each definition. One that they would refuse is left out and named, as are those that need it.
fn leave_out_what_is_refused(drafts: &mut Vec<Draft>, findings: &mut Findings) {
    while let Some((index, why)) = refused(drafts) {
        let draft = drafts.remove(index);
        let what = format!("would be refused: {why}");
        findings.lost(Inexpressible::new(draft.path, what, "it is left out; write it by hand"));
    }
}

impl Imported {
    /// Returns whether a part of the source could not be expressed.
    pub fn is_lossy(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Lost)
    }

    /// Writes the definitions as a definition file.
    pub fn file(&self) -> String {
        write::file(&self.definitions)
    }

    /// Writes the findings as a list for people, with their number.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text.push_str(&format!("{finding}\n"));
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        text.push_str(&format!(
            "definitions: {}; findings: {} lost, {} changed, {} notes\n",
            self.definitions.len(),
            count(Severity::Lost),
            count(Severity::Changed),
            count(Severity::Note),
        ));
        text
    }
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Flagd, Format::Growthbook, Format::Unleash];

    pub fn as_str(self) -> &'static str {
        match self {
            Format::Flagd => "flagd",
            Format::Growthbook => "growthbook",
            Format::Unleash => "unleash",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
