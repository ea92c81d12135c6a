//! A connector from its configuration to its running thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::watch::Watched;
use crate::checkpoint::Store;
use crate::clock::monotonic;
use crate::commit::StreamState;
use crate::config::{ConnectorConfig, Emit, Format};
use crate::connector::{Connector, Settings, Stream};
use crate::envelope::Envelope;
use crate::error::Result;
use crate::http::Client;
use crate::log::Logger;
use crate::poller::{self, Poller, Rhythm, Surroundings, TaskParts};
use crate::window::Policy;

/// A poller that panicked is started again after this.
const RESTART_INTERVAL: Duration = Duration::from_secs(10);

/// A connector that is ready to run.
pub(super) struct Start {
    pub(super) name: String,
    connector: Arc<dyn Connector>,
    client: Client,
    rhythm: Rhythm,
    pub(super) rate_limit: Option<u32>,
    pub(super) credential: [u8; 32],
    logger: Logger,
    /// Per stream: its index within the instance, where it stands, its tag.
    streams: Vec<(usize, Arc<StreamState>, Option<Arc<str>>)>,
    generated: &'static [&'static str],
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
    pub(super) fn prepare(
        config: ConnectorConfig,
        tag_format: Option<&str>,
        has_db: bool,
        store: &mut dyn Store,
        logger: &Logger,
        streams: &mut Vec<Watched>,
    ) -> Result<Self> {
        let connector = (config.product.connect)(&settings(&config));
        let policy = Policy {
            lookback: config.lookback,
            overlap: config.overlap,
            span_max: config.product.span_max,
            verify: config.verify && has_db,
        };
        let mut own = Vec::new();
        for stream in connector.streams() {
            let key = state_key(&config, stream);
            let state = StreamState::load(key, policy, stream.mode, config.emit, store)?;
            let state = Arc::new(state);
            let tag = tag_format.map(|format| tag(format, &config.name, stream));
            own.push((streams.len(), Arc::clone(&state), tag));
            let (connector, stream) = (config.name.clone(), stream.name.clone());
            streams.push(Watched { connector, stream, state, confirmed: 0 });
        }
        let credential = credential_digest(&config)?;
        let client = Client::new(&config, connector.scheme())?;
        Ok(Self {
            logger: logger.child(&config.name),
            rhythm: Rhythm {
                interval: config.interval,
                is_budgeted: config.product.is_budgeted && config.rate_limit.is_some(),
            },
            rate_limit: config.rate_limit,
            generated: config.product.generated,
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
    pub(super) fn run(mut self, around: &Surroundings) {
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
            generated: self.generated,
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
