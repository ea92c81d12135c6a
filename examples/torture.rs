//! Torments real processes: `cargo run --release --example torture -- --minutes 10`.
//!
//! The simulator runs in this process, the host with the plugin in another, which is killed with -9,
//! frozen, reloaded, stopped, stalled, and left without room for its state file, at random; at the
//! end, what the vendor had is compared with what arrived. With `FLUENT_BIT=/path/to/fluent-bit` the
//! host is the real one. `--rounds N` ends after so many hosts, `--seed N` repeats a run's choices.

use std::process::ExitCode;

// What the tests use all of.
#[allow(dead_code, unused_imports)]
#[path = "../tests/it/support/mod.rs"]
mod support;
#[path = "../tests/it/support/torment.rs"]
mod torment;

fn main() -> ExitCode {
    torment::main("torture", |seed, goes_on| {
        let outcome = support::torture::run(seed, goes_on);
        Some(torment::Told {
            summary: outcome.to_string(),
            rounds: outcome.rounds,
            is_right: outcome.missing == 0,
            details: outcome.details,
        })
    })
}
