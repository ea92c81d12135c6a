//! Inventories in whole, with `emit: all`: what a sweep, a restart and a crash deliver.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use trendmicro_sim::{ApexConfig, Fault, FaultKind, Mutation, Sim, When, WorkloadConfig};

use super::account::{Account, for_each_event, wait_complete};
use super::{around, common};
use crate::support::{Config, Host, KEY, LineCounter, Place, Section, wait};

/// Three streams: agents, servers, and computers on several pages.
pub fn simulate() -> Sim {
    let api_key = KEY.to_owned();
    let apex =
        ApexConfig { api_key: api_key.clone(), agents: 40, servers: 10, ..ApexConfig::default() };
    let workload = WorkloadConfig {
        api_key,
        computers: 60,
        computer_bytes: 1024,
        max_items_max: 20,
        ..WorkloadConfig::default()
    };
    let builder = Sim::builder().without_email().apex(apex).workload(workload);
    builder.start().expect("the simulator starts")
}

/// One stanza for both products.
pub fn both(sim: &Sim, place: &Place) -> Section {
    common(sim, place)
        .set("connectors", "apex, workload")
        .set("apex.connector", "apex_central")
        .set("apex.application_id", &ApexConfig::default().application_id)
        .set("workload.connector", "workload_security")
}

fn config(sim: &Sim, place: &Place, interval: &str) -> Config {
    around(sim, place, both(sim, place)).with(&[("interval", interval)])
}

#[test]
fn each_sweep_delivers_everything_again_under_the_same_ids() {
    let (place, sim) = (Place::new(), simulate());
    let host = Host::start(&place, &config(&sim, &place, "1s"), &[]);
    let mut lines = LineCounter::default();
    let all = sim.counts().visible;
    let swept = || (lines.count(&place.out()) >= 4 * all).then_some(());
    wait("several sweeps", || host.log_tail(), swept);
    let mutation = Mutation { add: 2, remove: 2, change: 2 };
    for content_type in ["agents", "servers", "computers"] {
        sim.mutate(content_type, mutation).expect("an inventory");
    }
    wait_complete(&host, &sim, &place.out());
    host.stop();
    let account = Account::of(&sim, &place.out());
    account.assert_complete("several sweeps");
    let mut copies: HashMap<String, (String, Vec<usize>)> = HashMap::new();
    for_each_event(&place.out(), |event| {
        assert!(event.record.get("change").is_none(), "{}", event.record);
        let (content_type, counts) = copies
            .entry(event.text("event_id").to_owned())
            .or_insert_with(|| (event.content_type(), vec![0]));
        assert_eq!(*content_type, event.content_type());
        counts[0] += 1;
    });
    // What was there all the while is the most of it; the last sweep may have been cut off.
    for content_type in ["agents", "servers", "computers"] {
        let own = copies.values().filter(|(own, _)| own == content_type);
        let mut counts: Vec<usize> = own.map(|(_, counts)| counts[0]).collect();
        counts.sort_unstable();
        let (middle, most) = (counts[counts.len() / 2], counts[counts.len() - 1]);
        assert!(middle >= 3 && most - middle <= 1, "{content_type}: {counts:?}");
    }
}

#[test]
fn a_restart_within_the_interval_does_not_sweep_again() {
    let (place, sim) = (Place::new(), simulate());
    let config = config(&sim, &place, "1h");
    let host = Host::start(&place, &config, &[]);
    wait_complete(&host, &sim, &place.out());
    host.stop();
    let asked = sim.requests().len();
    let host = Host::start(&place, &config, &[]);
    host.wait_log("records are appended");
    // Long enough for a sweep, which takes a second.
    sleep(Duration::from_secs(3));
    host.stop();
    assert_eq!(sim.requests().len(), asked, "{:?}", sim.requests().split_off(asked));
    Account::of(&sim, &place.out()).assert_exact("after a restart");
}

#[test]
fn a_sweep_that_a_crash_cut_off_begins_anew() {
    let (place, sim) = (Place::new(), simulate());
    let slow = FaultKind::Slow { delay: Duration::from_millis(500) };
    let slow = sim.faults().add(Fault::new("/api/computers", When::Always, slow));
    let config = config(&sim, &place, "1h");
    let host = Host::start(&place, &config, &[]);
    let pages = || sim.requests().iter().filter(|it| it.route.contains("computers")).count();
    let begun = || (pages() >= 2).then_some(());
    wait("the second page", || host.log_tail(), begun);
    host.kill();
    sim.faults().remove(slow);
    let before = pages();
    // What the killed host left behind says nothing about the sweep that follows.
    let elsewhere = place.path("out-2");
    fs::create_dir(&elsewhere).expect("an output directory");
    let mut second = config.clone();
    let output = second.outputs.remove(0).set("path", &elsewhere.display().to_string());
    second.outputs.push(output);
    let host = Host::start(&place, &second, &[]);
    let is_computers = |content_type: &str| content_type == "computers";
    super::account::wait_types(&host, &sim, &elsewhere, is_computers);
    host.stop();
    let requests = sim.requests();
    let first = requests.iter().filter(|it| it.route.contains("computers")).nth(before);
    assert_eq!(first.and_then(|it| it.token.as_deref()), Some("0"), "not from the start");
    Account::of_types(&sim, &elsewhere, is_computers).assert_exact("after kill -9 in a sweep");
}
