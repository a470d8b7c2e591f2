//! `splitstream power`: reads the question from the command line, and prints the answer as a table with its
//! curve, as JSON or as a picture.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use stats::group_sequential::Spending;
use stats::power::RatioParts;

use super::{Failure, to_json};
use crate::power::{
    self, Answer, Correction, CurvePoint, Outcome, Question, Request, Row, Sequential, Split, Variance,
};
use crate::table::{put, table};
use crate::{curve, format};

#[derive(Args)]
pub struct PowerArguments {
    /// Conversion rate of the control, between 0 and 1.
    #[arg(long, group = "outcome")]
    baseline: Option<f64>,
    /// Mean of the control per unit, for a metric that is not a rate.
    #[arg(long, requires = "sd", allow_negative_numbers = true, group = "outcome")]
    mean: Option<f64>,
    /// Standard deviation of one unit's value, above 0.
    #[arg(long, requires = "mean")]
    sd: Option<f64>,
    /// Ratio of two sums in the control, such as clicks per view.
    #[arg(
        long,
        requires_all = ["numerator_sd", "denominator_mean", "denominator_sd"],
        allow_negative_numbers = true,
        group = "outcome"
    )]
    ratio: Option<f64>,
    /// Standard deviation of one unit's numerator.
    #[arg(long, requires = "ratio")]
    numerator_sd: Option<f64>,
    /// Mean of one unit's denominator, above 0.
    #[arg(long, requires = "ratio")]
    denominator_mean: Option<f64>,
    /// Standard deviation of one unit's denominator.
    #[arg(long, requires = "ratio")]
    denominator_sd: Option<f64>,
    /// Correlation of one unit's numerator and denominator.
    #[arg(long, requires = "ratio", default_value_t = 0.0, allow_negative_numbers = true)]
    correlation: f64,
    /// Smallest effect to find, as a share of the control's level: 0.1 is ten per cent more.
    #[arg(long, conflicts_with = "mde_absolute", allow_negative_numbers = true)]
    mde_relative: Option<f64>,
    /// Smallest effect to find, in the metric's unit: 0.005 is half a percentage point of a rate.
    #[arg(long, allow_negative_numbers = true)]
    mde_absolute: Option<f64>,
    /// Units of all arms together: computes the effect that they find or, if an effect is given, the power.
    #[arg(long)]
    units: Option<u64>,
    /// Two-sided error rate, between 0 and 1.
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
    /// Probability to find the effect if it is there, between 0 and 1.
    #[arg(long, default_value_t = 0.8)]
    power: f64,
    /// Shares of the arms, the control first: 50/50, 90/10, 50/25/25.
    #[arg(long, default_value = "50/50")]
    split: Split,
    /// How several treatments share alpha.
    #[arg(long, value_enum, default_value_t = CorrectionName::Bonferroni)]
    correction: CorrectionName,
    /// Looks of the boundary, the last one included.
    #[arg(long, default_value_t = 14)]
    looks: u32,
    /// How the boundary spends alpha.
    #[arg(long, value_enum, default_value_t = SpendingName::Obf)]
    spending: SpendingName,
    /// Units of a cluster, where whole clusters are assigned.
    #[arg(long, default_value_t = 1.0, requires = "icc")]
    cluster_size: f64,
    /// Intraclass correlation: how much units of one cluster resemble each other, from 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    icc: f64,
    /// Correlation of the outcome with a covariate from before the experiment (CUPED).
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    covariate_correlation: f64,
    /// Units exposed for the first time each day, for the duration.
    #[arg(long)]
    daily_units: Option<f64>,
    /// Prints the answer as JSON.
    #[arg(long)]
    json: bool,
    /// Draws the power curve as SVG into this file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CorrectionName {
    Bonferroni,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum SpendingName {
    /// O'Brien-Fleming
    Obf,
    Pocock,
}

pub fn run(arguments: &PowerArguments) -> Result<(), Failure> {
    let request = arguments.request().map_err(Failure::Usage)?;
    let answer = power::plan(&request).map_err(Failure::usage)?;
    if let Some(file) = &arguments.plot {
        let svg = curve::svg(&answer).context("no curve is drawn where the effect is asked for")?;
        std::fs::write(file, svg).with_context(|| format!("writing {}", file.display()))?;
    }
    if arguments.json {
        println!("{}", to_json(&answer)?);
    } else {
        print!("{}", render(&answer, &arguments.split.to_string()));
    }
    Ok(())
}

impl PowerArguments {
    fn request(&self) -> anyhow::Result<Request> {
        let (level, outcome) = match (self.baseline, self.mean, self.ratio) {
            (Some(baseline), ..) => (baseline, Outcome::Rates { baseline }),
            (None, Some(mean), _) => {
                let Some(sd) = self.sd else { bail!("--mean needs --sd") };
                (mean, Outcome::Means { mean, sd })
            }
            (None, None, Some(ratio)) => (ratio, Outcome::Ratio(self.parts(ratio)?)),
            (None, None, None) => bail!("none of --baseline, --mean and --ratio is given"),
        };
        let difference = match (self.mde_relative, self.mde_absolute) {
            (Some(relative), _) => Some(level * relative),
            (None, absolute) => absolute,
        };
        let question = match (difference, self.units) {
            (Some(difference), None) => Question::Units { difference },
            (None, Some(units_total)) => Question::Effect { units_total },
            (Some(difference), Some(units_total)) => Question::Power { difference, units_total },
            (None, None) => bail!("none of --mde-relative, --mde-absolute and --units is given"),
        };
        Ok(Request {
            outcome,
            question,
            alpha: self.alpha,
            power: self.power,
            split: self.split.clone(),
            correction: match self.correction {
                CorrectionName::Bonferroni => Correction::Bonferroni,
                CorrectionName::None => Correction::None,
            },
            sequential: Sequential {
                looks: self.looks,
                spending: match self.spending {
                    SpendingName::Obf => Spending::OBrienFleming,
                    SpendingName::Pocock => Spending::Pocock,
                },
            },
            variance: Variance {
                cluster_size: self.cluster_size,
                intraclass_correlation: self.icc,
                covariate_correlation: self.covariate_correlation,
            },
            daily_units: self.daily_units,
        })
    }

    fn parts(&self, ratio: f64) -> anyhow::Result<RatioParts> {
        let given = (self.numerator_sd, self.denominator_mean, self.denominator_sd);
        let (Some(numerator_sd), Some(denominator_mean), Some(denominator_sd)) = given else {
            bail!("--ratio needs --numerator-sd, --denominator-mean and --denominator-sd");
        };
        Ok(RatioParts {
            ratio,
            numerator_sd,
            denominator_mean,
            denominator_sd,
            correlation: self.correlation,
        })
    }
}

fn render(answer: &Answer, split: &str) -> String {
    let mut text = String::new();
    let level = |level: f64| match answer.metric {
        "conversion" => format::percent(level),
        _ => format::mean(level),
    };
    put(
        &mut text,
        format_args!(
            "{} {} in the control, alpha {} (two-sided), split {split}:\n",
            answer.metric,
            level(answer.baseline),
            answer.alpha
        ),
    );
    if answer.alpha_per_comparison < answer.alpha {
        put(
            &mut text,
            format_args!(
                "alpha is shared among the treatments: {} each\n",
                format::level(answer.alpha_per_comparison)
            ),
        );
    }
    if answer.variance_factor != 1.0 {
        put(
            &mut text,
            format_args!(
                "clusters and covariate make the variance {:.3} times as large\n",
                answer.variance_factor
            ),
        );
    }
    let heads = ["", "to find", "", "power", "units per arm", "in all", "expected", "days", "whole weeks"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let boundary = format!("boundary, {} looks", answer.looks);
    for (name, row) in [
        ("one look, at the planned end", &answer.fixed_horizon),
        (boundary.as_str(), &answer.group_sequential),
        ("always valid, looking daily", &answer.always_valid),
    ] {
        rows.push(cells(name, row, &level, answer.baseline));
    }
    text.push_str(&table(&rows));
    for warning in &answer.warnings {
        put(&mut text, format_args!("  Careful: {warning}.\n"));
    }
    put(
        &mut text,
        format_args!(
            "  Expected: units used on average if the effect is there. Always valid: the interval is tuned for the units \
             of one look\n  and looked at as often as the boundary; it costs {:.2} times the sample for this power.\n",
            answer.always_valid.inflation
        ),
    );
    if !answer.curve.is_empty() {
        let mut rows =
            vec![["power over units", "one look", "boundary", "always valid"].map(str::to_owned).to_vec()];
        rows.extend(answer.curve.iter().skip(3).step_by(4).map(curve_cells));
        text.push_str(&table(&rows));
    }
    text
}

fn cells(name: &str, row: &Row, level: &dyn Fn(f64) -> String, baseline: f64) -> Vec<String> {
    let arms: Vec<String> = row.units_per_arm.iter().map(|units| format::count(*units)).collect();
    let alike = arms.windows(2).all(|pair| pair[0] == pair[1]);
    let days = |days: Option<u64>| days.map_or("-".to_owned(), |days| days.to_string());
    vec![
        name.to_owned(),
        row.effect_absolute.map_or("nothing".to_owned(), |effect| level(baseline + effect)),
        row.effect_relative.map_or(String::new(), format::signed_percent),
        format!("{:.1} %", row.power * 100.0),
        if alike { arms[0].clone() } else { arms.join(" / ") },
        format::count(row.units_total),
        row.expected_units_if_effect.map_or("-".to_owned(), |units| format::count(units.round() as u64)),
        days(row.days),
        days(row.whole_week_days.map(|days| days / 7)),
    ]
}

fn curve_cells(point: &CurvePoint) -> Vec<String> {
    let powers = [point.power_fixed_horizon, point.power_group_sequential, point.power_always_valid];
    let mut cells = vec![format::count(point.units_total)];
    cells.extend(powers.map(|power| format!("{:.1} %", power * 100.0)));
    cells
}
