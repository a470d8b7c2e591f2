//! Imports a flag definition file of flagd. The targeting of a flag is one expression of JsonLogic whose value names a variant;
//! it becomes a tree of conditions, and the tree becomes ordered rules: each branch serves every unit that reaches it, so that
//! the rules after it need not repeat that its condition does not hold.

use serde_json::{Map, Value};

use super::Draft;
use super::finding::{Findings, Inexpressible};
use super::flag::FlagDraft;
use super::name::Names;
use super::source::{Source, Step, Unreadable};
use expression::Expressions;

mod expression;
mod fractional;
mod tree;
mod version;

/// The fields of a flag that this module reads.
const FIELDS: [&str; 6] = ["state", "variants", "defaultVariant", "targeting", "metadata", "key"];

pub(super) fn import(source: &Source<'_>, findings: &mut Findings) -> Result<Vec<Draft>, Unreadable> {
    let root = source.fields(&[])?;
    for field in root.keys().filter(|field| !["flags", "$evaluators", "$schema"].contains(&field.as_str())) {
        findings.note(field, "is not taken over", "");
    }
    let flags = source.fields(&[Step::Field("flags")])?;
    let mut names = Names::new(flags.keys().map(String::as_str));
    let nothing = Map::new();
    let evaluators = match root.get("$evaluators") {
        Some(_) => source.fields(&[Step::Field("$evaluators")])?,
        None => &nothing,
    };
    let mut drafts = Vec::new();
    for name in flags.keys() {
        let path = format!("flags.{name}");
        let key = names.key(name);
        if key != *name {
            findings.changed(&path, format!("the flag is called `{key}` here"), "ask for it by this key");
        }
        if let Some(draft) = flag(source, name, key, evaluators, findings)? {
            drafts.push(Draft { path, document: draft.document(findings) });
        }
    }
    Ok(drafts)
}

fn flag(
    source: &Source<'_>,
    name: &str,
    key: String,
    evaluators: &Map<String, Value>,
    findings: &mut Findings,
) -> Result<Option<FlagDraft>, Unreadable> {
    let place = [Step::Field("flags"), Step::Field(name)];
    let at = |field| [place[0], place[1], Step::Field(field)];
    let fields = source.fields(&place)?;
    let path = format!("flags.{name}");
    for field in fields.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        findings.note(&format!("{path}.{field}"), "is not taken over", "");
    }
    if fields.get("metadata").is_some() {
        findings.note(&format!("{path}.metadata"), "metadata has no place here", "");
    }
    let enabled = match fields.get("state").and_then(Value::as_str) {
        Some("ENABLED") => true,
        Some("DISABLED") => false,
        _ => return Err(source.wrong(&at("state"), "must be ENABLED or DISABLED")),
    };
    let variants = source.fields(&at("variants"))?;
    if variants.is_empty() {
        return Err(source.wrong(&at("variants"), "names no variant"));
    }
    let mut variant_names = Names::new(variants.keys().map(String::as_str));
    for variant in variants.keys() {
        let key = variant_names.key(variant);
        if key != *variant {
            let what = format!("the variant `{variant}` is called `{key}` here");
            findings.changed(&format!("{path}.variants"), what, "");
        }
    }
    let default = match fields.get("defaultVariant") {
        None | Some(Value::Null) => {
            findings.lost(Inexpressible::new(
                path,
                "has no default variant: flagd then answers with the default of the caller",
                "it is left out, so that the caller still gets its own default; name a default variant to import it",
            ));
            return Ok(None);
        }
        Some(Value::String(default)) if variants.contains_key(default) => default,
        Some(_) => return Err(source.wrong(&at("defaultVariant"), "is none of the variants")),
    };
    let mut draft = FlagDraft {
        path: path.clone(),
        key,
        description: String::new(),
        variants: variants.iter().map(|(name, value)| (variant_names.key(name), value.clone())).collect(),
        default: variant_names.key(default),
        enabled,
        salt: None,
        prerequisites: Vec::new(),
        rules: Vec::new(),
    };
    if !enabled {
        findings.changed(
            &path,
            "is disabled: flagd answers with the default of the caller, a flag that is switched off with its default variant",
            "expect the default variant, or delete the flag",
        );
    }
    let targeting = fields.get("targeting").filter(|targeting| **targeting != Value::Null);
    if let Some(targeting) =
        targeting.filter(|targeting| targeting.as_object().is_none_or(|map| !map.is_empty()))
    {
        let expressions = Expressions { flag: name, evaluators };
        let place = format!("{path}.targeting");
        let made = expressions.tree(targeting, &place).and_then(|tree| {
            tree::rules(tree, &place, &variant_names_of(variants, &mut variant_names), &mut draft, findings)
        });
        match made {
            Ok(()) => expressions.tell(targeting, &place, findings),
            Err(why) => draft.give_up(why, findings),
        }
    }
    Ok(Some(draft))
}

/// The variants by their names in the source, with their keys.
fn variant_names_of(variants: &Map<String, Value>, names: &mut Names) -> Vec<(String, String)> {
    variants.keys().map(|name| (name.clone(), names.key(name))).collect()
}
