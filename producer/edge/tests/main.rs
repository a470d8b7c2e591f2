//! The edge on a real Kafka. One program, so that the tests share Kafka, and the waits of one overlap the work of another.

mod clients;
mod edge_fixture;
mod hostile;
mod hostile_load;
mod kafka_away;
mod life;
mod played_back;
mod reported;
mod service;
