//! Decodes what the plugin hands over, as the host's log event decoder does, and judges it.

use rmpv::Value;
use serde_json::{Map, Number, Value as Json, json};

use crate::options::{Abi, Processor};

/// Group markers are records whose seconds are -1 (start) or -2 (end) in 32 bits.
const MARKER_SECS_MIN: u64 = 0xffff_fffe;
const NANOS_PER_SEC: u32 = 1_000_000_000;
const SECS_END: u64 = 1 << 31;

/// One record of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Seconds since 1970.
    pub secs: u64,
    /// Nanoseconds of the second.
    pub nanos: u32,
    /// The map.
    pub body: Value,
    /// Where its bytes begin and end in the buffer.
    pub start: usize,
    /// See `start`.
    pub end: usize,
}

/// What a buffer holds, up to the first malformed record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The records before the first malformed one, markers excluded.
    pub records: Vec<Record>,
    /// Every msgpack object of the buffer, well-formed record or not.
    pub objects: u64,
    /// Why decoding stopped before the end.
    pub malformed: Option<String>,
    /// Broken rules: name and case.
    pub violations: Vec<(&'static str, String)>,
}

impl Decoded {
    /// The number this line of hosts adds to its record counter.
    pub fn count(&self, abi: Abi) -> u64 {
        if abi == Abi::From511 { self.records.len() as u64 } else { self.objects }
    }
}

/// Decodes a buffer as `abi` would.
pub fn decode(data: &[u8], abi: Abi) -> Decoded {
    let mut decoded = Decoded::default();
    let mut rest = data;
    while !rest.is_empty() {
        let start = data.len() - rest.len();
        let value = match rmpv::decode::read_value(&mut rest) {
            Ok(value) => value,
            Err(error) => {
                note(&mut decoded, format!("offset {start}: {error}"));
                return decoded;
            }
        };
        decoded.objects += 1;
        if decoded.malformed.is_some() {
            continue;
        }
        match event(value) {
            Ok((secs, nanos, body)) => {
                let end = data.len() - rest.len();
                take(&mut decoded, abi, Record { secs, nanos, body, start, end });
            }
            Err(error) => note(&mut decoded, format!("offset {start}: {error}")),
        }
    }
    decoded
}

fn note(decoded: &mut Decoded, text: String) {
    if decoded.malformed.is_none() {
        decoded.violations.push(("malformed_record", text.clone()));
        decoded.malformed = Some(text);
    }
}

/// Applies the rules about time, some of which poison the chunk on some hosts.
fn take(decoded: &mut Decoded, abi: Abi, record: Record) {
    let at = format!("offset {}: {}.{:09}", record.start, record.secs, record.nanos);
    if record.nanos >= NANOS_PER_SEC {
        decoded.violations.push(("nanoseconds_out_of_range", at.clone()));
        if abi == Abi::From511 {
            decoded.malformed = Some(at);
            return;
        }
    }
    if record.secs >= MARKER_SECS_MIN && record.nanos == 0 {
        decoded.violations.push(("group_marker", at));
        return;
    }
    if record.secs >= SECS_END {
        decoded.violations.push(("seconds_out_of_range", at.clone()));
        if abi != Abi::From511 {
            decoded.malformed = Some(at);
            return;
        }
    }
    decoded.records.push(record);
}

fn event(value: Value) -> Result<(u64, u32, Value), String> {
    let Value::Array(mut root) = value else { return Err("the root is no array".to_owned()) };
    if root.len() != 2 {
        return Err(format!("the root has {} elements", root.len()));
    }
    let body = root.pop().unwrap_or(Value::Nil);
    let mut time = root.pop().unwrap_or(Value::Nil);
    if !body.is_map() {
        return Err("the body is no map".to_owned());
    }
    if let Value::Array(header) = &mut time {
        if header.len() != 2 || !header[1].is_map() {
            return Err("the header is not [time, map]".to_owned());
        }
        time = header.swap_remove(0);
    }
    let (secs, nanos) = event_time(&time)?;
    Ok((secs, nanos, body))
}

fn event_time(time: &Value) -> Result<(u64, u32), String> {
    match time {
        Value::Integer(number) => {
            number.as_u64().map(|secs| (secs, 0)).ok_or_else(|| format!("time {number}"))
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the host cuts the same way"
        )]
        Value::F32(_) | Value::F64(_) => {
            let secs = time.as_f64().unwrap_or(f64::NAN);
            if !secs.is_finite() || secs < 0.0 {
                return Err(format!("time {secs}"));
            }
            Ok((secs as u64, (secs.fract() * f64::from(NANOS_PER_SEC)) as u32))
        }
        Value::Ext(0, bytes) if bytes.len() == 8 => {
            let word = |at: usize| {
                u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            };
            Ok((u64::from(word(0)), word(4)))
        }
        other => Err(format!("unknown time format {other}")),
    }
}

/// The buffer after the processors, or None when nothing is left of it. A new buffer holds only
/// records that could be decoded, as a re-encoding processor leaves them.
pub fn process(
    data: &[u8],
    decoded: &Decoded,
    processor: Processor,
    seen: &mut u64,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for record in &decoded.records {
        *seen += 1;
        let due = |every: Option<u64>| every.is_some_and(|every| seen.is_multiple_of(every.max(1)));
        if processor.drop_all || due(processor.drop_every) {
            continue;
        }
        let bytes = &data[record.start..record.end];
        out.extend_from_slice(bytes);
        if due(processor.add_every) {
            out.extend_from_slice(bytes);
        }
    }
    Some(out).filter(|out| !out.is_empty())
}

/// The line a journal or a file output holds for a record.
pub fn line(tag: &str, record: &Record) -> String {
    let time = format!("{}.{:09}", record.secs, record.nanos);
    let mut line = json!({ "tag": tag, "time": time, "record": json_of(&record.body) }).to_string();
    line.push('\n');
    line
}

/// The line `out_stdout` shows for a journal line; None for one that is no such line.
pub fn stdout_line(line: &str) -> Option<String> {
    let row: Json = serde_json::from_str(line).ok()?;
    let record = row.get("record")?.to_string();
    let fields = record.strip_prefix('{')?;
    let comma = if fields == "}" { "" } else { "," };
    let time = row.get("time")?.as_str()?;
    Some(format!("{{\"date\":{time},\"tag\":{}{comma}{fields}\n", row.get("tag")?))
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(flag) => Json::Bool(*flag),
        Value::Integer(number) => number
            .as_u64()
            .map(Number::from)
            .or_else(|| number.as_i64().map(Number::from))
            .map_or(Json::Null, Json::Number),
        Value::F32(float) => Number::from_f64(f64::from(*float)).map_or(Json::Null, Json::Number),
        Value::F64(float) => Number::from_f64(*float).map_or(Json::Null, Json::Number),
        Value::String(text) => Json::String(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        Value::Binary(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        Value::Array(items) => Json::Array(items.iter().map(json_of).collect()),
        Value::Map(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                let key = match json_of(key) {
                    Json::String(text) => text,
                    other => other.to_string(),
                };
                map.insert(key, json_of(value));
            }
            Json::Object(map)
        }
        Value::Ext(kind, bytes) => json!({ "ext": kind, "bytes": String::from_utf8_lossy(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(secs: u32, nanos: u32, n: u64) -> Vec<u8> {
        let mut time = secs.to_be_bytes().to_vec();
        time.extend(nanos.to_be_bytes());
        let map = Value::Map(vec![("n".into(), n.into())]);
        packed(&Value::Array(vec![Value::Ext(0, time), map]))
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, value).unwrap();
        out
    }

    #[test]
    fn numbers_stay_exact() {
        let decoded = decode(&record(7, 5, u64::MAX), Abi::From511);
        let text = line("t", &decoded.records[0]);
        let max = u64::MAX;
        let expected =
            format!("{{\"tag\":\"t\",\"time\":\"7.000000005\",\"record\":{{\"n\":{max}}}}}\n");
        assert_eq!(text, expected);
        let shown = format!("{{\"date\":7.000000005,\"tag\":\"t\",\"n\":{max}}}\n");
        assert_eq!(stdout_line(&text), Some(shown));
    }

    #[test]
    fn decoding_stops_at_a_bad_record_and_goes_on_counting_objects() {
        let mut data = record(1, 0, 1);
        data.extend(packed(&Value::Array(vec![Value::Nil, Value::Map(Vec::new())])));
        data.extend(record(1, 0, 2));
        let decoded = decode(&data, Abi::From511);
        assert_eq!((decoded.records.len(), decoded.objects), (1, 3));
        assert_eq!(decoded.violations.len(), 1);
        assert!(decoded.malformed.is_some());
    }

    #[test]
    fn times_that_poison_depend_on_the_host() {
        let late = record(1 << 31, 0, 1);
        assert!(decode(&late, Abi::From511).malformed.is_none());
        assert!(decode(&late, Abi::Before41).malformed.is_some());
        let nanos = record(1, NANOS_PER_SEC, 1);
        assert!(decode(&nanos, Abi::From511).malformed.is_some());
        assert!(decode(&nanos, Abi::Before41).malformed.is_none());
        let marker = decode(&record(u32::MAX, 0, 1), Abi::Before41);
        assert_eq!((marker.records.len(), marker.violations[0].0), (0, "group_marker"));
    }

    #[test]
    fn processors_drop_and_add() {
        let data: Vec<u8> = (1..=4).flat_map(|n| record(1, 0, n)).collect();
        let decoded = decode(&data, Abi::From511);
        let count = |processor| {
            let out = process(&data, &decoded, processor, &mut 0);
            out.map_or(0, |out| decode(&out, Abi::From511).records.len())
        };
        let none = Processor::default();
        assert_eq!(count(Processor { drop_every: Some(2), ..none }), 2);
        assert_eq!(count(Processor { add_every: Some(2), ..none }), 6);
        assert_eq!(count(Processor { drop_all: true, ..none }), 0);
    }
}
