//! What the measurement needs of a library: to load the experiment, to take a user's values, and to answer. Nothing here
//! times or prints.

use serde_json::Value as Json;

use crate::user::User;

/// An arm of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    A,
    B,
}

impl Arm {
    pub fn named(name: &str) -> Arm {
        match name {
            "a" => Arm::A,
            "b" => Arm::B,
            _ => panic!("the experiment has no arm {name}"),
        }
    }
}

/// A library with the experiment loaded.
pub trait Library {
    /// The name of its package.
    const PACKAGE: &'static str;
    /// The function that answers.
    const CALL: &'static str;
    /// The experiment in the library's own format.
    const EXPERIMENT: &'static str;
    /// Where the list of its three rules is in it.
    const RULES: &'static str;
    /// Whether a context outlives an evaluation, so that it may serve another.
    const KEEPS_CONTEXT: bool = true;

    /// A user's values in the form that the library takes. It may borrow from the user if the library lets it.
    type Context<'u>;
    /// What the library returns, exactly as it returns it.
    type Answer<'a>
    where
        Self: 'a;

    fn load(experiment: Json) -> Self;

    fn context(user: &User) -> Self::Context<'_>;

    fn evaluate<'a>(&'a self, context: &Self::Context<'_>) -> Self::Answer<'a>;

    /// As `evaluate`, with a context that nobody needs afterwards.
    fn evaluate_once<'a>(&'a self, context: Self::Context<'_>) -> Self::Answer<'a> {
        self.evaluate(&context)
    }

    /// The arm of a user who takes part.
    fn arm(answer: &Self::Answer<'_>) -> Option<Arm>;
}
