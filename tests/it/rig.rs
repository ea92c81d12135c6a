//! A vendor of each product, and the poller's machine between it and the real committer, on a clock
//! that the test turns.
//!
//! Nothing here waits, and no thread runs: the machine says what to do, the vendor of this file
//! answers, the real committer commits. So an hour takes a moment, and a failure can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use fastrand::Rng;
use in_trendmicro::batch::Batch;
use in_trendmicro::checkpoint::{Change, Saved, Store};
use in_trendmicro::clock::{Stop, Time};
use in_trendmicro::commit::{Committer, Message, StreamState};
use in_trendmicro::config::{Emit, Format};
use in_trendmicro::connector::{self, Connector, Settings};
use in_trendmicro::cursor::Lane;
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::Priority;
use in_trendmicro::http::{Request, Response};
use in_trendmicro::lease::Tenure;
use in_trendmicro::log::{Level, Log, Logger};
use in_trendmicro::page::Body;
use in_trendmicro::poller::{Now, Poller, Rhythm, Step, TaskParts};
use in_trendmicro::queue::Queue;
use in_trendmicro::record::{Id, Shape};
use in_trendmicro::sweep::{self, Entity};
use in_trendmicro::window::{PASSES, Policy, WINDOW_RECORDS_MAX, Window};

pub const START: i64 = 1_700_000_000;
pub const INTERVAL: Duration = Duration::from_secs(60);
/// The host of every vendor here.
pub const AUTHORITY: &str = "api.vendor.example";
pub const RHYTHM: Rhythm = Rhythm { interval: INTERVAL, is_budgeted: false };
pub const HOUR: u64 = 3_600;
pub const TYPES: [&str; 3] = ["accepted_traffic", "blocked_traffic", "policy_events"];

pub fn at(secs: i64) -> Time {
    Time::from_timestamp(secs, 0).unwrap()
}

/// One record of the vendor: a mail, an event or a machine.
#[derive(Clone, Copy, Debug)]
pub struct Mail {
    pub number: u64,
    pub stream: usize,
    /// When it was generated, in seconds after `START`.
    pub generated: i64,
    /// How many seconds later it can be seen.
    pub late: i64,
    /// From when on it is no longer there, in seconds after `START`.
    pub gone: i64,
    /// What the vendor calls it, where it gives names.
    pub name: u64,
}

/// One request as the vendor saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Seconds after `START`.
    pub at: f64,
    pub stream: usize,
    /// The window, in seconds after `START`; of an inventory, the moment.
    pub start: i64,
    pub end: i64,
    /// Which page, if not the first.
    pub token: Option<String>,
    pub is_live: bool,
    /// Whether a verification pass asks.
    pub is_pass: bool,
    pub target: String,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Status(u16),
    RetryAfter(u64),
    Timeout,
    Reset,
    /// The body breaks off after its first half, of which the records are handed over.
    Broken,
    Garbage,
    /// The answer's pointer leads back to the page it came with.
    Circle,
    /// The answer's pointer leads to another host.
    Astray,
    /// HTTP says that all is well, the body says otherwise.
    Code(i64),
}

pub fn answer(status: u16) -> Response {
    Response { status, ..Response::default() }
}

/// A vendor: records, pages and pointers, and nothing of HTTP but what the machine reads.
pub struct Vendor {
    pub product: &'static str,
    pub mails: Vec<Mail>,
    pub page_size: usize,
    pub rng: Rng,
    /// The pages behind each token.
    tokens: HashMap<String, Vec<u64>>,
    forgotten: usize,
    pub sends_date: bool,
    /// Ends a window with a token to an empty page, as the real one may.
    pub trails: bool,
    /// Shows a log in the order of its times; otherwise in one that means nothing.
    pub is_sorted: bool,
    /// What is added to its records' numbers, to tell them from another vendor's.
    pub base: u64,
}

impl Vendor {
    /// A vendor that has nothing yet.
    pub fn new(product: &'static str, seed: u64) -> Self {
        Self {
            product,
            mails: Vec::new(),
            page_size: 500,
            rng: Rng::with_seed(seed),
            tokens: HashMap::new(),
            forgotten: 0,
            sends_date: true,
            trails: false,
            is_sorted: false,
            base: 0,
        }
    }

    /// What it answers at `now` to a request that it understands.
    pub fn answer(&mut self, asked: &Asked, now: Time, fault: Option<Fault>) -> (Response, String) {
        match self.product {
            "apex_central" => self.answer_list(asked, now, fault),
            "workload_security" => self.answer_search(asked, now),
            _ => self.answer_pages(asked, now, fault),
        }
    }

    /// Forgets every pointer that it has handed out; none of them comes again.
    pub fn forget_tokens(&mut self) {
        self.forgotten += self.tokens.len();
        self.tokens.clear();
    }

    /// A page of a log, with a pointer to the next.
    fn answer_pages(
        &mut self,
        asked: &Asked,
        now: Time,
        fault: Option<Fault>,
    ) -> (Response, String) {
        let numbers = match &asked.token {
            Some(token) => match self.tokens.get(token) {
                Some(rest) => rest.clone(),
                None => return (answer(400), String::new()),
            },
            None => self.select(asked, now),
        };
        let (page, rest) = numbers.split_at(numbers.len().min(self.page_size));
        let records = self.records(page);
        let mut pointer = None;
        if fault == Some(Fault::Circle) {
            let token = asked.token.clone().unwrap_or_else(|| format!("c{}", self.issued()));
            self.tokens.insert(token.clone(), numbers);
            pointer = Some(token);
        } else if !rest.is_empty() || (self.trails && !page.is_empty()) {
            let token = format!("t{}+/=", self.issued());
            self.tokens.insert(token.clone(), rest.to_vec());
            pointer = Some(token);
        }
        let body = if self.product == "email_security" {
            let next = pointer.map_or(String::new(), |token| format!(",\"nextToken\":\"{token}\""));
            format!("{{\"logs\":[{records}]{next}}}")
        } else {
            let next = self.link(asked, pointer.as_deref(), fault == Some(Fault::Astray));
            format!("{{\"security_events\":[{records}]{next}}}")
        };
        (answer(200), body)
    }

    /// How many pointers it has handed out.
    fn issued(&self) -> usize {
        self.forgotten + self.tokens.len()
    }

    /// `next_link` in one of the forms in which the vendor writes it, and none of them at the end.
    fn link(&self, asked: &Asked, token: Option<&str>, is_astray: bool) -> String {
        let form = self.tokens.len() % 4;
        let Some(token) = token else {
            return ["", ",\"next_link\":\"\"", ",\"next_link\":null", ""][form].to_owned();
        };
        let query = asked.target.split_once('?').unwrap().1;
        let query = query.split("&page_id").next().unwrap();
        let token = token.replace('+', "%2B");
        let host = if is_astray { "evil.example" } else { AUTHORITY };
        let link = match form {
            0 => format!("https://{host}/v1/siem/security_events?{query}&page_id={token}"),
            1 => format!("{host}/v1/siem/security_events?{query}&page_id={token}"),
            2 => format!("https://{host}/siem/v1/security_events?{query}& page_id={token}"),
            _ => format!(
                "  https://{}:443/v1/siem/security_events?{query}&page_id={token} ",
                host.to_uppercase()
            ),
        };
        format!(",\"next_link\":\"{link}\"")
    }

    /// A whole inventory at once.
    fn answer_list(
        &mut self,
        asked: &Asked,
        now: Time,
        fault: Option<Fault>,
    ) -> (Response, String) {
        if let Some(Fault::Code(code)) = fault {
            let body = format!("{{\"result_code\":{code},\"result_description\":\"no\"}}");
            return (answer(200), body);
        }
        let numbers = self.select(asked, now);
        let records = self.records(&numbers);
        let body = format!(
            "{{\"result_code\":1,\"result_description\":\"ok\",\"result_content\":[{records}]}}"
        );
        (answer(200), body)
    }

    /// The part of an inventory behind an ID, in the order of IDs.
    fn answer_search(&mut self, asked: &Asked, now: Time) -> (Response, String) {
        let after: u64 = asked.token.as_ref().map_or(0, |id| id.parse().unwrap());
        let mut numbers = self.select(asked, now);
        numbers.retain(|number| number + 1 > after);
        numbers.sort_unstable();
        numbers.truncate(self.page_size);
        (answer(200), format!("{{\"computers\":[{}]}}", self.records(&numbers)))
    }

    /// What a window shows at `now`.
    fn select(&mut self, asked: &Asked, now: Time) -> Vec<u64> {
        let now_secs = now.timestamp() - START;
        let is_log = ["email_security", "cloud_app_security"].contains(&self.product);
        let is_shown = |mail: &&Mail| {
            mail.stream == asked.stream
                && (!is_log || (asked.start..=asked.end).contains(&mail.generated))
                && mail.generated + mail.late <= now_secs
                && mail.gone > now_secs
        };
        let mut numbers: Vec<u64> = self.mails.iter().filter(is_shown).map(|m| m.number).collect();
        if self.is_sorted {
            numbers.sort_by_key(|&number| self.mails[number as usize].generated);
        } else {
            self.rng.shuffle(&mut numbers);
        }
        numbers
    }

    fn records(&self, numbers: &[u64]) -> String {
        numbers.iter().map(|&number| self.record(number)).collect::<Vec<_>>().join(",")
    }

    /// A record as the vendor writes it.
    fn record(&self, number: u64) -> String {
        let Mail { generated, name, .. } = self.mails[number as usize];
        let (id, number) = (number + 1, number + self.base);
        let time = at(START + generated).format("%Y-%m-%dT%H:%M:%SZ");
        match self.product {
            "email_security" => {
                format!("{{\"genTime\":\"{time}\",\"timestamp\":\"{time}\",\"number\":{number}}}")
            }
            "cloud_app_security" => format!(
                "{{\"log_item_id\":\"item-{name}\",\"service\":\"OneDrive\",\
                 \"event\":\"security_risk_scan\",\
                 \"message\":{{\"detection_time\":\"{time}\"}},\"number\":{number}}}"
            ),
            "apex_central" => format!("{{\"entity_id\":\"E-{name}\",\"number\":{number}}}"),
            _ => format!("{{\"ID\":{id},\"number\":{number}}}"),
        }
    }
}

/// What a store keeps of a stream, as a model.
#[derive(Default)]
pub struct Kept {
    cursor: Option<Time>,
    verified: [Option<Time>; PASSES],
    ids: Vec<(Window, Id)>,
    entities: Vec<Entity>,
}

impl Kept {
    pub fn saved(&self) -> Saved {
        let Self { cursor, verified, entities, .. } = self;
        let (cursor, verified, entities) = (*cursor, *verified, entities.clone());
        Saved { cursor, verified, entities, is_unknown: false }
    }

    pub fn recall(&self, span: Window, count_max: usize) -> Option<Vec<(Time, Id)>> {
        let touching = self.ids.iter().filter(|(shown, _)| {
            shown.end.timestamp_millis() >= span.start.timestamp_millis()
                && shown.start.timestamp_millis() <= span.end.timestamp_millis()
        });
        let found: Vec<_> = touching.map(|(shown, id)| (shown.end, *id)).collect();
        (found.len() <= count_max).then_some(found)
    }

    pub fn save(&mut self, change: &Change) {
        for (span, ids) in &change.delivered {
            self.ids.extend(ids.iter().map(|id| (*span, *id)));
        }
        for (what, entity) in &change.entities {
            self.entities.retain(|known| known.key != entity.key);
            if *what != sweep::Change::Removed {
                self.entities.push(entity.clone());
            }
        }
        self.cursor = change.cursor.or(self.cursor);
        for (old, new) in self.verified.iter_mut().zip(change.verified) {
            *old = new.or(*old);
        }
        if let Some(before) = change.forget_before {
            self.ids.retain(|(span, _)| span.end >= before);
            self.verified.iter_mut().flatten().for_each(|at| *at = before.max(*at));
        }
    }
}

/// A store that outlives its committers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Kept>>>);

impl Store for Memory {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        Ok(self.0.lock().unwrap().entry(stream.to_owned()).or_default().saved())
    }

    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>> {
        Ok(self.0.lock().unwrap().entry(stream.to_owned()).or_default().recall(span, count_max))
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        unreachable!("memory is never damaged")
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
        let mut all = self.0.lock().unwrap();
        for change in changes {
            all.entry(change.stream.clone()).or_default().save(change);
        }
        Ok(Vec::new())
    }
}

/// What goes wrong, request by request.
pub type Script = Box<dyn FnMut(&Asked, usize) -> Option<Fault>>;

/// The machine with everything around it.
pub struct Rig {
    pub vendor: Vendor,
    pub script: Script,
    connector: Arc<dyn Connector>,
    rhythm: Rhythm,
    pub policy: Policy,
    store: Memory,
    pub streams: Vec<Arc<StreamState>>,
    pub poller: Poller,
    queue: Arc<Queue>,
    /// Batches that the host has not confirmed, with the second from which it will.
    pub handed: Vec<(f64, Batch)>,
    /// How long the host takes to confirm, in seconds.
    pub confirms_after: f64,
    /// How often each record was committed.
    pub delivered: BTreeMap<u64, u32>,
    pub asked: Vec<Asked>,
    pub log: Arc<Log>,
    pub lines: Vec<String>,
    /// Zero of the monotonic clock, and the seconds since.
    zero: Instant,
    pub elapsed: f64,
    /// The second up to which the test lets the machine sleep.
    until: f64,
    /// Our clock minus the vendor's, in seconds.
    pub ahead: i64,
    /// How long a request takes, in seconds.
    pub latency: f64,
    /// Until when everybody with this credential waits.
    pub held_until: f64,
    /// What spreads the waits.
    pub random: f64,
    /// What is read of a body is handed over before its end.
    pub hands_over: bool,
}

impl Rig {
    /// Email Security with some of its content types.
    pub fn new(content_types: &[&str], policy: Policy) -> Self {
        let content_types = words(content_types);
        Self::of("email_security", Settings { content_types, ..settings() }, policy, RHYTHM)
    }

    /// Any product.
    pub fn of(product: &str, settings: Settings, policy: Policy, rhythm: Rhythm) -> Self {
        let product = connector::product(product).unwrap();
        let connector = (product.connect)(&settings);
        let zero = Instant::now();
        let log = Log::new(Level::Debug);
        let logger = Logger::new(Arc::clone(&log), "");
        let nobody = Poller::new(Arc::clone(&connector), rhythm, logger, Vec::new(), zero);
        let mut rig = Self {
            vendor: Vendor::new(product.name, 1),
            script: Box::new(|_, _| None),
            connector,
            rhythm,
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
            hands_over: false,
        };
        rig.restart();
        rig
    }

    /// One stream of Email Security with a lookback of so many hours.
    pub fn one(lookback_hours: u64) -> Self {
        Self::new(&TYPES[..1], policy(lookback_hours * HOUR, 300))
    }

    /// Ends the process and starts it again: what was not committed is forgotten.
    pub fn restart(&mut self) {
        self.handed.clear();
        self.queue = Arc::new(Queue::new(usize::MAX));
        let load = |stream: &connector::Stream| {
            let key = stream.name.clone();
            let mut store = self.store.clone();
            let state = StreamState::load(key, self.policy, stream.mode, Emit::All, &mut store);
            Arc::new(state.unwrap())
        };
        self.streams = self.connector.streams().iter().map(load).collect();
        self.poller = self.new_poller();
    }

    pub fn new_poller(&self) -> Poller {
        let logger = Logger::new(Arc::clone(&self.log), "");
        let parts = self.connector.streams().iter().zip(&self.streams).enumerate();
        let parts = parts.map(|(index, (stream, shared))| TaskParts {
            index,
            shared: Arc::clone(shared),
            shape: stream.shape,
            generated: connector::product(self.vendor.product).unwrap().generated,
            envelope: Envelope::new(&Style::of(Format::Raw), stream, "vendor"),
            tag: None,
            logger: logger.child(&stream.name),
        });
        let connector = Arc::clone(&self.connector);
        Poller::new(connector, self.rhythm, logger.clone(), parts.collect(), self.now().instant)
    }

    pub fn vendor_now(&self) -> Time {
        at(START) + TimeDelta::milliseconds((self.elapsed * 1e3) as i64)
    }

    pub fn now(&self) -> Now {
        let time = self.vendor_now() + TimeDelta::seconds(self.ahead);
        Now { time, instant: self.zero + Duration::from_secs_f64(self.elapsed) }
    }

    /// Adds a record and returns its number.
    pub fn mail(&mut self, stream: usize, generated: i64, late: i64) -> u64 {
        let number = self.vendor.mails.len() as u64;
        let (gone, name) = (i64::MAX, number);
        self.vendor.mails.push(Mail { number, stream, generated, late, gone, name });
        number
    }

    /// Adds one record each so many seconds.
    pub fn mails(&mut self, span: std::ops::Range<i64>, every: usize) {
        for stream in 0..self.streams.len() {
            for secs in span.clone().step_by(every) {
                self.mail(stream, secs, 0);
            }
        }
    }

    /// Does what the machine says, once.
    pub fn step(&mut self) {
        match self.poller.next(self.now()) {
            // Waking early is always allowed, and lets a test look at a moment of its choice.
            Step::Sleep(wait) => {
                let wakes = self.elapsed + wait.as_secs_f64().max(1e-6);
                self.elapsed = wakes.min(self.until.max(self.elapsed));
            }
            Step::Recall { task, stream, lane, span } => self.recall(task, stream, lane, span),
            Step::Fetch { task, request, priority } => self.fetch(task, &request, priority),
            Step::Offer { task, batch } => {
                self.hand(batch);
                self.poller.offered(task, self.now());
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

    /// Gives the host a batch.
    fn hand(&mut self, batch: Batch) {
        assert!(self.queue.push(batch, &Stop::default()).is_ok());
        let taken = self.queue.take(usize::MAX, usize::MAX);
        let due = self.elapsed + self.confirms_after;
        self.handed.extend(taken.into_iter().map(|batch| (due, batch)));
    }

    /// Reads a body in two halves.
    fn read_body(&mut self, task: usize, body: &[u8], is_broken: bool) -> Result<Body> {
        let (one, two) = body.split_at(body.len() / 2);
        let mut reader = self.poller.reader(task);
        reader.feed(one)?;
        if self.hands_over && self.poller.takes_parts(task) {
            let batches = self.poller.partial(task, reader.take(), self.now());
            batches.into_iter().for_each(|batch| self.hand(batch));
        }
        if is_broken {
            return Err(Error::retry("the connection failed within the body"));
        }
        reader.feed(two)?;
        reader.finish()
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

    fn recall(&mut self, task: usize, stream: usize, lane: Lane, span: Window) {
        let (done, answer) = mpsc::channel();
        self.commit(vec![Message::Recall { stream, lane, span, done }]);
        self.poller.recalled(task, answer.recv().unwrap(), self.now(), self.random);
    }

    fn fetch(&mut self, task: usize, request: &Request, priority: Priority) {
        let stream = self.poller.stream(task);
        self.elapsed = self.elapsed.max(self.held_until);
        let is_live = priority == Priority::Live;
        let is_pass = priority == Priority::Verification;
        let shape = &self.connector.streams()[stream].shape;
        let (span, token) = parse(self.vendor.product, request, shape);
        let (start, end) = span.unwrap_or((self.elapsed as i64, self.elapsed as i64));
        let target = request.target.clone();
        let asked = Asked { at: self.elapsed, stream, start, end, token, is_live, is_pass, target };
        let fault = (self.script)(&asked, self.asked.len());
        self.asked.push(asked.clone());
        let vendor_now = self.vendor_now();
        self.elapsed += self.latency;
        let mut result = match fault {
            None | Some(Fault::Circle | Fault::Astray | Fault::Code(_) | Fault::Broken) => {
                Ok(self.vendor.answer(&asked, vendor_now, fault))
            }
            Some(Fault::Status(status)) => Ok((answer(status), String::new())),
            Some(Fault::RetryAfter(secs)) => {
                let retry_after = Some(Duration::from_secs(secs));
                Ok((Response { retry_after, ..answer(429) }, String::new()))
            }
            Some(Fault::Timeout) => Err(Error::new(ErrorKind::Narrow, "no whole answer")),
            Some(Fault::Reset) => Err(Error::retry("the connection failed")),
            Some(Fault::Garbage) => {
                let (response, mut body) = self.vendor.answer(&asked, vendor_now, None);
                body.pop();
                Ok((response, body))
            }
        };
        if let Ok((response, _)) = &mut result {
            response.date = self.vendor.sends_date.then(|| at(vendor_now.timestamp()));
        }
        let is_broken = matches!(fault, Some(Fault::Broken));
        let result = result.and_then(|(response, body)| {
            Ok((response, self.read_body(task, body.as_bytes(), is_broken)?))
        });
        let hold = self.poller.fetched(task, result, self.now(), self.random);
        if let Some(hold) = hold {
            self.held_until = self.elapsed + hold.as_secs_f64();
        }
    }

    /// Goes on until so many seconds after the start; a machine that spins does not get there.
    pub fn run_until(&mut self, secs: f64) {
        let mut steps = 0;
        self.until = secs;
        while self.elapsed < secs {
            self.step();
            steps += 1;
            assert!(steps < 400_000, "spins at {} s: {:?}", self.elapsed, self.asked.last());
        }
    }

    /// Goes on until the machine has sent so many requests.
    pub fn run_requests(&mut self, count: usize) {
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
    pub fn cursor(&self, stream: usize) -> Option<i64> {
        let position = self.streams[stream].position();
        position.progress.cursor().map(|cursor| cursor.timestamp() - START)
    }

    /// Everything the vendor generated in `span` is here, each record once.
    pub fn assert_complete(&self, span: std::ops::Range<i64>) {
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

    /// Every machine was delivered so many times.
    pub fn assert_listed(&self, times: u32) {
        for mail in &self.vendor.mails {
            let count = self.delivered.get(&mail.number).copied().unwrap_or(0);
            assert_eq!(count, times, "{mail:?} was delivered {count} times");
        }
        assert!(self.streams.iter().all(|stream| stream.position().is_balanced()));
    }

    /// When the rounds of a stream began, in seconds after `START`.
    pub fn rounds(&self, stream: usize) -> Vec<f64> {
        let is_first = |asked: &&Asked| asked.stream == stream && asked.token.is_none();
        self.asked.iter().filter(is_first).map(|asked| asked.at).collect()
    }

    /// The requests whose windows should have shown a record.
    fn history(&self, mail: &Mail) -> String {
        let windows = self.asked.iter().filter(|asked| {
            asked.stream == mail.stream && (asked.start..=asked.end).contains(&mail.generated)
        });
        windows.map(|asked| format!("{asked:?}\n")).collect()
    }
}

/// What every connector here is told.
pub fn settings() -> Settings {
    Settings { authority: AUTHORITY.to_owned(), ..Settings::default() }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub fn policy(lookback: u64, overlap: u64) -> Policy {
    let (lookback, overlap) = (Duration::from_secs(lookback), Duration::from_secs(overlap));
    let span_max = Duration::from_secs(HOUR);
    Policy { lookback, overlap, span_max, records_max: WINDOW_RECORDS_MAX, verify: false }
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

/// A window, in seconds after `START`, and which of its pages is asked for.
pub type Place = (Option<(i64, i64)>, Option<String>);

/// What a request asks for, as the vendor reads it.
pub fn parse(product: &str, request: &Request, shape: &Shape) -> Place {
    match product {
        "email_security" => parse_email_security(request, shape),
        "cloud_app_security" => parse_cloud_app_security(request, shape),
        "apex_central" => parse_apex_central(request, shape),
        _ => parse_workload_security(request),
    }
}

fn parse_query(request: &Request) -> (String, HashMap<String, String>) {
    assert_eq!(request.method(), "GET");
    let url = url::Url::parse(&format!("http://x{}", request.target)).unwrap();
    // A stray space is part of the name that follows it.
    let pair = |(key, value): (String, String)| (key.trim().to_owned(), value);
    (url.path().to_owned(), url.query_pairs().into_owned().map(pair).collect())
}

fn span(query: &HashMap<String, String>) -> Option<(i64, i64)> {
    let secs = |key: &str| query[key].parse::<Time>().unwrap().timestamp() - START;
    Some((secs("start"), secs("end")))
}

fn parse_email_security(request: &Request, shape: &Shape) -> Place {
    let (path, query) = parse_query(request);
    match shape.content_type {
        "policy_events" => assert_eq!(path, "/api/v1/log/policyeventlog"),
        other => {
            assert_eq!(path, "/api/v1/log/mailtrackinglog");
            assert_eq!(query["type"], other);
        }
    }
    (span(&query), query.get("token").cloned())
}

fn parse_cloud_app_security(request: &Request, shape: &Shape) -> Place {
    let (path, query) = parse_query(request);
    let is_first = !query.contains_key("page_id");
    let is_known =
        path == "/v1/siem/security_events" || (!is_first && path == "/siem/v1/security_events");
    assert!(is_known && !request.target.contains(' '), "{}", request.target);
    assert_eq!(
        (query["service"].as_str(), query["event"].as_str()),
        (shape.content_type, shape.variant)
    );
    assert_eq!(query["limit"], "500");
    (span(&query), query.get("page_id").cloned())
}

fn parse_apex_central(request: &Request, shape: &Shape) -> Place {
    let (path, query) = parse_query(request);
    let resource = match shape.content_type {
        "servers" => "ServerResource/ProductServers",
        _ => "AgentResource/ProductAgents",
    };
    assert_eq!(path, format!("/WebApp/API/{resource}"));
    assert!(query.is_empty());
    (None, None)
}

fn parse_workload_security(request: &Request) -> Place {
    assert_eq!(request.method(), "POST");
    assert!(request.target.starts_with("/api/computers/search?"), "{}", request.target);
    let body: serde_json::Value = serde_json::from_str(request.body.as_ref().unwrap()).unwrap();
    assert_eq!(body["sortByObjectID"], true);
    let criterion = &body["searchCriteria"][0];
    assert_eq!(criterion["idTest"], "greater-than");
    let after = criterion["idValue"].as_u64().unwrap();
    (None, (after > 0).then(|| after.to_string()))
}
