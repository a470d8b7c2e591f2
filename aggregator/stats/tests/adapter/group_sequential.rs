//! Boundaries on the z scale and what follows from them.

use serde_json::{Value, json};
use stats::{
    Alpha, Alternative, Arm, Counts, Pair, Power,
    distributions::normal_sf,
    group_sequential::{Bound, Boundary, Crossing, Design, Family, Looks, Spending, information_fraction},
    two_proportion,
};

use super::{Answer, Inputs, interval, number, text};

/// The files write null for a bound that nothing reaches.
const UNREACHABLE: f64 = 6.0;

fn sides(inputs: &Inputs) -> Result<Alternative, String> {
    match inputs.count("sides")? {
        2 => Ok(Alternative::TwoSided),
        1 => Ok(Alternative::Greater),
        other => Err(format!("sides is {other}")),
    }
}

fn spending(inputs: &Inputs) -> Result<Spending, String> {
    match inputs.text("spending")? {
        "obf" => Ok(Spending::OBrienFleming),
        "pocock" => Ok(Spending::Pocock),
        "kim_demets" => Spending::power(inputs.number("gamma")?).map_err(text),
        "hsd" => Spending::gamma(inputs.number("gamma")?).map_err(text),
        other => Err(format!("spending is {other:?}")),
    }
}

fn or_null(critical: f64, show: impl Fn(f64) -> f64) -> Value {
    if critical > UNREACHABLE { Value::Null } else { number(show(critical)) }
}

pub fn bounds(inputs: &Inputs) -> Answer {
    let fractions = inputs.numbers("information_fractions")?;
    let (alpha, alternative) = (inputs.alpha()?, sides(inputs)?);
    let classical = |family| Looks::classical(family, &fractions, alpha, alternative);
    let (looks, spent) = match inputs.text("spending")? {
        "classic_obf" => (classical(Family::OBrienFleming).map_err(text)?, None),
        "classic_pocock" => (classical(Family::Pocock).map_err(text)?, None),
        _ => {
            let design = Design { alpha, alternative, spending: spending(inputs)? };
            let boundary = Boundary::planned(design, &fractions).map_err(text)?;
            let spent: Vec<f64> = boundary.bounds().iter().map(|b| b.alpha_spent).collect();
            (boundary.looks().clone(), Some(spent))
        }
    };
    let criticals = looks.criticals();
    let list = |show: fn(f64) -> f64| -> Vec<Value> {
        criticals.iter().map(|&critical| or_null(critical, show)).collect()
    };
    let cost = looks.cost(alpha, Power::new(inputs.number("power")?).map_err(text)?);
    let mut out = json!({
        "z": list(|z| z),
        "cumulative_alpha_spent": spent.unwrap_or_else(|| cumulative(&looks.crossing(0.0))),
        "inflation_factor": cost.inflation,
        "expected_information_ratio_h1": cost.expected_if_effect,
        "expected_information_ratio_h0": cost.expected_if_none,
        "constant": criticals.last(),
    });
    match alternative {
        Alternative::TwoSided => out["nominal_p_two_sided"] = json!(list(|z| 2.0 * normal_sf(z))),
        _ => out["nominal_p_one_sided"] = json!(list(normal_sf)),
    }
    Ok(out)
}

fn cumulative(crossing: &[Crossing]) -> Vec<f64> {
    crossing
        .iter()
        .scan(0.0, |sum, look| {
            *sum += look.toward + look.away;
            Some(*sum)
        })
        .collect()
}

pub fn analysis(inputs: &Inputs) -> Answer {
    let alpha = inputs.alpha()?;
    let design = Design { alpha, alternative: sides(inputs)?, spending: spending(inputs)? };
    let planned = Pair { control: inputs.count("planned_n_c")?, treatment: inputs.count("planned_n_t")? };
    let last_is_final = inputs.get("last_look_is_final")?.as_bool().unwrap_or(false);
    let mut boundary = Boundary::new(design);
    let (mut looks, mut effects, mut stop) = (Vec::new(), Vec::new(), None);
    let values = inputs.list("looks")?;
    for (index, value) in values.iter().enumerate() {
        let look = Inputs::of(value, "look")?;
        let arms = arms(&look)?;
        let fraction = information_fraction(arms.map(Arm::units), planned).map_err(text)?;
        let bound = if last_is_final && index + 1 == values.len() {
            boundary.final_look(fraction)
        } else {
            boundary.look(fraction)
        }
        .map_err(text)?;
        let test = two_proportion::pooled_z(arms, Alternative::TwoSided).map_err(text)?;
        let rejects = bound.critical <= UNREACHABLE && bound.rejects(test.z);
        if rejects && stop.is_none() {
            stop = Some(index);
        }
        effects.push(test.effect);
        looks.push(look_shown(&bound, &test, rejects));
    }
    let analysed = stop.unwrap_or(values.len() - 1);
    let after = boundary.looks().stagewise(analysed, effects[analysed], alpha);
    let after = after.ok_or("no variation at the analysed look")?;
    Ok(json!({
        "looks": looks,
        "stop_index": stop,
        "analysed_at_index": analysed,
        "p_value_stagewise": after.p_value,
        "ci_stagewise": interval(after.interval),
        "median_unbiased": after.median_unbiased,
    }))
}

fn arms(look: &Inputs) -> Result<Pair<Arm>, String> {
    let arm = |n: &str, x: &str| {
        Arm::new(Counts { units: look.count(n)?, conversions: look.count(x)? }).map_err(text)
    };
    Ok(Pair { control: arm("n_c", "x_c")?, treatment: arm("n_t", "x_t")? })
}

fn look_shown(bound: &Bound, test: &two_proportion::ZTest, rejects: bool) -> Value {
    let reachable = bound.critical <= UNREACHABLE;
    json!({
        "information_fraction": bound.fraction,
        "estimate": test.effect.estimate,
        "se": test.effect.standard_error,
        "z": test.z,
        "bound": or_null(bound.critical, |z| z),
        "cumulative_alpha_spent": bound.alpha_spent,
        "nominal_p_bound": or_null(bound.critical, |_| bound.nominal_p()),
        "repeated_ci": if reachable {
            interval(bound.repeated_interval(test.effect))
        } else {
            Value::Null
        },
        "reject": rejects,
    })
}

pub fn peeking(inputs: &Inputs) -> Answer {
    let looks = inputs.count("looks")?;
    let critical = match inputs.get("critical_value")?.as_f64() {
        Some(given) => given,
        None => Alternative::TwoSided.critical_z(Alpha::new(inputs.number("alpha")?).map_err(text)?),
    };
    let fractions: Vec<f64> = (1..=looks).map(|k| k as f64 / looks as f64).collect();
    let criticals = vec![critical; fractions.len()];
    let looks = Looks::with_bounds(&fractions, &criticals, Alternative::TwoSided).map_err(text)?;
    Ok(json!({ "overall_type1": looks.crossing_probability(0.0) }))
}
