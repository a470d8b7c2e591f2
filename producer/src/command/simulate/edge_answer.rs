//! What an answer of an edge means for the one who asked: it is accepted, it is refused for good, or the same request is to
//! be sent again. It knows no connection and no clock.

use std::time::Duration;

use schemas::definition::Version;
use serde::Deserialize;

use crate::simulate::EdgeAnswer;

/// Longer explanations are cut to this length.
const REASON_CHARS_MAX: usize = 600;

/// An answer, whatever its status.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The header `X-Splitstream-Version`.
    pub version: Option<String>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement<T> {
    Accepted(T),
    /// Sending it again does not help.
    Refused(String),
    /// Send the same bytes again, not before `after` has passed.
    Again {
        why: String,
        after: Option<Duration>,
    },
}

/// Judges the answer to an evaluation. It is accepted once the edge has accepted every exposure.
pub fn of_evaluation(answer: &Answer) -> Judgement<EdgeAnswer> {
    if answer.status != 200 {
        return of_failure(answer);
    }
    match EdgeAnswer::read(&answer.body) {
        Ok(read) if read.logged => Judgement::Accepted(read),
        Ok(_) => again("the edge could not take the exposure", answer),
        Err(error) => Judgement::Refused(format!("an answer that is no evaluation: {error}")),
    }
}

/// Judges the answer to a batch of `events`. It is accepted once each event is.
pub fn of_track(answer: &Answer, events: usize) -> Judgement<()> {
    #[derive(Deserialize)]
    struct Body {
        events: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        event_id: Option<String>,
        status: String,
        #[serde(default)]
        error: Option<String>,
    }
    // A request in which an event is not safe has the status 503 and an answer for each event nevertheless.
    let body: Body = match (answer.status, serde_json::from_slice(&answer.body)) {
        (200 | 503, Ok(body)) => body,
        (200, Err(error)) => {
            return Judgement::Refused(format!("an answer that is none to events: {error}"));
        }
        _ => return of_failure(answer),
    };
    let why = |one: &One| {
        let id = one.event_id.as_deref().unwrap_or("without an id");
        format!("event {id}: {}", one.error.as_deref().unwrap_or(&one.status))
    };
    let unlike = |status: &'static str| body.events.iter().filter(move |one| one.status == status);
    if let Some(one) = unlike("refused").next() {
        return Judgement::Refused(why(one));
    }
    if let Some(one) = unlike("retry").next() {
        return again(&why(one), answer);
    }
    let accepted = unlike("accepted").count();
    if accepted != events || body.events.len() != events {
        let answered = body.events.len();
        return Judgement::Refused(format!("{accepted} of {answered} answers accept one of {events} events"));
    }
    Judgement::Accepted(())
}

/// Judges whether the edge evaluates by `version` of all definitions, or a newer one, by its answer to an evaluation of the
/// experiment. A server that does not say by which it evaluates is taken as it is.
pub fn of_version(answer: &Answer, version: Version) -> Judgement<()> {
    // LOG.VERSION.EPOCH
    let said = answer.version.as_deref().and_then(|text| text.split('.').nth(1)?.parse::<Version>().ok());
    if let Some(said) = said.filter(|said| *said < version) {
        let why = format!("it evaluates by version {said} of the definitions, not yet by {version}");
        return again(&why, answer);
    }
    if answer.status == 404 && failure(answer).is_some_and(|body| body.code == "FLAG_NOT_FOUND") {
        return Judgement::Refused(
            "404 it has the definitions and does not show the experiment; use the token of a server (a client sees only \
             what is marked `client_safe`), or the edge of the Kafka to which the experiment was applied"
                .to_owned(),
        );
    }
    match answer.status {
        200 => Judgement::Accepted(()),
        _ => of_failure(answer),
    }
}

/// The body of an answer that is no success.
#[derive(Deserialize)]
struct FailureBody {
    #[serde(rename = "errorCode", default)]
    code: String,
    #[serde(rename = "errorDetails")]
    details: Option<String>,
}

fn failure(answer: &Answer) -> Option<FailureBody> {
    serde_json::from_slice(&answer.body).ok()
}

fn of_failure<T>(answer: &Answer) -> Judgement<T> {
    let details = match failure(answer).and_then(|body| body.details) {
        Some(details) => details,
        None => String::from_utf8_lossy(&answer.body).into_owned(),
    };
    let details: String = details.trim().chars().take(REASON_CHARS_MAX).collect();
    let why = format!("{} {details}", answer.status).trim_end().to_owned();
    match answer.status {
        // Too many requests; not ready, or a proxy that finds nobody.
        429 | 502 | 503 | 504 => again(&why, answer),
        404 => Judgement::Refused(format!(
            "{why}; --edge takes the address where the edge answers clients (`edge.listen`), without a path; `splitstream \
             local status` shows the one of a local stack"
        )),
        _ => Judgement::Refused(why),
    }
}

fn again<T>(why: &str, answer: &Answer) -> Judgement<T> {
    // An edge writes seconds; a date, which a proxy may write, is answered by the usual pause.
    let seconds = answer.retry_after.as_deref().and_then(|text| text.trim().parse().ok());
    Judgement::Again { why: why.to_owned(), after: seconds.map(Duration::from_secs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: &str = "; --edge takes the address where the edge answers clients (`edge.listen`), without a path; \
                             `splitstream local status` shows the one of a local stack";

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let retry_after = retry_after.map(str::to_owned);
        Answer { status, retry_after, version: None, body: body.as_bytes().to_vec() }
    }

    fn again_after<T>(why: &str, seconds: Option<u64>) -> Judgement<T> {
        Judgement::Again { why: why.to_owned(), after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn an_evaluation_is_accepted_once_its_exposures_are() {
        let body = |logged: bool| {
            format!(
                r#"{{"key":"e","value":1,"reason":"SPLIT","variant":"a","metadata":{{"experiment":"e","variant":"a","exposure_logged":{logged}}}}}"#
            )
        };
        let Judgement::Accepted(read) = of_evaluation(&answer(200, None, &body(true))) else { panic!() };
        assert_eq!((read.variant.as_str(), read.exposures.len()), ("a", 1));
        assert_eq!(
            of_evaluation(&answer(200, None, &body(false))),
            again_after("the edge could not take the exposure", None)
        );
    }

    #[test]
    fn what_may_succeed_later_is_sent_again_after_the_time_that_the_edge_says() {
        let wait = r#"{"errorCode":"GENERAL","errorDetails":"wait","metadata":{}}"#;
        assert_eq!(of_evaluation(&answer(429, Some("7"), wait)), again_after("429 wait", Some(7)));
        assert_eq!(of_evaluation(&answer(503, None, wait)), again_after("503 wait", None));
        let date = Some("Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(of_evaluation(&answer(502, date, "<html>")), again_after("502 <html>", None));
        let refused = |status: u16| of_evaluation(&answer(status, None, wait));
        for status in [400, 401, 403, 413] {
            assert_eq!(refused(status), Judgement::Refused(format!("{status} wait")));
        }
        assert_eq!(refused(404), Judgement::Refused(format!("404 wait{ELSEWHERE}")));
    }

    #[test]
    fn a_batch_is_accepted_as_a_whole() {
        let events = |statuses: &[&str]| {
            let one = |status: &&str| format!(r#"{{"event_id":"i","status":"{status}","error":"no"}}"#);
            format!(r#"{{"events":[{}]}}"#, statuses.iter().map(one).collect::<Vec<String>>().join(","))
        };
        let judge =
            |status: u16, statuses: &[&str]| of_track(&answer(status, Some("1"), &events(statuses)), 2);
        assert_eq!(judge(200, &["accepted", "accepted"]), Judgement::Accepted(()));
        assert_eq!(judge(503, &["accepted", "retry"]), again_after("event i: no", Some(1)));
        // What can never be accepted is told at once.
        assert_eq!(judge(503, &["retry", "refused"]), Judgement::Refused("event i: no".to_owned()));
        let few = Judgement::Refused("1 of 1 answers accept one of 2 events".to_owned());
        assert_eq!(judge(200, &["accepted"]), few);
        assert_eq!(of_track(&answer(503, None, "busy"), 2), again_after("503 busy", None));
        let large = Judgement::Refused("413 large".to_owned());
        assert_eq!(of_track(&answer(413, None, r#"{"errorDetails":"large"}"#), 2), large);
    }

    #[test]
    fn an_edge_that_has_not_read_the_definition_yet_is_asked_again() {
        let said = |version: Option<&str>| {
            of_version(&Answer { version: version.map(str::to_owned), ..answer(200, None, "{}") }, 12)
        };
        assert_eq!(said(Some("aGVs_bG8.12.0")), Judgement::Accepted(()));
        assert_eq!(said(Some("aGVs_bG8~1f.13.4")), Judgement::Accepted(()));
        assert_eq!(said(None), Judgement::Accepted(()));
        let why = "it evaluates by version 9 of the definitions, not yet by 12";
        assert_eq!(said(Some("aGVs_bG8.9.0")), again_after(why, None));
        let fails = |status: u16, version: Option<&str>, body: &str| {
            of_version(&Answer { version: version.map(str::to_owned), ..answer(status, None, body) }, 12)
        };
        let not_found = r#"{"errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no flag"}"#;
        assert_eq!(fails(404, Some("aGVs_bG8.9.0"), not_found), again_after(why, None));
        // It will not show it later either: it was tried for two minutes.
        let hidden = "404 it has the definitions and does not show the experiment; use the token of a server (a client \
                      sees only what is marked `client_safe`), or the edge of the Kafka to which the experiment was applied";
        for version in [Some("aGVs_bG8.12.0"), None] {
            assert_eq!(fails(404, version, not_found), Judgement::Refused(hidden.to_owned()));
        }
        assert_eq!(fails(503, None, r#"{"errorDetails":"not ready"}"#), again_after("503 not ready", None));
        // Another server, or an experiment that a simulated unit cannot ask for.
        let elsewhere = Judgement::Refused(format!("404 nothing here{ELSEWHERE}"));
        assert_eq!(fails(404, None, "nothing here"), elsewhere);
        let no_unit = Judgement::Refused("400 no unit".to_owned());
        let invalid = r#"{"errorCode":"INVALID_CONTEXT","errorDetails":"no unit"}"#;
        assert_eq!(fails(400, Some("aGVs_bG8.12.0"), invalid), no_unit);
    }
}
