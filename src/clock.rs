//! The time of day, and a wait that a stop can end early.
//!
//! Nothing else in the crate reads a clock: whoever needs the time is given it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A point in vendor time: UTC, as fine as the vendor writes it.
pub type Time = DateTime<Utc>;

/// The time of day.
#[must_use]
pub fn now() -> Time {
    Utc::now()
}

/// A monotonic instant, for waits and budgets that a change of the wall clock must not touch.
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// `duration` as a time difference; durations beyond chrono's range are cut to it.
#[must_use]
pub fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// A flag that many threads wait on and one raises, once.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Raises the flag and wakes every waiter.
    pub fn raise(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Whether the flag is up.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits until the flag is up or `timeout` has passed; returns whether it is up.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let (flag, condvar) = &*self.0;
        let (raised, _) = condvar
            .wait_timeout_while(lock(flag), timeout, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *raised
    }
}

/// Locks `mutex` even if a thread panicked while it held it.
///
/// Panics are caught at the thread's edge and reported there; refusing every later lock would turn
/// one reported fault into a silent standstill.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
