//! An experiment as it goes on: the counts of a day and the looks of the days before in, the document out.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use aggregator::counts::Later;
use aggregator::cut::Cut;
use aggregator::definitions::{Defined, Definitions, Phase};
use aggregator::document::{Boundary, ExperimentResult, Role, Verdict};
use aggregator::experiment_analysis::{CountedExperiment, CountedMetric, Moment};
use aggregator::look::{EarlierLooks, Look};
use counting::read::{MetricCounts, UnitCounts};
use counting::sums::Sums;
use schemas::definition::{Definition, Direction, ExcludedPhase, Experiment, Kind, Metric, MetricKind};
use schemas::{Micros, Uuid};
use serde_json::{Value, json};

/// When the first unit is exposed, in microseconds since 1970.
const AT_MICROS: i64 = 1_700_000_000_000_000;

pub struct Story {
    pub experiment: Defined<Experiment>,
    pub metric: Metric,
    pub metric_version: u64,
    /// Of the units of the first variant, those that have seen another one.
    pub crossed: u64,
    /// Of the units of the first variant, those with a mismatched exposure; each unit has one exposure.
    pub mismatched: u64,
    /// Beside the units of the first variant: forced into it, and those of them that had counted before.
    pub forced: u64,
    pub forced_later: u64,
    /// Of each event.
    pub value: i128,
    pub previous: Option<ExperimentResult>,
    /// Since the first exposure.
    pub days: i64,
    /// As the settings say; 0 for ever.
    pub exposures_kept_days: u32,
    /// As the log of looks has them.
    pub looks: Vec<Look>,
    /// What was counted, of each metric, in the phases that are over.
    earlier: Vec<(String, Counts)>,
    latest: Vec<(String, Counts)>,
    /// Of each arm, the units whose window is open.
    pub open: u64,
}

/// Units and conversions.
pub type Arm = (u64, u64);

/// What was counted of a variant in a phase.
#[derive(Clone)]
struct Counts {
    units: UnitCounts,
    metric: MetricCounts,
}

impl Story {
    pub fn of(plan: Value) -> Story {
        Story::with_weights(plan, &[("a", 5_000), ("b", 5_000)])
    }

    pub fn with_weights(plan: Value, weights: &[(&str, u32)]) -> Story {
        let variants: Vec<Value> =
            weights.iter().map(|(key, weight)| json!({"key": key, "weight": weight})).collect();
        let experiment = json!({
            "key": "e", "state": "running", "assignment": "external", "control": "a", "variants": variants,
            "metrics": {"primary": "m"}, "plan": plan,
        });
        let Ok(Definition::Experiment(definition)) = Definition::from_json(Kind::Experiment, experiment)
        else {
            panic!("the experiment is a definition");
        };
        let metric = json!({"key": "m", "event": "buy", "type": "conversion"});
        let Ok(Definition::Metric(metric)) = Definition::from_json(Kind::Metric, metric) else {
            panic!("the metric is a definition");
        };
        let phase = Phase { number: 1, weights: owned(weights) };
        let experiment = Defined { version: 1, definition, changed_at_ms: 0, phases: vec![phase] };
        Story {
            experiment,
            metric,
            metric_version: 1,
            crossed: 0,
            mismatched: 0,
            forced: 0,
            forced_later: 0,
            value: 1,
            previous: None,
            days: 0,
            exposures_kept_days: 0,
            looks: Vec::new(),
            earlier: Vec::new(),
            latest: Vec::new(),
            open: 0,
        }
    }

    /// From here on units are split so; what was counted so far stays.
    pub fn open_phase(&mut self, weights: &[(&str, u32)]) {
        let number = self.experiment.phases.len() as u32 + 1;
        self.experiment.phases.push(Phase { number, weights: owned(weights) });
        self.experiment.definition.phase = Some(number);
        self.earlier.append(&mut self.latest);
    }

    /// The owner leaves a phase out.
    pub fn exclude(&mut self, phase: u32) {
        let reason = "the split was off".to_owned();
        self.experiment.definition.excluded_phases.push(ExcludedPhase { phase, reason });
    }

    /// Analyzes; the document goes through its JSON, as between two runs of the service.
    pub fn analyze(&mut self, arms: &[Arm]) -> &ExperimentResult {
        self.analyze_with(arms, &[])
    }

    /// The same with secondary metrics of the same kind.
    pub fn analyze_with(&mut self, arms: &[Arm], secondary: &[(&str, [Arm; 2])]) -> &ExperimentResult {
        let others: Vec<Other> = secondary
            .iter()
            .map(|(key, arms)| Other {
                key,
                role: Role::Secondary,
                direction: self.metric.direction,
                arms: *arms,
                kind: None,
                has_huge_value: false,
            })
            .collect();
        self.analyze_beside(arms, &others)
    }

    /// The same with other metrics of the same kind. Each conversion is one event.
    pub fn analyze_beside(&mut self, arms: &[Arm], others: &[Other]) -> &ExperimentResult {
        let (crossed, value, open) = (self.crossed, self.value, self.open);
        let (forced, forced_later, mismatched) = (self.forced, self.forced_later, self.mismatched);
        let phase = self.experiment.phases.last().unwrap().number;
        let of = move |kind: &MetricKind, index: usize, (units, conversions): Arm, variant: &str| {
            let only_first = |number: u64| if index == 0 { number } else { 0 };
            // Each conversion is one event, of a unit of its own.
            let y = match kind {
                MetricKind::Mean { .. } => value * 1_000_000,
                _ => 1,
            };
            let sums = |units: u64, conversions: u64| Sums {
                units,
                with_event: conversions,
                y: i128::from(conversions) * y,
                yy: (i128::from(conversions) * y * y).into(),
                ..Sums::default()
            };
            Counts {
                units: UnitCounts {
                    variant: variant.to_owned(),
                    phase,
                    units: units + open,
                    units_forced: only_first(forced),
                    units_forced_later: only_first(forced_later),
                    units_in_several_variants: only_first(crossed),
                    exposures_of_units: units + open + only_first(forced),
                    exposures_mismatched: only_first(mismatched),
                    units_mismatched: only_first(mismatched),
                },
                metric: MetricCounts {
                    variant: variant.to_owned(),
                    phase,
                    matured: sums(units, conversions),
                    open: sums(open, 0),
                },
            }
        };
        let metrics: Vec<Metric> = others
            .iter()
            .map(|other| Metric {
                key: schemas::Key::new(other.key).unwrap(),
                direction: other.direction,
                kind: other.kind.clone().unwrap_or_else(|| self.metric.kind.clone()),
                ..self.metric.clone()
            })
            .collect();
        let named = |metric: &Metric, arms: &[Arm]| -> Vec<(String, Counts)> {
            let arms = arms.iter().zip(["a", "b", "c"]).enumerate();
            let counted = arms.map(|(index, (arm, variant))| of(&metric.kind, index, *arm, variant));
            counted.map(|counts| (metric.key.to_string(), counts)).collect()
        };
        self.latest = named(&self.metric, arms);
        self.latest
            .extend(others.iter().zip(&metrics).flat_map(|(other, metric)| named(metric, &other.arms)));
        for other in others.iter().filter(|other| other.has_huge_value) {
            let own = self.latest.iter_mut().filter(|(key, _)| key == other.key);
            own.for_each(|(_, counts)| counts.metric.matured.yy = "9".repeat(40).parse().unwrap());
        }
        let of_all_phases = |key: &str| {
            let all = self.earlier.iter().chain(&self.latest);
            all.filter(|(of, _)| of == key).map(|(_, counts)| counts.clone()).collect::<Vec<Counts>>()
        };
        let of_metric = |key| of_all_phases(key).into_iter().map(|of| of.metric).collect();
        let mut counted = vec![CountedMetric {
            key: "m",
            role: Role::Primary,
            definition: Some((self.metric_version, &self.metric)),
            counts: of_metric("m"),
            cap: None,
            sql: String::new(),
        }];
        counted.extend(others.iter().zip(&metrics).map(|(other, metric)| CountedMetric {
            key: other.key,
            role: other.role,
            definition: Some((self.metric_version, metric)),
            counts: of_metric(other.key),
            cap: None,
            sql: String::new(),
        }));
        let units = of_all_phases("m").into_iter().map(|of| of.units).collect();
        let (document, look) = self.analyzed(units, counted);
        self.keep(document, look)
    }

    /// Analyzes metrics as they were counted, in one phase.
    pub fn analyze_counted(&mut self, metrics: &[Counted]) -> &ExperimentResult {
        let counts = |of: &Counted| -> Vec<MetricCounts> {
            let arms = of.arms.iter().zip(["a", "b", "c"]);
            let arm = |((matured, open), variant): (&(Sums, Sums), &str)| MetricCounts {
                variant: variant.to_owned(),
                phase: 1,
                matured: matured.clone(),
                open: open.clone(),
            };
            arms.map(arm).collect()
        };
        let units = |of: &MetricCounts| UnitCounts {
            variant: of.variant.clone(),
            phase: 1,
            units: of.matured.units + of.open.units,
            exposures_of_units: of.matured.units + of.open.units,
            ..UnitCounts::default()
        };
        let units = counts(&metrics[0]).iter().map(units).collect();
        let counted = metrics.iter().map(|of| CountedMetric {
            key: of.metric.key.as_str(),
            role: of.role,
            definition: Some((self.metric_version, &of.metric)),
            counts: counts(of),
            cap: of.cap,
            sql: String::new(),
        });
        let (document, look) = self.analyzed(units, counted.collect());
        self.keep(document, look)
    }

    fn analyzed(
        &self,
        units: Vec<UnitCounts>,
        metrics: Vec<CountedMetric<'_>>,
    ) -> (ExperimentResult, Option<Look>) {
        let at = Micros::new(AT_MICROS + self.days * 86_400_000_000).unwrap();
        let definitions =
            Definitions { exposures_kept_days: self.exposures_kept_days, ..Definitions::default() };
        let cut = Cut::default();
        let counted = CountedExperiment {
            defined: &self.experiment,
            moment: Moment { definitions: &definitions, cut: &cut, as_of: at },
            units,
            ingested_since_ms: Some(AT_MICROS / 1_000),
            units_of_unknown_phases: 0,
            metrics,
            analysis_id: Uuid::now_v7(),
            at,
            later: Later::default(),
        };
        let numbers = counted.analyze(EarlierLooks(&self.looks));
        let look = numbers.look.clone();
        let conclusion = counted.decide(&numbers);
        let text = serde_json::to_string(&counted.document(numbers, conclusion)).unwrap();
        (ExperimentResult::read("e", &text).unwrap(), look)
    }

    fn keep(&mut self, document: ExperimentResult, look: Option<Look>) -> &ExperimentResult {
        if let Some(look) = &look {
            self.enter(look);
        }
        self.previous.insert(document)
    }

    /// Puts a look into the log; it goes through its JSON.
    pub fn enter(&mut self, look: &Look) {
        self.looks.push(serde_json::from_str(&serde_json::to_string(look).unwrap()).unwrap());
    }

    /// The log begins with what was spent before it.
    pub fn carry_over(&mut self, spent: f64) {
        let at = Micros::new(AT_MICROS).unwrap();
        self.enter(&Look::carried_over(Uuid::now_v7(), 1, at, Cut::default(), spent));
    }

    /// The first treatment's looks after these analyses.
    pub fn boundary(&mut self, days: &[[Arm; 2]]) -> Boundary {
        for day in days {
            self.analyze(day);
        }
        self.last().metrics[0].boundaries[0].clone()
    }

    pub fn last(&self) -> &ExperimentResult {
        self.previous.as_ref().unwrap()
    }

    #[track_caller]
    pub fn check(&self, verdict: Verdict, reason: &str) {
        let decision = &self.last().decision;
        assert_eq!((decision.verdict, decision.reason.as_str()), (verdict, reason));
    }
}

fn owned(weights: &[(&str, u32)]) -> BTreeMap<String, u32> {
    weights
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(key, weight)| ((*key).to_owned(), *weight))
        .collect()
}

/// A metric with what was counted of it.
pub struct Counted {
    pub metric: Metric,
    pub role: Role,
    /// The cap at which its values were cut.
    pub cap: Option<i128>,
    /// Of each variant the matured units, and those with an open window.
    pub arms: Vec<(Sums, Sums)>,
}

/// Reads a metric; these fields are beside its key.
pub fn metric(key: &str, fields: &Value) -> Metric {
    let mut all = json!({"key": key, "event": "buy"});
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    match Definition::from_json(Kind::Metric, all) {
        Ok(Definition::Metric(metric)) => metric,
        other => panic!("{other:?}"),
    }
}

/// A metric beside the primary one.
pub struct Other<'a> {
    pub key: &'a str,
    pub role: Role,
    pub direction: Direction,
    pub arms: [Arm; 2],
    /// None: that of the primary metric.
    pub kind: Option<MetricKind>,
    /// The squares of its values add up to more than 128 bits.
    pub has_huge_value: bool,
}

impl Other<'_> {
    pub fn guardrail(key: &str, direction: Direction, arms: [Arm; 2]) -> Other<'_> {
        Other { key, role: Role::Guardrail, direction, arms, kind: None, has_huge_value: false }
    }

    pub fn of_kind(self, kind: MetricKind) -> Self {
        Other { kind: Some(kind), ..self }
    }

    pub fn with_huge_value(self) -> Self {
        Other { has_huge_value: true, ..self }
    }
}
