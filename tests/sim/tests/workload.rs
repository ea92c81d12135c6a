//! Workload Security as a client sees it: keys, searches, parts of records, and changes.

mod client;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use client::{Client, Reply};
use serde_json::{Value, json};
use trendmicro_sim::{Fault, FaultKind, KeyStyle, Mutation, RequestLog, Sim, When, WorkloadConfig};

const SEARCH: &str = "/api/computers/search";
const KEY: &str = "api-version: v1\r\napi-secret-key: 1:sim-workload-key=\r\n";

fn start(config: WorkloadConfig) -> (Sim, Client) {
    let sim = Sim::builder().without_email().workload(config).start().expect("a free port");
    let client = Client::with_headers(&sim, KEY);
    (sim, client)
}

fn computers(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()["computers"].as_array().expect("a list").clone()
}

fn search(client: &Client, target: &str, body: &Value) -> Vec<Value> {
    computers(&client.send("POST", target, &body.to_string()).expect("an answer"))
}

fn ids(computers: &[Value]) -> Vec<i64> {
    computers.iter().map(|computer| computer["ID"].as_i64().expect("an ID")).collect()
}

fn after(id: i64, max_items: usize) -> Value {
    json!({
        "maxItems": max_items,
        "searchCriteria": [{ "idValue": id, "idTest": "greater-than" }],
        "sortByObjectID": true,
    })
}

/// Pages by the last identifier, as the vendor advises.
fn sweep(client: &Client, target: &str, max_items: usize) -> Vec<Value> {
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let page = search(client, target, &after(last, max_items));
        let Some(id) = ids(&page).last().copied() else { return all };
        last = id;
        all.extend(page);
    }
}

#[test]
fn paging_by_identifier_finds_every_computer_once() {
    let (sim, client) = start(WorkloadConfig::default());
    let all = sweep(&client, SEARCH, 7);
    let found = ids(&all);
    assert!(found.is_sorted() && found.iter().collect::<HashSet<_>>().len() == 100);
    let mut expected = Vec::new();
    sim.for_each_record(|record| {
        assert_eq!((record.content_type.as_str(), record.shown), ("computers", 1));
        expected.push(serde_json::from_str::<Value>(&record.json).expect("JSON"));
    });
    expected.sort_by_key(|computer| computer["ID"].as_i64());
    assert_eq!(all, expected);
    let tokens = sim.requests().into_iter().map(|request: RequestLog| request.token);
    assert_eq!(tokens.take(2).collect::<Vec<_>>(), [Some("0".into()), Some(found[6].to_string())]);
    // Without the order by identifier, a page's last one says nothing.
    let loose = ids(&search(&client, SEARCH, &json!({})));
    assert!(loose.len() == 100 && !loose.is_sorted());
    assert_eq!(ids(&computers(&client.get("/api/computers"))).len(), 100);
    let between = json!({ "sortByObjectID": true, "searchCriteria": [
        { "idValue": 35, "idTest": "greater-than-or-equal" },
        { "idValue": 217, "idTest": "less-than-or-equal" },
    ] });
    assert_eq!(ids(&search(&client, SEARCH, &between)), [35, 217]);
    let wrong_names = json!({ "max_items": 1, "search_criteria": [{ "idValue": 1 }] });
    assert_eq!(search(&client, SEARCH, &wrong_names).len(), 100, "unknown members are ignored");
}

#[test]
fn keys_and_the_version_are_checked() {
    let version = "api-version: v1\r\n";
    let secret = "api-secret-key: 1:sim-workload-key=\r\n";
    let bearer = "Authorization: ApiKey 1:sim-workload-key=\r\n";
    for (key_style, takes_secret, takes_bearer) in [
        (KeyStyle::Secret, true, false),
        (KeyStyle::ApiKey, false, true),
        (KeyStyle::Both, true, true),
    ] {
        let (sim, _) = start(WorkloadConfig { key_style, ..Default::default() });
        let status = |headers: &str| {
            let headers = format!("{version}{headers}");
            Client::with_headers(&sim, &headers).get("/api/computers").status
        };
        assert_eq!((status(secret) == 200, status(bearer) == 200), (takes_secret, takes_bearer));
        assert_eq!(status(""), 401);
    }
    let (sim, client) = start(WorkloadConfig::default());
    let wrong = format!("{version}api-secret-key: 2:wrong=\r\n");
    let reply = Client::with_headers(&sim, &wrong).get("/api/computers");
    assert_eq!((reply.status, &reply.json()["message"]), (403, &"User unauthenticated.".into()));
    for version in ["", "api-version: v2\r\n"] {
        let headers = format!("{version}{secret}");
        let reply = Client::with_headers(&sim, &headers).get("/api/computers");
        assert_eq!(reply.status, 400);
        assert!(reply.json()["message"].to_string().contains("api-version"));
    }
    let status = |method, target| client.send(method, target, "").expect("an answer").status;
    assert_eq!(status("GET", "/api/nothing"), 404);
    assert_eq!(status("GET", SEARCH), 405);
    assert_eq!(status("POST", "/api/computers"), 405);
    assert_eq!(status("GET", "/api/computers?expand=everything"), 400);
    let reply = client.send("POST", SEARCH, "{\"maxItems\":0}").expect("an answer");
    assert_eq!((reply.status, &reply.json()["message"]), (400, &"Invalid SearchFilter".into()));
}

#[test]
fn expand_chooses_the_parts() {
    let (sim, client) = start(WorkloadConfig::default());
    let with = |expand: &str| {
        let all = search(&client, &format!("{SEARCH}?{expand}"), &json!({}));
        let mut names = HashSet::new();
        for computer in &all {
            names.extend(computer.as_object().expect("an object").keys().cloned());
        }
        names
    };
    let none = with("expand=none&overrides=false");
    assert!(none.contains("hostName") && none.contains("agentVersion"));
    let extra = |expand| {
        let mut extra: Vec<_> = with(expand).difference(&none).cloned().collect();
        extra.sort();
        extra
    };
    assert_eq!(extra("expand=none"), Vec::<String>::new());
    assert_eq!(extra("expand=computerStatus&expand=tasks"), ["computerStatus", "tasks"]);
    assert_eq!(extra("expand=allVirtualMachineSummaries"), ["ec2VirtualMachineSummary"]);
    assert_eq!(extra("expand=allSecurityModules").len(), 9);
    assert_eq!(extra("expand=all"), extra(""));
    assert_eq!(extra("").len(), 15);
    // Each set of parts is a form of its own in the ledger.
    let count = sim.counts().by_type["computers"];
    assert_eq!((count.visible, count.shown_distinct), (500, 500));
    let all: Value =
        serde_json::from_str(include_str!("../fixtures/cloudone-computers-all.json")).unwrap();
    let few: Value =
        serde_json::from_str(include_str!("../fixtures/cloudone-computers-none.json")).unwrap();
    let served = search(&client, SEARCH, &json!({}));
    let samples = [&all, &few].into_iter().flat_map(|file| file["computers"].as_array().unwrap());
    assert!(samples.into_iter().all(|sample| served.contains(sample)));
}

#[test]
fn records_have_the_size_that_is_asked_for() {
    let bytes = 300_000;
    let (_sim, client) =
        start(WorkloadConfig { computers: 8, computer_bytes: bytes, ..Default::default() });
    let full = search(&client, SEARCH, &json!({}));
    for computer in full.iter().filter(|computer| computer["ID"].as_i64() > Some(999)) {
        let length = computer.to_string().len();
        assert!((bytes..bytes + 200).contains(&length), "{length}");
        let setting = &computer["computerSettings"]["platformSettingSimulated00002"];
        assert_eq!(setting["value"], "0");
    }
    let small = search(&client, &format!("{SEARCH}?expand=none"), &json!({}));
    assert!(small.iter().all(|computer| computer.to_string().len() < 1000));
    // What is in both forms reads the same.
    let by_id =
        |list: Vec<Value>| -> BTreeMap<i64, Value> { ids(&list).into_iter().zip(list).collect() };
    let full = by_id(full);
    for (id, computer) in by_id(small) {
        let members = computer.as_object().expect("an object");
        assert!(members.iter().all(|(name, value)| full[&id][name] == *value));
    }
}

#[test]
fn a_large_inventory_is_paged_with_the_largest_page() {
    let (sim, client) = start(WorkloadConfig { computers: 12_000, ..Default::default() });
    let target = format!("{SEARCH}?expand=none");
    assert_eq!(search(&client, &target, &json!({ "maxItems": 100_000 })).len(), 5000);
    assert_eq!(search(&client, &target, &json!({})).len(), 5000);
    assert_eq!(sweep(&client, &target, 5000).len(), 12_000);
    let entities: Vec<_> = sim.sweeps().iter().map(|sweep| sweep.entities).collect();
    assert_eq!(entities, [5000, 5000, 5000, 5000, 2000, 0]);
}

#[test]
fn mutations_change_exactly_what_they_say() {
    let (sim, client) = start(WorkloadConfig::default());
    let target = format!("{SEARCH}?expand=computerStatus");
    let list = || -> BTreeMap<String, Value> {
        let all = sweep(&client, &target, 40);
        all.into_iter().map(|computer| (computer["ID"].to_string(), computer)).collect()
    };
    let before = list();
    let mutated = sim.mutate("computers", Mutation { add: 4, remove: 10, change: 90 });
    let mutated = mutated.expect("an inventory");
    let after = list();
    assert_eq!((before.len(), after.len(), mutated.changed.len()), (100, 94, 90));
    assert!(mutated.changed.iter().all(|id| before[id] != after[id]));
    assert!(mutated.added.iter().all(|id| id.parse::<i64>().expect("a number") > 1396));
    assert!(mutated.removed.iter().all(|id| !after.contains_key(id)));
    let sweeps = sim.sweeps();
    let mut texts = Vec::new();
    let last_page = &sweeps[sweeps.len() - 2];
    sim.for_each_in_sweep(last_page, |record| texts.push(record.json.clone()));
    assert_eq!(texts.len(), 14);
    assert!(texts.iter().all(|text| {
        let computer: Value = serde_json::from_str(text).expect("JSON");
        after[&computer["ID"].to_string()] == computer
    }));
    assert!(last_page.query.contains("greater-than"));
}

#[test]
fn limits_faults_and_other_base_paths() {
    let config = WorkloadConfig {
        base_path: "/manager/api/".to_string(),
        rate_limit: Some(3),
        retry_after: true,
        ..Default::default()
    };
    let (sim, client) = start(config);
    let get = || client.get("/manager/api/computers?expand=none");
    assert_eq!([get().status, get().status, get().status], [200; 3]);
    let reply = get();
    let wait: u64 = reply.header("retry-after").expect("a wait").parse().expect("seconds");
    assert!(reply.status == 429 && (1..=60).contains(&wait), "{wait}");
    assert_eq!(reply.json()["message"], "Too many API requests");
    assert_eq!(sim.rate_violations(), 1);
    sim.clock().advance(Duration::from_secs(60));
    assert_eq!(get().status, 200);
    assert_eq!(client.get("/api/computers").status, 404);
    let status = FaultKind::Status { code: 503, retry_after: None, body: None };
    sim.faults().add(Fault::new("/manager/api/computers", When::Times(1), status));
    assert_eq!(get().json()["message"], "Service unavailable");
    let old = format!("GET /manager/api/computers HTTP/1.0\r\n{KEY}\r\n");
    let mut stream = client.connect();
    std::io::Write::write_all(&mut stream, old.as_bytes()).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.contains("Content-Length: ") && !text.contains("chunked"), "{text}");
}

#[test]
fn four_products_share_a_listener() {
    let sim = Sim::builder()
        .cloud_app(Default::default())
        .apex(Default::default())
        .workload(Default::default())
        .start()
        .expect("a free port");
    let mail = "/api/v1/log/mailtrackinglog?type=accepted_traffic";
    assert_ne!(Client::new(&sim).get(mail).status, 404);
    assert_eq!(Client::with_headers(&sim, KEY).get("/api/computers").status, 200);
    assert_eq!(Client::new(&sim).get("/v1/siem/security_events").status, 401);
    assert_eq!(Client::new(&sim).get("/WebApp/API/AgentResource/ProductAgents").status, 401);
    let products: Vec<_> = sim.rates().into_iter().map(|rate| rate.product).collect();
    assert_eq!(products, ["cloud_app_security", "workload_security"]);
    assert_eq!(sim.counts().by_type.len(), 3 + 48 + 2 + 1);
}
