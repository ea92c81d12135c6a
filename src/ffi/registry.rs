//! Which instance a callback means.
//!
//! Pause, resume and exit carry no context in any host. But each input has a host thread of its own,
//! on which all its callbacks run, so the thread tells the instance. With `threaded off` several
//! instances share one thread: then collect is told apart by its context, and the rest means all.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::ThreadId;

use super::host::FfiHost;
use crate::clock::lock;
use crate::instance::{Abilities, Instance};
use crate::log::{Log, Logger};

/// An instance with its host and the buffer that the host holds.
pub struct Slot {
    /// The instance.
    pub instance: Instance,
    /// Its host.
    pub host: FfiHost,
    /// What was returned from collect and not cleaned up yet.
    pub buffer: Option<Vec<u8>>,
    /// What another instance in this one's place would begin from.
    pub origin: Origin,
}

/// What an instance begins from, beside its configuration.
pub struct Origin {
    /// What the host is able to do.
    pub abilities: Abilities,
    /// Lines for the host.
    pub log: Arc<Log>,
    /// Where the instance speaks.
    pub logger: Logger,
}

/// A live instance.
#[derive(Clone)]
pub struct Entry {
    id: usize,
    thread: ThreadId,
    is_paused: Arc<AtomicBool>,
    slot: Arc<Mutex<Slot>>,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

impl Entry {
    /// Registers an instance under the current thread.
    pub fn add(slot: Slot) -> Self {
        static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
        let entry = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            thread: std::thread::current().id(),
            is_paused: slot.host.pause_flag(),
            slot: Arc::new(Mutex::new(slot)),
        };
        lock(&ENTRIES).push(entry.clone());
        entry
    }

    /// What stands for this instance in the host's context. It is a number and never followed, so a
    /// host that passes a stale one does no harm.
    pub fn context(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.id)
    }

    /// The instances of the current thread.
    pub fn of_thread() -> Vec<Self> {
        let thread = std::thread::current().id();
        lock(&ENTRIES).iter().filter(|entry| entry.thread == thread).cloned().collect()
    }

    /// The instances that a callback with this context means.
    pub fn of_context(context: *mut c_void) -> Vec<Self> {
        let found = lock(&ENTRIES).iter().find(|entry| entry.context() == context).cloned();
        found.map_or_else(Self::of_thread, |entry| vec![entry])
    }

    /// Removes and returns the instances of the current thread.
    pub fn remove_of_thread() -> Vec<Self> {
        let entries = Self::of_thread();
        lock(&ENTRIES).retain(|entry| entries.iter().all(|removed| removed.id != entry.id));
        entries
    }

    /// Works with the instance, unless a callback of it is running already: with `threaded off` the
    /// host pauses an input from inside its own append.
    pub fn with<T>(&self, work: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        match self.slot.try_lock() {
            Ok(mut slot) => Some(work(&mut slot)),
            Err(TryLockError::Poisoned(slot)) => Some(work(&mut slot.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Notes a pause or its end; the instance heeds it now or, inside its own callback, at once
    /// after the call into the host that brought it.
    pub fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Release);
        self.with(|slot| slot.instance.heed_pause(&mut slot.host));
    }
}
