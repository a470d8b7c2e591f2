//! Opens the next phase of the experiments that a list's new members concern. The list is in the log by then, so nothing that
//! goes wrong here takes it back: it is told beside the list's verdict, and the same list applied again makes up for it.

use schemas::definition::{Definition, Definitions, Experiment, Kind, Refusal};
use schemas::{Key, Micros};
use serde::Serialize;

use super::{Applied, Signature, Verdict, apply_one};
use crate::log::{DefinitionLog, LogError};

/// How often the phases are opened if another writer is first with one of the experiments. After each time the log has been
/// read up to that writer's change; who loses four times in a row gives up and says so.
const TRIES: usize = 4;

/// The experiments whose next phase is not open yet. The same list applied again opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unopened {
    pub experiments: Vec<String>,
    /// It may name servers.
    pub because: String,
}

/// Opens the phases that the list owes.
pub(super) async fn open_phases(
    log: &mut DefinitionLog,
    now: Micros,
    list: &mut Applied,
    signature: &Signature,
) {
    let mut because = String::new();
    for _ in 0..TRIES {
        match open_each(log, now, list, signature).await {
            Ok(None) => return,
            Ok(Some(stale)) => because = stale.to_string(),
            Err(error) => {
                because = format!("{:#}", anyhow::Error::from(error));
                break;
            }
        }
    }
    let for_good = |key: &str| list.opened.iter().any(|opened| opened.key == key && opened.is_refused());
    let owed = concerned(log.definitions(), list).into_iter().map(|experiment| experiment.key().to_string());
    let experiments: Vec<String> = owed.filter(|key| !for_good(key)).collect();
    // Whoever was first may have opened it.
    if !experiments.is_empty() {
        tracing::warn!(
            list = list.key,
            ?experiments,
            because,
            "a list is written, and phases are not open yet"
        );
        list.unopened = Some(Unopened { experiments, because });
    }
}

/// Tries each once. Returns the refusal of one that has moved on, if there is one.
async fn open_each(
    log: &mut DefinitionLog,
    now: Micros,
    list: &mut Applied,
    signature: &Signature,
) -> Result<Option<Refusal>, LogError> {
    list.opened.retain(|opened| !opened.is_refused());
    let mut moved_on = None;
    for experiment in concerned(log.definitions(), list) {
        let opened = apply_one(log, now, experiment, signature).await?;
        match opened.verdict {
            Verdict::Refused { reason: stale @ Refusal::Stale { .. } } => moved_on = Some(stale),
            _ => list.opened.push(opened),
        }
    }
    Ok(moved_on)
}

/// Returns the experiments whose next phase is to be opened after a list was applied, as they are written for that: without
/// their phase, which is counted.
pub(super) fn concerned(definitions: &Definitions, applied: &Applied) -> Vec<Definition> {
    if applied.kind != Kind::List || matches!(applied.verdict, Verdict::Refused { .. }) {
        return Vec::new();
    }
    let list = Key::new(applied.key.as_str()).expect("the key of a definition is a key");
    let concerned = definitions.concerned_by_members(&list).into_iter();
    concerned
        .map(|experiment| Definition::Experiment(Experiment { phase: None, ..experiment.clone() }))
        .collect()
}

#[cfg(test)]
mod tests {
    use local::{Options, Server, Stack};
    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use schemas::Uuid;
    use schemas::definition::{Change, parse_file};

    use super::*;

    const NOW: Micros = Micros::EPOCH;

    fn signature() -> Signature {
        Signature { author: "ann".to_owned(), reason: "test".to_owned() }
    }

    fn one(text: &str) -> Definition {
        parse_file(text).unwrap().remove(0)
    }

    fn list(digit: char) -> Definition {
        let digest = digit.to_string().repeat(64);
        one(&format!("{{kind: list, key: u, members_sha256: \"{digest}\", members: 1}}"))
    }

    fn experiment(key: &str, description: &str) -> Definition {
        one(&format!(
            "{{kind: experiment, key: {key}, description: \"{description}\", state: running, control: a, deny: [u], \
             metrics: {{primary: m}}, variants: [{{key: a, weight: 50%}}, {{key: b, weight: 50%}}]}}"
        ))
    }

    fn outcomes(list: &Applied) -> Vec<(&str, &Verdict)> {
        list.opened.iter().map(|opened| (opened.key.as_str(), &opened.verdict)).collect()
    }

    /// A list was answered as not written, though it was, since one of its phases was not opened.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_happens_while_phases_are_opened_leaves_the_list_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { servers: vec![Server::Kafka], build: false, ..Options::at(directory.path()) };
        let stack = tokio::task::spawn_blocking(|| Stack::up(options)).await.unwrap().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", stack.brokers()).create().unwrap();
        let topic = NewTopic::new("phases.definitions", 1, TopicReplication::Fixed(1));
        let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        made[0].as_ref().unwrap();
        let settings = serde_json::json!({"brokers": stack.brokers(), "topic_prefix": "phases."});
        let kafka = serde_json::from_value(settings).unwrap();
        let mut ours = DefinitionLog::open(&kafka).await.unwrap();
        let metric = one("{kind: metric, key: m, event: e, type: conversion}");
        for (version, written) in
            [metric, list('0'), experiment("e", ""), experiment("f", "")].into_iter().enumerate()
        {
            let applied = apply_one(&mut ours, NOW, written, &signature()).await.unwrap();
            assert_eq!(applied.verdict, Verdict::Accepted { version: version as u64 + 1 });
        }

        // Another writer, of an earlier build, is first with `e`, and opens nothing.
        let mut applied = apply_one(&mut ours, NOW, list('1'), &signature()).await.unwrap();
        let mut theirs = DefinitionLog::open(&kafka).await.unwrap();
        let Definition::Experiment(e) = experiment("e", "d") else { unreachable!() };
        let e = Definition::Experiment(Experiment { phase: Some(1), ..e });
        let e = assignment::resolve(theirs.definitions(), NOW, e).unwrap();
        let by_three = theirs.definitions().change_to(&e, Uuid::from_u128(1), "bob", "text");
        let by_three = Change { rule_version: 3, ..by_three };
        assert_eq!(theirs.propose(&by_three).await.unwrap().unwrap().version, 6);
        open_phases(&mut ours, NOW, &mut applied, &signature()).await;
        assert_eq!(applied.verdict, Verdict::Accepted { version: 5 });
        // Version 7 was the refused change of `e`.
        assert_eq!(
            outcomes(&applied),
            [("f", &Verdict::Accepted { version: 8 }), ("e", &Verdict::Accepted { version: 9 })]
        );
        assert!(applied.unopened.is_none() && !applied.is_refused());
        let described = ours.definitions().experiment("e").map(|(_, e)| (e.description.as_str(), e.phase()));
        assert_eq!(described, Some(("d", 2)));

        // The log cannot be read any further.
        let mut applied = apply_one(&mut ours, NOW, list('2'), &signature()).await.unwrap();
        theirs.catch_up().await.unwrap();
        let later = Change { rule_version: 99, change_id: Uuid::from_u128(2), ..by_three };
        let because = theirs.propose(&later).await.unwrap_err().to_string();
        open_phases(&mut ours, NOW, &mut applied, &signature()).await;
        assert_eq!(applied.verdict, Verdict::Accepted { version: 10 });
        assert_eq!(outcomes(&applied), []);
        let experiments = vec!["e".to_owned(), "f".to_owned()];
        assert_eq!(applied.unopened, Some(Unopened { experiments, because }));
        assert!(applied.is_refused());
        tokio::task::spawn_blocking(move || drop(stack)).await.unwrap();
    }
}
