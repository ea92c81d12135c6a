//! Cloud App Security: streams, links, faults and the budget.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use chrono::Utc;
use trendmicro_sim::{
    Clock, CloudAppConfig, Fault, FaultKind, FilterTime, Lateness, LinkEnd, LinkForm, Order, Sim,
    When,
};

use super::account::{Account, wait_complete};
use super::{around, common, stanza, status};
use crate::support::{Host, KEY, Place, at_once, wait};

const STREAMS: usize = 48;
const CONNECTOR: &str = "cloud_app_security";
/// What the plugin allows itself in any minute; the vendor allows 20.
const BUDGET: usize = 18;

/// Three pages in each of the 48 streams, no live records and no limit.
fn cloud_app() -> CloudAppConfig {
    CloudAppConfig {
        api_key: KEY.to_owned(),
        backlog: 7,
        backlog_span: Duration::from_secs(1500),
        live_per_second: 0.0,
        page_limit_max: 3,
        rate_limit: None,
        ..CloudAppConfig::default()
    }
}

/// The same for some services.
fn some(services: &[&str]) -> CloudAppConfig {
    let services = services.iter().map(|&name| name.to_owned()).collect();
    CloudAppConfig { services, ..cloud_app() }
}

fn simulate(cloud_app: CloudAppConfig) -> Sim {
    let sim = Sim::builder().without_email().cloud_app(cloud_app).start();
    sim.expect("the simulator starts")
}

/// A vendor, what goes wrong, what the plugin is told, and what the log must say.
struct Case {
    name: String,
    cloud_app: CloudAppConfig,
    faults: Vec<Fault>,
    properties: Vec<(&'static str, &'static str)>,
    says: &'static str,
}

impl Case {
    fn new(name: &str, cloud_app: CloudAppConfig) -> Self {
        let (faults, properties) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), cloud_app, faults, properties, says: "" }
    }

    fn fault(name: &str, when: When, kind: FaultKind, says: &'static str) -> Self {
        Self { faults: vec![Fault::new("", when, kind)], says, ..Self::new(name, cloud_app()) }
    }

    /// Every stream is complete, each record came once, and what was to happen did.
    fn run(self) {
        let Self { name, cloud_app, faults, properties, says } = self;
        let is_live = cloud_app.live_per_second > 0.0;
        let streams = cloud_app.services.len() * 4;
        let (place, sim) = (Place::new(), simulate(cloud_app));
        let faults: Vec<u64> = faults.into_iter().map(|fault| sim.faults().add(fault)).collect();
        let config = around(&sim, &place, stanza(&sim, &place, CONNECTOR)).with(&properties);
        let begun = sim.counts().visible;
        let host = Host::start(&place, &config, &[]);
        if is_live {
            let enough = || (sim.counts().visible > begun + 150).then_some(());
            wait("live records", || host.log_tail(), enough);
            sim.stop_live();
        }
        wait_complete(&host, &sim, &place.out());
        if !says.is_empty() {
            host.wait_log(says);
        }
        host.stop();
        let account = Account::of(&sim, &place.out());
        account.assert_exact(&name);
        assert_eq!(account.delivered.len(), streams, "{name}: {}", account.describe());
        let fired: u64 = faults.iter().map(|&id| sim.faults().fired(id)).sum();
        assert!(faults.is_empty() || fired > 0, "{name} never happened");
    }
}

#[test]
fn every_way_to_link_and_to_end_is_understood() {
    let forms =
        [LinkForm::Full, LinkForm::WithoutScheme, LinkForm::ReversedPath, LinkForm::StraySpace];
    let ends = [LinkEnd::EmptyString, LinkEnd::Null, LinkEnd::Missing];
    let pairs = forms.into_iter().flat_map(|form| ends.map(|end| (form, end)));
    let case = |(link_form, link_end)| {
        let name = format!("{link_form:?}, {link_end:?}");
        Case::new(&name, CloudAppConfig { link_form, link_end, ..cloud_app() })
    };
    assert_eq!(cloud_app().services.len() * 4, STREAMS);
    at_once(pairs.map(case).collect(), Case::run);
}

#[test]
fn every_way_to_list_is_understood() {
    let case = |name: &str, cloud_app| Case::new(name, cloud_app);
    let full = CloudAppConfig { backlog: 6, link_after_last: true, ..cloud_app() };
    let cases = vec![
        case("a link after a full last page", full),
        case("one id, two events", CloudAppConfig { overlapping_ids: true, ..cloud_app() }),
        case("newest first", CloudAppConfig { order: Order::Descending, ..cloud_app() }),
        case("no order", CloudAppConfig { order: Order::Shuffled, ..cloud_app() }),
        case("end exclusive", CloudAppConfig { end_inclusive: false, ..cloud_app() }),
        case("one page", CloudAppConfig { page_limit_max: 500, ..cloud_app() }),
        case("by detection", CloudAppConfig { filter: FilterTime::Detection, ..cloud_app() }),
    ];
    at_once(cases, Case::run);
}

#[test]
fn late_and_live_records_arrive() {
    let live = CloudAppConfig { live_per_second: 20.0, ..some(&["exchange", "sharepoint", "box"]) };
    let late = Lateness::Uniform { max: Duration::from_secs(6), share: 0.3 };
    let late = CloudAppConfig { lateness: late, ..live.clone() };
    let shuffled = CloudAppConfig { order: Order::Shuffled, overlapping_ids: true, ..late.clone() };
    let detection = CloudAppConfig { filter: FilterTime::Detection, ..live };
    let case = |name: &str, cloud_app| {
        let services = ("services", "exchange, sharepoint, box");
        let properties = vec![services, ("interval", "2s"), ("overlap", "60s")];
        Case { properties, ..Case::new(name, cloud_app) }
    };
    let cases = vec![
        case("late", late),
        case("late, no order, one id for two events", shuffled),
        case("live, by detection", detection),
    ];
    at_once(cases, Case::run);
}

#[test]
fn failing_and_damaged_answers_are_asked_for_again() {
    let often = |name: &str, kind, says| Case::fault(name, When::Probability(0.2), kind, says);
    let html = |code| FaultKind::HtmlError { code };
    // A window that leads in a circle begins anew, each time later, so they must be few.
    let circle = |name: &str, kind| Case {
        cloud_app: some(&["exchange", "sharepoint"]),
        ..Case::fault(name, When::Every(6), kind, "lead in a circle")
    };
    // Each of these holds up everybody, so they must be few too.
    let held = When::Times(3);
    let cases = vec![
        Case::fault("429 with Retry-After", held, status(429, Some("1")), "HTTP 429"),
        often("429", status(429, None), "HTTP 429"),
        often("500", status(500, None), "HTTP 500"),
        often("reset", FaultKind::Reset, "the connection failed"),
        often("close mid body", FaultKind::CloseMidBody, "the connection failed"),
        often("truncated", FaultKind::TruncatedJson, "cannot be read"),
        often("HTML with 200", html(200), "cannot be read"),
        often("HTML with 502", html(502), "HTTP 502"),
        often("broken gzip", FaultKind::GzipBroken, ""),
        often("repeated records", FaultKind::RepeatRecords, ""),
        circle("repeated page", FaultKind::RepeatPage),
        circle("endless link", FaultKind::EndlessToken),
    ];
    at_once(cases, Case::run);
}

/// The token goes to the configured host only, whatever the vendor's answers say.
#[test]
fn a_link_to_another_host_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    elsewhere.set_nonblocking(true).expect("a listener that does not wait");
    let port = elsewhere.local_addr().expect("an address").port();
    // Both simulators have the same records, since for both it is the same moment.
    let clock = Clock::fixed(Utc::now());
    let builder = Sim::builder().without_email().clock(clock);
    let good = CloudAppConfig { backlog: 5, ..some(&["onedrive", "box"]) };
    let evil_link = Some(format!("http://localhost:{port}"));
    let evil = CloudAppConfig { evil_link, ..good.clone() };
    let sim = builder.clone().cloud_app(evil).start().expect("the simulator starts");
    let address = sim.url().trim_start_matches("http://").to_owned();
    let place = Place::new();
    let stanza = stanza(&sim, &place, CONNECTOR).set("services", "onedrive, box");
    let host = Host::start(&place, &around(&sim, &place, stanza).with(&[("interval", "2s")]), &[]);
    let line = host.wait_log("is not followed");
    let names_both = line.contains(&format!("\"localhost:{port}\"")) && line.contains(&address);
    assert!(names_both && line.contains("[error]"), "{line}");
    let asked = sim.requests().len();
    let again = || (sim.requests().len() > asked + 8).then_some(());
    wait("more tries", || host.log_tail(), again);
    assert!(!Account::of(&sim, &place.out()).missing.is_empty(), "where did it come from?");
    drop(sim);
    let sim = builder.listen(&address).cloud_app(good).start().expect("the port is free again");
    wait_complete(&host, &sim, &place.out());
    host.stop();
    Account::of(&sim, &place.out()).assert_exact("after the link was put right");
    let connected = elsewhere.accept().map(|(_, from)| from);
    let is_silent = connected.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(is_silent, "somebody came: {connected:?}");
}

/// The first requests are a burst, and then there is silence until the minute is over.
#[test]
fn two_connectors_with_one_key_share_its_budget() {
    let services = ["exchange", "sharepoint", "onedrive", "dropbox", "box", "gmail"];
    let limits = (Some(20), Duration::from_secs(60));
    let cloud_app =
        CloudAppConfig { rate_limit: limits.0, rate_window: limits.1, ..some(&services) };
    let (place, sim) = (Place::new(), simulate(cloud_app));
    let stanza = common(&sim, &place)
        .set("connectors", "one, two")
        .set("connector", CONNECTOR)
        .set("interval", "1s")
        .set("one.services", "exchange, sharepoint, onedrive")
        .set("two.services", "dropbox, box, gmail");
    let host = Host::start(&place, &around(&sim, &place, stanza), &[]);
    let asked = || (sim.requests().len() >= BUDGET).then_some(());
    wait("the whole budget to be used", || host.log_tail(), asked);
    sleep(Duration::from_secs(8));
    host.stop();
    let rates = sim.rates();
    assert_eq!((rates[0].max_in_window, rates[0].violations), (BUDGET, 0), "{rates:?}");
    let requests = sim.requests();
    for services in [&services[..3], &services[3..]] {
        let is_own = |query: &str| services.iter().any(|name| query.contains(name));
        let own = requests.iter().filter(|request| is_own(&request.query)).count();
        assert!(own >= 4, "{services:?} had {own} of {BUDGET} requests");
    }
}

/// A vendor who allows less than the plugin thinks.
#[test]
fn a_window_that_is_refused_for_the_rate_is_asked_for_again() {
    at_once(vec![true, false], |retry_after| {
        let (rate_limit, rate_window) = (Some(5), Duration::from_secs(2));
        let tight = some(&["gmail"]);
        let tight = CloudAppConfig { rate_limit, rate_window, retry_after, ..tight };
        let (place, sim) = (Place::new(), simulate(tight));
        let stanza = stanza(&sim, &place, CONNECTOR).set("services", "gmail");
        let config = around(&sim, &place, stanza).with(&[("interval", "10s")]);
        let host = Host::start(&place, &config, &[]);
        wait_complete(&host, &sim, &place.out());
        host.stop();
        Account::of(&sim, &place.out()).assert_exact("a tight rate");
        assert!(sim.rate_violations() > 0, "the limit was never reached: {:?}", sim.rates());
    });
}
