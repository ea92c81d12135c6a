//! What a plugin cannot see: keys that nobody asks for, other inputs, storage, outputs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use in_trendmicro::config::mistaken::MISTAKEN;
use in_trendmicro::config::options;
use in_trendmicro::config::value::is_database;
use in_trendmicro::config::{Config, ConnectorConfig};
use in_trendmicro::instance::connect;

use crate::host::{Entry, HostConfig};
use crate::report::Check;
use crate::stanza::{HOST_KEYS, Line, Stanza, known_keys, swallowed};

const STAGE: &str = "host";
/// A key that differs more than so from another is no misspelling of it.
const DISTANCE_MAX: usize = 3;

/// Looks at the keys of one input; `told` is one that the plugin itself has complained about.
#[must_use]
pub fn keys(stanza: Stanza<'_>, told: Option<&str>) -> Vec<Check> {
    let entries = &stanza.0.entries;
    let mut checks = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let line = || stanza.line_of_key(&entry.key);
        if let Some((what, does_start)) = swallowed(&entry.key) {
            let detail = format!("{}: {what}", entry.key);
            let check = if does_start {
                Check::warning(STAGE, detail)
            } else {
                Check::failed(STAGE, detail)
            };
            checks.push(advise_instead(check, &entry.key).at(line()));
        } else if entries[..i].iter().any(|other| other.key == entry.key) {
            let detail = format!("{}: repeated; only the first of them counts", entry.key);
            let at = Line { at: entry.at.clone(), text: format!("remove {}", entry.key) };
            checks.push(Check::warning(STAGE, detail).at([at]));
        } else if told != Some(entry.key.as_str()) {
            checks.extend(unknown(stanza, entry).map(|check| check.at(line())));
        }
    }
    checks
}

fn advise_instead(check: Check, key: &str) -> Check {
    match MISTAKEN.iter().find(|(mistaken, _)| mistaken.eq_ignore_ascii_case(key)) {
        Some((_, meant)) => check.advise(format!("did you mean {meant}?")),
        None => check.advise(format!("remove {key}")),
    }
}

/// A key that neither the host nor the plugin knows.
fn unknown(stanza: Stanza<'_>, entry: &Entry) -> Option<Check> {
    let key = entry.key.as_str();
    if HOST_KEYS.contains(&key) || options::find(key).is_some() {
        return None;
    }
    let names = stanza.connector_names();
    let own = |name: &String| Some((name.clone(), strip(key, name)?));
    let Some((name, bare)) = names.iter().find_map(own) else {
        let detail = format!("{key}: neither Fluent Bit nor the plugin knows it; it has no effect");
        return Some(suggest(Check::warning(STAGE, detail), key, &names));
    };
    // What belongs to the whole stanza the plugin refuses itself.
    if options::find(bare).is_some() {
        return None;
    }
    let detail = format!("{key}: no property of a connector; it has no effect");
    let check = Check::warning(STAGE, detail);
    Some(match closest(bare, options::OPTIONS.iter().map(|opt| opt.name)) {
        Some(meant) => check.advise(format!("did you mean {name}.{meant}?")),
        None => check.advise(format!("remove {key}")),
    })
}

fn strip<'a>(key: &'a str, name: &str) -> Option<&'a str> {
    let (head, rest) = key.split_at_checked(name.len())?;
    if head.eq_ignore_ascii_case(name) { rest.strip_prefix('.') } else { None }
}

fn suggest(check: Check, key: &str, names: &[String]) -> Check {
    if let Some((_, meant)) = MISTAKEN.iter().find(|(mistaken, _)| *mistaken == key) {
        return check.advise(format!("did you mean {meant}?"));
    }
    if let Some((head, bare)) = key.split_once('.')
        && options::find(bare).is_some()
    {
        return check.advise(match closest(head, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean {name}.{bare}?"),
            None => format!("no connector is called {head}; add it to connectors"),
        });
    }
    match closest(key, known_keys()) {
        Some(meant) => check.advise(format!("did you mean {meant}?")),
        None => check.advise(format!("remove {key}")),
    }
}

fn closest<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(key, name);
    let name = names.min_by_key(distance)?;
    (distance(&name) <= DISTANCE_MAX.min(name.len() / 2)).then_some(name)
}

/// Looks at what the host does with the records of one input.
#[must_use]
pub fn storage(host: &HostConfig, stanza: Stanza<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let inherits = host.service("storage.inherit").is_some_and(is_on);
    let inherited = host.service("storage.type").filter(|_| inherits);
    let kind = stanza.0.value("storage.type").or(inherited).unwrap_or("memory");
    let line = |add: &str| {
        let add = Line { at: stanza.0.at.clone(), text: format!("add {add}") };
        stanza.line_of_key("storage.type").unwrap_or(add)
    };
    if !kind.eq_ignore_ascii_case("filesystem") {
        let detail = format!("storage.type is {kind}: what Fluent Bit holds is lost if it crashes");
        let advice = "write storage.type: filesystem, and storage.path in the service section";
        let check = Check::warning(STAGE, detail).advise(advice);
        checks.push(check.at([line("storage.type: filesystem")]));
    } else if host.service("storage.path").is_none() {
        let detail = "storage.type is filesystem, but the service section has no storage.path, so \
                      Fluent Bit does not start";
        let advice = "write storage.path: /var/lib/fluent-bit/storage in the service section";
        checks.push(Check::failed(STAGE, detail).advise(advice).at([line("")]));
    }
    if stanza.db().is_none() {
        let check = Check::warning(STAGE, "no db: nothing is remembered across restarts")
            .advise("write db: /var/lib/fluent-bit/trendmicro.db");
        checks.push(check.at(stanza.lines("", &["db"])));
    }
    if stanza.0.value("threaded").is_some_and(|value| !is_on(value)) {
        let check = Check::warning(STAGE, "threaded is off: a slow output holds up the collecting");
        checks.push(check.advise("remove threaded").at(stanza.line_of_key("threaded")));
    }
    checks
}

fn is_on(value: &str) -> bool {
    ["on", "true", "yes"].iter().any(|on| value.eq_ignore_ascii_case(on))
}

/// Looks at the outputs: whether one takes this input's records, and whether it gives up.
#[must_use]
pub fn outputs(host: &HostConfig, stanza: Stanza<'_>, config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let at = |section: &crate::host::Section, text: &str| Line {
        at: section.at.clone(),
        text: text.to_owned(),
    };
    for tag in tags(stanza, config) {
        let takers: Vec<_> = host.outputs().filter(|output| takes(output, &tag)).collect();
        if takers.is_empty() {
            let detail = format!("no output takes the tag {tag}: its records are dropped");
            let line = stanza.line_of_key("tag_format").or_else(|| stanza.line_of_key("tag"));
            let check = Check::failed(STAGE, detail);
            checks.push(check.advise("write match: 'trendmicro*' in an output").at(line));
        }
    }
    for output in host.outputs().filter(|output| output.value("retry_limit").is_none()) {
        let name = output.value("name").unwrap_or("?");
        if ["stdout", "null", "file", "counter"].contains(&name) {
            continue;
        }
        let detail = format!("output {name} gives up after one retry, which loses records");
        let check = Check::warning(STAGE, detail).advise("write retry_limit: no_limits");
        checks.push(check.at([at(output, "add retry_limit: no_limits")]));
    }
    checks
}

/// The tags that an input's records get.
fn tags(stanza: Stanza<'_>, config: &Config) -> Vec<String> {
    let Some(format) = &config.tag_format else {
        return stanza.0.value("tag").map(str::to_owned).into_iter().collect();
    };
    let mut tags = Vec::new();
    for one in &config.connectors {
        for stream in connect(one).streams() {
            let tag = format.replace("{connector}", &one.name);
            let tag = tag.replace("{content_type}", stream.content_type);
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
    }
    tags
}

/// Whether an output takes a tag; of one with `match_regex`, nobody here knows.
fn takes(output: &crate::host::Section, tag: &str) -> bool {
    let pattern = output.value("match").unwrap_or_default();
    output.value("match_regex").is_some() || is_match(pattern, tag)
}

/// The host's wildcards: `*` is any text.
fn is_match(pattern: &str, tag: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == tag,
        Some((head, rest)) => {
            let Some(tag) = tag.strip_prefix(head) else { return false };
            (0..=tag.len()).filter(|&i| tag.is_char_boundary(i)).any(|i| is_match(rest, &tag[i..]))
        }
    }
}

/// Compares all inputs with each other: state files, and credentials.
#[must_use]
pub fn across(inputs: &[(Stanza<'_>, Vec<ConnectorConfig>)]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut files: HashMap<PathBuf, Line> = HashMap::new();
    for (stanza, _) in inputs {
        // A database serves any number of inputs.
        let file = stanza.db().filter(|path| !path.to_str().is_some_and(is_database));
        let (Some(db), Some(line)) = (file, stanza.line_of_key("db")) else { continue };
        if let Some(first) = files.insert(same(&db), line.clone()) {
            let detail = format!(
                "two inputs use one state file, {}: the second does not start",
                db.display()
            );
            let advice = format!("write db: {}.second for one of them", db.display());
            checks.push(Check::failed(STAGE, detail).advise(advice).at([first, line]));
        }
    }
    if inputs.len() > 1 {
        let check =
            Check::warning(STAGE, "several inputs of this plugin: Fluent Bit pauses the wrong one");
        let lines = inputs.iter().filter_map(|(stanza, _)| stanza.line_of_key("name"));
        checks.push(check.advise("prefer one input with connectors").at(lines));
    }
    let all: Vec<(Stanza<'_>, &ConnectorConfig)> =
        inputs.iter().flat_map(|(stanza, configs)| configs.iter().map(|c| (*stanza, c))).collect();
    for (i, (stanza, one)) in all.iter().enumerate() {
        for (other_stanza, other) in &all[..i] {
            let lines = [
                stanza
                    .line(&one.name, "api_key")
                    .or_else(|| stanza.line(&one.name, "api_key_file")),
                other_stanza
                    .line(&other.name, "api_key")
                    .or_else(|| other_stanza.line(&other.name, "api_key_file")),
            ];
            checks.extend(shared(one, other).map(|check| check.at(lines.into_iter().flatten())));
        }
    }
    checks
}

/// Two connectors that use one key.
fn shared(one: &ConnectorConfig, two: &ConnectorConfig) -> Option<Check> {
    let key = |config: &ConnectorConfig| Some(config.api_key.get().ok()?.expose().to_owned());
    let is_same = one.product.name == two.product.name
        && one.base_url.authority() == two.base_url.authority()
        && (&one.username, &one.application_id) == (&two.username, &two.application_id)
        && key(one) == key(two);
    if !is_same {
        return None;
    }
    let (first, second) = (connect(two), connect(one));
    let both = second
        .streams()
        .iter()
        .find(|stream| first.streams().iter().any(|other| other.name == stream.name));
    if let Some(stream) = both {
        let detail = format!(
            "{} and {} collect the same, with one key: {} and others come twice",
            two.name, one.name, stream.name
        );
        let advice = "remove one of them, or give them different content types";
        return Some(Check::warning(STAGE, detail).advise(advice));
    }
    one.product.is_budgeted.then(|| {
        let detail = format!("{} and {} share one key and its few requests", two.name, one.name);
        Check::warning(STAGE, detail).advise("make a second key in the vendor's console")
    })
}

/// One name for a file, also for one that does not exist yet.
fn same(path: &Path) -> PathBuf {
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let in_folder = || Some(whole(parent.unwrap_or(Path::new(".")))?.join(path.file_name()?));
    whole(path).or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_the_hosts() {
        for (pattern, tag, expected) in [
            ("*", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*.c", "a.b.c", true),
            ("a.*", "b.a", false),
            ("a", "a.b", false),
            ("*b", "a.b", true),
            ("", "a", false),
        ] {
            assert_eq!(is_match(pattern, tag), expected, "{pattern} {tag}");
        }
    }

    #[test]
    fn what_is_close_is_suggested_and_what_is_far_is_not() {
        assert_eq!(closest("intervall", known_keys()), Some("interval"));
        assert_eq!(closest("conector", known_keys()), Some("connector"));
        assert_eq!(closest("favourite_colour", known_keys()), None);
    }
}
