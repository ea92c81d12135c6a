//! The command line.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use in_trendmicro::error::Error;

use crate::reconcile::Source;
use crate::report::{self, Status};
use crate::states::Consent;
use crate::time::{self, Time};
use crate::{Failure, check, place, reconcile, replay, simulate, states};

/// Everything is as it should be.
const EXIT_FINE: u8 = 0;
/// The command did its work and found something wrong.
const EXIT_FOUND: u8 = 1;
/// The command could not do its work.
pub const EXIT_UNABLE: u8 = 2;
/// The state file is in use.
pub const EXIT_IN_USE: u8 = 3;

/// Tests, inspects and reconciles the Fluent Bit input plugin for Trend Micro's products.
///
/// Exit codes: 0 all is well; 1 something is wrong or missing; 2 the command could not do its work;
/// 3 the state file is in use.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// Writes JSON for programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a configuration and everything behind it: names, connections, certificates,
    /// credentials, data, clock and state file or database.
    Test {
        /// Fluent Bit's configuration, YAML or classic.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Only this connector; may be repeated.
        #[arg(long, value_name = "NAME")]
        connector: Vec<String>,
        /// Sends nothing.
        #[arg(long)]
        offline: bool,
        /// Connectors that are tested at the same time.
        #[arg(long, default_value_t = 8, value_name = "N")]
        jobs: usize,
        /// Ends with 1 for warnings, too.
        #[arg(long)]
        strict: bool,
    },
    /// Shows where every stream stands and, where hosts share a database, who runs what.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Shows or moves positions: in a state file while Fluent Bit is stopped, in a database at any time.
    State {
        #[command(subcommand)]
        action: StateAction,
    },
    /// Has a span delivered again by the plugin, or prints the vendor's records of it.
    Replay {
        #[command(flatten)]
        span: Span,
        /// Prints the records as JSON lines, and changes nothing; Fluent Bit may run.
        #[arg(long, conflicts_with_all = ["dry_run", "yes"])]
        print: bool,
        /// Says what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Agrees without being asked.
        #[arg(long)]
        yes: bool,
    },
    /// Compares what the vendor has with what was delivered.
    Reconcile {
        #[command(flatten)]
        span: Span,
        /// Delivered events, as JSON lines of an output; may be repeated. Without it, the ledger of
        /// the state is asked.
        #[arg(long, value_name = "FILE")]
        delivered: Vec<PathBuf>,
        /// Writes a page for an auditor.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Runs a simulator of all four products and says how to point Fluent Bit at it.
    Simulate(simulate::Options),
}

#[derive(Debug, Subcommand)]
enum StateAction {
    /// Shows every stream with its key.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Moves positions.
    Set {
        #[command(flatten)]
        place: Place,
        /// CONNECTOR, CONNECTOR/STREAM or a whole key; may be repeated.
        #[arg(long, required = true, value_name = "NAME")]
        stream: Vec<String>,
        /// The new position.
        #[arg(long, value_parser = time::parse, value_name = "TIME")]
        to: Time,
        /// Agrees without being asked.
        #[arg(long)]
        yes: bool,
    },
    /// Forgets streams; they begin anew from `lookback`.
    Reset {
        #[command(flatten)]
        place: Place,
        /// CONNECTOR, CONNECTOR/STREAM or a whole key; may be repeated.
        #[arg(long, required = true, value_name = "NAME")]
        stream: Vec<String>,
        /// Agrees without being asked.
        #[arg(long)]
        yes: bool,
    },
}

/// Where a state is found.
#[derive(Debug, Args)]
struct Place {
    /// The state file, or the postgres:// address of a database; one whose password lies in a file is
    /// better named by -c.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    db: Option<PathBuf>,
    /// Fluent Bit's configuration, which names the state files and databases.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn all(&self) -> Result<Vec<place::Place>, Failure> {
        Ok(place::Place::all(self.db.as_deref(), self.config.as_deref())?)
    }

    /// The only one that is meant.
    fn one(&self) -> Result<place::Place, Failure> {
        let mut all = self.all()?;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            _ => Err(Failure::from(Error::config("several states; write --db with one of them"))),
        }
    }
}

/// A span of vendor time, and whose.
#[derive(Debug, Args)]
pub struct Span {
    /// Fluent Bit's configuration, YAML or classic.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Its beginning: 2026-11-22T08:00:00Z, 2026-11-22 08:00 (UTC), or how long ago: 90m, 6h, 2d.
    #[arg(long, value_parser = time::parse, value_name = "TIME")]
    pub since: Time,
    /// Its end.
    #[arg(long, default_value = "now", value_parser = time::parse, value_name = "TIME")]
    pub until: Time,
    /// Only this connector, or CONNECTOR/STREAM; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub connector: Vec<String>,
}

impl Span {
    /// Whether a stream is meant.
    #[must_use]
    pub fn has(&self, connector: &str, stream: &str) -> bool {
        let is_meant =
            |name: &String| name == connector || name.split_once('/') == Some((connector, stream));
        self.connector.is_empty() || self.connector.iter().any(is_meant)
    }
}

/// Does what the command line says; returns the exit code.
///
/// # Errors
/// When it cannot be done.
pub fn run(cli: Cli) -> Result<u8, Failure> {
    let is_json = cli.json;
    let mut out = anstream::stdout().lock();
    match cli.command {
        Command::Test { config, connector, offline, jobs, strict } => {
            let options =
                check::Options { config, connectors: connector, is_offline: offline, jobs };
            let subjects = check::run(&options)?;
            if is_json {
                writeln!(out, "{:#}", report::json(&subjects))?;
            } else {
                report::write(&subjects, &mut out)?;
            }
            let worst = if strict { Status::Warning } else { Status::Failed };
            Ok(found(report::status(&subjects) >= worst))
        }
        Command::Status { place } | Command::State { action: StateAction::Show { place } } => {
            states::status(&place.all()?, is_json, &mut out)?;
            Ok(EXIT_FINE)
        }
        Command::State { action: StateAction::Set { place, stream, to, yes } } => {
            let changed = states::set(&place.one()?, &stream, to, &Consent { is_given: yes })?;
            tell(&changed, is_json, &mut out)
        }
        Command::State { action: StateAction::Reset { place, stream, yes } } => {
            let changed = states::reset(&place.one()?, &stream, &Consent { is_given: yes })?;
            tell(&changed, is_json, &mut out)
        }
        Command::Replay { span, print: true, .. } => {
            replay::print(&span, &mut out)?;
            Ok(EXIT_FINE)
        }
        Command::Replay { span, dry_run, yes, .. } => {
            let changed = replay::rewind(&span, dry_run, &Consent { is_given: yes })?;
            tell(&changed, is_json, &mut out)
        }
        Command::Reconcile { span, delivered, html } => {
            let source =
                if delivered.is_empty() { Source::Ledger } else { Source::Files(delivered) };
            let books = reconcile::run(&span, &source)?;
            if let Some(path) = html {
                std::fs::write(&path, crate::html::page(&books))?;
            }
            if is_json {
                writeln!(out, "{:#}", books.json())?;
            } else {
                books.write(&mut out)?;
            }
            Ok(found(!books.is_clean()))
        }
        Command::Simulate(options) => {
            simulate::run(&options, is_json, &mut out)?;
            Ok(EXIT_FINE)
        }
    }
}

/// Tells a program which streams it was about; a person has been told beside the output.
fn tell(streams: &[String], is_json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    if is_json {
        writeln!(out, "{}", serde_json::json!({"streams": streams}))?;
    }
    Ok(EXIT_FINE)
}

fn found(is_wrong: bool) -> u8 {
    if is_wrong { EXIT_FOUND } else { EXIT_FINE }
}
