//! Golden files: every record type in every format, and the four samples of Sekoia.io's page.

use in_trendmicro::config::{EcsMapping, Format};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::sweep::Change;
use serde_json::{Value, json};

use super::{PAGES, assert_file, event, event_of, events, fixture, read, with_stream};

pub const FORMATS: &[(&str, Format)] = &[
    ("envelope", Format::Envelope),
    ("raw", Format::Raw),
    ("ecs", Format::Ecs),
    ("ocsf", Format::Ocsf),
];

fn pretty(events: &[Value]) -> String {
    serde_json::to_string_pretty(events).unwrap() + "\n"
}

fn assert_golden(name: &str, events: &[Value]) {
    assert_file(&format!("tests/fixtures/formats/{name}.json"), &pretty(events));
}

#[test]
fn every_record_type_in_every_format() {
    for page in PAGES {
        let text = fixture(&format!("{page}.page.json"));
        for (name, format) in FORMATS {
            let style = Style { tenant_name: Some("acmé".to_owned()), ..Style::of(*format) };
            let events = events(page, &text, &style);
            assert!(!events.is_empty(), "{page}");
            assert_golden(&format!("{page}.{name}"), &events);
        }
    }
}

/// Every value is of a type that its field should not have.
#[test]
fn a_record_of_wrong_types_in_every_format() {
    let text = fixture("odd.page.json");
    for (name, format) in FORMATS {
        let events = events("email_security.accepted_traffic", &text, &Style::of(*format));
        assert_golden(&format!("odd.{name}"), &events);
    }
}

#[test]
fn every_change_in_every_format() {
    for page in ["apex_central.agents", "apex_central.servers", "workload_security.computers"] {
        let text = fixture(&format!("{page}.page.json"));
        for (name, format) in FORMATS {
            let told = with_stream(page, |connector, stream| {
                let style = Style { has_change: true, ..Style::of(*format) };
                let envelope = Envelope::new(&style, stream, "vendor");
                let records = read(connector, stream, &text, envelope.needs_text());
                let there = records.iter().next().unwrap();
                let name = stream.shape.only_name(&there);
                let gone = stream.shape.restore(&name, there.key);
                [(there, Change::Added), (there, Change::Changed), (gone, Change::Removed)]
                    .map(|(record, change)| event(&envelope, &record, Some(change)))
            });
            assert_golden(&format!("{page}.changes.{name}"), &told);
        }
    }
}

/// The samples as they are printed, and the texts from which they were made.
fn printed() -> Vec<(String, Value)> {
    let samples: Vec<Value> = serde_json::from_str(&fixture("sekoia-2023-09-28.json")).unwrap();
    assert_eq!(samples.len(), 4);
    samples.into_iter().map(|it| (it["message"].as_str().unwrap().to_owned(), it)).collect()
}

fn ecs(mapping: EcsMapping) -> Style {
    Style { ecs_mapping: mapping, ..Style::of(Format::Ecs) }
}

#[test]
fn sekoias_page_of_2023_comes_out_to_the_letter() {
    for (record, printed) in printed() {
        let written =
            event_of("email_security.accepted_traffic", &record, &ecs(EcsMapping::Sekoia2023));
        // As texts, since equal objects could differ in the order of their members.
        assert_eq!(
            serde_json::to_string_pretty(&written).unwrap(),
            serde_json::to_string_pretty(&printed).unwrap()
        );
    }
}

/// Since then the parser has dropped `event.kind` and made an object of the hash; that recipients
/// were sorted was a matter of the page alone.
#[test]
fn sekoias_mapping_of_today_differs_where_it_was_changed() {
    for (record, mut printed) in printed() {
        printed["event"].as_object_mut().unwrap().shift_remove("kind");
        as_of_today(&mut printed, &record);
        let written =
            event_of("email_security.accepted_traffic", &record, &ecs(EcsMapping::Sekoia));
        assert_eq!(written, printed);
    }
}

/// The full mapping has every printed field with the printed value, but for the two that are no ECS
/// as printed: the hash, and the order of recipients.
#[test]
fn the_full_mapping_has_every_field_of_sekoias_page() {
    for (record, mut printed) in printed() {
        as_of_today(&mut printed, &record);
        let written = event_of("email_security.accepted_traffic", &record, &ecs(EcsMapping::Full));
        assert_within(&printed, &written, "");
    }
}

fn as_of_today(printed: &mut Value, record: &str) {
    let record: Value = serde_json::from_str(record).unwrap();
    printed["email"]["to"]["address"] = record["headerTo"].clone();
    let attachments = printed["email"].as_object_mut().unwrap().get_mut("attachments");
    for attachment in attachments.and_then(Value::as_array_mut).into_iter().flatten() {
        let hash = attachment["file"]["hash"].take();
        attachment["file"]["hash"] = json!({ "sha256": hash });
    }
}

fn assert_within(part: &Value, whole: &Value, path: &str) {
    match part {
        Value::Object(members) => {
            for (key, value) in members {
                assert_within(value, &whole[key], &format!("{path}.{key}"));
            }
        }
        _ => assert_eq!(part, whole, "{path}"),
    }
}

/// What Sekoia.io's mapping leaves out is not lost: the message has it.
#[test]
fn the_message_is_the_vendors_text_to_the_byte() {
    let record = "{ \"b\" :1.50,\t\"a\":[ ],\"b\":\"\\u00e9\\/\", \"n\":1e2 }";
    for page in PAGES {
        for mapping in [EcsMapping::Full, EcsMapping::Sekoia, EcsMapping::Sekoia2023] {
            assert_eq!(event_of(page, record, &ecs(mapping))["message"], record, "{page}");
        }
        assert_eq!(event_of(page, record, &Style::of(Format::Ocsf))["raw_data"], record);
    }
}
