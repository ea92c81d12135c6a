//! The program from outside: its own binary against the simulator and the real plugin.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod database;
mod examples;
mod fuzz;
mod mistakes;
mod positions;
#[allow(dead_code, reason = "the tests of the plugin pause and restart servers")]
#[path = "../../../tests/it/support/postgres.rs"]
mod postgres;
mod secrets;
mod simulator;
mod support;
