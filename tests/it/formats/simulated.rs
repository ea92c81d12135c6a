//! Every record of the simulator keeps to the schema of every format.

use std::collections::BTreeMap;
use std::time::Duration;

use in_trendmicro::envelope::Style;
use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Sim, WorkloadConfig};

use super::golden::FORMATS;
use super::schemas::{assert_valid, validator};
use super::{events, every_stream, with_stream};
use crate::support::{
    Config, Host, LineCounter, Place, config, email, for_each_delivered, input, simulate, wait,
};

const PAGE_RECORDS: usize = 200;

#[test]
fn every_simulated_record_keeps_to_every_schema() {
    if super::updates() {
        return;
    }
    let email = EmailConfig {
        accepted_backlog: 1500,
        blocked_backlog: 500,
        policy_backlog: 500,
        backlog_span: Duration::from_secs(3600),
        live_per_second: 0.0,
        ..EmailConfig::default()
    };
    let sim = Sim::builder()
        .email(email)
        .cloud_app(CloudAppConfig::default())
        .apex(ApexConfig::default())
        .workload(WorkloadConfig::default())
        .start()
        .unwrap();
    let mut by_type: BTreeMap<String, Vec<String>> = BTreeMap::new();
    sim.for_each_record(|record| {
        let name = record.content_type.replace('/', ".");
        by_type.entry(name).or_default().push(record.json.clone());
    });
    let mut checked = 0;
    every_stream(|product, stream| {
        let page = format!("{product}.{}", stream.name);
        let records = by_type.remove(&stream.name).unwrap_or_default();
        for (name, format) in FORMATS {
            let validator = validator(name, product);
            for records in records.chunks(PAGE_RECORDS) {
                let list = with_stream(&page, |connector, _| connector.list());
                let text = format!("{{\"{list}\":[{}]}}", records.join(","));
                let events = events(&page, &text, &Style::of(*format));
                assert_eq!(events.len(), records.len());
                events.iter().for_each(|event| assert_valid(&validator, event));
                checked += events.len();
            }
        }
    });
    assert!(by_type.is_empty(), "{:?}", by_type.keys());
    assert!(checked > 10_000, "{checked}");
}

/// From the API to the host's output: the message is the text that the vendor sent.
#[test]
fn a_host_gets_the_vendors_text() {
    let (place, sim) = (Place::new(), simulate(email()));
    let config =
        Config { inputs: vec![input(&sim, &place).set("format", "ecs")], ..config(&sim, &place) };
    let mut shown = Vec::new();
    sim.for_each_record(|record| shown.push(record.json.clone()));
    let host = Host::start(&place, &config, &[]);
    let mut lines = LineCounter::default();
    wait(
        "every record",
        || host.log_tail(),
        || (lines.count(&place.out()) >= shown.len() as u64).then_some(()),
    );
    host.stop();
    let validator = validator("ecs", "email_security");
    let mut delivered = Vec::new();
    for_each_delivered(&place.out(), |_, event| {
        assert_valid(&validator, event);
        delivered.push(event["message"].as_str().unwrap_or_default().to_owned());
    });
    shown.sort();
    delivered.sort();
    assert_eq!(delivered, shown);
}
