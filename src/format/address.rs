//! What looks like an address: of a mailbox, a host, a machine; and what else is read in a text of
//! several parts.
//!
//! Texts are bytes here, known to be UTF-8.

use std::borrow::Cow;

use memchr::{memchr, memrchr};
use wide::u8x16;

/// Of longer texts, so much is looked at in one go, with the vector instructions that every
/// processor of an architecture has.
const BLOCK_BYTES: usize = 16;

/// What stands before the protocol that the sender spoke.
const UPSTREAM: &[u8] = b"upstreamTLS:";

/// So many texts are remembered to be addresses or none: those of a machine.
const IPS_KEPT: usize = 4;

/// What the last texts were found to be: several targets ask the same of one field.
#[derive(Default)]
pub struct Memo<'a> {
    delivery: Last<'a, Delivery<'a>>,
    protocol: Last<'a, Protocol<'a>>,
    ips: [(&'a [u8], bool); IPS_KEPT],
    next_ip: usize,
}

impl<'a> Memo<'a> {
    /// [`delivery`] of a text.
    pub fn delivery(&mut self, text: &'a [u8]) -> &Delivery<'a> {
        self.delivery.of(text, delivery)
    }

    /// [`protocol`] of a text.
    pub fn protocol(&mut self, text: &'a [u8]) -> &Protocol<'a> {
        self.protocol.of(text, protocol)
    }

    /// [`is_ip`] of a text.
    pub fn is_ip(&mut self, text: &'a [u8]) -> bool {
        if let Some((_, is_ip)) = self.ips.iter().find(|(known, _)| std::ptr::eq(*known, text)) {
            return *is_ip;
        }
        let is_ip = is_ip(text);
        self.ips[self.next_ip % IPS_KEPT] = (text, is_ip);
        self.next_ip += 1;
        is_ip
    }

    /// An IP address without its zone, such as `%2`, which no receiver takes.
    pub fn part_address(&mut self, part: &'a [u8]) -> Option<&'a [u8]> {
        let ip = memchr(b'%', part).map_or(part, |zone| &part[..zone]);
        self.is_ip(ip).then_some(ip)
    }
}

/// The last text that was read, and what was read in it.
#[derive(Default)]
struct Last<'a, T> {
    text: &'a [u8],
    value: T,
}

impl<'a, T> Last<'a, T> {
    /// What `read` makes of a text that is not empty.
    #[inline(always)]
    fn of(&mut self, text: &'a [u8], read: impl FnOnce(&'a [u8]) -> T) -> &T {
        if !std::ptr::eq(self.text, text) {
            *self = Self { text, value: read(text) };
        }
        &self.value
    }
}

/// Whether a text is an address as the standard library reads it, whose parser takes ten times as
/// long to say so.
fn is_ip(text: &[u8]) -> bool {
    is_ip_v4(text) || is_ip_v6(text)
}

/// Whether a text is an IPv4 address: four numbers up to 255, without leading zeros.
///
/// How many digits a number has is hard to foresee, so nothing here depends on it: of each question, a
/// bit tells the answer for each byte.
fn is_ip_v4(text: &[u8]) -> bool {
    if text.len() >= BLOCK_BYTES {
        return false;
    }
    let block = u8x16::new(padded(text));
    let is = |byte: u8| block.simd_eq(u8x16::splat(byte)).to_bitmask();
    let up_to = |byte: u8| block.simd_eq(block.min(u8x16::splat(byte))).to_bitmask();
    let (dots, below) = (is(b'.'), up_to(b'0' - 1));
    let digits = up_to(b'9') & !below;
    let starts = dots << 1 | 1;
    // The first digits of numbers with two digits or more, and with three.
    let (twos, threes) = (starts & digits >> 1, starts & digits >> 1 & digits >> 2);
    let up_to_255 = up_to(b'4') >> 1 | (is(b'5') >> 1 & up_to(b'5') >> 2);
    (digits | dots) == (1 << text.len()) - 1
        && dots.count_ones() == 3
        && starts & !digits == 0
        && threes & digits >> 3 == 0
        && twos & is(b'0') == 0
        && threes & !(is(b'1') | is(b'2') & up_to_255) == 0
}

/// A text of fewer bytes than a block has, and zeros behind it.
#[inline(always)]
fn padded(text: &[u8]) -> [u8; BLOCK_BYTES] {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        // What is in both is the same in both.
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        let last = u128::from(last) << (8 * (text.len() - 8));
        return (u128::from(first) | last).to_le_bytes();
    }
    let mut block = [0; BLOCK_BYTES];
    block[..text.len()].copy_from_slice(text);
    block
}

/// Whether a text is an IPv6 address: eight groups of up to four digits, of which two colons stand for
/// one or more, and an IPv4 address for the last two.
fn is_ip_v6(text: &[u8]) -> bool {
    const GROUPS: usize = 8;
    let (mut groups, mut is_shortened, mut rest) = (0, false, text);
    loop {
        let length = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if rest.get(length) == Some(&b'.') {
            groups += 2;
            return is_ip_v4(rest) && if is_shortened { groups < GROUPS } else { groups == GROUPS };
        }
        groups += usize::from(length > 0);
        let is_start = rest.len() == text.len();
        match &rest[length..] {
            _ if length > 4 || groups > GROUPS => return false,
            // Only two colons can have no group on one side.
            [b':', b':', after @ ..] if !is_shortened && (length > 0 || is_start) => {
                (is_shortened, rest) = (true, after);
                if after.is_empty() {
                    return groups < GROUPS;
                }
            }
            [b':', after @ ..] if length > 0 && !after.is_empty() => rest = after,
            [] if length > 0 => {
                return if is_shortened { groups < GROUPS } else { groups == GROUPS };
            }
            _ => return false,
        }
    }
}

/// A MAC address as RFC 7042 writes it.
pub fn mac(part: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (pairs, last) = part.as_chunks::<3>();
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let is_pair = |pair: &[u8; 3]| is_hex(&pair[..2]) && matches!(pair[2], b'-' | b':');
    let is_mac = pairs.len() == 5 && last.len() == 2 && pairs.iter().all(is_pair) && is_hex(last);
    let is_plain = !part.iter().any(|&byte| byte == b':' || byte.is_ascii_lowercase());
    let plain = |byte: &u8| if *byte == b':' { b'-' } else { byte.to_ascii_uppercase() };
    is_mac.then(|| {
        if is_plain { part.into() } else { part.iter().map(plain).collect::<Vec<u8>>().into() }
    })
}

/// The address of `"Doe, Jane" <jane@example.org>` or `jane@example.org`.
// Inlined, it would have its callers load what few texts need.
#[inline(never)]
#[must_use]
pub fn address(text: &[u8]) -> Option<&[u8]> {
    let inner = match text.strip_suffix(b">") {
        Some(rest) => memrchr(b'<', rest).map_or(text, |at| &rest[at + 1..]),
        None => text,
    };
    let is_plain = has_but_none(inner, b'@', [b' ', b',', b'<', b'>']);
    (is_plain || is_quoted(inner)).then_some(inner)
}

/// The same of a text that is one for Rust, too.
#[must_use]
pub fn address_in(text: &str) -> Option<&str> {
    str::from_utf8(address(text.as_bytes())?).ok()
}

/// The address of `Jane <jane@example.org>`; any other text as it is.
#[inline]
pub fn bare(text: &[u8]) -> &[u8] {
    // All others are their own address or have none, which comes to the same.
    if text.ends_with(b">") { address(text).unwrap_or(text) } else { text }
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

/// How a mail came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Protocol<'a> {
    /// The version of TLS.
    pub version: Option<&'a [u8]>,
    /// Whether it was encrypted.
    pub is_encrypted: Option<bool>,
}

/// What `upstreamTLS: TLS 1.2; downstreamTLS: None` says of the sender.
fn protocol(text: &[u8]) -> Protocol<'_> {
    let Some(protocol) = split(text, b';').find_map(|side| side.strip_prefix(UPSTREAM)) else {
        return Protocol::default();
    };
    let protocol = protocol.trim_ascii();
    let version = protocol.strip_prefix(b"TLS ").filter(|version| {
        !version.is_empty() && version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    });
    let is_encrypted = match version {
        Some(_) => Some(true),
        None => (protocol == b"None").then_some(false),
    };
    Protocol { version, is_encrypted }
}

/// What stands before, between and behind these bytes, without white space around it.
pub fn split(text: &[u8], byte: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr(byte, text);
        rest = end.map(|end| &text[end + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim_ascii())
    })
}

/// Where a mail was delivered to.
#[derive(Debug, Default, PartialEq, Eq)]
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

/// Whether a text looks like a host's name.
fn is_host(text: &[u8]) -> bool {
    has_but_none(text, b'.', [b' ', b',', b':', b'/', b'@'])
}

/// Whether a byte is in a text, and none of the others is.
#[inline]
fn has_but_none<const N: usize>(text: &[u8], wanted: u8, others: [u8; N]) -> bool {
    let none = u8x16::splat(0);
    let look = |(has, has_other): (u8x16, u8x16), block: &[u8; BLOCK_BYTES]| {
        let block = u8x16::new(*block);
        let is_other = others.iter().map(|&other| block.simd_eq(u8x16::splat(other)));
        let has_other = is_other.fold(has_other, |one, other| one | other);
        (has | block.simd_eq(u8x16::splat(wanted)), has_other)
    };
    // What is left behind the blocks lies in the last one's worth of bytes.
    let Some(last) = text.last_chunk() else {
        return text.contains(&wanted) && !text.iter().any(|byte| others.contains(byte));
    };
    let (has, has_other) = text.as_chunks().0.iter().fold(look((none, none), last), look);
    has.any() && !has_other.any()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

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

    #[test]
    fn numbers_of_addresses_are_what_the_standard_library_takes() {
        for number in 0..1000 {
            for number in [format!("{number}"), format!("{number:02}"), format!("{number:04}")] {
                for text in [format!("{number}.1.22.333"), format!("{number}.1.22.99")] {
                    let swapped: Vec<&str> = text.rsplit('.').collect();
                    for text in [swapped.join("."), text] {
                        assert_eq!(
                            is_ip(text.as_bytes()),
                            text.parse::<IpAddr>().is_ok(),
                            "{text}"
                        );
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn addresses_are_what_the_standard_library_takes(
            text in "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}|[0-9a-f:.]{0,20}|[0-9.]{0,16}\
                |[0-9./:a]{7,15}|([0-9a-fA-F]{0,4}::?){0,9}([0-9a-f]{0,5}|[0-9]{1,3}(\\.[0-9]{1,3}){2,4})",
        ) {
            prop_assert_eq!(is_ip(text.as_bytes()), text.parse::<IpAddr>().is_ok());
        }
    }
}
