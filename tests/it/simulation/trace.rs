//! What a run tells of its steps.

use std::collections::VecDeque;

use super::Telling;

/// The last steps of a run, as far as somebody wants to know them.
pub struct Trace {
    /// `None` if nobody does.
    lines: Option<VecDeque<String>>,
    lines_max: usize,
    /// Tells every step as it is made.
    is_loud: bool,
}

impl Trace {
    /// Of no step yet; at most so many are kept.
    pub fn new(telling: Telling, lines_max: usize) -> Self {
        Self {
            lines: (telling != Telling::Nothing).then(VecDeque::new),
            lines_max,
            is_loud: telling == Telling::Everything,
        }
    }

    /// Notes a step; its text is made only where it is wanted.
    pub fn note(&mut self, now_ms: u64, text: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        let line = format!("{:>12.3} {}", now_ms as f64 / 1_000.0, text());
        if self.is_loud {
            eprintln!("{line}");
        }
        lines.push_back(line);
        if lines.len() > self.lines_max {
            lines.pop_front();
        }
    }

    /// The steps that are kept, a line each.
    pub fn text(&self) -> String {
        self.lines.iter().flatten().fold(String::new(), |text, line| text + line + "\n")
    }
}
