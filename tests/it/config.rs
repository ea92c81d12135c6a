//! What a person writes, and what they read when it is wrong.
//!
//! The wrong configurations and their errors stand in `tests/fixtures/config/wrong.txt`;
//! `UPDATE_EXPECT=1 cargo test --test it config` writes the errors anew.

#![allow(clippy::unwrap_used)] // Clippy lets only the test functions themselves unwrap.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use in_trendmicro::config::options::{MISTAKEN, OPTIONS, Opt, Scope, find, misspellings};
use in_trendmicro::config::{Config, Format, HandoverMode, Proxy};
use in_trendmicro::connector::PRODUCTS;
use in_trendmicro::error::{Error, ErrorKind};
use in_trendmicro::secret::Credential;
use proptest::prelude::*;
use tempfile::TempDir;

/// A secret that no error may show.
const CANARY: &str = "cAnArY-5ecret";
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config/wrong.txt");
/// Properties that name a file; their examples are files of another machine.
const FILES: &[&str] = &["api_key_file", "db", "tls_ca_file", "tls_crt_file", "tls_key_file"];

/// A stanza as the host sees it: the first of a repeated key counts, case does not, and what is
/// empty is absent.
#[derive(Clone, Debug)]
struct Stanza(Vec<(String, String)>);

impl Stanza {
    fn of(properties: &[(&str, &str)]) -> Self {
        Self(properties.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The least that is right.
    fn right() -> Self {
        Self::of(&[
            ("connector", "email_security"),
            ("username", "admin@example.com"),
            ("api_key", CANARY),
        ])
    }

    /// With a property, which goes before any other of its name.
    fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(0, (key.to_owned(), value.to_owned()));
        self
    }

    fn get(&self, key: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        (!value.is_empty()).then(|| value.clone())
    }

    fn read(&self) -> Result<Config, Error> {
        Config::read(&|key| self.get(key))
    }

    fn ok(&self) -> Config {
        self.read().unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// A directory with a file of every kind.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("key", CANARY, 0o600);
    write("open-key", CANARY, 0o644);
    write("empty-key", "\n", 0o600);
    write("big-key", &CANARY.repeat(6_000), 0o600);
    write("cert.pem", CANARY, 0o644);
    dir
}

fn in_dir(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// One case of the fixture.
struct Case {
    title: String,
    properties: Vec<(String, String)>,
    error: String,
}

/// Reads the fixture: its introduction, and its cases.
fn cases() -> (String, Vec<Case>) {
    let text = fs::read_to_string(FIXTURE).unwrap();
    let mut parts = text.split("\n== ");
    let introduction = parts.next().unwrap().trim_end().to_owned();
    let case = |part: &str| {
        let mut lines = part.lines();
        let title = lines.next().unwrap().to_owned();
        let (mut properties, mut error) = (Vec::new(), String::new());
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(text) = line.strip_prefix("=> ") {
                text.clone_into(&mut error);
            } else {
                let (key, value) = line.split_once(':').expect(line);
                properties.push((key.to_owned(), value.trim().to_owned()));
            }
        }
        Case { title, properties, error }
    };
    (introduction, parts.map(case).collect())
}

impl Case {
    fn stanza(&self, dir: &Path) -> Stanza {
        let fill = |value: &str| {
            value
                .replace("$DIR", &dir.display().to_string())
                .replace("CANARY", CANARY)
                .replace("\\n", "\n")
        };
        let add = |stanza: Stanza, (key, value): &(String, String)| stanza.with(key, &fill(value));
        self.properties.iter().rev().fold(Stanza::right(), add)
    }
}

#[test]
fn every_wrong_configuration_has_its_one_line() {
    let dir = files();
    let (mut updated, cases) = cases();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut differences = String::new();
    for case in &cases {
        let said = match case.stanza(dir.path()).read() {
            Ok(_) => "(nothing: this is taken as right)".to_owned(),
            Err(error) => error.to_string().replace(&dir.path().display().to_string(), "$DIR"),
        };
        if said != case.error {
            let Case { title, error, .. } = case;
            writeln!(differences, "{title}\n  expected {error}\n  and read {said}").unwrap();
        }
        write!(updated, "\n\n== {}\n", case.title).unwrap();
        for (key, value) in &case.properties {
            writeln!(updated, "{}", format!("{key}: {value}").trim_end()).unwrap();
        }
        write!(updated, "=> {said}").unwrap();
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(FIXTURE, updated + "\n").unwrap();
    } else {
        assert!(differences.is_empty(), "{differences}");
    }
}

/// What holds for the text of every error, whatever was wrong.
fn assert_readable(stanza: &Stanza, error: &Error) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    assert!(!text.contains(char::is_control), "one line: {text:?}");
    assert!(!text.contains(CANARY), "a secret is shown: {text}");
    assert!(text.contains("; legal: ") || text.contains("? legal: "), "{text}");
    let (_, advice) = text.rsplit_once("; write: ").expect(&text);
    // It begins with the property, as the person wrote it or would have to.
    let key = text.split([' ', ':']).next().unwrap();
    let known = |name: &str| find(name.rsplit_once('.').map_or(name, |(_, name)| name)).is_some();
    assert!(stanza.get(key).is_some() || known(key) || key == "db.sync", "{text}");
    if let Some((_, rest)) = text.split_once(" = \"") {
        let value = stanza.get(key).unwrap().replace(char::is_control, " ");
        let shown: String = value.trim().chars().take(200).collect();
        assert!(rest.starts_with(&format!("{shown}\": ")), "{text}");
    }
    // What is to be written names a property that exists.
    let written = advice.split(": ").next().unwrap();
    assert!(known(written) || find(written).is_some(), "{text}");
}

#[test]
fn every_error_names_the_property_the_value_what_is_legal_and_what_to_write() {
    let dir = files();
    for case in cases().1 {
        let stanza = case.stanza(dir.path());
        let error = stanza.read().err().unwrap_or_else(|| panic!("{} is right", case.title));
        assert_readable(&stanza, &error);
    }
}

/// Whoever does what the error says gets no further error about the same property.
#[test]
fn what_an_error_says_to_write_is_right() {
    let dir = files();
    for case in cases().1 {
        let stanza = case.stanza(dir.path());
        let Err(error) = stanza.read() else { panic!("{} is right", case.title) };
        let text = error.to_string();
        let wrong = text.split([' ', ':']).next().unwrap();
        let (_, advice) = text.rsplit_once("; write: ").unwrap();
        let (key, value) = advice.split_once(": ").expect(advice);
        if value.starts_with('/') {
            // A path of another machine.
            continue;
        }
        let corrected = stanza.with(wrong, "").with(key, value);
        if let Err(error) = corrected.read() {
            let text = error.to_string();
            assert!(!text.starts_with(key), "{}: advised {advice}, then {text}", case.title);
        }
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = Stanza::right().ok();
    assert_eq!(config.queue_bytes_max, 16_000_000);
    assert_eq!(config.handover, HandoverMode::Auto);
    assert!(config.db.is_none() && config.tag_format.is_none());
    let [connector] = config.connectors.as_slice() else { panic!("one connector") };
    assert_eq!(connector.name, "email_security");
    assert_eq!(connector.product.name, "email_security");
    assert_eq!(connector.base_url.as_str(), "https://api.tmes.trendmicro.com");
    assert_eq!(connector.username, "admin@example.com");
    assert_eq!(connector.api_key.get().unwrap().expose(), CANARY);
    assert!(connector.content_types.is_empty(), "all");
    let secs = [connector.interval, connector.lookback, connector.overlap, connector.timeout];
    assert_eq!(secs.map(|duration| duration.as_secs()), [60, 86_400, 300, 60]);
    assert_eq!(connector.format, Format::Envelope);
    assert_eq!((connector.tenant_name.as_deref(), connector.rate_limit), (None, None));
    assert!(connector.tls.verify && !connector.tls.only_1_3);
    assert!(connector.tls.ca_file.is_none() && connector.tls.client.is_none());
    assert!(matches!(connector.proxy, Proxy::Environment));
}

/// A property and a value for it, on top of what else it needs to be right.
fn stanza_with(dir: &Path, opt: &Opt, value: &str) -> Stanza {
    let value = match opt.name {
        "db" => in_dir(dir, "state.db"),
        "tls_ca_file" | "tls_crt_file" => in_dir(dir, "cert.pem"),
        name if FILES.contains(&name) => in_dir(dir, "key"),
        _ => value.to_owned(),
    };
    let stanza = match opt.name {
        "api_key_file" => Stanza::right().with("api_key", ""),
        "tls_crt_file" => Stanza::right().with("tls_key_file", &in_dir(dir, "key")),
        "tls_key_file" => Stanza::right().with("tls_crt_file", &in_dir(dir, "cert.pem")),
        _ => Stanza::right(),
    };
    stanza.with(opt.name, &value)
}

/// Everything of a configuration, as text.
fn describe(config: &Config) -> String {
    let mut text = format!(
        "{:?} {} {:?} {:?}\n",
        config.tag_format, config.queue_bytes_max, config.handover, config.db
    );
    for connector in &config.connectors {
        let proxy = match &connector.proxy {
            Proxy::Environment => "environment",
            Proxy::Off => "off",
            Proxy::Url(url) => url.expose(),
        };
        let key = match &*connector.api_key {
            Credential::Inline(_) => "inline",
            Credential::File(_) => "file",
        };
        writeln!(
            text,
            "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {proxy} {key} {}",
            connector.name,
            connector.product,
            connector.base_url,
            connector.username,
            connector.content_types,
            connector.interval,
            connector.lookback,
            connector.overlap,
            connector.tenant_name,
            connector.format,
            connector.rate_limit,
            connector.timeout,
            connector.tls,
            connector.api_key.get().unwrap().expose(),
        )
        .unwrap();
    }
    text
}

#[test]
fn every_default_can_be_written_and_changes_nothing() {
    let dir = files();
    let plain = describe(&Stanza::right().ok());
    for opt in OPTIONS.iter().filter(|opt| !opt.default.is_empty()) {
        let written = stanza_with(dir.path(), opt, opt.default).ok();
        assert_eq!(describe(&written), plain, "{}", opt.name);
    }
}

#[test]
fn every_example_is_right() {
    let dir = files();
    for opt in OPTIONS {
        stanza_with(dir.path(), opt, opt.example).ok();
        if opt.scope == Scope::Stanza {
            continue;
        }
        // Also behind a connector's name.
        let Stanza(properties) = stanza_with(dir.path(), opt, opt.example);
        let prefixed = properties.iter().map(|(key, value)| (format!("a.{key}"), value.clone()));
        Stanza(prefixed.collect()).with("connectors", "a").ok();
    }
}

#[test]
fn every_word_that_is_called_legal_is() {
    let dir = files();
    let stanza = |opt: &Opt, word: &str| stanza_with(dir.path(), opt, word).read();
    for name in
        ["connector", "region", "format", "handover", "db.sync", "tls_verify", "tls_min_version"]
    {
        let opt = find(name).unwrap();
        for word in opt.legal.split(", ") {
            assert!(stanza(opt, word).is_ok(), "{name}: {word}");
            assert!(stanza(opt, &word.to_uppercase()).is_ok(), "{name}: case does not matter");
            assert!(stanza(opt, &format!("{word}x")).is_err(), "{name}: {word}x");
        }
    }
    for (name, words) in [
        ("interval", ["1s", "30", "30s", "5m", "1h", "1d"].as_slice()),
        ("lookback", &["1s", "72h", "3d"]),
        ("overlap", &["0s", "0", "24h"]),
        ("timeout", &["1s", "10m", "600"]),
        ("queue_limit", &["1M", "16M", "16000000", "1G", "16MB"]),
        ("rate_limit", &["none", "1", "6000", "18/min"]),
        ("content_types", &["all", "policy_events", "blocked_traffic , policy_events"]),
        ("proxy", &["off", "http://p:1", "https://user:pass@p"]),
        ("tag_format", &["x", "{connector}", "{content_type}.{connector}"]),
        ("connectors", &["a", "a,b", "A-1 , b_2"]),
    ] {
        for word in words {
            assert!(stanza(find(name).unwrap(), word).is_ok(), "{name}: {word}");
        }
    }
}

#[test]
fn every_region_has_its_host() {
    for product in PRODUCTS {
        assert!(!product.regions.is_empty(), "{product:?}");
        for (region, host) in product.regions {
            let stanza = Stanza::right().with("connector", product.name).with("region", region);
            let config = stanza.ok();
            assert_eq!(config.connectors[0].base_url.as_str(), format!("https://{host}"));
            assert_eq!(config.connectors[0].base_url.authority(), *host);
        }
    }
}

#[test]
fn pasted_addresses_are_cut_to_the_root() {
    for (pasted, root) in [
        ("api.tmes.trendmicro.eu", "https://api.tmes.trendmicro.eu"),
        ("https://api.tmes.trendmicro.eu/", "https://api.tmes.trendmicro.eu"),
        ("  HTTPS://API.TMES.trendmicro.eu  ", "https://api.tmes.trendmicro.eu"),
        ("api.tmes.trendmicro.eu:443", "https://api.tmes.trendmicro.eu"),
        ("https://api.tmes.trendmicro.eu/api/v1/", "https://api.tmes.trendmicro.eu"),
        (
            "https://api.tmes.trendmicro.eu/api/v1/log/mailtrackinglog?type=accepted_traffic#x",
            "https://api.tmes.trendmicro.eu",
        ),
        ("https://gateway.example.com/trend//", "https://gateway.example.com/trend"),
        ("gateway.example.com/trend/api/v1/log", "https://gateway.example.com/trend"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://localhost:8080/x", "http://localhost:8080/x"),
    ] {
        let config = Stanza::right().with("base_url", pasted).ok();
        assert_eq!(config.connectors[0].base_url.as_str(), root, "{pasted}");
    }
}

#[test]
fn a_name_before_a_key_beats_the_default_for_all() {
    let dir = files();
    let config = Stanza::of(&[
        ("Connectors", "mail_eu, Mail-US"),
        ("CONNECTOR", "email_security"),
        ("username", "everybody"),
        ("mail-us.username", "americans"),
        ("api_key", CANARY),
        ("interval", "5m"),
        ("mail_eu.interval", "30"),
        ("mail_eu.interval", "7s"),
        ("mail_eu.region", "eu"),
        ("mail-us.content_types", "policy_events,blocked_traffic"),
        ("mail-us.tenant_name", "  Größe 大  "),
        ("format", "raw"),
        ("mail_eu.format", "   "),
        ("db", &in_dir(dir.path(), "state.db")),
    ])
    .ok();
    let [eu, us] = config.connectors.as_slice() else { panic!("two connectors") };
    assert_eq!((eu.name.as_str(), us.name.as_str()), ("mail_eu", "Mail-US"));
    assert_eq!((eu.username.as_str(), us.username.as_str()), ("everybody", "americans"));
    let secs = [eu.interval, us.interval].map(|interval| interval.as_secs());
    assert_eq!(secs, [30, 300], "of a repeated key the first is seen");
    assert_eq!(eu.base_url.as_str(), "https://api.tmes.trendmicro.eu");
    assert_eq!(us.base_url.as_str(), "https://api.tmes.trendmicro.com");
    assert_eq!(us.content_types, ["policy_events", "blocked_traffic"]);
    assert_eq!(us.tenant_name.as_deref(), Some("Größe 大"));
    assert_eq!((eu.format, us.format), (Format::Raw, Format::Raw), "only spaces are nothing");
    assert_eq!(config.db.as_ref().unwrap().path, dir.path().join("state.db"));
}

#[test]
fn connectors_gives_as_many_as_it_names_and_has_a_bound() {
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("c{i}")).collect();
        Stanza::right().with("connectors", &names.join(",")).read()
    };
    for count in [1, 2, 17, 256] {
        assert_eq!(names(count).unwrap().connectors.len(), count);
    }
    let error = names(257).err().unwrap().to_string();
    assert!(error.contains("more than 256 connectors"), "{error}");
}

#[test]
fn a_key_file_is_read_and_read_again() {
    let dir = files();
    let path = dir.path().join("key");
    let config =
        Stanza::right().with("api_key", "").with("api_key_file", &in_dir(dir.path(), "key")).ok();
    let key = || config.connectors[0].api_key.get().unwrap().expose().to_owned();
    assert_eq!(key(), CANARY);
    fs::write(&path, "  the next one \n").unwrap();
    assert_eq!(key(), "the next one");
}

/// Every key that somebody might set, with what it would be behind a name.
fn any_key() -> impl Strategy<Value = String> {
    let mut keys: Vec<String> = OPTIONS.iter().map(|opt| opt.name.to_owned()).collect();
    keys.extend(MISTAKEN.iter().map(|(key, _)| (*key).to_owned()));
    keys.extend(OPTIONS.iter().filter_map(|opt| misspellings(opt.name).nth(2)));
    keys.extend(keys.clone().into_iter().map(|key| format!("a.{key}")));
    prop::sample::select(keys)
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ".{0,60}",
        2 => "\\PC{0,300}",
        2 => "[0-9]{1,25}[smhdkMGB]{0,2}",
        2 => "(https?|ftp|postgres)?(://)?[a-z@:.\\[\\]0-9/%?#]{0,40}",
        1 => "[a-zA-Z,_ -]{0,80}",
        1 => "[\\x00-\\x1f\\x7f-\\x9f\\u{2028}a]{1,20}",
        1 => Just(CANARY.to_owned()),
    ]
}

/// What fails is in the message; no file is left behind.
fn attempts(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(attempts(2_000))]

    #[test]
    fn no_value_of_any_key_panics_or_makes_an_unreadable_error(
        properties in prop::collection::vec((any_key(), any_value()), 1..4),
        has_names in any::<bool>(),
    ) {
        let mut stanza = Stanza(properties);
        stanza.0.extend(Stanza::right().0);
        if has_names {
            stanza = stanza.with("connectors", "a, b");
        }
        if let Err(error) = stanza.read() {
            let text = error.to_string();
            prop_assert!(!text.contains(char::is_control), "{:?}", text);
            prop_assert!(text.contains("legal: ") && text.contains("; write: "), "{}", text);
            prop_assert!(text.chars().count() < 1_000, "{}", text);
        }
    }

    /// Whatever else is wrong, and wherever the key stands, no error shows it.
    #[test]
    fn no_error_shows_the_key(wrong in (any_key(), any_value()), in_file in any::<bool>()) {
        prop_assume!(!wrong.1.contains(CANARY));
        let dir = files();
        let mut stanza = Stanza(vec![wrong]);
        stanza.0.extend(Stanza::right().0);
        if in_file {
            stanza.0.retain(|(key, _)| key != "api_key");
            stanza = stanza.with("api_key_file", &in_dir(dir.path(), "key"));
        }
        if let Err(error) = stanza.read() {
            prop_assert!(!error.to_string().contains(CANARY), "{}", error);
        }
    }
}

#[test]
fn durations_are_kept_apart() {
    let config = Stanza::right()
        .with("interval", "1s")
        .with("lookback", "2s")
        .with("overlap", "3s")
        .with("timeout", "4s")
        .ok();
    let connector = &config.connectors[0];
    let durations = [connector.interval, connector.lookback, connector.overlap, connector.timeout];
    assert_eq!(durations, [1, 2, 3, 4].map(Duration::from_secs));
}
