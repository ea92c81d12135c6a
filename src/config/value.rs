//! From a property's text to its value. Each function returns what is wrong, in a few words; the
//! caller adds the property, what is legal and what to write.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::{Host, Url};

use crate::secret::Secret;

const TENANT_CHARS_MAX: usize = 256;
/// What a tag may hold beside plain text.
const PLACEHOLDERS: &[&str] = &["{connector}", "{content_type}"];

/// Why a value is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Why {
    /// In a few words, which show nothing of the value.
    pub words: Cow<'static, str>,
    /// The part of the value that is meant, for values that may be shown.
    pub part: Option<String>,
}

impl Why {
    /// The words, followed by the part.
    pub fn of(words: &'static str, part: &str) -> Self {
        Self { words: words.into(), part: Some(part.to_owned()) }
    }
}

impl From<&'static str> for Why {
    fn from(words: &'static str) -> Self {
        Self { words: words.into(), part: None }
    }
}

impl From<String> for Why {
    fn from(words: String) -> Self {
        Self { words: words.into(), part: None }
    }
}

/// The root of a vendor's API: scheme, host, port and perhaps a path, without a trailing `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// The root as text, without a trailing `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Whether requests never leave this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// The path before the API's own, without a trailing `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

/// Reads a base URL; what follows `api_root` in a pasted address is cut off.
pub fn base_url(text: &str, api_root: &str) -> Result<BaseUrl, &'static str> {
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|_| "not an address")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password, which belong into other properties");
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("plain http would send the key in the clear"),
        _ => return Err("not an http address"),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("no host in it");
    }
    // The servers do not mind case, and browsers show an address as it was typed.
    let at = url.path().to_ascii_lowercase().find(&api_root.to_ascii_lowercase());
    let kept = at.map_or(url.path(), |at| &url.path()[..at]);
    let kept = kept.trim_end_matches('/').to_owned();
    url.set_path(&kept);
    url.set_query(None);
    url.set_fragment(None);
    Ok(BaseUrl(url))
}

/// Reads a duration between two bounds.
pub fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, &'static str> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_secs = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("not a duration"),
    };
    let count: u64 = digits.parse().map_err(|_| "not a duration")?;
    let duration = Duration::from_secs(count.checked_mul(unit_secs).ok_or("out of range")?);
    if (min..=max).contains(&duration) { Ok(duration) } else { Err("out of range") }
}

/// Reads a size in bytes between two bounds; `k`, `M` and `G` are decimal, as in the host.
pub fn size(text: &str, min: usize, max: usize) -> Result<usize, &'static str> {
    let text = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        _ => return Err("not a size"),
    };
    let count: usize = digits.parse().map_err(|_| "not a size")?;
    let size = count.checked_mul(unit).ok_or("out of range")?;
    if (min..=max).contains(&size) { Ok(size) } else { Err("out of range") }
}

/// Reads a switch.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("neither on nor off"),
    }
}

/// Reads requests per minute; `None` is no limit.
pub fn rate(text: &str) -> Result<Option<u32>, &'static str> {
    let text = text.to_ascii_lowercase();
    if ["none", "off", "0"].contains(&text.as_str()) {
        return Ok(None);
    }
    let digits = text.strip_suffix("/min").unwrap_or(&text);
    match digits.parse() {
        Ok(rate @ 1..=6000) => Ok(Some(rate)),
        Ok(_) => Err("out of range"),
        Err(_) => Err("not a number of requests per minute"),
    }
}

/// Reads one word of several.
pub fn choice<T: Copy>(text: &str, legal: &[(&str, T)]) -> Result<T, &'static str> {
    let found = legal.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or("unknown")
}

/// Reads a choice of names; `all` is an empty list.
pub fn choices(text: &str, legal: &[&str]) -> Result<Vec<String>, Why> {
    if text.eq_ignore_ascii_case("all") { Ok(Vec::new()) } else { names(text, legal) }
}

/// Reads a list of names, each spelt as in `legal`.
pub fn names(text: &str, legal: &[&str]) -> Result<Vec<String>, Why> {
    let known = |item: &str| {
        let found = legal.iter().find(|name| name.eq_ignore_ascii_case(item));
        found.map(|&name| name.to_owned()).ok_or_else(|| match item == text {
            // Alone it needs no repeating.
            true => "unknown".into(),
            false => Why::of("unknown item", item),
        })
    };
    list(text)?.into_iter().map(known).collect()
}

/// Splits a comma-separated list; empty items are refused.
pub fn list(text: &str) -> Result<Vec<&str>, Why> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    match items.iter().position(|item| item.is_empty()) {
        Some(at) => Err(format!("item {} of the list is empty", at + 1).into()),
        None => Ok(items),
    }
}

/// Reads a login ID.
pub fn username(text: &str) -> Result<String, &'static str> {
    // Basic authentication ends the name at the first colon.
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err("holds ':' or a control character");
    }
    Ok(text.to_owned())
}

/// Reads an application ID.
pub fn application_id(text: &str) -> Result<String, &'static str> {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Ok(text.to_owned());
    }
    Err("other characters than letters, digits and -")
}

/// Reads a tenant's name.
pub fn tenant_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > TENANT_CHARS_MAX { Err("too long") } else { Ok(text.to_owned()) }
}

/// Reads a tag with placeholders.
pub fn tag_format(text: &str) -> Result<String, Why> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        let (placeholder, after) = from.split_at(from.find('}').map_or(from.len(), |i| i + 1));
        if !PLACEHOLDERS.contains(&placeholder) {
            return Err(Why::of("unknown placeholder", placeholder));
        }
        rest = after;
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("white space, which no tag may hold".into());
    }
    Ok(text.to_owned())
}

/// Reads the path of a file that is there.
pub fn existing_file(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_file() { Ok(path) } else { Err("no such file") }
}

/// The address of a database.
pub struct Database {
    /// As it was written.
    pub address: Secret,
    /// Without the password.
    pub shown: String,
    /// Whether there is a password in it.
    pub has_password: bool,
    /// Whether TLS is spoken.
    pub is_tls: bool,
}

/// Whether what stands in `db` is an address and no path.
#[must_use]
pub fn is_database(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("postgres"))
}

/// Reads the address of a database, in which there may be a password.
pub fn database(text: &str) -> Result<Database, Why> {
    let mut url = Url::parse(text).map_err(|_| "not a postgres:// address")?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err("not a postgres:// address".into());
    }
    if url.path().trim_matches('/').is_empty() {
        return Err("no database in it".into());
    }
    let mut is_tls = true;
    for (name, value) in url.query_pairs() {
        match (&*name, &*value) {
            ("sslmode", "disable") => is_tls = false,
            // TLS without verification does not exist here, so these mean the same.
            ("sslmode", "require" | "verify-ca" | "verify-full") => {}
            ("sslmode", _) => return Err("sslmode that is neither verify-full nor disable".into()),
            ("password", _) => return Err("password behind the question mark".into()),
            _ => {}
        }
    }
    let has_password = url.password().is_some();
    // This fails only for addresses without a host, which have no password either.
    let _ = url.set_password(None);
    Ok(Database { address: Secret::new(text), shown: url.to_string(), has_password, is_tls })
}

/// Reads the path of a file that may have to be made.
pub fn state_file(text: &str) -> Result<PathBuf, Why> {
    // SQLite has names of its own for what is no file, and forgets what it was told there.
    if text.contains("://") || text.starts_with("file:") || text == ":memory:" {
        return Err("not a file path".into());
    }
    let path = PathBuf::from(text);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(Why::of("no directory", &parent.display().to_string()));
    }
    if path.is_dir() { Err("a directory".into()) } else { Ok(path) }
}

/// Reads the address of a proxy, which is a secret: of a wrong one, its scheme may be shown.
pub fn proxy_url(text: &str) -> Result<(), Why> {
    let url = Url::parse(text).map_err(|_| "not an address")?;
    let scheme = url.scheme();
    // Without the slashes this may be a user name, or a host before its port.
    let is_scheme = text.get(scheme.len()..).is_some_and(|rest| rest.starts_with("://"));
    match (scheme, url.host_str()) {
        ("http" | "https", Some(_)) => Ok(()),
        ("http" | "https", None) => Err("no host in it".into()),
        _ if is_scheme => Err(format!("an address with {scheme}://").into()),
        _ => Err("not an http address".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tolerant_of_what_people_paste_and_strict_about_safety() {
        let ok = |text| base_url(text, "/api/v1").unwrap().as_str().to_owned();
        for text in [
            "api.tmes.trendmicro.eu",
            " https://api.tmes.trendmicro.eu/".trim(),
            "HTTPS://API.tmes.trendmicro.eu",
            "https://api.tmes.trendmicro.eu/api/v1/log/mailtrackinglog?type=accepted_traffic",
        ] {
            assert_eq!(ok(text), "https://api.tmes.trendmicro.eu", "{text}");
        }
        assert_eq!(ok("http://127.0.0.1:8080/x/"), "http://127.0.0.1:8080/x");
        assert_eq!(ok("http://[::1]:8080"), "http://[::1]:8080");
        assert_eq!(ok("http://localhost:1/api/v1"), "http://localhost:1");
        for (text, expected) in [
            ("http://api.tmes.trendmicro.eu", "in the clear"),
            ("http://127.0.0.1.example.com", "in the clear"),
            ("ftp://x", "not an http address"),
            ("https://", "not an address"),
            ("https://a b", "not an address"),
            ("https://admin:pw@x", "user name"),
        ] {
            assert!(base_url(text, "/api").unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn durations_sizes_and_rates_have_units_and_bounds() {
        let secs = |text| {
            duration(text, Duration::from_secs(1), Duration::from_secs(86_400)).map(|d| d.as_secs())
        };
        assert_eq!(
            [secs("30"), secs("30s"), secs("5m"), secs("1h"), secs("1d")].map(Result::unwrap),
            [30, 30, 300, 3600, 86_400]
        );
        for bad in ["", "s", "5x", "-1", "1.5h", "0", "2d", "99999999999999999999", "1 h"] {
            assert!(secs(bad).is_err(), "{bad}");
        }
        assert_eq!(size("16M", 1, 1 << 40), Ok(16_000_000));
        assert_eq!(size("16MB", 1, 1 << 40), Ok(16_000_000));
        assert_eq!(size("500k", 1, 1 << 40), Ok(500_000));
        assert!(size("16X", 1, 1 << 40).is_err() && size("1", 2, 3).is_err());
        assert_eq!(
            [rate("none"), rate("18"), rate("18/min")],
            [Ok(None), Ok(Some(18)), Ok(Some(18))]
        );
        assert!(rate("6001").is_err() && rate("fast").is_err());
        assert_eq!([rate("None"), rate("18/MIN")], [Ok(None), Ok(Some(18))]);
    }

    #[test]
    fn words_are_read_in_any_case_and_kept_in_ours() {
        let legal = ["dlp", "teams_chat"];
        assert_eq!(choices("ALL", &legal), Ok(Vec::new()));
        assert_eq!(choices("Teams_Chat ,DLP", &legal).unwrap(), ["teams_chat", "dlp"]);
        assert_eq!(choices("dlp, x", &legal), Err(Why::of("unknown item", "x")));
        assert_eq!(names("all", &legal), Err("unknown".into()));
        assert_eq!(list("a,b,,c"), Err("item 3 of the list is empty".into()));
    }

    #[test]
    fn of_a_wrong_proxy_only_a_scheme_is_shown() {
        assert_eq!(proxy_url("http://user:pw@p:1"), Ok(()));
        let words = |text| proxy_url(text).unwrap_err().words.into_owned();
        assert_eq!(words("socks5://user:pw@p:1"), "an address with socks5://");
        for text in ["user:pw@p:1", "p:3128", "p", "pw:p://x"] {
            let words = words(text);
            assert!(["not an address", "not an http address"].contains(&words.as_str()), "{words}");
        }
    }

    #[test]
    fn an_unknown_placeholder_is_found_wherever_it_stands() {
        assert!(tag_format("a.{connector}.{content_type}{connector}").is_ok());
        for (text, part) in [
            ("{connector}.{tenant}", "{tenant}"),
            ("{{connector}}", "{{connector}"),
            ("{connector", "{connector"),
            ("a}{connector}", "}"),
            ("{}", "{}"),
        ] {
            assert_eq!(tag_format(text), Err(Why::of("unknown placeholder", part)), "{text}");
        }
    }

    #[test]
    fn a_state_file_is_a_file() {
        for text in [":memory:", "file:state.db?mode=memory", "postgres://h/d", "/", "/none/x.db"] {
            assert!(state_file(text).is_err(), "{text}");
        }
        assert!(state_file("state.db").is_ok());
    }
}
