//! What an instance shows of itself: metrics for the host, a line per connector for people.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Host;
use crate::batch::Batch;
use crate::commit::StreamState;
use crate::connector::Mode;
use crate::log::Logger;
use crate::metrics::{self, Moment, Reading};
use crate::status::Status;

/// A host that ticks faster is not shown more; a little less than a second, since ticks jitter.
const LOOK_INTERVAL: Duration = Duration::from_millis(900);

/// A stream under the names that people know it by.
pub struct Watched {
    pub(super) connector: String,
    pub(super) stream: String,
    pub(super) state: Arc<StreamState>,
    /// Records that the host has confirmed.
    confirmed: u64,
}

impl Watched {
    /// A stream of which nothing is confirmed yet.
    #[must_use]
    pub fn new(connector: String, stream: String, state: Arc<StreamState>) -> Self {
        Self { connector, stream, state, confirmed: 0 }
    }

    fn reading(&self) -> Reading<'_> {
        let activity = self.state.activity().clone();
        let position = self.state.position();
        Reading {
            connector: &self.connector,
            stream: &self.stream,
            is_log: self.state.mode() == Mode::Log,
            counts: position.counts,
            pending: position.ledger.pending() as u64,
            confirmed: self.confirmed,
            cursor: position.progress.cursor(),
            lateness_max: position.lateness_max,
            activity,
        }
    }
}

/// The streams of an instance, and what was last told of them.
pub(super) struct Watch {
    /// By the index that batches carry; a connector's streams stand together.
    pub(super) streams: Vec<Watched>,
    /// One for each connector, in the order of their streams.
    connectors: Vec<(Status, Logger)>,
    looked_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(streams: Vec<Watched>, logger: &Logger, now: Instant) -> Self {
        let connectors = streams.chunk_by(|one, two| one.connector == two.connector);
        let status = |own: &[Watched]| (Status::new(now), logger.child(&own[0].connector));
        let connectors = connectors.map(status).collect();
        Self { streams, connectors, looked_at: None }
    }

    /// Counts what the host has confirmed.
    pub(super) fn confirmed(&mut self, batches: &[Batch]) {
        for batch in batches {
            self.streams[batch.stream].confirmed += batch.records() as u64;
        }
    }

    /// Whether the last look is old enough for another one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL)
    }

    /// Shows the host where everything stands, and says what is worth a line.
    pub(super) fn look(&mut self, host: &mut dyn Host, moment: &Moment) {
        self.looked_at = Some(moment.instant);
        let readings: Vec<Reading> = self.streams.iter().map(Watched::reading).collect();
        host.measure(&metrics::samples(&readings, moment), clock_nanos(moment));
        let connectors = readings.chunk_by(|one, two| one.connector == two.connector);
        for (own, (status, logger)) in connectors.zip(&mut self.connectors) {
            if let Some(line) = status.look(own, moment) {
                logger.info(line);
            }
        }
    }
}

fn clock_nanos(moment: &Moment) -> u64 {
    moment.time.timestamp_nanos_opt().and_then(|nanos| nanos.try_into().ok()).unwrap_or_default()
}
