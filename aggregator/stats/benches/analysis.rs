//! Measures how long a full analysis takes on one core: 1,000 experiments with 10 metrics and 3 arms, where
//! every treatment has its own information fractions. That is 2,000 boundaries of 28 looks, none shared, and
//! 20,000 comparisons, from scratch. For comparison it runs the gsdesign kernel under scipy on the same
//! boundaries, where it is installed.
//!
//! Run it with `cargo bench -p stats`; `SPLITSTREAM_BENCH_PYTHON` names a python that has gsdesign and scipy.

use std::{
    hint::black_box,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use stats::{
    Alpha, Alternative, Arm, Counts, Moments, Pair,
    confidence_sequence::{self, Mixing},
    fixed_horizon,
    group_sequential::{Boundary, Design, Spending},
    multiple_testing::{Correction, adjust},
    random::Random,
    srm,
};

const EXPERIMENTS: usize = 1_000;
const TREATMENTS: usize = 2;
const METRICS: usize = 10;
const LOOKS: usize = 28;
const SEED: u64 = 28;
/// The number of boundaries for gsdesign, which takes minutes for all.
const GSDESIGN_BOUNDARIES: usize = 20;

struct Experiment {
    /// One list of fractions for each treatment.
    fractions: [Vec<f64>; TREATMENTS],
    units: [u64; TREATMENTS + 1],
    rates: Vec<[Arm; TREATMENTS + 1]>,
    means: Vec<[Moments; TREATMENTS + 1]>,
}

fn main() {
    // `cargo test --benches` only checks that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let experiments: Vec<Experiment> = (0..EXPERIMENTS).map(|_| experiment(&mut random)).collect();
    let whole = fastest(|| {
        for experiment in &experiments {
            black_box(analyze(experiment));
        }
    });
    let bounds = fastest(|| {
        for experiment in &experiments {
            black_box(experiment.fractions.each_ref().map(|fractions| boundary(fractions)));
        }
    });
    let boundaries = EXPERIMENTS * TREATMENTS;
    let comparisons = boundaries * METRICS;
    println!("{:<44} {:>12} {:>12} {:>16}", "", "on the core", "by the clock", "a boundary");
    let row = |name: String, elapsed: Elapsed, of_one: String| {
        let (core, clock) = (elapsed.core.as_secs_f64(), elapsed.clock.as_secs_f64());
        println!("{name:<44} {core:>10.3} s {clock:>10.3} s {of_one:>16}");
    };
    row(format!("{boundaries} boundaries, {comparisons} comparisons"), whole, String::new());
    let of_one = format!("{:.3} ms", bounds.core.as_secs_f64() * 1e3 / boundaries as f64);
    row(format!("of these the boundaries of {LOOKS} looks"), bounds, of_one);
    let few: Vec<&Vec<f64>> =
        experiments.iter().flat_map(|experiment| &experiment.fractions).take(GSDESIGN_BOUNDARIES).collect();
    match run_gsdesign(&few) {
        Ok(answer) => print!("{answer}"),
        Err(why) => println!(
            "gsdesign is not installed ({why}); to compare: python3 -m venv VENV && VENV/bin/pip install \
             gsdesign==0.1.5 scipy==1.17.1, then SPLITSTREAM_BENCH_PYTHON=VENV/bin/python"
        ),
    }
}

/// The time of a run on the processor and by the clock, which includes waiting for other processes.
#[derive(Clone, Copy)]
struct Elapsed {
    core: Duration,
    clock: Duration,
}

/// Returns the time of the fastest of five runs.
fn fastest(run: impl Fn()) -> Elapsed {
    let mut best = Elapsed { core: Duration::MAX, clock: Duration::MAX };
    for _ in 0..5 {
        let (core, clock) = (time_on_core(), Instant::now());
        run();
        let clock = clock.elapsed();
        let core = match (core, time_on_core()) {
            (Some(before), Some(after)) => after - before,
            _ => clock,
        };
        best = Elapsed { core: best.core.min(core), clock: best.clock.min(clock) };
    }
    best
}

/// Returns the processor time of this process, where Linux reports it.
fn time_on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn experiment(random: &mut Random) -> Experiment {
    let units = [20_000, 20_000, 20_000].map(|units: u64| units + random.below(2_000));
    let rates = (0..METRICS / 2)
        .map(|_| {
            units.map(|units| {
                let conversions = (units as f64 * (0.05 + 0.01 * random.uniform())) as u64;
                Arm::new(Counts { units, conversions }).expect("a rate below 1")
            })
        })
        .collect();
    let means = (0..METRICS / 2)
        .map(|_| {
            units.map(|units| {
                let mean = 10.0 + 0.1 * random.normal();
                Moments::from_variance(units, mean, 25.0 + random.uniform()).expect("finite")
            })
        })
        .collect();
    Experiment { fractions: [fractions(random), fractions(random)], units, rates, means }
}

/// The fractions of 28 daily looks, where the days differ in traffic.
fn fractions(random: &mut Random) -> Vec<f64> {
    let days: Vec<f64> = (0..LOOKS).map(|_| 0.3 + random.uniform()).collect();
    let total: f64 = days.iter().sum();
    let mut sum = 0.0;
    let mut fractions: Vec<f64> = days
        .iter()
        .map(|day| {
            sum += day;
            sum / total
        })
        .collect();
    fractions[LOOKS - 1] = 1.0;
    fractions
}

fn boundary(fractions: &[f64]) -> Boundary {
    let design = Design {
        alpha: Alpha::FIVE_PERCENT.divided_by(TREATMENTS as u32),
        alternative: Alternative::TwoSided,
        spending: Spending::OBrienFleming,
    };
    Boundary::planned(design, fractions).expect("fractions rise to 1")
}

/// Computes everything that the platform reports for one experiment. It returns how many comparisons
/// rejected, so that nothing is optimized away.
fn analyze(experiment: &Experiment) -> usize {
    let alpha = Alpha::FIVE_PERCENT.divided_by(TREATMENTS as u32);
    let tuned = Mixing::TunedForUnits(40_000.0);
    let sequence = confidence_sequence::Design::new(alpha, Alternative::TwoSided, tuned).expect("positive");
    let shares = experiment.units.map(|units| srm::Share { weight: 1.0, units });
    let mut rejected = usize::from(black_box(srm::check(&shares)).is_err());
    for (index, fractions) in experiment.fractions.iter().enumerate() {
        let boundary = boundary(fractions);
        let bound = boundary.bounds()[LOOKS - 1];
        let mut p_values = Vec::new();
        for arms in &experiment.rates {
            let arms = Pair { control: arms[0], treatment: arms[index + 1] };
            let test = fixed_horizon::compare_rates(arms, alpha).expect("units");
            black_box(sequence.look_at_rates(arms)).expect("conversions");
            black_box(bound.repeated_interval(test.pooled.effect));
            rejected += usize::from(bound.rejects(test.pooled.z));
            p_values.push(test.p_value);
        }
        for arms in &experiment.means {
            let moments = Pair { control: arms[0], treatment: arms[index + 1] };
            let test = fixed_horizon::compare_means(moments, alpha).expect("variation");
            black_box(sequence.look_at_means(moments)).expect("variation");
            black_box(bound.repeated_interval(test.test.effect));
            rejected += usize::from(bound.rejects(test.test.as_z()));
            p_values.push(test.test.p_value);
        }
        black_box(adjust(&p_values, Correction::BenjaminiHochberg)).expect("p-values");
    }
    rejected
}

/// Computes the same boundaries with gsdesign and returns the row that its script prints, with the largest
/// difference to ours.
fn run_gsdesign(few: &[&Vec<f64>]) -> Result<String, String> {
    let python = std::env::var("SPLITSTREAM_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gsdesign_bounds.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{python}: {error}"))?;
    let mut input = child.stdin.take().expect("piped");
    for fractions in few {
        let bounds = boundary(fractions).looks().criticals();
        let line = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        writeln!(input, "{};{}", line(fractions), line(&bounds)).map_err(|error| error.to_string())?;
    }
    drop(input);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{python} failed"));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}
