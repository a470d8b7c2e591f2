//! Compares the JSON Schema of definition files with the parser: the schema accepts what the parser accepts,
//! and this file lists what only the parser refuses.

mod random_documents;

use std::collections::BTreeSet;
use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};
use schemas::definition::{Definition, FileError, JSON_SCHEMA, parse_file};
use serde_json::{Value, json};

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn new() -> Schema {
        let mut schemas = Schemas::new();
        let mut compiler = Compiler::new();
        let location = "file:///definition.schema.json";
        compiler.add_resource(location, schema_json()).unwrap();
        let index = compiler.compile(location, &mut schemas).unwrap();
        Schema { schemas, index }
    }

    fn refusal(&self, document: &Value) -> Option<String> {
        self.schemas.validate(document, self.index).err().map(|error| error.to_string())
    }
}

fn schema_json() -> Value {
    serde_json::from_str(JSON_SCHEMA).unwrap()
}

fn valid_text(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions/valid");
    std::fs::read_to_string(folder.join(file)).unwrap()
}

fn valid_json(file: &str) -> Value {
    serde_json::from_str(&valid_text(file)).unwrap()
}

const FULL: [&str; 6] = ["experiment", "external", "finished", "flags", "metrics_layers_lists", "settings"];

fn parse(document: &Value) -> Result<Vec<Definition>, Vec<FileError>> {
    parse_file(&document.to_string())
}

fn messages(errors: &[FileError]) -> Vec<String> {
    errors.iter().map(|error| error.problem.to_string()).collect()
}

#[test]
fn an_example_is_the_same_in_yaml_and_json_and_fits_the_schema() {
    let schema = Schema::new();
    for name in FULL {
        let from_yaml = parse_file(&valid_text(&format!("{name}.yaml"))).unwrap();
        let from_json = parse_file(&valid_text(&format!("{name}.json"))).unwrap();
        assert_eq!(from_yaml, from_json, "{name}");
        assert_eq!(schema.refusal(&valid_json(&format!("{name}.json"))), None, "{name}");
    }
    assert_eq!(parse_file(&valid_text("smallest.json")).unwrap().len(), 4);
    assert_eq!(schema.refusal(&valid_json("smallest.json")), None);
}

#[test]
fn the_json_of_the_log_fits_the_schema_and_reads_back() {
    let schema = Schema::new();
    for name in FULL {
        for definition in parse_file(&valid_text(&format!("{name}.yaml"))).unwrap() {
            let stored: Value = serde_json::from_str(&definition.to_json()).unwrap();
            let mut written = stored.clone();
            written["kind"] = json!(definition.kind());
            assert_eq!(schema.refusal(&written), None, "{written}");
            assert_eq!(Definition::from_json(definition.kind(), stored), Ok(definition));
        }
    }
}

/// For each object with fields: the file of an example, its path there, and its name in the schema.
const OBJECTS: [(&str, &str, &str); 26] = [
    ("flags.json", "/0", "flag"),
    ("flags.json", "/0/variants/0", "flag_variant"),
    ("flags.json", "/0/prerequisites/0", "prerequisite"),
    ("flags.json", "/0/rules/0", "flag_rule"),
    ("flags.json", "/0/rules/0/split/0", "share"),
    ("flags.json", "/0/environments/staging", "flag_override"),
    ("experiment.json", "", "experiment"),
    ("experiment.json", "/targeting/0", "targeting_rule"),
    ("experiment.json", "/variants/0", "variant"),
    ("experiment.json", "/metrics", "metrics"),
    ("experiment.json", "/environments/staging", "experiment_override"),
    ("experiment.json", "/excluded_phases/0", "excluded_phase"),
    ("finished.json", "/allow/0", "allowed"),
    ("finished.json", "/serve", "serve"),
    ("finished.json", "/switchback", "switchback"),
    ("flags.json", "/0/rules/1/ramp/0", "ramp_step"),
    ("experiment.json", "/plan", "plan"),
    ("experiment.json", "/plan/schedule", "schedule"),
    ("metrics_layers_lists.json", "/0", "metric"),
    ("metrics_layers_lists.json", "/10/where/0", "event_test"),
    ("metrics_layers_lists.json", "/8", "layer"),
    ("metrics_layers_lists.json", "/9", "list"),
    ("settings.json", "", "settings"),
    ("settings.json", "/retention_days", "retention_days"),
    // The parser has one form for all conditions, the schema has one for each.
    ("experiment.json", "/targeting/0/when", "test"),
    ("experiment.json", "/targeting/1/when", "all"),
];

#[test]
fn the_schema_and_the_types_have_the_same_fields() {
    let schema = schema_json();
    let properties = |name: &str| -> BTreeSet<String> {
        schema["$defs"][name]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    for (file, pointer, name) in OBJECTS {
        let mut document = valid_json(file);
        document.pointer_mut(pointer).unwrap()["no-such-field"] = json!(1);
        let errors = parse(&document).unwrap_err();
        let fields: BTreeSet<String> = errors[0]
            .problem
            .what
            .strip_prefix("no such field; there can be ")
            .unwrap_or_else(|| panic!("{name}: {errors:?}"))
            .split(", ")
            .map(str::to_owned)
            .collect();
        let mut described = match name {
            "all" | "test" => {
                ["all", "any", "not", "test"].into_iter().flat_map(properties).collect::<BTreeSet<_>>()
            }
            name => properties(name),
        };
        described.remove("kind");
        assert_eq!(fields, described, "{name}");
    }
    let with_fields: BTreeSet<&str> = schema["$defs"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, place)| place.get("properties").is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    let seen = OBJECTS.map(|(_, _, name)| name).into_iter().chain(["any", "not", "definition"]).collect();
    assert_eq!(with_fields, seen);
}

#[test]
fn every_field_is_described_and_nothing_else_is_allowed() {
    let schema = schema_json();
    for (name, place) in schema["$defs"].as_object().unwrap() {
        for (field, described) in place["properties"].as_object().into_iter().flatten() {
            assert!(described["description"].is_string(), "{name}.{field} has no description");
        }
        if place.get("properties").is_some() && name != "definition" {
            assert_eq!(place["additionalProperties"], json!(false), "{name}");
        }
    }
}

#[test]
fn leaving_a_field_out_means_its_default() {
    let schema = schema_json();
    let mut tried = 0;
    for (file, pointer, name) in OBJECTS {
        for (field, described) in schema["$defs"][name]["properties"].as_object().unwrap() {
            let Some(default) = described.get("default") else { continue };
            let mut with = valid_json(file);
            with.pointer_mut(pointer).unwrap()[field] = default.clone();
            let mut without = with.clone();
            without.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
            assert_eq!(parse(&with), parse(&without), "{name}.{field}");
            tried += 1;
        }
    }
    assert_eq!(tried, 62);
}

#[test]
fn refused_by_both() {
    let schema = Schema::new();
    let layer = |field: &str, value: Value| {
        let mut layer = json!({"kind": "layer", "key": "l"});
        layer[field] = value;
        layer
    };
    let of = |file: &str, pointer: &str, value: Value| {
        let mut document = valid_json(file);
        match pointer.rsplit_once('/') {
            Some((parent, field)) if document.pointer(parent).is_some_and(Value::is_object) => {
                document.pointer_mut(parent).unwrap()[field] = value;
            }
            _ => *document.pointer_mut(pointer).unwrap() = value,
        }
        document
    };
    let experiment = |pointer: &str, value: Value| of("experiment.json", pointer, value);
    let when = |value: Value| of("experiment.json", "/targeting/0/when", value);
    let shape = "targeting[0].when: a condition is {all: [...]}, {any: [...]}, {not: {...}} or an attribute with \
                 exactly one operator";
    let metric = |fields: Value| {
        let mut metric = json!({"kind": "metric", "key": "m", "event": "e"});
        metric.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        metric
    };
    let filtered = |tests: Value| metric(json!({"type": "count", "where": tests}));
    let many_tests = |tests: usize| json!(vec![json!({"metadata": "a", "exists": true}); tests]);
    let texts = |texts: usize| json!((0..texts).map(|text| text.to_string()).collect::<Vec<_>>());
    let test_form = "where[0]: a test is `metadata` with exactly one of `in`, `not_in` and `exists`, or `value_at_least` \
                     alone, or `value_below` alone";
    for (document, error) in [
        (json!([]), "the file holds no definition"),
        (json!(null), "the file holds no definition"),
        (json!([null]), "a definition is a map with a `kind`"),
        (json!([[]]), "a definition is a map with a `kind`"),
        (json!("layer"), "a definition is a map with a `kind`"),
        (
            json!({"key": "l"}),
            "the definition has no `kind`: one of flag, experiment, layer, metric, list, settings",
        ),
        (
            layer("kind", json!("layers")),
            "kind: `layers` is none of flag, experiment, layer, metric, list, settings",
        ),
        (
            layer("kind", json!(["layer"])),
            "kind: must be one of flag, experiment, layer, metric, list, settings",
        ),
        (json!({"kind": "layer"}), "`key` is missing"),
        (layer("key", json!("")), "key: `` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -"),
        (layer("key", json!("a b")), "key: `a b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -"),
        (layer("key", json!(7)), "key: must be text, not the number 7; put it in quotes"),
        (layer("key", json!(null)), "key: must be text, not nothing (null)"),
        (layer("salt", json!(false)), "salt: must be text, not false; put it in quotes"),
        (layer("owner", json!(null)), "owner: must be text, not nothing (null)"),
        (
            layer("slots", json!(1)),
            "slots: no such field; there can be key, owner, description, salt, cooldown_hours",
        ),
        (
            experiment("/state", json!("paused")),
            "state: `paused` is none of draft, running, stopped, archived",
        ),
        (
            experiment("/state", json!({"running": null})),
            "state: must be one of draft, running, stopped, archived, not a map",
        ),
        (experiment("/phase", json!(0)), "phase: phases count from 1"),
        (experiment("/phase", json!(4_294_967_296_u64)), "phase: 4294967296 is too large"),
        (experiment("/slots", json!(0)), "slots: 0 leaves nobody to take part; 1 to 10000"),
        (
            experiment("/rollout", json!(10_001)),
            "rollout: 10001 is not a share in basis points: 0 to 10000, 10000 being everything",
        ),
        (experiment("/rollout", json!(-1)), "rollout: must be 0 or more, not -1"),
        (
            experiment("/rollout", json!(0.5)),
            "rollout: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being \
             everything, not the number 0.5",
        ),
        (
            experiment("/rollout", json!("5000")),
            "rollout: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being \
             everything, not the text `5000`",
        ),
        (experiment("/rollout", json!("33.333%")), "rollout: the text `33.333%` has more than two decimals"),
        (experiment("/rollout", json!("100.01%")), "rollout: the text `100.01%` is more than 100%"),
        (experiment("/slots", json!("0.00%")), "slots: 0 leaves nobody to take part; 1 to 10000"),
        (experiment("/metrics", json!(["purchase"])), "metrics: must be a map of fields, not a list"),
        (experiment("/metrics", json!({})), "metrics: `primary` is missing"),
        (
            experiment("/variants/0", json!(["control", 5000])),
            "variants[0]: must be a map of fields, not a list",
        ),
        (experiment("/variants", json!({"control": 5000})), "variants: must be a list, not a map"),
        (
            experiment("/variants", json!([{"key": "control", "weight": 10_000}])),
            "variants: an experiment needs a control and at least one more variant",
        ),
        (
            experiment("/variants/0/ranges/0", json!([0, 500_000, 1])),
            "variants[0].ranges[0]: must be a pair of whole numbers, not a list of 3",
        ),
        (
            experiment("/variants/0/ranges/0", json!([0])),
            "variants[0].ranges[0]: must be a pair of whole numbers, not a list of 1",
        ),
        (
            experiment("/variants/0/ranges/0", json!([0, 1_000_001])),
            "variants[0].ranges[0]: [0, 1000001) is not a range of buckets: it must be non-empty and inside \
             [0, 1000000)",
        ),
        (experiment("/metrics/guardrails", json!(["a", "a"])), "metrics.guardrails[1]: `a` is named twice"),
        (experiment("/plan", json!(null)), "plan: must be a map of fields, not nothing (null)"),
        (experiment("/plan/alpha", json!(0)), "plan.alpha: 0 is not in (0, 0.5]"),
        (experiment("/plan/power", json!(1)), "plan.power: 1 is not in [0.5, 1)"),
        (experiment("/plan/mde_relative", json!(0.0)), "plan.mde_relative: 0 is not above 0"),
        (
            experiment("/plan/practical_lift_relative", json!(-0.1)),
            "plan.practical_lift_relative: -0.1 is below 0",
        ),
        (experiment("/plan/covariate_days", json!(0)), "plan.covariate_days: 0 is not in 1 to 90"),
        (experiment("/plan/covariate_days", json!(91)), "plan.covariate_days: 91 is not in 1 to 90"),
        (experiment("/metrics/margins", json!({"refund": 0})), "metrics.margins.refund: 0 is not in (0, 1)"),
        (experiment("/metrics/margins", json!({"refund": 1})), "metrics.margins.refund: 1 is not in (0, 1)"),
        (
            experiment("/metrics/margins", json!({"refund": "1%"})),
            "metrics.margins.refund: must be a number, not the text `1%`",
        ),
        (
            experiment("/plan/horizon_units", json!(null)),
            "plan.horizon_units: the method needs a planned horizon; `always_valid` does without",
        ),
        (
            experiment("/plan/horizon_units", json!(0)),
            "plan.horizon_units: 0 units is no horizon; leave it out or name one",
        ),
        (
            experiment("/assignment", json!("external")),
            "variants: an external experiment owns no buckets; leave `ranges` out",
        ),
        (
            experiment("/layer", json!(null)),
            "slots: a share of a layer needs the `layer`; to expose fewer units use `rollout`",
        ),
        (when(json!({})), shape),
        (when(json!({"attribute": "a"})), shape),
        (when(json!({"attribute": "a", "above": 1, "below": 2})), shape),
        (
            when(json!({"attribute": "a", "above": null, "below": 2})),
            "targeting[0].when.above: must be a number, not nothing (null)",
        ),
        (
            when(json!({"attribute": "a", "equals": null})),
            "targeting[0].when: `equals` needs a value; whether an attribute is there is what `exists` asks",
        ),
        (
            when(json!({"attribute": "a", "in_list": "the employees"})),
            "targeting[0].when.in_list: `the employees` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        ),
        (
            when(json!({"all": [{"not": {"attribute": 1, "exists": true}}]})),
            "targeting[0].when.all[0].not.attribute: must be text, not the number 1; put it in quotes",
        ),
        (when(json!([])), "targeting[0].when: must be a map of fields, not a list"),
        (
            metric(json!({"type": "conversion", "window_hours": 8_761})),
            "window_hours: 8761 is not in 1 to 8760",
        ),
        (
            metric(json!({"type": "conversion", "delay_hours": 8_761})),
            "delay_hours: 8761 is not in 1 to 8760",
        ),
        (metric(json!({"type": "count", "delay_hours": 0})), "delay_hours: 0 is not in 1 to 8760"),
        (
            metric(json!({"type": "retention", "retention_days": [1, 7], "delay_hours": 24})),
            "delay_hours: the days of a retention say it already; leave it out",
        ),
        (metric(json!({"type": "conversion", "cap": "1"})), "cap: does not belong to this type of metric"),
        (
            metric(json!({"type": "mean", "cap": "1", "winsorize": 0.9})),
            "cap: `winsorize` cuts the values already; leave one of the two out",
        ),
        (metric(json!({"type": "mean", "cap": "0"})), "cap: 0.000000 is not above 0"),
        (metric(json!({"type": "mean", "cap": "00.00"})), "cap: 0.000000 is not above 0"),
        (metric(json!({"type": "count", "cap": "-1"})), "cap: -1.000000 is not above 0"),
        (
            metric(json!({"type": "mean", "cap": 100})),
            "cap: must be text, not the number 100; put it in quotes",
        ),
        (
            metric(json!({"type": "mean", "cap": "0.0000001"})),
            "cap: `0.0000001` is not a decimal with at most 12 digits before and 6 after the point",
        ),
        (
            metric(json!({"type": "count", "numerator": "events"})),
            "numerator: does not belong to this type of metric",
        ),
        (
            metric(json!({"type": "quantile", "quantile": 0.5, "denominator": "total"})),
            "denominator: does not belong to this type of metric",
        ),
        (
            metric(json!({"type": "count", "denominator_where": [{"metadata": "a", "exists": true}]})),
            "denominator_where: does not belong to this type of metric",
        ),
        (
            metric(json!({"type": "ratio", "denominator_event": "e", "numerator": "sum"})),
            "numerator: `sum` is none of events, total",
        ),
        (
            metric(json!({"type": "mean", "per_unit": "total"})),
            "per_unit: does not belong to this type of metric",
        ),
        (
            metric(json!({"type": "quantile", "quantile": 0.5, "per_unit": "last"})),
            "per_unit: `last` is none of total, mean, largest, first",
        ),
        (filtered(json!(null)), "where: must be a list, not nothing (null)"),
        (filtered(json!({"metadata": "a", "exists": true})), "where: must be a list, not a map"),
        (filtered(many_tests(17)), "where: 17 tests is more than 16"),
        (filtered(json!([{}])), test_form),
        (filtered(json!([{"metadata": "a"}])), test_form),
        (filtered(json!([{"metadata": "a", "in": ["x"], "exists": true}])), test_form),
        (filtered(json!([{"metadata": "a", "value_below": "1"}])), test_form),
        (filtered(json!([{"value_at_least": "1", "value_below": "2"}])), test_form),
        (
            filtered(json!([{"metadata": "a b", "exists": true}])),
            "where[0].metadata: `a b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        ),
        (filtered(json!([{"metadata": "a", "in": null}])), "where[0].in: must be a list, not nothing (null)"),
        (filtered(json!([{"metadata": "a", "in": []}])), "where[0].in: 0 texts is not in 1 to 100"),
        (
            filtered(json!([{"metadata": "a", "not_in": texts(101)}])),
            "where[0].not_in: 101 texts is not in 1 to 100",
        ),
        (
            filtered(json!([{"metadata": "a", "exists": true}, {"metadata": "a", "in": ["x", "y", "x"]}])),
            "where[1].in[2]: `x` is named twice",
        ),
        (
            filtered(json!([{"metadata": "a", "in": ["x".repeat(1_025)]}])),
            "where[0].in[0]: 1025 bytes is more than 1024, the most of an event",
        ),
        (
            filtered(json!([{"metadata": "a", "in": [1]}])),
            "where[0].in[0]: must be text, not the number 1; put it in quotes",
        ),
        (
            filtered(json!([{"value_below": 1.5}])),
            "where[0].value_below: must be text, not the number 1.5; put it in quotes",
        ),
        (
            filtered(json!([{"value_at_least": "1e3"}])),
            "where[0].value_at_least: `1e3` is not a decimal with at most 12 digits before and 6 after the point",
        ),
        (
            metric(json!({
                "type": "ratio", "denominator_event": "e", "denominator_where": [{"metadata": "a", "in": []}]
            })),
            "denominator_where[0].in: 0 texts is not in 1 to 100",
        ),
        (metric(json!({"type": "ratio"})), "denominator_event: this type of metric needs it"),
        (
            metric(json!({"type": "ratio", "denominator_event": null})),
            "denominator_event: this type of metric needs it",
        ),
        (
            metric(json!({"type": "mean", "quantile": 0.5})),
            "quantile: does not belong to this type of metric",
        ),
        (metric(json!({"type": "mean", "winsorize": 0.5})), "winsorize: 0.5 is not in (0.5, 1)"),
        (
            metric(json!({"type": "conversion", "winsorize": 0.9})),
            "winsorize: does not belong to this type of metric",
        ),
        (metric(json!({"type": "quantile", "quantile": 1})), "quantile: 1 is not in (0, 1)"),
        (
            metric(json!({"type": "retention", "retention_days": [0, 7]})),
            "retention_days: [0, 7] is not first <= last in 1 to 365",
        ),
        (metric(json!({"type": "funnel", "then_events": []})), "then_events: this type of metric needs it"),
        (
            of("metrics_layers_lists.json", "/9/members_sha256", json!("E3B0")),
            "members_sha256: not 64 lower-case hexadecimal digits",
        ),
        (of("metrics_layers_lists.json", "/9/members", json!(-1)), "members: must be 0 or more, not -1"),
        (
            of("flags.json", "/1/variants/0/value", json!(1.5)),
            "variants[0].value: 1.5 is not of the flag's value_type",
        ),
        (of("flags.json", "/1/variants", json!([])), "variants: 0 variants is not in 1 to 100"),
        (
            of("flags.json", "/0/prerequisites/0/variants", json!([])),
            "prerequisites[0].variants: names none, so the flag would never serve by its rules",
        ),
        (of("settings.json", "/key", json!("other")), "key: there is one definition of settings, `platform`"),
        (
            of("settings.json", "/retention_days/exposures", json!(36_501)),
            "retention_days.exposures: 36501 is not in 0 to 36500",
        ),
    ] {
        let errors = parse(&document).expect_err(&document.to_string());
        assert_eq!(messages(&errors)[0], error, "{document}");
        assert!(schema.refusal(&document).is_some(), "the schema takes {document}");
    }
}

#[test]
fn refused_by_the_parser_alone() {
    let schema = Schema::new();
    let of = |pointer: &str, value: Value| {
        let mut document = valid_json("experiment.json");
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let deep = (0..8).fold(json!({"attribute": "a", "exists": true}), |deep, _| json!({"not": deep}));
    for (document, error) in [
        (of("/variants/1/key", json!("control")), "variants[1].key: `control` is used twice"),
        (of("/control", json!("nobody")), "control: `nobody` is not one of the variants"),
        (
            of("/variants/0/weight", json!(4_999)),
            "variants[0]: its ranges hold 500000 buckets, its weight is 499900; leave the ranges out, and they are \
             allocated",
        ),
        (
            of("/variants/1/ranges", json!([[499_999, 833_299]])),
            "variants: [0, 500000) and [499999, 833299) overlap",
        ),
        (
            of("/variants/1/ranges", json!([[833_300, 500_000]])),
            "variants[1].ranges[0]: [833300, 500000) is not a range of buckets: it must be non-empty and inside \
             [0, 1000000)",
        ),
        (of("/metrics/secondary/0", json!("purchase")), "metrics.secondary[0]: `purchase` is named twice"),
        (
            of("/metrics/margins", json!({"revenue": 0.5})),
            "metrics.margins.revenue: `revenue` is no guardrail of the experiment; name it in `metrics.guardrails`, or \
             leave it out",
        ),
        (of("/targeting/1/when", deep), "targeting[1].when: nests deeper than 8"),
        (
            of("/plan/schedule/end", json!("2026-02-01T00:00:00Z")),
            "plan.schedule.end: 2026-02-01T00:00:00.000000Z is not after the start, 2026-02-01T00:00:00.000000Z",
        ),
        (
            of("/plan/schedule/start", json!("tomorrow")),
            "plan.schedule.start: `tomorrow` is not a time such as 2026-01-31T12:00:00.000000Z",
        ),
        (
            of("/plan/schedule/start", json!("1969-12-31T23:59:59Z")),
            "plan.schedule.start: `1969-12-31T23:59:59Z` is outside 1970 to 2261",
        ),
    ] {
        assert_eq!(schema.refusal(&document), None, "{document}");
        let errors = parse(&document).expect_err(&document.to_string());
        assert_eq!(messages(&errors), [error], "{document}");
    }
}

#[test]
fn a_share_in_percent_is_the_same_in_basis_points() {
    let schema = Schema::new();
    for (file, pointer, percentage, basis_points) in [
        ("experiment.json", "/rollout", "12.5%", 1_250),
        ("experiment.json", "/slots", "25%", 2_500),
        ("experiment.json", "/variants/1/weight", "33.33%", 3_333),
        ("flags.json", "/0/rules/0/rollout", "0.01%", 1),
        ("flags.json", "/0/rules/1/ramp/0/rollout", "5%", 500),
        ("finished.json", "/serve/ramp/0/rollout", "0.5%", 50),
        ("flags.json", "/0/rules/1/split/1/weight", "99.99%", 9_999),
    ] {
        let with = |share: Value| {
            let mut document = valid_json(file);
            *document.pointer_mut(pointer).unwrap() = share;
            document
        };
        let written = with(json!(percentage));
        assert_eq!(schema.refusal(&written), None, "{written}");
        assert_eq!(parse(&written).unwrap(), parse(&with(json!(basis_points))).unwrap(), "{written}");
    }
    // A record of the log has only basis points.
    let mut layerless = json!({"key": "e", "variants": [], "control": "a", "metrics": {"primary": "m"}});
    layerless["rollout"] = json!("50%");
    let refused = Definition::from_json(schemas::definition::Kind::Experiment, layerless).unwrap_err();
    assert_eq!(refused.to_string(), "rollout: must be a whole number, not the text `50%`");
}
