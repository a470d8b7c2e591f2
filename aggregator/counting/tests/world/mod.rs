//! Random events of a small world, and what must be counted of them over any store, whatever the order in which they come.
//! The tests of every store include this file.

use std::collections::BTreeMap;
use std::fmt::Debug;

use counting::cells::{Cells, Place};
use counting::event::{Conversion, Exposure, NewExposure, Scope};
use counting::fold::{Alias, Counting, NewRows};
use counting::kind::{self, Cap, Kind, Of, PerUnit, Span, Term};
use counting::micros::{DAY, HOUR, Micros};
use counting::names::{Name, Names};
use counting::spec::{ExperimentSpec, MetricSpec, Spec, Switchback};
use counting::store::{Memory, Store};
use counting::sums::Sums;
use proptest::prelude::*;
use proptest::sample::select;

/// The names that the tests use.
struct World {
    names: Names,
    experiments: [Name; 3],
    variants: [Name; 2],
    environments: [Name; 2],
    series: [Name; 3],
    segments: [Name; 2],
    spec: Spec,
}

impl World {
    fn new() -> World {
        let mut names = Names::default();
        let experiments = ["button", "price", "windows"].map(|text| names.add(text));
        let variants = ["control", "treatment"].map(|text| names.add(text));
        let environments = ["production", "staging"].map(|text| names.add(text));
        let series = ["click", "purchase", "return"].map(|text| names.add(text));
        let segments = ["", "US"].map(|text| names.add(text));
        let window = Span { delay: HOUR, end: Some(DAY) };
        let kinds = |click: Name, purchase: Name, back: Name| {
            vec![
                Kind::Conversion(kind::Conversion { series: purchase, span: window }),
                Kind::Count(kind::Count { series: click, span: Span::default(), cap: Cap::At(3) }),
                Kind::Mean(kind::Mean { series: purchase, span: window, cap: Cap::NotYet }),
                Kind::Ratio(kind::Ratio {
                    numerator: Term { series: purchase, of: Of::Total },
                    denominator: Term { series: click, of: Of::Events },
                    span: window,
                }),
                Kind::Retention(kind::Retention { series: back, first: 1, last: 2, window: None }),
                Kind::Quantile(kind::Quantile { series: purchase, span: window, per_unit: PerUnit::Mean }),
                Kind::Funnel(kind::Funnel {
                    steps: vec![click, click, purchase],
                    delay: 0,
                    window: Some(6 * HOUR),
                }),
            ]
        };
        let metrics = |covariate: Option<Micros>| -> Vec<MetricSpec> {
            let kinds = kinds(series[0], series[1], series[2]).into_iter().enumerate();
            kinds
                .map(|(index, kind)| MetricSpec {
                    identity: format!("metric {index}").into(),
                    kind,
                    covariate,
                })
                .collect()
        };
        let both = {
            let mut both = environments.to_vec();
            both.sort();
            both
        };
        let experiment = |index: usize, environments: Vec<Name>, switchback, covariate| ExperimentSpec {
            name: experiments[index],
            environments,
            switchback,
            metrics: metrics(covariate),
        };
        let spec = Spec {
            experiments: vec![
                experiment(0, vec![environments[0]], None, Some(2 * DAY)),
                experiment(1, both, None, None),
                experiment(
                    2,
                    vec![environments[0]],
                    Some(Switchback { window: 4 * HOUR, burn_in: HOUR }),
                    None,
                ),
            ],
        };
        World { names, experiments, variants, environments, series, segments, spec }
    }
}

/// An event as the test draws it, by small numbers.
#[derive(Clone, Copy, Debug)]
enum Event {
    Exposure {
        key: u64,
        at: i64,
        id: u128,
        experiment: usize,
        variant: usize,
        staging: bool,
        segment: usize,
        forced: bool,
        mismatched: bool,
    },
    Conversion {
        keys: (u64, u64),
        at: i64,
        id: u128,
        series: usize,
        millionths: i64,
        staging: bool,
        named: Option<usize>,
    },
    Alias {
        from: u64,
        to: u64,
        at: i64,
        staging: bool,
    },
}

/// Few keys, few times and few ids, so that ties and repetitions are frequent.
fn event() -> impl Strategy<Value = Event> {
    let key = 1u64..13;
    // Half hours of four days.
    let at = (0i64..192).prop_map(|halves| halves * HOUR / 2);
    let exposure = (
        key.clone(),
        at.clone(),
        0u128..1_000,
        (0usize..3, 0usize..2, 0usize..2),
        (any::<u8>(), any::<u8>(), any::<u8>()),
    )
        .prop_map(|(key, at, id, (experiment, variant, segment), (staging, forced, mismatched))| {
            Event::Exposure {
                key,
                at,
                id,
                experiment,
                variant,
                segment,
                staging: staging < 40,
                forced: forced < 10,
                mismatched: mismatched < 30,
            }
        });
    let values = select(vec![0i64, 1, -5_000_000, 20_000_000, i64::MAX, i64::MIN]);
    let conversion =
        ((key.clone(), key.clone()), at.clone(), 0u128..1_000, 0usize..3, values, (any::<u8>(), any::<u8>()))
            .prop_map(|(keys, at, id, series, millionths, (staging, named))| Event::Conversion {
                keys,
                at,
                id,
                series,
                millionths,
                staging: staging < 40,
                named: (named < 30).then_some(usize::from(named % 2)),
            });
    let alias = (key.clone(), key, at, any::<u8>()).prop_map(|(from, to, at, staging)| Event::Alias {
        from,
        to,
        at,
        staging: staging < 100,
    });
    prop_oneof![8 => exposure, 16 => conversion, 1 => alias]
}

fn add(world: &World, rows: &mut NewRows, event: &Event) {
    let environment = |staging: bool| world.environments[usize::from(staging)];
    match *event {
        Event::Exposure { key, at, id, experiment, variant, staging, segment, forced, mismatched } => {
            rows.exposure(
                key,
                Exposure::new(NewExposure {
                    experiment: world.experiments[experiment],
                    at,
                    id,
                    variant: world.variants[variant],
                    phase: 1 + u32::from(at > DAY),
                    environment: environment(staging),
                    segments: [
                        world.segments[segment],
                        world.segments[0],
                        world.segments[0],
                        world.segments[0],
                    ],
                    ingested_ms: 0,
                    forced,
                    mismatched,
                }),
            );
        }
        Event::Conversion { keys, at, id, series, millionths, staging, named } => {
            let scope = Scope {
                environment: environment(staging),
                experiment: named.map(|of| world.experiments[of]),
            };
            let conversion = Conversion::new(world.series[series], at, id, millionths, scope);
            rows.conversion(keys.0, conversion);
            if keys.1 != keys.0 {
                rows.conversion(keys.1, conversion);
            }
        }
        Event::Alias { from, to, at, staging } => {
            rows.alias(Alias { at, environment: environment(staging), from, to })
        }
    }
}

fn fold<S: Store<Error: Debug>>(world: &World, counting: &mut Counting<S>, events: &[Event], as_of: Micros) {
    let mut rows = NewRows::default();
    events.iter().for_each(|event| add(world, &mut rows, event));
    counting.fold(rows, as_of).unwrap();
    counting.end_round(&world.names);
}

fn all(cells: &Cells) -> BTreeMap<Place, Sums> {
    cells.iter().map(|(place, sums)| (place, sums.clone())).collect()
}

/// Asserts that both have counted the same.
fn assert_same<S: Store, T: Store>(one: &Counting<S>, other: &Counting<T>) {
    for (index, experiment) in one.spec().experiments.iter().enumerate() {
        assert_eq!(all(one.units(index)), all(other.units(index)), "units of experiment {index}");
        for metric in 0..experiment.metrics.len() {
            assert_eq!(
                all(one.metric(index, metric)),
                all(other.metric(index, metric)),
                "metric {metric} of {index}"
            );
        }
        assert_eq!(one.digest(index), other.digest(index), "digest of experiment {index}");
    }
}

/// Some events, and how they come.
#[derive(Clone, Debug)]
pub struct Case {
    events: Vec<Event>,
    /// Where each event goes, and whether it comes again.
    order: Vec<(usize, usize)>,
    end: Micros,
}

pub fn case() -> impl Strategy<Value = Case> {
    let events = prop::collection::vec(event(), 1..120);
    let order = prop::collection::vec((0usize..10_000, 0usize..4), 200..300);
    let end = (0i64..(9 * 24)).prop_map(|hours| hours * HOUR);
    (events, order, end).prop_map(|(events, order, end)| Case { events, order, end })
}

/// Folds all events at once in memory and, in another order and in rounds, over the store. Asserts that both have counted
/// the same. Returns the store.
pub fn assert_any_order_gives_the_same<S: Store<Error: Debug>>(case: &Case, store: S) -> S {
    let Case { events, order, end } = case;
    let world = World::new();
    let mut whole = Counting::new(world.spec.clone(), Memory::default());
    fold(&world, &mut whole, events, *end);

    // Every event at least once, in another order, some again, in rounds whose time passes.
    let mut sent: Vec<Event> = events.clone();
    for (index, (at, times)) in order.iter().enumerate() {
        sent.swap(index % events.len(), at % events.len());
        sent.extend((0..times / 3).map(|_| events[at % events.len()]));
    }
    let rounds = 1 + order[0].0 % 40;
    let mut parts = Counting::new(world.spec.clone(), store);
    let size = sent.len().div_ceil(rounds);
    for (round, batch) in sent.chunks(size).enumerate() {
        let as_of = end * (round as i64 + 1) / rounds as i64;
        fold(&world, &mut parts, batch, as_of.min(*end));
    }
    fold(&world, &mut parts, &[], *end);
    assert_same(&parts, &whole);
    parts.into_store()
}
