//! A short torture of real processes; `cargo run --release --example torture` goes on for longer.

use crate::support::torture;

const ROUNDS: u32 = 6;
const SEED: u64 = 4;

#[test]
fn hosts_that_are_tormented_lose_nothing() {
    let outcome = torture::run(SEED, &mut |round| round < ROUNDS);
    eprintln!("{outcome}");
    assert_eq!(outcome.missing, 0, "{}", outcome.details);
    assert!(outcome.kills > 0 && outcome.records > 6000, "nothing was tested");
}
