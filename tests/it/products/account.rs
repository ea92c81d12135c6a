//! What the outputs hold against what the simulator has, for every product.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;
use trendmicro_sim::{Sim, canonical};

use crate::support::{
    Host, LineCounter, PATIENCE, describe_cases, for_each_delivered, wait, wait_long,
};

/// Each source with its category.
const SOURCES: [(&str, &str); 4] = [
    ("trendmicro_email_security", "email"),
    ("trendmicro_cloud_app_security", "saas"),
    ("trendmicro_apexcentral", "endpoint"),
    ("trendmicro_cloudone", "endpoint"),
];

/// One event of the outputs.
pub struct Event {
    pub tag: String,
    pub record: Value,
}

impl Event {
    pub fn text(&self, name: &str) -> &str {
        self.record[name].as_str().unwrap_or_default()
    }

    fn source(&self) -> &str {
        self.record["msg_origin"]["source"].as_str().unwrap_or_default()
    }

    /// The vendor's record.
    pub fn payload(&self) -> &Value {
        &self.record[self.source()]
    }

    /// As the simulator names content types: of Cloud App Security, service and event type.
    pub fn content_type(&self) -> String {
        if self.source() == "trendmicro_cloud_app_security" {
            return format!("{}/{}", self.text("service"), self.text("event_type"));
        }
        let class = self.text("msg_class").strip_prefix(self.source()).unwrap_or_default();
        class.trim_start_matches('_').to_owned()
    }

    /// The name of an entity of an inventory.
    pub fn entity(&self) -> String {
        let payload = self.payload();
        let number = payload["ID"].as_u64().map(|id| id.to_string());
        let name = || payload["entity_id"].as_str().unwrap_or_default().to_owned();
        number.unwrap_or_else(name)
    }

    /// What is not as promised about the envelope and the tag.
    fn flaw(&self) -> Option<String> {
        let origin = &self.record["msg_origin"];
        let content_type = self.content_type();
        let content_type = content_type.split('/').next().unwrap_or_default();
        let class = match self.source() {
            "trendmicro_cloud_app_security" => format!("trendmicro_cas_logs_{content_type}"),
            source => format!("{source}_{content_type}"),
        };
        let category = SOURCES.iter().find(|(source, _)| *source == self.source());
        let tag = format!("tm.{}.{content_type}", self.text("connector"));
        let id = self.text("event_id");
        let is_right = category.is_some_and(|(_, category)| origin["category"] == *category)
            && origin["vendor"] == "trendmicro"
            && self.text("msg_class") == class
            && self.payload().is_object()
            && (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && !self.text("connector").is_empty()
            && self.tag == tag;
        (!is_right).then(|| cut(&format!("{} {}", self.tag, self.record)))
    }
}

/// Shows every event in the files of `out`, in the order of each file; returns how many lines are
/// none.
pub fn for_each_event(out: &Path, mut visit: impl FnMut(&Event)) -> usize {
    for_each_delivered(out, |tag, record| {
        visit(&Event { tag: tag.to_owned(), record: record.clone() });
    })
}

/// Content type and canonical payload, hashed.
type Key = [u8; 32];

fn key(content_type: &str, payload: &Value) -> Key {
    *blake3::hash(format!("{content_type}\n{}", canonical(payload)).as_bytes()).as_bytes()
}

/// One record that arrived.
struct Arrived {
    id: String,
    copies: usize,
    text: String,
}

/// What both sides agree and disagree about.
#[derive(Debug, Default)]
pub struct Account {
    /// Events in the outputs, copies included, per content type.
    pub delivered: BTreeMap<String, usize>,
    /// Records of the simulator that the outputs do not have.
    pub missing: Vec<String>,
    /// What is in the outputs and never was in the simulator, or under another content type.
    pub unexpected: Vec<String>,
    /// Ids of records that came more than once.
    pub doubled: Vec<String>,
    /// Envelopes and tags that are not as promised, and ids that do not mean one record.
    pub wrong: Vec<String>,
    /// Lines that are no event.
    pub torn: usize,
    /// The fewest and the most copies of a record that the simulator still has.
    pub copies: Option<(usize, usize)>,
}

impl Account {
    /// Compares everything.
    pub fn of(sim: &Sim, out: &Path) -> Self {
        Self::of_types(sim, out, |_| true)
    }

    /// Compares the chosen content types.
    pub fn of_types(sim: &Sim, out: &Path, is_chosen: impl Fn(&str) -> bool) -> Self {
        let mut account = Self::default();
        let mut arrived: HashMap<Key, Arrived> = HashMap::new();
        let mut owners: HashMap<String, Key> = HashMap::new();
        let torn = for_each_event(out, |event| {
            let content_type = event.content_type();
            if !is_chosen(&content_type) {
                return;
            }
            account.wrong.extend(event.flaw());
            let key = key(&content_type, event.payload());
            let id = event.text("event_id").to_owned();
            if *owners.entry(id.clone()).or_insert(key) != key {
                account.wrong.push(format!("{id} stands for two records"));
            }
            let text = || cut(&format!("{content_type}: {}", event.payload()));
            let entry = arrived.entry(key);
            let entry =
                entry.or_insert_with(|| Arrived { id: id.clone(), copies: 0, text: text() });
            if entry.id != id {
                account.wrong.push(format!("{} and {id} are one record", entry.id));
            }
            entry.copies += 1;
            *account.delivered.entry(content_type).or_default() += 1;
        });
        account.torn = torn;
        let twice = arrived.values().filter(|arrived| arrived.copies > 1);
        account.doubled = twice.map(|arrived| arrived.id.clone()).collect();
        sim.for_each_record(|record| {
            if !is_chosen(&record.content_type) {
                return;
            }
            let payload = serde_json::from_str(&record.json).expect("the simulator writes JSON");
            match arrived.remove(&key(&record.content_type, &payload)) {
                Some(Arrived { copies, .. }) => {
                    let (least, most) = account.copies.unwrap_or((copies, copies));
                    account.copies = Some((least.min(copies), most.max(copies)));
                }
                None => account.missing.push(cut(&format!(
                    "{} of {}, shown {} times: {}",
                    record.content_type, record.gen_time, record.shown, record.json
                ))),
            }
        });
        account.unexpected = arrived.into_values().map(|arrived| arrived.text).collect();
        account
    }

    /// Fails unless everything arrived once, as promised, and nothing else did.
    #[track_caller]
    pub fn assert_exact(&self, what: &str) {
        self.assert_complete(what);
        assert!(self.doubled.is_empty(), "{what}: {}", self.describe());
    }

    /// The same, but records may have come more than once.
    #[track_caller]
    pub fn assert_complete(&self, what: &str) {
        let is_right = self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.wrong.is_empty()
            && self.torn == 0;
        assert!(is_right, "{what}: {}", self.describe());
        assert!(!self.delivered.is_empty(), "{what}: nothing arrived, so nothing was tested");
    }

    pub fn describe(&self) -> String {
        let text = format!("{:?}, {} torn lines", self.delivered, self.torn);
        let lists = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("doubled", &self.doubled),
            ("wrong", &self.wrong),
        ];
        describe_cases(text, &lists)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(400).collect()
}

/// Waits until everything that the simulator shows, late records included, has arrived.
pub fn wait_complete(host: &Host, sim: &Sim, out: &Path) {
    wait_types(host, sim, out, |_| true);
}

/// The same for the chosen content types.
pub fn wait_types(host: &Host, sim: &Sim, out: &Path, is_chosen: impl Fn(&str) -> bool + Copy) {
    let mut lines = LineCounter::default();
    let mut looked_at = (0, 0);
    let explain = || {
        let account = Account::of_types(sim, out, is_chosen);
        format!("{:?}\n{}\n{}", sim.counts(), account.describe(), host.log_tail())
    };
    wait("everything to arrive", explain, || {
        assert!(host.is_running(), "the host has ended\n{}", host.log_tail());
        let counts = sim.counts();
        let chosen = counts.by_type.iter().filter(|(content_type, _)| is_chosen(content_type));
        let visible = chosen.map(|(_, count)| count.visible).sum();
        // The books are looked into only when they can be complete and have changed.
        let seen = (lines.count(out), visible);
        if counts.pending > 0 || seen.0 < visible || seen == looked_at {
            return None;
        }
        looked_at = seen;
        Account::of_types(sim, out, is_chosen).missing.is_empty().then_some(())
    });
}

/// Waits for so many lines in the outputs.
pub fn wait_lines(host: &Host, out: &Path, wanted: u64) {
    let mut lines = LineCounter::default();
    wait_long(
        "lines in the outputs",
        2 * PATIENCE,
        || host.log_tail(),
        || {
            assert!(host.is_running(), "the host has ended\n{}", host.log_tail());
            (lines.count(out) >= wanted).then_some(())
        },
    );
}
