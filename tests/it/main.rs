//! Everything that is tested from outside: one binary, one file per subject.

mod abi;
mod config;
mod crash;
mod faults;
mod fluent_bit;
mod header;
mod host_traps;
mod http;
mod poller;
mod rig;
mod support;
mod tidy;
