//! What the host shows of the plugin: metrics in its own context, and status lines in its log.

use std::collections::BTreeMap;

use in_trendmicro::activity::CODES;
use in_trendmicro::metrics::METRICS;
use trendmicro_sim::{EmailConfig, Fault, FaultKind, Sim, When};

use crate::support::{Host, Place, at_once, config, email, input, simulate, wait, wait_delivered};

const STREAMS: [&str; 3] = ["accepted_traffic", "blocked_traffic", "policy_events"];

/// Values by metric and labels, as Prometheus reads them.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn of(text: &str) -> Self {
        let ours = text.lines().filter(|line| line.starts_with("fluentbit_trendmicro_"));
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(ours.map(|line| value(line).unwrap_or_else(|| panic!("{line}"))).collect())
    }

    /// A value of the connector of these tests.
    pub fn get(&self, input: &str, name: &str, label: &str, of: &str) -> f64 {
        let labels = format!("name=\"{input}\",connector=\"email_security\",{label}=\"{of}\"");
        let series = format!("fluentbit_trendmicro_{name}{{{labels}}}");
        *self.0.get(&series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0))
    }

    pub fn sum(&self, input: &str, name: &str) -> f64 {
        STREAMS.iter().map(|stream| self.get(input, name, "stream", stream)).sum()
    }

    /// Everything that must hold of an input which has delivered all of so many records.
    pub fn assert_whole(&self, input: &str, delivered: f64) {
        let sum = |name| self.sum(input, name);
        assert_eq!(sum("records_delivered_total"), delivered, "{:#?}", self.0);
        assert_eq!(sum("records_confirmed_total"), delivered, "{:#?}", self.0);
        assert_eq!(sum("records_imbalance"), 0.0, "{:#?}", self.0);
        let known = sum("records_delivered_total") + sum("records_duplicate_total");
        assert!(sum("records_fetched_total") >= known, "{:#?}", self.0);
        let now = chrono::Utc::now().timestamp() as f64;
        for stream in STREAMS {
            let of = |name| self.get(input, name, "stream", stream);
            let answered = of("last_success_timestamp_seconds");
            assert!(now - answered < 60.0, "{stream}: the last answer was at {answered}");
            assert!((0.0..60.0).contains(&of("lag_seconds")), "{stream}");
            assert!(of("horizon_left_seconds") > 71.0 * 3600.0, "{stream}");
            assert_eq!((of("refused"), of("failures"), of("interval_seconds")), (0.0, 0.0, 1.0));
        }
        assert!(self.get(input, "requests_total", "code", "200") >= 3.0);
    }
}

fn metrics(host: &Host, input: usize) -> Metrics {
    Metrics::of(host.status()["inputs"][input]["metrics"].as_str().unwrap())
}

/// Waits until the metrics of an input are as `is_right` wants them.
fn wait_metrics(host: &Host, input: usize, is_right: impl Fn(&Metrics) -> bool) -> Metrics {
    let explain = || format!("{:#?}\n{}", metrics(host, input).0, host.log_tail());
    wait("the metrics", explain, || Some(metrics(host, input)).filter(&is_right))
}

fn fault(sim: &Sim, path: &str, when: When, code: u16) {
    let kind = FaultKind::Status { code, retry_after: None, body: None };
    sim.faults().add(Fault::new(path, when, kind));
}

/// `NAME N` in a closing line of a stream.
fn closing(log: &str, stream: &str, name: &str) -> f64 {
    let start = format!("[email_security.{stream}] fetched ");
    let line = log.lines().find(|line| line.contains(&start)).expect("a closing line");
    let (_, rest) = line.split_once(&format!("{name} ")).expect(line);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect(line)
}

#[test]
fn metrics_are_the_counts_on_every_line_of_hosts() {
    at_once(vec!["before-4.1", "from-4.1", "from-5.1.1"], |abi| {
        let (place, sim) = (Place::new(), simulate(email()));
        fault(&sim, "/api/v1/log/", When::Times(2), 503);
        let host = Host::start(&place, &config(&sim, &place), &["--abi", abi]);
        wait_delivered(&host, &sim, &place.out());
        let total = sim.counts().visible as f64;
        let is_whole = |seen: &Metrics| {
            let of = |name| seen.sum("trendmicro.0", name);
            of("records_delivered_total") == total && of("interval_seconds") == 3.0
        };
        let seen = wait_metrics(&host, 0, is_whole);
        seen.assert_whole("trendmicro.0", total);
        assert_eq!(seen.get("trendmicro.0", "requests_total", "code", "503"), 2.0);
        let asked = sim.requests().len();
        let report = host.stop();
        let last = Metrics::of(report.json["inputs"][0]["metrics"].as_str().unwrap());
        for stream in STREAMS {
            for name in ["fetched", "duplicate", "delivered", "late"] {
                let shown =
                    last.get("trendmicro.0", &format!("records_{name}_total"), "stream", stream);
                assert_eq!(shown, closing(&report.log, stream, name), "{stream}, {name}");
            }
        }
        let requests = |code| last.get("trendmicro.0", "requests_total", "code", code);
        let counted: f64 = CODES.iter().map(|code| requests(code)).sum();
        // The last request may have been broken off by the stop.
        let all = sim.requests().len() as f64;
        assert!(counted >= asked as f64 - 1.0 && counted <= all, "{counted} of {asked} to {all}");
        // Two are of the connector, and four are there only with a shared database.
        let series = METRICS.len() - 2 - 4;
        assert_eq!(last.0.len(), series * STREAMS.len() + CODES.len() + 1, "{:#?}", last.0);
    });
}

#[test]
fn a_reload_begins_anew_and_two_inputs_have_their_own() {
    let place = Place::new();
    let sims = [simulate(email()), simulate(EmailConfig { accepted_backlog: 90, ..email() })];
    let mut both = config(&sims[0], &place);
    both.outputs.clear();
    both.inputs.clear();
    let template = config(&sims[0], &place).outputs.remove(0);
    for (i, sim) in sims.iter().enumerate() {
        let (tag, db) = (format!("tm{i}"), place.text(&format!("state-{i}.db")));
        both.inputs.push(input(sim, &place).set("tag", &tag).set("db", &db));
        let out = place.path(&tag);
        std::fs::create_dir(&out).unwrap();
        let output = template.clone().set("match", &tag).set("path", &out.display().to_string());
        both.outputs.push(output);
    }
    let host = Host::start(&place, &both, &[]);
    let names = ["trendmicro.0", "trendmicro.1"];
    let delivered = |seen: &Metrics, i: usize| seen.sum(names[i], "records_delivered_total");
    for (i, sim) in sims.iter().enumerate() {
        let total = sim.counts().visible as f64;
        let is_whole = |seen: &Metrics| {
            delivered(seen, i) == total && seen.sum(names[i], "interval_seconds") == 3.0
        };
        let seen = wait_metrics(&host, i, is_whole);
        seen.assert_whole(names[i], total);
        let other = names[1 - i];
        assert!(seen.0.keys().all(|series| !series.contains(other)), "{:#?}", seen.0);
    }
    assert_eq!(host.reload(), "done", "{}", host.log_tail());
    for (i, name) in names.iter().enumerate() {
        let is_answered = |seen: &Metrics| {
            STREAMS.iter().all(|stream| {
                seen.get(name, "last_success_timestamp_seconds", "stream", stream) > 0.0
                    && seen.get(name, "interval_seconds", "stream", stream) > 0.0
            })
        };
        // Everything was delivered before, so there is nothing new.
        wait_metrics(&host, i, is_answered).assert_whole(name, 0.0);
    }
    host.stop();
}

#[test]
fn a_host_without_the_functions_has_no_metrics_and_says_so_once() {
    at_once(vec!["none", "append"], |exports| {
        let (place, sim) = (Place::new(), simulate(email()));
        let config = config(&sim, &place).service("log_level", "debug");
        let host = Host::start(&place, &config, &["--exports", exports]);
        host.wait_log("so there are none");
        wait_delivered(&host, &sim, &place.out());
        assert_eq!(host.status()["inputs"][0]["metrics"], "");
        let log = host.stop().log;
        assert_eq!(log.matches("so there are none").count(), 1, "{log}");
    });
}

#[test]
fn a_refused_stream_is_shown_and_told_and_the_others_go_on() {
    let (place, sim) = (Place::new(), simulate(email()));
    fault(&sim, "/api/v1/log/policyeventlog", When::Always, 403);
    let host = Host::start(&place, &config(&sim, &place), &[]);
    let line = host.wait_log("] refused (");
    assert!(line.contains("(1 of 3 streams: policy_events): HTTP 403: "), "{line}");
    let refused = |seen: &Metrics| seen.get("trendmicro.0", "refused", "stream", "policy_events");
    let seen = wait_metrics(&host, 0, |seen| {
        refused(seen) == 1.0 && seen.get("trendmicro.0", "requests_total", "code", "403") >= 2.0
    });
    let of = |name, stream| seen.get("trendmicro.0", name, "stream", stream);
    assert!(of("failures", "policy_events") >= 2.0);
    assert_eq!(of("last_success_timestamp_seconds", "policy_events"), 0.0);
    assert_eq!(of("refused", "accepted_traffic"), 0.0);
    sim.faults().clear();
    wait_metrics(&host, 0, |seen| refused(seen) == 0.0);
    wait_delivered(&host, &sim, &place.out());
    host.stop();
}

#[test]
fn an_empty_vendor_a_failing_one_and_a_pause_are_told_apart() {
    let nothing =
        EmailConfig { accepted_backlog: 0, blocked_backlog: 0, policy_backlog: 0, ..email() };
    let (place, sim) = (Place::new(), simulate(nothing));
    let host = Host::start(&place, &config(&sim, &place), &[]);
    let line = host.wait_log("working; last answer");
    assert!(line.contains("[ info]") && line.contains("nothing new so far"), "{line}");
    fault(&sim, "/api/v1/log/", When::Always, 503);
    let line = host.wait_log("] waiting after failures (");
    assert!(line.contains("HTTP 503") && line.contains("in a row, again in"), "{line}");
    host.command("pause 0");
    let line = host.wait_log("] paused by the host; ");
    assert!(line.contains("waiting for the host"), "{line}");
    host.command("resume 0");
    sim.faults().clear();
    host.stop();
}
