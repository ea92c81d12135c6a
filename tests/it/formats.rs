//! Formats, from a page's bytes to the event's: what every record type becomes in every format, that
//! nothing is lost on the way, that what is redacted is gone, and that the schemas hold.
//!
//! `UPDATE_EXPECT=1 cargo test --test it formats` writes golden files, schemas and tables anew.

mod documents;
mod golden;
mod odd;
mod redaction;
mod schemas;
mod simulated;

use std::fs;
use std::path::{Path, PathBuf};

use in_trendmicro::clock::Time;
use in_trendmicro::connector::{self, Connector, PRODUCTS, Settings, Stream};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::page::PageReader;
use in_trendmicro::record::{Record, Records};
use in_trendmicro::sweep::Change;
use serde_json::{Map, Value};

/// The pages under `tests/fixtures/formats`, one per record type: product and stream.
const PAGES: &[&str] = &[
    "apex_central.agents",
    "apex_central.servers",
    "cloud_app_security.dropbox.securityrisk",
    "cloud_app_security.exchange.securityrisk",
    "cloud_app_security.onedrive.securityrisk",
    "cloud_app_security.sharepoint.dlp",
    "cloud_app_security.sharepoint.ransomware",
    "cloud_app_security.sharepoint.virtualanalyzer",
    "email_security.accepted_traffic",
    "email_security.blocked_traffic",
    "email_security.policy_events",
    "workload_security.computers",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn fixture(name: &str) -> String {
    let path = root("tests/fixtures/formats").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn updates() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

/// Compares a text with a committed file, or writes it.
fn assert_file(path: &str, text: &str) {
    if updates() {
        return fs::write(root(path), text).unwrap();
    }
    let expected = fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(
        expected == text,
        "{path} differs; write it anew with `UPDATE_EXPECT=1 cargo test --test it formats`\n{text}"
    );
}

/// When the vendor was asked, in every test.
fn polled() -> Time {
    Time::from_timestamp(1_767_323_045, 678_000_000).unwrap()
}

/// A product's connector, with all of its streams.
fn connector(product: &str) -> std::sync::Arc<dyn Connector> {
    let settings = Settings { authority: "localhost".to_owned(), ..Settings::default() };
    (connector::product(product).unwrap().connect)(&settings)
}

/// The stream of `product.stream`, handed to `read` with its connector.
fn with_stream<T>(page: &str, read: impl FnOnce(&dyn Connector, &Stream) -> T) -> T {
    let (product, name) = page.split_once('.').unwrap();
    let connector = connector(product);
    let stream = connector.streams().iter().find(|stream| stream.name == name);
    read(&*connector, stream.unwrap_or_else(|| panic!("{page} has no stream")))
}

/// Every stream of every product.
fn every_stream(mut visit: impl FnMut(&str, &Stream)) {
    for product in PRODUCTS {
        let connector = connector(product.name);
        connector.streams().iter().for_each(|stream| visit(product.name, stream));
    }
}

/// The records of a page, read as the poller reads them.
fn read(connector: &dyn Connector, stream: &Stream, page: &str, keeps_text: bool) -> Records {
    let mut reader =
        PageReader::new(connector.list(), stream.shape, false).keeping_text(keeps_text);
    reader.feed(page.as_bytes()).unwrap();
    reader.finish().unwrap().records
}

/// The events of a page, as the host gets them.
fn events(page: &str, text: &str, style: &Style) -> Vec<Value> {
    with_stream(page, |connector, stream| {
        let envelope = Envelope::new(style, stream, "vendor");
        let records = read(connector, stream, text, envelope.needs_text());
        let checked = |record: Record<'_>| {
            let told = event(&envelope, &record, None);
            // A member is the same whether it is told where it lies, or looked for.
            assert_eq!(told, event(&envelope, &Record { members: &[], ..record }, None));
            told
        };
        records.iter().map(checked).collect()
    })
}

/// The one event of a page with that record.
fn event_of(page: &str, record: &str, style: &Style) -> Value {
    let text = with_stream(page, |connector, _| format!("{{\"{}\":[{record}]}}", connector.list()));
    let mut events = events(page, &text, style);
    assert_eq!(events.len(), 1, "{record}");
    events.remove(0)
}

/// Writes an event and reads it with another reader than ours.
fn event(envelope: &Envelope, record: &Record<'_>, change: Option<Change>) -> Value {
    let mut bytes = Vec::new();
    envelope.writer().write(&mut bytes, record, polled(), change);
    let mut rest = bytes.as_slice();
    let event = rmpv::decode::read_value(&mut rest).expect("valid MessagePack");
    assert!(rest.is_empty(), "nothing follows an event");
    let [time, body] = event.as_array().expect("an array").as_slice() else {
        panic!("{event} is no pair");
    };
    assert!(matches!(time, rmpv::Value::Ext(0, bytes) if bytes.len() == 8), "{time}");
    assert!(body.is_map(), "{body}");
    json(body)
}

fn json(value: &rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(flag) => Value::from(*flag),
        rmpv::Value::Integer(number) => number
            .as_u64()
            .map(Value::from)
            .or_else(|| number.as_i64().map(Value::from))
            .expect("an integer"),
        rmpv::Value::F64(number) => Value::from(*number),
        rmpv::Value::String(text) => Value::from(text.as_str().expect("UTF-8")),
        rmpv::Value::Array(items) => items.iter().map(json).collect(),
        rmpv::Value::Map(pairs) => {
            let mut members = Map::new();
            for (key, value) in pairs {
                let mut key = key.as_str().expect("a text as key").to_owned();
                // The map would drop one of a repeated key.
                while members.contains_key(&key) {
                    key.push('\'');
                }
                members.insert(key, json(value));
            }
            Value::Object(members)
        }
        other => panic!("{other} is nothing that a record holds"),
    }
}
