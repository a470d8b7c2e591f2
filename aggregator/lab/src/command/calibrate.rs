//! `splitstream calibrate`: draws experiments with a progress bar, and prints the counts as a table or as JSON.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, to_json};

use crate::calibrate::{self, Report, Settings, few, phases};
use crate::format;
use crate::table::{put, table};

#[derive(Args)]
pub struct CalibrateArguments {
    /// Experiments to draw without an effect, and as many with one.
    #[arg(long, default_value_t = Settings::default().runs)]
    runs: u32,
    /// Seed that determines all drawn numbers.
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Conversion rate of the control, between 0 and 1.
    #[arg(long, default_value_t = Settings::default().baseline)]
    baseline: f64,
    /// Conversion rate of a treatment that has an effect.
    #[arg(long, default_value_t = Settings::default().treatment)]
    treatment: f64,
    /// Looks up to the planned units.
    #[arg(long, default_value_t = Settings::default().looks)]
    looks: u32,
    /// Draws experiments with few conversions instead, with a look after every one: do the exact tests below
    /// the gate and the normal ones above it keep alpha together?
    #[arg(long, conflicts_with_all = ["baseline", "treatment", "looks"])]
    few_conversions: bool,
    /// Draws experiments whose shares change because of the effect seen instead, up to five times: do phases
    /// as strata keep alpha, and does the sample ratio test keep its level?
    #[arg(long, conflicts_with_all = ["baseline", "treatment", "looks", "few_conversions"])]
    phases: bool,
    /// Prints the counts as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &CalibrateArguments) -> Result<(), Failure> {
    if arguments.few_conversions {
        return run_few(arguments);
    }
    if arguments.phases {
        return run_phases(arguments);
    }
    let settings = Settings {
        runs: arguments.runs,
        seed: arguments.seed,
        baseline: arguments.baseline,
        treatment: arguments.treatment,
        looks: arguments.looks,
    };
    let bar = progress_bar(u64::from(settings.runs))?;
    let report = calibrate::calibrate(settings, &|runs| bar.inc(runs));
    bar.finish_and_clear();
    let report = report.map_err(Failure::usage)?;
    if arguments.json {
        println!("{}", to_json(&report)?);
    } else {
        print!("{}", render(&report));
    }
    Ok(())
}

fn run_few(arguments: &CalibrateArguments) -> Result<(), Failure> {
    let settings = few::Settings { runs: arguments.runs, seed: arguments.seed };
    let bar = progress_bar(few::runs_in_all(settings))?;
    let report = few::calibrate(settings, &|runs| bar.inc(runs));
    bar.finish_and_clear();
    let report = report.map_err(Failure::usage)?;
    if arguments.json {
        println!("{}", to_json(&report)?);
    } else {
        print!("{}", render_few(&report));
    }
    Ok(())
}

fn run_phases(arguments: &CalibrateArguments) -> Result<(), Failure> {
    let settings = phases::Settings { runs: arguments.runs, seed: arguments.seed };
    let bar = progress_bar(phases::runs_in_all(settings))?;
    let report = phases::calibrate(settings, &|runs| bar.inc(runs));
    bar.finish_and_clear();
    let report = report.map_err(Failure::usage)?;
    if arguments.json {
        println!("{}", to_json(&report)?);
    } else {
        print!("{}", render_phases(&report));
    }
    Ok(())
}

fn progress_bar(runs: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} experiments, {eta} left")?;
    Ok(ProgressBar::new(runs).with_style(style))
}

fn render_few(report: &few::Report) -> String {
    let few::Settings { runs, seed } = report.settings;
    let errors = report.rows.iter().map(|row| row.alarms.standard_error()).fold(0.0, f64::max);
    let mut text = format!(
        "{} experiments without an effect at each rate and split, watched up to {} conversions or to the planned end;\n\
         seed {seed}. False alarms in per cent; a standard error is at most {:.2}.\n",
        format::count(u64::from(runs)),
        format::count(few::CONVERSIONS),
        errors * 100.0,
    );
    text.push_str(&few_table("In all", report, |row| row.alarms));
    text.push_str(&few_table("Of these, raised by counts", report, |row| row.by_counts));
    text
}

fn render_phases(report: &phases::Report) -> String {
    let phases::Settings { runs, seed } = report.settings;
    let mut text = format!(
        "{} experiments without an effect for each outcome and each rule by which the shares change, {} looks up to the\n\
         {} planned units of both arms and as many beyond, where the always-valid tests go on; seed {seed}.\n\
         False alarms in per cent, plus or minus a standard error.\n",
        format::count(u64::from(runs)),
        phases::LOOKS,
        format::count(phases::PLANNED_UNITS),
    );
    let mut outcomes: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !outcomes.contains(&row.outcome) {
            outcomes.push(row.outcome);
            text.push_str(&phases_table(report, row.outcome));
        }
    }
    put(
        &mut text,
        format_args!(
            "Sample ratio over five phases of a million units, 16 looks each: {} by the levels of phases, {} with each\n\
             phase at the whole level of 1 %.\n",
            share(report.sample_ratio),
            share(report.sample_ratio_each_at_the_whole_level),
        ),
    );
    text
}

/// Returns a table with a row for each method and a column for each rule.
fn phases_table(report: &phases::Report, outcome: &str) -> String {
    let mut rows = vec![vec![outcome.to_owned()]];
    for row in report.rows.iter().filter(|row| row.outcome == outcome) {
        let place = rows.iter().position(|cells| cells[0] == row.method).unwrap_or(rows.len());
        if place == rows.len() {
            rows.push(vec![row.method.to_owned()]);
        }
        if place == 1 {
            rows[0].push(row.rule.to_owned());
        }
        rows[place].push(share(row.alarms));
    }
    table(&rows)
}

/// Returns a table with a row for each method and a column for each rate and split.
fn few_table(head: &str, report: &few::Report, of: impl Fn(&few::Row) -> calibrate::Share) -> String {
    let mut rows = vec![vec![head.to_owned()]];
    for row in &report.rows {
        let place = rows.iter().position(|cells| cells[0] == row.method).unwrap_or(rows.len());
        if place == rows.len() {
            rows.push(vec![row.method.to_owned()]);
        }
        if place == 1 {
            let treatment = (row.treatment_share * 100.0).round();
            rows[0].push(format!("{} % {}/{treatment}", row.rate * 100.0, 100.0 - treatment));
        }
        rows[place].push(format!("{:.2}", of(row).estimate() * 100.0));
    }
    table(&rows)
}

fn share(share: calibrate::Share) -> String {
    format!("{:.2} ±{:.2}", share.estimate() * 100.0, share.standard_error() * 100.0)
}

fn render(report: &Report) -> String {
    let Settings { runs, seed, baseline, treatment, looks } = report.settings;
    let mut text = format!(
        "{} experiments without and as many with an effect ({} to {}), {} units an arm planned for 80 % power,\n\
         {looks} looks up to there and as often beyond; seed {seed}. Per cent, plus or minus a standard error.\n\
         False alarms up to {} times the planned units, power up to {} times; stopped at a share of them,\n\
         where there is an effect and where there is none.\n",
        format::count(u64::from(runs)),
        format::percent(baseline),
        format::percent(treatment),
        format::count(report.units_per_arm),
        report.null_horizons,
        report.effect_horizons,
    );
    let heads = [
        "",
        "runs",
        "alarms by plan",
        "by end",
        "power by plan",
        "by end",
        "covered",
        "stage-wise",
        "stopped at",
        "if none",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mean = |mean: calibrate::Mean| format!("{:.3} ±{:.3}", mean.value(), mean.standard_error());
    let or_none = |of: Option<calibrate::Share>| of.map_or("-".to_owned(), share);
    for row in &report.methods {
        rows.push(vec![
            row.method.clone(),
            format::count(row.false_positives_by_plan.total()),
            share(row.false_positives_by_plan),
            share(row.false_positives_by_end),
            share(row.power_by_plan),
            share(row.power_by_end),
            or_none(row.coverage),
            or_none(row.coverage_stagewise),
            mean(row.stopped_at_if_effect),
            mean(row.stopped_at_if_none),
        ]);
    }
    text.push_str(&table(&rows));
    put(
        &mut text,
        format_args!(
            "Peeking without correction, 20 looks of 500 an arm: {} of accumulating data ({:.2} exactly, for a normal \
             process);\n{} where each look tests its own batch alone.\n",
            share(report.peeking.accumulating),
            report.peeking.accumulating_exact * 100.0,
            share(report.peeking.batches),
        ),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method has a line in both tables, and every rate and split has a column.
    #[test]
    fn a_small_report_of_few_conversions_is_two_whole_tables() {
        let report = few::calibrate(few::Settings { runs: 2, seed: 1 }, &|_| {}).unwrap();
        let text = render_few(&report);
        assert!(text.contains("0.05 % 50/50") && text.contains("50 % 95/5"), "{text}");
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("guardrail, fewer is harm  ")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0].split_whitespace().count(), "guardrail, fewer is harm".split(' ').count() + 11);
    }

    /// Every method has a line for every outcome, and every rule has a column.
    #[test]
    fn a_small_report_of_phases_is_four_whole_tables() {
        let report = phases::calibrate(phases::Settings { runs: 2, seed: 1 }, &|_| {}).unwrap();
        let text = render_phases(&report);
        assert_eq!(text.lines().filter(|line| line.contains("50/50 throughout")).count(), 4, "{text}");
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("always-valid, tuned for the plan  ")).collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0].matches('±').count(), 6, "{text}");
    }

    /// Every method has a line, and every column has a head.
    #[test]
    fn a_small_report_is_a_whole_table() {
        let settings = Settings { runs: 2, looks: 2, ..Settings::default() };
        let report = calibrate::calibrate(settings, &|_| {}).unwrap();
        let text = render(&report);
        let heads = text.lines().find(|line| line.contains("alarms by plan")).unwrap();
        assert!(heads.trim_end().ends_with("stopped at       if none"), "{heads}");
        for row in &report.methods {
            assert_eq!(text.lines().filter(|line| line.contains(&row.method)).count(), 1, "{}", row.method);
        }
    }
}
