//! Personal data that must not leave: dropped, or replaced by a keyed hash, before any format sees
//! the record.
//!
//! A table says which fields hold it. Vendors repeat it elsewhere, such as a recipient in the answer
//! of a mail server, so whatever was redacted is looked for in all other texts of the record too,
//! except in those that hold the vendor's own words: a sender who knows that subjects are redacted
//! must not be able to blot out a verdict with a subject that says the same.

use std::borrow::Cow;

use super::address::address_in;
use crate::config::{Redact, Redaction};
use crate::msgpack::{self, Value, View};
use crate::record::Id;

/// Shorter texts are not looked for elsewhere: they stand everywhere.
const ECHO_CHARS_MIN: usize = 4;
/// What stands for a text inside another one when there is no key to hash it with.
const MASK: &str = "[redacted]";
/// Keeps the form of an address, in a domain that nobody can have.
const HASHED_DOMAIN: &str = "@redacted.invalid";
/// What the hash is for, so that no other use of the same key gives the same values.
const CONTEXT: &str = "in_trendmicro 2026-11-22 redaction of personal data";

/// The fields of each source that hold personal data, and those that hold only the vendor's own
/// words.
pub const FIELDS: &[Fields] = &[
    Fields {
        source: "trendmicro_email_security",
        subject: &["subject"],
        recipients: &["recipient", "recipients", "headerTo"],
        file_names: &[
            "attachments.fileName",
            "details.fileInfo.fileName",
            "details.urlInfo.attachmentName",
        ],
        own_words: &[
            "action",
            "attachments.sha256",
            "deliveryTime",
            "details.fileInfo.fileSha256",
            "details.fileInfo.threatName",
            "details.riskLevel",
            "details.threatNames",
            "direction",
            "eventSubtype",
            "eventType",
            "genTime",
            "mailID",
            "policyAction",
            "policyName",
            "reason",
            "senderIP",
            "timestamp",
            "tlsInfo",
        ],
    },
    Fields {
        source: "trendmicro_cloud_app_security",
        subject: &["message.mail_message_subject"],
        recipients: &["message.mail_message_recipient", "message.affected_user"],
        file_names: &["message.file_name", "message.mail_message_file_name"],
        own_words: &[
            "event",
            "log_item_id",
            "message.action",
            "message.action_result",
            "message.detected_by",
            "message.detection_time",
            "message.detection_type",
            "message.file_sha1",
            "message.file_sha256",
            "message.file_upload_time",
            "message.mail_message_delivery_time",
            "message.mail_message_submit_time",
            "message.ransomware_name",
            "message.risk_level",
            "message.scan_type",
            "message.triggered_policy_name",
            "message.triggered_security_filter",
            "message.virus_name",
            "service",
        ],
    },
];

/// A line of [`FIELDS`]; paths go through lists.
pub struct Fields {
    /// The source.
    pub source: &'static str,
    /// Subjects.
    pub subject: &'static [&'static str],
    /// Recipients.
    pub recipients: &'static [&'static str],
    /// Names of files.
    pub file_names: &'static [&'static str],
    /// What nobody but the vendor writes.
    pub own_words: &'static [&'static str],
}

impl Fields {
    /// The paths of one kind of data.
    #[must_use]
    pub fn of(&self, what: Redact) -> &'static [&'static str] {
        match what {
            Redact::Subject => self.subject,
            Redact::Recipients => self.recipients,
            Redact::FileNames => self.file_names,
        }
    }
}

/// Redacts the records of one stream.
pub struct Redactor {
    fields: Tree,
    key: Option<[u8; 32]>,
}

/// What is to be done with the members of an object.
#[derive(Default)]
struct Tree {
    name: &'static str,
    rule: Rule,
    inner: Vec<Tree>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Rule {
    /// Look for what was redacted.
    #[default]
    Search,
    Redact,
    Keep,
}

impl Redactor {
    /// A redactor for records of `source`; `None` if they hold nothing that is to be redacted.
    #[must_use]
    pub fn new(redaction: &Redaction, source: &str) -> Option<Self> {
        let table = FIELDS.iter().find(|fields| fields.source == source)?;
        let mut fields = Tree::default();
        for path in redaction.what.iter().flat_map(|&what| table.of(what)) {
            fields.set(path, Rule::Redact);
        }
        table.own_words.iter().for_each(|path| fields.set(path, Rule::Keep));
        let derive =
            |key: &crate::secret::Secret| blake3::derive_key(CONTEXT, key.expose().as_bytes());
        Some(Self { fields, key: redaction.key.as_ref().map(derive) })
    }

    /// The record without what is to be redacted.
    #[must_use]
    pub fn apply(&self, body: View<'_>) -> Vec<u8> {
        let mut redacted = Vec::new();
        collect(body, &self.fields, false, &mut redacted);
        // A longer text goes first: it may hold a shorter one.
        redacted.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        redacted.dedup();
        let mut out = Vec::with_capacity(body.bytes().len());
        self.write(body, &self.fields, &redacted, &mut out);
        out
    }

    fn write(&self, value: View<'_>, fields: &Tree, redacted: &[String], out: &mut Vec<u8>) {
        match value.value() {
            _ if fields.rule == Rule::Keep => out.extend_from_slice(value.bytes()),
            Value::Map => {
                let (at, mut count) = (msgpack::open(out), 0);
                for (name, member) in value.pairs() {
                    let field = fields.find(name);
                    let is_redacted = field.rule == Rule::Redact;
                    if is_redacted && self.key.is_none() {
                        continue;
                    }
                    count += 1;
                    self.search(name, redacted, out);
                    match &self.key {
                        Some(key) if is_redacted => hashed(key, member, out),
                        _ => self.write(member, field, redacted, out),
                    }
                }
                msgpack::close_map(out, at, count);
            }
            Value::Array => {
                msgpack::array(out, value.items().count());
                value.items().for_each(|item| self.write(item, fields, redacted, out));
            }
            _ => self.search(value, redacted, out),
        }
    }

    /// Writes a value; in a text, what was redacted elsewhere is redacted too.
    fn search(&self, value: View<'_>, redacted: &[String], out: &mut Vec<u8>) {
        match value.as_str().map(|text| self.masked(text, redacted)) {
            Some(Cow::Owned(text)) => msgpack::string(out, &text),
            _ => out.extend_from_slice(value.bytes()),
        }
    }

    fn masked<'t>(&self, text: &'t str, redacted: &[String]) -> Cow<'t, str> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        // Letters of ASCII keep their length, so places in the one text are places in the other.
        let folded = text.to_ascii_lowercase();
        for needle in redacted.iter().filter(|needle| needle.len() <= folded.len()) {
            for (start, _) in folded.match_indices(needle.as_str()) {
                let end = start + needle.len();
                if places.iter().all(|&(from, to)| end <= from || to <= start) {
                    places.push((start, end));
                }
            }
        }
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        places.sort_unstable();
        let (mut out, mut at) = (String::new(), 0);
        for (start, end) in places {
            out.push_str(&text[at..start]);
            match &self.key {
                Some(key) => out.push_str(&hash_of_text(key, &text[start..end])),
                None => out.push_str(MASK),
            }
            at = end;
        }
        out.push_str(&text[at..]);
        Cow::Owned(out)
    }
}

/// A member that no table names.
static UNKNOWN: Tree = Tree { name: "", rule: Rule::Search, inner: Vec::new() };

impl Tree {
    fn set(&mut self, path: &'static str, rule: Rule) {
        let mut tree = self;
        for name in path.split('.') {
            let at = tree.inner.iter().position(|inner| inner.name == name);
            let at = at.unwrap_or_else(|| {
                tree.inner.push(Self { name, ..Self::default() });
                tree.inner.len() - 1
            });
            tree = &mut tree.inner[at];
        }
        tree.rule = rule;
    }

    fn find(&self, name: View<'_>) -> &Self {
        let name = name.as_bytes().unwrap_or_default();
        self.inner.iter().find(|inner| inner.name.as_bytes() == name).unwrap_or(&UNKNOWN)
    }
}

/// Gathers the texts of all fields that are redacted, in small letters.
fn collect(value: View<'_>, fields: &Tree, is_inside: bool, redacted: &mut Vec<String>) {
    match value.value() {
        Value::Map => {
            for (name, member) in value.pairs() {
                let field = fields.find(name);
                collect(member, field, is_inside || field.rule == Rule::Redact, redacted);
            }
        }
        Value::Array => {
            value.items().for_each(|item| collect(item, fields, is_inside, redacted));
        }
        Value::Text(text) if is_inside => {
            for text in [text.trim(), address_in(text).unwrap_or_default()] {
                if text.chars().count() >= ECHO_CHARS_MIN {
                    redacted.push(text.to_ascii_lowercase());
                }
            }
        }
        _ => {}
    }
}

/// Writes the keyed hash of a value, of each value if it is a list; nothing stays nothing.
fn hashed(key: &[u8; 32], value: View<'_>, out: &mut Vec<u8>) {
    match value.value() {
        _ if value.is_empty() => out.extend_from_slice(value.bytes()),
        Value::Array => {
            msgpack::array(out, value.items().count());
            value.items().for_each(|item| hashed(key, item, out));
        }
        Value::Text(text) => msgpack::string(out, &hash_of_text(key, text)),
        _ => msgpack::string(out, &hash(key, value.bytes())),
    }
}

/// The keyed hash of a text in small letters; an address stays one, without its display name.
fn hash_of_text(key: &[u8; 32], text: &str) -> String {
    match address_in(text) {
        Some(address) => hash(key, address.to_ascii_lowercase().as_bytes()) + HASHED_DOMAIN,
        None => hash(key, text.to_ascii_lowercase().as_bytes()),
    }
}

fn hash(key: &[u8; 32], bytes: &[u8]) -> String {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::keyed_hash(key, bytes).as_bytes()[..16]);
    Id(u128::from_be_bytes(half)).hex().map(char::from).iter().collect()
}
