//! What the examples that torment hosts share: their options, and how a run is told. No test uses it.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::support::torture::AS_HOST;

/// What came of a run.
pub struct Told {
    /// What was done and found.
    pub summary: String,
    /// How many rounds it took, so that it can be repeated.
    pub rounds: u32,
    /// Whether every promise was kept.
    pub is_right: bool,
    /// The first cases of everything that is not right.
    pub details: String,
}

/// When to end: at whichever comes first.
struct Limits {
    seed: u64,
    time: Duration,
    rounds: u32,
}

/// The program `name`, which is the embedded host where it is started as that.
///
/// `run` is given a seed, and what to ask before each round with its number. It returns nothing where
/// it could not begin.
pub fn main(
    name: &str,
    run: impl FnOnce(u64, &mut dyn FnMut(u32) -> bool) -> Option<Told>,
) -> ExitCode {
    if env::var_os(AS_HOST).is_some() {
        return embedded_host::main();
    }
    match limits(env::args().skip(1)) {
        Ok(limits) => torment(name, &limits, run),
        Err(error) => {
            eprintln!("{name}: {error}\nusage: {name} [--minutes N] [--rounds N] [--seed N]");
            ExitCode::FAILURE
        }
    }
}

fn torment(
    name: &str,
    limits: &Limits,
    run: impl FnOnce(u64, &mut dyn FnMut(u32) -> bool) -> Option<Told>,
) -> ExitCode {
    let begun = Instant::now();
    eprintln!("{name}: seed {}", limits.seed);
    let told = run(limits.seed, &mut |round| {
        if round > 0 && round.is_multiple_of(10) {
            eprintln!("{name}: {round} rounds in {} s", begun.elapsed().as_secs());
        }
        round < limits.rounds && begun.elapsed() < limits.time
    });
    let Some(told) = told else { return ExitCode::FAILURE };
    println!("{}", told.summary);
    println!("to repeat it: --seed {} --rounds {}", limits.seed, told.rounds);
    if !told.is_right {
        println!("{}", told.details);
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
