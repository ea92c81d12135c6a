//! Receivers that speak just enough of each protocol to be sent to, and keep what came.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rmpv::Value as Pack;
use serde_json::{Deserializer, Value};

/// One event as a receiver has it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The key under which the receiver stores it, if the protocol has one.
    pub key: Option<String>,
    /// What else the protocol says about it: index, label, path, tag.
    pub about: String,
    pub record: Value,
}

/// A protocol: from a request to events and the answer's body; `None` refuses it.
pub type Read = fn(&Request) -> Option<(Vec<Event>, String)>;

/// An HTTP request.
pub struct Request {
    /// Method and target.
    line: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// What came, in order.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<Vec<Event>>>);

impl Received {
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, events: Vec<Event>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }
}

/// Serves each connection in a thread of its own, until the test process ends.
fn serve(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    port
}

/// A receiver over HTTP; returns its port.
pub fn http(read: Read, received: &Received) -> u16 {
    let received = received.clone();
    serve(move |stream| while exchange(&stream, read, &received).is_some() {})
}

fn exchange(stream: &TcpStream, read: Read, received: &Received) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    (reader.read_line(&mut line).ok()? > 0).then_some(())?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, text) = match read(&Request { line, headers, body }) {
        Some((events, answer)) => {
            received.add(events);
            ("200 OK", answer)
        }
        None => ("400 Bad Request", String::new()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut stream = stream;
    stream.write_all(answer.as_bytes()).ok()
}

fn documents(body: &[u8]) -> Vec<Value> {
    Deserializer::from_slice(body).into_iter().map(Result::unwrap).collect()
}

/// Elasticsearch and OpenSearch: `POST /_bulk`, an action and a document per record.
pub fn bulk(request: &Request) -> Option<(Vec<Event>, String)> {
    let is_allowed = request.headers.get("authorization")? == "Basic dXNlcjpwYXNzd29yZA==";
    if !is_allowed || !request.line.starts_with("POST /_bulk") {
        return None;
    }
    let mut events = Vec::new();
    for pair in documents(&request.body).chunks(2) {
        let action = pair[0].get("create").or(pair[0].get("index"))?;
        events.push(Event {
            key: action["_id"].as_str().map(str::to_owned),
            about: action["_index"].as_str()?.to_owned(),
            record: pair.get(1)?.clone(),
        });
    }
    let item = r#"{"create":{"status":201}}"#;
    let items = vec![item; events.len()].join(",");
    Some((events, format!(r#"{{"errors":false,"items":[{items}]}}"#)))
}

/// The HTTP Event Collector of Splunk: an object with `event` per record.
pub fn splunk(request: &Request) -> Option<(Vec<Event>, String)> {
    let is_allowed = request.headers.get("authorization")? == "Splunk token-of-the-tests";
    if !is_allowed || !request.line.starts_with("POST /services/collector") {
        return None;
    }
    let event = |value: Value| Event {
        key: None,
        about: value["sourcetype"].as_str().unwrap_or_default().to_owned(),
        record: value["event"].clone(),
    };
    let events = documents(&request.body).into_iter().map(event).collect();
    Some((events, r#"{"text":"Success","code":0}"#.to_owned()))
}

/// Loki: streams of labels with lines.
pub fn loki(request: &Request) -> Option<(Vec<Event>, String)> {
    if !request.line.starts_with("POST /loki/api/v1/push") {
        return None;
    }
    let mut events = Vec::new();
    for stream in documents(&request.body).remove(0)["streams"].as_array()? {
        for line in stream["values"].as_array()? {
            events.push(Event {
                key: None,
                about: format!("{} {}", stream["stream"]["job"], stream["stream"]["msg_class"]),
                record: serde_json::from_str(line[1].as_str()?).ok()?,
            });
        }
    }
    Some((events, String::new()))
}

/// S3: an object per upload, a record per line.
pub fn s3(request: &Request) -> Option<(Vec<Event>, String)> {
    let is_signed = request.headers.get("authorization")?.starts_with("AWS4-HMAC-SHA256");
    let path = request.line.strip_prefix("PUT ").filter(|_| is_signed)?;
    let about = path.split(' ').next()?.to_owned();
    let event = |record| Event { key: None, about: about.clone(), record };
    Some((documents(&request.body).into_iter().map(event).collect(), String::new()))
}

/// A receiver of the forward protocol that acknowledges chunks; returns its port.
pub fn forward(received: &Received) -> u16 {
    let received = received.clone();
    serve(move |stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(message) = rmpv::decode::read_value(&mut reader) {
            received.add(entries(&message));
            let Some(chunk) = message[2]["chunk"].as_str() else { continue };
            let answer = Pack::Map(vec![("ack".into(), chunk.into())]);
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &answer).unwrap();
            if (&stream).write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

/// The entries of a message, which have to be `[time, record]` and nothing else.
fn entries(message: &Pack) -> Vec<Event> {
    let packed = |bytes: &[u8]| {
        let (mut rest, mut found) = (bytes, Vec::new());
        while !rest.is_empty() {
            found.push(rmpv::decode::read_value(&mut rest).unwrap());
        }
        found
    };
    let entries = match &message[1] {
        Pack::Array(entries) => entries.clone(),
        Pack::Binary(bytes) => packed(bytes),
        Pack::String(text) => packed(text.as_bytes()),
        other => panic!("not a list of entries: {other}"),
    };
    let event = |entry: &Pack| {
        let pair = entry.as_array().unwrap();
        let is_plain = pair.len() == 2 && matches!(pair[0], Pack::Ext(0, _)) && pair[1].is_map();
        assert!(is_plain, "an entry that receivers do not know: {entry}");
        let about = message[0].as_str().unwrap().to_owned();
        Event { key: None, about, record: json(&pair[1]) }
    };
    entries.iter().map(event).collect()
}

fn json(value: &Pack) -> Value {
    match value {
        Pack::Map(pairs) => {
            let pair =
                |(key, value): &(Pack, Pack)| (key.as_str().unwrap().to_owned(), json(value));
            Value::Object(pairs.iter().map(pair).collect())
        }
        Pack::Array(items) => items.iter().map(json).collect(),
        Pack::Boolean(is_true) => (*is_true).into(),
        Pack::Integer(number) => number.as_i64().map_or(Value::Null, Value::from),
        Pack::F64(number) => (*number).into(),
        Pack::String(text) => text.as_str().unwrap_or_default().into(),
        _ => Value::Null,
    }
}
