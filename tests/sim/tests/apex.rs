//! Apex Central as a client sees it: the token, the lists, the faults, and what the ledger knows.

mod client;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use client::{Client, Reply};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use trendmicro_sim::{ApexConfig, Clock, Fault, FaultKind, Mutated, Mutation, Sim, When};

const AGENTS: &str = "/WebApp/API/AgentResource/ProductAgents";
const SERVERS: &str = "/WebApp/API/ServerResource/ProductServers";

fn start(config: ApexConfig) -> Sim {
    Sim::builder().without_email().apex(config).start().expect("a free port")
}

fn lenient() -> ApexConfig {
    ApexConfig { refuse_replays: false, ..Default::default() }
}

/// Signs as the vendor documents it.
fn token(target: &str, iat: &str) -> String {
    let request = format!("GET|{}||", target.to_ascii_lowercase());
    let checksum = STANDARD.encode(Sha256::digest(request));
    let payload = format!(
        "{{\"appid\":\"11111111-2222-3333-4444-555555555555\",\"iat\":{iat},\"version\":\"V1\",\
         \"checksum\":\"{checksum}\"}}"
    );
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\",\"typ\":\"JWT\"}");
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = b"0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9";
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn client(sim: &Sim, target: &str, iat: &str) -> Client {
    Client::with_headers(sim, &format!("Authorization: Bearer {}\r\n", token(target, iat)))
}

fn get(sim: &Sim, target: &str) -> Reply {
    client(sim, target, &sim.clock().now().timestamp().to_string()).get(target)
}

fn content(reply: &Reply) -> Vec<Value> {
    let json = reply.json();
    assert_eq!((reply.status, json["result_code"].as_i64()), (200, Some(1)));
    json["result_content"].as_array().expect("a list").clone()
}

fn by_id(records: Vec<Value>) -> BTreeMap<String, Value> {
    let id = |record: &Value| record["entity_id"].as_str().expect("an id").to_string();
    records.into_iter().map(|record| (id(&record), record)).collect()
}

#[test]
fn both_inventories_come_whole_with_the_samples_among_them() {
    let sim = start(lenient());
    for (target, content_type, files) in [
        (
            AGENTS,
            "agents",
            [
                include_str!("../fixtures/apex-agents.json"),
                include_str!("../fixtures/apex-agents-vendordoc.json"),
            ],
        ),
        (
            SERVERS,
            "servers",
            [
                include_str!("../fixtures/apex-servers.json"),
                include_str!("../fixtures/apex-servers-vendordoc.json"),
            ],
        ),
    ] {
        let reply = get(&sim, target);
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
        let records = content(&reply);
        let mut expected = Vec::new();
        sim.for_each_record(|record| {
            if record.content_type == content_type {
                assert_eq!(record.shown, 1);
                expected.push(serde_json::from_str::<Value>(&record.json).expect("JSON"));
            }
        });
        assert_eq!(records, expected);
        assert_eq!(by_id(records.clone()).len(), records.len(), "identifiers are unique");
        for file in files {
            let file: Value = serde_json::from_str(file).expect("JSON");
            for sample in file["result_content"].as_array().expect("a list") {
                assert!(records.contains(sample), "{sample}");
            }
        }
    }
    let counts = sim.counts();
    assert_eq!((counts.by_type["agents"].visible, counts.by_type["servers"].visible), (200, 20));
    assert_eq!((counts.shown_total, sim.requests()[0].records), (220, 200));
}

#[test]
fn tokens_are_checked_against_time_target_and_key() {
    let at = DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z").expect("a time");
    let clock = Clock::fixed(at.with_timezone(&Utc));
    let apex = ApexConfig { future_tolerance: Duration::from_secs(30), ..lenient() };
    let builder = Sim::builder().without_email().clock(clock.clone()).apex(apex);
    let sim = builder.start().expect("a free port");
    let now = clock.now().timestamp();
    let status = |iat: String| client(&sim, AGENTS, &iat).get(AGENTS).status;
    assert_eq!(status(now.to_string()), 200);
    assert_eq!(status(format!("{}.25", now - 120)), 200);
    assert_eq!(status((now - 121).to_string()), 401);
    assert_eq!(status((now + 30).to_string()), 200);
    assert_eq!(status((now + 31).to_string()), 401);
    assert_eq!(status("\"soon\"".to_string()), 401);
    // A client whose clock is off sees by how much.
    let reply = client(&sim, AGENTS, &(now - 3600).to_string()).get(AGENTS);
    assert_eq!(reply.header("date"), Some("Sun, 01 Mar 2026 12:00:00 GMT"));
    let fixture: Value =
        serde_json::from_str(include_str!("../fixtures/apex-error-401.json")).expect("JSON");
    let body = reply.json();
    assert_eq!((&body["result_code"], &body["result_content"]), (&Value::from(-1), &"".into()));
    let texts = (body["result_description"].as_str(), fixture["result_description"].as_str());
    assert!(matches!(texts, (Some(ours), Some(theirs)) if ours.starts_with(theirs)));
    for (signed, sent) in [(AGENTS, SERVERS), (AGENTS, "/WebApp/API/AgentResource/ProductAgents?")]
    {
        assert_eq!(client(&sim, signed, &now.to_string()).get(sent).status, 401, "{sent}");
    }
    for wrong in ["", "Authorization: Bearer a.b.c\r\n", "Authorization: Basic YTpi\r\n"] {
        assert_eq!(Client::with_headers(&sim, wrong).get(AGENTS).status, 401);
    }
    let nothing = "/WebApp/API/nothing";
    assert_eq!(client(&sim, nothing, &now.to_string()).get(nothing).status, 404);
}

#[test]
fn a_token_is_good_once_unless_its_answer_was_lost() {
    let sim = start(ApexConfig::default());
    let now = sim.clock().now().timestamp().to_string();
    let client = client(&sim, AGENTS, &now);
    let status = FaultKind::Status { code: 503, retry_after: None, body: None };
    sim.faults().add(Fault::new("/WebApp/", When::Times(1), status));
    let statuses = [0; 4].map(|_| client.get(AGENTS).status);
    assert_eq!(statuses, [503, 200, 401, 401]);
    assert!(client.get(AGENTS).json()["result_description"].to_string().contains("used before"));
}

#[test]
fn filters_match_exactly_and_all() {
    let sim = start(lenient());
    let all = content(&get(&sim, AGENTS));
    let one = all.iter().find(|agent| agent["mac_address_list"].to_string().contains(','));
    let one = one.expect("an agent with two cards").clone();
    let text = |name: &str| one[name].as_str().expect("a text");
    let mac = text("mac_address_list").split(',').next_back().expect("a part");
    let target = format!("{AGENTS}?mac_address={mac}&product={}&top=1", text("product"));
    assert_eq!(content(&get(&sim, &target)), std::slice::from_ref(&one));
    let target = format!("{AGENTS}?entity_id={}&product=none", text("entity_id"));
    assert_eq!(content(&get(&sim, &target)), Vec::<Value>::new());
    let server = "026332F39EBC-41C19604-02DD-2C5F-EDE5";
    let found = content(&get(&sim, &format!("{SERVERS}?entity_id={server}")));
    assert_eq!((found.len(), &found[0]["host_name"]), (1, &Value::from("OSCESERVER")));
    let found = content(&get(&sim, &format!("{SERVERS}?ip_address=192.168.121.131")));
    assert_eq!(found.len(), 1);
}

#[test]
fn mutations_change_exactly_what_they_say() {
    let run = || {
        let sim = start(lenient());
        let mutation = Mutation { add: 3, remove: 5, change: 7 };
        let before = by_id(content(&get(&sim, AGENTS)));
        let mutated = sim.mutate("agents", mutation).expect("an inventory");
        (by_id(content(&get(&sim, AGENTS))), before, mutated, sim)
    };
    let (after, before, mutated, sim) = run();
    assert_eq!(mutated, run().2, "the same seed, the same mutation");
    let Mutated { added, removed, changed } = &mutated;
    assert_eq!((added.len(), removed.len(), changed.len()), (3, 5, 7));
    let differs = |id: &&String| before.get(*id) != after.get(*id);
    let different: HashSet<&String> = before.keys().chain(after.keys()).filter(differs).collect();
    assert_eq!(different, added.iter().chain(removed).chain(changed).collect());
    assert!(removed.iter().all(|id| !after.contains_key(id)));
    assert!(added.iter().all(|id| !before.contains_key(id)));
    // Each sweep can be told again, and the ledger has every state that was shown.
    let sweeps = sim.sweeps();
    assert_eq!(sweeps.iter().map(|sweep| sweep.entities).collect::<Vec<_>>(), [200, 198]);
    for (sweep, seen) in sweeps.iter().zip([&before, &after]) {
        let mut records = Vec::new();
        sim.for_each_in_sweep(sweep, |record| {
            records.push(serde_json::from_str(&record.json).expect("JSON"));
        });
        assert_eq!(&by_id(records), seen);
    }
    let count = sim.counts().by_type["agents"];
    assert_eq!((count.visible, count.shown_distinct, count.shown_total), (210, 210, 398));
    assert_eq!(sim.mutate("computers", Mutation::default()), None);
    let body = "{\"content_type\":\"servers\",\"add\":2}";
    let reply = Client::new(&sim).send("POST", "/_sim/mutate", body).expect("an answer");
    assert_eq!(reply.json()["added"].as_array().map(Vec::len), Some(2));
    assert_eq!(Client::new(&sim).get("/_sim/sweeps").json()[1]["entities"], 198);
}

#[test]
fn samples_change_too_and_again() {
    let sim = start(ApexConfig { agents: 2, servers: 4, ..lenient() });
    let mut seen = HashSet::new();
    for _ in 0..4 {
        for record in content(&get(&sim, AGENTS)).into_iter().chain(content(&get(&sim, SERVERS))) {
            assert!(seen.insert(record.to_string()), "{record}");
        }
        for content_type in ["agents", "servers"] {
            sim.mutate(content_type, Mutation { change: 9, ..Mutation::default() });
        }
    }
}

#[test]
fn failures_and_faults_come_in_the_envelope() {
    let sim = start(lenient());
    let struck = |kind| {
        sim.faults().clear();
        sim.faults().add(Fault::new("/WebApp/", When::Always, kind));
        let now = sim.clock().now().timestamp().to_string();
        client(&sim, AGENTS, &now).try_get(AGENTS)
    };
    let status = |code, body| FaultKind::Status { code, retry_after: None, body };
    // A success by its status and a failure by its code.
    let reply = struck(status(200, None)).expect("an answer");
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["result_code"], &body["result_content"]),
        (200, &Value::from(-1), &Value::from(""))
    );
    let reply = struck(status(500, None)).expect("an answer");
    assert_eq!((reply.status, &reply.json()["result_content"]), (500, &Value::from("")));
    let own = "{\"result_code\":0}".to_string();
    let reply = struck(status(200, Some(own))).expect("an answer");
    assert_eq!(reply.json()["result_code"], 0);
    // The chunks stop in the middle.
    let error = struck(FaultKind::CloseMidBody).expect_err("no end");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let reply = struck(FaultKind::TruncatedJson).expect("an answer");
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    assert_eq!((sim.counts().shown_total, sim.sweeps().len()), (0, 0));
    let drip = FaultKind::Drip { chunk: 10_000, delay: Duration::from_millis(1) };
    let reply = struck(drip).expect("an answer");
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!((content(&reply).len(), sim.counts().shown_total), (200, 200));
    let garbage = struck(FaultKind::GarbageUtf8).expect("an answer").body;
    assert!(String::from_utf8_lossy(&garbage).contains("\"host_name\":\"\u{fffd}"));
}

#[test]
fn large_inventories_are_made_while_they_are_sent() {
    let sim = start(ApexConfig { agents: 100_000, ..lenient() });
    let reply = get(&sim, AGENTS);
    assert!(reply.body.len() > 30_000_000);
    // Counted, since reading the text as JSON would take most of the test.
    let text = std::str::from_utf8(&reply.body).expect("text");
    assert!(text.ends_with("]}") && text.matches("\"entity_id\"").count() == 100_000);
    let now = sim.clock().now().timestamp().to_string();
    let zipping = client(&sim, AGENTS, &now);
    let zipped = Client { extra: "Accept-Encoding: gzip\r\n".to_string(), ..zipping }.get(AGENTS);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&zipped.body[..]);
    std::io::Read::read_to_end(&mut decoder, &mut text).expect("gzip");
    assert!(text == reply.body);
    let head = client(&sim, AGENTS, &now).send("HEAD", AGENTS, "").expect("an answer");
    assert_eq!(head.status, 401, "the checksum covers the method");
    assert_eq!(sim.counts().by_type["agents"].shown_total, 200_000);
}
