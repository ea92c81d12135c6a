//! Every fault as a client sees it, what the ledger says of it, and the control endpoints.

mod client;

use std::io::Read as _;
use std::time::{Duration, Instant};

use client::{ALL, Client, Reply, TRACKING, encode, still};
use serde_json::Value;
use trendmicro_sim::{EmailConfig, Fault, FaultKind, Sim, When};

fn target() -> String {
    format!("{TRACKING}?type=accepted_traffic&{ALL}&limit=20")
}

fn struck(kind: FaultKind) -> (Sim, Client) {
    let sim = still(EmailConfig::default());
    sim.faults().add(Fault::new("/api/v1/log/", When::Times(1), kind));
    let client = Client::new(&sim);
    (sim, client)
}

/// The struck answer; the one after it must be sound.
fn once(kind: FaultKind) -> (std::io::Result<Reply>, u64) {
    let (sim, client) = struck(kind);
    let reply = client.try_get(&target());
    let shown = sim.counts().shown_total;
    assert_eq!(client.get(&target()).logs().len(), 20);
    assert_eq!(sim.counts().shown_total, shown + 20);
    (reply, shown)
}

#[test]
fn statuses_have_their_header_and_body() {
    let kind = |code, body: Option<&str>| FaultKind::Status {
        code,
        retry_after: Some("7".to_string()),
        body: body.map(str::to_string),
    };
    let (reply, shown) = once(kind(429, Some("slow down")));
    let reply = reply.unwrap();
    assert_eq!((reply.status, shown), (429, 0));
    assert_eq!((reply.header("retry-after"), &reply.body[..]), (Some("7"), &b"slow down"[..]));
    let reply = once(kind(403, None)).0.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (403, "AuthorizationRequestDenied"));
    assert_eq!(once(kind(503, None)).0.unwrap().body, b"");
}

#[test]
fn connections_break_in_their_ways() {
    let (reply, shown) = once(FaultKind::Reset);
    assert_eq!(reply.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(shown, 0);
    let (reply, shown) = once(FaultKind::CloseMidBody);
    assert_eq!(reply.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(shown, 0);
    let (reply, shown) = once(FaultKind::WrongLength);
    assert!(serde_json::from_slice::<Value>(&reply.unwrap().body).is_err());
    assert_eq!(shown, 0);
}

#[test]
fn bodies_spoil_in_their_ways() {
    let body = |kind| {
        let (reply, shown) = once(kind);
        assert_eq!(shown, 0);
        reply.unwrap()
    };
    let reply = body(FaultKind::TruncatedJson);
    assert!(reply.body.starts_with(b"{\"nextToken\"") && !reply.body.ends_with(b"]}"));
    assert_eq!(body(FaultKind::NotJson).body, b"OK");
    for code in [200, 502] {
        let reply = body(FaultKind::HtmlError { code });
        assert_eq!(reply.status, code);
        assert!(reply.header("content-type").unwrap().starts_with("text/html"));
    }
    let garbage = body(FaultKind::GarbageUtf8).body;
    assert!(std::str::from_utf8(&garbage).is_err());
    assert!(serde_json::from_str::<Value>(&String::from_utf8_lossy(&garbage)).is_ok());
    let zipped = body(FaultKind::GzipBroken);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    assert!(flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).is_err());
}

#[test]
fn answers_are_slow_but_whole() {
    for kind in [
        FaultKind::Slow { delay: Duration::from_millis(200) },
        FaultKind::Drip { chunk: 5000, delay: Duration::from_millis(100) },
    ] {
        let begun = Instant::now();
        let (reply, shown) = once(kind);
        assert_eq!((reply.unwrap().logs().len(), shown), (20, 20));
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
    let (reply, _) = once(FaultKind::DateSkew { secs: -3600 });
    let reply = reply.unwrap();
    let date = chrono::DateTime::parse_from_rfc2822(reply.header("date").unwrap()).unwrap();
    assert!((3598..=3602).contains(&(chrono::Utc::now() - date.to_utc()).num_seconds()));
}

#[test]
fn a_hanging_answer_ends_with_the_simulator() {
    let (sim, client) = struck(FaultKind::Hang);
    let waiting = std::thread::spawn(move || client.try_get(&target()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    let begun = Instant::now();
    drop(sim);
    assert!(waiting.join().unwrap().is_err());
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn pages_repeat_in_their_ways() {
    let sim = still(EmailConfig::default());
    let client = Client::new(&sim);
    let first = client.get(&target());
    let next = format!("{}&token={}", target(), encode(&first.token().unwrap()));
    let strike = |kind| {
        sim.faults().clear();
        sim.faults().add(Fault::new("", When::Always, kind));
        client.get(&next)
    };
    let second = client.get(&next);
    let repeated = strike(FaultKind::RepeatPage);
    assert_eq!((repeated.logs(), repeated.token()), (first.logs(), first.token()));
    let overlapping = strike(FaultKind::RepeatRecords);
    assert_eq!(overlapping.logs()[..5], first.logs()[15..]);
    assert_eq!(
        (overlapping.logs()[5..].to_vec(), overlapping.token()),
        (second.logs(), second.token())
    );
    let endless = strike(FaultKind::EndlessToken);
    assert_eq!((endless.logs(), endless.token()), (second.logs(), first.token()));
    let shown: u64 = sim.ledger().records.iter().map(|record| record.shown).sum();
    assert_eq!(shown, 20 + 20 + 20 + 25 + 20);
}

#[test]
fn controls_serve_other_processes() {
    let sim = still(EmailConfig::default());
    let client = Client::new(&sim);
    client.get(&target());
    let counts = client.get("/_sim/counts").json();
    assert_eq!((&counts["visible"], &counts["shown_total"]), (&500.into(), &20.into()));
    assert_eq!(counts["by_type"]["accepted_traffic"]["shown_distinct"], 20);
    let requests = client.get("/_sim/requests").json();
    assert_eq!((&requests[0]["records"], &requests[0]["status"]), (&20.into(), &200.into()));

    let rule = r#"{"when":"always","kind":{"status":{"code":500}}}"#;
    assert_eq!(client.send("POST", "/_sim/faults", rule).unwrap().status, 200);
    assert_eq!(client.get(&target()).status, 500);
    assert_eq!(client.send("DELETE", "/_sim/faults", "").unwrap().status, 204);
    assert_eq!(client.get(&target()).status, 200);
    assert_eq!(client.send("POST", "/_sim/faults", "{}").unwrap().status, 400);
    assert_eq!(client.send("POST", "/_sim/stop_live", "").unwrap().status, 204);
    assert_eq!(client.get("/_sim/nothing").status, 404);

    let text = String::from_utf8(client.get("/_sim/ledger").body).unwrap();
    let is_record = |line: &&str| line.starts_with("{\"content_type\"");
    // A record may lie on the border of two chunks only as a whole, so lines are whole too.
    let lines: Vec<Value> =
        text.lines().filter(is_record).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 500);
    assert_eq!(lines.iter().filter(|line| line["shown"] == 2).count(), 20);
    assert!(lines.iter().all(|line| line["record"]["genTime"].is_string()));
}
