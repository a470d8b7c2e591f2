//! Which variant a unit sees. Everything follows from the definitions and the unit: no clock, no store, no
//! network, so the service that assigns, the consumer that verifies and anybody with the vectors get the same answer.

mod allocation;
mod evaluation;
mod hash;
mod number;
mod targeting;

pub use allocation::resolve;
pub use evaluation::{Attributes, Environment, Evaluation, NotExposed, evaluate, variant_for_buckets};
pub use hash::{Salts, Seeds, hash};
pub use targeting::holds;
