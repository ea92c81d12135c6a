//! Log lines on their way to the host.
//!
//! The host prints what its own threads say into its log file, but what a plugin's thread says goes
//! to stderr past it. So nobody here prints: lines wait in a bounded queue until the instance's host
//! thread takes them along.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use crate::clock::lock;

/// Lines that may wait for the host; more are counted and dropped, oldest first.
const LINES_MAX: usize = 1_000;
/// The host cuts a line at 4 kB without saying so; we cut earlier and do say so.
const LINE_BYTES_MAX: usize = 3_500;

/// The host's levels, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed and a person should look.
    Error = 1,
    /// Something is off, and collecting goes on.
    Warn = 2,
    /// What happens, once per change of state.
    Info = 3,
    /// Each request and each hand-over.
    Debug = 4,
}

/// A line that waits for the host.
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its text, without time and level, which the host adds.
    pub text: String,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    dropped: u64,
}

/// The lines of one instance, shared by its threads.
pub struct Log {
    level_max: AtomicU8,
    waiting: Mutex<Waiting>,
}

impl Log {
    /// A log that keeps lines up to `level_max`.
    #[must_use]
    pub fn new(level_max: Level) -> Arc<Self> {
        Arc::new(Self { level_max: AtomicU8::new(level_max as u8), waiting: Mutex::default() })
    }

    /// Takes every waiting line; a line that says how many were dropped comes last.
    pub fn take(&self) -> Vec<Line> {
        let mut waiting = lock(&self.waiting);
        let mut lines: Vec<Line> = waiting.lines.drain(..).collect();
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            let text = format!("{dropped} log lines were dropped because the host took none");
            lines.push(Line { level: Level::Warn, text });
        }
        lines
    }

    fn push(&self, line: Line) {
        let mut waiting = lock(&self.waiting);
        if waiting.lines.len() == LINES_MAX {
            waiting.lines.pop_front();
            waiting.dropped += 1;
        }
        waiting.lines.push_back(line);
    }
}

/// Takes out of a line what nobody may see.
type Redact = Arc<dyn Fn(String) -> String + Send + Sync>;

/// A handle to a [`Log`] that puts a prefix before each line.
#[derive(Clone)]
pub struct Logger {
    log: Arc<Log>,
    prefix: Arc<str>,
    redact: Option<Redact>,
}

impl Logger {
    /// A logger whose lines begin with `prefix`.
    #[must_use]
    pub fn new(log: Arc<Log>, prefix: &str) -> Self {
        Self { log, prefix: prefix.into(), redact: None }
    }

    /// A logger for a part of what this one speaks for.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let prefix = if self.prefix.is_empty() {
            format!("[{name}]")
        } else {
            format!("{} [{name}]", self.prefix)
        };
        Self { log: Arc::clone(&self.log), prefix: prefix.into(), redact: self.redact.clone() }
    }

    /// The same logger, whose lines and whose children's lines pass through `redact`: what a vendor
    /// says is shown in places, and may repeat what it was sent.
    #[must_use]
    pub fn redacting(self, redact: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        Self { redact: Some(Arc::new(redact)), ..self }
    }

    /// Logs at [`Level::Error`].
    pub fn error(&self, text: impl fmt::Display) {
        self.log(Level::Error, text);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(&self, text: impl fmt::Display) {
        self.log(Level::Warn, text);
    }

    /// Logs at [`Level::Info`].
    pub fn info(&self, text: impl fmt::Display) {
        self.log(Level::Info, text);
    }

    /// Logs at [`Level::Debug`]; `text` is formatted only if somebody will read it.
    pub fn debug(&self, text: impl fmt::Display) {
        self.log(Level::Debug, text);
    }

    /// Logs at `level`.
    pub fn log(&self, level: Level, text: impl fmt::Display) {
        if level as u8 > self.log.level_max.load(Ordering::Relaxed) {
            return;
        }
        let text = if self.prefix.is_empty() {
            text.to_string()
        } else {
            format!("{} {text}", self.prefix)
        };
        self.log.push(Line { level, text: cut(self.redacted(text)) });
    }

    /// A text as this logger would show it, for what others will show.
    #[must_use]
    pub fn redacted(&self, text: String) -> String {
        match &self.redact {
            Some(redact) => redact(text),
            None => text,
        }
    }
}

/// Cuts `text` to what the host prints whole.
fn cut(mut text: String) -> String {
    if text.len() > LINE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_filtered_prefixed_cut_and_bounded() {
        let log = Log::new(Level::Info);
        let logger = Logger::new(Arc::clone(&log), "[a]").child("b");
        logger.debug("unseen");
        logger.warn("é".repeat(LINE_BYTES_MAX));
        let lines = log.take();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].text.starts_with("[a] [b] éé"));
        assert!(lines[0].text.len() <= LINE_BYTES_MAX + '…'.len_utf8());

        for i in 0..LINES_MAX + 3 {
            logger.info(i);
        }
        let lines = log.take();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines[0].text, "[a] [b] 3", "the oldest lines go first");
        assert!(lines[LINES_MAX].text.starts_with("3 log lines were dropped"));
    }
}
