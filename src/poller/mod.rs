//! When to ask for what: one poller per connector, a pure machine in a thin thread.
//!
//! Each stream is in one of four states: *idle* until its next round, *fetching* a page, *offering*
//! the batches of a page, or *backing off* after a failure. [`Poller::next`] says what to do,
//! [`Poller::fetched`] and [`Poller::offered`] say how it went; neither waits, sends or reads a
//! clock. [`run`] does what they say.

mod task;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::clock::{self, Stop, Time, delta};
use crate::commit::Message;
use crate::connector::{self, Connector};
use crate::error::{ErrorKind, Result};
use crate::http::limiter::{Limiter, Priority};
use crate::http::{Request, Response, Transport, retry};
use crate::log::Logger;
use crate::page::{Body, PageReader};
use crate::queue::Queue;

pub use task::TaskParts;
use task::{State, Task};

/// A difference between our clock and the vendor's that is worth a line in the log.
const SKEW_NOTABLE: Duration = Duration::from_secs(30);
/// A stream of a budgeted connector that shows nothing is asked ever less often, but at least so
/// often: 48 streams every 15 minutes take three requests a minute.
const IDLE_INTERVAL_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a poller that waits for the committer looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// What is at most this old is live; older windows are backfill.
const LIVE_AGE_MAX: Duration = Duration::from_secs(600);

/// The time of day for windows, and a monotonic time for waits.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Vendor time, as far as we know it.
    pub time: Time,
    /// Local time that never jumps.
    pub instant: Instant,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { time: clock::now(), instant: clock::monotonic() }
    }
}

/// What to do next.
pub enum Step {
    /// Nothing needs doing before this has passed.
    Sleep(Duration),
    /// Send a request for a stream and report to [`Poller::fetched`].
    Fetch {
        /// The stream.
        stream: usize,
        /// What to send.
        request: Request,
        /// How urgent it is.
        priority: Priority,
    },
    /// Put a batch into the queue and report to [`Poller::offered`].
    Offer {
        /// The stream.
        stream: usize,
        /// The batch.
        batch: Batch,
    },
}

/// How often a connector's streams are asked.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Time between rounds.
    pub interval: Duration,
    /// Whether requests are scarce, so that streams which show nothing are asked less often.
    pub is_budgeted: bool,
}

impl Rhythm {
    /// From the start of a round to the next, after so many rounds in a row that showed nothing new.
    fn pause_after(self, idle_rounds: u32) -> Duration {
        if !self.is_budgeted {
            return self.interval;
        }
        let longer = self.interval.saturating_mul(1 << idle_rounds.min(10));
        longer.min(IDLE_INTERVAL_MAX.max(self.interval))
    }
}

/// The pure machine of one connector.
pub struct Poller {
    connector: Arc<dyn Connector>,
    rhythm: Rhythm,
    logger: Logger,
    tasks: Vec<Task>,
    /// The task that is looked at first, so that a long backlog does not starve the others.
    turn: usize,
    is_skew_known: bool,
    /// Streams whose window was read to its end since this was last taken.
    read: Vec<usize>,
}

impl Poller {
    /// A poller over a connector's streams, in their order; its first round is due at `now`.
    #[must_use]
    pub fn new(
        connector: Arc<dyn Connector>,
        rhythm: Rhythm,
        logger: Logger,
        parts: Vec<TaskParts>,
        now: Instant,
    ) -> Self {
        let task = |parts| Task::new(parts, rhythm, now);
        let tasks = parts.into_iter().map(task).collect();
        Self { connector, rhythm, logger, tasks, turn: 0, is_skew_known: false, read: Vec::new() }
    }

    /// What to do now.
    pub fn next(&mut self, now: Now) -> Step {
        let count = self.tasks.len();
        for offset in 0..count {
            let stream = (self.turn + offset) % count;
            let task = &mut self.tasks[stream];
            task.wake(now);
            match &mut task.state {
                State::Offering { batches, .. } => {
                    if let Some(batch) = batches.pop_front() {
                        return Step::Offer { stream, batch };
                    }
                }
                State::Fetching { place } => {
                    // Whoever was served comes last next time.
                    self.turn = stream + 1;
                    let request =
                        self.connector.request(stream, &place.window, place.next.as_deref());
                    let age = now.time - place.window.end;
                    let is_live = age <= delta(LIVE_AGE_MAX.max(2 * self.rhythm.interval));
                    let priority = if is_live { Priority::Live } else { Priority::Backfill };
                    return Step::Fetch { stream, request, priority };
                }
                State::Idle { .. } | State::BackingOff { .. } => {}
            }
        }
        let due = self.tasks.iter().filter_map(Task::due).min().unwrap_or(now.instant);
        Step::Sleep(due.saturating_duration_since(now.instant))
    }

    /// What the body of the answer to the last [`Step::Fetch`] must be fed to.
    #[must_use]
    pub fn reader(&self, stream: usize) -> PageReader {
        let task = &self.tasks[stream];
        let shape = self.connector.streams()[stream].shape;
        PageReader::new(self.connector.list(), shape, task.is_lenient())
            .keeping_text(task.parts.envelope.needs_text())
    }

    /// How a fetch went, and what its body held. `random` in `0.0..1.0` spreads the wait after a failure; returns how long
    /// everybody with this credential should wait, if the vendor asked for that.
    pub fn fetched(
        &mut self,
        stream: usize,
        result: Result<(Response, Body)>,
        now: Now,
        random: f64,
    ) -> Option<Duration> {
        if let Ok((response, _)) = &result {
            self.learn_skew(response, now.time);
        }
        let page = result.and_then(|(response, body)| {
            retry::check(&response)?;
            Ok((connector::read(&*self.connector, &response, body)?, response.date))
        });
        let task = &mut self.tasks[stream];
        let place = task.take_fetching(now)?;
        let mut hold = None;
        match page {
            Ok((page, date)) => task.accept(place, page, date, now),
            Err(error) => {
                task.refuse(place, &error, now, random);
                if let ErrorKind::Retry { floor } = error.kind() {
                    hold = floor;
                }
            }
        }
        self.note_read(stream);
        hold
    }

    /// The batch of the last [`Step::Offer`] is in the queue.
    pub fn offered(&mut self, stream: usize, now: Now) {
        self.tasks[stream].go_on_if_offered(now);
        self.note_read(stream);
    }

    /// Whether the batches of a stream must be announced before they are queued.
    #[must_use]
    pub fn has_intents(&self, stream: usize) -> bool {
        self.tasks[stream].parts.shared.has_intents()
    }

    /// Gives up everything unfinished, so that another poller can begin where this one failed.
    pub fn abandon(&mut self) {
        self.tasks.iter_mut().for_each(Task::abandon);
    }

    /// The streams, by their index within the instance, whose window was read to its end.
    pub fn take_read(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.read)
    }

    fn note_read(&mut self, stream: usize) {
        let task = &mut self.tasks[stream];
        if task.take_has_read() {
            self.read.push(task.parts.index);
        }
    }

    /// Says once that the clocks differ; windows are kept right by each answer's own `Date`.
    fn learn_skew(&mut self, response: &Response, now: Time) {
        let Some(date) = response.date else { return };
        let skew = now - date;
        let is_notable = skew.abs() > delta(SKEW_NOTABLE);
        if is_notable && !self.is_skew_known {
            let (secs, way) = (
                skew.num_seconds().abs(),
                if skew.num_seconds() > 0 { "ahead of" } else { "behind" },
            );
            self.logger.warn(format!(
                "the clock of this machine is {secs} s {way} the vendor's; set it by NTP"
            ));
        }
        self.is_skew_known = is_notable;
    }
}

/// What a poller's thread works with.
pub struct Surroundings {
    /// The budget of its credential.
    pub limiter: Arc<Limiter>,
    /// Where its batches go.
    pub queue: Arc<Queue>,
    /// Who moves the cursors.
    pub committer: Sender<Message>,
    /// Raised when the instance stops.
    pub stop: Stop,
}

/// Does what `poller` says until the instance stops.
pub fn run(poller: &mut Poller, transport: &mut dyn Transport, around: &Surroundings) {
    let stop = &around.stop;
    while !stop.is_raised() {
        match poller.next(Now::read()) {
            Step::Sleep(wait) => {
                if stop.wait(wait) {
                    return;
                }
            }
            Step::Fetch { stream, request, priority } => {
                let mut reader = poller.reader(stream);
                let answer = around
                    .limiter
                    .acquire(priority, stop)
                    .and_then(|_| transport.send(&request, stop, &mut |bytes| reader.feed(bytes)));
                let result = answer.and_then(|answer| Ok((answer, reader.finish()?)));
                let hold = poller.fetched(stream, result, Now::read(), fastrand::f64());
                if let Some(wait) = hold {
                    around.limiter.hold(wait);
                }
            }
            Step::Offer { stream, batch } => {
                if poller.has_intents(stream) && !intend(&batch, around) {
                    return;
                }
                if around.queue.push(batch, stop).is_err() {
                    return;
                }
                poller.offered(stream, Now::read());
            }
        }
        for stream in poller.take_read() {
            // The committer outlives the pollers; it is gone only when the instance is.
            let _ = around.committer.send(Message::Read(stream));
        }
    }
}

/// Has it saved what a batch may tell the receiver, and waits for that; false if the instance stops.
fn intend(batch: &Batch, around: &Surroundings) -> bool {
    let (done, saved) = mpsc::channel();
    let ids = batch.ids.clone();
    let message = Message::Intend { stream: batch.stream, ids, done };
    if around.committer.send(message).is_err() {
        return false;
    }
    loop {
        match saved.recv_timeout(STOP_CHECK_INTERVAL) {
            Ok(()) => return true,
            Err(RecvTimeoutError::Timeout) if !around.stop.is_raised() => {}
            Err(_) => return false,
        }
    }
}
