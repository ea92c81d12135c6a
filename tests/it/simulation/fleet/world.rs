//! The run of one seed: whoever of the fleet is due next does one thing, until all is quiet.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use fastrand::Rng;
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::Priority;
use in_trendmicro::http::{Request, Response};
use in_trendmicro::poller::Now;

use super::database::Database;
use super::node::{LEASE_TIMEOUT_MS, Node, lease};
use super::watch::{Tally, Watch};
use crate::rig::{Asked, Fault, START, Vendor, answer, at, parse};
use crate::simulation::host::{Kind, Model, Processor};
use crate::simulation::life::{Doing, ceil_ms};
use crate::simulation::scenario::{
    Part, draw_cloud_app_security, draw_email_security, draw_vendors,
};
use crate::simulation::trace::Trace;
use crate::simulation::{Run, Telling, decode, first_due};

const MINUTE_MS: u64 = 60_000;
/// The way of a request to the vendor, and of a question to the database.
const WAY_MS_MAX: u64 = 400;
/// From one sign of life to the next.
const BEAT_MS: u64 = 4_000;
/// How long after the last disturbance everything must have arrived.
const PATIENCE_MS: u64 = 6 * 3_600_000;
const STEPS_MAX: u64 = 600_000;
/// Steps that are kept to be told.
const TRACE_MAX: usize = 80;

/// What happens at a moment to one of the hosts, or to the database; times are in ms.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start(usize),
    Kill(usize),
    Stop(usize),
    Freeze { node: usize, ms: u64 },
    Cut { node: usize, ms: u64 },
    Mend(usize),
    Away { ms: u64 },
    AnswerLost,
    VendorFails { ms: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    Event,
    Beat(usize),
    Arm(usize, usize),
    Drain(usize),
    Tick(usize),
    Commit(usize),
}

/// Everything there is.
pub struct World {
    rng: Rng,
    zero: Instant,
    now_ms: u64,
    parts: Vec<Part>,
    vendors: Vec<Vendor>,
    limit: Option<u32>,
    kind: Kind,
    database: Arc<Mutex<Database>>,
    nodes: Vec<Option<Node>>,
    watch: Watch,
    /// What happens, the last first.
    events: Vec<(u64, Event)>,
    calm_ms: u64,
    vendor_fails_until_ms: u64,
    requests_ms: Vec<u64>,
    /// The host that died and that nobody replaces, and when.
    died: Option<(usize, u64)>,
    tally: Tally,
    steps: u64,
    trace: Trace,
}

impl Run for World {
    type Tally = Tally;

    fn new(seed: u64, telling: Telling) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Members draw their own names.
        fastrand::seed(seed);
        let calm_secs = rng.i64(600..5_400);
        let parts: Vec<Part> =
            (0..rng.usize(1..6)).map(|_| draw_part(&mut rng, calm_secs)).collect();
        let vendors = draw_vendors(&parts, &mut rng);
        let count = rng.usize(2..5);
        let limit = (rng.u8(..3) == 0).then(|| rng.u32(10..40));
        let zero = Instant::now();
        let mut kind = Kind::draw(&mut rng);
        (kind.processor, kind.can_count, kind.is_append) = (Processor::None, true, true);
        kind.keeps_at_stop = true;
        let database = Arc::new(Mutex::new(Database::new(count, limit, zero)));
        let streams: Vec<Vec<String>> =
            parts.iter().enumerate().map(|(part, plan)| streams_of(part, plan)).collect();
        let watch = Watch::new(&parts, &streams);
        let calm_ms = calm_secs as u64 * 1_000;
        Self {
            events: draw_events(&mut rng, count, calm_ms),
            rng,
            zero,
            now_ms: 0,
            vendors,
            limit,
            kind,
            database,
            nodes: (0..count).map(|_| None).collect(),
            watch,
            parts,
            calm_ms,
            vendor_fails_until_ms: 0,
            requests_ms: Vec::new(),
            died: None,
            tally: Tally::default(),
            steps: 0,
            trace: Trace::new(telling, TRACE_MAX),
        }
    }

    fn trace(&self) -> String {
        self.trace.text()
    }

    fn tally(&self) -> Tally {
        let database = self.database.lock().unwrap();
        Tally {
            records: self.watch.records(),
            twice: self.watch.twice(),
            takeovers: database.takeovers,
            refused_commits: database.refused,
            hours: self.now_ms / 3_600_000,
            ..self.tally
        }
    }

    /// Goes on until everything has arrived; fails if that takes too long.
    fn run(&mut self) {
        let mut looks_at_ms = self.calm_ms;
        loop {
            let (due_ms, actor) = self.next_actor();
            self.now_ms = self.now_ms.max(due_ms);
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "spins");
            if self.now_ms >= looks_at_ms {
                looks_at_ms = self.now_ms + 10_000;
                if self.is_over() {
                    return;
                }
            }
            self.act(actor);
            self.look();
        }
    }

    fn add(total: &mut Tally, tally: &Tally) {
        total.add(tally);
    }
}

impl World {
    fn is_over(&mut self) -> bool {
        if self.now_ms < self.calm_ms + 60_000 || self.died.is_some() {
            return false;
        }
        let database = self.database.lock().unwrap();
        let loads = database.loads();
        let (least, most) = loads
            .iter()
            .flatten()
            .fold((usize::MAX, 0), |(least, most), &load| (least.min(load), most.max(load)));
        let is_spread = loads.is_some() && most - least <= 1;
        drop(database);
        let is_quiet = self.nodes.iter().flatten().all(Node::is_quiet);
        let missing = self.watch.first_missing(self.now_ms as i64 / 1_000);
        let is_over =
            is_spread && is_quiet && missing.is_none() && self.watch.first_unread().is_none();
        let is_late = self.now_ms > self.calm_ms + PATIENCE_MS;
        let unread = self.watch.first_unread();
        assert!(
            is_over || !is_late,
            "not quiet in time: {missing:?}, loads {loads:?}, quiet: {is_quiet}, {unread:?}"
        );
        is_over
    }

    fn now(&self) -> Now {
        let time = at(START) + TimeDelta::milliseconds(self.now_ms as i64);
        Now { time, instant: self.zero + Duration::from_millis(self.now_ms) }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.note(self.now_ms, text);
    }

    /// Who does the next thing, and when.
    fn next_actor(&mut self) -> (u64, Actor) {
        let mut due: Vec<(u64, Actor)> = Vec::with_capacity(32);
        due.extend(self.events.last().map(|(ms, _)| (*ms, Actor::Event)));
        let database = self.database.lock().unwrap();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            let thawed = |ms: u64| ms.max(node.frozen_until_ms);
            due.push((thawed(node.beat_due_ms), Actor::Beat(index)));
            for (i, arm) in node.arms.iter().enumerate() {
                // What is on its way to the vendor arrives, whoever is frozen.
                let is_sent = matches!(arm.doing, Doing::Sending { .. });
                let due_ms = arm.due_ms.map(|ms| if is_sent { ms } else { thawed(ms) });
                due.extend(due_ms.map(|ms| (ms, Actor::Arm(index, i))));
            }
            due.extend(node.host.drain_due().map(|ms| (thawed(ms), Actor::Drain(index))));
            if node.queue.bytes() > 0 {
                due.push((thawed(node.tick_due_ms), Actor::Tick(index)));
            }
            if let Some(ms) = node.commit_due_ms.filter(|_| !database.cut[index]) {
                due.push((thawed(ms), Actor::Commit(index)));
            }
        }
        drop(database);
        first_due(due, self.now_ms, &mut self.rng)
    }

    fn act(&mut self, actor: Actor) {
        let (now, now_ms) = (self.now(), self.now_ms);
        self.database.lock().unwrap().now_ms = now_ms;
        for node in self.nodes.iter_mut().flatten() {
            node.host.now_ms = now_ms;
            node.host.instant = now.instant;
            node.host.is_calm = now_ms >= self.calm_ms;
        }
        match actor {
            Actor::Event => {
                if let Some((_, event)) = self.events.pop() {
                    self.note(|| format!("{event:?}"));
                    self.happen(event);
                }
            }
            Actor::Beat(index) => {
                let jitter = self.rng.u64(..1_000);
                let node = self.nodes[index].as_mut().unwrap();
                node.beat_due_ms = now_ms + BEAT_MS + jitter;
                node.beat(&self.parts, now);
                self.note_takeover();
            }
            Actor::Arm(index, arm) => self.step_arm(index, arm),
            Actor::Drain(index) => self.nodes[index].as_mut().unwrap().host.drain(),
            Actor::Tick(index) => {
                let node = self.nodes[index].as_mut().unwrap();
                node.tick_due_ms = (now_ms / 1_000 + 1) * 1_000;
                node.tick();
                self.check_handed(index);
            }
            Actor::Commit(index) => {
                let node = self.nodes[index].as_mut().unwrap();
                node.commit_due_ms = None;
                node.commit();
            }
        }
    }

    /// Nobody hands over what another host may be delivering by now.
    fn check_handed(&mut self, index: usize) {
        let Some(node) = &mut self.nodes[index] else { return };
        let database = self.database.lock().unwrap();
        for bytes in node.host.handed.as_mut().map(std::mem::take).unwrap_or_default() {
            for number in decode(&bytes).into_iter().filter_map(|news| news.number) {
                let tenure = &node.epochs[&number];
                assert!(database.is_current(tenure), "{number} is handed over after {tenure:?}");
            }
        }
    }

    /// How long the connectors of the host that died last had nobody to run them.
    fn note_takeover(&mut self) {
        let Some((node, died_ms)) = self.died else { return };
        if self.database.lock().unwrap().holds(node) {
            return;
        }
        let took_ms = self.now_ms - died_ms;
        assert!(took_ms <= LEASE_TIMEOUT_MS, "the takeover took {took_ms} ms");
        self.tally.takeover_ms_max = self.tally.takeover_ms_max.max(took_ms);
        self.died = None;
    }

    fn happen(&mut self, event: Event) {
        let now_ms = self.now_ms;
        let until = |ms| now_ms + ms;
        match event {
            Event::Start(index) if self.nodes[index].is_none() => {
                let seed = self.rng.u64(..);
                let mut host = Model::new(self.kind, seed, self.now().instant);
                (host.now_ms, host.handed) = (self.now_ms, Some(Vec::new()));
                let node = Node::start(index, &self.parts, &self.database, host, self.now());
                self.nodes[index] = Some(node);
            }
            Event::Kill(index) => {
                let node = self.nodes[index].take();
                self.tally.kills += u64::from(node.is_some());
                let is_last =
                    !self.events.iter().any(|(_, event)| !matches!(event, Event::Mend(_)));
                if is_last {
                    self.died = Some((index, self.now_ms));
                }
            }
            Event::Stop(index) => {
                let Some(mut node) = self.nodes[index].take() else { return };
                self.tally.stops += 1;
                node.stop();
                self.look_at(&mut node);
            }
            Event::Freeze { node, ms } => {
                self.tally.freezes += 1;
                if let Some(node) = &mut self.nodes[node] {
                    node.frozen_until_ms = until(ms);
                }
            }
            Event::Cut { node, ms } => {
                self.database.lock().unwrap().cut[node] = true;
                self.schedule(until(ms), Event::Mend(node));
            }
            Event::Away { ms } => {
                self.database.lock().unwrap().cut.fill(true);
                (0..self.nodes.len()).for_each(|node| self.schedule(until(ms), Event::Mend(node)));
            }
            Event::Mend(node) => self.database.lock().unwrap().cut[node] = false,
            Event::AnswerLost => self.database.lock().unwrap().loses_answer = true,
            Event::VendorFails { ms } => self.vendor_fails_until_ms = until(ms),
            Event::Start(_) => {}
        }
    }

    fn schedule(&mut self, ms: u64, event: Event) {
        self.events.push((ms, event));
        self.events.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    }

    /// Lets the watch see what has arrived, what was saved and what was said.
    fn look(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(mut node) = self.nodes[index].take() else { continue };
            self.look_at(&mut node);
            if node.has_messages() && node.commit_due_ms.is_none() {
                let wait = if self.rng.u8(..10) == 0 { self.rng.u64(..3_000) } else { 5 };
                node.commit_due_ms = Some(self.now_ms + wait);
            }
            self.nodes[index] = Some(node);
        }
    }

    fn look_at(&mut self, node: &mut Node) {
        for line in node.take_lines() {
            assert!(!line.contains("astray"), "{line}");
            node.has_lost |= line.contains("some may arrive twice");
            self.note(|| format!("{}: {line}", node.index));
        }
        let database = Arc::clone(&self.database);
        let mut database = database.lock().unwrap();
        for bytes in std::mem::take(&mut node.host.arrived) {
            for number in decode(&bytes).into_iter().filter_map(|news| news.number) {
                let tenure = node.epochs[&number].clone();
                let begun = database.begun[&tenure];
                self.watch.arrived(number, &tenure, begun, node.has_lost);
            }
        }
        let sequence = database.sequence;
        for change in std::mem::take(&mut database.applied) {
            self.watch.saved(&change, sequence);
        }
    }

    fn step_arm(&mut self, index: usize, arm: usize) {
        let (now, now_ms) = (self.now(), self.now_ms);
        let Some(mut node) = self.nodes[index].take() else { return };
        assert!(node.arms[arm].running.is_some(), "a connector without a lease does something");
        let doing = std::mem::replace(&mut node.arms[arm].doing, Doing::Thinking);
        node.arms[arm].due_ms = Some(now_ms);
        match doing {
            Doing::Thinking if node.may_act(arm, now) => node.think(arm, now),
            Doing::Thinking => {}
            Doing::Recalling { task, answer } => {
                if let Ok(recalled) = answer.try_recv() {
                    let random = self.rng.f64();
                    if let Some((poller, _)) = &mut node.arms[arm].running {
                        poller.recalled(task, recalled, now, random);
                    }
                } else {
                    node.arms[arm].due_ms = None;
                    node.arms[arm].doing = Doing::Recalling { task, answer };
                }
            }
            Doing::Asking { task, request, priority, .. } => {
                self.ask(&mut node, arm, task, request, priority);
            }
            Doing::Sending { task, request } => self.send(&mut node, arm, task, &request),
            Doing::Reading { task, answer } => self.read(&mut node, arm, task, answer),
            Doing::Intending { .. } | Doing::Streaming { .. } => {
                unreachable!("logs have no intents, and bodies come whole here")
            }
            Doing::Pushing { task, batch, .. } => self.push(&mut node, arm, task, batch),
        }
        node.tell_read(arm);
        self.nodes[index] = Some(node);
    }

    /// Asks the shared budget, as the plugin does: a share that was long on its way is not used.
    fn ask(&mut self, node: &mut Node, arm: usize, task: usize, request: Request, of: Priority) {
        let mut database = self.database.lock().unwrap();
        let is_away = database.cut[node.index];
        let now = database.now();
        let wait =
            if is_away { Some(Duration::from_secs(1)) } else { database.budget.take(of, now) };
        drop(database);
        let now = self.now();
        let arm = &mut node.arms[arm];
        if let (Some(wait), Priority::Verification, Some((poller, _))) =
            (wait, of, &mut arm.running)
        {
            // It does not stand in line.
            poller.postpone(task, wait, now);
        } else if let Some(wait) = wait {
            arm.due_ms = Some(self.now_ms + ceil_ms(wait));
            arm.doing = Doing::Asking { task, request, priority: of, is_waiting: false };
        } else {
            arm.due_ms = Some(self.now_ms + self.rng.u64(1..WAY_MS_MAX));
            arm.doing = Doing::Sending { task, request };
        }
    }

    /// A request reaches the vendor, who answers, sooner or later.
    fn send(&mut self, node: &mut Node, arm: usize, task: usize, request: &Request) {
        self.count_request();
        let Some((poller, _)) = &node.arms[arm].running else { return };
        let stream = poller.stream(task);
        let shape = node.arms[arm].connector.streams()[stream].shape;
        let (span, token) = parse(self.parts[arm].product, request, &shape);
        let (start, end) = span.expect("a log");
        let name = streams_of(arm, &self.parts[arm])[stream].clone();
        self.watch.asked(&name, node.tenure(arm).epoch, start);
        let (is_live, is_pass, target) = (true, false, request.target.clone());
        let asked = Asked { at: 0.0, stream, start, end, token, is_live, is_pass, target };
        self.note(|| format!("{}: asks {arm}: {asked:?}", node.index));
        let answer = self.answer(arm, &asked);
        node.arms[arm].doing = Doing::Reading { task, answer };
        node.arms[arm].due_ms = Some(self.now_ms + self.rng.u64(20..5_000));
    }

    /// Never more requests in a minute than are allowed, by all hosts together.
    fn count_request(&mut self) {
        self.tally.requests += 1;
        let Some(limit) = self.limit else { return };
        let now_ms = self.now_ms;
        self.requests_ms.retain(|&ms| ms + MINUTE_MS > now_ms);
        self.requests_ms.push(now_ms);
        let count = self.requests_ms.len();
        assert!(count <= limit as usize, "{count} requests in a minute, {limit} are allowed");
    }

    fn answer(&mut self, part: usize, asked: &Asked) -> Result<(Response, String)> {
        let time = self.now().time;
        let fails = self.now_ms < self.calm_ms && self.rng.u8(..20) == 0;
        if self.vendor_fails_until_ms > self.now_ms || fails {
            return match self.rng.u8(..3) {
                0 => Ok((answer(503), String::new())),
                1 => Err(Error::new(ErrorKind::Narrow, "no whole answer")),
                _ => Err(Error::retry("the connection failed")),
            };
        }
        let vendor = &mut self.vendors[part];
        let (mut response, body) = vendor.answer(asked, time, None::<Fault>);
        response.date = Some(at(time.timestamp()));
        Ok((response, body))
    }

    fn read(
        &mut self,
        node: &mut Node,
        arm: usize,
        task: usize,
        answer: Result<(Response, String)>,
    ) {
        let (now, random) = (self.now(), self.rng.f64());
        let Some((poller, _)) = &mut node.arms[arm].running else { return };
        let result = answer.and_then(|(response, body)| {
            let mut reader = poller.reader(task);
            reader.feed(body.as_bytes())?;
            Ok((response, reader.finish()?))
        });
        poller.fetched(task, result, now, random);
    }

    fn push(
        &mut self,
        node: &mut Node,
        arm: usize,
        task: usize,
        batch: in_trendmicro::batch::Batch,
    ) {
        let now = self.now();
        let news = decode(&batch.bytes);
        let numbers: Vec<u64> = news.into_iter().filter_map(|news| news.number).collect();
        let part = node.arms.iter().rposition(|arm| arm.first <= batch.stream).unwrap();
        let stream = batch.stream - node.arms[part].first;
        let name = streams_of(part, &self.parts[part])[stream].clone();
        self.watch.queued(&name, &numbers, &batch.ids);
        let tenure = in_trendmicro::lease::Tenure {
            connector: lease(part).into(),
            epoch: batch.window.epoch(),
        };
        let impatient = in_trendmicro::clock::Stop::default();
        impatient.raise();
        if let Err(batch) = node.queue.push(batch, &impatient) {
            node.arms[arm].due_ms = None;
            node.arms[arm].doing = Doing::Pushing { task, batch, body: None };
            return;
        }
        node.epochs.extend(numbers.into_iter().map(|number| (number, tenure.clone())));
        if let Some((poller, _)) = &mut node.arms[arm].running {
            poller.offered(task, now);
        }
    }
}

/// The streams of a part, as the database knows them.
fn streams_of(part: usize, plan: &Part) -> Vec<String> {
    let product = in_trendmicro::connector::product(plan.product).unwrap();
    let connector = (product.connect)(&plan.settings);
    let streams = connector.streams().iter();
    streams.map(|stream| format!("{}/{}", lease(part), stream.name)).collect()
}

fn draw_part(rng: &mut Rng, calm_secs: i64) -> Part {
    let mut part = match rng.u8(..4) {
        0 => draw_cloud_app_security(rng, calm_secs, false),
        _ => draw_email_security(rng, calm_secs, false),
    };
    // Several connectors share a budget here; what a pass finds too late is another simulation's.
    part.be_punctual();
    part
}

/// Hosts come, go and come back; at the end one dies for good, if another one is left.
fn draw_events(rng: &mut Rng, count: usize, calm_ms: u64) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for node in 0..count {
        let at = if node == 0 || rng.bool() { 0 } else { rng.u64(..calm_ms) };
        events.push((at, Event::Start(node)));
    }
    for _ in 0..rng.usize(..12) {
        let at = rng.u64(..calm_ms);
        let most = [2_000, 20_000, 40_000, 300_000][rng.usize(..4)];
        let ms = rng.u64(..most).min(calm_ms - at);
        let node = rng.usize(..count);
        let event = match rng.u8(..10) {
            0..3 => Event::Kill(node),
            3 => Event::Stop(node),
            4 | 5 => Event::Freeze { node, ms },
            6 => Event::Cut { node, ms },
            7 => Event::Away { ms },
            8 => Event::AnswerLost,
            _ => Event::VendorFails { ms },
        };
        events.push((at, event));
        if matches!(event, Event::Kill(_) | Event::Stop(_)) {
            events.push((at + ms + 1, Event::Start(node)));
        }
    }
    events.extend((0..count).map(|node| (calm_ms + 1, Event::Start(node))));
    // Once all have come and have their share.
    events.push((calm_ms + 60_000, Event::Kill(rng.usize(..count))));
    events.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    events
}
