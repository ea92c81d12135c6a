//! A small client on a plain socket, so that the tests see every byte.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{self, Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use serde_json::Value;
use trendmicro_sim::{EmailConfig, Sim};

pub const TRACKING: &str = "/api/v1/log/mailtrackinglog";
pub const POLICY: &str = "/api/v1/log/policyeventlog";
/// A window over everything that the simulator holds.
pub const ALL: &str = "start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn logs(&self) -> Vec<Value> {
        self.json()["logs"].as_array().expect("the body has logs").clone()
    }

    /// The next token decoded once, as it is to be encoded into the next request.
    pub fn token(&self) -> Option<String> {
        let text = self.json()["nextToken"].as_str()?.to_string();
        Some(percent_encoding::percent_decode_str(&text).decode_utf8().unwrap_or_default().into())
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_string()
    }
}

pub struct Client {
    pub address: String,
    pub authorization: String,
    pub extra: String,
}

impl Client {
    pub fn new(sim: &Sim) -> Self {
        Self::with_key(sim, "admin@example.com:sim-email-key")
    }

    pub fn with_key(sim: &Sim, key: &str) -> Self {
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        Self {
            address: sim.url().trim_start_matches("http://").to_string(),
            authorization: format!("Authorization: Basic {key}\r\n"),
            extra: String::new(),
        }
    }

    /// With other headers than basic authentication, each a whole line.
    pub fn with_headers(sim: &Sim, headers: &str) -> Self {
        Self { authorization: headers.to_string(), ..Self::new(sim) }
    }

    pub fn get(&self, target: &str) -> Reply {
        self.try_get(target).expect("an answer")
    }

    pub fn try_get(&self, target: &str) -> io::Result<Reply> {
        self.send("GET", target, "")
    }

    pub fn send(&self, method: &str, target: &str, body: &str) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(&self.address)?;
        self.send_on(&mut stream, method, target, body)
    }

    pub fn send_on(
        &self,
        stream: &mut TcpStream,
        method: &str,
        target: &str,
        body: &str,
    ) -> io::Result<Reply> {
        let (authorization, extra, length) = (&self.authorization, &self.extra, body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\n{authorization}{extra}\
             Content-Length: {length}\r\n\r\n{body}",
            self.address
        );
        stream.write_all(head.as_bytes())?;
        read_reply(stream)
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("the simulator listens")
    }

    /// Asks page after page until there is no token or nothing came; the records, and every
    /// reply.
    pub fn pages(&self, target: &str) -> (Vec<Value>, Vec<Reply>) {
        let (mut records, mut replies, mut token) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let suffix = token.map_or(String::new(), |token| format!("&token={}", encode(&token)));
            let reply = self.get(&format!("{target}{suffix}"));
            assert!(reply.status == 200 || reply.status == 204, "{reply:?}");
            let logs = if reply.body.is_empty() { Vec::new() } else { reply.logs() };
            token = if logs.is_empty() { None } else { reply.token().filter(|t| !t.is_empty()) };
            records.extend(logs);
            replies.push(reply);
            if token.is_none() {
                return (records, replies);
            }
        }
    }
}

pub fn encode(token: &str) -> String {
    percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn read_reply(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let mut reply = Reply { status, headers, body: Vec::new() };
    let length = reply.header("content-length").and_then(|text| text.parse().ok());
    if reply.header("transfer-encoding").is_some() {
        read_chunks(stream, &mut reply.body)?;
    } else {
        reply.body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut reply.body)?;
    }
    Ok(reply)
}

fn read_chunks(stream: &mut TcpStream, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        let begun = body.len();
        body.resize(begun + size + 2, 0);
        stream.read_exact(&mut body[begun..])?;
        body.truncate(begun + size);
        if size == 0 {
            return Ok(());
        }
    }
}

/// A simulator without live records, for tests that count.
pub fn still(config: EmailConfig) -> Sim {
    let config = EmailConfig { live_per_second: 0.0, ..config };
    Sim::builder().email(config).start().expect("a free port")
}
