//! The host as a program: kills, signals, daemons, other exports.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use embedded_host::probe_plugin;
use serde_json::Value;

fn directory(name: &str) -> PathBuf {
    let name = format!("embedded-host-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn command(dir: &Path, config: &str, more: &[&str]) -> Command {
    let file = dir.join("host.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded-host"));
    command.arg("-e").arg(probe_plugin()).arg("-c").arg(file);
    command.args(["--tick-ms", "50", "--drain-ms", "20", "--flush-ms", "50"]);
    command.args(["--shutdown-tick-ms", "50"]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> (Output, Option<Value>) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = text.lines().find_map(|line| line.strip_prefix("REPORT "));
    let report = report.map(|report| serde_json::from_str(report).unwrap());
    (output, report)
}

fn until(what: &str, met: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !met() {
        assert!(Instant::now() < deadline, "no {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_killed_host_delivers_its_journal_once() {
    let dir = directory("kill");
    let out = dir.join("out");
    let path = dir.display();
    let config = format!(
        "[SERVICE]\nstorage.path {path}\n[INPUT]\nName probe\nlabel a\nstorage.type filesystem\n\
         [OUTPUT]\nName file\nMatch *\nPath {path}\nFile out\n"
    );
    let mut child = command(&dir, &config, &[]).spawn().unwrap();
    until("output", || lines(&out) >= 30);
    child.stdin.take().unwrap().write_all(b"stall\n").unwrap();
    let delivered = lines(&out);
    let journal = dir.join("probe.0.journal");
    until("journal", || lines(&journal) >= delivered + 50);
    child.kill().unwrap();
    child.wait().unwrap();
    let journalled = lines(&journal);
    let child = command(&dir, &config, &["--stop-on-eof"]).spawn().unwrap();
    let (output, report) = ended(child);
    assert!(output.status.success(), "{output:?}");
    assert!(report.is_some());
    assert_eq!(fs::read(&journal).unwrap(), fs::read(&out).unwrap());
    assert!(lines(&out) >= journalled);
    let first_run: HashSet<_> =
        fs::read_to_string(&out).unwrap().lines().take(journalled).map(str::to_owned).collect();
    assert_eq!(first_run.len(), journalled);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn commands_and_signals() {
    let dir = directory("commands");
    let config = "[SERVICE]\nhot_reload on\n[INPUT]\nName probe\nlabel a\n";
    let mut child = command(&dir, config, &["--strict"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdin.write_all(b"status\n").unwrap();
    stdout.read_line(&mut line).unwrap();
    let status: Value = serde_json::from_str(line.strip_prefix("STATUS ").unwrap()).unwrap();
    assert_eq!(status["inputs"][0]["name"], "probe.0");
    let pid = child.id().to_string();
    Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "RELOAD done\n");
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(line.strip_prefix("REPORT ").unwrap()).unwrap();
    assert_eq!(report["generations"].as_array().unwrap().len(), 2);
    assert!(child.wait().unwrap().success(), "{report}");
    drop(stdin);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_failing_init_ends_with_255_at_start_and_at_reload() {
    let dir = directory("fail");
    let bad = "[SERVICE]\nhot_reload on\n[INPUT]\nName probe\nfail on\n";
    let (output, report) = ended(command(&dir, bad, &[]).spawn().unwrap());
    assert_eq!((output.status.code(), report), (Some(255), None));
    let good = "[SERVICE]\nhot_reload on\n[INPUT]\nName probe\nlabel a\n";
    let mut child = command(&dir, good, &[]).spawn().unwrap();
    fs::write(dir.join("bad.conf"), bad).unwrap();
    let order = format!("reload {}\n", dir.join("bad.conf").display());
    child.stdin.take().unwrap().write_all(order.as_bytes()).unwrap();
    let (output, _) = ended(child);
    assert_eq!(output.status.code(), Some(255));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn exports_can_be_left_out() {
    let dir = directory("exports");
    let config = "[INPUT]\nName probe\nlabel a\nappend on\n[OUTPUT]\nName stdout\nMatch *\n";
    for (exports, appends, metrics) in [
        ("all", true, true),
        ("none", false, false),
        ("append", true, false),
        ("metrics", false, true),
    ] {
        let mut child = command(&dir, config, &["--exports", exports]).spawn().unwrap();
        thread::sleep(Duration::from_millis(300));
        child.stdin.take().unwrap().write_all(b"stop\n").unwrap();
        let (output, _) = ended(child);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(out.contains("\"tag\":\"tag.a\""), appends, "{exports}: {out}");
        let log = String::from_utf8_lossy(&output.stderr);
        let counter = "fluentbit_input_records_total{name=\"probe.0\"} ";
        assert_eq!(log.contains(counter), metrics, "{exports}: {log}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_write_past_the_definition_is_seen() {
    let dir = directory("definition");
    let config = "[INPUT]\nName probe\nlabel a\n";
    for (size, name) in [("32", "overrun"), ("40", "event_type")] {
        let mut command = command(&dir, config, &["--def-size", size, "--stop-on-eof"]);
        let child = command.env("PROBE_EVENT_TYPE", "1").spawn().unwrap();
        let report = ended(child).1.unwrap();
        assert_eq!(report["definition"][name], true, "{report}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_daemon_runs_in_a_child_without_stdio() {
    let dir = directory("daemon");
    let file = |name: &str| dir.join(name).display().to_string();
    let config = "[INPUT]\nName probe\nlabel a\n";
    let more = [
        "--daemon",
        "--pid-file",
        &file("pid"),
        "--log-file",
        &file("log"),
        "--report-file",
        &file("report"),
    ];
    let mut child = command(&dir, config, &more).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    until("pid", || fs::read_to_string(file("pid")).is_ok_and(|pid| !pid.is_empty()));
    let pid = fs::read_to_string(file("pid")).unwrap();
    until("init", || {
        fs::read_to_string(file("log")).is_ok_and(|log| log.contains("[probe:a] pre_run"))
    });
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, Path::new("/"));
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    until("report", || fs::read_to_string(file("report")).is_ok_and(|text| text.ends_with('}')));
    let report: Value = serde_json::from_str(&fs::read_to_string(file("report")).unwrap()).unwrap();
    assert_eq!(report["violations"], serde_json::json!({}));
    fs::remove_dir_all(dir).unwrap();
}
