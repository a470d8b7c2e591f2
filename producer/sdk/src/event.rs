//! Makes exposures, conversions and aliases. Only [`now`] and [`EventStamp::at`] have inputs from outside: the
//! clock and the random bits of an id.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use assignment::{Context, DEFAULT_UNIT_TYPE, ExperimentEvaluation, Exposed, NotExposed};
use schemas::event::UNIT_ID_BYTES_MAX;
use schemas::{Alias, Conversion, Exposure, Micros, Pairs, Sender, Unit, Uuid, switchback};
use uuid::{NoContext, Timestamp};

use crate::attributes::SelectedAttributes;

/// The default `environment` of an event.
const ENVIRONMENT: &str = schemas::definition::PRODUCTION;

/// The id and time of one event. They are made once; an event that is sent again keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventStamp {
    pub event_id: Uuid,
    pub created_at: Micros,
}

impl EventStamp {
    /// Makes a new UUIDv7 for an event that happened at `now`.
    pub fn at(now: Micros) -> EventStamp {
        let micros = now.get().unsigned_abs();
        let nanos = (micros % 1_000_000) as u32 * 1_000;
        let event_id = Uuid::new_v7(Timestamp::from_unix(NoContext, micros / 1_000_000, nanos));
        EventStamp { event_id, created_at: now }
    }
}

/// Reads the system clock.
///
/// # Panics
/// If the clock is set before 1970 or after 2261.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is not set before 1970");
    let micros = i64::try_from(since.as_micros()).expect("the clock is not set after 2261");
    Micros::new(micros).expect("the clock is set between 1970 and 2261")
}

/// Makes the exposure of a unit that was shown the variant of an evaluation. `unit_id` is that of the evaluated context. `stamp`
/// is of the time that was evaluated: where the plan has a schedule, or time is cut into windows, the consumer verifies the
/// exposure at that time. Of a switchback the exposure's unit is the cluster in its window, and the cluster goes along.
///
/// # Errors
/// The reason why the unit takes no part in the experiment, and so was not exposed.
pub fn exposure<'a>(
    stamp: EventStamp,
    unit_id: impl Into<Cow<'a, str>>,
    evaluated: &ExperimentEvaluation<'a>,
    attributes: SelectedAttributes<'a>,
) -> Result<Exposure<'a>, NotExposed> {
    let ExperimentEvaluation { experiment, versions, rule, outcome } = *evaluated;
    let Exposed { variant, reason, buckets, window_start_s } = outcome?;
    let (mut unit_id, mut other_ids) = (unit_id.into(), Pairs::default());
    if let Some(start_s) = window_start_s {
        // The evaluation has checked that the cluster can be one; what another id gives, the emitter or the consumer finds.
        let mut in_window = String::new();
        switchback::write_id(&mut in_window, &unit_id, start_s).expect("memory can be written");
        other_ids.insert(experiment.unit_type.as_str(), std::mem::replace(&mut unit_id, in_window.into()));
    }
    Ok(Exposure {
        event_id: stamp.event_id,
        experiment: experiment.key.as_str().into(),
        variant: variant.key.as_str().into(),
        unit_type: experiment.unit_type.as_str().into(),
        unit_id,
        other_ids,
        phase: experiment.phase(),
        definition_version: versions.definition_version,
        configuration_version: versions.configuration_version,
        buckets,
        rule: rule.map_or("", |rule| rule.as_str()).into(),
        reason,
        attributes: attributes.into_pairs(),
        environment: Cow::Borrowed(&*versions.environment),
        sender: Sender::default(),
        created_at: stamp.created_at,
    })
}

/// As [`exposure`], of the unit that the evaluated context has. An exposure of a cluster, such as an account, also carries the
/// id of its member, the user, where the context has one of 1 to 256 bytes. The edge logs a unit's
/// exposure once an hour, so of a cluster's members it names the first alone.
///
/// # Errors
/// The reason why the unit takes no part in the experiment, and so was not exposed.
pub fn exposure_in<'a>(
    stamp: EventStamp,
    context: &Context<'a>,
    evaluated: &ExperimentEvaluation<'a>,
    attributes: SelectedAttributes<'a>,
) -> Result<Exposure<'a>, NotExposed> {
    let unit_type = evaluated.experiment.unit_type.as_str();
    // Without its unit nobody is exposed.
    let unit_id = context.unit(unit_type).unwrap_or_default();
    let mut exposure = exposure(stamp, unit_id, evaluated, attributes)?;
    if unit_type != DEFAULT_UNIT_TYPE
        && let Some(user) = context.unit(DEFAULT_UNIT_TYPE)
        && (1..=UNIT_ID_BYTES_MAX).contains(&user.len())
    {
        exposure.other_ids.insert(DEFAULT_UNIT_TYPE, user);
    }
    Ok(exposure)
}

/// Makes a conversion called `name` of the unit. It counts in every experiment that exposed the unit before,
/// unless the caller sets `experiment`.
pub fn conversion<'a>(stamp: EventStamp, name: impl Into<Cow<'a, str>>, unit: Unit<'a>) -> Conversion<'a> {
    Conversion {
        event_id: stamp.event_id,
        name: name.into(),
        unit_type: unit.unit_type,
        unit_id: unit.unit_id,
        other_ids: Pairs::default(),
        experiment: None,
        value: None,
        metadata: Pairs::default(),
        environment: ENVIRONMENT.into(),
        sender: Sender::default(),
        created_at: stamp.created_at,
    }
}

/// Makes an alias: `from` and `to` are ids of the same unit, for example before and after a login.
pub fn alias<'a>(stamp: EventStamp, from: Unit<'a>, to: Unit<'a>) -> Alias<'a> {
    Alias {
        event_id: stamp.event_id,
        from,
        to,
        environment: ENVIRONMENT.into(),
        sender: Sender::default(),
        created_at: stamp.created_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_with_the_events_millisecond() {
        let created_at = Micros::parse("2026-01-31T12:00:00.123456Z").unwrap();
        let (one, other) = (EventStamp::at(created_at), EventStamp::at(created_at));
        assert_eq!(one.event_id.get_version_num(), 7);
        assert_eq!(one.event_id.as_u128() >> 80, 1_769_860_800_123);
        assert_eq!(one.created_at, created_at);
        assert_ne!(one.event_id, other.event_id);
    }
}
