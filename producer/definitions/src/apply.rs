//! Turns written definitions into changes of the log. A definition comes after those it refers to, fields that
//! are left out are filled in, and definitions that change nothing are dropped. Where the definitions come from, a
//! file or a request, is not known here.

use std::fmt::Display;

use schemas::definition::{Change, Definition, Definitions, Kind, Problem, Refusal, UnknownRule, Version};
use schemas::{Key, Micros, Uuid};
use serde::{Serialize, Serializer};

use crate::diff::{Changed, diff};
use crate::log::{DefinitionLog, LogError};
use phases::{concerned, open_phases};

mod moved;
mod order;
mod phases;

pub use order::{DefinedTwice, in_order, to_try_again};
pub use phases::Unopened;

/// The author of a change and the reason for it.
#[derive(Clone, Debug)]
pub struct Signature {
    pub author: String,
    pub reason: String,
}

/// The outcome for one definition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    #[serde(serialize_with = "as_text")]
    pub kind: Kind,
    pub key: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The fields that differ from the previous version; empty for a new key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// The parts of an accepted definition that will not work as one may expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The running experiments that a list's members concern, each with the change that opens its next phase.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<Applied>,
    /// Those of them that are still to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unopened: Option<Unopened>,
}

impl Applied {
    /// Returns whether the log refused the definition, or has not accepted a change that it entails.
    pub fn is_refused(&self) -> bool {
        matches!(self.verdict, Verdict::Refused { .. })
            || self.opened.iter().any(Applied::is_refused)
            || self.unopened.is_some()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Accepted {
        version: Version,
    },
    /// The verdict of a dry run.
    WouldBeAccepted,
    /// The current version is the same; nothing was written.
    Unchanged {
        version: Version,
    },
    Refused {
        #[serde(serialize_with = "as_text")]
        reason: Refusal,
    },
}

/// Proposes one definition. Writes nothing if the definition is current already or would certainly be refused,
/// because the log is kept for ever. `now` is the time by which slots have cooled down. The verdict is the log's own, read back after the record was written: another
/// writer may have been first.
///
/// Other members of a list make other units take part in the experiments that name it. So each of those that run gets a
/// change of its own, right after the list's, that opens its next phase. If that is cut short, the outcome says so
/// ([`Applied::unopened`]), and applying the same list again makes up for it.
pub async fn apply(
    log: &mut DefinitionLog,
    now: Micros,
    written: Definition,
    signature: &Signature,
) -> Result<Applied, LogError> {
    let mut applied = apply_one(log, now, written, signature).await?;
    open_phases(log, now, &mut applied, signature).await;
    Ok(applied)
}

async fn apply_one(
    log: &mut DefinitionLog,
    now: Micros,
    written: Definition,
    signature: &Signature,
) -> Result<Applied, LogError> {
    let named = Named::of(&written);
    let Proposal { change, changed } =
        match prepare(log.definitions(), now, written, signature, Uuid::now_v7()) {
            Prepared::Settled(verdict) => return Ok(named.applied(verdict, Vec::new())),
            Prepared::Propose(proposal) => proposal,
        };
    if let Err(reason) = log.definitions().judge(now, &change)? {
        return Ok(named.applied(Verdict::Refused { reason }, Vec::new()));
    }
    Ok(match log.propose(&change).await? {
        Ok(accepted) => {
            let applied = named.applied(Verdict::Accepted { version: accepted.version }, changed);
            Applied { warnings: moved::warnings(log.definitions(), &accepted), ..applied }
        }
        Err(reason) => named.applied(Verdict::Refused { reason }, changed),
    })
}

/// Returns what [`apply`] would do with each definition in turn if nobody else writes meanwhile.
pub fn rehearse(
    definitions: &Definitions,
    now: Micros,
    written: Vec<Definition>,
    signature: &Signature,
) -> Result<Vec<Applied>, UnknownRule> {
    let mut definitions = definitions.clone();
    let mut all = Vec::new();
    for written in &written {
        all.push(rehearse_with_phases(&mut definitions, now, written.clone(), signature)?);
    }
    for index in to_try_again(&all) {
        all[index] = rehearse_with_phases(&mut definitions, now, written[index].clone(), signature)?;
    }
    Ok(all)
}

fn rehearse_with_phases(
    definitions: &mut Definitions,
    now: Micros,
    written: Definition,
    signature: &Signature,
) -> Result<Applied, UnknownRule> {
    let mut applied = rehearse_one(definitions, now, written, signature)?;
    for experiment in concerned(definitions, &applied) {
        applied.opened.push(rehearse_one(definitions, now, experiment, signature)?);
    }
    Ok(applied)
}

fn rehearse_one(
    definitions: &mut Definitions,
    now: Micros,
    written: Definition,
    signature: &Signature,
) -> Result<Applied, UnknownRule> {
    let named = Named::of(&written);
    Ok(match prepare(definitions, now, written, signature, Uuid::now_v7()) {
        Prepared::Settled(verdict) => named.applied(verdict, Vec::new()),
        Prepared::Propose(Proposal { change, changed }) => {
            match definitions.apply(definitions.next_offset(), now, &change)? {
                Ok(accepted) => {
                    let applied = named.applied(Verdict::WouldBeAccepted, changed);
                    Applied { warnings: moved::warnings(definitions, &accepted), ..applied }
                }
                Err(reason) => named.applied(Verdict::Refused { reason }, Vec::new()),
            }
        }
    })
}

/// The kind and key of a definition.
struct Named {
    kind: Kind,
    key: String,
}

impl Named {
    fn of(written: &Definition) -> Named {
        Named { kind: written.kind(), key: written.key().to_string() }
    }

    fn applied(self, verdict: Verdict, changed: Vec<Changed>) -> Applied {
        let Named { kind, key } = self;
        Applied { kind, key, verdict, changed, warnings: Vec::new(), opened: Vec::new(), unopened: None }
    }
}

enum Prepared {
    /// Nothing is to be proposed.
    Settled(Verdict),
    Propose(Proposal),
}

/// A change that the log has not judged yet.
struct Proposal {
    change: Change,
    /// Compared with the version that it is based on.
    changed: Vec<Changed>,
}

fn prepare(
    definitions: &Definitions,
    now: Micros,
    written: Definition,
    signature: &Signature,
    change_id: Uuid,
) -> Prepared {
    let definition = match assignment::resolve(definitions, now, written) {
        Ok(definition) => definition,
        Err(problem) => {
            return Prepared::Settled(Verdict::Refused { reason: Refusal::NotAllowed(vec![problem]) });
        }
    };
    let current = definitions.current_of(&definition);
    if let Some(current) = current
        && current.definition == definition
    {
        return Prepared::Settled(Verdict::Unchanged { version: current.version });
    }
    let problems = new_nulls(current.map(|current| &current.definition), &definition);
    if !problems.is_empty() {
        return Prepared::Settled(Verdict::Refused { reason: Refusal::NotAllowed(problems) });
    }
    let change = definitions.change_to(&definition, change_id, &signature.author, &signature.reason);
    let changed = diff(current.map(|current| &current.definition), &definition);
    Prepared::Propose(Proposal { change, changed })
}

/// The variants of a flag whose value becomes null: OpenFeature has no such value, so no client could read it. The log's rules
/// accept it, and a flag that has one from before can still be changed, for example switched off.
fn new_nulls(current: Option<&Definition>, new: &Definition) -> Vec<Problem> {
    let Definition::Flag(new) = new else { return Vec::new() };
    let had_null = |key: &Key| {
        let Some(Definition::Flag(current)) = current else { return false };
        current.variants.iter().any(|variant| variant.key == *key && variant.value.is_null())
    };
    let mut problems = Vec::new();
    for (index, variant) in new.variants.iter().enumerate() {
        if variant.value.is_null() && !had_null(&variant.key) {
            problems.push(Problem::new(
                format!("variants[{index}].value"),
                "null is no value that a client can read; write {} or \"\" for nothing",
            ));
        }
    }
    problems
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use schemas::definition::parse_file;

    use super::*;

    const FILE: &str = r#"
kind: experiment
key: checkout
state: running
control: old
variants: [{key: old, weight: 5000}, {key: new, weight: 5000}]
metrics: {primary: signup}
layer: shop
slots: 5000
---
{kind: flag, key: child, value_type: boolean, default_variant: a, variants: [{key: a, value: true}],
 prerequisites: [{flag: parent, variants: [a]}]}
---
{kind: layer, key: shop}
---
{kind: flag, key: parent, value_type: boolean, default_variant: a, variants: [{key: a, value: true}]}
---
{kind: metric, key: signup, event: signup, type: conversion}
"#;

    fn signature() -> Signature {
        Signature { author: "ann".to_owned(), reason: "first".to_owned() }
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let ordered = in_order(parse_file(FILE).unwrap()).unwrap();
        let keys: Vec<&str> = ordered.iter().map(|definition| definition.key().as_str()).collect();
        assert_eq!(keys, ["signup", "shop", "parent", "child", "checkout"]);
    }

    /// A flag came before the experiment that it waits for, and was refused.
    #[test]
    fn an_experiment_that_a_flag_waits_for_comes_first() {
        let text = "\
{kind: experiment, key: other, control: a, variants: [{key: a, weight: 50%}, {key: b, weight: 50%}], metrics: {primary: m}}
---
{kind: flag, key: waits, value_type: boolean, default_variant: a, variants: [{key: a, value: true}],
 prerequisites: [{flag: needed, variants: [b]}]}
---
{kind: experiment, key: needed, control: a, variants: [{key: a, weight: 50%}, {key: b, weight: 50%}], metrics: {primary: m}}
---
{kind: flag, key: free, value_type: boolean, default_variant: a, variants: [{key: a, value: true}]}
---
{kind: metric, key: m, event: m, type: conversion}
";
        let ordered = in_order(parse_file(text).unwrap()).unwrap();
        let keys: Vec<&str> = ordered.iter().map(|definition| definition.key().as_str()).collect();
        assert_eq!(keys, ["m", "free", "other", "needed", "waits"]);
        let all = rehearse(&Definitions::default(), Micros::EPOCH, ordered, &signature()).unwrap();
        assert!(all.iter().all(|applied| applied.verdict == Verdict::WouldBeAccepted), "{all:?}");
    }

    /// `f` was refused, the flag that no longer waits for it was accepted, and the same file succeeded the second time.
    #[test]
    fn one_file_takes_out_variants_together_with_the_prerequisites_that_name_them() {
        let flag = |key: &str, variants: &[&str], waits_for: Option<&str>| {
            let variants: Vec<String> =
                variants.iter().map(|key| format!("{{key: {key}, value: true}}")).collect();
            let prerequisites =
                waits_for.map(|flag| format!(", prerequisites: [{{flag: {flag}, variants: [b]}}]"));
            format!(
                "{{kind: flag, key: {key}, value_type: boolean, default_variant: a, variants: [{}]{}}}\n---\n",
                variants.join(", "),
                prerequisites.unwrap_or_default()
            )
        };
        let mut definitions = Definitions::default();
        let both = ["a", "b"];
        let before = [flag("f", &both, None), flag("g", &both, Some("f")), flag("h", &both, Some("g"))];
        accept(&mut definitions, &before.concat());
        let rehearsed = |text: &str| {
            let written = in_order(parse_file(text.trim_end_matches("---\n")).unwrap()).unwrap();
            rehearse(&definitions, Micros::EPOCH, written, &signature()).unwrap()
        };
        let after = [flag("f", &["a"], None), flag("g", &["a"], None), flag("h", &both, None)];
        let all = rehearsed(&after.concat());
        let keys: Vec<&str> = all.iter().map(|applied| applied.key.as_str()).collect();
        assert_eq!(keys, ["f", "g", "h"]);
        assert!(all.iter().all(|applied| applied.verdict == Verdict::WouldBeAccepted), "{all:?}");
        // What another keeps waiting for stays refused.
        let all = rehearsed(&[flag("f", &["a"], None), flag("h", &both, None)].concat());
        assert_eq!(all.iter().map(Applied::is_refused).collect::<Vec<_>>(), [true, false]);
        assert_eq!(to_try_again(&all), [0]);
        assert_eq!(to_try_again(&rehearsed(&flag("f", &["a"], None))), Vec::<usize>::new());
    }

    #[test]
    fn one_key_twice_is_refused() {
        let text = "{kind: layer, key: a}\n---\n{kind: layer, key: a}\n";
        let error = in_order(parse_file(text).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "layer `a` is defined twice in the file; keep one");
        // The same key in another key space is another definition.
        let text = "{kind: layer, key: a}\n---\n{kind: metric, key: a, event: e, type: count}\n";
        assert_eq!(in_order(parse_file(text).unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn a_rehearsal_sees_what_the_same_file_brought_before() {
        let ordered = in_order(parse_file(FILE).unwrap()).unwrap();
        let all = rehearse(&Definitions::default(), Micros::EPOCH, ordered, &signature()).unwrap();
        assert_eq!(all.len(), 5);
        for applied in &all {
            assert_eq!(applied.verdict, Verdict::WouldBeAccepted, "{}", applied.key);
        }
    }

    /// A treatment that shrinks and a control that grows into its buckets made a third of the units see both, and nobody was
    /// told before the verdict was invalid.
    #[test]
    fn buckets_that_another_variant_had_are_told_beside_the_acceptance() {
        let of = |control: u32, treatment: u32| {
            format!(
                "kind: experiment\nkey: e\nstate: running\nvariants: [{{key: a, weight: {control}}}, \
                 {{key: b, weight: {treatment}}}]\ncontrol: a\nmetrics: {{primary: m}}\n---\n"
            )
        };
        let mut definitions = Definitions::default();
        accept(&mut definitions, "kind: metric\nkey: m\nevent: m\ntype: conversion\n---\n");
        let warnings = |definitions: &mut Definitions, control, treatment| {
            accept(definitions, &of(control, treatment))[0].warnings.clone()
        };
        assert_eq!(warnings(&mut definitions, 5_000, 5_000), Vec::<String>::new());
        assert_eq!(warnings(&mut definitions, 5_000, 1_000), Vec::<String>::new());
        assert_eq!(
            warnings(&mut definitions, 9_000, 1_000),
            [
                "`a` gets buckets that `b` had in an earlier phase (40 % of all): units that saw `b` and come back see `a`, and \
              count as units in several variants. To move nobody, clone the experiment under another key"
            ]
        );
        assert_eq!(warnings(&mut definitions, 8_000, 1_000), Vec::<String>::new());
        // Part of it goes back, for those who came in between.
        assert_eq!(
            warnings(&mut definitions, 8_000, 2_000),
            [
                "`b` gets buckets that `a` had in an earlier phase (10 % of all): units that saw `a` and come back see `b`, and \
              count as units in several variants. To move nobody, clone the experiment under another key"
            ]
        );
    }

    /// Applies a file in memory, all of which must be accepted.
    fn accept(definitions: &mut Definitions, text: &str) -> Vec<Applied> {
        let written = in_order(parse_file(text.trim_end_matches("---\n")).unwrap()).unwrap();
        let all = written.into_iter().map(|written| {
            let mut applied = rehearse_one(definitions, Micros::EPOCH, written, &signature()).unwrap();
            for experiment in concerned(definitions, &applied) {
                applied
                    .opened
                    .push(rehearse_one(definitions, Micros::EPOCH, experiment, &signature()).unwrap());
            }
            applied
        });
        let all: Vec<Applied> = all.collect();
        assert!(!all.iter().any(Applied::is_refused), "{all:?}");
        all
    }

    /// Other members took part from one moment to the next, and all of them counted in one phase.
    #[test]
    fn other_members_of_a_list_open_the_next_phase_of_what_runs_by_them() {
        let list = |digit: char| {
            let digest = digit.to_string().repeat(64);
            format!("{{kind: list, key: testers, members_sha256: \"{digest}\", members: 1}}\n---\n")
        };
        let experiment = |key: &str, state: &str, more: &str| {
            format!(
                "{{kind: experiment, key: {key}, state: {state}, control: a, metrics: {{primary: m}}, \
                 variants: [{{key: a, weight: 50%}}, {{key: b, weight: 50%}}]{more}}}\n---\n"
            )
        };
        let in_list = "[{key: t, when: {attribute: targetingKey, in_list: testers}}]";
        let all = [
            experiment("allows", "running", ", allow: [{list: testers, variant: b}]"),
            experiment("denies", "running", ", deny: [testers]"),
            experiment("draft", "draft", ", deny: [testers]"),
            experiment("targets", "running", &format!(", targeting: {in_list}")),
            experiment(
                "targets-elsewhere",
                "running",
                &format!(", environments: {{staging: {{targeting: {in_list}}}}}"),
            ),
            experiment("without", "running", ""),
        ]
        .concat();
        let metric = "{kind: metric, key: m, event: e, type: conversion}\n---\n";
        let mut definitions = Definitions::default();
        accept(&mut definitions, &[metric, &list('a'), &all].concat());
        let phases = |definitions: &Definitions| -> Vec<(String, u32)> {
            let experiments = definitions.iter().filter_map(|accepted| match &accepted.definition {
                Definition::Experiment(experiment) => Some((experiment.key.to_string(), experiment.phase())),
                _ => None,
            });
            experiments.filter(|(_, phase)| *phase > 1).collect()
        };
        assert_eq!(phases(&definitions), []);
        // Another text of the same members opens nothing.
        let described = list('a').replace("members: 1", "members: 1, description: d");
        assert_eq!(accept(&mut definitions, &described)[0].opened, []);
        let applied = accept(&mut definitions, &list('b'));
        let opened: Vec<(&str, String)> = applied[0]
            .opened
            .iter()
            .map(|opened| (opened.key.as_str(), opened.changed.iter().map(ToString::to_string).collect()))
            .collect();
        let phase = "phase: 1 -> 2".to_owned();
        assert_eq!(opened, [("allows", phase.clone()), ("denies", phase.clone()), ("targets", phase)]);
        let second = ["allows", "denies", "targets"].map(|key| (key.to_owned(), 2));
        assert_eq!(phases(&definitions), second);
        // The list again, and the file of the experiments again: nothing is left to do.
        assert_eq!(accept(&mut definitions, &list('b'))[0].opened, []);
        let again = accept(&mut definitions, &all);
        assert!(
            again.iter().all(|applied| matches!(applied.verdict, Verdict::Unchanged { .. })),
            "{again:?}"
        );

        // A writer that ended between the list and the experiments: the list again makes up for it.
        let cut_short = parse_file(list('c').trim_end_matches("---\n")).unwrap().remove(0);
        rehearse_one(&mut definitions, Micros::EPOCH, cut_short, &signature()).unwrap();
        assert_eq!(phases(&definitions), second);
        assert_eq!(accept(&mut definitions, &list('c'))[0].opened.len(), 3);
        assert_eq!(phases(&definitions), second.map(|(key, _)| (key, 3)));
    }

    #[test]
    fn what_holds_already_is_unchanged_and_what_is_missing_is_named() {
        let metric = parse_file("{kind: metric, key: m, event: e, type: count}").unwrap();
        let mut definitions = Definitions::default();
        let Prepared::Propose(Proposal { change, .. }) =
            prepare(&definitions, Micros::EPOCH, metric[0].clone(), &signature(), Uuid::from_u128(1))
        else {
            panic!("a new metric is proposed");
        };
        definitions.apply(0, Micros::EPOCH, &change).unwrap().unwrap();
        let all = rehearse(&definitions, Micros::EPOCH, metric, &signature()).unwrap();
        assert_eq!(all[0].verdict, Verdict::Unchanged { version: 1 });

        let alone = parse_file(FILE).unwrap().remove(0);
        let all = rehearse(&definitions, Micros::EPOCH, vec![alone], &signature()).unwrap();
        let Verdict::Refused { reason } = &all[0].verdict else { panic!("{:?}", all[0]) };
        let reason = reason.to_string();
        assert!(reason.contains("there is no metric `signup`; define it first"), "{reason}");
        assert!(reason.contains("there is no layer `shop`; define it first"), "{reason}");
    }

    /// No client could read it, and it was accepted.
    #[test]
    fn a_null_is_refused_and_one_from_before_does_not_keep_a_flag_from_being_switched_off() {
        let flag = |enabled: bool, variants: &str| {
            let text = format!(
                "{{kind: flag, key: f, value_type: json, enabled: {enabled}, default_variant: a, variants: [{variants}]}}"
            );
            parse_file(&text).unwrap().remove(0)
        };
        let verdict = |definitions: &Definitions, written: Definition| {
            rehearse(definitions, Micros::EPOCH, vec![written], &signature()).unwrap().remove(0).verdict
        };
        let refused = |verdict: Verdict| match verdict {
            Verdict::Refused { reason } => reason.to_string(),
            other => panic!("{other:?}"),
        };
        let mut definitions = Definitions::default();
        let with_null = flag(true, "{key: a, value: null}");
        let reason = refused(verdict(&definitions, with_null.clone()));
        assert_eq!(
            reason,
            "variants[0].value: null is no value that a client can read; write {} or \"\" for nothing"
        );
        // Within a value it is one.
        let within = flag(true, "{key: a, value: [null]}");
        assert_eq!(verdict(&definitions, within), Verdict::WouldBeAccepted);

        // The log has one from an earlier build.
        let change = definitions.change_to(&with_null, Uuid::from_u128(1), "ann", "first");
        definitions.apply(0, Micros::EPOCH, &change).unwrap().unwrap();
        assert_eq!(verdict(&definitions, flag(false, "{key: a, value: null}")), Verdict::WouldBeAccepted);
        assert_eq!(verdict(&definitions, flag(true, "{key: a, value: {}}")), Verdict::WouldBeAccepted);
        let another =
            refused(verdict(&definitions, flag(true, "{key: a, value: null}, {key: b, value: null}")));
        assert!(another.starts_with("variants[1].value: null"), "{another}");
    }
}
