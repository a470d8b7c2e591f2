//! Boundaries on the z scale, analyses with them, futility bounds and peeking.

use stats::{
    Alpha, Alternative, Arm, Missing, Pair, Power,
    distributions::normal_sf,
    group_sequential::{
        Bound, Boundary, Crossing, Design, Family, Futility, Looks, Spending, information_fraction,
    },
    two_proportion::{self, ZTest},
};

use super::{Inputs, Output, Refused, output::Open};

/// The golden files have null for a bound above this, which nothing reaches; their alphas are from 0.001 to
/// 0.1.
const UNREACHABLE: f64 = 6.0;

/// For a small alpha, a bound is out of reach if it exceeds the quantile of alpha by more than this.
const BEYOND_THE_QUANTILE: f64 = 2.0;

/// The smallest alpha. With a smaller one almost nothing could be spent at any look, and the integrals are
/// not accurate.
const ALPHA_MIN: f64 = 1e-12;

/// Reads an alpha for which bounds can be computed.
fn alpha_of_bounds(inputs: &Inputs) -> Result<Alpha, Refused> {
    let alpha = inputs.alpha()?;
    if alpha.get() < ALPHA_MIN {
        return Err(inputs.refuse("alpha", format!("{} is below {ALPHA_MIN:e}", alpha.get())));
    }
    Ok(alpha)
}

/// Returns the z beyond which a bound is out of reach. A test at `alpha` with one look needs its quantile.
fn unreachable(alpha: Alpha, alternative: Alternative) -> f64 {
    UNREACHABLE.max(alternative.critical_z(alpha) + BEYOND_THE_QUANTILE)
}

/// The largest number of uncorrected looks; each costs an integral over the last one's grid.
const PEEKS_MAX: u64 = 2_000;

/// The largest number of looks with computed bounds.
const LOOKS_MAX: usize = 500;

/// The largest mean of z for futility bounds; from a few dozen on nothing is futile any more.
const DRIFT_MAX: f64 = 1e6;

/// Reads the shares of the planned information, for at most [`LOOKS_MAX`] looks.
fn fractions(inputs: &Inputs) -> Result<Vec<f64>, Refused> {
    const NAME: &str = "information_fractions";
    let fractions = inputs.measures(NAME)?;
    match fractions.len() {
        0 => Err(inputs.refuse(NAME, "there is no look")),
        1..=LOOKS_MAX => Ok(fractions),
        count => Err(inputs.refuse(NAME, format!("{count} looks are more than {LOOKS_MAX}"))),
    }
}

/// Reads a power above alpha, the probability with which a test rejects without any effect.
fn power_above(inputs: &Inputs, alpha: Alpha) -> Result<Power, Refused> {
    let power = inputs.check("power", Power::new(inputs.number("power")?))?;
    if power.get() > alpha.get() {
        return Ok(power);
    }
    Err(inputs.refuse("power", format!("{} is not above alpha, {}", power.get(), alpha.get())))
}

fn spending(inputs: &Inputs) -> Result<Spending, Refused> {
    let others = ", classic_obf, classic_pocock";
    spending_by(inputs, "spending", "gamma", others)
}

/// Reads the spending function named in one field, with its parameter in another.
fn spending_by(inputs: &Inputs, name: &str, gamma: &str, others: &str) -> Result<Spending, Refused> {
    match inputs.text(name)? {
        "obf" => Ok(Spending::OBrienFleming),
        "pocock" => Ok(Spending::Pocock),
        "kim_demets" => inputs.check(gamma, Spending::power(inputs.number(gamma)?)),
        "hsd" => inputs.check(gamma, Spending::gamma(inputs.number(gamma)?)),
        other => {
            let why = format!("{other:?} is none of obf, pocock, kim_demets, hsd{others}");
            Err(inputs.refuse(name, why))
        }
    }
}

/// Computes non-binding futility bounds for a boundary, for a given `drift` or as a plan.
pub fn futility(inputs: &Inputs) -> Result<Output, Refused> {
    let fractions = fractions(inputs)?;
    let (alpha, alternative) = (alpha_of_bounds(inputs)?, inputs.sides()?);
    let limit = unreachable(alpha, alternative);
    let design = Design { alpha, alternative, spending: spending_by(inputs, "spending", "gamma", "")? };
    let boundary = inputs.check("information_fractions", Boundary::planned(design, &fractions))?;
    let looks = boundary.looks();
    let futility = Futility {
        power: power_above(inputs, alpha)?,
        spending: spending_by(inputs, "futility_spending", "futility_gamma", "")?,
    };
    let mut found = Output::default();
    put_list(
        &mut found,
        "z",
        looks.criticals().into_iter().map(|z| reachable(z, limit).ok()).collect(),
        limit,
    );
    let drift = if inputs.has("drift") {
        inputs.number("drift")?
    } else {
        let plan = looks.plan_with_futility(futility, alpha);
        found.put("inflation_factor", plan.inflation);
        plan.drift
    };
    if drift == f64::INFINITY {
        for name in ["futility_z", "drift", "power"] {
            found.lacking(name, "no effect reaches the power: next to no alpha leaves no bound");
        }
        return Ok(found);
    }
    if drift > DRIFT_MAX {
        return Err(inputs.refuse("drift", format!("{drift} is above {DRIFT_MAX}")));
    }
    let bounds = inputs.check("drift", looks.futility(futility, drift))?;
    let futile: Vec<Open> = bounds.bounds.into_iter().map(Open).collect();
    Ok(found.with("futility_z", futile).with("drift", drift).with("power", bounds.power))
}

/// Returns the bound, or the reason why nothing reaches it.
fn reachable(critical: f64, limit: f64) -> Result<f64, String> {
    if critical <= limit {
        Ok(critical)
    } else {
        Err(format!("the bound, {critical}, is above {limit}: next to nothing may be spent here"))
    }
}

pub fn bounds(inputs: &Inputs) -> Result<Output, Refused> {
    let fractions = fractions(inputs)?;
    let (alpha, alternative) = (alpha_of_bounds(inputs)?, inputs.sides()?);
    let limit = unreachable(alpha, alternative);
    let power = power_above(inputs, alpha)?;
    let classical = |family| {
        let looks = Looks::classical(family, &fractions, alpha, alternative);
        looks.map_err(|why| {
            inputs.refuse(if why.what() == "alpha" { "alpha" } else { "information_fractions" }, why)
        })
    };
    let (looks, spent) = match inputs.text("spending")? {
        "classic_obf" => (classical(Family::OBrienFleming)?, None),
        "classic_pocock" => (classical(Family::Pocock)?, None),
        _ => {
            let design = Design { alpha, alternative, spending: spending(inputs)? };
            let boundary = Boundary::planned(design, &fractions);
            let boundary = inputs.check("information_fractions", boundary)?;
            let spent: Vec<f64> = boundary.bounds().iter().map(|bound| bound.alpha_spent).collect();
            (boundary.looks().clone(), Some(spent))
        }
    };
    let criticals = looks.criticals();
    let cost = looks.cost(alpha, power);
    let (nominal, sides) = match alternative {
        Alternative::TwoSided => ("nominal_p_two_sided", 2.0),
        Alternative::Greater | Alternative::Less => ("nominal_p_one_sided", 1.0),
    };
    let each = |of: fn(f64) -> f64, times: f64| -> Vec<Option<f64>> {
        criticals.iter().map(|&critical| reachable(critical, limit).ok().map(|z| times * of(z))).collect()
    };
    let mut found = Output::default();
    put_list(&mut found, "z", each(|z| z, 1.0), limit);
    put_list(&mut found, nominal, each(normal_sf, sides), limit);
    found.put("cumulative_alpha_spent", spent.unwrap_or_else(|| cumulative(&looks.crossing(0.0))));
    found.put("inflation_factor", cost.inflation);
    found.put("expected_information_ratio_h1", cost.expected_if_effect);
    found.put("expected_information_ratio_h0", cost.expected_if_none);
    found.put("constant", criticals[criticals.len() - 1]);
    Ok(found)
}

/// Adds a list in which bounds that nothing reaches are null.
fn put_list(found: &mut Output, name: &str, values: Vec<Option<f64>>, limit: f64) {
    let unreached = values.iter().any(Option::is_none);
    found.put(name, serde_json::json!(values));
    if unreached {
        found.note(name, format!("null: the bound is above {limit}, and nothing reaches it"));
    }
}

fn cumulative(crossing: &[Crossing]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums = Vec::new();
    for look in crossing {
        sum += look.toward + look.away;
        sums.push(sum);
    }
    sums
}

pub fn analysis(inputs: &Inputs) -> Result<Output, Refused> {
    let (alpha, alternative) = (alpha_of_bounds(inputs)?, inputs.sides()?);
    let limit = unreachable(alpha, alternative);
    let design = Design { alpha, alternative, spending: spending(inputs)? };
    let planned = Pair { control: inputs.count("planned_n_c")?, treatment: inputs.count("planned_n_t")? };
    let last_is_final = inputs.flag("last_look_is_final")?;
    let mut boundary = Boundary::new(design);
    let (mut look_rows, mut tests, mut stop) = (Vec::new(), Vec::new(), None);
    let looks = inputs.objects("looks")?;
    if looks.is_empty() {
        return Err(inputs.refuse("looks", "there is no look"));
    }
    if looks.len() > LOOKS_MAX {
        return Err(inputs.refuse("looks", format!("{} looks are more than {LOOKS_MAX}", looks.len())));
    }
    for (index, look) in looks.iter().enumerate() {
        let arms = look.arms()?;
        let fraction = information_fraction(arms.map(Arm::units), planned);
        let fraction = inputs.check("planned_n_c", fraction)?;
        let bound = if last_is_final && index + 1 == looks.len() {
            boundary.final_look(fraction)
        } else {
            boundary.look(fraction)
        };
        let bound = look.check("n_c", bound)?;
        let test = two_proportion::pooled_z(arms, Alternative::TwoSided);
        let rejects = test.is_ok_and(|test| bound.rejects(test.z));
        if rejects && stop.is_none() {
            stop = Some(index);
        }
        tests.push(test);
        look_rows.push(look_fields(&bound, test, rejects, limit));
    }
    let analysed = stop.unwrap_or(looks.len() - 1);
    let mut found = Output::default().with("looks", look_rows).with("analysed_at_index", analysed);
    let after = match tests[analysed] {
        Ok(test) if test.effect.standard_error > 0.0 => {
            let after = boundary.looks().stagewise(analysed, test.effect, alpha);
            after.ok_or_else(|| "next to no alpha can be spent".to_owned())
        }
        Ok(_) => Err(Missing::Variation.to_string()),
        Err(missing) => Err(missing.to_string()),
    };
    match after {
        Ok(after) => {
            found.put("p_value_stagewise", after.p_value);
            found.put("ci_stagewise", after.interval);
            found.put("median_unbiased", after.median_unbiased);
        }
        Err(why) => {
            for name in ["p_value_stagewise", "ci_stagewise", "median_unbiased"] {
                found.lacking(name, &why);
            }
        }
    }
    match stop {
        Some(index) => found.put("stop_index", index),
        None => found.lacking("stop_index", "no look rejected"),
    }
    Ok(found)
}

fn look_fields(bound: &Bound, test: Result<ZTest, Missing>, rejects: bool, limit: f64) -> Output {
    let mut found = Output::default()
        .with("information_fraction", bound.fraction)
        .with("estimate", test.map(|test| test.effect.estimate))
        .with("se", test.map(|test| test.effect.standard_error))
        .with("z", test.map(|test| test.z))
        .with("cumulative_alpha_spent", bound.alpha_spent)
        .with("reject", rejects);
    match reachable(bound.critical, limit) {
        Ok(critical) => {
            found.put("bound", critical);
            found.put("nominal_p_bound", bound.nominal_p());
            found.put("repeated_ci", test.map(|test| bound.repeated_interval(test.effect)));
        }
        Err(why) => {
            for name in ["bound", "nominal_p_bound", "repeated_ci"] {
                found.lacking(name, &why);
            }
        }
    }
    found
}

pub fn peeking(inputs: &Inputs) -> Result<Output, Refused> {
    let looks = inputs.count("looks")?;
    if !(1..=PEEKS_MAX).contains(&looks) {
        return Err(inputs.refuse("looks", format!("{looks} is not from 1 to {PEEKS_MAX}")));
    }
    // A number; null or a text means the quantile of alpha.
    let critical = match inputs.number("critical_value") {
        Ok(given) => given,
        Err(unread) => match inputs.has("alpha") {
            true => Alternative::TwoSided.critical_z(inputs.alpha()?),
            false => return Err(unread),
        },
    };
    let fractions: Vec<f64> = (1..=looks).map(|k| k as f64 / looks as f64).collect();
    let criticals = vec![critical; fractions.len()];
    let looks = Looks::with_bounds(&fractions, &criticals, Alternative::TwoSided);
    let looks = inputs.check("critical_value", looks)?;
    Ok(Output::default().with("overall_type1", looks.crossing_probability(0.0)))
}
