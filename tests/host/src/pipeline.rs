//! The engine thread: starts the inputs, drains their rings, feeds the outputs, stops everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ffi::process::{monotonic_nanos, name_thread};
use crate::ffi::{self, Role};
use crate::instance::{Generation, Instance};
use crate::mailbox::{Message, nanos, next_multiple};
use crate::shared::Shared;
use crate::store::Store;
use crate::worker;

/// An order to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A ring has filled beyond its window.
    Drain,
    /// The outputs take chunks again.
    Flush,
    /// Pause one input by command, as its memory limit would.
    Pause(usize),
    /// Lift such a pause.
    Resume(usize),
    /// Stop.
    Stop,
}

/// The engine of one configuration.
pub struct Pipeline {
    /// The host.
    pub shared: Arc<Shared>,
    /// What the instances share.
    pub generation: Arc<Generation>,
    /// The inputs in order.
    pub instances: Vec<Arc<Instance>>,
    /// Chunks and outputs.
    pub store: Arc<Store>,
    /// Orders.
    pub commands: Receiver<Command>,
    /// Period of handing chunks to the outputs.
    pub flush: Duration,
}

/// When each timer of the engine expires next.
struct Timers {
    drain: u64,
    flush: u64,
    shutdown: Option<u64>,
}

impl Pipeline {
    /// Runs until it is stopped. `ready` is told whether all inputs started.
    pub fn run(self, ready: &Sender<bool>) {
        name_thread("flb-pipeline");
        ffi::enter(Some(Role { shared: Arc::clone(&self.shared), collecting: None }));
        let Some(mut threads) = self.start() else {
            let _ = ready.send(false);
            return;
        };
        let _ = ready.send(true);
        self.serve();
        self.shut_down(&mut threads);
        self.store.close(&self.instances);
    }

    /// Initialises the inputs one after the other; a slow Init delays all that follow.
    fn start(&self) -> Option<Vec<Option<JoinHandle<()>>>> {
        let mut threads = Vec::new();
        for instance in &self.instances {
            let plugin = &self.generation.proxy.definition.name;
            let label = instance.label();
            self.shared.log.info(&format!("[input:{plugin}:{label}] initializing"));
            let thread = if instance.settings.threaded { self.spawn(instance) } else { None };
            if thread.is_none() && (instance.settings.threaded || !worker::init(instance)) {
                self.abandon(&mut threads);
                return None;
            }
            threads.push(thread);
        }
        let own = |instance: &&Arc<Instance>| !instance.settings.threaded;
        self.instances.iter().filter(own).for_each(|instance| worker::pre_run(instance));
        for instance in &self.instances {
            if instance.settings.threaded {
                instance.mailbox.push(Message::Start);
            } else {
                instance.mailbox.start_collector();
            }
        }
        Some(threads)
    }

    fn spawn(&self, instance: &Arc<Instance>) -> Option<JoinHandle<()>> {
        let (ready, initialised) = channel();
        let own = Arc::clone(instance);
        let thread = thread::Builder::new().spawn(move || worker::run(&own, &ready));
        match thread {
            Ok(thread) if initialised.recv() == Ok(true) => Some(thread),
            Ok(_) => None,
            Err(error) => {
                self.shared.log.error(&format!("[engine] no thread for an input: {error}"));
                None
            }
        }
    }

    /// After a failed start the inputs that did start get no Exit: the host just leaves.
    fn abandon(&self, threads: &mut Vec<Option<JoinHandle<()>>>) {
        self.instances.iter().for_each(|instance| instance.mailbox.push(Message::Abandon));
        threads.drain(..).flatten().for_each(|thread| drop(thread.join()));
        self.instances.iter().for_each(|instance| ffi::remove_instance(instance));
        self.shared.log.error("[engine] input initialization failed");
    }

    fn serve(&self) {
        let drain = nanos(self.shared.options.drain);
        let flush = nanos(self.flush);
        let now = monotonic_nanos();
        let mut timers = Timers {
            drain: next_multiple(now, drain),
            flush: next_multiple(now, flush),
            shutdown: None,
        };
        let mut checks = 0;
        loop {
            match self.commands.recv_timeout(self.wait(&timers)) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    if timers.shutdown.is_none() {
                        timers.shutdown = Some(self.begin_stop());
                    }
                }
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
            }
            for instance in self.instances.iter().filter(|i| !i.settings.threaded) {
                if instance.mailbox.take_tick() {
                    worker::collect(instance);
                }
            }
            let now = monotonic_nanos();
            if now >= timers.drain {
                timers.drain = next_multiple(now, drain);
                self.drain();
            }
            // A stop in progress creates no new work of its own; its checks below do.
            if now >= timers.flush && timers.shutdown.is_none() {
                timers.flush = next_multiple(now, flush);
                self.store.flush(&self.instances);
            }
            if timers.shutdown.is_some_and(|due| now >= due) {
                timers.shutdown = Some(self.next_check());
                checks += 1;
                if self.may_end(checks) {
                    return;
                }
            }
        }
    }

    fn wait(&self, timers: &Timers) -> Duration {
        let own = self.instances.iter().filter(|i| !i.settings.threaded);
        let due = own
            .filter_map(|instance| instance.mailbox.due())
            .chain([timers.drain])
            .chain(timers.shutdown.is_none().then_some(timers.flush))
            .chain(timers.shutdown)
            .min()
            .unwrap_or(timers.drain);
        Duration::from_nanos(due.saturating_sub(monotonic_nanos()))
    }

    fn obey(&self, command: Command) {
        match command {
            Command::Drain => self.drain(),
            Command::Flush => self.store.flush(&self.instances),
            Command::Pause(index) => {
                if let Some(instance) = self.instances.get(index) {
                    worker::pause(instance);
                    instance.limit_paused.store(true, Ordering::SeqCst);
                    instance.pause_forced.store(true, Ordering::SeqCst);
                }
            }
            Command::Resume(index) => {
                if let Some(instance) = self.instances.get(index)
                    && instance.pause_forced.swap(false, Ordering::SeqCst)
                {
                    instance.limit_paused.store(false, Ordering::SeqCst);
                    worker::resume(instance);
                }
            }
            Command::Stop => {}
        }
    }

    /// Rings into chunks. A paused input keeps what is in its ring.
    fn drain(&self) {
        for instance in &self.instances {
            while !instance.is_limit_paused() {
                let Some(entry) = instance.ring_read() else { break };
                self.store.append(instance, entry.tag.as_deref(), &entry.data, entry.records);
            }
        }
    }

    /// Flushes what is in chunks (not what is in rings), pauses all inputs, arms the checks.
    fn begin_stop(&self) -> u64 {
        self.store.flush(&self.instances);
        let grace = self.generation.grace.load(Ordering::SeqCst);
        self.shared.log.warn(&if grace >= 0 {
            format!("[engine] service will shutdown in max {grace} seconds")
        } else {
            "[engine] service will shutdown when all remaining tasks are flushed".to_owned()
        });
        self.generation.ingestion_active.store(false, Ordering::SeqCst);
        self.pause_all();
        self.next_check()
    }

    fn next_check(&self) -> u64 {
        next_multiple(monotonic_nanos(), nanos(self.shared.options.shutdown_tick))
    }

    /// Hosts before 4.0.3 wait for running tasks only: a chunk that came from the ring after the stop
    /// began is no task, so it is never delivered.
    fn may_end(&self, checks: i64) -> bool {
        let pending = if self.shared.options.waits_for_chunks() {
            self.store.pending()
        } else {
            self.store.running_tasks()
        };
        let grace = self.generation.grace.load(Ordering::SeqCst);
        if pending > 0 && (checks < grace || grace == -1) {
            self.shared.log.info(&format!("[engine] pending chunk count: {pending}"));
            self.store.flush(&self.instances);
            return false;
        }
        self.shared.log.info(&format!("[engine] service has stopped ({pending} pending tasks)"));
        true
    }

    fn pause_all(&self) {
        self.instances.iter().for_each(|instance| worker::pause(instance));
    }

    /// The second pause of every stop, then the exits, one after the other.
    fn shut_down(&self, threads: &mut [Option<JoinHandle<()>>]) {
        self.pause_all();
        for (instance, thread) in self.instances.iter().zip(threads) {
            if let Some(thread) = thread.take() {
                instance.mailbox.push(Message::Exit);
                if thread.join().is_err() {
                    self.shared.violation("host_thread_panicked", &instance.settings.name);
                }
            } else {
                worker::exit(instance);
            }
            instance.ring_clear();
        }
    }
}
