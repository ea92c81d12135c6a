//! What was found, for a person or for a program.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::stanza::Line;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// Not looked at, because something before it failed.
    Skipped,
    /// It works, and a person should look.
    Warning,
    /// It does not work.
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Self::Ok => AnsiColor::Green,
            Self::Skipped => AnsiColor::BrightBlack,
            Self::Warning => AnsiColor::Yellow,
            Self::Failed => AnsiColor::Red,
        };
        color.on_default()
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// The stage: configuration, dns, tcp, tls, credentials, data, clock, state file, database,
    /// host.
    pub stage: String,
    /// How it went.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub advice: Option<String>,
    /// The lines to look at.
    pub lines: Vec<Line>,
}

impl Check {
    /// A check that went so.
    pub fn new(stage: &str, status: Status, detail: impl Into<String>) -> Self {
        let (advice, lines) = (None, Vec::new());
        Self { stage: stage.to_owned(), status, detail: detail.into(), advice, lines }
    }

    /// All is well.
    pub fn ok(stage: &str, detail: impl Into<String>) -> Self {
        Self::new(stage, Status::Ok, detail)
    }

    /// It does not work.
    pub fn failed(stage: &str, detail: impl Into<String>) -> Self {
        Self::new(stage, Status::Failed, detail)
    }

    /// A person should look.
    pub fn warning(stage: &str, detail: impl Into<String>) -> Self {
        Self::new(stage, Status::Warning, detail)
    }

    /// The same with what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The same with the lines to look at.
    #[must_use]
    pub fn at(mut self, lines: impl IntoIterator<Item = Line>) -> Self {
        self.lines.extend(lines);
        self
    }

    fn json(&self) -> Value {
        let line =
            |line: &Line| json!({"file": &*line.at.file, "line": line.at.line, "text": line.text});
        json!({
            "stage": self.stage,
            "status": self.status.name().to_lowercase(),
            "detail": self.detail,
            "advice": self.advice,
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

/// A connector or an input, with what was found.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// What it is, and where it stands.
    pub about: String,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
}

impl Subject {
    /// The worst of its checks.
    #[must_use]
    pub fn status(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
    }

    fn json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::json).collect();
        let status = self.status().name().to_lowercase();
        json!({"name": self.name, "about": self.about, "status": status, "checks": checks})
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let bold = Style::new().bold();
        writeln!(out, "{bold}{}{bold:#}  {}", self.name, self.about)?;
        let width = self.checks.iter().map(|check| check.stage.len()).max().unwrap_or_default();
        for check in &self.checks {
            let (style, name) = (check.status.style(), check.status.name());
            let Check { stage, detail, .. } = check;
            writeln!(out, "  {style}{name:<7}{style:#}  {stage:<width$}  {detail}")?;
            let indent = " ".repeat(13 + width);
            if let Some(advice) = &check.advice {
                writeln!(out, "{indent}{advice}")?;
            }
            for line in &check.lines {
                writeln!(out, "{indent}→ {}  {}", line.at, line.text)?;
            }
        }
        Ok(())
    }
}

/// The worst of all.
#[must_use]
pub fn status(subjects: &[Subject]) -> Status {
    subjects.iter().map(Subject::status).max().unwrap_or(Status::Ok)
}

/// Writes everything for a person.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(subjects: &[Subject], out: &mut dyn Write) -> io::Result<()> {
    for subject in subjects {
        subject.write(out)?;
        writeln!(out)?;
    }
    let count = |status| {
        subjects.iter().flat_map(|s| &s.checks).filter(|check| check.status == status).count()
    };
    let (failed, warned) = (count(Status::Failed), count(Status::Warning));
    let text = match (failed, warned) {
        (0, 0) => "everything is as it should be".to_owned(),
        _ => format!("{failed} failed, {warned} to look at"),
    };
    let style = status(subjects).style();
    writeln!(out, "{style}{text}{style:#}")
}

/// Everything for a program.
#[must_use]
pub fn json(subjects: &[Subject]) -> Value {
    let all: Vec<Value> = subjects.iter().map(Subject::json).collect();
    json!({"status": status(subjects).name().to_lowercase(), "subjects": all})
}
