//! The text of a record, made from the seed whenever it is asked for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde_json::{Map, Value};

use super::CloudAppConfig;
use super::schedule::{GENERATION_LAG_MS, Row, SAMPLES};
use super::vocabulary::{self as own, EVENTS, Event, Matter, STREAMS, event_of, service_of};
use crate::clock::push_time_millis;
use crate::email_security::vocabulary as words;
use crate::json::ObjectWriter;
use crate::rng::{Rng, mix, uuid};

/// The sample records, each with its stream.
const SAMPLE_FILES: [(&str, &str, &str); 7] = [
    ("exchange", "securityrisk", include_str!("../../fixtures/cas-securityrisk-exchange.json")),
    ("onedrive", "securityrisk", include_str!("../../fixtures/cas-securityrisk-onedrive.json")),
    ("dropbox", "securityrisk", include_str!("../../fixtures/cas-securityrisk-dropbox.json")),
    ("sharepoint", "securityrisk", include_str!("../../fixtures/cas-securityrisk-sharepoint.json")),
    (
        "sharepoint",
        "virtualanalyzer",
        include_str!("../../fixtures/cas-virtualanalyzer-sharepoint.json"),
    ),
    ("sharepoint", "ransomware", include_str!("../../fixtures/cas-ransomware-sharepoint.json")),
    ("sharepoint", "dlp", include_str!("../../fixtures/cas-dlp-sharepoint.json")),
];

/// The times of a message, by the end of their names.
const TIME_SUFFIX: &str = "_time";

/// Makes the records of one simulator.
pub(crate) struct Records {
    seed: u64,
    overlaps: bool,
    /// Sample records per stream.
    samples: Vec<Vec<Map<String, Value>>>,
}

impl Records {
    pub(crate) fn new(seed: u64, config: &CloudAppConfig) -> Self {
        let mut samples = vec![Vec::new(); STREAMS];
        let files = if config.seed_samples { &SAMPLE_FILES[..] } else { &[] };
        for (service, event, text) in files {
            let file: Value = serde_json::from_str(text).expect("the fixture is JSON");
            let stream = own::stream(service, event).expect("the fixture has a stream");
            // One of the files is the bare list.
            let events = file.get("security_events").unwrap_or(&file).as_array();
            let events = events.into_iter().flatten().filter_map(Value::as_object);
            samples[stream].extend(events.cloned());
        }
        Self { seed, overlaps: config.overlapping_ids, samples }
    }

    pub(crate) fn sample_count(&self, stream: usize) -> usize {
        self.samples[stream].len()
    }

    /// Appends a record.
    pub(crate) fn write(&self, out: &mut String, stream: usize, row: &Row) {
        let detected_ms = row.generated_ms - GENERATION_LAG_MS;
        if let Some(at) = row.number.checked_sub(SAMPLES) {
            out.push_str(&rebased(&self.samples[stream][at as usize], detected_ms));
            return;
        }
        let rng = Rng::keyed(self.seed, &[0x0c, stream as u64, row.number]);
        let is_ascii = rng.clone().one_in(8);
        let mut object = ObjectWriter::new(out, is_ascii);
        object.text("service", service_of(stream).title);
        object.text("event", EVENTS[stream % EVENTS.len()].1);
        object.text("log_item_id", &self.log_item_id(stream, row.number));
        object.object("message", |object| {
            let mut message = Message { object, rng, detected_ms };
            message.write(service_of(stream).matter, event_of(stream));
        });
        object.finish();
    }

    /// A UUID, or half the time twenty characters. Both hold the whole identity.
    fn log_item_id(&self, stream: usize, number: u64) -> String {
        let stream = match event_of(stream) {
            Event::Ransomware if self.overlaps => {
                stream - Event::Ransomware as usize + Event::SecurityRisk as usize
            }
            _ => stream,
        };
        // Numbers stay below 2^48, so the two parts do not overlap.
        let identity = mix(mix(self.seed ^ 0x0063_6173) ^ ((stream as u64) << 48 | number));
        if identity.is_multiple_of(2) {
            return uuid(identity);
        }
        let noise = mix(identity).to_le_bytes();
        URL_SAFE_NO_PAD.encode([&identity.to_le_bytes()[..], &noise[..7]].concat())
    }
}

/// A sample with its times moved, as far apart as they were.
fn rebased(sample: &Map<String, Value>, detected_ms: i64) -> String {
    let time = |value: &Value| {
        let time = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
        Some(time.timestamp_millis())
    };
    let mut moved = sample.clone();
    if let Some(Value::Object(message)) = moved.get_mut("message") {
        let before_ms = message.get("detection_time").and_then(time).unwrap_or(detected_ms);
        for (_, value) in message.iter_mut().filter(|(name, _)| name.ends_with(TIME_SUFFIX)) {
            if let Some(ms) = time(value) {
                let mut text = String::new();
                push_time_millis(&mut text, ms + detected_ms - before_ms);
                *value = Value::String(text);
            }
        }
    }
    Value::Object(moved).to_string()
}

/// One message as it is written.
struct Message<'a, 'b> {
    object: &'a mut ObjectWriter<'b>,
    rng: Rng,
    detected_ms: i64,
}

impl Message<'_, '_> {
    fn write(&mut self, matter: Matter, event: Event) {
        let user = self.user();
        self.pick("scan_type", &own::SCAN_TYPES);
        // Texts that are not known are empty rather than missing.
        let is_known = !self.rng.one_in(8);
        self.object.text("affected_user", if is_known { &user } else { "" });
        let location = self.location(matter, &user);
        self.object.text("location", if is_known { &location } else { "" });
        self.time("detection_time", 0);
        self.pick("triggered_policy_name", &words::POLICY_NAMES);
        let filter = self.filter(event);
        self.object.text("triggered_security_filter", filter);
        self.pick("action", &own::ACTIONS);
        self.pick("action_result", &own::RESULTS);
        match matter {
            Matter::Mail => self.mail(&user),
            Matter::File => self.file(),
            Matter::Chat => {}
        }
        self.finding(event, filter);
        // Fields that no document has, since a vendor may add some any day.
        if self.rng.one_in(50) {
            let float = self.rng.pick(&words::FLOATS);
            self.object.raw("x_score", float);
        }
        if self.rng.one_in(500) {
            self.object.raw("x_big", "18446744073709551616");
        }
    }

    fn filter(&mut self, event: Event) -> &'static str {
        match event {
            Event::SecurityRisk => self.rng.pick(&own::FILTERS),
            Event::VirtualAnalyzer => "Virtual Analyzer",
            Event::Ransomware => "Malware Scanning",
            Event::Dlp => "Data Loss Prevention",
        }
    }

    fn location(&mut self, matter: Matter, user: &str) -> String {
        match matter {
            Matter::Mail => format!("{user}\\Junk Email"),
            Matter::File => {
                let site = self.rng.below(500);
                format!("https://example.sharepoint.com/sites/{site}/Shared Documents")
            }
            Matter::Chat => format!("19:{:016x}@thread.v2", self.rng.next_u64()),
        }
    }

    fn mail(&mut self, user: &str) {
        let id = format!("<{:016x}@mail.example.edu>", self.rng.next_u64());
        self.object.text("mail_message_id", &id);
        let sender = format!("<{}>", self.user());
        match self.rng.one_in(10) {
            true => self.object.texts("mail_message_sender", [sender]),
            false => self.object.text("mail_message_sender", &sender),
        }
        let others = self.rng.below(3) as usize;
        let mut recipients = vec![format!("\"{}\"<{user}>", words::LOCAL_PARTS[others])];
        for _ in 0..others {
            recipients.push(self.user());
        }
        self.object.texts("mail_message_recipient", recipients);
        self.time("mail_message_submit_time", 10);
        self.time("mail_message_delivery_time", 26);
        let subject = match self.rng.below(10) {
            0..3 => self.rng.pick(&words::ODD_SUBJECTS),
            _ => self.rng.pick(&words::PLAIN_SUBJECTS),
        };
        self.object.text("mail_message_subject", subject);
        let has_file = self.rng.below(2) == 0;
        let file = self.rng.pick(&words::FILE_NAMES);
        self.object.text("mail_message_file_name", if has_file { file } else { "" });
    }

    fn file(&mut self) {
        self.pick("file_name", &words::FILE_NAMES);
        self.time("file_upload_time", 48);
    }

    fn finding(&mut self, event: Event, filter: &str) {
        match event {
            Event::SecurityRisk => {
                if filter != "File Blocking" {
                    self.hashes();
                }
                self.pick("security_risk_name", &own::RISKS);
                self.pick("detected_by", &own::DETECTED_BY);
                self.pick("risk_level", &own::RISK_LEVELS);
            }
            Event::VirtualAnalyzer => {
                self.hashes();
                self.pick("virus_name", &own::VIRUSES);
                self.pick("detection_type", &own::DETECTION_TYPES);
                self.pick("risk_level", &own::RISK_LEVELS);
            }
            Event::Ransomware => {
                self.hashes();
                self.pick("ransomware_name", &own::RANSOMWARES);
            }
            Event::Dlp => self.templates(),
        }
    }

    fn hashes(&mut self) {
        let mut hex = || format!("{:016x}", self.rng.next_u64());
        let sha1 = format!("{}{}{}", hex(), hex(), &hex()[..8]);
        let sha256 = format!("{}{}{}{}", hex(), hex(), hex(), hex());
        self.object.text("file_sha1", &sha1);
        self.object.text("file_sha256", &sha256);
    }

    /// An array, now and then an object: the type is not settled.
    fn templates(&mut self) {
        let count = self.rng.below(4) as usize;
        let templates = own::TEMPLATES[..count].iter().map(|text| text.to_string());
        match self.rng.one_in(10) {
            true => self.object.object("triggered_dlp_template", |object| {
                object.texts("templates", templates);
            }),
            false => self.object.texts("triggered_dlp_template", templates),
        }
    }

    fn user(&mut self) -> String {
        let domain = self.rng.pick(&words::INTERNAL_DOMAINS);
        format!("{}@{domain}", self.rng.pick(&words::LOCAL_PARTS))
    }

    fn pick(&mut self, name: &str, choices: &[&str]) {
        let choice = self.rng.pick(choices);
        self.object.text(name, choice);
    }

    /// So many seconds before the detection.
    fn time(&mut self, name: &str, before_s: i64) {
        let mut text = String::new();
        push_time_millis(&mut text, self.detected_ms - 1000 * before_s);
        self.object.text(name, &text);
    }
}
