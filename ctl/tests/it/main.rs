//! The program from outside: its own binary against the simulator and the real plugin.
#![allow(clippy::unwrap_used)]
