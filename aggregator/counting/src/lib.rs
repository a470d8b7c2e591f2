//! From a unit's events to exact sums. What an event is to a metric is decided by one pure function of all rows of a unit
//! ([`kind`]), and a round adds the difference between what it says before and after the new rows ([`fold`]). The package
//! knows no table, no clock and no statistics: rows come in, cells come out.

pub mod cells;
pub mod components;
pub mod encoding;
pub mod event;
pub mod fold;
pub mod kind;
pub mod micros;
pub mod names;
pub mod read;
pub mod rows;
pub mod spec;
pub mod store;
pub mod sums;
mod view;
