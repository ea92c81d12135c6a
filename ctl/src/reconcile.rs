//! `reconcile`: what the vendor has in a span against what was delivered.
//!
//! What was delivered is told by the ledger in the state, for as far as it reaches, or by the
//! events themselves, as an output wrote them.

mod delivered;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

use in_trendmicro::config::{ConnectorConfig, Format};
use in_trendmicro::connector::{Mode, Stream};
use in_trendmicro::error::{Error, Result};
use in_trendmicro::instance::{connect, state_key};
use in_trendmicro::record::Id;
use in_trendmicro::window::Window;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::Failure;
use crate::command::Span;
use crate::host::HostConfig;
use crate::place::{Place, State};
use crate::replay::check_span;
use crate::stanza::Stanza;
use crate::time::{self, Time, delta, now};
use crate::vendor::{Vendor, within_horizon};

use delivered::Delivered;

/// Columns of a timeline.
pub const BUCKETS: usize = 96;
/// Records that are named one by one.
const NAMED_MAX: usize = 1000;
/// Near the ends of a span, a record's own time may lie inside it and the time by which the vendor
/// files it outside.
const EDGE: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// Who tells what was delivered.
pub enum Source {
    /// The state.
    Ledger,
    /// Files of events.
    Files(Vec<PathBuf>),
}

/// One record of the vendor.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its `event_id`.
    pub id: Id,
    /// Its time.
    pub time: Time,
}

/// One stream's comparison.
#[derive(Debug)]
pub struct Account {
    /// Connector and stream.
    pub name: String,
    /// What was compared; `None` if nothing could be.
    pub span: Option<Window>,
    /// Why less was compared than asked for, or nothing.
    pub note: Option<String>,
    /// Whether the comparison failed.
    pub is_failed: bool,
    /// Whether it failed because the vendor did.
    is_unreached: bool,
    /// Records that the vendor has.
    pub vendor: u64,
    /// Of these, how many were not delivered.
    pub missing: u64,
    /// The first of them.
    pub named: Vec<Named>,
    /// Delivered records that the vendor does not show.
    pub extra: u64,
    /// Further copies of delivered records; `None` if the source cannot tell.
    pub copies: Option<u64>,
    /// Per column of the timeline: delivered, and missing.
    pub buckets: Vec<(u64, u64)>,
}

/// A whole reconciliation.
#[derive(Debug)]
pub struct Books {
    /// The span that was asked for.
    pub span: (Time, Time),
    /// When it was made.
    pub made_at: Time,
    /// Who told what was delivered.
    pub source: String,
    /// Every stream.
    pub accounts: Vec<Account>,
}

impl Account {
    fn new(name: String) -> Self {
        Self {
            name,
            span: None,
            note: None,
            is_failed: false,
            is_unreached: false,
            vendor: 0,
            missing: 0,
            named: Vec::new(),
            extra: 0,
            copies: None,
            buckets: vec![(0, 0); BUCKETS],
        }
    }

    /// Enters one record of the vendor.
    fn enter(&mut self, record: Named, is_delivered: bool, whole: (Time, Time)) {
        self.vendor += 1;
        let total = (whole.1 - whole.0).num_milliseconds().max(1);
        let at = (record.time - whole.0).num_milliseconds().clamp(0, total - 1);
        let bucket = &mut self.buckets[(at as usize * BUCKETS) / total as usize];
        if is_delivered {
            bucket.0 += 1;
            return;
        }
        bucket.1 += 1;
        self.missing += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(record);
        }
    }

    fn json(&self) -> Value {
        let named =
            |named: &Named| json!({"event_id": hex(named.id), "time": time::text(named.time)});
        json!({
            "stream": self.name,
            "since": self.span.map(|span| time::text(span.start)),
            "until": self.span.map(|span| time::text(span.end)),
            "note": self.note,
            "vendor": self.vendor,
            "delivered": self.vendor - self.missing,
            "missing": self.missing,
            "extra": self.extra,
            "copies": self.copies,
            "missing_records": self.named.iter().map(named).collect::<Vec<_>>(),
        })
    }
}

/// The text of an id.
#[must_use]
pub fn hex(id: Id) -> String {
    String::from_utf8_lossy(&id.hex()).into_owned()
}

impl Books {
    /// Whether everything was compared and nothing is missing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.accounts.iter().all(|account| account.missing == 0 && !account.is_failed)
    }

    /// A number over all streams.
    pub fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        self.accounts.iter().map(of).sum()
    }

    /// Everything for a program.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "since": time::text(self.span.0),
            "until": time::text(self.span.1),
            "delivered_by": self.source,
            "clean": self.is_clean(),
            "vendor": self.sum(|account| account.vendor),
            "missing": self.sum(|account| account.missing),
            "extra": self.sum(|account| account.extra),
            "streams": self.accounts.iter().map(Account::json).collect::<Vec<_>>(),
        })
    }

    /// Everything for a person.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "delivered as told by {}", self.source)?;
        let width = self.accounts.iter().map(|account| account.name.len()).max().unwrap_or(0);
        for account in &self.accounts {
            let Account { name, vendor, missing, extra, copies, .. } = account;
            let span = account.span.map_or("not compared".to_owned(), |span| {
                format!("{} to {}", time::text(span.start), time::text(span.end))
            });
            let copies =
                copies.map_or(String::new(), |copies| format!(", {copies} further copies"));
            writeln!(
                out,
                "{name:<width$}  {span}: vendor {vendor}, missing {missing}, extra {extra}{copies}"
            )?;
            if let Some(note) = &account.note {
                writeln!(out, "{:<width$}  {note}", "")?;
            }
            for named in account.named.iter().take(5) {
                writeln!(
                    out,
                    "{:<width$}  missing {} {}",
                    "",
                    hex(named.id),
                    time::text(named.time)
                )?;
            }
        }
        let verdict = match (self.is_clean(), self.sum(|account| account.missing)) {
            (true, _) => "nothing is missing".to_owned(),
            (false, 0) => "not everything could be compared".to_owned(),
            (false, missing) => format!("{missing} records are MISSING"),
        };
        writeln!(out, "{verdict}")
    }
}

/// Reconciles a configuration's log streams.
///
/// # Errors
/// When the state is in use, or a file cannot be read.
pub fn run(span: &Span, source: &Source) -> Result<Books, Failure> {
    check_span(span)?;
    let host = HostConfig::read(&span.config)?;
    let delivered = match source {
        Source::Ledger => None,
        Source::Files(files) => Some(Delivered::read(files)?),
    };
    let mut accounts = Vec::new();
    let bar = ProgressBar::new_spinner();
    for stanza in host.inputs().map(Stanza) {
        let config = stanza.read()?;
        let ledgers = match (&config.db, &delivered) {
            (_, Some(_)) => Ledgers::default(),
            (Some(db), None) => Ledgers::read(&mut Place::of(db).open()?)?,
            (None, None) => {
                let text = format!("{}: no db; write --delivered FILE", stanza.0.at);
                return Err(Failure::from(Error::config(text)));
            }
        };
        for config in &config.connectors {
            accounts.extend(of_connector(config, span, &ledgers, delivered.as_ref(), &bar)?);
        }
    }
    bar.finish_and_clear();
    let source = delivered.map_or("the ledger".to_owned(), |d| d.about());
    Ok(Books { span: (span.since, span.until), made_at: now(), source, accounts })
}

/// What the state tells, read at once so that a file is held only for a moment.
#[derive(Default)]
struct Ledgers(HashMap<String, Ledger>);

struct Ledger {
    cursor: Option<Time>,
    since: Option<Time>,
    ids: HashMap<u128, Time>,
}

impl Ledgers {
    fn read(state: &mut State) -> Result<Self> {
        let streams = state.streams()?;
        let mut read = |saved: crate::state::Saved| -> Result<(String, Ledger)> {
            let ids =
                state.ledger(&saved.key)?.into_iter().map(|(until, id)| (id, until)).collect();
            let (cursor, since) = (saved.cursor, saved.ledger_since);
            Ok((saved.key, Ledger { cursor, since, ids }))
        };
        Ok(Self(streams.into_iter().map(&mut read).collect::<Result<_>>()?))
    }
}

fn of_connector(
    config: &ConnectorConfig,
    span: &Span,
    ledgers: &Ledgers,
    delivered: Option<&Delivered>,
    bar: &ProgressBar,
) -> Result<Vec<Account>, Failure> {
    if delivered.is_some() && config.format == Format::Raw {
        let text = format!("{}: format raw has no event_id to compare by", config.name);
        return Err(Failure::from(Error::config(text)));
    }
    let connector = connect(config);
    let mut vendor = Vendor::new(config)?;
    let mut accounts = Vec::new();
    for (i, stream) in connector.streams().iter().enumerate() {
        // An inventory has no past that could be asked for.
        if stream.mode != Mode::Log || !span.has(&config.name, &stream.name) {
            continue;
        }
        bar.set_message(format!("{}/{}", config.name, stream.name));
        bar.tick();
        let mut account = Account::new(format!("{}/{}", config.name, stream.name));
        // A vendor that failed for one stream would be waited for again with each of the others.
        let compared = match delivered {
            _ if accounts.iter().any(|account: &Account| account.is_unreached) => {
                Err(Error::config("not asked, since the vendor failed before"))
            }
            Some(delivered) => {
                with_files(&mut account, &mut vendor, i, config, stream, span, delivered)
            }
            None => {
                let ledger = ledgers.0.get(&state_key(config, stream));
                with_ledger(&mut account, &mut vendor, i, config, span, ledger)
            }
        };
        if let Err(error) = compared {
            account.is_unreached = true;
            (account.note, account.is_failed) = (Some(error.to_string()), true);
        }
        accounts.push(account);
    }
    Ok(accounts)
}

/// Compares with the ledger, within what it covers: it knows every record of a window that it has not
/// forgotten, up to the cursor.
fn with_ledger(
    account: &mut Account,
    vendor: &mut Vendor,
    stream: usize,
    config: &ConnectorConfig,
    span: &Span,
    ledger: Option<&Ledger>,
) -> Result<()> {
    let Some((ledger, cursor)) = ledger.and_then(|ledger| Some((ledger, ledger.cursor?))) else {
        account.note = Some("nothing was delivered yet".to_owned());
        return Ok(());
    };
    let reach = cursor - delta(config.overlap);
    let covered =
        Window { start: ledger.since.map_or(reach, |since| since.min(reach)), end: cursor };
    account.note = Some(format!(
        "the ledger covers {} to {}",
        time::text(covered.start),
        time::text(covered.end)
    ));
    let (since, until) = (span.since.max(covered.start), span.until.min(covered.end));
    let Some(window) = within_horizon(since, until).filter(|_| since < until) else {
        account.is_failed = true;
        return Ok(());
    };
    account.span = Some(window);
    let whole = (span.since, span.until);
    let mut seen: HashMap<u128, ()> = HashMap::new();
    vendor.read(stream, window, &mut |record, asked| {
        if seen.insert(record.key.0, ()).is_none() {
            let is_delivered = ledger.ids.contains_key(&record.key.0);
            let time = record.time.unwrap_or(asked.start);
            account.enter(Named { id: record.id, time }, is_delivered, whole);
        }
        Ok(())
    })?;
    // A window ends behind its records, so only those that began inside the span are sure to be in it.
    let sure = window.start + delta(config.product.span_max);
    let is_within = |until: &Time| *until > sure && *until <= window.end;
    let unknown =
        ledger.ids.iter().filter(|(id, until)| is_within(until) && !seen.contains_key(*id));
    account.extra = unknown.count() as u64;
    Ok(())
}

/// Compares with events as an output wrote them.
fn with_files(
    account: &mut Account,
    vendor: &mut Vendor,
    index: usize,
    config: &ConnectorConfig,
    stream: &Stream,
    span: &Span,
    delivered: &Delivered,
) -> Result<()> {
    let Some(window) = within_horizon(span.since, span.until) else {
        account.note = Some("the vendor keeps 72 h, so nothing of that is left".to_owned());
        account.is_failed = true;
        return Ok(());
    };
    if window.start > span.since {
        account.note = Some(format!("the vendor keeps 72 h: since {}", time::text(window.start)));
    }
    account.span = Some(window);
    let whole = (span.since, span.until);
    let (mut seen, mut copies) = (HashMap::new(), 0);
    vendor.read(index, window, &mut |record, asked| {
        if seen.insert(record.id, ()).is_none() {
            let count = delivered.count(record.id);
            copies += count.saturating_sub(1);
            let time = record.time.unwrap_or(asked.start);
            account.enter(Named { id: record.id, time }, count > 0, whole);
        }
        Ok(())
    })?;
    let inside = (window.start + EDGE, window.end - EDGE);
    let is_extra = |id: &Id| !seen.contains_key(id);
    account.extra =
        delivered.of_stream(&config.name, stream, inside).filter(is_extra).count() as u64;
    account.copies = Some(copies);
    Ok(())
}
