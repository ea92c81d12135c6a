//! Several hosts, as processes of their own, that share one PostgreSQL database.

use std::time::{Duration, Instant};

use chrono::Utc;
use trendmicro_sim::{EmailConfig, Sim};

use crate::support::fleet::{
    CONNECTORS, Fleet, LEASE_TIMEOUT, WARRANT, common, has_lines, stanza, torture, vendor,
    write_password,
};
use crate::support::postgres::{PASSWORD, USER};
use crate::support::{Host, LineCounter, Section, email, simulate, wait};

const MINUTES: Duration = Duration::from_secs(240);
const ROUNDS: u32 = 6;
const SEED: u64 = 7;

#[test]
fn hosts_share_connectors_and_hand_them_over_without_a_copy() {
    let Some(mut fleet) = Fleet::new(vendor(10.0, 0.0), 3, &stanza) else { return };
    fleet.start(0);
    fleet.wait_spread(CONNECTORS.len(), 1);
    for index in [1, 2] {
        fleet.start_idle(index);
        let took = fleet.wait_spread(CONNECTORS.len(), index + 1);
        eprintln!("host {index} had its share after {took:?}");
    }

    let holder = wait("a holder", || fleet.tails(), || fleet.holder("accepted"));
    let since = Utc::now();
    let (took, _) = fleet.stop(holder);
    let handed = fleet.wait_asked("accepted", Utc::now());
    let total = Utc::now() - since;
    eprintln!("a clean stop took {took:?}; the next host asked {handed:?} later, {total} in all");
    fleet.wait_spread(CONNECTORS.len(), 2);
    fleet.start(holder);
    fleet.wait_spread(CONNECTORS.len(), 3);

    let other = (holder + 1) % 3;
    assert_eq!(fleet.nodes[other].host().reload(), "done", "{}", fleet.tails());
    fleet.wait_spread(CONNECTORS.len(), 3);
    fleet.sim.stop_live();
    fleet.wait_delivered(MINUTES);
    fleet.stop_all();
    fleet.account().assert_exact();
    fleet.assert_fenced();
    assert_eq!(fleet.sim.rate_violations(), 0, "{:?}", fleet.sim.rates());
    assert!(fleet.outs().iter().all(|out| has_lines(out)), "a host delivered nothing");
}

#[test]
fn hosts_that_are_tormented_lose_nothing_and_keep_to_the_budget() {
    let Some(outcome) = torture::run(SEED, &mut |round| round < ROUNDS) else { return };
    eprintln!("{outcome}");
    assert!(outcome.is_right(), "{outcome}\n{}", outcome.details);
    assert!(outcome.records > 1000 && outcome.kills > 0 && outcome.freezes > 0, "{outcome}");
}

/// Every one of them collects all of a small vendor.
fn many(sim: &Sim, count: usize) -> Section {
    let names: Vec<String> = (0..count).map(|index| format!("c{index}")).collect();
    common(sim)
        .set("connector", "email_security")
        .set("username", &EmailConfig::default().username)
        .set("content_types", "policy_events")
        .set("verify", "off")
        .set("interval", "10s")
        .set("connectors", &names.join(", "))
}

#[test]
fn many_connectors_are_spread_within_one() {
    const COUNT: usize = 64;
    let sim = simulate(EmailConfig { policy_backlog: 3, ..email() });
    let Some(mut fleet) = Fleet::new(sim, 4, &|sim| many(sim, COUNT)) else { return };
    (0..4).for_each(|index| fleet.start_idle(index));
    let took = fleet.wait_spread(COUNT, 4);
    eprintln!("{COUNT} connectors over 4 hosts after {took:?}: {:?}", fleet.spread());
    fleet.kill(2);
    let took = fleet.wait_spread(COUNT, 3);
    eprintln!("over 3 of them {took:?} after a kill: {:?}", fleet.spread());
    fleet.start_idle(2);
    let took = fleet.wait_spread(COUNT, 4);
    eprintln!("over 4 again after {took:?}: {:?}", fleet.spread());
    fleet.stop_all();
    assert!(fleet.spread().is_empty(), "leases are given back");
    fleet.assert_fenced();
}

fn alone(sim: &Sim) -> Section {
    common(sim).set("connector", "email_security").set("username", &EmailConfig::default().username)
}

/// The first series of a metric.
fn metric(host: &Host, name: &str) -> Option<f64> {
    let status = host.status();
    let text = status["inputs"][0]["metrics"].as_str()?;
    let start = format!("fluentbit_trendmicro_{name}{{");
    let line = text.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn wait_metric(fleet: &Fleet, name: &str, value: f64) {
    let shown = || metric(fleet.nodes[0].host(), name).filter(|&shown| shown == value);
    wait(&format!("{name} to be {value}"), || fleet.tails(), shown);
}

#[test]
fn a_database_that_is_away_is_waited_for() {
    let sim = simulate(EmailConfig { live_per_second: 5.0, ..email() });
    let Some(mut fleet) = Fleet::new(sim, 1, &alone) else { return };
    fleet.server.stop();
    fleet.start_idle(0);
    let line = fleet.nodes[0].host().wait_log("cannot be reached");
    assert!(line.contains("nothing is lost"), "{line}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.sim.requests().len(), 0, "nobody may ask without a lease");
    fleet.server.run();
    fleet.nodes[0].host().wait_log("the database answers again");
    wait("records", || fleet.tails(), || has_lines(&fleet.nodes[0].place.out()).then_some(()));
    wait_metric(&fleet, "database_up", 1.0);
    wait_metric(&fleet, "lease_held", 1.0);
    wait_metric(&fleet, "lease_epoch", 1.0);

    fleet.server.pause();
    std::thread::sleep(WARRANT + Duration::from_secs(1));
    let asked = fleet.sim.requests().len();
    std::thread::sleep(LEASE_TIMEOUT);
    assert_eq!(fleet.sim.requests().len(), asked, "the warrant has ended");
    wait_metric(&fleet, "database_up", 0.0);
    fleet.server.resume();
    wait_metric(&fleet, "database_up", 1.0);
    wait("requests", || fleet.tails(), || (fleet.sim.requests().len() > asked).then_some(()));
    fleet.sim.stop_live();
    fleet.wait_delivered(MINUTES);
    let log = fleet.nodes[0].host().log();
    assert_eq!(log.matches("nothing new is asked for or saved until").count(), 2, "{log}");
    fleet.stop_all();
    fleet.account().assert_exact();
    fleet.assert_fenced();
}

#[test]
fn a_wrong_password_is_refused_at_the_start_and_waited_for_later() {
    let sim = simulate(EmailConfig { live_per_second: 5.0, ..email() });
    let Some(mut fleet) = Fleet::new(sim, 1, &alone) else { return };
    write_password(&fleet.nodes[0].place, "wrong");
    fleet.start_idle(0);
    let ending = fleet.nodes[0].host.take().unwrap().wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    assert!(ending.log.contains("write: db_password_file"), "{}", ending.log);

    write_password(&fleet.nodes[0].place, PASSWORD);
    fleet.start(0);
    wait("records", || fleet.tails(), || has_lines(&fleet.nodes[0].place.out()).then_some(()));
    let change = format!(
        "ALTER ROLE {USER} PASSWORD 'another';
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"
    );
    fleet.server.sql("postgres", &change);
    fleet.nodes[0].host().wait_log("password authentication failed");
    std::thread::sleep(LEASE_TIMEOUT);
    let asked = fleet.sim.requests().len();
    std::thread::sleep(LEASE_TIMEOUT);
    assert_eq!(fleet.sim.requests().len(), asked, "nobody may ask without a lease");
    write_password(&fleet.nodes[0].place, "another");
    fleet.nodes[0].host().wait_log("the database answers again");
    fleet.sim.stop_live();
    fleet.wait_delivered(MINUTES);
    let log = fleet.nodes[0].host().log();
    // The keeper of the leases and the committer say it once each, a pass may say it too.
    let said = log.matches("password authentication failed").count();
    assert!(said <= 4, "{said} times\n{log}");
    assert!(!log.contains("another'"), "the password was logged");
    fleet.stop_all();
    fleet.account().assert_exact();
}

#[test]
fn a_host_that_wakes_up_after_a_takeover_does_nothing_with_what_it_had() {
    let sim = simulate(EmailConfig {
        accepted_backlog: 20_000,
        page_limit_max: 500,
        live_per_second: 5.0,
        ..email()
    });
    let Some(mut fleet) = Fleet::new(sim, 2, &alone) else { return };
    fleet.start(0);
    wait("records", || fleet.tails(), || has_lines(&fleet.nodes[0].place.out()).then_some(()));
    // While it is paused, what was queued stays so.
    let queued = wait(
        "a queue",
        || fleet.tails(),
        || {
            fleet.nodes[0].host().command("pause 0");
            std::thread::sleep(Duration::from_secs(1));
            let bytes = metric(fleet.nodes[0].host(), "queue_bytes").filter(|&bytes| bytes > 0.0);
            if bytes.is_none() {
                fleet.nodes[0].host().command("resume 0");
            }
            bytes
        },
    );
    let status = fleet.nodes[0].host().status();
    let handed = status["inputs"][0]["handed_over_records"].as_u64().expect("a count");
    fleet.nodes[0].host().signal("STOP");
    let since = Utc::now();
    fleet.start(1);
    let took = fleet.wait_asked("accepted", since);
    eprintln!("taken over after {took:?}, with {queued} bytes in the queue of who was frozen");
    fleet.nodes[1].host().wait_log("taken over from");
    std::thread::sleep(LEASE_TIMEOUT);
    fleet.nodes[0].host().signal("CONT");
    fleet.nodes[0].host().command("resume 0");
    fleet.nodes[0].host().wait_log("the lease is lost");
    fleet.sim.stop_live();
    fleet.wait_delivered(MINUTES);
    fleet.stop_all();
    let delivered = LineCounter::default().count(&fleet.nodes[0].place.out());
    assert_eq!(delivered, handed, "nothing is handed over after the freeze");
    // What it had just handed over was not committed when it froze.
    fleet.account().assert_complete();
    fleet.assert_fenced();
}

#[test]
fn a_stop_does_not_wait_for_a_database_that_does_not_answer() {
    let sim = simulate(EmailConfig { live_per_second: 5.0, ..email() });
    let Some(mut fleet) = Fleet::new(sim, 1, &alone) else { return };
    fleet.start(0);
    wait("records", || fleet.tails(), || has_lines(&fleet.nodes[0].place.out()).then_some(()));
    fleet.server.pause();
    std::thread::sleep(Duration::from_secs(1));
    let host = fleet.nodes[0].host.take().unwrap();
    let begun = Instant::now();
    host.signal("TERM");
    let ending = host.wait_end();
    let took = begun.elapsed();
    eprintln!("a stop without the database took {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}\n{}", ending.log);
    assert!(!ending.log.contains("went astray"), "{}", ending.log);
    fleet.server.resume();
    fleet.start(0);
    fleet.sim.stop_live();
    fleet.wait_delivered(MINUTES);
    fleet.stop_all();
    fleet.account().assert_complete();
    fleet.assert_fenced();
}
