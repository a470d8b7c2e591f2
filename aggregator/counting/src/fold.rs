//! The fold: new rows change the rows of their units, and what the units add to cells changes by the difference of one pure
//! function before and after. So a round costs what is new, and any order, repetition, delay or batching of the same events
//! gives the same cells.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};

use crate::cells::{Cells, Contribution};
use crate::components::Components;
use crate::event::{Conversion, Exposure};
use crate::micros::Micros;
use crate::names::{Name, Names};
use crate::rows::Rows;
use crate::spec::{ExperimentSpec, Spec};
use crate::store::Store;
use crate::sums::Shape;
use crate::view::View;

/// Rows that were not folded yet.
#[derive(Clone, Debug, Default)]
pub struct NewRows {
    pub(crate) units: HashMap<u64, Rows>,
    pub(crate) aliases: Vec<Alias>,
}

impl NewRows {
    pub fn exposure(&mut self, key: u64, exposure: Exposure) {
        self.units.entry(key).or_default().push_exposure(exposure);
    }

    pub fn conversion(&mut self, key: u64, conversion: Conversion) {
        self.units.entry(key).or_default().push_conversion(conversion);
    }

    pub fn alias(&mut self, alias: Alias) {
        self.aliases.push(alias);
    }

    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.aliases.is_empty()
    }
}

/// Two keys of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    pub at: Micros,
    pub environment: Name,
    pub from: u64,
    pub to: u64,
}

/// The rows of all units, the cells that they add up to, and the moment that both are of.
#[derive(Debug)]
pub struct Counting<S> {
    spec: Spec,
    store: S,
    /// One for each list of environments that an experiment counts.
    identities: Vec<Identities>,
    /// In the order of the spec's experiments.
    experiments: Vec<Counted>,
    by_name: HashMap<Name, usize>,
    as_of: Micros,
    /// The keys with rows of a later time, by that time.
    later: BTreeMap<Micros, HashSet<u64>>,
    later_aliases: BTreeSet<Alias>,
}

/// Which keys are one unit, by the aliases of some environments.
#[derive(Clone, Debug)]
struct Identities {
    environments: Vec<Name>,
    components: Components,
}

/// The cells of one experiment.
#[derive(Clone, Debug)]
struct Counted {
    /// Which of the identities are its units.
    identities: usize,
    units: Cells,
    metrics: Vec<Cells>,
}

impl<S: Store> Counting<S> {
    /// Nothing is counted yet.
    pub fn new(spec: Spec, store: S) -> Counting<S> {
        let mut identities: Vec<Identities> = Vec::new();
        let mut counted = |experiment: &ExperimentSpec| {
            let known = identities.iter().position(|of| of.environments == experiment.environments);
            let identities_of = known.unwrap_or_else(|| {
                let environments = experiment.environments.clone();
                identities.push(Identities { environments, components: Components::default() });
                identities.len() - 1
            });
            let cells = |metric: &crate::spec::MetricSpec| {
                let shape = Shape { steps: metric.kind.steps(), keeps_values: metric.kind.keeps_values() };
                Cells::new(&metric.identity, shape, metric.kind.closes_after())
            };
            Counted {
                identities: identities_of,
                units: Cells::new("", Shape::default(), None),
                metrics: experiment.metrics.iter().map(cells).collect(),
            }
        };
        let experiments = spec.experiments.iter().map(&mut counted).collect();
        let by_name = spec.experiments.iter().enumerate().map(|(index, of)| (of.name, index)).collect();
        Counting {
            spec,
            by_name,
            store,
            identities,
            experiments,
            as_of: Micros::MIN,
            later: BTreeMap::new(),
            later_aliases: BTreeSet::new(),
        }
    }

    /// Folds new rows, as of a moment that is not before the last one.
    ///
    /// # Errors
    /// If the store fails. What is counted is not to be used then.
    ///
    /// # Panics
    /// If `as_of` is before the last one.
    pub fn fold(&mut self, mut new: NewRows, as_of: Micros) -> Result<(), S::Error> {
        assert!(as_of >= self.as_of, "as of {as_of} after {}", self.as_of);
        for experiment in &mut self.experiments {
            experiment.metrics.iter_mut().for_each(|cells| cells.close(as_of));
        }
        let before = std::mem::replace(&mut self.as_of, as_of);
        let due = self.due(&mut new);
        let mut touched: HashSet<u64> = new.units.keys().copied().chain(due.iter().copied()).collect();
        let joined = self.join(&new.aliases, &mut touched);
        // Units of one key, which are nearly all, are changed in place; the others are put together from their keys.
        let (alone, together): (Vec<u64>, Vec<u64>) =
            touched.into_iter().partition(|key| !joined.has(*key) && self.is_alone(*key));
        let mut difference = Difference::default();
        for key in alone {
            let mut rows = self.store.take(key)?;
            let more = new.units.remove(&key).unwrap_or_default();
            let touched = Touched::of(&more, due.contains(&key));
            self.contributions(None, &rows, before, &touched, &mut difference.before);
            self.note_later(key, &more);
            rows.add(more);
            self.contributions(None, &rows, as_of, &touched, &mut difference.after);
            self.store.put(key, rows)?;
            self.apply(&mut difference);
        }
        self.fold_together(&together, &joined, new, before)
    }

    /// Ends a round: brings the digests up to date, and forgets which cells have changed.
    pub fn end_round(&mut self, names: &Names) {
        for (experiment, counted) in self.spec.experiments.iter().zip(&mut self.experiments) {
            let key = names.text(experiment.name);
            counted.units.end_round(key, names);
            counted.metrics.iter_mut().for_each(|cells| cells.end_round(key, names));
        }
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn as_of(&self) -> Micros {
        self.as_of
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    /// Ends counting, and returns the rows.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The cells of the units of an experiment, by its position in the spec.
    pub fn units(&self, experiment: usize) -> &Cells {
        &self.experiments[experiment].units
    }

    /// The cells of a metric, by the positions in the spec.
    pub fn metric(&self, experiment: usize, metric: usize) -> &Cells {
        &self.experiments[experiment].metrics[metric]
    }

    /// The digest of all cells of an experiment when the last round ended.
    pub fn digest(&self, experiment: usize) -> u128 {
        let counted = &self.experiments[experiment];
        counted.metrics.iter().fold(counted.units.digest(), |sum, cells| sum.wrapping_add(cells.digest()))
    }

    /// How many components have more keys than a unit can have.
    pub fn components_too_large(&self) -> usize {
        self.identities.iter().map(|of| of.components.too_large()).sum()
    }

    /// Takes the keys and aliases whose time has come; the aliases that are not due yet are put aside.
    fn due(&mut self, new: &mut NewRows) -> HashSet<u64> {
        let mut due = HashSet::new();
        let later = self.later.split_off(&(self.as_of + 1));
        for (_, keys) in std::mem::replace(&mut self.later, later) {
            due.extend(keys);
        }
        let as_of = self.as_of;
        self.later_aliases.extend(new.aliases.iter().filter(|alias| alias.at > as_of));
        new.aliases.retain(|alias| alias.at <= as_of);
        let now: Vec<Alias> =
            self.later_aliases.iter().take_while(|alias| alias.at <= as_of).copied().collect();
        for alias in &now {
            self.later_aliases.remove(alias);
        }
        new.aliases.extend(now);
        due
    }

    /// Adds aliases. Every key of a unit that one of them changed is touched.
    fn join(&mut self, aliases: &[Alias], touched: &mut HashSet<u64>) -> Before {
        let mut before = Before { units: vec![HashMap::new(); self.identities.len()] };
        if aliases.is_empty() {
            return before;
        }
        for (identities, units) in self.identities.iter_mut().zip(&mut before.units) {
            let counts = |alias: &&Alias| identities.environments.binary_search(&alias.environment).is_ok();
            let pairs: Vec<(u64, u64)> =
                aliases.iter().filter(counts).map(|alias| (alias.from, alias.to)).collect();
            for joined in identities.components.link(&pairs) {
                for keys in joined.before {
                    touched.extend(&keys);
                    for key in &keys {
                        units.insert(*key, keys.clone());
                    }
                }
            }
        }
        before
    }

    fn is_alone(&self, key: u64) -> bool {
        self.identities.iter().all(|of| of.components.unit_of(key).is_none())
    }

    /// Folds the rows of units that have several keys, or had, or have from now on.
    fn fold_together(
        &mut self,
        touched: &[u64],
        joined: &Before,
        mut new: NewRows,
        as_of_before: Micros,
    ) -> Result<(), S::Error> {
        if touched.is_empty() {
            return Ok(());
        }
        let mut before_by: Vec<BTreeSet<Vec<u64>>> = Vec::new();
        let mut after_by: Vec<BTreeSet<Vec<u64>>> = Vec::new();
        let mut keys: BTreeSet<u64> = touched.iter().copied().collect();
        for (index, identities) in self.identities.iter().enumerate() {
            let now =
                |key: u64| identities.components.unit_of(key).map_or_else(|| vec![key], <[u64]>::to_vec);
            let after: BTreeSet<Vec<u64>> = touched.iter().map(|key| now(*key)).collect();
            let earlier = |key: &u64| joined.units[index].get(key).cloned().unwrap_or_else(|| now(*key));
            let before: BTreeSet<Vec<u64>> = after.iter().flatten().map(earlier).collect();
            keys.extend(after.iter().flatten().chain(before.iter().flatten()));
            before_by.push(before);
            after_by.push(after);
        }
        let mut rows: BTreeMap<u64, Rows> = BTreeMap::new();
        for key in keys {
            rows.insert(key, self.store.take(key)?);
        }
        let everything = Touched { everything: true, ..Touched::default() };
        let mut difference = Difference::default();
        for (identities, units) in before_by.iter().enumerate() {
            for keys in units {
                let whole = together_of(keys, &rows);
                self.contributions(
                    Some(identities),
                    &whole,
                    as_of_before,
                    &everything,
                    &mut difference.before,
                );
            }
        }
        for (key, rows) in &mut rows {
            let more = new.units.remove(key).unwrap_or_default();
            self.note_later(*key, &more);
            rows.add(more);
        }
        for (identities, units) in after_by.iter().enumerate() {
            for keys in units {
                let whole = together_of(keys, &rows);
                self.contributions(Some(identities), &whole, self.as_of, &everything, &mut difference.after);
            }
        }
        self.apply(&mut difference);
        for (key, rows) in rows {
            self.store.put(key, rows)?;
        }
        Ok(())
    }

    /// Computes what a unit adds to every experiment that exposed it, as far as what was touched can change it. With
    /// `identities`, only to those whose units these are.
    fn contributions(
        &self,
        identities: Option<usize>,
        rows: &Rows,
        as_of: Micros,
        touched: &Touched,
        out: &mut Vec<(Where, Contribution)>,
    ) {
        for exposures in rows.exposures().chunk_by(|one, other| one.experiment == other.experiment) {
            let Some(&index) = self.by_name.get(&exposures[0].experiment) else { continue };
            if identities.is_some_and(|of| of != self.experiments[index].identities) {
                continue;
            }
            let all = touched.everything || touched.experiments.contains(&exposures[0].experiment);
            if !all && touched.series.is_empty() {
                continue;
            }
            let Some(view) = View::of(rows, &self.spec.experiments[index], as_of) else { continue };
            if all {
                out.push((Where { experiment: index, metric: None }, view.standing()));
            }
            for (metric, spec) in self.spec.experiments[index].metrics.iter().enumerate() {
                let is_touched = all || touched.series.iter().any(|series| spec.kind.reads(*series));
                if is_touched && let Some(contribution) = view.metric(metric) {
                    out.push((Where { experiment: index, metric: Some(metric) }, contribution));
                }
            }
        }
    }

    /// Changes the cells by a difference, which is empty afterwards. What is the same before and after touches none.
    fn apply(&mut self, difference: &mut Difference) {
        let as_of = self.as_of;
        let Difference { before, after } = difference;
        for (at, earlier) in before.drain(..) {
            let cells = self.experiments[at.experiment].cells(at.metric);
            // A unit of several keys may have been several units, of which each is taken out or stays.
            let found =
                after.iter().position(|(other, now)| *other == at && now.is_in_the_place_of(&earlier));
            match found.map(|index| after.swap_remove(index).1) {
                Some(now) if now.value == earlier.value => {}
                Some(now) => cells.replace(&earlier, &now, as_of),
                None => cells.remove(&earlier, as_of),
            }
        }
        for (at, now) in after.drain(..) {
            self.experiments[at.experiment].cells(at.metric).add(&now, as_of);
        }
    }

    fn note_later(&mut self, key: u64, rows: &Rows) {
        let times = rows.exposures().iter().map(|of| of.at).chain(rows.conversions().iter().map(|of| of.at));
        for at in times.filter(|at| *at > self.as_of) {
            self.later.entry(at).or_default().insert(key);
        }
    }
}

/// The keys of the units that aliases have changed, as they were before: by identities, and by key.
struct Before {
    units: Vec<HashMap<u64, Vec<u64>>>,
}

impl Before {
    fn has(&self, key: u64) -> bool {
        self.units.iter().any(|of| of.contains_key(&key))
    }
}

/// What may have changed for a unit.
#[derive(Default)]
struct Touched {
    everything: bool,
    /// New exposures to these experiments.
    experiments: Vec<Name>,
    /// New conversions of these series.
    series: Vec<Name>,
}

impl Touched {
    fn of(new: &Rows, everything: bool) -> Touched {
        let mut experiments: Vec<Name> = new.exposures().iter().map(|of| of.experiment).collect();
        let mut series: Vec<Name> = new.conversions().iter().map(|of| of.series).collect();
        // Both are sorted.
        experiments.dedup();
        series.dedup();
        Touched { everything, experiments, series }
    }
}

/// What units added before and what they add now.
#[derive(Default)]
struct Difference {
    before: Vec<(Where, Contribution)>,
    after: Vec<(Where, Contribution)>,
}

/// The cells of an experiment: those of its units, or of one of its metrics.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Where {
    experiment: usize,
    metric: Option<usize>,
}

impl Counted {
    fn cells(&mut self, metric: Option<usize>) -> &mut Cells {
        match metric {
            None => &mut self.units,
            Some(metric) => &mut self.metrics[metric],
        }
    }
}

/// The rows of a unit of several keys.
fn together_of(keys: &[u64], rows: &BTreeMap<u64, Rows>) -> Rows {
    let mut whole = Rows::default();
    for key in keys {
        whole.add(rows[key].clone());
    }
    whole
}
