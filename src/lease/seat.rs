//! Where a connector's thread waits for its lease, and until when a host may act at all.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Stop, lock};

/// How often whoever waits looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A connector's place: whoever keeps the leases grants it, the connector's thread takes it.
#[derive(Default)]
pub struct Seat {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    /// The thread waits, or has not come yet.
    #[default]
    Vacant,
    /// It may come, until that is raised.
    Granted(Stop),
    /// It is there, until that is raised.
    Taken(Stop),
}

impl Seat {
    /// Lets the connector run until `over` is raised; only for a vacant seat.
    pub fn grant(&self, over: Stop) {
        *lock(&self.state) = State::Granted(over);
        self.changed.notify_all();
    }

    /// Tells the connector to leave.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        match &*state {
            State::Taken(over) => over.raise(),
            State::Vacant | State::Granted(_) => *state = State::Vacant,
        }
    }

    /// Whether the connector has left, or has never come.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        matches!(*lock(&self.state), State::Vacant)
    }

    /// Waits until the connector may run; what it runs until, or `None` if `stop` was raised.
    #[must_use]
    pub fn sit(&self, stop: &Stop) -> Option<Stop> {
        while !stop.is_raised() {
            if let Some(over) = self.try_sit() {
                return Some(over);
            }
            let is_vacant = |state: &mut State| matches!(state, State::Vacant);
            let wait =
                self.changed.wait_timeout_while(lock(&self.state), STOP_CHECK_INTERVAL, is_vacant);
            drop(wait.unwrap_or_else(PoisonError::into_inner));
        }
        None
    }

    /// What the connector may run until, if it may run now.
    #[must_use]
    pub fn try_sit(&self) -> Option<Stop> {
        let mut state = lock(&self.state);
        let State::Granted(over) = &*state else { return None };
        let over = over.clone();
        *state = State::Taken(over.clone());
        Some(over)
    }

    /// The connector has left.
    pub fn leave(&self) {
        *lock(&self.state) = State::Vacant;
    }
}

/// Until when a host may act on its leases, as far as it can know.
///
/// Once that has passed, another host may have taken them over. What a host does with one that is
/// lost is refused by the database anyway; this keeps it from asking the vendor and from delivering
/// what the other delivers.
#[derive(Clone)]
pub struct Warrant(Arc<Mutex<Option<Instant>>>);

impl Warrant {
    /// A warrant that has passed at `now`.
    #[must_use]
    pub fn until(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(now))))
    }

    /// A warrant that does not end: nobody else is there.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(Arc::default())
    }

    /// The host has said that it lives.
    pub fn extend(&self, until: Instant) {
        *lock(&self.0) = Some(until);
    }

    /// Whether the host may act at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Instant) -> bool {
        lock(&self.0).is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn a_connector_comes_when_it_may_and_leaves_when_it_must() {
        let (seat, stop) = (Arc::new(Seat::default()), Stop::default());
        let thread = {
            let (seat, stop) = (Arc::clone(&seat), stop.clone());
            std::thread::spawn(move || {
                let mut terms = 0;
                while let Some(over) = seat.sit(&stop) {
                    terms += 1;
                    assert!(over.wait(Duration::from_secs(60)));
                    seat.leave();
                }
                terms
            })
        };
        for _ in 0..3 {
            seat.grant(Stop::default());
            while !matches!(*lock(&seat.state), State::Taken(_)) {
                std::thread::yield_now();
            }
            assert!(!seat.is_vacant());
            seat.end();
            while !seat.is_vacant() {
                std::thread::yield_now();
            }
        }
        stop.raise();
        assert_eq!(thread.join().unwrap(), 3);
        seat.grant(Stop::default());
        seat.end();
        assert!(seat.is_vacant(), "nobody had come yet");
    }

    #[test]
    fn a_warrant_ends_by_itself() {
        let now = monotonic();
        let warrant = Warrant::until(now);
        assert!(!warrant.is_valid(now) && Warrant::unlimited().is_valid(now));
        warrant.extend(now + Duration::from_secs(5));
        assert!(warrant.is_valid(now + Duration::from_secs(4)));
        assert!(!warrant.is_valid(now + Duration::from_secs(5)));
    }
}
