//! The run of one seed: whoever is due next does one thing, until all is quiet.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use fastrand::Rng;
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::Priority;
use in_trendmicro::http::{Request, Response};
use in_trendmicro::poller::Now;

use super::disk::Disk;
use super::host::Model;
use super::life::{Doing, Life, ceil_ms};
use super::oracle::{Oracle, Tally};
use super::scenario::{Event, KEPT, Scenario, draw_vendors};
use super::trace::Trace;
use super::{Run, Telling, first_due};
use crate::rig::{Asked, Fault, START, Vendor, answer, at, parse};

/// The vendor counts requests over a minute.
const MINUTE_MS: u64 = 60_000;
/// The way of a request to the vendor.
const WAY_MS_MAX: u64 = 400;
/// Between two pieces of a body.
const PIECE_MS_MAX: u64 = 50;
/// How long a try that comes too late has taken.
const TIMEOUT_MS: u64 = 60_000;
/// A machine that spins does not get past this.
const STEPS_MAX: u64 = 300_000;
/// Steps that are kept to be told.
const TRACE_MAX: usize = 60;

/// Who is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    Event,
    Start,
    Arm(usize),
    Drain,
    Tick,
    Commit,
    DiskAnswers,
    Resume,
}

/// Everything there is.
pub struct World {
    scenario: Scenario,
    rng: Rng,
    zero: Instant,
    now_ms: u64,
    ahead_secs: i64,
    vendors: Vec<Vendor>,
    disk: Arc<Mutex<Disk>>,
    oracle: Oracle,
    life: Option<Life>,
    start_ms: Option<u64>,
    resume_ms: Option<u64>,
    frozen_until_ms: u64,
    disk_fails_until_ms: u64,
    /// Until when the vendor fails, and how.
    vendor_fails: (u64, u16),
    /// The process dies after so many steps, and is down for so long.
    kill: Option<(u32, u64)>,
    /// The host stops the input once its ring buffer holds something, and for so long.
    stop_when_busy: Option<u64>,
    /// How long it is down after it died in the store.
    down_ms: u64,
    steps: u64,
    trace: Trace,
}

impl Run for World {
    type Tally = Tally;

    fn new(seed: u64, telling: Telling) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::draw(&mut rng);
        let vendors = draw_vendors(&scenario.parts, &mut rng);
        let disk = Arc::new(Mutex::new(Disk::new(scenario.is_sqlite)));
        let zero = Instant::now();
        let host = Model::new(scenario.host, 0, zero);
        let ahead_secs = scenario.ahead_secs;
        let now = Now { time: at(START + ahead_secs), instant: zero };
        let oracle = Oracle::new(&scenario, &Life::start(&scenario, &disk, host, now));
        Self {
            scenario,
            rng,
            zero,
            now_ms: 0,
            ahead_secs,
            vendors,
            disk,
            oracle,
            life: None,
            start_ms: Some(0),
            resume_ms: None,
            frozen_until_ms: 0,
            disk_fails_until_ms: 0,
            vendor_fails: (0, 0),
            kill: None,
            stop_when_busy: None,
            down_ms: 0,
            steps: 0,
            trace: Trace::new(telling, TRACE_MAX),
        }
    }

    fn trace(&self) -> String {
        self.trace.text()
    }

    fn tally(&self) -> Tally {
        let commits = self.disk.lock().unwrap().commits;
        Tally { commits, hours: self.now_ms / 3_600_000, ..self.oracle.tally }
    }

    /// Goes on until everything has arrived; fails if that takes too long.
    fn run(&mut self) {
        let mut looks_at_ms = self.scenario.calm_ms;
        loop {
            let (due_ms, actor) = self.next_actor();
            self.now_ms = self.now_ms.max(due_ms);
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "spins");
            if self.now_ms >= looks_at_ms {
                looks_at_ms = self.now_ms + 30_000;
                if self.is_quiet() {
                    return;
                }
            }
            self.act(actor);
            self.after_step();
        }
    }

    fn add(total: &mut Tally, tally: &Tally) {
        total.add(tally);
    }
}

impl World {
    /// Whether it is all over, and right.
    fn is_quiet(&mut self) -> bool {
        let (secs, calm_secs) = (self.secs(), self.scenario.calm_ms as i64 / 1_000);
        let late = self.now_ms >= self.scenario.end_ms;
        let Some(life) = &self.life else { return false };
        let calm_wall = calm_secs + self.ahead_secs;
        if self.oracle.is_complete(&self.scenario, life, secs, calm_wall) {
            self.oracle.check_end(&self.scenario, life);
            return true;
        }
        let missing = self.oracle.first_missing(&self.scenario, secs);
        assert!(!late, "not quiet in time: {missing:?}, {} bytes wait", life.queue.bytes());
        false
    }

    fn secs(&self) -> i64 {
        self.now_ms as i64 / 1_000
    }

    fn vendor_time(&self) -> in_trendmicro::clock::Time {
        at(START) + TimeDelta::milliseconds(self.now_ms as i64)
    }

    fn now(&self) -> Now {
        let time = self.vendor_time() + TimeDelta::seconds(self.ahead_secs);
        Now { time, instant: self.zero + Duration::from_millis(self.now_ms) }
    }

    fn is_calm(&self) -> bool {
        self.now_ms >= self.scenario.calm_ms
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.note(self.now_ms, text);
    }

    /// Who does the next thing, and when.
    fn next_actor(&mut self) -> (u64, Actor) {
        let mut due: Vec<(u64, Actor)> = Vec::with_capacity(8);
        due.extend(self.scenario.events.last().map(|(ms, _)| (*ms, Actor::Event)));
        due.extend(self.start_ms.map(|ms| (ms, Actor::Start)));
        if let Some(life) = &mut self.life {
            let thawed = |ms: u64| ms.max(self.frozen_until_ms);
            for (i, arm) in life.arms.iter().enumerate() {
                // What is on its way to the vendor arrives, whoever is frozen.
                let is_sent = matches!(arm.doing, Doing::Sending { .. });
                let due_ms = arm.due_ms.map(|ms| if is_sent { ms } else { thawed(ms) });
                due.extend(due_ms.map(|ms| (ms, Actor::Arm(i))));
            }
            due.extend(life.host.drain_due().map(|ms| (thawed(ms), Actor::Drain)));
            due.extend(self.resume_ms.map(|ms| (thawed(ms), Actor::Resume)));
            if life.queue.bytes() > 0 {
                due.push((thawed(life.tick_due_ms), Actor::Tick));
            }
            if life.has_messages() {
                let ms = life.commit_due_ms.unwrap_or(self.now_ms);
                due.push((thawed(ms), Actor::Commit));
            } else if self.disk_fails_until_ms > 0 {
                due.push((thawed(self.disk_fails_until_ms), Actor::DiskAnswers));
            }
        }
        // A run that is over still looks whether it is.
        due.push((self.now_ms + 60_000, Actor::Tick));
        first_due(due, self.now_ms, &mut self.rng)
    }

    fn act(&mut self, actor: Actor) {
        if let Some(life) = &mut self.life {
            life.host.now_ms = self.now_ms;
            life.host.instant = self.zero + Duration::from_millis(self.now_ms);
            life.host.is_calm = self.now_ms >= self.scenario.calm_ms;
        }
        match actor {
            Actor::Event => {
                if let Some((_, event)) = self.scenario.events.pop() {
                    self.note(|| format!("{event:?}"));
                    self.happen(event);
                }
            }
            Actor::Start => self.start(),
            Actor::Arm(arm) => self.step_arm(arm),
            Actor::Drain => self.with_life(|life| life.host.drain()),
            Actor::Tick => self.tick(),
            Actor::Commit => self.commit(),
            Actor::DiskAnswers => {
                self.disk_fails_until_ms = 0;
                self.note(|| "the disk answers again".to_owned());
                self.with_life(Life::disk_answers);
                self.wake_pushers();
            }
            Actor::Resume => {
                self.resume_ms = None;
                self.note(|| "the host resumes".to_owned());
                self.with_life(|life| life.set_paused(false));
                self.wake_pushers();
            }
        }
    }

    fn with_life(&mut self, act: impl FnOnce(&mut Life)) {
        if let Some(life) = &mut self.life {
            act(life);
        }
    }

    fn start(&mut self) {
        self.start_ms = None;
        let seed = self.rng.u64(..);
        let mut host = Model::new(self.scenario.host, seed, self.now().instant);
        host.now_ms = self.now_ms;
        let life = Life::start(&self.scenario, &self.disk, host, self.now());
        self.oracle.begin();
        self.life = Some(life);
        self.note(|| "starts".to_owned());
    }

    fn happen(&mut self, event: Event) {
        let until = |ms| self.now_ms + ms;
        match event {
            Event::Kill { steps, down_ms } => self.kill = Some((steps, down_ms)),
            Event::KillInStore { is_after, down_ms } => {
                self.disk.lock().unwrap().dies = self.life.is_some().then_some(is_after);
                self.down_ms = down_ms;
            }
            Event::Stop { down_ms, is_busy: false } => self.stop(down_ms),
            Event::Stop { down_ms, .. } => self.stop_when_busy = Some(down_ms),
            Event::Pause { ms } => {
                self.resume_ms = Some(until(ms));
                self.with_life(|life| life.set_paused(true));
            }
            Event::Freeze { ms } => self.frozen_until_ms = until(ms),
            Event::DiskFails { ms } => self.disk_fails_until_ms = until(ms),
            Event::VendorFails { ms, status } => self.vendor_fails = (until(ms), status),
            Event::TokensLost => self.vendors.iter_mut().for_each(Vendor::forget_tokens),
            Event::PollerDies => {
                let due_ms = until(10_000);
                let (now, Some(life)) = (self.now(), &mut self.life) else { return };
                self.oracle.poller_died();
                let arm = self.rng.usize(..life.arms.len());
                life.replace_poller(arm, &self.scenario.parts[arm], now, due_ms);
            }
            Event::ClockSet { ahead_secs } => self.ahead_secs = ahead_secs,
        }
    }

    /// Ends the process as a stop of the host does.
    fn stop(&mut self, down_ms: u64) {
        let Some(mut life) = self.life.take() else { return };
        self.oracle.tally.stops += 1;
        life.stop();
        self.look_at(&mut life);
        self.end(life, down_ms);
    }

    /// Ends the process at once.
    fn die(&mut self, down_ms: u64) {
        let Some(mut life) = self.life.take() else { return };
        self.note(|| "is killed".to_owned());
        self.oracle.tally.kills += 1;
        life.die();
        self.look_at(&mut life);
        self.end(life, down_ms);
    }

    fn end(&mut self, life: Life, down_ms: u64) {
        self.oracle.tally.losses += life.host.losses;
        self.oracle.tally.refusals += life.host.refusals;
        self.oracle.ended();
        (self.kill, self.resume_ms, self.disk_fails_until_ms) = (None, None, 0);
        self.start_ms = Some(self.now_ms + down_ms.max(1));
    }

    /// What must be done and must hold after each step.
    fn after_step(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        self.look_at(&mut life);
        self.oracle.check(&life, self.scenario.queue_bytes_max);
        if life.has_messages() && life.commit_due_ms.is_none() {
            // The committer's thread is quick, or not.
            let wait =
                if self.rng.u8(..10) == 0 { self.rng.u64(..3_000) } else { self.rng.u64(..5) };
            life.commit_due_ms = Some(self.now_ms + wait);
        }
        self.life = Some(life);
        if self.disk.lock().unwrap().has_died {
            return self.die(self.down_ms);
        }
        let is_busy = |life: &Life| life.host.drain_due().is_some();
        if self.life.as_ref().is_some_and(is_busy)
            && let Some(down_ms) = self.stop_when_busy.take()
        {
            return self.stop(down_ms);
        }
        match &mut self.kill {
            Some((0, down_ms)) => {
                let down_ms = *down_ms;
                self.die(down_ms);
            }
            Some((steps, _)) => *steps -= 1,
            None => {}
        }
    }

    /// Lets the oracle see what has arrived, what was saved and what was said.
    fn look_at(&mut self, life: &mut Life) {
        for line in life.take_lines() {
            self.oracle.said(&line, self.secs());
            self.note(|| line);
        }
        for bytes in std::mem::take(&mut life.host.arrived) {
            self.note(|| {
                let numbers = super::decode(&bytes).into_iter().map(|news| news.number);
                format!("{:?} arrive", numbers.flatten().collect::<Vec<_>>())
            });
            self.oracle.arrived(&bytes, &life.streams, self.secs());
        }
        for change in self.disk.lock().unwrap().take_applied() {
            self.oracle.saved(&change);
        }
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms;
        self.with_life(|life| {
            life.tick_due_ms = (now_ms / 1_000 + 1) * 1_000;
            life.tick();
        });
    }

    fn commit(&mut self) {
        let fails = self.disk_fails_until_ms > self.now_ms;
        let Some(life) = &mut self.life else { return };
        life.commit_due_ms = None;
        life.commit(fails);
        if !self.disk.lock().unwrap().has_died {
            self.oracle.check_streams(life);
        }
        self.note(|| if fails { "commits, and waits for the disk" } else { "commits" }.to_owned());
        self.wake_pushers();
    }

    /// Pollers that wait for room or for the committer look again.
    fn wake_pushers(&mut self) {
        let Some(life) = &mut self.life else { return };
        for arm in life.arms.iter_mut().filter(|arm| arm.due_ms.is_none()) {
            arm.due_ms = Some(self.now_ms);
        }
    }

    fn step_arm(&mut self, arm: usize) {
        let (now, now_ms) = (self.now(), self.now_ms);
        let Some(mut life) = self.life.take() else { return };
        let doing = std::mem::replace(&mut life.arms[arm].doing, Doing::Thinking);
        life.arms[arm].due_ms = Some(now_ms);
        match doing {
            Doing::Thinking => life.think(arm, now),
            Doing::Recalling { task, answer } => {
                if let Ok(recalled) = answer.try_recv() {
                    let random = self.rng.f64();
                    life.arms[arm].poller.recalled(task, recalled, now, random);
                } else {
                    life.arms[arm].due_ms = None;
                    life.arms[arm].doing = Doing::Recalling { task, answer };
                }
            }
            Doing::Asking { task, request, priority, is_waiting } => {
                self.ask(&mut life, arm, (task, request, priority, is_waiting));
            }
            Doing::Sending { task, request } => self.send(&mut life, arm, task, &request),
            Doing::Reading { task, answer } => {
                let random = self.rng.f64();
                life.read(arm, task, answer, now, random);
            }
            Doing::Streaming { task, body } => {
                let luck = if self.is_calm() { 1.0 } else { self.rng.f64() };
                let random = (self.rng.f64(), luck, self.rng.f64());
                life.arms[arm].due_ms = Some(now_ms + self.rng.u64(0..PIECE_MS_MAX));
                life.stream(arm, task, body, now, random);
            }
            Doing::Intending { task, batch, body, saved } => {
                life.arms[arm].doing = if saved.try_recv().is_ok() {
                    Doing::Pushing { task, batch, body }
                } else {
                    life.arms[arm].due_ms = None;
                    Doing::Intending { task, batch, body, saved }
                };
            }
            Doing::Pushing { task, batch, body } => {
                let stream = batch.stream;
                self.oracle.queued(&batch);
                if life.push(arm, task, batch, body, now) {
                    self.oracle.unqueued(stream);
                }
            }
        }
        life.tell_read(arm);
        self.life = Some(life);
    }

    fn ask(
        &mut self,
        life: &mut Life,
        arm: usize,
        (task, request, priority, mut is_waiting): (usize, Request, Priority, bool),
    ) {
        let now = self.now();
        if priority == Priority::Verification {
            // It does not stand in line.
            if let Some(wait) = life.budget.take(priority, now.instant) {
                return life.arms[arm].poller.postpone(task, wait, now);
            }
        }
        let wait = match priority {
            Priority::Verification => None,
            _ => life.budget.ask(priority, &mut is_waiting, now.instant),
        };
        let arm = &mut life.arms[arm];
        if let Some(wait) = wait {
            arm.due_ms = Some(self.now_ms + ceil_ms(wait));
            arm.doing = Doing::Asking { task, request, priority, is_waiting };
        } else {
            arm.due_ms = Some(self.now_ms + self.rng.u64(1..WAY_MS_MAX));
            arm.doing = Doing::Sending { task, request };
        }
    }

    /// A request reaches the vendor, who answers, sooner or later.
    fn send(&mut self, life: &mut Life, arm: usize, task: usize, request: &Request) {
        self.count_request(life);
        let stream = life.arms[arm].poller.stream(task);
        let part = life.arms[arm].part;
        let (span, token) =
            parse(self.scenario.parts[part].product, request, &life.shape(arm, stream));
        let (start, end) = span.unwrap_or((self.secs(), self.secs()));
        let index = life.arms[arm].first + stream;
        self.oracle.asked(index, start);
        let (is_live, is_pass, target) = (true, false, request.target.clone());
        let asked = Asked { at: 0.0, stream, start, end, token, is_live, is_pass, target };
        let (answer, wait_ms) = self.answer(part, &asked);
        self.note(|| format!("asks {part}: {asked:?}, {}", describe(&answer)));
        life.arms[arm].doing = Doing::Reading { task, answer };
        life.arms[arm].due_ms = Some(self.now_ms + wait_ms);
    }

    /// Never more requests in a minute than are allowed, by one process.
    fn count_request(&mut self, life: &mut Life) {
        self.oracle.tally.requests += 1;
        let Some(limit) = self.scenario.limit else { return };
        let now_ms = self.now_ms;
        life.requests_ms.retain(|&ms| ms + MINUTE_MS > now_ms);
        life.requests_ms.push(now_ms);
        let count = life.requests_ms.len();
        assert!(count <= limit as usize, "{count} requests in a minute, {limit} are allowed");
    }

    /// What the vendor answers, and after how many ms.
    fn answer(&mut self, part: usize, asked: &Asked) -> (Result<(Response, String)>, u64) {
        let odds = self.scenario.odds;
        let is_slow = !self.is_calm() && self.rng.f64() < odds.is_slow;
        let wait_ms = if is_slow { self.rng.u64(1_000..TIMEOUT_MS) } else { self.rng.u64(20..800) };
        let time = self.vendor_time();
        let refuses = self.vendor_fails.0 > self.now_ms;
        let mut fault = refuses.then_some(Fault::Status(self.vendor_fails.1));
        if !self.is_calm() && fault.is_none() {
            let is_wide = asked.end - asked.start > odds.span_secs_max;
            fault = is_wide.then_some(Fault::Timeout);
            if self.rng.f64() < odds.fails {
                fault = Some(self.draw_fault());
            }
        }
        if asked.start < self.secs() - KEPT && fault.is_none() {
            // The vendor refuses what lies beyond its memory.
            fault = Some(Fault::Status(400));
        }
        let vendor = &mut self.vendors[part];
        let date = vendor.sends_date.then(|| at(time.timestamp()));
        let plain = |mut response: Response, body| {
            response.date = date;
            (Ok((response, body)), wait_ms)
        };
        match fault {
            Some(Fault::Status(status)) => plain(answer(status), String::new()),
            Some(Fault::RetryAfter(secs)) => {
                let retry_after = Some(Duration::from_secs(secs));
                plain(Response { retry_after, ..answer(429) }, String::new())
            }
            Some(Fault::Timeout) => {
                (Err(Error::new(ErrorKind::Narrow, "no whole answer")), TIMEOUT_MS)
            }
            Some(Fault::Reset) => (Err(Error::retry("the connection failed")), wait_ms),
            Some(Fault::Garbage) => {
                let (response, mut body) = vendor.answer(asked, time, None);
                body.pop();
                plain(response, body)
            }
            fault => {
                let (response, body) = vendor.answer(asked, time, fault);
                plain(response, body)
            }
        }
    }

    fn draw_fault(&mut self) -> Fault {
        match self.rng.u8(..10) {
            0 => Fault::Status(500),
            1 => Fault::Status(503),
            2 => Fault::Status(401),
            3 => Fault::RetryAfter(self.rng.u64(1..120)),
            4 => Fault::Timeout,
            5 => Fault::Reset,
            6 => Fault::Garbage,
            7 => Fault::Circle,
            8 => Fault::Astray,
            _ => Fault::Code(20),
        }
    }
}

fn describe(answer: &Result<(Response, String)>) -> String {
    let mut text = String::new();
    let _ = match answer {
        Ok((response, body)) => write!(text, "{} {body:.200}", response.status),
        Err(error) => write!(text, "{error}"),
    };
    text
}
