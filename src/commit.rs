//! The committer: the way back of the acknowledgement, from the host to the state file.
//!
//! One thread per instance takes confirmed batches, moves each stream's cursor, writes both to the
//! store, and only then frees the queue's room. So when the store fails, the queue fills and the
//! pollers wait: nothing is lost and nothing grows. It has its own thread because a disk may be slow
//! and the host's callbacks must not be.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::batch::Batch;
use crate::checkpoint::{Change, Saved, Store};
use crate::clock::{Stop, Time, lock};
use crate::config::Emit;
use crate::connector::Mode;
use crate::cursor::Progress;
use crate::ledger::Ledger;
use crate::log::Logger;
use crate::queue::Queue;
use crate::record::Id;
use crate::sweep::Inventory;
use crate::window::Policy;

/// How long to wait before the store is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that one transaction takes along.
const MESSAGES_MAX: usize = 256;

/// What has happened to the records of one stream since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read from the vendor.
    pub fetched: u64,
    /// Of these, records that were known already.
    pub duplicate: u64,
    /// Of these, records confirmed by the host and committed.
    pub delivered: u64,
}

/// Where one stream stands.
#[derive(Default)]
pub struct Position {
    /// How far it has been delivered.
    pub progress: Progress,
    /// What has been delivered.
    pub ledger: Ledger,
    /// What the receiver was told, for an inventory of which only changes are delivered.
    pub inventory: Option<Inventory>,
    /// How many records went which way.
    pub counts: Counts,
}

impl Position {
    /// `fetched = delivered + duplicate + pending`; anything else means that records went astray.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let Counts { fetched, duplicate, delivered } = self.counts;
        fetched == delivered + duplicate + self.ledger.pending() as u64
    }
}

/// One stream, shared by its poller and the committer.
pub struct StreamState {
    key: String,
    policy: Policy,
    mode: Mode,
    position: Mutex<Position>,
}

impl StreamState {
    /// A stream as it was saved.
    #[must_use]
    pub fn new(key: String, policy: Policy, mode: Mode, emit: Emit, saved: Saved) -> Self {
        let mut buckets: BTreeMap<Time, Vec<Id>> = BTreeMap::new();
        for (until, id) in saved.ids {
            buckets.entry(until).or_default().push(id);
        }
        let mut ledger = Ledger::default();
        buckets.iter().for_each(|(&until, ids)| ledger.deliver(ids, until));
        let inventory = (emit == Emit::Changes).then(|| Inventory::new(saved.entities));
        let progress = Progress::new(saved.cursor);
        let counts = Counts::default();
        let position = Mutex::new(Position { progress, ledger, inventory, counts });
        Self { key, policy, mode, position }
    }

    /// Its windows' policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How it is read.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where it stands; held briefly, for memory is all that is touched.
    pub fn position(&self) -> MutexGuard<'_, Position> {
        lock(&self.position)
    }

    /// Gives up the windows that are not read to their end, and the batches of them that nobody has
    /// seen; all of it is asked for again.
    pub fn abandon(&self, unseen: &[Batch]) {
        let mut position = self.position();
        for batch in unseen {
            position.ledger.withdraw(&batch.ids);
            position.progress.withdrawn(batch.window);
            position.counts.fetched -= batch.records() as u64;
            if let Some(inventory) = &mut position.inventory {
                inventory.withdraw(&batch.ids);
            }
        }
        position.progress.abandon();
    }

    /// Whether batches must be announced to the committer before they are queued.
    #[must_use]
    pub fn has_intents(&self) -> bool {
        self.position().inventory.is_some()
    }

    /// What is to be saved before a batch may reach the host.
    fn intend(&self, ids: &[Id]) -> Change {
        let position = self.position();
        let entities = position.inventory.as_ref().map(|inventory| inventory.intents(ids));
        let entities = entities.unwrap_or_default();
        Change { stream: self.key.clone(), entities, ..Change::default() }
    }

    /// Takes batches over as delivered and moves the cursor.
    fn settle(&self, batches: &[&Batch]) -> Change {
        let mut position = self.position();
        let mut delivered: BTreeMap<Time, Vec<Id>> = BTreeMap::new();
        let mut entities = Vec::new();
        for batch in batches {
            if let Some(inventory) = &mut position.inventory {
                entities.extend(inventory.deliver(&batch.ids));
            }
            position.ledger.deliver(&batch.ids, batch.until);
            position.progress.committed(batch.window);
            position.counts.delivered += batch.records() as u64;
            delivered.entry(batch.until).or_default().extend(&batch.ids);
        }
        let cursor = position.progress.advance();
        let forget_before = cursor.map(|cursor| self.policy.reach(cursor));
        if let Some(before) = forget_before {
            position.ledger.forget(before);
        }
        // A sweep that was cut off begins anew, so nobody asks what it had delivered.
        let is_kept = self.mode == Mode::Log;
        let delivered = delivered.into_iter().filter(|_| is_kept).collect();
        Change { stream: self.key.clone(), delivered, entities, cursor, forget_before }
    }
}

/// What the committer is told.
pub enum Message {
    /// The host has these batches.
    Confirmed(Vec<Batch>),
    /// A window of this stream was read to its end; perhaps the cursor can move.
    Read(usize),
    /// A batch of this stream is about to be queued; `done` is told when its intents are saved.
    Intend {
        /// The stream.
        stream: usize,
        /// The ids of the batch.
        ids: Vec<Id>,
        /// Who waits.
        done: Sender<()>,
    },
}

/// What some messages amount to.
struct Settled {
    changes: Vec<Change>,
    /// Bytes of batches that are delivered.
    bytes: usize,
    /// Who waits until the changes are saved.
    waiting: Vec<Sender<()>>,
}

/// The committer's side of one instance.
pub struct Committer {
    /// Its streams, by the index that batches carry.
    pub streams: Vec<Arc<StreamState>>,
    /// Where changes are saved.
    pub store: Box<dyn Store>,
    /// Whose room is freed.
    pub queue: Arc<Queue>,
    /// Raised when the instance stops.
    pub stop: Stop,
    /// Where it speaks.
    pub logger: Logger,
}

impl Committer {
    /// Commits what `messages` brings until its senders are gone.
    pub fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let more = messages.try_iter().take(MESSAGES_MAX - 1);
            let Settled { changes, bytes, waiting } =
                self.settle(std::iter::once(first).chain(more));
            if !changes.is_empty() && !self.save(&changes) {
                return;
            }
            self.queue.release(bytes);
            // Whoever no longer waits has stopped.
            for done in waiting {
                let _ = done.send(());
            }
        }
    }

    fn settle(&self, messages: impl Iterator<Item = Message>) -> Settled {
        let (mut batches, mut changes, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut touched = vec![false; self.streams.len()];
        for message in messages {
            match message {
                Message::Read(stream) => touched[stream] = true,
                Message::Confirmed(confirmed) => batches.extend(confirmed),
                Message::Intend { stream, ids, done } => {
                    changes.push(self.streams[stream].intend(&ids));
                    waiting.push(done);
                }
            }
        }
        batches.iter().for_each(|batch| touched[batch.stream] = true);
        for (index, stream) in self.streams.iter().enumerate().filter(|(index, _)| touched[*index])
        {
            let own: Vec<&Batch> = batches.iter().filter(|batch| batch.stream == index).collect();
            changes.extend(Some(stream.settle(&own)).filter(|change| !change.is_empty()));
            if !stream.position().is_balanced() {
                let counts = stream.position().counts;
                self.logger.error(format!("{}: records went astray: {counts:?}", stream.key));
            }
        }
        Settled { changes, bytes: batches.iter().map(|batch| batch.bytes.len()).sum(), waiting }
    }

    /// Saves `changes`, however long that takes; gives up only when the instance stops, and then
    /// the same records are asked for again at the next start.
    fn save(&mut self, changes: &[Change]) -> bool {
        let mut has_failed = false;
        loop {
            let Err(error) = self.store.commit(changes) else {
                if has_failed {
                    self.logger.info("the state file can be written again");
                }
                return true;
            };
            if !has_failed {
                self.logger.error(format!(
                    "{error}; nothing is lost, but collecting waits until it can be written"
                ));
            }
            has_failed = true;
            if self.stop.wait(RETRY_INTERVAL) {
                return self.store.commit(changes).is_ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::error::{Error, ErrorKind, Result};
    use crate::log::{Level, Log};

    /// A store that fails a number of times and then remembers what it was told.
    struct Flaky {
        failures: u32,
        saved: Arc<Mutex<Vec<Change>>>,
    }

    impl Store for Flaky {
        fn load(&mut self, _: &str) -> Result<Saved> {
            Ok(Saved::default())
        }

        fn commit(&mut self, changes: &[Change]) -> Result<()> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(Error::new(ErrorKind::Store, "disk full"));
            }
            lock(&self.saved).extend_from_slice(changes);
            Ok(())
        }
    }

    #[test]
    fn room_is_freed_only_after_the_store_has_it() {
        let at = |secs| Time::from_timestamp(secs, 0).unwrap();
        let policy = Policy {
            lookback: Duration::from_secs(60),
            overlap: Duration::from_secs(10),
            span_max: Duration::from_secs(3600),
        };
        let stream =
            Arc::new(StreamState::new("s".into(), policy, Mode::Log, Emit::All, Saved::default()));
        let window = stream.position().progress.open(at(100));
        let ids = vec![Id(1), Id(2)];
        {
            let mut position = stream.position();
            ids.iter().for_each(|&id| assert!(position.ledger.admit(id)));
            position.counts.fetched = 2;
            position.progress.offered(window);
            position.progress.read(window);
        }
        let queue = Arc::new(Queue::new(100));
        let until = at(100);
        let batch = Batch { stream: 0, window, until, tag: None, bytes: vec![0; 40], ids };
        assert!(queue.push(batch, &Stop::default()).is_ok());
        let taken = queue.take(100, 1);

        let saved = Arc::new(Mutex::new(Vec::new()));
        let log = Log::new(Level::Info);
        let committer = Committer {
            streams: vec![Arc::clone(&stream)],
            store: Box::new(Flaky { failures: 1, saved: Arc::clone(&saved) }),
            queue: Arc::clone(&queue),
            stop: Stop::default(),
            logger: Logger::new(Arc::clone(&log), ""),
        };
        let (sender, receiver) = mpsc::channel();
        sender.send(Message::Confirmed(taken)).unwrap();
        let thread = std::thread::spawn(move || committer.run(&receiver));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(queue.bytes(), 40, "the first attempt failed");
        drop(sender);
        thread.join().unwrap();
        assert_eq!(queue.bytes(), 0);
        let saved = lock(&saved);
        assert_eq!(saved[0].cursor, Some(at(100)));
        assert_eq!(saved[0].forget_before, Some(at(90)));
        assert_eq!(saved[0].delivered, [(at(100), vec![Id(1), Id(2)])]);
        let lines: Vec<_> = log.take().into_iter().map(|line| line.text).collect();
        assert!(lines[0].contains("disk full") && lines[1].contains("again"), "{lines:?}");
        assert!(stream.position().is_balanced());
    }
}
