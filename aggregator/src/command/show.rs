//! Formats results as text for a terminal. Pure.

use crate::decision::{described, margin, progress};
use crate::document::{ExperimentResult, MetricResult};
use lab::format;
use lab::table::{put, table};

/// Formats the experiments one after the other: the verdict, its reason, and a table for each metric.
pub fn experiments(experiments: &[ExperimentResult]) -> String {
    if experiments.is_empty() {
        return "no experiment has been analyzed\n".to_owned();
    }
    let mut text = String::new();
    for (index, result) in experiments.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        put(
            &mut text,
            format_args!(
                "{}: {}\n  {}\n  {}, phase {}, definition version {}, as of {}\n",
                result.key,
                result.decision.verdict.title().to_uppercase(),
                result.decision.reason,
                result.state.as_str(),
                result.phase,
                result.definition_version,
                result.as_of,
            ),
        );
        for metric in &result.metrics {
            text.push_str(&metric_table(metric));
        }
        for of in &result.srm.phases {
            let p = of.p_value.map_or("no test".to_owned(), format::p_value);
            let stands = match (of.left_out, of.alarm, &of.left_out_reason) {
                (true, _, Some(reason)) => format!(", left out ({reason})"),
                (true, _, None) => ", left out".to_owned(),
                (false, true, _) => ", alarm".to_owned(),
                (false, false, _) => String::new(),
            };
            put(
                &mut text,
                format_args!("  sample ratio of phase {}: {p}, alarm at {}{stands}\n", of.phase, of.level),
            );
        }
        for of in &result.verification {
            let units = match of.units_mismatched {
                0 => String::new(),
                several => format!(", of {} of {} units", format::count(several), format::count(of.units)),
            };
            let left_out = if of.left_out { ", left out" } else { "" };
            put(
                &mut text,
                format_args!(
                    "  exposures of phase {}: {} of {} mismatched{units}{left_out}\n",
                    of.phase,
                    format::count(of.exposures_mismatched),
                    format::count(of.exposures)
                ),
            );
        }
        if result.units_in_several_variants > 0 {
            let units: u64 = result.variants.iter().map(|variant| variant.units).sum();
            let (several, units) = (format::count(result.units_in_several_variants), format::count(units));
            put(&mut text, format_args!("  units that saw several variants: {several} of {units}\n"));
        }
        let apart = [
            (result.units_forced, "units forced into a variant, which are not counted"),
            (result.units_left_out, "units of phases that are left out"),
            (result.units_of_unknown_phases, "units of phases that the definition does not have"),
            (result.units_of_unknown_variants, "units of variants that the definition does not have"),
            (result.events_after_as_of, "events of a time to come"),
        ];
        for (number, what) in apart.into_iter().filter(|(number, _)| *number > 0) {
            put(&mut text, format_args!("  {what}: {}\n", format::count(number)));
        }
        for warning in &result.warnings {
            put(&mut text, format_args!("  warning: {}\n", warning.text));
        }
    }
    text
}

fn metric_table(metric: &MetricResult) -> String {
    let mut text = format!("  {} ({})\n", metric.key, metric.role.as_str());
    if let Some(missing) = &metric.missing {
        put(&mut text, format_args!("    no numbers: {missing}\n"));
    }
    let level = if metric.is_rate() { "rate" } else { "mean" };
    let mut rows = vec![
        ["variant", "units", "converted", level, "lift", "always-valid p", "fixed-horizon p"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for variant in &metric.variants {
        let test = metric.tests.iter().find(|test| test.treatment == variant.key);
        let look = metric.always_valid.iter().find(|look| look.treatment == variant.key);
        let p_value = |p: Option<f64>| p.map_or("-".to_owned(), format::p_value_short);
        let of_treatment = |text: String| if variant.control { String::new() } else { text };
        rows.push(vec![
            variant.key.clone(),
            format::count(variant.units),
            format::count(variant.conversions),
            variant.mean.map_or("-".to_owned(), |mean| {
                if metric.is_rate() { format::rate(mean) } else { format::mean(mean) }
            }),
            of_treatment(
                test.and_then(|test| test.lift_relative).map_or("-".to_owned(), format::signed_percent),
            ),
            of_treatment(p_value(look.and_then(|look| look.p_value))),
            of_treatment(p_value(test.and_then(|test| test.p_value))),
        ]);
    }
    text.push_str(&table(&rows));
    for fact in metric.facts() {
        put(&mut text, format_args!("    {fact}\n"));
    }
    for boundary in &metric.boundaries {
        put(&mut text, format_args!("    decided by the {}\n", progress(boundary)));
    }
    for look in &metric.always_valid {
        if let Some(described) = described(look) {
            put(&mut text, format_args!("    {described}\n"));
        } else if let Some(missing) = &look.missing {
            put(&mut text, format_args!("    too early: {missing}\n"));
        }
        if let Some(margin) = margin(look) {
            put(&mut text, format_args!("    {margin}\n"));
        }
        if let Some(adjusted) = look.p_value_adjusted {
            let what = "always-valid p adjusted for all secondary metrics (Benjamini-Hochberg)";
            put(
                &mut text,
                format_args!("    {}: {what}: {}\n", look.treatment, format::p_value_short(adjusted)),
            );
        }
    }
    if let Some(test) = metric.tests.first() {
        put(&mut text, format_args!("    fixed-horizon p, {}: {}\n", test.method.title(), test.p_value_use));
    }
    text
}
