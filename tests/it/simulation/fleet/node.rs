//! One host of the fleet: the real parts of one process, driven by hand.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use in_trendmicro::clock::Stop;
use in_trendmicro::commit::{Committer, Message, StreamState};
use in_trendmicro::connector::{self, Connector};
use in_trendmicro::handover::Rule;
use in_trendmicro::instance::{Desk, Instance, Keep, Parts, Watched};
use in_trendmicro::lease::{Seat, Tenure, Warrant};
use in_trendmicro::log::{Level, Log, Logger};
use in_trendmicro::poller::{Now, Poller, Step};
use in_trendmicro::queue::Queue;

use super::database::{Database, Handle};
use crate::simulation::host::Model;
use crate::simulation::life::{Doing, ceil_ms, new_poller};
use crate::simulation::scenario::Part;

/// When a silent host's connectors go to others.
pub const LEASE_TIMEOUT_MS: u64 = 30_000;
/// How often a thread that may not act looks again.
const LOOK_MS: u64 = 1_000;

/// A connector's thread.
pub struct Arm {
    pub connector: Arc<dyn Connector>,
    pub doing: Doing,
    pub due_ms: Option<u64>,
    pub seat: Arc<Seat>,
    /// What runs it, and until when, while it holds its lease.
    pub running: Option<(Poller, Stop)>,
    /// The index of its first stream within the instance.
    pub first: usize,
}

/// A running host.
pub struct Node {
    pub index: usize,
    pub arms: Vec<Arm>,
    pub streams: Vec<Arc<StreamState>>,
    pub queue: Arc<Queue>,
    pub host: Model,
    pub keep: Keep,
    pub warrant: Warrant,
    pub beat_due_ms: u64,
    pub tick_due_ms: u64,
    pub commit_due_ms: Option<u64>,
    pub frozen_until_ms: u64,
    /// Under which tenure each record was last queued.
    pub epochs: HashMap<u64, Tenure>,
    pub has_lost: bool,
    instance: Instance,
    sender: Sender<Message>,
    inbox: Receiver<Message>,
    messages: Vec<Message>,
    database: Handle,
    stop: Stop,
    log: Arc<Log>,
}

/// The name of a part's lease.
pub fn lease(part: usize) -> String {
    format!("c{part}")
}

/// What a host is made of, before it has a lease.
struct Road {
    streams: Vec<Arc<StreamState>>,
    arms: Vec<Arm>,
    watched: Vec<Watched>,
    desks: Vec<Desk>,
}

impl Road {
    fn of(plans: &[Part]) -> Self {
        let (mut streams, mut arms) = (Vec::new(), Vec::new());
        let (mut watched, mut desks) = (Vec::new(), Vec::new());
        for (part, plan) in plans.iter().enumerate() {
            let connector = (connector::product(plan.product).unwrap().connect)(&plan.settings);
            let first = streams.len();
            for stream in connector.streams() {
                let key = format!("{}/{}", lease(part), stream.name);
                let state = StreamState::new(key, plan.policy, stream.mode, plan.emit);
                let state = Arc::new(state);
                watched.push(Watched::new(lease(part), stream.name.clone(), state.clone()));
                streams.push(state);
            }
            let seat = Arc::new(Seat::default());
            desks.push(Desk {
                name: lease(part),
                lease: lease(part).into(),
                seat: Arc::clone(&seat),
                streams: streams[first..].to_vec(),
            });
            let (doing, running) = (Doing::Thinking, None);
            arms.push(Arm { connector, doing, due_ms: None, seat, running, first });
        }
        Self { streams, arms, watched, desks }
    }
}

impl Node {
    pub fn start(
        index: usize,
        plans: &[Part],
        database: &Arc<Mutex<Database>>,
        host: Model,
        now: Now,
    ) -> Self {
        let database = Handle { database: Arc::clone(database), node: index };
        let (sender, inbox) = mpsc::channel();
        let log = Log::new(Level::Info);
        let logger = Logger::new(Arc::clone(&log), "");
        let Road { streams, arms, watched, desks } = Road::of(plans);
        let stop = Stop::default();
        let registry = Box::new(database.clone());
        let timeout = std::time::Duration::from_millis(LEASE_TIMEOUT_MS);
        let keep = Keep::open(registry, timeout, desks, stop.clone(), logger.clone(), now.instant);
        let keep = keep.unwrap();
        let queue = Arc::new(Queue::new(100_000));
        let instance = Instance::new(Parts {
            logger,
            log: Arc::clone(&log),
            queue: Arc::clone(&queue),
            rule: Rule::Counter,
            is_append: true,
            keeps_at_stop: true,
            committer: sender.clone(),
            warrant: keep.warrant(),
            stop: stop.clone(),
            streams: watched,
        });
        Self {
            index,
            arms,
            streams,
            queue,
            warrant: keep.warrant(),
            keep,
            beat_due_ms: host.now_ms,
            tick_due_ms: host.now_ms,
            commit_due_ms: None,
            frozen_until_ms: 0,
            epochs: HashMap::new(),
            has_lost: false,
            host,
            instance,
            sender,
            inbox,
            messages: Vec::new(),
            database,
            stop,
            log,
        }
    }

    /// Keeps the leases; connectors come and go with them.
    pub fn beat(&mut self, plans: &[Part], now: Now) {
        self.keep.beat(now.instant);
        self.heed_leases(plans, now);
    }

    /// What each connector's thread does about its lease.
    fn heed_leases(&mut self, plans: &[Part], now: Now) {
        for (part, arm) in self.arms.iter_mut().enumerate() {
            if let Some((mut poller, _)) = arm.running.take_if(|(_, over)| over.is_raised()) {
                let doing = std::mem::replace(&mut arm.doing, Doing::Thinking);
                if let Doing::Intending { task, batch, .. } | Doing::Pushing { task, batch, .. } =
                    doing
                {
                    poller.keep_unseen(task, [batch]);
                }
                poller.abandon();
                arm.seat.leave();
                arm.due_ms = None;
            }
            if let Some(over) = arm.seat.try_sit() {
                let states = &self.streams[arm.first..][..arm.connector.streams().len()];
                let (plan, log) = (&plans[part], &self.log);
                let poller = new_poller(plan, &arm.connector, states, arm.first, log, now.instant);
                arm.running = Some((poller, over));
                arm.due_ms = Some(self.host.now_ms);
            }
        }
    }

    /// Whether an arm may act; if not, it looks again later.
    pub fn may_act(&mut self, arm: usize, now: Now) -> bool {
        let may_act = self.warrant.is_valid(now.instant);
        if !may_act {
            self.arms[arm].due_ms = Some(self.host.now_ms + LOOK_MS);
        }
        may_act
    }

    /// Asks a poller's machine what to do, and begins with it.
    pub fn think(&mut self, arm: usize, now: Now) {
        let arm = &mut self.arms[arm];
        let Some((poller, _)) = &mut arm.running else { return };
        match poller.next(now) {
            Step::Sleep(wait) => arm.due_ms = Some(self.host.now_ms + ceil_ms(wait)),
            Step::Recall { task, stream, lane, span } => {
                let (done, answer) = mpsc::channel();
                self.sender.send(Message::Recall { stream, lane, span, done }).unwrap();
                arm.doing = Doing::Recalling { task, answer };
            }
            Step::Fetch { task, request, priority } => {
                arm.doing = Doing::Asking { task, request, priority, is_waiting: false };
            }
            Step::Offer { task, batch } => arm.doing = Doing::Pushing { task, batch, body: None },
        }
    }

    /// Tells the committer which windows were read to their end.
    pub fn tell_read(&mut self, arm: usize) {
        let Some((poller, _)) = &mut self.arms[arm].running else { return };
        for stream in poller.take_read() {
            self.sender.send(Message::Read(stream)).unwrap();
        }
    }

    pub fn tick(&mut self) {
        assert!(self.instance.tick(&mut self.host).is_none(), "records are appended");
    }

    pub fn has_messages(&mut self) -> bool {
        self.messages.extend(self.inbox.try_iter());
        !self.messages.is_empty()
    }

    /// Lets the real committer work through its messages.
    pub fn commit(&mut self) {
        let (sender, receiver) = mpsc::channel();
        self.messages.drain(..).for_each(|message| sender.send(message).unwrap());
        drop(sender);
        let stop = Stop::default();
        // Its own wait before a second try would be a real one.
        stop.raise();
        let committer = Committer {
            streams: self.streams.clone(),
            store: Box::new(self.database.clone()),
            queue: Arc::clone(&self.queue),
            stop,
            logger: Logger::new(Arc::clone(&self.log), ""),
        };
        committer.run(&receiver);
        self.arms.iter_mut().filter(|arm| arm.running.is_some()).for_each(|arm| {
            arm.due_ms.get_or_insert(self.host.now_ms);
        });
    }

    /// Ends as a stop of the host does: at last the leases are given back.
    pub fn stop(&mut self) {
        self.host.is_paused = true;
        self.instance.heed_pause(&mut self.host);
        self.host.end();
        self.instance.stop(&mut self.host);
        if self.has_messages() {
            self.commit();
        }
        self.stop.raise();
        self.keep.leave();
    }

    /// Whether nothing of it is on its way.
    pub fn is_quiet(&self) -> bool {
        self.queue.bytes() == 0
    }

    /// The tenure under which a connector runs here.
    pub fn tenure(&self, arm: usize) -> Tenure {
        self.streams[self.arms[arm].first].position().tenure.clone()
    }

    /// What was said since this was last looked at.
    pub fn take_lines(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.host.lines);
        lines.extend(self.log.take().into_iter().map(|line| line.text));
        lines
    }
}
