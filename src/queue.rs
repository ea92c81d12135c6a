//! The bounded queue between the pollers and the host.
//!
//! It counts the bytes of a batch from the moment a poller offers it until it is *committed*, not
//! merely taken: so the bound covers what waits, what the host holds unconfirmed and what the state
//! store has yet to write. When the bound is reached the pollers wait; nothing is ever dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::batch::Batch;
use crate::clock::{Stop, lock};

/// How often a waiting poller looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    waiting: VecDeque<Batch>,
    bytes: usize,
    paused: bool,
}

/// Batches on their way to the host.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

impl Queue {
    /// A queue for `bytes_max` uncommitted bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    /// Offers a batch; waits while the queue is full or paused.
    ///
    /// A batch larger than the whole bound is let in when nothing else is there.
    ///
    /// # Errors
    /// Gives the batch back if `stop` was raised.
    #[expect(clippy::result_large_err, reason = "the batch itself comes back, once per stop")]
    pub fn push(&self, batch: Batch, stop: &Stop) -> Result<(), Batch> {
        let mut state = lock(&self.state);
        while state.paused || (state.bytes > 0 && state.bytes + batch.bytes.len() > self.bytes_max)
        {
            if stop.is_raised() {
                return Err(batch);
            }
            let (guard, _) = self
                .changed
                .wait_timeout(state, STOP_CHECK_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
        state.bytes += batch.bytes.len();
        state.waiting.push_back(batch);
        Ok(())
    }

    /// Takes waiting batches of together at most `bytes_max`, at least one if any waits.
    pub fn take(&self, bytes_max: usize, batches_max: usize) -> Vec<Batch> {
        let mut state = lock(&self.state);
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = state.waiting.front()
            && taken.len() < batches_max
            && (taken.is_empty() || bytes + batch.bytes.len() <= bytes_max)
        {
            bytes += batch.bytes.len();
            taken.extend(state.waiting.pop_front());
        }
        taken
    }

    /// Frees the room of batches that are committed.
    pub fn release(&self, bytes: usize) {
        lock(&self.state).bytes -= bytes;
        self.changed.notify_all();
    }

    /// While paused, no batch is let in; those inside stay.
    pub fn set_paused(&self, paused: bool) {
        lock(&self.state).paused = paused;
        self.changed.notify_all();
    }

    /// Bytes offered and not yet committed.
    pub fn bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// Batches that the host has not taken yet.
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Time;
    use crate::cursor::Progress;
    use crate::window::Window;

    fn batch(bytes: usize) -> Batch {
        let end = Time::from_timestamp(0, 0).unwrap();
        let window = Progress::new(None).open(end);
        Batch {
            stream: 0,
            window,
            span: Window { start: end, end },
            tag: None,
            bytes: vec![0; bytes],
            ids: Vec::new(),
        }
    }

    #[test]
    fn room_is_freed_by_commit_and_not_by_taking() {
        let queue = Arc::new(Queue::new(100));
        let stop = Stop::default();
        assert!(queue.push(batch(60), &stop).is_ok());
        assert_eq!(queue.take(usize::MAX, 9).len(), 1);
        let pusher = {
            let (queue, stop) = (Arc::clone(&queue), stop.clone());
            std::thread::spawn(move || queue.push(batch(60), &stop).is_ok())
        };
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(queue.waiting(), 0, "taken but not committed: still full");
        queue.release(60);
        assert!(pusher.join().unwrap());
        assert_eq!((queue.waiting(), queue.bytes()), (1, 60));
    }

    #[test]
    fn a_stop_gives_the_batch_back() {
        let queue = Queue::new(100);
        let stop = Stop::default();
        queue.set_paused(true);
        stop.raise();
        assert!(queue.push(batch(10), &stop).is_err_and(|batch| batch.bytes.len() == 10));
        queue.set_paused(false);
        assert!(queue.push(batch(500), &stop).is_ok(), "larger than the bound, but alone");
    }

    #[test]
    fn take_respects_both_bounds_and_always_makes_progress() {
        let queue = Queue::new(1000);
        for size in [50, 10, 10, 10] {
            assert!(queue.push(batch(size), &Stop::default()).is_ok());
        }
        assert_eq!(queue.take(20, 9).len(), 1, "one batch although it is too large");
        assert_eq!(queue.take(20, 9).len(), 2);
        assert_eq!(queue.take(20, 0).len(), 0);
        assert_eq!(queue.take(20, 9).len(), 1);
    }
}
