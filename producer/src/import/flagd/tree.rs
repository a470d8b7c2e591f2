//! The value of a flag's targeting as a tree of conditions, and how it becomes rules.

use serde_json::{Value, json};

use crate::import::attribute::{TARGETING_KEY, is_unit};
use crate::import::finding::{Findings, Inexpressible};
use crate::import::flag::{FlagDraft, Rule, Serve};
use crate::import::javascript::{Attribute, is_truthy};
use crate::import::logic::Logic;
use crate::import::share::{self, ALL};
use schemas::key::is_key;

/// The most rules that are made before giving up; a definition may have a hundred.
const RULES_MAX: usize = 100;

/// Stands for the empty text that flagd's flags share if they hash an attribute alone.
const SHARED_SALT: &str = "shared";

#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Value(Value),
    /// The value of the attribute.
    Attribute(Attribute),
    If(Logic, Box<Tree>, Box<Tree>),
    Split(Bucketing, Vec<Bucket>),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucketing {
    pub unit: String,
    /// A text that is hashed with it, instead of the flag's name: flags with the same text divide units alike.
    pub seed: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub name: Tree,
    pub weight: Tree,
}

/// What replaces the values that are true and those that are not; `None` keeps them.
pub struct Branch {
    pub then: Option<Tree>,
    pub otherwise: Option<Tree>,
}

impl Branch {
    pub fn constants(then: bool, otherwise: bool) -> Branch {
        Branch { then: Some(Tree::Value(json!(then))), otherwise: Some(Tree::Value(json!(otherwise))) }
    }
}

impl Tree {
    pub fn choose(condition: Logic, then: Tree, otherwise: Tree) -> Tree {
        if condition.is_true() || then == otherwise {
            then
        } else if condition.is_false() {
            otherwise
        } else {
            Tree::If(condition, Box::new(then), Box::new(otherwise))
        }
    }

    /// Replaces each value by what its truth asks for.
    pub fn branch(self, branch: &Branch) -> Tree {
        match self {
            Tree::Value(value) => {
                let to = if is_truthy(&value) { &branch.then } else { &branch.otherwise };
                to.clone().unwrap_or(Tree::Value(value))
            }
            Tree::Attribute(attribute) => {
                let [then, otherwise] = [&branch.then, &branch.otherwise]
                    .map(|to| to.clone().unwrap_or_else(|| Tree::Attribute(attribute.clone())));
                Tree::choose(attribute.is_truthy(), then, otherwise)
            }
            Tree::If(condition, then, otherwise) => {
                Tree::choose(condition, then.branch(branch), otherwise.branch(branch))
            }
            Tree::Split(by, buckets) => {
                let replaced = buckets.into_iter();
                let replaced =
                    replaced.map(|Bucket { name, weight }| Bucket { name: name.branch(branch), weight });
                Tree::Split(by, replaced.collect())
            }
        }
    }
}

/// Appends the rules of the tree to the flag. `variants` are the names of the source with their keys.
pub fn rules(
    tree: Tree,
    path: &str,
    variants: &[(String, String)],
    draft: &mut FlagDraft,
    findings: &mut Findings,
) -> Result<(), Inexpressible> {
    let mut rules =
        Rules { path, variants, default: draft.default.clone(), salt: None, made: Vec::new(), findings };
    rules.add(tree, Logic::TRUE)?;
    let Rules { salt, mut made, .. } = rules;
    while made.last().is_some_and(|rule| rule.serve == Serve::Variant(draft.default.clone())) {
        made.pop();
    }
    draft.rules = made;
    draft.salt = salt;
    Ok(())
}

struct Rules<'a> {
    path: &'a str,
    variants: &'a [(String, String)],
    default: String,
    salt: Option<String>,
    made: Vec<Rule>,
    findings: &'a mut Findings,
}

impl Rules<'_> {
    fn lost(&self, what: impl Into<String>) -> Inexpressible {
        Inexpressible::new(self.path, what, "")
    }

    fn push(&mut self, when: Logic, serve: Serve) -> Result<(), Inexpressible> {
        if self.made.len() >= RULES_MAX {
            return Err(self.lost(format!("takes more than {RULES_MAX} rules")));
        }
        if !when.is_false() {
            self.made.push(Rule { path: self.path.to_owned(), when, serve });
        }
        Ok(())
    }

    /// Adds rules that serve every unit for which `when` holds.
    fn add(&mut self, tree: Tree, when: Logic) -> Result<(), Inexpressible> {
        match tree {
            Tree::Value(value) => {
                let variant = self.variant(&value)?;
                self.push(when, Serve::Variant(variant))
            }
            Tree::Attribute(attribute) => {
                let tree = self.named_by(&attribute);
                self.add(tree, when)
            }
            Tree::If(condition, then, otherwise) => {
                self.add(*then, Logic::all([when.clone(), condition]))?;
                self.add(*otherwise, when)
            }
            Tree::Split(by, buckets) => self.split(by, buckets, when),
        }
    }

    /// The key of the variant that a value names; nothing names the default.
    fn variant(&self, value: &Value) -> Result<String, Inexpressible> {
        let name = match value {
            Value::Null => return Ok(self.default.clone()),
            Value::String(name) => name.clone(),
            value => value.to_string(),
        };
        let found = self.variants.iter().find(|(variant, _)| *variant == name);
        let key = found.map(|(_, key)| key.clone());
        key.ok_or_else(|| {
            self.lost(format!("names `{name}`, which is no variant, so flagd answers with an error"))
        })
    }

    /// The attribute's value names the variant.
    fn named_by(&mut self, attribute: &Attribute) -> Tree {
        self.findings.changed(
            self.path,
            format!(
                "the attribute `{}` names the variant; a value that names none is an error in flagd",
                attribute.path
            ),
            "expect the default variant instead of the error",
        );
        let mut tree = Tree::Value(Value::Null);
        for (name, _) in self.variants.iter().rev() {
            let mut equal = vec![attribute.equals(&json!(name), true)];
            if let "true" | "false" = name.as_str() {
                equal.push(attribute.equals(&json!(name == "true"), true));
            }
            tree = Tree::choose(Logic::any(equal), Tree::Value(json!(name)), tree);
        }
        tree
    }

    fn split(&mut self, by: Bucketing, mut buckets: Vec<Bucket>, when: Logic) -> Result<(), Inexpressible> {
        for bucket in &mut buckets {
            if let Tree::Attribute(attribute) = &bucket.name {
                bucket.name = self.named_by(attribute);
            }
        }
        if let Some((condition, then, otherwise)) = first_condition(&buckets) {
            self.findings.changed(
                self.path,
                "a bucket depends on a condition, so that it is hashed once for either outcome",
                "expect a unit to change its bucket when the outcome changes for it",
            );
            self.split(by.clone(), then, Logic::all([when.clone(), condition]))?;
            return self.split(by, otherwise, when);
        }
        let is_alone = buckets.len() == 1;
        let mut shares: Vec<(String, f64)> = Vec::new();
        for Bucket { name, weight } in buckets {
            let (Tree::Value(name), Tree::Value(weight)) = (name, weight) else {
                return Err(self.lost("splits the units of a bucket again"));
            };
            // A negative weight counts as none.
            let weight = weight.as_f64().ok_or_else(|| self.lost("a weight is no number"))?.max(0.0);
            if weight == 0.0 {
                continue;
            }
            let variant = self.variant(&name)?;
            match shares.iter_mut().find(|(other, _)| *other == variant) {
                Some((_, sum)) => *sum += weight,
                None => shares.push((variant, weight)),
            }
        }
        let default = Serve::Variant(self.default.clone());
        let weights: Vec<f64> = shares.iter().map(|(_, weight)| *weight).collect();
        let Some(relative) = share::relative(&weights) else { return self.push(when, default) };
        if is_alone {
            return self.push(when, Serve::Variant(shares.remove(0).0));
        }
        if !relative.exact {
            self.findings.changed(self.path, "the weights are rounded to hundredths of a percent", "");
        }
        self.share_salt(&by);
        let shares = shares.into_iter().map(|(variant, _)| variant).zip(relative.basis_points).collect();
        let unit = by.unit;
        self.push(when.clone(), Serve::Split { unit: unit.clone(), rollout: ALL, shares })?;
        // A unit without a value to hash is served the default, not the next rule.
        self.push(Logic::all([when, is_unit(&unit).not()]), default)
    }

    fn share_salt(&mut self, by: &Bucketing) {
        if by.unit != TARGETING_KEY {
            self.findings.changed(
                self.path,
                format!("flagd hashes the targeting key of a unit without `{}`", by.unit),
                "expect the default variant for such a unit",
            );
        }
        let Some(seed) = &by.seed else { return };
        let salt = if seed.is_empty() { SHARED_SALT } else { seed };
        if is_key(salt) && self.salt.as_deref().is_none_or(|other| other == salt) {
            self.salt = Some(salt.to_owned());
            self.findings.note(
                self.path,
                "flags that hash the same value with the same text divide units alike, here by the same salt and rule key",
                "keep the salt and the keys of the rules",
            );
        } else {
            self.findings.changed(
                self.path,
                format!("flags that hash with the text `{seed}` divide units alike in flagd, and each for itself here"),
                "",
            );
        }
    }
}

/// The first condition in the buckets, and the buckets where it holds and where it does not.
fn first_condition(buckets: &[Bucket]) -> Option<(Logic, Vec<Bucket>, Vec<Bucket>)> {
    let of = |tree: &Tree| match tree {
        Tree::If(condition, then, otherwise) => {
            Some((condition.clone(), (**then).clone(), (**otherwise).clone()))
        }
        _ => None,
    };
    for (index, bucket) in buckets.iter().enumerate() {
        let with = |name: Tree, weight: Tree| {
            let mut buckets = buckets.to_vec();
            buckets[index] = Bucket { name, weight };
            buckets
        };
        if let Some((condition, then, otherwise)) = of(&bucket.name) {
            let weight = || bucket.weight.clone();
            return Some((condition, with(then, weight()), with(otherwise, weight())));
        }
        if let Some((condition, then, otherwise)) = of(&bucket.weight) {
            let name = || bucket.name.clone();
            return Some((condition, with(name(), then), with(name(), otherwise)));
        }
    }
    None
}
