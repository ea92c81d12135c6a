//! From the host's properties to a checked [`Config`]. Only this room knows property names.
//!
//! A host shows a proxy plugin no list of its keys, only the value of a key it asks for. So
//! everything is asked for: the options of `OPTIONS`, with every connector's prefix, and the ways in
//! which people misspell them.

mod keys;
pub mod options;
pub mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::connector::{self, Product, cloud_app_security, workload_security};
use crate::error::{Error, Result};
use crate::secret::{Credential, Secret, SecretFile};

use keys::{connector_names, refuse_foreign_keys, refuse_mistaken_keys};
use options::{Opt, Scope};
pub use value::BaseUrl;

const TENANT_CHARS_MAX: usize = 256;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The vendor's record under its product's name, with our metadata beside it.
    Envelope,
    /// The vendor's record alone.
    Raw,
}

/// How records reach the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverMode {
    /// Append if the host exports the function, else return.
    Auto,
    /// Append, and refuse to start where the host does not export it.
    Append,
    /// Return one buffer from the callback.
    Return,
}

/// Which proxy requests take.
#[derive(Clone)]
pub enum Proxy {
    /// What the environment says.
    Environment,
    /// None, whatever the environment says.
    Off,
    /// This one; its address may hold a password.
    Url(Secret),
}

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether the vendor's certificate is verified.
    pub verify: bool,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

/// The state file.
#[derive(Clone, Debug)]
pub struct Db {
    /// Where it lies.
    pub path: PathBuf,
    /// SQLite's `synchronous`.
    pub sync: &'static str,
}

/// One connector.
pub struct ConnectorConfig {
    /// Its name in log lines, tags and records.
    pub name: String,
    /// What it collects from.
    pub product: &'static Product,
    /// The root of the API.
    pub base_url: BaseUrl,
    /// Login ID, for the products that have one.
    pub username: String,
    /// Application ID, for the products that have one.
    pub application_id: String,
    /// The API key.
    pub api_key: Arc<Credential>,
    /// Content types to collect; empty means all.
    pub content_types: Vec<String>,
    /// Services to collect from; empty means all.
    pub services: Vec<String>,
    /// Event types to collect; empty means all.
    pub event_types: Vec<String>,
    /// What to expand.
    pub expand: Vec<String>,
    /// Time between rounds.
    pub interval: Duration,
    /// Where a first round starts.
    pub lookback: Duration,
    /// How far each round reaches back.
    pub overlap: Duration,
    /// Written into each record.
    pub tenant_name: Option<String>,
    /// How records are written.
    pub format: Format,
    /// Requests per minute for the credential.
    pub rate_limit: Option<u32>,
    /// Time for one request.
    pub timeout: Duration,
    /// How TLS is spoken.
    pub tls: Tls,
    /// Which proxy requests take.
    pub proxy: Proxy,
}

/// One stanza.
pub struct Config {
    /// Its connectors, at least one.
    pub connectors: Vec<ConnectorConfig>,
    /// Tag per connector and content type, with `{connector}` and `{content_type}`.
    pub tag_format: Option<String>,
    /// Bytes fetched but not confirmed.
    pub queue_bytes_max: usize,
    /// How records reach the host.
    pub handover: HandoverMode,
    /// The state file.
    pub db: Option<Db>,
}

/// Looks up a property of the stanza; `None` if absent or empty.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads and checks every property.
    ///
    /// # Errors
    /// For the first wrong property: its name, value, what is legal, and what to write.
    pub fn read(lookup: Lookup<'_>) -> Result<Self> {
        let names = connector_names(lookup)?;
        let prefixes: Vec<String> = std::iter::once(String::new())
            .chain(names.iter().flatten().map(|name| format!("{name}.")))
            .collect();
        refuse_mistaken_keys(lookup, &prefixes)?;
        let stanza = Properties { lookup, name: None, product: None };
        let connectors = match &names {
            None => vec![connector(Properties { lookup, name: None, product: None })?],
            Some(names) => names
                .iter()
                .map(|name| connector(Properties { lookup, name: Some(name), product: None }))
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            connectors,
            tag_format: stanza.parse_optional("tag_format", tag_format)?,
            queue_bytes_max: stanza
                .parse("queue_limit", |text| value::size(text, 1_000_000, 1_000_000_000))?,
            handover: stanza.parse("handover", |text| {
                choice(
                    text,
                    &[
                        ("auto", HandoverMode::Auto),
                        ("append", HandoverMode::Append),
                        ("return", HandoverMode::Return),
                    ],
                )
            })?,
            db: db(&stanza)?,
        })
    }
}

/// The properties that one connector, or the stanza itself, sees.
struct Properties<'a> {
    lookup: Lookup<'a>,
    name: Option<&'a str>,
    /// Whose defaults hold.
    product: Option<&'static Product>,
}

impl Properties<'_> {
    /// The key that holds the value, and the value with surrounding space removed.
    fn get(&self, opt: &Opt) -> Option<(String, String)> {
        let prefixed = self.name.map(|name| format!("{name}.{}", opt.name));
        prefixed.into_iter().chain([opt.name.to_owned()]).find_map(|key| {
            let value = (self.lookup)(&key)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (key, value.to_owned()))
        })
    }

    /// The key that a person would write for `opt` here.
    fn key(&self, opt: &Opt) -> String {
        match (self.name, opt.scope) {
            (Some(name), Scope::Connector | Scope::Only(_)) => format!("{name}.{}", opt.name),
            _ => opt.name.to_owned(),
        }
    }

    /// A property that has a default or is required.
    fn parse<T>(&self, name: &str, read: impl Fn(&str) -> Result<T, &'static str>) -> Result<T> {
        let opt = option(name);
        if let Some((key, value)) = self.get(opt) {
            return read(&value).map_err(|why| wrong(opt, &key, &value, why));
        }
        let default = self.default(opt);
        if default.is_empty() {
            return Err(missing(opt, &self.key(opt)));
        }
        read(default).map_err(|why| wrong(opt, opt.name, default, why))
    }

    /// The product's own default, or the common one.
    fn default(&self, opt: &Opt) -> &'static str {
        let own = self
            .product
            .and_then(|product| product.defaults.iter().find(|(name, _)| *name == opt.name));
        own.map_or(opt.default.split(';').next().unwrap_or_default(), |(_, default)| default)
    }

    /// A property that only some products have; without it, nothing.
    fn parse_if_used<T: Default>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<T> {
        let is_used = match (option(name).scope, self.product) {
            (Scope::Only(products), Some(product)) => products.contains(&product.name),
            _ => true,
        };
        if is_used { self.parse(name, read) } else { Ok(T::default()) }
    }

    /// A property that may be absent.
    fn parse_optional<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>> {
        let opt = option(name);
        let Some((key, value)) = self.get(opt) else { return Ok(None) };
        read(&value).map(Some).map_err(|why| wrong(opt, &key, &value, why))
    }
}

/// The table has every name that this room asks for; a test reads them all.
fn option(name: &str) -> &'static Opt {
    options::find(name).expect("every property that is read stands in OPTIONS")
}

fn wrong(opt: &Opt, key: &str, value: &str, why: &str) -> Error {
    // An address may hold a password even where none belongs.
    let shown = if opt.secret || (value.contains("://") && value.contains('@')) {
        String::new()
    } else {
        format!(" = \"{}\"", value.chars().take(200).collect::<String>())
    };
    let Opt { legal, example, .. } = opt;
    Error::config(format!("{key}{shown}: {why}; legal: {legal}; write: {key}: {example}"))
}

fn missing(opt: &Opt, key: &str) -> Error {
    let Opt { legal, example, .. } = opt;
    Error::config(format!("{key} is missing; legal: {legal}; write: {key}: {example}"))
}

/// Reads one connector.
fn connector(mut properties: Properties<'_>) -> Result<ConnectorConfig> {
    let product = properties.parse("connector", |text| {
        connector::product(text).ok_or("not a connector of this plugin")
    })?;
    properties.product = Some(product);
    let properties = &properties;
    refuse_foreign_keys(properties, product)?;
    let duration = |name, min, max| {
        properties.parse_if_used(name, move |text| value::duration(text, min, max))
    };
    let list =
        |name, legal: &[&str]| properties.parse_if_used(name, |text| value::choices(text, legal));
    let services: Vec<&str> = cloud_app_security::SERVICES.iter().map(|(name, _)| *name).collect();
    Ok(ConnectorConfig {
        name: properties.name.unwrap_or(product.name).to_owned(),
        product,
        base_url: base_url(properties, product)?,
        username: properties.parse_if_used("username", username)?,
        application_id: properties.parse_if_used("application_id", application_id)?,
        api_key: Arc::new(api_key(properties)?),
        content_types: list("content_types", product.content_types)?,
        services: list("services", &services)?,
        event_types: list("event_types", cloud_app_security::EVENT_TYPES)?,
        expand: properties.parse_if_used("expand", |text| expansions(text))?,
        interval: duration("interval", SECOND, DAY)?,
        lookback: duration("lookback", SECOND, 72 * HOUR)?,
        overlap: duration("overlap", Duration::ZERO, DAY)?,
        tenant_name: properties.parse_optional("tenant_name", tenant_name)?,
        format: properties.parse("format", |text| {
            choice(text, &[("envelope", Format::Envelope), ("raw", Format::Raw)])
        })?,
        rate_limit: properties.parse("rate_limit", value::rate)?,
        timeout: duration("timeout", SECOND, 600 * SECOND)?,
        tls: tls(properties)?,
        proxy: proxy(properties)?,
    })
}

fn base_url(properties: &Properties<'_>, product: &Product) -> Result<BaseUrl> {
    let read = |text: &str| value::base_url(text, product.api_root);
    if let Some(url) = properties.parse_optional("base_url", read)? {
        return Ok(url);
    }
    if product.regions.is_empty() {
        return properties.parse("base_url", read);
    }
    properties.parse("region", |text| read(choice(text, product.regions)?))
}

fn api_key(properties: &Properties<'_>) -> Result<Credential> {
    let (inline, file) = (option("api_key"), option("api_key_file"));
    match (properties.get(inline), properties.get(file)) {
        (None, None) => Err(missing(inline, &properties.key(inline))),
        (Some((key, value)), None) => inline_key(inline, &key, &value),
        (None, Some((key, value))) => key_file(file, &key, &value),
        // What is written for one connector goes before what is written for all.
        (Some((one, value)), Some((two, _)))
            if one.len() - inline.name.len() > two.len() - file.name.len() =>
        {
            inline_key(inline, &one, &value)
        }
        (Some((one, _)), Some((two, value)))
            if one.len() - inline.name.len() < two.len() - file.name.len() =>
        {
            key_file(file, &two, &value)
        }
        (Some((one, _)), Some((two, _))) => Err(Error::config(format!(
            "{one} and {two} are both set; legal: one of them; write: only {two}, and remove {one}"
        ))),
    }
}

fn inline_key(opt: &Opt, key: &str, value: &str) -> Result<Credential> {
    if value.chars().any(char::is_control) {
        return Err(wrong(opt, key, value, "more than one line"));
    }
    Ok(Credential::Inline(Secret::new(value)))
}

fn key_file(opt: &Opt, key: &str, value: &str) -> Result<Credential> {
    let credential = Credential::File(SecretFile::new(Path::new(value)));
    match credential.get() {
        Ok(_) => Ok(credential),
        Err(error) => Err(wrong(opt, key, value, &error.to_string())),
    }
}

fn tls(properties: &Properties<'_>) -> Result<Tls> {
    let file = |name| properties.parse_optional(name, existing_file);
    let client = match (file("tls_crt_file")?, file("tls_key_file")?) {
        (Some(crt), Some(key)) => Some((crt, key)),
        (None, None) => None,
        (Some(_), None) => {
            let opt = option("tls_key_file");
            return Err(missing(opt, &properties.key(opt)));
        }
        (None, Some(_)) => {
            let opt = option("tls_crt_file");
            return Err(missing(opt, &properties.key(opt)));
        }
    };
    Ok(Tls {
        verify: properties.parse("tls_verify", value::switch)?,
        ca_file: file("tls_ca_file")?,
        client,
        only_1_3: properties.parse("tls_min_version", |text| {
            choice(text.trim_start_matches("TLSv"), &[("1.2", false), ("1.3", true)])
        })?,
    })
}

fn proxy(properties: &Properties<'_>) -> Result<Proxy> {
    let proxy = properties.parse_optional("proxy", |text| {
        if text == "off" {
            return Ok(Proxy::Off);
        }
        let url = url::Url::parse(text).map_err(|_| "not an address")?;
        match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(_)) => Ok(Proxy::Url(Secret::new(text))),
            _ => Err("not an http address"),
        }
    })?;
    Ok(proxy.unwrap_or(Proxy::Environment))
}

fn db(stanza: &Properties<'_>) -> Result<Option<Db>> {
    let sync = stanza.parse("db.sync", |text| {
        let modes = [("extra", "EXTRA"), ("full", "FULL"), ("normal", "NORMAL"), ("off", "OFF")];
        choice(text, &modes)
    })?;
    let path = stanza.parse_optional("db", |text| {
        if text.contains("://") {
            return Err("not a file path");
        }
        let path = PathBuf::from(text);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        match parent.unwrap_or(Path::new(".")).is_dir() {
            true if path.is_dir() => Err("a directory"),
            true => Ok(path),
            false => Err("its directory does not exist"),
        }
    })?;
    Ok(path.map(|path| Db { path, sync }))
}

fn choice<T: Copy>(text: &str, legal: &[(&str, T)]) -> Result<T, &'static str> {
    let found = legal.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or("not one of the legal values")
}

fn username(text: &str) -> Result<String, &'static str> {
    // Basic authentication ends the name at the first colon.
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err("holds ':' or a control character");
    }
    Ok(text.to_owned())
}

fn application_id(text: &str) -> Result<String, &'static str> {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Ok(text.to_owned());
    }
    Err("other characters than letters, digits and -")
}

/// What to expand; `all` and `none` are the vendor's own words and stay.
fn expansions(text: &str) -> Result<Vec<String>, &'static str> {
    let chosen = value::list(text)?;
    let known = |name: &&str| {
        workload_security::EXPANSIONS.iter().find(|known| known.eq_ignore_ascii_case(name))
    };
    let chosen: Option<Vec<_>> = chosen.iter().map(known).collect();
    let chosen = chosen.ok_or("something that cannot be expanded")?;
    Ok(chosen.into_iter().map(|&name| name.to_owned()).collect())
}

fn tenant_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > TENANT_CHARS_MAX { Err("too long") } else { Ok(text.to_owned()) }
}

fn tag_format(text: &str) -> Result<String, &'static str> {
    let plain = text.replace("{connector}", "").replace("{content_type}", "");
    if plain.contains(['{', '}']) {
        return Err("an unknown placeholder");
    }
    if plain.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("white space, which no tag may hold");
    }
    Ok(text.to_owned())
}

fn existing_file(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("no such file") }
}
