//! The program from outside: its own binary against the simulator and the real plugin.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod fuzz;
mod mistakes;
mod positions;
mod secrets;
mod simulator;
mod support;
