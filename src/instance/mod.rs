//! One `[INPUT]` of the host: its connectors' threads, its queue, and the hand-over.
//!
//! Everything here except [`Instance::start`] runs inside the host's callbacks, so nothing waits:
//! not for the network, not for the disk, and for locks only as long as memory is touched.

mod keep;
mod parts;
mod revive;
mod start;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{BATCH_BYTES_MAX, Batch};
use crate::checkpoint::{self, Opened, Shared};
use crate::clock::{Stop, monotonic};
use crate::commit::{Committer, Counts, Message};
use crate::config::{Config, HandoverMode};
use crate::error::{Error, Result};
use crate::handover::{Counters, Handover, Rule, Verdict};
use crate::http::limiter::{Allowance, SharedBudget};
use crate::lease::Warrant;
use crate::log::{Line, Log, Logger};
use crate::metrics::{Moment, Sample};
use crate::poller::{Now, Surroundings};
use crate::queue::Queue;

pub use keep::{Desk, Keep};
pub use parts::Parts;
use start::{Keeping, Start};
pub use start::{connect, credential_digest, lease_key, state_key};
use watch::Watch;
pub use watch::Watched;

/// What one callback hands over: the host copies it and counts its records on our time.
const TICK_BYTES_MAX: usize = 8_000_000;
/// How long a stop waits for each kind of thread; everybody else's stop waits with it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The host as the instance sees it, inside a callback.
pub trait Host {
    /// The host's counters for this input, if they can be read.
    fn counters(&mut self) -> Option<Counters>;

    /// Appends whole events; false if the host refused them, which then never saw them.
    fn append(&mut self, tag: Option<&str>, bytes: &[u8]) -> bool;

    /// Shows the values of all metrics as they are at `time_nanos` since 1970. The first call says
    /// which samples there are; every later one has the same in the same order.
    fn measure(&mut self, samples: &[Sample], time_nanos: u64);

    /// Prints a line.
    fn print(&mut self, line: &Line);

    /// Whether the host has paused this input; it may do so from inside `append`.
    fn is_paused(&self) -> bool;

    /// The time by which it is judged; a model has its own.
    fn now(&self) -> Instant {
        monotonic()
    }
}

/// What the host is able to do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// It exports its append function.
    pub can_append: bool,
    /// It exports what reads its counters.
    pub can_count: bool,
    /// What it has counted when it stops, it also delivers. Hosts before 4.0.3 do not.
    pub keeps_at_stop: bool,
}

/// A running instance.
pub struct Instance {
    log: Arc<Log>,
    logger: Logger,
    queue: Arc<Queue>,
    handover: Handover,
    is_append: bool,
    keeps_at_stop: bool,
    is_paused: bool,
    /// The host refused the last batch that it was offered.
    is_refused: bool,
    /// Batches that the host refused or lost; they go before those in the queue.
    again: VecDeque<Batch>,
    committer: Option<Sender<Message>>,
    stop: Stop,
    /// Until when this host may hand anything over.
    warrant: Warrant,
    pollers: Vec<JoinHandle<()>>,
    committer_thread: Option<JoinHandle<()>>,
    keep_thread: Option<JoinHandle<()>>,
    /// Raised when nothing is left to be committed, so that the leases can go.
    is_committed: Stop,
    /// Since when it only waits to begin anew.
    failed_at: Option<Instant>,
    watch: Watch,
}

impl Instance {
    /// Starts the threads of every connector; no request is sent before this returns.
    ///
    /// # Errors
    /// When a part of the configuration turns out to be unusable: a certificate, the state file.
    pub fn start(
        config: Config,
        abilities: Abilities,
        log: Arc<Log>,
        logger: Logger,
    ) -> Result<Self> {
        let is_append = choose_handover(&config, abilities)?;
        let Opened { mut store, shared } = checkpoint::open(config.db.as_ref())?;
        store.notice().into_iter().for_each(|text| logger.error(text));
        let rule = if abilities.can_count { Rule::Counter } else { Rule::Elapsed };
        announce(&config, is_append, rule, &logger);
        let mut keeping = match (&config.db, &shared) {
            (None, _) => Keeping::Nowhere(&mut *store),
            (Some(_), None) => Keeping::Alone(&mut *store),
            (Some(_), Some(_)) => Keeping::Shared,
        };
        let (mut streams, mut starts, mut desks) = (Vec::new(), Vec::new(), Vec::new());
        for connector in config.connectors {
            let tag_format = config.tag_format.as_deref().filter(|_| is_append);
            let lease = lease_key(&connector).into();
            let start = Start::prepare(connector, tag_format, &mut keeping, &logger, &mut streams)?;
            desks.push(start.desk(lease));
            starts.push(start);
        }
        let (committer, receiver) = mpsc::channel();
        let mut instance = Self::new(Parts {
            logger: logger.clone(),
            log,
            queue: Arc::new(Queue::new(config.queue_bytes_max)),
            rule,
            is_append,
            keeps_at_stop: abilities.keeps_at_stop,
            committer,
            warrant: Warrant::unlimited(),
            stop: Stop::default(),
            streams,
        });
        let states = instance.watch.streams.iter().map(|watched| Arc::clone(&watched.state));
        let committer = Committer {
            streams: states.collect(),
            store,
            queue: Arc::clone(&instance.queue),
            stop: instance.stop.clone(),
            logger,
        };
        let budget = instance.keep_leases(shared, desks)?;
        let thread = spawn("tm-commit", move || committer.run(&receiver))?;
        instance.committer_thread = Some(thread);
        starts.into_iter().try_for_each(|start| instance.run(start, budget.clone()))?;
        Ok(instance)
    }

    /// Lets every connector run, or keeps the leases that say which may; returns the budget that
    /// they share then.
    fn keep_leases(
        &mut self,
        shared: Option<Shared>,
        desks: Vec<Desk>,
    ) -> Result<Option<SharedBudget>> {
        let Some(Shared { registry, budget, lease_timeout }) = shared else {
            desks.iter().for_each(|desk| desk.seat.grant(self.stop.child()));
            return Ok(None);
        };
        let logger = self.logger.clone();
        let (stop, now) = (self.stop.clone(), monotonic());
        let keep = Keep::open(registry, lease_timeout, desks, stop, logger, now)?;
        self.warrant = keep.warrant();
        let done = self.is_committed.clone();
        self.keep_thread = Some(spawn("tm-lease", move || keep.run(&done))?);
        Ok(Some(budget))
    }

    /// Starts a connector's thread.
    fn run(&mut self, start: Start, budget: Option<SharedBudget>) -> Result<()> {
        let Some(committer) = self.committer.clone() else { return Ok(()) };
        let around = Surroundings {
            allowance: Allowance::new(start.credential, start.rate_limit, budget),
            queue: Arc::clone(&self.queue),
            committer,
            warrant: self.warrant.clone(),
            stop: self.stop.clone(),
        };
        let name = format!("tm-{}", start.name);
        self.pollers.push(spawn(&name, move || start.run(around))?);
        Ok(())
    }

    /// One tick of the host: takes log lines, judges what is in flight, hands over what it may.
    ///
    /// Returns a buffer for a host that is handed records by returning them.
    pub fn tick(&mut self, host: &mut dyn Host) -> Option<Vec<u8>> {
        if self.failed_at.is_some() {
            self.flush_log(host);
            return None;
        }
        self.heed_pause(host);
        let seen = self.judge(host);
        let may_act = !self.is_paused && self.warrant.is_valid(host.now());
        let handed = if may_act { self.hand_over(host, seen) } else { None };
        if self.watch.is_due(monotonic()) {
            self.look(host);
        }
        self.flush_log(host);
        handed
    }

    /// Shows the host where everything stands.
    pub fn look(&mut self, host: &mut dyn Host) {
        let Now { time, instant } = Now::read();
        let (queue_bytes, is_paused) = (self.queue.bytes(), self.is_paused);
        self.watch.look(host, &Moment { time, instant, queue_bytes, is_paused });
    }

    /// Follows the host's pause or resume.
    pub fn heed_pause(&mut self, host: &mut dyn Host) {
        let is_paused = host.is_paused();
        if self.is_paused == is_paused {
            return;
        }
        self.is_paused = is_paused;
        self.queue.set_paused(is_paused);
        self.logger.debug(if is_paused { "paused by the host" } else { "resumed by the host" });
        // The last look before a stop: what has arrived by now need not be asked for again.
        self.judge(host);
        self.look(host);
        self.flush_log(host);
    }

    /// Stops everything and joins the threads. What is not confirmed by now stays uncommitted and
    /// is asked for again at the next start.
    pub fn stop(&mut self, host: &mut dyn Host) {
        self.is_paused = true;
        self.stop.raise();
        self.judge(host);
        self.committer = None;
        let deadline = monotonic() + JOIN_TIMEOUT;
        let pollers: Vec<_> = self.pollers.drain(..).collect();
        let mut late = join_all(pollers, deadline);
        late += join_all(self.committer_thread.take(), monotonic() + JOIN_TIMEOUT);
        // Only now may the leases go.
        self.is_committed.raise();
        late += join_all(self.keep_thread.take(), monotonic() + JOIN_TIMEOUT);
        if late > 0 {
            self.logger.warn(format!("{late} threads did not end in time and are left behind"));
        }
        self.log_counts();
        self.look(host);
        self.flush_log(host);
    }

    /// Looks at the host's counters while something is in flight.
    fn judge(&mut self, host: &mut dyn Host) -> Option<Counters> {
        if self.handover.records() == 0 {
            return None;
        }
        // A pause may be the beginning of a stop.
        let is_doubtful = self.is_paused && !self.keeps_at_stop;
        let seen = if is_doubtful { None } else { host.counters() };
        match self.handover.judge(seen, self.is_paused, host.now()) {
            Verdict::Idle | Verdict::Waiting => {}
            Verdict::Confirmed(batches) => {
                self.watch.confirmed(&batches);
                if let Some(committer) = &self.committer {
                    let _ = committer.send(Message::Confirmed(batches));
                }
            }
            Verdict::Lost(batches) => {
                let records: usize = batches.iter().map(Batch::records).sum();
                self.logger.warn(format!(
                    "the host took {records} records but did not count them all; they are handed \
                     over again, so some may arrive twice"
                ));
                batches.into_iter().rev().for_each(|batch| self.again.push_front(batch));
            }
        }
        if let Some(why) = self.handover.notice() {
            self.logger.warn(format!(
                "{why}; records are confirmed by elapsed time from now on, which is weaker: see \
                 SEMANTICS.md"
            ));
        }
        seen
    }

    /// Hands over the next generation, if the last one is confirmed.
    fn hand_over(&mut self, host: &mut dyn Host, seen: Option<Counters>) -> Option<Vec<u8>> {
        let batches = self.take_batches();
        if batches.is_empty() {
            return None;
        }
        // A look at the counters from before this tick's confirmation is still true.
        let before = seen.or_else(|| host.counters());
        let now = host.now();
        if !self.is_append {
            let buffer = batches.iter().flat_map(|batch| &batch.bytes).copied().collect();
            self.handover.handed(batches, before, now);
            return Some(buffer);
        }
        let taken = self.append(host, batches);
        if !taken.is_empty() {
            self.handover.handed(taken, before, now);
        }
        None
    }

    fn take_batches(&mut self) -> Vec<Batch> {
        let batches_max = self.handover.batches_max();
        let bytes_max = if self.is_append { TICK_BYTES_MAX } else { BATCH_BYTES_MAX };
        let batches = if self.again.is_empty() || batches_max == 0 {
            self.queue.take(bytes_max, batches_max)
        } else {
            self.again.pop_front().into_iter().collect()
        };
        self.drop_ended(batches)
    }

    /// Keeps what may be handed over. A batch whose lease is lost is read and delivered by another
    /// host, so it goes, and its room in the queue is free.
    fn drop_ended(&self, batches: Vec<Batch>) -> Vec<Batch> {
        let is_current = |batch: &Batch| self.watch.streams[batch.stream].state.is_current(batch);
        let (current, ended): (Vec<_>, Vec<_>) = batches.into_iter().partition(is_current);
        ended.iter().for_each(|batch| self.queue.release(batch.bytes.len()));
        current
    }

    /// Appends batches until the host refuses one; those it did not take are offered again.
    fn append(&mut self, host: &mut dyn Host, batches: Vec<Batch>) -> Vec<Batch> {
        let mut batches = VecDeque::from(batches);
        let mut taken = Vec::new();
        while !host.is_paused()
            && let Some(batch) = batches.pop_front()
        {
            if host.append(batch.tag.as_deref(), &batch.bytes) {
                self.is_refused = false;
                taken.push(batch);
                continue;
            }
            if !self.is_refused {
                self.logger.warn(format!(
                    "the host refused {} records; they are kept and offered again each tick",
                    batch.records()
                ));
            }
            self.is_refused = true;
            batches.push_front(batch);
            break;
        }
        batches.into_iter().rev().for_each(|batch| self.again.push_front(batch));
        taken
    }

    fn log_counts(&self) {
        for watched in &self.watch.streams {
            let position = watched.state.position();
            let Counts { fetched, duplicate, delivered, late, left } = position.counts;
            let left = if left > 0 { format!(", left {left}") } else { String::new() };
            let name = format!("{}.{}", watched.connector, watched.stream);
            self.logger.child(&name).info(format!(
                "fetched {fetched}, duplicate {duplicate}, delivered {delivered}, late {late}, \
                 pending {}{left}",
                position.ledger.pending()
            ));
        }
    }

    fn flush_log(&self, host: &mut dyn Host) {
        self.log.take().iter().for_each(|line| host.print(line));
    }
}

/// Whether records are appended (true) or returned.
fn choose_handover(config: &Config, abilities: Abilities) -> Result<bool> {
    match config.handover {
        HandoverMode::Append if !abilities.can_append => Err(Error::config(
            "handover = \"append\": this host does not export flb_input_log_append; legal: auto, \
             return; write: handover: auto",
        )),
        HandoverMode::Return => Ok(false),
        HandoverMode::Append | HandoverMode::Auto => Ok(abilities.can_append),
    }
}

/// Says at the start which rules are in force, and what the configuration gives up.
fn announce(config: &Config, is_append: bool, rule: Rule, logger: &Logger) {
    let how = if is_append { "appended" } else { "returned" };
    let rule = match rule {
        Rule::Counter => "the host's own record counter",
        Rule::Elapsed => "elapsed time, since the host's counters cannot be read",
    };
    logger.info(format!(
        "version {}, {} connectors; records are {how} and confirmed by {rule}",
        env!("CARGO_PKG_VERSION"),
        config.connectors.len()
    ));
    if config.db.is_none() {
        logger.warn("no db is set: after a restart, records are fetched again from lookback on");
    }
    if config.tag_format.is_some() && !is_append {
        logger.warn("tag_format has no effect, since this host takes one tag per input");
    }
    for connector in config.connectors.iter().filter(|connector| !connector.tls.verify) {
        logger.child(&connector.name).warn(
            "tls_verify is off: whoever is between this machine and the vendor can read the API key \
             and forge records",
        );
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::config("a thread cannot be started").caused_by(error))
}

/// Joins those of `threads` that end before `deadline`; returns how many do not.
fn join_all(threads: impl IntoIterator<Item = JoinHandle<()>>, deadline: Instant) -> usize {
    threads.into_iter().filter_map(|thread| join_until(thread, deadline)).count()
}

/// Joins `thread` if it ends before `deadline`, else gives it back.
fn join_until(thread: JoinHandle<()>, deadline: Instant) -> Option<JoinHandle<()>> {
    while !thread.is_finished() {
        if monotonic() >= deadline {
            return Some(thread);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = thread.join();
    None
}
