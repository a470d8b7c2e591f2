//! Metrics: what is measured per unit. Each kind has its own options; in JSON they are on the same level as the
//! common fields: `type: ratio` needs `denominator_event` and allows no option of another kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::Problem;
use super::{Direction, Unfit, reading};
use crate::key::Key;

/// What is measured per unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "Written")]
pub struct Metric {
    pub key: Key,
    pub owner: String,
    pub description: String,
    /// The name of the conversion event.
    pub event: Key,
    /// The hours after the first exposure in which an event counts, 1 to 8,760. `None`: no limit.
    pub window_hours: Option<u32>,
    pub direction: Direction,
    pub kind: MetricKind,
}

/// How a unit's value is computed from its events, with the options of the kind.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricKind {
    /// Whether the unit has the event.
    Conversion,
    /// How many events the unit has.
    Count {
        /// The upper quantile, in (0.5, 1), at which a unit's value is capped.
        winsorize: Option<f64>,
    },
    /// The sum of the events' values; zero for a unit without events.
    Mean {
        /// The upper quantile, in (0.5, 1), at which a unit's value is capped.
        winsorize: Option<f64>,
    },
    Ratio {
        /// The event that the denominator counts.
        denominator_event: Key,
    },
    Retention {
        /// The first and the last day after the exposure on which the unit must come back.
        days: (u32, u32),
    },
    Quantile {
        /// In (0, 1).
        quantile: f64,
    },
    Funnel {
        /// The events after `event` that must follow in this order; at least one.
        then_events: Vec<Key>,
    },
}

/// The value of a unit that is compared, for a metric that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitValue {
    /// Whether the unit has the event.
    HasEvent,
    /// How many events the unit has.
    Events,
    /// The sum of the events' values.
    Total,
}

/// A [`MetricKind`] without its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricType {
    Conversion,
    Count,
    Mean,
    Ratio,
    Retention,
    Quantile,
    Funnel,
}

impl Metric {
    pub fn metric_type(&self) -> MetricType {
        match self.kind {
            MetricKind::Conversion => MetricType::Conversion,
            MetricKind::Count { .. } => MetricType::Count,
            MetricKind::Mean { .. } => MetricType::Mean,
            MetricKind::Ratio { .. } => MetricType::Ratio,
            MetricKind::Retention { .. } => MetricType::Retention,
            MetricKind::Quantile { .. } => MetricType::Quantile,
            MetricKind::Funnel { .. } => MetricType::Funnel,
        }
    }

    pub fn event(&self) -> &Key {
        &self.event
    }

    pub fn window_hours(&self) -> Option<u32> {
        self.window_hours
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The upper quantile of a count or a mean.
    pub fn winsorize(&self) -> Option<f64> {
        match self.kind {
            MetricKind::Count { winsorize } | MetricKind::Mean { winsorize } => winsorize,
            _ => None,
        }
    }

    /// The denominator of a ratio.
    pub fn denominator_event(&self) -> Option<&Key> {
        match &self.kind {
            MetricKind::Ratio { denominator_event } => Some(denominator_event),
            _ => None,
        }
    }

    /// The first and the last day of a retention, counted from the exposure.
    pub fn retention_days(&self) -> Option<(u32, u32)> {
        match self.kind {
            MetricKind::Retention { days } => Some(days),
            _ => None,
        }
    }

    /// The quantile of a quantile metric.
    pub fn quantile(&self) -> Option<f64> {
        match self.kind {
            MetricKind::Quantile { quantile } => Some(quantile),
            _ => None,
        }
    }

    /// The further events of a funnel; empty for the other kinds.
    pub fn then_events(&self) -> &[Key] {
        match &self.kind {
            MetricKind::Funnel { then_events } => then_events,
            _ => &[],
        }
    }

    /// Returns the first field that makes this metric measure something else than `other`: any field but the
    /// key, the owner and the description.
    pub fn measures_otherwise(&self, other: &Metric) -> Option<&'static str> {
        let differs = [
            ("type", self.metric_type() != other.metric_type()),
            ("event", self.event != other.event),
            ("window_hours", self.window_hours != other.window_hours),
            ("direction", self.direction != other.direction),
            ("winsorize", self.winsorize() != other.winsorize()),
            ("denominator_event", self.denominator_event() != other.denominator_event()),
            ("retention_days", self.retention_days() != other.retention_days()),
            ("quantile", self.quantile() != other.quantile()),
            ("then_events", self.then_events() != other.then_events()),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(field, _)| field)
    }

    /// Returns the value of a unit that is compared.
    ///
    /// # Errors
    /// What metrics of this kind are called, in the plural, if this version stores them but does not compute
    /// them.
    pub fn unit_value(&self) -> Result<UnitValue, &'static str> {
        match self.kind {
            MetricKind::Conversion => Ok(UnitValue::HasEvent),
            MetricKind::Count { winsorize: None } => Ok(UnitValue::Events),
            MetricKind::Mean { winsorize: None } => Ok(UnitValue::Total),
            MetricKind::Count { winsorize: Some(_) } | MetricKind::Mean { winsorize: Some(_) } => {
                Err("winsorized metrics")
            }
            MetricKind::Ratio { .. } => Err("ratio metrics"),
            MetricKind::Retention { .. } => Err("retention metrics"),
            MetricKind::Quantile { .. } => Err("quantile metrics"),
            MetricKind::Funnel { .. } => Err("funnel metrics"),
        }
    }

    /// Everything that is out of range.
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = check_window(self.window_hours);
        problems.extend(check_options(self.winsorize(), self.quantile(), self.retention_days()));
        problems
    }

    /// Reads a metric from JSON. One that is out of range is still a metric, which [`Metric::check`] refuses; one
    /// whose options do not belong to its type is none.
    pub(super) fn read(value: Value) -> Result<Metric, Unfit> {
        let written: Written = reading::read(value).map_err(Unfit::Unreadable)?;
        written.metric().map_err(Unfit::Misfit)
    }
}

/// The form in JSON and YAML.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: Key,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    description: String,
    event: Key,
    #[serde(rename = "type")]
    metric_type: MetricType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window_hours: Option<u32>,
    #[serde(default)]
    direction: Direction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    winsorize: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denominator_event: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_days: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantile: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    then_events: Vec<Key>,
}

impl From<Metric> for Written {
    fn from(metric: Metric) -> Written {
        let metric_type = metric.metric_type();
        let mut written = Written {
            key: metric.key,
            owner: metric.owner,
            description: metric.description,
            event: metric.event,
            metric_type,
            window_hours: metric.window_hours,
            direction: metric.direction,
            winsorize: None,
            denominator_event: None,
            retention_days: None,
            quantile: None,
            then_events: Vec::new(),
        };
        match metric.kind {
            MetricKind::Conversion => {}
            MetricKind::Count { winsorize } | MetricKind::Mean { winsorize } => written.winsorize = winsorize,
            MetricKind::Ratio { denominator_event } => written.denominator_event = Some(denominator_event),
            MetricKind::Retention { days } => written.retention_days = Some(days),
            MetricKind::Quantile { quantile } => written.quantile = Some(quantile),
            MetricKind::Funnel { then_events } => written.then_events = then_events,
        }
        written
    }
}

impl Written {
    /// # Errors
    /// Everything that is wrong, if an option is missing or one is given that belongs to another type.
    fn metric(self) -> Result<Metric, Vec<Problem>> {
        let kind = match self.metric_type {
            MetricType::Conversion => Some(MetricKind::Conversion),
            MetricType::Count => Some(MetricKind::Count { winsorize: self.winsorize }),
            MetricType::Mean => Some(MetricKind::Mean { winsorize: self.winsorize }),
            MetricType::Ratio => self
                .denominator_event
                .clone()
                .map(|denominator_event| MetricKind::Ratio { denominator_event }),
            MetricType::Retention => self.retention_days.map(|days| MetricKind::Retention { days }),
            MetricType::Quantile => self.quantile.map(|quantile| MetricKind::Quantile { quantile }),
            MetricType::Funnel => Some(MetricKind::Funnel { then_events: self.then_events.clone() }),
        };
        let misplaced: Vec<Problem> = self.misplaced().collect();
        match kind {
            Some(kind) if misplaced.is_empty() => Ok(Metric {
                key: self.key,
                owner: self.owner,
                description: self.description,
                event: self.event,
                window_hours: self.window_hours,
                direction: self.direction,
                kind,
            }),
            _ => {
                let mut problems = check_window(self.window_hours);
                problems.extend(misplaced);
                problems.extend(check_options(self.winsorize, self.quantile, self.retention_days));
                Err(problems)
            }
        }
    }

    /// Returns a problem for each option that does not belong to the type, or that the type needs and that is
    /// missing.
    fn misplaced(&self) -> impl Iterator<Item = Problem> {
        use MetricType::{Count, Funnel, Mean, Quantile, Ratio, Retention};
        let metric_type = self.metric_type;
        let options: [(&str, bool, &[MetricType], bool); 5] = [
            ("denominator_event", self.denominator_event.is_some(), &[Ratio], true),
            ("retention_days", self.retention_days.is_some(), &[Retention], true),
            ("quantile", self.quantile.is_some(), &[Quantile], true),
            ("then_events", !self.then_events.is_empty(), &[Funnel], true),
            ("winsorize", self.winsorize.is_some(), &[Mean, Count], false),
        ];
        options.into_iter().filter_map(move |(field, given, belongs_to, needed)| {
            match (given, belongs_to.contains(&metric_type)) {
                (true, false) => Some(Problem::new(field, "does not belong to this type of metric")),
                (false, true) if needed => Some(Problem::new(field, "this type of metric needs it")),
                _ => None,
            }
        })
    }
}

fn check_window(hours: Option<u32>) -> Vec<Problem> {
    match hours {
        Some(hours) if !(1..=8_760).contains(&hours) => {
            vec![Problem::new("window_hours", format!("{hours} is not in 1 to 8760"))]
        }
        _ => Vec::new(),
    }
}

fn check_options(winsorize: Option<f64>, quantile: Option<f64>, days: Option<(u32, u32)>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(quantile) = winsorize
        && !(quantile > 0.5 && quantile < 1.0)
    {
        problems.push(Problem::new("winsorize", format!("{quantile} is not in (0.5, 1)")));
    }
    if let Some(quantile) = quantile
        && !(quantile > 0.0 && quantile < 1.0)
    {
        problems.push(Problem::new("quantile", format!("{quantile} is not in (0, 1)")));
    }
    if let Some((first, last)) = days
        && !(1 <= first && first <= last && last <= 365)
    {
        problems.push(Problem::new(
            "retention_days",
            format!("[{first}, {last}] is not first <= last in 1 to 365"),
        ));
    }
    problems
}
