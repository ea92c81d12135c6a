//! One stream of a poller: its state, and the step from each state to the next.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Now, Rhythm};
use crate::batch::{Batch, Builder};
use crate::clock::{Time, delta};
use crate::commit::{Position, StreamState};
use crate::connector::{Mode, Page};
use crate::cursor::WindowId;
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind};
use crate::http::retry::Backoff;
use crate::log::Logger;
use crate::record::{Id, Record, Records, Shape};
use crate::sweep::{Change, Entity, Inventory};
use crate::window::{HORIZON, SETTLE, Window};

/// Pages of one window; a vendor that never ends is asked for half the window.
const PAGES_MAX: u32 = 10_000;
/// After so many failures in a row at a later page, its token may be what is wrong.
const PAGE_TRIES_MAX: u32 = 5;
/// After so many failures in a row, an answer that is not UTF-8 is not damaged but meant so.
const LENIENT_AFTER: u32 = 3;
/// How often a sweep that is due looks whether the last one is delivered.
const SETTLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A `Date` that is further off than this says nothing about the vendor's clock.
const SKEW_CREDIBLE: Duration = Duration::from_secs(24 * 3600);

/// A place inside a window: which page comes next.
pub(super) struct Place {
    id: WindowId,
    pub(super) window: Window,
    pub(super) next: Option<String>,
    /// Pointers that were followed; one that comes again would lead in a circle.
    followed: HashSet<String>,
    pages: u32,
}

impl Place {
    fn start(id: WindowId, window: Window) -> Self {
        Self { id, window, next: None, followed: HashSet::new(), pages: 0 }
    }
}

/// What a stream is doing.
pub(super) enum State {
    /// Waiting for its next round.
    Idle { until: Instant },
    /// A page is to be fetched.
    Fetching { place: Place },
    /// The batches of a page are on their way into the queue.
    Offering { place: Place, batches: VecDeque<Batch> },
    /// A page failed and is to be fetched again later.
    BackingOff { place: Place, until: Instant },
}

/// What makes up one stream of a poller.
pub struct TaskParts {
    /// The stream's index within the instance.
    pub index: usize,
    /// Where it stands.
    pub shared: Arc<StreamState>,
    /// How its records are read.
    pub shape: Shape,
    /// Its events' envelope.
    pub envelope: Envelope,
    /// Its events' tag.
    pub tag: Option<Arc<str>>,
    /// Where it speaks.
    pub logger: Logger,
}

/// One stream.
pub(super) struct Task {
    pub(super) parts: TaskParts,
    pub(super) state: State,
    rhythm: Rhythm,
    /// Windows of the round that come after the current one.
    windows: VecDeque<(WindowId, Window)>,
    round_started: Instant,
    /// New records of the current round.
    round_records: usize,
    /// The vendor's clock when the round's first page was answered.
    round_vendor_now: Option<Time>,
    /// Rounds in a row that showed nothing new.
    idle_rounds: u32,
    /// Failures of the current page in a row.
    backoff: Backoff,
    /// Beginnings of the current window in a row.
    restarts: Backoff,
    /// A window was read to its end since this was last looked at.
    has_read: bool,
}

impl Task {
    pub(super) fn new(parts: TaskParts, rhythm: Rhythm, now: Instant) -> Self {
        Self {
            parts,
            state: State::Idle { until: now },
            rhythm,
            windows: VecDeque::new(),
            round_started: now,
            round_records: 0,
            round_vendor_now: None,
            idle_rounds: 0,
            backoff: Backoff::default(),
            restarts: Backoff::default(),
            has_read: false,
        }
    }

    /// Leaves a wait that is over.
    pub(super) fn wake(&mut self, now: Now) {
        if self.due().is_none_or(|due| due > now.instant) {
            return;
        }
        match self.take_state(now) {
            State::BackingOff { place, .. } if !is_beyond_horizon(place.window, now.time) => {
                self.state = State::Fetching { place };
            }
            State::BackingOff { .. } => {
                // The vendor no longer has what this round asks for; a new plan says what is lost.
                self.abandon();
                self.begin_round(now);
            }
            _ => self.begin_round(now),
        }
    }

    /// When a wait is over.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Idle { until } | State::BackingOff { until, .. } => Some(until),
            State::Fetching { .. } | State::Offering { .. } => None,
        }
    }

    /// Whether an answer is to be read even if it is not quite text.
    pub(super) fn is_lenient(&self) -> bool {
        self.backoff.attempt() >= LENIENT_AFTER
    }

    /// Whether a window was read to its end since this was last asked.
    pub(super) fn take_has_read(&mut self) -> bool {
        std::mem::take(&mut self.has_read)
    }

    /// Takes the place that is being fetched.
    pub(super) fn take_fetching(&mut self, now: Now) -> Option<Place> {
        match self.take_state(now) {
            State::Fetching { place } => Some(place),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Gives up the round: what was read but not queued, and the windows that were not read.
    pub(super) fn abandon(&mut self) {
        self.windows.clear();
        let unseen = match &mut self.state {
            State::Offering { batches, .. } => std::mem::take(batches),
            _ => VecDeque::new(),
        };
        self.parts.shared.abandon(&Vec::from(unseen));
    }

    fn take_state(&mut self, now: Now) -> State {
        std::mem::replace(&mut self.state, State::Idle { until: now.instant })
    }

    /// Begins a round, if there is something to ask for.
    fn begin_round(&mut self, now: Now) {
        self.round_started = now.instant;
        self.round_records = 0;
        self.round_vendor_now = None;
        match self.parts.shared.mode() {
            Mode::Log => self.plan_windows(now.time),
            Mode::Inventory => self.plan_sweep(now.time),
        }
        self.begin_window(now);
    }

    /// Opens the windows from where the last round ended.
    fn plan_windows(&mut self, now: Time) {
        let mut position = self.parts.shared.position();
        let plan = self.parts.shared.policy().plan(position.progress.frontier(), now);
        if let Some(lost) = plan.lost {
            self.parts.logger.error(format!(
                "what the vendor generated from {} to {} was not read in time and is beyond its \
                 72 h: these records are lost",
                lost.start, lost.end
            ));
        }
        if let Some(first) = plan.windows.first() {
            position.progress.anchor(first.start);
        }
        let open = |window: Window| (position.progress.open(window.end), window);
        self.windows = plan.windows.into_iter().map(open).collect();
    }

    /// Opens a sweep, unless the last complete one is younger than the interval: a restart is no
    /// reason to deliver everything again.
    fn plan_sweep(&mut self, now: Time) {
        let mut position = self.parts.shared.position();
        if !position.progress.is_settled() {
            // The last sweep is still on its way; the next is compared with it.
            let ahead = self.rhythm.interval.saturating_sub(SETTLE_CHECK_INTERVAL);
            self.round_started =
                self.round_started.checked_sub(ahead).unwrap_or(self.round_started);
            return;
        }
        let age = position.progress.frontier().and_then(|last| (now - last).to_std().ok());
        if let Some(age) = age.filter(|&age| age < self.rhythm.interval) {
            self.round_started = self.round_started.checked_sub(age).unwrap_or(self.round_started);
            return;
        }
        position.ledger.forget_all();
        if let Some(inventory) = &mut position.inventory {
            inventory.begin();
        }
        let window = Window { start: now, end: now };
        self.windows = VecDeque::from([(position.progress.open(now), window)]);
    }

    /// Goes on to the round's next window, or to the end of the round.
    fn begin_window(&mut self, now: Now) {
        if let Some((id, window)) = self.windows.pop_front() {
            self.state = State::Fetching { place: Place::start(id, window) };
            return;
        }
        self.idle_rounds = if self.round_records > 0 { 0 } else { self.idle_rounds + 1 };
        let until = self.round_started + self.rhythm.pause_after(self.idle_rounds);
        self.state = State::Idle { until: until.max(now.instant) };
    }

    /// A page was read: everything new in it becomes batches.
    pub(super) fn accept(&mut self, mut place: Place, page: Page, date: Option<Time>, now: Now) {
        if self.backoff.attempt() > 0 {
            let failures = self.backoff.attempt();
            self.parts.logger.info(format!("answered again after {failures} failures"));
        }
        self.backoff.reset();
        if place.pages == 0 && self.parts.shared.mode() == Mode::Inventory {
            self.date_sweep(&mut place, now);
        }
        place.pages += 1;
        place.next = page.next;
        self.round_vendor_now = self.round_vendor_now.or(date);
        let fetched = page.records.len();
        let batches = self.admit(&place, page.records, now.time);
        let admitted: usize = batches.iter().map(Batch::records).sum();
        self.round_records += admitted;
        self.parts.logger.debug(format!(
            "page {} of {}..{}: {fetched} records, {admitted} new",
            place.pages, place.window.start, place.window.end
        ));
        self.state = State::Offering { place, batches: batches.into() };
        self.go_on_if_offered(now);
    }

    /// A sweep shows the moment of its first answer, however long that was in coming; the next one is
    /// due an interval later.
    fn date_sweep(&mut self, place: &mut Place, now: Now) {
        self.round_started = now.instant;
        place.window = Window { start: now.time, end: now.time };
        self.parts.shared.position().progress.postpone(place.id, now.time);
    }

    /// Takes the records that are news, and says so to ledger, counts and progress at once.
    fn admit(&self, place: &Place, records: Records, now: Time) -> Vec<Batch> {
        let mut position = self.parts.shared.position();
        let mut builder = self.builder(place);
        records.consume(|record| {
            position.counts.fetched += 1;
            match self.news(&mut position, &record) {
                Some((id, change)) => {
                    builder.push(id, |out| self.parts.envelope.write(out, &record, now, change));
                }
                None => position.counts.duplicate += 1,
            }
        });
        offered(&mut position, place, builder)
    }

    /// Under which id a record is delivered, and as what; `None` if it is no news.
    fn news(&self, position: &mut Position, record: &Record<'_>) -> Option<(Id, Option<Change>)> {
        let Some(inventory) = &mut position.inventory else {
            // Of an inventory, everything that is listed is delivered, whatever it is called.
            let id = match self.parts.shared.mode() {
                Mode::Log => record.key,
                Mode::Inventory => record.id,
            };
            return position.ledger.admit(id).then_some((id, None));
        };
        let name = self.parts.shape.only_name(record);
        let change = inventory.see(Entity { key: record.key, version: record.id, name })?;
        position.ledger.admit(record.key).then_some((record.key, Some(change)))
    }

    /// What a sweep that was read to its end did not show any more.
    fn admit_removals(&self, place: &Place, now: Time) -> Vec<Batch> {
        let mut position = self.parts.shared.position();
        let mut builder = self.builder(place);
        let gone = position.inventory.as_mut().map(Inventory::take_removed).unwrap_or_default();
        for entity in gone {
            position.counts.fetched += 1;
            position.ledger.admit(entity.key);
            let record = self.parts.shape.restore(&entity.name, entity.key);
            let change = Some(Change::Removed);
            builder.push(record.key, |out| self.parts.envelope.write(out, &record, now, change));
        }
        offered(&mut position, place, builder)
    }

    fn builder(&self, place: &Place) -> Builder {
        Builder::new(self.parts.index, place.id, place.window.end, self.parts.tag.clone())
    }

    /// Once all batches of a page are in the queue: the next page, or the next window.
    pub(super) fn go_on_if_offered(&mut self, now: Now) {
        match self.take_state(now) {
            State::Offering { place, batches } if batches.is_empty() => match place.next.clone() {
                Some(next) => self.follow(place, next, now),
                None => self.end_window(place, now),
            },
            other => self.state = other,
        }
    }

    /// A window has no more pages; of a sweep, what is gone comes last.
    fn end_window(&mut self, place: Place, now: Now) {
        let batches = VecDeque::from(self.admit_removals(&place, now.time));
        if batches.is_empty() {
            self.finish_window(&place);
            self.begin_window(now);
        } else {
            self.state = State::Offering { place, batches };
        }
    }

    /// Follows a page's pointer, unless that leads in a circle or never ends.
    fn follow(&mut self, mut place: Place, next: String, now: Now) {
        if place.pages >= PAGES_MAX {
            let error = Error::new(ErrorKind::Narrow, "the vendor's pages do not end");
            return self.refuse(place, &error, now, 1.0);
        }
        if !place.followed.insert(next) {
            let error = Error::retry("the vendor's pages lead in a circle");
            return self.restart(place, &error, None, now, 1.0);
        }
        self.state = State::Fetching { place };
    }

    /// A window was read to its end.
    ///
    /// If the vendor's clock is behind ours, the round's last windows end in its future, where
    /// nothing was yet to be seen: the cursor may go only as far as that clock was at the start.
    fn finish_window(&mut self, place: &Place) {
        self.restarts.reset();
        self.has_read = true;
        let mut position = self.parts.shared.position();
        let is_log = self.parts.shared.mode() == Mode::Log;
        let vendor_now = self.round_vendor_now.filter(|&date| {
            let is_credible = (date - place.window.end).abs() < delta(SKEW_CREDIBLE);
            is_log && is_credible && date < place.window.end
        });
        if let Some(vendor_now) = vendor_now {
            position.progress.shorten(place.id, vendor_now - delta(SETTLE));
        }
        position.progress.read(place.id);
    }

    /// A page failed: asks for it again later, or begins its window anew where the page itself may
    /// be what is wrong.
    pub(super) fn refuse(&mut self, place: Place, error: &Error, now: Now, random: f64) {
        let is_first = place.next.is_none();
        let floor = match error.kind() {
            ErrorKind::Stopped => {
                self.state = State::Fetching { place };
                return;
            }
            ErrorKind::Narrow => {
                let place = self.halve(place);
                return self.restart(place, error, None, now, random);
            }
            // A token that the vendor no longer knows is refused for ever; the window is not.
            ErrorKind::Refused | ErrorKind::Config if !is_first => {
                return self.restart(place, error, None, now, random);
            }
            ErrorKind::Refused | ErrorKind::Config => Some(self.rhythm.interval),
            ErrorKind::Retry { floor } => floor,
            ErrorKind::Store => None,
        };
        let spread = if error.kind() == ErrorKind::Refused { 0.0 } else { random };
        let wait = self.backoff.next(floor, spread);
        let attempt = self.backoff.attempt();
        if !is_first && attempt.is_multiple_of(PAGE_TRIES_MAX) {
            return self.restart(place, error, floor, now, random);
        }
        self.report(&place, error, wait, attempt);
        self.state = State::BackingOff { place, until: now.instant + wait };
    }

    /// Begins a window again from its first page, each time later.
    fn restart(
        &mut self,
        place: Place,
        error: &Error,
        floor: Option<Duration>,
        now: Now,
        random: f64,
    ) {
        let wait = self.restarts.next(floor, random);
        self.report(&place, error, wait, self.restarts.attempt());
        let place = Place::start(place.id, place.window);
        self.state = State::BackingOff { place, until: now.instant + wait };
    }

    /// Replaces a window by its two halves, if it can be halved.
    fn halve(&mut self, mut place: Place) -> Place {
        if let Some((one, two)) = place.window.split() {
            let mut position = self.parts.shared.position();
            position.progress.shorten(place.id, one.end);
            let behind = position.progress.open_behind(place.id, two.end);
            drop(position);
            self.windows.push_front((behind, two));
            place.window = one;
        }
        place
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
            ErrorKind::Refused | ErrorKind::Config => self.parts.logger.error(text),
            _ => self.parts.logger.warn(text),
        }
    }
}

/// The batches of a builder, as ones that their window waits for.
fn offered(position: &mut Position, place: &Place, builder: Builder) -> Vec<Batch> {
    let batches = builder.finish();
    batches.iter().for_each(|_| position.progress.offered(place.id));
    batches
}

/// Whether the vendor no longer keeps a part of what a window asks for. An inventory's window is a
/// moment and stays within reach.
fn is_beyond_horizon(window: Window, now: Time) -> bool {
    window.start < window.end && window.start < now - delta(HORIZON)
}
