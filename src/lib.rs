//! A Fluent Bit input plugin that collects Trend Micro's logs and inventories, and loses none.
//!
//! The modules, in the order in which data travels:
//!
//! ```text
//! config → instance → poller → connector → http → page, json, record, identity
//!        → envelope, format → msgpack → batch → queue → handover → ffi
//! ```
//!
//! and only the acknowledgement flows back: `ffi → handover → commit → cursor, ledger → checkpoint`.
//! Beside the road stand `window` (what to ask for), `secret`, `log`, `clock` and `error`; from
//! beside it `activity`, `metrics` and `status` watch.

pub mod config;
pub mod instance;
pub mod poller;

pub mod connector;
pub mod http;
pub mod window;

pub mod identity;
pub mod json;
pub mod page;
pub mod record;

pub mod batch;
pub mod envelope;
pub mod format;
pub mod msgpack;
mod outline;

pub mod handover;
pub mod queue;

pub mod commit;
pub mod cursor;
pub mod ledger;
pub mod sweep;

pub mod checkpoint;

pub mod activity;
pub mod metrics;
pub mod status;

pub mod clock;
pub mod error;
pub mod lease;
pub mod log;
pub mod secret;

// The one door to `unsafe`: the host's ABI. Everything else is denied it by the crate's lints.
#[allow(unsafe_code)]
pub mod ffi;
