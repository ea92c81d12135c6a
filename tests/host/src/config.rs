//! The subset of Fluent Bit's classic configuration the host understands.
//!
//! Two kinds of mistakes differ at a hot reload, so they differ here: text that cannot be read at all
//! ([`ConfigError::Syntax`]) is refused before the plugin is registered a second time, a stanza that
//! cannot be used ([`ConfigError::Invalid`]) after it.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Keys of an input the host keeps for itself, whatever the plugin asks.
const RESERVED: [&str; 36] = [
    "name",
    "tag",
    "alias",
    "host",
    "port",
    "listen",
    "ipv6",
    "log_level",
    "log_suppress_interval",
    "mem_buf_limit",
    "routable",
    "routes",
    "processors",
    "storage.type",
    "storage.pause_on_chunks_overlimit",
    "threaded",
    "thread.ring_buffer.capacity",
    "thread.ring_buffer.window",
    "tls",
    "tls.ca_file",
    "tls.ca_path",
    "tls.crt_file",
    "tls.debug",
    "tls.key_file",
    "tls.key_passwd",
    "tls.verify",
    "tls.vhost",
    "tls.verify_hostname",
    "tls.ciphers",
    "tls.min_version",
    "tls.max_version",
    "tls.verify_client_cert",
    "rate_gate",
    "rate_window",
    "rate_gate.max_bytes",
    "rate_gate.max_records",
];

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The text is not in the classic format.
    Syntax(String),
    /// A section or a value in it is refused.
    Invalid(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) | Self::Invalid(text) => out.write_str(text),
        }
    }
}

/// A section as written: its name in lower case and its pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    name: String,
    pairs: Vec<(String, String)>,
}

impl Section {
    fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn bool(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.get(key).map_or(Ok(default), |value| boolean(key, value))
    }
}

/// Sections of a text, in its order.
pub fn parse(text: &str) -> Result<Vec<Section>, ConfigError> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| ConfigError::Syntax(format!("line {}: {what}", index + 1));
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| wrong("unclosed section"))?;
            sections.push(Section { name: name.to_ascii_lowercase(), pairs: Vec::new() });
            continue;
        }
        let (key, value) =
            line.split_once(char::is_whitespace).ok_or_else(|| wrong("a key without a value"))?;
        let section = sections.last_mut().ok_or_else(|| wrong("a key before any section"))?;
        section.pairs.push((key.to_owned(), translate(value.trim())));
    }
    Ok(sections)
}

/// Replaces `${NAME}` once; an unset variable is empty, and there is no way to write a literal `${`.
fn translate(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&std::env::var(name.trim()).unwrap_or_default());
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `[SERVICE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The level of instances without their own.
    pub log_level: i32,
    /// Where filesystem storage lives.
    pub storage_path: Option<PathBuf>,
    /// Checks a stop makes at most while chunks are pending; -1 for no end.
    pub grace: i64,
    /// Whether a hot reload is allowed.
    pub hot_reload: bool,
    /// Whether a hot reload waits for pending chunks without end.
    pub reload_waits: bool,
    /// Period of handing chunks to the outputs.
    pub flush: Option<Duration>,
}

/// One `[INPUT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSettings {
    /// NAME.N.
    pub name: String,
    /// The alias, if any.
    pub alias: Option<String>,
    /// The tag of records that come without one.
    pub tag: String,
    /// 0 (off) to 5 (trace).
    pub log_level: i32,
    /// Bytes in chunks at which the input is paused.
    pub mem_buf_limit: Option<usize>,
    /// Whether chunks are written to disk.
    pub filesystem: bool,
    /// Whether the instance has a thread of its own.
    pub threaded: bool,
    /// Slots of the ring, if the stanza says so.
    pub ring_slots: Option<usize>,
    /// What the plugin can ask for, in the order written; None for an empty value.
    pub properties: Vec<(String, Option<CString>)>,
}

/// Where an output writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// JSON lines on standard output.
    Stdout,
    /// JSON lines in a directory; without a name the tag is the name.
    File(PathBuf, Option<String>),
    /// Nowhere.
    Null,
}

/// One `[OUTPUT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// Where it writes.
    pub target: Target,
    /// The tags it takes; without a pattern it takes none.
    pub pattern: Option<String>,
}

/// A usable configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The service section, or its defaults.
    pub service: Service,
    /// The inputs in order.
    pub inputs: Vec<InputSettings>,
    /// The outputs in order.
    pub outputs: Vec<OutputSettings>,
}

impl Config {
    /// Reads the sections for a host that has loaded the input plugin `plugin`.
    pub fn new(sections: &[Section], plugin: &str) -> Result<Self, ConfigError> {
        let empty = Section::default();
        let service = sections.iter().find(|s| s.name == "service").unwrap_or(&empty);
        let service = service_settings(service)?;
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        for section in sections {
            match section.name.as_str() {
                "service" => {}
                "input" => inputs.push(input(section, plugin, inputs.len(), &service)?),
                "output" => outputs.push(output(section)?),
                other => return Err(invalid(format!("section [{other}] is not supported"))),
            }
        }
        if inputs.iter().any(|input| input.filesystem) && service.storage_path.is_none() {
            return Err(invalid("storage.type filesystem needs storage.path".to_owned()));
        }
        Ok(Self { service, inputs, outputs })
    }
}

fn service_settings(section: &Section) -> Result<Service, ConfigError> {
    let number = |key: &str| -> Result<Option<f64>, ConfigError> {
        let parse = |value: &str| {
            value.parse().map_err(|_| invalid(format!("'{value}' is no number for {key}")))
        };
        section.get(key).map(parse).transpose()
    };
    #[expect(clippy::cast_possible_truncation, reason = "a grace of years is cut without harm")]
    let grace = number("grace")?.map_or(5, |grace| grace as i64);
    let flush = number("flush")?.filter(|secs| *secs > 0.0);
    Ok(Service {
        log_level: section.get("log_level").map_or(Ok(3), log_level)?,
        storage_path: section.get("storage.path").map(PathBuf::from),
        grace,
        hot_reload: section.bool("hot_reload", false)?,
        reload_waits: section.bool("hot_reload.ensure_thread_safety", true)?,
        flush: flush.map(Duration::from_secs_f64),
    })
}

fn input(
    section: &Section,
    plugin: &str,
    index: usize,
    service: &Service,
) -> Result<InputSettings, ConfigError> {
    let kind = section.get("name").ok_or_else(|| invalid("an input without a name".to_owned()))?;
    if !kind.eq_ignore_ascii_case(plugin) {
        return Err(invalid(format!(
            "[config] could not find input plugin '{kind}': tried to instance a plugin name that \
             doesn't exist"
        )));
    }
    refuse(section)?;
    let name = format!("{plugin}.{index}");
    let filesystem = match section.get("storage.type").map(str::to_ascii_lowercase).as_deref() {
        None | Some("memory" | "memrb") => false,
        Some("filesystem") => true,
        Some(other) => return Err(invalid(format!("storage.type '{other}' is unknown"))),
    };
    let ring_slots = section.get("thread.ring_buffer.capacity").map(|value| {
        let slots = value.parse::<usize>().ok().filter(|slots| *slots > 0);
        slots.ok_or_else(|| invalid(format!("'{value}' is no ring buffer capacity")))
    });
    Ok(InputSettings {
        alias: section.get("alias").map(str::to_owned),
        tag: section.get("tag").unwrap_or(&name).to_owned(),
        log_level: section.get("log_level").map_or(Ok(service.log_level), log_level)?,
        mem_buf_limit: section.get("mem_buf_limit").map(size).transpose()?,
        filesystem,
        threaded: section.bool("threaded", true)?,
        ring_slots: ring_slots.transpose()?,
        properties: properties(section)?,
        name,
    })
}

/// What a real host refuses or dies of.
fn refuse(section: &Section) -> Result<(), ConfigError> {
    for (key, value) in &section.pairs {
        let key = key.to_ascii_lowercase();
        if key.starts_with("oauth2") {
            return Err(invalid(format!("[input] {key}: OAuth2 is not supported by this plugin")));
        }
        if key.starts_with("net.") {
            return Err(invalid(format!("[input] {key}: a real host dies of SIGSEGV here")));
        }
        if key == "tls" && boolean(&key, value)? {
            return Err(invalid("[config] the plugin does not support TLS".to_owned()));
        }
    }
    Ok(())
}

fn properties(section: &Section) -> Result<Vec<(String, Option<CString>)>, ConfigError> {
    let mut all = Vec::new();
    for (key, value) in &section.pairs {
        let lower = key.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) || lower.starts_with("rate_gate.") {
            continue;
        }
        let text = CString::new(value.as_str())
            .map_err(|_| invalid(format!("the value of {key} has a NUL byte")))?;
        all.push((key.clone(), Some(text).filter(|text| !text.is_empty())));
    }
    Ok(all)
}

fn output(section: &Section) -> Result<OutputSettings, ConfigError> {
    let kind = section.get("name").unwrap_or_default().to_ascii_lowercase();
    let target = match kind.as_str() {
        "stdout" => Target::Stdout,
        "null" => Target::Null,
        "file" => Target::File(
            PathBuf::from(section.get("path").unwrap_or(".")),
            section.get("file").map(str::to_owned),
        ),
        other => {
            return Err(invalid(format!(
                "[config] could not find output plugin '{other}': tried to instance a plugin name \
                 that doesn't exist"
            )));
        }
    };
    Ok(OutputSettings { target, pattern: section.get("match").map(str::to_owned) })
}

fn invalid(text: String) -> ConfigError {
    ConfigError::Invalid(text)
}

fn boolean(key: &str, value: &str) -> Result<bool, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        _ => Err(invalid(format!("'{value}' is no boolean for {key}"))),
    }
}

fn log_level(value: &str) -> Result<i32, ConfigError> {
    match value.to_ascii_lowercase().as_str() {
        "off" => Ok(0),
        "error" => Ok(1),
        "warn" | "warning" => Ok(2),
        "info" => Ok(3),
        "debug" => Ok(4),
        "trace" => Ok(5),
        _ => Err(invalid(format!("log_level '{value}' is unknown"))),
    }
}

/// A size such as `5M`; the host's units are decimal.
fn size(value: &str) -> Result<usize, ConfigError> {
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(1),
        "K" | "KB" => Some(1_000),
        "M" | "MB" => Some(1_000_000),
        "G" | "GB" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    bytes.ok_or_else(|| invalid(format!("'{value}' is no size")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, ConfigError> {
        Config::new(&parse(text)?, "probe")
    }

    #[test]
    fn first_value_wins_and_reserved_keys_stay() {
        let text =
            "# c\n[INPUT]\n  Name probe\n  TAG t\n  Url a # b\n  url c\n  mem_buf_limit 5M\n";
        let config = config(text).unwrap();
        let input = &config.inputs[0];
        assert_eq!((input.tag.as_str(), input.mem_buf_limit), ("t", Some(5_000_000)));
        let names: Vec<_> = input.properties.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(names, ["Url", "url"]);
        assert_eq!(input.properties[0].1.as_deref(), Some(c"a # b"));
    }

    #[test]
    fn an_unset_variable_is_an_empty_value() {
        let config = config("[INPUT]\nName probe\nurl ${EMBEDDED_HOST_UNSET}\n").unwrap();
        assert_eq!(config.inputs[0].properties, [("url".to_owned(), None)]);
    }

    #[test]
    fn refusals() {
        for line in ["oauth2_x 1", "tls on", "net.x 1", "threaded maybe", "storage.type disk"] {
            let result = config(&format!("[INPUT]\nName probe\n{line}\n"));
            assert!(matches!(result, Err(ConfigError::Invalid(_))), "{line}");
        }
        assert!(matches!(config("[INPUT]\nName other\n"), Err(ConfigError::Invalid(_))));
        assert!(matches!(config("[INPUT\n"), Err(ConfigError::Syntax(_))));
    }
}
