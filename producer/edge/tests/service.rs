//! The edge as any client sees it: plain HTTP requests to the real service on a real Kafka.

use std::time::Duration;

use schemas::avro;
use serde_json::{Value, json};

use crate::edge_fixture::{
    CLIENT_TOKEN, DEFINITIONS, EventStream, Fixture, SERVER_TOKEN, TOKENS, send, within,
};

#[test]
fn every_type_of_value_and_every_reason() {
    let fixture = Fixture::new("values");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let raw = |key: &str, context: &str| {
        let answer = edge.single(key, context);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{answer:?}"
        );
        answer.text
    };
    assert_eq!(
        raw("on-sale", "{}"),
        r#"{"key":"on-sale","value":true,"reason":"STATIC","variant":"on","metadata":{}}"#
    );
    // A kill switch serves its variant, not the code's default.
    assert_eq!(
        raw("switched-off", "{}"),
        r#"{"key":"switched-off","value":false,"reason":"STATIC","variant":"off","metadata":{}}"#
    );
    assert_eq!(
        raw("greeting", r#"{"country": "FR"}"#),
        r#"{"key":"greeting","value":"bonjour \"ü\"","reason":"TARGETING_MATCH","variant":"bonjour","metadata":{}}"#
    );
    assert_eq!(
        raw("greeting", r#"{"country": "DE"}"#),
        r#"{"key":"greeting","value":"hello","reason":"DEFAULT","variant":"hello","metadata":{}}"#
    );
    assert_eq!(
        raw("retries", r#"{"account_number": 9007199254740993}"#),
        r#"{"key":"retries","value":9007199254740993,"reason":"TARGETING_MATCH","variant":"many","metadata":{}}"#
    );
    assert_eq!(
        raw("retries", r#"{"account_number": 9007199254740992}"#),
        r#"{"key":"retries","value":3,"reason":"DEFAULT","variant":"few","metadata":{}}"#
    );
    assert_eq!(
        raw("factor", "{}"),
        r#"{"key":"factor","value":1.0,"reason":"STATIC","variant":"whole","metadata":{}}"#
    );
    assert_eq!(
        raw("layout", "{}"),
        r#"{"key":"layout","value":{"columns":[1,2.5,null],"title":"w"},"reason":"STATIC","variant":"wide","metadata":{}}"#
    );
    // The unit of another type is the attribute of that name.
    let by_account: Value = serde_json::from_str(&raw("by-account", r#"{"account": "a1"}"#)).unwrap();
    assert!(["SPLIT", "DEFAULT"].contains(&by_account["reason"].as_str().unwrap()), "{by_account}");
    // The body may leave out everything.
    for body in ["{}", r#"{"context": null}"#, r#"{"context": {"targetingKey": ""}}"#] {
        assert_eq!(edge.post("/ofrep/v1/evaluate/flags/on-sale", body).status, 200, "{body}");
    }
}

#[test]
fn every_error_has_a_whole_body() {
    let fixture = Fixture::new("errors");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[("SPLITSTREAM_EDGE__BODY_BYTES", "4096")]);
    let single = "/ofrep/v1/evaluate/flags/checkout";
    let bulk = "/ofrep/v1/evaluate/flags";
    let deep = format!(r#"{{"context": {{"a": {}{}}}}}"#, "[".repeat(1_500), "]".repeat(1_500));
    let large = format!(r#"{{"context": {{"a": "{}"}}}}"#, "x".repeat(5_000));
    let long_id = format!(r#"{{"context": {{"targetingKey": "{}", "age": 20}}}}"#, "x".repeat(257));
    for (path, body, status, code) in [
        (single, r#"{"context": {"age": 20}}"#, 400, "TARGETING_KEY_MISSING"),
        (single, r#"{"context": {"targetingKey": "", "age": 20}}"#, 400, "TARGETING_KEY_MISSING"),
        (single, long_id.as_str(), 400, "INVALID_CONTEXT"),
        (single, r#"{"context": {"targetingKey": 7}}"#, 400, "INVALID_CONTEXT"),
        (single, r#"{"context": "u1"}"#, 400, "INVALID_CONTEXT"),
        (single, "{", 400, "PARSE_ERROR"),
        (single, "", 400, "PARSE_ERROR"),
        (single, deep.as_str(), 400, "PARSE_ERROR"),
        (single, large.as_str(), 413, "GENERAL"),
        ("/ofrep/v1/evaluate/flags/nobody", "{}", 404, "FLAG_NOT_FOUND"),
        ("/ofrep/v1/evaluate/flags/a/b%20c", "{}", 404, "FLAG_NOT_FOUND"),
        (bulk, r#"{"context": []}"#, 400, "INVALID_CONTEXT"),
        (bulk, "nope", 400, "PARSE_ERROR"),
        (bulk, deep.as_str(), 400, "PARSE_ERROR"),
        (bulk, large.as_str(), 413, "GENERAL"),
        ("/elsewhere", "{}", 404, "GENERAL"),
        ("/ofrep/v1/track", "[]", 400, "PARSE_ERROR"),
    ] {
        let answer = edge.post(path, body);
        let json = answer.json();
        assert_eq!((answer.status, &json["errorCode"]), (status, &json!(code)), "{path} {answer:?}");
        assert!(json["errorDetails"].is_string() && json["metadata"] == json!({}), "{answer:?}");
        // Where a configuration was asked, its version tells whether it is the one that the client knows of.
        let asked = ["TARGETING_KEY_MISSING", "FLAG_NOT_FOUND"].contains(&code) || body == long_id;
        assert_eq!(answer.header("x-splitstream-version").is_some(), asked, "{path} {answer:?}");
        let has_key = path.starts_with("/ofrep/v1/evaluate/flags/");
        assert_eq!(json["key"].is_string(), has_key, "{path} {answer:?}");
    }
    let not_shown = "show a token: as `Authorization: Bearer ...` or as `X-API-Key`";
    let not_valid =
        "the token that was shown is not valid here: it is unknown, revoked, or of another environment";
    for (headers, why) in [
        (&[("authorization", "Bearer wrong")][..], not_valid),
        (&[("authorization", "Basic wrong")][..], not_shown),
        (&[("authorization", "Bearer  ")][..], not_shown),
        (&[("x-api-key", "wrong")][..], not_valid),
        (&[("x-api-key", "")][..], not_shown),
    ] {
        for path in [single, bulk, "/ofrep/v1/track"] {
            let answer = edge.post_with(path, "{}", headers);
            let json = answer.json();
            assert_eq!((answer.status, &json["metadata"]), (401, &json!({})), "{answer:?}");
            assert_eq!(json["errorDetails"], why, "{headers:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let get = send("GET", &format!("{}{single}", edge.url()), &[], "");
    assert_eq!((get.status, get.json()["errorCode"].clone()), (405, json!("GENERAL")));
    assert_eq!(get.header("allow"), Some("POST"));
    // One flag that fails does not fail the others.
    let bulk = edge.bulk("{\"age\": 20}", &[]).json();
    let of = |key: &str| bulk["flags"].as_array().unwrap().iter().find(|flag| flag["key"] == key).unwrap();
    assert_eq!(of("checkout")["errorCode"], "TARGETING_KEY_MISSING");
    assert_eq!(of("by-account")["errorCode"], "TARGETING_KEY_MISSING");
    assert_eq!(of("on-sale")["value"], true);
}

#[test]
fn who_may_ask_and_how_often() {
    let fixture = Fixture::new("access");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let path = "/ofrep/v1/evaluate/flags/on-sale";
    let status = |headers: &[(&str, &str)]| edge.post_with(path, "{}", headers).status;
    assert_eq!(status(&[("x-api-key", SERVER_TOKEN)]), 200);
    // No definition is marked as safe for clients, so a client key sees none.
    let client = edge.post_with(path, "{}", &[("x-api-key", CLIENT_TOKEN)]);
    assert_eq!((client.status, client.json()["errorCode"].clone()), (404, json!("FLAG_NOT_FOUND")));
    let none = edge.bulk("{}", &[("x-api-key", CLIENT_TOKEN)]).json();
    assert_eq!(none["flags"], json!([]));

    // A page: the preflight shows no token; the answer names the page's origin.
    let page = ("origin", "https://shop.example");
    let preflight = send(
        "OPTIONS",
        &format!("{}{path}", edge.url()),
        &[
            page,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "if-none-match"),
        ],
        "",
    );
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://shop.example"));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    for header in ["Content-Type", "Authorization", "X-API-Key", "If-None-Match"] {
        assert!(allowed.contains(header), "{allowed}");
    }
    let answer = edge.post_with(path, "{}", &[page]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("ETag") && exposed.contains("Retry-After"), "{exposed}");
    let stranger = edge.post_with(path, "{}", &[("origin", "https://evil.example")]);
    assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (403, None));
    // A page may read that its token is wrong.
    let unknown = edge.post_with(path, "{}", &[page, ("x-api-key", "wrong")]);
    assert_eq!(
        (unknown.status, unknown.header("access-control-allow-origin")),
        (401, Some("https://shop.example"))
    );

    // Rotated by file, without a restart.
    let rotated = TOKENS.replace(SERVER_TOKEN, "server-fedcba9876543210");
    let limited = rotated.replacen("[[token]]", "[[token]]\nrequests_per_second = 1\nburst = 2", 1);
    fixture.file("tokens.toml", "not TOML");
    within(10, "the invalid file is said", || {
        edge.private("/readyz").json()["checks"]["tokens"].as_str().unwrap().contains("is not valid")
    });
    assert_eq!((edge.private("/readyz").status, edge.metric("splitstream_edge_token_file_ok")), (200, 0.0));
    assert_eq!(status(&[]), 200);
    fixture.file("tokens.toml", &limited);
    within(10, "the old token does not count any more", || status(&[]) == 401);
    let new = [("x-api-key", "server-fedcba9876543210")];
    assert_eq!((status(&new), status(&new)), (200, 200));
    let early = edge.post_with(path, "{}", &new);
    assert_eq!((early.status, early.header("retry-after")), (429, Some("1")), "{early:?}");
    assert_eq!(early.json()["metadata"], json!({}));
}

#[test]
fn a_tag_changes_with_all_that_an_answer_depends_on() {
    let fixture = Fixture::new("etag");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let first = edge.bulk(r#"{"targetingKey": "u1", "age": 20, "country": "FR"}"#, &[]);
    assert_eq!((first.status, first.header("x-splitstream-stale")), (200, None));
    let tag = first.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let same = |context: &str, known: &str| edge.bulk(context, &[("if-none-match", known)]);
    let weak = format!("W/{tag}");
    let list = format!("\"other\", {tag}");
    for known in [&tag, &weak, &list, tag.trim_matches('"'), "*"] {
        let again = same(r#"{"country": "FR", "age": 20.0, "targetingKey": "u1"}"#, known);
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{known}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
    }
    // What the web provider sends after a change of an attribute: the old tag.
    let moved = same(r#"{"targetingKey": "u1", "age": 20, "country": "DE"}"#, &tag);
    assert_eq!(moved.status, 200);
    assert_ne!(moved.header("etag"), Some(tag.as_str()));

    let version = first.json()["metadata"]["version"].as_str().unwrap().to_owned();
    fixture.apply(&changed("factor", "default_variant: whole", "default_variant: half"));
    within(10, "the change is served", || edge.single("factor", "{}").json()["value"] == 0.5);
    let after = same(r#"{"targetingKey": "u1", "age": 20, "country": "FR"}"#, &tag);
    assert_eq!(after.status, 200);
    let newer = after.json()["metadata"]["version"].as_str().unwrap().to_owned();
    assert_ne!(newer, version);
    // Whoever has seen a newer configuration than this edge never gets a 304.
    let (log, rest) = newer.split_once('.').unwrap();
    let number: u64 = rest.split('.').next().unwrap().parse().unwrap();
    let own = after.header("etag").unwrap().to_owned();
    let path = format!("/ofrep/v1/evaluate/flags?flagConfigEtag=%22{log}.{}.0%22", number + 1);
    let body = r#"{"context": {"targetingKey": "u1", "age": 20, "country": "FR"}}"#;
    let behind = edge.post_with(&path, body, &[("if-none-match", &own)]);
    assert_eq!((behind.status, behind.header("x-splitstream-stale")), (200, Some("behind")));
    let path = format!("/ofrep/v1/evaluate/flags?flagConfigEtag=%22{newer}%22&flagConfigLastModified=1");
    assert_eq!(edge.post_with(&path, body, &[("if-none-match", &own)]).status, 304);
}

/// The definition of one key of [`DEFINITIONS`], changed.
fn changed(key: &str, from: &str, to: &str) -> String {
    let own = DEFINITIONS.split("---").find(|text| text.contains(&format!("key: {key}\n"))).unwrap();
    assert!(own.contains(from), "{own}");
    own.replacen(from, to, 1)
}

#[test]
fn a_single_read_is_exposed_once_and_a_bulk_read_never() {
    let fixture = Fixture::new("exposures");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let context = r#"{"targetingKey": "u1", "age": 20, "account": "a9", "country": "FR", "region": "EU"}"#;
    let first = edge.single("checkout", context).json();
    let metadata = &first["metadata"];
    assert_eq!(
        (&metadata["experiment"], &metadata["exposure_logged"]),
        (&json!("checkout"), &json!(true)),
        "{first}"
    );
    for _ in 0..3 {
        assert_eq!(edge.single("checkout", context).json(), first);
    }
    let off = edge.post_with(
        "/ofrep/v1/evaluate/flags/checkout",
        r#"{"context": {"targetingKey": "u2", "age": 20}}"#,
        &[("x-splitstream-exposure", "off")],
    );
    assert_eq!(off.json()["metadata"]["exposure_logged"], false);
    let maybe = edge.post_with(
        "/ofrep/v1/evaluate/flags/checkout",
        r#"{"context": {"targetingKey": "u2", "age": 20}}"#,
        &[("x-splitstream-exposure", "maybe")],
    );
    assert_eq!(
        (maybe.status, maybe.json()["errorDetails"].clone()),
        (400, json!("X-Splitstream-Exposure is `maybe` where `on` or `off` is expected"))
    );
    // Not targeted: served, and exposed to nothing.
    let minor = edge.single("checkout", r#"{"targetingKey": "u3", "age": 17}"#).json();
    assert_eq!(
        (&minor["value"], &minor["reason"], &minor["metadata"]),
        (&json!("blue"), &json!("DEFAULT"), &json!({}))
    );
    let bulk = edge.bulk(context, &[]).json();
    let in_bulk = bulk["flags"].as_array().unwrap().iter().find(|flag| flag["key"] == "checkout").unwrap();
    let mut expected = metadata.clone();
    expected.as_object_mut().unwrap().remove("exposure_logged");
    assert_eq!(in_bulk["metadata"], expected);

    within(10, "the exposure is in Kafka", || !fixture.stored("exposures").is_empty());
    let stored = fixture.stored("exposures");
    assert_eq!(stored.len(), 1);
    let exposure = avro::decode_exposure(&stored[0]).unwrap();
    assert_eq!((&*exposure.experiment, &*exposure.variant), ("checkout", first["variant"].as_str().unwrap()));
    assert_eq!((&*exposure.unit_type, &*exposure.unit_id, &*exposure.rule), ("user", "u1", "adults"));
    assert_eq!(exposure.other_ids.iter().collect::<Vec<_>>(), [("account", "a9")]);
    assert_eq!(exposure.attributes.iter().collect::<Vec<_>>(), [("age", "20"), ("region", "EU")]);
    assert_eq!(exposure.sender.service, "edge");
    assert_eq!(exposure.buckets.unwrap().variant, metadata["bucket_variant"].as_u64().unwrap() as u32);
    assert_eq!(edge.metric(r#"splitstream_edge_exposures_total{result="suppressed""#), 3.0);

    // The private port counts, and keeps a sample. What nobody was served is not among the counts.
    let counts = edge.private("/counts").json();
    assert_eq!(counts["environment"], "production");
    assert_eq!(counts["instance"].as_str().unwrap().replace('-', ""), exposure.sender.instance);
    let rows = counts["counts"].as_array().unwrap();
    let row =
        rows.iter().find(|row| row["flag"] == "checkout" && row["variant"] == first["variant"]).unwrap();
    assert!(row["single"].as_u64().unwrap() >= 4 && row["bulk"] == 1 && row["reported"] == 0, "{row}");
    // Midnight may have passed since.
    assert!(row["day"] == counts["today"] || row["day"].as_str() < counts["today"].as_str(), "{row}");
    assert_eq!(rows.iter().filter(|row| row["single"] == 0 && row["bulk"] == 0).count(), 0);
    let samples = edge.private("/samples").json();
    assert_eq!(samples["current"]["seen"], 7);
    assert!(
        samples["current"]["contexts"].as_array().unwrap().contains(&serde_json::from_str(context).unwrap())
    );
    assert_eq!(send("GET", &format!("{}/counts", edge.url()), &[], "").status, 404);
}

#[test]
fn a_stream_says_when_to_ask_again() {
    let fixture = Fixture::new("stream");
    fixture.apply(DEFINITIONS);
    let edge = fixture
        .edge(&[("SPLITSTREAM_EDGE__STREAMS", "2"), ("SPLITSTREAM_EDGE__STREAM_KEEP_ALIVE_MS", "200")]);
    let bulk = edge.bulk("{}", &[]).json();
    let stream = &bulk["eventStreams"][0];
    assert_eq!((&stream["type"], stream["endpoint"].get("origin")), (&json!("sse"), None));
    let uri = stream["endpoint"]["requestUri"].as_str().unwrap();
    assert!(uri.starts_with("/ofrep/v1/stream?token=") && !uri.contains(SERVER_TOKEN), "{uri}");

    // The current revision on every connect, unless the client has it.
    let mut events = EventStream::open(&edge, uri, &[]);
    let (id, data) = events.next().unwrap();
    assert_eq!(bulk["metadata"]["version"], json!(id));
    assert_eq!((&data["type"], &data["etag"]), (&json!("refetchEvaluation"), &json!(format!("\"{id}\""))));
    assert!(data["lastModified"].as_i64().unwrap() > 1_700_000_000);
    let mut resumed = EventStream::open(&edge, uri, &[("Last-Event-ID", &id)]);
    assert!(resumed.is_quiet_for(Duration::from_millis(500)));

    // The bound, and who may not.
    let refused = send("GET", &format!("{}{uri}", edge.url()), &[], "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("30")), "{refused:?}");
    let path = format!("{}/ofrep/v1/stream", edge.url());
    for (path, headers, why) in [
        (path.clone(), &[][..], "show a token: "),
        (format!("{path}?token=wrong"), &[], "the token that was shown is not valid here: "),
        (path, &[("x-api-key", "wrong")], "the token that was shown is not valid here: "),
    ] {
        let refused = send("GET", &path, headers, "");
        assert_eq!(refused.status, 401);
        assert!(refused.json()["errorDetails"].as_str().unwrap().starts_with(why), "{refused:?}");
    }

    // A change is pushed, and what the event names is what is served.
    fixture.apply(&changed("factor", "default_variant: whole", "default_variant: half"));
    let (newer, _) = events.next().unwrap();
    assert_ne!(newer, id);
    assert_eq!(resumed.next().unwrap().0, newer);
    let after = edge.bulk("{}", &[]).json();
    assert_eq!(after["metadata"]["version"], json!(newer));
    drop(resumed);
    within(10, "the stream of a client that has gone ends", || {
        edge.metric("splitstream_edge_streams{") == 1.0
    });

    // A rotated token ends its streams; the address with the token never reaches the log.
    fixture.file("tokens.toml", &TOKENS.replace(SERVER_TOKEN, "server-fedcba9876543210"));
    assert!(events.next().is_none());
    let log = std::fs::read_to_string(edge.service.log_path()).unwrap();
    let ticket = uri.split_once("token=").unwrap().1;
    assert!(!log.contains(ticket) && !log.contains(SERVER_TOKEN), "{log}");
}

#[test]
fn an_instant_that_passes_changes_the_answer_and_is_pushed() {
    let fixture = Fixture::new("epoch");
    fixture.apply(DEFINITIONS);
    let edge = fixture.edge(&[]);
    let context = r#"{"targetingKey": "u1"}"#;
    let uri = edge.bulk(context, &[]).json()["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap()
        .to_owned();
    // On a machine that is busy, `apply` may take longer than the experiment lasts; then another one lasts longer.
    for lasts_s in [4, 16, 64] {
        let key = format!("short-{lasts_s}");
        let end = schemas::Micros::new(sdk::event::now().get() + lasts_s * 1_000_000).unwrap();
        fixture.apply(&format!(
            "{{ kind: experiment, key: {key}, state: running, control: a, metrics: {{ primary: purchase }},
               variants: [{{ key: a, weight: 50%, value: 1 }}, {{ key: b, weight: 50%, value: 2.5 }}],
               plan: {{ schedule: {{ end: '{end}' }} }} }}"
        ));
        within(10, "the experiment is served", || edge.single(&key, context).status == 200);
        let before = edge.bulk(context, &[]);
        let mut events = EventStream::open(&edge, &uri, &[]);
        let (id, _) = events.next().unwrap();
        let running = edge.single(&key, context).json();
        if running["reason"] != "SPLIT" {
            continue;
        }
        // One of its values is a double, so all of them are.
        assert!(running["value"].is_f64(), "{running}");
        let (later, data) = events.next().unwrap();
        let late_us = sdk::event::now().get() - end.get();
        assert!((0..2_000_000).contains(&late_us), "pushed {late_us} us after the instant");
        let (version, _) = id.rsplit_once('.').unwrap();
        assert_eq!(later, format!("{version}.{}", end.get()));
        assert_eq!(data["lastModified"].as_i64().unwrap(), end.get() / 1_000_000);
        let after = edge.bulk(context, &[("if-none-match", before.header("etag").unwrap())]);
        assert_eq!((after.status, after.json()["metadata"]["version"].clone()), (200, json!(later)));
        let ended = edge.single(&key, context);
        assert!(ended.text.contains(r#""value":1.0,"reason":"DEFAULT""#), "{ended:?}");
        return;
    }
    panic!("this machine takes more than a minute to apply a definition");
}
