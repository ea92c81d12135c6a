//! One input of this plugin: what its host would show the plugin, and the line behind every answer.

use in_trendmicro::config::options::{self, OPTIONS, Opt};
use in_trendmicro::config::{Config, ConnectorConfig};
use in_trendmicro::error::{Error, Result};
use std::path::PathBuf;

use crate::host::{At, Section};

/// Keys that the host takes for itself and that do what one expects, also for this plugin.
pub const HOST_KEYS: &[&str] = &[
    "alias",
    "log_level",
    "log_suppress_interval",
    "mem_buf_limit",
    "name",
    "processors",
    "rate_gate",
    "rate_gate.backpressure",
    "rate_gate.max_bytes",
    "rate_gate.max_records",
    "rate_gate.resume_ratio",
    "rate_window",
    "routable",
    "routes",
    "storage.pause_on_chunks_overlimit",
    "storage.type",
    "tag",
    "telemetry",
    "thread.ring_buffer.capacity",
    "thread.ring_buffer.window",
    "threaded",
];

/// A line of the configuration, to look at or to change.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it stands; for one that is missing, where its section begins.
    pub at: At,
    /// The line, without its value if that is secret; or what to add.
    pub text: String,
}

/// One input of this plugin.
#[derive(Clone, Copy)]
pub struct Stanza<'a>(pub &'a Section);

impl<'a> Stanza<'a> {
    /// What the host answers when the plugin asks for a key.
    fn lookup(self, key: &str) -> Option<String> {
        // These never reach a plugin.
        let is_swallowed = swallowed(key).is_some();
        self.0.value(key).filter(|_| !is_swallowed).map(str::to_owned)
    }

    /// The configuration as the plugin reads it.
    ///
    /// # Errors
    /// The plugin's own error for the first wrong property.
    pub fn read(self) -> Result<Config> {
        Config::read(&|key| self.lookup(key))
    }

    /// Each connector read by itself, so that what is wrong with one does not hide the others.
    pub fn read_each(self) -> Vec<ConnectorConfig> {
        if let Ok(config) = self.read() {
            return config.connectors;
        }
        let names = self.connector_names();
        let alone = |name: &String| {
            let lookup = |key: &str| match key {
                "connectors" => Some(name.clone()),
                _ => self.lookup(key),
            };
            Some(Config::read(&lookup).ok()?.connectors.remove(0))
        };
        names.iter().filter_map(alone).collect()
    }

    /// The names in `connectors`.
    #[must_use]
    pub fn connector_names(self) -> Vec<String> {
        let names = self.0.value("connectors").unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// The state file's path as it is written.
    #[must_use]
    pub fn db(self) -> Option<PathBuf> {
        self.0.value("db").map(PathBuf::from)
    }

    /// The line that sets a property for a connector: its own, or the default of all.
    #[must_use]
    pub fn line(self, connector: &str, property: &str) -> Option<Line> {
        let own = format!("{connector}.{property}");
        [own.as_str(), property].iter().find_map(|key| self.line_of_key(key))
    }

    /// The lines that set these properties; for those that are missing, what to add.
    #[must_use]
    pub fn lines(self, connector: &str, properties: &[&str]) -> Vec<Line> {
        let found: Vec<Line> = properties.iter().filter_map(|p| self.line(connector, p)).collect();
        if !found.is_empty() {
            return found;
        }
        let missing = properties.first().and_then(|name| options::find(name));
        missing.map(|opt| self.to_add(connector, opt)).into_iter().collect()
    }

    fn to_add(self, connector: &str, opt: &Opt) -> Line {
        let is_named = self.0.value("connectors").is_some();
        let prefix = if is_named { format!("{connector}.") } else { String::new() };
        let text = format!("add {prefix}{}: {}", opt.name, opt.example);
        Line { at: self.0.at.clone(), text }
    }

    /// The line that sets exactly this key.
    #[must_use]
    pub fn line_of_key(self, key: &str) -> Option<Line> {
        let entry = self.0.entry(key)?;
        let bare = key.rsplit('.').next().unwrap_or(key);
        let is_secret = options::find(bare).is_none_or(|opt| opt.hides(&entry.value));
        // A variable's name is no secret, and it is what has to be found again.
        let is_variable = entry.written.starts_with("${") && entry.written.ends_with('}');
        let is_shown = !is_secret || is_variable || HOST_KEYS.contains(&key);
        let value = if is_shown { entry.written.as_str() } else { "…" };
        Some(Line { at: entry.at.clone(), text: format!("{}: {value}", entry.key) })
    }

    /// The line that one of the plugin's own errors speaks of: such an error begins with its key.
    #[must_use]
    pub fn line_of_error(self, error: &Error) -> Line {
        let text = error.to_string();
        let key = text.split([' ', ':']).next().unwrap_or_default();
        let (_, bare) = key.rsplit_once('.').unwrap_or(("", key));
        let found = self.line_of_key(key).or_else(|| self.line_of_key(bare));
        let advice = text.split_once("write: ").map_or(String::new(), |(_, rest)| rest.to_owned());
        let add = Line { at: self.0.at.clone(), text: format!("add {advice}") };
        found.unwrap_or(add)
    }
}

/// What the host does with a key that never reaches a plugin, and whether it then runs at all.
#[must_use]
pub fn swallowed(key: &str) -> Option<(&'static str, bool)> {
    let key = key.to_ascii_lowercase();
    match key.as_str() {
        "host" | "port" | "listen" | "ipv6" => {
            Some(("the host keeps it for itself, and it has no effect; write base_url", true))
        }
        "tls" => Some(("the host then does not start; https needs no switch", false)),
        _ if key.starts_with("tls.") => Some(("the host keeps it for itself", true)),
        _ if key.starts_with("net.") => {
            Some(("the host crashes on it; the plugin's own are timeout and proxy", false))
        }
        _ if key.starts_with("oauth2") => Some(("the host then does not start", false)),
        _ => None,
    }
}

/// Names that a property may have, for advice.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|opt| opt.name).chain(HOST_KEYS.iter().copied())
}
