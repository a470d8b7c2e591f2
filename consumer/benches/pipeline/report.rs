//! The table: medians over the rounds, each beside the limit of the same rounds.

use std::fmt;

use super::place::Measured;

pub struct Report {
    rows: Vec<(&'static str, Vec<Measured>)>,
    limit: &'static str,
}

impl Report {
    /// An empty report; the others are shares of `limit`.
    pub fn of_limit(limit: &'static str) -> Report {
        Report { rows: Vec::new(), limit }
    }

    pub fn add(&mut self, name: &'static str, measured: Measured) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(measured),
            None => self.rows.push((name, vec![measured])),
        }
    }

    /// Rows a second.
    pub fn median(&self, name: &str) -> f64 {
        let of_name = self.rows.iter().find(|(known, _)| *known == name);
        of_name.map_or(f64::NAN, |(_, all)| median(all.iter().map(|one| one.rows_per_second)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.median(self.limit);
        writeln!(
            out,
            "{:28} {:>11} {:>22} {:>9}   {:>8} {:>11} {:>7}",
            "median of the rounds",
            "rows/s",
            "lowest to highest",
            "of limit",
            "consumer",
            "ClickHouse",
            "broker"
        )?;
        for (name, all) in &self.rows {
            let rates: Vec<f64> = all.iter().map(|one| one.rows_per_second).collect();
            let lowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = rates.iter().copied().fold(0.0, f64::max);
            let rate = median(rates.iter().copied());
            let cpu = |of: fn(&Measured) -> Option<f64>| {
                let all: Vec<f64> = all.iter().filter_map(of).collect();
                if all.is_empty() { "-".to_owned() } else { format!("{:.0}", median(all.into_iter())) }
            };
            writeln!(
                out,
                "{name:28} {rate:>11.0} {:>22} {:>8.0}%   {:>8} {:>11} {:>7}",
                format!("{lowest:.0} to {highest:.0}"),
                100.0 * rate / limit,
                cpu(|one| one.client),
                cpu(|one| one.clickhouse),
                cpu(|one| one.broker)
            )?;
        }
        writeln!(out, "the three last columns: processor time of each process, in nanoseconds a row")?;
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
