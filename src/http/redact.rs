//! Secrets taken out of what may be shown: a vendor or a proxy may repeat what it was sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

use crate::config::Proxy;
use crate::secret::Secret;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";
/// So much of a secret's beginning is enough to take it out: texts are cut, and half a key is worth
/// hiding too.
const BEGINNING_BYTES: usize = 8;
/// Where the environment names proxies.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// Replaces `secret`, also as an address or a JSON text spells it, and what of it a cut has left.
pub fn hide(text: &str, secret: &Secret) -> String {
    let plain = secret.expose();
    let in_address = Zeroizing::new(utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string());
    let in_json = Zeroizing::new(plain.replace('/', "\\/"));
    let spellings = [plain, &in_address, &in_json];
    let (mut shown, mut rest) = (String::new(), text);
    loop {
        let found = spellings.iter().filter_map(|spelling| {
            let beginning = &spelling[..spelling.floor_char_boundary(BEGINNING_BYTES)];
            let at = rest.find(beginning).filter(|_| !beginning.is_empty())?;
            let pairs = rest[at..].bytes().zip(spelling.bytes());
            Some((at, pairs.take_while(|(one, two)| one == two).count()))
        });
        // The first, and of those that begin there the longest.
        let first = found.min_by_key(|&(at, length)| (at, std::cmp::Reverse(length)));
        let Some((at, length)) = first else { return shown + rest };
        shown.extend([&rest[..at], REDACTED]);
        rest = &rest[rest.floor_char_boundary(at + length)..];
    }
}

/// What the proxies of a connector are sent that is secret.
pub fn proxy_secrets(proxy: &Proxy) -> Vec<Secret> {
    let addresses = match proxy {
        Proxy::Off => Vec::new(),
        Proxy::Url(address) => vec![address.clone()],
        Proxy::Environment => {
            let value = |name| std::env::var(name).ok().map(Zeroizing::new);
            PROXY_VARIABLES.into_iter().filter_map(value).map(|text| Secret::new(&text)).collect()
        }
    };
    addresses.iter().flat_map(of_address).collect()
}

/// The password in an address, and what Basic authentication makes of it.
fn of_address(address: &Secret) -> Vec<Secret> {
    let Ok(url) = Url::parse(address.expose()) else { return Vec::new() };
    let Some(written) = url.password() else { return Vec::new() };
    let decode = |text| Zeroizing::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
    let (username, password) = (decode(url.username()), decode(written));
    let pair = Zeroizing::new(format!("{}:{}", *username, *password));
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    [written, &password, &encoded].map(Secret::new).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_spelling_and_cut_off_too() {
        for (secret, said, shown) in [
            (
                "open sesame",
                "open%20sesame, open sesame, open ses",
                "[redacted], [redacted], [redacted]",
            ),
            ("open sesame", "open the door", "open the door"),
            ("1234567890/1a/2b", r#"{"key":"1234567890\/1a\/2b"}"#, r#"{"key":"[redacted]"}"#),
            ("1234567890/1a/2b", "x1234567890%2F1a%2F2b&", "x[redacted]&"),
            ("1234567890/1a/2b", "x12345678", "x[redacted]"),
            ("käse-und-brot", "käse-u", "käse-u"),
            ("käse-und-brot", "käse-und", "[redacted]"),
            ("key", "monkey keys", "mon[redacted] [redacted]s"),
            ("", "nothing", "nothing"),
        ] {
            assert_eq!(hide(said, &Secret::new(secret)), shown);
        }
    }

    #[test]
    fn a_proxys_password_is_known_as_it_is_written_meant_and_sent() {
        let secrets = |proxy: &Proxy| -> Vec<String> {
            proxy_secrets(proxy).iter().map(|secret| secret.expose().to_owned()).collect()
        };
        let of = |address| secrets(&Proxy::Url(Secret::new(address)));
        assert_eq!(of("http://user:w%40rd@h:1"), ["w%40rd", "w@rd", "dXNlcjp3QHJk"]);
        assert!(of("http://h:1").is_empty() && secrets(&Proxy::Off).is_empty());
    }
}
