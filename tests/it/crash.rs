//! Ends that nobody chose the moment of: what was not confirmed is fetched again, nothing else is.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use trendmicro_sim::{EmailConfig, Fault, FaultKind, Sim, When};

use crate::support::{
    Books, Config, Form, Host, Place, Watch, config, email, simulate, wait, wait_delivered,
};

const KILLS: u32 = 50;
const TERMS: u32 = 10;
const SEED: u64 = 0x7472_656e_646d_6963;
/// The smallest queue, so that the bound on what can be unconfirmed is tight.
const QUEUE_BYTES: usize = 1_000_000;
/// What the embedded host has taken.
const JOURNAL: &str = "storage/trendmicro.0.journal";
/// No event of the simulator is smaller.
const EVENT_BYTES_MIN: usize = 400;

/// A backlog that takes many runs, and records that come into being meanwhile.
fn busy() -> (Place, Sim) {
    let sim = simulate(EmailConfig {
        accepted_backlog: 4000,
        blocked_backlog: 1000,
        policy_backlog: 1000,
        page_limit_max: 10,
        live_per_second: 20.0,
        ..email()
    });
    let slow = FaultKind::Slow { delay: Duration::from_millis(10) };
    sim.faults().add(Fault::new("/api/v1/log/", When::Always, slow));
    (Place::new(), sim)
}

/// Storage that survives the host, as the documentation recommends it.
fn durable(sim: &Sim, place: &Place) -> Config {
    config(sim, place)
        .service("storage.path", &place.text("storage"))
        .with(&[("storage.type", "filesystem"), ("queue_limit", "1M")])
}

/// Waits, from a start on, for a moment that nobody can foresee but the seed.
fn wait_random(host: &Host, place: &Place, random: &mut fastrand::Rng) {
    let journal = place.path(JOURNAL);
    let length = || fs::metadata(&journal).map_or(0, |metadata| metadata.len());
    let before = length();
    // Half of the moments count from the start, half from the first records of the run.
    if random.bool() {
        let grown = || (length() > before).then_some(());
        wait("records in the journal", || host.log_tail(), grown);
    }
    sleep(Duration::from_millis(random.u64(0..600)));
}

#[test]
fn kill_9_at_any_moment_loses_nothing() {
    let (place, sim) = busy();
    let config = durable(&sim, &place);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut watch = Watch::new(place.path(JOURNAL), place.path("state.db"));
    for kill in 0..KILLS {
        let host = Host::start(&place, &config, &[]);
        if kill == 0 {
            // Before the host has noted a position it cannot tell what it has delivered itself.
            let noted = || place.path("storage/host.pos").exists().then_some(());
            wait("the host's position", || host.log_tail(), noted);
        }
        wait_random(&host, &place, &mut random);
        host.kill();
        watch.look();
    }
    sim.faults().clear();
    sim.stop_live();
    let host = Host::start(&place, &config, &[]);
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    watch.look();
    let bound = QUEUE_BYTES / EVENT_BYTES_MIN;
    assert!(watch.duplicates_most <= bound, "{} came again at once", watch.duplicates_most);
    let books = Books::of(&sim, &place.out(), Form::Envelope);
    books.assert_complete("after kill -9");
    assert_eq!(books.duplicates.len(), watch.duplicates, "{}", books.describe());
    eprintln!(
        "{KILLS} times kill -9 with seed {SEED:#x}: {} records, {} came twice, at most {} after one \
         kill",
        sim.counts().visible,
        watch.duplicates,
        watch.duplicates_most
    );
}

/// Hosts before 4.0.3 drop from memory what was handed over just before a stop, and count it: it
/// must be fetched again.
#[test]
fn sigterm_of_a_forgetful_host_loses_nothing() {
    let (place, sim) = busy();
    let config = config(&sim, &place);
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..TERMS {
        let host = Host::start(&place, &config, &["--abi", "before-4.1", "--drain-ms", "100"]);
        host.wait_log("records are appended");
        sleep(Duration::from_millis(random.u64(0..600)));
        host.stop();
    }
    sim.faults().clear();
    sim.stop_live();
    let host = Host::start(&place, &config, &["--abi", "before-4.1"]);
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    let books = Books::of(&sim, &place.out(), Form::Envelope);
    books.assert_complete("after SIGTERM of a forgetful host");
    eprintln!("{TERMS} times SIGTERM of an old host: {} came twice", books.duplicates.len());
}

/// A stop that the host knows of leaves nothing unconfirmed but what was never handed over.
#[test]
fn sigterm_at_any_moment_loses_and_doubles_nothing() {
    for (abi, is_durable) in [("from-5.1.1", false), ("from-4.1", false), ("before-4.1", true)] {
        let (place, sim) = busy();
        let durable = durable(&sim, &place);
        let config = if is_durable { durable } else { config(&sim, &place) };
        let mut random = fastrand::Rng::with_seed(SEED);
        for _ in 0..TERMS {
            let host = Host::start(&place, &config, &["--abi", abi]);
            host.wait_log("records are appended");
            sleep(Duration::from_millis(random.u64(0..600)));
            host.stop();
        }
        sim.faults().clear();
        sim.stop_live();
        let host = Host::start(&place, &config, &["--abi", abi]);
        wait_delivered(&host, &sim, &place.out());
        host.stop();
        let books = Books::of(&sim, &place.out(), Form::Envelope);
        if abi == "before-4.1" {
            // Such a host may drop what it counted at a stop, so that comes again.
            books.assert_complete(abi);
            eprintln!("{abi}: {} records came twice after {TERMS} stops", books.duplicates.len());
        } else {
            books.assert_exact(abi);
        }
    }
}

#[test]
fn a_host_that_sleeps_doubles_nothing() {
    let (place, sim) = busy();
    let host = Host::start(&place, &config(&sim, &place), &[]);
    let begun = || (Books::of(&sim, &place.out(), Form::Envelope).delivered > 0).then_some(());
    wait("the first records", || host.log_tail(), begun);
    host.signal("STOP");
    sleep(Duration::from_secs(3));
    host.signal("CONT");
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact("after three seconds of sleep");
}

#[test]
fn a_state_file_has_one_owner() {
    let (place, sim) = busy();
    let host = Host::start(&place, &config(&sim, &place), &[]);
    host.wait_log("records are appended");
    let elsewhere = Place::new();
    let second = config(&sim, &elsewhere).with(&[("db", &place.text("state.db"))]);
    let ending = Host::start(&elsewhere, &second, &[]).wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    let lines: Vec<_> = ending.log.lines().filter(|line| line.contains("state.db")).collect();
    assert_eq!(lines.len(), 1, "one line that names the file\n{}", ending.log);
    assert!(lines[0].contains("[error]") && lines[0].contains("in use"), "{}", lines[0]);
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact("beside a second process");
}
