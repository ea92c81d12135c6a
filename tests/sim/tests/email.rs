//! Email Security as a client sees it: the protocol, the paging, the records.

mod client;

use std::collections::HashSet;
use std::io::Read as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use client::{ALL, Client, POLICY, TRACKING, encode, still};
use serde_json::Value;
use trendmicro_sim::{Clock, EmailConfig, Ending, Lateness, OldStart, Order, Sim};

fn accepted() -> String {
    format!("{TRACKING}?type=accepted_traffic&{ALL}")
}

fn ledger_jsons(sim: &Sim, content_type: &str) -> Vec<Value> {
    let records = sim.ledger().records.into_iter();
    let texts = records.filter(|record| record.content_type == content_type);
    texts.map(|record| serde_json::from_str(&record.json).expect("JSON")).collect()
}

fn fixed_clock() -> Clock {
    let at = DateTime::parse_from_rfc3339("2026-03-01T12:00:00.500Z").expect("a time");
    Clock::fixed(at.with_timezone(&Utc))
}

#[test]
fn every_record_comes_once_whatever_the_order() {
    for order in [Order::Ascending, Order::Descending, Order::Shuffled] {
        let sim = still(EmailConfig { order, same_second_burst: 50, ..Default::default() });
        let client = Client::new(&sim);
        let (records, replies) = client.pages(&format!("{}&limit=17", accepted()));
        let mut expected = ledger_jsons(&sim, "accepted_traffic");
        assert_eq!((records.len(), expected.len()), (350, 350));
        assert_eq!(replies.len(), 350usize.div_ceil(17));
        let mut times: Vec<_> = records.iter().map(|r| r["genTime"].to_string()).collect();
        assert_eq!(times.is_sorted(), order == Order::Ascending);
        times.reverse();
        assert_eq!(times.is_sorted(), order == Order::Descending);
        let mut texts: Vec<_> = records.iter().map(Value::to_string).collect();
        let mut expected: Vec<_> = expected.drain(..).map(|record| record.to_string()).collect();
        texts.sort();
        expected.sort();
        assert_eq!(texts, expected);
        expected.dedup();
        assert_eq!(expected.len(), 350, "no two records are alike");
    }
}

#[test]
fn results_end_in_every_known_way() {
    // A first page of 300 is full, and nothing follows it.
    let run = |ending, limit| {
        let sim = still(EmailConfig { ending, ..Default::default() });
        let client = Client::new(&sim);
        let (records, mut replies) = client.pages(&format!("{}&limit={limit}", accepted()));
        assert_eq!(records.len(), 300);
        let last = replies.pop().expect("a reply");
        (replies.len() + 1, last.status, String::from_utf8(last.body).expect("text"))
    };
    assert_eq!(run(Ending::TokenThen204, 300), (2, 204, String::new()));
    assert_eq!(run(Ending::AlwaysTokenThen204, 299), (3, 204, String::new()));
    assert_eq!(run(Ending::TokenThenEmptyList, 299), (3, 200, r#"{"logs":[]}"#.to_string()));
    assert_eq!(run(Ending::TokenThenEmptyBody, 300), (2, 200, String::new()));
    let (pages, status, body) = run(Ending::TokenThen204, 299);
    assert!((pages, status) == (2, 200) && !body.contains("\"nextToken\""));
    let (pages, status, body) = run(Ending::NoToken, 300);
    assert!((pages, status) == (1, 200) && body.starts_with("{\"logs\":"));
    let (pages, status, body) = run(Ending::EmptyTokenString, 300);
    assert!((pages, status) == (1, 200) && body.starts_with("{\"nextToken\":\"\","));
}

#[test]
fn tokens_take_one_layer_of_encoding_and_their_own_query() {
    let sim = still(EmailConfig::default());
    let client = Client::new(&sim);
    let target = format!("{}&limit=10", accepted());
    let first = client.get(&target);
    let raw = first.json()["nextToken"].as_str().expect("a token").to_string();
    assert!(raw.contains("%2B") && raw.contains("%2F") && raw.ends_with("%3D"), "{raw}");
    let token = first.token().expect("a token");
    // Decoded and encoded once is right, and so is pasting the text as it came.
    let second = client.get(&format!("{target}&token={}", encode(&token))).body;
    assert_eq!(client.get(&format!("{target}&token={raw}")).body, second);
    assert_ne!(second, first.body);
    for wrong in [encode(&raw), token.clone(), "abc".to_string(), String::new()] {
        let reply = client.get(&format!("{target}&token={wrong}"));
        assert_eq!((reply.status, reply.code().as_str()), (400, "InvalidFormat"), "{wrong}");
    }
    for other in [
        format!("{}&limit=11", accepted()),
        format!("{TRACKING}?type=blocked_traffic&{ALL}&limit=10"),
        format!("{TRACKING}?type=accepted_traffic&start=2000-01-01T00:00:00Z&limit=10"),
        format!("{}&limit=10&direction=in", accepted()),
        format!("{POLICY}?{ALL}&limit=10"),
    ] {
        let reply = client.get(&format!("{other}&token={raw}"));
        assert_eq!((reply.status, reply.code().as_str()), (400, "InvalidFormat"), "{other}");
    }
    let plain = still(EmailConfig { token_percent_encoded: false, ..Default::default() });
    let raw = Client::new(&plain).get(&target).json()["nextToken"].to_string();
    assert!(raw.contains('+') && raw.contains('/') && !raw.contains('%'));
}

#[test]
fn requests_are_refused_as_the_vendor_documents() {
    let sim = still(EmailConfig { old_start: OldStart::BadRequest, ..Default::default() });
    let client = Client::new(&sim);
    let typed = format!("{TRACKING}?type=accepted_traffic");
    for (target, code) in [
        (TRACKING.to_string(), "InvalidFormat"),
        (format!("{TRACKING}?type=threat"), "InvalidFormat"),
        (format!("{TRACKING}?type=a%22b"), "IllegalCharacter"),
        (format!("{typed}&domain=%3Cscript%3E"), "IllegalCharacter"),
        (format!("{typed}&domain=%ff"), "IllegalCharacter"),
        (format!("{typed}&direction=up"), "InvalidFormat"),
        (format!("{typed}&start=2026-01-01T00:00:00+00:00"), "IllegalCharacter"),
        (format!("{typed}&start=2026-01-01"), "InvalidFormat"),
        (format!("{typed}&start=2026-13-01T00:00:00Z"), "InvalidFormat"),
        (format!("{typed}&start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z"), "InvalidFormat"),
        (format!("{typed}&{ALL}"), "InvalidFormat"),
        (format!("{typed}&limit=0"), "InvalidFormat"),
        (format!("{typed}&limit=ten"), "InvalidFormat"),
        (format!("{POLICY}?event=nothing"), "InvalidFormat"),
    ] {
        let reply = client.get(&target);
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{target}");
    }
    let reply = client.send("POST", &typed, "{}").expect("an answer");
    assert_eq!((reply.status, reply.code().as_str()), (400, "InvalidMethod"));
    assert_eq!(reply.json()["message"], "The URL does not support the POST method.");
    let reply = client.get("/api/v1/log/nothing");
    assert_eq!((reply.status, reply.code().as_str()), (404, "ResourceNotAvailable"));
    assert_eq!(client.get("/elsewhere").status, 404);
    let reply = Client::with_key(&sim, "admin@example.com:wrong").get(&typed);
    assert_eq!((reply.status, reply.code().as_str()), (401, "AuthenticationMissingOrInvalid"));
    assert_eq!(sim.requests().last().map(|request| request.status), Some(401));
}

#[test]
fn windows_have_the_documented_defaults_and_bounds() {
    let clock = fixed_clock();
    let email = EmailConfig { live_per_second: 0.0, ..Default::default() };
    let exclusive = EmailConfig { end_inclusive: false, ..email.clone() };
    let sim = Sim::builder().clock(clock.clone()).email(email).start().expect("a free port");
    let client = Client::new(&sim);
    let times: Vec<DateTime<Utc>> = {
        let records = sim.ledger().records.into_iter();
        records.filter(|r| r.content_type == "accepted_traffic").map(|r| r.gen_time).collect()
    };
    let between = |start: DateTime<Utc>, end: DateTime<Utc>| {
        times.iter().filter(|time| (start..=end).contains(*time)).count()
    };
    let got = |client: &Client, window: &str| {
        client.pages(&format!("{TRACKING}?type=accepted_traffic{window}")).0.len()
    };
    let (now, five) = (clock.now(), chrono::TimeDelta::minutes(5));
    let text = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    assert_eq!(got(&client, ""), between(now - five, now));
    let edge = times[100];
    assert_eq!(got(&client, &format!("&start={}", text(edge))), between(edge, edge + five));
    assert_eq!(got(&client, &format!("&end={}", text(edge))), between(edge - five, edge));
    let only = format!("&start={0}&end={0}", text(edge));
    assert_eq!(got(&client, &only), between(edge, edge));
    let millis = format!("&start={}", text(edge).replace('Z', ".001Z"));
    assert_eq!(
        got(&client, &millis),
        between(edge + chrono::TimeDelta::milliseconds(1), edge + five)
    );
    let later = Sim::builder().clock(clock).email(exclusive).start().expect("a free port");
    assert_eq!(got(&Client::new(&later), &only), 0);
    // The horizon clamps, so a window all before it is empty.
    assert_eq!(
        client
            .get(&format!("{TRACKING}?type=accepted_traffic&end={}", text(now - five * 1000)))
            .status,
        204
    );
}

#[test]
fn filters_choose_by_domain_direction_and_event() {
    let sim = still(EmailConfig::default());
    let client = Client::new(&sim);
    let (inbound, _) = client.pages(&format!("{}&direction=in", accepted()));
    let (outbound, _) = client.pages(&format!("{}&direction=out", accepted()));
    assert!(inbound.iter().all(|record| record["direction"] == "in"));
    assert_eq!((inbound.len() + outbound.len(), outbound.is_empty()), (300, false));
    let (events, _) = client.pages(&format!("{POLICY}?{ALL}&event=anti_spoof&type=threat"));
    assert!(!events.is_empty());
    assert!(events.iter().all(|event| event["eventType"] == "Domain-based Authentication"));
    let (events, _) = client.pages(&format!("{POLICY}?{ALL}&domain=Example.com&limit=3"));
    assert!(!events.is_empty() && events.iter().all(|event| event["domainName"] == "example.com"));
    assert_eq!(client.get(&format!("{}&domain=nowhere.test", accepted())).status, 204);
}

#[test]
fn samples_are_verbatim_but_for_their_times() {
    let sim = still(EmailConfig::default());
    let fixture = include_str!("../fixtures/tmes-mailtracking-accepted-real.json");
    let fixture: Value = serde_json::from_str(fixture).unwrap();
    let records = ledger_jsons(&sim, "accepted_traffic");
    let time =
        |record: &Value, name: &str| DateTime::parse_from_rfc3339(record[name].as_str()?).ok();
    for sample in &fixture["logs"].as_array().unwrap()[..4] {
        let served = records.iter().find(|record| record["messageID"] == sample["messageID"]);
        let served = served.expect("the sample is served");
        assert!(
            Utc::now() - time(served, "genTime").unwrap().to_utc() < chrono::TimeDelta::hours(6)
        );
        for (name, value) in sample.as_object().unwrap() {
            match time(sample, name) {
                Some(at) => {
                    let apart = time(sample, "genTime").unwrap() - at;
                    assert_eq!(
                        time(served, "genTime").unwrap() - time(served, name).unwrap(),
                        apart
                    );
                }
                None => assert_eq!(&served[name], value),
            }
        }
        assert_eq!(served.as_object().unwrap().len(), sample.as_object().unwrap().len());
    }
    let without = still(EmailConfig { seed_samples: false, ..Default::default() });
    assert_eq!(ledger_jsons(&without, "accepted_traffic").len(), 300);
}

#[test]
fn the_same_seed_makes_the_same_records() {
    let run = |seed, looks: u32| {
        let clock = fixed_clock();
        let lateness = Lateness::Uniform { max: Duration::from_secs(120), share: 0.1 };
        let email = EmailConfig { live_per_second: 20.0, lateness, ..Default::default() };
        let builder = Sim::builder().seed(seed).clock(clock.clone()).email(email);
        let sim = builder.start().expect("a free port");
        for _ in 0..looks {
            clock.advance(Duration::from_secs(60) / looks);
            sim.counts();
        }
        sim.ledger()
    };
    let ledger = run(1, 1);
    assert_eq!(ledger, run(1, 6), "how often one looks does not matter");
    assert!(ledger.records.len() > 1500);
    assert_ne!(ledger.records[50].json, run(2, 1).records[50].json);
}

#[test]
fn records_are_as_odd_as_promised() {
    let config = EmailConfig {
        accepted_backlog: 6000,
        blocked_backlog: 2000,
        policy_backlog: 2000,
        ..Default::default()
    };
    let sim = still(config);
    let (mut bytes, mut texts, mut keys) = (0, String::new(), HashSet::new());
    sim.for_each_record(|record| {
        bytes += record.json.len();
        texts.push_str(&record.json);
        let json: Value = serde_json::from_str(&record.json).expect("JSON");
        assert!(json["genTime"].is_string() && json["size"].is_number());
        let name = if json["mailID"].is_null() { "messageID" } else { "mailID" };
        let key = format!("{}{}{}", json[name], json["recipient"], json["genTime"]);
        assert!(keys.insert(key), "{}", record.json);
    });
    let average = bytes / 10_000;
    assert!((500..900).contains(&average), "{average} bytes per record");
    for oddity in [
        "18446744073709551616",
        "9223372036854775807",
        "\\u0000",
        "🚀",
        "\\ud83d\\ude80",
        "\\\"",
        "\"attachments\":null",
        "\"attachments\":[]",
        "\"headerTo\":[]",
        "\"messageID\":\"\"",
        "Scanning in sandbox",
        "\"details\":{",
        "1e-7",
        "会議",
    ] {
        assert!(texts.contains(oddity), "{oddity}");
    }
}

#[test]
fn late_records_do_not_shift_pages_and_all_come_in_the_end() {
    let clock = fixed_clock();
    let lateness = Lateness::Uniform { max: Duration::from_secs(600), share: 0.5 };
    let email = EmailConfig {
        live_per_second: 1.0,
        lateness,
        backlog_span: Duration::from_secs(900),
        ..Default::default()
    };
    let sim = Sim::builder().clock(clock.clone()).email(email).start().expect("a free port");
    let client = Client::new(&sim);
    let target = format!("{}&limit=40", accepted());
    let before = sim.counts().by_type["accepted_traffic"];
    assert!(before.pending > 0 && before.visible > 80);
    let first = client.get(&target);
    clock.advance(Duration::from_secs(700));
    let (mut rows, mut token) = (first.logs().len(), first.token());
    while let Some(text) = token {
        let reply = client.get(&format!("{target}&token={}", encode(&text)));
        rows += if reply.body.is_empty() { 0 } else { reply.logs().len() };
        token = if reply.body.is_empty() { None } else { reply.token() };
    }
    assert_eq!(rows as u64, before.visible, "the result is as of its first page");
    sim.stop_live();
    clock.advance(Duration::from_secs(1000));
    let after = sim.counts();
    assert_eq!(after.pending, 0);
    clock.advance(Duration::from_secs(1000));
    assert_eq!(sim.counts().visible, after.visible, "nothing comes after the stop");
    let (all, _) = client.pages(&target);
    assert_eq!(all.len() as u64, after.by_type["accepted_traffic"].visible);
}

#[test]
fn live_records_appear_as_time_passes() {
    let clock = fixed_clock();
    let email = EmailConfig { live_per_second: 100.0, ..Default::default() };
    let sim = Sim::builder().clock(clock.clone()).email(email).start().expect("a free port");
    let client = Client::new(&sim);
    assert_eq!(sim.counts().visible, 500);
    clock.advance(Duration::from_millis(200));
    // Half of the current second is there, the other half is not.
    let now = format!("{TRACKING}?type=accepted_traffic&start=2026-03-01T12:00:00Z");
    let half = client.pages(&now).0.len();
    clock.advance(Duration::from_millis(250));
    let more = client.pages(&now).0.len();
    assert!(0 < half && half < more, "{half} {more}");
    clock.advance(Duration::from_secs(10));
    let live = sim.counts().visible - 500;
    assert!((1000..1700).contains(&live), "{live}");
    let gzip = sim.requests().iter().any(|request| request.accept_gzip);
    assert!(!gzip && sim.requests().len() == 2);
}

#[test]
fn gzip_and_keep_alive_work_together() {
    let sim = still(EmailConfig::default());
    let plain = Client::new(&sim);
    let zipping =
        Client { extra: "Accept-Encoding: deflate, gzip\r\n".into(), ..Client::new(&sim) };
    let mut stream = plain.connect();
    let one = plain.send_on(&mut stream, "GET", &accepted(), "").unwrap();
    let two = zipping.send_on(&mut stream, "GET", &accepted(), "").unwrap();
    assert_eq!(one.header("content-encoding"), None);
    assert_eq!(two.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&two.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, one.body);
    let date = DateTime::parse_from_rfc2822(one.header("date").unwrap()).unwrap();
    assert!((Utc::now() - date.to_utc()).num_seconds().abs() <= 2);
    let shown: HashSet<_> = sim
        .ledger()
        .records
        .iter()
        .filter(|r| r.content_type == "accepted_traffic")
        .map(|r| r.shown)
        .collect();
    assert_eq!(shown, HashSet::from([2]));
    assert!(sim.requests()[1].accept_gzip);
}
