//! End to end on the real parts, a platform for each test. One program, so that the waits of one test overlap the work of
//! another.

mod aged_topics;
mod broker_restart;
mod chaos;
mod cluster;
mod counting;
mod crash_group;
mod crash_heal;
mod crash_insert;
mod crash_syscall;
mod crash_topic;
mod dead_letters;
mod definitions;
mod duplicates;
mod evaluation_counts;
mod every_event_once;
mod foreign_clients;
mod forget;
mod looks;
mod operations;
mod random_faults;
mod resend;
mod store;
mod switchback;
