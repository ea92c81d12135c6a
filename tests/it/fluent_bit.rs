//! The same promises on a real Fluent Bit, which the environment names as `FLUENT_BIT`.
//!
//! Its clock ticks once a second, so these tests take minutes. `IN_TRENDMICRO_SO` names another build
//! of the plugin than the one beside the tests.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use trendmicro_sim::{EmailConfig, Sim};

use crate::metrics::Metrics;
use crate::support::{
    Books, Config, Form, Host, Place, Receiver, assert_asked_since, config, email, fluent_bit,
    input, send_signal, simulate, wait, wait_delivered, wait_delivered_long,
};

const MINUTES: Duration = Duration::from_secs(240);
/// What the plugin logs once it runs.
const STARTED: &str = "connectors; records are";

/// The version of the real host; `None` if there is none, which is said aloud.
fn version() -> Option<[u32; 3]> {
    let Some(path) = fluent_bit() else {
        // Not captured by the test runner, unlike what eprintln! says.
        let _ =
            std::io::stderr().write_all(b"FLUENT_BIT is not set: the real host was not tested\n");
        return None;
    };
    let output = Command::new(path).arg("--version").output().expect("FLUENT_BIT runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_once(" v").and_then(|(_, rest)| rest.split_whitespace().next());
    let mut parts = number.unwrap_or_default().split('.').map_while(|part| part.parse().ok());
    Some(std::array::from_fn(|_| parts.next().expect("a version of three numbers")))
}

/// Whether the host forgets what is in memory when it is stopped.
fn is_forgetful(version: [u32; 3]) -> bool {
    version < [4, 0, 3]
}

fn start(place: &Place, config: &Config) -> Host {
    let host = Host::start_real(place, "host.conf", &config.classic());
    host.expect("the tests have looked for the real host")
}

fn start_yaml(place: &Place, config: &Config) -> Host {
    let host = Host::start_real(place, "host.yaml", &config.yaml());
    host.expect("the tests have looked for the real host")
}

fn real_config(sim: &Sim, place: &Place) -> Config {
    config(sim, place).service("flush", "1").file_per_tag()
}

fn durable(config: Config, place: &Place) -> Config {
    config
        .service("storage.path", &place.text("storage"))
        .service("storage.backlog.mem_limit", "50M")
        .with(&[("storage.type", "filesystem")])
}

/// Memory where the host keeps it until a stop is over, else files.
fn kept(config: Config, place: &Place, version: [u32; 3]) -> Config {
    if is_forgetful(version) { durable(config, place) } else { config }
}

fn books(sim: &Sim, out: &Path) -> Books {
    Books::of(sim, out, Form::Envelope)
}

/// More than a few ticks can take.
fn busy() -> Sim {
    simulate(EmailConfig {
        accepted_backlog: 20_000,
        blocked_backlog: 5000,
        policy_backlog: 5000,
        live_per_second: 20.0,
        page_limit_max: 200,
        ..email()
    })
}

#[test]
fn a_hundred_thousand_records_arrive_once() {
    let Some(version) = version() else { return };
    let sim = simulate(EmailConfig {
        accepted_backlog: 60_000,
        blocked_backlog: 20_000,
        policy_backlog: 20_000,
        backlog_span: Duration::from_secs(20 * 3600),
        live_per_second: 20.0,
        page_limit_max: 500,
        ..email()
    });
    let place = Place::new();
    let tags = [
        ("tag_format", "tm.{connector}.{content_type}"),
        ("lookback", "24h"),
        // What is asked for after the second start is to be the overlap alone.
        ("verify", "off"),
    ];
    let config = kept(real_config(&sim, &place), &place, version).with(&tags);
    let begun = Instant::now();
    let host = start_yaml(&place, &config);
    let mut lines = 0;
    let enough = || {
        lines = count_lines(&place.out());
        (lines >= 100_000).then_some(())
    };
    crate::support::wait_long("100,000 records", MINUTES, || host.log_tail(), enough);
    let took = begun.elapsed();
    host.stop_real();
    let asked = sim.requests().len();
    // The same state, the other spelling: only what is new, and the overlap before it.
    let host = start(&place, &config);
    sleep(Duration::from_secs(3));
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop_real();
    assert_asked_since(&sim, asked, 7);
    let found = books(&sim, &place.out());
    assert_after_stops(&found, version, "100,000 records");
    let mut tags: Vec<_> = found.by_tag.keys().cloned().collect();
    tags.sort();
    let types = ["accepted_traffic", "blocked_traffic", "policy_events"];
    assert_eq!(tags, types.map(|name| format!("tm.email_security.{name}")));
    eprintln!("{version:?}: 100,000 records in {took:?}");
}

fn count_lines(out: &Path) -> usize {
    let files = fs::read_dir(out).expect("the output directory").flatten();
    let lines = |path: PathBuf| {
        let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(path).ok()?);
        let mut count = 0;
        while let Ok(bytes) = reader.fill_buf() {
            let length = bytes.len();
            if length == 0 {
                break;
            }
            count += bytes.iter().filter(|byte| **byte == b'\n').count();
            reader.consume(length);
        }
        Some(count)
    };
    files.filter_map(|entry| lines(entry.path())).sum()
}

#[test]
fn kill_9_loses_nothing_with_filesystem_storage() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), busy());
    let config = durable(real_config(&sim, &place), &place);
    let mut random = fastrand::Rng::with_seed(11);
    let kills = 6;
    for _ in 0..kills {
        let host = start(&place, &config);
        host.wait_log(STARTED);
        sleep(Duration::from_millis(random.u64(500..3500)));
        host.kill();
    }
    sim.stop_live();
    let host = start(&place, &config);
    wait_delivered_long(&host, &sim, &place.out(), MINUTES);
    host.stop_real();
    let found = books(&sim, &place.out());
    let is_whole = found.missing.is_empty() && found.unexpected.is_empty();
    assert!(is_whole && found.confused.is_empty(), "{}", found.describe());
    assert!(found.torn <= kills, "{}", found.describe());
    // What the host wrote but did not yet note comes again as well, whatever the plugin does.
    let twice = found.duplicates.len();
    eprintln!("{version:?}: {kills} times kill -9: {} of {} came twice", twice, found.delivered);
}

#[test]
fn sigterm_in_flight_loses_and_doubles_nothing() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), busy());
    let config = kept(real_config(&sim, &place), &place, version);
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..5 {
        let host = start(&place, &config);
        host.wait_log(STARTED);
        sleep(Duration::from_millis(random.u64(500..3500)));
        host.stop_real();
    }
    sim.stop_live();
    let host = start(&place, &config);
    wait_delivered_long(&host, &sim, &place.out(), MINUTES);
    host.stop_real();
    assert_after_stops(&books(&sim, &place.out()), version, "SIGTERM");
}

/// Everything arrived, and once; a host that may drop what it counted at a stop is handed it again.
fn assert_after_stops(found: &Books, version: [u32; 3], what: &str) {
    let what = format!("{version:?}, {what}");
    if is_forgetful(version) {
        found.assert_complete(&what);
        eprintln!("{what}: {} came twice", found.duplicates.len());
    } else {
        found.assert_exact(&what);
    }
}

/// Without files an old host drops what it was handed just before a stop; the plugin says at the
/// start that this is fetched again.
#[test]
fn sigterm_of_a_forgetful_host_loses_nothing() {
    let Some(version) = version().filter(|&version| is_forgetful(version)) else { return };
    let (place, sim) = (Place::new(), busy());
    // A small queue, so that every tick up to the last has something to hand over.
    let config = real_config(&sim, &place).with(&[("queue_limit", "1M")]);
    for stop in 0..8 {
        let host = start(&place, &config);
        host.wait_log(STARTED);
        sleep(Duration::from_millis(1500));
        wait_after_tick(Duration::from_millis(40 * stop));
        host.stop_real();
    }
    sim.stop_live();
    let host = start(&place, &config);
    wait_delivered_long(&host, &sim, &place.out(), MINUTES);
    host.stop_real();
    let found = books(&sim, &place.out());
    found.assert_complete(&format!("{version:?}, SIGTERM with memory storage"));
    eprintln!("{version:?}: 8 times SIGTERM: {} came twice", found.duplicates.len());
}

/// Waits until so long after a tick of the host, whose timers expire on whole seconds since boot.
fn wait_after_tick(offset: Duration) {
    let text = fs::read_to_string("/proc/uptime").expect("the time since boot");
    let uptime = text.split(' ').next().and_then(|secs| secs.parse::<f64>().ok());
    let since_tick = Duration::from_secs_f64(uptime.expect("seconds").fract());
    sleep(Duration::from_secs(1) - since_tick + offset);
}

#[test]
fn ten_reloads_and_a_broken_one_lose_and_double_nothing() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), busy());
    let config = kept(real_config(&sim, &place), &place, version);
    let host = start(&place, &config);
    host.wait_log(STARTED);
    let mut random = fastrand::Rng::with_seed(14);
    for reload in 0..10 {
        sleep(Duration::from_millis(random.u64(200..1800)));
        host.signal("HUP");
        host.wait_log_times(STARTED, reload + 2);
    }
    host.rewrite_config("[INPUT\n    name trendmicro\n");
    host.signal("HUP");
    host.wait_log("[error]");
    sim.stop_live();
    wait_delivered_long(&host, &sim, &place.out(), MINUTES);
    host.stop_real();
    assert_after_stops(&books(&sim, &place.out()), version, "eleven reloads");
}

#[test]
fn two_stanzas_survive_a_receiver_that_refuses() {
    let Some(version) = version() else { return };
    let place = Place::new();
    let sims = [6000, 5000].map(|records| {
        simulate(EmailConfig { accepted_backlog: records, live_per_second: 10.0, ..email() })
    });
    let outs = [place.path("out-0"), place.path("out-1")];
    let mut config =
        real_config(&sims[0], &place).service("scheduler.base", "1").service("scheduler.cap", "2");
    let receiver = Receiver::start(outs.to_vec());
    let output = config.outputs.remove(0).without("path").set("name", "http");
    config.inputs.clear();
    for (i, sim) in sims.iter().enumerate() {
        fs::create_dir(&outs[i]).expect("an output directory");
        let (tag, state) = (format!("tm{i}"), place.text(&format!("state-{i}.db")));
        let stanza = input(sim, &place).set("tag", &tag).set("db", &state);
        config.inputs.push(stanza.set("mem_buf_limit", "1M"));
        let output = output.clone().set("match", &tag).set("uri", &format!("/{i}"));
        let output = output.set("host", "127.0.0.1").set("port", &receiver.port().to_string());
        let output = output.set("format", "json_lines").set("retry_limit", "no_limits");
        config.outputs.push(output);
    }
    let host = start_yaml(&place, &config);
    let is_paused = || (host.log().matches("overlimit").count() >= 2).then_some(());
    wait("both stanzas to be paused", || host.log_tail(), is_paused);
    // Long enough for a plugin that does not heed the pause to hand over more.
    sleep(Duration::from_secs(5));
    receiver.open(true);
    sims.iter().for_each(Sim::stop_live);
    for (sim, out) in sims.iter().zip(&outs) {
        wait_delivered_long(&host, sim, out, MINUTES);
    }
    host.stop_real();
    for (sim, out) in sims.iter().zip(&outs) {
        books(sim, out).assert_exact(&format!("{version:?}, two stanzas"));
    }
}

#[test]
fn a_wrong_property_is_named() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let config = real_config(&sim, &place).with(&[("interval", "soon")]);
    let host = start(&place, &config);
    let line = host.wait_log("interval = \"soon\"");
    assert!(line.contains("[error]") && line.contains("legal: "), "{line}");
    // Hosts before 4 do not end when an input fails; they hang.
    if version >= [4, 0, 0] {
        let ending = host.wait_end();
        assert_eq!(ending.code, Some(255), "{}", ending.log);
    }
}

#[test]
fn threaded_off_works() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let config = kept(real_config(&sim, &place), &place, version).with(&[("threaded", "off")]);
    let host = start(&place, &config);
    host.wait_log("threaded is off");
    wait_delivered(&host, &sim, &place.out());
    host.stop_real();
    books(&sim, &place.out()).assert_exact(&format!("{version:?}, threaded off"));
}

#[test]
fn a_daemon_collects() {
    let Some(version) = version() else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let log = place.text("daemon.log");
    let config = real_config(&sim, &place).service("daemon", "on").service("log_file", &log);
    let parent = start(&place, &config).wait_end();
    assert_eq!(parent.code, Some(0), "{}", parent.log);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let pid = wait("the daemon", said, || find_process(&place.text("host.conf")));
    let arrived = || books(&sim, &place.out()).missing.is_empty().then_some(());
    wait("a daemon's records", said, arrived);
    send_signal(pid, "TERM");
    let ended = || (!Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(());
    wait("the daemon to end", said, ended);
    assert!(said().contains(STARTED), "the plugin's lines are in the log file\n{}", said());
    crate::support::assert_no_secrets(&said());
    books(&sim, &place.out()).assert_exact(&format!("{version:?}, daemon"));
}

/// The process whose command line names `argument`.
fn find_process(argument: &str) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

#[test]
fn metrics_are_in_the_hosts_own_endpoint() {
    let Some(version) = version() else { return };
    let place = Place::new();
    let sims = [simulate(email()), simulate(EmailConfig { accepted_backlog: 90, ..email() })];
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("a free port").port();
    let mut config = real_config(&sims[0], &place)
        .service("http_server", "on")
        .service("http_listen", "127.0.0.1")
        .service("http_port", &port.to_string());
    config.inputs.clear();
    for (i, sim) in sims.iter().enumerate() {
        let (tag, db) = (format!("tm{i}"), place.text(&format!("state-{i}.db")));
        config.inputs.push(input(sim, &place).set("tag", &tag).set("db", &db));
    }
    let host = start_yaml(&place, &kept(config, &place, version));
    let names = ["trendmicro.0", "trendmicro.1"];
    let scrape = || get(port, "/api/v2/metrics/prometheus").ok();
    let shows = |delivered: [f64; 2]| {
        let explain = || format!("{}\n{}", scrape().unwrap_or_default(), host.log_tail());
        let seen = wait("the metrics", explain, || {
            let seen =
                scrape().filter(|text| text.contains(names[1])).map(|text| Metrics::of(&text))?;
            let is_shown = |(name, expected): (&&str, f64)| {
                let of = |metric| seen.sum(name, metric);
                of("records_delivered_total") >= expected && of("interval_seconds") == 3.0
            };
            names.iter().zip(delivered).all(is_shown).then_some(seen)
        });
        names.iter().zip(delivered).for_each(|(name, expected)| seen.assert_whole(name, expected));
    };
    shows(sims.each_ref().map(|sim| sim.counts().visible as f64));
    host.signal("HUP");
    host.wait_log_times(STARTED, names.len() * 2);
    // Everything was delivered before, so the new instances find nothing new.
    shows([0.0; 2]);
    host.stop_real();
}

/// The body of what a loopback server answers, which may leave the connection open.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut piece)?;
        answer.extend(&piece[..length]);
        if let Some(body) = whole_body(&String::from_utf8_lossy(&answer)) {
            return Ok(body);
        }
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The body of an answer of a stated length or in chunks; `None` until it is whole.
fn whole_body(answer: &str) -> Option<String> {
    let (head, mut rest) = answer.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    if let Some(length) = length {
        return rest.get(..length.trim().parse().ok()?).map(str::to_owned);
    }
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let chunk = after.get(..usize::from_str_radix(length.trim(), 16).ok()?)?;
        if chunk.is_empty() {
            return Some(body);
        }
        body.push_str(chunk);
        rest = after[chunk.len()..].strip_prefix("\r\n")?;
    }
}
