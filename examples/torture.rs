//! Torments real processes: `cargo run --release --example torture -- --minutes 10`.
//!
//! The simulator runs in this process, the host with the plugin in another, which is killed with -9,
//! frozen, reloaded, stopped, stalled, and left without room for its state file, at random; at the
//! end, what the vendor had is compared with what arrived. With `FLUENT_BIT=/path/to/fluent-bit` the
//! host is the real one. `--rounds N` ends after so many hosts, `--seed N` repeats a run's choices.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

// What the tests use all of.
#[allow(dead_code, unused_imports)]
#[path = "../tests/it/support/mod.rs"]
mod support;

const USAGE: &str = "usage: torture [--minutes N] [--rounds N] [--seed N]";

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
            eprintln!("torture: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn torment(limits: &Limits) -> ExitCode {
    let begun = Instant::now();
    eprintln!("torture: seed {}", limits.seed);
    let outcome = support::torture::run(limits.seed, &mut |round| {
        if round > 0 && round.is_multiple_of(10) {
            eprintln!("torture: {round} rounds in {} s", begun.elapsed().as_secs());
        }
        round < limits.rounds && begun.elapsed() < limits.time
    });
    println!("{outcome}");
    println!("to repeat it: --seed {} --rounds {}", outcome.seed, outcome.rounds);
    if outcome.missing > 0 {
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
