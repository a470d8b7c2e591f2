//! Decides which variant a unit sees. The result depends only on the definitions and the unit, not on a clock,
//! a store or a network. The service that assigns, the consumer that verifies and anybody with the vectors get
//! the same result.

mod allocation;
mod evaluation;
mod hash;
mod number;
mod targeting;

pub use allocation::resolve;
pub use evaluation::{Environment, Evaluation, NotExposed, evaluate, variant_for_buckets};
pub use hash::{FORMULA, Salts, Seed, Seeds};
pub use targeting::{Attributes, holds};
