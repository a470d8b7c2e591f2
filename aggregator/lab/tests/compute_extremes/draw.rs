//! Draws inputs for every method: mostly possible ones of any size, sometimes impossible ones.

use serde_json::{Map, Value, json};
use stats::random::Random;

/// Draws the inputs of one case.
pub struct Draw {
    random: Random,
    /// The approximate size of all numbers of one case.
    unit: f64,
    /// How many of a hundred numbers are unusual.
    odd: u64,
}

impl Draw {
    pub fn new(seed: u64) -> Draw {
        let mut random = Random::new(seed);
        // A third of the cases has no unusual numbers, so that many have an answer.
        let odd = [0, 2, 25][random.below(3) as usize];
        let unit = match random.below(4) {
            0 => 1.0,
            1 => 2_f64.powi(random.below(200) as i32 - 100),
            _ => 10_f64.powi(random.below(12) as i32 - 6),
        };
        Draw { random, unit, odd }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize].clone()
    }

    fn is_odd(&mut self) -> bool {
        self.random.below(100) < self.odd
    }

    /// Draws a number in the metric's unit.
    fn value(&mut self) -> f64 {
        if self.is_odd() {
            return self.one_of(&[
                0.0,
                -0.0,
                1e-300,
                -1e-300,
                1e300,
                -1e300,
                f64::MAX,
                5e-324,
                9_007_199_254_740_991.0,
                9_007_199_254_740_993.0,
                1e100,
                -1e-100,
                1e154,
                -1.0,
            ]);
        }
        match self.random.below(6) {
            0 => 0.0,
            1 => self.unit * self.random.below(4) as f64,
            2 => -self.unit * self.random.uniform(),
            3 => self.unit * self.random.exponential(),
            _ => self.unit * (10.0 + self.random.normal()),
        }
    }

    /// Draws a number above 0 in the metric's unit.
    fn positive(&mut self) -> f64 {
        if self.is_odd() { self.value() } else { self.unit * (0.01 + self.random.exponential()) }
    }

    fn values(&mut self, most: u64) -> Vec<f64> {
        let count = self.random.below(most + 1);
        // Sometimes all have one value.
        if self.random.below(8) == 0 {
            return vec![self.value(); count as usize];
        }
        (0..count).map(|_| self.value()).collect()
    }

    /// Draws a count up to 2^53, or an invalid one.
    fn count(&mut self) -> Value {
        if self.is_odd() {
            let odd =
                [json!(u64::MAX), json!(9_007_199_254_740_993_u64), json!(-1), json!(0.5), json!(1e300)];
            return self.one_of(&odd);
        }
        json!(self.whole())
    }

    fn whole(&mut self) -> u64 {
        match self.random.below(8) {
            0 => self.random.below(3),
            1 => (1 << 53) - self.random.below(3),
            2 => 1 << self.random.below(54),
            _ => self.random.below(10_u64.pow(1 + self.random.clone().below(6) as u32)),
        }
    }

    /// Draws a count of at most `whole`; 0 and all are likely.
    fn of(&mut self, whole: &Value) -> Value {
        let Some(whole) = whole.as_u64() else { return self.count() };
        if self.is_odd() {
            return self.count();
        }
        match self.random.below(5) {
            0 => json!(whole.min(self.random.below(4))),
            1 => json!(whole - whole.min(self.random.below(4))),
            _ => json!((whole as f64 * self.random.uniform()) as u64),
        }
    }

    /// Draws a share or a level: close to 0, close to 1, or in between.
    fn share(&mut self) -> f64 {
        if self.is_odd() {
            return self.one_of(&[
                0.0,
                1.0,
                -0.1,
                1e-310,
                1e-300,
                f64::MIN_POSITIVE,
                0.999_999_999_999,
                1.0 - 1.1e-16,
                1e300,
            ]);
        }
        match self.random.below(5) {
            0 => 0.05,
            1 => 10_f64.powi(-(self.random.below(12) as i32)).min(0.9),
            2 => 1.0 - 10_f64.powi(-1 - self.random.below(6) as i32),
            3 => self.one_of(&[0.01, 0.5, 0.1, 0.55, 0.9, 0.8]),
            _ => self.random.uniform(),
        }
    }

    fn sides(&mut self) -> u64 {
        self.one_of(&[1, 2])
    }

    /// Draws sums that some values could have.
    fn sums(&mut self, names: [&str; 3]) -> Map<String, Value> {
        let values = self.values(20);
        let mut sums = Map::new();
        if self.random.below(3) > 0 {
            sums.insert(names[0].to_owned(), json!(values.len()));
            sums.insert(names[1].to_owned(), json!(values.iter().sum::<f64>()));
            sums.insert(names[2].to_owned(), json!(values.iter().map(|v| v * v).sum::<f64>().min(f64::MAX)));
        } else {
            // The sums of units with this mean and standard deviation.
            let (n, mean, sd) = (self.whole(), self.value(), self.positive());
            let squares = n as f64 * (mean * mean + sd * sd);
            sums.insert(names[0].to_owned(), json!(n));
            sums.insert(names[1].to_owned(), json!((n as f64 * mean).clamp(f64::MIN, f64::MAX)));
            sums.insert(names[2].to_owned(), json!(squares.min(f64::MAX)));
        }
        sums
    }

    fn arms(&mut self) -> Map<String, Value> {
        let mut arms = Map::new();
        for side in ["c", "t"] {
            let n = self.count();
            arms.insert(format!("x_{side}"), self.of(&n));
            arms.insert(format!("n_{side}"), n);
        }
        arms
    }

    fn list<T>(&mut self, most: u64, mut of: impl FnMut(&mut Draw) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| of(self)).collect()
    }

    /// Draws two values for each unit of an arm.
    fn pairs(&mut self, x: &str, y: &str) -> Value {
        let xs = self.values(12);
        let slope = self.random.normal();
        let mut ys: Vec<f64> = Vec::new();
        for x in &xs {
            let value = if self.below(3) == 0 { slope * x } else { self.value() };
            ys.push(value);
        }
        json!({ x: xs, y: ys })
    }

    fn alternative(&mut self, object: &mut Map<String, Value>) {
        if let Some(side) = self.one_of(&[None, Some("two-sided"), Some("greater"), Some("less")]) {
            object.insert("alternative".to_owned(), json!(side));
        }
    }
}

/// Draws the inputs of one case of a method.
pub fn inputs(method: &str, draw: &mut Draw) -> Map<String, Value> {
    let mut inputs = match method {
        "two_proportion" => draw.arms(),
        "welch_t" => welch(draw),
        "ratio_delta" => two_pairs(draw, "num", "den"),
        "cuped" => two_pairs(draw, "pre", "post"),
        "winsorize" => object(json!({
            "control": draw.values(15), "treatment": draw.values(15), "percentile": draw.share(),
            "quantile_method": draw.one_of(&["linear", "inverted_cdf"]), "scope": draw.one_of(&["pooled", "per_arm"]),
            "side": draw.one_of(&["upper", "both"]), "ignore_zeros": draw.one_of(&[true, false]),
        })),
        "quantile" => quantile(draw),
        "power" => power(draw),
        "sequential_msprt" => msprt(draw),
        "sequential_asymptotic_cs" => {
            let mut two = two_means(draw);
            two.insert("tuning_n_star".to_owned(), json!(draw.positive().abs().max(1e-9) * 1e4));
            two.insert("difference_type".to_owned(), json!(draw.one_of(&["relative", "absolute"])));
            two
        }
        "sequential_conversion_counts" => object(json!({
            "batches_new_conversions": draw.list(4, |draw| json!({ "c": draw.count(), "t": draw.count() })),
            "treatment_assignment_probability": draw.share(), "concentration": draw.one_of(&[1e-6, 1.0, 100.0, 1e6, 1e15, 0.0]),
        })),
        "group_sequential_bounds" => boundary(draw),
        "futility" => {
            let mut of = boundary(draw);
            of.insert(
                "futility_spending".to_owned(),
                json!(draw.one_of(&["obf", "pocock", "hsd", "kim_demets"])),
            );
            of.insert("futility_gamma".to_owned(), json!(draw.one_of(&[-4.0, 0.5, 2.0])));
            if draw.below(2) == 0 {
                of.insert("drift".to_owned(), json!(draw.one_of(&[3.0, 0.1, 30.0, 1e5, 1e300, -1.0])));
            }
            of
        }
        "group_sequential_analysis" => looks(draw),
        "srm_chi_square" if draw.below(3) == 0 => object(json!({
            "kind": "covariate_balance",
            "counts_by_arm": draw.list(3, |draw| (0..2).map(|_| draw.count()).collect::<Vec<Value>>()),
        })),
        "srm_chi_square" => object(json!({
            "observed": (0..3).map(|_| draw.count()).collect::<Vec<Value>>(), "weights": weights(draw),
        })),
        "srm_sequential" => object(json!({
            "null_probabilities": weights(draw),
            "batches": draw.list(3, |draw| (0..3).map(|_| draw.count()).collect::<Vec<Value>>()),
            "concentration": draw.one_of(&[1e-6, 10.0, 1e4, 1e15, 1e300]),
        })),
        "multiple_testing" => object(json!({ "p_values": draw.list(6, Draw::share) })),
        "bayes_beta_binomial" => rates(draw),
        "bayes_gaussian_effect" => {
            let mut two = two_means(draw);
            let prior = json!({ "mean": draw.value(), "variance": draw.positive(), "proper": draw.one_of(&[true, false]) });
            two.insert("prior".to_owned(), prior);
            for name in ["prior_type", "difference_type"] {
                two.insert(name.to_owned(), json!(draw.one_of(&["relative", "absolute"])));
            }
            two.insert("inverse".to_owned(), json!(draw.one_of(&[true, false])));
            two
        }
        "simpson_poststrat" => object(json!({ "strata": draw.list(4, Draw::arms) })),
        "interaction" => {
            let (rows, columns) = draw.one_of(&[(2, 2), (2, 3), (3, 2), (1, 2)]);
            let mut row = || (0..columns).map(|_| draw.sums(["n", "sum", "sum_sq"])).collect::<Vec<_>>();
            object(json!({ "cells": (0..rows).map(|_| row()).collect::<Vec<_>>() }))
        }
        "cluster_randomized" => {
            let of = draw.one_of(&[cluster_of_values as fn(&mut Draw) -> Value, cluster_of_counts]);
            object(json!({ "clusters": draw.list(8, of) }))
        }
        "switchback" => switchback(draw),
        "peeking_type1" => object(json!({
            "looks": draw.one_of(&[0, 1, 2, 7, 30]), "critical_value": draw.one_of(&[1.96, 1e-300, 1e300, 0.0, -1.0, 40.0]),
        })),
        other => panic!("no inputs are drawn for {other}"),
    };
    inputs.insert("alpha".to_owned(), json!(draw.share()));
    if ["two_proportion", "welch_t", "ratio_delta", "cuped", "winsorize", "quantile", "sequential_msprt"]
        .contains(&method)
    {
        draw.alternative(&mut inputs);
    }
    inputs
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn welch(draw: &mut Draw) -> Map<String, Value> {
    if draw.below(2) == 0 {
        return object(json!({ "control": draw.values(12), "treatment": draw.values(12) }));
    }
    let mut both = draw.sums(["n_c", "sum_c", "sum_sq_c"]);
    both.extend(draw.sums(["n_t", "sum_t", "sum_sq_t"]));
    both
}

fn two_pairs(draw: &mut Draw, x: &str, y: &str) -> Map<String, Value> {
    let mut both = Map::new();
    let as_sums = draw.below(2) == 0;
    for side in ["control", "treatment"] {
        let values = draw.pairs(x, y);
        if as_sums {
            both.insert(side.to_owned(), sums_of_pairs(&values, x, y));
        } else {
            both.insert(format!("{side}_raw"), values);
        }
    }
    both
}

fn sums_of_pairs(values: &Value, x: &str, y: &str) -> Value {
    // A product beyond the largest double was written as null.
    let list = |name: &str| -> Vec<f64> {
        values[name]
            .as_array()
            .expect("a list")
            .iter()
            .map(|value| value.as_f64().unwrap_or(f64::MAX))
            .collect()
    };
    let (xs, ys) = (list(x), list(y));
    let products = |left: &[f64], right: &[f64]| {
        let sum: f64 = left.iter().zip(right).map(|(l, r)| l * r).sum();
        json!(if sum.is_nan() { 0.0 } else { sum.clamp(f64::MIN, f64::MAX) })
    };
    let ones = vec![1.0; xs.len()];
    let mut sums = Map::new();
    for (name, sum) in [
        ("n".to_owned(), json!(xs.len())),
        (format!("sum_{x}"), products(&xs, &ones)),
        (format!("sum_{x}_sq"), products(&xs, &xs)),
        (format!("sum_{y}"), products(&ys, &ones)),
        (format!("sum_{y}_sq"), products(&ys, &ys)),
        (format!("sum_{x}_{y}"), products(&xs, &ys)),
    ] {
        sums.insert(name, sum);
    }
    Value::Object(sums)
}

fn two_means(draw: &mut Draw) -> Map<String, Value> {
    let mut both = Map::new();
    let rates = draw.below(3) == 0;
    for side in ["control", "treatment"] {
        let mut arm = if rates {
            let n = draw.count();
            object(json!({ "sum": draw.of(&n), "n": n }))
        } else {
            draw.sums(["n", "sum", "ss"])
        };
        arm.insert("kind".to_owned(), json!(if rates { "prop" } else { "mean" }));
        both.insert(side.to_owned(), Value::Object(arm));
    }
    both
}

fn quantile(draw: &mut Draw) -> Map<String, Value> {
    let mut inputs = Map::new();
    for side in ["c", "t"] {
        if draw.below(2) == 0 {
            let mut three = [draw.value(), draw.value(), draw.value()];
            three.sort_by(f64::total_cmp);
            inputs.insert(format!("quantiles_{side}"), json!(three));
        } else {
            inputs
                .insert(format!("values_{side}"), json!((0..40).map(|_| draw.value()).collect::<Vec<f64>>()));
            if draw.below(4) == 0 {
                inputs.insert(format!("share_se_{side}"), json!(draw.share()));
            }
        }
    }
    inputs.insert("level".to_owned(), json!(draw.share()));
    inputs
}

fn power(draw: &mut Draw) -> Map<String, Value> {
    let kind = draw.one_of(&[
        "proportion_sample_size",
        "proportion_mde",
        "proportion_power",
        "mean_sample_size",
        "article_literal",
    ]);
    let mut inputs = object(json!({
        "kind": kind, "baseline": draw.share(), "treatment_rate": draw.share(), "n_c": draw.count(), "sd": draw.positive(),
        "mde_abs": draw.value(), "power": draw.share(), "ratio_t_over_c": draw.one_of(&[1.0, 0.25, 9.0, 1e-300, 1e300, 1e15]),
        "sides": draw.sides(), "mde_rel": draw.one_of(&[0.1, -0.1, 1e-15, 1e300]), "z_alpha": draw.one_of(&[1.96, -1.0, 1e300]),
        "z_beta": draw.one_of(&[0.84, -3.0, 1e-300]),
    }));
    if draw.below(3) == 0 {
        inputs.insert("daily_users".to_owned(), json!(draw.one_of(&[1e4, 1e-300, 1e300, 0.0])));
        inputs.insert("n_variants".to_owned(), draw.one_of(&[json!(2), json!(3), json!(1_u64 << 53)]));
    }
    if draw.below(3) == 0 {
        inputs.insert("cluster_size".to_owned(), json!(draw.one_of(&[1.0, 25.0, 1e-300, 1e300])));
        inputs.insert("icc".to_owned(), json!(draw.share()));
        inputs.insert("cuped_rho".to_owned(), json!(draw.share()));
    }
    inputs
}

fn msprt(draw: &mut Draw) -> Map<String, Value> {
    let mut inputs =
        object(json!({ "tau": draw.positive(), "variance": draw.one_of(&["pooled", "unpooled"]) }));
    if draw.below(3) == 0 {
        inputs.insert("theta0".to_owned(), json!(draw.value()));
    }
    match draw.below(3) {
        0 => {
            inputs.insert("x_control".to_owned(), json!(draw.values(6)));
            inputs.insert("y_treatment".to_owned(), json!(draw.values(6)));
            inputs.insert("known_sigma".to_owned(), json!(draw.positive()));
        }
        1 => {
            let look = |draw: &mut Draw| json!({ "estimate": draw.value(), "se": draw.positive() });
            inputs.insert("looks".to_owned(), json!(draw.list(4, look)));
        }
        _ => {
            inputs.insert("looks".to_owned(), json!(draw.list(4, Draw::arms)));
        }
    }
    inputs
}

fn boundary(draw: &mut Draw) -> Map<String, Value> {
    let mut fractions = draw.list(5, |draw| draw.random.uniform());
    fractions.sort_by(f64::total_cmp);
    fractions.push(draw.one_of(&[1.0, 1.0, 1.3, 1e-9, 1e9, 0.7]));
    if draw.is_odd() {
        fractions.push(draw.value());
    }
    let spending = draw.one_of(&["obf", "pocock", "kim_demets", "hsd", "classic_obf", "classic_pocock"]);
    object(json!({
        "information_fractions": fractions, "sides": draw.sides(), "spending": spending,
        "gamma": draw.one_of(&[1.0, -4.0, 3.0, 0.0, 1e300]), "power": draw.share(),
    }))
}

fn looks(draw: &mut Draw) -> Map<String, Value> {
    let (planned_c, planned_t) = (draw.whole(), draw.whole());
    let mut looks = Vec::new();
    let count = 1 + draw.below(4);
    for k in 1..=count {
        let mut look = Map::new();
        for (side, planned) in [("c", planned_c), ("t", planned_t)] {
            let n = (planned as f64 * k as f64 / count as f64) as u64;
            let n = if draw.is_odd() { draw.count() } else { json!(n) };
            look.insert(format!("x_{side}"), draw.of(&n));
            look.insert(format!("n_{side}"), n);
        }
        looks.push(look);
    }
    object(json!({
        "looks": looks, "planned_n_c": planned_c, "planned_n_t": planned_t, "sides": draw.sides(),
        "spending": draw.one_of(&["obf", "pocock", "kim_demets", "hsd"]), "gamma": draw.one_of(&[1.0, 3.0]),
        "last_look_is_final": draw.one_of(&[true, false]),
    }))
}

fn weights(draw: &mut Draw) -> Vec<f64> {
    match draw.below(4) {
        0 => vec![draw.share(), draw.share(), draw.share()],
        1 => vec![draw.one_of(&[1e300, f64::MAX]), 1e308, 1e300],
        2 => vec![0.0, 1.0, draw.one_of(&[1.0, 0.0, 1e-300])],
        _ => vec![0.4, 0.4, 0.2],
    }
}

fn rates(draw: &mut Draw) -> Map<String, Value> {
    let mut inputs = if draw.below(4) == 0 {
        let arm = |draw: &mut Draw| {
            let n = draw.count();
            json!({ "x": draw.of(&n), "n": n })
        };
        object(json!({ "arms": draw.list(3, arm) }))
    } else {
        draw.arms()
    };
    for name in ["prior_alpha", "prior_beta"] {
        inputs.insert(
            name.to_owned(),
            json!(draw.one_of(&[1.0, 1.0, 0.5, 1e-3, 1e-6, 300.0, 1e16, 0.0, 1e-300, 1e300])),
        );
    }
    inputs
}

fn cluster_of_values(draw: &mut Draw) -> Value {
    json!({ "arm": draw.below(2), "values": draw.values(4) })
}

fn cluster_of_counts(draw: &mut Draw) -> Value {
    let n = draw.count();
    json!({ "arm": draw.below(2), "sum": draw.of(&n), "n": n })
}

fn switchback(draw: &mut Draw) -> Map<String, Value> {
    let mut windows = Vec::new();
    for region in ["a", "b"] {
        for period in 0..draw.below(7) {
            let burn_in = draw.below(6) == 0;
            let (arm, n, sum) = (draw.below(2), draw.count(), draw.value());
            windows.push(json!({ "region": region, "period": period, "arm": arm, "n": n, "sum": sum, "burn_in": burn_in }));
        }
    }
    let mut inputs =
        object(json!({ "windows": windows, "design": draw.one_of(&["iid", "complete", "pairs"]) }));
    if draw.below(2) == 0 {
        inputs.insert("ht_carryover_order".to_owned(), json!(draw.one_of(&[0, 1, 29, 30])));
    }
    inputs
}
