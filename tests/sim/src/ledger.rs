//! What the simulator knows about its own records and requests, for tests to compare with.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use crate::locked;

/// One record that is visible, and how often it was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    /// Of Email Security: `accepted_traffic`, `blocked_traffic` or `policy_events`; of Cloud App
    /// Security: service and event as requested, such as `sharepoint/dlp`; of Apex Central:
    /// `agents` or `servers`; of Workload Security: `computers`.
    pub content_type: String,
    /// The time that the API filters by; in an inventory, since when the entity has been so.
    pub gen_time: DateTime<Utc>,
    /// When the record could first be seen; later than `gen_time`.
    pub visible_at: DateTime<Utc>,
    /// How often it was part of a 200 answer that was sent whole and intact.
    pub shown: u64,
    /// The exact text as sent.
    pub json: String,
}

/// All records that are visible so far, in order of generation within each content type.
///
/// Of an inventory these are the entities that exist, in the form last asked for, and whatever was
/// shown of entities that are gone, of earlier states and in other forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The records.
    pub records: Vec<LedgerRecord>,
}

/// Numbers over one content type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Records that a query could return now; of an inventory, the rows of its ledger.
    pub visible: u64,
    /// Records generated but held back, because they are late.
    pub pending: u64,
    /// Visible records shown at least once.
    pub shown_distinct: u64,
    /// Times any record was shown.
    pub shown_total: u64,
}

/// Numbers over everything, and per content type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that a query could return now; of an inventory, the rows of its ledger.
    pub visible: u64,
    /// Records generated but held back, because they are late.
    pub pending: u64,
    /// Visible records shown at least once.
    pub shown_distinct: u64,
    /// Times any record was shown.
    pub shown_total: u64,
    /// The same per content type.
    pub by_type: BTreeMap<String, Count>,
}

impl Counts {
    pub(crate) fn add(&mut self, content_type: &str, count: Count) {
        self.visible += count.visible;
        self.pending += count.pending;
        self.shown_distinct += count.shown_distinct;
        self.shown_total += count.shown_total;
        self.by_type.insert(content_type.to_string(), count);
    }
}

/// One request to an API, as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLog {
    /// When the answer was ready.
    pub at: DateTime<Utc>,
    /// The path.
    pub route: String,
    /// The query as it came.
    pub query: String,
    /// The status sent; 0 when a fault left the request without one.
    pub status: u16,
    /// Records in the answer; 0 when a fault made it unreadable.
    pub records: usize,
    /// The page token that came with the request, decoded once.
    pub token: Option<String>,
    /// Whether the client asked for gzip.
    pub accept_gzip: bool,
}

/// The requests of a long run must not fill the memory.
const REQUESTS_MAX: usize = 100_000;

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<VecDeque<RequestLog>>);

impl Requests {
    pub(crate) fn push(&self, request: RequestLog) {
        let mut requests = locked(&self.0);
        if requests.len() == REQUESTS_MAX {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(crate) fn all(&self) -> Vec<RequestLog> {
        locked(&self.0).iter().cloned().collect()
    }
}
