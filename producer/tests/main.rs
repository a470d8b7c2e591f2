//! The commands and the emitter on a real Kafka. One program, so that the tests share Kafka, and the waits of one overlap the
//! work of another.

mod definitions;
mod emitter;
mod events;
mod kafka_fixture;
mod numbers;
mod simulate_edge;
mod transactions;
