//! What a unit adds to an experiment: a pure function of its rows.

use crate::cells::{Contribution, Forced, Group};
use crate::event::{Conversion, Exposure};
use crate::kind::{Events, Value};
use crate::micros::Micros;
use crate::names::Name;
use crate::rows::Rows;
use crate::spec::ExperimentSpec;

/// What a unit's rows say about one experiment at one moment.
pub(crate) struct View<'a> {
    rows: &'a Rows,
    experiment: &'a ExperimentSpec,
    /// Events after it do not count yet.
    as_of: Micros,
    standing: Contribution,
}

impl<'a> View<'a> {
    /// None if the unit was not exposed to the experiment.
    pub(crate) fn of(rows: &'a Rows, experiment: &'a ExperimentSpec, as_of: Micros) -> Option<View<'a>> {
        let counted = |of: &&Exposure| of.at <= as_of && experiment.counts_in(of.environment);
        let mut exposures = rows.exposures_to(experiment.name).iter().filter(counted);
        let first = exposures.next()?;
        let mut all = 1;
        let mut mismatched = i128::from(first.mismatched);
        let mut several = false;
        let mut forced = if first.forced { Forced::First } else { Forced::Never };
        let mut counted_by_mismatched = first.mismatched;
        for exposure in exposures {
            all += 1;
            mismatched += i128::from(exposure.mismatched);
            several |= exposure.variant != first.variant;
            if exposure.forced {
                counted_by_mismatched |= exposure.mismatched;
                if forced == Forced::Never {
                    forced = Forced::Later;
                }
            }
        }
        let group = Group { variant: first.variant, phase: first.phase, several, forced };
        let value =
            Value { takes_part: true, has_event: counted_by_mismatched, y: all, x: mismatched, steps: 0 };
        let standing = Contribution { exposed_at: first.at, group, segments: first.segments, value };
        Some(View { rows, experiment, as_of, standing })
    }

    /// The unit as one of the experiment: y is the number of its exposures, x that of the mismatched ones, and
    /// `has_event` whether a mismatched one counts the unit or takes it out.
    pub(crate) fn standing(&self) -> Contribution {
        self.standing
    }

    /// What it adds to a metric; nothing if it was ever forced.
    pub(crate) fn metric(&self, metric: usize) -> Option<Contribution> {
        if self.standing.group.forced != Forced::Never {
            return None;
        }
        let metric = &self.experiment.metrics[metric];
        let value = metric.kind.value(self, self.standing.exposed_at, metric.covariate);
        Some(Contribution { value, ..self.standing })
    }

    fn counts(&self, event: &Conversion) -> bool {
        let scope = event.scope;
        event.at <= self.as_of
            && scope.experiment.is_none_or(|named| named == self.experiment.name)
            && self.experiment.counts_in(scope.environment)
            && self.experiment.switchback.is_none_or(|of| event.at.rem_euclid(of.window) >= of.burn_in)
    }
}

impl Events for View<'_> {
    fn of(&self, series: Name, from: Micros, to: Option<Micros>) -> impl Iterator<Item = &Conversion> {
        let all = self.rows.conversions_of(series);
        let start = all.partition_point(|event| event.at < from);
        let in_time = all[start..].iter().take_while(move |event| to.is_none_or(|to| event.at < to));
        in_time.filter(|event| self.counts(event))
    }
}
