//! From a vendor's value to the one that a target wants, written as MessagePack.
//!
//! A conversion says how much of the value it took. What it did not take whole stays in the record
//! under the vendor's own name, so no conversion can lose anything.

use std::borrow::Cow;
use std::net::IpAddr;

use chrono::{Datelike as _, SecondsFormat, Timelike as _};
use memchr::memchr;

use super::table::{Convert, Delivered, Literal, Pick, Texts, Tls};
use crate::clock::Time;
use crate::msgpack::{self, Value, View};
use crate::record::parse_time;

/// How much of a value its target holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// Nothing; nothing was written.
    #[default]
    Nothing,
    /// Something of it, or something that follows from it.
    Part,
    /// All of it.
    All,
}

/// Writes what `convert` makes of a value that is not empty. [`Convert::Each`] is not for here: it
/// needs a plan.
pub fn convert(convert: &Convert, value: View<'_>, out: &mut Vec<u8>) -> Taken {
    match convert {
        Convert::Any => verbatim(value, out),
        Convert::Text if value.as_bytes().is_some() => verbatim(value, out),
        Convert::Long => match value.value() {
            Value::Unsigned(number) if i64::try_from(number).is_ok() => verbatim(value, out),
            _ => Taken::Nothing,
        },
        Convert::Digits => match value.value() {
            Value::Unsigned(number) => text(&number.to_string(), out),
            Value::Signed(number) => text(&number.to_string(), out),
            Value::Text(digits) => text(digits, out),
            _ => Taken::Nothing,
        },
        Convert::Wrapped(key, pick) => wrapped(key, *pick, value, out),
        // Some write one sender as a list of one.
        Convert::Email if value.value() == Value::Array => {
            let mut items = value.items().filter_map(|item| item.as_str());
            let taken = items.find_map(|text| {
                let taken = of_text(convert, text, value, out);
                (taken != Taken::Nothing).then_some(Taken::Part)
            });
            taken.unwrap_or_default()
        }
        _ => value.as_str().map_or(Taken::Nothing, |text| of_text(convert, text, value, out)),
    }
}

/// The conversions that read a text.
fn of_text(convert: &Convert, whole: &str, value: View<'_>, out: &mut Vec<u8>) -> Taken {
    match convert {
        Convert::MessageId => {
            let id = whole.trim_matches('<').trim_matches('>');
            if id.is_empty() { Taken::Nothing } else { text(id, out) }
        }
        Convert::Date => date(whole, value, out),
        Convert::Millis => millis(whole, out),
        Convert::Ip if whole.parse::<IpAddr>().is_ok() => verbatim(value, out),
        Convert::FirstIp => match addresses(whole).next() {
            Some((ip, _)) => part_of(whole, &ip, out),
            None => Taken::Nothing,
        },
        Convert::Address => part_of(whole, address(whole).unwrap_or(whole), out),
        Convert::Email => match address(whole).filter(|address| is_email(address)) {
            Some(address) => part_of(whole, address, out),
            None => Taken::Nothing,
        },
        Convert::Rename(pairs) => {
            let renamed = pairs.iter().find(|(from, _)| *from == whole);
            text(renamed.map_or(whole, |(_, to)| to), out)
        }
        Convert::Classify(pairs, other) => {
            let known = pairs.iter().find(|(from, _)| *from == whole);
            class(known.map_or(other, |(_, literal)| literal), out)
        }
        Convert::ClassifyStart(pairs, other) => {
            let known = pairs.iter().find(|(from, _)| whole.starts_with(from));
            class(known.map_or(other, |(_, literal)| literal), out)
        }
        Convert::Delivered(part) => delivered(*part, whole, out),
        Convert::Tls(part) => tls(*part, whole, out),
        _ => Taken::Nothing,
    }
}

/// Writes a value that stands in a table; returns whether there is one.
pub fn literal(literal: &Literal, out: &mut Vec<u8>) -> bool {
    match literal {
        Literal::None => return false,
        Literal::Text(text) => msgpack::string(out, text),
        Literal::Number(number) => msgpack::unsigned(out, *number),
        Literal::Flag(flag) => msgpack::boolean(out, *flag),
        Literal::Texts(texts) => {
            msgpack::array(out, texts.len());
            texts.iter().for_each(|text| msgpack::string(out, text));
        }
        Literal::Numbers(numbers) => {
            msgpack::array(out, numbers.len());
            numbers.iter().for_each(|&number| msgpack::unsigned(out, number));
        }
    }
    true
}

/// Writes a time as receivers of dates read it.
pub fn time(time: Time, out: &mut Vec<u8>) {
    // chrono's own writing takes as long as much of the rest of an event.
    let nanos = time.timestamp_subsec_nanos();
    let Some(year) = u32::try_from(time.year()).ok().filter(|&year| year < 10_000) else {
        return msgpack::string(out, &time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    };
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, time.month()),
        (8, 2, time.day()),
        (11, 2, time.hour()),
        (14, 2, time.minute()),
        (17, 2, time.second()),
        (20, 9, nanos % 1_000_000_000),
    ];
    for (start, digits, value) in fields {
        let mut rest = value;
        for place in text[start..start + digits].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    let end = match nanos {
        0 => 19,
        _ if nanos.is_multiple_of(1_000_000) => 23,
        _ if nanos.is_multiple_of(1_000) => 26,
        _ => 29,
    };
    text[end] = b'Z';
    msgpack::string(out, std::str::from_utf8(&text[..=end]).unwrap_or_default());
}

/// Whether a date that we can read is one in the form that every receiver reads.
#[must_use]
pub fn is_plain_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let has_zone = matches!(bytes, [.., b'Z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    has_zone && bytes.get(10) == Some(&b'T')
}

/// Hands out the texts of a field, as [`Texts`] says; returns how much of the field they are.
pub fn pick<'a>(
    Texts(_, member, pick): &Texts,
    value: View<'a>,
    each: &mut dyn FnMut(Cow<'a, str>),
) -> Taken {
    let mut tally = Tally::default();
    let mut take = |value: View<'a>| match value.as_str() {
        _ if value.is_empty() => {}
        Some(text) => tally.add(pick_text(*pick, text, each)),
        None => tally.add(Taken::Nothing),
    };
    each_item(value, &mut |item| {
        if member.is_empty() {
            take(item);
        } else if let Some(inner) = item.get(&[member]) {
            each_item(inner, &mut take);
        }
    });
    tally.total()
}

/// The elements of a list, or the value itself if it is none.
fn each_item<'a>(value: View<'a>, each: &mut dyn FnMut(View<'a>)) {
    match value.value() {
        Value::Array => value.items().for_each(each),
        _ => each(value),
    }
}

/// Adds up how much was taken of the parts of a value.
#[derive(Default)]
pub struct Tally {
    some: bool,
    lacks: bool,
}

impl Tally {
    /// Counts a part.
    pub fn add(&mut self, taken: Taken) {
        self.some |= taken != Taken::Nothing;
        self.lacks |= taken != Taken::All;
    }

    /// What that makes of the whole.
    #[must_use]
    pub fn total(&self) -> Taken {
        match (self.some, self.lacks) {
            (false, _) => Taken::Nothing,
            (true, true) => Taken::Part,
            (true, false) => Taken::All,
        }
    }
}

fn pick_text<'a>(pick: Pick, text: &'a str, each: &mut dyn FnMut(Cow<'a, str>)) -> Taken {
    let mut one = |part: Option<&'a str>| match part {
        Some(part) => {
            each(part.into());
            if part == text { Taken::All } else { Taken::Part }
        }
        None => Taken::Nothing,
    };
    match pick {
        Pick::Text | Pick::Sorted => one(Some(text)),
        Pick::Address => one(Some(address(text).unwrap_or(text))),
        Pick::Email => one(address(text).filter(|address| is_email(address))),
        Pick::DeliveredHost => one(delivery(text).0),
        Pick::DeliveredIp => one(delivery(text).1),
        Pick::Ip => list(text, each, |part| part_address(part).map(Cow::from)),
        Pick::Mac => list(text, each, mac),
    }
}

/// The parts of a comma-separated list; it is taken whole if each part is, as it stands.
fn list<'a>(
    text: &'a str,
    each: &mut dyn FnMut(Cow<'a, str>),
    read: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Taken {
    let mut tally = Tally::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some(read) = read(part) else {
            tally.add(Taken::Nothing);
            continue;
        };
        tally.add(if read == part { Taken::All } else { Taken::Part });
        each(read);
    }
    tally.total()
}

/// The IP addresses of a comma-separated list.
fn addresses(text: &str) -> impl Iterator<Item = (String, &str)> {
    text.split(',').map(str::trim).filter_map(|part| Some((part_address(part)?.to_owned(), part)))
}

/// An IP address without its zone, such as `%2`, which no receiver takes.
fn part_address(part: &str) -> Option<&str> {
    let ip = part.split('%').next()?;
    ip.parse::<IpAddr>().is_ok().then_some(ip)
}

/// A MAC address as RFC 7042 writes it.
fn mac(part: &str) -> Option<Cow<'_, str>> {
    let is_mac = part.len() == 17
        && part.bytes().enumerate().all(|(at, byte)| match at % 3 {
            2 => matches!(byte, b'-' | b':'),
            _ => byte.is_ascii_hexdigit(),
        });
    let is_plain = !part.contains(|c: char| c == ':' || c.is_ascii_lowercase());
    is_mac.then(|| {
        if is_plain { part.into() } else { part.to_ascii_uppercase().replace(':', "-").into() }
    })
}

/// The address of `"Doe, Jane" <jane@example.org>` or `jane@example.org`.
#[must_use]
pub fn address(text: &str) -> Option<&str> {
    let inner = match text.strip_suffix('>') {
        Some(rest) => rest.rfind('<').map_or(text, |at| &rest[at + 1..]),
        None => text,
    };
    let is_foreign = |byte: u8| matches!(byte, b' ' | b'<' | b'>' | b',');
    let is_plain = memchr(b'@', inner.as_bytes()).is_some() && !inner.bytes().any(is_foreign);
    (is_plain || is_quoted(inner)).then_some(inner)
}

/// Whether a text is an address like `"jane doe"@example.org`, which is rare and right.
fn is_quoted(text: &str) -> bool {
    let parts = text.strip_prefix('"').and_then(|rest| rest.split_once("\"@"));
    parts.is_some_and(|(local, domain)| !local.contains('"') && is_domain(domain))
}

/// Whether a text is a domain of two labels or more.
fn is_domain(text: &str) -> bool {
    let all = |part: &str, dots: &str| {
        let may = |c: char| c.is_ascii_alphanumeric() || c == '-' || dots.contains(c);
        !part.is_empty() && part.chars().all(may)
    };
    text.split_once('.').is_some_and(|(label, rest)| all(label, "") && all(rest, "."))
}

/// Whether a text is what OCSF calls a mail address, or one that it forgets: whose local part is
/// quoted or international.
fn is_email(text: &str) -> bool {
    let is_mark = |c: char| "!#$%&'*+,-./=?^_`{|}~".contains(c);
    let may = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || is_mark(c);
    let is_plain = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && local.chars().all(may) && is_domain(domain)
    });
    is_plain || is_quoted(text)
}

/// Host, address and port of `host[1.2.3.4]:25`, of a bare address or a bare host.
fn delivery(text: &str) -> (Option<&str>, Option<&str>, Option<u16>) {
    let ip = |text: &str| text.parse::<IpAddr>().is_ok();
    if let Some((host, rest)) = text.split_once('[') {
        let (address, port) = rest.split_once(']').unwrap_or((rest, ""));
        let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
        return (is_host(host).then_some(host), ip(address).then_some(address), port);
    }
    if ip(text) {
        return (None, Some(text), None);
    }
    (is_host(text).then_some(text), None, None)
}

fn is_host(text: &str) -> bool {
    text != "none" && text.contains('.') && !text.contains([' ', ':', '@', '/', ','])
}

fn delivered(part: Delivered, whole: &str, out: &mut Vec<u8>) -> Taken {
    match (part, delivery(whole)) {
        (Delivered::Host, (Some(host), ..)) => msgpack::string(out, host),
        (Delivered::Ip, (_, Some(ip), _)) => msgpack::string(out, ip),
        (Delivered::Port, (.., Some(port))) => msgpack::unsigned(out, port.into()),
        _ => return Taken::Nothing,
    }
    Taken::Part
}

fn tls(part: Tls, whole: &str, out: &mut Vec<u8>) -> Taken {
    let of_upstream = |part: &str| part.trim().strip_prefix("upstreamTLS:").map(str::len);
    let Some(upstream) = whole.split(';').find(|part| of_upstream(part).is_some()) else {
        return Taken::Nothing;
    };
    let protocol = upstream.trim().trim_start_matches("upstreamTLS:").trim();
    let version = protocol.strip_prefix("TLS ").filter(|version| {
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    });
    match (part, version) {
        (Tls::Version, Some(version)) => msgpack::string(out, version),
        (Tls::Established, Some(_)) => msgpack::boolean(out, true),
        (Tls::Established, None) if protocol == "None" => msgpack::boolean(out, false),
        _ => return Taken::Nothing,
    }
    Taken::Part
}

fn date(whole: &str, value: View<'_>, out: &mut Vec<u8>) -> Taken {
    if is_common_date(whole.as_bytes()) {
        return verbatim(value, out);
    }
    let Some(read) = parse_time(whole) else { return Taken::Nothing };
    if is_plain_date(whole) {
        return verbatim(value, out);
    }
    time(read, out);
    Taken::Part
}

/// Whether a text is a date such as `2023-09-28T13:55:33Z`, seen at a glance; others take a closer
/// look.
fn is_common_date(text: &[u8]) -> bool {
    let has_form = text.len() == 20
        && text.iter().zip(b"0000-00-00T00:00:00Z").all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        });
    let number = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    has_form
        && (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

fn millis(whole: &str, out: &mut Vec<u8>) -> Taken {
    let Some(read) = parse_time(whole) else { return Taken::Nothing };
    msgpack::signed(out, read.timestamp_millis());
    let is_whole = read.timestamp_subsec_nanos().is_multiple_of(1_000_000);
    if is_whole { Taken::All } else { Taken::Part }
}

fn wrapped(key: &str, pick_as: Pick, value: View<'_>, out: &mut Vec<u8>) -> Taken {
    let start = out.len();
    let at = msgpack::open(out);
    let mut count = 0;
    let taken = pick(&Texts("", "", pick_as), value, &mut |text| {
        count += 1;
        msgpack::map(out, 1);
        msgpack::string(out, key);
        msgpack::string(out, &text);
    });
    if count == 0 {
        out.truncate(start);
        return Taken::Nothing;
    }
    msgpack::close_array(out, at, count);
    taken
}

fn class(of: &Literal, out: &mut Vec<u8>) -> Taken {
    if literal(of, out) { Taken::Part } else { Taken::Nothing }
}

fn verbatim(value: View<'_>, out: &mut Vec<u8>) -> Taken {
    out.extend_from_slice(value.bytes());
    Taken::All
}

fn text(text: &str, out: &mut Vec<u8>) -> Taken {
    msgpack::string(out, text);
    Taken::All
}

fn part_of(whole: &str, part: &str, out: &mut Vec<u8>) -> Taken {
    msgpack::string(out, part);
    if part == whole { Taken::All } else { Taken::Part }
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
            assert_eq!(address(text), expected, "{text}");
        }
        assert!(is_email("a+b@c-d.example") && is_email("\"a b\"@c.example"));
        assert!(is_email("é@b.example"));
        assert!(!is_email("a@b") && !is_email("a b@c.example") && !is_email("@b.example"));
    }

    #[test]
    fn deliveries_are_taken_apart() {
        let ip = Some("1.2.3.4");
        assert_eq!(delivery("mx.example.org[1.2.3.4]:25"), (Some("mx.example.org"), ip, Some(25)));
        assert_eq!(delivery("1.2.3.4"), (None, ip, None));
        assert_eq!(delivery("mx.example.org"), (Some("mx.example.org"), None, None));
        assert_eq!(delivery("none"), (None, None, None));
        assert_eq!(delivery("x y[::1]:99999"), (None, Some("::1"), None));
    }

    proptest! {
        #[test]
        fn times_are_written_as_chrono_writes_them(
            seconds in -70_000_000_000_i64..300_000_000_000,
            nanos in prop_oneof![Just(0_u32), 0..1_999_999_999_u32, (0..999_u32).prop_map(|ms| ms * 1_000_000)],
        ) {
            let Some(moment) = Time::from_timestamp(seconds, nanos) else { return Ok(()) };
            prop_assume!(nanos < 1_000_000_000);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            time(moment, &mut ours);
            msgpack::string(&mut theirs, &moment.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn a_date_at_a_glance_is_one_at_a_closer_look(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z",
        ) {
            prop_assert!(!is_common_date(text.as_bytes()) || parse_time(&text).is_some());
        }
    }
}
