//! The experiment in `eppo_core`. Its subject and attributes own their texts, short ones inline, and may be kept. The
//! answer carries the event that the caller would log. The shard that every user is in is left out when the flags are loaded,
//! so one hash decides. `Evaluator`, around the function that is measured, adds the clock and the store of configurations.

use std::sync::Arc;

use eppo_core::eval::get_assignment;
use eppo_core::timestamp::{Timestamp, now};
use eppo_core::ufc::{Assignment, UniversalFlagConfig, VariationType};
use eppo_core::{Attributes, Configuration, SdkMetadata, Str};
use serde_json::Value as Json;

use crate::library::{Arm, Library};
use crate::user::User;

pub struct Flags {
    configuration: Configuration,
    now: Timestamp,
}

pub struct Subject {
    key: Str,
    attributes: Arc<Attributes>,
}

impl Library for Flags {
    const PACKAGE: &'static str = "eppo_core";
    const CALL: &'static str = "eval::get_assignment";
    const EXPERIMENT: &'static str = include_str!("../experiments/eppo_core.json");
    const RULES: &'static str = "/flags/checkout/allocations/0/rules";

    type Context<'u> = Subject;
    type Answer<'a> = Option<Assignment>;

    fn load(experiment: Json) -> Flags {
        let metadata = SdkMetadata { name: "peers", version: "1" };
        let flags = UniversalFlagConfig::from_json(metadata, experiment.to_string().into_bytes());
        Flags {
            configuration: Configuration::from_server_response(flags.expect("they are flags"), None),
            now: now(),
        }
    }

    fn context(user: &User) -> Subject {
        let attributes: Attributes = [
            ("country".into(), user.country.as_str().into()),
            ("plan".into(), user.plan.as_str().into()),
            ("age".into(), (user.age as f64).into()),
            ("sessions".into(), user.sessions.into()),
        ]
        .into_iter()
        .collect();
        Subject { key: user.id.as_str().into(), attributes: Arc::new(attributes) }
    }

    fn evaluate(&self, context: &Subject) -> Option<Assignment> {
        get_assignment(
            Some(&self.configuration),
            "checkout",
            &context.key,
            &context.attributes,
            Some(VariationType::String),
            self.now,
        )
        .expect("the flag is there")
    }

    fn arm(answer: &Option<Assignment>) -> Option<Arm> {
        Some(Arm::named(answer.as_ref()?.value.as_str().expect("an arm is a text")))
    }
}
