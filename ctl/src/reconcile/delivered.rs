//! Delivered events, as outputs write them: JSON lines, bare or with a tag and time before them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use in_trendmicro::connector::Stream;
use in_trendmicro::error::{Error, Result};
use in_trendmicro::record::{Id, parse_time};
use serde_json::Value;

use crate::time::Time;

/// How deep an event may lie in a line: outputs wrap it (`{"log": …}`, `[time, …]`).
const DEPTH_MAX: usize = 4;

/// What is kept of an event.
struct Event {
    copies: u64,
    connector: String,
    msg_class: String,
    event_type: Option<String>,
    time: Option<Time>,
}

/// Delivered events by their id.
pub struct Delivered {
    events: HashMap<Id, Event>,
    lines: u64,
    unreadable: u64,
    files: usize,
}

impl Delivered {
    /// Reads files; `-` is standard input.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no event at all.
    pub fn read(files: &[PathBuf]) -> Result<Self> {
        let (events, files_count) = (HashMap::new(), files.len());
        let mut delivered = Self { events, lines: 0, unreadable: 0, files: files_count };
        for path in files {
            let fault = |error| {
                Error::config(format!("{}: cannot be read", path.display())).caused_by(error)
            };
            let reader: Box<dyn BufRead> = match path.to_str() {
                Some("-") => Box::new(std::io::stdin().lock()),
                _ => Box::new(BufReader::new(File::open(path).map_err(fault)?)),
            };
            for line in reader.split(b'\n') {
                delivered.line(&line.map_err(fault)?);
            }
        }
        if delivered.events.is_empty() {
            let text = format!("no line of {} has an event_id", list(files));
            return Err(Error::config(text));
        }
        Ok(delivered)
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.lines += 1;
        // The file output writes `tag: [time, {…}]`.
        let start = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
        let value =
            serde_json::Deserializer::from_slice(&line[start..]).into_iter::<Value>().next();
        let event = value.and_then(std::result::Result::ok).and_then(|value| {
            let event = find(&value, DEPTH_MAX)?;
            Some((id(event)?, read(event)))
        });
        match event {
            Some((id, event)) => self.events.entry(id).or_insert(event).copies += 1,
            None => self.unreadable += 1,
        }
    }

    /// How often an event was delivered.
    #[must_use]
    pub fn count(&self, id: Id) -> u64 {
        self.events.get(&id).map_or(0, |event| event.copies)
    }

    /// The ids of a stream's events whose time lies inside.
    pub fn of_stream<'a>(
        &'a self,
        connector: &'a str,
        stream: &'a Stream,
        (since, until): (Time, Time),
    ) -> impl Iterator<Item = Id> + 'a {
        let variant = stream.shape.variant;
        let is_meant = move |event: &Event| {
            event.connector == connector
                && event.msg_class == stream.msg_class
                && event.event_type.as_deref().is_none_or(|name| name == variant)
                && event.time.is_some_and(|time| since <= time && time <= until)
        };
        self.events.iter().filter(move |(_, event)| is_meant(event)).map(|(id, _)| *id)
    }

    /// What was read, for a person.
    #[must_use]
    pub fn about(&self) -> String {
        let Self { lines, unreadable, files, .. } = self;
        let mut text = format!("{lines} lines of {files} file(s)");
        if *unreadable > 0 {
            text.push_str(&format!(", {unreadable} of them without an event_id"));
        }
        text
    }
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The event in a line.
fn find(value: &Value, depth: usize) -> Option<&Value> {
    if value.get("event_id").is_some_and(Value::is_string) {
        return Some(value);
    }
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Object(members) => members.values().find_map(|value| find(value, depth)),
        Value::Array(items) => items.iter().find_map(|value| find(value, depth)),
        _ => None,
    }
}

fn id(event: &Value) -> Option<Id> {
    let text = event.get("event_id")?.as_str().filter(|text| text.len() == 32)?;
    u128::from_str_radix(text, 16).ok().map(Id)
}

fn read(event: &Value) -> Event {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let source = event.pointer("/msg_origin/source").and_then(Value::as_str).unwrap_or_default();
    let payload = event.get(source);
    // The paths to the time of the two products that are logs.
    let time = ["/timestamp", "/message/detection_time"]
        .iter()
        .find_map(|path| parse_time(payload?.pointer(path)?.as_str()?));
    let event_type = event.get("event_type").and_then(Value::as_str).map(str::to_owned);
    let (connector, msg_class) = (text("connector"), text("msg_class"));
    Event { copies: 0, connector, msg_class, event_type, time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_as_outputs_wrap_them() {
        let event = r#"{"event_id":"000000000000000000000000000000ff","connector":"m"}"#;
        let lines = [
            event.to_owned(),
            format!("tm.mail: [1700000000.5, {event}]"),
            format!(r#"{{"time":1,"event":{event}}}"#),
            "no json {".to_owned(),
            r#"{"event_id":"short"}"#.to_owned(),
            String::new(),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let delivered = Delivered::read(&[path]).unwrap();
        assert_eq!(delivered.count(Id(0xff)), 3);
        assert_eq!((delivered.lines, delivered.unreadable), (5, 2));
        assert!(delivered.about().contains("2 of them without an event_id"));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "{}\n").unwrap();
        assert!(Delivered::read(&[empty]).is_err());
    }
}
