//! The experiment in `unleash-yggdrasil`. Its context owns texts, numbers as texts too, and may be kept. Nothing is added to
//! its usage metrics, which a caller counts in a second step.

use std::collections::HashMap;

use serde_json::Value as Json;
use unleash_types::client_features::ClientFeatures;
use unleash_yggdrasil::{Context, EngineState, ExtendedVariantDef, UpdateMessage};

use crate::library::{Arm, Library};
use crate::user::User;

pub struct Engine(EngineState);

impl Library for Engine {
    const PACKAGE: &'static str = "unleash-yggdrasil";
    const CALL: &'static str = "EngineState::get_variant";
    const EXPERIMENT: &'static str = include_str!("../experiments/unleash-yggdrasil.json");
    const RULES: &'static str = "/features/0/strategies";

    type Context<'u> = Context;
    type Answer<'a> = ExtendedVariantDef;

    fn load(experiment: Json) -> Engine {
        let features: ClientFeatures = serde_json::from_value(experiment).expect("they are features");
        let engine = EngineState::default();
        let warnings = engine.take_state(UpdateMessage::FullResponse(features));
        assert!(warnings.is_none(), "{warnings:?}");
        Engine(engine)
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
