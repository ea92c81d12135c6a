//! What an instance's thread waits for: its collector's timer and messages from the engine.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ffi::process::monotonic_nanos;

/// A message of the engine to an input's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// All inputs are initialised: start the collector, run PreRun.
    Start,
    /// Pause the plugin.
    Pause,
    /// Resume the plugin.
    Resume,
    /// Run PreExit and Exit, then end.
    Exit,
    /// End without a callback, because another input failed to start.
    Abandon,
}

/// What a thread has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The collector's timer expired.
    Tick,
    /// A message arrived.
    Message(Message),
}

/// The event loop of one instance. Any thread may change its collector: that is how the pause of one
/// instance stops the collector of another.
#[derive(Debug)]
pub struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
    tick: u64,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    running: bool,
    due: u64,
}

impl Mailbox {
    /// A mailbox whose collector, once started, ticks every `tick`.
    pub fn new(tick: Duration) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), tick: nanos(tick) }
    }

    /// Puts a message behind those that wait.
    pub fn push(&self, message: Message) {
        self.lock().messages.push_back(message);
        self.changed.notify_all();
    }

    /// Starts the collector; false when it already runs.
    pub fn start_collector(&self) -> bool {
        let mut state = self.lock();
        if state.running {
            return false;
        }
        state.running = true;
        state.due = next_multiple(monotonic_nanos(), self.tick);
        self.changed.notify_all();
        true
    }

    /// Stops the collector; an expiry nobody has seen yet is gone with it.
    pub fn stop_collector(&self) {
        self.lock().running = false;
        self.changed.notify_all();
    }

    /// Whether the collector runs.
    pub fn is_collecting(&self) -> bool {
        self.lock().running
    }

    /// When the collector is due, if it runs.
    pub fn due(&self) -> Option<u64> {
        let state = self.lock();
        state.running.then_some(state.due)
    }

    /// Takes an expiry, if there is one. However many ticks were missed, there is one.
    pub fn take_tick(&self) -> bool {
        self.lock().take_tick(self.tick)
    }

    /// Waits for an expiry or a message. A pending expiry comes first: a thread that was held up in a
    /// collect collects once more before it hears of a pause.
    pub fn wait(&self) -> Event {
        let mut state = self.lock();
        loop {
            if state.take_tick(self.tick) {
                return Event::Tick;
            }
            if let Some(message) = state.messages.pop_front() {
                return Event::Message(message);
            }
            let wait = if state.running {
                Duration::from_nanos(state.due.saturating_sub(monotonic_nanos()))
            } else {
                Duration::from_secs(3600)
            };
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_tick(&mut self, tick: u64) -> bool {
        let now = monotonic_nanos();
        if !self.running || now < self.due {
            return false;
        }
        self.due = next_multiple(now, tick);
        true
    }
}

/// The first multiple of `period` after `now`: where the host's timers fire.
pub fn next_multiple(now: u64, period: u64) -> u64 {
    (now / period + 1) * period
}

/// A duration as the nanoseconds of the monotonic clock, never zero.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).max(1)
}
