//! The committer: the way back of the acknowledgement, from the host to the state file.
//!
//! One thread per instance takes confirmed batches, moves each stream's cursor, writes both to the
//! store, and only then frees the queue's room. So when the store fails, the queue fills and the
//! pollers wait: nothing is lost and nothing grows. It has its own thread because a disk may be slow
//! and the host's callbacks must not be.

use std::array;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::activity::Activity;
use crate::batch::Batch;
use crate::checkpoint::{Change, Saved, Store};
use crate::clock::{Stop, Time, delta, lock};
use crate::config::Emit;
use crate::connector::Mode;
use crate::cursor::{Lane, Progress, WindowId};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Tenure;
use crate::ledger::Ledger;
use crate::log::Logger;
use crate::queue::Queue;
use crate::record::Id;
use crate::sweep::Inventory;
use crate::window::{HORIZON, PASSES, Policy, Window};

/// How long to wait before the store is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that one transaction takes along.
const MESSAGES_MAX: usize = 256;
/// Ids that a verification pass compares a window with; a busier window is halved.
const RECALLED_MAX: usize = 250_000;

/// What has happened to the records of one stream since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read from the vendor.
    pub fetched: u64,
    /// Of these, records that were known already.
    pub duplicate: u64,
    /// Of these, records confirmed by the host and committed.
    pub delivered: u64,
    /// Of these, records that only a verification pass found.
    pub late: u64,
}

/// Where one stream stands.
pub struct Position {
    /// Under which lease.
    pub tenure: Tenure,
    /// How far it has been delivered.
    pub progress: Progress,
    /// How far each verification pass has read.
    pub passes: [Progress; PASSES],
    /// What has been delivered.
    pub ledger: Ledger,
    /// What the receiver was told, for an inventory of which only changes are delivered.
    pub inventory: Option<Inventory>,
    /// How many records went which way.
    pub counts: Counts,
    /// The longest that a record was seen to take from its generation to its first showing.
    pub lateness_max: Duration,
}

impl Position {
    /// The progress of whoever reads a window.
    pub fn lane(&mut self, lane: Lane) -> &mut Progress {
        match lane {
            Lane::Live => &mut self.progress,
            Lane::Pass(pass) => &mut self.passes[pass],
        }
    }

    /// A new stream begins at `start`; its passes have nothing to verify before that.
    pub fn anchor(&mut self, start: Time) {
        self.progress.anchor(start);
        for pass in self.passes.iter_mut().filter(|pass| pass.cursor().is_none()) {
            pass.skip_to(start);
        }
    }

    /// The vendor's clock shows that a cursor lies in its future, where ours has put the beginning of
    /// a stream: it begins by the vendor's clock instead. Returns whether that was so.
    pub fn retreat(&mut self, vendor_now: Time, lookback: Duration) -> bool {
        let start = vendor_now - delta(lookback);
        let is_beyond = self.progress.retreat(vendor_now, start);
        for pass in self.passes.iter_mut().filter(|_| is_beyond) {
            pass.retreat(vendor_now, start);
        }
        is_beyond
    }

    /// `fetched = delivered + duplicate + pending`; anything else means that records went astray.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let Counts { fetched, duplicate, delivered, .. } = self.counts;
        fetched == delivered + duplicate + self.ledger.pending() as u64
    }
}

/// One stream, shared by its poller and the committer.
pub struct StreamState {
    key: String,
    policy: Policy,
    mode: Mode,
    position: Mutex<Position>,
    activity: Mutex<Activity>,
}

impl StreamState {
    /// A stream as it was saved.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(
        key: String,
        mut policy: Policy,
        mode: Mode,
        emit: Emit,
        store: &mut dyn Store,
    ) -> Result<Self> {
        let Saved { cursor, verified, entities, is_unknown } = store.load(&key)?;
        if is_unknown {
            // All that the vendor still has may be missing.
            policy.lookback = HORIZON;
        }
        let mut ledger = Ledger::default();
        if let Some(cursor) = cursor {
            let reachable = Window { start: policy.reach(cursor), end: Time::MAX_UTC };
            let ids = store.recall(&key, reachable, usize::MAX)?;
            ids.iter().flatten().for_each(|&(until, id)| ledger.deliver(&[id], until));
        }
        // A store that knows nothing of passes has forgotten what they would compare with.
        let pass = |pass| Progress::of(Lane::Pass(pass), verified[pass].or(cursor));
        let position = Mutex::new(Position {
            tenure: Tenure::default(),
            progress: Progress::new(cursor),
            passes: array::from_fn(pass),
            ledger,
            inventory: (emit == Emit::Changes).then(|| Inventory::new(entities)),
            counts: Counts::default(),
            lateness_max: Duration::ZERO,
        });
        Ok(Self { key, policy, mode, position, activity: Mutex::default() })
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

    /// What its poller is doing; held briefly, and never together with the position.
    pub fn activity(&self) -> MutexGuard<'_, Activity> {
        lock(&self.activity)
    }

    /// Gives up the windows of a lane that are not read to their end, and the batches of them that
    /// nobody has seen; all of it is asked for again.
    pub fn abandon(&self, lane: Lane, unseen: &[Batch]) {
        let mut position = self.position();
        for batch in unseen {
            position.ledger.withdraw(&batch.ids);
            position.lane(lane).settled(batch.window);
            position.counts.fetched -= batch.records() as u64;
            if let Some(inventory) = &mut position.inventory {
                inventory.withdraw(&batch.ids);
            }
        }
        position.lane(lane).abandon();
    }

    /// Whether a verification pass of that number reads it again.
    #[must_use]
    pub fn has_pass(&self, pass: usize) -> bool {
        self.mode == Mode::Log && self.policy.pass_age(pass).is_some()
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
        let tenure = position.tenure.clone();
        Change { tenure, stream: self.key.clone(), entities, ..Change::default() }
    }

    /// Takes batches over as delivered and moves the cursors.
    fn settle(&self, batches: &[&Batch]) -> Change {
        let mut position = self.position();
        let mut delivered: HashMap<WindowId, (Window, Vec<Id>)> = HashMap::new();
        let mut entities = Vec::new();
        for batch in batches {
            if let Some(inventory) = &mut position.inventory {
                entities.extend(inventory.deliver(&batch.ids));
            }
            position.ledger.deliver(&batch.ids, batch.span.end);
            position.lane(batch.window.lane()).settled(batch.window);
            position.counts.delivered += batch.records() as u64;
            // Batches from before and after a split name the same window with another span.
            let (span, ids) = delivered.entry(batch.window).or_insert((batch.span, Vec::new()));
            span.end = span.end.max(batch.span.end);
            ids.extend(&batch.ids);
        }
        let cursor = position.progress.advance();
        let verified = array::from_fn(|pass| position.passes[pass].advance());
        // Also what a pass has just found: only the store can tell it from late records again.
        if let Some(cursor) = position.progress.cursor() {
            position.ledger.forget(self.policy.reach(cursor));
        }
        // A sweep that was cut off begins anew, so nobody asks what it had delivered.
        let is_kept = self.mode == Mode::Log;
        Change {
            tenure: position.tenure.clone(),
            stream: self.key.clone(),
            delivered: delivered.into_values().filter(|_| is_kept).collect(),
            entities,
            cursor,
            verified,
            forget_before: cursor.map(|cursor| self.policy.memory(cursor)),
        }
    }

    /// Everything that a new store must know, when the old one is lost.
    ///
    /// The ledger in memory reaches back only as far as the overlap, so the passes begin there.
    fn snapshot(&self) -> Change {
        let mut position = self.position();
        let cursor = position.progress.cursor();
        if let Some(cursor) = cursor {
            let known_from = self.policy.reach(cursor);
            position.passes.iter_mut().for_each(|pass| pass.skip_to(known_from));
        }
        let span = |end| Window { start: Time::UNIX_EPOCH, end };
        let delivered = position.ledger.buckets().map(|(until, ids)| (span(until), ids));
        Change {
            tenure: position.tenure.clone(),
            stream: self.key.clone(),
            delivered: delivered.filter(|_| self.mode == Mode::Log).collect(),
            entities: position.inventory.as_ref().map(Inventory::snapshot).unwrap_or_default(),
            cursor,
            verified: array::from_fn(|pass| position.passes[pass].cursor()),
            forget_before: None,
        }
    }

    /// What a pass compares a window with.
    fn recall(&self, lane: Lane, span: Window, store: &mut dyn Store) -> Result<Recalled> {
        // The store may have been made anew since the window was planned.
        if self.position().lane(lane).cursor() > Some(span.start) {
            return Ok(Recalled::Forgotten);
        }
        let known = store.recall(&self.key, span, RECALLED_MAX)?;
        Ok(known.map_or(Recalled::TooMany, |known| {
            Recalled::Known(known.into_iter().map(|(_, id)| id).collect())
        }))
    }
}

/// What is remembered of the records of a window.
#[derive(Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Those that were delivered, and perhaps some of its neighbours.
    Known(Vec<Id>),
    /// They are too many for one comparison.
    TooMany,
    /// Nobody knows any more which were delivered.
    Forgotten,
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
    /// A verification pass is about to read a window of this stream.
    Recall {
        /// The stream.
        stream: usize,
        /// The pass.
        lane: Lane,
        /// The window.
        span: Window,
        /// Who waits.
        done: Sender<Result<Recalled>>,
    },
}

/// What some messages amount to.
#[derive(Default)]
struct Settled {
    changes: Vec<Change>,
    /// Bytes of batches that are delivered.
    bytes: usize,
    /// Who waits until the changes are saved.
    waiting: Vec<Sender<()>>,
    /// Who waits for what is remembered.
    recalls: Vec<(usize, Lane, Window, Sender<Result<Recalled>>)>,
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
            let Settled { changes, bytes, waiting, recalls } =
                self.settle(std::iter::once(first).chain(more));
            if !changes.is_empty() && !self.save(&changes) {
                return;
            }
            self.queue.release(bytes);
            // Whoever no longer waits has stopped.
            for done in waiting {
                let _ = done.send(());
            }
            for (stream, lane, span, done) in recalls {
                let _ = done.send(self.recall(stream, lane, span));
            }
        }
    }

    fn settle(&self, messages: impl Iterator<Item = Message>) -> Settled {
        let (mut settled, mut batches) = (Settled::default(), Vec::new());
        let mut touched = vec![false; self.streams.len()];
        for message in messages {
            match message {
                Message::Read(stream) => touched[stream] = true,
                Message::Confirmed(confirmed) => batches.extend(confirmed),
                Message::Intend { stream, ids, done } => {
                    settled.changes.push(self.streams[stream].intend(&ids));
                    settled.waiting.push(done);
                }
                Message::Recall { stream, lane, span, done } => {
                    settled.recalls.push((stream, lane, span, done));
                }
            }
        }
        batches.iter().for_each(|batch| touched[batch.stream] = true);
        settled.bytes = batches.iter().map(|batch| batch.bytes.len()).sum();
        for (index, stream) in self.streams.iter().enumerate().filter(|(index, _)| touched[*index])
        {
            let own: Vec<&Batch> = batches.iter().filter(|batch| batch.stream == index).collect();
            settled.changes.extend(Some(stream.settle(&own)).filter(|change| !change.is_empty()));
            if !stream.position().is_balanced() {
                let counts = stream.position().counts;
                self.logger.error(format!("{}: records went astray: {counts:?}", stream.key));
            }
        }
        settled
    }

    /// Saves `changes`, however long that takes; gives up only when the instance stops, and then
    /// the same records are asked for again at the next start.
    fn save(&mut self, changes: &[Change]) -> bool {
        let mut has_failed = false;
        loop {
            let Err(error) = self.try_save(changes) else {
                if has_failed {
                    self.logger.info("the state file can be written again");
                    self.note_unsaved(false);
                }
                return true;
            };
            if !has_failed {
                self.logger.error(format!(
                    "{error}; nothing is lost, but collecting waits until it can be written"
                ));
            }
            has_failed = true;
            self.note_unsaved(true);
            if self.stop.wait(RETRY_INTERVAL) {
                return self.try_save(changes).is_ok();
            }
        }
    }

    fn note_unsaved(&self, is_unsaved: bool) {
        self.streams.iter().for_each(|stream| stream.activity().is_unsaved = is_unsaved);
    }

    /// Saves `changes`, in a new store if the old one is lost: all that it held is in memory.
    fn try_save(&mut self, changes: &[Change]) -> Result<()> {
        match self.store.commit(changes) {
            Err(error) if error.kind() == ErrorKind::Damaged => self.renew(&error),
            other => other.map(drop),
        }
    }

    fn recall(&mut self, stream: usize, lane: Lane, span: Window) -> Result<Recalled> {
        match self.streams[stream].recall(lane, span, &mut *self.store) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.renew(&error).map(|()| Recalled::Forgotten)
            }
            other => other,
        }
    }

    /// Makes the store anew, which is lost because of `error`.
    fn renew(&mut self, error: &Error) -> Result<()> {
        let all: Vec<Change> = self.streams.iter().map(|stream| stream.snapshot()).collect();
        let how = self.store.renew(&all)?;
        self.logger.error(format!(
            "{error}; it was {how} from memory, so nothing is lost and nothing comes twice, but what \
             is older than the overlap is not verified again"
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
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

        fn recall(&mut self, _: &str, _: Window, _: usize) -> Result<Option<Vec<(Time, Id)>>> {
            Ok(Some(Vec::new()))
        }

        fn renew(&mut self, _: &[Change]) -> Result<String> {
            Err(Error::new(ErrorKind::Store, "disk gone"))
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
            verify: false,
        };
        let saved = Arc::new(Mutex::new(Vec::new()));
        let mut store = Flaky { failures: 1, saved: Arc::clone(&saved) };
        let stream = StreamState::load("s".into(), policy, Mode::Log, Emit::All, &mut store);
        let stream = Arc::new(stream.unwrap());
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
        let span = Window { start: at(90), end: at(100) };
        let batch = Batch { stream: 0, window, span, tag: None, bytes: vec![0; 40], ids };
        assert!(queue.push(batch, &Stop::default()).is_ok());
        let taken = queue.take(100, 1);

        let log = Log::new(Level::Info);
        let committer = Committer {
            streams: vec![Arc::clone(&stream)],
            store: Box::new(store),
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
        assert_eq!(saved[0].delivered, [(span, vec![Id(1), Id(2)])]);
        let lines: Vec<_> = log.take().into_iter().map(|line| line.text).collect();
        assert!(lines[0].contains("disk full") && lines[1].contains("again"), "{lines:?}");
        assert!(stream.position().is_balanced());
    }
}
