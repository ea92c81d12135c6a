//! Everything that is tested from outside: one binary, one file per subject.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod abi;
mod config;
mod crash;
mod faults;
mod fleet;
mod fluent_bit;
mod formats;
mod fuzz;
mod header;
mod host_traps;
mod hostile;
mod http;
mod isolation;
mod metrics;
mod misuse;
mod outputs;
mod poller;
mod postgres;
mod products;
mod rig;
mod secrets;
mod simulation;
mod state;
mod support;
mod tidy;
mod tls;
mod torture;
mod transcoding;
mod verification;
