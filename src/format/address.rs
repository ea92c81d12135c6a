//! What looks like an address: of a mailbox, a host, a machine.
//!
//! Texts are bytes here, known to be UTF-8.

use std::borrow::Cow;
use std::net::IpAddr;

use memchr::{memchr, memchr_iter, memrchr};
use wide::u8x16;

/// Of longer texts, so much is looked at in one go, with the vector instructions that every
/// processor of an architecture has.
const BLOCK_BYTES: usize = 16;

/// What the last texts were found to be: several targets ask the same of one field.
#[derive(Default)]
pub struct Memo<'a> {
    delivery: Option<(&'a [u8], Delivery<'a>)>,
    ip: Option<(&'a [u8], bool)>,
}

impl<'a> Memo<'a> {
    /// [`delivery`] of a text.
    pub fn delivery(&mut self, text: &'a [u8]) -> Delivery<'a> {
        match self.delivery {
            Some((known, delivery)) if std::ptr::eq(known, text) => delivery,
            _ => self.delivery.insert((text, delivery(text))).1,
        }
    }

    /// [`is_ip`] of a text.
    pub fn is_ip(&mut self, text: &'a [u8]) -> bool {
        match self.ip {
            Some((known, is_ip)) if std::ptr::eq(known, text) => is_ip,
            _ => self.ip.insert((text, is_ip(text))).1,
        }
    }
}

/// An IP address without its zone, such as `%2`, which no receiver takes.
pub fn part_address(part: &[u8]) -> Option<&[u8]> {
    let ip = part.split(|&byte| byte == b'%').next()?;
    is_ip(ip).then_some(ip)
}

fn is_ip(text: &[u8]) -> bool {
    is_ip_v4(text) || {
        // Nothing else is worth the parser's time.
        let is_v6 = memchr_iter(b':', text).nth(1).is_some();
        is_v6 && str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
    }
}

/// Whether a text is an IPv4 address, as the standard library reads it: four numbers up to 255,
/// without leading zeros.
fn is_ip_v4(text: &[u8]) -> bool {
    if !matches!(text, [b'0'..=b'9', ..]) || text.len() > 15 {
        return false;
    }
    let mut numbers = 0;
    let is_number = |digits: &[u8]| {
        matches!(
            *digits,
            [b'0'..=b'9']
                | [b'1'..=b'9', b'0'..=b'9']
                | [b'1', b'0'..=b'9', b'0'..=b'9']
                | [b'2', b'0'..=b'4', b'0'..=b'9']
                | [b'2', b'5', b'0'..=b'5']
        )
    };
    text.split(|&byte| byte == b'.').all(|digits| {
        numbers += 1;
        is_number(digits)
    }) && numbers == 4
}

/// A MAC address as RFC 7042 writes it.
pub fn mac(part: &[u8]) -> Option<Cow<'_, [u8]>> {
    let is_mac = part.len() == 17
        && part.iter().enumerate().all(|(at, byte)| match at % 3 {
            2 => matches!(byte, b'-' | b':'),
            _ => byte.is_ascii_hexdigit(),
        });
    let is_plain = !part.iter().any(|&byte| byte == b':' || byte.is_ascii_lowercase());
    let plain = |byte: &u8| if *byte == b':' { b'-' } else { byte.to_ascii_uppercase() };
    is_mac.then(|| {
        if is_plain { part.into() } else { part.iter().map(plain).collect::<Vec<u8>>().into() }
    })
}

/// The address of `"Doe, Jane" <jane@example.org>` or `jane@example.org`.
#[must_use]
pub fn address(text: &[u8]) -> Option<&[u8]> {
    let inner = match text.strip_suffix(b">") {
        Some(rest) => memrchr(b'<', rest).map_or(text, |at| &rest[at + 1..]),
        None => text,
    };
    let is_plain = has(inner, [b'@']) && !has(inner, [b' ', b',', b'<', b'>']);
    (is_plain || is_quoted(inner)).then_some(inner)
}

/// The same of a text that is one for Rust, too.
#[must_use]
pub fn address_in(text: &str) -> Option<&str> {
    str::from_utf8(address(text.as_bytes())?).ok()
}

/// Whether a text is an address like `"jane doe"@example.org`, which is rare and right.
fn is_quoted(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"\"") else { return false };
    // The local part ends with the first quotation mark.
    let parts = split_once(rest, b'"').and_then(|(_, rest)| rest.strip_prefix(b"@"));
    parts.is_some_and(is_domain)
}

/// Whether a text is a domain of two labels or more.
fn is_domain(text: &[u8]) -> bool {
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    split_once(text, b'.').is_some_and(|(label, rest)| {
        let is_label = !label.is_empty() && label.iter().all(may);
        is_label && !rest.is_empty() && rest.iter().all(|byte| may(byte) || *byte == b'.')
    })
}

/// Whether a text is what OCSF calls a mail address, or one that it forgets: whose local part is
/// quoted or international.
pub fn is_email(text: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+,-./=?^_`{|}~".contains(byte);
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || is_mark(byte);
    let is_plain = split_once(text, b'@').is_some_and(|(local, domain)| {
        !local.is_empty() && local.iter().all(may) && is_domain(domain)
    });
    is_plain || is_quoted(text)
}

/// What lies before and behind the first of these bytes.
fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(byte, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Where a mail was delivered to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The host's name.
    pub host: Option<&'a [u8]>,
    /// Its address.
    pub ip: Option<&'a [u8]>,
    /// The port.
    pub port: Option<u16>,
}

/// Host, address and port of `host[1.2.3.4]:25`, of a bare address or a bare host.
fn delivery(text: &[u8]) -> Delivery<'_> {
    if let Some((host, rest)) = split_once(text, b'[') {
        let (address, port) = split_once(rest, b']').unwrap_or((rest, b""));
        let port = port.strip_prefix(b":").and_then(|port| str::from_utf8(port).ok());
        return Delivery {
            host: is_host(host).then_some(host),
            ip: is_ip(address).then_some(address),
            port: port.and_then(|port| port.parse().ok()),
        };
    }
    if is_ip(text) {
        return Delivery { ip: Some(text), ..Delivery::default() };
    }
    Delivery { host: is_host(text).then_some(text), ..Delivery::default() }
}

fn is_host(text: &[u8]) -> bool {
    has(text, [b'.']) && !has(text, [b' ', b',', b':', b'/', b'@'])
}

/// Whether one of these bytes is in a text.
#[inline]
fn has<const N: usize>(text: &[u8], marks: [u8; N]) -> bool {
    let in_block = |block: &[u8; BLOCK_BYTES]| {
        let block = u8x16::new(*block);
        let is_mark = marks.iter().map(|&mark| block.simd_eq(u8x16::splat(mark)));
        is_mark.reduce(|one, other| one | other).is_some_and(u8x16::any)
    };
    match text.last_chunk() {
        // What is left behind the blocks lies in the last one's worth of bytes.
        Some(last) => in_block(last) || text.as_chunks().0.iter().any(in_block),
        None => text.iter().any(|byte| marks.contains(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_found_in_what_people_write() {
        for (text, expected) in [
            ("a@b.example", Some("a@b.example")),
            ("<a@b.example>", Some("a@b.example")),
            ("\"Doe, J\" <a@b.example>", Some("a@b.example")),
            ("\"a b\"@c.example", Some("\"a b\"@c.example")),
            ("x <\"a b\"@c.example>", Some("\"a b\"@c.example")),
            ("a@b.example, c@d.example", None),
            ("nobody", None),
            ("<>", None),
            (">", None),
        ] {
            assert_eq!(address(text.as_bytes()), expected.map(str::as_bytes), "{text}");
        }
        let is_email = |text: &str| is_email(text.as_bytes());
        assert!(is_email("a+b@c-d.example") && is_email("\"a b\"@c.example"));
        assert!(is_email("é@b.example"));
        assert!(!is_email("a@b") && !is_email("a b@c.example") && !is_email("@b.example"));
    }

    #[test]
    fn deliveries_are_taken_apart() {
        for (text, host, ip, port) in [
            ("mx.example.org[1.2.3.4]:25", Some("mx.example.org"), Some("1.2.3.4"), Some(25)),
            ("1.2.3.4", None, Some("1.2.3.4"), None),
            ("mx.example.org", Some("mx.example.org"), None, None),
            ("none", None, None, None),
            ("x y[::1]:99999", None, Some("::1"), None),
        ] {
            let (host, ip) = (host.map(str::as_bytes), ip.map(str::as_bytes));
            assert_eq!(delivery(text.as_bytes()), Delivery { host, ip, port }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_what_the_standard_library_takes(
            text in "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}|[0-9a-f:.]{0,20}|[0-9.]{0,16}",
        ) {
            prop_assert_eq!(is_ip(text.as_bytes()), text.parse::<IpAddr>().is_ok());
        }
    }
}
