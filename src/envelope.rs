//! From a record to an event: its time, and our metadata around the vendor's record.

use crate::clock::Time;
use crate::config::{ConnectorConfig, EcsMapping, Emit, Format, Redaction};
use crate::connector::Stream;
use crate::format::redact::Redactor;
use crate::format::{self, About, Event, Mapped, Scratch};
use crate::msgpack::{self, View};
use crate::record::Record;
use crate::sweep::Change;

/// The vendor of everything here.
const VENDOR: &str = "trendmicro";

/// How the events of a connector are written.
pub struct Style {
    /// In which format.
    pub format: Format,
    /// By which mapping of Email Security to ECS.
    pub ecs_mapping: EcsMapping,
    /// What is redacted.
    pub redaction: Redaction,
    /// Written into each event.
    pub tenant_name: Option<String>,
    /// Each says what happened to its record.
    pub has_change: bool,
}

impl Style {
    /// A format and nothing else.
    #[must_use]
    pub fn of(format: Format) -> Self {
        Self {
            format,
            ecs_mapping: EcsMapping::Full,
            redaction: Redaction::default(),
            tenant_name: None,
            has_change: false,
        }
    }

    /// What a connector is configured to write.
    #[must_use]
    pub fn of_connector(config: &ConnectorConfig) -> Self {
        Self {
            format: config.format,
            ecs_mapping: config.ecs_mapping,
            redaction: config.redaction.clone(),
            tenant_name: config.tenant_name.clone(),
            has_change: config.emit == Emit::Changes,
        }
    }
}

/// Writes the events of one stream.
pub struct Envelope {
    form: Form,
    redactor: Option<Redactor>,
}

enum Form {
    Envelope(Around),
    Raw,
    Mapped(Box<Mapped>),
}

impl Envelope {
    /// An envelope for the records of `stream`, collected by the connector of that name.
    #[must_use]
    pub fn new(style: &Style, stream: &Stream, connector: &str) -> Self {
        let about = About {
            stream,
            connector,
            tenant_name: style.tenant_name.as_deref(),
            has_change: style.has_change,
        };
        let form = match format::tables(style.format, style.ecs_mapping, &stream.shape) {
            Some(tables) => Form::Mapped(Box::new(Mapped::new(&tables, about))),
            None if style.format == Format::Raw => Form::Raw,
            None => Form::Envelope(Around::new(about)),
        };
        let redactor = Redactor::new(&style.redaction, stream.shape.source)
            .filter(|_| !style.redaction.what.is_empty());
        Self { form, redactor }
    }

    /// Whether records must bring the vendor's own text of them.
    #[must_use]
    pub fn needs_text(&self) -> bool {
        matches!(self.form, Form::Mapped(_)) && self.redactor.is_none()
    }

    /// A writer of many events.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        Writer { envelope: self, scratch: Scratch::default() }
    }
}

/// Writes events, each in the memory of the last.
pub struct Writer<'a> {
    envelope: &'a Envelope,
    scratch: Scratch,
}

impl Writer<'_> {
    /// Appends the event of `record`; without a time of its own it happened at `polled`, when the
    /// vendor was asked. What changed must be given if, and only if, the envelope was made for that.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        record: &Record<'_>,
        polled: Time,
        change: Option<Change>,
    ) {
        msgpack::event(out, record.time.unwrap_or(polled));
        let Envelope { form, redactor } = self.envelope;
        let redacted = redactor.as_ref().map(|by| by.apply(View::new(record.body)));
        let body = redacted.as_deref().unwrap_or(record.body);
        match form {
            Form::Raw => out.extend_from_slice(body),
            Form::Envelope(around) => around.write(out, record, body, change),
            Form::Mapped(mapped) => {
                let body = View::new(body);
                // The vendor's own text may hold what is redacted, and of a record that is gone we
                // have none.
                let made =
                    (redacted.is_some() || record.text.is_empty()).then(|| format::json(body));
                let text = made.as_deref().unwrap_or(record.text);
                let members = if redacted.is_none() { record.members } else { &[] };
                let event = Event { record, body, members, text, polled, change };
                mapped.write(out, &event, &mut self.scratch);
            }
        }
    }
}

/// The vendor's record under its product's name, beside our metadata.
///
/// What is the same in every event is encoded once; an event is its time, that prefix, the id, and
/// the record's own bytes.
struct Around {
    /// The map's header and every member before the id, and the id's key.
    before_id: Vec<u8>,
    /// The key of the vendor's record.
    before_record: Vec<u8>,
}

impl Around {
    fn new(about: About<'_>) -> Self {
        let About { stream, connector, tenant_name, has_change } = about;
        let mut out = Vec::new();
        let member = |out: &mut Vec<u8>, key: &str, value: &str| {
            msgpack::string(out, key);
            msgpack::string(out, value);
        };
        let count = 5 + usize::from(tenant_name.is_some()) + stream.members.len();
        msgpack::map(&mut out, count + usize::from(has_change));
        member(&mut out, "msg_class", &stream.msg_class);
        msgpack::string(&mut out, "msg_origin");
        msgpack::map(&mut out, 3);
        member(&mut out, "source", stream.shape.source);
        member(&mut out, "vendor", VENDOR);
        member(&mut out, "category", stream.category);
        if let Some(tenant_name) = tenant_name {
            member(&mut out, "tenant_name", tenant_name);
        }
        member(&mut out, "connector", connector);
        stream.members.iter().for_each(|(key, value)| member(&mut out, key, value));
        msgpack::string(&mut out, "event_id");
        let mut before_record = Vec::new();
        msgpack::string(&mut before_record, stream.shape.source);
        Self { before_id: out, before_record }
    }

    fn write(&self, out: &mut Vec<u8>, record: &Record<'_>, body: &[u8], change: Option<Change>) {
        out.extend_from_slice(&self.before_id);
        msgpack::text(out, &record.id.hex());
        if let Some(change) = change {
            msgpack::string(out, "change");
            msgpack::string(out, change.name());
        }
        out.extend_from_slice(&self.before_record);
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use rmpv::Value;

    use super::*;
    use crate::connector::Mode;
    use crate::record::Shape;

    fn event(format: Format, tenant_name: Option<&str>, json: &str) -> (Vec<u8>, Value) {
        let shape = Shape {
            source: "trendmicro_x",
            content_type: "y",
            variant: "",
            time: &["time"],
            name: &[],
            folds_name: false,
        };
        let stream = Stream {
            name: "y.z".into(),
            content_type: "y",
            msg_class: "trendmicro_x_y".into(),
            category: "c",
            members: vec![("service", "y")],
            mode: Mode::Log,
            shape,
        };
        let records = shape.read([json]).unwrap();
        let record = records.iter().next().unwrap();
        let mut out = Vec::new();
        let fallback = Time::from_timestamp(5, 0).unwrap();
        let tenant_name = tenant_name.map(str::to_owned);
        let style = Style { tenant_name, has_change: true, ..Style::of(format) };
        let envelope = Envelope::new(&style, &stream, "mail");
        envelope.writer().write(&mut out, &record, fallback, Some(Change::Added));
        let mut rest = out.as_slice();
        let value = rmpv::decode::read_value(&mut rest).unwrap();
        assert!(rest.is_empty());
        (out, value)
    }

    #[test]
    fn the_envelope_is_as_documented() {
        let (_, value) =
            event(Format::Envelope, Some("acmé"), r#"{"time":"1970-01-01T00:00:09Z","n":1}"#);
        let id = value[1]["event_id"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let keys: Vec<_> =
            value[1].as_map().unwrap().iter().map(|(k, _)| k.as_str().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "msg_class",
                "msg_origin",
                "tenant_name",
                "connector",
                "service",
                "event_id",
                "change",
                "trendmicro_x"
            ]
        );
        assert_eq!(value[1]["msg_origin"]["vendor"].as_str(), Some("trendmicro"));
        assert_eq!(value[1]["tenant_name"].as_str(), Some("acmé"));
        assert_eq!(value[1]["trendmicro_x"]["n"].as_u64(), Some(1));
    }

    #[test]
    fn raw_is_the_record_alone_and_time_falls_back() {
        let (bytes, value) = event(Format::Raw, Some("acme"), r#"{"n":1}"#);
        assert_eq!(value[1].as_map().unwrap().len(), 1);
        assert_eq!(bytes[3..7], 5_u32.to_be_bytes());
        let (_, value) = event(Format::Envelope, None, r#"{"n":1}"#);
        assert_eq!(value[1].as_map().unwrap().len(), 7);
    }
}
