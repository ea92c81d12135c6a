//! The text of a record, made from the seed whenever it is asked for, so that a million records
//! need no memory and always read the same.

use std::fmt::Write as _;

use chrono::DateTime;
use serde_json::{Map, Value};

use super::mail::{Kind, Mail};
use super::query::Query;
use super::schedule::{Row, SAMPLES};
use super::vocabulary as words;
use crate::clock::push_time;
use crate::json::ObjectWriter;
use crate::rng::Rng;

const SAMPLE_FILE: &str = include_str!("../../fixtures/tmes-mailtracking-accepted-real.json");
const DETAILS_FILE: &str = include_str!("../../fixtures/tmes-policyevent-details.json");
/// The file has a fifth, of another origin.
const SAMPLES_SERVED: usize = 4;

/// Makes the records of one simulator.
pub(crate) struct Records {
    seed: u64,
    samples: Vec<Map<String, Value>>,
    /// Details of policy events by label, as text.
    details: Vec<(String, String)>,
}

impl Records {
    pub(crate) fn new(seed: u64, has_samples: bool) -> Self {
        let file: Value = serde_json::from_str(SAMPLE_FILE).expect("the fixture is JSON");
        let logs = file["logs"].as_array().into_iter().flatten();
        let served = if has_samples { SAMPLES_SERVED } else { 0 };
        let samples = logs.filter_map(Value::as_object).take(served).cloned().collect();
        let file: Map<String, Value> =
            serde_json::from_str(DETAILS_FILE).expect("the fixture is an object");
        let details = file.into_iter().map(|(label, value)| (label, value.to_string())).collect();
        Self { seed, samples, details }
    }

    pub(crate) fn sample_count(&self) -> usize {
        self.samples.len()
    }

    /// Whether a record passes the query's filters other than time.
    pub(crate) fn matches(&self, query: &Query, row: &Row) -> bool {
        if query.domain.is_none() && query.is_inbound.is_none() && query.event.is_none() {
            return true;
        }
        let (is_inbound, domain, event) = match self.sample(row) {
            Some(sample) => (sample["direction"] == "in", "example.org", ""),
            None => {
                let mail = Mail::draw(self.seed, query.kind, row.mail);
                let event = words::POLICY_EVENTS[mail.policy_event].event;
                (mail.is_inbound, mail.domain(), event)
            }
        };
        query.is_inbound.is_none_or(|wanted| wanted == is_inbound)
            && query.domain.as_ref().is_none_or(|wanted| wanted == domain)
            && query.event.as_ref().is_none_or(|wanted| wanted == event)
    }

    /// Appends a record.
    pub(crate) fn write(&self, out: &mut String, kind: Kind, row: &Row) {
        if let Some(sample) = self.sample(row) {
            out.push_str(&rebased(sample, row.gen_ms));
            return;
        }
        let mail = Mail::draw(self.seed, kind, row.mail);
        let code = u64::from(row.variant.code());
        let own = Rng::keyed(self.seed, &[0x0e, kind as u64, row.mail, code]);
        let shared = mail.rng.clone();
        let is_ascii = shared.clone().one_in(8);
        let object = ObjectWriter::new(out, is_ascii);
        let mut record = Record { object, mail: &mail, row, shared, own };
        match kind {
            Kind::Accepted => record.accepted(),
            Kind::Blocked => record.blocked(),
            Kind::Policy => record.policy(&self.details),
        }
        record.object.finish();
    }

    fn sample(&self, row: &Row) -> Option<&Map<String, Value>> {
        self.samples.get(usize::try_from(row.mail.checked_sub(SAMPLES)?).ok()?)
    }
}

/// A sample with its times moved, as far apart as they were.
fn rebased(sample: &Map<String, Value>, gen_ms: i64) -> String {
    let at = |name: &str| {
        let time = DateTime::parse_from_rfc3339(sample.get(name)?.as_str()?).ok()?;
        Some(time.timestamp_millis())
    };
    let shift_ms = gen_ms - at("genTime").unwrap_or(gen_ms);
    let mut moved = sample.clone();
    for name in ["genTime", "timestamp", "deliveryTime"] {
        if let Some(ms) = at(name) {
            let mut text = String::new();
            push_time(&mut text, ms + shift_ms);
            moved.insert(name.to_string(), Value::String(text));
        }
    }
    Value::Object(moved).to_string()
}

/// One record as it is written. What all records of a mail have in common is drawn from
/// `shared`, always in the same order; the rest from `own`.
struct Record<'a> {
    object: ObjectWriter<'a>,
    mail: &'a Mail,
    row: &'a Row,
    shared: Rng,
    own: Rng,
}

impl Record<'_> {
    fn accepted(&mut self) {
        let action = self.action();
        let timestamp_ms = self.times();
        // What is not delivered has no time of delivery.
        let is_settled = !matches!(action, "Quarantined" | "Scanning in sandbox");
        if is_settled {
            let took_ms = 1000 * self.own.below(19) as i64;
            self.object.time("deliveryTime", timestamp_ms + took_ms);
        }
        self.envelope();
        self.message();
        self.object.text("mailID", &self.mail.uuid());
        self.object.text("recipient", &self.mail.recipient(self.row.variant.recipient));
        self.object.text("action", action);
        self.optional_text(9, "tlsInfo", &words::TLS_INFOS);
        self.headers();
        self.sender_ip(8);
        if is_settled {
            self.optional_text(9, "deliveredTo", &words::DELIVERED_TO);
        }
        self.attachments();
        self.urls();
        if is_settled && self.own.below(10) < 9 {
            let details = self.smtp_answer(action);
            self.object.text("details", &details);
        }
        self.extras();
    }

    fn blocked(&mut self) {
        self.times();
        self.envelope();
        // Many a connection is refused before the message is seen.
        if self.shared.below(2) == 0 {
            self.object.text("messageID", "");
            self.object.text("subject", "");
            self.object.int("size", 0);
        } else {
            self.message();
        }
        self.object.text("mailID", &self.mail.uuid());
        self.object.text("recipient", &self.mail.recipient(self.row.variant.recipient));
        let reason = self.shared.pick(&words::REASONS);
        self.object.text("reason", reason);
        self.sender_ip(10);
        self.optional_text(5, "tlsInfo", &words::TLS_INFOS);
        match self.own.below(3) {
            0 => self.object.text("details", "rate limit"),
            1 => self.object.text("details", ""),
            _ => {}
        }
        self.extras();
    }

    fn policy(&mut self, details: &[(String, String)]) {
        let event = &words::POLICY_EVENTS[self.mail.policy_event];
        self.times();
        self.object.text("eventType", event.event_type);
        self.object.text("eventSubtype", event.subtype);
        self.object.text("domainName", self.mail.domain());
        self.envelope();
        self.object.texts("recipients", self.mail.all_recipients());
        self.headers();
        self.message();
        self.optional_text(10, "policyName", &words::POLICY_NAMES);
        self.optional_text(10, "policyAction", &words::POLICY_ACTIONS);
        if self.own.below(10) < 7 {
            self.object.text("mailID", &self.mail.uuid());
        }
        self.sender_ip(8);
        self.optional_text(5, "tlsInfo", &words::TLS_INFOS);
        self.optional_text(3, "deliveredTo", &words::DELIVERED_TO);
        self.attachments();
        if let Some((_, json)) = details.iter().find(|(label, _)| label == event.details) {
            self.object.raw("details", json);
        }
        self.extras();
    }

    fn action(&mut self) -> &'static str {
        let other = self.own.pick(&words::OTHER_ACTIONS);
        match (self.mail.evolves, self.row.variant.state) {
            (true, 0) => "Scanning in sandbox",
            (true, _) => "Delivered",
            _ if self.own.below(10) < 7 => "Delivered",
            _ => other,
        }
    }

    /// Writes both times and returns the earlier. Generation lags the event by some ten seconds,
    /// by more than a minute where a scan came between.
    fn times(&mut self) -> i64 {
        let lag = if self.own.one_in(20) { 79 } else { 5 + self.own.below(10) };
        let timestamp_ms = self.row.gen_ms - 1000 * lag as i64;
        self.object.time("genTime", self.row.gen_ms);
        self.object.time("timestamp", timestamp_ms);
        timestamp_ms
    }

    fn envelope(&mut self) {
        self.object.text("sender", &self.mail.sender());
        self.object.text("direction", if self.mail.is_inbound { "in" } else { "out" });
    }

    fn message(&mut self) {
        self.object.text("messageID", &self.mail.message_id());
        let subject = self.subject();
        self.object.text("subject", &subject);
        let size = self.shared.below(3_000_000) as i64;
        let is_huge = self.shared.one_in(200);
        self.object.int("size", if is_huge { i64::MAX - size % 2 } else { size });
    }

    fn subject(&mut self) -> String {
        if self.shared.below(10) < 3 {
            return self.shared.pick(&words::ODD_SUBJECTS).to_string();
        }
        let number = self.shared.below(100_000);
        format!("{} {number}", self.shared.pick(&words::PLAIN_SUBJECTS))
    }

    fn headers(&mut self) {
        let sender = self.mail.sender();
        let header_from = match self.shared.below(4) {
            0 => format!("\"Doe, Jane\" <{sender}>"),
            _ => sender,
        };
        self.object.text("headerFrom", &header_from);
        match self.shared.one_in(25) {
            // A mail to undisclosed recipients.
            true => self.object.texts("headerTo", None),
            false => self.object.texts("headerTo", self.mail.all_recipients()),
        }
    }

    fn sender_ip(&mut self, of_ten: u64) {
        let (host, is_v6) = (self.shared.below(65_536), self.shared.one_in(5));
        let is_there = self.shared.below(10) < of_ten;
        let ip = match is_v6 {
            true => format!("2001:db8::{host:x}"),
            false => format!("192.0.2.{}", host % 256),
        };
        if is_there {
            self.object.text("senderIP", &ip);
        }
    }

    fn attachments(&mut self) {
        match self.shared.below(20) {
            0 => self.object.raw("attachments", "null"),
            1 => self.object.raw("attachments", "[]"),
            2..=8 => {
                let count = 1 + self.shared.below(3) as usize;
                let rng = &mut self.shared;
                self.object.objects("attachments", count, |_, file| {
                    file.text("fileName", rng.pick(&words::FILE_NAMES));
                    file.text("sha256", &sha256(rng));
                    // Not documented, and so all the more likely to come one day.
                    if rng.one_in(10) {
                        file.int("size", (rng.next_u64() >> 1) as i64);
                    }
                });
            }
            _ => {}
        }
    }

    fn urls(&mut self) {
        match self.shared.below(10) {
            0 => self.object.texts("embeddedUrls", None),
            1..=5 => {
                let count = 1 + self.shared.below(4);
                let urls = (0..count).map(|_| self.shared.pick(&words::URLS).to_string());
                self.object.texts("embeddedUrls", urls);
            }
            _ => {}
        }
    }

    fn smtp_answer(&mut self, action: &str) -> String {
        let id = self.own.below(1 << 40);
        match (action, self.own.below(3)) {
            ("Bounced", _) => "mail for example.org loops back to myself".to_string(),
            ("Deferred" | "Temporary delivery error", _) => {
                format!("451 4.7.1 <{id:x}>: try again later\r\n451 4.7.1 \"greylisted\"")
            }
            (_, 0) => format!("250 2.0.0 Ok: queued as {id:010X}"),
            (_, 1) => format!("250 2.0.0 {id:x}-1 Message accepted for delivery"),
            _ => format!(
                "250 2.6.0 v [InternalId={id}, Hostname=EXAMPLE.PROD.OUTLOOK.COM] 57370 bytes in \
                 0.843, 66.399 KB/sec Queued mail for delivery"
            ),
        }
    }

    /// Fields that no document has, since a vendor may add some any day.
    fn extras(&mut self) {
        if self.own.one_in(50) {
            let float = self.own.pick(&words::FLOATS);
            self.object.raw("x_score", float);
        }
        if self.own.one_in(500) {
            // 2^64, one more than fits.
            self.object.raw("x_big", "18446744073709551616");
        }
    }

    fn optional_text(&mut self, of_ten: u64, name: &str, choices: &[&str]) {
        let choice = self.own.pick(choices);
        if self.own.below(10) < of_ten {
            self.object.text(name, choice);
        }
    }
}

fn sha256(rng: &mut Rng) -> String {
    let mut text = String::with_capacity(64);
    for _ in 0..4 {
        let _ = write!(text, "{:016x}", rng.next_u64());
    }
    text
}
