//! An instance put together, without its threads: what the simulation drives in their place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Instance;
use super::watch::{Watch, Watched};
use crate::clock::{Stop, monotonic};
use crate::commit::Message;
use crate::handover::{Handover, Rule};
use crate::lease::Warrant;
use crate::log::{Log, Logger};
use crate::queue::Queue;

/// What an instance works with.
pub struct Parts {
    /// Lines for the host.
    pub log: Arc<Log>,
    /// Where it speaks.
    pub logger: Logger,
    /// Where the pollers' batches wait.
    pub queue: Arc<Queue>,
    /// Which rule confirms.
    pub rule: Rule,
    /// Whether records are appended, or returned.
    pub is_append: bool,
    /// What the host has counted when it stops, it also delivers.
    pub keeps_at_stop: bool,
    /// Who is told what is confirmed.
    pub committer: Sender<Message>,
    /// Until when it may hand anything over.
    pub warrant: Warrant,
    /// Raised when it stops.
    pub stop: Stop,
    /// The streams, by the index that batches carry; a connector's stand together.
    pub streams: Vec<Watched>,
}

impl Instance {
    /// An instance that nothing has been handed over by yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            log,
            logger,
            queue,
            rule,
            is_append,
            keeps_at_stop,
            committer,
            warrant,
            stop,
            streams,
        } = parts;
        Self {
            watch: Watch::new(streams, &logger, monotonic()),
            log,
            logger,
            queue,
            handover: Handover::new(rule),
            is_append,
            keeps_at_stop,
            is_paused: false,
            is_refused: false,
            again: VecDeque::new(),
            committer: Some(committer),
            stop,
            warrant,
            pollers: Vec::new(),
            committer_thread: None,
            keep_thread: None,
            is_committed: Stop::default(),
            failed_at: None,
        }
    }
}
