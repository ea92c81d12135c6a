//! Workload Security: computers, page after page behind the last identifier.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use trendmicro_sim::{Fault, FaultKind, KeyStyle, Mutation, Sim, When, WorkloadConfig};

use super::account::{Account, for_each_event, wait_complete, wait_lines};
use super::{around, stanza, status};
use crate::support::{Host, KEY, Place, at_once, wait};

const CONNECTOR: &str = "workload_security";
/// A key of the newer kind goes into another header.
const ACCOUNT_KEY: &str = "tmcCanary77:the-account-key-of-the-tests";
/// What a search with every part in it takes.
const LARGE_BYTES: usize = 300 * 1024;

/// Several short pages.
fn workload() -> WorkloadConfig {
    WorkloadConfig {
        api_key: KEY.to_owned(),
        computers: 100,
        computer_bytes: 2048,
        max_items_max: 30,
        ..WorkloadConfig::default()
    }
}

fn simulate(workload: WorkloadConfig) -> Sim {
    Sim::builder().without_email().workload(workload).start().expect("the simulator starts")
}

/// A vendor, what goes wrong, what the plugin is told beside the usual, and where it is sent.
struct Case {
    name: &'static str,
    workload: WorkloadConfig,
    fault: Option<Fault>,
    properties: Vec<(&'static str, &'static str)>,
    path: &'static str,
    says: &'static str,
}

impl Case {
    fn new(name: &'static str, workload: WorkloadConfig) -> Self {
        Self { name, workload, fault: None, properties: Vec::new(), path: "", says: "" }
    }

    fn often(name: &'static str, kind: FaultKind, says: &'static str) -> Self {
        let fault = Some(Fault::new("", When::Every(2), kind));
        Self { fault, says, ..Self::new(name, workload()) }
    }

    /// The sweep is complete, and each computer came once.
    fn run(self) -> Sim {
        let (place, sim) = (Place::new(), simulate(self.workload));
        let fault = self.fault.map(|fault| sim.faults().add(fault));
        let address = format!("{}{}", sim.url(), self.path);
        let stanza = stanza(&sim, &place, CONNECTOR).set("base_url", &address);
        let config = around(&sim, &place, stanza).with(&self.properties);
        // A host without optimisation is slow with large records, and must not seem to lose them.
        let host = Host::start(&place, &config, &["--tick-ms", "250"]);
        wait_complete(&host, &sim, &place.out());
        if !self.says.is_empty() {
            host.wait_log(self.says);
        }
        assert!(!host.log().contains(ACCOUNT_KEY), "a secret was logged");
        host.stop();
        Account::of(&sim, &place.out()).assert_exact(self.name);
        let fired = fault.map(|fault| sim.faults().fired(fault));
        assert_ne!(fired, Some(0), "{} never happened", self.name);
        sim
    }
}

#[test]
fn keys_and_addresses_of_every_kind_work() {
    let key = |key_style, api_key: &str| WorkloadConfig {
        key_style,
        api_key: api_key.to_owned(),
        ..workload()
    };
    let at = |path| Case { path, ..Case::new(path, workload()) };
    let own = WorkloadConfig { base_path: "/dsm/api".to_owned(), ..workload() };
    let account = Case::new("an account's key", key(KeyStyle::ApiKey, ACCOUNT_KEY));
    let cases = vec![
        Case::new("a secret key", key(KeyStyle::Secret, KEY)),
        Case { properties: vec![("api_key", ACCOUNT_KEY)], ..account },
        at("/"),
        at("/api"),
        at("/api/"),
        at("/api/computers/search"),
        Case { path: "/dsm/api/", ..Case::new("a manager of one's own", own) },
    ];
    at_once(cases, |case| {
        let sim = case.run();
        assert!(sim.requests().len() > 3, "that was one page: {:?}", sim.requests());
        assert!(sim.requests().iter().all(|request| request.query.contains("expand=none")));
    });
}

#[test]
fn what_is_to_be_expanded_is_asked_for() {
    let large = WorkloadConfig { computers: 24, computer_bytes: LARGE_BYTES, ..workload() };
    let cases = vec![
        (
            Case {
                properties: vec![("expand", "computerStatus, interfaces")],
                ..Case::new("two parts", workload())
            },
            vec!["expand=computerStatus", "expand=interfaces"],
        ),
        (
            Case { properties: vec![("expand", "all")], ..Case::new("records of 300 kB", large) },
            vec!["expand=all"],
        ),
    ];
    at_once(cases, |(case, parts)| {
        let is_large = case.workload.computer_bytes == LARGE_BYTES;
        let sim = case.run();
        for request in sim.requests() {
            let expands = |part: &&str| request.query.split('&').any(|pair| pair == *part);
            assert!(parts.iter().all(expands), "{}", request.query);
            assert_eq!(request.query.matches("expand=").count(), parts.len());
        }
        let mut bytes_most = 0;
        sim.for_each_record(|record| bytes_most = bytes_most.max(record.json.len()));
        assert!(!is_large || bytes_most > LARGE_BYTES * 9 / 10, "only {bytes_most} bytes");
    });
}

#[test]
fn failing_pages_and_tight_rates_cost_nothing() {
    let tight = |name, retry_after| {
        let (rate_limit, rate_window) = (Some(2), Duration::from_secs(1));
        let workload = WorkloadConfig { rate_limit, rate_window, retry_after, ..workload() };
        Case { says: "HTTP 429", ..Case::new(name, workload) }
    };
    let cases = vec![
        tight("a tight rate", false),
        tight("a tight rate with Retry-After", true),
        Case::often("500", status(500, None), "HTTP 500"),
        Case::often("reset", FaultKind::Reset, "the connection failed"),
        Case::often("close mid body", FaultKind::CloseMidBody, "the connection failed"),
        Case::often("truncated", FaultKind::TruncatedJson, "cannot be read"),
        Case::often("HTML with 200", FaultKind::HtmlError { code: 200 }, "cannot be read"),
    ];
    at_once(cases, |case| drop(case.run()));
}

/// Those that are there all the while are in the sweep, once, whoever comes and goes meanwhile.
#[test]
fn computers_that_come_and_go_while_a_sweep_pages_do_not_break_it() {
    let (place, sim) = (Place::new(), simulate(WorkloadConfig { max_items_max: 10, ..workload() }));
    let slow = FaultKind::Slow { delay: Duration::from_millis(150) };
    sim.faults().add(Fault::new("", When::Always, slow));
    let mut stay = HashSet::new();
    sim.for_each_record(|record| {
        stay.insert(id_of(&record.json));
    });
    let before = stay.len();
    let host = Host::start(&place, &around(&sim, &place, stanza(&sim, &place, CONNECTOR)), &[]);
    let mutation = Mutation { add: 3, remove: 3, change: 0 };
    for pages in [2, 4, 6] {
        let begun = || (sim.requests().len() >= pages).then_some(());
        wait("some pages", || host.log_tail(), begun);
        let mutated = sim.mutate("computers", mutation).expect("an inventory of computers");
        stay.retain(|id| !mutated.removed.contains(id));
    }
    let ended = || {
        let last = sim.requests().pop()?;
        (last.status == 200 && last.records == 0).then_some(())
    };
    wait("the end of the sweep", || host.log_tail(), ended);
    let shown: usize = sim.requests().iter().map(|request| request.records).sum();
    wait_lines(&host, &place.out(), shown as u64);
    host.stop();
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for_each_event(&place.out(), |event| *arrived.entry(event.entity()).or_default() += 1);
    assert!(stay.len() >= before - 9 && sim.requests().len() > 9, "nothing went on meanwhile");
    let is_once = |id: &&String| arrived.get(*id) == Some(&1);
    let others: Vec<_> = stay.iter().filter(|id| !is_once(id)).collect();
    assert!(others.is_empty(), "not once in the sweep: {others:?}");
    assert!(arrived.values().all(|copies| *copies == 1), "doubled within a sweep: {arrived:?}");
}

fn id_of(json: &str) -> String {
    let computer: serde_json::Value = serde_json::from_str(json).expect("JSON");
    computer["ID"].to_string()
}
