//! Metrics: what is measured per unit. Each kind has its own options; in JSON they are on the same level as the
//! common fields: `type: ratio` needs `denominator_event` and allows no option of another kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::Problem;
use super::event_filter::EventFilter;
use super::reading::WrittenDecimal;
use super::{Direction, Unfit, reading};
use crate::event::Decimal6;
use crate::key::Key;

/// The longest delay and the longest window of a metric, in hours: a year.
const HOURS_MAX: u32 = 8_760;

/// What is measured per unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "Written")]
pub struct Metric {
    pub key: Key,
    pub owner: String,
    pub description: String,
    /// The name of the conversion event.
    pub event: Key,
    /// The hours after the first exposure in which no event counts yet, 1 to 8,760. `None`: events count from the
    /// exposure on. Never with a retention, whose days say it.
    pub delay_hours: Option<u32>,
    /// The hours in which an event counts, 1 to 8,760, from the first exposure or, if there is a delay, from its
    /// end. `None`: no limit.
    pub window_hours: Option<u32>,
    /// Which events count. It holds for every event of a funnel, and for the numerator of a ratio.
    pub filter: EventFilter,
    pub direction: Direction,
    pub kind: MetricKind,
}

/// How a unit's value is computed from its events, with the options of the kind.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricKind {
    /// Whether the unit has the event.
    Conversion,
    /// How many events the unit has.
    Count { limit: Option<Limit> },
    /// The sum of the events' values; zero for a unit without events.
    Mean { limit: Option<Limit> },
    Ratio {
        /// Of the metric's `event`.
        numerator: RatioTerm,
        /// Of `denominator_event`.
        denominator: RatioTerm,
        denominator_event: Key,
        /// Which events of the denominator count.
        denominator_filter: EventFilter,
    },
    Retention {
        /// The first and the last day after the exposure on which the unit must come back.
        days: (u32, u32),
    },
    Quantile {
        /// In (0, 1).
        quantile: f64,
        /// The value of a unit. A unit without such an event has none, and does not take part.
        per_unit: PerUnit,
    },
    Funnel {
        /// The events after `event` that must follow in this order; at least one.
        then_events: Vec<Key>,
    },
}

/// Where the value of a unit is cut: a greater value counts as this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// `winsorize`: at this upper quantile of the units' values, in (0.5, 1).
    Quantile(f64),
    /// `cap`: at this value, above 0.
    Value(Decimal6),
}

/// What a numerator or a denominator adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RatioTerm {
    /// How many events there are.
    #[default]
    Events,
    /// The sum of the events' values.
    Total,
}

/// The value of a unit whose quantile over the units is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerUnit {
    /// The sum of the events' values.
    #[default]
    Total,
    /// The mean of the events' values.
    Mean,
    /// The largest value of an event.
    Largest,
    /// The value of the first event.
    First,
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
            MetricKind::Count { limit: Some(Limit::Quantile(quantile)) }
            | MetricKind::Mean { limit: Some(Limit::Quantile(quantile)) } => Some(quantile),
            _ => None,
        }
    }

    /// The value at which a unit's value of a count or a mean is cut.
    pub fn cap(&self) -> Option<Decimal6> {
        match self.kind {
            MetricKind::Count { limit: Some(Limit::Value(cap)) }
            | MetricKind::Mean { limit: Some(Limit::Value(cap)) } => Some(cap),
            _ => None,
        }
    }

    /// What the numerator of a ratio adds up.
    pub fn numerator(&self) -> Option<RatioTerm> {
        match self.kind {
            MetricKind::Ratio { numerator, .. } => Some(numerator),
            _ => None,
        }
    }

    /// What the denominator of a ratio adds up.
    pub fn denominator(&self) -> Option<RatioTerm> {
        match self.kind {
            MetricKind::Ratio { denominator, .. } => Some(denominator),
            _ => None,
        }
    }

    /// The event of a ratio's denominator.
    pub fn denominator_event(&self) -> Option<&Key> {
        match &self.kind {
            MetricKind::Ratio { denominator_event, .. } => Some(denominator_event),
            _ => None,
        }
    }

    /// Which events of a ratio's denominator count.
    pub fn denominator_filter(&self) -> Option<&EventFilter> {
        match &self.kind {
            MetricKind::Ratio { denominator_filter, .. } => Some(denominator_filter),
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
            MetricKind::Quantile { quantile, .. } => Some(quantile),
            _ => None,
        }
    }

    /// The value of a unit for a quantile metric.
    pub fn per_unit(&self) -> Option<PerUnit> {
        match self.kind {
            MetricKind::Quantile { per_unit, .. } => Some(per_unit),
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
            ("delay_hours", self.delay_hours != other.delay_hours),
            ("window_hours", self.window_hours != other.window_hours),
            ("where", self.filter != other.filter),
            ("direction", self.direction != other.direction),
            ("winsorize", self.winsorize() != other.winsorize()),
            ("cap", self.cap() != other.cap()),
            ("numerator", self.numerator() != other.numerator()),
            ("denominator_event", self.denominator_event() != other.denominator_event()),
            ("denominator", self.denominator() != other.denominator()),
            ("denominator_where", self.denominator_filter() != other.denominator_filter()),
            ("retention_days", self.retention_days() != other.retention_days()),
            ("quantile", self.quantile() != other.quantile()),
            ("per_unit", self.per_unit() != other.per_unit()),
            ("then_events", self.then_events() != other.then_events()),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(field, _)| field)
    }

    /// Returns the hours after its first exposure from which a unit's value is final, but for events that come late.
    /// `None`: there is no window.
    pub fn final_after_hours(&self) -> Option<u64> {
        let delay = self.delay_hours.map_or(0, u64::from);
        let window = self.window_hours.map(u64::from);
        match &self.kind {
            MetricKind::Retention { days: (_, last) } => {
                let end = (u64::from(*last) + 1) * 24;
                Some(window.map_or(end, |window| window.min(end)))
            }
            // Each step has a window of its own.
            MetricKind::Funnel { then_events } => {
                window.map(|window| delay + window * (then_events.len() as u64 + 1))
            }
            _ => window.map(|window| delay + window),
        }
    }

    /// Everything that is out of range.
    pub(super) fn check(&self) -> Vec<Problem> {
        Written::from(self.clone()).problems()
    }

    /// Returns whether the days of a retention are beside a window, which contradicts them. Rules before the fifth
    /// accepted it.
    pub(super) fn has_window_beside_days(&self) -> bool {
        self.retention_days().is_some() && self.window_hours.is_some()
    }

    /// Checks what earlier rules let a metric have.
    pub(super) fn check_since_rule_5(&self, problems: &mut Vec<Problem>) {
        if self.has_window_beside_days() {
            problems.push(Problem::new("window_hours", DAYS_SAY_IT));
        }
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
    delay_hours: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window_hours: Option<u32>,
    #[serde(rename = "where", default, skip_serializing_if = "EventFilter::is_empty")]
    filter: EventFilter,
    #[serde(default)]
    direction: Direction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    winsorize: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cap: Option<WrittenDecimal>,
    /// Left out if it is the default, as the other options that earlier rules do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numerator: Option<RatioTerm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denominator_event: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denominator: Option<RatioTerm>,
    #[serde(rename = "denominator_where", default, skip_serializing_if = "EventFilter::is_empty")]
    denominator_filter: EventFilter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_days: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantile: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_unit: Option<PerUnit>,
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
            delay_hours: metric.delay_hours,
            window_hours: metric.window_hours,
            filter: metric.filter,
            direction: metric.direction,
            winsorize: None,
            cap: None,
            numerator: None,
            denominator_event: None,
            denominator: None,
            denominator_filter: EventFilter::default(),
            retention_days: None,
            quantile: None,
            per_unit: None,
            then_events: Vec::new(),
        };
        match metric.kind {
            MetricKind::Conversion => {}
            MetricKind::Count { limit } | MetricKind::Mean { limit } => match limit {
                Some(Limit::Quantile(quantile)) => written.winsorize = Some(quantile),
                Some(Limit::Value(cap)) => written.cap = Some(WrittenDecimal(cap)),
                None => {}
            },
            MetricKind::Ratio { numerator, denominator, denominator_event, denominator_filter } => {
                written.numerator = unless_default(numerator);
                written.denominator = unless_default(denominator);
                written.denominator_event = Some(denominator_event);
                written.denominator_filter = denominator_filter;
            }
            MetricKind::Retention { days } => written.retention_days = Some(days),
            MetricKind::Quantile { quantile, per_unit } => {
                written.quantile = Some(quantile);
                written.per_unit = unless_default(per_unit);
            }
            MetricKind::Funnel { then_events } => written.then_events = then_events,
        }
        written
    }
}

fn unless_default<T: Default + PartialEq>(option: T) -> Option<T> {
    (option != T::default()).then_some(option)
}

impl Written {
    /// # Errors
    /// Everything that is wrong, if an option is missing, or one is given that belongs to another type or cannot
    /// stand beside another.
    fn metric(self) -> Result<Metric, Vec<Problem>> {
        if !self.misfits().is_empty() {
            return Err(self.problems());
        }
        let limit = match (self.winsorize, self.cap) {
            (Some(quantile), _) => Some(Limit::Quantile(quantile)),
            (None, Some(WrittenDecimal(cap))) => Some(Limit::Value(cap)),
            (None, None) => None,
        };
        let needed = "an option that the type needs is given, or it is a misfit";
        let kind = match self.metric_type {
            MetricType::Conversion => MetricKind::Conversion,
            MetricType::Count => MetricKind::Count { limit },
            MetricType::Mean => MetricKind::Mean { limit },
            MetricType::Ratio => MetricKind::Ratio {
                numerator: self.numerator.unwrap_or_default(),
                denominator: self.denominator.unwrap_or_default(),
                denominator_event: self.denominator_event.expect(needed),
                denominator_filter: self.denominator_filter,
            },
            MetricType::Retention => MetricKind::Retention { days: self.retention_days.expect(needed) },
            MetricType::Quantile => MetricKind::Quantile {
                quantile: self.quantile.expect(needed),
                per_unit: self.per_unit.unwrap_or_default(),
            },
            MetricType::Funnel => MetricKind::Funnel { then_events: self.then_events },
        };
        Ok(Metric {
            key: self.key,
            owner: self.owner,
            description: self.description,
            event: self.event,
            delay_hours: self.delay_hours,
            window_hours: self.window_hours,
            filter: self.filter,
            direction: self.direction,
            kind,
        })
    }

    /// Returns a problem for each option that does not belong to the type, that the type needs and that is
    /// missing, or that cannot stand beside another.
    fn misfits(&self) -> Vec<Problem> {
        use MetricType::{Count, Funnel, Mean, Quantile, Ratio, Retention};
        let options: [(&str, bool, &[MetricType], bool); 10] = [
            ("denominator_event", self.denominator_event.is_some(), &[Ratio], true),
            ("retention_days", self.retention_days.is_some(), &[Retention], true),
            ("quantile", self.quantile.is_some(), &[Quantile], true),
            ("then_events", !self.then_events.is_empty(), &[Funnel], true),
            ("winsorize", self.winsorize.is_some(), &[Mean, Count], false),
            ("cap", self.cap.is_some(), &[Mean, Count], false),
            ("numerator", self.numerator.is_some(), &[Ratio], false),
            ("denominator", self.denominator.is_some(), &[Ratio], false),
            ("denominator_where", !self.denominator_filter.is_empty(), &[Ratio], false),
            ("per_unit", self.per_unit.is_some(), &[Quantile], false),
        ];
        let mut misfits = Vec::new();
        for (field, given, belongs_to, needed) in options {
            match (given, belongs_to.contains(&self.metric_type)) {
                (true, false) => misfits.push(Problem::new(field, "does not belong to this type of metric")),
                (false, true) if needed => misfits.push(Problem::new(field, "this type of metric needs it")),
                _ => {}
            }
        }
        if self.winsorize.is_some() && self.cap.is_some() {
            misfits
                .push(Problem::new("cap", "`winsorize` cuts the values already; leave one of the two out"));
        }
        misfits
    }

    /// Returns everything that is wrong: what is out of range, and the misfits.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (field, hours) in [("delay_hours", self.delay_hours), ("window_hours", self.window_hours)] {
            if let Some(hours) = hours
                && !(1..=HOURS_MAX).contains(&hours)
            {
                problems.push(Problem::new(field, format!("{hours} is not in 1 to {HOURS_MAX}")));
            }
        }
        if self.metric_type == MetricType::Retention && self.delay_hours.is_some() {
            problems.push(Problem::new("delay_hours", DAYS_SAY_IT));
        }
        problems.extend(self.misfits());
        if let Some(quantile) = self.winsorize
            && !(quantile > 0.5 && quantile < 1.0)
        {
            problems.push(Problem::new("winsorize", format!("{quantile} is not in (0.5, 1)")));
        }
        if let Some(WrittenDecimal(cap)) = self.cap
            && cap.millionths() <= 0
        {
            problems.push(Problem::new("cap", format!("{cap} is not above 0")));
        }
        if let Some(quantile) = self.quantile
            && !(quantile > 0.0 && quantile < 1.0)
        {
            problems.push(Problem::new("quantile", format!("{quantile} is not in (0, 1)")));
        }
        if let Some((first, last)) = self.retention_days
            && !(1 <= first && first <= last && last <= 365)
        {
            problems.push(Problem::new(
                "retention_days",
                format!("[{first}, {last}] is not first <= last in 1 to 365"),
            ));
        }
        problems.extend(self.filter.check("where"));
        problems.extend(self.denominator_filter.check("denominator_where"));
        problems
    }
}

/// Why a retention has neither a delay nor a window.
const DAYS_SAY_IT: &str = "the days of a retention say it already; leave it out";
