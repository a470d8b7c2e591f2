//! Fetches a schema with everything that it refers to, directly or not. Each referenced schema is requested once,
//! and the texts are ordered so that each comes after those that it needs. Cycles, and references that are too
//! deep or too many, are refused. A reference that the registry does not have is named in the error.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use kafka::registry::{Reference, Registered, Unavailable};
use schemas::avro::{DecodeError, IncompatibleSchema, SCHEMA_BYTES_MAX};

use super::Fetch;

/// Length of a chain of references.
const DEPTH_MAX: usize = 16;
/// Schemas that one schema refers to, directly or not.
const COUNT_MAX: usize = 64;
/// After so long no further schema is requested: other workers wait meanwhile.
const WITHIN: Duration = Duration::from_secs(60);

/// The result of fetching.
#[derive(Debug, PartialEq, Eq)]
pub enum Gathered {
    Whole {
        writer: String,
        /// Each after those that it refers to.
        referenced: Vec<String>,
    },
    /// The registry does not have all of it. It may have it later.
    Absent(DecodeError),
    /// The registry has it, and it can never be used.
    Incompatible(IncompatibleSchema),
}

/// Fetches schema `id` and everything that it refers to.
///
/// # Errors
/// When the registry does not answer in time. Nothing is known of the schema then.
pub fn gather(registry: &dyn Fetch, id: u32, now: &dyn Fn() -> Instant) -> Result<Gathered, Unavailable> {
    let until = now() + WITHIN;
    let Some(Registered { schema, references }) = registry.schema(id)? else {
        return Ok(Gathered::Absent(super::absent(id)));
    };
    let mut walk = Walk {
        registry,
        now,
        until,
        bytes: schema.len(),
        path: Vec::new(),
        done: HashSet::new(),
        texts: Vec::new(),
    };
    match walk.follow(&references) {
        Ok(()) => Ok(Gathered::Whole { writer: schema, referenced: walk.texts }),
        Err(WalkError::Unavailable(error)) => Err(error),
        Err(WalkError::Missing(Reference { name, subject, version })) => {
            Ok(Gathered::Absent(DecodeError::UnknownReference { id, name, subject, version }))
        }
        Err(WalkError::Incompatible(what)) => {
            Ok(Gathered::Incompatible(IncompatibleSchema::References { what }))
        }
    }
}

type Place = (String, i32);

struct Walk<'r> {
    registry: &'r dyn Fetch,
    now: &'r dyn Fn() -> Instant,
    until: Instant,
    /// Of all texts so far.
    bytes: usize,
    /// The schemas from the root to where the walk is.
    path: Vec<Place>,
    done: HashSet<Place>,
    texts: Vec<String>,
}

enum WalkError {
    Unavailable(Unavailable),
    Missing(Reference),
    Incompatible(String),
}

impl Walk<'_> {
    fn follow(&mut self, references: &[Reference]) -> Result<(), WalkError> {
        for reference in references {
            let Reference { subject, version, .. } = reference;
            let place = (subject.clone(), *version);
            if self.path.contains(&place) {
                return Err(WalkError::Incompatible(format!(
                    "version {version} of {subject:?} leads back to itself"
                )));
            }
            if self.done.contains(&place) {
                continue;
            }
            let Registered { schema, references } = self.ask(reference)?;
            self.path.push(place);
            self.follow(&references)?;
            self.done.extend(self.path.pop());
            self.texts.push(schema);
        }
        Ok(())
    }

    fn ask(&mut self, reference: &Reference) -> Result<Registered, WalkError> {
        if self.path.len() == DEPTH_MAX {
            return Err(WalkError::Incompatible(format!("more than {DEPTH_MAX} schemas in each other")));
        }
        if self.path.len() + self.done.len() == COUNT_MAX {
            return Err(WalkError::Incompatible(format!("more than {COUNT_MAX} schemas")));
        }
        if (self.now)() >= self.until {
            let reason = format!("a schema's references take it longer than {} s", WITHIN.as_secs());
            return Err(WalkError::Unavailable(Unavailable { url: self.registry.url().to_owned(), reason }));
        }
        let answer =
            self.registry.version(&reference.subject, reference.version).map_err(WalkError::Unavailable)?;
        let registered = answer.ok_or_else(|| WalkError::Missing(reference.clone()))?;
        self.bytes = self.bytes.saturating_add(registered.schema.len());
        if self.bytes > SCHEMA_BYTES_MAX {
            return Err(WalkError::Incompatible(format!("more than {SCHEMA_BYTES_MAX} bytes of text")));
        }
        Ok(registered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// Schemas by subject, all of version 1, and what each refers to; number 7 is `root`. The text of a schema is
    /// its subject, unless it is told.
    #[derive(Default)]
    struct Registry {
        refers: HashMap<String, Vec<String>>,
        texts: HashMap<String, String>,
        asked: Mutex<Vec<String>>,
    }

    impl Registry {
        /// From lines like `root: a b`.
        fn of(lines: &[&str]) -> Registry {
            let mut registry = Registry::default();
            for line in lines {
                let (subject, refers) = line.split_once(':').unwrap();
                let refers = refers.split_whitespace().map(str::to_owned).collect();
                registry.refers.insert(subject.to_owned(), refers);
            }
            registry
        }

        fn registered(&self, subject: &str) -> Option<Registered> {
            self.asked.lock().unwrap().push(subject.to_owned());
            let refers = self.refers.get(subject)?;
            let reference =
                |to: &String| Reference { name: format!("x.{to}"), subject: to.clone(), version: 1 };
            Some(Registered {
                schema: self.texts.get(subject).cloned().unwrap_or_else(|| subject.to_owned()),
                references: refers.iter().map(reference).collect(),
            })
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }

        fn gather(&self) -> Result<Gathered, Unavailable> {
            let start = Instant::now();
            gather(self, 7, &|| start)
        }

        fn refusal(&self) -> String {
            match self.gather() {
                Ok(Gathered::Incompatible(error)) => error.to_string(),
                other => panic!("{other:?}"),
            }
        }
    }

    impl Fetch for Registry {
        fn schema(&self, id: u32) -> Result<Option<Registered>, Unavailable> {
            assert_eq!(id, 7);
            Ok(self.registered("root"))
        }

        fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, Unavailable> {
            assert_eq!(version, 1);
            if subject == "away" {
                return Err(Unavailable { url: self.url().to_owned(), reason: "no answer".to_owned() });
            }
            Ok(self.registered(subject))
        }

        fn url(&self) -> &str {
            "http://r"
        }
    }

    fn whole(referenced: &[&str]) -> Result<Gathered, Unavailable> {
        let referenced = referenced.iter().map(|text| (*text).to_owned()).collect();
        Ok(Gathered::Whole { writer: "root".to_owned(), referenced })
    }

    #[test]
    fn every_text_stands_behind_those_that_it_needs_and_is_asked_for_once() {
        let registry = Registry::of(&["root:"]);
        assert_eq!(registry.gather(), whole(&[]));
        // Two ways lead to `d`, and `a` leads to `b` as well.
        let registry = Registry::of(&["root: a b c", "a: b", "b: d", "c: d", "d:"]);
        assert_eq!(registry.gather(), whole(&["d", "b", "a", "c"]));
        assert_eq!(registry.asked(), ["root", "a", "b", "d", "c"]);
    }

    #[test]
    fn what_the_registry_does_not_have_is_named() {
        let missing = |registry: &Registry| match registry.gather() {
            Ok(Gathered::Absent(error)) => format!("{}: {error}", error.code()),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            missing(&Registry::of(&[])),
            "unknown_schema: written with schema 7 of a registry, which the registry does not have"
        );
        assert_eq!(
            missing(&Registry::of(&["root: a", "a: b"])),
            "unknown_schema: written with schema 7 of a registry, which names \"x.b\" of version 1 of the subject \
             \"b\", and the registry does not have that"
        );
    }

    #[test]
    fn what_leads_back_to_itself_is_refused() {
        let circle = "its references: version 1 of \"a\" leads back to itself";
        assert_eq!(Registry::of(&["root: a", "a: a"]).refusal(), circle);
        assert_eq!(Registry::of(&["root: b", "b: a", "a: c", "c: a"]).refusal(), circle);
    }

    fn chain(links: usize) -> Registry {
        let mut lines = vec!["root: s1".to_owned(), format!("s{links}:")];
        lines.extend((1..links).map(|at| format!("s{at}: s{}", at + 1)));
        Registry::of(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fan(wide: usize) -> Registry {
        let all: Vec<String> = (1..=wide).map(|at| format!("s{at}")).collect();
        let mut lines = vec![format!("root: {}", all.join(" "))];
        lines.extend(all.iter().map(|subject| format!("{subject}:")));
        Registry::of(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn depth_and_number_and_bytes_have_bounds() {
        assert!(matches!(chain(16).gather(), Ok(Gathered::Whole { .. })));
        let deep = chain(17);
        assert_eq!(deep.refusal(), "its references: more than 16 schemas in each other");
        // What is too deep is not even asked for.
        assert_eq!(deep.asked().last().unwrap(), "s16");

        assert!(matches!(fan(64).gather(), Ok(Gathered::Whole { .. })));
        assert_eq!(fan(65).refusal(), "its references: more than 64 schemas");

        let mut long = Registry::of(&["root: a b", "a:", "b:"]);
        // `root` and `b` have five bytes.
        long.texts.insert("a".to_owned(), "x".repeat(SCHEMA_BYTES_MAX - 5));
        assert!(matches!(long.gather(), Ok(Gathered::Whole { .. })));
        long.texts.insert("a".to_owned(), "x".repeat(SCHEMA_BYTES_MAX - 4));
        assert_eq!(long.refusal(), "its references: more than 262144 bytes of text");
    }

    #[test]
    fn an_outage_on_the_way_says_nothing_of_the_schema() {
        let registry = Registry::of(&["root: a away", "a:"]);
        assert_eq!(registry.gather().unwrap_err().reason, "no answer");
    }

    #[test]
    fn a_registry_that_takes_too_long_counts_as_away() {
        let registry = chain(3);
        let (start, seconds) = (Instant::now(), Mutex::new(0));
        // Every look at the clock is twenty seconds later.
        let now = || {
            let mut seconds = seconds.lock().unwrap();
            *seconds += 20;
            start + Duration::from_secs(*seconds)
        };
        let away = gather(&registry, 7, &now).unwrap_err();
        assert_eq!(
            away.to_string(),
            "the schema registry at http://r is not available: a schema's references take it longer than 60 s"
        );
        assert_eq!(registry.asked(), ["root", "s1", "s2"]);
    }
}
