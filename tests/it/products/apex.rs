//! Apex Central: agents and servers, each listed whole behind a signed token.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::Value;
use trendmicro_sim::{ApexConfig, Clock, Fault, FaultKind, Sim, When};

use super::account::{Account, for_each_event, wait_complete, wait_lines};
use super::{around, stanza, status};
use crate::support::{Host, KEY, Place, at_once, wait};

const CONNECTOR: &str = "apex_central";
const ROUTE: &str = "/WebApp/API/";
/// The records in the vendor's documents.
const SAMPLES: [&str; 4] = [
    include_str!("../../sim/fixtures/apex-agents.json"),
    include_str!("../../sim/fixtures/apex-agents-vendordoc.json"),
    include_str!("../../sim/fixtures/apex-servers.json"),
    include_str!("../../sim/fixtures/apex-servers-vendordoc.json"),
];
const AGENTS: usize = 100_000;
/// By how much the host's process may grow; the unpacked answer alone is 45 MB.
const GROWTH_MAX_MB: u64 = 100;

fn apex() -> ApexConfig {
    ApexConfig { api_key: KEY.to_owned(), agents: 60, servers: 12, ..ApexConfig::default() }
}

fn simulate(apex: ApexConfig) -> Sim {
    Sim::builder().without_email().apex(apex).start().expect("the simulator starts")
}

/// How often the vendor answered so.
fn answers(sim: &Sim, status: u16) -> usize {
    sim.requests().iter().filter(|request| request.status == status).count()
}

#[test]
fn agents_and_servers_arrive_unchanged_from_any_spelling_of_the_address() {
    let ends = vec!["", "/", "/WebApp", "/WebApp/", "/WebApp/index.html"];
    at_once(ends, |end| {
        let (place, sim) = (Place::new(), simulate(apex()));
        let address = format!("{}{end}", sim.url());
        let stanza = stanza(&sim, &place, CONNECTOR).set("base_url", &address);
        let host = Host::start(&place, &around(&sim, &place, stanza), &[]);
        wait_complete(&host, &sim, &place.out());
        host.stop();
        Account::of(&sim, &place.out()).assert_exact(end);
        assert_eq!(sim.sweeps().len(), 2, "one list of agents and one of servers");
        assert_samples(&place);
    });
}

/// Every record of the vendor's documents is there to the letter, in its own order of members.
fn assert_samples(place: &Place) {
    let mut texts = HashSet::new();
    for_each_event(&place.out(), |event| {
        texts.insert(event.payload().to_string());
    });
    let mut samples = 0;
    for file in SAMPLES {
        let file: Value = serde_json::from_str(file).expect("a sample is JSON");
        for record in file["result_content"].as_array().into_iter().flatten() {
            assert!(texts.contains(&record.to_string()), "{record} did not arrive");
            samples += 1;
        }
    }
    assert!(samples >= 4, "{samples} samples");
}

#[test]
fn a_wrong_key_says_what_to_check() {
    let (place, sim) = (Place::new(), simulate(apex()));
    let stanza = stanza(&sim, &place, CONNECTOR).set("api_key", "another-key");
    let config = around(&sim, &place, stanza).with(&[("interval", "1s")]);
    let host = Host::start(&place, &config, &[]);
    let line = host.wait_log("HTTP 401");
    let has_advice = line.contains("api_key") && line.contains("application_id");
    assert!(line.contains("[error]") && has_advice, "{line}");
    let again = || (answers(&sim, 401) > 5).then_some(());
    wait("more tries", || host.log_tail(), again);
    assert!(!host.log().contains("another-key"), "a secret was logged");
    host.stop();
    assert_eq!(Account::of(&sim, &place.out()).delivered.len(), 0);
}

/// The vendor allows two minutes; the first refusal teaches the difference.
#[test]
fn a_clock_that_is_off_is_learnt_once() {
    let ahead = Clock::system();
    ahead.advance(Duration::from_secs(600));
    let behind = Clock::fixed(Utc::now() - TimeDelta::seconds(600));
    let cases = vec![(ahead, "s behind the vendor's"), (behind, "s ahead of the vendor's")];
    at_once(cases, |(clock, says)| {
        let sim = Sim::builder().without_email().apex(apex()).clock(clock).start();
        let (place, sim) = (Place::new(), sim.expect("the simulator starts"));
        let config = around(&sim, &place, stanza(&sim, &place, CONNECTOR));
        let host = Host::start(&place, &config.with(&[("interval", "2s")]), &[]);
        host.wait_log(says);
        wait_complete(&host, &sim, &place.out());
        let swept = || (sim.sweeps().len() >= 6).then_some(());
        wait("three sweeps", || host.log_tail(), swept);
        assert_eq!(answers(&sim, 401), 1, "{}", host.log_tail());
        assert_eq!(host.log().matches(says).count(), 1, "{}", host.log_tail());
        host.stop();
        Account::of(&sim, &place.out()).assert_complete(says);
    });
}

/// HTTP 200 with another result code than 1.
#[test]
fn a_failure_inside_a_success_is_one() {
    let (place, sim) = (Place::new(), simulate(apex()));
    let fault = sim.faults().add(Fault::new(ROUTE, When::Times(4), status(200, None)));
    let config = around(&sim, &place, stanza(&sim, &place, CONNECTOR));
    let host = Host::start(&place, &config.with(&[("interval", "2s")]), &[]);
    let line = host.wait_log("result_code -1");
    assert!(line.contains("[error]") && line.contains("Unknown error"), "{line}");
    wait_complete(&host, &sim, &place.out());
    host.wait_log("answered again after");
    host.stop();
    assert_eq!(sim.faults().fired(fault), 4);
    Account::of(&sim, &place.out()).assert_complete("after a failure inside a success");
}

/// Every attempt has a token of its own, also those after a failure.
#[test]
fn no_token_is_sent_twice() {
    let (place, sim) = (Place::new(), simulate(apex()));
    for (nth, kind) in [(3, status(500, None)), (5, FaultKind::CloseMidBody)] {
        sim.faults().add(Fault::new(ROUTE, When::Every(nth), kind));
    }
    let config = around(&sim, &place, stanza(&sim, &place, CONNECTOR));
    let host = Host::start(&place, &config.with(&[("interval", "2s")]), &[]);
    let swept = || (sim.sweeps().len() >= 10).then_some(());
    wait("five sweeps", || host.log_tail(), swept);
    wait_complete(&host, &sim, &place.out());
    host.stop();
    let answered = (answers(&sim, 401), answers(&sim, 500) > 0);
    assert_eq!(answered, (0, true), "{:?}", sim.requests());
    Account::of(&sim, &place.out()).assert_complete("fresh tokens");
}

#[test]
fn a_list_that_is_cut_off_is_asked_for_again() {
    let kinds = [
        FaultKind::TruncatedJson,
        FaultKind::CloseMidBody,
        FaultKind::GzipBroken,
        FaultKind::WrongLength,
        FaultKind::HtmlError { code: 200 },
    ];
    at_once(kinds.to_vec(), |kind| {
        let (place, sim) = (Place::new(), simulate(apex()));
        let name = format!("{kind:?}");
        let fault = sim.faults().add(Fault::new(ROUTE, When::Times(2), kind));
        let host = Host::start(&place, &around(&sim, &place, stanza(&sim, &place, CONNECTOR)), &[]);
        wait_complete(&host, &sim, &place.out());
        host.stop();
        assert_eq!(sim.faults().fired(fault), 2, "{name}");
        Account::of(&sim, &place.out()).assert_exact(&name);
    });
}

/// What was read of a list before it broke off was handed over, and comes once all the same.
#[test]
fn a_long_list_that_is_cut_off_is_delivered_once() {
    let (place, sim) = (Place::new(), simulate(ApexConfig { agents: 8_000, ..apex() }));
    let cut = Fault::new(ROUTE, When::Times(2), FaultKind::CloseMidBody);
    let fault = sim.faults().add(cut);
    let host = Host::start(
        &place,
        &around(&sim, &place, stanza(&sim, &place, CONNECTOR)),
        &["--tick-ms", "250"],
    );
    wait_complete(&host, &sim, &place.out());
    host.stop();
    assert_eq!(sim.faults().fired(fault), 2);
    Account::of(&sim, &place.out()).assert_exact("cut off");
}

/// An answer of this size is read as it comes, packed or not.
#[test]
fn a_hundred_thousand_agents_come_in_one_answer() {
    let few = peak_of_few_mb();
    at_once(vec![(true, AGENTS), (false, AGENTS / 4)], |(is_packed, agents)| {
        let sim = simulate(ApexConfig { agents, ..apex() });
        let place = Place::new();
        let address = if is_packed { sim.url().to_owned() } else { without_gzip(sim.url()) };
        let stanza = stanza(&sim, &place, CONNECTOR).set("base_url", &address);
        // Other programs share the machine, and this is not what makes an answer too slow.
        let config = around(&sim, &place, stanza).with(&[("timeout", "5m")]);
        let begun = Instant::now();
        // A host without optimisation is slow with so much at once, and must not seem to lose it.
        let host = Host::start(&place, &config, &["--tick-ms", "1000"]);
        wait_lines(&host, &place.out(), (agents + apex().servers) as u64);
        let (took, memory) = (begun.elapsed(), peak_mb(host.pid()));
        let report = host.stop();
        assert!(!report.log.contains("did not count them all"), "{}", report.log);
        let way = if is_packed { "with gzip" } else { "without gzip" };
        let growth = memory.saturating_sub(few);
        eprintln!("{agents} agents in one answer {way}: {took:.1?}, {growth} MB over {few} MB");
        assert!(sim.requests().iter().all(|request| request.accept_gzip == is_packed));
        assert!(growth < GROWTH_MAX_MB, "{growth} MB over {few} MB {way}");
        Account::of(&sim, &place.out()).assert_exact(way);
    });
}

/// The most memory that the host has when it collects next to nothing.
fn peak_of_few_mb() -> u64 {
    let (place, sim) = (Place::new(), simulate(apex()));
    let host = Host::start(&place, &around(&sim, &place, stanza(&sim, &place, CONNECTOR)), &[]);
    wait_complete(&host, &sim, &place.out());
    let peak = peak_mb(host.pid());
    host.stop();
    peak
}

/// The most memory that a process ever had.
fn peak_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let digits = line.trim().trim_end_matches(" kB");
    digits.parse::<u64>().expect("kilobytes") / 1024
}

/// The address of a proxy that keeps from the vendor that gzip is welcome.
fn without_gzip(upstream: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let upstream = upstream.trim_start_matches("http://").to_owned();
    // It serves until the test process ends.
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&upstream).expect("the simulator listens");
            let (from, to) = (client.try_clone(), server.try_clone());
            let (from, to) = (from.expect("a socket"), to.expect("a socket"));
            thread::spawn(move || pass_requests(from, to));
            thread::spawn(move || std::io::copy(&mut &server, &mut &client));
        }
    });
    format!("http://{address}")
}

/// Requests here are small enough to come in one piece; if one did not, the test would see gzip.
fn pass_requests(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.replace("accept-encoding: gzip", "accept-encoding: identity");
        if to.write_all(text.as_bytes()).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
