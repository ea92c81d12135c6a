//! The committer: the way back of the acknowledgement, from the host to the state file.
//!
//! One thread per instance takes confirmed batches, moves each stream's cursor, writes both to the
//! store, and only then frees the queue's room. So when the store fails, the queue fills and the
//! pollers wait: nothing is lost and nothing grows. It has its own thread because a disk may be slow
//! and the host's callbacks must not be.

mod stream;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::batch::Batch;
use crate::checkpoint::{Change, Store};
use crate::clock::Stop;
use crate::cursor::Lane;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Tenure;
use crate::log::Logger;
use crate::queue::Queue;
use crate::record::Id;
use crate::window::Window;

pub use stream::{Counts, Position, StreamState};

/// How long to wait before the store is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that one transaction takes along.
const MESSAGES_MAX: usize = 256;

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
            let is_own = |batch: &&Batch| batch.stream == index && stream.is_current(batch);
            let own: Vec<&Batch> = batches.iter().filter(is_own).collect();
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
                    self.logger.info("positions can be saved again");
                    self.note_unsaved(false);
                }
                return true;
            };
            if !has_failed {
                self.logger.error(format!(
                    "{error}; nothing is lost, but collecting waits until positions can be saved"
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
            ended => ended.map(|ended| self.report_ended(&ended)),
        }
    }

    /// Says which changes were not saved. Whoever keeps the leases sees for itself that they are lost.
    fn report_ended(&self, ended: &[Tenure]) {
        for Tenure { connector, epoch } in ended {
            self.logger.warn(format!(
                "{connector}: another host has taken over since epoch {epoch}; what this one \
                 delivered meanwhile is not saved, so the other delivers it again"
            ));
        }
    }

    fn recall(&mut self, stream: usize, lane: Lane, span: Window) -> Result<Recalled> {
        match self.streams[stream].recall(lane, span, &mut *self.store) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.renew(&error).map(|()| Recalled::Forgotten)
            }
            // What a database refuses, such as a password that was changed, is no fault of the stream.
            Err(error) if error.kind() == ErrorKind::Config => {
                Err(Error::new(ErrorKind::Store, error.to_string()))
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
    use std::sync::{Mutex, mpsc};

    use super::*;
    use crate::checkpoint::Saved;
    use crate::clock::{Time, lock};
    use crate::config::Emit;
    use crate::connector::Mode;
    use crate::log::{Level, Log};
    use crate::window::Policy;

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

        fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(Error::new(ErrorKind::Store, "disk full"));
            }
            lock(&self.saved).extend_from_slice(changes);
            Ok(Vec::new())
        }
    }

    #[test]
    fn room_is_freed_only_after_the_store_has_it() {
        let at = |secs| Time::from_timestamp(secs, 0).unwrap();
        let policy = Policy {
            lookback: Duration::from_secs(60),
            overlap: Duration::from_secs(10),
            span_max: Duration::from_secs(3600),
            records_max: 100,
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
