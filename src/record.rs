//! A record: one thing the vendor reports, transcoded from JSON in one pass.
//!
//! The body is MessagePack from here on. Integers beyond 64 bits become strings of their digits,
//! never floats; key order, repeated keys and unicode stay. The identity is a hash of the body with
//! sorted keys, so it survives a vendor who writes the same record in another order.

use chrono::{DateTime, NaiveDateTime};

use crate::clock::Time;
use crate::error::Result;
use crate::json::{Kind, Reader};
use crate::msgpack::{self, View};

/// Nesting that is kept as structure. What lies deeper is kept as its JSON text, because hosts and
/// receivers walk records recursively.
const DEPTH_MAX: usize = 64;

/// A record's identity: 128 bits of a BLAKE3 hash.
///
/// It is cryptographic because the sender of a mail chooses much of its record, and must not be able
/// to make two records look like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u128);

impl Id {
    /// The id as 32 hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|i| DIGITS[(self.0 >> (124 - 4 * i)) as usize & 0xf])
    }
}

/// One vendor record.
pub struct Record {
    /// The record as a MessagePack map.
    pub body: Vec<u8>,
    /// The vendor's own text of it; empty unless it was asked for.
    pub text: String,
    /// Its `event_id`: the same for equal records.
    pub id: Id,
    /// What tells it from the other records of its stream. It is `id`, unless the vendor gives
    /// records a name of their own.
    pub key: Id,
    /// When it happened, if the vendor says so in a form that we understand.
    pub time: Option<Time>,
}

/// How the records of one stream are read.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The source, which separates identities of equal records from different products.
    pub source: &'static str,
    /// The content type, likewise.
    pub content_type: &'static str,
    /// What divides a content type into streams, likewise; empty if nothing does.
    pub variant: &'static str,
    /// The path to the event time; empty if records have none.
    pub time: &'static [&'static str],
    /// The path to the record's name; empty if only the whole record tells it from others.
    pub name: &'static [&'static str],
    /// Names that differ in case alone are the same.
    pub folds_name: bool,
}

impl Shape {
    /// Reads the next value of a page as a record.
    ///
    /// # Errors
    /// When the JSON is malformed; no well-formed value is refused.
    pub fn read(&self, reader: &mut Reader<'_>) -> Result<Record> {
        let mut body = Vec::with_capacity(1024);
        if reader.peek()? == Kind::Object {
            transcode(reader, &mut body, DEPTH_MAX)?;
        } else {
            // An event's body must be a map or the host drops the rest of its chunk.
            msgpack::map(&mut body, 1);
            msgpack::string(&mut body, "value");
            transcode(reader, &mut body, DEPTH_MAX)?;
        }
        let view = View::new(&body);
        let time = view.find(self.time).and_then(|value| parse_time(value.as_str()?));
        let id = self.identify(view);
        // A record without its name is told apart by the whole of it.
        let key = self.name_of(view).map_or(id, |name| self.identify(View::new(&name)));
        Ok(Record { id, key, time, body, text: String::new() })
    }

    /// A record with nothing in it but the name of this one, to speak of it when it is gone.
    #[must_use]
    pub fn only_name(&self, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        let name = View::new(&record.body).find(self.name);
        msgpack::map(&mut out, usize::from(name.is_some()));
        if let (Some(name), Some(key)) = (name, self.name.last()) {
            msgpack::string(&mut out, key);
            name.canonical(&mut out);
        }
        out
    }

    /// A record out of a body that was kept.
    #[must_use]
    pub fn restore(&self, body: Vec<u8>, key: Id) -> Record {
        let id = self.identify(View::new(&body));
        Record { id, key, time: None, body, text: String::new() }
    }

    /// The name of a record, unless it is missing or empty.
    fn name_of(&self, record: View<'_>) -> Option<Vec<u8>> {
        let name = record.find(self.name).filter(|name| !name.is_blank())?;
        let mut out = Vec::new();
        match name.as_str().filter(|_| self.folds_name) {
            Some(text) => msgpack::string(&mut out, &text.to_lowercase()),
            None => name.canonical(&mut out),
        }
        Some(out)
    }

    fn identify(&self, value: View<'_>) -> Id {
        let mut canonical = Vec::with_capacity(1024);
        for part in [self.source, self.content_type, self.variant] {
            msgpack::string(&mut canonical, part);
        }
        value.canonical(&mut canonical);
        let hash = blake3::hash(&canonical);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Id(u128::from_be_bytes(bytes))
    }
}

/// Reads a vendor time: RFC 3339 with any fraction; without an offset it is UTC.
#[must_use]
pub fn parse_time(text: &str) -> Option<Time> {
    DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok().or_else(|| {
        let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
        Some(naive.and_utc())
    })
}

/// Writes the next JSON value as MessagePack; `depth` is the nesting that is still allowed.
fn transcode(reader: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    match reader.peek()? {
        Kind::Object | Kind::Array if depth == 0 => msgpack::string(out, reader.skip()?),
        Kind::Object => {
            let at = msgpack::open(out);
            let mut count = 0;
            reader.object(|reader, key| {
                msgpack::string(out, &key);
                count += 1;
                transcode(reader, out, depth - 1)
            })?;
            msgpack::close_map(out, at, count);
        }
        Kind::Array => {
            let at = msgpack::open(out);
            let mut count = 0;
            reader.array(|reader| {
                count += 1;
                transcode(reader, out, depth - 1)
            })?;
            msgpack::close_array(out, at, count);
        }
        Kind::String => msgpack::string(out, &reader.string()?),
        Kind::Number => number(out, reader.number()?),
        Kind::True => {
            reader.word("true")?;
            msgpack::boolean(out, true);
        }
        Kind::False => {
            reader.word("false")?;
            msgpack::boolean(out, false);
        }
        Kind::Null => {
            reader.word("null")?;
            msgpack::nil(out);
        }
    }
    Ok(())
}

/// Writes a number exactly where MessagePack can, else as a string of its digits.
fn number(out: &mut Vec<u8>, text: &str) {
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer && text != "-0" {
        if let Ok(value) = text.parse::<u64>() {
            return msgpack::unsigned(out, value);
        }
        return match text.parse::<i64>() {
            Ok(value) => msgpack::signed(out, value),
            Err(_) => msgpack::string(out, text),
        };
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => msgpack::float(out, value),
        _ => msgpack::string(out, text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    const SHAPE: Shape = Shape {
        source: "s",
        content_type: "c",
        variant: "",
        time: &["m", "time"],
        name: &[],
        folds_name: false,
    };

    fn read(text: &str) -> Record {
        SHAPE.read(&mut Reader::new(text)).expect(text)
    }

    fn decode(body: &[u8]) -> rmpv::Value {
        let mut rest = body;
        let value = rmpv::decode::read_value(&mut rest).expect("valid MessagePack");
        assert!(rest.is_empty());
        value
    }

    /// Compares with an independent reader of each format: serde_json and rmpv.
    fn same(json: &Json, value: &rmpv::Value) -> bool {
        match json {
            Json::Null => value.is_nil(),
            Json::Bool(b) => value.as_bool() == Some(*b),
            Json::String(s) => value.as_str() == Some(s),
            Json::Number(n) => same_number(&n.to_string(), value),
            Json::Array(items) => value.as_array().is_some_and(|values| {
                items.len() == values.len() && items.iter().zip(values).all(|(i, v)| same(i, v))
            }),
            Json::Object(members) => value.as_map().is_some_and(|pairs| {
                members.len() == pairs.len()
                    && members.iter().zip(pairs).all(|((name, member), (key, value))| {
                        key.as_str() == Some(name) && same(member, value)
                    })
            }),
        }
    }

    fn same_number(text: &str, value: &rmpv::Value) -> bool {
        if let Some(digits) = value.as_str() {
            return digits == text;
        }
        if value.is_f64() {
            return value.as_f64() == text.parse().ok();
        }
        value.as_u64().map(|u| u.to_string()).or(value.as_i64().map(|i| i.to_string()))
            == Some(text.to_owned())
    }

    #[test]
    fn numbers_keep_every_digit() {
        let text = r#"{"a":18446744073709551615,"b":-9223372036854775808,
            "c":18446744073709551616,"d":-9223372036854775809,"e":0.1,"f":1e999,"g":-0,"h":1E2}"#;
        let value = decode(&read(text).body);
        let get = |i: usize| &value.as_map().unwrap()[i].1;
        assert_eq!(get(0).as_u64(), Some(u64::MAX));
        assert_eq!(get(1).as_i64(), Some(i64::MIN));
        assert_eq!(get(2).as_str(), Some("18446744073709551616"));
        assert_eq!(get(3).as_str(), Some("-9223372036854775809"));
        assert_eq!(get(4).as_f64(), Some(0.1));
        assert_eq!(get(5).as_str(), Some("1e999"));
        assert!(get(6).as_f64().is_some_and(f64::is_sign_negative));
        assert_eq!(get(7).as_f64(), Some(100.0));
    }

    #[test]
    fn what_is_not_an_object_becomes_one() {
        for text in ["null", "[1]", "\"x\"", "7"] {
            let value = decode(&read(text).body);
            assert_eq!(value.as_map().unwrap()[0].0.as_str(), Some("value"), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_kept_as_text() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let record = read(&deep);
        let mut value = &decode(&record.body).as_map().unwrap()[0].1.clone();
        while let Some(items) = value.as_array() {
            value = &items[0];
        }
        let text = value.as_str().unwrap();
        assert!(text.starts_with("[[") && text.contains('1'), "{text}");
        assert_eq!(text.matches('[').count() + DEPTH_MAX - 1, 200);
    }

    #[test]
    fn identity_ignores_order_and_space_and_nothing_else() {
        let id = read(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#).id;
        assert_eq!(id, read(r#" { "b" : {"d":null, "c":[1,2]} ,"a":1}"#).id);
        for other in [
            r#"{"a":2,"b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[2,1],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2]}}"#,
            r#"{"a":"1","b":{"c":[1,2],"d":null}}"#,
            r#"{"a":1,"b":{"c":[1,2]},"d":null}"#,
        ] {
            assert_ne!(id, read(other).id, "{other}");
        }
        let elsewhere = Shape { content_type: "other", ..SHAPE };
        let text = r#"{"a":1,"b":{"c":[1,2],"d":null}}"#;
        assert_ne!(id, elsewhere.read(&mut Reader::new(text)).unwrap().id);
        // A pinned value: ids must be the same in every release, or receivers cannot deduplicate.
        assert_eq!(std::str::from_utf8(&id.hex()).unwrap(), "27246f6bc75343c418f665d653833c11");
    }

    #[test]
    fn a_name_tells_records_apart_and_the_id_tells_their_versions_apart() {
        let named = Shape { name: &["n"], ..SHAPE };
        let read = |text: &str| named.read(&mut Reader::new(text)).unwrap();
        let (one, two) = (read(r#"{"n":"x","v":1}"#), read(r#"{"n":"x","v":2}"#));
        assert_eq!(one.key, two.key);
        assert_ne!(one.id, two.id);
        assert_ne!(one.key, read(r#"{"n":"y","v":1}"#).key);
        let folding = Shape { folds_name: true, ..named };
        let fold = |text: &str| folding.read(&mut Reader::new(text)).unwrap();
        assert_eq!(fold(r#"{"n":"Ab"}"#).key, fold(r#"{"n":"aB"}"#).key);
        assert_ne!(read(r#"{"n":"Ab"}"#).key, read(r#"{"n":"aB"}"#).key);
        let value = decode(&named.only_name(&one));
        assert_eq!(value, rmpv::Value::Map(vec![("n".into(), "x".into())]));
        for nameless in [r#"{"v":1}"#, r#"{"n":"","v":1}"#, r#"{"n":null,"v":1}"#] {
            assert_eq!(read(nameless).key, read(nameless).id, "{nameless}");
        }
    }

    #[test]
    fn times_are_read_with_any_fraction_and_missing_ones_are_none() {
        let time = |text: &str| read(&format!(r#"{{"m":{{"time":"{text}"}}}}"#)).time;
        assert_eq!(time("2023-09-28T10:00:18.12345Z").unwrap().timestamp_subsec_micros(), 123_450);
        assert_eq!(time("2023-09-28T10:00:18Z"), time("2023-09-28T12:00:18+02:00"));
        assert_eq!(time("2023-09-28T10:00:18"), time("2023-09-28T10:00:18Z"));
        assert_eq!(time("yesterday"), None);
        assert_eq!(read(r#"{"m":{"time":5}}"#).time, None);
        assert_eq!(read(r#"{"m":[]}"#).time, None);
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Json::from),
            ".{0,40}".prop_map(Json::from),
        ];
        leaf.prop_recursive(6, 200, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Json::from),
                prop::collection::hash_map(".{0,20}", inner, 0..20)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_passes_through_exactly(json in json()) {
            let compact = serde_json::to_string(&json).unwrap();
            let pretty = serde_json::to_string_pretty(&json).unwrap();
            let (one, two) = (read(&compact), read(&pretty));
            prop_assert_eq!(one.id, two.id);
            let value = decode(&one.body);
            let expected =
                if json.is_object() { json } else { serde_json::json!({ "value": json }) };
            prop_assert!(same(&expected, &value), "{} became {}", expected, value);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:0-9a-z\\\\.eE+\\- ]{0,60}") {
            let _ = SHAPE.read(&mut Reader::new(&text));
        }
    }
}
