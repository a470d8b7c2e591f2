//! The experiment in `assignment`, which borrows the user's values: there is no context to keep.

use assignment::{
    Context, Environment, Evaluation, EvaluationError, Lists, Name, Snapshot, Value, evaluate, resolve,
};
use schemas::definition::{Definition, Definitions, Kind};
use schemas::{Micros, Uuid};
use serde_json::{Value as Json, json};

use crate::library::{Arm, Library};
use crate::user::User;

pub struct Splitstream {
    snapshot: Snapshot,
    now: Micros,
}

pub struct Attributes<'u> {
    id: &'u str,
    attributes: [(Name<'static>, Value<'u>); 4],
}

impl Library for Splitstream {
    const PACKAGE: &'static str = "assignment";
    const CALL: &'static str = "evaluate";
    const EXPERIMENT: &'static str = include_str!("../experiments/splitstream.json");
    const RULES: &'static str = "/targeting";

    type Context<'u> = Attributes<'u>;
    type Answer<'a> = Result<Evaluation<'a>, EvaluationError>;

    fn load(experiment: Json) -> Splitstream {
        let mut definitions = Definitions::default();
        propose(&mut definitions, Kind::Metric, json!({"key": "buy", "event": "buy", "type": "conversion"}));
        propose(&mut definitions, Kind::Experiment, experiment);
        Splitstream {
            snapshot: Snapshot::compile(&definitions, &Lists::default(), Environment::PRODUCTION),
            now: Micros::new(1_790_000_000_000_000).expect("a time"),
        }
    }

    fn context(user: &User) -> Attributes<'_> {
        Attributes {
            id: &user.id,
            attributes: [
                (Name::of("country"), Value::Text(&user.country)),
                (Name::of("plan"), Value::Text(&user.plan)),
                (Name::of("age"), Value::Integer(user.age)),
                (Name::of("sessions"), Value::Number(user.sessions)),
            ],
        }
    }

    fn evaluate<'a>(&'a self, context: &Attributes<'_>) -> Self::Answer<'a> {
        let context = Context { targeting_key: Some(context.id), attributes: &context.attributes };
        evaluate(&self.snapshot, "checkout", &context, self.now)
    }

    fn arm(answer: &Self::Answer<'_>) -> Option<Arm> {
        let answer = answer.as_ref().expect("the experiment and the user are there");
        let exposed = answer.experiment.expect("it is an experiment").outcome.ok()?;
        Some(Arm::named(exposed.variant.key.as_str()))
    }
}

fn propose(definitions: &mut Definitions, kind: Kind, json: Json) {
    let written = Definition::from_json(kind, json).expect("a definition");
    let definition = resolve(definitions, Micros::EPOCH, written).expect("its buckets are free");
    let change = definitions.change_to(&definition, Uuid::from_u128(1), "bench", "bench");
    let offset = definitions.next_offset();
    definitions.apply(offset, Micros::EPOCH, &change).expect("the rule is known").expect("it is accepted");
}
