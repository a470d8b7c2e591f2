//! Simulated traffic that asks an edge: which unit asks when, what its answer leads to, and which conversions are reported.
//! It knows no clock and no HTTP: the caller brings the time and the answers. The edge alone decides who is exposed to what
//! and stamps its exposures with its own clock, so this traffic runs on real time.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemas::{Decimal6, Key, Micros, Pairs, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Builder;

use super::{DueEvent, EventKind, Simulation, Tally};
use crate::unit_context::UnitContext;

/// The traffic of a [`Simulation`] whose units ask an edge.
pub struct EdgeTraffic<'a> {
    simulation: Simulation<'a>,
}

/// What is to be sent next.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The body of an evaluation of the experiment.
    Evaluation(Asked, Vec<u8>),
    /// An event for a batch of `track`.
    Conversion(Tracked, String),
}

/// An evaluation under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    unit: u64,
    profile: usize,
    /// Whether the same unit was answered before.
    repeated: bool,
}

/// A conversion under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracked(DueEvent);

/// What an edge answers to an evaluation, as far as a simulated unit acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeAnswer {
    pub variant: String,
    /// The protocol's reason, such as SPLIT.
    pub reason: String,
    /// The experiment and the variant of each exposure.
    pub exposures: Vec<(String, String)>,
    /// Whether the edge has accepted all exposures, now or within the hour.
    pub logged: bool,
}

/// The edge evaluates another definition than the one that is simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the edge serves variant `{variant}` of `{experiment}`, which the simulated version does not have: the \
     definition has changed, or the edge follows another log"
)]
pub struct UnknownVariant {
    pub experiment: Key,
    pub variant: String,
}

#[derive(Serialize)]
struct EvaluationBody<'a> {
    context: &'a UnitContext<'a>,
}

#[derive(Serialize)]
struct ConversionBody<'a> {
    event_id: Uuid,
    r#type: &'static str,
    key: &'a str,
    context: &'a UnitContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Decimal6>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    metadata: &'a Pairs<'static>,
    ts: Micros,
}

/// The body of an evaluation.
pub fn evaluation_body<'a>(context: &'a UnitContext<'a>) -> Vec<u8> {
    serde_json::to_vec(&EvaluationBody { context }).expect("a context can be written as JSON")
}

impl EdgeAnswer {
    /// Reads the body of a successful evaluation.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn read(body: &[u8]) -> Result<EdgeAnswer, String> {
        #[derive(Deserialize)]
        struct Written {
            variant: String,
            reason: String,
            metadata: BTreeMap<String, Json>,
        }
        let Written { variant, reason, metadata } =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let text = |name: String| metadata.get(&name).and_then(Json::as_str).map(str::to_owned);
        let mut exposures = Vec::new();
        // The first exposure has no number, the second the number 2.
        for number in 1.. {
            let suffix = if number == 1 { String::new() } else { format!(".{number}") };
            let Some(experiment) = text(format!("experiment{suffix}")) else { break };
            let variant = text(format!("variant{suffix}"))
                .ok_or_else(|| format!("metadata.variant{suffix} is missing"))?;
            exposures.push((experiment, variant));
        }
        let logged = exposures.is_empty() || metadata.get("exposure_logged") == Some(&Json::Bool(true));
        Ok(EdgeAnswer { variant, reason, exposures, logged })
    }
}

impl<'a> EdgeTraffic<'a> {
    pub fn new(simulation: Simulation<'a>) -> EdgeTraffic<'a> {
        EdgeTraffic { simulation }
    }

    /// The counts of what has been answered and accepted so far.
    pub fn tally(&self) -> &Tally {
        self.simulation.tally()
    }

    /// When the next request is due. `None` if nothing is left, unless an answer that is under way leads to more.
    pub fn next_at(&self) -> Option<Micros> {
        self.simulation.next_at()
    }

    /// Takes the next request, due or not.
    pub fn take_next(&mut self) -> Option<Request> {
        let due = self.simulation.due.peek().map(|Reverse(due)| due.at);
        match self.simulation.next_arrival() {
            Some(arrival) if due.is_none_or(|due| due > arrival) => {
                let (unit, profile) = self.simulation.next_unit();
                Some(self.evaluation(Asked { unit, profile, repeated: false }))
            }
            _ => {
                let Reverse(due) = self.simulation.due.pop()?;
                let DueEvent { unit, profile, repeated, .. } = due;
                Some(match due.kind {
                    EventKind::Exposure => self.evaluation(Asked { unit, profile, repeated }),
                    EventKind::Conversion => self.conversion(due),
                })
            }
        }
    }

    /// Acts on an answer, whose exposures are logged: a unit that was exposed does something later. `now` is the time of
    /// the answer. It is after that of the exposure only if this machine's clock and the edge's agree: conversions are
    /// stamped with the former, exposures with the latter, and a conversion before its exposure does not count.
    ///
    /// # Errors
    /// If the definition has no such variant.
    pub fn answered(&mut self, asked: Asked, answer: &EdgeAnswer, now: Micros) -> Result<(), UnknownVariant> {
        let simulation = &mut self.simulation;
        let Some(variant) = simulation.variant(&answer.variant) else {
            let (experiment, variant) = (simulation.experiment.key.clone(), answer.variant.clone());
            return Err(UnknownVariant { experiment, variant });
        };
        if asked.repeated {
            simulation.tally.duplicates += 1;
            return Ok(());
        }
        let own = simulation.experiment.key.as_str();
        let takes_part = answer.exposures.iter().any(|(experiment, _)| experiment == own);
        for (holdout, side) in answer.exposures.iter().filter(|(experiment, _)| experiment != own) {
            simulation.tally.add_side(holdout, side);
        }
        simulation.tally.exposures += answer.exposures.len() as u64;
        let reason = || format!("the edge serves `{}` by the reason {}", answer.variant, answer.reason);
        simulation.count_unit(variant, if takes_part { Ok(()) } else { Err(reason()) });
        if !answer.exposures.is_empty() {
            let at = now.get().saturating_sub(simulation.plan.start.get()).max(0).unsigned_abs();
            let Asked { unit, profile, .. } = asked;
            let kind = EventKind::Exposure;
            simulation.schedule(DueEvent {
                at,
                happened: at,
                unit,
                kind,
                repeated: false,
                profile,
                variant,
                takes_part,
            });
        }
        Ok(())
    }

    /// Counts a conversion that the edge has accepted.
    pub fn accepted(&mut self, Tracked(due): Tracked) {
        if due.repeated {
            self.simulation.tally.duplicates += 1;
        } else {
            self.simulation.count_conversion(due);
        }
    }

    fn evaluation(&self, asked: Asked) -> Request {
        let unit_id = self.simulation.unit_id(asked.unit);
        let attributes = &self.simulation.profiles.get(asked.profile).attributes;
        let context = UnitContext::new(self.simulation.experiment.unit_type.as_str(), &unit_id, attributes);
        Request::Evaluation(asked, evaluation_body(&context))
    }

    fn conversion(&self, due: DueEvent) -> Request {
        let simulation = &self.simulation;
        let unit_id = simulation.unit_id(due.unit);
        let context = UnitContext::new(simulation.experiment.unit_type.as_str(), &unit_id, &[]);
        let ts = simulation.time_at(due.happened);
        let body = serde_json::to_string(&ConversionBody {
            event_id: self.event_id(due, ts),
            r#type: "conversion",
            key: simulation.plan.event.as_str(),
            context: &context,
            value: simulation.value(due.unit),
            metadata: &simulation.profiles.get(due.profile).pairs,
            ts,
        });
        Request::Conversion(Tracked(due), body.expect("an event can be written as JSON"))
    }

    /// A UUIDv7 of the event's millisecond, whose other bits follow from the seed, the batch, the experiment and the unit.
    fn event_id(&self, due: DueEvent, ts: Micros) -> Uuid {
        let digest = self.simulation.digest(due, &self.simulation.experiment.key).to_be_bytes();
        let rest = digest.first_chunk().expect("a digest has 16 bytes");
        Builder::from_unix_timestamp_millis(ts.get().unsigned_abs() / 1_000, rest).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use schemas::definition::Definitions;

    use super::super::simulation_tests::{definitions, plan};
    use super::super::{Plan, Simulation, VariantTally, snapshot};
    use super::*;

    /// What an edge answers that serves `variant`, with these fields of metadata.
    fn answer(variant: &str, metadata: &str) -> EdgeAnswer {
        let body = format!(
            r#"{{"key":"checkout","value":"x","reason":"SPLIT","variant":"{variant}","metadata":{metadata}}}"#
        );
        EdgeAnswer::read(body.as_bytes()).unwrap()
    }

    fn exposed_to(variant: &str) -> EdgeAnswer {
        answer(
            variant,
            &format!(r#"{{"experiment":"checkout","variant":"{variant}","exposure_logged":true}}"#),
        )
    }

    fn traffic(definitions: &Definitions, plan: Plan) -> EdgeTraffic<'_> {
        let (_, experiment) = definitions.experiment("checkout").unwrap();
        let snapshot = Box::leak(Box::new(snapshot(definitions)));
        EdgeTraffic::new(Simulation::new(snapshot, experiment, plan).unwrap())
    }

    fn asks(traffic: &mut EdgeTraffic<'_>) -> (Asked, String) {
        match traffic.take_next() {
            Some(Request::Evaluation(asked, body)) => (asked, String::from_utf8(body).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_unit_asks_and_converts_by_the_rate_of_the_variant_that_the_edge_serves() {
        let definitions = definitions("running", "hashed");
        let mut rates = plan().rates;
        rates.insert("control".to_owned(), 0.0);
        rates.insert("treatment".to_owned(), 1.0);
        let mut traffic = traffic(&definitions, Plan { units: 2, duplicates: 0.0, rates, ..plan() });
        let start = plan().start;
        assert_eq!(traffic.next_at(), Some(start));
        let (first, body) = asks(&mut traffic);
        assert_eq!(
            body,
            r#"{"context":{"targetingKey":"sim-000001","region":"US","plan":"free","device":"mobile","browser":"safari"}}"#
        );
        let (second, _) = asks(&mut traffic);
        // Nothing else is due before an answer comes.
        assert_eq!((traffic.next_at(), traffic.take_next()), (None, None));

        let now = Micros::new(start.get() + 40_000_000).unwrap();
        traffic.answered(first, &exposed_to("control"), now).unwrap();
        assert_eq!(traffic.next_at(), None);
        traffic.answered(second, &exposed_to("treatment"), now).unwrap();
        let due = traffic.next_at().unwrap();
        assert!((0..5_000_000).contains(&(due.get() - now.get())), "{due}");
        let Some(Request::Conversion(tracked, body)) = traffic.take_next() else { panic!("no conversion") };
        let event: Json = serde_json::from_str(&body).unwrap();
        let event_id: Uuid = event["event_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(event_id.get_version_num(), 7);
        assert_eq!(event_id.as_u128() >> 80, due.get() as u128 / 1_000);
        assert_eq!((&event["type"], &event["key"]), (&Json::from("conversion"), &Json::from("signup")));
        assert_eq!(event["context"], serde_json::json!({"targetingKey": "sim-000002"}));
        assert_eq!(event["ts"], due.to_string());
        assert_eq!(traffic.tally().conversions, 0);
        traffic.accepted(tracked);
        let arm = |key: &str, conversions| VariantTally { key: key.to_owned(), units: 1, conversions };
        assert_eq!(traffic.tally().variants, [arm("control", 0), arm("treatment", 1)]);
        assert_eq!((traffic.tally().exposures, traffic.tally().conversions), (2, 1));
    }

    #[test]
    fn a_repetition_is_the_same_bytes_and_counts_nothing_but_itself() {
        let definitions = definitions("running", "hashed");
        let rates = plan().rates.into_keys().map(|key| (key, 1.0)).collect();
        let mut traffic = traffic(&definitions, Plan { units: 1, duplicates: 1.0, rates, ..plan() });
        let (asked, body) = asks(&mut traffic);
        traffic.answered(asked, &exposed_to("control"), plan().start).unwrap();
        let (mut evaluations, mut conversions) = (vec![body], Vec::new());
        while let Some(request) = traffic.take_next() {
            match request {
                Request::Evaluation(asked, body) => {
                    traffic.answered(asked, &exposed_to("control"), plan().start).unwrap();
                    evaluations.push(String::from_utf8(body).unwrap());
                }
                Request::Conversion(tracked, body) => {
                    traffic.accepted(tracked);
                    conversions.push(body);
                }
            }
        }
        assert_eq!((evaluations.len(), conversions.len()), (2, 2));
        assert_eq!((&evaluations[0], &conversions[0]), (&evaluations[1], &conversions[1]));
        let tally = traffic.tally();
        assert_eq!((tally.exposures, tally.conversions, tally.duplicates), (1, 1, 2));
    }

    #[test]
    fn a_unit_that_only_a_holdout_counts_converts_as_what_it_is_served() {
        let definitions = definitions("running", "hashed");
        let rates = plan().rates.into_keys().map(|key| (key, 1.0)).collect();
        let mut traffic = traffic(&definitions, Plan { units: 2, duplicates: 0.0, rates, ..plan() });
        let (held, _) = asks(&mut traffic);
        let (outside, _) = asks(&mut traffic);
        let side = r#"{"experiment":"all","variant":"held","exposure_logged":true}"#;
        traffic.answered(held, &answer("control", side), plan().start).unwrap();
        traffic.answered(outside, &answer("control", "{}"), plan().start).unwrap();
        let Some(Request::Conversion(tracked, _)) = traffic.take_next() else { panic!("no conversion") };
        traffic.accepted(tracked);
        assert_eq!(traffic.take_next(), None);
        let tally = traffic.tally();
        assert_eq!((tally.exposed, tally.exposures, tally.conversions), (0, 1, 1));
        assert_eq!(tally.holdouts["all"]["held"], 1);
        assert_eq!(tally.not_exposed["the edge serves `control` by the reason SPLIT"], 2);
    }

    #[test]
    fn an_answer_is_read_with_every_exposure_and_a_variant_that_is_unknown_is_an_error() {
        let both = r#"{"experiment":"checkout","variant":"control","experiment.2":"all","variant.2":"rest","exposure_logged":false}"#;
        let read = answer("control", both);
        let pair = |experiment: &str, variant: &str| (experiment.to_owned(), variant.to_owned());
        assert_eq!(read.exposures, [pair("checkout", "control"), pair("all", "rest")]);
        assert!(!read.logged && exposed_to("control").logged && answer("control", "{}").logged);
        assert_eq!(
            EdgeAnswer::read(br#"{"variant":"a","reason":"SPLIT","metadata":{"experiment":"e"}}"#)
                .unwrap_err(),
            "metadata.variant is missing"
        );
        let definitions = definitions("running", "hashed");
        let mut traffic = traffic(&definitions, Plan { units: 1, ..plan() });
        let (asked, _) = asks(&mut traffic);
        assert_eq!(
            traffic.answered(asked, &exposed_to("blue"), plan().start).unwrap_err().to_string(),
            "the edge serves variant `blue` of `checkout`, which the simulated version does not have: the \
             definition has changed, or the edge follows another log"
        );
    }
}
