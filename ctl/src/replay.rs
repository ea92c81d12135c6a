//! `replay`: has a span delivered again, or prints it.

use std::collections::HashSet;
use std::io::Write;

use in_trendmicro::config::ConnectorConfig;
use in_trendmicro::connector::{Mode, Stream};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::error::{Error, Result};
use in_trendmicro::instance::{connect, state_key};
use in_trendmicro::record::{Id, Record};

use crate::Failure;
use crate::command::Span;
use crate::host::HostConfig;
use crate::place::Place;
use crate::stanza::Stanza;
use crate::states::Consent;
use crate::time::{self, Time, delta, now};
use crate::vendor::{Vendor, within_horizon};

/// An event's array header and time; its map begins behind them.
const EVENT_HEAD_BYTES: usize = 11;

/// Sets cursors back to the start of a span and forgets what was delivered in it, so that the plugin
/// delivers it again.
///
/// What lies behind the span is asked for again as well, since a cursor is one point; of that, what
/// the ledger knows is not delivered again. Nothing is ever marked as delivered here. Returns the streams
/// that are meant.
///
/// # Errors
/// When the state is in use, or the person does not agree.
pub fn rewind(span: &Span, is_dry: bool, consent: &Consent) -> Result<Vec<String>, Failure> {
    check_span(span)?;
    if within_horizon(span.since, span.until).is_none() {
        return Err(beyond(span));
    }
    let host = HostConfig::read(&span.config)?;
    let mut names = Vec::new();
    for stanza in host.inputs().map(Stanza) {
        let config = stanza.read()?;
        let Some(place) = config.db.as_ref().map(Place::of) else { continue };
        let mut state = place.open()?;
        let streams = state.streams()?;
        let mut plan = Vec::new();
        for config in &config.connectors {
            for stream in connect(config).streams() {
                let key = state_key(config, stream);
                let cursor = streams.iter().find(|saved| saved.key == key).and_then(|s| s.cursor);
                let is_meant = stream.mode == Mode::Log && span.has(&config.name, &stream.name);
                if let Some(cursor) = cursor.filter(|&cursor| is_meant && cursor > span.since) {
                    consent.say(&told(config, stream, span, cursor))?;
                    // A window's records are remembered under its end, which may lie behind the span.
                    names.push(format!("{}/{}", config.name, stream.name));
                    plan.push((key, span.until + delta(config.product.span_max)));
                }
            }
        }
        if !is_dry && !plan.is_empty() {
            consent.ask("deliver them again?")?;
            let plan: Vec<(&str, Time)> = plan.iter().map(|(key, t)| (key.as_str(), *t)).collect();
            consent.tell_anew(&state.rewind(&plan, span.since)?)?;
        }
    }
    if names.is_empty() {
        return Err(Failure::from(Error::config(
            "nothing to replay: no log stream that is meant was delivered beyond --since",
        )));
    }
    consent.say(match is_dry {
        true => "nothing was changed (--dry-run)",
        false => {
            "done; they are delivered again by a Fluent Bit that runs, or as soon as one starts"
        }
    })?;
    Ok(names)
}

fn told(config: &ConnectorConfig, stream: &Stream, span: &Span, cursor: Time) -> String {
    let (until, name) = (span.until.min(cursor), format!("{}/{}", config.name, stream.name));
    let behind = if until < cursor {
        format!(
            "; what lies between there and {} comes again as far as the ledger does not know it",
            time::text(cursor)
        )
    } else {
        String::new()
    };
    format!(
        "{name}: {} to {} is delivered again, with the same event_id{behind}",
        time::text(span.since),
        time::text(until)
    )
}

/// Prints the vendor's records of a span as JSON lines, in each connector's own format.
///
/// # Errors
/// When the vendor refuses, or the output is gone.
pub fn print(span: &Span, out: &mut dyn Write) -> Result<(), Failure> {
    check_span(span)?;
    let window = within_horizon(span.since, span.until).ok_or_else(|| beyond(span))?;
    let host = HostConfig::read(&span.config)?;
    for stanza in host.inputs().map(Stanza) {
        for config in &stanza.read()?.connectors {
            let mut vendor = Vendor::new(config)?;
            for i in 0..vendor.streams().len() {
                let stream = &vendor.streams()[i];
                if stream.mode != Mode::Log || !span.has(&config.name, &stream.name) {
                    continue;
                }
                let envelope = Envelope::new(&Style::of_connector(config), stream, &config.name);
                let mut seen: HashSet<Id> = HashSet::new();
                vendor.read(i, window, &mut |record, _| {
                    // Two windows share a second.
                    if seen.insert(record.key) { line(&envelope, &record, out) } else { Ok(()) }
                })?;
            }
        }
    }
    Ok(out.flush()?)
}

fn line(envelope: &Envelope, record: &Record<'_>, out: &mut dyn Write) -> Result<()> {
    let mut event = Vec::new();
    envelope.writer().write(&mut event, record, now(), None);
    let fault =
        |error: &dyn std::fmt::Display| Error::config(format!("cannot be printed: {error}"));
    let mut text = Vec::new();
    let mut reader = rmp_serde::Deserializer::from_read_ref(&event[EVENT_HEAD_BYTES..]);
    serde_transcode::transcode(&mut reader, &mut serde_json::Serializer::new(&mut text))
        .map_err(|error| fault(&error))?;
    text.push(b'\n');
    out.write_all(&text).map_err(|error| fault(&error))
}

/// Refuses a span that ends before it begins.
///
/// # Errors
/// When it does.
pub fn check_span(span: &Span) -> Result<(), Failure> {
    if span.since < span.until {
        return Ok(());
    }
    Err(Failure::from(Error::config(format!(
        "--since {} is not before --until {}",
        time::text(span.since),
        time::text(span.until)
    ))))
}

fn beyond(span: &Span) -> Failure {
    Failure::from(Error::config(format!(
        "{} to {}: the vendor keeps 72 h, so nothing of that is left",
        time::text(span.since),
        time::text(span.until)
    )))
}
