//! The experiment in `growthbook-rust`, by two calls. `check` borrows the attributes, so they may be kept. The client around
//! it, which is what its documentation shows, takes them by value and copies all features for each answer. A rule's
//! conditions are a hash map, so the order in which they are asked, and with it the allocations, differ from run to run.

use std::collections::HashMap;
use std::pin::pin;
use std::task::{Poll, Waker};

use growthbook_rust::client::{GrowthBookClient, GrowthBookClientBuilder, GrowthBookClientTrait};
use growthbook_rust::growthbook::GrowthBook;
use growthbook_rust::model_public::{FeatureResult, GrowthBookAttribute, GrowthBookAttributeValue};
use serde_json::Value as Json;

use crate::library::{Arm, Library};
use crate::user::User;

const PACKAGE: &str = "growthbook-rust";
const EXPERIMENT: &str = include_str!("../experiments/growthbook-rust.json");
const RULES: &str = "/checkout/rules";

pub struct Features(GrowthBook);

impl Library for Features {
    const PACKAGE: &'static str = PACKAGE;
    const CALL: &'static str = "GrowthBook::check";
    const EXPERIMENT: &'static str = EXPERIMENT;
    const RULES: &'static str = RULES;

    type Context<'u> = Option<Vec<GrowthBookAttribute>>;
    type Answer<'a> = FeatureResult;

    fn load(experiment: Json) -> Features {
        Features(GrowthBook {
            forced_variations: None,
            features: serde_json::from_value(experiment).expect("they are features"),
            attributes: None,
            sticky_bucket_service: None,
            saved_groups: HashMap::new(),
        })
    }

    fn context(user: &User) -> Option<Vec<GrowthBookAttribute>> {
        Some(attributes(user))
    }

    fn evaluate(&self, context: &Option<Vec<GrowthBookAttribute>>) -> FeatureResult {
        self.0.check("checkout", context)
    }

    fn arm(answer: &FeatureResult) -> Option<Arm> {
        arm(answer)
    }
}

pub struct Client(GrowthBookClient);

impl Library for Client {
    const PACKAGE: &'static str = PACKAGE;
    const CALL: &'static str = "GrowthBookClient::feature_result";
    const EXPERIMENT: &'static str = EXPERIMENT;
    const RULES: &'static str = RULES;
    const KEEPS_CONTEXT: bool = false;

    type Context<'u> = Vec<GrowthBookAttribute>;
    type Answer<'a> = FeatureResult;

    fn load(experiment: Json) -> Client {
        let builder = GrowthBookClientBuilder::new().features_json(experiment).expect("they are features");
        // With features and without an address nothing is fetched, so there is nothing to wait for.
        let mut building = pin!(builder.build());
        let Poll::Ready(client) = building.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()))
        else {
            panic!("the client waits although it has its features");
        };
        Client(client.expect("it has its features"))
    }

    fn context(user: &User) -> Vec<GrowthBookAttribute> {
        attributes(user)
    }

    fn evaluate(&self, context: &Vec<GrowthBookAttribute>) -> FeatureResult {
        self.evaluate_once(context.clone())
    }

    fn evaluate_once(&self, context: Vec<GrowthBookAttribute>) -> FeatureResult {
        self.0.feature_result("checkout", Some(context))
    }

    fn arm(answer: &FeatureResult) -> Option<Arm> {
        arm(answer)
    }
}

fn attributes(user: &User) -> Vec<GrowthBookAttribute> {
    let text = |text: &String| GrowthBookAttributeValue::String(text.clone());
    let attributes = [
        ("id", text(&user.id)),
        ("country", text(&user.country)),
        ("plan", text(&user.plan)),
        ("age", GrowthBookAttributeValue::Int(user.age)),
        ("sessions", GrowthBookAttributeValue::Float(user.sessions)),
    ];
    attributes.map(|(key, value)| GrowthBookAttribute::new(key.to_owned(), value)).into()
}

fn arm(answer: &FeatureResult) -> Option<Arm> {
    let result = answer.experiment_result.as_ref().filter(|result| result.in_experiment)?;
    Some(Arm::named(result.value.as_str().expect("an arm is a text")))
}
