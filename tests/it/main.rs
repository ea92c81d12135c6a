//! Everything that is tested from outside: one binary, one file per subject.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod abi;
mod config;
mod crash;
mod faults;
mod fluent_bit;
mod fuzz;
mod header;
mod host_traps;
mod hostile;
mod http;
mod isolation;
mod misuse;
mod poller;
mod products;
mod rig;
mod secrets;
mod support;
mod tidy;
mod tls;
