//! When to ask for what: one poller per connector, a pure machine in a thin thread.
//!
//! Each stream is in one of four states: *idle* until its next round, *fetching* a page, *offering*
//! the batches of a page, or *backing off* after a failure. [`Poller::next`] says what to do,
//! [`Poller::fetched`] and [`Poller::offered`] say how it went; neither waits, sends or reads a
//! clock. [`run`] does what they say.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Builder};
use crate::clock::{self, Stop, Time, delta};
use crate::commit::{Message, StreamState};
use crate::connector::{self, Connector, Page};
use crate::cursor::WindowId;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::http::limiter::{Limiter, Priority};
use crate::http::retry::{self, Backoff};
use crate::http::{Request, Response, Transport};
use crate::log::Logger;
use crate::page::{Body, PageReader};
use crate::queue::Queue;
use crate::record::Record;
use crate::window::{SETTLE, Window};

/// Pages of one window; a vendor that never ends is asked for half the window.
const PAGES_MAX: u32 = 10_000;
/// After so many failures in a row at a later page, its token may be what is wrong.
const PAGE_TRIES_MAX: u32 = 5;
/// After so many failures in a row, an answer that is not UTF-8 is not damaged but meant so.
const LENIENT_AFTER: u32 = 3;
/// A difference between our clock and the vendor's that is worth a line in the log.
const SKEW_NOTABLE: Duration = Duration::from_secs(30);
/// A `Date` that is further off says nothing about the vendor's clock.
const SKEW_CREDIBLE: Duration = Duration::from_secs(24 * 3600);
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
    /// Nothing before this has passed.
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

/// A place inside a window: which page comes next.
struct Place {
    id: WindowId,
    window: Window,
    next: Option<String>,
    /// Tokens that were followed; one that comes again would lead in a circle.
    followed: HashSet<String>,
    pages: u32,
    /// The vendor's clock when the window's first page was answered.
    vendor_now: Option<Time>,
}

impl Place {
    fn start(id: WindowId, window: Window) -> Self {
        let followed = HashSet::new();
        Self { id, window, next: None, followed, pages: 0, vendor_now: None }
    }
}

/// What a stream is doing.
enum State {
    /// Waiting for its next round.
    Idle { until: Instant },
    /// A page is to be fetched.
    Fetching { place: Place },
    /// The batches of a page are on their way into the queue.
    Offering { place: Place, batches: VecDeque<Batch>, is_last: bool },
    /// A page failed and is to be fetched again later.
    BackingOff { place: Place, until: Instant },
}

/// One stream of the poller.
pub struct Task {
    /// The stream's index within its connector.
    stream: usize,
    /// Its index within the instance, which batches carry.
    index: usize,
    shared: Arc<StreamState>,
    envelope: Envelope,
    tag: Option<Arc<str>>,
    logger: Logger,
    state: State,
    /// Windows of the round that come after the current one.
    windows: VecDeque<(WindowId, Window)>,
    round_started: Instant,
    /// Failures of the current page in a row.
    backoff: Backoff,
    /// Beginnings of the current window in a row.
    restarts: Backoff,
    /// A window was read to its end since this was last looked at.
    has_read: bool,
}

/// What makes up a [`Task`].
pub struct TaskParts {
    /// The stream's index within the instance.
    pub index: usize,
    /// Where it stands.
    pub shared: Arc<StreamState>,
    /// Its events' envelope.
    pub envelope: Envelope,
    /// Its events' tag.
    pub tag: Option<Arc<str>>,
    /// Where it speaks.
    pub logger: Logger,
}

/// The pure machine of one connector.
pub struct Poller {
    connector: Arc<dyn Connector>,
    interval: Duration,
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
        interval: Duration,
        logger: Logger,
        parts: Vec<TaskParts>,
        now: Instant,
    ) -> Self {
        let task = |(stream, parts): (usize, TaskParts)| Task {
            stream,
            index: parts.index,
            shared: parts.shared,
            envelope: parts.envelope,
            tag: parts.tag,
            logger: parts.logger,
            state: State::Idle { until: now },
            windows: VecDeque::new(),
            round_started: now,
            backoff: Backoff::default(),
            restarts: Backoff::default(),
            has_read: false,
        };
        let tasks = parts.into_iter().enumerate().map(task).collect();
        Self { connector, interval, logger, tasks, turn: 0, is_skew_known: false, read: Vec::new() }
    }

    /// What to do now.
    pub fn next(&mut self, now: Now) -> Step {
        let count = self.tasks.len();
        for offset in 0..count {
            let stream = (self.turn + offset) % count;
            let task = &mut self.tasks[stream];
            task.wake(now, self.interval);
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
                        self.connector.request(task.stream, &place.window, place.next.as_deref());
                    let age = now.time - place.window.end;
                    let is_live = age <= delta(LIVE_AGE_MAX.max(2 * self.interval));
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
        let is_lenient = self.tasks[stream].backoff.attempt() >= LENIENT_AFTER;
        PageReader::new(self.connector.list(), self.connector.streams()[stream].shape, is_lenient)
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
        let idle = State::Idle { until: now.instant };
        let State::Fetching { place } = std::mem::replace(&mut task.state, idle) else {
            return None;
        };
        match page {
            Ok((page, date)) => task.accept(place, page, date, now, self.interval),
            Err(error) => {
                let interval = self.interval;
                task.refuse(place, &error, now, interval, random);
                if let ErrorKind::Retry { floor } = error.kind() {
                    return floor;
                }
            }
        }
        self.note_read(stream);
        None
    }

    /// The batch of the last [`Step::Offer`] is in the queue.
    pub fn offered(&mut self, stream: usize, now: Now) {
        self.tasks[stream].continue_if_offered(now, self.interval);
        self.note_read(stream);
    }

    /// The streams, by their index within the instance, whose window was read to its end.
    pub fn take_read(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.read)
    }

    fn note_read(&mut self, stream: usize) {
        let task = &mut self.tasks[stream];
        if std::mem::take(&mut task.has_read) {
            self.read.push(task.index);
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

impl Task {
    /// Leaves a wait that is over.
    fn wake(&mut self, now: Now, interval: Duration) {
        match &self.state {
            State::Idle { until } if *until <= now.instant => self.begin_round(now, interval),
            State::BackingOff { until, .. } if *until <= now.instant => {
                let idle = State::Idle { until: *until };
                if let State::BackingOff { place, .. } = std::mem::replace(&mut self.state, idle) {
                    self.state = State::Fetching { place };
                }
            }
            _ => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Idle { until } | State::BackingOff { until, .. } => Some(until),
            State::Fetching { .. } | State::Offering { .. } => None,
        }
    }

    /// Plans a round and opens its windows.
    fn begin_round(&mut self, now: Now, interval: Duration) {
        self.round_started = now.instant;
        let mut position = self.shared.position();
        let plan = self.shared.policy().plan(position.progress.frontier(), now.time);
        if let Some(lost) = plan.lost {
            self.logger.error(format!(
                "what the vendor generated from {} to {} was not read in time and is beyond its \
                 72 h: these records are lost",
                lost.start, lost.end
            ));
        }
        self.windows = plan
            .windows
            .into_iter()
            .map(|window| (position.progress.open(window.end), window))
            .collect();
        drop(position);
        self.begin_window(now, interval);
    }

    /// Goes on to the round's next window, or to the end of the round.
    fn begin_window(&mut self, now: Now, interval: Duration) {
        self.state = match self.windows.pop_front() {
            Some((id, window)) => State::Fetching { place: Place::start(id, window) },
            None => State::Idle { until: (self.round_started + interval).max(now.instant) },
        };
    }

    /// A page was read: everything new in it becomes batches.
    fn accept(
        &mut self,
        mut place: Place,
        page: Page,
        date: Option<Time>,
        now: Now,
        interval: Duration,
    ) {
        if self.backoff.attempt() > 0 {
            self.logger.info(format!("answered again after {} failures", self.backoff.attempt()));
        }
        self.backoff.reset();
        place.pages += 1;
        place.vendor_now = place.vendor_now.or(date);
        let (fetched, next) = (page.records.len(), page.next);
        let batches = self.admit(&place, page.records, now.time);
        let admitted: usize = batches.iter().map(Batch::records).sum();
        self.logger.debug(format!(
            "page {} of {}..{}: {fetched} records, {admitted} new",
            place.pages, place.window.start, place.window.end
        ));
        place.next = next;
        let is_last = place.next.is_none();
        self.state = State::Offering { place, batches: batches.into(), is_last };
        self.continue_if_offered(now, interval);
    }

    /// Takes the records that are new, and says so to ledger, counts and progress at once.
    fn admit(&self, place: &Place, records: Vec<Record>, now: Time) -> Vec<Batch> {
        let mut builder = Builder::new(self.index, place.id, place.window.end, self.tag.clone());
        let mut position = self.shared.position();
        for record in records {
            position.counts.fetched += 1;
            if position.ledger.admit(record.id) {
                builder.push(record.id, |out| self.envelope.write(out, &record, now));
            } else {
                position.counts.duplicate += 1;
            }
        }
        let batches = builder.finish();
        batches.iter().for_each(|_| position.progress.offered(place.id));
        batches
    }

    /// Once all batches of a page are in the queue: the next page, or the next window.
    fn continue_if_offered(&mut self, now: Now, interval: Duration) {
        let idle = State::Idle { until: now.instant };
        match std::mem::replace(&mut self.state, idle) {
            State::Offering { place, batches, is_last } if batches.is_empty() => {
                if is_last {
                    self.finish_window(&place);
                    self.begin_window(now, interval);
                } else {
                    self.follow(place, now);
                }
            }
            other => self.state = other,
        }
    }

    /// Follows a page's token, unless that leads in a circle or never ends.
    fn follow(&mut self, mut place: Place, now: Now) {
        let token = place.next.clone().unwrap_or_default();
        if place.followed.insert(token) && place.pages < PAGES_MAX {
            self.state = State::Fetching { place };
            return;
        }
        let error = Error::retry("the vendor's pages lead in a circle or do not end");
        self.restart(place, &error, now);
    }

    /// A window was read to its end.
    ///
    /// If the vendor's clock is behind ours, the window ended in its future, where nothing was yet
    /// to be seen: the cursor may go only as far as that clock.
    fn finish_window(&mut self, place: &Place) {
        self.restarts.reset();
        self.has_read = true;
        let mut position = self.shared.position();
        let vendor_now = place.vendor_now.filter(|&date| {
            (date - place.window.end).abs() < delta(SKEW_CREDIBLE) && date < place.window.end
        });
        if let Some(vendor_now) = vendor_now {
            position.progress.shorten(place.id, vendor_now - delta(SETTLE));
        }
        position.progress.read(place.id);
    }

    /// A page failed: decides whether to ask for it again, for half its window, or from the start.
    fn refuse(&mut self, place: Place, error: &Error, now: Now, interval: Duration, random: f64) {
        if error.kind() == ErrorKind::Stopped {
            self.state = State::Fetching { place };
            return;
        }
        let floor = match error.kind() {
            ErrorKind::Retry { floor } => floor,
            _ => None,
        };
        let wait = match error.kind() {
            ErrorKind::Refused | ErrorKind::Config if place.next.is_none() => {
                self.backoff.next(None, random);
                interval
            }
            _ => self.backoff.next(floor, random),
        };
        self.report(&place, error, wait, self.backoff.attempt());
        let place = match error.kind() {
            ErrorKind::Narrow => self.halve(place),
            // A token that the vendor no longer knows is refused for ever; the window is not.
            ErrorKind::Refused => Place::start(place.id, place.window),
            _ if self.backoff.attempt().is_multiple_of(PAGE_TRIES_MAX) => {
                Place::start(place.id, place.window)
            }
            _ => place,
        };
        self.state = State::BackingOff { place, until: now.instant + wait };
    }

    /// Begins a window again from its first page.
    fn restart(&mut self, place: Place, error: &Error, now: Now) {
        let wait = self.restarts.next(None, 1.0);
        self.report(&place, error, wait, self.restarts.attempt());
        let place = Place::start(place.id, place.window);
        self.state = State::BackingOff { place, until: now.instant + wait };
    }

    /// Replaces a window by its two halves, if it can be halved.
    fn halve(&mut self, place: Place) -> Place {
        let Some((one, two)) = place.window.split() else {
            return Place::start(place.id, place.window);
        };
        let mut position = self.shared.position();
        position.progress.shorten(place.id, one.end);
        let behind = position.progress.open_behind(place.id, two.end);
        drop(position);
        self.windows.push_front((behind, two));
        Place::start(place.id, one)
    }

    /// Says what failed: the first time, and then ever more rarely.
    fn report(&self, place: &Place, error: &Error, wait: Duration, attempt: u32) {
        if !attempt.is_power_of_two() {
            return;
        }
        let text = format!(
            "{error} (window {}..{}, page {}, failure {attempt} in a row, again in {} s)",
            place.window.start.format("%Y-%m-%dT%H:%M:%SZ"),
            place.window.end.format("%Y-%m-%dT%H:%M:%SZ"),
            place.pages + 1,
            wait.as_secs(),
        );
        match error.kind() {
            ErrorKind::Refused | ErrorKind::Config => self.logger.error(text),
            _ => self.logger.warn(text),
        }
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
