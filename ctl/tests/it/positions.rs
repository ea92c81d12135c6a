//! Positions, replays and reconciliations over what the real plugin has written.

use std::fs;
use std::path::Path;

use serde_json::Value;
use trendmicro_sim::Sim;

use crate::support::{GOOD, Place, classic, collect, ctl, fill, json, lines, said, simulate};

struct Run {
    place: Place,
    sim: Sim,
    config: String,
    text: String,
}

impl Run {
    /// Lets the plugin collect everything once.
    fn new() -> Self {
        let (place, sim) = (Place::new(), simulate());
        let yaml = fill(GOOD, sim.url(), &place);
        let text = classic(&yaml);
        collect(&sim, &text, &place);
        let config = place.write("fluent-bit.yaml", &yaml).display().to_string();
        Self { place, sim, config, text }
    }

    fn db(&self) -> String {
        self.place.path("state.db").display().to_string()
    }

    fn streams(&self) -> Vec<Value> {
        let status = ctl(&["status", "--json", "-c", &self.config]);
        json(&status)["streams"].as_array().unwrap().clone()
    }

    fn cursor(&self, stream: &str) -> String {
        let streams = self.streams();
        let found = streams.iter().find(|row| row["stream"] == stream).unwrap();
        found["cursor"].as_str().unwrap_or("none").to_owned()
    }

    fn reconcile(&self, arguments: &[&str]) -> (Value, i32) {
        let all = [&["reconcile", "--json", "-c", &self.config], arguments].concat();
        let output = ctl(&all);
        (json(&output), output.status.code().unwrap())
    }
}

/// Leaves out every n-th line of the files, and returns how many that were.
fn lose(out: &Path, nth: usize) -> usize {
    let mut lost = 0;
    for file in fs::read_dir(out).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        let is_log = text.contains("genTime");
        let kept = |i: &usize| !is_log || !(i + 1).is_multiple_of(nth);
        let all: Vec<&str> = text.lines().collect();
        let left: Vec<&str> =
            all.iter().enumerate().filter(|(i, _)| kept(i)).map(|(_, line)| *line).collect();
        lost += all.len() - left.len();
        fs::write(file.path(), left.join("\n") + "\n").unwrap();
    }
    lost
}

/// One run of the plugin serves all: it takes seconds, and there is one plugin in a process.
#[test]
fn positions_are_shown_moved_replayed_and_reconciled() {
    let run = Run::new();
    every_stream_is_shown(&run);
    what_was_delivered_reconciles(&run);
    what_is_lost_is_found(&run);
    nonsense_is_refused(&run);
    a_replay_comes_again(&run);
    a_reset_forgets(&run);
    a_file_in_use_is_said_to_be(&run);
}

fn every_stream_is_shown(run: &Run) {
    let streams = run.streams();
    let names: Vec<&str> = streams.iter().map(|row| row["stream"].as_str().unwrap()).collect();
    for name in ["agents", "servers", "sharepoint.dlp", "accepted_traffic", "computers"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let mail = streams.iter().find(|row| row["stream"] == "blocked_traffic").unwrap();
    assert!(mail["lag_secs"].as_i64().unwrap() < 300, "{mail}");
    assert!(mail["horizon_left_secs"].as_i64().unwrap() > 71 * 3600, "{mail}");
    let shown = said(&ctl(&["state", "show", "--db", &run.db()]));
    assert!(shown.0.contains("mail/blocked_traffic") && shown.1 == 0, "{}", shown.0);
}

fn what_was_delivered_reconciles(run: &Run) {
    let (books, code) = run.reconcile(&["--since", "6h"]);
    assert_eq!((code, &books["missing"]), (0, &Value::from(0)), "{books:#}");
    let note = books["streams"][0]["note"].as_str().unwrap();
    assert!(note.contains("the ledger covers"), "{note}");
    let (books, code) = run.reconcile(&delivered(run, &["--since", "6h"]));
    assert_eq!((code, &books["missing"]), (0, &Value::from(0)), "{books:#}");
    let vendor = books["vendor"].as_u64().unwrap();
    assert!(vendor >= 500, "{vendor}");
    assert_eq!(books["extra"], 0, "{books:#}");
}

/// The arguments with a file per tag.
fn delivered<'a>(run: &Run, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = arguments.to_vec();
    for file in fs::read_dir(run.place.path("out")).unwrap().flatten() {
        all.push("--delivered");
        all.push(Box::leak(file.path().display().to_string().into_boxed_str()));
    }
    all
}

fn what_is_lost_is_found(run: &Run) {
    let lost = lose(&run.place.path("out"), 50);
    assert!(lost >= 9, "{lost}");
    let page = run.place.path("report.html").display().to_string();
    let arguments =
        delivered(run, &["--since", "6h", "--html", Box::leak(page.clone().into_boxed_str())]);
    let (books, code) = run.reconcile(&arguments);
    assert_eq!((code, books["missing"].as_u64().unwrap()), (1, lost as u64), "{books:#}");
    let named: usize = books["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["missing_records"].as_array().unwrap().len())
        .sum();
    assert_eq!(named, lost);
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains(&format!("{lost} records are missing.")) && html.contains("<svg"));
    let id = books["streams"][0]["missing_records"][0]["event_id"].as_str().unwrap();
    assert!(html.contains(id), "{id}");
    for foreign in ["http://", "https://", "<script"] {
        assert!(!html.contains(foreign), "a page of its own has no {foreign}");
    }
}

fn nonsense_is_refused(run: &Run) {
    let set = |stream: &str, to: &str, yes: &[&str]| {
        said(&ctl(
            &[&["state", "set", "--db", &run.db(), "--stream", stream, "--to", to], yes].concat()
        ))
    };
    let (text, code) = set("mail", "2099-01-01", &["--yes"]);
    assert!(code == 2 && text.contains("in the future"), "{text}");
    let (text, code) = set("post", "1h", &["--yes"]);
    assert!(code == 2 && text.contains("there are: ") && text.contains("mail/"), "{text}");
    let before = run.cursor("policy_events");
    let (text, code) = set("mail/policy_events", "1h", &[]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    assert_eq!(run.cursor("policy_events"), before, "nobody agreed");
    let (text, code) = set("mail/policy_events", "2000-01-01", &["--yes"]);
    assert!(code == 0 && text.contains("keeps 72 h"), "{text}");
    assert_eq!(run.cursor("policy_events"), "2000-01-01T00:00:00Z");
    let (text, _) = set("mail/policy_events", &before, &["--yes"]);
    assert!(text.contains("LOST") && run.cursor("policy_events") == before, "{text}");
}

fn a_replay_comes_again(run: &Run) {
    let span = ["-c", &run.config, "--since", "6h", "--connector", "mail/blocked_traffic"];
    let printed = ctl(&[&["replay", "--print"], &span[..]].concat());
    let printed: Vec<Value> = printed
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(printed.len(), 100);
    assert_eq!(printed[0]["msg_class"], "trendmicro_email_security_blocked_traffic");
    let before = run.cursor("blocked_traffic");
    let dry = ctl(&[&["replay", "--dry-run", "--json"], &span[..]].concat());
    let (text, code) = said(&dry);
    assert!(code == 0 && text.contains("is delivered again"), "{text}");
    assert_eq!(json(&dry)["streams"], serde_json::json!(["mail/blocked_traffic"]));
    assert_eq!(run.cursor("blocked_traffic"), before, "a dry run changes nothing");
    let (text, code) = said(&ctl(&[&["replay", "--yes"], &span[..]].concat()));
    assert_eq!(code, 0, "{text}");
    fs::remove_dir_all(run.place.path("out")).unwrap();
    collect_some(run, 100);
    let (books, code) =
        run.reconcile(&delivered(run, &["--since", "6h", "--connector", "mail/blocked_traffic"]));
    assert_eq!((code, &books["missing"]), (0, &Value::from(0)), "{books:#}");
    // Of other streams nothing came again.
    let (books, _) =
        run.reconcile(&delivered(run, &["--since", "6h", "--connector", "mail/accepted_traffic"]));
    assert_eq!(books["missing"], books["vendor"], "{books:#}");
}

/// Runs the plugin again, until the output has so many lines.
fn collect_some(run: &Run, count: usize) {
    let plugin = std::env::current_exe().unwrap().with_file_name("libin_trendmicro.so");
    fs::create_dir_all(run.place.path("out")).unwrap();
    let options = embedded_host::Options { log_echo: false, ..embedded_host::Options::new(plugin) };
    let host = embedded_host::Host::start(options, &run.text).unwrap();
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        if lines(&run.place.path("out")) >= count {
            break;
        }
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    host.stop();
    assert!(lines(&run.place.path("out")) >= count, "{:?}", run.sim.counts());
}

fn a_reset_forgets(run: &Run) {
    let reset = ["state", "reset", "--db", &run.db(), "--stream", "mail/blocked_traffic", "--yes"];
    let (text, code) = said(&ctl(&reset));
    assert_eq!(code, 0, "{text}");
    assert!(run.streams().iter().all(|row| row["stream"] != "blocked_traffic"));
    assert!(run.streams().iter().any(|row| row["stream"] == "accepted_traffic"));
}

fn a_file_in_use_is_said_to_be(run: &Run) {
    let store = in_trendmicro::checkpoint::Sqlite::open(&run.place.path("state.db"), "NORMAL");
    let (text, code) = said(&ctl(&["status", "-c", &run.config]));
    let own = format!("in use by pid {}", std::process::id());
    assert!(code == 3 && text.contains(&own) && text.contains("stop Fluent Bit"), "{text}");
    let (text, _) = said(&ctl(&["test", "--offline", "-c", &run.config]));
    assert!(text.contains(&own), "{text}");
    drop(store);
    assert_eq!(said(&ctl(&["status", "-c", &run.config])).1, 0);
}
