//! The configurations of `examples/fluent-bit`, run by a real Fluent Bit, each against a receiver that
//! checks what came.
//!
//! `FLUENT_BIT` names the host. An output that it was built without is said aloud and not tested.

mod receiver;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use trendmicro_sim::{ApexConfig, EmailConfig, Sim};

use crate::support::{KEY, Place, email, fluent_bit, simulate, wait_long};
use receiver::{Event, Received};

/// S3 uploads by the clock.
const PATIENCE: Duration = Duration::from_secs(180);
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fluent-bit");

fn say(text: &str) {
    // Not captured by the test runner, unlike what eprintln! says.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// The real host, if there is one and it has the output.
fn host_with(output: &str) -> Option<PathBuf> {
    let Some(path) = fluent_bit() else {
        say(&format!("FLUENT_BIT is not set: the examples for {output} were not tested"));
        return None;
    };
    let help = Command::new(&path).arg("--help").output().expect("FLUENT_BIT runs").stdout;
    let help = String::from_utf8_lossy(&help).into_owned();
    let outputs = help.split_once("Outputs").expect("a list of outputs").1;
    let has = outputs.lines().any(|line| line.split_whitespace().next() == Some(output));
    if !has {
        say(&format!("this Fluent Bit has no output {output}: NOT TESTED"));
    }
    has.then_some(path)
}

/// A running example. Dropping it kills it.
struct Running {
    child: Child,
    log: PathBuf,
    out: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(host: &Path, place: &Place, name: &str, text: &str) -> Self {
        let (config, log, out) = (place.path(name), place.path("log"), place.path("stdout"));
        fs::write(&config, text).unwrap();
        let plugin = std::env::current_exe().unwrap().with_file_name("libin_trendmicro.so");
        let plugin = std::env::var_os("IN_TRENDMICRO_SO").map_or(plugin, PathBuf::from);
        let child = Command::new(host)
            .args([Path::new("-e"), &plugin, Path::new("-c"), &config])
            .envs([
                ("TRENDMICRO_USERNAME", EmailConfig::default().username.as_str()),
                ("TRENDMICRO_API_KEY", KEY),
                ("CREDENTIALS_DIRECTORY", &place.text("")),
                ("SEARCH_USER", "user"),
                ("SEARCH_PASSWORD", "password"),
                ("SPLUNK_TOKEN", "token-of-the-tests"),
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ])
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .expect("the host starts");
        Self { child, log, out }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// An example, pointed at the simulator, the test's directory and the receiver.
fn example(name: &str, sim: &Sim, place: &Place, port: u16) -> String {
    let mut text = fs::read_to_string(Path::new(EXAMPLES).join(name)).expect(name);
    fs::create_dir_all(place.path("storage")).unwrap();
    let (dir, url) = (place.text(""), sim.url());
    for (from, to) in [
        ("/var/lib/fluent-bit", dir.as_str()),
        ("/var/log/trendmicro", &place.text("out")),
        ("/etc/fluent-bit", &dir),
        ("upload_timeout: 10m", "upload_timeout: 6s"),
        ("https://s3.example.com", &format!("http://127.0.0.1:{port}")),
        ("https://acme.manage.trendmicro.com", url),
    ] {
        text = text.replace(from, to);
    }
    let line = |line: &str| {
        let words: Vec<&str> = line.split([':', ' ']).filter(|word| !word.is_empty()).collect();
        let (indent, is_yaml) = (line.len() - line.trim_start().len(), line.contains(": "));
        let set = |key: &str, value: &str| {
            let mark = if is_yaml { ": " } else { " " };
            format!("{}{key}{mark}{value}", " ".repeat(indent))
        };
        match words.as_slice() {
            ["host", _] => set("host", "127.0.0.1"),
            ["port", _] => set("port", &port.to_string()),
            ["tls", "on"] => set("tls", "off"),
            [key, _] if key.rsplit('.').next() == Some("region") && !text.contains("name: s3") => {
                set(&key.replace("region", "base_url"), url)
            }
            _ => line.to_owned(),
        }
    };
    let mut text = text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n";
    if text.contains("name: s3") {
        text = text.replacen("      region: eu\n", &format!("      base_url: {url}\n"), 1);
    }
    text
}

/// The ids of everything that the simulator has, as the plugin gives them: as many as records.
fn assert_all_came(name: &str, sim: &Sim, events: &[Event]) {
    let ids: BTreeSet<&str> =
        events.iter().filter_map(|event| event.record["event_id"].as_str()).collect();
    assert_eq!(ids.len() as u64, sim.counts().visible, "{name}: every record, under its own id");
    assert_eq!(ids.len(), events.len(), "{name}: each once");
    for event in events {
        let source = event.record["msg_origin"]["source"].as_str().unwrap_or_default();
        assert!(event.record[source].is_object(), "{name}: {event:?}");
    }
}

/// Runs an example until the receiver has everything.
fn run_example(
    name: &str,
    output: &str,
    port: u16,
    received: &Received,
    check: fn(&Event) -> bool,
) {
    let Some(host) = host_with(output) else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let text = example(name, &sim, &place, port);
    let running = Running::start(&host, &place, name, &text);
    let want = sim.counts().visible as usize;
    let explain = || format!("{} of {want}\n{text}\n{}", received.all().len(), running.log());
    wait_long(name, PATIENCE, explain, || (received.all().len() >= want).then_some(()));
    let events = received.all();
    assert_all_came(name, &sim, &events);
    for event in &events {
        assert!(check(event), "{name}: {event:?}");
    }
    assert!(!running.log().contains(KEY), "{name}: a key in the log");
    say(&format!("{name}: {want} records came as they should"));
}

fn over_http(name: &str, output: &str, read: receiver::Read, check: fn(&Event) -> bool) {
    let received = Received::default();
    let port = receiver::http(read, &received);
    run_example(name, output, port, &received, check);
}

/// The store's key is the record's own id.
fn is_under_its_id(event: &Event) -> bool {
    event.key.as_deref() == event.record["event_id"].as_str() && event.about == "trendmicro"
}

#[test]
fn elasticsearch_stores_each_record_under_its_id() {
    for name in ["elasticsearch.yaml", "elasticsearch.conf"] {
        over_http(name, "es", receiver::bulk, is_under_its_id);
    }
}

#[test]
fn opensearch_stores_each_record_under_its_id() {
    over_http("opensearch.yaml", "opensearch", receiver::bulk, is_under_its_id);
}

#[test]
fn splunk_takes_events_with_their_sourcetype() {
    for name in ["splunk.yaml", "splunk.conf"] {
        over_http(name, "splunk", receiver::splunk, |event| event.about == "trendmicro");
    }
}

#[test]
fn loki_labels_by_content_type() {
    over_http("loki.yaml", "loki", receiver::loki, |event| {
        event.about.starts_with("\"trendmicro\" \"trendmicro_email_security_")
    });
}

#[test]
fn s3_gets_objects_by_tag_and_time() {
    over_http("s3.yaml", "s3", receiver::s3, |event| {
        event.about.contains("/trendmicro/trendmicro.email_security.")
    });
}

#[test]
fn forward_sends_plain_entries_and_waits_for_acknowledgements() {
    for name in ["forward-to-vector.yaml", "forward-to-vector.conf"] {
        let received = Received::default();
        let port = receiver::forward(&received);
        run_example(name, "forward", port, &received, |event| {
            event.about.starts_with("trendmicro.email_security.")
        });
    }
}

#[test]
fn files_hold_a_content_type_each() {
    let Some(host) = host_with("file") else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let text = example("file.yaml", &sim, &place, 0);
    let running = Running::start(&host, &place, "file.yaml", &text);
    let want = sim.counts().visible as usize;
    let lines = |name: &str| {
        let path = place.path("out").join(format!("trendmicro.email_security.{name}"));
        fs::read_to_string(path).unwrap_or_default().lines().count()
    };
    let sum = || lines("accepted_traffic") + lines("blocked_traffic") + lines("policy_events");
    wait_long("files", PATIENCE, || running.log(), || (sum() >= want).then_some(()));
    assert_eq!((lines("blocked_traffic"), sum()), (email().blocked_backlog, want));
}

/// The events on standard output.
fn printed(running: &Running) -> Vec<Event> {
    let text = fs::read_to_string(&running.out).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = |record| Event { key: None, about: String::new(), record };
    events.filter(|value| value["event_id"].is_string()).map(event).collect()
}

fn secret_file(place: &Place, name: &str, text: &str) {
    let path = place.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn secrets_come_from_the_environment_and_from_files() {
    let Some(host) = host_with("stdout") else { return };
    let place = Place::new();
    let sim = Sim::builder().email(email()).apex(ApexConfig::default()).start().unwrap();
    secret_file(&place, "apex.key", &ApexConfig::default().api_key);
    let text = example("secrets.yaml", &sim, &place, 0);
    let running = Running::start(&host, &place, "secrets.yaml", &text);
    let want = sim.counts().visible as usize;
    let explain = || running.log();
    wait_long("secrets", PATIENCE, explain, || (printed(&running).len() >= want).then_some(()));
    assert_all_came("secrets.yaml", &sim, &printed(&running));
    for secret in [KEY, &ApexConfig::default().api_key] {
        assert!(!running.log().contains(secret) && !text.contains(secret));
    }
}

#[test]
fn several_tenants_are_told_apart() {
    let Some(host) = host_with("stdout") else { return };
    let place = Place::new();
    let sims = ["eu", "us"].map(|region| {
        let username = format!("{region}-admin@example.com");
        simulate(EmailConfig { username, ..email() })
    });
    for region in ["eu", "us"] {
        secret_file(&place, &format!("mail-{region}.key"), KEY);
    }
    let text = example("two-regions.yaml", &sims[0], &place, 0);
    let second = format!("mail_us.base_url: {}", sims[1].url());
    let text = text.replace(&format!("mail_us.base_url: {}", sims[0].url()), &second);
    let running = Running::start(&host, &place, "two-regions.yaml", &text);
    let want: u64 = sims.iter().map(|sim| sim.counts().visible).sum();
    let explain = || running.log();
    wait_long("tenants", PATIENCE, explain, || {
        (printed(&running).len() as u64 >= want).then_some(())
    });
    for (sim, tenant) in sims.iter().zip(["example-eu", "example-us"]) {
        let events: Vec<Event> = printed(&running)
            .into_iter()
            .filter(|event| event.record["tenant_name"] == tenant)
            .collect();
        assert_eq!(events.len() as u64, sim.counts().visible, "{tenant}");
    }
}

/// The client library's own mock of a cluster takes the messages; what is in them is not looked at.
#[test]
fn kafka_takes_every_message() {
    let Some(host) = host_with("kafka") else { return };
    let (place, sim) = (Place::new(), simulate(email()));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let metrics = format!("service:\n  http_server: on\n  http_port: {port}\n");
    let text = example("kafka.yaml", &sim, &place, 0)
        .replace("service:\n", &metrics)
        .replace("kafka-1.example.com:9092,kafka-2.example.com:9092", "127.0.0.1:1")
        .replace(
            "      rdkafka.acks",
            "      rdkafka.test.mock.num.brokers: 3\n      rdkafka.acks",
        );
    let running = Running::start(&host, &place, "kafka.yaml", &text);
    let want = sim.counts().visible;
    let explain = || format!("{}\n{}", processed(port), running.log());
    wait_long("kafka", PATIENCE, explain, || (processed(port) >= want).then_some(()));
    assert_eq!(processed(port), want, "{}", running.log());
}

/// How many records the host says its Kafka output has delivered.
fn processed(port: u16) -> u64 {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let request =
            "GET /api/v1/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        // The host may leave the connection open.
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..length]);
            if answer.ends_with(b"}") {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = &body[body.find('{').unwrap_or(0)..];
    let metrics: Value = serde_json::from_str(body).unwrap_or_default();
    metrics["output"]["kafka.0"]["proc_records"].as_u64().unwrap_or(0)
}
