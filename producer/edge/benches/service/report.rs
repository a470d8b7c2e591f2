//! The table: of each case the edge and the bare handler, medians over the turns, latencies of all of them, and the ratio.

use std::fmt;
use std::time::Duration;

use super::load::Load;

/// What one turn measured.
pub struct Turn {
    pub load: Load,
    /// Processor time of the server.
    pub cpu: Duration,
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    case: &'static str,
    server: &'static str,
    turns: Vec<Turn>,
}

impl Report {
    pub fn add(&mut self, case: &'static str, server: &'static str, turn: Turn) {
        match self.rows.iter_mut().find(|row| (row.case, row.server) == (case, server)) {
            Some(row) => row.turns.push(turn),
            None => self.rows.push(Row { case, server, turns: vec![turn] }),
        }
    }
}

impl Row {
    fn rate(&self) -> f64 {
        median(self.turns.iter().map(|turn| turn.load.latencies.len() as f64 / turn.load.took.as_secs_f64()))
    }

    /// Microseconds of processor time a request.
    fn cpu_us(&self) -> f64 {
        median(self.turns.iter().map(|turn| turn.cpu.as_secs_f64() * 1e6 / turn.load.latencies.len() as f64))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["requests/s", "p50", "p90", "p99", "p99.9", "max", "cpu", "of bare"];
        write!(out, "{:37}", "latencies in ms, cpu in us a request")?;
        writeln!(
            out,
            " {:>10} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]
        )?;
        for row in &self.rows {
            let mut all: Vec<u32> =
                row.turns.iter().flat_map(|turn| turn.load.latencies.iter().copied()).collect();
            all.sort_unstable();
            write!(out, "{:26} {:10} {:>10.0}", row.case, row.server, row.rate())?;
            for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
                write!(out, " {:>7.2}", f64::from(quantile(&all, share)) / 1_000.0)?;
            }
            write!(out, " {:>7.1}", row.cpu_us())?;
            let floor = self.rows.iter().find(|other| other.case == row.case && other.server != row.server);
            match floor {
                Some(floor) if row.server == "edge" => {
                    writeln!(out, " {:>8.2}", row.rate() / floor.rate())?;
                }
                _ => writeln!(out)?,
            }
        }
        Ok(())
    }
}

/// Of values in ascending order, the smallest that is not below this share of them.
pub fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
