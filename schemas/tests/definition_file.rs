//! Definition files as people write them: what is accepted, and the exact error, with line and field, for
//! what is refused.

use schemas::definition::{Definition, parse_file};

/// Returns the errors of a file, one per line, or the kinds and keys of its definitions.
fn parse_result(text: &str) -> String {
    match parse_file(text) {
        Ok(definitions) => definitions
            .iter()
            .map(|definition| format!("{} {}", definition.kind(), definition.key()))
            .collect::<Vec<_>>()
            .join(", "),
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(parse_result(text), expected, "\n{text}");
}

/// An experiment with comments, blank lines and nested fields, for tests of line numbers.
const YAML: &str = "\
# The button.
kind: experiment
key: button

variants:
  - key: control
    weight: 5000
  # The new one.
  - key: treatment
    weight: 5000
    description: >
      Green,
      and larger.
control: control
metrics:
  primary: purchase
  guardrails:
    - refund
targeting:
  - key: adults
    when:
      all:
        - {attribute: age, at_least: 18}
        - attribute: region
          in:
            - EU
            - US
plan:
  alpha: 0.05
  schedule:
    start: 2026-01-01T00:00:00Z
";

const JSON: &str = r#"
{
	"kind": "experiment",
	"key": "button",
	"variants": [
		{"key": "control", "weight": 5000},
		{
			"key": "treatment",
			"weight": 5000
		}
	],
	"control":
		"control",
	"metrics": {"primary": "purchase",
		"guardrails": ["refund"]}
}
"#;

/// Returns `YAML` or `JSON` with `part`, which must occur once, replaced.
fn with(text: &str, part: &str, replacement: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "{part}");
    text.replace(part, replacement)
}

#[test]
fn every_way_to_put_definitions_into_a_file() {
    check(YAML, "experiment button");
    check(JSON, "experiment button");
    check("kind: layer\nkey: a\n---\nkind: layer\nkey: b\n", "layer a, layer b");
    check("---\nkind: layer\nkey: a\n...\n---\n---\nkind: layer\nkey: b\n---\n", "layer a, layer b");
    check(
        "- kind: layer\n  key: a\n- {kind: layer, key: b}\n---\nkind: layer\nkey: c\n",
        "layer a, layer b, layer c",
    );
    check(r#"[{"kind": "layer", "key": "a"}, {"kind": "layer", "key": "b"}]"#, "layer a, layer b");
    check("[\n\t{\n\t\t\"kind\":\"layer\",\n\t\t\"key\":\"a\"\n\t}\n]\n", "layer a");
    check(
        "%YAML 1.2\n---\n# One.\nkind: layer # it is\nkey: a#b\n",
        "line 5: key: `a#b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    );
    check("\u{feff}kind: layer\r\nkey: a\r\n", "layer a");
    check("\u{feff}{\"kind\": \"layer\",\r\n \"key\": \"a\"}", "layer a");
    check("kind: layer\nkey: 'a'\ndescription: \"b\"\n", "layer a");
}

#[test]
fn a_file_without_definitions_is_refused() {
    for text in ["", "\n\n", "# Later.\n", "---\n", "---\n---\n", "[]", "null", "~"] {
        check(text, "line 1: the file holds no definition");
    }
}

#[test]
fn both_escapes_of_a_character_in_json() {
    let described = |text: &str| match &parse_file(text).unwrap()[0] {
        Definition::Layer(layer) => layer.description.clone(),
        other => panic!("{other:?}"),
    };
    let json =
        |text: &str| described(&format!(r#"{{"kind": "layer", "key": "a", "description": "{text}"}}"#));
    assert_eq!(json(r"\ud83c\udf89 \u00e9\n\/\\"), "🎉 é\n/\\");
    assert_eq!(json(r"\\ud83c\\udf89"), r"\ud83c\udf89");
    assert_eq!(json(r"\uD83D\uDE00\uD83D\uDE00"), "😀😀");
    assert_eq!(described("kind: layer\nkey: a\ndescription: '\\ud83c\\udf89'\n"), r"\ud83c\udf89");
    check(
        "{\"kind\": \"layer\",\n\"key\": \"a\",\n\"description\": \"\\ud83c\"}",
        "line 3: neither YAML nor JSON: while parsing a quoted scalar, found invalid Unicode character escape code",
    );
}

#[test]
fn lines_of_nested_fields_in_yaml() {
    for (part, replacement, expected) in [
        (
            "weight: 5000\n  #",
            "weight: lots\n  #",
            "line 7: variants[0].weight: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything, not the text `lots`",
        ),
        (
            "    weight: 5000\n  #",
            "    wieght: 5000\n  #",
            "line 7: variants[0].wieght: no such field; there can be key, weight, ranges, value, description",
        ),
        (
            "- key: treatment\n    weight: 5000",
            "- key: treatment",
            "line 9: variants[1]: `weight` is missing",
        ),
        (
            "    - refund",
            "    - a/b",
            "line 18: metrics.guardrails[0]: `a/b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        ),
        (
            "    - refund",
            "    - refund\n    - purchase",
            "line 19: metrics.guardrails[1]: `purchase` is named twice",
        ),
        ("  primary: purchase\n", "", "line 15: metrics: `primary` is missing"),
        (
            "at_least: 18",
            "at_least: old",
            "line 23: targeting[0].when.all[0].at_least: must be a number, not the text `old`",
        ),
        (
            "in:\n",
            "is:\n",
            "line 25: targeting[0].when.all[1].is: no such field; there can be all, any, not, attribute, equals, in, has_any, has_all, in_list, above, at_least, below, at_most, starts_with, ends_with, contains, matches, version_equals, version_above, version_at_least, version_below, version_at_most, before, after, exists",
        ),
        (
            "attribute: region",
            "exists: true",
            "line 24: targeting[0].when.all[1]: a condition is {all: [...]}, {any: [...]}, {not: {...}} or an attribute with exactly one operator",
        ),
        ("alpha: 0.05", "alpha: 5", "line 29: plan.alpha: 5 is not in (0, 0.5]"),
        ("alpha: 0.05", "alpha: 1e-10", "line 29: plan.alpha: 1e-10 is below 1e-9"),
        ("alpha: 0.05", "alpha: 5 %", "line 29: plan.alpha: must be a number, not the text `5 %`"),
        (
            "start: 2026-01-01T00:00:00Z",
            "start: 2026-01-01",
            "line 31: plan.schedule.start: `2026-01-01` is not a time such as 2026-01-31T12:00:00.000000Z",
        ),
        ("control: control", "control: contrl", "line 14: control: `contrl` is not one of the variants"),
        ("control: control", "", "line 2: `control` is missing"),
        ("key: treatment\n", "key: control\n", "line 9: variants[1].key: `control` is used twice"),
    ] {
        check(&with(YAML, part, replacement), expected);
    }
}

#[test]
fn lines_of_nested_fields_in_json() {
    for (part, replacement, expected) in [
        (
            "5000},",
            "50000},",
            "line 6: variants[0].weight: 50000 is not a share in basis points: 0 to 10000, 10000 being everything",
        ),
        (
            "5000\n",
            "5000.5\n",
            "line 9: variants[1].weight: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything, not the number 5000.5",
        ),
        (
            "5000\n",
            "\"5000\"\n",
            "line 9: variants[1].weight: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything, not the text `5000`",
        ),
        // The line of the name, not of the value.
        ("\t\t\"control\",", "\t\t7,", "line 12: control: must be text, not the number 7; put it in quotes"),
        ("\"refund\"", "null", "line 15: metrics.guardrails[0]: must be text, not nothing (null)"),
        ("[\"refund\"]", "\"refund\"", "line 15: metrics.guardrails: must be a list, not the text `refund`"),
        (
            "\"kind\"",
            "\"Kind\"",
            // The line of the whole definition, which begins with its brace.
            "line 2: the definition has no `kind`: one of flag, experiment, layer, metric, list, settings",
        ),
    ] {
        check(&with(JSON, part, replacement), expected);
    }
}

#[test]
fn weights_within_a_file() {
    check(
        &with(YAML, "weight: 5000\n  #", "weight: 5001\n  #"),
        "line 5: variants: the weights add up to 100.01%, 1 basis point too many",
    );
    // Whether a smaller sum is allowed depends on the current definition, so the log's rule decides it.
    check(&with(YAML, "weight: 5000\n  #", "weight: 4999\n  #"), "experiment button");
}

#[test]
fn a_newcomers_percentages() {
    let halves = "\
kind: experiment
key: button
variants:
  - key: control
    weight: 50%
  - {key: treatment, weight: 50%}
control: control
metrics: {primary: purchase}
rollout: 12.5%
";
    let in_points = halves.replace("50%", "5000").replace("12.5%", "1250");
    assert_eq!(parse_file(halves).unwrap(), parse_file(&in_points).unwrap());
    check(
        &halves.replace("weight: 50%}", "weight: 50.01%}"),
        "line 3: variants: the weights add up to 100.01%, 1 basis point too many",
    );
    check(
        &halves.replace("weight: 50%}", "weight: 33.333%}"),
        "line 6: variants[1].weight: the text `33.333%` has more than two decimals",
    );
    check(
        &halves.replace("weight: 50%\n", "weight: half\n").replace("12.5%", "0.5"),
        "line 9: rollout: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything, not the number 0.5\n\
         line 5: variants[0].weight: must be a percentage such as 50% or 33.33%, or basis points: 0 to 10000, 10000 being everything, not the text `half`",
    );
}

#[test]
fn a_name_given_twice() {
    check("kind: layer\nkey: a\nowner: b\nkey: c\n", "line 4: key: is given twice");
    check("{\"kind\": \"layer\", \"key\": \"a\",\n\"key\": \"a\"}", "line 2: key: is given twice");
    check(
        &with(YAML, "  primary: purchase\n", "  primary: purchase\n  primary: visit\n"),
        "line 17: metrics.primary: is given twice",
    );
    // A point in a name does not separate two fields.
    check(
        "kind: flag\nkey: a\nvalue_type: json\nvariants:\n- key: x\n  value: {a.b: 1, a: {b: 1}}\ndefault_variant: x\n",
        "flag a",
    );
}

#[test]
fn yaml_features_that_definitions_do_not_use_are_refused() {
    check(
        "kind: layer\nkey: &k a\n",
        "line 2: key: anchors are not used in definitions; write the value out where it is needed",
    );
    check(
        "kind: layer\nkey: a\nowner: &o web\ndescription: *o\n",
        "line 3: owner: anchors are not used in definitions; write the value out where it is needed\n\
         line 4: description: aliases are not used in definitions; write the value out",
    );
    check(
        "kind: layer\nkey: *k\n",
        "line 2: neither YAML nor JSON: while parsing node, found unknown anchor",
    );
    check("kind: layer\nkey: !!str 7\n", "line 2: key: tags are not used in definitions; leave it out");
    check("!layer\nkey: a\n", "line 1: tags are not used in definitions; leave it out");
    check("kind: layer\nkey: a\n7: b\n", "line 3: 7: a name must be text; put it in quotes");
    check("kind: layer\nkey: a\n? [b]\n: c\n", "line 3: ?: a name must be text");
    // Ten lists, each with ten references to the one before.
    let laughs: String =
        (1..10).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))).collect();
    assert!(parse_result(&format!("a0: &a0 [x]\n{laughs}")).starts_with("line 1: a0: anchors are not used"));
}

#[test]
fn words_that_other_yaml_takes_for_true_are_text() {
    let flag = |value_type: &str, value: &str| {
        format!(
            "kind: flag\nkey: f\nvalue_type: {value_type}\nvariants:\n- {{key: x, value: {value}}}\ndefault_variant: x\n"
        )
    };
    for word in ["yes", "no", "on", "off", "y", "n", "Yes", "NO"] {
        check(&flag("string", word), "flag f");
        check(
            &flag("boolean", word),
            &format!("line 5: variants[0].value: \"{word}\" is not of the flag's value_type"),
        );
    }
    for word in ["true", "True", "TRUE", "false"] {
        check(&flag("boolean", word), "flag f");
    }
    check("kind: layer\nkey: no\n", "layer no");
    check("kind: layer\nkey: true\n", "line 2: key: must be text, not true; put it in quotes");
    check("kind: layer\nkey: null\n", "line 2: key: must be text, not nothing (null)");
    check("kind: layer\nkey:\n", "line 2: key: must be text, not nothing (null)");
    check(
        &with(YAML, "in:\n            - EU\n            - US\n", "version_at_least: 1.10\n"),
        "line 25: targeting[0].when.all[1].version_at_least: must be text, not the number 1.1; put it in quotes",
    );
    check(
        &format!("{}enabled: yes\n", flag("string", "a")),
        "line 7: enabled: must be true or false, not the text `yes`",
    );
}

#[test]
fn numbers_keep_their_value_or_are_refused() {
    let list = |members: &str| {
        format!("kind: list\nkey: l\nmembers_sha256: \"{}\"\nmembers: {members}\n", "0".repeat(64))
    };
    let members = |text: &str| match parse_file(&list(text)).unwrap().remove(0) {
        Definition::List(list) => list.members,
        other => panic!("{other:?}"),
    };
    assert_eq!(members("0"), 0);
    assert_eq!(members("+7"), 7);
    assert_eq!(members("007"), 7);
    assert_eq!(members("0x1F"), 31);
    assert_eq!(members("0o17"), 15);
    assert_eq!(members("1e3"), 1_000);
    assert_eq!(members("1000.0"), 1_000);
    assert_eq!(members("18446744073709551615"), u64::MAX);
    for (text, error) in [
        (
            "18446744073709551616",
            "18446744073709551616 is too large for a number; if it is a name, put it in quotes",
        ),
        (
            "-9223372036854775809",
            "-9223372036854775809 is too large for a number; if it is a name, put it in quotes",
        ),
        (
            "0xFFFFFFFFFFFFFFFFF",
            "0xFFFFFFFFFFFFFFFFF is too large for a number; if it is a name, put it in quotes",
        ),
        ("1e999", "1e999 is too large for a number; if it is a name, put it in quotes"),
        (".inf", "`.inf` is not a finite number"),
        ("-.INF", "`-.INF` is not a finite number"),
        (".nan", "`.nan` is not a finite number"),
        ("-1", "must be 0 or more, not -1"),
        ("1e30", "must be a whole number, not the number 1000000000000000000000000000000"),
        ("1_000", "must be a whole number, not the text `1_000`"),
        ("1,000", "must be a whole number, not the text `1,000`"),
        ("0x", "must be a whole number, not the text `0x`"),
        ("-x", "must be a whole number, not the text `-x`"),
    ] {
        check(&list(text), &format!("line 4: members: {error}"));
    }
    check(&with(YAML, "alpha: 0.05", "horizon_units: 4294967296"), "experiment button");
    check(
        &with(YAML, "key: button", "key: button\nphase: 4294967296"),
        "line 4: phase: 4294967296 is too large",
    );
}

#[test]
fn a_text_that_is_not_yaml_is_refused() {
    let says = |text: &str, line: usize, what: &str| {
        check(text, &format!("line {line}: neither YAML nor JSON: {what}"));
    };
    says("kind: layer\nkey: [a\nowner: b\n", 3, "illegal placement of ':' indicator");
    says("kind: layer\n key: a\n", 2, "mapping values are not allowed in this context");
    says(
        "{\"kind\": \"layer\",\n \"key\": \"a\"\n",
        3,
        "while parsing a flow mapping, did not find expected ',' or '}'",
    );
    says(
        "{\"kind\": \"layer\",\n \"key\" \"a\"}\n",
        2,
        "invalid trailing content after double-quoted scalar",
    );
    says("kind: layer\n\tkey: a\n", 2, "a tab is no indentation; use spaces");
    says("kind: layer\nkey: \"a\n", 2, "while scanning a quoted scalar, found unexpected end of stream");
    says("kind: layer\nkey: a\n---\nkind: @layer\n", 4, "unexpected character: `@'");
}

#[test]
fn all_errors_of_all_definitions_at_once() {
    let text = "\
kind: layer
kee: a
---
- kind: experiment
  key: e
  variants:
  - {key: a, weight: 6000}
  - {key: a, weight: 6000}
  control: b
  metrics: {primary: m, guardrails: [m]}
  plan: {alpha: 1, power: 0}
- kind: leyer
- kind: layer
  key: fine
---
kind: layer
key: a
owner: *nobody
";
    check(text, "line 18: neither YAML nor JSON: while parsing node, found unknown anchor");
    check(
        &with(text, "*nobody", "!nobody"),
        "line 2: kee: no such field; there can be key, owner, description, salt, cooldown_hours\n\
         line 8: variants[1].key: `a` is used twice\n\
         line 9: control: `b` is not one of the variants\n\
         line 6: variants: the weights add up to 120%, 2000 basis points too many\n\
         line 10: metrics.guardrails[0]: `m` is named twice\n\
         line 11: plan.alpha: 1 is not in (0, 0.5]\n\
         line 11: plan.power: 0 is not in [0.5, 1)\n\
         line 12: kind: `leyer` is none of flag, experiment, layer, metric, list, settings\n\
         line 18: owner: tags are not used in definitions; leave it out",
    );
}

#[test]
fn the_depth_of_nesting_is_bounded() {
    let deep = |levels: usize, open: &str, close: &str| {
        format!(
            "kind: flag\nkey: f\nvalue_type: json\ndefault_variant: x\nvariants:\n- key: x\n  value: {}1{}\n",
            open.repeat(levels),
            close.repeat(levels)
        )
    };
    // The value itself is at the third level, in a variant in a list.
    check(&deep(61, "[", "]"), "flag f");
    let place = "[0]".repeat(61);
    let error = format!("line 7: variants[0].value{place}: nests deeper than 64");
    check(&deep(62, "[", "]"), &error);
    check(&deep(200, "[", "]"), &error);
    check(&deep(300, "[", "]"), "line 7: neither YAML nor JSON: recursion limit exceeded");
    check(&deep(100_000, "[", "]"), "line 7: neither YAML nor JSON: recursion limit exceeded");
    // No form overflows the stack.
    check(
        &format!("kind: layer\nkey: a\nowner:\n  {}b\n", "- ".repeat(100_000)),
        &format!("line 4: owner{}: nests deeper than 64", "[0]".repeat(63)),
    );
    let when =
        (0..10).fold("{attribute: a, exists: true}".to_owned(), |inner, _| format!("{{not: {inner}}}"));
    check(
        &with(YAML, "{attribute: age, at_least: 18}", &when),
        "line 21: targeting[0].when: nests deeper than 8",
    );
}

#[test]
fn tabs_separate_and_do_not_indent() {
    let spaced = |text: &str| text.replace('\t', " ");
    for text in [
        "kind:\tlayer\nkey:\ta\n",
        "kind:\t\tlayer\t\nkey: \ta\n",
        "kind:\tlayer\t# it is\nkey:\t \ta\t \n",
        "kind\t: layer\nkey\t:\ta\n",
        "-\tkind: layer\n  key: a\n",
        "- {kind:\tlayer,\tkey:\ta\t}\t\n",
        "{kind:\tlayer,\n\tkey:\ta}\n",
        "---\tkind: layer\nkey: a\n".replace("---\tkind", "---\nkind").as_str(),
        "{\"kind\":\t\"layer\",\r\n\t\"key\"\t:\t\"a\"}\r\n",
        "kind:\tlayer\r\nkey:\ta\r\n",
        "kind:\t'layer'\nkey:\t\"a\"\n\t\n\t# The end.\n",
        "'kind':\tlayer\n\"key\":\ta\n",
    ] {
        check(text, "layer a");
        check(&spaced(text), "layer a");
    }
    let described = |text: &str| match &parse_file(text).unwrap()[0] {
        Definition::Layer(layer) => layer.description.clone(),
        other => panic!("{other:?}"),
    };
    for (written, description) in [
        ("\ta:\tb", None),
        ("\ta\tb", Some("a\tb")),
        ("\ta:b\tc", Some("a:b\tc")),
        ("\t'a:\tb'", Some("a:\tb")),
        ("\t\"a:\tb\"\t# c:\td", Some("a:\tb")),
        ("\t\"a:\\\"\tb:\tc\"", Some("a:\"\tb:\tc")),
        ("\t'it''s:\ta'", Some("it's:\ta")),
        ("\tit's\t'a", Some("it's\t'a")),
        ("\té\tü", Some("é\tü")),
        ("\t|\n  a:\tb\n  \tc:\td\n", Some("a:\tb\n\tc:\td\n")),
        ("\t>-\t# folded\n  a:\tb\n  c:\td\n", Some("a:\tb c:\td")),
        ("\t|2\n    a:\tb\n", Some("  a:\tb\n")),
        ("\t'a:\tb\n  c:\td'", Some("a:\tb c:\td")),
        ("\ta\n \tb", Some("a b")),
        ("\t5:30\tam", Some("5:30\tam")),
    ] {
        for ending in ["\n", "\r\n"] {
            let text =
                format!("kind:\tlayer\nkey:\ta\ndescription:{written}\nowner:\tweb\n").replace('\n', ending);
            match description {
                Some(description) => assert_eq!(described(&text), description, "{text:?}"),
                None => check(
                    &text,
                    "line 3: neither YAML nor JSON: mapping values are not allowed in this context",
                ),
            }
        }
    }
    for (text, line) in [
        ("kind: layer\n\tkey: a\n", 2),
        ("kind: layer\nkey: a\n\n\towner: b\n", 4),
        ("kind: experiment\nvariants:\n\t- {key: a, weight: 1}\n", 3),
        ("kind: experiment\nvariants:\n  - key: a\n\t  weight: 1\n", 4),
        ("kind: layer\nkey: a\ndescription: |\n\tb\n", 4),
        ("kind: experiment\nplan:\n\talpha: 0.1\n", 3),
        ("kind: experiment\nplan:\n \talpha: 0.1\n", 3),
        ("kind: experiment\nplan:\n  alpha: 0.1\n \tpower: 0.8\n", 4),
        ("kind: experiment\nvariants:\n \t- {key: a, weight: 1}\n", 3),
        ("kind: experiment\nvariants:\n  - key: a\n \t- key: b\n", 4),
        ("\tkind: layer\n\tkey: a\n", 1),
    ] {
        check(text, &format!("line {line}: neither YAML nor JSON: a tab is no indentation; use spaces"));
    }
    // A list in a list needs a column, which a tab does not define.
    check(
        "-\t- kind: layer\n",
        "line 1: neither YAML nor JSON: '-' must be followed by a valid YAML whitespace",
    );
    // Errors have the lines and fields of the file.
    check(
        "kind:\tlayer\nkey:\ta b\nowner:\t7\n",
        "line 2: key: `a b` is not a key: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    );
}

/// A list on one line had 22 definitions, and the error named line 1.
#[test]
fn where_a_line_does_not_tell_the_definition_it_is_named() {
    let layer = |key: &str| format!(r#"{{"kind": "layer", "key": "{key}", "cooldown_hours": "x"}}"#);
    check(
        &format!(r#"[{}, {{"kind": "layer"}}, {}, {{"kind": 7, "key": "d"}}]"#, layer("a"), layer("c")),
        "line 1: definition 1, `a`: cooldown_hours: must be a whole number, not the text `x`\n\
         line 1: definition 2: `key` is missing\n\
         line 1: definition 3, `c`: cooldown_hours: must be a whole number, not the text `x`\n\
         line 1: definition 4, `d`: kind: must be one of flag, experiment, layer, metric, list, settings",
    );
    // The first ends where the second begins.
    let mixed = "[{\"kind\": \"layer\",\n\"key\": 7}, {\"kind\": \"layer\",\n\"key\": 8}]";
    check(
        mixed,
        "line 2: definition 1: key: must be text, not the number 7; put it in quotes\n\
         line 3: key: must be text, not the number 8; put it in quotes",
    );
    check(&format!("[{}]", layer("a")), "line 1: cooldown_hours: must be a whole number, not the text `x`");
}
