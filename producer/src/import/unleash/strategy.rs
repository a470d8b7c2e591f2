//! The strategies of Unleash: who is tried, which share of them, and which variants they get.

use serde_json::Value;

use super::constraint::{self, attribute_of, is_in};
use super::list;
use super::shape::Shape;
use crate::import::attribute::{self, Part, TARGETING_KEY, is_unit};
use crate::import::finding::{Findings, Inexpressible};
use crate::import::flag::{FlagDraft, Rule, Serve};
use crate::import::logic::Logic;
use crate::import::share::{self, ALL};

/// A strategy: the units for which its condition holds, and the share of them that it takes.
pub struct Strategy<'p> {
    pub path: &'p str,
    pub when: Logic,
    /// `None` takes all without hashing.
    pub rollout: Option<Rollout>,
}

pub struct Rollout {
    /// The name of the stickiness.
    stickiness: String,
    basis_points: u32,
}

impl<'p> Strategy<'p> {
    pub fn read(
        strategy: &Value,
        segments: &[Value],
        path: &'p str,
        findings: &mut Findings,
    ) -> Result<Strategy<'p>, Inexpressible> {
        let mut all = Vec::new();
        let (when, rollout) = parameters(strategy, path, findings)?;
        all.push(when);
        for (index, one) in list(strategy, "constraints").iter().enumerate() {
            all.push(constraint::read(one, &format!("{path}.constraints[{index}]"), findings)?);
        }
        for (index, id) in list(strategy, "segments").iter().enumerate() {
            let path = format!("{path}.segments[{index}]");
            let Some(segment) = segments.iter().find(|segment| segment.get("id") == Some(id)) else {
                findings.note(&path, "there is no such segment, so the strategy takes nobody", "");
                all.push(Logic::FALSE);
                continue;
            };
            if segment.get("constraints").is_none() {
                return Err(Inexpressible::new(
                    path,
                    "the export names the segment without its constraints",
                    "add the segment's `constraints` to the source",
                ));
            }
            for (index, one) in list(segment, "constraints").iter().enumerate() {
                all.push(constraint::read(one, &format!("{path}.constraints[{index}]"), findings)?);
            }
        }
        Ok(Strategy { path, when: Logic::all(all), rollout })
    }

    /// Appends the rules by which the strategy serves its own variants or else those of the feature, or that the feature is on.
    pub fn serve(
        self,
        own: &[Value],
        of_feature: &[Value],
        shape: &Shape,
        draft: &mut FlagDraft,
        findings: &mut Findings,
    ) -> Result<(), Inexpressible> {
        let are_own = !own.is_empty();
        let variants = if are_own { own } else { of_feature };
        self.overrides(variants, shape, draft)?;
        let Strategy { path, when, rollout } = self;
        let weighted = shares(variants, shape, path, findings)?;
        let of_variants =
            variants.first().and_then(|variant| variant.get("stickiness")).and_then(Value::as_str);
        // The variants of a strategy are hashed like its rollout, if they do not say otherwise.
        let of_strategy = rollout.as_ref().filter(|_| are_own).map(|rollout| rollout.stickiness.clone());
        let of_variants =
            of_variants.map(str::to_owned).or(of_strategy).unwrap_or_else(|| "default".to_owned());
        let of_variants = of_variants.as_str();
        let mut push =
            |when: Logic, serve: Serve| draft.rules.push(Rule { path: path.to_owned(), when, serve });
        let shares = if weighted.is_empty() { vec![(shape.on.clone(), ALL)] } else { weighted };
        let is_split = shares.len() > 1;
        match rollout {
            Some(Rollout { stickiness, basis_points }) if basis_points < ALL => {
                let unit = unit_of(&stickiness, path, findings);
                if is_split && unit != unit_of(of_variants, path, findings) {
                    return Err(Inexpressible::new(
                        path,
                        format!("hashes its rollout by `{stickiness}` and its variants by `{of_variants}`"),
                        "",
                    ));
                }
                push(when, Serve::Split { unit, rollout: basis_points, shares });
            }
            rollout => {
                let named = rollout.filter(|rollout| !falls_back_to_chance(&rollout.stickiness));
                let named = named.map(|rollout| unit_of(&rollout.stickiness, path, findings));
                let when = Logic::all([when, named.as_deref().map_or(Logic::TRUE, is_unit)]);
                if !is_split {
                    push(when, Serve::Variant(shares[0].0.clone()));
                    return Ok(());
                }
                let unit = unit_of(of_variants, path, findings);
                let first = shares[0].0.clone();
                push(when.clone(), Serve::Split { unit: unit.clone(), rollout: ALL, shares });
                findings.changed(
                    path,
                    format!(
                        "a unit without the attribute `{unit}` gets the first variant, not one by chance"
                    ),
                    "",
                );
                push(Logic::all([when, is_unit(&unit).not()]), Serve::Variant(first));
            }
        }
        Ok(())
    }

    /// Variants that are given to some units whatever their hash. The first that names a unit counts.
    fn overrides(
        &self,
        variants: &[Value],
        shape: &Shape,
        draft: &mut FlagDraft,
    ) -> Result<(), Inexpressible> {
        for variant in variants {
            let mut named = Vec::new();
            for one in list(variant, "overrides") {
                let context_name = one.get("contextName").and_then(Value::as_str).unwrap_or_default();
                named.push(is_in(attribute_of(context_name), &constraint::texts(one.get("values"))));
            }
            let named = Logic::any(named);
            if named.is_false() {
                continue;
            }
            if self.rollout.as_ref().is_some_and(|rollout| rollout.basis_points < ALL) {
                return Err(Inexpressible::new(
                    self.path,
                    "overrides the variant of units that are inside of its rollout",
                    "",
                ));
            }
            let guard = self.rollout.as_ref().filter(|rollout| !falls_back_to_chance(&rollout.stickiness));
            let guard = guard.map_or(Logic::TRUE, |rollout| is_unit(plain_unit(&rollout.stickiness)));
            let key = shape.key_of(variant).expect("the shape has all variants of the feature").to_owned();
            draft.rules.push(Rule {
                path: self.path.to_owned(),
                when: Logic::all([self.when.clone(), guard, named]),
                serve: Serve::Variant(key),
            });
        }
        Ok(())
    }
}

/// Reads what the name of the strategy says of its parameters.
fn parameters(
    strategy: &Value,
    path: &str,
    findings: &mut Findings,
) -> Result<(Logic, Option<Rollout>), Inexpressible> {
    let name = strategy.get("name").and_then(Value::as_str).unwrap_or_default();
    let parameter = |field: &str| match strategy.get("parameters").and_then(|all| all.get(field)) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let listed = |field: &str| -> Vec<String> {
        let text = parameter(field).unwrap_or_default();
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let rollout = |field: &str, stickiness: String| -> Result<(Logic, Option<Rollout>), Inexpressible> {
        let text = parameter(field).unwrap_or_else(|| "0".to_owned());
        let percent = text.trim().parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
        let percent = percent.ok_or_else(|| {
            Inexpressible::new(format!("{path}.parameters.{field}"), "is no percentage", "")
        })?;
        Ok((Logic::TRUE, Some(Rollout { stickiness, basis_points: share::absolute(percent / 100.0).0 })))
    };
    match name {
        "default" => Ok((Logic::TRUE, None)),
        "userWithId" => Ok((is_in(TARGETING_KEY, &listed("userIds")), None)),
        "gradualRolloutUserId" => rollout("percentage", "userId".to_owned()),
        "gradualRolloutSessionId" => rollout("percentage", "sessionId".to_owned()),
        "gradualRolloutRandom" => rollout("percentage", "random".to_owned()),
        "flexibleRollout" => {
            rollout("rollout", parameter("stickiness").unwrap_or_else(|| "default".to_owned()))
        }
        "remoteAddress" => Ok((constraint::addresses("remoteAddress", &listed("IPs"), path)?, None)),
        "applicationHostname" => {
            findings.changed(
                path,
                "the name of the machine is the attribute `hostname` here",
                "send it as an attribute; without it the strategy takes nobody",
            );
            let names = listed("hostNames");
            let any = names.iter().map(|name| attribute::text_in_any_case("hostname", Part::Whole, name));
            Ok((Logic::any(any), None))
        }
        name => Err(Inexpressible::new(
            path,
            format!("the strategy `{name}` is not one of Unleash's own: its code is in your services"),
            "",
        )),
    }
}

/// The variants with their basis points; none if they weigh nothing.
fn shares(
    variants: &[Value],
    shape: &Shape,
    path: &str,
    findings: &mut Findings,
) -> Result<Vec<(String, u32)>, Inexpressible> {
    let mut weighted: Vec<(String, f64)> = Vec::new();
    for variant in variants {
        let weight = variant.get("weight").and_then(Value::as_f64).unwrap_or(0.0);
        let key = shape.key_of(variant).expect("the shape has all variants of the feature");
        if weight > 0.0 {
            weighted.push((key.to_owned(), weight));
        }
    }
    let weights: Vec<f64> = weighted.iter().map(|(_, weight)| *weight).collect();
    let Some(relative) = share::relative(&weights) else { return Ok(Vec::new()) };
    if !relative.exact {
        findings.changed(path, "the weights are rounded to hundredths of a percent", "");
    }
    Ok(weighted.into_iter().map(|(key, _)| key).zip(relative.basis_points).collect())
}

/// The attribute that a stickiness hashes.
fn plain_unit(stickiness: &str) -> &str {
    match stickiness {
        "default" | "random" => TARGETING_KEY,
        name => attribute_of(name),
    }
}

/// Whether Unleash draws by chance for a unit without the attribute.
fn falls_back_to_chance(stickiness: &str) -> bool {
    matches!(stickiness, "default" | "random")
}

fn unit_of(stickiness: &str, path: &str, findings: &mut Findings) -> String {
    match stickiness {
        "default" => findings.changed(
            path,
            "without a user, Unleash hashes the session or draws by chance; here only the targeting key is hashed",
            "give a targeting key",
        ),
        "random" => findings.changed(
            path,
            "Unleash draws by chance at each request; here a unit keeps what its targeting key gets",
            "give a targeting key of your choice, such as the id of the request",
        ),
        _ => {}
    }
    plain_unit(stickiness).to_owned()
}
