//! Decides which variant a unit sees. The result depends only on the definitions, the unit and the time given; nothing here has a
//! clock, a store or a network. The service that assigns, the consumer that verifies and anybody with the vectors get
//! the same result.

mod allocation;
mod context;
mod evaluation;
mod experiment;
mod flag;
mod hash;
mod holdout;
mod key_table;
mod lists;
mod number;
mod owners;
mod placement;
mod prerequisites;
mod rollout;
mod snapshot;
mod targeting;
mod text;
mod trace;
mod units;
mod version;

pub use allocation::resolve;
pub use context::{Context, DEFAULT_UNIT_TYPE, Name, Value};
pub use evaluation::{
    Environment, Evaluation, EvaluationError, ExperimentEvaluation, Exposed, NotExposed, Reason, Versions,
};
pub use hash::{FORMULA, Salts, Seed, Seeds};
pub use holdout::HoldoutsOver;
pub use lists::{ListSource, Lists, MEMBERS_MAX, Members, NotMembers};
pub use placement::Placement;
pub use snapshot::{Snapshot, evaluate, evaluate_all, evaluate_client_safe, evaluate_traced};
pub use targeting::CompiledCondition;
pub use trace::{BucketOf, Step, Trace};
