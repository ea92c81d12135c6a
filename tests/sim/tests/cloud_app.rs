//! Cloud App Security as a client sees it: the protocol, the links, the limit, the records.

mod client;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use client::{ALL, Client, Reply};
use serde_json::Value;
use trendmicro_sim::{
    Clock, CloudAppConfig, Fault, FaultKind, FilterTime, Lateness, LinkEnd, LinkForm, OldStart,
    Order, RateRule, Sim, When,
};

const EVENTS: &str = "/v1/siem/security_events";
const RISKS: &str = "/v1/siem/security_events?service=sharepoint&event=securityrisk";
const BEARER: &str = "Authorization: Bearer 0123456789abcdef0123456789abcdef01234567\r\n";

/// Without live records and without a limit, for tests that count.
fn quiet() -> CloudAppConfig {
    CloudAppConfig { live_per_second: 0.0, rate_limit: None, ..Default::default() }
}

fn start(config: CloudAppConfig) -> (Sim, Client) {
    let sim = Sim::builder().without_email().cloud_app(config).start().expect("a free port");
    let client = Client::with_headers(&sim, BEARER);
    (sim, client)
}

fn fixed(config: CloudAppConfig) -> (Sim, Client, Clock) {
    let at = DateTime::parse_from_rfc3339("2026-03-01T12:00:00.500Z").expect("a time");
    let clock = Clock::fixed(at.with_timezone(&Utc));
    let builder = Sim::builder().without_email().clock(clock.clone()).cloud_app(config);
    let sim = builder.start().expect("a free port");
    let client = Client::with_headers(&sim, BEARER);
    (sim, client, clock)
}

fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["security_events"].as_array().expect("a list").clone()
}

/// The target of a link as a careful client makes it: trimmed, spaces encoded, its own host.
fn target(link: &str) -> String {
    let rest = link.split_once("://").map_or(link, |(_, rest)| rest);
    rest[rest.find('/').expect("a path")..].replace(' ', "%20")
}

fn pages(client: &Client, first: &str) -> (Vec<Value>, Vec<Reply>) {
    let (mut records, mut replies, mut next) = (Vec::new(), Vec::new(), first.to_string());
    loop {
        let reply = client.get(&next);
        records.extend(events(&reply));
        let link = reply.json()["next_link"].as_str().unwrap_or_default().to_string();
        replies.push(reply);
        if link.is_empty() {
            return (records, replies);
        }
        next = target(&link);
    }
}

fn ledger(sim: &Sim, content_type: &str) -> Vec<Value> {
    let records = sim.ledger().records.into_iter();
    let texts = records.filter(|record| record.content_type == content_type);
    texts.map(|record| serde_json::from_str(&record.json).expect("JSON")).collect()
}

#[test]
fn every_record_comes_once_whatever_the_order_and_the_links() {
    let orders = [Order::Ascending, Order::Descending, Order::Shuffled, Order::Ascending];
    let forms =
        [LinkForm::Full, LinkForm::WithoutScheme, LinkForm::ReversedPath, LinkForm::StraySpace];
    for (order, link_form) in orders.into_iter().zip(forms) {
        let backlog_of = vec![("sharepoint/securityrisk".to_string(), 100)];
        let (sim, client) = start(CloudAppConfig { order, link_form, backlog_of, ..quiet() });
        let (records, replies) = pages(&client, &format!("{RISKS}&{ALL}&limit=7"));
        assert_eq!(replies.len(), 100usize.div_ceil(7));
        let sorted = |records: Vec<Value>| {
            let mut texts: Vec<_> = records.iter().map(Value::to_string).collect();
            texts.sort();
            texts
        };
        assert_eq!(sorted(records), sorted(ledger(&sim, "sharepoint/securityrisk")));
        let link = replies[1].json()["next_link"].as_str().expect("a link").to_string();
        let host = sim.url().trim_start_matches("http://");
        let start = match link_form {
            LinkForm::WithoutScheme => format!("{host}{EVENTS}?service="),
            LinkForm::ReversedPath => format!("http://{host}/siem/v1/security_events?service="),
            _ => format!("http://{host}{EVENTS}?service="),
        };
        assert!(link.starts_with(&start) && link.ends_with('='), "{link}");
        assert_eq!(link.matches("page_id=").count(), 1);
        assert_eq!(link.contains("& page_id="), link_form == LinkForm::StraySpace);
        let counts = sim.counts();
        assert_eq!((counts.shown_distinct, counts.shown_total), (100, 100));
        assert_eq!(counts.by_type.len(), 48);
        assert!(sim.requests()[1].token.is_some());
    }
}

#[test]
fn results_end_in_every_known_way() {
    let last = |config, limit| {
        let (_sim, client) = start(config);
        let (records, mut replies) = pages(&client, &format!("{RISKS}&{ALL}&limit={limit}"));
        assert_eq!(records.len(), 20);
        (replies.len(), replies.pop().expect("a reply").json())
    };
    let (count, body) = last(quiet(), 10);
    assert_eq!((count, &body["next_link"]), (2, &Value::from("")));
    let (_, body) = last(CloudAppConfig { link_end: LinkEnd::Null, ..quiet() }, 10);
    assert!(body.get("next_link").expect("there").is_null());
    let (_, body) = last(CloudAppConfig { link_end: LinkEnd::Missing, ..quiet() }, 10);
    assert!(body.get("next_link").is_none());
    let (count, body) = last(CloudAppConfig { link_after_last: true, ..quiet() }, 10);
    assert_eq!((count, body["security_events"].as_array().map(Vec::len)), (3, Some(0)));
    assert_eq!(body["last_log_item_generation_time"], "");
    let evil = CloudAppConfig { evil_link: Some("https://evil.test:81".to_string()), ..quiet() };
    let (_sim, client) = start(evil);
    let reply = client.get(&format!("{RISKS}&{ALL}&limit=3")).json();
    let link = reply["next_link"].as_str().expect("a link");
    assert!(link.starts_with("https://evil.test:81/v1/siem/security_events?service="), "{link}");
}

#[test]
fn an_empty_answer_has_the_envelope_of_the_reference() {
    let (_sim, client) = start(quiet());
    let reply = client.get(&format!("{RISKS}&start=2100-01-01T00:00:00Z"));
    let fixture: Value =
        serde_json::from_str(include_str!("../fixtures/cas-empty.json")).expect("JSON");
    let names = |json: &Value| json.as_object().expect("an object").keys().cloned().collect();
    let (ours, theirs): (Vec<String>, Vec<String>) = (names(&reply.json()), names(&fixture));
    assert_eq!(ours, theirs);
    assert_eq!((&events(&reply), reply.status), (&Vec::new(), 200));
    let traced = Client { extra: "traceid: my-own\r\n".to_string(), ..client };
    assert_eq!(traced.get(RISKS).json()["traceId"], "my-own");
}

#[test]
fn requests_are_refused_as_documented() {
    let (sim, client) = start(CloudAppConfig { old_start: OldStart::BadRequest, ..quiet() });
    let link = client.get(&format!("{RISKS}&end=2100-01-01T00:00:00Z&start=2099-12-31T23:00:00Z"));
    assert_eq!(link.status, 200);
    for wrong in [
        EVENTS.to_string(),
        format!("{EVENTS}?service=sharepoint"),
        format!("{EVENTS}?event=dlp"),
        format!("{EVENTS}?service=office365&event=dlp"),
        format!("{EVENTS}?service=sharepoint&event=security_risk_scan"),
        format!("{RISKS}&limit=0"),
        format!("{RISKS}&start=2026-01-01"),
        format!("{RISKS}&start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z"),
        format!("{RISKS}&{ALL}"),
        format!("{RISKS}&format=cef"),
        format!("{RISKS}&page_id=abc="),
        format!("{RISKS}&service=sharepoint"),
    ] {
        let reply = client.get(&wrong);
        assert_eq!((reply.status, reply.json()["code"].as_i64()), (400, Some(-4_000_001)));
    }
    assert_eq!(client.get("/v1/siem/nothing").status, 404);
    assert_eq!(client.send("POST", RISKS, "{}").expect("an answer").status, 405);
    let reply = Client::with_headers(&sim, "Authorization: Bearer no\r\n").get(RISKS);
    assert_eq!((reply.status, reply.json()["code"].as_i64()), (401, Some(-4_010_001)));
    assert!(reply.json()["msg"].as_str().is_some_and(|msg| msg.contains("token not found")));
    assert_eq!(client.get("/siem/v1/security_events?service=box&event=dlp").status, 200);
}

#[test]
fn links_keep_to_their_own_query() {
    let (_sim, client) = start(quiet());
    let first = client.get(&format!("{RISKS}&{ALL}&limit=5")).json();
    let link = target(first["next_link"].as_str().expect("a link"));
    assert_eq!(client.get(&link).status, 200);
    for (from, to) in [("securityrisk", "dlp"), ("limit=5", "limit=6"), ("2000-01", "2001-01")] {
        assert_eq!(client.get(&link.replace(from, to)).status, 400, "{from}");
    }
    assert_eq!(client.get(&format!("{link}&limit=5")).status, 400, "a repeated parameter");
}

#[test]
fn windows_have_the_documented_defaults() {
    let backlog_of = vec![("sharepoint/securityrisk".to_string(), 2000)];
    let (sim, client, clock) = fixed(CloudAppConfig { backlog_of, ..quiet() });
    let records = sim.ledger().records.into_iter();
    let times: Vec<DateTime<Utc>> = records
        .filter(|record| record.content_type == "sharepoint/securityrisk")
        .map(|record| record.gen_time)
        .collect();
    let between = |start: DateTime<Utc>, end: DateTime<Utc>| {
        times.iter().filter(|time| (start..=end).contains(*time)).count()
    };
    let got = |window: &str| pages(&client, &format!("{RISKS}{window}")).0.len();
    let (now, five, edge) = (clock.now(), chrono::TimeDelta::minutes(5), times[1000]);
    let text = edge.format("%Y-%m-%dT%H:%M:%S.000Z");
    assert_eq!(got(""), between(now - five, now));
    assert_eq!(got(&format!("&start={text}")), between(edge, edge + five));
    assert_eq!(got(&format!("&end={text}")), between(edge - five, edge));
    assert_eq!(got(&format!("&start={text}&end={text}")), between(edge, edge));
}

#[test]
fn the_limit_is_exact_and_exposed() {
    let config = CloudAppConfig { rate_limit: Some(20), retry_after: true, ..quiet() };
    let (sim, client, clock) = fixed(config);
    let statuses = |count| (0..count).map(|_| client.get(RISKS).status).collect::<Vec<_>>();
    assert_eq!(statuses(1), [200]);
    clock.advance(Duration::from_secs(30));
    assert_eq!(statuses(19), [200; 19]);
    let reply = client.get(RISKS);
    let fixture: Value =
        serde_json::from_str(include_str!("../fixtures/cas-errors.json")).expect("JSON");
    for name in ["code", "msg"] {
        assert_eq!(reply.json()[name], fixture["429"][name]);
    }
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("30")));
    let stranger = Client::with_headers(&sim, "Authorization: Bearer no\r\n");
    assert_eq!(stranger.get(RISKS).status, 401);
    // The window ends with its first request's minute, however late the others came.
    clock.advance(Duration::from_secs(30));
    assert_eq!(statuses(20), [200; 20]);
    assert_eq!(statuses(1), [429]);
    let rate = &sim.rates()[0];
    assert_eq!((rate.requests, rate.violations, rate.max_in_window), (42, 2, 41));
    assert_eq!(sim.rate_violations(), 2);
    assert_eq!(client.get("/_sim/rates").json()[0]["violations"], 2);
}

#[test]
fn the_limit_scales_and_slides() {
    let config = CloudAppConfig {
        rate_limit: Some(2),
        rate_window: Duration::from_millis(400),
        rate_rule: RateRule::Sliding,
        ..quiet()
    };
    let (_sim, client, clock) = fixed(config);
    let status = || client.get(RISKS).status;
    assert_eq!([status(), status(), status()], [200, 200, 429]);
    assert_eq!(client.get(RISKS).header("retry-after"), None);
    clock.advance(Duration::from_millis(400));
    assert_eq!([status(), status(), status()], [200, 200, 429]);
}

#[test]
fn samples_are_verbatim_but_for_their_times() {
    let (sim, _) = start(quiet());
    let mut by_id: HashMap<String, Value> = HashMap::new();
    sim.for_each_record(|record| {
        let json: Value = serde_json::from_str(&record.json).expect("JSON");
        by_id.insert(json["log_item_id"].to_string(), json);
    });
    for text in [
        include_str!("../fixtures/cas-dlp-sharepoint.json"),
        include_str!("../fixtures/cas-ransomware-sharepoint.json"),
        include_str!("../fixtures/cas-securityrisk-dropbox.json"),
        include_str!("../fixtures/cas-securityrisk-exchange.json"),
        include_str!("../fixtures/cas-securityrisk-onedrive.json"),
        include_str!("../fixtures/cas-securityrisk-sharepoint.json"),
        include_str!("../fixtures/cas-virtualanalyzer-sharepoint.json"),
    ] {
        let file: Value = serde_json::from_str(text).expect("JSON");
        let sample = &file.get("security_events").unwrap_or(&file)[0];
        let served = &by_id[&sample["log_item_id"].to_string()];
        let time = |record: &Value, name: &str| {
            let text = record["message"][name].as_str().expect("a time");
            assert!(text.len() == 24 && text.ends_with(".000Z"), "{text}");
            DateTime::parse_from_rfc3339(text).expect("a time")
        };
        let message = sample["message"].as_object().expect("an object");
        assert_eq!(served["message"].as_object().expect("an object").len(), message.len());
        assert_eq!((&served["service"], &served["event"]), (&sample["service"], &sample["event"]));
        for (name, value) in message {
            if !name.ends_with("_time") {
                assert_eq!(&served["message"][name], value);
                continue;
            }
            let apart = |record| time(record, "detection_time") - time(record, name);
            assert_eq!(apart(served), apart(sample), "{name}");
        }
    }
}

#[test]
fn records_are_of_their_service_and_event() {
    let (sim, _) = start(CloudAppConfig { backlog: 60, ..quiet() });
    let (mut ids, mut lengths, mut titles) = (HashSet::new(), HashSet::new(), HashSet::new());
    sim.for_each_record(|record| {
        let json: Value = serde_json::from_str(&record.json).expect("JSON");
        let (service, event) = record.content_type.split_once('/').expect("two names");
        let id = json["log_item_id"].as_str().expect("an id").to_string();
        lengths.insert(id.len());
        assert!(ids.insert(id));
        titles.insert((json["service"].to_string(), json["event"].to_string()));
        let message = &json["message"];
        let is_mail = ["exchange", "gmail", "exchangeserver"].contains(&service);
        assert_eq!(message["mail_message_recipient"].is_array(), is_mail);
        let template = &message["triggered_dlp_template"];
        assert_eq!(template.is_array() || template.is_object(), event == "dlp");
        assert_eq!(message["ransomware_name"].is_string(), event == "ransomware");
        assert_eq!(message["virus_name"].is_string(), event == "virtualanalyzer");
        assert_eq!(message["security_risk_name"].is_string(), event == "securityrisk");
        let text = message["detection_time"].as_str().expect("a time");
        let detected = DateTime::parse_from_rfc3339(text).expect("a time");
        assert_eq!((record.gen_time - detected.to_utc()).num_seconds(), 10);
    });
    assert_eq!((ids.len(), lengths, titles.len()), (60 * 48, HashSet::from([36, 20]), 48));
}

#[test]
fn two_events_may_tell_of_one_log_item() {
    let config = CloudAppConfig { overlapping_ids: true, seed_samples: false, ..quiet() };
    let (sim, _, clock) = fixed(CloudAppConfig { live_per_second: 20.0, ..config });
    clock.advance(Duration::from_secs(60));
    let ids = |name: &str| {
        let records = ledger(&sim, name).into_iter();
        records.map(|record| record["log_item_id"].to_string()).collect::<HashSet<_>>()
    };
    let ransomware = ids("box/ransomware");
    assert!(ransomware.len() > 30 && ransomware.is_subset(&ids("box/securityrisk")));
    assert!(ids("box/dlp").is_disjoint(&ransomware));
}

#[test]
fn live_and_late_records_appear_in_time() {
    let lateness = Lateness::Uniform { max: Duration::from_secs(100), share: 0.5 };
    for filter in [FilterTime::Generation, FilterTime::Detection] {
        let services = vec!["box".to_string()];
        let config =
            CloudAppConfig { services, live_per_second: 20.0, lateness, filter, ..quiet() };
        let (sim, client, clock) = fixed(config);
        assert_eq!(sim.counts().by_type.len(), 4);
        let before = sim.counts();
        assert_eq!(before.visible + before.pending, 80);
        clock.advance(Duration::from_secs(30));
        let during = sim.counts();
        assert_eq!(during.visible + during.pending, 80 + 600);
        assert!(during.pending > 50);
        sim.stop_live();
        clock.advance(Duration::from_secs(1000));
        let after = sim.counts();
        assert_eq!((after.visible, after.pending), (680, 0));
        let (records, replies) = pages(&client, &format!("{EVENTS}?service=box&event=dlp&{ALL}"));
        assert_eq!(records.len() as u64, after.by_type["box/dlp"].visible);
        let last = replies[0].json()["last_log_item_generation_time"].to_string();
        assert_eq!(last, "\"2026-03-01T12:00:30.000Z\"");
        let lag = sim.ledger().records.iter().map(|it| it.visible_at - it.gen_time).min();
        assert_eq!(lag.map(|lag| lag.num_seconds() >= 10), Some(filter == FilterTime::Detection));
    }
}

#[test]
fn faults_strike_here_too() {
    let (sim, client) = start(quiet());
    let first = format!("{RISKS}&{ALL}&limit=8");
    let reply = client.get(&first);
    let link = reply.json()["next_link"].clone();
    let next = target(link.as_str().expect("a link"));
    let second = client.get(&next);
    let strike = |kind| {
        sim.faults().clear();
        sim.faults().add(Fault::new("/v1/siem/", When::Always, kind));
        client.get(&next)
    };
    let repeated = strike(FaultKind::RepeatPage);
    assert_eq!((events(&repeated), &repeated.json()["next_link"]), (events(&reply), &link));
    let overlapping = events(&strike(FaultKind::RepeatRecords));
    assert_eq!(overlapping[..5], events(&reply)[3..]);
    assert_eq!(overlapping[5..], events(&second));
    let endless = strike(FaultKind::EndlessToken);
    assert_eq!((events(&endless), &endless.json()["next_link"]), (events(&second), &link));
    let status = |code| FaultKind::Status { code, retry_after: None, body: None };
    let reply = strike(status(429));
    assert_eq!((reply.status, reply.json()["code"].as_i64()), (429, Some(-4_290_001)));
    assert_eq!(strike(status(503)).json()["code"], -5_030_001);
    assert!(std::str::from_utf8(&strike(FaultKind::GarbageUtf8).body).is_err());
    assert_eq!(sim.counts().shown_total, 8 + 8 + 8 + 13 + 8);
}
