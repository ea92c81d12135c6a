//! Mistakes that people make, each seeded into a configuration that is right: `test` has to find it,
//! say what to do, and name the line.

// The functions here are tables.
#![allow(clippy::too_many_lines)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::Value;
use trendmicro_sim::{Fault, FaultKind, Sim, When};

use crate::support::{GOOD, Place, classic, ctl, fill, json, said, simulate};

/// A mistake.
struct Mistake {
    what: &'static str,
    /// The configuration with it.
    text: String,
    /// The check that has to find it: its stage's beginning, and how it ends.
    stage: &'static str,
    status: &'static str,
    /// What it has to say, together with its advice.
    says: &'static [&'static str],
    /// How the line begins that it has to name; empty if there is none.
    line: &'static str,
}

/// The texts that mistakes are made of.
struct World<'a> {
    place: &'a Place,
    good: String,
}

impl World<'_> {
    /// The good configuration with one line replaced.
    fn with(&self, line: &str, new: &str) -> String {
        assert!(self.good.contains(line), "{line}");
        self.good.replacen(line, &fill(new, "", self.place), 1)
    }

    /// The good configuration with a line added to the input.
    fn and(&self, new: &str) -> String {
        let tag = "      tag: tm\n";
        self.with(tag, &format!("{tag}      {new}\n"))
    }

    /// The good configuration without a line.
    fn without(&self, line: &str) -> String {
        let start = self.good.find(line).unwrap();
        let end = start + self.good[start..].find('\n').unwrap();
        format!("{}{}", &self.good[..start].trim_end_matches(' '), &self.good[end + 1..])
    }
}

/// Runs `test` on the mistake and looks for the check that finds it.
fn assert_found(mistake: &Mistake, place: &Place) {
    let Mistake { what, text, stage, status, says, line } = mistake;
    let path = place.write("fluent-bit.yaml", text);
    let output = ctl(&["test", "--json", "-c", path.to_str().unwrap()]);
    let report = json(&output);
    let checks = report["subjects"].as_array().unwrap().iter();
    let checks = checks.flat_map(|subject| subject["checks"].as_array().unwrap());
    let is_it = |check: &&Value| {
        let all = format!("{} {}", check["detail"], check["advice"]);
        check["stage"].as_str().unwrap().starts_with(stage)
            && check["status"] == *status
            && says.iter().all(|words| all.contains(words))
    };
    let found = checks.clone().find(is_it);
    let found = found.unwrap_or_else(|| panic!("{what}: not found in {report:#}"));
    let expected_code = if *status == "failed" { Some(1) } else { Some(0) };
    let has_other_failures = report["status"] == "failed";
    if *status == "failed" || !has_other_failures {
        assert_eq!(output.status.code(), expected_code, "{what}: {report:#}");
    }
    if !line.is_empty() {
        let numbered =
            text.lines().position(|l| l.trim().trim_start_matches("- ").starts_with(line));
        let expected = numbered.unwrap_or_else(|| panic!("{what}: no line {line}")) + 1;
        let lines = found["lines"].as_array().unwrap();
        let is_named = lines.iter().any(|line| line["line"] == expected);
        assert!(is_named, "{what}: line {expected} is not in {found:#}");
    }
    assert!(!said(&output).0.contains("wrong-secret"), "{what}: a secret was printed");
}

fn check_all(sim: &Sim, mistakes: impl FnOnce(&World) -> Vec<Mistake>) -> usize {
    let place = Place::new();
    let world = World { place: &place, good: fill(GOOD, sim.url(), &place) };
    let mistakes = mistakes(&world);
    mistakes.iter().for_each(|mistake| assert_found(mistake, &place));
    mistakes.len()
}

#[test]
fn a_configuration_without_a_mistake_is_clean_in_both_formats() {
    let (place, sim) = (Place::new(), simulate());
    let yaml = fill(GOOD, sim.url(), &place);
    for (name, text) in [("a.yaml", yaml.clone()), ("a.conf", classic(&yaml))] {
        let path = place.write(name, &text);
        let output = ctl(&["test", "--strict", "-c", path.to_str().unwrap()]);
        let (text, code) = said(&output);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("everything is as it should be"), "{text}");
        for stage in ["dns", "tcp", "credentials", "clock", "data accepted_traffic", "data agents"]
        {
            assert!(text.contains(stage), "{stage} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "colours only on a terminal: {text}");
        let only = ctl(&["test", "-c", path.to_str().unwrap(), "--connector", "apex"]);
        let (text, _) = said(&only);
        assert!(text.contains("data agents") && !text.contains("data computers"), "{text}");
    }
}

#[test]
fn mistakes_in_properties_are_found() {
    let sim = simulate();
    let count = check_all(&sim, |world| {
        let open = world.place.write("open.key", "wrong-secret");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        let mistake = |what, text, status, says, line| Mistake {
            what,
            text,
            stage: "configuration",
            status,
            says,
            line,
        };
        let key = "mail.api_key: sim-email-key";
        vec![
            mistake(
                "a typing error that the plugin knows",
                world.with("mail.username:", "mail.usernmae:"),
                "failed",
                &["no property of this plugin, but mail.username is"],
                "mail.usernmae",
            ),
            mistake(
                "no user name",
                world.without("mail.username"),
                "failed",
                &["mail.username is missing", "admin@example.com"],
                "name: trendmicro",
            ),
            mistake(
                "no key",
                world.without("apex.api_key"),
                "failed",
                &["apex.api_key is missing"],
                "",
            ),
            mistake(
                "an unknown service",
                world.and("cas.services: sharepont"),
                "failed",
                &["cas.services", "sharepont", "onedrive"],
                "cas.services",
            ),
            mistake(
                "an unknown region",
                world.and("mail.region: europe"),
                "failed",
                &["mail.region", "europe", "us, eu, au"],
                "mail.region",
            ),
            mistake(
                "an unknown product",
                world.with("cas.connector: cloud_app_security", "cas.connector: cas"),
                "failed",
                &["not a connector of this plugin", "cloud_app_security"],
                "cas.connector",
            ),
            mistake(
                "a key file that others can read",
                world.with(key, "mail.api_key_file: '@DIR/open.key'"),
                "failed",
                &["can be read by others", "chmod 600"],
                "mail.api_key_file",
            ),
            mistake(
                "a key that would go in the clear",
                world.and("mail.base_url: http://api.tmes.trendmicro.eu"),
                "failed",
                &["in the clear", "https://api.tmes.trendmicro.com"],
                "mail.base_url",
            ),
            mistake(
                "an interval without a meaning",
                world.and("mail.interval: 5 minutes"),
                "failed",
                &["5 minutes", "5m"],
                "mail.interval",
            ),
            mistake(
                "a variable that is not set",
                world.with(key, "mail.api_key: ${NOT_SET_ANYWHERE}"),
                "warning",
                &["${NOT_SET_ANYWHERE} is not set"],
                "mail.api_key",
            ),
            mistake(
                "a map where the host wants lines",
                world.and("mail:\n        region: eu"),
                "failed",
                &["which the host does not take", "mail.region"],
                "mail:",
            ),
            mistake(
                "a plugin of another name",
                world.with("name: trendmicro", "name: trend_micro"),
                "failed",
                &["no input has the name trendmicro"],
                "",
            ),
        ]
    });
    assert_eq!(count, 12);
}

#[test]
fn mistakes_that_a_plugin_cannot_see_are_found() {
    let sim = simulate();
    let count = check_all(&sim, |world| {
        let mistake = |what, text, status, says, line| Mistake {
            what,
            text,
            stage: "host",
            status,
            says,
            line,
        };
        let second = |extra: &str| {
            let input = format!(
                "    - name: trendmicro\n      tag: tm.second\n      connector: email_security\n      \
                 base_url: {}\n      username: admin@example.com\n      api_key: sim-email-key\n      \
                 storage.type: filesystem\n      {extra}\n  outputs:",
                sim.url()
            );
            world.with("  outputs:", &input)
        };
        vec![
            mistake(
                "a typing error that only a whole view shows",
                world.and("mail.intervalls: 5s"),
                "warning",
                &["did you mean mail.interval?"],
                "mail.intervalls",
            ),
            mistake(
                "a connector's name mistyped",
                world.and("mial.interval: 5s"),
                "warning",
                &["did you mean mail.interval?"],
                "mial.interval",
            ),
            mistake(
                "a key of the host that never arrives",
                world.and("tls.verify: off"),
                "warning",
                &["keeps it for itself", "did you mean tls_verify?"],
                "tls.verify",
            ),
            mistake("tls", world.and("tls: on"), "failed", &["does not start"], "tls: on"),
            mistake(
                "net",
                world.and("net.connect_timeout: 5"),
                "failed",
                &["crashes", "timeout"],
                "net.connect_timeout",
            ),
            mistake("host", world.and("host: 10.0.0.1"), "warning", &["base_url"], "host:"),
            mistake(
                "a repeated key",
                world.and("mail.username: b@example.com"),
                "warning",
                &["only the first of them counts"],
                "mail.username: admin",
            ),
            mistake(
                "memory-only storage",
                world.with("storage.type: filesystem", "storage.type: memory"),
                "warning",
                &["lost if it crashes", "storage.type: filesystem"],
                "storage.type",
            ),
            mistake(
                "storage without a path",
                world.without("storage.path"),
                "failed",
                &["no storage.path", "does not start"],
                "storage.type",
            ),
            mistake(
                "no state file",
                world.without("db:"),
                "warning",
                &["no db"],
                "name: trendmicro",
            ),
            mistake(
                "two inputs on one state file",
                second(&fill("db: '@DIR/./state.db'", "", world.place)),
                "failed",
                &["two inputs use one state file", ".second"],
                "db: ",
            ),
            mistake(
                "two inputs on one key",
                second(&fill("db: '@DIR/second.db'", "", world.place)),
                "warning",
                &["collect the same, with one key", "twice"],
                "api_key: sim-email-key",
            ),
            mistake(
                "an output that takes nothing",
                world.with("match: 'tm.*'", "match: 'trend.*'"),
                "failed",
                &["no output takes the tag tm.mail.accepted_traffic"],
                "tag_format",
            ),
            mistake(
                "an output that gives up",
                world.with("- name: file", "- name: http"),
                "warning",
                &["gives up after one retry", "no_limits"],
                "name: http",
            ),
        ]
    });
    assert_eq!(count, 14);
}

#[test]
fn mistakes_that_the_vendor_answers_are_found() {
    let sim = simulate();
    let refused = |code, retry_after| FaultKind::Status { code, retry_after, body: None };
    let strike = |route: &str, kind| {
        sim.faults().add(Fault { route: route.to_owned(), when: When::Always, kind });
    };
    let mistake =
        |what, text, stage, status, says, line| Mistake { what, text, stage, status, says, line };
    let with_key = |world: &World| world.with("sim-email-key", "wrong-secret");
    let mut count = check_all(&sim, |world| {
        vec![
            mistake(
                "a wrong key",
                with_key(world),
                "credentials",
                "failed",
                &["HTTP 401", "whether the key has expired"],
                "mail.api_key",
            ),
            mistake(
                "a wrong user",
                world.with("admin@example.com", "nobody@example.com"),
                "credentials",
                "failed",
                &["HTTP 401", "username"],
                "mail.username",
            ),
            mistake(
                "a wrong application",
                world.with("11111111-2222", "11111111-3333"),
                "credentials",
                "failed",
                &["HTTP 401", "application_id"],
                "apex.application_id",
            ),
        ]
    });
    let url = sim.url().to_owned();
    count += check_all(&sim, |world| {
        vec![mistake(
            "a wrong address",
            world.and(&format!("mail.base_url: {url}/elsewhere")),
            "data accepted_traffic",
            "failed",
            &["HTTP 404", "base_url or region"],
            "mail.base_url",
        )]
    });
    strike("/api/v1/log/mailtrackinglog", refused(403, None));
    strike("/v1/siem", refused(429, Some("30".to_owned())));
    strike("/WebApp/API/AgentResource", FaultKind::HtmlError { code: 200 });
    strike("/api/computers", FaultKind::DateSkew { secs: -3600 });
    count += check_all(&sim, |world| {
        let good = || world.good.clone();
        vec![
            mistake(
                "a key without the right",
                good(),
                "credentials",
                "failed",
                &["HTTP 403", "role and permissions"],
                "mail.api_key",
            ),
            mistake(
                "a key that others use up",
                good(),
                "data sharepoint",
                "warning",
                &["HTTP 429", "rate_limit"],
                "cas.rate_limit",
            ),
            mistake(
                "a portal instead of the API",
                good(),
                "data agents",
                "failed",
                &["not a portal"],
                "base_url",
            ),
            mistake("a wrong clock", good(), "clock", "failed", &["1h 0m ahead", "NTP"], ""),
        ]
    });
    sim.faults().clear();
    assert_eq!(count, 8);
}

/// Answers TLS handshakes with a certificate for a name, valid until a year, signed by itself.
fn serve_tls(name: &str, until_year: i32) -> (u16, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until_year, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = Stream::new(&mut connection, &mut stream);
            let _ = std::io::Read::read(&mut tls, &mut [0; 1024]);
        }
    });
    (port, pem)
}

#[test]
fn mistakes_on_the_way_are_found() {
    let sim = simulate();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (expired, pem) = serve_tls("localhost", 2020);
    let (unknown, _) = serve_tls("localhost", 2090);
    let (other_name, other_pem) = serve_tls("elsewhere.example", 2090);
    let plain = sim.url().rsplit(':').next().unwrap().to_owned();
    let count = check_all(&sim, |world| {
        world.place.write("ca.pem", &pem);
        world.place.write("other.pem", &other_pem);
        let to = |url: &str, more: &str| {
            world.and(&fill(&format!("mail.base_url: {url}\n      {more}"), "", world.place))
        };
        let mistake = |what, text, stage, says, line| Mistake {
            what,
            text,
            stage,
            status: "failed",
            says,
            line,
        };
        let local = |port: u16| format!("https://localhost:{port}");
        let none = "mail.tenant_name: a";
        vec![
            mistake(
                "a host that does not exist",
                to("https://api.tmes.trendmicro.invalid", none),
                "dns",
                &["no address", "typing errors"],
                "mail.base_url",
            ),
            mistake(
                "a port where nobody listens",
                to(&local(closed), none),
                "tcp",
                &["refused", "nothing listens"],
                "mail.base_url",
            ),
            mistake(
                "a proxy that is not there",
                world.and(&format!(
                    "mail.base_url: https://localhost:1\n      mail.proxy: http://127.0.0.1:{closed}"
                )),
                "tcp",
                &["the proxy", "nothing listens"],
                "mail.proxy",
            ),
            mistake(
                "an expired certificate",
                to(&local(expired), "mail.tls_ca_file: '@DIR/ca.pem'"),
                "tls",
                &["has expired", "clock"],
                "mail.base_url",
            ),
            mistake(
                "a certificate that nobody vouches for",
                to(&local(unknown), none),
                "tls",
                &["tls_ca_file"],
                "name: trendmicro",
            ),
            mistake(
                "a certificate for another name",
                to(&local(other_name), "mail.tls_ca_file: '@DIR/other.pem'"),
                "tls",
                &["another name"],
                "mail.base_url",
            ),
            mistake(
                "a port that speaks no TLS",
                to(&format!("https://localhost:{plain}"), none),
                "tls",
                &["speaks no TLS"],
                "mail.base_url",
            ),
        ]
    });
    assert_eq!(count, 7);
}

#[test]
fn what_cannot_be_read_ends_with_two() {
    let place = Place::new();
    let missing = place.path("no.yaml");
    let (text, code) = said(&ctl(&["test", "-c", missing.to_str().unwrap()]));
    assert!(code == 2 && text.contains("cannot be read"), "{text}");
    let broken = place.write("a.yaml", "pipeline:\n  inputs: [\n");
    let (text, code) = said(&ctl(&["test", "-c", broken.to_str().unwrap()]));
    assert!(code == 2 && text.contains("a.yaml:"), "{text}");
}
