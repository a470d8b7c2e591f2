//! From rows of the event tables to rows of units: which units an event belongs to, and what of it counting needs.

use counting::event::{Conversion, EventId, Exposure, NewExposure, SEGMENTS, Scope};
use counting::fold::{Alias, NewRows};
use counting::micros::Micros;
use counting::names::{Name, Names};
use schemas::UnitKey;
use schemas::definition::Experiment;
use schemas::switchback::SwitchbackUnit;

use crate::spec::Series;

/// A row of the table `exposures`.
#[derive(Clone, Copy, Debug)]
pub struct ExposureRow<'a> {
    pub event_id: EventId,
    pub experiment: &'a str,
    pub variant: &'a str,
    pub unit_key: u64,
    pub unit_id: &'a str,
    pub phase: u32,
    pub environment: &'a str,
    pub reason: Reason,
    pub mismatched: bool,
    pub created_at: Micros,
    pub ingested_ms: i64,
    /// region, plan, device, browser
    pub segments: [&'a str; SEGMENTS],
}

/// Why a unit saw its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Split,
    Forced,
    /// It takes no part.
    HeldOut,
}

/// A row of the table `conversions`.
#[derive(Clone, Copy, Debug)]
pub struct ConversionRow<'a> {
    pub event_id: EventId,
    pub name: &'a str,
    pub unit_type: &'a str,
    pub unit_id: &'a str,
    pub unit_key: u64,
    /// The other units that it carries, by type, and their keys in the same order.
    pub other_ids: &'a [(&'a str, &'a str)],
    pub carried_keys: &'a [u64],
    /// Empty: it names none.
    pub experiment: &'a str,
    pub environment: &'a str,
    pub value_millionths: Option<i64>,
    pub metadata: &'a [(&'a str, &'a str)],
    pub created_at: Micros,
}

/// What decides which units an event belongs to.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    pub names: Names,
    pub series: Series,
    followed: Vec<Followed>,
}

#[derive(Clone, Debug)]
struct Followed {
    name: Name,
    unit_type: String,
    /// The length of a window, if it is a switchback.
    window_s: Option<u32>,
}

impl Intake {
    /// Adds an experiment whose exposures count from now on.
    pub fn follow(&mut self, experiment: &Experiment) {
        let name = self.names.add(experiment.key.as_str());
        if self.followed.iter().all(|of| of.name != name) {
            self.followed.push(Followed {
                name,
                unit_type: experiment.unit_type.to_string(),
                window_s: experiment.switchback.map(|of| of.window_seconds),
            });
        }
    }

    /// Adds an exposure, if its experiment is followed and its unit takes part. Of a switchback an exposure counts in the
    /// window of its own time alone.
    pub fn exposure(&mut self, row: &ExposureRow<'_>, out: &mut NewRows) {
        let followed =
            self.names.get(row.experiment).and_then(|name| self.followed.iter().find(|of| of.name == name));
        let Some(followed) = followed else { return };
        let is_in_its_window = followed.window_s.is_none_or(|window| {
            SwitchbackUnit::parse(row.unit_id)
                .is_some_and(|unit| unit.window_start_s() == start_of(row.created_at, window))
        });
        if row.reason == Reason::HeldOut || !is_in_its_window {
            return;
        }
        let exposure = Exposure::new(NewExposure {
            experiment: followed.name,
            at: row.created_at,
            id: row.event_id,
            variant: self.names.add(row.variant),
            phase: row.phase,
            environment: self.names.add(row.environment),
            segments: row.segments.map(|text| self.names.add(text)),
            ingested_ms: row.ingested_ms,
            forced: row.reason == Reason::Forced,
            mismatched: row.mismatched,
        });
        out.exposure(row.unit_key, exposure);
    }

    /// Adds a conversion to every unit that it carries, once for each series that it belongs to. For the windows of
    /// switchbacks it belongs to the clusters that it carries, each in the window of its time.
    pub fn conversion(&mut self, row: &ConversionRow<'_>, out: &mut NewRows) {
        let metadata = |key: &str| row.metadata.iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
        let series = self.series.of_event(row.name, metadata, row.value_millionths);
        if series.is_empty() {
            return;
        }
        let mut keys = vec![row.unit_key];
        keys.extend(row.carried_keys);
        let carried = std::iter::once((row.unit_type, row.unit_id)).chain(row.other_ids.iter().copied());
        for (unit_type, unit_id) in carried {
            for followed in self.followed.iter().filter(|of| of.unit_type == unit_type) {
                let window = followed.window_s.map(|window| start_of(row.created_at, window));
                let unit = window.and_then(|start| SwitchbackUnit::new(unit_id, start).ok());
                keys.extend(unit.map(|unit| UnitKey::of(unit_type, unit.id().as_str()).get()));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let experiment = (!row.experiment.is_empty()).then(|| self.names.add(row.experiment));
        let scope = Scope { environment: self.names.add(row.environment), experiment };
        for series in series {
            let value = row.value_millionths.unwrap_or(0);
            let conversion = Conversion::new(series, row.created_at, row.event_id, value, scope);
            keys.iter().for_each(|key| out.conversion(*key, conversion));
        }
    }

    /// Adds an alias.
    pub fn alias(&mut self, from: u64, to: u64, environment: &str, created_at: Micros, out: &mut NewRows) {
        out.alias(Alias { at: created_at, environment: self.names.add(environment), from, to });
    }
}

/// The start of the window that a time lies in, in seconds since 1970.
fn start_of(at: Micros, window_s: u32) -> u64 {
    let window = i64::from(window_s);
    u64::try_from(at.div_euclid(1_000_000).div_euclid(window) * window).unwrap_or(0)
}
