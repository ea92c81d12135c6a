//! One lane of a stream: its state, and the step from each state to the next.
//!
//! The live lane follows the present; a pass reads old windows again. `round` says what a lane asks
//! for next, `admit` what in an answer is news.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::density::Density;
use super::lag::Lag;
use super::place::Place;
use super::{Now, Rhythm};
use crate::activity::Trouble;
use crate::batch::Batch;
use crate::clock::{Time, delta};
use crate::commit::{Recalled, StreamState};
use crate::connector::{Mode, Page};
use crate::cursor::{Lane, WindowId};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::http::retry::Backoff;
use crate::log::Logger;
use crate::record::{Records, Shape};
use crate::window::{HORIZON, Window};

/// Pages of one window; a vendor that never ends is asked for half the window.
pub(super) const PAGES_MAX: u32 = 10_000;
/// After so many failures in a row at a later page, its token may be what is wrong.
const PAGE_TRIES_MAX: u32 = 5;
/// After so many failures in a row, an answer that is not UTF-8 is not damaged but meant so.
const LENIENT_AFTER: u32 = 3;

/// What a lane is doing.
pub(super) enum State {
    /// Waiting for its next round.
    Idle { until: Instant },
    /// What was delivered of a window is to be recalled.
    Recalling { place: Place },
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
    /// The path to the time by which the vendor filters; empty if there is none.
    pub generated: &'static [&'static str],
    /// Its events' envelope.
    pub envelope: Envelope,
    /// Its events' tag.
    pub tag: Option<Arc<str>>,
    /// Where it speaks.
    pub logger: Logger,
}

/// One lane of one stream.
pub(super) struct Task {
    pub(super) parts: Arc<TaskParts>,
    /// The stream's index within the connector.
    pub(super) stream: usize,
    pub(super) lane: Lane,
    pub(super) state: State,
    pub(super) rhythm: Rhythm,
    /// Windows of the round that come after the current one.
    pub(super) windows: VecDeque<(WindowId, Window)>,
    pub(super) round_started: Instant,
    /// New records of the current round.
    pub(super) round_records: usize,
    /// The vendor's clock when the round's first page was answered.
    pub(super) round_vendor_now: Option<Time>,
    /// What lies before was read by an earlier round, so what is new there came late.
    pub(super) read_before: Option<Time>,
    /// Rounds in a row that showed nothing new.
    pub(super) idle_rounds: u32,
    /// How dense the records of the last window were.
    density: Density,
    pub(super) lag: Lag,
    /// Failures of the current page in a row.
    backoff: Backoff,
    /// Beginnings of the current window in a row.
    pub(super) restarts: Backoff,
    /// Batches that did not get into the queue before the end.
    pub(super) unseen: Vec<Batch>,
    /// A window was read to its end since this was last looked at.
    pub(super) has_read: bool,
}

impl Task {
    pub(super) fn new(
        parts: Arc<TaskParts>,
        stream: usize,
        lane: Lane,
        rhythm: Rhythm,
        now: Instant,
    ) -> Self {
        Self {
            parts,
            stream,
            lane,
            state: State::Idle { until: now },
            rhythm,
            windows: VecDeque::new(),
            round_started: now,
            round_records: 0,
            round_vendor_now: None,
            read_before: None,
            idle_rounds: 0,
            density: Density::default(),
            lag: Lag::default(),
            backoff: Backoff::default(),
            restarts: Backoff::default(),
            unseen: Vec::new(),
            has_read: false,
        }
    }

    /// Leaves a wait that is over.
    pub(super) fn wake(&mut self, now: Now) {
        if self.due().is_none_or(|due| due > now.instant) {
            return;
        }
        self.watch_lag(now);
        match self.take_state(now) {
            State::BackingOff { place, .. } if !is_beyond_horizon(place.window, now.time) => {
                self.state = self.begin(place);
            }
            State::BackingOff { .. } => self.begin_round_anew(now),
            _ => self.begin_round(now),
        }
    }

    /// When a wait is over.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Idle { until } | State::BackingOff { until, .. } => Some(until),
            State::Recalling { .. } | State::Fetching { .. } | State::Offering { .. } => None,
        }
    }

    /// Whether an answer is to be read even if it is not quite text.
    pub(super) fn is_lenient(&self) -> bool {
        self.backoff.attempt() >= LENIENT_AFTER
    }

    pub(super) fn is_pass(&self) -> bool {
        self.lane != Lane::Live
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

    /// Fetches the page later, without that being a failure.
    pub(super) fn postpone(&mut self, wait: Duration, now: Now) {
        if let Some(place) = self.take_fetching(now) {
            self.state = State::BackingOff { place, until: now.instant + wait };
        }
    }

    /// Gives up the round: what was read but not queued, and the windows that were not read.
    pub(super) fn abandon(&mut self) {
        self.windows.clear();
        let mut unseen = std::mem::take(&mut self.unseen);
        if let State::Offering { batches, .. } = &mut self.state {
            unseen.extend(batches.drain(..));
        }
        self.parts.shared.abandon(self.lane, &unseen);
    }

    fn take_state(&mut self, now: Now) -> State {
        std::mem::replace(&mut self.state, State::Idle { until: now.instant })
    }

    /// The vendor no longer has what this round asks for; a new plan says what is lost.
    pub(super) fn begin_round_anew(&mut self, now: Now) {
        self.abandon();
        self.begin_round(now);
    }

    /// The state in which a place is read on.
    pub(super) fn begin(&self, place: Place) -> State {
        if self.is_pass() && place.known.is_none() {
            State::Recalling { place }
        } else {
            State::Fetching { place }
        }
    }

    /// What was delivered of a pass's window is known, or why it is not.
    pub(super) fn recalled(&mut self, result: Result<Recalled>, now: Now, random: f64) {
        let mut place = match self.take_state(now) {
            State::Recalling { place } => place,
            other => {
                self.state = other;
                return;
            }
        };
        match result {
            Ok(Recalled::Known(ids)) => {
                place.known = Some(ids.into_iter().collect());
                self.state = State::Fetching { place };
            }
            Ok(Recalled::TooMany) if place.window.split().is_some() => {
                let place = self.halve(place);
                self.state = State::Recalling { place };
            }
            // Without that knowledge everything would look new.
            Ok(Recalled::TooMany | Recalled::Forgotten) => {
                self.finish_window(&place);
                self.begin_window(now);
            }
            Err(error) => self.refuse(place, &error, now, random),
        }
    }

    /// A page was read: everything new in it becomes batches.
    pub(super) fn accept(&mut self, mut place: Place, page: Page, date: Option<Time>, now: Now) {
        if self.backoff.attempt() > 0 {
            let failures = self.backoff.attempt();
            self.parts.logger.info(format!("answered again after {failures} failures"));
        }
        self.backoff.reset();
        self.round_vendor_now = self.round_vendor_now.or(date);
        let batches = self.take_in(&mut place, page.records, now);
        if place.pages == 0 && self.parts.shared.mode() == Mode::Inventory {
            // The next sweep is due an interval after the whole of the first answer.
            self.round_started = now.instant;
        }
        place.pages += 1;
        place.next = page.next;
        let (shown, news) = (std::mem::take(&mut place.shown), std::mem::take(&mut place.news));
        place.records += shown;
        self.note_answer(news > 0, now.time);
        self.parts.logger.debug(format!(
            "page {} of {}..{}: {shown} records, {news} new",
            place.pages, place.window.start, place.window.end
        ));
        self.state = State::Offering { place, batches: batches.into() };
        self.go_on_if_offered(now);
    }

    /// Whether the records of a page may be handed over before its end. A pass keeps them until
    /// then: what it knows of a window is read once, so it must not ask for more while records of
    /// that window are on their way. Its pages are those of a log, and small.
    pub(super) fn takes_parts(&self) -> bool {
        !self.is_pass()
    }

    /// A part of a page was read; should the page then fail, all of it is asked for again, and the
    /// ledger knows what of that was handed over.
    pub(super) fn accept_part(&mut self, records: Records, now: Now) -> Vec<Batch> {
        let Some(mut place) = self.take_fetching(now) else { return Vec::new() };
        let batches = self.take_in(&mut place, records, now);
        self.state = State::Fetching { place };
        batches
    }

    /// Makes batches of what is new.
    fn take_in(&mut self, place: &mut Place, records: Records, now: Now) -> Vec<Batch> {
        let is_first = place.pages == 0 && place.shown == 0;
        if is_first && self.parts.shared.mode() == Mode::Inventory {
            self.date_sweep(place, now);
        }
        place.shown += records.len();
        let batches = self.admit(place, records, now.time);
        let news: usize = batches.iter().map(Batch::records).sum();
        place.news += news;
        self.round_records += news;
        batches
    }

    /// Lets others see that the vendor answered.
    fn note_answer(&self, is_news: bool, now: Time) {
        let mut activity = self.parts.shared.activity();
        if !self.is_pass() {
            activity.answered(now);
        }
        activity.news_at = if is_news { Some(now) } else { activity.news_at };
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
            self.density = Density::of(place.records, place.window);
            self.finish_window(&place);
            self.begin_window(now);
        } else {
            self.state = State::Offering { place, batches };
        }
    }

    /// Follows a page's pointer, unless that leads in a circle or never ends, or the window turns out
    /// to have too many records.
    fn follow(&mut self, mut place: Place, next: String, now: Now) {
        if place.pages == 1 {
            self.density = place.sample.density().unwrap_or(self.density);
            let asked = place.window;
            place = self.narrow(place);
            if place.window != asked {
                self.state = State::Fetching { place: place.anew() };
                return;
            }
        }
        if place.pages >= PAGES_MAX {
            let error = Error::new(ErrorKind::Narrow, "the vendor's pages do not end");
            return self.refuse(place, &error, now, 1.0);
        }
        if !place.followed.is_new(&next) {
            let error = Error::retry("the vendor's pages lead in a circle");
            return self.restart(place, &error, None, now, 1.0);
        }
        self.state = State::Fetching { place };
    }

    /// A page failed: asks for it again later, or begins its window anew where the page itself may
    /// be what is wrong.
    pub(super) fn refuse(&mut self, mut place: Place, error: &Error, now: Now, random: f64) {
        (place.shown, place.news) = (0, 0);
        let is_first = place.next.is_none();
        let floor = match error.kind() {
            ErrorKind::Stopped => {
                self.state = self.begin(place);
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
            ErrorKind::Store | ErrorKind::Damaged => None,
        };
        let spread = if error.kind() == ErrorKind::Refused { 0.0 } else { random };
        let wait = self.backoff.next(floor, spread);
        let attempt = self.backoff.attempt();
        if !is_first && attempt.is_multiple_of(PAGE_TRIES_MAX) {
            return self.restart(place, error, floor, now, random);
        }
        self.note_trouble(error, attempt, now.instant + wait);
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
        self.note_trouble(error, self.restarts.attempt(), now.instant + wait);
        self.report(&place, error, wait, self.restarts.attempt());
        self.state = State::BackingOff { place: place.anew(), until: now.instant + wait };
    }

    /// Halves a window until it will probably not have too many records.
    pub(super) fn narrow(&mut self, mut place: Place) -> Place {
        let records_max = self.parts.shared.policy().records_max;
        while !self.density.allows(place.window, records_max) && place.window.split().is_some() {
            place = self.halve(place);
        }
        place
    }

    /// Replaces a window by its two halves, if it can be halved. Of a pass, the later half is left to
    /// its next round, which begins when all of this one is delivered: what is on its way would be
    /// missing in what is recalled of that half.
    fn halve(&mut self, mut place: Place) -> Place {
        let Some((one, two)) = place.window.split() else { return place };
        let mut position = self.parts.shared.position();
        let progress = position.lane(self.lane);
        progress.shorten(place.id, one.end);
        if !self.is_pass() {
            let behind = progress.open_behind(place.id, two.end);
            self.windows.push_front((behind, two));
        }
        drop(position);
        place.window = one;
        place
    }

    /// Lets others see why the live lane waits.
    fn note_trouble(&self, error: &Error, failures: u32, until: Instant) {
        if self.is_pass() {
            return;
        }
        // It is shown by who knows no secrets, and a secret cut short would not be found any more.
        let text = self.parts.logger.redacted(error.to_string());
        // What the vendor says stands in the line of the failure.
        let reason = text.split_once(';').map_or(text.as_str(), |(reason, _)| reason).to_owned();
        let is_refused = matches!(error.kind(), ErrorKind::Refused | ErrorKind::Config);
        self.parts.shared.activity().trouble =
            Some(Trouble { failures, is_refused, reason, until });
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

/// Whether the vendor no longer keeps a part of what a window asks for. An inventory's window is a
/// moment and stays within reach.
pub(super) fn is_beyond_horizon(window: Window, now: Time) -> bool {
    window.start < window.end && window.start < now - delta(HORIZON)
}
