//! The OpenFeature Remote Evaluation Protocol, without HTTP: bodies in ([`request`]), bodies out ([`answer`], [`error`]), and
//! the form of a context in which equal contexts have equal bytes ([`canonical`]).

pub mod answer;
pub mod canonical;
pub mod error;
pub mod request;
