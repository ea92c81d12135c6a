//! The time of day, and a wait that a stop can end early.
//!
//! Nothing else in the crate reads a clock: whoever needs the time is given it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
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
pub struct Stop(Arc<Flag>);

#[derive(Default)]
struct Flag {
    is_raised: Mutex<bool>,
    changed: Condvar,
    children: Mutex<Vec<Weak<Flag>>>,
}

impl Stop {
    /// Another flag, which goes up with this one, or before.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::default();
        let mut children = lock(&self.0.children);
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child.0));
        drop(children);
        if self.is_raised() {
            child.raise();
        }
        child
    }

    /// Raises the flag and wakes every waiter.
    pub fn raise(&self) {
        *lock(&self.0.is_raised) = true;
        self.0.changed.notify_all();
        let children: Vec<Weak<Flag>> = lock(&self.0.children).drain(..).collect();
        children.iter().filter_map(Weak::upgrade).for_each(|child| Self(child).raise());
    }

    /// Whether the flag is up.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *lock(&self.0.is_raised)
    }

    /// Waits until the flag is up or `timeout` has passed; returns whether it is up.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let Flag { is_raised, changed, .. } = &*self.0;
        let (raised, _) = changed
            .wait_timeout_while(lock(is_raised), timeout, |raised| !*raised)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_goes_up_with_its_parent_or_before() {
        let parent = Stop::default();
        let (one, two) = (parent.child(), parent.child());
        one.raise();
        assert!(!parent.is_raised() && !two.is_raised());
        parent.raise();
        assert!(two.wait(Duration::ZERO) && parent.child().is_raised());
    }
}
