//! Keys that look like ours and are not: other tools' habits, slips of the finger, the host's own.

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
