//! One budget of requests per credential, shared by everything in the process that uses it.
//!
//! The budget is a sliding minute: never more than the limit in any 60 seconds, however they are
//! cut. What is live goes ahead of what is backfill, and both ahead of verification, which leaves a
//! part of the budget unused.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::clock::{Stop, lock, monotonic};
use crate::error::{Error, Result};

/// The minute over which requests are counted, with room for the way to the vendor's clock.
const PERIOD: Duration = Duration::from_millis(60_500);
/// Of every so many requests of the budget, verification leaves one to whoever comes next.
const RESERVE_DIVISOR: u32 = 3;
/// How old a grant of the shared budget may be when it is used.
const GRANT_AGE_MAX: Duration = Duration::from_millis(400);
/// When the shared budget is asked again after it could not be.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the less urgent look whether the more urgent still wait.
const TURN_INTERVAL: Duration = Duration::from_millis(200);

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// What happens now.
    Live,
    /// What happened before.
    Backfill,
    /// What was read already.
    Verification,
}

/// The budget's pure core: times are given to it.
#[derive(Default)]
pub struct Budget {
    limit: Option<u32>,
    sent: VecDeque<Instant>,
    /// How many wait of each urgency, the most urgent first.
    waiting: [usize; 3],
    held_until: Option<Instant>,
}

impl Budget {
    /// A budget of so many requests a minute; none means that everything is allowed.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes one request from the budget, or says how long to wait before asking again.
    ///
    /// `is_waiting` is the asker's own mark, false at first: whoever is more urgent and waits goes first.
    pub fn ask(
        &mut self,
        priority: Priority,
        is_waiting: &mut bool,
        now: Instant,
    ) -> Option<Duration> {
        let wait = self.take(priority, now);
        if wait.is_some() != *is_waiting {
            self.leave(priority, *is_waiting);
            *is_waiting = !*is_waiting;
            self.waiting[priority as usize] += usize::from(*is_waiting);
        }
        wait
    }

    /// Somebody who asked no longer wants to.
    pub fn leave(&mut self, priority: Priority, is_waiting: bool) {
        self.waiting[priority as usize] -= usize::from(is_waiting);
    }

    /// What was granted at `at` was not used after all; whoever gave it back waits again.
    pub fn give_back(&mut self, at: Instant, priority: Priority, is_waiting: &mut bool) {
        if let Some(index) = self.sent.iter().rposition(|&sent| sent == at) {
            self.sent.remove(index);
        }
        self.leave(priority, *is_waiting);
        self.waiting[priority as usize] += 1;
        *is_waiting = true;
    }

    /// What verification must leave of a limit.
    fn available(limit: u32, priority: Priority) -> u32 {
        match priority {
            Priority::Verification => limit - limit / RESERVE_DIVISOR,
            Priority::Live | Priority::Backfill => limit,
        }
    }

    /// Nobody is granted anything before `until`.
    pub fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// The same, for somebody who does not stand in line.
    pub fn take(&mut self, priority: Priority, now: Instant) -> Option<Duration> {
        if let Some(held) = self.held_until.filter(|&until| until > now) {
            return Some(held - now);
        }
        let limit = self.limit?;
        while self.sent.front().is_some_and(|&at| now.saturating_duration_since(at) >= PERIOD) {
            self.sent.pop_front();
        }
        if self.waiting[..priority as usize].iter().any(|&waiting| waiting > 0) {
            return Some(TURN_INTERVAL);
        }
        let available = Self::available(limit, priority) as usize;
        if self.sent.len() < available {
            self.sent.push_back(now);
            return None;
        }
        let first_to_expire = self.sent.get(self.sent.len() - available);
        first_to_expire.map(|&at| PERIOD.saturating_sub(now.saturating_duration_since(at)))
    }
}

/// A shared budget.
#[derive(Default)]
pub struct Limiter {
    budget: Mutex<Budget>,
}

impl Limiter {
    /// The limiter of a credential: the same for everybody in the process who names it so.
    ///
    /// The smallest limit that anybody configured for it holds for all.
    pub fn of(credential: &[u8; 32], limit: Option<u32>) -> Arc<Self> {
        static ALL: Mutex<Option<HashMap<[u8; 32], Weak<Limiter>>>> = Mutex::new(None);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        all.retain(|_, limiter| limiter.strong_count() > 0);
        let known = all.get(credential).and_then(Weak::upgrade);
        let limiter = known.unwrap_or_default();
        all.insert(*credential, Arc::downgrade(&limiter));
        let mut budget = lock(&limiter.budget);
        budget.limit = budget.limit.into_iter().chain(limit).min();
        drop(budget);
        limiter
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        lock(&self.budget)
    }
}

/// A budget that several hosts share.
pub trait Shared: Send {
    /// Takes one request of a credential's budget of `limit` requests in any `period`, or says how
    /// long to wait before asking again. Every call that returns `None` is one request.
    ///
    /// # Errors
    /// When nobody can be asked; a request may be taken all the same.
    fn take(
        &mut self,
        credential: &[u8; 32],
        limit: u32,
        period: Duration,
    ) -> Result<Option<Duration>>;

    /// Nobody with that credential is granted anything for so long.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn hold(&mut self, credential: &[u8; 32], wait: Duration) -> Result<()>;
}

/// The shared budget of an instance's connectors.
pub type SharedBudget = Arc<Mutex<Box<dyn Shared>>>;

/// What one connector may send: within the budget of this process and, where hosts share one, theirs.
pub struct Allowance {
    credential: [u8; 32],
    limit: Option<u32>,
    limiter: Arc<Limiter>,
    shared: Option<SharedBudget>,
}

impl Allowance {
    /// The allowance of a credential of so many requests a minute.
    #[must_use]
    pub fn new(credential: [u8; 32], limit: Option<u32>, shared: Option<SharedBudget>) -> Self {
        Self { credential, limit, limiter: Limiter::of(&credential, limit), shared }
    }

    /// Takes one request's share of the budget, or says how long to wait before asking again.
    pub fn try_acquire(&self, priority: Priority) -> Option<Duration> {
        let wait = self.ask(priority, &mut false);
        if wait.is_some() {
            self.limiter.lock().leave(priority, true);
        }
        wait
    }

    /// Waits for one request's share of the budget; returns how long that took.
    ///
    /// # Errors
    /// `Stopped` when `stop` was raised first.
    pub fn acquire(&self, priority: Priority, stop: &Stop) -> Result<Duration> {
        let started = monotonic();
        let mut is_waiting = false;
        loop {
            let Some(wait) = self.ask(priority, &mut is_waiting) else {
                return Ok(started.elapsed());
            };
            if stop.wait(wait) {
                self.limiter.lock().leave(priority, is_waiting);
                return Err(Error::stopped());
            }
        }
    }

    /// The vendor asked everybody with this credential to wait.
    pub fn hold(&self, wait: Duration) {
        self.limiter.lock().hold(monotonic() + wait);
        if let (Some(shared), Some(_)) = (&self.shared, self.limit) {
            // Another host that does not hear of it is told by the vendor itself.
            let _ = lock(shared).hold(&self.credential, wait);
        }
    }

    /// Asks this process's budget, which keeps the order of urgency, and then the shared one.
    fn ask(&self, priority: Priority, is_waiting: &mut bool) -> Option<Duration> {
        let now = monotonic();
        let wait = self.limiter.lock().ask(priority, is_waiting, now);
        let (None, Some(shared), Some(limit)) = (wait, &self.shared, self.limit) else {
            return wait;
        };
        let available = Budget::available(limit, priority);
        let wait = match lock(shared).take(&self.credential, available, PERIOD) {
            // A grant is dated by the database; one that took long to come is used too late for that.
            Ok(None) if now.elapsed() <= GRANT_AGE_MAX => return None,
            Ok(None) => Duration::ZERO,
            Ok(Some(wait)) => wait,
            Err(_) => RETRY_INTERVAL,
        };
        self.limiter.lock().give_back(now, priority, is_waiting);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(limit: Option<u32>) -> Budget {
        Budget { limit, ..Budget::default() }
    }

    #[test]
    fn live_goes_first_and_a_hold_holds_everybody() {
        let (mut budget, now) = (budget(Some(1)), Instant::now());
        budget.waiting[Priority::Live as usize] = 1;
        assert_eq!(budget.take(Priority::Verification, now), Some(TURN_INTERVAL));
        assert_eq!(budget.take(Priority::Backfill, now), Some(TURN_INTERVAL));
        assert_eq!(budget.take(Priority::Live, now), None);
        assert_eq!(budget.take(Priority::Live, now), Some(PERIOD));
        budget.held_until = Some(now + Duration::from_secs(5));
        budget.limit = None;
        assert_eq!(budget.take(Priority::Live, now), Some(Duration::from_secs(5)));
    }

    #[test]
    fn one_credential_has_one_limiter_with_the_smallest_limit() {
        let (one, two) = ([1; 32], [2; 32]);
        let limiter = Limiter::of(&one, None);
        for limit in [Some(18), Some(30), None] {
            assert!(Arc::ptr_eq(&limiter, &Limiter::of(&one, limit)));
        }
        assert_eq!(lock(&limiter.budget).limit, Some(18));
        assert!(!Arc::ptr_eq(&limiter, &Limiter::of(&two, Some(18))));
    }

    #[test]
    fn verification_leaves_a_third_of_the_budget() {
        let (mut budget, now) = (budget(Some(18)), Instant::now());
        for _ in 0..12 {
            assert_eq!(budget.take(Priority::Verification, now), None);
        }
        assert_eq!(budget.take(Priority::Verification, now), Some(PERIOD));
        for _ in 0..6 {
            assert_eq!(budget.take(Priority::Live, now), None);
        }
        assert_eq!(budget.take(Priority::Live, now), Some(PERIOD));
        let later = now + PERIOD;
        assert_eq!(budget.take(Priority::Verification, later), None, "and goes on with the minute");
    }

    proptest! {
        #[test]
        fn no_minute_holds_more_than_the_limit(
            limit in 1_u32..30, gaps_ms in prop::collection::vec(0_u64..5_000, 1..300),
        ) {
            let (mut budget, mut now) = (budget(Some(limit)), Instant::now());
            let mut granted = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                while let Some(wait) = budget.take(Priority::Live, now) {
                    prop_assert!(!wait.is_zero());
                    now += wait;
                }
                granted.push(now);
            }
            for (i, &first) in granted.iter().enumerate() {
                let minute = Duration::from_secs(60);
                let within = granted[i..].iter().take_while(|&&at| at - first <= minute).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }
}
