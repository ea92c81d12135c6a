//! What the poller of a stream is doing, for those who watch it.

use std::time::{Duration, Instant};

use crate::clock::Time;

/// What answers are counted under: their status, or its class. `none` is a request that no whole
/// answer came to.
pub const CODES: [&str; 16] = [
    "200", "204", "2xx", "3xx", "400", "401", "403", "404", "408", "429", "4xx", "500", "502",
    "503", "5xx", "none",
];

/// What a poller's thread is held up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: its next round is not due.
    #[default]
    Round,
    /// The request budget of its credential.
    Budget,
    /// The vendor.
    Answer,
    /// Room in the queue.
    Room,
}

/// Failures in a row of a stream's live lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// Whether the vendor refused, so that a person must look.
    pub is_refused: bool,
    /// What the last one was, in short.
    pub reason: String,
    /// When the vendor is asked again.
    pub until: Instant,
}

/// Where a stream stands with its lease, where several hosts share the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether this host holds the lease.
    pub is_held: bool,
    /// The name of the host that does; empty for none.
    pub holder: String,
    /// The epoch under which this host last held it.
    pub epoch: u64,
    /// How often this host has taken it over from a silent one.
    pub takeovers: u64,
    /// The database cannot be asked.
    pub is_away: bool,
}

/// What one stream's poller is doing and has done since the start.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Requests, by the index of their code in [`CODES`].
    pub requests: [u64; CODES.len()],
    /// Time that requests waited for the budget.
    pub limiter_wait: Duration,
    /// When the live lane last got a page that could be read.
    pub answered_at: Option<Time>,
    /// When a record was last found that had not been delivered.
    pub news_at: Option<Time>,
    /// What keeps the live lane from getting its page.
    pub trouble: Option<Trouble>,
    /// What the thread waits for on behalf of this stream.
    pub wait: Wait,
    /// When the next live round is due.
    pub due: Option<Instant>,
    /// Time between live rounds.
    pub interval: Duration,
    /// Positions cannot be saved.
    pub is_unsaved: bool,
    /// Where it stands with its lease, if it has one.
    pub standing: Option<Standing>,
}

impl Activity {
    /// Counts a request by the status of its answer, if one came.
    pub fn requested(&mut self, status: Option<u16>) {
        self.requests[code(status)] += 1;
    }

    /// The live lane got a page.
    pub fn answered(&mut self, now: Time) {
        self.answered_at = Some(now);
        self.trouble = None;
    }
}

/// The index in [`CODES`] of a status.
fn code(status: Option<u16>) -> usize {
    let exact = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
    let class = format!("{}xx", &exact[..1]);
    let find = |text: &str| CODES.iter().position(|code| *code == text);
    find(&exact).or_else(|| find(&class)).unwrap_or(CODES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_under_itself_or_its_class() {
        let name = |status| CODES[code(status)];
        for (status, expected) in [
            (200, "200"),
            (204, "204"),
            (206, "2xx"),
            (302, "3xx"),
            (401, "401"),
            (418, "4xx"),
            (503, "503"),
            (504, "5xx"),
        ] {
            assert_eq!(name(Some(status)), expected);
        }
        assert_eq!((name(None), name(Some(999))), ("none", "none"));
    }
}
