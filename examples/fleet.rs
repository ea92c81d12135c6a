//! Torments several hosts with one database: `cargo run --release --example fleet -- --rounds 50`.
//!
//! The simulator and a PostgreSQL server (`POSTGRES_BIN`, the `PATH`, or /usr/lib/postgresql) belong to
//! this process. Three hosts with the plugin share five connectors; whoever holds a lease is killed
//! with -9 or frozen, while the server is restarted or frozen and cables are cut; at the end, what the
//! vendor had is compared with what all hosts delivered. With `FLUENT_BIT=/path/to/fluent-bit` the
//! hosts are real ones. `--minutes N` ends after that time, `--seed N` repeats a run's choices.

use std::process::ExitCode;

// What the tests use all of.
#[allow(dead_code, unused_imports)]
#[path = "../tests/it/support/mod.rs"]
mod support;
#[path = "../tests/it/support/torment.rs"]
mod torment;

fn main() -> ExitCode {
    torment::main("fleet", |seed, goes_on| {
        let outcome = support::fleet::torture::run(seed, goes_on)?;
        Some(torment::Told {
            summary: outcome.to_string(),
            rounds: outcome.rounds,
            is_right: outcome.is_right(),
            details: outcome.details,
        })
    })
}
