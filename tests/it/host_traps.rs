//! What a host does to a plugin: pauses the wrong one, refuses, reloads, hides its counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use trendmicro_sim::{EmailConfig, Fault, FaultKind, Sim, When};

use crate::support::{
    Books, Config, Daemon, Form, Host, Place, assert_no_secrets, at_once, config, email, input,
    simulate, wait, wait_delivered,
};

fn books(sim: &Sim, out: &Path) -> Books {
    Books::of(sim, out, Form::Envelope)
}

/// A vendor with more than a memory limit takes, who answers only once the test says so.
fn held_back(records: usize) -> Sim {
    let sim = simulate(EmailConfig { accepted_backlog: records, ..email() });
    let kind = FaultKind::Status { code: 503, retry_after: None, body: None };
    sim.faults().add(Fault::new("/api/v1/log/", When::Always, kind));
    sim
}

/// A vendor whose backlog takes a while, with records that come into being meanwhile.
fn slow() -> Sim {
    let sim = simulate(EmailConfig {
        accepted_backlog: 3000,
        page_limit_max: 10,
        live_per_second: 20.0,
        ..email()
    });
    let slow = FaultKind::Slow { delay: Duration::from_millis(10) };
    sim.faults().add(Fault::new("/api/v1/log/", When::Always, slow));
    sim
}

/// Waits until the host's status is as `is_right` wants it.
fn wait_status(host: &Host, what: &str, mut is_right: impl FnMut(&Value) -> bool) -> Value {
    let look = || Some(host.status()).filter(&mut is_right);
    wait(what, || format!("{}\n{}", host.status(), host.log_tail()), look)
}

fn is_paused(status: &Value, input: usize) -> bool {
    status["inputs"][input]["paused"] == true
}

fn count(status: &Value, input: usize, name: &str) -> u64 {
    status["inputs"][input][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// Two stanzas in one host, each with its vendor, state, tag and output.
fn two(sims: &[Sim; 2], place: &Place) -> (Config, [PathBuf; 2]) {
    let mut both = config(&sims[0], place);
    let template = both.outputs.remove(0);
    both.inputs.clear();
    let outs = [place.path("out-0"), place.path("out-1")];
    for (i, (sim, out)) in sims.iter().zip(&outs).enumerate() {
        fs::create_dir(out).expect("an output directory");
        let tag = format!("tm{i}");
        let state = place.text(&format!("state-{i}.db"));
        both.inputs.push(input(sim, place).set("tag", &tag).set("db", &state));
        let path = out.display().to_string();
        both.outputs.push(template.clone().set("match", &tag).set("path", &path));
    }
    (both, outs)
}

#[test]
fn a_full_memory_pauses_and_an_empty_one_resumes() {
    let (place, sim) = (Place::new(), held_back(1500));
    let config = config(&sim, &place).with(&[("mem_buf_limit", "100K")]);
    let host = Host::start(&place, &config, &[]);
    host.command("stall");
    wait_status(&host, "the outputs to stall", |status| status["output_stalled"] == true);
    sim.faults().clear();
    wait_status(&host, "a pause", |status| is_paused(status, 0));
    host.command("unstall");
    wait_delivered(&host, &sim, &place.out());
    let report = host.stop();
    assert!(report.count(0, "pause_calls") > 0 && report.count(0, "resume_calls") > 0);
    books(&sim, &place.out()).assert_exact("after a pause");
}

#[test]
fn of_two_stanzas_each_heeds_its_own_pause() {
    let (place, sims) = (Place::new(), [held_back(800), held_back(800)]);
    let (config, outs) = two(&sims, &place);
    let host = Host::start(&place, &config, &[]);
    // A collector that begins after the pause would make up for the mistake below.
    let is_collecting =
        |status: &Value, input: usize| status["inputs"][input]["collecting"] == true;
    wait_status(&host, "both", |status| is_collecting(status, 0) && is_collecting(status, 1));
    host.command("pause 0");
    let paused = wait_status(&host, "a pause", |status| is_paused(status, 0));
    // The host's own mistake: it stops the collector of the last stanza.
    let stopped = wait_status(&host, "a wrong stop", |s| s["inputs"][1]["collecting"] == false);
    sims.iter().for_each(|sim| sim.faults().clear());
    let asked = || (sims[0].counts().shown_total > 0).then_some(());
    wait("the paused stanza to fetch", || host.log_tail(), asked);
    let handed = |status: &Value| count(status, 0, "handed_over_appends");
    assert_eq!(handed(&host.status()), handed(&paused).max(handed(&stopped)), "handed over");
    host.command("resume 0");
    for (sim, out) in sims.iter().zip(&outs) {
        wait_delivered(&host, sim, out);
    }
    host.stop();
    for (sim, out) in sims.iter().zip(&outs) {
        books(sim, out).assert_exact("two stanzas");
    }
}

#[test]
fn two_stanzas_share_a_stalled_output() {
    let (place, sims) = (Place::new(), [held_back(800), held_back(800)]);
    let (config, outs) = two(&sims, &place);
    let host = Host::start(&place, &config.with(&[("mem_buf_limit", "100K")]), &[]);
    host.command("stall");
    wait_status(&host, "the outputs to stall", |status| status["output_stalled"] == true);
    sims.iter().for_each(|sim| sim.faults().clear());
    wait_status(&host, "a pause", |status| is_paused(status, 0) || is_paused(status, 1));
    host.command("unstall");
    for (sim, out) in sims.iter().zip(&outs) {
        wait_delivered(&host, sim, out);
    }
    host.stop();
    for (sim, out) in sims.iter().zip(&outs) {
        books(sim, out).assert_exact("two stanzas and a stall");
    }
}

/// The memory limit is crossed inside a collect: the pause cannot come in before it ends, the ring
/// is not emptied any more, and the append after the last slot is refused.
#[test]
fn what_a_full_ring_refuses_is_offered_again() {
    let (place, sim) = (Place::new(), held_back(4000));
    let config = config(&sim, &place).with(&[("mem_buf_limit", "500K")]);
    let arguments = ["--ring-slots", "2", "--tick-ms", "500", "--buffer-max", "1048576"];
    let host = Host::start(&place, &config, &arguments);
    host.command("stall");
    wait_status(&host, "the outputs to stall", |status| status["output_stalled"] == true);
    sim.faults().clear();
    host.wait_log("are kept and offered again");
    host.command("unstall");
    wait_delivered(&host, &sim, &place.out());
    let report = host.stop();
    assert!(report.count(0, "refused_appends") > 0);
    books(&sim, &place.out()).assert_exact("after refusals");
}

/// One host line and its exports, how records must travel there, and what confirms them.
struct Line {
    arguments: Vec<&'static str>,
    handover: &'static str,
    says: &'static str,
}

#[test]
fn every_line_of_hosts_gets_everything_once() {
    let line = |arguments: &[&'static str], handover, says| Line {
        arguments: arguments.to_vec(),
        handover,
        says,
    };
    let counter = "appended and confirmed by the host's own record counter";
    let by_return = "returned and confirmed by the host's own record counter";
    let slow = ["--exports", "none", "--tick-ms", "100"];
    let append = ["--exports", "append", "--tick-ms", "100"];
    let lines = vec![
        line(&["--abi", "before-4.1"], "auto", counter),
        line(&["--abi", "from-4.1"], "auto", counter),
        line(&["--abi", "from-5.1.1"], "append", counter),
        line(&["--abi", "before-4.1"], "return", by_return),
        line(&["--abi", "from-4.1"], "return", by_return),
        line(&["--exports", "metrics"], "auto", by_return),
        line(&slow, "auto", "returned and confirmed by elapsed time"),
        line(&append, "auto", "appended and confirmed by elapsed time"),
    ];
    at_once(lines, |Line { arguments, handover, says }| {
        let sim = simulate(EmailConfig { live_per_second: 10.0, ..email() });
        let place = Place::new();
        let config = config(&sim, &place).with(&[("handover", handover)]);
        let host = Host::start(&place, &config, &arguments);
        host.wait_log(says);
        let enough = || (sim.counts().visible > 340 + 60).then_some(());
        wait("live records", || host.log_tail(), enough);
        sim.stop_live();
        wait_delivered(&host, &sim, &place.out());
        let report = host.stop();
        let drops = report.count(0, "ring_dropped_records") + report.count(0, "ring_left_records");
        assert_eq!(drops, 0, "{arguments:?}");
        books(&sim, &place.out()).assert_exact(&format!("{arguments:?} {handover}"));
    });
}

/// A processor that drops or adds makes the host's counter useless; the plugin finds that out, says
/// so and goes on. What reaches the outputs then is the processor's business.
#[test]
fn processors_that_change_the_count_do_not_stop_the_stream() {
    let (drops, adds) =
        ("drops records before it counts them", "adds records before it counts them");
    let cases: Vec<(&[&str], &str)> = vec![
        (&["--processor-drop", "3"], drops),
        (&["--processor-add", "3"], adds),
        (&["--processor-drop-all"], drops),
        (&["--processor-drop", "3", "--abi", "before-4.1"], drops),
        (&["--processor-add", "3", "--abi", "before-4.1"], adds),
        (&["--processor-drop-all", "--abi", "before-4.1"], drops),
    ];
    at_once(cases, |(arguments, says)| {
        let (place, sim) = (Place::new(), simulate(email()));
        let total = sim.counts().visible;
        let host = Host::start(&place, &config(&sim, &place), arguments);
        let line = host.wait_log(says);
        assert!(line.contains("[ warn]") && line.contains("elapsed time"), "{line}");
        wait_status(&host, "everything to be handed over", |status| {
            count(status, 0, "handed_over_records") >= total
        });
        // The weaker rule confirms as well: nothing stays pending.
        let report = host.stop();
        let handed_over = report.count(0, "handed_over_records");
        // A host that says nothing of its ring buffer is offered a dropped batch a few times.
        let is_blind = arguments == ["--processor-drop-all", "--abi", "before-4.1"];
        let is_right = handed_over == total || (is_blind && handed_over > total);
        assert!(is_right, "{arguments:?}: {handed_over} of {total}");
        let found = books(&sim, &place.out());
        let (missing, twice) = (found.missing.len() as u64, found.duplicates.len() as u64);
        let expected = match arguments[0] {
            "--processor-drop" => (total / 3, 0),
            "--processor-add" => (0, total / 3),
            _ => (total, 0),
        };
        assert_eq!((missing, twice), expected, "{arguments:?}: {}", found.describe());
    });
}

/// A processor that drops so rarely that the counter was understood before it shows: what was in
/// flight then may come twice, and is said to.
#[test]
fn a_processor_that_drops_rarely_is_found_out_late() {
    let (place, sim) = (Place::new(), simulate(EmailConfig { accepted_backlog: 3000, ..email() }));
    let total = sim.counts().visible;
    let arguments = ["--processor-drop", "200"];
    let host = Host::start(&place, &config(&sim, &place), &arguments);
    host.wait_log("drops records before it counts them");
    let arrived = || {
        let dropped = count(&host.status(), 0, "handed_over_records") / 200;
        (books(&sim, &place.out()).missing.len() as u64 <= dropped).then_some(())
    };
    wait("all but what was dropped", || host.log_tail(), arrived);
    let report = host.stop();
    let found = books(&sim, &place.out());
    let dropped = report.count(0, "handed_over_records") / 200;
    let copies = report.count(0, "handed_over_records") - total;
    assert!(found.missing.len() as u64 <= dropped, "{}", found.describe());
    assert!(found.unexpected.is_empty() && found.confused.is_empty(), "{}", found.describe());
    assert!(copies == 0 || report.log.contains("some may arrive twice"), "{copies} copies unsaid");
    eprintln!("a processor that drops each 200th of {total}: {copies} were handed over again");
}

#[test]
fn ten_reloads_in_a_row_lose_and_double_nothing() {
    let (place, sim) = (Place::new(), slow());
    let host = Host::start(&place, &config(&sim, &place), &[]);
    host.wait_log("records are appended");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..10 {
        // In flight at a moment that nobody chose.
        std::thread::sleep(Duration::from_millis(random.u64(0..300)));
        assert_eq!(host.reload(), "done", "{}", host.log_tail());
    }
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    let report = host.stop();
    assert_eq!(report.json["generations"].as_array().map(Vec::len), Some(11));
    books(&sim, &place.out()).assert_exact("after ten reloads");
}

/// A file that cannot be read is refused before the plugin registers again, one with an unknown
/// output after it; the old configuration runs on in both cases.
#[test]
fn a_reload_with_a_broken_file_changes_nothing() {
    let (place, sim) = (Place::new(), slow());
    let good = config(&sim, &place);
    let host = Host::start(&place, &good, &[]);
    host.wait_log("records are appended");
    let unknown = good.classic().replace("name file", "name no_such_output");
    for broken in ["[INPUT\n    name trendmicro\n", &unknown] {
        host.rewrite_config(broken);
        assert_eq!(host.reload(), "failed");
        host.wait_log("Reloading is halted");
    }
    host.rewrite_config(&good.classic());
    assert_eq!(host.reload(), "done");
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    books(&sim, &place.out()).assert_exact("after broken reloads");
}

/// The host itself ends when an input fails at a reload; what counts is that the plugin says why,
/// and that a start with the old file goes on where it was.
#[test]
fn a_reload_with_a_wrong_property_ends_with_one_line() {
    let (place, sim) = (Place::new(), slow());
    let good = config(&sim, &place);
    let host = Host::start(&place, &good, &[]);
    host.wait_log("records are appended");
    host.rewrite_config(&good.clone().with(&[("interval", "soon")]).classic());
    host.signal("HUP");
    let ending = host.wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    assert_one_line(&ending.log, "interval = \"soon\"");
    let host = Host::start(&place, &good, &[]);
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    books(&sim, &place.out()).assert_exact("after a wrong reload");
}

fn assert_one_line(log: &str, text: &str) {
    let lines: Vec<_> = log.lines().filter(|line| line.contains(text)).collect();
    assert_eq!(lines.len(), 1, "lines with {text}\n{log}");
    for part in ["[error]", "[input:trendmicro:", "legal: ", "write: "] {
        assert!(lines[0].contains(part), "{part} in: {}", lines[0]);
    }
}

#[test]
fn a_wrong_property_ends_the_start_with_one_line() {
    let sim = simulate(email());
    let cases = vec![
        ("interval", "soon", "interval = \"soon\""),
        ("content_types", "all_of_them", "content_types = \"all_of_them\""),
        ("base_url", "http://vendor.example", "base_url = \"http://vendor.example\""),
        ("db", "/no/such/directory/x.db", "db = \"/no/such/directory/x.db\""),
        ("apikey", "x", "but api_key is"),
    ];
    at_once(cases, |(key, value, says)| {
        for abi in ["before-4.1", "from-5.1.1"] {
            let place = Place::new();
            let config = config(&sim, &place).with(&[(key, value)]);
            let ending = Host::start(&place, &config, &["--abi", abi]).wait_end();
            assert_eq!(ending.code, Some(255), "{}", ending.log);
            assert_one_line(&ending.log, says);
        }
    });
}

#[test]
fn one_wrong_stanza_of_two_ends_the_start_cleanly() {
    let (place, sims) = (Place::new(), [simulate(email()), simulate(email())]);
    let (mut config, _) = two(&sims, &place);
    config.inputs[1] = config.inputs[1].clone().set("interval", "soon");
    let ending = Host::start(&place, &config, &[]).wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    assert_one_line(&ending.log, "interval = \"soon\"");
}

#[test]
fn threaded_off_works_for_one_and_for_two() {
    let cases = vec![
        (1, "from-5.1.1", "auto"),
        (2, "from-5.1.1", "auto"),
        (2, "from-5.1.1", "return"),
        (1, "before-4.1", "return"),
        (2, "before-4.1", "auto"),
    ];
    at_once(cases, |(stanzas, abi, handover)| {
        let (place, sims) = (Place::new(), [held_back(300), held_back(300)]);
        let (mut config, outs) = two(&sims, &place);
        config.inputs.truncate(stanzas);
        let limits = [("threaded", "off"), ("handover", handover), ("mem_buf_limit", "100K")];
        let host = Host::start(&place, &config.with(&limits), &["--abi", abi]);
        host.wait_log("threaded is off");
        host.command("stall");
        wait_status(&host, "the outputs to stall", |status| status["output_stalled"] == true);
        sims.iter().for_each(|sim| sim.faults().clear());
        // Here the pause comes from inside the plugin's own append; without contexts one input's
        // pause is every input's.
        let any = |status: &Value| (0..stanzas).any(|input| is_paused(status, input));
        wait_status(&host, "a pause", any);
        host.command("unstall");
        for (sim, out) in sims.iter().zip(&outs).take(stanzas) {
            wait_delivered(&host, sim, out);
        }
        // A host without contexts cannot say which input it means, so each collect serves all inputs
        // of the thread, which is the one thread that may append for any of them.
        host.stop_in_spite_of(if abi == "before-4.1" { &["append_outside_collect"] } else { &[] });
        for (sim, out) in sims.iter().zip(&outs).take(stanzas) {
            books(sim, out).assert_exact(&format!("{stanzas} stanzas, {abi}, {handover}"));
        }
    });
}

#[test]
fn threaded_off_that_cannot_work_is_refused() {
    let (place, sims) = (Place::new(), [simulate(email()), simulate(email())]);
    let config = two(&sims, &place).0.with(&[("threaded", "off"), ("handover", "return")]);
    let ending = Host::start(&place, &config, &["--abi", "before-4.1"]).wait_end();
    assert_eq!(ending.code, Some(255), "{}", ending.log);
    assert_one_line(&ending.log, "threaded is off for several inputs");
}

/// A daemon forks after the plugin has registered, and its standard output belongs to others.
#[test]
fn a_daemon_collects_and_writes_to_nobodys_descriptors() {
    let (place, sim) = (Place::new(), simulate(email()));
    let daemon = Daemon::start(&place, &config(&sim, &place));
    daemon.wait_delivered(&sim, &place.out());
    let report = daemon.stop();
    assert_eq!(report["violations"], serde_json::json!({}), "{}", daemon.log());
    assert_eq!(report["threads_left"], serde_json::json!([]), "{}", daemon.log());
    assert_no_secrets(&daemon.log());
    books(&sim, &place.out()).assert_exact("as a daemon");
}

#[test]
fn callbacks_return_at_once() {
    let (place, sim) = (Place::new(), slow());
    let hang = Fault::new("/api/v1/log/policyeventlog", When::Times(3), FaultKind::Hang);
    sim.faults().add(hang);
    let host = Host::start(&place, &config(&sim, &place).with(&[("timeout", "2s")]), &[]);
    wait_status(&host, "many collects", |status| count(status, 0, "collect_calls") > 100);
    sim.faults().clear();
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    let report = host.stop();
    let (own, init) = (report.count(0, "collect_own_longest_ms"), report.count(0, "init_ms"));
    assert!(own < 250, "a collect took {own} ms");
    assert!(init < 2000, "Init took {init} ms");
    let exit = report.count(0, "exit_ms");
    assert!(exit < 2500, "Exit took {exit} ms");
    books(&sim, &place.out()).assert_exact("with hanging requests");
}
