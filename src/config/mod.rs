//! From the host's properties to a checked [`Config`]. Only this room knows property names.
//!
//! A host shows a proxy plugin no list of its keys, only the value of a key it asks for. So
//! everything is asked for: the options of `OPTIONS`, with every connector's prefix, and the ways in
//! which people misspell them.

mod db;
mod keys;
pub mod options;
mod properties;
pub mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::connector::{self, Product, cloud_app_security, workload_security};
use crate::error::{Error, Result};
use crate::secret::{Credential, Secret, SecretFile};

pub use db::{Db, DbFile, DbServer};
use keys::{connector_names, refuse_foreign_keys, refuse_mistaken_keys, refuse_unused_defaults};
use options::Opt;
use properties::{Properties, option};
pub use value::BaseUrl;
use value::{Why, choice};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What a hash of personal data is keyed with; who can guess it can guess the data.
const REDACT_KEY_BYTES_MIN: usize = 16;
/// What can be redacted.
const REDACT: &[(&str, Redact)] = &[
    ("subject", Redact::Subject),
    ("recipients", Redact::Recipients),
    ("file_names", Redact::FileNames),
];

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The vendor's record under its product's name, with our metadata beside it.
    Envelope,
    /// The vendor's record alone.
    Raw,
    /// Elastic Common Schema.
    Ecs,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
}

/// Which mapping of Email Security to ECS holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcsMapping {
    /// Every field.
    #[default]
    Full,
    /// What Sekoia.io's parser yields, and nothing more.
    Sekoia,
    /// What it yielded in 2023, to the letter.
    Sekoia2023,
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redact {
    /// Subjects of mails.
    Subject,
    /// Who received them.
    Recipients,
    /// Names of files and attachments.
    FileNames,
}

/// What is redacted, and how.
#[derive(Clone, Default)]
pub struct Redaction {
    /// Which data; empty for none.
    pub what: Vec<Redact>,
    /// The key to hash it with; without one it is dropped.
    pub key: Option<Secret>,
}

/// Which records of an inventory are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// All, every round.
    #[default]
    All,
    /// Those that were added, changed or removed.
    Changes,
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
    /// Whether what was read is read again later.
    pub verify: bool,
    /// Which records of an inventory are delivered.
    pub emit: Emit,
    /// Written into each record.
    pub tenant_name: Option<String>,
    /// How records are written.
    pub format: Format,
    /// Which mapping of Email Security to ECS holds.
    pub ecs_mapping: EcsMapping,
    /// What is redacted in them.
    pub redaction: Redaction,
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
    /// Where it is remembered what was delivered.
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
        refuse_mistaken_keys(lookup, names.as_deref())?;
        let stanza = Properties::of_stanza(lookup);
        let connectors = match &names {
            None => vec![connector(stanza)?],
            Some(names) => names
                .iter()
                .map(|name| connector(Properties::of_connector(lookup, name)))
                .collect::<Result<_>>()?,
        };
        refuse_unused_defaults(lookup, &connectors)?;
        Ok(Self {
            connectors,
            tag_format: stanza.parse_optional("tag_format", value::tag_format)?,
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
            db: db::read(&stanza)?,
        })
    }
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
        username: properties.parse_if_used("username", value::username)?,
        application_id: properties.parse_if_used("application_id", value::application_id)?,
        api_key: Arc::new(api_key(properties)?),
        content_types: list("content_types", product.content_types)?,
        services: list("services", &services)?,
        event_types: list("event_types", cloud_app_security::EVENT_TYPES)?,
        expand: properties.parse_if_used("expand", expansions)?,
        interval: duration("interval", SECOND, DAY)?,
        lookback: duration("lookback", SECOND, 72 * HOUR)?,
        overlap: duration("overlap", Duration::ZERO, DAY)?,
        verify: properties.parse_if_used("verify", value::switch)?,
        emit: properties.parse_if_used("emit", |text| {
            choice(text, &[("all", Emit::All), ("changes", Emit::Changes)])
        })?,
        tenant_name: properties.parse_optional("tenant_name", value::tenant_name)?,
        format: properties.parse("format", |text| {
            choice(
                text,
                &[
                    ("envelope", Format::Envelope),
                    ("ecs", Format::Ecs),
                    ("ocsf", Format::Ocsf),
                    ("raw", Format::Raw),
                ],
            )
        })?,
        ecs_mapping: properties.parse_if_used("ecs_mapping", |text| {
            choice(
                text,
                &[
                    ("full", EcsMapping::Full),
                    ("sekoia", EcsMapping::Sekoia),
                    ("sekoia_2023", EcsMapping::Sekoia2023),
                ],
            )
        })?,
        redaction: redaction(properties)?,
        rate_limit: properties.parse("rate_limit", value::rate)?,
        timeout: duration("timeout", SECOND, 600 * SECOND)?,
        tls: tls(properties)?,
        proxy: proxy(properties)?,
    })
}

/// The root of the API: an address, or a region's. A region is read even if it is not needed.
fn base_url(properties: &Properties<'_>, product: &Product) -> Result<BaseUrl> {
    let read = |text: &str| value::base_url(text, product.api_root);
    let url = properties.parse_optional("base_url", read)?;
    let of_region = properties.parse_if_used("region", |text| {
        let host = choice(text, product.regions)
            .map_err(|_| Why::from(format!("no region of {}", product.name)))?;
        Ok::<_, Why>(Some(read(host)?))
    })?;
    url.or(of_region).ok_or_else(|| {
        let because = format!("every customer of {} has an address", product.name);
        properties.missing(option("base_url"), Some(&because))
    })
}

fn api_key(properties: &Properties<'_>) -> Result<Credential> {
    let (inline, file) = (option("api_key"), option("api_key_file"));
    match (properties.get(inline), properties.get(file)) {
        (None, None) => Err(properties.missing(inline, None)),
        (Some((key, value)), None) => inline_key(properties, inline, &key, &value),
        (None, Some((key, value))) => key_file(properties, file, &key, &value),
        // What is written for one connector goes before what is written for all.
        (Some((one, value)), Some((two, _)))
            if one.len() - inline.name.len() > two.len() - file.name.len() =>
        {
            inline_key(properties, inline, &one, &value)
        }
        (Some((one, _)), Some((two, value)))
            if one.len() - inline.name.len() < two.len() - file.name.len() =>
        {
            key_file(properties, file, &two, &value)
        }
        (Some((one, _)), Some((two, _))) => Err(Error::config(format!(
            "{one}: set beside {two}; legal: one of them; write: remove {one}"
        ))),
    }
}

fn inline_key(
    properties: &Properties<'_>,
    opt: &Opt,
    key: &str,
    value: &str,
) -> Result<Credential> {
    if value.chars().any(char::is_control) {
        return Err(properties.wrong(opt, key, value, "more than one line"));
    }
    Ok(Credential::Inline(Secret::new(value)))
}

fn key_file(properties: &Properties<'_>, opt: &Opt, key: &str, value: &str) -> Result<Credential> {
    let credential = Credential::File(SecretFile::new(Path::new(value)));
    let Err(error) = credential.get() else { return Ok(credential) };
    // The error names the file, which the line does already.
    let text = error.to_string();
    let text = text.strip_prefix(&format!("file \"{value}\" ")).unwrap_or(&text);
    let why = if opt.hides(value) { "not a file".to_owned() } else { text.to_owned() };
    Err(properties.wrong(opt, key, value, why))
}

/// What to redact; a key makes sense only with it, and only if it cannot be guessed.
fn redaction(properties: &Properties<'_>) -> Result<Redaction> {
    let what = properties.parse_optional("redact", |text| {
        let names: Vec<&str> = REDACT.iter().map(|(name, _)| *name).collect();
        let chosen = value::names(text, &names)?;
        let kind = |name: &String| REDACT.iter().find(|(known, _)| known == name).map(|row| row.1);
        Ok::<_, Why>(chosen.iter().filter_map(kind).collect::<Vec<Redact>>())
    })?;
    let opt = option("redact_key_file");
    let Some((key, path)) = properties.get(opt) else {
        return Ok(Redaction { what: what.unwrap_or_default(), key: None });
    };
    let Some(what) = what else {
        return Err(properties.missing(option("redact"), Some("redact_key_file is set")));
    };
    let secret = key_file(properties, opt, &key, &path)?.get()?;
    if secret.expose().len() < REDACT_KEY_BYTES_MIN {
        let why = format!("a key of fewer than {REDACT_KEY_BYTES_MIN} bytes can be guessed");
        return Err(properties.wrong(opt, &key, &path, why));
    }
    Ok(Redaction { what, key: Some(secret) })
}

fn tls(properties: &Properties<'_>) -> Result<Tls> {
    let file = |name| properties.parse_optional(name, value::existing_file);
    let client = match (file("tls_crt_file")?, file("tls_key_file")?) {
        (Some(crt), Some(key)) => Some((crt, key)),
        (None, None) => None,
        (Some(_), None) => {
            let because = Some("tls_crt_file is set");
            return Err(properties.missing(option("tls_key_file"), because));
        }
        (None, Some(_)) => {
            let because = Some("tls_key_file is set");
            return Err(properties.missing(option("tls_crt_file"), because));
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
        if text.eq_ignore_ascii_case("off") {
            return Ok(Proxy::Off);
        }
        value::proxy_url(text).map(|()| Proxy::Url(Secret::new(text)))
    })?;
    Ok(proxy.unwrap_or(Proxy::Environment))
}

/// What to expand; `all` and `none` are the vendor's own words and stay.
fn expansions(text: &str) -> Result<Vec<String>, Why> {
    value::names(text, workload_security::EXPANSIONS)
}
