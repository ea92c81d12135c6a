//! The classic format: `[SECTION]`, then an indented `key value` per line.

use std::path::Path;
use std::sync::Arc;

use in_trendmicro::error::{Error, Result};

use super::{At, Entry, Kind, Reading, Section};

/// Reads one file's text.
pub(super) fn read(reading: &mut Reading, file: &Arc<Path>, text: &str) -> Result<()> {
    // Groups, such as [PROCESSORS] inside a section, belong to the host.
    let mut is_in_group = false;
    for (i, line) in text.lines().enumerate() {
        let at = At { file: Arc::clone(file), line: i + 1 };
        let trimmed = line.trim();
        let is_indented = line.starts_with([' ', '\t']);
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if !is_indented && trimmed.starts_with('@') {
            command(reading, trimmed, &at)?;
        } else if let Some(header) = trimmed.strip_prefix('[') {
            let name = header.split_once(']').map(|(name, _)| name.trim());
            let name = name.ok_or_else(|| wrong(&at, "a section's name ends with ]"))?;
            is_in_group = is_indented;
            if !is_indented {
                reading.sections.push(Section { kind: kind(name), at, entries: Vec::new() });
            }
        } else if !is_in_group {
            let entry = property(trimmed, at)?;
            let section = reading.sections.last_mut();
            section
                .ok_or_else(|| wrong(&entry.at, "a property before any section"))?
                .entries
                .push(entry);
        }
    }
    Ok(())
}

/// `@INCLUDE path` and `@SET NAME=value`; others are the host's own.
fn command(reading: &mut Reading, line: &str, at: &At) -> Result<()> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    if name.eq_ignore_ascii_case("@include") {
        let root = reading.root.clone();
        return reading.include(rest.trim(), &root, at);
    }
    if name.eq_ignore_ascii_case("@set")
        && let Some((name, value)) = rest.split_once('=')
        && !reading.variables.set(name.trim(), value.trim())
    {
        reading.note(at, true, format!("{}: its file cannot be read", name.trim()));
    }
    Ok(())
}

fn property(line: &str, at: At) -> Result<Entry> {
    let (key, value) = line.split_once([' ', '\t']).ok_or_else(|| {
        // Behind a wrong sign there may be a credential.
        let key = line.split(['=', ':']).next().unwrap_or_default();
        wrong(&at, &format!("\"{key}\" has no value; write: {key} VALUE"))
    })?;
    let value = value.trim().to_owned();
    Ok(Entry { key: key.to_lowercase(), written: value.clone(), value, at })
}

fn kind(name: &str) -> Kind {
    match name.to_ascii_lowercase().as_str() {
        "service" => Kind::Service,
        "input" => Kind::Input,
        "output" => Kind::Output,
        _ => Kind::Other,
    }
}

fn wrong(at: &At, what: &str) -> Error {
    Error::config(format!("{at}: {what}"))
}
