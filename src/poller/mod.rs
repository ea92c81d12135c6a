//! When to ask for what: one poller per connector, a pure machine in a thin thread.
//!
//! Each stream has a live lane and, for logs, passes that read old windows again. Each lane is in one
//! of five states: *idle* until its next round, *recalling* what was delivered of an old window,
//! *fetching* a page, *offering* the batches of a page, or *backing off* after a failure.
//! [`Poller::next`] says what to do, [`Poller::recalled`], [`Poller::fetched`] and
//! [`Poller::offered`] say how it went; none of them waits, sends or reads a clock. [`run`] does what
//! they say.

mod admit;
mod lag;
mod round;
mod task;

use std::iter;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crate::activity::{Activity, Wait};
use crate::batch::Batch;
use crate::clock::{self, Stop, Time, delta};
use crate::commit::{Message, Recalled};
use crate::connector::{self, Connector};
use crate::cursor::Lane;
use crate::error::{Error, ErrorKind, Result};
use crate::http::limiter::{Allowance, Priority};
use crate::http::{Request, Response, Transport, retry};
use crate::lease::Warrant;
use crate::log::Logger;
use crate::page::{Body, PageReader};
use crate::queue::Queue;
use crate::record::Records;
use crate::window::{PASSES, Window};

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

    /// These batches did not get into the queue before the end.
    pub fn give_up(&mut self, task: usize, unseen: &[Batch]) {
        let Task { parts, lane, .. } = &self.tasks[task];
        parts.shared.withdraw(*lane, unseen);
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

/// What a poller's thread works with.
pub struct Surroundings {
    /// The budget of its credential.
    pub allowance: Allowance,
    /// Where its batches go.
    pub queue: Arc<Queue>,
    /// Who moves the cursors.
    pub committer: Sender<Message>,
    /// Until when it may act.
    pub warrant: Warrant,
    /// Raised when it is to end.
    pub stop: Stop,
}

/// Does what `poller` says until it is told to stop.
pub fn run(poller: &mut Poller, transport: &mut dyn Transport, around: &Surroundings) {
    let stop = &around.stop;
    while !stop.is_raised() {
        if !around.warrant.is_valid(clock::monotonic()) {
            let _ = stop.wait(STOP_CHECK_INTERVAL);
            continue;
        }
        match poller.next(Now::read()) {
            Step::Sleep(wait) => {
                if stop.wait(wait) {
                    return;
                }
            }
            Step::Recall { task, stream, lane, span } => {
                let Some(recalled) = recall(stream, lane, span, around) else { return };
                poller.recalled(task, recalled, Now::read(), fastrand::f64());
            }
            Step::Fetch { task, request, priority } => {
                fetch(poller, transport, around, task, &request, priority);
            }
            Step::Offer { task, batch } => {
                if let Err(batch) = enqueue(poller, around, task, batch) {
                    return poller.give_up(task, &[batch]);
                }
                poller.activity(task).wait = Wait::Round;
                poller.offered(task, Now::read());
            }
        }
        for stream in poller.take_read() {
            // The committer outlives the pollers; it is gone only when the instance is.
            let _ = around.committer.send(Message::Read(stream));
        }
    }
}

/// Sends a request once the budget has room for it, and tells the poller how it went.
fn fetch(
    poller: &mut Poller,
    transport: &mut dyn Transport,
    around: &Surroundings,
    task: usize,
    request: &Request,
    priority: Priority,
) {
    let Surroundings { allowance, stop, .. } = around;
    poller.activity(task).wait = Wait::Budget;
    let granted = if priority == Priority::Verification {
        // A pass must not stand in the way of a live lane that becomes due meanwhile.
        if let Some(wait) = allowance.try_acquire(priority) {
            poller.activity(task).wait = Wait::Round;
            return poller.postpone(task, wait, Now::read());
        }
        Ok(Duration::ZERO)
    } else {
        allowance.acquire(priority, stop)
    };
    let mut reader = poller.reader(task);
    let answer = granted.and_then(|waited| {
        let mut activity = poller.activity(task);
        activity.limiter_wait += waited;
        activity.wait = Wait::Answer;
        drop(activity);
        let answer = transport.send(request, stop, &mut |bytes| {
            reader.feed(bytes)?;
            if reader.is_rich() && poller.takes_parts(task) {
                hand_over(poller, around, task, reader.take())?;
            }
            Ok(())
        });
        note_answer(&mut poller.activity(task), &answer);
        answer
    });
    poller.activity(task).wait = Wait::Round;
    let result = answer.and_then(|answer| Ok((answer, reader.finish()?)));
    if let Some(wait) = poller.fetched(task, result, Now::read(), fastrand::f64()) {
        allowance.hold(wait);
    }
}

/// Queues what was read of an answer that still comes. While there is no room, it is not read on, and
/// the network makes the vendor wait.
fn hand_over(
    poller: &mut Poller,
    around: &Surroundings,
    task: usize,
    records: Records,
) -> Result<()> {
    let mut batches = poller.partial(task, records, Now::read()).into_iter();
    while let Some(batch) = batches.next() {
        if let Err(batch) = enqueue(poller, around, task, batch) {
            let unseen: Vec<Batch> = iter::once(batch).chain(batches).collect();
            poller.give_up(task, &unseen);
            return Err(Error::stopped());
        }
    }
    poller.activity(task).wait = Wait::Answer;
    Ok(())
}

/// Puts a batch into the queue once there is room for it; gives it back only if it is told to stop.
fn enqueue(poller: &Poller, around: &Surroundings, task: usize, batch: Batch) -> Result<(), Batch> {
    if poller.has_intents(task) && !intend(&batch, around) {
        return Err(batch);
    }
    poller.activity(task).wait = Wait::Room;
    around.queue.push(batch, &around.stop)
}

/// Counts a request, unless it was broken off by a stop.
fn note_answer(activity: &mut Activity, answer: &Result<Response>) {
    match answer {
        Ok(answer) => activity.requested(Some(answer.status)),
        Err(error) if error.kind() == ErrorKind::Stopped => {}
        Err(_) => activity.requested(None),
    }
}

/// Has the committer save what a batch may tell the receiver; false if the instance stops.
fn intend(batch: &Batch, around: &Surroundings) -> bool {
    let (done, saved) = mpsc::channel();
    let ids = batch.ids.clone();
    ask(Message::Intend { stream: batch.stream, ids, done }, &saved, around).is_some()
}

/// Asks the committer what was delivered of a window; `None` if the instance stops.
fn recall(
    stream: usize,
    lane: Lane,
    span: Window,
    around: &Surroundings,
) -> Option<Result<Recalled>> {
    let (done, answer) = mpsc::channel();
    ask(Message::Recall { stream, lane, span, done }, &answer, around)
}

/// Sends the committer a message and waits for its answer; `None` if the instance stops.
fn ask<T>(message: Message, answer: &Receiver<T>, around: &Surroundings) -> Option<T> {
    around.committer.send(message).ok()?;
    loop {
        match answer.recv_timeout(STOP_CHECK_INTERVAL) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) if !around.stop.is_raised() => {}
            Err(_) => return None,
        }
    }
}
