//! Events that clients report. An event is `accepted` only once it is safe; a request in which one is not gets 503, and is
//! sent again as it is: an event counts once, however often it comes.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use schemas::Event;
use schemas::evaluation_counts::Day;
use sdk::event::now;
use serde::Serialize;

use super::{Edge, Failure, LetIn, RETRY_AFTER_S, json};
use crate::configuration::Configuration;
use crate::events::Outcome;
use crate::tokens::{Token, TokenKind};
use crate::track::{self, EventAnswer, NotTaken, Read, Scope, Status};

#[derive(Serialize)]
struct Body {
    events: Vec<EventAnswer>,
}

pub(super) async fn answer(edge: &Edge, request: Request, began: Instant) -> Response {
    let token = match edge.let_in(request.headers(), began) {
        Ok(token) => token,
        Err(failure) => return failure.response(None),
    };
    let outcome = match edge.receive(request.into_body(), edge.settings.track_body_bytes.usize()).await {
        Ok(received) => accept(edge, &token, &received.body).await,
        Err(failure) => Err(failure),
    };
    let mut response = outcome.unwrap_or_else(|failure| failure.response(None));
    response.extensions_mut().insert(LetIn(token));
    response
}

async fn accept(edge: &Edge, token: &Token, body: &[u8]) -> Result<Response, Failure> {
    let configuration = edge.configuration()?;
    let events = track::split(body, edge.settings.track_events.usize())?;
    let scope = Scope {
        configuration: &configuration,
        token,
        now: now(),
        ahead_max: edge.settings.event_ahead_ms.duration(),
    };
    let read: Vec<Read> = events.into_iter().map(|raw| track::read(raw, scope)).collect();
    let events: Vec<Event<'static>> =
        read.iter().filter_map(|read| read.event.as_ref().ok().cloned()).collect();
    if !events.is_empty() {
        let taken = token.take_events(events.len(), Instant::now());
        taken.map_err(|early| edge.too_many(token, "events", early))?;
    }
    let outcomes = edge.events.emit_durable(events, edge.settings.track_timeout_ms.duration()).await;
    let mut outcomes = outcomes.into_iter();
    let mut answers = Vec::with_capacity(read.len());
    for Read { event_id, event } in read {
        let mut warning = None;
        let (kind, status, error) = match event {
            Err(NotTaken::Wrong(why)) => ("unknown", Status::Refused, Some(why)),
            Err(NotTaken::Behind(why)) => ("unknown", Status::Retry, Some(why)),
            Ok(event) => match outcomes.next().expect("every event that was sent has an outcome") {
                Outcome::Safe => {
                    count(&configuration, &event);
                    warning = track::warning(&event, scope);
                    let named = track::experiment_of(&event);
                    if named.is_some_and(|key| !configuration.has_experiment(key, TokenKind::Server)) {
                        edge.metrics.tracked_without_experiment.with_label_values(&[kind_of(&event)]).inc();
                    }
                    (kind_of(&event), Status::Accepted, None)
                }
                Outcome::Refused(why) => (kind_of(&event), Status::Refused, Some(why)),
                Outcome::Retry(why) => (kind_of(&event), Status::Retry, Some(why)),
            },
        };
        edge.metrics.tracked.with_label_values(&[kind, code_of(status)]).inc();
        answers.push(EventAnswer { event_id, status, error, warning });
    }
    let again = answers.iter().any(|answer| answer.status == Status::Retry);
    let status = if again { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = serde_json::to_vec(&Body { events: answers }).expect("an answer can be written as JSON");
    let mut response = json(status, body);
    if again {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
    }
    Ok(response)
}

/// Counts the read that an exposure reports, on the day of the report. A report that is sent again is counted again: only the
/// table of exposures knows that it is the same.
fn count(configuration: &Configuration, event: &Event<'_>) {
    if let Event::Exposure(exposure) = event
        && let Some(count) =
            configuration.entry(&exposure.experiment).and_then(|entry| entry.count(&exposure.variant))
    {
        count.reported(Day::of(now()));
    }
}

fn kind_of(event: &Event<'_>) -> &'static str {
    match event {
        Event::Exposure(_) => "exposure",
        Event::Conversion(_) => "conversion",
        Event::Alias(_) => "alias",
    }
}

fn code_of(status: Status) -> &'static str {
    match status {
        Status::Accepted => "accepted",
        Status::Refused => "refused",
        Status::Retry => "retry",
    }
}
