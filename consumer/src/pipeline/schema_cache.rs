//! Decoding plans for writers' schemas, by their id in the registry. Each schema is fetched once, with those that
//! it refers to, and compiled. That a schema does not exist is remembered for a while, and so is an outage of the
//! registry for a moment, so that the registry is not asked at the rate of the messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use kafka::registry::{Registered, Registry, Unavailable};
use schemas::avro::{DecodeError, IncompatibleSchema, Plan, RecordKind};

mod references;

use references::{Gathered, gather};

/// Pause between two requests for a schema that the registry did not have, doubling from the first value to the
/// second.
const ABSENT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Pause between two requests to a registry that did not answer, likewise. It has no end: a worker waits until the
/// registry answers or it is told to stop. There is no jitter, since one process asks one question at a time.
const OUTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Schemas remembered, usable or not. Beyond it, all but the usable ones are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The message can never be decoded.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// The message may be decodable, but the registry does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Where schemas are fetched from. The tests have a registry of their own.
pub trait Fetch: Send + Sync {
    /// `None` if the registry has no such schema.
    fn schema(&self, id: u32) -> Result<Option<Registered>, Unavailable>;
    /// `None` if the registry has no such version of the subject.
    fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, Unavailable>;
    /// The registry's address.
    fn url(&self) -> &str;
}

impl Fetch for Registry {
    fn schema(&self, id: u32) -> Result<Option<Registered>, Unavailable> {
        Registry::schema(self, id)
    }

    fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, Unavailable> {
        Registry::version(self, subject, version)
    }

    fn url(&self) -> &str {
        Registry::url(self)
    }
}

/// What all workers of a process share.
pub struct SchemaCache {
    /// `None` where no registry is configured.
    registry: Option<Box<dyn Fetch>>,
    known: RwLock<HashMap<(RecordKind, u32), CacheEntry>>,
    /// Locked while the registry is asked, so that there is one request at a time.
    outage: Mutex<Option<Outage>>,
}

#[derive(Clone)]
enum CacheEntry {
    Plan(Arc<Plan>),
    Incompatible(DecodeError),
    /// The registry does not have the schema, or one that it refers to.
    Absent {
        error: DecodeError,
        until: Instant,
        pause: Duration,
    },
}

struct Outage {
    until: Instant,
    pause: Duration,
    error: Unavailable,
}

impl SchemaCache {
    pub fn new(registry: Option<Box<dyn Fetch>>) -> SchemaCache {
        SchemaCache { registry, known: RwLock::default(), outage: Mutex::new(None) }
    }

    /// The cache in front of the registry that is configured, if any.
    ///
    /// # Errors
    /// Settings that cannot be used; the registry is not asked yet.
    pub fn open(config: &ops::config::Registry) -> Result<Arc<SchemaCache>, String> {
        let registry = Registry::open(config)?.map(|registry| Box::new(registry) as Box<dyn Fetch>);
        Ok(Arc::new(SchemaCache::new(registry)))
    }

    /// The plan for records of `kind` that were written with schema `id`.
    pub fn plan(&self, kind: RecordKind, id: u32) -> Result<Arc<Plan>, PlanError> {
        self.plan_at(kind, id, Instant::now)
    }

    fn plan_at(&self, kind: RecordKind, id: u32, now: impl Fn() -> Instant) -> Result<Arc<Plan>, PlanError> {
        if let Some(cached) = self.cached(kind, id, &now) {
            return cached;
        }
        let Some(registry) = &self.registry else {
            return Err(DecodeError::UnknownId { id, what: "and registry.url is not set" }.into());
        };
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have asked meanwhile.
        if let Some(cached) = self.cached(kind, id, &now) {
            return cached;
        }
        if let Some(outage) = &*outage
            && now() < outage.until
        {
            return Err(outage.error.clone().into());
        }
        match gather(registry.as_ref(), id, &now) {
            Ok(gathered) => {
                *outage = None;
                self.remember(kind, id, gathered, now())
            }
            Err(error) => {
                let pause =
                    outage.as_ref().map_or(OUTAGE_PAUSE.0, |outage| (outage.pause * 2).min(OUTAGE_PAUSE.1));
                *outage = Some(Outage { until: now() + pause, pause, error: error.clone() });
                Err(error.into())
            }
        }
    }

    /// The answer that needs no request.
    fn cached(
        &self,
        kind: RecordKind,
        id: u32,
        now: &impl Fn() -> Instant,
    ) -> Option<Result<Arc<Plan>, PlanError>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(&(kind, id))? {
            CacheEntry::Plan(plan) => Some(Ok(plan.clone())),
            CacheEntry::Incompatible(error) => Some(Err(error.clone().into())),
            CacheEntry::Absent { error, until, .. } if now() < *until => Some(Err(error.clone().into())),
            CacheEntry::Absent { .. } => None,
        }
    }

    fn remember(
        &self,
        kind: RecordKind,
        id: u32,
        gathered: Gathered,
        now: Instant,
    ) -> Result<Arc<Plan>, PlanError> {
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            all.retain(|_, known| matches!(known, CacheEntry::Plan(_)));
        }
        let unfit = |source: IncompatibleSchema| {
            let error = DecodeError::Incompatible { id, source };
            tracing::warn!(id, ?kind, %error, "a writer's schema");
            (CacheEntry::Incompatible(error.clone()), Err(error.into()))
        };
        let (known, answer) = match gathered {
            Gathered::Whole { writer, referenced } => match Plan::compile_with(kind, &writer, &referenced) {
                Ok(plan) => {
                    let plan = Arc::new(plan);
                    let (references, exact) = (referenced.len(), plan.is_exact());
                    tracing::info!(id, ?kind, references, exact, "a writer's schema");
                    (CacheEntry::Plan(plan.clone()), Ok(plan))
                }
                Err(source) => unfit(source),
            },
            Gathered::Incompatible(source) => unfit(source),
            Gathered::Absent(error) => {
                let pause = match all.get(&(kind, id)) {
                    Some(CacheEntry::Absent { pause, .. }) => (*pause * 2).min(ABSENT_PAUSE.1),
                    _ => ABSENT_PAUSE.0,
                };
                (CacheEntry::Absent { error: error.clone(), until: now + pause, pause }, Err(error.into()))
            }
        };
        all.insert((kind, id), known);
        answer
    }
}

fn absent(id: u32) -> DecodeError {
    DecodeError::UnknownId { id, what: "which the registry does not have" }
}

/// One worker's view of the cache: the plans that it used last, without a lock.
pub struct Plans {
    cache: Arc<SchemaCache>,
    recent: Vec<(RecordKind, u32, Arc<Plan>)>,
    counts: PlanCounts,
}

/// Messages in the registry's framing by where their plan came from, since the counts were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    pub at_hand: u64,
    /// From the cache that all workers share, or from the registry.
    pub asked: u64,
}

/// Plans that a worker keeps. Few schemas are in use at a time in one partition.
const RECENT_MAX: usize = 8;

impl PlanError {
    /// The code in the headers of a dead letter.
    pub fn code(&self) -> &'static str {
        match self {
            PlanError::Undecodable(error) => error.code(),
            PlanError::Unavailable(_) => "registry_unavailable",
        }
    }
}

impl Plans {
    pub fn new(cache: Arc<SchemaCache>) -> Plans {
        Plans { cache, recent: Vec::new(), counts: PlanCounts::default() }
    }

    pub fn take_counts(&mut self) -> PlanCounts {
        std::mem::take(&mut self.counts)
    }

    /// The counts so far, for [`Plans::restore_counts`].
    pub fn counts(&self) -> PlanCounts {
        self.counts
    }

    pub fn restore_counts(&mut self, counts: PlanCounts) {
        self.counts = counts;
    }

    pub fn plan(&mut self, kind: RecordKind, id: u32) -> Result<&Plan, PlanError> {
        let found = self.recent.iter().position(|(known, number, _)| *number == id && *known == kind);
        let at = match found {
            Some(at) => {
                self.counts.at_hand += 1;
                at
            }
            None => {
                self.counts.asked += 1;
                let plan = self.cache.plan(kind, id)?;
                if self.recent.len() == RECENT_MAX {
                    self.recent.remove(0);
                }
                self.recent.push((kind, id, plan));
                self.recent.len() - 1
            }
        };
        Ok(&self.recent[at].2)
    }
}

#[cfg(test)]
mod tests {
    use kafka::registry::Reference;

    use super::*;

    /// Knows our own schema as number 1, a stranger's as 2, one as 3 that refers to `sender`, which it does not
    /// have until told so, and nothing else; away while told so.
    #[derive(Clone, Default)]
    struct Registry(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        away: bool,
        has_sender: bool,
        asked: Vec<u32>,
    }

    /// That of `sender`, as it is asked for among the numbers.
    const SENDER: u32 = 1_000;

    impl Registry {
        fn away(&self, away: bool) {
            self.0.lock().unwrap().away = away;
        }

        fn asked(&self) -> Vec<u32> {
            std::mem::take(&mut self.0.lock().unwrap().asked)
        }
    }

    fn registered(schema: &str) -> Registered {
        Registered { schema: schema.to_owned(), references: Vec::new() }
    }

    impl Registry {
        fn answer(&self, id: u32) -> Result<Option<Registered>, Unavailable> {
            let mut state = self.0.lock().unwrap();
            state.asked.push(id);
            if state.away {
                return Err(Unavailable { url: "http://r".to_owned(), reason: "no answer".to_owned() });
            }
            Ok(match id {
                1 => Some(registered(schemas::avro::ALIAS_SCHEMA)),
                2 => Some(registered("\"string\"")),
                3 => Some(referring_to_sender()),
                SENDER if state.has_sender => Some(registered(&declared_sender())),
                _ => None,
            })
        }
    }

    impl Fetch for Registry {
        fn schema(&self, id: u32) -> Result<Option<Registered>, Unavailable> {
            self.answer(id)
        }

        fn version(&self, subject: &str, version: i32) -> Result<Option<Registered>, Unavailable> {
            assert_eq!((subject, version), ("sender", 4));
            self.answer(SENDER)
        }

        fn url(&self) -> &str {
            "http://r"
        }
    }

    fn our_alias() -> serde_json::Value {
        serde_json::from_str(schemas::avro::ALIAS_SCHEMA).unwrap()
    }

    fn sender(alias: &mut serde_json::Value) -> &mut serde_json::Value {
        let fields = alias["fields"].as_array_mut().unwrap();
        &mut fields.iter_mut().find(|field| field["name"] == "sender").unwrap()["type"]
    }

    fn declared_sender() -> String {
        let mut alias = our_alias();
        let mut declared = sender(&mut alias).take();
        declared["namespace"] = "splitstream.events".into();
        declared.to_string()
    }

    /// Our alias, with its sender declared elsewhere.
    fn referring_to_sender() -> Registered {
        let mut alias = our_alias();
        *sender(&mut alias) = "splitstream.events.Sender".into();
        let reference = Reference {
            name: "splitstream.events.Sender".to_owned(),
            subject: "sender".to_owned(),
            version: 4,
        };
        Registered { schema: alias.to_string(), references: vec![reference] }
    }

    struct Case {
        registry: Registry,
        cache: SchemaCache,
        start: Instant,
    }

    impl Case {
        fn new() -> Case {
            let registry = Registry::default();
            let cache = SchemaCache::new(Some(Box::new(registry.clone())));
            Case { registry, cache, start: Instant::now() }
        }

        /// What is said of the schema so many milliseconds after the start, and what was asked for it.
        fn at(&self, millis: u64, id: u32) -> (String, Vec<u32>) {
            let now = || self.start + Duration::from_millis(millis);
            let said = match self.cache.plan_at(RecordKind::Alias, id, now) {
                Ok(plan) => format!("exact: {}", plan.is_exact()),
                Err(PlanError::Undecodable(error)) => format!("{}: {error}", error.code()),
                Err(PlanError::Unavailable(error)) => error.reason,
            };
            (said, self.registry.asked())
        }
    }

    #[test]
    fn a_schema_is_asked_for_once_and_so_is_one_that_does_not_fit() {
        let case = Case::new();
        assert_eq!(case.at(0, 1), ("exact: true".to_owned(), vec![1]));
        assert_eq!(case.at(1_000_000, 1), ("exact: true".to_owned(), vec![]));
        let unfit = "incompatible_schema: written with schema 2 of the registry, which does not fit: \
                     `the record`: a string where a record \"Alias\" is read";
        assert_eq!(case.at(0, 2), (unfit.to_owned(), vec![2]));
        assert_eq!(case.at(1_000_000, 2), (unfit.to_owned(), vec![]));
    }

    #[test]
    fn a_worker_counts_what_it_had_at_hand_and_what_it_asked_for() {
        let mut plans = Plans::new(Arc::new(SchemaCache::new(Some(Box::new(Registry::default())))));
        for id in [1, 1, 2, 2, 1] {
            assert_eq!(plans.plan(RecordKind::Alias, id).is_ok(), id == 1);
        }
        assert_eq!(plans.take_counts(), PlanCounts { at_hand: 2, asked: 3 });
        assert_eq!(plans.take_counts(), PlanCounts::default());
    }

    #[test]
    fn one_that_is_not_there_is_asked_for_again_after_a_growing_while() {
        let case = Case::new();
        let absent = "unknown_schema: written with schema 9 of a registry, which the registry does not have";
        for (millis, asked) in
            [(0, vec![9]), (999, vec![]), (1_000, vec![9]), (2_999, vec![]), (3_000, vec![9])]
        {
            assert_eq!(case.at(millis, 9), (absent.to_owned(), asked), "{millis}");
        }
    }

    #[test]
    fn one_whose_reference_is_not_there_is_asked_for_again_and_read_once_it_is() {
        let case = Case::new();
        let absent = "unknown_schema: written with schema 3 of a registry, which names \
                      \"splitstream.events.Sender\" of version 4 of the subject \"sender\", and the registry does \
                      not have that";
        assert_eq!(case.at(0, 3), (absent.to_owned(), vec![3, SENDER]));
        assert_eq!(case.at(999, 3), (absent.to_owned(), vec![]));
        case.registry.0.lock().unwrap().has_sender = true;
        assert_eq!(case.at(1_000, 3), ("exact: true".to_owned(), vec![3, SENDER]));
        assert_eq!(case.at(1_000_000, 3), ("exact: true".to_owned(), vec![]));
    }

    #[test]
    fn an_outage_is_no_answer_and_is_asked_about_again_soon() {
        let case = Case::new();
        case.registry.away(true);
        assert_eq!(case.at(0, 1), ("no answer".to_owned(), vec![1]));
        assert_eq!(case.at(99, 9), ("no answer".to_owned(), vec![]));
        assert_eq!(case.at(100, 1), ("no answer".to_owned(), vec![1]));
        case.registry.away(false);
        assert_eq!(case.at(299, 1), ("no answer".to_owned(), vec![]));
        assert_eq!(case.at(300, 1), ("exact: true".to_owned(), vec![1]));
        // What is known needs no registry.
        case.registry.away(true);
        assert_eq!(case.at(301, 1), ("exact: true".to_owned(), vec![]));
    }

    #[test]
    fn without_a_registry_a_number_says_nothing() {
        let said = SchemaCache::new(None).plan(RecordKind::Alias, 1).err().unwrap();
        assert_eq!(said.to_string(), "written with schema 1 of a registry, and registry.url is not set");
    }
}
