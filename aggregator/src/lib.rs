//! From tables to verdicts. On a schedule each experiment is counted at a recorded cut of the stream, analyzed
//! after the looks taken so far, decided, entered in the log of looks and published: as rows, as JSON and as a
//! page. The deciding modules ([`experiment_analysis`], [`metric_analysis`], [`look`], [`decision`],
//! [`expiry`], the page) are functions of their arguments; the modules that touch the world ([`database`],
//! [`look_log`], [`before_the_log`], [`publish`], [`schedule`], [`http`]) decide nothing. Beside that, [`edge_counts`] adds
//! the edges' counts of evaluations to a table.

pub mod before_the_log;
pub mod command;
pub mod config;
pub mod counts;
pub mod cut;
pub mod database;
pub mod decision;
pub mod definitions;
pub mod document;
pub mod edge_counts;
pub mod experiment_analysis;
pub mod expiry;
pub mod http;
pub mod intake;
pub mod look;
pub mod look_log;
pub mod look_mirror;
pub mod metric_analysis;
pub mod page;
pub mod publish;
pub mod restore;
pub mod schedule;
pub mod spec;
pub mod stale;
pub mod store;
