//! Credentials that are looked for everywhere: a vendor repeats what it was sent in every place that
//! a message could be made of, and nothing of it is to be found.

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::hostile::{Vendor, credential, success};
use crate::support::{Config, Host, KEY, Place, at_once, config, email, simulate, wait};

/// One way to repeat a credential; the rest of each answer is such that a line must be made of it.
struct Echo {
    name: &'static str,
    answer: fn(&mut TcpStream, &str, &Vendor) -> io::Result<()>,
    /// How many of the four connectors show the vendor's words.
    shown_min: usize,
}

const PRODUCTS: [&str; 4] =
    ["email_security", "cloud_app_security", "apex_central", "workload_security"];
const PROXY_PASSWORD: &str = "canary-77aa-of-the-proxy";

/// Everything that a head says of the credential, in one line.
fn repeated(head: &str) -> String {
    format!("{KEY} and {}", credential(head).unwrap_or_default())
}

fn refuse(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 401 No\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes())
}

/// Four connectors, each with the key in a file, and everything that is ever logged.
fn four(place: &Place, base: &Config, port: u16) -> Config {
    let path = place.path("key");
    fs::write(&path, KEY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = base.clone().service("log_level", "debug");
    let unset = ["connector", "username", "api_key", "lookback"];
    for key in unset {
        let inputs = std::mem::take(&mut config.inputs);
        config.inputs = inputs.into_iter().map(|input| input.without(key)).collect();
    }
    let url = format!("http://127.0.0.1:{port}");
    for product in PRODUCTS {
        config = config.with(&[
            (&format!("{product}.connector"), product),
            (&format!("{product}.api_key_file"), &path.display().to_string()),
            (&format!("{product}.base_url"), &url),
        ]);
    }
    config.with(&[
        ("connectors", &PRODUCTS.join(",")),
        ("email_security.username", "admin@example.com"),
        ("apex_central.application_id", "1-2-3"),
        ("cloud_app_security.event_types", "dlp"),
        ("timeout", "2s"),
    ])
}

/// Fails if a file below `dir`, other than the key's own, holds one of `secrets`.
#[track_caller]
fn assert_nowhere(dir: &Path, secrets: &[String]) {
    let mut files = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.file_name().is_some_and(|name| name == "key" || name == "host.conf") {
                continue;
            }
            files += 1;
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for secret in secrets {
                let line = text.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(line, None, "a secret in {}", path.display());
            }
        }
    }
    assert!(files >= 3, "log, answers with the metrics, and state file");
}

/// Every place of an answer that a message could be made of.
fn echoes() -> Vec<Echo> {
    let echo = |name, shown_min, answer| Echo { name, answer, shown_min };
    vec![
        echo("in a refusal", 4, |stream, head, _| {
            refuse(stream, &format!("no: {}", repeated(head)))
        }),
        echo("in a refusal of JSON, behind as much as is shown", 4, |stream, head, _| {
            let sent = repeated(head).replace('/', "\\/");
            refuse(stream, &format!("{{\"{}\":\"{sent}\"}}", "x".repeat(220)))
        }),
        echo("in a body that is no JSON", 4, |stream, head, _| {
            success(stream, "", format!("Sent: {}", repeated(head)).as_bytes())
        }),
        echo("in a body's type", 4, |stream, head, _| {
            let start = format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n", repeated(head));
            stream.write_all(format!("{start}Content-Length: 2\r\n\r\nno").as_bytes())
        }),
        // Email and Workload Security say nothing of their own.
        echo("in what each product has to say", 2, |stream, head, _| {
            let sent = repeated(head);
            let body = serde_json::json!({
                "result_code": 20, "result_description": sent,
                "next_link": format!("https://{sent}/x"), "security_events": [{}],
                "logs": sent, "computers": sent,
            });
            success(stream, "", body.to_string().as_bytes())
        }),
        echo("in a redirect", 0, |stream, head, vendor| {
            let (sent, port) = (repeated(head), vendor.port);
            let to = format!("http://127.0.0.1:{port}/{}", sent.replace(' ', "/"));
            let head =
                format!("HTTP/1.1 302 {sent}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes())
        }),
    ]
}

#[test]
fn what_a_vendor_repeats_of_a_credential_is_found_nowhere() {
    at_once(echoes(), run);
}

fn run(echo: Echo) {
    let (place, sim) = (Place::new(), simulate(email()));
    let vendor = Vendor::start(echo.answer, 0);
    let host = Host::start(&place, &four(&place, &config(&sim, &place), vendor.port), &[]);
    let complained = |product: &&&str| {
        let mark = format!("[{product}]");
        // The line of the failure, and the one that tells every minute how a connector is.
        let says =
            |what| host.log().lines().any(|line| line.contains(&mark) && line.contains(what));
        says("in a row") && says("; no answer yet")
    };
    let all = || (PRODUCTS.iter().filter(complained).count() == PRODUCTS.len()).then_some(());
    wait(echo.name, || host.log_tail(), all);
    // The whole text of the metrics, which lies beside the log from here on.
    let status = host.status();
    let metrics = status["inputs"][0]["metrics"].as_str().unwrap_or_else(|| panic!("{status:#}"));
    assert!(metrics.contains("fluentbit_trendmicro_failures{"), "{metrics}");
    let log = host.stop().log;
    let shown = PRODUCTS.iter().filter(|product| {
        let mark = format!("[{product}]");
        log.lines().any(|line| line.contains(&mark) && line.contains("[redacted]"))
    });
    assert!(shown.count() >= echo.shown_min, "{}\n{log}", echo.name);
    let sent = vendor.credentials.lock().unwrap().clone();
    assert!(sent.len() >= PRODUCTS.len(), "{}: {} credentials", echo.name, sent.len());
    // Of what was cut, its beginning is a secret too.
    let beginnings = sent.iter().map(|text| text.chars().take(24).collect());
    let secrets: Vec<String> = beginnings.chain([KEY[..16].to_owned()]).collect();
    assert_nowhere(place.path("").as_path(), &secrets);
}

/// A proxy that refuses and repeats, one that speaks no HTTP, one that is not there.
#[test]
fn a_proxys_password_is_found_nowhere() {
    let vendor = Vendor::start(
        |stream, head, _| {
            let sent: Vec<&str> =
                head.lines().filter(|line| line.to_lowercase().starts_with("proxy-auth")).collect();
            let body = format!("{PROXY_PASSWORD} {}", sent.concat());
            let length = body.len();
            let head = format!("HTTP/1.1 407 {body}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes())
        },
        0,
    );
    let other = Vendor::start(|stream, _, _| stream.write_all(b"220 mail ready\r\n"), 0);
    // Over plain http the proxy's answer is the answer; over https it is asked for a tunnel.
    let cases = vec![
        ("http://127.0.0.1:1", vendor.port, "HTTP 407"),
        ("https://api.tmes.trendmicro.com", vendor.port, "cannot connect"),
        ("https://api.tmes.trendmicro.com", other.port, "cannot connect"),
        ("http://127.0.0.1:1", other.port, "the connection failed"),
        ("https://api.tmes.trendmicro.com", 1, "cannot connect"),
    ];
    at_once(cases, |(url, port, says)| {
        let (place, sim) = (Place::new(), simulate(email()));
        let proxy = format!("http://user:{PROXY_PASSWORD}@127.0.0.1:{port}");
        let properties = [("base_url", url), ("proxy", &proxy)];
        let config = config(&sim, &place).with(&properties).service("log_level", "debug");
        let host = Host::start(&place, &config, &[]);
        host.wait_log(says);
        host.stop();
        use base64::Engine as _;
        let pair = format!("user:{PROXY_PASSWORD}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let secrets = [&PROXY_PASSWORD[..16], &encoded[..16]].map(str::to_owned);
        assert_nowhere(place.path("").as_path(), &secrets);
    });
}
