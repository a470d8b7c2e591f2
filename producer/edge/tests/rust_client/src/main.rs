//! The edge with the unmodified OpenFeature SDK for Rust and its OFREP provider. This provider says `STATIC` of everything,
//! drops the metadata, and returns errors in place of the default, so of a case only its value and its code are checked.
//!
//! Usage: rust-client CASES URL TOKEN

use std::future::Future;
use std::time::{Duration, Instant};

use open_feature::{
    Client, EvaluationContext, EvaluationContextFieldValue, EvaluationDetails, EvaluationError, OpenFeature,
    StructValue, Value,
};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value as Json, json};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [_, cases, url, token] = &std::env::args().collect::<Vec<_>>()[..] else {
        panic!("usage: rust-client CASES URL TOKEN");
    };
    let client = client("shop", url, token).await;
    let cases = std::fs::read(cases).expect("the file of cases can be read");
    let cases: Vec<Json> = serde_json::from_slice(&cases).expect("the cases are JSON");
    let mut checked = 0;
    for case in &cases {
        checked += u32::from(check(&client, case).await);
    }
    assert!(checked > 40, "only {checked} cases");
    tokens(url).await;
    changes(&client).await;
    // Last: what this provider is told about one token, it keeps to for all of them.
    limits(url).await;
    println!("rust: all checks passed");
}

async fn client(name: &str, url: &str, token: &str) -> Client {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("the token is ASCII");
    headers.insert(AUTHORIZATION, value);
    let options = OfrepOptions { base_url: url.to_owned(), headers, ..OfrepOptions::default() };
    let provider = OfrepProvider::new(options).await.expect("the address is one");
    let mut api = OpenFeature::singleton_mut().await;
    api.set_named_provider(name, provider).await;
    api.create_named_client(name)
}

/// Whether the case says anything about this client.
async fn check(client: &Client, shared: &Json) -> bool {
    let own = &shared["except"]["rust"];
    let field = |name: &str| if own[name].is_null() { &shared[name] } else { &own[name] };
    if !own["left_out"].is_null() {
        return false;
    }
    let name = shared["name"].as_str().expect("a case has a name");
    let found = read(client, shared).await;
    match (field("error").as_str(), found) {
        (None, Ok(found)) => {
            assert_eq!(found.value, *field("value"), "{name}");
            assert_eq!(found.reason, Some(open_feature::EvaluationReason::Static), "{name}");
            if let Some(variant) = field("variant").as_str() {
                assert_eq!(found.variant.as_deref(), Some(variant), "{name}");
            }
        }
        (Some(code), Err(error)) => assert_eq!(error.code.to_string(), code, "{name}: {error:?}"),
        (expected, found) => panic!("{name}: {found:?}, expected is {expected:?}"),
    }
    true
}

async fn read(client: &Client, case: &Json) -> Result<EvaluationDetails<Json>, EvaluationError> {
    let flag = case["flag"].as_str().expect("a case has a flag");
    let context = context(&case["context"]);
    let context = Some(&context);
    match case["as"].as_str().expect("a case has a type") {
        "boolean" => {
            client.get_bool_details(flag, context, None).await.map(|found| as_json(found, Json::from))
        }
        "string" => {
            client.get_string_details(flag, context, None).await.map(|found| as_json(found, Json::from))
        }
        "integer" => {
            client.get_int_details(flag, context, None).await.map(|found| as_json(found, Json::from))
        }
        "double" => {
            client.get_float_details(flag, context, None).await.map(|found| as_json(found, Json::from))
        }
        _ => {
            let found = client.get_struct_details::<StructValue>(flag, context, None).await;
            found.map(|found| as_json(found, |value| plain(&Value::Struct(value))))
        }
    }
}

fn as_json<T>(found: EvaluationDetails<T>, json: impl FnOnce(T) -> Json) -> EvaluationDetails<Json> {
    let EvaluationDetails { flag_key, value, reason, variant, flag_metadata } = found;
    EvaluationDetails { flag_key, value: json(value), reason, variant, flag_metadata }
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Struct(value) => {
            value.fields.iter().map(|(name, field)| (name.clone(), plain(field))).collect()
        }
    }
}

fn context(sent: &Json) -> EvaluationContext {
    let mut context = EvaluationContext::default();
    for (name, value) in sent.as_object().into_iter().flatten() {
        match value {
            Json::String(key) if name == "targetingKey" => context.targeting_key = Some(key.clone()),
            Json::String(text) => context.add_custom_field(name, text.as_str()),
            Json::Bool(value) => context.add_custom_field(name, *value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => context.add_custom_field(name, integer),
                None => context.add_custom_field(name, number.as_f64().expect("a number of JSON")),
            },
            other => context.add_custom_field(name, EvaluationContextFieldValue::new_struct(other.clone())),
        }
    }
    context
}

async fn tokens(url: &str) {
    let stranger = client("stranger", url, "wrong").await;
    let refused = stranger.get_bool_value("banner", None, None).await.unwrap_err();
    assert_eq!(refused.message.as_deref(), Some("authentication/authorization error"));
}

/// A flag that is flipped and one that is killed while this runs.
async fn changes(client: &Client) {
    assert_eq!(client.get_float_value("factor", None, None).await, Ok(1.0));
    ask("flip");
    within("the new value", async || client.get_float_value("factor", None, None).await == Ok(0.5)).await;
    assert_eq!(client.get_bool_value("on-sale", None, None).await, Ok(true));
    ask("kill");
    within("the variant of the kill switch", async || {
        client.get_bool_value("on-sale", None, None).await == Ok(false)
    })
    .await;
    let killed = client.get_bool_details("on-sale", None, None).await.unwrap();
    assert_eq!(killed.variant.as_deref(), Some("off"));
    // Integers have all 64 bits; a null within an object is an empty text here.
    let large = EvaluationContext::default().with_custom_field("account_number", 9_007_199_254_740_993_i64);
    assert_eq!(client.get_int_value("retries", Some(&large), None).await, Ok(9_007_199_254_740_993));
    let layout: StructValue = client.get_struct_value("layout", None, None).await.unwrap();
    assert_eq!(plain(&Value::Struct(layout)), json!({"columns": [1, 2.5, ""], "title": "w"}));
}

/// Whoever asks too often is told when to come again, and this provider keeps to it.
async fn limits(url: &str) {
    let limited = client("limited", url, "limited-0123456789abcdef").await;
    let message =
        async || limited.get_bool_value("banner", None, None).await.err().and_then(|error| error.message);
    within("429", async || {
        message().await.is_some_and(|told| told.starts_with("Rate limit exceeded. Retry after"))
    })
    .await;
    let early = message().await;
    assert_eq!(early.as_deref(), Some("Rate limit exceeded. Please wait before making another request."));
    within("an answer again", async || limited.get_bool_value("banner", None, None).await == Ok(true)).await;
}

fn ask(what: &str) {
    println!("{what}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).expect("the test answers");
    assert_eq!(answer, "done\n", "{what}");
}

async fn within<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
