//! No JSON, however odd, is lost or breaks an event.

use std::collections::HashSet;

use in_trendmicro::config::{EcsMapping, Format};
use in_trendmicro::envelope::Style;
use in_trendmicro::format;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PAGES, event_of, every_stream, with_stream};

/// Texts that conversions take for something.
const TEXTS: &[&str] = &[
    "",
    "<",
    "<>",
    "<a@b.example>",
    "\"Doe, J\" <j@b.example>",
    "in",
    "none",
    "Delivered",
    "Malware",
    "2023-09-28T13:55:33Z",
    "2023-09-28T13:55:33.123456789+01:00",
    "2023-09-28T13:55:33",
    "0000-00-00T00:00:00Z",
    "mx.example.org[1.2.3.4]:25",
    "mx[::1]:99999",
    "1.2.3.4",
    "fe80::1%2,1.2.3.4,x",
    "42-01-0a:80-00-0B",
    "upstreamTLS: TLS 1.2; downstreamTLS: None",
    "upstreamTLS:;",
];

/// The names that the tables know, and some that they do not.
fn names(page: &str) -> Vec<String> {
    let mut names: HashSet<String> =
        ["fileName", "sha256", "size", "x", "event", "*", "", "trendmicro"]
            .map(str::to_owned)
            .into();
    with_stream(page, |_, stream| {
        for format in [Format::Ecs, Format::Ocsf] {
            let tables = format::tables(format, EcsMapping::Full, &stream.shape).unwrap();
            for row in tables.into_iter().flatten() {
                for source in row.sources() {
                    names.extend(source.split('.').map(|name| name.replace("[]", "")));
                }
            }
        }
    });
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names
}

fn value(names: Vec<String>) -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        prop::sample::select(TEXTS).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    scalar.prop_recursive(3, 24, 4, move |inner| {
        let names = prop::sample::select(names.clone());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A record whose members may come twice.
fn record(page: &'static str) -> impl Strategy<Value = Odd> {
    let names = names(page);
    let name = prop::sample::select(names.clone());
    prop::collection::vec((name, value(names)), 0..12).prop_map(Odd)
}

/// The members of a record.
#[derive(Debug)]
struct Odd(Vec<(String, Value)>);

impl Odd {
    fn text(&self) -> String {
        let member = |(name, value): &(String, Value)| format!("{}:{value}", json!(name));
        let members: Vec<String> = self.0.iter().map(member).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Every text, number and flag in a value.
fn leaves(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| leaves(item, found)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, found)),
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        leaf => found.push(leaf.clone()),
    }
}

/// Whether a leaf stands in the event, or what it means does.
fn is_there(leaf: &Value, there: &HashSet<String>) -> bool {
    let has = |value: &Value| there.contains(&value.to_string());
    if has(leaf) {
        return true;
    }
    let Some(text) = leaf.as_str() else { return has(&json!(leaf.to_string())) };
    let id = text.trim_matches('<').trim_matches('>');
    let renamed = [("in", "inbound"), ("in", "Inbound"), ("out", "outbound"), ("out", "Outbound")];
    let millis = in_trendmicro::record::parse_time(text).map(|time| time.timestamp_millis());
    id.is_empty()
        || has(&json!(id))
        || millis.is_some_and(|millis| has(&json!(millis)))
        || renamed.iter().any(|(from, to)| *from == text && has(&json!(to)))
        || text.split(',').all(|part| has(&json!(part)))
}

fn assert_nothing_is_lost(page: &str, odd: &Odd, format: Format) {
    let record = odd.text();
    let mut event = event_of(page, &record, &Style::of(format));
    // The original alone would have everything.
    let original = if format == Format::Ecs { "message" } else { "raw_data" };
    let text = event.as_object_mut().and_then(|members| members.shift_remove(original));
    assert_eq!(text, Some(Value::from(record.as_str())));
    let mut there = Vec::new();
    leaves(&event, &mut there);
    let there: HashSet<String> = there.iter().map(Value::to_string).collect();
    let mut wanted = Vec::new();
    odd.0.iter().for_each(|(_, value)| leaves(value, &mut wanted));
    for leaf in wanted {
        assert!(is_there(&leaf, &there), "{leaf} of {record} is not in {event}");
    }
}

#[test]
fn every_stream_has_a_table_in_every_format() {
    every_stream(|product, stream| {
        for mapping in [EcsMapping::Full, EcsMapping::Sekoia, EcsMapping::Sekoia2023] {
            let tables = format::tables(Format::Ecs, mapping, &stream.shape);
            assert!(tables.is_some(), "{product} {}", stream.name);
        }
        let tables = format::tables(Format::Ocsf, EcsMapping::Full, &stream.shape);
        assert!(tables.is_some(), "{product} {}", stream.name);
    });
}

/// What found no home is written when all else has been: a field that has one is not there twice.
#[test]
fn what_has_a_home_is_not_in_the_rest() {
    let record = r#"{"action":"Delivered","sender":"a@b.example","headerTo":["c@d.example"]}"#;
    let page = "email_security.accepted_traffic";
    assert_eq!(event_of(page, record, &Style::of(Format::Ecs))["trendmicro"], Value::Null);
    assert_eq!(event_of(page, record, &Style::of(Format::Ocsf))["unmapped"], Value::Null);
}

#[test]
fn a_record_that_is_no_object_is_an_event() {
    for page in PAGES {
        for record in ["5", "null", "\"x\"", "[1,[2]]", "{}"] {
            for format in [Format::Envelope, Format::Raw, Format::Ecs, Format::Ocsf] {
                assert!(event_of(page, record, &Style::of(format)).is_object(), "{page} {record}");
            }
        }
    }
}

#[test]
fn repeated_members_stay() {
    let record = r#"{"action":"Delivered","action":"Bounced","y":1,"y":2,"size":1,"size":2}"#;
    for format in [Format::Ecs, Format::Ocsf] {
        let event = event_of("email_security.accepted_traffic", record, &Style::of(format));
        let mut found = Vec::new();
        leaves(&event, &mut found);
        for leaf in [json!("Delivered"), json!("Bounced"), json!(1), json!(2)] {
            assert!(found.contains(&leaf), "{leaf} is not in {event}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mail_is_never_lost(record in record("email_security.accepted_traffic")) {
        assert_nothing_is_lost("email_security.accepted_traffic", &record, Format::Ecs);
        assert_nothing_is_lost("email_security.blocked_traffic", &record, Format::Ocsf);
    }

    #[test]
    fn policy_events_are_never_lost(record in record("email_security.policy_events")) {
        assert_nothing_is_lost("email_security.policy_events", &record, Format::Ecs);
        assert_nothing_is_lost("email_security.policy_events", &record, Format::Ocsf);
    }

    #[test]
    fn detections_are_never_lost(record in record("cloud_app_security.exchange.securityrisk")) {
        assert_nothing_is_lost("cloud_app_security.exchange.securityrisk", &record, Format::Ecs);
        assert_nothing_is_lost("cloud_app_security.exchange.securityrisk", &record, Format::Ocsf);
        assert_nothing_is_lost("cloud_app_security.sharepoint.dlp", &record, Format::Ecs);
    }

    #[test]
    fn hosts_are_never_lost(
        agent in record("apex_central.agents"),
        computer in record("workload_security.computers"),
    ) {
        assert_nothing_is_lost("apex_central.agents", &agent, Format::Ecs);
        assert_nothing_is_lost("apex_central.agents", &agent, Format::Ocsf);
        assert_nothing_is_lost("workload_security.computers", &computer, Format::Ecs);
        assert_nothing_is_lost("workload_security.computers", &computer, Format::Ocsf);
    }

    #[test]
    fn sekoias_mapping_keeps_the_message(record in record("email_security.accepted_traffic")) {
        for ecs_mapping in [EcsMapping::Sekoia, EcsMapping::Sekoia2023] {
            let style = Style { ecs_mapping, ..Style::of(Format::Ecs) };
            let event = event_of("email_security.accepted_traffic", &record.text(), &style);
            prop_assert_eq!(&event["message"], &Value::from(record.text()));
        }
    }
}
