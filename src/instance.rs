//! One `[INPUT]` of the host: its connectors' threads, its queue, and the hand-over.
//!
//! Everything here except [`Instance::start`] runs inside the host's callbacks, so nothing waits:
//! not for the network, not for the disk, and for locks only as long as memory is touched.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{BATCH_BYTES_MAX, Batch};
use crate::checkpoint::{Forgetful, Sqlite, Store};
use crate::clock::{Stop, monotonic};
use crate::commit::{Committer, Counts, Message, StreamState};
use crate::config::{Config, ConnectorConfig, Emit, Format, HandoverMode};
use crate::connector::{Connector, Settings, Stream};
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::handover::{Counters, Handover, Rule, Verdict};
use crate::http::Client;
use crate::http::limiter::Limiter;
use crate::log::{Line, Log, Logger};
use crate::poller::{self, Poller, Rhythm, Surroundings, TaskParts};
use crate::queue::Queue;
use crate::window::Policy;

/// What one callback hands over: the host copies it and counts its records on our time.
const TICK_BYTES_MAX: usize = 8_000_000;
/// How long a stop waits for each kind of thread; everybody else's stop waits with it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);
/// A poller that panicked is started again after this.
const RESTART_INTERVAL: Duration = Duration::from_secs(10);

/// The host as the instance sees it, inside a callback.
pub trait Host {
    /// The host's counters for this input, if they can be read.
    fn counters(&mut self) -> Option<Counters>;

    /// Appends whole events; false if the host refused them, which then never saw them.
    fn append(&mut self, tag: Option<&str>, bytes: &[u8]) -> bool;

    /// Prints a line.
    fn print(&mut self, line: &Line);

    /// Whether the host has paused this input; it may do so from inside `append`.
    fn is_paused(&self) -> bool;
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
    pollers: Vec<JoinHandle<()>>,
    committer_thread: Option<JoinHandle<()>>,
    /// The streams with the name under which their counts are logged.
    streams: Vec<(String, Arc<StreamState>)>,
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
        let mut store: Box<dyn Store> = match &config.db {
            Some(db) => Box::new(Sqlite::open(&db.path, db.sync)?),
            None => Box::new(Forgetful),
        };
        let rule = if abilities.can_count { Rule::Counter } else { Rule::Elapsed };
        announce(&config, is_append, rule, &logger);
        let queue = Arc::new(Queue::new(config.queue_bytes_max));
        let stop = Stop::default();
        let (sender, receiver) = mpsc::channel();
        let mut streams = Vec::new();
        let mut starts = Vec::new();
        for connector in config.connectors {
            let tag_format = config.tag_format.as_deref().filter(|_| is_append);
            let start = Start::prepare(connector, tag_format, &mut *store, &logger, &mut streams)?;
            starts.push(start);
        }
        let committer = Committer {
            streams: streams.iter().map(|(_, stream)| Arc::clone(stream)).collect(),
            store,
            queue: Arc::clone(&queue),
            stop: stop.clone(),
            logger: logger.clone(),
        };
        let mut instance = Self {
            log,
            logger,
            queue,
            handover: Handover::new(rule),
            is_append,
            keeps_at_stop: abilities.keeps_at_stop,
            is_paused: false,
            is_refused: false,
            again: VecDeque::new(),
            committer: Some(sender.clone()),
            stop,
            pollers: Vec::new(),
            committer_thread: None,
            streams,
        };
        let thread = spawn("tm-commit", move || committer.run(&receiver))?;
        instance.committer_thread = Some(thread);
        for start in starts {
            let around = Surroundings {
                limiter: Limiter::of(&start.credential, start.rate_limit),
                queue: Arc::clone(&instance.queue),
                committer: sender.clone(),
                stop: instance.stop.clone(),
            };
            let name = format!("tm-{}", start.name);
            instance.pollers.push(spawn(&name, move || start.run(&around))?);
        }
        Ok(instance)
    }

    /// One tick of the host: takes log lines, judges what is in flight, hands over what it may.
    ///
    /// Returns a buffer for a host that is handed records by returning them.
    pub fn tick(&mut self, host: &mut dyn Host) -> Option<Vec<u8>> {
        self.heed_pause(host);
        let seen = self.judge(host);
        let handed = if self.is_paused { None } else { self.hand_over(host, seen) };
        self.flush_log(host);
        handed
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
        let mut late =
            pollers.into_iter().filter_map(|thread| join_until(thread, deadline)).count();
        let deadline = monotonic() + JOIN_TIMEOUT;
        late += self.committer_thread.take().and_then(|t| join_until(t, deadline)).iter().count();
        if late > 0 {
            self.logger.warn(format!("{late} threads did not end in time and are left behind"));
        }
        self.log_counts();
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
        match self.handover.judge(seen, self.is_paused, monotonic()) {
            Verdict::Idle | Verdict::Waiting => {}
            Verdict::Confirmed(batches) => {
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
        let now = monotonic();
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
        if self.again.is_empty() || batches_max == 0 {
            return self.queue.take(bytes_max, batches_max);
        }
        self.again.pop_front().into_iter().collect()
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
        for (name, stream) in &self.streams {
            let position = stream.position();
            let Counts { fetched, duplicate, delivered } = position.counts;
            self.logger.child(name).info(format!(
                "fetched {fetched}, duplicate {duplicate}, delivered {delivered}, pending {}",
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

/// A connector that is ready to run.
struct Start {
    name: String,
    connector: Arc<dyn Connector>,
    client: Client,
    rhythm: Rhythm,
    rate_limit: Option<u32>,
    credential: [u8; 32],
    logger: Logger,
    /// Per stream: its index within the instance, where it stands, its tag.
    streams: Vec<(usize, Arc<StreamState>, Option<Arc<str>>)>,
    envelope: EnvelopeParts,
}

/// What makes an envelope, which a restarted poller needs anew.
struct EnvelopeParts {
    format: Format,
    tenant_name: Option<String>,
    emit: Emit,
}

impl Start {
    /// Loads where the connector's streams stand, and adds them to `streams`.
    fn prepare(
        config: ConnectorConfig,
        tag_format: Option<&str>,
        store: &mut dyn Store,
        logger: &Logger,
        streams: &mut Vec<(String, Arc<StreamState>)>,
    ) -> Result<Self> {
        let connector = (config.product.connect)(&settings(&config));
        let policy = Policy {
            lookback: config.lookback,
            overlap: config.overlap,
            span_max: config.product.span_max,
        };
        let mut own = Vec::new();
        for stream in connector.streams() {
            let key = state_key(&config, stream);
            let saved = store.load(&key)?;
            let state = Arc::new(StreamState::new(key, policy, stream.mode, config.emit, saved));
            let tag = tag_format.map(|format| tag(format, &config.name, stream));
            own.push((streams.len(), Arc::clone(&state), tag));
            streams.push((format!("{}.{}", config.name, stream.name), state));
        }
        let credential = credential_digest(&config)?;
        let client = Client::new(&config, connector.scheme())?;
        Ok(Self {
            logger: logger.child(&config.name).redacting(client.redactor()),
            rhythm: Rhythm {
                interval: config.interval,
                is_budgeted: config.product.is_budgeted && config.rate_limit.is_some(),
            },
            rate_limit: config.rate_limit,
            envelope: EnvelopeParts {
                format: config.format,
                tenant_name: config.tenant_name,
                emit: config.emit,
            },
            name: config.name,
            connector,
            client,
            credential,
            streams: own,
        })
    }

    /// Runs the connector's poller; one that panics is started again.
    fn run(mut self, around: &Surroundings) {
        loop {
            let mut poller = self.poller();
            let client = &mut self.client;
            let run = AssertUnwindSafe(|| poller::run(&mut poller, client, around));
            if catch_unwind(run).is_ok() {
                return;
            }
            self.logger.error("this connector failed inside and starts again; please report it");
            poller.abandon();
            if around.stop.wait(RESTART_INTERVAL) {
                return;
            }
        }
    }

    fn poller(&self) -> Poller {
        let part = |(stream, (index, shared, tag)): (&Stream, &(usize, _, Option<_>))| TaskParts {
            index: *index,
            shared: Arc::clone(shared),
            shape: stream.shape,
            envelope: Envelope::new(
                self.envelope.format,
                stream,
                &self.name,
                self.envelope.tenant_name.as_deref(),
                self.envelope.emit == Emit::Changes,
            ),
            tag: tag.clone(),
            logger: self.logger.child(&stream.name),
        };
        let parts = self.connector.streams().iter().zip(&self.streams).map(part).collect();
        let connector = Arc::clone(&self.connector);
        Poller::new(connector, self.rhythm, self.logger.clone(), parts, monotonic())
    }
}

fn settings(config: &ConnectorConfig) -> Settings {
    Settings {
        base_path: config.base_url.path().to_owned(),
        authority: config.base_url.authority().to_owned(),
        username: config.username.clone(),
        application_id: config.application_id.clone(),
        content_types: config.content_types.clone(),
        services: config.services.clone(),
        event_types: config.event_types.clone(),
        expand: config.expand.clone(),
    }
}

/// The key under which a stream is saved: another account or host is another stream.
fn state_key(config: &ConnectorConfig, stream: &Stream) -> String {
    let ConnectorConfig { name, product, base_url, username, application_id, .. } = config;
    let (authority, account) = (base_url.authority(), format!("{username}{application_id}"));
    format!("{name}/{}/{authority}/{account}/{}", product.name, stream.name)
}

fn tag(format: &str, connector: &str, stream: &Stream) -> Arc<str> {
    format.replace("{connector}", connector).replace("{content_type}", stream.content_type).into()
}

/// Names a credential without holding it.
fn credential_digest(config: &ConnectorConfig) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    for part in [config.base_url.authority(), &config.username, config.api_key.get()?.expose()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::config("a thread cannot be started").caused_by(error))
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::connector::Mode;
    use crate::http::{Request, auth::Scheme};
    use crate::log::Level;
    use crate::record::{Record, Shape};
    use crate::window::Window;

    /// A connector that fails inside whenever it is asked for a request.
    struct Failing {
        streams: Vec<Stream>,
        asked: AtomicUsize,
    }

    impl Connector for Failing {
        fn streams(&self) -> &[Stream] {
            &self.streams
        }

        fn scheme(&self) -> Scheme {
            Scheme::Bearer
        }

        fn request(&self, _: usize, _: &Window, _: Option<&str>) -> Request {
            self.asked.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        }

        fn list(&self) -> &'static str {
            "list"
        }

        fn read_frame(&self, _: &str, _: &[Record]) -> Result<Option<String>> {
            Ok(None)
        }
    }

    fn config() -> ConnectorConfig {
        let properties = HashMap::from([
            ("connector", "email_security"),
            ("username", "u"),
            ("api_key", "k"),
            ("base_url", "http://127.0.0.1:1"),
        ]);
        let lookup = |key: &str| properties.get(key).map(|&value| value.to_owned());
        Config::read(&lookup).unwrap().connectors.remove(0)
    }

    #[test]
    fn a_connector_that_fails_inside_is_reported_and_started_again() {
        let shape = Shape {
            source: "s",
            content_type: "c",
            variant: "",
            time: &[],
            name: &[],
            folds_name: false,
        };
        let stream = Stream {
            name: "s".into(),
            content_type: "c",
            msg_class: "m".into(),
            category: "c",
            members: Vec::new(),
            mode: Mode::Log,
            shape,
        };
        let failing = Arc::new(Failing { streams: vec![stream], asked: AtomicUsize::default() });
        let log = Log::new(Level::Info);
        let logger = Logger::new(log.clone(), "");
        let mut config = config();
        // What the product would connect is replaced by what fails.
        let mut streams = Vec::new();
        config.content_types = vec!["accepted_traffic".to_owned()];
        let prepared = Start::prepare(config, None, &mut Forgetful, &logger, &mut streams);
        let start = Start { connector: failing.clone(), ..prepared.unwrap() };
        let (committer, _kept) = mpsc::channel();
        let stop = Stop::default();
        let around = Surroundings {
            limiter: Limiter::of(&start.credential, None),
            queue: Arc::new(Queue::new(1)),
            committer,
            stop: stop.clone(),
        };
        let thread = spawn("tm-failing", move || start.run(&around)).unwrap();
        let deadline = monotonic() + 10 * RESTART_INTERVAL;
        while failing.asked.load(Ordering::Relaxed) < 2 {
            assert!(monotonic() < deadline, "it was not started again");
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.raise();
        let left = join_until(thread, monotonic() + JOIN_TIMEOUT);
        assert!(left.is_none(), "a stop ends the wait before the next start");
        let lines = log.take();
        let is_report = |line: &&Line| {
            line.level == Level::Error && line.text.contains("failed inside and starts again")
        };
        assert!(lines.iter().filter(is_report).count() >= 1);
    }
}
