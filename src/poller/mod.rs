//! When to ask for what: one poller per connector, a pure machine in a thin thread.
//!
//! Each stream has a live lane and, for logs, passes that read old windows again. Each lane is in one
//! of five states: *idle* until its next round, *recalling* what was delivered of an old window,
//! *fetching* a page, *offering* the batches of a page, or *backing off* after a failure.
//! [`Poller::next`] says what to do, [`Poller::recalled`], [`Poller::fetched`] and
//! [`Poller::offered`] say how it went; none of them waits, sends or reads a clock. [`run()`] does what
//! they say.

mod admit;
mod density;
mod lag;
mod place;
mod round;
mod run;
mod task;

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crate::activity::Activity;
use crate::batch::Batch;
use crate::clock::{self, Time, delta};
use crate::commit::Recalled;
use crate::connector::{self, Connector};
use crate::cursor::Lane;
use crate::error::{ErrorKind, Result};
use crate::http::limiter::Priority;
use crate::http::{Request, Response, retry};
use crate::log::Logger;
use crate::page::{Body, PageReader};
use crate::record::Records;
use crate::window::{PASSES, Window};

pub use run::{Surroundings, run};
pub use task::TaskParts;
use task::{State, Task};

/// A difference between our clock and the vendor's that is worth a line in the log.
const SKEW_NOTABLE: Duration = Duration::from_secs(30);
/// A stream of a budgeted connector that shows nothing is asked ever less often, but at least so
/// often: 48 streams every 15 minutes take three requests a minute.
const IDLE_INTERVAL_MAX: Duration = Duration::from_secs(15 * 60);
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
    /// Ask the committer what was delivered of a window and report to [`Poller::recalled`].
    Recall {
        /// The task.
        task: usize,
        /// The stream, by its index within the instance.
        stream: usize,
        /// Who reads the window.
        lane: Lane,
        /// The window.
        span: Window,
    },
    /// Send a request and report to [`Poller::fetched`].
    Fetch {
        /// The task.
        task: usize,
        /// What to send.
        request: Request,
        /// How urgent it is.
        priority: Priority,
    },
    /// Put a batch into the queue and report to [`Poller::offered`].
    Offer {
        /// The task.
        task: usize,
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
    /// The live lanes of all streams, in their order, and then the passes.
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
        let parts: Vec<Arc<TaskParts>> = parts.into_iter().map(Arc::new).collect();
        let task = |lane| {
            move |(stream, parts): (usize, &Arc<TaskParts>)| {
                Task::new(Arc::clone(parts), stream, lane, rhythm, now)
            }
        };
        let mut tasks: Vec<Task> = parts.iter().enumerate().map(task(Lane::Live)).collect();
        for pass in 0..PASSES {
            let has_pass = |(_, parts): &(usize, &Arc<TaskParts>)| parts.shared.has_pass(pass);
            let passes = parts.iter().enumerate().filter(has_pass);
            tasks.extend(passes.map(task(Lane::Pass(pass))));
        }
        Self { connector, rhythm, logger, tasks, turn: 0, is_skew_known: false, read: Vec::new() }
    }

    /// What to do now.
    pub fn next(&mut self, now: Now) -> Step {
        // What was read already comes only when nothing else is to do.
        if let Some(step) = self.serve(false, now).or_else(|| self.serve(true, now)) {
            return step;
        }
        let due = self.tasks.iter().filter_map(Task::due).min().unwrap_or(now.instant);
        Step::Sleep(due.saturating_duration_since(now.instant))
    }

    /// What the next of the live lanes, or of the passes, wants done.
    fn serve(&mut self, is_pass: bool, now: Now) -> Option<Step> {
        let count = self.tasks.len();
        for offset in 0..count {
            let task = (self.turn + offset) % count;
            if self.tasks[task].is_pass() != is_pass {
                continue;
            }
            self.tasks[task].wake(now);
            if let Some(step) = self.step(task, now) {
                return Some(step);
            }
        }
        None
    }

    /// What one task wants done.
    fn step(&mut self, index: usize, now: Now) -> Option<Step> {
        let task = &mut self.tasks[index];
        match &mut task.state {
            State::Offering { batches, .. } => {
                batches.pop_front().map(|batch| Step::Offer { task: index, batch })
            }
            State::Recalling { place } => Some(Step::Recall {
                task: index,
                stream: task.parts.index,
                lane: task.lane,
                span: place.window,
            }),
            State::Fetching { place } => {
                // Whoever was served comes last next time.
                self.turn = index + 1;
                let next = place.next.as_deref();
                let request = self.connector.request(task.stream, &place.window, next);
                let age = now.time - place.window.end;
                let is_live = age <= delta(LIVE_AGE_MAX.max(2 * self.rhythm.interval));
                let priority = match task.lane {
                    Lane::Live if is_live => Priority::Live,
                    Lane::Live => Priority::Backfill,
                    Lane::Pass(_) => Priority::Verification,
                };
                Some(Step::Fetch { task: index, request, priority })
            }
            State::Idle { .. } | State::BackingOff { .. } => None,
        }
    }

    /// The stream of a task, by its index within the connector.
    #[must_use]
    pub fn stream(&self, task: usize) -> usize {
        self.tasks[task].stream
    }

    /// What others see of the stream of a task.
    fn activity(&self, task: usize) -> MutexGuard<'_, Activity> {
        self.tasks[task].parts.shared.activity()
    }

    /// What the body of the answer to the last [`Step::Fetch`] must be fed to.
    #[must_use]
    pub fn reader(&self, task: usize) -> PageReader {
        let task = &self.tasks[task];
        PageReader::new(self.connector.list(), task.parts.shape, task.is_lenient())
            .keeping_text(task.parts.envelope.needs_text())
    }

    /// Whether records may be taken from the reader before its end, for [`Poller::partial`].
    #[must_use]
    pub fn takes_parts(&self, task: usize) -> bool {
        self.tasks[task].takes_parts()
    }

    /// What of the answer to the last [`Step::Fetch`] has been read so far, while more of it comes:
    /// returns batches that must be put into the queue before anything else is told.
    #[must_use]
    pub fn partial(&mut self, task: usize, records: Records, now: Now) -> Vec<Batch> {
        self.tasks[task].accept_part(records, now)
    }

    /// The answer to the last [`Step::Recall`]; `random` in `0.0..1.0` spreads the wait after a
    /// failure.
    pub fn recalled(&mut self, task: usize, result: Result<Recalled>, now: Now, random: f64) {
        self.tasks[task].recalled(result, now, random);
        self.note_read(task);
    }

    /// How a fetch went, and what its body held. `random` in `0.0..1.0` spreads the wait after a
    /// failure; returns how long everybody with this credential should wait, if the vendor asked for
    /// that.
    pub fn fetched(
        &mut self,
        index: usize,
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
        let task = &mut self.tasks[index];
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
        self.note_read(index);
        hold
    }

    /// The last [`Step::Fetch`] found no budget and is to be asked for again after `wait`.
    pub fn postpone(&mut self, task: usize, wait: Duration, now: Now) {
        self.tasks[task].postpone(wait, now);
    }

    /// The batch of the last [`Step::Offer`] is in the queue.
    pub fn offered(&mut self, task: usize, now: Now) {
        self.tasks[task].go_on_if_offered(now);
        self.note_read(task);
    }

    /// These batches did not get into the queue before the end; they are pending until this poller
    /// is abandoned.
    pub fn keep_unseen(&mut self, task: usize, unseen: impl IntoIterator<Item = Batch>) {
        self.tasks[task].unseen.extend(unseen);
    }

    /// Whether the batches of a task must be announced before they are queued.
    #[must_use]
    pub fn has_intents(&self, task: usize) -> bool {
        self.tasks[task].parts.shared.has_intents()
    }

    /// Gives up everything unfinished, so that another poller can begin where this one failed.
    pub fn abandon(&mut self) {
        self.tasks.iter_mut().for_each(Task::abandon);
    }

    /// The streams, by their index within the instance, whose window was read to its end.
    pub fn take_read(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.read)
    }

    fn note_read(&mut self, task: usize) {
        let task = &mut self.tasks[task];
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
