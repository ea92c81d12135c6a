//! The host inside this process.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use embedded_host::{Abi, Host, HostError, Options, Status, layouts, probe_plugin};

/// The hosts of one process share its threads, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(abi: Abi) -> Options {
    Options {
        abi,
        tick: Duration::from_millis(50),
        drain: Duration::from_millis(20),
        flush: Duration::from_millis(50),
        shutdown_tick: Duration::from_millis(50),
        log_echo: false,
        ..Options::new(probe_plugin())
    }
}

fn directory(name: &str) -> PathBuf {
    let path = env::temp_dir().join(format!("embedded-host-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn stanza(more: &str) -> String {
    format!("[INPUT]\n  Name probe\n{more}\n")
}

fn wait_for(host: &Host, what: &str, met: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = host.status();
        if met(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "no {what}: {status:#?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_line(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

#[test]
fn layouts_are_those_of_the_real_host() {
    let rows = layouts();
    let value = |name: &str| {
        rows.iter().find(|(row, _)| row == name).unwrap_or_else(|| panic!("no row {name}")).1
    };
    for (name, expected) in [
        ("def_32", 32),
        ("def_40", 40),
        ("def_48", 48),
        ("def_48.config_map", 40),
        ("api_56", 56),
        ("api_56.log_print", 32),
        ("api_56.input_get_cmt_instance", 24),
        ("api_72", 72),
        ("plugin_64", 64),
        ("plugin_64.cb_cleanup", 48),
        ("plugin_80", 80),
        ("plugin_80.cb_collect_ctx", 48),
        ("plugin_80.cb_exit", 72),
        ("context_16", 16),
        ("context_16.proxy", 8),
        ("context_24", 24),
        ("context_24.remote_context", 8),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}

#[test]
fn callbacks_come_in_order_on_their_threads() {
    let _turn = turn();
    for (abi, context) in [(Abi::Before41, "init without context"), (Abi::From511, "init with")] {
        let dir = directory("order");
        let output = format!("[OUTPUT]\nName file\nMatch *\nPath {}\nFile out\n", dir.display());
        let text = stanza("label a") + &stanza("label b") + &output;
        let host = Host::start(options(abi), &text).unwrap();
        wait_for(&host, "delivery", |s| s.inputs.iter().all(|i| i.counts.delivered_records >= 30));
        let report = host.stop();
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        assert!(has_line(&report.log, context), "{:#?}", report.log);
        let calls: Vec<_> =
            report.calls.iter().map(|c| (c.name.as_str(), c.instance.as_str())).collect();
        assert_eq!(
            calls[..4],
            [("pre_register(0)", ""), ("register", ""), ("init", "probe.0"), ("init", "probe.1")]
        );
        for name in ["probe.0", "probe.1"] {
            let own: Vec<_> = report.calls.iter().filter(|c| c.instance == name).collect();
            let names: Vec<_> = own.iter().map(|c| c.name.as_str()).collect();
            assert_eq!(names, ["init", "pre_run(0)", "pause", "pause", "pre_exit(0)", "exit"]);
            let thread = format!("flb-in-{name}-w0");
            assert!(own.iter().all(|call| call.thread == thread[..15]), "{own:?}");
        }
        assert_eq!(calls.last(), Some(&("unregister", "")));
        let out = fs::read_to_string(dir.join("out")).unwrap();
        let delivered: u64 =
            report.generations[0].iter().map(|input| input.counts.delivered_records).sum();
        assert_eq!(out.lines().count() as u64, delivered);
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_pause_stops_the_collector_of_the_last_instance() {
    let _turn = turn();
    let text = stanza("label a\nnaive on") + &stanza("label b\nnaive on");
    let host = Host::start(options(Abi::From511), &text).unwrap();
    wait_for(&host, "records", |s| s.inputs.iter().all(|i| i.counts.collect_calls > 1));
    host.pause(0);
    let status = wait_for(&host, "a stopped collector", |s| !s.inputs[1].collecting);
    assert!(status.inputs[0].paused && status.inputs[0].collecting);
    host.resume(0);
    wait_for(&host, "a running collector", |s| s.inputs[1].collecting);
    host.stop();
}

#[test]
fn a_full_ring_refuses_and_a_plain_hand_over_is_lost() {
    let _turn = turn();
    let text = stanza("label a\nnaive on\n") + &stanza("label b\nappend on\nnaive on");
    let host = Host::start(Options { ring_slots: 2, ..options(Abi::From511) }, &text).unwrap();
    wait_for(&host, "records", |s| s.inputs.iter().all(|i| i.counts.records_total > 0));
    // Each pause stops the collector of b, so b is resumed by a command of a's.
    host.pause(0);
    let status = wait_for(&host, "a refusal", |s| s.inputs[0].counts.ring_retry_failures > 0);
    assert!(status.inputs[0].counts.ring_retries >= 10);
    assert_eq!(status.inputs[0].ring_len, 2);
    host.resume(0);
    let report = host.stop();
    assert!(report.violations.contains_key("handed_over_while_paused"), "{:?}", report.violations);
    let a = &report.generations[0][0].counts;
    assert!(a.ring_dropped_records >= 10 && a.collect_longest_ms >= 1000, "{a:?}");
    assert!(has_line(&report.log, "could not enqueue records into the ring buffer"));
}

#[test]
fn a_memory_limit_pauses_until_the_output_answers() {
    let _turn = turn();
    let text = stanza("label a\nsize 1000\nmem_buf_limit 50K") + "[OUTPUT]\nName null\nMatch *\n";
    let host = Host::start(options(Abi::From511), &text).unwrap();
    host.stall_output(true);
    let status = wait_for(&host, "a pause", |s| s.inputs[0].paused);
    assert!(has_line(&status.log, "paused (mem buf overlimit"));
    wait_for(&host, "the callback", |s| s.inputs[0].counts.pause_calls == 1);
    host.stall_output(false);
    wait_for(&host, "a resume", |s| s.inputs[0].counts.resume_calls == 1);
    let report = host.stop();
    assert_eq!(report.generations[0][0].counts.ring_dropped_records, 0);
}

#[test]
fn reload_registers_before_it_stops_and_a_broken_file_stops_nothing() {
    let _turn = turn();
    let service = "[SERVICE]\nhot_reload on\n";
    let text = service.to_owned() + &stanza("label a");
    let mut host = Host::start(options(Abi::From511), &text).unwrap();
    wait_for(&host, "records", |s| s.inputs[0].counts.collect_calls > 1);
    let halted = host.reload("[INPUT]\nName other\n");
    assert!(matches!(halted, Err(HostError::ReloadHalted(_))));
    assert!(matches!(host.reload("[INPUT"), Err(HostError::ReloadHalted(_))));
    host.reload(&(service.to_owned() + &stanza("label b"))).unwrap();
    let report = host.stop();
    let names: Vec<_> = report.calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "pre_register(0)",
            "register",
            "init",
            "pre_run(1)",
            "pre_register(1)",
            "register",
            "unregister",
            "pre_register(1)",
            "register",
            "pause",
            "pause",
            "pre_exit(1)",
            "exit",
            "unregister",
            "init",
            "pre_run(1)",
            "pause",
            "pause",
            "pre_exit(0)",
            "exit",
            "unregister",
        ]
    );
    assert_eq!(report.generations.len(), 2);
}

#[test]
fn a_failing_init_fails_the_start_and_gives_others_no_exit() {
    let _turn = turn();
    let text = stanza("label a") + &stanza("label b\nfail on");
    let result = Host::start(options(Abi::From511), &text);
    assert!(matches!(result, Err(HostError::Init)));
}

#[test]
fn without_threads_everything_runs_on_the_pipeline() {
    let _turn = turn();
    let text = stanza("label a\nthreaded off\nappend on\nsize 1000\nmem_buf_limit 9K");
    let host = Host::start(options(Abi::From511), &text).unwrap();
    // No output takes the chunks of this tag, so the limit is reached within one collect and lifted
    // by the next flush.
    wait_for(&host, "a pause", |s| s.inputs[0].counts.resume_calls > 0);
    let report = host.stop();
    let calls: Vec<_> = report.calls.iter().filter(|call| !call.instance.is_empty()).collect();
    assert!(calls.iter().all(|call| call.thread == "flb-pipeline"), "{calls:?}");
    assert!(report.generations[0][0].counts.records_total > 0);
}

#[test]
fn one_malformed_record_takes_the_rest_of_the_chunk() {
    let _turn = turn();
    let text = stanza("label a\npoison_at 1") + "[OUTPUT]\nName null\nMatch *\n";
    // The chunk stays open over several hand-overs when the flush is far away.
    let flush = Duration::from_secs(600);
    let host = Host::start(Options { flush, ..options(Abi::From511) }, &text).unwrap();
    wait_for(&host, "a loss", |s| s.inputs[0].counts.poisoned_records >= 10);
    let report = host.stop();
    let counts = &report.generations[0][0].counts;
    assert_eq!((counts.malformed_records, counts.delivered_records), (1, 20));
    assert_eq!(report.violations["malformed_record"].count, 1);
}

#[test]
fn broken_rules_are_counted() {
    let _turn = turn();
    let text = stanza("label a\nforeign_log on\nlate_append on\nleak_thread on\nappend on");
    let host = Host::start(Options { buffer_max: 100, ..options(Abi::From511) }, &text).unwrap();
    wait_for(&host, "records", |s| s.inputs[0].counts.records_total > 0);
    let report = host.stop();
    for name in ["foreign_thread_log_lines", "append_outside_collect", "buffer_too_large"] {
        assert!(report.violations.contains_key(name), "{name}: {:?}", report.violations);
    }
    // The threads of other tests come and go; the plugin's own must be among those listed.
    assert!(report.threads_left.iter().any(|name| name == "probe-leak"));
}
