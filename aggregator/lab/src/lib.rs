//! The statistics for people and machines: a calculator of every method ([`compute`]), the error rates of every method
//! by simulation ([`calibrate`]), and the planning of experiments ([`power`], with its [`curve`]). Knows no experiment, no
//! stream and no table: numbers come in by arguments and standard input, and go out as text, JSON and pictures.

pub mod calibrate;
pub mod chart;
pub mod command;
pub mod compute;
pub mod curve;
pub mod format;
pub mod power;
pub mod table;
