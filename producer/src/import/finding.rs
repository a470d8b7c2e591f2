//! What an import could not take over as it was, so that nobody has to compare the files to find out. Findings that say the same
//! of several places are one finding.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be expressed: the flag is left out, or is imported switched off.
    Lost,
    /// It was taken over, and works differently in the way that is named.
    Changed,
    /// Nothing that is served depends on it.
    Note,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The place in the source, such as `flags.headerColor.targeting.if[0]`.
    pub path: String,
    /// Further places of which the same is said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    pub what: String,
    /// What to do about it.
    pub action: String,
}

/// The findings of an import, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Findings(Vec<Finding>);

/// Why a part of the source cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inexpressible {
    pub path: String,
    pub what: String,
    pub action: String,
}

impl Inexpressible {
    pub fn new(path: impl Into<String>, what: impl Into<String>, action: impl Into<String>) -> Inexpressible {
        Inexpressible { path: path.into(), what: what.into(), action: action.into() }
    }
}

impl Findings {
    pub fn lost(&mut self, lost: Inexpressible) {
        self.add(Severity::Lost, lost.path, lost.what, lost.action);
    }

    pub fn changed(&mut self, path: &str, what: impl Into<String>, action: impl Into<String>) {
        self.add(Severity::Changed, path.to_owned(), what.into(), action.into());
    }

    pub fn note(&mut self, path: &str, what: impl Into<String>, action: impl Into<String>) {
        self.add(Severity::Note, path.to_owned(), what.into(), action.into());
    }

    fn add(&mut self, severity: Severity, path: String, what: String, action: String) {
        let same =
            |other: &&mut Finding| other.severity == severity && other.what == what && other.action == action;
        match self.0.iter_mut().find(same) {
            Some(other) if other.path == path || other.also.contains(&path) => {}
            Some(other) => other.also.push(path),
            None => self.0.push(Finding { severity, path, also: Vec::new(), what, action }),
        }
    }

    /// Returns the findings, what is lost first.
    pub fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.severity);
        self.0
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Severity::Lost => "lost",
            Severity::Changed => "changed",
            Severity::Note => "note",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many further places a line names.
        const PLACES_MAX: usize = 3;
        let Finding { severity, path, also, what, action } = self;
        write!(formatter, "{severity} {path}")?;
        for place in also.iter().take(PLACES_MAX) {
            write!(formatter, ", {place}")?;
        }
        if also.len() > PLACES_MAX {
            write!(formatter, " and {} more", also.len() - PLACES_MAX)?;
        }
        write!(formatter, ": {what}")?;
        if !action.is_empty() {
            write!(formatter, "\n    {action}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_of_several_places_is_said_once_and_the_worst_first() {
        let mut findings = Findings::default();
        findings.note("a", "has metadata", "");
        for flag in ["a", "b", "a", "c", "d", "e"] {
            findings.changed(flag, "is hashed otherwise", "expect other units");
        }
        findings.lost(Inexpressible::new("f.targeting", "`map` has no counterpart", "write it by hand"));
        let shown: Vec<String> = findings.sorted().iter().map(Finding::to_string).collect();
        assert_eq!(
            shown,
            [
                "lost f.targeting: `map` has no counterpart\n    write it by hand",
                "changed a, b, c, d and 1 more: is hashed otherwise\n    expect other units",
                "note a: has metadata",
            ]
        );
    }
}
