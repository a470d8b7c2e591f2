//! The statistics of the platform: sums in, intervals out. Pure functions that know no experiment,
//! no storage and no clock; every formula names its source and where it stops being accurate.
//!
//! A question that the data cannot answer yet is a [`Missing`], which names what is lacking; an input that
//! cannot be true is an [`Invalid`]. No function returns NaN, or p = 1 for "not enough data".

#![warn(missing_docs)]

pub mod always_valid_power;
pub mod bayes;
pub mod clusters;
pub mod conditional;
pub mod confidence_sequence;
pub mod conversion_counts;
pub mod cuped;
pub mod distributions;
pub mod few_conversions;
pub mod fixed_horizon;
pub mod group_sequential;
pub mod guardrail;
pub mod interaction;
pub mod lift;
pub mod multiple_testing;
pub mod permutation;
pub mod phases;
pub mod power;
pub mod proportion_interval;
pub mod quantile;
pub mod random;
pub mod ratio;
pub mod srm;
pub mod srm_phases;
pub mod srm_sequential;
pub mod strata;
pub mod switchback;
pub mod two_proportion;
pub mod welch;
pub mod winsorize;

mod count_mass;
mod error_function;
mod linear;
mod missing;
mod multinomial_mixture;
mod quadrature;
mod restricted_rates;
mod special;
mod sums;
mod terms;
mod wide;

pub use lift::Lift;
pub use missing::{Invalid, Missing, NoAnswer};
pub use phases::TreatmentShare;
pub use sums::{Arm, Counts, ExactPairSums, ExactSums, Moments, PairMoments};
pub use terms::{Alpha, Alternative, Effect, Interval, Pair, Power, Side, measured};
