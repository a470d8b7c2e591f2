//! Prints the costs, as a table for people or as JSON. It decides nothing.

use serde_json::{Value as Json, json};

use crate::check::Arms;
use crate::measure::{Cost, ROUNDS};
use crate::user::{COUNTED, TIMED};

/// A measured library.
pub struct Row {
    pub package: &'static str,
    pub version: &'static str,
    /// The function that answers.
    pub call: &'static str,
    /// Of the counted users.
    pub arms: Arms,
    /// The context is built from the application's values for each evaluation.
    pub with_context: Cost,
    /// The context is there already; none if the library does not let it be kept.
    pub evaluation: Option<Cost>,
}

pub fn table(rows: &[Row], hashes: Cost) -> String {
    let mut lines = vec![
        "One experiment of two arms and three rules, with texts and numbers: nanoseconds and allocations of an".to_owned(),
        format!("evaluation, the least and the median of {ROUNDS} rounds of {TIMED} users that take turns."),
        String::new(),
        line("", "", "with building the context", "the context is kept", "arms of"),
        line("", "", &titles(), &titles(), &format!("{COUNTED} users")),
        line("three hashes and their buckets", "", "", &columns(hashes), ""),
    ];
    for row in rows {
        let name = format!("{} {}", row.package, row.version);
        let kept = row.evaluation.map_or("it cannot be kept".to_owned(), columns);
        let arms = format!("{} + {}", row.arms.a, row.arms.b);
        lines.push(line(&name, row.call, &columns(row.with_context), &kept, &arms));
    }
    lines.join("\n")
}

fn line(name: &str, call: &str, with_context: &str, kept: &str, arms: &str) -> String {
    format!("{name:<31}{call:<33}{with_context:>26}{kept:>26}{arms:>14}").trim_end().to_owned()
}

fn titles() -> String {
    format!("{:>8}{:>8}{:>8}", "least", "median", "allocs")
}

fn columns(cost: Cost) -> String {
    format!("{:>8.1}{:>8.1}{:>8.1}", cost.ns_min, cost.ns_median, cost.allocations)
}

pub fn json(rows: &[Row], hashes: Cost) -> Json {
    let cost = |cost: Cost| json!({"ns_min": cost.ns_min, "ns_median": cost.ns_median, "allocations": cost.allocations});
    let rows: Vec<Json> = rows
        .iter()
        .map(|row| {
            json!({
                "package": row.package,
                "version": row.version,
                "call": row.call,
                "arms": {"a": row.arms.a, "b": row.arms.b},
                "with_context": cost(row.with_context),
                "evaluation": row.evaluation.map(cost),
            })
        })
        .collect();
    json!({"rounds": ROUNDS, "users": TIMED, "three_hashes": cost(hashes), "libraries": rows})
}
