//! Everything that is tested from outside: one binary, one file per subject.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod abi;
mod config;
mod crash;
mod faults;
mod fluent_bit;
mod header;
mod host_traps;
mod http;
mod metrics;
mod poller;
mod products;
mod rig;
mod state;
mod support;
mod tidy;
mod verification;
