//! The program as a person starts it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn it_says_how_to_use_it_and_ends_with_its_input() {
    let fault = r#"{"route":"/api/v1/log/policyeventlog","kind":{"status":{"code":429}}}"#;
    let mut program = Command::new(env!("CARGO_BIN_EXE_trendmicro-sim"))
        .args(["--listen", "127.0.0.1:0", "--backlog", "1000", "--backlog-span", "24h"])
        .args(["--live", "0", "--late-share", "0.1", "--late-max", "2m", "--fault", fault])
        .args(["--api-key", "it's"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(program.stdout.take().unwrap());
    let mut url = String::new();
    out.read_line(&mut url).unwrap();
    let mut stream = TcpStream::connect(url.trim().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /api/v1/log/policyeventlog HTTP/1.0\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{reply}");

    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    let mut stanza = String::new();
    out.read_to_string(&mut stanza).unwrap();
    assert!(stanza.contains(&format!("      base_url: {}\n", url.trim())), "{stanza}");
    assert!(stanza.contains("      api_key: 'it''s'\n"), "{stanza}");
}

#[test]
fn with_all_it_serves_and_configures_four_products() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_trendmicro-sim"))
        .args(["--listen", "127.0.0.1:0", "--all", "--cas-backlog", "3", "--computers", "7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(program.stdout.take().unwrap());
    let mut url = String::new();
    out.read_line(&mut url).unwrap();
    let url = url.trim();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /_sim/counts HTTP/1.0\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    for content_type in ["accepted_traffic", "teams_chat/dlp", "agents", "servers", "computers"] {
        assert!(reply.contains(&format!("\"{content_type}\"")), "{reply}");
    }
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    let mut stanza = String::new();
    out.read_to_string(&mut stanza).unwrap();
    for line in [
        "connectors: mail, cas, apex, workload",
        "mail.connector: email_security",
        "mail.username: 'admin@example.com'",
        "cas.connector: cloud_app_security",
        "cas.services: sharepoint, exchange, onedrive",
        "cas.api_key: '0123456789abcdef0123456789abcdef01234567'",
        "apex.connector: apex_central",
        "apex.application_id: '11111111-2222-3333-4444-555555555555'",
        "apex.api_key: '0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9'",
        "workload.connector: workload_security",
        "workload.api_key: '1:sim-workload-key='",
        &format!("workload.base_url: {url}/api"),
        &format!("apex.base_url: {url}"),
        "db: trendmicro.db",
    ] {
        assert!(stanza.contains(&format!("      {line}\n")), "{line} in {stanza}");
    }
}
