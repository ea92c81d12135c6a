//! What a person writes, and what they read when it is wrong.
//!
//! The wrong configurations and their errors stand in `tests/fixtures/config/wrong.txt`;
//! `UPDATE_EXPECT=1 cargo test --test it config` writes the errors anew.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use in_trendmicro::config::mistaken::{MISTAKEN, misspellings};
use in_trendmicro::config::options::{OPTIONS, Opt, Scope, find};
use in_trendmicro::config::{Config, Db, Format, HandoverMode, Proxy};
use in_trendmicro::connector::{PRODUCTS, Product};
use in_trendmicro::error::{Error, ErrorKind};
use in_trendmicro::secret::{Credential, Secret};
use proptest::prelude::*;
use tempfile::TempDir;

/// A secret that no error may show.
const CANARY: &str = "cAnArY-5ecret";
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config/wrong.txt");
const DATABASE: &str = "postgres://fluent@db.example.com/state";
/// Properties that name a file; their examples are files of another machine.
const FILES: &[&str] = &[
    "api_key_file",
    "db",
    "db_ca_file",
    "db_password_file",
    "redact_key_file",
    "tls_ca_file",
    "tls_crt_file",
    "tls_key_file",
];

/// Properties of which one word out of a list is legal.
const CHOICES: &[&str] = &[
    "connector",
    "ecs_mapping",
    "emit",
    "format",
    "handover",
    "db.sync",
    "tls_verify",
    "tls_min_version",
];

/// A stanza as the host sees it: the first of a repeated key counts, case does not, and what is
/// empty is absent.
#[derive(Clone, Debug)]
struct Stanza(Vec<(String, String)>);

impl Stanza {
    fn of(properties: &[(&str, &str)]) -> Self {
        Self(properties.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The least that is right for Email Security.
    fn right() -> Self {
        Self::right_for("email_security")
    }

    /// The least that is right for a product.
    fn right_for(product: &str) -> Self {
        let stanza = Self::of(&[("connector", product), ("api_key", CANARY)]);
        match product {
            "email_security" => stanza.with("username", "admin@example.com"),
            "apex_central" => stanza
                .with("base_url", "https://acme.manage.trendmicro.com")
                .with("application_id", "11111111-2222-3333-4444-555555555555"),
            _ => stanza,
        }
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
    write("redact-key", &CANARY.repeat(2), 0o600);
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
        let named = self.properties.iter().find(|(key, _)| key == "connector");
        let product = named.and_then(|(_, name)| in_trendmicro::connector::product(name));
        let right = product.map_or_else(Stanza::right, |product| Stanza::right_for(product.name));
        self.properties.iter().rev().fold(right, add)
    }
}

#[test]
fn every_wrong_configuration_has_its_one_line() {
    let dir = files();
    let (mut updated, cases) = cases();
    assert!(cases.len() >= 100, "{}", cases.len());
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

/// What an error says to write: a property and its value, or a property to take away.
fn advice(text: &str) -> (&str, &str) {
    let (_, advice) = text.rsplit_once("; write: ").expect(text);
    match advice.strip_prefix("remove ") {
        Some(key) => (key, ""),
        None => advice.split_once(": ").expect(text),
    }
}

/// What holds for the text of every error, whatever was wrong.
fn assert_readable(stanza: &Stanza, error: &Error) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    assert!(!text.contains(char::is_control), "one line: {text:?}");
    assert!(!text.to_lowercase().contains(&CANARY.to_lowercase()), "a secret is shown: {text}");
    assert!(text.contains("; legal: "), "{text}");
    // It begins with the property, as the person wrote it or would have to.
    let key = text.split([' ', ':']).next().unwrap();
    let known = |name: &str| {
        let bare = name.split_once('.').map_or(name, |(_, bare)| bare);
        find(name).is_some() || find(bare).is_some()
    };
    assert!(stanza.get(key).is_some() || known(key), "{text}");
    let rest = &text[key.len()..];
    assert!([" = \"", ": ", " is missing"].iter().any(|start| rest.starts_with(start)), "{text}");
    if let Some(rest) = rest.strip_prefix(" = \"") {
        let value = stanza.get(key).unwrap().replace(char::is_control, " ");
        let shown: String = value.trim().chars().take(200).collect();
        assert!(rest.starts_with(&format!("{shown}\": ")), "{text}");
    }
    // What is to be written names a property that exists, and what is to be removed is there.
    let (meant, value) = advice(&text);
    assert!(known(meant), "{text}");
    assert!(!value.is_empty() || stanza.get(meant).is_some(), "{text}");
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
        let (key, value) = advice(&text);
        if value.starts_with('/') {
            // A path of another machine.
            continue;
        }
        let is_default = wrong != key && key.ends_with(&format!(".{wrong}"));
        let corrected = if is_default { stanza } else { stanza.with(wrong, "") };
        if let Err(error) = corrected.with(key, value).read() {
            let said = error.to_string();
            assert!(!said.starts_with(key), "{}: {text}, then {said}", case.title);
        }
    }
}

/// A person's own value is not thrown away with the key that they mistook.
#[test]
fn a_mistaken_key_keeps_its_value() {
    for (product, written, meant) in [
        ("email_security", "intervall: 7m", "interval: 7m"),
        ("email_security", "tls.verify: off", "tls_verify: off"),
        ("email_security", "user: root@example.com", "username: root@example.com"),
        ("email_security", "content_type: Policy_Events", "content_types: Policy_Events"),
        ("email_security", "conectors: a, b", "connectors: a, b"),
        ("cloud_app_security", "service: teams, box", "services: teams, box"),
        ("cloud_app_security", "event_type: dlp", "event_types: dlp"),
        ("apex_central", "appid: 1-2-3", "application_id: 1-2-3"),
        ("apex_central", "url: https://x.example.com", "base_url: https://x.example.com"),
        ("workload_security", "regoin: gb", "region: gb"),
        ("workload_security", "exapnd: all", "expand: all"),
        // What is not legal, is secret, is an address with a password, or means something else.
        ("email_security", "intervall: 7w", "interval: 60s"),
        ("apex_central", "intervall: 7w", "interval: 1h"),
        ("cloud_app_security", "ratelimit: fast", "rate_limit: 18"),
        ("workload_security", "regoin: eu", "region: us"),
        ("email_security", "token: abc", "api_key: ${TRENDMICRO_API_KEY}"),
        ("email_security", "http_proxy: http://p:1", "proxy: http://proxy.example.com:3128"),
        ("email_security", "url: a@x.example.com", "base_url: https://api.tmes.trendmicro.com"),
        ("email_security", "insecure: on", "tls_verify: on"),
        ("email_security", "interval_min: 5", "interval: 60s"),
    ] {
        let (key, value) = written.split_once(": ").unwrap();
        let bare = if key == "appid" { "application_id" } else { "" };
        let bare = if key == "url" { "base_url" } else { bare };
        let stanza = Stanza::right_for(product).with(bare, "").with(key, value);
        let text = stanza.read().err().unwrap().to_string();
        assert!(text.ends_with(&format!("; write: {meant}")), "{written}: {text}");
    }
}

/// Every property, mistaken or not, and whatever is wrong with it.
#[test]
fn no_error_shows_an_address_with_a_password() {
    let mut keys: Vec<String> = OPTIONS.iter().map(|opt| opt.name.to_owned()).collect();
    keys.extend(MISTAKEN.iter().map(|(key, _)| (*key).to_owned()));
    keys.extend(OPTIONS.iter().filter_map(|opt| misspellings(opt.name).next()));
    let mut errors = 0;
    for key in keys {
        for value in [
            format!("https://user:{CANARY}@x/y?z={{{CANARY}}}"),
            format!("a, https://user:{CANARY}@x, {CANARY}"),
            format!("ftp://{CANARY}@{CANARY}:1"),
        ] {
            for (product, prefix) in PRODUCTS.iter().flat_map(|one| [(one, ""), (one, "a.")]) {
                let stanza =
                    Stanza::right_for(product.name).with(&format!("{prefix}{key}"), &value);
                let stanza =
                    if prefix.is_empty() { stanza } else { stanza.with("connectors", "a") };
                if let Err(error) = stanza.read() {
                    assert_readable(&stanza, &error);
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 1_000, "{errors}");
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = Stanza::right().ok();
    assert_eq!(config.queue_bytes_max, 16_000_000);
    assert_eq!(config.handover, HandoverMode::Auto);
    assert!(config.db.is_none() && config.tag_format.is_none());
    for (product, base_url, interval, rate_limit) in [
        ("email_security", "https://api.tmes.trendmicro.com", 60, None),
        ("cloud_app_security", "https://api.tmcas.trendmicro.com", 300, Some(18)),
        ("apex_central", "https://acme.manage.trendmicro.com", 3_600, None),
        ("workload_security", "https://workload.us-1.cloudone.trendmicro.com/api", 3_600, None),
    ] {
        let config = Stanza::right_for(product).ok();
        let [connector] = config.connectors.as_slice() else { panic!("one connector") };
        assert_eq!((connector.name.as_str(), connector.product.name), (product, product));
        assert_eq!(connector.base_url.as_str(), base_url);
        assert_eq!(connector.api_key.get().unwrap().expose(), CANARY);
        assert_eq!(connector.interval.as_secs(), interval, "{product}");
        assert_eq!(connector.rate_limit, rate_limit, "{product}");
        let is_log = ["email_security", "cloud_app_security"].contains(&product);
        let logs = [connector.lookback, connector.overlap].map(|duration| duration.as_secs());
        assert_eq!(logs, if is_log { [86_400, 300] } else { [0, 0] }, "{product}");
        assert_eq!(connector.timeout.as_secs(), 60);
        assert_eq!((connector.format, connector.tenant_name.as_deref()), (Format::Envelope, None));
        assert!(connector.content_types.is_empty() && connector.event_types.is_empty(), "all");
        let is = |name: &str, words: &[String]| match product == name {
            true => words.len() == 1,
            false => words.is_empty(),
        };
        assert!(is("cloud_app_security", &connector.services), "{:?}", connector.services);
        assert!(is("workload_security", &connector.expand), "{:?}", connector.expand);
        let username = if product == "email_security" { "admin@example.com" } else { "" };
        assert_eq!(connector.username, username);
        assert_eq!(connector.application_id.is_empty(), product != "apex_central");
        assert!(connector.tls.verify && !connector.tls.only_1_3);
        assert!(connector.tls.ca_file.is_none() && connector.tls.client.is_none());
        assert!(matches!(connector.proxy, Proxy::Environment));
    }
}

/// Whether a product has a property.
fn is_used(opt: &Opt, product: &Product) -> bool {
    match opt.scope {
        Scope::Only(products) => products.contains(&product.name),
        Scope::Stanza | Scope::Connector => true,
    }
}

/// The products that have a property.
fn users(opt: &Opt) -> impl Iterator<Item = &'static Product> + use<'_> {
    PRODUCTS.iter().copied().filter(|product| is_used(opt, product))
}

/// A property and a value for it, on top of what else it needs to be right with a product.
fn stanza_with(dir: &Path, product: &Product, opt: &Opt, value: &str) -> Stanza {
    let value = match opt.name {
        "db" => in_dir(dir, "state.db"),
        "redact_key_file" => in_dir(dir, "redact-key"),
        "db_ca_file" | "tls_ca_file" | "tls_crt_file" => in_dir(dir, "cert.pem"),
        name if FILES.contains(&name) => in_dir(dir, "key"),
        _ => value.to_owned(),
    };
    let right = Stanza::right_for(product.name);
    let stanza = match opt.name {
        "api_key_file" => right.with("api_key", ""),
        "redact_key_file" => right.with("redact", "subject"),
        "db_ca_file" | "db_password_file" => right.with("db", DATABASE),
        "tls_crt_file" => right.with("tls_key_file", &in_dir(dir, "key")),
        "tls_key_file" => right.with("tls_crt_file", &in_dir(dir, "cert.pem")),
        "connector" => Stanza::right_for(&value.to_lowercase()),
        _ => right,
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
            [&connector.username, &connector.application_id],
            [&connector.content_types, &connector.services, &connector.event_types],
            (&connector.expand, connector.emit),
            connector.interval,
            [connector.lookback, connector.overlap],
            connector.tenant_name,
            (
                connector.format,
                connector.ecs_mapping,
                &connector.redaction.what,
                connector.redaction.key.as_ref().map(Secret::expose),
            ),
            connector.rate_limit,
            connector.timeout,
            connector.tls,
            connector.api_key.get().unwrap().expose(),
        )
        .unwrap();
    }
    text
}

/// The default of a property for a product, as the table has them: `60s; apex_central 1h`.
fn default(opt: &Opt, product: &Product) -> &'static str {
    let mut parts = opt.default.split("; ");
    let common = parts.next().unwrap();
    let own = parts.find(|part| part.contains(product.name));
    own.map_or(common, |own| own.rsplit_once(' ').unwrap().1)
}

#[test]
fn every_default_can_be_written_and_changes_nothing() {
    let dir = files();
    for product in PRODUCTS {
        let plain = describe(&Stanza::right_for(product.name).ok());
        let used = OPTIONS.iter().filter(|opt| is_used(opt, product) && !opt.default.is_empty());
        for opt in used {
            let written = stanza_with(dir.path(), product, opt, default(opt, product)).ok();
            assert_eq!(describe(&written), plain, "{} of {product:?}", opt.name);
        }
    }
}

#[test]
fn every_example_is_right_with_every_product_that_has_the_property() {
    let dir = files();
    for (opt, product) in OPTIONS.iter().flat_map(|opt| users(opt).map(move |one| (opt, one))) {
        stanza_with(dir.path(), product, opt, opt.example).ok();
        if opt.scope == Scope::Stanza {
            continue;
        }
        // Also behind a connector's name.
        let Stanza(properties) = stanza_with(dir.path(), product, opt, opt.example);
        let prefixed = properties.iter().map(|(key, value)| (format!("a.{key}"), value.clone()));
        Stanza(prefixed.collect()).with("connectors", "a").ok();
    }
}

#[test]
fn a_property_of_another_product_is_refused() {
    let dir = files();
    for product in PRODUCTS {
        for opt in OPTIONS.iter().filter(|opt| !is_used(opt, product)) {
            let Stanza(other) =
                stanza_with(dir.path(), users(opt).next().unwrap(), opt, opt.example);
            let (_, value) = other.iter().find(|(key, _)| key == opt.name).unwrap();
            let stanza = Stanza::right_for(product.name).with(opt.name, value);
            let error = stanza.read().err().unwrap_or_else(|| panic!("{} is taken", opt.name));
            assert_readable(&stanza, &error);
            let text = error.to_string();
            assert!(text.contains(&format!("not used by connector {}", product.name)), "{text}");
            assert!(text.ends_with(&format!("; write: remove {}", opt.name)), "{text}");
        }
    }
}

#[test]
fn every_word_that_is_called_legal_is() {
    let dir = files();
    let stanza = |product: &Product, opt: &Opt, word: &str| {
        stanza_with(dir.path(), product, opt, word).read()
    };
    let is_choice = |product: &Product, opt: &Opt, word: &str| {
        let name = opt.name;
        assert!(stanza(product, opt, word).is_ok(), "{name}: {word}");
        assert!(stanza(product, opt, &word.to_uppercase()).is_ok(), "{name}: {word} in capitals");
        assert!(stanza(product, opt, &format!("{word}x")).is_err(), "{name}: {word}x");
    };
    for &name in CHOICES {
        let opt = find(name).unwrap();
        for product in users(opt) {
            opt.legal.split(", ").for_each(|word| is_choice(product, opt, word));
        }
    }
    for name in ["services", "event_types", "expand"] {
        let opt = find(name).unwrap();
        let (_, words) =
            opt.legal.split_once("such as ").or(opt.legal.split_once("list of ")).unwrap();
        for word in words.split(", ").chain(["all"]) {
            users(opt).for_each(|product| is_choice(product, opt, word));
        }
    }
    let opt = find("content_types").unwrap();
    for product in users(opt) {
        product.content_types.iter().for_each(|word| is_choice(product, opt, word));
        is_choice(product, opt, "all");
        assert!(stanza(product, opt, &product.content_types.join(" , ")).is_ok());
    }
    for (name, words) in [
        ("interval", ["1s", "30", "30s", "5m", "1h", "1d"].as_slice()),
        ("lookback", &["1s", "72h", "3d"]),
        ("overlap", &["0s", "0", "24h"]),
        ("timeout", &["1s", "10m", "600"]),
        ("queue_limit", &["1M", "16M", "16000000", "1G", "16MB"]),
        ("rate_limit", &["none", "None", "OFF", "1", "6000", "18/min", "18/Min"]),
        ("services", &["exchange, teams_chat", "Box"]),
        ("event_types", &["dlp,ransomware"]),
        ("redact", &["subject", "Recipients, FILE_names,subject"]),
        ("expand", &["COMPUTERSTATUS, sap"]),
        ("application_id", &["x", "A-1"]),
        ("proxy", &["off", "Off", "http://p:1", "HTTPS://user:pass@p"]),
        ("tag_format", &["x", "{connector}", "{content_type}.{connector}"]),
        ("connectors", &["a", "a,b", "A-1 , b_2"]),
    ] {
        let opt = find(name).unwrap();
        for (word, product) in words.iter().flat_map(|word| users(opt).map(move |one| (word, one)))
        {
            assert!(stanza(product, opt, word).is_ok(), "{name}: {word} with {product:?}");
        }
    }
}

/// What is chosen in any case reaches the vendor as the vendor spells it.
#[test]
fn words_are_kept_as_the_vendor_spells_them() {
    let read = |product: &str, key: &str, value: &str| {
        let config = Stanza::right_for(product).with(key, value).ok();
        let [connector] = config.connectors.as_slice() else { panic!("one connector") };
        let lists = [
            &connector.content_types,
            &connector.services,
            &connector.event_types,
            &connector.expand,
        ];
        let of_key = ["content_types", "services", "event_types", "expand"];
        lists[of_key.iter().position(|name| *name == key).unwrap()].clone()
    };
    let apex = read("apex_central", "content_types", "Servers,AGENTS");
    assert_eq!(apex, ["servers", "agents"]);
    assert_eq!(read("cloud_app_security", "services", "TEAMS_chat"), ["teams_chat"]);
    assert_eq!(read("cloud_app_security", "event_types", "DLP"), ["dlp"]);
    let expand = read("workload_security", "expand", "esxsummary, sap, NONE");
    assert_eq!(expand, ["ESXSummary", "SAP", "none"]);
    for (product, key) in [
        ("email_security", "content_types"),
        ("cloud_app_security", "services"),
        ("cloud_app_security", "event_types"),
    ] {
        assert!(read(product, key, "All").is_empty(), "{key}: all is an empty list");
    }
}

/// The vendor's addresses, written down a second time.
const REGIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "email_security",
        &[
            ("us", "api.tmes.trendmicro.com"),
            ("eu", "api.tmes.trendmicro.eu"),
            ("au", "api.tmes-anz.trendmicro.com"),
            ("jp", "api.tmems-jp.trendmicro.com"),
            ("sg", "api.tmes-sg.trendmicro.com"),
            ("in", "api.tmes-in.trendmicro.com"),
            ("uae", "api.tmes-uae.trendmicro.com"),
            ("uk", "api.tmes-uk.trendmicro.com"),
        ],
    ),
    (
        "cloud_app_security",
        &[
            ("us", "api.tmcas.trendmicro.com"),
            ("eu", "api-eu.tmcas.trendmicro.com"),
            ("jp", "api.tmcas.trendmicro.co.jp"),
            ("au", "api-au.tmcas.trendmicro.com"),
            ("uk", "api.tmcas.trendmicro.co.uk"),
            ("ca", "api-ca.tmcas.trendmicro.com"),
            ("sg", "api.tmcas.trendmicro.com.sg"),
            ("in", "api-in.tmcas.trendmicro.com"),
        ],
    ),
    ("apex_central", &[]),
    (
        "workload_security",
        &[
            ("us", "workload.us-1.cloudone.trendmicro.com"),
            ("au", "workload.au-1.cloudone.trendmicro.com"),
            ("de", "workload.de-1.cloudone.trendmicro.com"),
            ("sg", "workload.sg-1.cloudone.trendmicro.com"),
            ("in", "workload.in-1.cloudone.trendmicro.com"),
            ("jp", "workload.jp-1.cloudone.trendmicro.com"),
            ("ca", "workload.ca-1.cloudone.trendmicro.com"),
            ("gb", "workload.gb-1.cloudone.trendmicro.com"),
        ],
    ),
];

#[test]
fn every_region_of_every_product_has_its_host() {
    for (product, (name, regions)) in PRODUCTS.iter().zip(REGIONS) {
        assert_eq!(product.name, *name);
        assert_eq!(product.regions.len(), regions.len(), "{name}");
        for (region, host) in *regions {
            for region in [(*region).to_owned(), region.to_uppercase()] {
                let config = Stanza::right_for(name).with("region", &region).ok();
                let base_url = &config.connectors[0].base_url;
                assert_eq!(base_url.authority(), *host, "{name} {region}");
                let path = if *name == "workload_security" { "/api" } else { "" };
                assert_eq!(base_url.as_str(), format!("https://{host}{path}"));
            }
        }
        // An address goes before a region, which must be one all the same.
        if let Some((region, _)) = regions.last() {
            let stanza = Stanza::right_for(name).with("base_url", "https://gateway.example.com");
            let config = stanza.clone().with("region", region).ok();
            assert_eq!(config.connectors[0].base_url.as_str(), "https://gateway.example.com");
            assert!(stanza.with("region", "mars").read().is_err());
        }
        // A region of another product is none of this one's.
        let own = |region: &str| regions.iter().any(|(name, _)| *name == region);
        let others = REGIONS.iter().flat_map(|(_, regions)| *regions);
        for (region, _) in others.filter(|(region, _)| !own(region)) {
            let stanza = Stanza::right_for(name).with("region", region);
            assert_readable(&stanza, &stanza.read().err().unwrap());
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
    for (product, pasted, root) in [
        (
            "cloud_app_security",
            "https://api-eu.tmcas.trendmicro.com/v1/siem/security_events?service=exchange&event=dlp",
            "https://api-eu.tmcas.trendmicro.com",
        ),
        (
            "apex_central",
            "https://acme.manage.trendmicro.com/WebApp/index.html#/dashboard",
            "https://acme.manage.trendmicro.com",
        ),
        ("apex_central", "https://10.0.0.7:8443/webapp/", "https://10.0.0.7:8443"),
        (
            "workload_security",
            "workload.de-1.cloudone.trendmicro.com/api/computers/search?expand=none",
            "https://workload.de-1.cloudone.trendmicro.com/api",
        ),
        (
            "workload_security",
            "https://dsm.example.com:4119/api/",
            "https://dsm.example.com:4119/api",
        ),
    ] {
        let config = Stanza::right_for(product).with("base_url", pasted).ok();
        assert_eq!(config.connectors[0].base_url.as_str(), root, "{pasted}");
    }
}

/// All four products in one stanza: a default reaches those that have the property, and no other.
#[test]
fn a_default_for_all_is_for_those_that_use_it() {
    let stanza = Stanza::of(&[
        ("connectors", "mail, saas, apex, cloud"),
        ("mail.connector", "email_security"),
        ("saas.connector", "cloud_app_security"),
        ("apex.connector", "apex_central"),
        ("cloud.connector", "workload_security"),
        ("api_key", CANARY),
        ("username", "admin@example.com"),
        ("application_id", "1-2-3"),
        ("services", "teams"),
        ("event_types", "dlp"),
        ("expand", "tasks"),
        ("region", "au"),
        ("lookback", "2h"),
        ("apex.base_url", "https://acme.manage.trendmicro.com"),
        ("apex.content_types", "agents"),
        ("interval", "2m"),
        ("saas.interval", "10m"),
        ("saas.rate_limit", "9"),
    ]);
    let config = stanza.ok();
    let [mail, saas, apex, cloud] = config.connectors.as_slice() else { panic!("four") };
    let each = [mail, saas, apex, cloud];
    assert_eq!(each.map(|one| one.username.as_str()), ["admin@example.com", "", "", ""]);
    assert_eq!(each.map(|one| one.application_id.as_str()), ["", "", "1-2-3", ""]);
    assert_eq!(each.map(|one| one.services.join(",")), ["", "teams", "", ""]);
    assert_eq!(each.map(|one| one.event_types.join(",")), ["", "dlp", "", ""]);
    assert_eq!(each.map(|one| one.expand.join(",")), ["", "", "", "tasks"]);
    assert_eq!(each.map(|one| one.content_types.join(",")), ["", "", "agents", ""]);
    assert_eq!(each.map(|one| one.interval.as_secs()), [120, 600, 120, 120]);
    assert_eq!(each.map(|one| one.lookback.as_secs()), [7_200, 7_200, 0, 0]);
    assert_eq!(each.map(|one| one.rate_limit), [None, Some(9), None, None]);
    let authorities = each.map(|one| one.base_url.authority());
    assert_eq!(
        authorities,
        [
            "api.tmes-anz.trendmicro.com",
            "api-au.tmcas.trendmicro.com",
            "acme.manage.trendmicro.com",
            "workload.au-1.cloudone.trendmicro.com",
        ]
    );
    let wrong = stanza.with("saas.username", "root@example.com").read().err().unwrap().to_string();
    assert!(wrong.starts_with("saas.username = \"root@example.com\": not used by"), "{wrong}");
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
    let Some(Db::File(db)) = &config.db else { panic!("a file") };
    assert_eq!(db.path, dir.path().join("state.db"));
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

/// A key file for one connector goes before a key for all, and the other way round.
#[test]
fn the_key_of_one_connector_beats_the_key_for_all() {
    let dir = files();
    let file = in_dir(dir.path(), "key");
    let stanza = Stanza::right().with("connectors", "one, other");
    for (stanza, is_file) in [
        (stanza.clone().with("one.api_key_file", &file), [true, false]),
        (
            stanza.with("api_key", "").with("api_key_file", &file).with("one.api_key", CANARY),
            [false, true],
        ),
    ] {
        let config = stanza.ok();
        let is = |at: usize| matches!(&*config.connectors[at].api_key, Credential::File(_));
        assert_eq!([is(0), is(1)], is_file);
    }
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
        product in prop::sample::select(PRODUCTS),
        has_names in any::<bool>(),
    ) {
        let mut stanza = Stanza(properties);
        stanza.0.extend(Stanza::right_for(product.name).0);
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
    fn no_error_shows_the_key(
        wrong in (any_key(), any_value()),
        product in prop::sample::select(PRODUCTS),
        in_file in any::<bool>(),
    ) {
        prop_assume!(!wrong.1.contains(CANARY));
        let dir = files();
        let mut stanza = Stanza(vec![wrong]);
        stanza.0.extend(Stanza::right_for(product.name).0);
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
