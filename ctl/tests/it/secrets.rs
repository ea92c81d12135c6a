//! Credentials that are looked for in everything the program says, with a vendor that repeats them and
//! files that hold them where they do not belong.

use std::fs;

use in_trendmicro::checkpoint::{Change, Sqlite, Store};
use in_trendmicro::clock::Time;
use trendmicro_sim::{Fault, FaultKind, Sim, When};

use crate::support::{GOOD, Place, ctl, fill, said, simulate};

/// The keys of the configuration; the simulator knows them.
const KEYS: [&str; 4] = [
    "sim-email-key",
    "0123456789abcdef0123456789abcdef01234567",
    "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9",
    "1:sim-workload-key=",
];
const PROXY_PASSWORD: &str = "canary-77aa-of-the-proxy";
/// What Basic authentication makes of user and key, and of the proxy's user and password.
const ENCODED: [&str; 2] =
    ["YWRtaW5AZXhhbXBsZS5jb206c2ltLWVtYWlsLWtleQ", "dXNlcjpjYW5hcnktNzdhYS1vZi10aGUtcHJveHk"];
/// How every signed token begins: `{"alg"` or `{"typ"`.
const TOKENS: [&str; 2] = ["eyJhbGci", "eyJ0eXAi"];

/// Every form in which a credential goes over the line.
fn secrets() -> Vec<String> {
    let all = KEYS.iter().chain(&ENCODED).chain(&TOKENS).chain([&PROXY_PASSWORD]);
    all.map(|text| (*text).to_owned()).collect()
}

/// Each command that writes JSON, as it is and for programs; the text of all of it.
fn say_all(config: &str, db: &str, place: &Place) -> String {
    let html = place.path("page.html").display().to_string();
    let span = ["-c", config, "--since", "6h"];
    let with = |command: &[&'static str], rest: &[&str]| -> Vec<String> {
        command.iter().copied().chain(rest.iter().copied()).map(str::to_owned).collect()
    };
    let stream = ["--db", db, "--stream", "mail"];
    let commands = [
        with(&["test"], &["-c", config]),
        with(&["test", "--offline", "--strict"], &["-c", config]),
        with(&["status"], &["-c", config]),
        with(&["state", "show"], &["--db", db]),
        with(&["state", "set", "--yes", "--to", "1h"], &stream),
        with(&["replay", "--print"], &span),
        with(&["replay", "--dry-run"], &span),
        with(&["replay", "--yes"], &span),
        with(&["reconcile", "--html", &*html.leak()], &span),
        with(&["state", "reset", "--yes"], &stream),
    ];
    let mut text = String::new();
    for command in commands {
        for json in [None, Some("--json")] {
            let arguments: Vec<&str> = command.iter().map(String::as_str).chain(json).collect();
            text += &said(&ctl(&arguments)).0;
        }
    }
    text + &fs::read_to_string(place.path("page.html")).unwrap_or_default()
}

/// A state file with a stream that the commands find.
fn save(place: &Place) -> String {
    let path = place.path("state.db");
    let stream = "mail/email_security/127.0.0.1/admin@example.com/accepted_traffic";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let cursor = Time::from_timestamp(now.as_secs() as i64, 0);
    let change = Change { stream: stream.to_owned(), cursor, ..Change::default() };
    Sqlite::open(&path, "NORMAL").unwrap().commit(&[change]).unwrap();
    path.display().to_string()
}

#[track_caller]
fn assert_none(what: &str, text: &str) {
    for secret in secrets() {
        let line = text.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{what}: a secret is shown");
    }
}

/// Has every vendor answer so; what stands for the credential is what that vendor was sent.
fn strike(sim: &Sim, kind: impl Fn(&str) -> FaultKind) {
    sim.faults().clear();
    let routes = ["/api/v1/log", "/v1/siem", "/WebApp", "/api/computers"];
    for (route, key) in routes.into_iter().zip(KEYS) {
        let sent =
            if key == KEYS[0] { format!("{key} and {}", ENCODED[0]) } else { key.to_owned() };
        sim.faults().add(Fault { route: route.to_owned(), when: When::Always, kind: kind(&sent) });
    }
}

#[test]
fn no_command_shows_a_credential_whatever_the_vendor_says() {
    let sim = simulate();
    for code in [200, 401, 403, 500] {
        let place = Place::new();
        strike(&sim, |sent| {
            let said = format!("{{\"message\": \"{sent}\", \"result_description\": \"{sent}\"}}");
            FaultKind::Status { code, retry_after: None, body: Some(said) }
        });
        let config = place.write("fluent-bit.yaml", &fill(GOOD, sim.url(), &place));
        let text = say_all(config.to_str().unwrap(), &save(&place), &place);
        assert_none(&format!("HTTP {code}"), &text);
        assert!(code == 200 || text.contains("[redacted]"), "{code}: nothing repeated\n{text}");
    }
}

/// Keys in the wrong place, and a proxy with a password.
#[test]
fn no_command_shows_a_credential_that_is_written_wrongly() {
    let sim = simulate();
    let good = |place: &Place| fill(GOOD, sim.url(), place);
    let proxy = format!("proxy: 'http://user:{PROXY_PASSWORD}@127.0.0.1:1'\n      tag: tm");
    let with = |old: &'static str, new: String| move |text: String| text.replace(old, &new);
    type Change = Box<dyn Fn(String) -> String>;
    let changes: Vec<(&str, Change)> = vec![
        ("a proxy's password", Box::new(with("tag: tm\n", format!("{proxy}\n")))),
        ("a key in a list", Box::new(with("api_key: sim", "api_key:\n        - sim".to_owned()))),
        ("a key's typing error", Box::new(with("mail.api_key:", "mail.api_kye:".to_owned()))),
        ("a key without its colon", Box::new(with("mail.api_key: ", "mail.api_key:".to_owned()))),
        ("a key for a user", Box::new(with("mail.api_key:", "mail.api_key_file:".to_owned()))),
    ];
    for (what, change) in changes {
        let place = Place::new();
        let config = place.write("fluent-bit.yaml", &change(good(&place)));
        let text = say_all(config.to_str().unwrap(), &save(&place), &place);
        assert_none(what, &text);
    }
    let place = Place::new();
    let classic = crate::support::classic(&good(&place)).replace("api_key sim", "api_key=sim");
    let config = place.write("fluent-bit.conf", &classic);
    let text = say_all(config.to_str().unwrap(), &save(&place), &place);
    assert!(text.contains("has no value"), "{text}");
    assert_none("a key behind an equals sign", &text);
}
