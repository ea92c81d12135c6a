//! What the tests of the running plugin share: a place on disk, a host in it, and the books.

mod books;
mod config;
mod daemon;
mod disk;
pub mod fleet;
mod host;
pub mod postgres;
mod receiver;
pub mod torture;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trendmicro_sim::{EmailConfig, Sim};

pub use books::{Books, Form, LineCounter, describe_cases, for_each_delivered};
pub use config::{Config, Section};
pub use daemon::Daemon;
pub use disk::Disk;
pub use host::{Host, assert_no_secrets, fluent_bit, plugin, send_signal};
pub use receiver::Receiver;
pub use watch::Watch;

/// The API key of every simulator here. It must never be seen in any log.
pub const KEY: &str = "canary-6e1d-key-of-the-tests";

/// How long a test waits for what should happen within seconds; other programs share the machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The directory of one test: state file, storage, configuration, logs and output.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        fs::create_dir(dir.path().join("out")).expect("an output directory");
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where outputs write.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }
}

/// A small backlog over many pages, and no live records.
pub fn email() -> EmailConfig {
    EmailConfig {
        api_key: KEY.to_owned(),
        accepted_backlog: 200,
        blocked_backlog: 70,
        policy_backlog: 70,
        backlog_span: Duration::from_secs(1500),
        live_per_second: 0.0,
        page_limit_max: 40,
        ..EmailConfig::default()
    }
}

/// A simulator of `email`.
pub fn simulate(email: EmailConfig) -> Sim {
    Sim::builder().email(email).start().expect("the simulator starts")
}

/// A stanza that collects from `sim`, with its state in `place`.
pub fn input(sim: &Sim, place: &Place) -> Section {
    Section::default()
        .set("name", "trendmicro")
        .set("tag", "tm")
        .set("connector", "email_security")
        .set("base_url", sim.url())
        .set("username", &EmailConfig::default().username)
        .set("api_key", KEY)
        .set("interval", "1s")
        .set("lookback", "1h")
        .set("db", &place.text("state.db"))
}

/// A whole configuration: one stanza, and one file that takes everything.
pub fn config(sim: &Sim, place: &Place) -> Config {
    let service = Section::default().set("log_level", "info").set("grace", "60");
    let output = Section::default()
        .set("name", "file")
        .set("match", "*")
        .set("path", &place.out().display().to_string());
    Config {
        service: service.set("hot_reload", "on"),
        inputs: vec![input(sim, place)],
        outputs: vec![output.set("file", "all")],
    }
}

/// Polls until there is an answer; after [`PATIENCE`] the test fails with what `explain` says.
pub fn wait<T>(what: &str, explain: impl Fn() -> String, mut poll: impl FnMut() -> Option<T>) -> T {
    wait_long(what, PATIENCE, explain, &mut poll)
}

/// The same with another limit.
pub fn wait_long<T>(
    what: &str,
    patience: Duration,
    explain: impl Fn() -> String,
    mut poll: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        let waited = begun.elapsed();
        assert!(waited < patience, "waited {waited:?} for {what}\n{}", explain());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until `host` has delivered everything that `sim` shows, late records included.
pub fn wait_delivered(host: &Host, sim: &Sim, out: &Path) {
    wait_delivered_long(host, sim, out, PATIENCE);
}

/// The same with another limit.
pub fn wait_delivered_long(host: &Host, sim: &Sim, out: &Path, patience: Duration) {
    let mut lines = LineCounter::default();
    let explain = || {
        let books = Books::of(sim, out, Form::Envelope);
        format!("{:?}\n{}\n{}", sim.counts(), books.describe(), host.log_tail())
    };
    wait_long("everything to be delivered", patience, explain, || {
        assert!(host.is_running(), "the host has ended\n{}", host.log_tail());
        let counts = sim.counts();
        let seems_complete = counts.pending == 0 && lines.count(out) >= counts.visible;
        (seems_complete && Books::of(sim, out, Form::Envelope).missing.is_empty()).then_some(())
    });
}

/// Fails if one of the requests after the first `asked` reaches back further than so many minutes.
#[track_caller]
pub fn assert_asked_since(sim: &Sim, asked: usize, minutes: i64) {
    let oldest = chrono::Utc::now() - chrono::TimeDelta::minutes(minutes);
    let oldest = oldest.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let requests = sim.requests().split_off(asked);
    assert!(!requests.is_empty(), "nothing was asked for");
    for request in requests {
        let start = request.query.split('&').find_map(|pair| pair.strip_prefix("start="));
        let start = start.expect("a window").replace("%3A", ":");
        assert!(start >= oldest, "a window that begins at {start}, before {oldest}");
    }
}

/// Runs each of `cases` in a thread of its own: most of their time they wait.
pub fn at_once<T: Send>(cases: Vec<T>, run: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        let threads: Vec<_> = cases.into_iter().map(|case| scope.spawn(|| run(case))).collect();
        let failed = threads.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err);
        assert_eq!(failed.count(), 0, "cases failed; see above");
    });
}
