//! Records: the things that the vendor reports, transcoded from JSON in one pass.
//!
//! A body is MessagePack from here on. Integers beyond 64 bits become strings of their digits,
//! never floats; key order, repeated keys and unicode stay. The identity is a hash of the body with
//! sorted keys, so it survives a vendor who writes the same record in another order.
//!
//! The bodies of many records lie in one piece of memory, and their identities are computed
//! together: an allocation and a hash for each would cost more than everything else.

mod transcode;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

use crate::clock::Time;
use crate::error::Result;
use crate::identity::Hasher;
pub use crate::identity::Id;
use crate::json::Reader;
use crate::msgpack::{self, View};
use crate::outline::{self, Outline, Path};
pub use crate::outline::{MemberPlace, Prefix};
use transcode::Writer;

/// A segment with more than this takes no more records. Whoever consumes records frees them by the
/// segment, so this is about what is held twice.
const SEGMENT_BYTES: usize = 256 * 1024;

/// With so much, what was read is handed over before the answer's end: as events, it makes about a
/// batch.
const RICH_BYTES: usize = 2 * (SEGMENT_BYTES - SEGMENT_BYTES / 8);

/// One vendor record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The record as a MessagePack map.
    pub body: &'a [u8],
    /// The vendor's own text of it; empty unless it was asked for.
    pub text: &'a str,
    /// Where the members of its body lie; empty unless that was asked for.
    pub members: &'a [MemberPlace],
    /// Its `event_id`: the same for equal records.
    pub id: Id,
    /// What tells it from the other records of its stream. It is `id`, unless the vendor gives
    /// records a name of their own.
    pub key: Id,
    /// When it happened, if the vendor says so in a form that we understand.
    pub time: Option<Time>,
}

/// The records of one answer, or of a part of it.
#[derive(Default)]
pub struct Records {
    segments: Vec<Segment>,
    seen: Seen,
}

/// What an answer has shown, whether its records are still here or were handed over on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How many records.
    pub records: usize,
    /// The greatest of their names that are numbers.
    pub greatest: Option<u64>,
}

/// Some records, one after another.
#[derive(Default)]
struct Segment {
    bodies: Vec<u8>,
    /// The vendor's own texts, if they are kept.
    texts: String,
    /// Where the members of each lie, likewise.
    members: Vec<MemberPlace>,
    entries: Vec<Entry>,
    ids: Vec<Id>,
}

/// What is known of one record: where its part of each list ends, and its id and key within the
/// segment's ids.
struct Entry {
    ends: Ends,
    id: usize,
    key: usize,
    time: Option<Time>,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    body: usize,
    text: usize,
    members: usize,
}

impl Segment {
    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let ends = self.entries.iter().map(|entry| entry.ends);
        let starts = std::iter::once(Ends::default()).chain(ends);
        self.entries.iter().zip(starts).map(|(Entry { ends, id, key, time }, start)| Record {
            body: &self.bodies[start.body..ends.body],
            text: &self.texts[start.text..ends.text],
            members: &self.members[start.members..ends.members],
            id: self.ids[*id],
            key: self.ids[*key],
            time: *time,
        })
    }

    /// Where the last record ends.
    fn ends(&self) -> Ends {
        let (body, text) = (self.bodies.len(), self.texts.len());
        Ends { body, text, members: self.members.len() }
    }
}

impl Records {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.entries.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// What the answer has shown up to the last of them.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Shows them in the vendor's order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.segments.iter().flat_map(Segment::records)
    }

    /// Shows them in the vendor's order and frees them on the way, so that what is made of them does
    /// not come on top of them.
    pub fn consume(self, each: impl FnMut(Record<'_>)) {
        let mut each = each;
        for segment in self.segments {
            segment.records().for_each(&mut each);
        }
    }
}

/// Reads the records of one answer.
pub struct RecordReader {
    shape: Shape,
    keeps_text: bool,
    /// With what the message of every identity begins.
    origin: Vec<u8>,
    records: Records,
    segment: Segment,
    hasher: Hasher,
    outline: Outline,
    name: Path,
    time: Path,
}

impl RecordReader {
    /// A reader of records of that shape.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            keeps_text: false,
            origin: shape.origin(),
            records: Records::default(),
            segment: Segment::default(),
            hasher: Hasher::default(),
            outline: Outline::default(),
            name: Path::new(shape.name),
            time: Path::new(shape.time),
        }
    }

    /// Keeps each record's own text, and where its members lie, beside what is read of it.
    pub fn keep_text(&mut self, keeps_text: bool) {
        self.keeps_text = keeps_text;
        self.outline.keep_members(keeps_text);
    }

    /// Reads a text that is one record.
    ///
    /// # Errors
    /// When the JSON is malformed; no well-formed value is refused.
    pub fn read(&mut self, text: &str) -> Result<()> {
        self.read_value(text, Reader::end).map(drop)
    }

    /// Reads the record with which a text from within an array begins, if it ends before the text
    /// does; returns how long it is.
    pub fn read_first(&mut self, text: &str) -> Option<usize> {
        self.read_value(text, Reader::item_end).ok()
    }

    /// Whether records enough for a batch can be taken.
    #[must_use]
    pub fn is_rich(&self) -> bool {
        let sealed = self.records.segments.iter().map(|segment| segment.bodies.len());
        sealed.sum::<usize>() + self.segment.bodies.len() >= RICH_BYTES
    }

    /// The records that were read since this was last called.
    #[must_use]
    pub fn take(&mut self) -> Records {
        self.seal();
        let seen = self.records.seen;
        std::mem::replace(&mut self.records, Records { segments: Vec::new(), seen })
    }

    /// The records that were read and not taken.
    #[must_use]
    pub fn finish(mut self) -> Records {
        self.take()
    }

    /// Reads the record with which `text` begins and after which `end` must succeed; returns where
    /// the reading ended.
    fn read_value<'a>(
        &mut self,
        text: &'a str,
        end: impl FnOnce(&mut Reader<'a>) -> Result<()>,
    ) -> Result<usize> {
        let mut reader = Reader::new(text);
        if self.segment.bodies.len() > SEGMENT_BYTES - SEGMENT_BYTES / 8 {
            self.seal();
        }
        let bodies = &mut self.segment.bodies;
        let start = bodies.len();
        if start == 0 {
            // Both grow to this at most, but for records that are larger by themselves.
            bodies.reserve(SEGMENT_BYTES);
            self.hasher.reserve(SEGMENT_BYTES);
            let texts = if self.keeps_text { SEGMENT_BYTES } else { 0 };
            self.segment.texts.reserve(texts);
        }
        self.outline.clear();
        let mut writer = Writer { out: bodies, outline: &mut self.outline };
        if let Err(error) = writer.record(&mut reader).and_then(|()| end(&mut reader)) {
            bodies.truncate(start);
            return Err(error);
        }
        let at = reader.position();
        if self.keeps_text {
            self.segment.texts.push_str(text[..at].trim_ascii());
            self.segment.members.extend_from_slice(self.outline.members());
        }
        self.identify();
        Ok(at)
    }

    /// Notes what tells the last record from others.
    fn identify(&mut self) {
        let Self { shape, origin, segment, hasher, outline, name, time, records, .. } = self;
        let bodies = segment.bodies.as_slice();
        let id = hasher.push(|out| {
            out.extend_from_slice(origin);
            outline.write_sorted(bodies, out);
        });
        // A record without its name is told apart by the whole of it.
        let name = outline.find(bodies, name).filter(|name| !name.is_blank());
        records.seen.records += 1;
        records.seen.greatest = records.seen.greatest.max(name.and_then(|name| name.as_u64()));
        let key = name.map_or(id, |name| {
            hasher.push(|out| {
                out.extend_from_slice(origin);
                shape.write_name(name, out);
            })
        });
        let time = outline.find(bodies, time).and_then(|value| parse_time(value.as_str()?));
        segment.entries.push(Entry { ends: segment.ends(), id, key, time });
    }

    /// Ends a segment.
    fn seal(&mut self) {
        if self.segment.entries.is_empty() {
            return;
        }
        let mut segment = std::mem::take(&mut self.segment);
        segment.ids = self.hasher.finish();
        self.records.segments.push(segment);
    }
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
    /// Reads texts of which each is one record.
    ///
    /// # Errors
    /// When the JSON of one is malformed; no well-formed value is refused.
    pub fn read<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Records> {
        let mut reader = RecordReader::new(*self);
        texts.into_iter().try_for_each(|text| reader.read(text))?;
        Ok(reader.finish())
    }

    /// A record with nothing in it but the name of this one, to speak of it when it is gone.
    #[must_use]
    pub fn only_name(&self, record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let name = View::new(record.body).find(self.name);
        msgpack::map(&mut out, usize::from(name.is_some()));
        if let (Some(name), Some(key)) = (name, self.name.last()) {
            msgpack::string(&mut out, key);
            outline::write_sorted(name, &mut out);
        }
        out
    }

    /// A record out of a body that was kept.
    #[must_use]
    pub fn restore<'a>(&self, body: &'a [u8], key: Id) -> Record<'a> {
        let mut message = self.origin();
        outline::write_sorted(View::new(body), &mut message);
        Record { id: Id::of(&message), key, time: None, body, text: "", members: &[] }
    }

    /// With what the message of every identity begins.
    fn origin(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for part in [self.source, self.content_type, self.variant] {
            msgpack::string(&mut out, part);
        }
        out
    }

    fn write_name(&self, name: View<'_>, out: &mut Vec<u8>) {
        match name.as_str().filter(|_| self.folds_name) {
            Some(text) => msgpack::string(out, &text.to_lowercase()),
            None => outline::write_sorted(name, out),
        }
    }
}

/// Reads a vendor time: RFC 3339 with any fraction; without an offset it is UTC.
#[must_use]
pub fn parse_time(text: &str) -> Option<Time> {
    parse_plain_time(text).or_else(|| parse_any_time(text))
}

/// Reads `YYYY-MM-DDTHH:MM:SS`, a fraction of up to nine digits, and `Z`, which is what the vendor
/// writes; anything else is for [`parse_any_time`], which takes ten times as long.
fn parse_plain_time(text: &str) -> Option<Time> {
    let (fields, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |sum: u32, byte| {
            byte.is_ascii_digit().then(|| 10 * sum + u32::from(byte - b'0'))
        })
    };
    let field = |from: usize, to: usize| number(&fields[from..to]);
    if [fields[4], fields[7], fields[10], fields[13], fields[16]] != *b"--T::" {
        return None;
    }
    let nanos = match rest {
        [b'Z'] => 0,
        [b'.', digits @ .., b'Z'] if matches!(digits.len(), 1..=9) => {
            number(digits)? * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(field(0, 4)? as i32, field(5, 7)?, field(8, 10)?)?;
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)?;
    Some(date.and_time(time).and_utc())
}

fn parse_any_time(text: &str) -> Option<Time> {
    DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok().or_else(|| {
        let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
        Some(naive.and_utc())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::transcode::DEPTH_MAX;
    use super::*;

    const SHAPE: Shape = Shape {
        source: "s",
        content_type: "c",
        variant: "",
        time: &["m", "time"],
        name: &[],
        folds_name: false,
    };

    /// A record on its own.
    struct Owned {
        body: Vec<u8>,
        id: Id,
        key: Id,
        time: Option<Time>,
    }

    fn read_as(shape: Shape, text: &str) -> Owned {
        let records = shape.read([text]).expect(text);
        let record = records.iter().next().unwrap();
        let Record { id, key, time, .. } = record;
        Owned { body: record.body.to_vec(), id, key, time }
    }

    fn read(text: &str) -> Owned {
        read_as(SHAPE, text)
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
        assert_ne!(id, read_as(elsewhere, text).id);
        // A pinned value: ids must be the same in every release, or receivers cannot deduplicate.
        assert_eq!(std::str::from_utf8(&id.hex()).unwrap(), "9d1eb3e0f0582d814ceae5153e935e1e");
    }

    #[test]
    fn a_name_tells_records_apart_and_the_id_tells_their_versions_apart() {
        let named = Shape { name: &["n"], ..SHAPE };
        let read = |text: &str| read_as(named, text);
        let (one, two) = (read(r#"{"n":"x","v":1}"#), read(r#"{"n":"x","v":2}"#));
        assert_eq!(one.key, two.key);
        assert_ne!(one.id, two.id);
        assert_ne!(one.key, read(r#"{"n":"y","v":1}"#).key);
        let folding = Shape { folds_name: true, ..named };
        let fold = |text: &str| read_as(folding, text);
        assert_eq!(fold(r#"{"n":"Ab"}"#).key, fold(r#"{"n":"aB"}"#).key);
        assert_ne!(read(r#"{"n":"Ab"}"#).key, read(r#"{"n":"aB"}"#).key);
        let records = named.read([r#"{"n":"x","v":1}"#]).unwrap();
        let value = decode(&named.only_name(&records.iter().next().unwrap()));
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
            // The outline that is noted while a record is written is the one of what was written.
            prop_assert_eq!(one.id, SHAPE.restore(&one.body, one.id).id);
            let value = decode(&one.body);
            let expected =
                if json.is_object() { json } else { serde_json::json!({ "value": json }) };
            prop_assert!(same(&expected, &value), "{} became {}", expected, value);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:0-9a-z\\\\.eE+\\- ]{0,60}") {
            let _ = SHAPE.read([text.as_str()]);
        }
    }
}
