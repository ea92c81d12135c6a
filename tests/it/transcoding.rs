//! Pages become records: the ids that receivers know, and every byte against independent readers of
//! JSON and MessagePack.

use in_trendmicro::clock::Time;
use in_trendmicro::connector::{Settings, product};
use in_trendmicro::error::Result;
use in_trendmicro::page::PageReader;
use in_trendmicro::record::{Id, Shape};
use proptest::prelude::*;
use rmpv::Value;
use serde_json::Value as Json;

/// A record as a page's reader gave it.
#[derive(Debug, PartialEq)]
struct Read {
    id: String,
    key: String,
    time: Option<Time>,
    body: Vec<u8>,
}

/// Reads a page in pieces of these sizes, over and over; returns its records and its frame.
fn read(
    list: &'static str,
    shape: Shape,
    page: &[u8],
    sizes: &[usize],
) -> Result<(Vec<Read>, String)> {
    let mut reader = PageReader::new(list, shape, false);
    let (mut rest, mut sizes) = (page, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        reader.feed(piece)?;
        rest = after;
    }
    let body = reader.finish()?;
    let hex = |id: Id| String::from_utf8(id.hex().to_vec()).unwrap();
    let records = body.records.iter().map(|record| Read {
        id: hex(record.id),
        key: hex(record.key),
        time: record.time,
        body: record.body.to_vec(),
    });
    Ok((records.collect(), body.frame))
}

const ODD: &str = r#"{"logs": [
    {"timestamp":"2023-09-28T13:55:33.5+02:00","b":[{"z":1,"a":{"y":[],"x":{}}},[[{"q":0,"p":-0}]]]},
    {"same":1,"other":2,"same":"again","same":null,"":"empty","é":"ünï😀","a\u0062\n":"\ud83d\ude00\u00e9\\"},
    {"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9,"10":10,"11":11,"12":12,"13":13,"14":14,
     "15":{"p":"","o":"","n":"","m":"","l":"","k":"","j":"","i":"","h":"","g":"","f":"","e":"","d":"",
     "c":"","b":"","a":""},"16":16,"17":17,"a long key that differs late: 2":2,"a long key that differs late: 1":1},
    {"n":[18446744073709551616,-9223372036854775809,18446744073709551615,-1,-32,-33,-128,-129,-32769,
     255,256,65535,65536,4294967296,0.1,1e400,1E2,-0.0,true,false,null]},
    {"timestamp":"soon"}, [1, 2], "text", 7, null
]}"#;

/// Receivers deduplicate by these ids, so they are the same in every release.
#[test]
fn ids_never_change() {
    let sim = |name: &str| {
        let path = format!("{}/tests/sim/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let pages = [
        ("email_security", sim("tmes-mailtracking-accepted-real")),
        ("cloud_app_security", sim("cas-securityrisk-exchange")),
        ("apex_central", sim("apex-agents")),
        ("workload_security", sim("cloudone-computers-all")),
        ("email_security", ODD.to_owned()),
    ];
    let mut found = String::new();
    for (name, page) in pages {
        let connector = (product(name).unwrap().connect)(&Settings::default());
        let shape = connector.streams()[0].shape;
        let (records, _) = read(connector.list(), shape, page.as_bytes(), &[usize::MAX]).unwrap();
        for record in records {
            let time = record.time.map_or("none".to_owned(), |time| time.to_rfc3339());
            found += &format!("{} {} {time}\n", record.id, record.key);
        }
    }
    assert_eq!(found, include_str!("../fixtures/ids.txt"));
}

/// What MessagePack says of a JSON value, by serde_json's reading of it.
fn expected(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::from(*value),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(expected).collect()),
        Json::Object(members) => Value::Map(
            members
                .iter()
                .map(|(key, value)| (Value::from(key.as_str()), expected(value)))
                .collect(),
        ),
        Json::Number(number) => {
            let text = number.to_string();
            let is_integer = !text.contains(['.', 'e', 'E']) && text != "-0";
            match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(value), ..) if is_integer => Value::from(value),
                (_, Ok(value), _) if is_integer => Value::from(value),
                (.., Ok(value)) if !is_integer && value.is_finite() => Value::from(value),
                _ => Value::from(text),
            }
        }
    }
}

fn json() -> impl Strategy<Value = Json> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<u128>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|n| format!("{n:e}")),
        Just("1e999".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        number.prop_map(|text| serde_json::from_str(&text).unwrap()),
        ".{0,60}".prop_map(Json::from),
        "[ -~]{0,300}".prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 100, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Json::from),
            prop::collection::vec((".{0,20}", inner), 0..20)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever the vendor says and however the network cuts it, every record is there, exactly.
    #[test]
    fn pages_pass_through_exactly(
        records in prop::collection::vec(json(), 0..12),
        is_pretty: bool,
        sizes in prop::collection::vec(prop_oneof![1_usize..40, 40_usize..4000], 1..20),
    ) {
        let page = serde_json::json!({ "before": [{ "logs": [1] }], "logs": records, "after": "]}" });
        let text = match is_pretty {
            true => serde_json::to_string_pretty(&page).unwrap(),
            false => page.to_string(),
        };
        let connector = (product("email_security").unwrap().connect)(&Settings::default());
        let shape = connector.streams()[0].shape;
        let (read, frame) = read("logs", shape, text.as_bytes(), &sizes).unwrap();
        let frame: Json = serde_json::from_str(&frame).unwrap();
        prop_assert_eq!(&frame["logs"], &Json::from(vec![0; records.len()]));
        prop_assert_eq!(read.len(), records.len());
        for (record, json) in read.iter().zip(&records) {
            let mut rest = record.body.as_slice();
            let value = rmpv::decode::read_value(&mut rest).unwrap();
            prop_assert!(rest.is_empty());
            let json = match json.is_object() {
                true => json.clone(),
                false => serde_json::json!({ "value": json }),
            };
            prop_assert_eq!(value, expected(&json));
            prop_assert_eq!(&record.id, &record.key);
        }
    }
}
