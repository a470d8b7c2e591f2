//! The statistics for people and machines: a calculator of every method ([`compute`]), the error rates of
//! every method by simulation ([`calibrate`]), and the planning of experiments ([`power`], with its
//! [`curve`]). It knows no experiment, no stream and no table: it reads numbers from arguments and standard
//! input, and writes text, JSON and pictures.

pub mod calibrate;
pub mod chart;
pub mod command;
pub mod compute;
pub mod curve;
pub mod format;
pub mod power;
pub mod table;
