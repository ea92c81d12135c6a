//! A connector from its configuration to its running thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::keep::Desk;
use super::watch::Watched;
use crate::checkpoint::Store;
use crate::clock::monotonic;
use crate::commit::StreamState;
use crate::config::ConnectorConfig;
use crate::connector::{Connector, Settings, Stream};
use crate::envelope::{Envelope, Style};
use crate::error::Result;
use crate::http::Client;
use crate::lease::Seat;
use crate::log::Logger;
use crate::poller::{self, Poller, Rhythm, Surroundings, TaskParts};
use crate::window::{Policy, WINDOW_RECORDS_MAX};

/// A poller that panicked is started again after this.
const RESTART_INTERVAL: Duration = Duration::from_secs(10);

/// Where an instance keeps its state.
pub(super) enum Keeping<'a> {
    /// In memory.
    Nowhere(&'a mut dyn Store),
    /// In a file.
    Alone(&'a mut dyn Store),
    /// In a database, together with other hosts.
    Shared,
}

/// A connector that is ready to run.
pub(super) struct Start {
    pub(super) name: String,
    connector: Arc<dyn Connector>,
    client: Client,
    rhythm: Rhythm,
    pub(super) rate_limit: Option<u32>,
    pub(super) credential: [u8; 32],
    logger: Logger,
    /// Where it waits for its lease.
    pub(super) seat: Arc<Seat>,
    /// Per stream: its index within the instance, where it stands, its tag.
    streams: Vec<(usize, Arc<StreamState>, Option<Arc<str>>)>,
    generated: &'static [&'static str],
    /// What makes an envelope, which a restarted poller needs anew.
    style: Style,
}

impl Start {
    /// Adds the connector's streams to `streams`: where they stand if the store is this host's alone,
    /// else unknown.
    pub(super) fn prepare(
        config: ConnectorConfig,
        tag_format: Option<&str>,
        keeping: &mut Keeping<'_>,
        logger: &Logger,
        streams: &mut Vec<Watched>,
    ) -> Result<Self> {
        let connector = connect(&config);
        let policy = Policy {
            lookback: config.lookback,
            overlap: config.overlap,
            span_max: config.product.span_max,
            records_max: WINDOW_RECORDS_MAX,
            verify: config.verify && !matches!(keeping, Keeping::Nowhere(_)),
        };
        let mut own = Vec::new();
        for stream in connector.streams() {
            let key = state_key(&config, stream);
            let (mode, emit) = (stream.mode, config.emit);
            let state = Arc::new(match keeping {
                Keeping::Shared => StreamState::new(key, policy, mode, emit),
                Keeping::Nowhere(store) | Keeping::Alone(store) => {
                    StreamState::load(key, policy, mode, emit, &mut **store)?
                }
            });
            let tag = tag_format.map(|format| tag(format, &config.name, stream));
            own.push((streams.len(), Arc::clone(&state), tag));
            let (connector, stream) = (config.name.clone(), stream.name.clone());
            streams.push(Watched::new(connector, stream, state));
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
            generated: config.product.generated,
            style: Style::of_connector(&config),
            name: config.name,
            connector,
            client,
            credential,
            seat: Arc::default(),
            streams: own,
        })
    }

    /// The connector as the keeper of the leases sees it.
    pub(super) fn desk(&self, lease: Arc<str>) -> Desk {
        let streams = self.streams.iter().map(|(_, state, _)| Arc::clone(state)).collect();
        Desk { name: self.name.clone(), lease, seat: Arc::clone(&self.seat), streams }
    }

    /// Runs the connector whenever it may.
    pub(super) fn run(mut self, mut around: Surroundings) {
        let stop = around.stop.clone();
        while let Some(over) = self.seat.sit(&stop) {
            around.stop = over;
            let mut poller = self.run_until_over(&around);
            // At the end of the instance, what is pending stays so.
            if !stop.is_raised() {
                poller.abandon();
            }
            self.seat.leave();
        }
    }

    /// Runs the connector's poller until it is to leave; one that panics is started again.
    fn run_until_over(&mut self, around: &Surroundings) -> Poller {
        loop {
            let mut poller = self.poller();
            let client = &mut self.client;
            let run = AssertUnwindSafe(|| poller::run(&mut poller, client, around));
            if catch_unwind(run).is_ok() {
                return poller;
            }
            self.logger.error("this connector failed inside and starts again; please report it");
            poller.abandon();
            if around.stop.wait(RESTART_INTERVAL) {
                return poller;
            }
        }
    }

    fn poller(&self) -> Poller {
        let part = |(stream, (index, shared, tag)): (&Stream, &(usize, _, Option<_>))| TaskParts {
            index: *index,
            shared: Arc::clone(shared),
            shape: stream.shape,
            generated: self.generated,
            envelope: Envelope::new(&self.style, stream, &self.name),
            tag: tag.clone(),
            logger: self.logger.child(&stream.name),
        };
        let parts = self.connector.streams().iter().zip(&self.streams).map(part).collect();
        let connector = Arc::clone(&self.connector);
        Poller::new(connector, self.rhythm, self.logger.clone(), parts, monotonic())
    }
}

/// The connector of a configuration.
#[must_use]
pub fn connect(config: &ConnectorConfig) -> Arc<dyn Connector> {
    (config.product.connect)(&Settings {
        base_path: config.base_url.path().to_owned(),
        authority: config.base_url.authority().to_owned(),
        username: config.username.clone(),
        application_id: config.application_id.clone(),
        content_types: config.content_types.clone(),
        services: config.services.clone(),
        event_types: config.event_types.clone(),
        expand: config.expand.clone(),
    })
}

/// The key under which a stream is saved: another account or host is another stream.
#[must_use]
pub fn state_key(config: &ConnectorConfig, stream: &Stream) -> String {
    format!("{}/{}", lease_key(config), stream.name)
}

/// The name of a connector's lease.
#[must_use]
pub fn lease_key(config: &ConnectorConfig) -> String {
    let ConnectorConfig { name, product, base_url, username, application_id, .. } = config;
    let (authority, account) = (base_url.authority(), format!("{username}{application_id}"));
    format!("{name}/{}/{authority}/{account}", product.name)
}

fn tag(format: &str, connector: &str, stream: &Stream) -> Arc<str> {
    format.replace("{connector}", connector).replace("{content_type}", stream.content_type).into()
}

/// Names a credential without holding it.
///
/// # Errors
/// When the key cannot be read.
pub fn credential_digest(config: &ConnectorConfig) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    for part in [config.base_url.authority(), &config.username, config.api_key.get()?.expose()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::super::{JOIN_TIMEOUT, join_until, spawn};
    use super::*;
    use crate::checkpoint::Forgetful;
    use crate::clock::Stop;
    use crate::config::Config;
    use crate::connector::Mode;
    use crate::http::limiter::Allowance;
    use crate::http::{Request, auth::Scheme};
    use crate::lease::Warrant;
    use crate::log::{Level, Line, Log};
    use crate::queue::Queue;
    use crate::record::{Records, Shape};
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

        fn read_frame(&self, _: &str, _: &Records) -> Result<Option<String>> {
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
        let mut store = Forgetful;
        let mut keeping = Keeping::Nowhere(&mut store);
        let prepared = Start::prepare(config, None, &mut keeping, &logger, &mut streams);
        let start = Start { connector: failing.clone(), ..prepared.unwrap() };
        let (committer, _kept) = mpsc::channel();
        let stop = Stop::default();
        let around = Surroundings {
            allowance: Allowance::new(start.credential, None, None),
            queue: Arc::new(Queue::new(1)),
            committer,
            warrant: Warrant::unlimited(),
            stop: stop.clone(),
        };
        start.seat.grant(stop.child());
        let thread = spawn("tm-failing", move || start.run(around)).unwrap();
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
