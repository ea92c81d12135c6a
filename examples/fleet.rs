//! Torments several hosts with one database: `cargo run --release --example fleet -- --rounds 50`.
//!
//! The simulator and a PostgreSQL server (`POSTGRES_BIN`, the `PATH`, or /usr/lib/postgresql) belong to
//! this process. Three hosts with the plugin share five connectors; whoever holds a lease is killed
//! with -9 or frozen, while the server is restarted or frozen and cables are cut; at the end, what the
//! vendor had is compared with what all hosts delivered. With `FLUENT_BIT=/path/to/fluent-bit` the
//! hosts are real ones. `--minutes N` ends after that time, `--seed N` repeats a run's choices.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

// What the tests use all of.
#[allow(dead_code, unused_imports)]
#[path = "../tests/it/support/mod.rs"]
mod support;

const USAGE: &str = "usage: fleet [--minutes N] [--rounds N] [--seed N]";

/// When to end: at whichever comes first.
struct Limits {
    seed: u64,
    time: Duration,
    rounds: u32,
}

fn main() -> ExitCode {
    if env::var_os(support::torture::AS_HOST).is_some() {
        return embedded_host::main();
    }
    match limits(env::args().skip(1)) {
        Ok(limits) => torment(&limits),
        Err(error) => {
            eprintln!("fleet: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn torment(limits: &Limits) -> ExitCode {
    let begun = Instant::now();
    eprintln!("fleet: seed {}", limits.seed);
    let outcome = support::fleet::torture::run(limits.seed, &mut |round| {
        if round > 0 && round.is_multiple_of(10) {
            eprintln!("fleet: {round} rounds in {} s", begun.elapsed().as_secs());
        }
        round < limits.rounds && begun.elapsed() < limits.time
    });
    let Some(outcome) = outcome else { return ExitCode::FAILURE };
    println!("{outcome}");
    println!("to repeat it: --seed {} --rounds {}", outcome.seed, outcome.rounds);
    if !outcome.is_right() {
        println!("{}", outcome.details);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn limits(mut words: impl Iterator<Item = String>) -> Result<Limits, Box<dyn Error>> {
    let mut limits =
        Limits { seed: fastrand::u64(..), time: Duration::from_secs(60), rounds: u32::MAX };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--minutes" => limits.time = Duration::from_secs_f64(60.0 * value.parse::<f64>()?),
            "--rounds" => (limits.rounds, limits.time) = (value.parse()?, Duration::MAX),
            "--seed" => limits.seed = value.parse()?,
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }
    Ok(limits)
}
