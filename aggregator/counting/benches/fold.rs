//! What a round costs beside what is there already: rounds of new rows over histories of different sizes, for 20
//! experiments of 10 metrics with segments. Prints microseconds of processor time for each new row, the cells that changed,
//! and memory for each row.
//!
//! The stream: 40 % exposures, 60 % conversions; each unit is in up to 4 of the 20 experiments, with two exposures in each on
//! average; the conversions of a unit are Zipf-distributed, 12 on average; 1 % of the rows are late by 1 to 72 hours.
//! `deep` has 50,000 units with as many rows each as `large` has.

use std::time::Instant;

use counting::event::{Conversion, Exposure, NewExposure, Scope};
use counting::fold::{Counting, NewRows};
use counting::kind::{self, Cap, Kind, Of, PerUnit, Span, Term};
use counting::micros::{DAY, HOUR, Micros};
use counting::names::{Name, Names};
use counting::spec::{ExperimentSpec, MetricSpec, Spec};
use counting::store::Memory;

const EXPERIMENTS: usize = 20;
const START: Micros = 20_000 * DAY;
const ROUNDS: usize = 4;

fn main() {
    let only: Option<u64> = std::env::args().nth(1).and_then(|rows| rows.parse().ok());
    println!("history        units   new rows   us/row   cells changed   bytes/row   digest");
    for (name, rows, units) in
        [("small", 1_000_000, 50_000 * 5), ("deep", 1_000_000, 50_000), ("large", 10_000_000, 500_000)]
    {
        if only.is_some_and(|only| only < rows) {
            continue;
        }
        measure(name, rows, units);
    }
}

fn measure(name: &str, rows: u64, units: u64) {
    let mut stream = Stream::new(units, rows);
    let mut counting = Counting::new(stream.spec.clone(), Memory::default());
    // The history, in rounds of a fiftieth.
    for _ in 0..50 {
        let (new, as_of) = stream.next(rows / 50);
        let Ok(()) = counting.fold(new, as_of);
        counting.end_round(&stream.names);
    }
    for size in [5_000, 20_000, 100_000] {
        let mut times = Vec::new();
        let mut changed = 0;
        for _ in 0..ROUNDS {
            let (new, as_of) = stream.next(size);
            let start = Instant::now();
            let Ok(()) = counting.fold(new, as_of);
            changed = (0..EXPERIMENTS)
                .map(|index| {
                    counting.units(index).changed().count()
                        + (0..10)
                            .map(|metric| counting.metric(index, metric).changed().count())
                            .sum::<usize>()
                })
                .sum();
            counting.end_round(&stream.names);
            times.push(start.elapsed().as_secs_f64() * 1e6 / size as f64);
        }
        times.sort_by(f64::total_cmp);
        let digest = (0..EXPERIMENTS).fold(0u128, |sum, index| sum.wrapping_add(counting.digest(index)));
        let bytes = counting.store().bytes() as f64 / (rows as f64);
        println!(
            "{name:8} {units:12} {size:10} {:8.2} {changed:15} {bytes:11.0}   {:016x}",
            times[ROUNDS / 2],
            digest as u64
        );
    }
    let cells: usize = (0..EXPERIMENTS)
        .map(|index| {
            counting.units(index).iter().count()
                + (0..10).map(|metric| counting.metric(index, metric).iter().count()).sum::<usize>()
        })
        .sum();
    println!("{name:8} {cells} cells");
}

struct Stream {
    names: Names,
    spec: Spec,
    experiments: Vec<Name>,
    variants: [Name; 2],
    environment: Name,
    series: Vec<Name>,
    segments: Vec<[Name; 4]>,
    units: u64,
    random: u64,
    now: Micros,
    /// Between two rows.
    step: Micros,
    number: u64,
}

impl Stream {
    fn new(units: u64, rows: u64) -> Stream {
        let mut names = Names::default();
        let experiments: Vec<Name> =
            (0..EXPERIMENTS).map(|number| names.add(&format!("experiment-{number}"))).collect();
        let variants = [names.add("control"), names.add("treatment")];
        let environment = names.add("production");
        let series: Vec<Name> =
            ["purchase", "click", "signup", "view", "refund"].map(|name| names.add(name)).to_vec();
        let mut segment = |texts: &[&str]| texts.iter().map(|text| names.add(text)).collect::<Vec<_>>();
        let of = [
            segment(&["US", "DE", "FR", "JP", "BR"]),
            segment(&["free", "pro", "team"]),
            segment(&["phone", "desktop", "tablet"]),
            segment(&["chrome", "safari", "firefox", "edge"]),
        ];
        let segments = (0..64usize)
            .map(|index| {
                [0, 1, 2, 3]
                    .map(|dimension: usize| of[dimension][(index * 7 + dimension * 3) % of[dimension].len()])
            })
            .collect();
        let hours = |hours: i64| Span { delay: 0, end: Some(hours * HOUR) };
        let [purchase, click, signup, view, refund] = [0, 1, 2, 3, 4].map(|index: usize| series[index]);
        let kinds = vec![
            (Kind::Conversion(kind::Conversion { series: purchase, span: hours(72) }), None),
            (Kind::Count(kind::Count { series: click, span: Span::default(), cap: Cap::None }), None),
            (Kind::Mean(kind::Mean { series: purchase, span: hours(168), cap: Cap::None }), Some(14 * DAY)),
            (
                Kind::Ratio(kind::Ratio {
                    numerator: Term { series: purchase, of: Of::Total },
                    denominator: Term { series: view, of: Of::Events },
                    span: hours(72),
                }),
                None,
            ),
            (Kind::Retention(kind::Retention { series: view, first: 1, last: 7, window: None }), None),
            (
                Kind::Quantile(kind::Quantile { series: refund, span: hours(72), per_unit: PerUnit::Total }),
                None,
            ),
            (
                Kind::Funnel(kind::Funnel {
                    steps: vec![view, click, purchase],
                    delay: 0,
                    window: Some(24 * HOUR),
                }),
                None,
            ),
            (Kind::Count(kind::Count { series: view, span: hours(24), cap: Cap::None }), None),
            (Kind::Conversion(kind::Conversion { series: signup, span: hours(24) }), None),
            (Kind::Count(kind::Count { series: signup, span: Span::default(), cap: Cap::None }), None),
        ];
        let metric = |(index, (kind, covariate)): (usize, &(Kind, Option<Micros>))| MetricSpec {
            identity: format!("metric {index}").into(),
            kind: kind.clone(),
            covariate: *covariate,
        };
        let experiment = |name: &Name| ExperimentSpec {
            name: *name,
            environments: vec![environment],
            switchback: None,
            metrics: kinds.iter().enumerate().map(metric).collect(),
        };
        let spec = Spec { experiments: experiments.iter().map(experiment).collect() };
        // Thirty days of history.
        let step = 30 * DAY / i64::try_from(rows).unwrap();
        Stream {
            names,
            spec,
            experiments,
            variants,
            environment,
            series,
            segments,
            units,
            random: 1,
            now: START,
            step,
            number: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((mix(self.random) as u128 * u128::from(end)) >> 64) as u64
    }

    fn next(&mut self, rows: u64) -> (NewRows, Micros) {
        let mut new = NewRows::default();
        for _ in 0..rows {
            self.now += self.step;
            self.number += 1;
            let late = if self.below(100) == 0 { (1 + self.below(72) as i64) * HOUR } else { 0 };
            let (at, id) = (self.now - late, u128::from(mix(self.number)) << 64 | u128::from(self.number));
            if self.below(100) < 40 {
                let unit = self.below(self.units);
                let key = mix(unit + 1);
                let experiment = ((key >> 8) as usize + self.below(4) as usize * 5) % EXPERIMENTS;
                new.exposure(
                    key,
                    Exposure::new(NewExposure {
                        experiment: self.experiments[experiment],
                        at,
                        id,
                        variant: self.variants[(mix(key ^ experiment as u64) % 2) as usize],
                        phase: 1,
                        environment: self.environment,
                        segments: self.segments[(key % 64) as usize],
                        ingested_ms: at / 1_000,
                        forced: false,
                        mismatched: false,
                    }),
                );
            } else {
                // About Zipf: the rank is the exponential of a uniform number.
                let uniform = self.below(1 << 53) as f64 / (1u64 << 53) as f64;
                let unit = ((self.units as f64).powf(uniform) as u64).min(self.units - 1);
                let unit = if self.below(2) == 0 { unit } else { self.below(self.units) };
                let which = self.below(5) as usize;
                let (series, millionths) = (self.series[which], self.below(100) as i64 * 1_000_000);
                new.conversion(
                    mix(unit + 1),
                    Conversion::new(
                        series,
                        at,
                        id,
                        millionths,
                        Scope { environment: self.environment, experiment: None },
                    ),
                );
            }
        }
        (new, self.now)
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
