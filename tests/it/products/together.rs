//! All four products in one stanza, with one state file.

use std::io::Write as _;
use std::time::Duration;

use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Fault, Sim, When, WorkloadConfig};

use super::account::{Account, wait_complete, wait_types};
use super::{around, common, status};
use crate::support::{Config, Host, KEY, Place, email, fluent_bit, wait};

const SERVICES: &str = "exchange, onedrive, teams_chat";
const CONTENT_TYPES: usize = 3 + 3 * 4 + 2 + 1;

fn simulate() -> Sim {
    let api_key = || KEY.to_owned();
    let cloud_app = CloudAppConfig {
        api_key: api_key(),
        services: SERVICES.split(", ").map(str::to_owned).collect(),
        backlog: 12,
        backlog_span: Duration::from_secs(1500),
        live_per_second: 0.0,
        page_limit_max: 5,
        rate_limit: None,
        ..CloudAppConfig::default()
    };
    let apex = ApexConfig { api_key: api_key(), ..ApexConfig::default() };
    let workload =
        WorkloadConfig { api_key: api_key(), max_items_max: 40, ..WorkloadConfig::default() };
    let builder = Sim::builder().email(email()).cloud_app(cloud_app).apex(apex);
    builder.workload(workload).start().expect("the simulator starts")
}

/// What one connector is told goes before what all of them are told.
fn config(sim: &Sim, place: &Place) -> Config {
    let stanza = common(sim, place)
        .set("connectors", "mail, cas, apex, workload")
        .set("interval", "2s")
        .set("lookback", "1h")
        .set("mail.connector", "email_security")
        .set("mail.username", &EmailConfig::default().username)
        .set("cas.connector", "cloud_app_security")
        .set("cas.services", SERVICES)
        .set("cas.rate_limit", "none")
        .set("apex.connector", "apex_central")
        .set("apex.application_id", &ApexConfig::default().application_id)
        .set("apex.interval", "1h")
        .set("workload.connector", "workload_security")
        .set("workload.interval", "1h");
    around(sim, place, stanza)
}

fn assert_all(sim: &Sim, place: &Place, what: &str) {
    let account = Account::of(sim, &place.out());
    account.assert_exact(what);
    assert_eq!(account.delivered.len(), CONTENT_TYPES, "{what}: {}", account.describe());
}

#[test]
fn four_products_in_one_stanza_are_complete() {
    let (place, sim) = (Place::new(), simulate());
    let config = config(&sim, &place);
    for run in ["the first run", "after a restart"] {
        let host = Host::start(&place, &config, &[]);
        wait_complete(&host, &sim, &place.out());
        host.stop();
        assert_all(&sim, &place, run);
    }
}

/// Each fails in turn, while the others go on as if nothing were.
#[test]
fn one_product_that_fails_does_not_disturb_the_others() {
    let cases = vec![
        ("mail", "/api/v1/log/", vec!["accepted_traffic", "blocked_traffic", "policy_events"]),
        ("cas", "/v1/siem/", vec![]),
        ("apex", "/WebApp/", vec!["agents", "servers"]),
        ("workload", "/api/computers", vec!["computers"]),
    ];
    crate::support::at_once(cases, |(connector, route, own)| {
        let is_other = |content_type: &str| match connector {
            "cas" => !content_type.contains('/'),
            _ => !own.contains(&content_type),
        };
        let (place, sim) = (Place::new(), simulate());
        sim.faults().add(Fault::new(route, When::Always, status(401, None)));
        // Those who are refused ask again at their interval.
        let interval = format!("{connector}.interval");
        let config = config(&sim, &place).with(&[(&interval, "2s")]);
        let host = Host::start(&place, &config, &[]);
        wait_types(&host, &sim, &place.out(), is_other);
        let line = host.wait_log("HTTP 401");
        assert!(line.contains("[error]") && line.contains(&format!("[{connector}]")), "{line}");
        Account::of_types(&sim, &place.out(), is_other).assert_exact(connector);
        let own = Account::of_types(&sim, &place.out(), |it| !is_other(it));
        assert!(own.delivered.is_empty(), "in spite of 401: {}", own.describe());
        sim.faults().clear();
        wait_complete(&host, &sim, &place.out());
        host.stop();
        Account::of(&sim, &place.out()).assert_complete(connector);
        Account::of_types(&sim, &place.out(), is_other).assert_exact(connector);
    });
}

#[test]
fn four_products_in_one_stanza_are_complete_in_a_real_host() {
    if fluent_bit().is_none() {
        // Not captured by the test runner, unlike what eprintln! says.
        let _ =
            std::io::stderr().write_all(b"FLUENT_BIT is not set: the real host was not tested\n");
        return;
    }
    let (place, sim) = (Place::new(), simulate());
    // Hosts before 4.0.3 forget what is in memory when they are stopped.
    let config = config(&sim, &place)
        .service("flush", "1")
        .service("storage.path", &place.text("storage"))
        .with(&[("storage.type", "filesystem")])
        .file_per_tag();
    let host = Host::start_real(&place, "host.yaml", &config.yaml()).expect("a real host");
    host.wait_log("records are appended");
    wait_complete(&host, &sim, &place.out());
    let email_again = || {
        let requests = sim.requests();
        let mail = requests.iter().filter(|it| it.route.starts_with("/api/v1/log/"));
        (mail.count() > 40).then_some(())
    };
    wait("more rounds", || host.log_tail(), email_again);
    host.stop_real();
    assert_all(&sim, &place, "a real host");
}
