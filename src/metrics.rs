//! What is measured: the one table of metrics, which the code, the documents and the tests read.
//!
//! Every metric has the label `name`, the input, as the host's own metrics have. The labels behind it
//! follow from what is measured: the input, a connector's answers, or a stream. Answers are not
//! counted per stream, since a connector may have 48 of them and the host writes out every series
//! each time its counters are read.

use std::time::{Duration, Instant};

use crate::activity::{Activity, CODES, Standing};
use crate::clock::Time;
use crate::commit::Counts;
use crate::window::HORIZON;

/// What all names begin with; the host joins both parts and the name by `_`.
pub const PREFIX: [&str; 2] = ["fluentbit", "trendmicro"];

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the instance.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// What is measured, and how its value is read.
#[derive(Clone, Copy)]
enum Of {
    Input(fn(&Moment) -> f64),
    /// The answers to a connector's requests, by their code.
    Answers,
    Stream(fn(&Reading, &Moment) -> f64),
    /// A connector with a lease; where no state is shared, there is none.
    Lease(fn(&Standing) -> f64),
    /// A stream that is a log; an inventory has no such value.
    Log(fn(&Reading, &Moment) -> f64),
}

/// One metric.
pub struct Metric {
    /// Its name behind the [`PREFIX`].
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it says, for people.
    pub help: &'static str,
    of: Of,
}

impl Metric {
    const fn counter(name: &'static str, help: &'static str, of: Of) -> Self {
        Self { name, kind: Kind::Counter, help, of }
    }

    const fn gauge(name: &'static str, help: &'static str, of: Of) -> Self {
        Self { name, kind: Kind::Gauge, help, of }
    }

    /// The names of its labels; `name` is the first.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.of {
            Of::Input(_) => &["name"],
            Of::Answers => &["name", "connector", "code"],
            Of::Lease(_) => &["name", "connector"],
            Of::Stream(_) | Of::Log(_) => &["name", "connector", "stream"],
        }
    }

    /// Whether there is one only where hosts share a database.
    #[must_use]
    pub fn is_of_leases(&self) -> bool {
        matches!(self.of, Of::Lease(_))
    }

    /// Whether inventories have it too.
    #[must_use]
    pub fn is_for_inventories(&self) -> bool {
        !matches!(self.of, Of::Log(_))
    }
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        "requests_total",
        "Requests, by the status of the answer or its class; none if no whole answer came.",
        Of::Answers,
    ),
    Metric::counter(
        "records_fetched_total",
        "Records read from the vendor.",
        Of::Stream(|reading, _| reading.counts.fetched as f64),
    ),
    Metric::counter(
        "records_duplicate_total",
        "Records read that had been delivered before.",
        Of::Stream(|reading, _| reading.counts.duplicate as f64),
    ),
    Metric::counter(
        "records_confirmed_total",
        "Records that the host is known to have.",
        Of::Stream(|reading, _| reading.confirmed as f64),
    ),
    Metric::counter(
        "records_delivered_total",
        "Records that the host is known to have and that the position covers.",
        Of::Stream(|reading, _| reading.counts.delivered as f64),
    ),
    Metric::counter(
        "records_late_total",
        "Records that only verification found.",
        Of::Log(|reading, _| reading.counts.late as f64),
    ),
    Metric::gauge(
        "records_imbalance",
        "Records fetched and neither delivered nor duplicate nor pending; anything but 0 is a fault.",
        Of::Stream(|reading, _| reading.imbalance() as f64),
    ),
    Metric::gauge(
        "lag_seconds",
        "Time from the position, up to which everything is delivered, to now.",
        Of::Stream(|reading, moment| reading.lag(moment.time).as_secs_f64()),
    ),
    Metric::gauge(
        "horizon_left_seconds",
        "Time left until the vendor forgets what has not been read.",
        Of::Log(|reading, moment| HORIZON.saturating_sub(reading.lag(moment.time)).as_secs_f64()),
    ),
    Metric::gauge(
        "lateness_max_seconds",
        "The longest that a record took from its generation until the vendor showed it.",
        Of::Log(|reading, _| reading.lateness_max.as_secs_f64()),
    ),
    Metric::gauge(
        "last_success_timestamp_seconds",
        "When the vendor last gave a page that could be read; 0 if it has not yet.",
        Of::Stream(|reading, _| {
            reading.activity.answered_at.map_or(0.0, |time| time.timestamp() as f64)
        }),
    ),
    Metric::gauge(
        "interval_seconds",
        "Time between two rounds; a stream that shows nothing new may be asked less often.",
        Of::Stream(|reading, _| reading.activity.interval.as_secs_f64()),
    ),
    Metric::gauge(
        "failures",
        "Failures in a row; 0 while the vendor answers.",
        Of::Stream(|reading, _| {
            reading.activity.trouble.as_ref().map_or(0.0, |trouble| f64::from(trouble.failures))
        }),
    ),
    Metric::gauge(
        "refused",
        "1 while the vendor refuses, as with 400, 401, 403 and 404, and a person must look; else 0.",
        Of::Stream(|reading, _| {
            let trouble = reading.activity.trouble.as_ref();
            f64::from(trouble.is_some_and(|trouble| trouble.is_refused))
        }),
    ),
    Metric::gauge(
        "backoff_seconds",
        "Time until the vendor is asked again after a failure; 0 if there is none.",
        Of::Stream(|reading, moment| {
            let until = reading.activity.trouble.as_ref().map(|trouble| trouble.until);
            until.map_or(0.0, |at| at.saturating_duration_since(moment.instant).as_secs_f64())
        }),
    ),
    Metric::counter(
        "limiter_wait_seconds_total",
        "Time that requests waited for the budget.",
        Of::Stream(|reading, _| reading.activity.limiter_wait.as_secs_f64()),
    ),
    Metric::gauge(
        "queue_bytes",
        "Bytes fetched and not yet delivered, of all connectors.",
        Of::Input(|moment| moment.queue_bytes as f64),
    ),
    Metric::gauge(
        "lease_held",
        "1 while this host runs the connector, 0 while another may; only with a shared database.",
        Of::Lease(|standing| f64::from(standing.is_held)),
    ),
    Metric::gauge(
        "lease_epoch",
        "Under which epoch this host last ran the connector; only with a shared database.",
        Of::Lease(|standing| standing.epoch as f64),
    ),
    Metric::counter(
        "lease_takeovers_total",
        "How often this host took the connector over from a silent one; only with a shared database.",
        Of::Lease(|standing| standing.takeovers as f64),
    ),
    Metric::gauge(
        "database_up",
        "1 while the shared database answers, else 0; only with one.",
        Of::Lease(|standing| f64::from(!standing.is_away)),
    ),
];

/// One stream at one moment.
pub struct Reading<'a> {
    /// Its connector.
    pub connector: &'a str,
    /// Its name.
    pub stream: &'a str,
    /// Whether it is a log, with a position in time and a vendor that forgets.
    pub is_log: bool,
    /// How many records went which way.
    pub counts: Counts,
    /// Records fetched and neither delivered nor given up yet.
    pub pending: u64,
    /// Records that the host has confirmed.
    pub confirmed: u64,
    /// Up to where everything is delivered.
    pub cursor: Option<Time>,
    /// The longest that a record took to be shown.
    pub lateness_max: Duration,
    /// What its poller is doing.
    pub activity: Activity,
}

impl Reading<'_> {
    /// How far its position is behind; zero for one that has none yet.
    pub(crate) fn lag(&self, now: Time) -> Duration {
        self.cursor.and_then(|cursor| (now - cursor).to_std().ok()).unwrap_or_default()
    }

    fn imbalance(&self) -> u64 {
        let Counts { fetched, duplicate, delivered, left, .. } = self.counts;
        fetched.abs_diff(delivered + duplicate + left + self.pending)
    }
}

/// What all streams share at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of day.
    pub time: Time,
    /// Local time that never jumps.
    pub instant: Instant,
    /// Bytes in the queue.
    pub queue_bytes: usize,
    /// Whether the host has paused the input.
    pub is_paused: bool,
}

/// One value of one metric.
pub struct Sample<'a> {
    /// Which.
    pub metric: &'static Metric,
    /// The values of its labels behind `name`.
    pub labels: Vec<&'a str>,
    /// The value.
    pub value: f64,
}

/// A sample of every metric, always in the same order; `readings` has each connector's streams
/// together.
#[must_use]
pub fn samples<'a>(readings: &[Reading<'a>], moment: &Moment) -> Vec<Sample<'a>> {
    METRICS.iter().flat_map(|metric| samples_of(metric, readings, moment)).collect()
}

fn samples_of<'a>(
    metric: &'static Metric,
    readings: &[Reading<'a>],
    moment: &Moment,
) -> Vec<Sample<'a>> {
    let sample = |labels, value| Sample { metric, labels, value };
    let of_stream = |reading: &Reading<'a>, read: fn(&Reading, &Moment) -> f64| {
        sample(vec![reading.connector, reading.stream], read(reading, moment))
    };
    match metric.of {
        Of::Input(read) => vec![sample(Vec::new(), read(moment))],
        Of::Stream(read) => readings.iter().map(|reading| of_stream(reading, read)).collect(),
        Of::Log(read) => {
            let logs = readings.iter().filter(|reading| reading.is_log);
            logs.map(|reading| of_stream(reading, read)).collect()
        }
        Of::Lease(read) => {
            let connectors = readings.chunk_by(|one, two| one.connector == two.connector);
            let standings = connectors.filter_map(|own| {
                own[0].activity.standing.as_ref().map(|standing| (own[0].connector, standing))
            });
            standings.map(|(name, standing)| sample(vec![name], read(standing))).collect()
        }
        Of::Answers => {
            let connectors = readings.chunk_by(|one, two| one.connector == two.connector);
            let answers = |own: &[Reading<'a>], code: usize| {
                let requests: u64 = own.iter().map(|reading| reading.activity.requests[code]).sum();
                sample(vec![own[0].connector, CODES[code]], requests as f64)
            };
            let by_code = |own| (0..CODES.len()).map(move |code| answers(own, code));
            connectors.flat_map(by_code).collect()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::activity::Trouble;

    pub(crate) fn at(secs: i64) -> Time {
        Time::from_timestamp(1_700_000_000 + secs, 0).unwrap()
    }

    pub(crate) fn moment(secs: u64, zero: Instant) -> Moment {
        Moment {
            time: at(secs as i64),
            instant: zero + Duration::from_secs(secs),
            queue_bytes: 77,
            is_paused: false,
        }
    }

    pub(crate) fn reading<'a>(connector: &'a str, stream: &'a str, is_log: bool) -> Reading<'a> {
        Reading {
            connector,
            stream,
            is_log,
            counts: Counts { fetched: 10, duplicate: 3, delivered: 5, late: 1, left: 0 },
            pending: 2,
            confirmed: 6,
            cursor: Some(at(-60)),
            lateness_max: Duration::from_secs(400),
            activity: Activity::default(),
        }
    }

    fn value(samples: &[Sample], name: &str, labels: &[&str]) -> Option<f64> {
        let mut found =
            samples.iter().filter(|sample| sample.metric.name == name && sample.labels == labels);
        let value = found.next().map(|sample| sample.value);
        assert!(found.next().is_none(), "{name} {labels:?} twice");
        value
    }

    #[test]
    fn the_table_follows_the_convention_of_names() {
        let names: HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('"'), "{}", metric.name);
        }
    }

    #[test]
    fn leases_are_a_connectors_and_only_where_there_are_any() {
        let now = moment(0, Instant::now());
        let mut streams = [reading("m", "mail", true), reading("m", "events", true)];
        assert_eq!(value(&samples(&streams, &now), "lease_held", &["m"]), None);
        for stream in &mut streams {
            let holder = "h".to_owned();
            let standing =
                Standing { is_held: true, holder, epoch: 7, takeovers: 2, is_away: true };
            stream.activity.standing = Some(standing);
        }
        let samples = samples(&streams, &now);
        for (name, expected) in [
            ("lease_held", 1.0),
            ("lease_epoch", 7.0),
            ("lease_takeovers_total", 2.0),
            ("database_up", 0.0),
        ] {
            assert_eq!(value(&samples, name, &["m"]), Some(expected), "{name}");
        }
    }

    #[test]
    fn every_value_is_what_the_reading_says() {
        let zero = Instant::now();
        let now = moment(0, zero);
        let mut mail = reading("m", "mail", true);
        mail.activity.requested(Some(200));
        mail.activity.limiter_wait = Duration::from_millis(1500);
        mail.activity.answered_at = Some(at(-7));
        mail.activity.trouble = Some(Trouble {
            failures: 4,
            is_refused: false,
            reason: "HTTP 503".to_owned(),
            until: zero + Duration::from_secs(9),
        });
        let mut events = reading("m", "events", true);
        events.activity.requested(Some(200));
        events.activity.requested(None);
        let mut agents = reading("a", "agents", false);
        agents.counts.fetched = 9;
        agents.activity.trouble = Some(Trouble {
            failures: 1,
            is_refused: true,
            reason: "HTTP 403".to_owned(),
            until: zero,
        });
        let samples = samples(&[mail, events, agents], &now);
        let is = |name, labels: &[&str], expected| {
            assert_eq!(value(&samples, name, labels), Some(expected), "{name} {labels:?}");
        };
        is("requests_total", &["m", "200"], 2.0);
        is("requests_total", &["m", "none"], 1.0);
        is("requests_total", &["a", "200"], 0.0);
        is("records_fetched_total", &["m", "mail"], 10.0);
        is("records_confirmed_total", &["m", "mail"], 6.0);
        is("records_delivered_total", &["m", "mail"], 5.0);
        is("records_imbalance", &["m", "mail"], 0.0);
        is("records_imbalance", &["a", "agents"], 1.0);
        is("lag_seconds", &["m", "mail"], 60.0);
        is("horizon_left_seconds", &["m", "mail"], 72.0 * 3600.0 - 60.0);
        is("lateness_max_seconds", &["m", "events"], 400.0);
        is("last_success_timestamp_seconds", &["m", "mail"], 1_699_999_993.0);
        is("last_success_timestamp_seconds", &["m", "events"], 0.0);
        is("failures", &["m", "mail"], 4.0);
        is("refused", &["m", "mail"], 0.0);
        is("refused", &["a", "agents"], 1.0);
        is("backoff_seconds", &["m", "mail"], 9.0);
        is("backoff_seconds", &["m", "events"], 0.0);
        is("limiter_wait_seconds_total", &["m", "mail"], 1.5);
        is("queue_bytes", &[], 77.0);
        assert_eq!(value(&samples, "horizon_left_seconds", &["a", "agents"]), None);
        assert!(
            samples.iter().all(|sample| sample.labels.len() + 1 == sample.metric.labels().len())
        );
    }

    #[test]
    fn the_order_of_samples_depends_on_nothing_that_changes() {
        let zero = Instant::now();
        let names = |readings: &[Reading], secs| -> Vec<String> {
            let samples = samples(readings, &moment(secs, zero));
            samples.iter().map(|s| format!("{} {:?}", s.metric.name, s.labels)).collect()
        };
        let before = [reading("m", "mail", true), reading("a", "agents", false)];
        let mut after = [reading("m", "mail", true), reading("a", "agents", false)];
        after[0].cursor = None;
        after[1].activity.requested(Some(401));
        after[1].activity.answered(at(5));
        assert_eq!(names(&before, 0), names(&after, 500));
    }
}
