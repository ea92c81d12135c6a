//! The poller's machine against a scripted vendor, on a clock that the test turns.
//!
//! Nothing here waits, and no thread runs: the machine says what to do, the vendor of this file
//! answers, the real committer commits. So an hour takes a moment, and a failure can be repeated.

#![allow(clippy::unwrap_used)] // Clippy lets only the test functions themselves unwrap.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use fastrand::Rng;
use in_trendmicro::batch::Batch;
use in_trendmicro::checkpoint::{Change, Saved, Store};
use in_trendmicro::clock::{Stop, Time};
use in_trendmicro::commit::{Committer, Message, StreamState};
use in_trendmicro::config::Format;
use in_trendmicro::connector::{self, Connector, Mode, Settings};
use in_trendmicro::envelope::Envelope;
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::Priority;
use in_trendmicro::http::{Request, Response};
use in_trendmicro::log::{Level, Log, Logger};
use in_trendmicro::poller::{Now, Poller, Rhythm, Step, TaskParts};
use in_trendmicro::queue::Queue;
use in_trendmicro::window::{Policy, SETTLE};
use proptest::prelude::*;

const START: i64 = 1_700_000_000;
const INTERVAL: Duration = Duration::from_secs(60);
const RHYTHM: Rhythm = Rhythm { interval: INTERVAL, is_budgeted: false };
const HOUR: u64 = 3_600;
const TYPES: [&str; 3] = ["accepted_traffic", "blocked_traffic", "policy_events"];

fn at(secs: i64) -> Time {
    Time::from_timestamp(secs, 0).unwrap()
}

/// One record of the vendor.
#[derive(Clone, Copy, Debug)]
struct Mail {
    number: u64,
    stream: usize,
    /// When it was generated, in seconds after `START`.
    generated: i64,
    /// How many seconds later it can be seen.
    late: i64,
}

/// One request as the vendor saw it.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    /// Seconds after `START`.
    at: f64,
    stream: usize,
    /// The window, in seconds after `START`.
    start: i64,
    end: i64,
    token: Option<String>,
    is_live: bool,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Status(u16),
    RetryAfter(u64),
    Timeout,
    Reset,
    Garbage,
    /// The answer's token leads back to the page it came with.
    Circle,
}

fn answer(status: u16) -> Response {
    Response { status, ..Response::default() }
}

/// A vendor: records, pages and tokens, and nothing of HTTP but what the machine reads.
struct Vendor {
    mails: Vec<Mail>,
    page_size: usize,
    rng: Rng,
    /// The pages behind each token.
    tokens: HashMap<String, Vec<u64>>,
    sends_date: bool,
    /// Ends a window with a token to an empty page, as the real one may.
    trails: bool,
}

impl Vendor {
    fn answer(&mut self, asked: &Asked, now: Time, is_circle: bool) -> (Response, String) {
        let numbers = match &asked.token {
            Some(token) => match self.tokens.get(token) {
                Some(rest) => rest.clone(),
                None => return (answer(400), String::new()),
            },
            None => self.select(asked, now),
        };
        let (page, rest) = numbers.split_at(numbers.len().min(self.page_size));
        let mut body = format!("{{\"logs\":[{}]", self.records(page));
        if is_circle {
            let token = asked.token.clone().unwrap_or_else(|| format!("c{}", self.tokens.len()));
            body.push_str(&format!(",\"nextToken\":\"{token}\""));
            self.tokens.insert(token, numbers);
        } else if !rest.is_empty() || (self.trails && !page.is_empty()) {
            let token = format!("t{}+/=", self.tokens.len());
            body.push_str(&format!(",\"nextToken\":\"{token}\""));
            self.tokens.insert(token, rest.to_vec());
        }
        body.push('}');
        (answer(200), body)
    }

    /// What a window shows at `now`, in an order that means nothing.
    fn select(&mut self, asked: &Asked, now: Time) -> Vec<u64> {
        let now_secs = now.timestamp() - START;
        let is_shown = |mail: &&Mail| {
            mail.stream == asked.stream
                && (asked.start..=asked.end).contains(&mail.generated)
                && mail.generated + mail.late <= now_secs
        };
        let mut numbers: Vec<u64> = self.mails.iter().filter(is_shown).map(|m| m.number).collect();
        self.rng.shuffle(&mut numbers);
        numbers
    }

    fn records(&self, numbers: &[u64]) -> String {
        let record = |number: &u64| {
            let mail = &self.mails[*number as usize];
            let time = at(START + mail.generated).format("%Y-%m-%dT%H:%M:%SZ");
            format!("{{\"genTime\":\"{time}\",\"timestamp\":\"{time}\",\"number\":{number}}}")
        };
        numbers.iter().map(record).collect::<Vec<_>>().join(",")
    }
}

/// A store that outlives its committers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Saved>>>);

impl Store for Memory {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        let mut all = self.0.lock().unwrap();
        let Saved { cursor, ids } = all.entry(stream.to_owned()).or_default();
        Ok(Saved { cursor: *cursor, ids: ids.clone() })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let mut all = self.0.lock().unwrap();
        for change in changes {
            let saved = all.entry(change.stream.clone()).or_default();
            for (until, ids) in &change.delivered {
                saved.ids.extend(ids.iter().map(|id| (*until, *id)));
            }
            saved.cursor = change.cursor.or(saved.cursor);
            if let Some(before) = change.forget_before {
                saved.ids.retain(|(until, _)| *until >= before);
            }
        }
        Ok(())
    }
}

/// What goes wrong, request by request.
type Script = Box<dyn FnMut(&Asked, usize) -> Option<Fault>>;

/// The machine with everything around it.
struct Rig {
    vendor: Vendor,
    script: Script,
    connector: Arc<dyn Connector>,
    policy: Policy,
    store: Memory,
    streams: Vec<Arc<StreamState>>,
    poller: Poller,
    queue: Arc<Queue>,
    /// Batches that the host has not confirmed, with the second from which it will.
    handed: Vec<(f64, Batch)>,
    /// How long the host takes to confirm, in seconds.
    confirms_after: f64,
    /// How often each record was committed.
    delivered: BTreeMap<u64, u32>,
    asked: Vec<Asked>,
    log: Arc<Log>,
    lines: Vec<String>,
    /// Zero of the monotonic clock, and the seconds since.
    zero: Instant,
    elapsed: f64,
    /// The second up to which the test lets the machine sleep.
    until: f64,
    /// Our clock minus the vendor's, in seconds.
    ahead: i64,
    /// How long a request takes, in seconds.
    latency: f64,
    /// Until when everybody with this credential waits.
    held_until: f64,
    /// What spreads the waits.
    random: f64,
}

impl Rig {
    fn new(content_types: &[&str], policy: Policy) -> Self {
        let product = connector::product("email_security").unwrap();
        let connector = (product.connect)(&Settings {
            content_types: content_types.iter().map(|&name| name.to_owned()).collect(),
            ..Settings::default()
        });
        let zero = Instant::now();
        let log = Log::new(Level::Debug);
        let logger = Logger::new(Arc::clone(&log), "");
        let nobody = Poller::new(Arc::clone(&connector), RHYTHM, logger, Vec::new(), zero);
        let mut rig = Self {
            vendor: Vendor {
                mails: Vec::new(),
                page_size: 500,
                rng: Rng::with_seed(1),
                tokens: HashMap::new(),
                sends_date: true,
                trails: false,
            },
            script: Box::new(|_, _| None),
            connector,
            policy,
            store: Memory::default(),
            streams: Vec::new(),
            poller: nobody,
            queue: Arc::new(Queue::new(usize::MAX)),
            handed: Vec::new(),
            confirms_after: 0.0,
            delivered: BTreeMap::new(),
            asked: Vec::new(),
            log,
            lines: Vec::new(),
            zero,
            elapsed: 0.0,
            until: f64::INFINITY,
            ahead: 0,
            latency: 0.2,
            held_until: 0.0,
            random: 0.5,
        };
        rig.restart();
        rig
    }

    /// One stream with a lookback of so many hours.
    fn one(lookback_hours: u64) -> Self {
        Self::new(&TYPES[..1], policy(lookback_hours * HOUR, 300))
    }

    /// Ends the process and starts it again: what was not committed is forgotten.
    fn restart(&mut self) {
        self.handed.clear();
        self.queue = Arc::new(Queue::new(usize::MAX));
        let load = |stream: &connector::Stream| {
            let key = stream.content_type.to_owned();
            let saved = self.store.clone().load(&key).unwrap();
            Arc::new(StreamState::new(key, self.policy, Mode::Log, saved))
        };
        self.streams = self.connector.streams().iter().map(load).collect();
        self.poller = self.new_poller();
    }

    fn new_poller(&self) -> Poller {
        let logger = Logger::new(Arc::clone(&self.log), "");
        let parts = self.connector.streams().iter().zip(&self.streams).enumerate();
        let parts = parts.map(|(index, (stream, shared))| TaskParts {
            index,
            shared: Arc::clone(shared),
            envelope: Envelope::new(Format::Raw, stream, "mail", None),
            tag: None,
            logger: logger.child(stream.content_type),
        });
        let connector = Arc::clone(&self.connector);
        Poller::new(connector, RHYTHM, logger.clone(), parts.collect(), self.now().instant)
    }

    fn vendor_now(&self) -> Time {
        at(START) + TimeDelta::milliseconds((self.elapsed * 1e3) as i64)
    }

    fn now(&self) -> Now {
        let time = self.vendor_now() + TimeDelta::seconds(self.ahead);
        Now { time, instant: self.zero + Duration::from_secs_f64(self.elapsed) }
    }

    /// Adds a record and returns its number.
    fn mail(&mut self, stream: usize, generated: i64, late: i64) -> u64 {
        let number = self.vendor.mails.len() as u64;
        self.vendor.mails.push(Mail { number, stream, generated, late });
        number
    }

    /// Adds one record each so many seconds.
    fn mails(&mut self, span: std::ops::Range<i64>, every: usize) {
        for stream in 0..self.streams.len() {
            for secs in span.clone().step_by(every) {
                self.mail(stream, secs, 0);
            }
        }
    }

    /// Does what the machine says, once.
    fn step(&mut self) {
        match self.poller.next(self.now()) {
            // Waking early is always allowed, and lets a test look at a moment of its choice.
            Step::Sleep(wait) => {
                let wakes = self.elapsed + wait.as_secs_f64().max(1e-6);
                self.elapsed = wakes.min(self.until.max(self.elapsed));
            }
            Step::Fetch { stream, request, priority } => self.fetch(stream, &request, priority),
            Step::Offer { stream, batch } => {
                assert!(self.queue.push(batch, &Stop::default()).is_ok());
                let taken = self.queue.take(usize::MAX, usize::MAX);
                let due = self.elapsed + self.confirms_after;
                self.handed.extend(taken.into_iter().map(|batch| (due, batch)));
                self.poller.offered(stream, self.now());
            }
        }
        let mut messages: Vec<Message> =
            self.poller.take_read().into_iter().map(Message::Read).collect();
        let elapsed = self.elapsed;
        let (due, rest) = std::mem::take(&mut self.handed)
            .into_iter()
            .partition::<Vec<_>, _>(|(due, _)| *due <= elapsed);
        self.handed = rest;
        let due: Vec<Batch> = due.into_iter().map(|(_, batch)| batch).collect();
        for batch in &due {
            numbers(batch).for_each(|number| *self.delivered.entry(number).or_default() += 1);
        }
        if !due.is_empty() {
            messages.push(Message::Confirmed(due));
        }
        self.commit(messages);
        self.lines.extend(self.log.take().into_iter().map(|line| line.text));
    }

    /// Lets the real committer work through `messages`.
    fn commit(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        messages.into_iter().for_each(|message| sender.send(message).unwrap());
        drop(sender);
        let committer = Committer {
            streams: self.streams.clone(),
            store: Box::new(self.store.clone()),
            queue: Arc::clone(&self.queue),
            stop: Stop::default(),
            logger: Logger::new(Arc::clone(&self.log), ""),
        };
        committer.run(&receiver);
    }

    fn fetch(&mut self, stream: usize, request: &Request, priority: Priority) {
        self.elapsed = self.elapsed.max(self.held_until);
        let content_type = self.connector.streams()[stream].content_type;
        let is_live = priority == Priority::Live;
        let asked = parse(request, stream, content_type, self.elapsed, is_live);
        let fault = (self.script)(&asked, self.asked.len());
        self.asked.push(asked.clone());
        let vendor_now = self.vendor_now();
        self.elapsed += self.latency;
        let mut result = match fault {
            None => Ok(self.vendor.answer(&asked, vendor_now, false)),
            Some(Fault::Circle) => Ok(self.vendor.answer(&asked, vendor_now, true)),
            Some(Fault::Status(status)) => Ok((answer(status), String::new())),
            Some(Fault::RetryAfter(secs)) => {
                let retry_after = Some(Duration::from_secs(secs));
                Ok((Response { retry_after, ..answer(429) }, String::new()))
            }
            Some(Fault::Timeout) => Err(Error::new(ErrorKind::Narrow, "no whole answer")),
            Some(Fault::Reset) => Err(Error::retry("the connection failed")),
            Some(Fault::Garbage) => {
                let (response, mut body) = self.vendor.answer(&asked, vendor_now, false);
                body.pop();
                Ok((response, body))
            }
        };
        if let Ok((response, _)) = &mut result {
            response.date = self.vendor.sends_date.then(|| at(vendor_now.timestamp()));
        }
        let result = result.and_then(|(response, body)| {
            let mut reader = self.poller.reader(stream);
            reader.feed(body.as_bytes())?;
            Ok((response, reader.finish()?))
        });
        let hold = self.poller.fetched(stream, result, self.now(), self.random);
        if let Some(hold) = hold {
            self.held_until = self.elapsed + hold.as_secs_f64();
        }
    }

    /// Goes on until so many seconds after the start; a machine that spins does not get there.
    fn run_until(&mut self, secs: f64) {
        let mut steps = 0;
        self.until = secs;
        while self.elapsed < secs {
            self.step();
            steps += 1;
            assert!(steps < 400_000, "spins at {} s: {:?}", self.elapsed, self.asked.last());
        }
    }

    /// Goes on until the machine has sent so many requests.
    fn run_requests(&mut self, count: usize) {
        let end = self.asked.len() + count;
        self.until = f64::INFINITY;
        for _ in 0..400_000 {
            if self.asked.len() >= end {
                return;
            }
            self.step();
        }
        panic!("{} of {end} requests", self.asked.len());
    }

    /// The committed cursor, in seconds after `START`.
    fn cursor(&self, stream: usize) -> Option<i64> {
        let position = self.streams[stream].position();
        position.progress.cursor().map(|cursor| cursor.timestamp() - START)
    }

    /// Everything the vendor generated in `span` is here, each record once.
    fn assert_complete(&self, span: std::ops::Range<i64>) {
        for mail in self.vendor.mails.iter().filter(|mail| span.contains(&mail.generated)) {
            let count = self.delivered.get(&mail.number).copied().unwrap_or(0);
            assert_eq!(count, 1, "{mail:?} was delivered {count} times\n{}", self.history(mail));
        }
        for stream in &self.streams {
            assert!(stream.position().is_balanced(), "{:?}", stream.position().counts);
        }
        let astray: Vec<_> = self.lines.iter().filter(|line| line.contains("astray")).collect();
        assert!(astray.is_empty(), "{astray:?}");
    }

    /// The requests whose windows should have shown a record.
    fn history(&self, mail: &Mail) -> String {
        let windows = self.asked.iter().filter(|asked| {
            asked.stream == mail.stream && (asked.start..=asked.end).contains(&mail.generated)
        });
        windows.map(|asked| format!("{asked:?}\n")).collect()
    }
}

fn policy(lookback: u64, overlap: u64) -> Policy {
    let (lookback, overlap) = (Duration::from_secs(lookback), Duration::from_secs(overlap));
    Policy { lookback, overlap, span_max: Duration::from_secs(HOUR) }
}

/// The numbers of a batch's records, read by an independent decoder.
fn numbers(batch: &Batch) -> impl Iterator<Item = u64> + use<> {
    let mut rest = batch.bytes.as_slice();
    let mut found = Vec::new();
    let mut events = 0;
    while !rest.is_empty() {
        let event = rmpv::decode::read_value(&mut rest).expect("a whole event");
        let [_, body] = event.as_array().unwrap().as_slice() else { panic!("time and body") };
        let members = body.as_map().unwrap();
        let number = members.iter().find(|(key, _)| key.as_str() == Some("number"));
        found.extend(number.map(|(_, number)| number.as_u64().unwrap()));
        events += 1;
    }
    assert_eq!(events, batch.records());
    found.into_iter()
}

fn parse(
    request: &Request,
    stream: usize,
    content_type: &str,
    elapsed: f64,
    is_live: bool,
) -> Asked {
    let url = url::Url::parse(&format!("http://x{}", request.target)).unwrap();
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    match content_type {
        "policy_events" => assert_eq!(url.path(), "/api/v1/log/policyeventlog"),
        other => {
            assert_eq!(url.path(), "/api/v1/log/mailtrackinglog");
            assert_eq!(query["type"], other);
        }
    }
    let secs = |key: &str| {
        Time::from_timestamp(0, 0)
            .map_or(0, |_| query[key].parse::<Time>().unwrap().timestamp() - START)
    };
    let (start, end) = (secs("start"), secs("end"));
    Asked { at: elapsed, stream, start, end, token: query.get("token").cloned(), is_live }
}

#[test]
fn a_round_covers_from_behind_the_cursor_to_now_and_stays_as_it_is() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.latency = 3.0;
    rig.mails(-3_600..200, 100);
    rig.run_until(59.0);
    let first: Vec<_> = rig.asked.iter().map(|asked| (asked.start, asked.end)).collect();
    assert_eq!(first, [(-3_600, -5); 4], "36 records are 4 pages of one frozen window");
    assert!(rig.asked[0].token.is_none() && rig.asked[1..].iter().all(|a| a.token.is_some()));
    assert_eq!(rig.cursor(0), Some(-5));
    rig.run_until(130.0);
    let second = &rig.asked[4];
    assert_eq!((second.start, second.end), (-305, 55), "300 s behind the cursor, 5 s behind now");
    assert!((second.at - 60.0).abs() < 0.1, "rounds begin at the interval: {second:?}");
    rig.run_until(300.0);
    rig.assert_complete(-3_600..200);
}

#[test]
fn a_days_backlog_is_cut_into_hours_oldest_first() {
    let mut rig = Rig::one(24);
    rig.mails(-86_400..0, 500);
    rig.run_until(50.0);
    assert_eq!(rig.asked.len(), 24);
    assert_eq!((rig.asked[0].start, rig.asked[23].end), (-86_400, -5));
    for pair in rig.asked.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "neighbours share their second");
    }
    assert!(rig.asked.iter().all(|asked| asked.end - asked.start <= 3_600));
    rig.run_until(100.0);
    rig.assert_complete(-86_400..0);
}

#[test]
fn a_failed_page_is_asked_for_again_after_the_backoff() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|_, count| (1..4).contains(&count).then_some(Fault::Status(503)));
    rig.run_requests(5);
    let page = &rig.asked[1];
    assert!(page.token.is_some());
    for (again, wait) in rig.asked[2..5].iter().zip([0.5, 1.0, 2.0]) {
        assert_eq!((&again.token, again.start, again.end), (&page.token, page.start, page.end));
        let before = rig.asked.iter().rev().find(|asked| asked.at < again.at).unwrap();
        assert!((again.at - before.at - rig.latency - wait).abs() < 0.01, "{again:?}");
    }
    rig.run_until(30.0);
    rig.assert_complete(-3_600..-5);
    assert!(rig.lines.iter().any(|line| line.contains("answered again after 3 failures")));
}

#[test]
fn retry_after_is_a_floor_and_holds_everybody() {
    let mut rig = Rig::one(1);
    rig.script = Box::new(|_, count| (count == 0).then_some(Fault::RetryAfter(40)));
    rig.run_requests(1);
    assert!((rig.held_until - rig.elapsed - 40.0).abs() < 0.01, "told to the limiter");
    rig.held_until = 0.0;
    rig.run_requests(1);
    let wait = rig.asked[1].at - rig.asked[0].at - rig.latency;
    assert!((40.0..41.0).contains(&wait), "{wait}");
}

/// A vendor that asks for a day, or for ever, is asked again after an hour, by everybody.
#[test]
fn retry_after_has_a_bound() {
    for secs in [86_400, u64::MAX] {
        let mut rig = Rig::one(1);
        rig.script = Box::new(move |_, count| (count == 0).then_some(Fault::RetryAfter(secs)));
        let Step::Fetch { stream, .. } = rig.poller.next(rig.now()) else { panic!("a fetch") };
        let retry_after = Some(Duration::from_secs(secs));
        let response = Response { retry_after, ..answer(429) };
        let body = rig.poller.reader(stream).finish().unwrap();
        let hold = rig.poller.fetched(stream, Ok((response, body)), rig.now(), 0.5).unwrap();
        assert!(hold <= Duration::from_secs(3_600), "everybody waits {hold:?}");
    }
}

#[test]
fn an_answer_that_is_too_slow_halves_the_window_and_skips_nothing() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 7);
    rig.script = Box::new(|asked, _| (asked.end - asked.start > 500).then_some(Fault::Timeout));
    rig.run_until(59.0);
    let read: Vec<_> = rig.asked.iter().filter(|asked| asked.end - asked.start <= 500).collect();
    assert_eq!((read[0].start, read.last().unwrap().end), (-3_600, -5));
    for pair in read.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    assert_eq!(rig.cursor(0), Some(-5));
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_page_that_is_too_slow_halves_the_window_too() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 20;
    rig.mails(-3_600..-5, 30);
    rig.confirms_after = 20.0;
    rig.script = Box::new(|asked, _| {
        (asked.token.is_some() && asked.end - asked.start > 1_000).then_some(Fault::Timeout)
    });
    rig.run_until(100.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_window_of_a_second_that_is_always_too_slow_is_not_asked_for_without_end() {
    let mut rig = Rig::one(1);
    rig.script = Box::new(|_, _| Some(Fault::Timeout));
    rig.run_until(3_600.0);
    assert!(rig.asked.len() < 200, "{} requests in an hour", rig.asked.len());
    assert_eq!(rig.cursor(0), None);
}

#[test]
fn a_refusal_keeps_the_cursor_and_waits_for_the_interval() {
    for status in [400, 401, 403, 404] {
        let mut rig = Rig::one(1);
        rig.mails(-3_600..1_000, 60);
        rig.run_until(30.0);
        let (cursor, count) = (rig.cursor(0), rig.asked.len());
        rig.script = Box::new(move |asked, _| (asked.at < 600.0).then_some(Fault::Status(status)));
        rig.run_until(600.0);
        assert_eq!(rig.cursor(0), cursor);
        let asked = rig.asked.len() - count;
        assert!((8..=10).contains(&asked), "{asked} requests in ten minutes");
        rig.run_until(1_200.0);
        rig.assert_complete(-3_600..1_000);
    }
}

/// A token that the vendor has forgotten is refused for ever; the window begins anew, at a bounded
/// rate.
#[test]
fn a_refused_token_restarts_the_window_at_a_bounded_rate() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|asked, _| {
        (asked.token.is_some() && asked.at < 3_600.0).then_some(Fault::Status(400))
    });
    rig.run_until(3_600.0);
    let asked = rig.asked.len();
    assert!(asked < 300, "{asked} requests in an hour");
    rig.run_until(3_900.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_circle_of_tokens_restarts_the_window_at_a_bounded_rate() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|asked, _| (asked.at < 3_600.0).then_some(Fault::Circle));
    rig.run_until(3_600.0);
    let asked = rig.asked.len();
    assert!((10..300).contains(&asked), "{asked} requests in an hour");
    assert!(rig.lines.iter().any(|line| line.contains("lead in a circle")));
    assert_eq!(rig.cursor(0), Some(-3_600), "a window that never ended moves nothing");
    rig.run_until(3_800.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_later_page_that_fails_five_times_begins_its_window_anew() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|_, count| (1..6).contains(&count).then_some(Fault::Status(500)));
    rig.run_requests(8);
    let tokens: Vec<bool> = rig.asked.iter().map(|asked| asked.token.is_some()).collect();
    assert_eq!(tokens, [false, true, true, true, true, true, false, true]);
    rig.run_until(100.0);
    rig.assert_complete(-3_600..-5);
}

/// A vendor whose pages do not end within a window is asked for half of it.
#[test]
fn a_window_of_too_many_pages_is_halved() {
    let mut rig = Rig::one(1);
    rig.latency = 0.01;
    rig.vendor.page_size = 1;
    // More pages in the hour than are followed, fewer in each half of it.
    for i in 0..10_400 {
        rig.mail(0, -3_600 + i * 3_590 / 10_400, 0);
    }
    // A page's rest is copied with each token, which would take long for so many.
    rig.run_requests(10_050);
    let span = |asked: &Asked| asked.end - asked.start;
    let whole = span(&rig.asked[0]);
    assert!(rig.asked.iter().any(|asked| span(asked) <= whole / 2 + 1), "asked in full again");
}

#[test]
fn a_stop_in_the_middle_of_a_request_is_no_failure() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    let Step::Fetch { stream, request, .. } = rig.poller.next(rig.now()) else { panic!("a fetch") };
    assert_eq!(rig.poller.fetched(stream, Err(Error::stopped()), rig.now(), 0.5), None);
    let Step::Fetch { request: again, .. } = rig.poller.next(rig.now()) else { panic!("a fetch") };
    assert_eq!(request, again);
    assert!(rig.log.take().is_empty());
}

/// A vendor whose clock is behind ours is asked for its own future, where nothing is yet to be
/// seen: the cursor waits for its clock.
#[test]
fn the_cursor_does_not_pass_the_vendors_clock() {
    for ahead in [20, 600, 8 * 3_600] {
        let mut rig = Rig::new(&TYPES[..1], policy(600, 0));
        rig.ahead = ahead;
        rig.mails(0..3_000, 7);
        rig.run_until(3_300.0);
        rig.assert_complete(0..3_000);
        assert!(rig.lines.iter().any(|line| line.contains("ahead of")) == (ahead > 30));
    }
}

/// The same with a backlog that takes long: several windows lie in the vendor's future, and none of
/// them may carry the cursor past what an earlier one has seen.
#[test]
fn windows_in_the_vendors_future_carry_the_cursor_nowhere() {
    let mut rig = Rig::new(&TYPES[..1], policy(12 * HOUR, 0));
    rig.ahead = 8 * 3_600;
    rig.latency = 40.0;
    rig.mails(-4 * 3_600..3_000, 11);
    rig.run_until(3_600.0);
    rig.assert_complete(-4 * 3_600..3_000);
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    for (jump, back) in [(3_600, false), (-3_600, false), (3_600, true), (-3_600, true)] {
        let mut rig = Rig::one(1);
        rig.mails(-3_600..16_000, 31);
        rig.run_until(1_800.0);
        rig.ahead = jump;
        rig.run_until(5_400.0);
        if back {
            rig.ahead = 0;
        }
        rig.run_until(21_000.0);
        rig.assert_complete(-3_600..16_000);
    }
}

#[test]
fn streams_take_turns() {
    let mut rig = Rig::new(&TYPES, policy(24 * HOUR, 300));
    rig.vendor.page_size = 10;
    for secs in (-86_400..-5).step_by(60) {
        rig.mail(0, secs, 0);
    }
    rig.mails(-600..-5, 60);
    rig.run_requests(30);
    let streams: Vec<_> = rig.asked.iter().map(|asked| asked.stream).collect();
    let expected: Vec<_> = (0..30).map(|i| i % 3).collect();
    assert_eq!(streams, expected, "one backlog starves nobody");
    rig.run_until(400.0);
    rig.assert_complete(-86_400..-5);
}

#[test]
fn what_is_old_is_backfill_and_what_is_new_is_live() {
    let mut rig = Rig::one(6);
    rig.run_until(300.0);
    for asked in &rig.asked {
        let age = asked.at as i64 - asked.end;
        assert_eq!(asked.is_live, age <= 600, "{asked:?}");
    }
    assert!(rig.asked.iter().any(|asked| asked.is_live));
    assert!(rig.asked.iter().any(|asked| !asked.is_live));
}

#[test]
fn the_cursor_moves_only_after_the_commit() {
    let mut rig = Rig::one(3);
    rig.confirms_after = 500.0;
    rig.mail(0, -9_000, 0);
    rig.mail(0, -100, 0);
    rig.run_until(490.0);
    assert_eq!(rig.cursor(0), None, "read to the end, but the first window is not confirmed");
    assert!(rig.asked.len() > 5, "the rounds go on meanwhile");
    rig.restart();
    rig.run_until(980.0);
    assert_eq!(rig.cursor(0), None);
    assert!(rig.delivered.is_empty());
    rig.run_until(1_100.0);
    assert!(rig.cursor(0).is_some_and(|cursor| cursor > 900), "{:?}", rig.cursor(0));
    rig.assert_complete(-9_000..0);
}

#[test]
fn an_empty_stream_moves_its_cursor_too() {
    let mut rig = Rig::one(2);
    rig.run_until(1_000.0);
    assert!(rig.cursor(0).is_some_and(|cursor| cursor > 900));
    assert_eq!(rig.asked.len(), 2 + 16, "one request a round");
}

/// After an outage longer than the vendor's memory, the frozen windows of the old round lie beyond
/// its horizon. A vendor that refuses those must not stop the stream for ever.
#[test]
fn an_outage_beyond_the_horizon_ends() {
    let mut rig = Rig::one(1);
    let recovered = 80 * 3_600;
    rig.mails(recovered..recovered + 600, 60);
    rig.script = Box::new(move |asked, _| {
        let too_old = asked.start < asked.at as i64 - 72 * 3_600;
        let is_down = (30.0..recovered as f64).contains(&asked.at);
        (is_down || too_old).then_some(Fault::Status(400))
    });
    rig.run_until(recovered as f64 + 3_600.0);
    rig.assert_complete(recovered..recovered + 600);
    assert!(rig.lines.iter().any(|line| line.contains("are lost")), "and says what is lost");
}

/// A poller that failed inside is started again over the same streams. What it had read but not yet
/// put into the queue was seen by nobody, and must be read again.
#[test]
fn batches_of_a_poller_that_died_are_read_again() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    rig.run_requests(1);
    assert!(!rig.vendor.mails.is_empty() && rig.delivered.is_empty(), "read, but not offered");
    rig.poller.abandon();
    rig.poller = rig.new_poller();
    rig.run_until(200.0);
    rig.assert_complete(-3_600..-5);
}

/// What such a poller did put into the queue is confirmed later, and the cursor waits for that: the
/// next poller takes these records for known, and a crash would lose them.
#[test]
fn batches_of_a_poller_that_died_hold_the_cursor() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.confirms_after = 100.0;
    rig.run_requests(2);
    assert_eq!(rig.handed.len(), 1, "the first page is with the host, the second on its way");
    rig.poller.abandon();
    rig.poller = rig.new_poller();
    rig.confirms_after = 0.0;
    rig.run_until(50.0);
    assert_eq!(rig.cursor(0), Some(-3_600), "the first page is not confirmed");
    rig.run_until(200.0);
    rig.assert_complete(-3_600..-5);
    assert!(rig.cursor(0).is_some());
}

/// How wrong our clock is in a random life, in seconds.
const SKEW_MAX: i64 = 120;

/// A random life: late records, faults, slow confirmations, restarts; healthy in the end.
fn live(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let overlap = [60, 300, 1_800][rng.usize(0..3)];
    let lookback = rng.u64(1..=6) * HOUR;
    let mut rig = Rig::new(&TYPES[..rng.usize(1..=3)], policy(lookback, overlap));
    rig.vendor.rng = rng.fork();
    rig.vendor.page_size = rng.usize(1..30);
    rig.vendor.trails = rng.bool();
    rig.vendor.sends_date = rng.bool();
    rig.latency = rng.f64() * 3.0;
    let (end, healthy) = (7_200, 5_400.0);
    for _ in 0..rng.usize(0..300) {
        let stream = rng.usize(0..rig.streams.len());
        let late = if rng.bool() { 0 } else { rng.i64(0..=overlap as i64) };
        rig.mail(stream, rng.i64(-(lookback as i64)..end), late);
    }
    let (faults, trouble) = (rng.fork(), rng.f64() * 0.6);
    rig.script = random_faults(faults, trouble, healthy);
    while rig.elapsed < healthy {
        rig.confirms_after = rng.f64() * rng.f64() * 900.0;
        rig.random = rng.f64();
        // Without the vendor's date nothing tells that our clock is wrong.
        rig.ahead = if rig.vendor.sends_date { rng.i64(-SKEW_MAX..=SKEW_MAX) } else { 0 };
        rig.run_until(rig.elapsed + rng.f64() * 600.0);
        // Before the first commit there is nothing that a start could go on from.
        let has_begun = (0..rig.streams.len()).all(|stream| rig.cursor(stream).is_some());
        if has_begun && rng.u8(..) < 40 {
            rig.restart();
        }
    }
    rig.confirms_after = rng.f64() * 30.0;
    rig.ahead = 0;
    rig.run_until(f64::from(end as i32) + overlap as f64 + 1_200.0);
    rig.confirms_after = 0.0;
    rig.run_until(rig.elapsed + 200.0);
    // Where the first rounds began depends on our clock and on who was held first.
    rig.assert_complete(-(lookback as i64) + 500..end);
    for stream in 0..rig.streams.len() {
        let cursor = rig.cursor(stream).unwrap();
        assert!(rig.elapsed as i64 - cursor < 200, "the cursor follows: {cursor}");
        assert_eq!(rig.streams[stream].position().ledger.pending(), 0);
    }
    let newest = |asked: &Asked| asked.at as i64 - SETTLE.as_secs() as i64 + SKEW_MAX + 1;
    assert!(rig.asked.iter().all(|asked| asked.end <= newest(asked)), "nobody asks for the future");
}

fn random_faults(mut rng: Rng, trouble: f64, healthy: f64) -> Script {
    Box::new(move |asked, _| {
        if asked.at >= healthy || rng.f64() >= trouble {
            return None;
        }
        Some(match rng.u8(0..12) {
            0..3 => Fault::Status(500),
            3 => Fault::Status(401),
            4 => Fault::Status(404),
            5 => Fault::RetryAfter(rng.u64(0..90)),
            6..8 => Fault::Timeout,
            8..10 => Fault::Reset,
            10 => Fault::Garbage,
            _ => Fault::Circle,
        })
    })
}

/// What fails is in the message; no file is left behind.
fn attempts(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(attempts(80))]

    #[test]
    fn whatever_happens_every_record_arrives_once(seed in any::<u64>()) {
        live(seed);
    }
}
