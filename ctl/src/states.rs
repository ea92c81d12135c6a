//! `status` and `state`: where every stream stands, and how to move it.

use std::io::{self, BufRead, IsTerminal, Write};

use in_trendmicro::error::{Error, Result};
use in_trendmicro::window::HORIZON;
use serde_json::{Value, json};

use crate::Failure;
use crate::place::{self, Place, State};
use crate::state::Saved;
use crate::time::{self, Time, delta, now};

/// One stream as `status` shows it.
fn row(saved: &Saved, now: Time) -> Value {
    let (connector, stream) = saved.names();
    let lag = saved.cursor.map(|cursor| now - cursor);
    let is_log = ["email_security", "cloud_app_security"].contains(&saved.product());
    let left = lag.filter(|_| is_log).map(|lag| (delta(HORIZON) - lag).num_seconds());
    json!({
        "connector": connector,
        "stream": stream,
        "key": saved.key,
        "cursor": saved.cursor.map(time::text),
        "lag_secs": lag.map(|lag| lag.num_seconds()),
        "horizon_left_secs": left,
        "ledger_records": saved.ledger_count,
        "ledger_since": saved.ledger_since.map(time::text),
        "inventory_entries": saved.inventory_count,
    })
}

/// Shows where every stream of some places stands, and who runs what where hosts share one.
///
/// # Errors
/// When a state is in use or cannot be read.
pub fn status(places: &[Place], is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let now = now();
    for place in places {
        let (streams, overview) = place.open()?.look()?;
        let rows: Vec<Value> = streams.iter().map(|saved| row(saved, now)).collect();
        let count = rows.len();
        if is_json {
            let mut shown = json!({"db": place.shown(), "streams": rows});
            if let Some(overview) = &overview {
                (shown["hosts"], shown["leases"]) = place::json_of(overview);
            }
            writeln!(out, "{shown}")?;
            continue;
        }
        match &overview {
            None => {
                let shown = place.shown();
                writeln!(out, "{shown}: {count} stream(s); the plugin does not run on it")?;
            }
            Some(overview) => {
                let living = overview.hosts.iter().filter(|host| host.is_alive).count();
                let shown = place.shown();
                writeln!(out, "{shown}: {living} host(s) alive, {count} stream(s)")?;
                for line in place::lines_of(overview, now) {
                    writeln!(out, "  {line}")?;
                }
            }
        }
        let width = streams.iter().map(|saved| short(saved).len()).max().unwrap_or_default();
        for saved in &streams {
            writeln!(out, "  {:<width$}  {}", short(saved), described(saved, now))?;
        }
    }
    Ok(())
}

fn short(saved: &Saved) -> String {
    let (connector, stream) = saved.names();
    format!("{connector}/{stream}")
}

fn described(saved: &Saved, now: Time) -> String {
    let Some(cursor) = saved.cursor else { return "no position yet".to_owned() };
    let lag = now - cursor;
    let mut text = format!("{}, {} ago", time::text(cursor), time::span(lag));
    if lag > delta(HORIZON) && saved.inventory_count == 0 {
        text.push_str("; beyond the vendor's 72 h, what lies between is lost");
    }
    if saved.ledger_count > 0 {
        text.push_str(&format!("; {} records in the ledger", saved.ledger_count));
    }
    if saved.inventory_count > 0 {
        text.push_str(&format!("; {} entries in the inventory", saved.inventory_count));
    }
    text
}

/// The streams that a pattern means.
///
/// # Errors
/// When it means none; the error names all there are.
pub fn chosen(state: &mut State, patterns: &[String]) -> Result<Vec<Saved>, Failure> {
    let all = state.streams()?;
    let is_chosen = |saved: &&Saved| {
        patterns.is_empty() || patterns.iter().any(|pattern| saved.is_meant(pattern))
    };
    let chosen: Vec<Saved> = all.iter().filter(is_chosen).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<String> = all.iter().map(short).collect();
        let text = format!(
            "no stream is called {}; there are: {}",
            patterns.join(", "),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
        return Err(Failure::from(Error::config(text)));
    }
    Ok(chosen)
}

/// Moves cursors; returns the streams that were moved.
///
/// # Errors
/// When the time is in the future, when the person does not agree, or when the state is in use.
pub fn set(
    place: &Place,
    patterns: &[String],
    cursor: Time,
    consent: &Consent,
) -> Result<Vec<String>, Failure> {
    let now = now();
    if cursor > now {
        let text = format!(
            "{} is in the future, so nothing would be collected until then; legal: at most now; \
             write: --to now",
            time::text(cursor)
        );
        return Err(Failure::from(Error::config(text)));
    }
    let mut state = place.open()?;
    let streams = chosen(&mut state, patterns)?;
    for saved in &streams {
        consent.say(&moved(saved, cursor, now))?;
    }
    consent.ask("move these positions?")?;
    let anew = state.set_cursor(&keys(&streams), cursor)?;
    consent.say(&format!("{} position(s) moved", streams.len()))?;
    consent.tell_anew(&anew)?;
    Ok(streams.iter().map(short).collect())
}

/// What a move means.
fn moved(saved: &Saved, cursor: Time, now: Time) -> String {
    let name = short(saved);
    let text = match saved.cursor {
        Some(old) if cursor > old => format!(
            "{name}: {} → {}; LOST: what the vendor has from these {} is never collected",
            time::text(old),
            time::text(cursor),
            time::span(cursor - old)
        ),
        Some(old) => format!(
            "{name}: {} → {}; these {} are read again, and what the ledger does not know is \
             delivered again",
            time::text(old),
            time::text(cursor),
            time::span(old - cursor)
        ),
        None => format!("{name}: {}", time::text(cursor)),
    };
    if now - cursor > delta(HORIZON) {
        let beyond = time::span(now - cursor - delta(HORIZON));
        return format!("{text}; WARNING: the vendor keeps 72 h, the first {beyond} are lost");
    }
    text
}

/// Forgets streams; returns them.
///
/// # Errors
/// When the person does not agree, or when the state is in use.
pub fn reset(
    place: &Place,
    patterns: &[String],
    consent: &Consent,
) -> Result<Vec<String>, Failure> {
    let mut state = place.open()?;
    let streams = chosen(&mut state, patterns)?;
    for saved in &streams {
        let was = saved.cursor.map_or("nothing".to_owned(), time::text);
        let name = short(saved);
        consent.say(&format!("{name}: {was} → nothing; it begins anew from lookback"))?;
    }
    consent.ask("forget these streams?")?;
    let anew = state.reset(&keys(&streams))?;
    consent.say(&format!("{} stream(s) forgotten", streams.len()))?;
    consent.tell_anew(&anew)?;
    Ok(streams.iter().map(short).collect())
}

fn keys(streams: &[Saved]) -> Vec<&str> {
    streams.iter().map(|saved| saved.key.as_str()).collect()
}

/// Whether a change was agreed to: on the command line, or by the person at the terminal.
pub struct Consent {
    /// `--yes`.
    pub is_given: bool,
}

impl Consent {
    /// Tells what is about to happen, beside the output.
    ///
    /// # Errors
    /// When standard error is gone.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(io::stderr(), "{text}")?)
    }

    /// Tells which running hosts begin anew because of a change.
    ///
    /// # Errors
    /// When standard error is gone.
    pub fn tell_anew(&self, hosts: &[String]) -> Result<(), Failure> {
        if hosts.is_empty() {
            return Ok(());
        }
        self.say(&format!(
            "{} ran it and must begin anew within seconds: what was delivered there and not saved yet \
             is delivered again, with the same event_id",
            hosts.join(", ")
        ))
    }

    /// Asks, unless that was answered already.
    ///
    /// # Errors
    /// When the answer is no, or nobody is there to answer.
    pub fn ask(&self, question: &str) -> Result<(), Failure> {
        if self.is_given {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::from(Error::config("nothing was changed; write --yes to agree")));
        }
        write!(io::stderr(), "{question} [y/N] ")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::from(Error::config("nothing was changed"))),
        }
    }
}
