//! From an evaluation to its exposures, and which of them are logged. The unit of an exposure is the context's value of the
//! experiment's unit type; ids of other types in use go along, and so do the attributes that the experiment names.

use std::borrow::Cow;
use std::time::Instant;

use assignment::{Context, Evaluation, ExperimentEvaluation};
use schemas::{Event, Exposure, Micros, Uuid};
use sdk::Refused;
use sdk::attributes::{AttributeFilter, SelectedAttributes};
use sdk::event::EventStamp;

use crate::configuration::Configuration;
use crate::events::Events;
use crate::ofrep::request::SentContext;
use crate::suppress::{Repeat, Suppressed};

/// What became of an exposure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    Emitted,
    /// It was logged within the hour.
    Suppressed,
    /// The emitter did not take it; the next read tries again.
    Refused(Refused),
}

/// The exposures of reading the value, without their event ids, ids of other types in use, and attributes: first to the key itself, so that
/// metadata names it without a number.
pub fn of_evaluation<'a>(
    evaluation: &Evaluation<'a>,
    context: &Context<'a>,
    now: Micros,
) -> Vec<Exposure<'a>> {
    let stamp = EventStamp { event_id: Uuid::nil(), created_at: now };
    let exposure = |part: ExperimentEvaluation<'a>| {
        sdk::event::exposure_in(stamp, context, &part, SelectedAttributes::default()).ok()
    };
    let mut exposures: Vec<Exposure> = evaluation.exposures().filter_map(exposure).collect();
    exposures.sort_by_key(|exposure| exposure.experiment != evaluation.key.as_str());
    exposures
}

/// Logs the exposure, unless it is a repeat. It is remembered only once the emitter has accepted it.
pub fn log(
    exposure: &Exposure<'_>,
    told: Told<'_>,
    suppressed: &Suppressed,
    events: &Events,
    now: Instant,
) -> Logged {
    let repeat = Repeat::of(exposure);
    if suppressed.contains(repeat, now) {
        return Logged::Suppressed;
    }
    let texts = told.sent.texts();
    let mut other_ids = exposure.other_ids.clone();
    for (unit_type, id) in told.configuration.other_ids(told.context, &exposure.unit_type).iter() {
        other_ids.insert(unit_type.to_owned(), id.to_owned());
    }
    let whole = Exposure {
        event_id: EventStamp::at(exposure.created_at).event_id,
        other_ids,
        attributes: told.configuration.attributes_of(&exposure.experiment).select(&texts).into_pairs(),
        ..exposure.clone()
    };
    match events.emit(Event::Exposure(whole)) {
        Ok(()) => {
            suppressed.insert(repeat, now);
            Logged::Emitted
        }
        Err(refused) => Logged::Refused(refused),
    }
}

/// What was known when the value was read.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    pub configuration: &'a Configuration,
    pub sent: &'a SentContext<'a>,
    pub context: &'a Context<'a>,
}

impl Configuration {
    /// The attributes that exposures of an experiment carry. Of one that this configuration does not have, none but those
    /// that every exposure carries.
    pub fn attributes_of(&self, experiment: &str) -> Cow<'_, AttributeFilter> {
        match self.entry(experiment).and_then(|entry| entry.attributes()) {
            Some(filter) => Cow::Borrowed(filter),
            None => Cow::Owned(AttributeFilter::standard()),
        }
    }
}
