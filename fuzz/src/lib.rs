//! What is fuzzed: one function per target, each of which panics when a promise is broken.
//!
//! libFuzzer calls them with bytes of its own making (`fuzz_targets/`), and a test of the plugin with
//! every file of `corpus/`, on stable and without any tool.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use in_trendmicro::checkpoint::{Sqlite, Store};
use in_trendmicro::clock::{self, Time};
use in_trendmicro::config::{Config, Format};
use in_trendmicro::connector::{self, Connector, PRODUCTS, Settings};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::error::{ErrorKind, Result};
use in_trendmicro::http::auth::{Authenticator, Scheme};
use in_trendmicro::http::{self, Request, Response, retry};
use in_trendmicro::page::{Body, PageReader};
use in_trendmicro::record::{Record, Shape};
use in_trendmicro::secret::{Credential, Secret};
use in_trendmicro::window::{Policy, Window};
use url::Url;

/// A target by its name, which is that of its corpus too.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("config", config),
    ("connector", connector),
    ("headers", headers),
    ("link", link),
    ("page", page),
    ("record", record),
    ("state", state),
];

/// A secret that must never be seen.
const CANARY: &str = "canary-5b1f-of-the-fuzzer";
/// The host that every request has to go to.
const AUTHORITY: &str = "api.tmcas.trendmicro.com";
const HOUR: Duration = Duration::from_secs(3600);

const SHAPE: Shape = Shape {
    source: "trendmicro_cloud_app_security",
    content_type: "sharepoint",
    variant: "dlp",
    time: &["message", "detection_time"],
    name: &["log_item_id"],
    folds_name: true,
};

fn now() -> Time {
    Time::from_timestamp(1_700_000_000, 0).expect("a time")
}

/// The properties of a stanza, one `KEY=VALUE` a line: whatever they are, there is a configuration or
/// one line that shows no key.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let mut properties: HashMap<String, String> = HashMap::new();
    for (key, value) in pairs {
        let key = key.to_ascii_lowercase();
        let value = match key.as_str() {
            key if key.ends_with("api_key") => format!("{CANARY}{value}"),
            key if key.ends_with("proxy") => value.replace("PASSWORD", CANARY),
            _ => value.to_owned(),
        };
        properties.entry(key).or_insert(value);
    }
    let lookup = |key: &str| properties.get(&key.to_ascii_lowercase()).cloned();
    let Err(error) = Config::read(&lookup) else { return };
    let line = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Config, "{line}");
    assert!(!line.contains(CANARY), "a key is shown");
    assert!(!line.chars().any(char::is_control), "{line:?} is more than a line");
}

/// One answer of one product, in pieces: the first byte chooses product and stream, the second the
/// size of the pieces.
pub fn connector(data: &[u8]) {
    let [choice, size, body @ ..] = data else { return };
    let connector = connect(usize::from(choice >> 4));
    let stream = usize::from(choice & 0xf) % connector.streams().len();
    let of_stream = &connector.streams()[stream];
    let Ok(body) = read(connector.list(), of_stream.shape, false, body, *size) else { return };
    let response = Response { status: 200, ..Response::default() };
    let Ok(page) = connector::read(&*connector, &response, body) else { return };
    for format in [Format::Envelope, Format::Ecs, Format::Ocsf, Format::Raw] {
        let envelope = Envelope::new(&Style::of(format), of_stream, "c");
        for record in page.records.iter() {
            check_record(record);
            let mut event = Vec::new();
            envelope.writer().write(&mut event, &record, now(), None);
            decode(&event);
        }
    }
    if let Some(next) = page.next {
        check_request(&connector.request(stream, &window(), Some(&next)));
    }
}

/// A pointer to the next page, in each product's own place for it: wherever it leads, the request
/// goes to the configured host.
pub fn link(data: &[u8]) {
    let Ok(next) = std::str::from_utf8(data) else { return };
    for choice in 0..PRODUCTS.len() {
        let connector = connect(choice);
        let frame = serde_json::json!({
            "logs": [0], "nextToken": next,
            "security_events": [0], "next_link": next,
        });
        let records = SHAPE.read(["{}"]).expect("a record");
        if let Ok(Some(next)) = connector.read_frame(&frame.to_string(), &records) {
            check_request(&connector.request(0, &window(), Some(&next)));
        }
    }
}

/// A body, whole and in pieces: both read the same, strictly and leniently.
pub fn page(data: &[u8]) {
    let [size, body @ ..] = data else { return };
    for is_lenient in [false, true] {
        let whole = read("list", SHAPE, is_lenient, body, u8::MAX);
        let pieces = read("list", SHAPE, is_lenient, body, *size);
        match (&whole, &pieces) {
            (Ok(whole), Ok(pieces)) => {
                assert_eq!(whole.frame, pieces.frame);
                let bodies = |body: &Body| -> Vec<Vec<u8>> {
                    body.records.iter().map(|record| record.body.to_vec()).collect()
                };
                assert_eq!(bodies(whole), bodies(pieces));
                whole.records.iter().for_each(check_record);
            }
            (Err(_), Err(_)) => {}
            _ => panic!("{} whole and {} in pieces", whole.is_ok(), pieces.is_ok()),
        }
    }
}

/// A value of JSON: what serde_json reads is read here too, and what is read here is a map.
pub fn record(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match SHAPE.read([text]) {
        Ok(records) => {
            let record = records.iter().next().expect("one record");
            check_record(record);
            check_record(SHAPE.restore(&SHAPE.only_name(&record), record.key));
        }
        Err(error) => {
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(text);
            assert!(theirs.is_err(), "refused although it is JSON: {error}");
        }
    }
}

/// What a failed answer says of time, and what it repeats: the wait is bounded, a signature can still
/// be made, and the text that is shown holds no key.
pub fn headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (code, date, wait, said) = (line(), line(), line(), line());
    let date = http::http_date(date);
    let mut response = Response {
        status: code.parse().unwrap_or(503),
        date,
        retry_after: http::retry_after(wait, date.unwrap_or_else(now)),
        content_type: None,
        refusal: said.replace("KEY", CANARY).into_bytes(),
    };
    for scheme in
        [Scheme::Jwt { application_id: "a".to_owned() }, Scheme::Basic { username: "u".to_owned() }]
    {
        let credential = Arc::new(Credential::Inline(Secret::new(CANARY)));
        let authenticator = Authenticator::new(scheme, credential);
        authenticator.learn_skew(date, now());
        let later = now() + clock::delta(24 * HOUR);
        authenticator.header(&Request::get("/".to_owned()), later).expect("a header");
        let said = String::from_utf8_lossy(&response.refusal).into_owned();
        response.refusal = authenticator.redact(said).into_bytes();
        let Err(error) = retry::check(&response) else { continue };
        if let ErrorKind::Retry { floor: Some(floor) } = error.kind() {
            assert!(floor <= HOUR, "{floor:?} is too long");
        }
        assert!(!error.to_string().contains(CANARY), "the key is shown");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}

/// A state file with the log of writes beside it, whose length the first two bytes tell: it opens or
/// is refused, and what it holds can be planned with.
pub fn state(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (wal, file) = rest.split_at(length);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    fs::write(&path, file).expect("a file");
    if !wal.is_empty() {
        fs::write(dir.path().join("s-wal"), wal).expect("a file");
    }
    let Ok(mut store) = Sqlite::open(&path, "OFF") else { return };
    let policy =
        Policy { lookback: HOUR, overlap: HOUR, span_max: HOUR, records_max: 100, verify: true };
    if let Ok(saved) = store.load("s") {
        let plan = policy.plan(saved.cursor, now());
        assert!(plan.windows.len() < 100, "{} windows", plan.windows.len());
        saved.cursor.map(|cursor| (policy.reach(cursor), policy.memory(cursor)));
        for (pass, verified) in saved.verified.into_iter().enumerate() {
            let Some((verified, cursor)) = verified.zip(saved.cursor) else { continue };
            let _ = policy.plan_pass(pass, verified, cursor, now());
        }
        let _ = store.recall("s", window(), 1000);
    }
}

fn connect(choice: usize) -> Arc<dyn Connector> {
    let settings = Settings { authority: AUTHORITY.to_owned(), ..Settings::default() };
    (PRODUCTS[choice % PRODUCTS.len()].connect)(&settings)
}

fn window() -> Window {
    Window { start: now() - clock::delta(24 * HOUR), end: now() }
}

/// Reads a body in pieces of `size` bytes; 0 is 256.
fn read(list: &'static str, shape: Shape, is_lenient: bool, body: &[u8], size: u8) -> Result<Body> {
    let size = if size == 0 { 256 } else { usize::from(size) };
    let mut reader = PageReader::new(list, shape, is_lenient);
    body.chunks(size).try_for_each(|piece| reader.feed(piece))?;
    reader.finish()
}

/// A record is a map and nothing behind it: else the host drops the rest of its chunk.
fn check_record(record: Record<'_>) {
    assert!(decode(record.body).is_map(), "no map");
}

fn decode(bytes: &[u8]) -> rmpv::Value {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).expect("MessagePack");
    assert!(rest.is_empty(), "{} bytes behind it", rest.len());
    value
}

/// Joined to the configured origin, as the client does it, a target leads to the configured host.
fn check_request(request: &Request) {
    assert!(request.target.starts_with('/'), "{}", request.target);
    let Ok(url) = Url::parse(&format!("https://{AUTHORITY}{}", request.target)) else { return };
    assert_eq!(url.authority(), AUTHORITY, "{}", request.target);
    if let Some(body) = &request.body {
        serde_json::from_str::<serde_json::Value>(body).expect("a body of JSON");
    }
}
