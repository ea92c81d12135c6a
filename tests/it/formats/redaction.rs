//! What is redacted is nowhere in an event, in any format, and its identity stays.

use in_trendmicro::config::{EcsMapping, Format, Redact, Redaction};
use in_trendmicro::envelope::Style;
use in_trendmicro::format::redact::{FIELDS, Fields};
use in_trendmicro::secret::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::golden::FORMATS;
use super::{event_of, every_stream};

const ALL: [Redact; 3] = [Redact::Subject, Redact::Recipients, Redact::FileNames];
const MAIL: &str = "email_security.accepted_traffic";

fn redacting(what: &[Redact], key: Option<&str>, format: Format) -> Style {
    let redaction = Redaction { what: what.to_vec(), key: key.map(Secret::new) };
    Style { redaction, ..Style::of(format) }
}

fn raw(page: &str, record: &Value, what: &[Redact], key: Option<&str>) -> Value {
    event_of(page, &record.to_string(), &redacting(what, key, Format::Raw))
}

#[test]
fn without_a_key_it_is_dropped_and_with_one_it_is_hashed() {
    let record = json!({
        "subject": "Salary of Jane",
        "recipient": "Jane.Doe@example.org",
        "headerTo": ["\"Doe, Jane\" <jane.doe@example.org>", null],
        "action": "Bounced",
        "attachments": [{ "fileName": "salary.xlsx", "sha256": "ab" }],
        "details": "550 5.1.1 <jane.doe@example.org>: unknown",
        "embeddedUrls": ["https://example.com/?u=JANE.DOE@example.org"],
    });
    assert_eq!(
        raw(MAIL, &record, &ALL, None),
        json!({
            "action": "Bounced",
            "attachments": [{ "sha256": "ab" }],
            "details": "550 5.1.1 <[redacted]>: unknown",
            "embeddedUrls": ["https://example.com/?u=[redacted]"],
        })
    );
    let hashed = raw(MAIL, &record, &ALL, Some("a key of the tests"));
    let recipient = hashed["recipient"].as_str().unwrap();
    let (hash, domain) = recipient.split_once('@').unwrap();
    assert!(hash.len() == 32 && domain == "redacted.invalid", "{recipient}");
    // The same person is the same hash, however the address is written.
    assert_eq!(hashed["headerTo"], json!([recipient, null]));
    assert_eq!(hashed["details"], format!("550 5.1.1 <{recipient}>: unknown"));
    assert_eq!(hashed["embeddedUrls"], json!([format!("https://example.com/?u={recipient}")]));
    assert_eq!(hashed["subject"].as_str().unwrap().len(), 32);
    assert_eq!(hashed["attachments"][0]["sha256"], "ab");
    let other = raw(MAIL, &record, &ALL, Some("another key of the tests"));
    assert_ne!(hashed["subject"], other["subject"]);
}

#[test]
fn only_what_was_chosen_is_redacted() {
    let record = json!({ "subject": "s", "recipient": "r@x.example", "headerTo": ["r@x.example"] });
    assert_eq!(raw(MAIL, &record, &[Redact::Subject], None)["headerTo"], json!(["r@x.example"]));
    assert_eq!(raw(MAIL, &record, &[Redact::Recipients], None), json!({ "subject": "s" }));
    assert_eq!(raw(MAIL, &record, &[], Some("a key of the tests")), record);
}

/// Who knows that subjects are redacted cannot blot out a verdict by repeating it.
#[test]
fn the_vendors_own_words_stay() {
    let record = json!({
        "subject": "Quarantined",
        "action": "Quarantined",
        "timestamp": "2023-09-28T13:55:33Z",
        "headerTo": ["2023-09-28"],
        "sender": "Quarantined@example.net",
    });
    let redacted = raw(MAIL, &record, &ALL, None);
    assert_eq!(redacted["action"], "Quarantined");
    assert_eq!(redacted["timestamp"], "2023-09-28T13:55:33Z");
    assert_eq!(redacted["sender"], "[redacted]@example.net");
}

#[test]
fn the_identity_is_that_of_the_whole_record() {
    let record = json!({ "subject": "a", "log_item_id": "1", "size": 1 }).to_string();
    let id = |style: &Style| event_of(MAIL, &record, style)["event_id"].clone();
    let whole = id(&Style::of(Format::Envelope));
    assert!(whole.is_string());
    assert_eq!(id(&redacting(&ALL, None, Format::Envelope)), whole);
    assert_eq!(id(&redacting(&ALL, Some("a key of the tests"), Format::Envelope)), whole);
}

#[test]
fn the_table_knows_every_log() {
    every_stream(|product, stream| {
        let is_known = FIELDS.iter().any(|fields| fields.source == stream.shape.source);
        assert_eq!(is_known, product.ends_with("_security") && product != "workload_security");
    });
}

/// Puts a value at the end of a path, beside what is there; lists hold one object.
fn put(record: &mut Value, path: &str, value: Value) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
    let Some(rest) = rest else {
        record[first] = value;
        return;
    };
    let is_list = matches!(first, "attachments" | "fileInfo" | "urlInfo");
    if record[first].is_null() {
        record[first] = if is_list { json!([{}]) } else { json!({}) };
    }
    let inner = if is_list { &mut record[first][0] } else { &mut record[first] };
    put(inner, rest, value);
}

fn redacted_paths(fields: &Fields) -> Vec<&'static str> {
    ALL.iter().flat_map(|&what| fields.of(what)).copied().collect()
}

/// A secret as a field may hold it.
fn dressed(secret: &str, how: u8) -> Value {
    match how % 6 {
        0 => json!(secret),
        1 => json!([secret, 5, null]),
        2 => json!({ "text": [secret] }),
        3 => json!(format!("\"Doe\" <{secret}@leak.example>")),
        4 => json!(format!("  {}\n", secret.to_ascii_uppercase())),
        _ => json!({ secret: 1 }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_secret_gets_through(
        secret in "[a-z]{3}\"\\\\[a-z]{6}é?|[a-z]{9}",
        dresses in prop::collection::vec(any::<u8>(), 16),
        echo in "(<|x |https://a.example/\\?q=)?",
        has_key: bool,
    ) {
        for (page, fields) in [
            (MAIL, &FIELDS[0]),
            ("email_security.policy_events", &FIELDS[0]),
            ("cloud_app_security.exchange.securityrisk", &FIELDS[1]),
        ] {
            let mut record = json!({});
            for (path, how) in redacted_paths(fields).into_iter().zip(&dresses) {
                put(&mut record, path, dressed(&secret, *how));
            }
            // As it is, once, so that it is known; then where vendors repeat it.
            put(&mut record, redacted_paths(fields)[0], json!(secret));
            for place in ["messageID", "deliveredTo", "new", "embeddedUrls", "headerFrom"] {
                record[place] = json!([format!("{echo}{secret}>")]);
            }
            record[format!("{secret}!")] = json!({ "deep": [[{ "er": secret }]] });
            for (name, format) in FORMATS {
                for ecs_mapping in [EcsMapping::Full, EcsMapping::Sekoia] {
                    let key = has_key.then_some("a key of the tests");
                    let style = Style { ecs_mapping, ..redacting(&ALL, key, *format) };
                    let event = event_of(page, &record.to_string(), &style);
                    // Once as it is and once as JSON inside of JSON has it.
                    let shown = event.to_string().to_lowercase();
                    let inner = json!(secret).to_string();
                    let twice = json!(inner.trim_matches('"')).to_string();
                    for form in [secret.as_str(), inner.trim_matches('"'), twice.trim_matches('"')] {
                        prop_assert!(!shown.contains(form), "{} as {}: {}", form, name, shown);
                    }
                }
            }
        }
    }
}
