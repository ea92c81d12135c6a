//! What a lane asks for next: the windows of a round, a sweep, or an old window once more.

use std::collections::VecDeque;
use std::time::Duration;

use super::Now;
use super::place::Place;
use super::task::{State, Task, is_beyond_horizon};
use crate::clock::{Time, delta};
use crate::commit::Position;
use crate::connector::Mode;
use crate::cursor::{Lane, Progress};
use crate::window::{SETTLE, Window};

/// How often a sweep that is due looks whether the last one is delivered.
const SETTLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A pass that is behind rests this long between windows, so that it stays in the background.
const PASS_PAUSE: Duration = Duration::from_secs(1);

impl Task {
    /// Begins a round, if there is something to ask for.
    pub(super) fn begin_round(&mut self, now: Now) {
        self.round_started = now.instant;
        self.round_records = 0;
        self.round_vendor_now = None;
        match (self.lane, self.parts.shared.mode()) {
            (Lane::Pass(pass), _) => self.plan_pass(pass, now.time),
            (Lane::Live, Mode::Log) => self.plan_windows(now.time),
            (Lane::Live, Mode::Inventory) => self.plan_sweep(now.time),
        }
        self.begin_window(now);
    }

    /// Opens the windows from where the last round ended.
    fn plan_windows(&mut self, now: Time) {
        let mut position = self.parts.shared.position();
        self.read_before = position.progress.frontier();
        let plan = self.parts.shared.policy().plan(self.read_before, now);
        if let Some(lost) = plan.lost.filter(|lost| self.lag.is_news(*lost)) {
            self.parts.logger.error(format!(
                "what the vendor generated from {} to {} was not read in time and is beyond its \
                 72 h: these records are lost",
                lost.start, lost.end
            ));
        }
        position.anchor(plan.start);
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

    /// Opens the next old window that is due to be read again, unless another pass of the stream is
    /// still at one: what that finds would be news to this one, too.
    fn plan_pass(&mut self, pass: usize, now: Time) {
        let mut position = self.parts.shared.position();
        if !position.passes.iter().all(Progress::is_settled) {
            return;
        }
        let (verified, cursor) = (position.passes[pass].frontier(), position.progress.cursor());
        let (Some(verified), Some(cursor)) = (verified, cursor) else { return };
        let window = self.parts.shared.policy().plan_pass(pass, verified, cursor, now);
        let open = |window: Window| (position.passes[pass].open(window.end), window);
        self.windows = window.map(open).into_iter().collect();
    }

    /// Goes on to the round's next window, or to the end of the round.
    pub(super) fn begin_window(&mut self, now: Now) {
        self.watch_lag(now);
        match self.windows.front() {
            Some((_, window)) if is_beyond_horizon(*window, now.time) => self.begin_round_anew(now),
            Some(_) => {
                let next = self.windows.pop_front();
                let start = |(id, window)| Place::start(id, window, None, now.time);
                let place = next.map(start).map(|place| self.narrow(place));
                self.state = place.map_or(self.rest(now), |place| self.begin(place));
            }
            None => {
                self.idle_rounds = if self.round_records > 0 { 0 } else { self.idle_rounds + 1 };
                self.state = self.rest(now);
                self.note_rest();
            }
        }
    }

    /// The wait from the end of a round to the next.
    fn rest(&self, now: Now) -> State {
        let until = match self.lane {
            Lane::Live => self.round_started + self.rhythm.pause_after(self.idle_rounds),
            Lane::Pass(_) if self.has_read => now.instant + PASS_PAUSE,
            Lane::Pass(_) => now.instant + self.rhythm.interval,
        };
        State::Idle { until: until.max(now.instant) }
    }

    /// Lets others see when the live lane goes on.
    fn note_rest(&self) {
        if !self.is_pass() {
            let mut activity = self.parts.shared.activity();
            activity.interval = self.rhythm.pause_after(self.idle_rounds);
            activity.due = self.due();
        }
    }

    /// A sweep shows the moment of its first answer, however long that was in coming; the next one is
    /// due an interval later.
    pub(super) fn date_sweep(&mut self, place: &mut Place, now: Now) {
        self.round_started = now.instant;
        place.window = Window { start: now.time, end: now.time };
        self.parts.shared.position().progress.postpone(place.id, now.time);
    }

    /// A window was read to its end.
    ///
    /// If the vendor's clock is behind ours, the round's last windows end in its future, where
    /// nothing was yet to be seen: the cursor may go only as far as that clock was at the start. By
    /// however much the clocks differ: one that never moves repeats records, one that is ahead skips
    /// them.
    pub(super) fn finish_window(&mut self, place: &Place) {
        self.restarts.reset();
        self.has_read = true;
        let mut position = self.parts.shared.position();
        let is_log = self.parts.shared.mode() == Mode::Log;
        let vendor_now = self.round_vendor_now.map(|date| date - delta(SETTLE));
        if let Some(vendor_now) = vendor_now.filter(|&now| is_log && now < place.window.end) {
            position.lane(self.lane).shorten(place.id, vendor_now);
            if position.retreat(vendor_now, self.parts.shared.policy().lookback) {
                // All that this round asks for lies in the vendor's future.
                self.windows.clear();
            }
        }
        position.lane(self.lane).read(place.id);
        self.spare_passes(&mut position, place);
    }

    /// A window that was old already when it was read need not be read by the passes that only wait
    /// for that age. One that has records on their way cannot be moved past them.
    fn spare_passes(&self, position: &mut Position, place: &Place) {
        let policy = self.parts.shared.policy();
        // A clock of ours that is ahead would make young windows old.
        let read_at = self.round_vendor_now.map_or(place.begun, |now| now.min(place.begun));
        for (number, pass) in position.passes.iter_mut().enumerate() {
            let is_old = |age| place.window.end <= read_at - delta(age);
            let is_next = pass.cursor() >= Some(place.window.start);
            let is_idle = pass.is_settled();
            if is_idle && is_next && policy.pass_age(number).is_some_and(is_old) {
                pass.skip_to(place.window.end);
            }
        }
    }

    /// Warns when the live lane falls so far behind that the vendor may forget what it has not read.
    pub(super) fn watch_lag(&mut self, now: Now) {
        if self.is_pass() || self.parts.shared.mode() == Mode::Inventory {
            return;
        }
        let cursor = self.parts.shared.position().progress.cursor();
        if let Some(text) = cursor.and_then(|cursor| self.lag.watch(cursor, now)) {
            self.parts.logger.warn(text);
        }
    }
}
