//! The embedded host as a daemon: it goes its own way, and what it says lies in files.

use std::fs;
use std::path::Path;

use serde_json::Value;
use trendmicro_sim::Sim;

use super::{Books, Config, Form, Host, Place, send_signal, wait};

/// A running daemon. Nothing ends it but [`Daemon::stop`].
pub struct Daemon {
    pid: u32,
    log: String,
    report: String,
}

impl Daemon {
    /// Starts a daemon and waits for its pid; the process that leaves it behind must end well.
    #[track_caller]
    pub fn start(place: &Place, config: &Config) -> Self {
        let (log, pid, report) = (place.text("d.log"), place.text("d.pid"), place.text("d.report"));
        let arguments =
            ["--daemon", "--log-file", &log, "--pid-file", &pid, "--report-file", &report];
        let parent = Host::start(place, config, &arguments).wait_end();
        assert_eq!(parent.code, Some(0), "{}", parent.log);
        let read_pid = || fs::read_to_string(&pid).ok()?.parse().ok();
        let pid = wait("the daemon's pid", || read(&log), read_pid);
        Self { pid, log, report }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until it has delivered everything that `sim` has.
    pub fn wait_delivered(&self, sim: &Sim, out: &Path) {
        let arrived = || Books::of(sim, out, Form::Envelope).missing.is_empty().then_some(());
        wait("a daemon's records", || self.log(), arrived);
    }

    /// Stops it with SIGTERM, and returns what it says at its end.
    pub fn stop(&self) -> Value {
        send_signal(self.pid, "TERM");
        let read_report = || serde_json::from_str(&fs::read_to_string(&self.report).ok()?).ok();
        wait("the daemon's report", || self.log(), read_report)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
