//! The experiment in `unleash-yggdrasil`, by two calls. Both take attributes as texts, numbers too. Nothing is added to its usage
//! metrics, which a caller counts in a second step.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value as Json;
use unleash_types::client_features::ClientFeatures;
use unleash_yggdrasil::state::{EnrichedContext, PropertiesCow, PropertiesRef};
use unleash_yggdrasil::{Context, EngineState, ExtendedVariantDef, UpdateMessage, VariantDef};

use crate::library::{Arm, Library};
use crate::user::User;

const PACKAGE: &str = "unleash-yggdrasil";
const EXPERIMENT: &str = include_str!("../experiments/unleash-yggdrasil.json");
const RULES: &str = "/features/0/strategies";

/// Answers for a context that owns its texts, as the documentation shows it.
pub struct Owned(EngineState);

impl Library for Owned {
    const PACKAGE: &'static str = PACKAGE;
    const CALL: &'static str = "EngineState::get_variant";
    const EXPERIMENT: &'static str = EXPERIMENT;
    const RULES: &'static str = RULES;

    type Context<'u> = Context;
    type Answer<'a> = ExtendedVariantDef;

    fn load(experiment: Json) -> Owned {
        Owned(engine(experiment))
    }

    fn context(user: &User) -> Context {
        let properties = [
            ("country", user.country.clone()),
            ("plan", user.plan.clone()),
            ("age", user.age.to_string()),
            ("sessions", user.sessions.to_string()),
        ];
        let properties: HashMap<String, String> =
            properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Context { user_id: Some(user.id.clone()), properties: Some(properties), ..Context::default() }
    }

    fn evaluate(&self, context: &Context) -> ExtendedVariantDef {
        self.0.get_variant("checkout", context, &None)
    }

    fn arm(answer: &ExtendedVariantDef) -> Option<Arm> {
        answer.enabled.then(|| Arm::named(&answer.name))
    }
}

/// Answers for a context that borrows all texts but those of numbers, as the bindings to other languages call it.
pub struct Borrowed(EngineState);

pub struct Subject<'u> {
    id: &'u str,
    properties: PropertiesCow<'u>,
}

impl Library for Borrowed {
    const PACKAGE: &'static str = PACKAGE;
    const CALL: &'static str = "EngineState::check_variant";
    const EXPERIMENT: &'static str = EXPERIMENT;
    const RULES: &'static str = RULES;

    type Context<'u> = Subject<'u>;
    type Answer<'a> = VariantDef;

    fn load(experiment: Json) -> Borrowed {
        Borrowed(engine(experiment))
    }

    fn context(user: &User) -> Subject<'_> {
        let properties = [
            ("country", Cow::Borrowed(user.country.as_str())),
            ("plan", Cow::Borrowed(user.plan.as_str())),
            ("age", Cow::Owned(user.age.to_string())),
            ("sessions", Cow::Owned(user.sessions.to_string())),
        ];
        let properties = properties.into_iter().map(|(name, value)| (Cow::Borrowed(name), value));
        Subject { id: &user.id, properties: properties.collect() }
    }

    fn evaluate(&self, context: &Subject<'_>) -> VariantDef {
        let context = EnrichedContext {
            user_id: Some(context.id),
            session_id: None,
            environment: None,
            app_name: None,
            current_time: None,
            remote_address: None,
            properties: Some(PropertiesRef::Cows(&context.properties)),
            external_results: None,
            toggle_name: "checkout",
            runtime_hostname: None,
        };
        self.0.check_variant(&context).expect("the feature is there")
    }

    fn arm(answer: &VariantDef) -> Option<Arm> {
        answer.enabled.then(|| Arm::named(&answer.name))
    }
}

fn engine(experiment: Json) -> EngineState {
    let features: ClientFeatures = serde_json::from_value(experiment).expect("they are features");
    let engine = EngineState::default();
    let warnings = engine.take_state(UpdateMessage::FullResponse(features));
    assert!(warnings.is_none(), "{warnings:?}");
    engine
}
