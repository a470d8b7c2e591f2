//! Quantiles of two arms.

use serde_json::json;
use stats::quantile::{self, ArmQuantile, Level, Levels};
use stats::{Alpha, Invalid, Missing, Pair, Side};

use super::{Inputs, Output, Refused};

/// One arm of the input: the suffix of its fields, and its values in ascending order if they are known.
struct Arm {
    suffix: &'static str,
    sorted: Option<Vec<f64>>,
    at: Result<(ArmQuantile, Option<Levels>), Missing>,
}

pub fn quantile(inputs: &Inputs) -> Result<Output, Refused> {
    let level = inputs.check("level", Level::new(inputs.number("level")?))?;
    let (alpha, alternative) = (inputs.alpha()?, inputs.alternative()?);
    let arms = Pair {
        control: arm(inputs, Side::Control, "c", level)?,
        treatment: arm(inputs, Side::Treatment, "t", level)?,
    };
    let mut found = Output::default();
    for arm in [&arms.control, &arms.treatment] {
        put(&mut found, arm, level, alpha);
    }
    let quantiles = arms.try_map(|_, arm| arm.at.map(|(quantile, _)| quantile));
    let difference = quantiles.map(|of| of.treatment.estimate() - of.control.estimate());
    let test = quantiles.and_then(|quantiles| quantile::compare(quantiles, alternative));
    Ok(found
        .with("diff", difference)
        .with("se", test.map(|test| test.effect.standard_error))
        .with("z", test.map(|test| test.z))
        .with("p_value", test.map(|test| test.p_value))
        .with("ci", test.map(|test| test.interval(alpha))))
}

/// Reads an arm from all values, or from the three quantiles that a database computed.
fn arm(inputs: &Inputs, side: Side, suffix: &'static str, level: Level) -> Result<Arm, Refused> {
    let quantiles = format!("quantiles_{suffix}");
    if inputs.has(&quantiles) {
        let three = inputs.measures(&quantiles)?;
        let &[lower, estimate, upper] = &three[..] else {
            let (what, left, right) = ("three quantiles", 3, three.len());
            return Err(inputs.refuse(&quantiles, Invalid::Lengths { what, left, right }));
        };
        let quantile = inputs.check(&quantiles, ArmQuantile::new(lower, estimate, upper))?;
        return Ok(Arm { suffix, sorted: None, at: Ok((quantile, None)) });
    }
    let values = format!("values_{suffix}");
    let mut sorted = inputs.measures(&values)?;
    sorted.sort_by(f64::total_cmp);
    let given = format!("share_se_{suffix}");
    let by_units = quantile::share_error(side, level, sorted.len() as u64);
    let (error, blamed) = match by_units {
        Ok(_) if inputs.has(&given) => (inputs.number(&given)?, &given),
        Ok(error) => (error, &values),
        Err(missing) => return Ok(Arm { suffix, sorted: Some(sorted), at: Err(missing) }),
    };
    let levels = inputs.check(blamed, quantile::levels(level, error))?;
    let quantile = inputs.check(&values, ArmQuantile::of_sorted(&sorted, levels))?;
    Ok(Arm { suffix, sorted: Some(sorted), at: Ok((quantile, Some(levels))) })
}

fn put(found: &mut Output, arm: &Arm, level: Level, alpha: Alpha) {
    let name = |field: &str| format!("{field}_{}", arm.suffix);
    let quantile = arm.at.map(|(quantile, _)| quantile);
    found.put(&name("quantile"), quantile.map(ArmQuantile::estimate));
    found.put(&name("ci95"), quantile.map(ArmQuantile::interval));
    found.put(&name("se"), quantile.map(ArmQuantile::standard_error));
    if let Ok((_, Some(Levels { lower, level, upper }))) = arm.at {
        found.put(&name("levels"), vec![lower, level, upper]);
    }
    let Some(sorted) = &arm.sorted else { return };
    match quantile::exact_ranks(sorted.len() as u64, level, alpha) {
        Some((lower, upper)) => {
            found.put(&name("exact_ranks"), json!([lower, upper]));
            found.put(&name("exact_ci"), vec![sorted[lower as usize - 1], sorted[upper as usize - 1]]);
        }
        None => {
            let why = format!("{} values are too few for both ends", sorted.len());
            found.lacking(&name("exact_ranks"), &why);
            found.lacking(&name("exact_ci"), &why);
        }
    }
}
