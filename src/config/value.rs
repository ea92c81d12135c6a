//! From a property's text to its value. Each function returns what is wrong, in a few words; the
//! caller adds the property, what is legal and what to write.

use std::net::IpAddr;
use std::time::Duration;

use url::{Host, Url};

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
    let kept = url.path().find(api_root).map_or(url.path(), |at| &url.path()[..at]);
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
    if text == "none" || text == "off" || text == "0" {
        return Ok(None);
    }
    let digits = text.strip_suffix("/min").unwrap_or(text);
    match digits.parse() {
        Ok(rate @ 1..=6000) => Ok(Some(rate)),
        Ok(_) => Err("out of range"),
        Err(_) => Err("not a number of requests per minute"),
    }
}

/// Reads a choice of names; `all` is an empty list.
pub fn choices(text: &str, legal: &[&str]) -> Result<Vec<String>, &'static str> {
    if text == "all" {
        return Ok(Vec::new());
    }
    let chosen = list(text)?;
    if chosen.iter().all(|name| legal.contains(name)) {
        return Ok(chosen.into_iter().map(str::to_owned).collect());
    }
    Err("not one of the legal values")
}

/// Splits a comma-separated list; empty items are refused.
pub fn list(text: &str) -> Result<Vec<&str>, &'static str> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    if items.iter().any(|item| item.is_empty()) {
        return Err("an empty item in the list");
    }
    Ok(items)
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
    }
}
