//! Keeps what is served up to date with the log of definitions. A thread follows the log, compiles each new state and puts it
//! into service, and keeps a snapshot on disk, from which it starts while Kafka is away. Whatever happens behind it, what was
//! served before stays in service, and is marked as stale where it may be old.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use assignment::{Environment, ListSource, Lists, Members};
use definitions::{FollowedLists, Follower, Recorded};
use ops::config::Kafka;
use ops::{Condition, Progress, Shutdown};
use schemas::Micros;
use schemas::definition::{Definitions, UnknownRule};
use sdk::attributes::AttributeNames;

use crate::configuration::{Configuration, Inputs};
use crate::counts::Counts;
use crate::metrics::Metrics;
use crate::serving::{Serving, Stale, may_replace};
use crate::snapshot_file::{self, Saved, Unusable};

/// How often the thread looks at the state of the log if nothing changes.
const TICK: Duration = Duration::from_millis(100);
/// Changes within this time after one was put into service are put into service together.
const COALESCE: Duration = Duration::from_millis(20);
/// The pause before the log is followed again from its beginning, and before a snapshot is written again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the definitions wait for the members of lists at the start.
const LISTS_WAIT: Duration = Duration::from_secs(10);
/// The id of a log to which the brokers give none.
const NO_LOG_ID: &str = "none";

/// What following needs.
pub struct Follow {
    pub kafka: Kafka,
    pub environment: String,
    pub attributes: AttributeNames,
    pub snapshot_file: Option<PathBuf>,
    /// Silence of the brokers after which the definitions count as stale.
    pub stale_after: Duration,
    pub serving: Serving,
    /// The members of lists, which a thread of their own keeps up to date.
    pub lists: Arc<FollowedLists>,
    pub counts: Arc<Counts>,
    pub condition: Condition,
    pub progress: Progress,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
}

/// What the thread remembers from one look to the next.
#[derive(Default)]
struct Seen {
    /// The first offset of the followed log that has not been looked at; `None` before the first look.
    position: Option<u64>,
    /// Whether the log ends before what is served.
    behind: bool,
    /// How often members of lists had arrived at the last look.
    lists: u64,
    /// Since when the log is read and the lists are not.
    lists_awaited: Option<Instant>,
    /// The snapshot that could not be written, and when that was tried.
    unsaved: Option<(Saved, Instant)>,
    reported: Option<String>,
}

impl Follow {
    /// Puts the snapshot on disk into service, if there is one, and starts the thread, which ends after the shutdown has begun.
    pub fn start(self) -> std::io::Result<JoinHandle<()>> {
        self.load();
        let follower = Arc::new(Follower::recording());
        let lists = self.follow_lists(follower.clone())?;
        thread::Builder::new().name("definitions".to_owned()).spawn(move || self.run(&follower, lists))
    }

    fn load(&self) {
        let Some(path) = &self.snapshot_file else { return };
        let loaded = snapshot_file::load(path).and_then(|saved| match saved {
            Some(saved) => Ok(Some((saved.definitions()?, saved))),
            None => Ok(None),
        });
        match loaded {
            Ok(Some((definitions, saved))) => {
                tracing::info!(version = definitions.version(), "starting from the snapshot on disk");
                self.lists.add(saved.lists.iter().filter_map(|bytes| Members::from_bytes(bytes).ok()));
                self.serve(&definitions, &saved.log, saved.changed_at());
                self.set_stale(Some(Stale::Snapshot));
            }
            Ok(None) => {}
            Err(error) => {
                self.metrics.snapshot_failures.inc();
                tracing::error!(path = %path.display(), %error, "the snapshot on disk cannot be used");
                if matches!(error, Unusable::Damaged(_))
                    && let Err(error) = snapshot_file::set_aside(path)
                {
                    tracing::error!(path = %path.display(), %error, "putting the damaged snapshot aside");
                }
            }
        }
    }

    /// Follows the members of lists in a thread of their own, which has them looked at as soon as they arrive.
    fn follow_lists(&self, follower: Arc<Follower>) -> std::io::Result<JoinHandle<()>> {
        let (lists, kafka, shutdown) = (self.lists.clone(), self.kafka.clone(), self.shutdown.clone());
        thread::Builder::new().name("lists".to_owned()).spawn(move || {
            while !shutdown.begun() {
                if let Err(error) = lists.follow(&kafka, || shutdown.begun(), || follower.wake()) {
                    tracing::error!(error = %format_args!("{error:#}"), "following the lists; trying again");
                    shutdown.sleep_blocking(RETRY);
                }
            }
        })
    }

    fn run(self, follower: &Arc<Follower>, lists: JoinHandle<()>) {
        let mut seen = Seen::default();
        while !self.shutdown.begun() {
            (seen.position, seen.behind) = (None, false);
            follower.restart();
            let reader = {
                let (follower, kafka, shutdown) =
                    (follower.clone(), self.kafka.clone(), self.shutdown.clone());
                thread::spawn(move || follower.follow(&kafka, || shutdown.begun(), || ()))
            };
            while !reader.is_finished() {
                self.look(follower, &mut seen);
                self.progress.touch();
            }
            let failure = match reader.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("the follower of the definitions log panicked"),
            };
            tracing::error!(error = %format_args!("{failure:#}"), "following the definitions log; trying again");
            self.failed(&failure, &mut seen);
            let again = Instant::now() + RETRY;
            while Instant::now() < again && !self.shutdown.begun() {
                self.progress.touch();
                thread::sleep(TICK);
            }
        }
        if lists.join().is_err() {
            tracing::error!("the follower of the lists panicked");
        }
        self.progress.done();
    }

    /// Waits for a change for one tick, and puts it into service.
    fn look(&self, follower: &Follower, seen: &mut Seen) {
        let log = match seen.position {
            Some(position) => follower.wait_past(position, TICK),
            None => {
                // Before the end of the log is reached there is nothing to serve, only to wait for.
                let log = follower.lock();
                if !log.recorded.caught_up {
                    drop(log);
                    thread::sleep(TICK / 10);
                    follower.lock()
                } else {
                    log
                }
            }
        };
        let answered = log.recorded.answered;
        // Without the members that are there, a list would have none for a moment. A topic that cannot be read must not hold
        // back a kill switch for ever.
        let read = log.recorded.caught_up;
        let lists_read = self.lists.caught_up()
            || log.definitions.lists().next().is_none()
            || (read && seen.lists_awaited.get_or_insert_with(Instant::now).elapsed() >= LISTS_WAIT);
        let caught_up = read && lists_read;
        let next = log.definitions.next_offset();
        let lists = self.lists.arrived();
        let news = caught_up && (seen.position != Some(next) || seen.lists != lists);
        let copied = news.then(|| (log.definitions.clone(), self.copy(&log.recorded)));
        drop(log);
        if read && !caught_up {
            // The log has moved on, so waiting for it would not wait.
            thread::sleep(TICK);
        }
        if let Some((definitions, recorded)) = copied {
            let members_arrived = std::mem::replace(&mut seen.lists, lists) != lists;
            seen.behind = !self.take_over(&definitions, &recorded, members_arrived, seen);
            seen.position = Some(next);
            thread::sleep(COALESCE);
        }
        self.save_again(seen);
        let in_touch = answered.is_some_and(|at| at.elapsed() < self.stale_after);
        self.set_stale(match (caught_up, seen.behind) {
            (true, true) => Some(Stale::Log),
            (true, false) => (!in_touch).then_some(Stale::Kafka),
            (false, _) => Some(self.serving.stale().unwrap_or(Stale::Kafka)),
        });
        self.report(caught_up, answered, seen);
    }

    /// Copies what the log has recorded; of the changes only the last, whose time is needed, where no snapshot has them all.
    fn copy(&self, recorded: &Recorded) -> Recorded {
        match self.snapshot_file {
            Some(_) => recorded.clone(),
            None => Recorded { changes: recorded.changes.last().cloned().into_iter().collect(), ..*recorded },
        }
    }

    /// Puts the state of the log into service and on disk, unless it is older than what is served. Returns whether it did.
    fn take_over(
        &self,
        definitions: &Definitions,
        recorded: &Recorded,
        members_arrived: bool,
        seen: &mut Seen,
    ) -> bool {
        let log = recorded.topic_id.map_or_else(|| NO_LOG_ID.to_owned(), |id| id.to_string());
        let served = self.serving.configuration();
        let identity = served.as_ref().map(|served| (served.log(), served.version()));
        if !may_replace(identity, &log, definitions.version()) {
            return false;
        }
        if members_arrived || identity != Some((log.as_str(), definitions.version())) {
            let changed_at = recorded.changes.last().map_or(Micros::EPOCH, |change| change.time);
            self.serve(definitions, &log, changed_at);
        }
        // The configuration has the members that it needs.
        self.lists.keep(definitions);
        let known = self.lists.get();
        self.metrics.list_bytes.set(known.bytes() as i64);
        if self.snapshot_file.is_some() {
            let lists =
                lists_in_force(definitions, &known).map(|members| members.to_bytes().into()).collect();
            // Also where the same was loaded from it: the file may be gone.
            self.save(Saved { log, changes: recorded.changes.clone(), lists }, seen);
        }
        true
    }

    fn serve(&self, definitions: &Definitions, log: &str, changed_at: Micros) {
        let began = Instant::now();
        let configuration = Configuration::compile(
            definitions,
            &Inputs {
                environment: Environment(&self.environment),
                log,
                changed_at,
                attributes: &self.attributes,
                counts: &self.counts,
                lists: &self.lists.get(),
            },
        );
        self.metrics.compile_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.configuration_version.set(i64::try_from(configuration.version()).unwrap_or(i64::MAX));
        self.metrics.configuration_keys.set(configuration.keys() as i64);
        self.metrics.configuration_changes.inc();
        self.serving.serve(Arc::new(configuration));
    }

    fn save(&self, saved: Saved, seen: &mut Seen) {
        let Some(path) = &self.snapshot_file else { return };
        match snapshot_file::store(path, &saved) {
            Ok(()) => seen.unsaved = None,
            Err(error) => {
                self.metrics.snapshot_failures.inc();
                tracing::error!(path = %path.display(), %error, "writing the snapshot; trying again");
                seen.unsaved = Some((saved, Instant::now()));
            }
        }
    }

    fn save_again(&self, seen: &mut Seen) {
        if seen.unsaved.as_ref().is_some_and(|(_, tried)| tried.elapsed() >= RETRY)
            && let Some((saved, _)) = seen.unsaved.take()
        {
            self.save(saved, seen);
        }
    }

    fn set_stale(&self, stale: Option<Stale>) {
        // Nothing that is not served can be old.
        let stale = stale.filter(|_| self.serving.configuration().is_some());
        self.metrics.stale.set(stale.is_some().into());
        if self.serving.set_stale(stale) {
            match stale {
                Some(stale) => tracing::warn!(why = %stale, "the definitions that are served may be old"),
                None => tracing::info!("the definitions that are served are current"),
            }
        }
    }

    /// Says in `/readyz` how things are, if that has changed.
    fn report(&self, caught_up: bool, answered: Option<Instant>, seen: &mut Seen) {
        let served = self.serving.configuration();
        let remark = match (&served, self.serving.stale()) {
            (None, _) => {
                let why = "the log has not been read yet, and there is no snapshot on disk".to_owned();
                return self.tell(seen, why, |why| self.condition.fails(why));
            }
            (Some(_), None) if seen.unsaved.is_some() => {
                Some("the snapshot cannot be written to disk".to_owned())
            }
            (Some(served), None) if !served.lacking_lists().is_empty() => {
                let lists: Vec<&str> = served.lacking_lists().iter().map(|key| key.as_str()).collect();
                Some(format!(
                    "the members of {} are not in the topic of lists: an earlier version of them is served; put them again",
                    lists.join(", ")
                ))
            }
            (Some(_), None) => None,
            (Some(served), Some(_)) if seen.behind => Some(format!(
                "the log ends before version {}, which is served: was it restored from an old copy, or made anew?",
                served.version()
            )),
            (Some(served), Some(_)) if !caught_up => Some(format!(
                "version {} is served as it was on disk: the log has not been read yet",
                served.version()
            )),
            // Without the seconds, which would change with every look.
            (Some(served), Some(_)) => Some(match answered {
                Some(_) => format!("kafka does not answer; version {} is served", served.version()),
                None => format!("kafka has not answered yet; version {} is served", served.version()),
            }),
        };
        match remark {
            None => self.tell(seen, String::new(), |_| self.condition.holds()),
            Some(remark) => self.tell(seen, remark, |remark| self.condition.holds_but(remark)),
        }
    }

    /// Following has ended with an error. A change that this build does not know is not served as if it were not there.
    fn failed(&self, failure: &anyhow::Error, seen: &mut Seen) {
        self.set_stale(Some(Stale::Log));
        let text = format!("{failure:#}");
        let unknown_rule = failure.chain().any(|cause| cause.downcast_ref::<UnknownRule>().is_some());
        if unknown_rule || self.serving.configuration().is_none() {
            self.tell(seen, text, |text| self.condition.fails(text));
        } else {
            self.tell(seen, text, |text| self.condition.holds_but(text));
        }
    }

    fn tell(&self, seen: &mut Seen, what: String, tell: impl FnOnce(String)) {
        if seen.reported.as_ref() != Some(&what) {
            tell(what.clone());
            seen.reported = Some(what);
        }
    }
}

/// The members of each list that are served: its current ones or, where those are not known, those before them.
fn lists_in_force<'a>(definitions: &'a Definitions, lists: &'a Lists) -> impl Iterator<Item = Arc<Members>> {
    let source = ListSource { definitions, lists };
    definitions.lists().filter_map(move |list| source.in_force(&list.key).map(|(_, members)| members))
}
