//! What all threads of one host share: its log, its violations, its trace of callbacks, its switches.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ffi::process;
use crate::options::Options;

/// Log levels as the plugin sees them.
pub(crate) mod level {
    pub const ERROR: i32 = 1;
    pub const WARN: i32 = 2;
    pub const INFO: i32 = 3;
    pub const DEBUG: i32 = 4;
}

/// A status shows the youngest lines only; a test reads them more often than that.
const LINES_KEPT: usize = 20_000;

/// One callback into the plugin, collect and cleanup excepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called, with its argument: `init`, `pre_exit(1)`.
    pub name: String,
    /// The instance it was meant for; empty for the plugin as a whole.
    pub instance: String,
    /// The thread it ran on.
    pub thread: String,
}

/// State shared by the threads of a host.
pub struct Shared {
    /// The caller's choices.
    pub options: Options,
    /// The host's log.
    pub log: Log,
    violations: Mutex<BTreeMap<String, Violation>>,
    calls: Mutex<Vec<Call>>,
    /// Outputs answer nothing while this is set.
    pub output_stalled: AtomicBool,
}

/// How often a rule was broken, and the first case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violation {
    /// How often.
    pub count: u64,
    /// The first case.
    pub first: String,
}

impl Shared {
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let log = Log::new(&options)?;
        Ok(Self {
            options,
            log,
            violations: Mutex::default(),
            calls: Mutex::default(),
            output_stalled: AtomicBool::new(false),
        })
    }

    pub(crate) fn violation(&self, name: &str, detail: &str) {
        let mut all = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(name.to_owned()).or_default();
        if entry.count == 0 {
            detail.clone_into(&mut entry.first);
        }
        entry.count += 1;
    }

    pub(crate) fn violations(&self) -> BTreeMap<String, Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn call(&self, name: impl Into<String>, instance: &str) {
        let call =
            Call { name: name.into(), instance: instance.into(), thread: process::thread_name() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_output_stalled(&self) -> bool {
        self.output_stalled.load(Ordering::SeqCst)
    }
}

/// Lines in the host's form, kept and echoed.
pub struct Log {
    lines: Mutex<VecDeque<String>>,
    sink: Mutex<Option<File>>,
    echo: bool,
}

impl Log {
    fn new(options: &Options) -> io::Result<Self> {
        let sink = options
            .log_file
            .as_ref()
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self { lines: Mutex::default(), sink: Mutex::new(sink), echo: options.log_echo })
    }

    pub(crate) fn line(&self, level: i32, text: &str) {
        let line = format!("[{}] {} {text}", timestamp(), level_tag(level));
        self.raw(&line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// A line that is written but not kept.
    pub(crate) fn raw(&self, line: &str) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the host.
        match sink.as_mut() {
            Some(file) => drop(file.write_all(format!("{line}\n").as_bytes())),
            None if self.echo => drop(io::stderr().write_all(format!("{line}\n").as_bytes())),
            None => {}
        }
    }

    pub(crate) fn error(&self, text: &str) {
        self.line(level::ERROR, text);
    }

    pub(crate) fn warn(&self, text: &str) {
        self.line(level::WARN, text);
    }

    pub(crate) fn info(&self, text: &str) {
        self.line(level::INFO, text);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn level_tag(level: i32) -> &'static str {
    match level {
        level::ERROR => "[error]",
        level::WARN => "[ warn]",
        level::INFO => "[ info]",
        level::DEBUG => "[debug]",
        5 => "[trace]",
        _ => "[ help]",
    }
}

fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (date, time) = date_and_time(now);
    format!("{} {time}.{:03}", date.replace('-', "/"), now.subsec_millis())
}

/// `2026-01-01` and `00:00:00` of a time since 1970.
pub(crate) fn date_and_time(since_1970: Duration) -> (String, String) {
    let (year, month, day) = civil_date(since_1970.as_secs() / 86_400);
    let secs = since_1970.as_secs() % 86_400;
    let time = format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60);
    (format!("{year}-{month:02}-{day:02}"), time)
}

/// Year, month and day of a day counted from 1970, by eras of 400 years that start in March.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil_date;

    #[test]
    fn dates_around_leap_days() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(20_454), (2026, 1, 1));
    }
}
