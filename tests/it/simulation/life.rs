//! One life of the plugin's process, from its start to its end: the real parts, driven by hand.
//!
//! Here alone the simulation touches what moves the plugin: `poller::run`, the committer's loop and
//! the host's callbacks are threads there and turns here.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use in_trendmicro::batch::Batch;
use in_trendmicro::clock::Stop;
use in_trendmicro::commit::{Committer, Message, Recalled, StreamState};
use in_trendmicro::config::{Emit, Format};
use in_trendmicro::connector::{self, Connector};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::error::Result;
use in_trendmicro::handover::Rule;
use in_trendmicro::http::limiter::{Budget, Priority};
use in_trendmicro::http::{Request, Response};
use in_trendmicro::instance::{Instance, Parts, Watched};
use in_trendmicro::lease::Warrant;
use in_trendmicro::log::{Level, Log, Logger};
use in_trendmicro::poller::{Now, Poller, Step, TaskParts};
use in_trendmicro::queue::Queue;
use in_trendmicro::record::Shape;

use super::disk::{Disk, Handle};
use super::host::Model;
use super::scenario::{Part, Scenario};

/// What a poller is in the middle of.
pub enum Doing {
    /// It asks its machine.
    Thinking,
    /// It waits until the committer has said what was delivered of a window.
    Recalling { task: usize, answer: Receiver<Result<Recalled>> },
    /// It waits for a share of the budget.
    Asking { task: usize, request: Request, priority: Priority, is_waiting: bool },
    /// Its request is on the way.
    Sending { task: usize, request: Request },
    /// The answer is on the way.
    Reading { task: usize, answer: Result<(Response, String)> },
    /// It waits until the committer has saved what a batch may tell.
    Intending { task: usize, batch: Batch, saved: Receiver<()> },
    /// It waits for room in the queue.
    Pushing { task: usize, batch: Batch },
}

/// A poller, and when it goes on; `None` while it waits for somebody.
pub struct Arm {
    pub part: usize,
    pub connector: Arc<dyn Connector>,
    pub poller: Poller,
    pub doing: Doing,
    pub due_ms: Option<u64>,
    /// The index of its first stream within the instance.
    pub first: usize,
}

/// A committer that waits for its disk.
struct Waiting {
    thread: JoinHandle<()>,
    answers: Sender<()>,
}

/// A running process.
pub struct Life {
    pub arms: Vec<Arm>,
    pub streams: Vec<Arc<StreamState>>,
    pub budget: Budget,
    pub queue: Arc<Queue>,
    pub host: Model,
    /// When the committer looks at its messages.
    pub commit_due_ms: Option<u64>,
    pub tick_due_ms: u64,
    /// When each request reached the vendor, for the budget.
    pub requests_ms: Vec<u64>,
    instance: Instance,
    sender: Sender<Message>,
    inbox: Receiver<Message>,
    messages: Vec<Message>,
    waiting: Option<Waiting>,
    disk: Arc<Mutex<Disk>>,
    log: Arc<Log>,
}

impl Life {
    /// Starts a process on what is on the disk.
    pub fn start(scenario: &Scenario, disk: &Arc<Mutex<Disk>>, host: Model, now: Now) -> Self {
        disk.lock().unwrap().reopen();
        let (sender, inbox) = mpsc::channel();
        let log = Log::new(Level::Info);
        let queue = Arc::new(Queue::new(scenario.queue_bytes_max));
        let (mut streams, mut arms, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for (part, plan) in scenario.parts.iter().enumerate() {
            let connector = (connector::product(plan.product).unwrap().connect)(&plan.settings);
            let first = streams.len();
            for stream in connector.streams() {
                let key = format!("{part}/{}", stream.name);
                let mut store = Handle(Arc::clone(disk));
                let (policy, mode) = (plan.policy, stream.mode);
                let state = StreamState::load(key, policy, mode, plan.emit, &mut store);
                let state = Arc::new(state.unwrap());
                watched.push(Watched::new(part.to_string(), stream.name.clone(), state.clone()));
                streams.push(state);
            }
            let poller = new_poller(plan, &connector, &streams[first..], first, &log, now.instant);
            let (doing, due_ms) = (Doing::Thinking, Some(host.now_ms));
            arms.push(Arm { part, connector, poller, doing, due_ms, first });
        }
        let instance = Instance::new(Parts {
            logger: Logger::new(Arc::clone(&log), ""),
            log: Arc::clone(&log),
            queue: Arc::clone(&queue),
            rule: if scenario.host.can_count { Rule::Counter } else { Rule::Elapsed },
            is_append: scenario.host.is_append,
            keeps_at_stop: scenario.host.keeps_at_stop,
            committer: sender.clone(),
            warrant: Warrant::unlimited(),
            stop: Stop::default(),
            streams: watched,
        });
        Self {
            arms,
            streams,
            budget: Budget::new(scenario.limit),
            queue,
            tick_due_ms: host.now_ms,
            host,
            commit_due_ms: None,
            requests_ms: Vec::new(),
            instance,
            sender,
            inbox,
            messages: Vec::new(),
            waiting: None,
            disk: Arc::clone(disk),
            log,
        }
    }

    /// Asks a poller's machine what to do, and begins with it.
    pub fn think(&mut self, arm: usize, now: Now) {
        let arm = &mut self.arms[arm];
        match arm.poller.next(now) {
            Step::Sleep(wait) => arm.due_ms = Some(self.host.now_ms + ceil_ms(wait)),
            Step::Recall { task, stream, lane, span } => {
                let (done, answer) = mpsc::channel();
                self.sender.send(Message::Recall { stream, lane, span, done }).unwrap();
                arm.doing = Doing::Recalling { task, answer };
            }
            Step::Fetch { task, request, priority } => {
                arm.doing = Doing::Asking { task, request, priority, is_waiting: false };
            }
            Step::Offer { task, batch } if arm.poller.has_intents(task) => {
                let (done, saved) = mpsc::channel();
                let ids = batch.ids.clone();
                self.sender.send(Message::Intend { stream: batch.stream, ids, done }).unwrap();
                arm.doing = Doing::Intending { task, batch, saved };
            }
            Step::Offer { task, batch } => arm.doing = Doing::Pushing { task, batch },
        }
    }

    /// A whole answer, or a failure, for the machine.
    pub fn read(
        &mut self,
        arm: usize,
        task: usize,
        answer: Result<(Response, String)>,
        now: Now,
        random: f64,
    ) {
        let arm = &mut self.arms[arm];
        let result = answer.and_then(|(response, body)| {
            let mut reader = arm.poller.reader(task);
            reader.feed(body.as_bytes())?;
            Ok((response, reader.finish()?))
        });
        if let Some(wait) = arm.poller.fetched(task, result, now, random) {
            self.budget.hold(now.instant + wait);
        }
    }

    /// Puts a batch into the queue; gives it back if there is no room.
    pub fn push(&mut self, arm: usize, task: usize, batch: Batch, now: Now) -> Option<Batch> {
        // Nobody may wait in a simulation; a queue that is told to stop does not.
        let impatient = Stop::default();
        impatient.raise();
        if let Err(batch) = self.queue.push(batch, &impatient) {
            return Some(batch);
        }
        self.arms[arm].poller.offered(task, now);
        None
    }

    /// Tells the committer which windows were read to their end.
    pub fn tell_read(&mut self, arm: usize) {
        for stream in self.arms[arm].poller.take_read() {
            self.sender.send(Message::Read(stream)).unwrap();
        }
    }

    /// A poller panicked: another one begins where it failed.
    pub fn replace_poller(&mut self, arm: usize, plan: &Part, now: Now, due_ms: u64) {
        let arm = &mut self.arms[arm];
        if matches!(arm.doing, Doing::Intending { .. } | Doing::Pushing { .. }) {
            // There it only waits, and holds a batch.
            return;
        }
        if let Doing::Asking { priority, is_waiting, .. } = arm.doing {
            self.budget.leave(priority, is_waiting);
        }
        arm.poller.abandon();
        let states = &self.streams[arm.first..arm.first + arm.connector.streams().len()];
        arm.poller = new_poller(plan, &arm.connector, states, arm.first, &self.log, now.instant);
        (arm.doing, arm.due_ms) = (Doing::Thinking, Some(due_ms));
    }

    /// One tick of the host.
    pub fn tick(&mut self) {
        if let Some(buffer) = self.instance.tick(&mut self.host) {
            self.host.take(buffer);
        }
    }

    /// The host pauses or resumes the input, and says so at once.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.host.is_paused = is_paused;
        self.instance.heed_pause(&mut self.host);
    }

    /// Whether the committer has been told something that it has not looked at, and is not waiting
    /// for its disk.
    pub fn has_messages(&mut self) -> bool {
        self.messages.extend(self.inbox.try_iter());
        !self.messages.is_empty() && self.waiting.is_none()
    }

    /// Lets the real committer work through its messages; if the disk does not answer, up to the
    /// point where it waits for that.
    pub fn commit(&mut self, disk_fails: bool) {
        let (sender, receiver) = mpsc::channel();
        self.messages.drain(..).for_each(|message| sender.send(message).unwrap());
        drop(sender);
        let stop = Stop::default();
        // Its own wait before a second try would be a real one.
        stop.raise();
        let committer = Committer {
            streams: self.streams.clone(),
            store: Box::new(Handle(Arc::clone(&self.disk))),
            queue: Arc::clone(&self.queue),
            stop,
            logger: Logger::new(Arc::clone(&self.log), ""),
        };
        if !disk_fails {
            return committer.run(&receiver);
        }
        let ((parked, is_parked), (answers, answer)) = (mpsc::channel(), mpsc::channel());
        self.disk.lock().unwrap().waits = Some((parked, answer));
        let disk = Arc::clone(&self.disk);
        let thread = std::thread::spawn(move || {
            committer.run(&receiver);
            // If there was nothing to save, nobody has waited.
            disk.lock().unwrap().waits = None;
        });
        match is_parked.recv() {
            Ok(()) => self.waiting = Some(Waiting { thread, answers }),
            Err(_) => thread.join().unwrap(),
        }
    }

    /// The disk answers again.
    pub fn disk_answers(&mut self) {
        if let Some(Waiting { thread, answers }) = self.waiting.take() {
            answers.send(()).unwrap();
            thread.join().unwrap();
        }
    }

    /// The host stops the input: what its last callbacks do, and what is committed after them.
    pub fn stop(&mut self) {
        self.set_paused(true);
        self.host.end();
        self.instance.stop(&mut self.host);
        self.die();
        if self.has_messages() && !self.disk.lock().unwrap().has_died {
            self.commit(false);
        }
    }

    /// What waits for the disk dies with the process.
    pub fn die(&mut self) {
        if let Some(Waiting { thread, answers }) = self.waiting.take() {
            drop(answers);
            thread.join().unwrap();
        }
    }

    /// What was said since this was last looked at.
    pub fn take_lines(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.host.lines);
        lines.extend(self.log.take().into_iter().map(|line| line.text));
        lines
    }

    /// How the records of an arm's stream are read.
    pub fn shape(&self, arm: usize, stream: usize) -> Shape {
        self.arms[arm].connector.streams()[stream].shape
    }
}

pub fn new_poller(
    plan: &Part,
    connector: &Arc<dyn Connector>,
    states: &[Arc<StreamState>],
    first: usize,
    log: &Arc<Log>,
    now: Instant,
) -> Poller {
    let logger = Logger::new(Arc::clone(log), "");
    let is_changes = plan.emit == Emit::Changes;
    let format = if is_changes { Format::Envelope } else { Format::Raw };
    let style = Style { has_change: is_changes, ..Style::of(format) };
    let parts = connector.streams().iter().zip(states).enumerate();
    let parts = parts.map(|(i, (stream, shared))| TaskParts {
        index: first + i,
        shared: Arc::clone(shared),
        shape: stream.shape,
        generated: connector::product(plan.product).unwrap().generated,
        envelope: Envelope::new(&style, stream, "vendor"),
        tag: None,
        logger: logger.child(&format!("stream {}", first + i)),
    });
    Poller::new(Arc::clone(connector), plan.rhythm, logger.clone(), parts.collect(), now)
}

/// Whole ms, at least one.
pub fn ceil_ms(wait: Duration) -> u64 {
    (wait.as_micros().div_ceil(1_000) as u64).max(1)
}
