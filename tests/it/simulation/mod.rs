//! The deterministic simulation: the plugin's real parts between a model vendor, a model host and a
//! disk, in one thread, on a virtual clock, with everything drawn from a seed.
//!
//! `cargo test simulation` runs 10,000 seeds, `SEEDS=100000` more of them, `SEED=17` one of them,
//! which then tells what it does.

mod disk;
mod fleet;
mod host;
mod life;
mod oracle;
mod scenario;
mod trace;
mod world;

use std::fmt::Debug;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fastrand::Rng;
use world::World;

/// How many seeds a run takes unless the environment says otherwise.
const SEEDS: u64 = 10_000;
/// How many failing seeds are told.
const FAILURES_MAX: usize = 5;

/// A run that a seed stands for.
trait Run {
    /// What is counted over a run, and over all of them.
    type Tally: Debug + Default + Send;

    /// The run of a seed; a loud one tells every step, a traced one keeps the last.
    fn new(seed: u64, telling: Telling) -> Self;
    /// Goes on to the end; panics if something does not hold.
    fn run(&mut self);
    fn tally(&self) -> Self::Tally;
    fn add(total: &mut Self::Tally, tally: &Self::Tally);
    fn trace(&self) -> String;
}

/// What a run tells of its steps.
#[derive(Clone, Copy, PartialEq)]
enum Telling {
    Nothing,
    LastSteps,
    Everything,
}

#[test]
fn nothing_is_lost_or_doubled_whatever_happens() {
    let Some(total) = run_seeds::<World>(SEEDS) else { return };
    assert!(total.kills > 0 && total.losses > 0 && total.twice > 0, "nothing was tested");
}

#[test]
fn several_hosts_lose_nothing_and_do_nothing_twice() {
    let Some(total) = run_seeds::<fleet::World>(fleet::SEEDS) else { return };
    let is_tested = total.takeovers > 0 && total.refused_commits > 0 && total.twice > 0;
    assert!(is_tested, "nothing was tested");
}

/// Runs as many seeds as the environment says, or the one that it names, which then tells what it
/// does; `None` then.
fn run_seeds<R: Run>(seeds: u64) -> Option<R::Tally> {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    if let Some(seed) = number("SEED") {
        let mut world = R::new(seed, Telling::Everything);
        world.run();
        eprintln!("seed {seed}: {:?}", world.tally());
        return None;
    }
    let seeds = number("SEEDS").unwrap_or(seeds);
    let begun = Instant::now();
    let (next, total, failures) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| work::<R>(seeds, &next, &total, &failures));
        }
    });
    let mut failures: Vec<(u64, String)> = failures.into_inner().unwrap();
    failures.sort();
    let told =
        failures.iter().map(|(seed, why)| format!("\nseed {seed}: {why}\n{}", replay::<R>(*seed)));
    assert!(failures.is_empty(), "{}", told.collect::<String>());
    let total: R::Tally = total.into_inner().unwrap();
    // Not captured by the test runner, unlike what eprintln! says.
    let text = format!("{seeds} seeds in {} s: {total:?}\n", begun.elapsed().as_secs());
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    Some(total)
}

/// Runs seeds until there are no more, or enough have failed.
fn work<R: Run>(
    seeds: u64,
    next: &AtomicU64,
    total: &Mutex<R::Tally>,
    failures: &Mutex<Vec<(u64, String)>>,
) {
    let lock = || failures.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds || lock().len() >= FAILURES_MAX {
            return;
        }
        match catch_unwind(|| {
            let mut world = R::new(seed, Telling::Nothing);
            world.run();
            world.tally()
        }) {
            Ok(tally) => R::add(&mut total.lock().unwrap(), &tally),
            Err(panic) => lock().push((seed, text_of(&*panic))),
        }
    }
}

/// The last steps of a seed, and how to repeat it.
fn replay<R: Run>(seed: u64) -> String {
    let mut world = R::new(seed, Telling::LastSteps);
    let again = catch_unwind(AssertUnwindSafe(|| world.run()));
    let same =
        if again.is_err() { "" } else { "NOT REPEATED: the simulation is not deterministic\n" };
    let trace = world.trace();
    let test = std::thread::current().name().unwrap_or("simulation").to_owned();
    format!("{same}{trace}to repeat it: SEED={seed} cargo test --test it {test} -- --nocapture\n")
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Who of all that are `due`, each at its ms, is first, and when; among those who are due at once,
/// chance decides. Nothing is due in the past.
fn first_due<T: Copy>(mut due: Vec<(u64, T)>, now_ms: u64, rng: &mut Rng) -> (u64, T) {
    for (ms, _) in &mut due {
        *ms = (*ms).max(now_ms);
    }
    let first = due.iter().map(|(ms, _)| *ms).min().expect("somebody lives");
    due.retain(|(ms, _)| *ms == first);
    due[rng.usize(..due.len())]
}

/// An event, as a receiver reads it.
pub struct News {
    /// The record's number, unless only its name is told.
    pub number: Option<u64>,
    /// The name of a machine.
    pub name: String,
    /// What happened to it, where that is told.
    pub change: Option<String>,
}

/// What mails look like in MessagePack: the key, and an unsigned integer.
const NUMBER: &[u8] = b"\xa6number";

/// The events of a buffer.
fn decode(bytes: &[u8]) -> Vec<News> {
    if memchr::memmem::find(bytes, b"msg_class").is_some() {
        return decode_envelopes(bytes);
    }
    let number = |at: usize| match bytes[at + NUMBER.len()..] {
        [small @ 0..0x80, ..] => u64::from(small),
        [0xcc, one, ..] => u64::from(one),
        [0xcd, one, two, ..] => u64::from(u16::from_be_bytes([one, two])),
        _ => panic!("a number that no vendor here writes"),
    };
    let news = |at| News { number: Some(number(at)), name: String::new(), change: None };
    memchr::memmem::find_iter(bytes, NUMBER).map(news).collect()
}

/// The name of a computer.
fn computer(id: u64) -> String {
    format!("computer {id}")
}

/// How many events a buffer holds.
fn count(bytes: &[u8]) -> u64 {
    decode(bytes).len() as u64
}

/// The same by an independent decoder, for buffers that hold envelopes, or some beside records.
fn decode_envelopes(bytes: &[u8]) -> Vec<News> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let event = rmpv::decode::read_value(&mut rest).expect("a whole event");
        let body = &event[1];
        let sources = ["trendmicro_apexcentral", "trendmicro_cloudone"];
        let record = sources.map(|source| &body[source]).into_iter().find(|value| value.is_map());
        let record = record.unwrap_or(body);
        let agent = record["entity_id"].as_str().map(str::to_owned);
        let name = agent.unwrap_or_else(|| computer(record["ID"].as_u64().unwrap_or_default()));
        let change = body["change"].as_str().map(str::to_owned);
        found.push(News { number: record["number"].as_u64(), name, change });
    }
    found
}
