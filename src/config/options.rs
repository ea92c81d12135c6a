//! `OPTIONS`: the one table that knows every property.
//!
//! The parser, its error messages, the README's table and the search for misspelt keys all read it.

use std::path::Path;

/// Where a property may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Once per stanza, never with a connector's prefix.
    Stanza,
    /// Per connector: `NAME.KEY`, or `KEY` as the default of all connectors.
    Connector,
    /// Per connector, for these products only.
    Only(&'static [&'static str]),
}

/// One property.
#[derive(Debug)]
pub struct Opt {
    /// Its name, in snake case as in the host's own plugins.
    pub name: &'static str,
    /// Where it may stand.
    pub scope: Scope,
    /// Its default, as one would write it; empty for none.
    pub default: &'static str,
    /// What is legal, for error messages and the documentation.
    pub legal: &'static str,
    /// A legal value, for error messages.
    pub example: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its value is never printed.
    pub secret: bool,
}

impl Opt {
    /// Whether a value must not be printed: an address may hold a password even where none belongs,
    /// and the key itself may stand where its file should.
    #[must_use]
    pub fn hides(&self, value: &str) -> bool {
        let may_be_key = || !value.starts_with('/') && !Path::new(value).exists();
        self.secret
            || (value.contains('@') && (value.contains("://") || self.name == "base_url"))
            || (self.name.ends_with("key_file") && may_be_key())
    }
}

const EMAIL: Scope = Scope::Only(&["email_security"]);
const CLOUD_APP: Scope = Scope::Only(&["cloud_app_security"]);
const APEX: Scope = Scope::Only(&["apex_central"]);
const WORKLOAD: Scope = Scope::Only(&["workload_security"]);
const INVENTORIES: Scope = Scope::Only(&["apex_central", "workload_security"]);
const LOGS: Scope = Scope::Only(&["email_security", "cloud_app_security"]);
const REGIONAL: Scope = Scope::Only(&["email_security", "cloud_app_security", "workload_security"]);
const TYPED: Scope = Scope::Only(&["email_security", "apex_central", "workload_security"]);

const fn opt(
    name: &'static str,
    scope: Scope,
    default: &'static str,
    legal: &'static str,
    example: &'static str,
    help: &'static str,
) -> Opt {
    Opt { name, scope, default, legal, example, help, secret: false }
}

const fn secret(opt: Opt) -> Opt {
    Opt { secret: true, ..opt }
}

/// Every property, in the order of the documentation.
pub const OPTIONS: &[Opt] = &[
    opt(
        "connector",
        Scope::Connector,
        "",
        "email_security, cloud_app_security, apex_central, workload_security",
        "email_security",
        "Which product to collect from. Required.",
    ),
    opt(
        "connectors",
        Scope::Stanza,
        "",
        "comma-separated names of letters, digits, - and _ that are no property of the host",
        "mail_eu, mail_us",
        "Names of several connectors in one stanza. Each is set with `NAME.KEY`; a key without a \
         name is the default for all.",
    ),
    opt(
        "base_url",
        Scope::Connector,
        "",
        "an https:// address, or http:// on a loopback address, without user name and password",
        "https://api.tmes.trendmicro.eu",
        "Root of the API. The scheme may be left out; a trailing `/` or a pasted path is tolerated. \
         Taken from `region` if not set.",
    ),
    opt(
        "region",
        REGIONAL,
        "us",
        "us, eu, au, jp, sg, in, uae, uk (email_security); us, eu, jp, au, uk, ca, sg, in \
         (cloud_app_security); us, au, de, sg, in, jp, ca, gb (workload_security)",
        "us",
        "Preset of `base_url`. Apex Central has none.",
    ),
    opt(
        "username",
        EMAIL,
        "",
        "the administrator's login ID, without ':'",
        "admin@example.com",
        "Administrator login ID. Required.",
    ),
    opt(
        "application_id",
        APEX,
        "",
        "the Application ID as the console shows it: letters, digits and -",
        "11111111-2222-3333-4444-555555555555",
        "Application ID of the API access. Required.",
    ),
    secret(opt(
        "api_key",
        Scope::Connector,
        "",
        "the key as the console shows it, on one line",
        "${TRENDMICRO_API_KEY}",
        "The API key. This or `api_key_file` is required.",
    )),
    opt(
        "api_key_file",
        Scope::Connector,
        "",
        "a file that holds the key and that others cannot read",
        "/etc/fluent-bit/trendmicro.key",
        "A file that holds the API key; read again when it changes.",
    ),
    opt(
        "content_types",
        TYPED,
        "all",
        "all, or a comma-separated list of accepted_traffic, blocked_traffic, policy_events \
         (email_security); agents, servers (apex_central); computers (workload_security)",
        "all",
        "What to collect.",
    ),
    opt(
        "services",
        CLOUD_APP,
        "sharepoint",
        "all, or a comma-separated list of exchange, sharepoint, onedrive, dropbox, box, \
         googledrive, gmail, teams, exchangeserver, salesforce_sandbox, salesforce_production, \
         teams_chat",
        "sharepoint, onedrive",
        "Services to collect from.",
    ),
    opt(
        "event_types",
        CLOUD_APP,
        "all",
        "all, or a comma-separated list of securityrisk, virtualanalyzer, ransomware, dlp",
        "dlp, ransomware",
        "Event types to collect of each service.",
    ),
    opt(
        "expand",
        WORKLOAD,
        "none",
        "a comma-separated list of what the Computers search can expand, such as none, all, \
         computerStatus, tasks, interfaces, antiMalware",
        "computerStatus, interfaces",
        "What each computer's record holds beside its basic fields.",
    ),
    opt(
        "interval",
        Scope::Connector,
        "60s; cloud_app_security 5m; apex_central, workload_security 1h",
        "1s to 1d, as 30, 30s, 5m, 1h or 1d",
        "60s",
        "How often to ask for what is new.",
    ),
    opt(
        "lookback",
        LOGS,
        "24h",
        "1s to 72h, as 30, 30s, 5m, 1h or 1d",
        "24h",
        "How far back a first start reaches.",
    ),
    opt(
        "overlap",
        LOGS,
        "5m",
        "0s to 24h, as 30, 30s, 5m, 1h or 1d",
        "5m",
        "How far each round reaches back behind the cursor, for records that the vendor shows late.",
    ),
    opt(
        "verify",
        LOGS,
        "on",
        "on, off",
        "on",
        "Reads everything again behind the live rounds, three times within the vendor's 72 h, to find \
         what was shown later than `overlap`. Needs `db`.",
    ),
    opt(
        "emit",
        INVENTORIES,
        "all",
        "all, changes",
        "changes",
        "Which records of an inventory are delivered: `all` every round, or those that were added, \
         changed or removed, each with `change` in its envelope.",
    ),
    opt(
        "tenant_name",
        Scope::Connector,
        "",
        "any text of at most 256 characters",
        "acme",
        "Written into each record as `tenant_name`.",
    ),
    opt(
        "format",
        Scope::Connector,
        "envelope",
        "envelope, ecs, ocsf, raw",
        "envelope",
        "`envelope` puts the vendor's record under its product's name beside `msg_class`, \
         `msg_origin` and `event_id`; `ecs` is Elastic Common Schema, `ocsf` the Open Cybersecurity \
         Schema Framework; `raw` is the vendor's record alone.",
    ),
    opt(
        "ecs_mapping",
        EMAIL,
        "full",
        "full, sekoia, sekoia_2023",
        "full",
        "With `format: ecs`: every field, or only what Sekoia.io's parser yields today, or what it \
         yielded in 2023.",
    ),
    opt(
        "redact",
        Scope::Connector,
        "",
        "a comma-separated list of subject, recipients, file_names",
        "subject, recipients",
        "Personal data of mails and files that is dropped, in every format, or hashed with the key in \
         `redact_key_file`.",
    ),
    opt(
        "redact_key_file",
        Scope::Connector,
        "",
        "a file that holds a key of at least 16 bytes and that others cannot read",
        "/etc/fluent-bit/redact.key",
        "A key: what is redacted becomes its keyed hash instead of being dropped, so that equal values \
         stay equal.",
    ),
    opt(
        "tag_format",
        Scope::Stanza,
        "",
        "text with {connector} and {content_type}",
        "trendmicro.{connector}.{content_type}",
        "A tag per connector and content type, where the host allows it; else the stanza's `tag`.",
    ),
    opt(
        "rate_limit",
        Scope::Connector,
        "none; cloud_app_security 18",
        "none, or 1 to 6000 requests per minute",
        "60",
        "Requests per minute, shared by everything in the process that uses the same credential.",
    ),
    opt(
        "timeout",
        Scope::Connector,
        "60s",
        "1s to 10m, as 30, 30s, 5m",
        "60s",
        "Time for one request, its answer included.",
    ),
    opt(
        "queue_limit",
        Scope::Stanza,
        "16M",
        "1M to 1G, as 16M or 16000000",
        "16M",
        "Bytes fetched but not yet confirmed by the host, all connectors together.",
    ),
    opt(
        "handover",
        Scope::Stanza,
        "auto",
        "auto, append, return",
        "auto",
        "How records reach the host: by its exported append function, or returned from the callback.",
    ),
    opt(
        "db",
        Scope::Stanza,
        "",
        "a file path whose directory exists and can be written to, or postgres://USER@HOST/DATABASE",
        "/var/lib/fluent-bit/trendmicro.db",
        "State file: cursors and the ledger of delivered records; or a PostgreSQL database that \
         several hosts share. Without it, nothing is remembered across restarts.",
    ),
    opt(
        "db.sync",
        Scope::Stanza,
        "normal",
        "extra, full, normal, off",
        "normal",
        "How hard the state file is synchronised, as in the host's `tail`.",
    ),
    opt(
        "db_password_file",
        Scope::Stanza,
        "",
        "a file that only the host's user can read, with the password of a postgres:// db",
        "/etc/fluent-bit/trendmicro-db.password",
        "Password for the database, read again whenever the file changes.",
    ),
    opt(
        "db_ca_file",
        Scope::Stanza,
        "",
        "a PEM file with at least one certificate, for a postgres:// db",
        "/etc/fluent-bit/db-ca.pem",
        "Certificates to trust for the database beside the system's.",
    ),
    opt(
        "lease_timeout",
        Scope::Stanza,
        "30s",
        "a duration from 3s to 10m, for a postgres:// db",
        "30s",
        "After what time of silence another host takes this one's connectors over.",
    ),
    opt(
        "tls_verify",
        Scope::Connector,
        "on",
        "on, off",
        "on",
        "Whether the vendor's certificate is verified.",
    ),
    opt(
        "tls_ca_file",
        Scope::Connector,
        "",
        "a PEM file with at least one certificate",
        "/etc/ssl/certs/proxy-ca.pem",
        "Certificates to trust beside the system's.",
    ),
    opt(
        "tls_crt_file",
        Scope::Connector,
        "",
        "a PEM file with a certificate, together with tls_key_file",
        "/etc/fluent-bit/client.crt",
        "Client certificate.",
    ),
    opt(
        "tls_key_file",
        Scope::Connector,
        "",
        "a PEM file with a private key, together with tls_crt_file",
        "/etc/fluent-bit/client.key",
        "Key of the client certificate.",
    ),
    opt(
        "tls_min_version",
        Scope::Connector,
        "1.2",
        "1.2, 1.3",
        "1.2",
        "Oldest TLS version to speak.",
    ),
    secret(opt(
        "proxy",
        Scope::Connector,
        "",
        "an http:// or https:// address, or off",
        "http://proxy.example.com:3128",
        "Proxy for requests; `off` ignores the environment's. By default the environment decides.",
    )),
];

/// The option of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|opt| opt.name == name)
}

/// Keys that people write from other tools' habits, and what they mean here.
pub const MISTAKEN: &[(&str, &str)] = &[
    ("api_token", "api_key"),
    ("auth_token", "api_key"),
    ("bearer_token", "api_key"),
    ("buffer_limit", "queue_limit"),
    ("ca_file", "tls_ca_file"),
    ("appid", "application_id"),
    ("content_type", "content_types"),
    ("database", "db"),
    ("database_file", "db"),
    ("db.file", "db"),
    ("db.path", "db"),
    ("db_file", "db"),
    ("db_path", "db"),
    ("db_sync", "db.sync"),
    ("endpoint", "base_url"),
    ("event_type", "event_types"),
    ("http_proxy", "proxy"),
    ("insecure", "tls_verify"),
    ("interval_min", "interval"),
    ("interval_sec", "interval"),
    ("key", "api_key"),
    ("key_file", "api_key_file"),
    ("login", "username"),
    ("password", "api_key"),
    ("poll_interval", "interval"),
    ("product", "connector"),
    ("refresh_interval", "interval"),
    ("request_timeout", "timeout"),
    ("secret", "api_key"),
    ("service", "services"),
    ("service_url", "base_url"),
    ("since", "lookback"),
    ("ssl_verify", "tls_verify"),
    ("state_file", "db"),
    ("tag_prefix", "tag_format"),
    ("tenant", "tenant_name"),
    ("tls.ca_file", "tls_ca_file"),
    ("tls.crt_file", "tls_crt_file"),
    ("tls.key_file", "tls_key_file"),
    ("tls.min_version", "tls_min_version"),
    ("tls.verify", "tls_verify"),
    ("token", "api_key"),
    ("type", "connector"),
    ("uri", "base_url"),
    ("url", "base_url"),
    ("user", "username"),
    ("verify_ssl", "tls_verify"),
    ("verify_tls", "tls_verify"),
];

/// Of these, keys whose value does not mean the same here: the opposite, minutes, a beginning.
pub const OTHERWISE_MEANT: &[&str] = &["insecure", "interval_min", "tag_prefix"];

/// Names that the host keeps for itself, and ours that hold a dot: a connector called so would have
/// its properties taken for something else.
pub const RESERVED: &[&str] = &[
    "alias",
    "db",
    "host",
    "ipv6",
    "listen",
    "log_level",
    "log_suppress_interval",
    "match",
    "mem_buf_limit",
    "name",
    "net",
    "port",
    "processors",
    "rate_gate",
    "rate_window",
    "routable",
    "routes",
    "storage",
    "tag",
    "telemetry",
    "thread",
    "threaded",
    "tls",
];

/// Ways in which fingers miss `name`: a letter left out, doubled or swapped, `-` for `_`, no `_`.
pub fn misspellings(name: &str) -> impl Iterator<Item = String> + use<'_> {
    let at = move |i: usize| (&name[..i], &name[i..=i], &name[i + 1..]);
    let left_out = (0..name.len()).map(move |i| {
        let (before, _, after) = at(i);
        format!("{before}{after}")
    });
    let doubled = (0..name.len()).map(move |i| {
        let (before, letter, after) = at(i);
        format!("{before}{letter}{letter}{after}")
    });
    let swapped = (1..name.len()).map(move |i| {
        let (before, letter, after) = at(i);
        format!("{}{letter}{}{after}", &before[..i - 1], &before[i - 1..])
    });
    left_out.chain(doubled).chain(swapped).chain([name.replace('_', "-"), name.replace('_', "")])
}
