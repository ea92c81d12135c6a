//! A vendor that means harm, or is another program: bounded memory and time, no credential for
//! anybody else, one clear error, and nothing of it reaches the connector beside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use trendmicro_sim::EmailConfig;

use crate::support::{
    Books, Config, Form, Host, KEY, Place, at_once, config, email, simulate, wait, wait_delivered,
};

const MB: u64 = 1_000_000;
/// Threads, code and the good connector's own records: what a host takes with a harmless vendor.
const MEMORY_BYTES_MAX: u64 = 100 * MB;
/// A request that fails is repeated.
const REQUESTS_MIN: usize = 2;
/// Lines about one stream that keeps failing: they become rare as failures go on.
const LINES_MAX: usize = 40;

pub type Answer = fn(&mut TcpStream, &str, &Vendor) -> io::Result<()>;

/// A vendor who answers every request as the case wants it.
pub struct Vendor {
    pub port: u16,
    /// Where somebody listens whom nobody configured.
    elsewhere: u16,
    requests: AtomicUsize,
    with_key: AtomicUsize,
    /// The credentials that were sent.
    pub credentials: Mutex<BTreeSet<String>>,
    /// Numbers what must differ from answer to answer.
    next: AtomicU64,
}

impl Vendor {
    pub fn start(answer: Answer, elsewhere: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let vendor = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            elsewhere,
            requests: AtomicUsize::new(0),
            with_key: AtomicUsize::new(0),
            credentials: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let shared = Arc::clone(&vendor);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let vendor = Arc::clone(&shared);
                thread::spawn(move || vendor.serve(stream, answer));
            }
        });
        vendor
    }

    /// Answers until the client has had enough.
    fn serve(&self, mut stream: TcpStream, answer: Answer) {
        let _ = stream.set_nodelay(true);
        while let Ok(head) = read_head(&mut stream) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Some(credential) = credential(&head) {
                self.with_key.fetch_add(1, Ordering::Relaxed);
                self.credentials.lock().unwrap().insert(credential.to_owned());
            }
            if answer(&mut stream, &head, self).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a request's head says to prove who asks, without the scheme's name.
pub fn credential(head: &str) -> Option<&str> {
    let line = head.lines().find(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        ["authorization", "api-secret-key", "proxy-authorization"].contains(&name.as_str())
    });
    line?.split_whitespace().next_back()
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Counts who comes to a host that nobody configured.
fn listen_elsewhere() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, visits)
}

/// One way to do harm, and what the log must say of it.
struct Case {
    name: &'static str,
    product: &'static str,
    answer: Answer,
    /// One of these; which bound is met first depends on the machine.
    says: &'static [&'static str],
    timeout: &'static str,
    requests_min: usize,
}

const fn mail(name: &'static str, says: &'static [&'static str], answer: Answer) -> Case {
    let requests_min = REQUESTS_MIN;
    Case { name, product: "email_security", answer, says, timeout: "2s", requests_min }
}

/// A stanza with the hostile connector and a good one, whose records alone are kept.
fn stanza(case: &Case, port: u16, good: &Config) -> Config {
    let own = match case.product {
        "apex_central" => ("bad.application_id", "1-2-3"),
        "cloud_app_security" => ("bad.services", "sharepoint"),
        _ => ("bad.username", "admin@example.com"),
    };
    let mut config = good.clone();
    let username = EmailConfig::default().username;
    config.inputs = config.inputs.into_iter().map(|input| input.without("connector")).collect();
    config.inputs = config.inputs.into_iter().map(|input| input.without("username")).collect();
    config.inputs = config.inputs.into_iter().map(|input| input.without("lookback")).collect();
    config.outputs =
        config.outputs.into_iter().map(|output| output.set("match", "tm.good")).collect();
    config.with(&[
        ("connectors", "bad, good"),
        ("good.connector", "email_security"),
        ("good.username", &username),
        ("good.lookback", "1h"),
        ("bad.connector", case.product),
        ("bad.base_url", &format!("http://127.0.0.1:{port}")),
        ("bad.timeout", case.timeout),
        ("bad.rate_limit", "none"),
        own,
        ("tag_format", "tm.{connector}"),
    ])
}

/// The most memory that a process ever had.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

fn run(case: Case) {
    let (elsewhere, visits) = listen_elsewhere();
    let vendor = Vendor::start(case.answer, elsewhere);
    let (place, sim) = (Place::new(), simulate(email()));
    let config = stanza(&case, vendor.port, &config(&sim, &place));
    let host = Host::start(&place, &config, &[]);
    wait_delivered(&host, &sim, &place.out());
    let said = || {
        let log = host.log();
        let found = case.says.iter().find_map(|text| log.lines().find(|line| line.contains(text)));
        found.map(str::to_owned).or(case.says.is_empty().then(|| "[bad]".to_owned()))
    };
    let line = wait(case.name, || host.log_tail(), said);
    assert!(line.contains("[bad]"), "{}: {line}", case.name);
    let again = || (vendor.requests.load(Ordering::Relaxed) >= case.requests_min).then_some(());
    wait(case.name, || host.log_tail(), again);
    let peak = peak_bytes(host.pid());
    let report = host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact(case.name);
    assert!(peak < MEMORY_BYTES_MAX, "{}: {peak} bytes", case.name);
    assert_eq!(visits.load(Ordering::Relaxed), 0, "{}: somebody else was asked", case.name);
    let (asked, with_key) = (&vendor.requests, &vendor.with_key);
    assert_eq!(asked.load(Ordering::Relaxed), with_key.load(Ordering::Relaxed), "{}", case.name);
    let complaints = report.log.lines().filter(|line| line.contains("[bad]"));
    let complaints = complaints.filter(|line| !line.contains("[ info]")).count();
    assert!(complaints < LINES_MAX, "{}: {complaints} lines\n{}", case.name, report.log);
    assert!(!report.log.contains("failed inside"), "{}\n{}", case.name, report.log);
    eprintln!("{}: {} MB at most", case.name, peak / MB);
}

/// Answers with a success of this body and type.
pub fn success(stream: &mut TcpStream, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// Begins a success that never ends, and goes on with `piece`.
fn endless(stream: &mut TcpStream, start: &str, piece: &[u8]) -> io::Result<()> {
    let length = 10_000 * MB;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{start}");
    stream.write_all(head.as_bytes())?;
    loop {
        stream.write_all(piece)?;
    }
}

/// A gibibyte of spaces in a megabyte.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let spaces = vec![b' '; 1 << 20];
    (0..1024).for_each(|_| encoder.write_all(&spaces).unwrap());
    encoder.finish().unwrap()
});

#[test]
fn answers_that_lead_elsewhere_or_never_end() {
    at_once(
        vec![
            mail(
                "a redirect",
                &["the address redirects, which is not followed"],
                |stream, _, vendor| {
                    let port = vendor.elsewhere;
                    let to = format!("Location: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n");
                    stream.write_all(format!("HTTP/1.1 302 Found\r\n{to}\r\n").as_bytes())
                },
            ),
            Case {
                product: "cloud_app_security",
                ..mail("a link to another host", &["is not followed"], |stream, _, vendor| {
                    let port = vendor.elsewhere;
                    let body = format!(
                        r#"{{"security_events":[{{}}],"next_link":"http://127.0.0.1:{port}/x"}}"#
                    );
                    success(stream, "", body.as_bytes())
                })
            },
            // Each page has a token that nobody has seen, almost as long as a request can carry.
            Case {
                requests_min: 300,
                ..mail("endless pages", &[], |stream, _, vendor| {
                    let number = vendor.number();
                    let token = format!("{number}{}", "t".repeat(4_000));
                    let body = format!(r#"{{"nextToken":"{token}","logs":[{{"n":{number}}}]}}"#);
                    success(stream, "", body.as_bytes())
                })
            },
            mail("the same token for ever", &["lead in a circle"], |stream, _, vendor| {
                let number = vendor.number();
                let body = format!(r#"{{"nextToken":"t","logs":[{{"n":{number}}}]}}"#);
                success(stream, "", body.as_bytes())
            }),
            mail(
                "a token that no address holds",
                &["bytes, which no request can carry"],
                |stream, _, _| {
                    let token = "t".repeat(200_000);
                    let body = format!(r#"{{"nextToken":"{token}","logs":[{{}}]}}"#);
                    success(stream, "", body.as_bytes())
                },
            ),
            Case {
                requests_min: 1,
                ..mail("a wait for ever", &["HTTP 503"], |stream, _, _| {
                    let wait = "Retry-After: 99999999999999\r\nContent-Length: 0\r\n";
                    stream.write_all(format!("HTTP/1.1 503 No\r\n{wait}\r\n").as_bytes())
                })
            },
        ],
        run,
    );
}

#[test]
fn answers_that_are_too_large_or_too_slow() {
    let cases = vec![
        mail(
            "a bomb",
            &["no whole answer within 2 s", "the answer is larger than"],
            |stream, _, _| success(stream, "Content-Encoding: gzip\r\n", &BOMB),
        ),
        mail(
            "ten gigabytes",
            &["a part of the answer is too large", "no whole answer within 2 s"],
            |stream, _, _| endless(stream, "", &[b' '; 1 << 16]),
        ),
        Case {
            timeout: "60s",
            ..mail(
                "a record without an end",
                &["a part of the answer is too large"],
                |stream, _, _| endless(stream, "{\"logs\":[{\"a\":\"", &[b'x'; 1 << 16]),
            )
        },
        Case {
            timeout: "60s",
            ..mail(
                "a frame without an end",
                &["a part of the answer is too large"],
                |stream, _, _| endless(stream, "{\"logs\":[],\"a\":\"", &[b'x'; 1 << 16]),
            )
        },
        mail(
            "nesting without an end",
            &["a part of the answer is too large", "no whole answer within 2 s"],
            |stream, _, _| endless(stream, "{\"logs\":[", &[b'['; 1 << 16]),
        ),
        Case {
            timeout: "60s",
            ..mail("a refusal without an end", &["the answer is larger than"], |stream, _, _| {
                stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 10000000000\r\n\r\n")?;
                loop {
                    stream.write_all(&[b'x'; 1 << 16])?;
                }
            })
        },
        mail("a drip", &["no whole answer within 2 s"], |stream, _, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(20));
            }
        }),
        mail("many records of nothing", &[], |stream, _, _| {
            let body = format!("{{\"logs\":[{}0]}}", "0,".repeat(100_000));
            success(stream, "", body.as_bytes())
        }),
    ];
    at_once(cases, run);
}

#[test]
fn answers_that_are_no_answers() {
    let cases = vec![
        mail("many headers", &["the connection failed"], |stream, _, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-Header: of no use\r\n")?;
            }
        }),
        mail("a header without an end", &["the connection failed"], |stream, _, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-Header: ")?;
            loop {
                stream.write_all(&[b'x'; 1 << 16])?;
            }
        }),
        mail("answers before the answer", &["no whole answer within 2 s"], |stream, _, _| {
            loop {
                // As fast as it can, it is a test of how fast a debug build reads on a busy machine.
                thread::sleep(Duration::from_millis(1));
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")?;
            }
        }),
        mail("no HTTP", &["the connection failed"], |stream, _, _| {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
        }),
        mail("a number without an end", &["cannot be read"], |stream, _, _| {
            let body = format!("{{\"logs\":[{}]", "9".repeat(2_000_000));
            success(stream, "", body.as_bytes())
        }),
        mail("bytes that are no text", &["the answer is not UTF-8"], |stream, _, _| {
            success(stream, "", b"{\"logs\":[{\"a\":\"\xff\xfe\"}]}")
        }),
        mail("lines for the log", &["HTTP 403"], |stream, _, _| {
            let body = "\n2026-01-01 [error] [input:other] forged\u{1b}[2J\u{7}".repeat(1000);
            let length = body.len();
            let head = format!("HTTP/1.1 403 No\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())
        }),
    ];
    at_once(cases, run);
}

#[test]
fn clocks_that_are_years_off() {
    fn dated(stream: &mut TcpStream, date: &str) -> io::Result<()> {
        success(stream, &format!("Date: {date}\r\n"), b"{\"logs\":[]}")
    }
    let cases = vec![
        mail("a clock of long ago", &["s ahead of the vendor's"], |stream, _, _| {
            dated(stream, "Sat, 01 Jan 2000 00:00:00 GMT")
        }),
        mail("a clock of the far future", &["s behind the vendor's"], |stream, _, _| {
            dated(stream, "Fri, 01 Jan 2100 00:00:00 GMT")
        }),
        // A refusal teaches a signed request the vendor's clock; this one is the last there is.
        Case {
            product: "apex_central",
            // So that time goes on after the lesson.
            requests_min: 8,
            ..mail("the end of time", &["HTTP 401"], |stream, _, _| {
                let date = "Date: 31 Dec 262142 23:59:59 GMT\r\nContent-Length: 0\r\n";
                stream.write_all(format!("HTTP/1.1 401 No\r\n{date}\r\n").as_bytes())
            })
        },
    ];
    at_once(cases, run);
}

/// Nothing of what a vendor says can pass for a line of somebody else.
#[test]
fn what_a_vendor_says_is_one_line_of_one_connector() {
    let vendor = Vendor::start(
        |stream, _, _| {
            let mut body = String::new();
            let _ = write!(body, "no\r\n[2026/01/01 00:00:00] [error] forged {KEY}\u{1b}[31m");
            let length = body.len();
            let head = format!("HTTP/1.1 403 No\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())
        },
        0,
    );
    let (place, sim) = (Place::new(), simulate(email()));
    let url = format!("http://127.0.0.1:{}", vendor.port);
    let host = Host::start(&place, &config(&sim, &place).with(&[("base_url", &url)]), &[]);
    host.wait_log("forged");
    let report = host.stop();
    for line in report.log.lines().filter(|line| line.contains("forged")) {
        assert!(line.contains("[input:trendmicro:"), "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}
